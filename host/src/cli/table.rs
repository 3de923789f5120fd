//! `wasmta table`: what a lookup table says, and which of its lines. Works without the server.

use std::io::{self, Write as _};

use clap::Subcommand;

use super::{Failure, code, print_json};
use crate::directory::table::{Key, Purpose, Table, TableName};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Look a key up in a table, as `postmap -q` does; 1 is the exit code if it is not there
    #[command(alias = "get")]
    Query {
        /// The table as a config names it: hash:FILE, regexp:FILE, pcre:FILE, cidr:FILE, inline:{KEY=VALUE} or static:VALUE
        #[arg(value_name = "TABLE")]
        table: TableName,
        /// What to look up; the key itself, without the parent domains and shorter addresses that the server tries as well
        key: String,
        /// The file is one of aliases: `name: value`
        #[arg(long)]
        aliases: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    let Command::Query { table, key, aliases, json } = command;
    let purpose = if aliases { Purpose::Aliases } else { Purpose::General };
    let table = Table::open(&table, purpose).map_err(|err| Failure::new(code::DATA, err))?;
    for warning in table.warnings() {
        let _ = writeln!(io::stderr(), "wasmta: {warning}"); // an answer without its warnings is an answer still
    }
    let found = table.look_up(&key, Key::Whole);
    if json {
        print_json(&serde_json::json!({
            "key": key,
            "value": found.as_ref().map(|found| &found.value),
            "table": table.name(),
            "file": table.name().file(),
            "line": found.as_ref().and_then(|found| found.line),
        }))?;
    }
    match found {
        None => Err(Failure::new(code::NOT_FOUND, format_args!("{}: `{key}` is not there", table.name()))),
        Some(_) if json => Ok(()),
        Some(found) => Ok(writeln!(io::stdout(), "{found}")?),
    }
}
