//! `cargo xtask bench`: figures that anyone can measure again.

mod floor;
mod load;
mod options;
mod postfix;
mod relay;
mod report;
mod server;
mod tree;
mod wasmta;

use crate::machine::Result;

/// Picks the bench.
pub fn command(words: &[&str]) -> Result<()> {
    match words {
        ["relay", rest @ ..] => relay::bench(rest),
        ["help"] | [] => {
            print!("{}", relay::HELP);
            Ok(())
        }
        [other, ..] => Err(format!("no such bench: {other}\n{}", relay::HELP).into()),
    }
}

/// `xtask floor PORT JOURNAL SINKPORT`: the floor's own process; the benches start it.
pub fn floor(words: &[&str]) -> Result<()> {
    let [port, journal, sink_port] = words else { return Err("floor PORT JOURNAL SINKPORT".into()) };
    floor::serve(floor::Config { port: port.parse()?, journal: (*journal).into(), sink_port: sink_port.parse()? })
}
