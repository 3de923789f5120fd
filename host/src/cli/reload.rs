//! `wasmta reload`: the running server reads its config again.

use std::io::{self, Write as _};

use super::queue::printable;
use super::{Failure, Place, print_json, wait_for};
use crate::generation::Change;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Asks for it and shows what came of it.
pub(super) fn run(config: &Place, arguments: &Arguments) -> Result<(), Failure> {
    // The config is read here only for its data directory; but what is wrong with it is told before the server is asked.
    let loaded = config.load()?;
    let patience = loaded.config.server.reload_timeout.as_std() * 2; // somebody else's reload may come first
    let client = crate::admin::Client::new(&loaded.config.server.data_dir);
    let reloaded = wait_for(client.reload(patience))??;
    if arguments.json {
        return print_json(&reloaded);
    }
    let mut out = io::stdout().lock();
    let took = reloaded.took_ms;
    match reloaded.changed.as_slice() {
        [] => writeln!(out, "nothing has changed; generation {} stays in force", reloaded.generation)?,
        [_] => writeln!(out, "generation {} is in force, with 1 change, after {took} ms", reloaded.generation)?,
        all => {
            writeln!(
                out,
                "generation {} is in force, with {} changes, after {took} ms",
                reloaded.generation,
                all.len()
            )?;
        }
    }
    for Change { key, what } in &reloaded.changed {
        writeln!(out, "    {}: {}", printable(key), printable(what))?;
    }
    if !reloaded.restart.is_empty() {
        writeln!(out, "left as it was, because only a restart can change it:")?;
    }
    for Change { key, what } in &reloaded.restart {
        writeln!(out, "    {}: {}", printable(key), printable(what))?;
    }
    Ok(())
}
