//! `wasmta queue`: see and steer the queue of the running server.

use std::io::{self, Write};

use super::{Failure, Place, code, print_json, wait_for};
use crate::admin::{Act, Client, Order};
use crate::mail::QueueId;
use crate::queue::{Filter, RecipientSummary, Standing, Summary, UnixTime};
use crate::units::{ByteSize, Duration};

/// Ids in one request to the server, which takes some more.
const IDS_AT_ONCE: usize = 1000;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List messages, oldest first
    List {
        #[command(flatten)]
        filter: FilterArguments,
        /// As JSON: an array; times are milliseconds since 1970
        #[arg(long)]
        json: bool,
    },
    /// Show one message: envelope, what became of its recipients, header
    Show {
        /// Its queue id
        id: QueueId,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Try to deliver now, even to hosts that could not be reached; without ids or filter, all
    Flush {
        #[command(flatten)]
        which: Which,
    },
    /// Keep messages back until they are released
    Hold {
        #[command(flatten)]
        which: Which,
        /// The reason, for the list
        #[arg(long)]
        why: Option<String>,
    },
    /// Let messages go that are on hold, at once
    Release {
        #[command(flatten)]
        which: Which,
    },
    /// Throw messages away; nobody is told
    Delete {
        #[command(flatten)]
        which: Which,
    },
    /// Give messages up and tell their senders
    Bounce {
        #[command(flatten)]
        which: Which,
        /// The reason, for the senders
        #[arg(long)]
        why: Option<String>,
    },
}

/// Which messages.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Queue ids
    ids: Vec<QueueId>,
    /// All messages
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

/// What is given must hold, all of it.
#[derive(Debug, clap::Args)]
pub(super) struct FilterArguments {
    /// Whose reverse-path holds this; `<>` for the null path
    #[arg(long, value_name = "TEXT")]
    sender: Option<String>,
    /// With a waiting recipient that holds this
    #[arg(long, value_name = "TEXT")]
    recipient: Option<String>,
    /// With a waiting recipient in this domain
    #[arg(long)]
    domain: Option<String>,
    /// That was put off with a reply that holds this
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// That is active, ready, deferred or on hold
    #[arg(long, value_parser = standing)]
    standing: Option<Standing>,
    /// That came at least so long ago, like 2h
    #[arg(long, value_name = "TIME")]
    older_than: Option<Duration>,
    /// At least so large, like "1 MiB"
    #[arg(long, value_name = "SIZE")]
    larger_than: Option<ByteSize>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

fn standing(text: &str) -> Result<Standing, String> {
    serde_json::from_value(text.into()).map_err(|_| "it is active, ready, deferred or hold".to_owned())
}

impl From<FilterArguments> for Filter {
    fn from(arguments: FilterArguments) -> Self {
        let FilterArguments { sender, recipient, domain, reason, standing, older_than, larger_than, limit } = arguments;
        let min_age = older_than.map(|age| age.as_std().as_secs());
        let min_size = larger_than.map(ByteSize::as_u64);
        Self { ids: Vec::new(), sender, recipient, domain, reason, standing, min_age, min_size, limit }
    }
}

/// Does it.
pub(super) fn run(config: &Place, command: Command) -> Result<(), Failure> {
    let client = config.client()?;
    let (act, which, why) = match command {
        Command::List { filter, json } => return list(&client, &filter.into(), json),
        Command::Show { id, json } => return show(&client, id, json),
        Command::Flush { mut which } => {
            which.all |= which.ids.is_empty();
            (Act::Flush, which, None)
        }
        Command::Hold { which, why } => (Act::Hold, which, why),
        Command::Release { which } => (Act::Release, which, None),
        Command::Delete { which } => (Act::Delete, which, None),
        Command::Bounce { which, why } => (Act::Bounce, which, why),
    };
    wait_for(acted(&client, act, which, why))?
}

async fn acted(client: &Client, act: Act, which: Which, why: Option<String>) -> Result<(), Failure> {
    let Which { ids, all, filter } = which;
    let filter = Filter::from(filter);
    if ids.is_empty() && !all && filter == Filter::default() {
        return Err(Failure::new(code::USAGE, "name queue ids, or a filter, or --all"));
    }
    let parts = match ids.as_slice() {
        [] => vec![filter],
        ids => ids
            .chunks(IDS_AT_ONCE)
            .map(|ids| Filter { ids: Filter::ids(ids.iter().copied()).ids, ..filter.clone() })
            .collect(),
    };
    let (mut done, mut missing) = (0, Vec::new());
    for filter in parts {
        let acted = client.act(act, &Order { filter, why: why.clone() }).await?;
        done += acted.done;
        missing.extend(acted.missing);
    }
    writeln!(io::stdout(), "{}: {done} {}", act.past(), if done == 1 { "message" } else { "messages" })?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(code::DATA, format_args!("not in the queue: {}", missing.join(", "))))
}

