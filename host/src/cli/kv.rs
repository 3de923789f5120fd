//! `wasmta kv`: see what policies remember, and have them forget it.

use std::io::{self, Write as _};

use super::queue::{printable, short};
use super::{Failure, Place, code, print_json, wait_for};
use crate::admin::{Client, ClientError, Deleted, KeyList, Keys, Value};
use crate::kv::{Listed, MAX_LISTED, Stats};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List keys of a policy, in order
    List {
        #[command(flatten)]
        whose: Whose,
        /// Those that begin so
        prefix: Option<String>,
        /// Those that come after this one
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = MAX_LISTED)]
        limit: usize,
        /// As JSON: an array; times are milliseconds since 1970
        #[arg(long)]
        json: bool,
    },
    /// Show a value
    Get {
        #[command(flatten)]
        whose: Whose,
        /// Its key
        key: String,
        /// Its octets as they are
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// As JSON: with `text`, if it is that, and `hex`
        #[arg(long)]
        json: bool,
    },
    /// Have a policy forget
    Delete {
        #[command(flatten)]
        whose: Whose,
        /// This key
        #[arg(required_unless_present_any = ["prefix", "all"])]
        key: Option<String>,
        /// All keys that begin so
        #[arg(long, conflicts_with = "key")]
        prefix: Option<String>,
        /// All keys
        #[arg(long, conflicts_with_all = ["key", "prefix"])]
        all: bool,
    },
    /// Show how much policies remember
    Stats {
        /// The policy's name in the config; without one, all
        plugin: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Whose {
    /// The policy's name in the config
    plugin: String,
    /// What it keeps in shadow mode
    #[arg(long)]
    shadow: bool,
}

impl Whose {
    fn space(self) -> String {
        if self.shadow { format!("{}:shadow", self.plugin) } else { self.plugin }
    }
}

/// Does it.
pub(super) fn run(config: &Place, command: Command) -> Result<(), Failure> {
    let client = config.client()?;
    match command {
        Command::List { whose, prefix, after, limit, json } => {
            let first = Keys { space: whose.space(), prefix, after, ..Keys::default() };
            let (keys, more) = wait_for(list(&client, first, limit))??;
            show_list(&keys, more, json)
        }
        Command::Get { whose, key, raw, json } => {
            let keys = Keys { space: whose.space(), key: Some(key), ..Keys::default() };
            let value: Value = wait_for(client.post("/kv/get", &keys))??;
            show(&value, raw, json)
        }
        Command::Delete { whose, key, prefix, all } => {
            let prefix = if all { Some(String::new()) } else { prefix };
            let keys = Keys { space: whose.space(), key, prefix, ..Keys::default() };
            let deleted = wait_for(delete(&client, &keys))??;
            if deleted == 0 {
                return Err(Failure::new(code::DATA, format_args!("{} keeps no such key", printable(&keys.space))));
            }
            Ok(writeln!(io::stdout(), "deleted: {deleted} {}", if deleted == 1 { "key" } else { "keys" })?)
        }
        Command::Stats { plugin, json } => {
            let mut stats: Stats = wait_for(client.get("/kv"))??;
            if let Some(plugin) = plugin {
                stats.spaces.retain(|space| space.name.strip_suffix(":shadow").unwrap_or(&space.name) == plugin);
            }
            show_stats(&stats, json)
        }
    }
}

/// So many keys, a page at a time; and whether there are more.
async fn list(client: &Client, mut keys: Keys, limit: usize) -> Result<(Vec<Listed>, bool), ClientError> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        keys.limit = Some((limit - all.len()).min(MAX_LISTED));
        let page: KeyList = client.post("/kv/list", &keys).await?;
        all.extend(page.keys);
        if !page.more || all.len() >= limit {
            return Ok((all, page.more));
        }
        keys.after = all.last().map(|last| last.key.clone());
    }
}

async fn delete(client: &Client, keys: &Keys) -> Result<usize, ClientError> {
    let mut all = 0;
    loop {
        let Deleted { deleted, more } = client.post("/kv/delete", keys).await?;
        all += deleted;
        if !more {
            return Ok(all);
        }
    }
}

fn show_list(keys: &[Listed], more: bool, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&keys);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    for Listed { key, size, expires } in keys {
        match expires.map(|expires| jiff::Timestamp::from_millisecond(i64::try_from(expires).unwrap_or(i64::MAX))) {
            Some(Ok(time)) => writeln!(out, "{}  {}, until {time:.0}", printable(key), short(*size))?,
            Some(Err(_)) | None => writeln!(out, "{}  {}", printable(key), short(*size))?,
        }
    }
    let count = keys.len();
    match (keys.last(), more) {
        (None, _) => writeln!(out, "no keys")?,
        (Some(last), true) => writeln!(out, "{count} keys; more with --after '{}'", printable(&last.key))?,
        (Some(_), false) => writeln!(out, "{count} {}", if count == 1 { "key" } else { "keys" })?,
    }
    Ok(out.flush()?)
}

fn show(value: &Value, raw: bool, json: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match &value.text {
        _ if json => print_json(value),
        _ if raw => Ok(out.write_all(&octets(&value.hex))?),
        Some(text) => Ok(writeln!(out, "{}", printable(text))?),
        None => Ok(writeln!(out, "{}", value.hex)?),
    }
}

fn octets(hex: &str) -> Vec<u8> {
    let octet = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    hex.as_bytes().chunks(2).filter_map(octet).collect()
}

fn show_stats(stats: &Stats, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(stats);
    }
    let mut out = io::stdout().lock();
    for space in &stats.spaces {
        writeln!(out, "{}: {} keys, {}", printable(&space.name), space.keys, short(space.octets))?;
    }
    let counted = if stats.counted { "" } else { "; still being counted" };
    let failed =
        if stats.failures == 0 { String::new() } else { format!("; {} failures, see the log", stats.failures) };
    Ok(writeln!(out, "{} on the disk{counted}{failed}", short(stats.disk))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_of_hexadecimal_digits() {
        assert_eq!(octets("00ff7f"), [0, 255, 127]);
        assert!(octets("").is_empty());
    }
}
