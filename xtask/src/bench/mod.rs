//! `cargo xtask bench`: figures that anyone can measure again.

mod floor;
mod idle;
mod load;
mod options;
mod postfix;
mod relay;
mod report;
mod server;
mod tree;
mod wasmta;

use std::path::PathBuf;

use crate::machine::{Result, target_dir};
use options::Options;

/// Picks the bench.
pub fn command(words: &[&str]) -> Result<()> {
    match words {
        ["relay", rest @ ..] => relay::bench(rest),
        ["idle", rest @ ..] => idle::bench(rest),
        ["help"] | [] => {
            print!("{}\n{}", relay::HELP, idle::HELP);
            Ok(())
        }
        [other, ..] => Err(format!("no such bench: {other}; `bench help` has them all").into()),
    }
}

/// `--dir`, made if it is not there.
fn scratch_dir(options: &Options) -> Result<PathBuf> {
    let dir = options.text("dir").map_or_else(|| target_dir().join("bench"), PathBuf::from);
    std::fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

/// `xtask floor PORT JOURNAL SINKPORT`: the floor's own process; the benches start it.
pub fn floor(words: &[&str]) -> Result<()> {
    let [port, journal, sink_port] = words else { return Err("floor PORT JOURNAL SINKPORT".into()) };
    floor::serve(floor::Config { port: port.parse()?, journal: (*journal).into(), sink_port: sink_port.parse()? })
}
