//! `cargo xtask bench`: figures that anyone can measure again.

mod flame;
mod floor;
mod idle;
mod load;
mod options;
mod policy;
mod postfix;
mod relay;
mod report;
mod rules;
mod server;
mod tree;
mod wasmta;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::machine::{Result, target_dir};
use options::Options;

/// Picks the bench.
pub fn command(words: &[&str]) -> Result<()> {
    match words {
        ["relay", rest @ ..] => relay::bench(rest),
        ["flame", rest @ ..] => flame::bench(rest),
        ["policy", rest @ ..] => policy::bench(rest),
        ["idle", rest @ ..] => idle::bench(rest),
        ["help"] | [] => {
            print!("{}\n{}\n{}\n{}", relay::HELP, policy::HELP, idle::HELP, flame::HELP);
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

/// Processors, kernel and load before: figures of two machines do not compare.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()));
    json!({
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": processor,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_average": read("/proc/loadavg").trim(),
    })
}