fn list(client: &Client, filter: &Filter, json: bool) -> Result<(), Failure> {
    let listed = wait_for(client.list(filter))??;
    if json {
        return print_json(&listed.messages);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    listed.messages.iter().try_for_each(|message| write_message(&mut out, message))?;
    let (shown, total) = (listed.messages.len(), listed.total);
    match total {
        0 => writeln!(out, "the queue is empty")?,
        _ if shown == total => writeln!(out, "{total} {}", if total == 1 { "message" } else { "messages" })?,
        _ => writeln!(out, "{shown} of {total} messages")?,
    }
    Ok(out.flush()?)
}

fn show(client: &Client, id: QueueId, json: bool) -> Result<(), Failure> {
    let shown = wait_for(client.show(id))??;
    if json {
        return print_json(&shown);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    write_message(&mut out, &shown.summary)?;
    writeln!(out)?;
    for line in shown.header.lines() {
        writeln!(out, "{}", printable(line))?;
    }
    if shown.header_cut {
        writeln!(out, "[the header goes on]")?;
    }
    Ok(out.flush()?)
}

fn write_message(out: &mut impl Write, message: &Summary) -> io::Result<()> {
    let sender = if message.sender.is_empty() { "<>" } else { &message.sender };
    let standing = match message.standing {
        Standing::Active => "active",
        Standing::Ready => "ready",
        Standing::Deferred => "deferred",
        Standing::Hold => "hold",
    };
    let (id, arrived, size) = (&message.id, second(message.arrived), short(message.size));
    writeln!(out, "{id}  {arrived}  {size:>9}  {standing:<8}  {}", printable(sender))?;
    if let Some(why) = &message.hold {
        writeln!(out, "    on hold: {}", printable(why))?;
    }
    message.recipients.iter().try_for_each(|recipient| write_recipient(out, recipient))
}

fn write_recipient(out: &mut impl Write, recipient: &RecipientSummary) -> io::Result<()> {
    let (address, destination) = (printable(&recipient.address), printable(&recipient.destination));
    write!(out, "    {address} by {destination}")?;
    match (recipient.due, recipient.attempts) {
        (None, _) => writeln!(out, ": the sender is yet to be told")?,
        (Some(_), 0) => writeln!(out, ": not tried yet")?,
        (Some(due), tries) => writeln!(out, ": tries: {tries}, the next at {}", second(due))?,
    }
    match &recipient.reason {
        Some(reason) => writeln!(out, "        {}", printable(reason)),
        None => Ok(()),
    }
}

/// What a stranger wrote, on one line and without power over a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A time to the second.
fn second(time: UnixTime) -> String {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => "-".into(),
    }
}

/// A size in three digits or so.
pub(super) fn short(octets: u64) -> String {
    let scaled = |unit: u64, name| format!("{}.{} {name}", octets / unit, octets % unit * 10 / unit);
    match octets {
        0..0x400 => format!("{octets} B"),
        0x400..0x10_0000 => scaled(0x400, "KiB"),
        0x10_0000..0x4000_0000 => scaled(0x10_0000, "MiB"),
        _ => scaled(0x4000_0000, "GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (octets, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (52_428_800, "50.0 MiB"), (u64::MAX, "17179869183.9 GiB")]
        {
            assert_eq!(short(octets), text);
        }
    }

    #[test]
    fn times_are_to_the_second() {
        assert_eq!(second(UnixTime::from_millis(1_700_000_000_999)), "2023-11-14T22:13:20Z");
        assert_eq!(second(UnixTime::from_millis(u64::MAX)), "-");
    }

    #[test]
    fn no_control_character_reaches_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\n\tc\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}\tc\u{fffd}");
    }

    #[test]
    fn a_message_as_it_is_listed() {
        let recipient = |due, attempts, reason: Option<&str>| RecipientSummary {
            address: "far@elsewhere.example".into(),
            destination: "smtp:[192.0.2.1]:25".into(),
            attempts,
            due,
            reason: reason.map(str::to_owned),
        };
        let due = Some(UnixTime::from_millis(1_700_000_300_000));
        let message = Summary {
            id: "0CR5WJ80A4K21".into(),
            standing: Standing::Hold,
            arrived: UnixTime::from_millis(1_700_000_000_000),
            size: 1536,
            sender: String::new(),
            hold: Some("a rule".into()),
            recipients: vec![
                recipient(due, 0, None),
                recipient(due, 2, Some("451 4.3.0 \x07no")),
                recipient(None, 0, None),
            ],
        };
        let mut out = Vec::new();
        write_message(&mut out, &message).expect("a Vec takes all");
        let expected = "\
0CR5WJ80A4K21  2023-11-14T22:13:20Z    1.5 KiB  hold      <>
    on hold: a rule
    far@elsewhere.example by smtp:[192.0.2.1]:25: not tried yet
    far@elsewhere.example by smtp:[192.0.2.1]:25: tries: 2, the next at 2023-11-14T22:18:20Z
        451 4.3.0 \u{fffd}no
    far@elsewhere.example by smtp:[192.0.2.1]:25: the sender is yet to be told
";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
