//! `wasmta status`: what the running server does.

use std::io::{self, Write as _};

use super::queue::{printable, short};
use super::{Failure, Place, print_json, wait_for};
use crate::admin::{GenerationFacts, Status};
use crate::units::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Asks and shows.
pub(super) fn run(config: &Place, arguments: &Arguments) -> Result<(), Failure> {
    let status: Status = wait_for(config.client()?.get("/status"))??;
    if arguments.json {
        return print_json(&status);
    }
    let mut out = io::stdout().lock();
    let uptime = Duration::from_secs(status.uptime_secs);
    writeln!(out, "wasmta {} on {}, process {}, up {uptime}", status.version, status.hostname, status.pid)?;
    let GenerationFacts { number, loaded, old } = &status.generation;
    write!(out, "generation {number}, in force since {loaded}")?;
    match old.as_slice() {
        [] => writeln!(out)?,
        old => {
            let old: Vec<String> = old.iter().map(u64::to_string).collect();
            writeln!(out, "; sessions still go by: {}", old.join(", "))?;
        }
    }
    for listener in &status.listeners {
        let chain = if listener.chain.is_empty() { "no policy".into() } else { listener.chain.join(", ") };
        writeln!(out, "listener {} at {}: {chain}", listener.name, listener.address)?;
    }
    let queue = &status.queue;
    let (mail, disk) = (short(queue.octets), short(queue.disk));
    writeln!(out, "queue: {} messages, {mail}, {disk} on the disk", queue.messages)?;
    if let Some(why) = &queue.refusing {
        writeln!(out, "    no mail is taken: {}", printable(why))?;
    }
    for site in &queue.destinations {
        write!(
            out,
            "    {}: {} ready, {} waiting, {} at work",
            site.destination, site.ready, site.waiting, site.workers
        )?;
        match &site.unreachable {
            Some(why) => writeln!(out, "; left alone: {}", printable(why))?,
            None => writeln!(out)?,
        }
    }
    for (name, plugin) in &status.plugins {
        writeln!(out, "policy {name}: {} calls, {} failed", plugin.calls, plugin.failures)?;
    }
    Ok(())
}
