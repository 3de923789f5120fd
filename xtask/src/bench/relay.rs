//! smtp-source → server → smtp-sink, all servers taking turns in one run, so that a noisy machine is noisy for all.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::load::{Load, Mode, Sink, free_port};
use super::options::Options;
use super::postfix::RECEIVERS;
use super::report::{Case, Figures, Report};
use super::rules::write_rules;
use super::scratch_dir;
use super::server::{Keeper, Kind, Server, Setup};
use super::tree::cpu_seconds_of_the_waited_for;
use crate::machine::Result;

/// No message for so long at the sink means that the rest is lost.
const STALL: Duration = Duration::from_secs(20);
/// Messages of the round before the first that counts.
const WARM_UP: u64 = 200;
/// Messages of the search for lost and doubled ones.
const VERIFIED: u64 = 1000;

const OPTIONS: [&str; 9] = ["count", "sizes", "sessions", "modes", "rounds", "rules", "json", "only", "dir"];

/// Help for the options.
pub const HELP: &str = "\
cargo xtask bench relay    smtp-source → server → smtp-sink, taking turns
  --count 5000             messages of one run
  --sizes 1024,10240,102400    octets of a body
  --sessions 1,10,50       at a time
  --modes perconn,reuse    one message for each connection, or many
  --rounds 3               runs of each server for each case; the median counts
  --rules 0                header_checks rules that Postfix and wasmta both apply; with 0 Postfix checks no headers,
                           wasmta still runs its header-checks with a table of three rules
  --only wasmta,postfix,floor
  --dir target/bench       on a real disk: fsync is part of the measurement
  --json FILE              everything measured
";

struct Plan {
    loads: Vec<Load>,
    rounds: u64,
    kinds: Vec<Kind>,
    rules: u64,
    scratch: PathBuf,
}

struct Contender {
    kind: Kind,
    server: Server,
    port: u16,
    sink: Sink,
}

/// Runs the bench and prints its table.
pub fn bench(words: &[&str]) -> Result<()> {
    let options = Options::parse(words, &OPTIONS)?;
    let plan = Plan::new(&options)?;
    refuse_memory_disk(&plan.scratch)?;
    let rules = if plan.rules == 0 { None } else { Some(write_rules(&plan.scratch, plan.rules)?) };
    if plan.kinds.contains(&Kind::Wasmta) {
        super::wasmta::build()?;
    }
    for kind in &plan.kinds {
        verify(*kind, &plan.scratch, rules.as_deref())?;
    }
    let mut contenders = Vec::new();
    for kind in &plan.kinds {
        contenders.push(Contender::start(*kind, &plan.scratch, rules.as_deref())?);
    }
    let mut report = Report::new(plan.rules, plan.rounds);
    for load in &plan.loads {
        let mut case = Case::new(*load);
        for round in 0..plan.rounds {
            for contender in &mut contenders {
                let figures = contender.measure(load)?;
                eprintln!("{load:?} round {round} {}: {figures}", contender.kind);
                case.add(contender.kind, figures);
            }
        }
        report.add(case);
    }
    println!("{report}");
    if let Some(file) = options.text("json") {
        std::fs::write(file, serde_json::to_string_pretty(&report.json())?)?;
    }
    Ok(())
}

impl Plan {
    fn new(options: &Options) -> Result<Self> {
        let count = options.value("count", 5000)?;
        let modes: Vec<Mode> = options.list("modes", "perconn,reuse")?;
        let sessions: Vec<u64> = options.list("sessions", "1,10,50")?;
        let mut loads = Vec::new();
        for size in options.list("sizes", "1024,10240,102400")? {
            for sessions in &sessions {
                loads.extend(modes.iter().map(|mode| Load { count, size, sessions: *sessions, mode: *mode }));
            }
        }
        Ok(Self {
            loads,
            rounds: options.value("rounds", 3)?,
            kinds: options.list("only", "wasmta,postfix,floor")?,
            rules: options.value("rules", 0)?,
            scratch: scratch_dir(options)?,
        })
    }
}

impl Contender {
    fn start(kind: Kind, scratch: &Path, rules: Option<&Path>) -> Result<Self> {
        let (sink, port) = (Sink::start(scratch)?, free_port()?);
        let server = Server::start(kind, &Setup { scratch, port, sink_port: sink.port, rules, sessions: RECEIVERS })?;
        let mut contender = Self { kind, server, port, sink };
        contender.measure(&Load { count: WARM_UP, size: 1024, sessions: 5, mode: Mode::PerConnection })?;
        Ok(contender)
    }

    fn measure(&mut self, load: &Load) -> Result<Figures> {
        let tree = self.server.tree();
        let before = self.sink.count()?;
        let (server_cpu, sink_cpu) = (tree.cpu_seconds(), self.sink.tree().cpu_seconds());
        let source_cpu = cpu_seconds_of_the_waited_for();
        let watch = tree.watch();
        let start = Instant::now();
        let sent = load.send(self.port);
        let accepted = start.elapsed();
        let delivered = sent.and_then(|()| self.wait_for_delivery(before + load.count));
        let end_to_end = start.elapsed();
        let peak_pss_kib = watch.peak();
        delivered.map_err(|error| format!("{}: {error}", self.kind))?;
        let source_cpu = cpu_seconds_of_the_waited_for() - source_cpu;
        self.wait_for_empty_queue()?;
        let got = self.sink.count()? - before;
        if got != load.count {
            return Err(format!("{}: {} sent, {got} arrived", self.kind, load.count).into());
        }
        let count = load.count as f64;
        Ok(Figures {
            accept_rate: count / accepted.as_secs_f64(),
            end_to_end_rate: count / end_to_end.as_secs_f64(),
            server_cpu_ms: 1000.0 * (tree.cpu_seconds() - server_cpu) / count,
            load_cpu_ms: 1000.0 * (source_cpu + self.sink.tree().cpu_seconds() - sink_cpu) / count,
            peak_pss_kib,
        })
    }

    fn wait_for_delivery(&mut self, wanted: u64) -> Result<()> {
        let (mut seen, mut moved) = (0, Instant::now());
        loop {
            let count = self.sink.count()?;
            if count >= wanted {
                return Ok(());
            }
            if count != seen {
                (seen, moved) = (count, Instant::now());
            }
            if moved.elapsed() > STALL {
                return Err(format!("{} messages did not arrive", wanted - count).into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn wait_for_empty_queue(&self) -> Result<()> {
        empty_queue(&self.server).map_err(|error| format!("{}: {error}", self.kind).into())
    }
}

fn empty_queue(server: &Server) -> Result<()> {
    let start = Instant::now();
    while !server.queue_is_empty()? {
        if start.elapsed() > STALL {
            return Err("the queue is not empty although all has arrived".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends messages that differ in their Message-Id and looks whether each arrived, once. Not timed: the sink that keeps
/// them is no fair one.
fn verify(kind: Kind, scratch: &Path, rules: Option<&Path>) -> Result<()> {
    let keeper = Keeper::start(scratch)?;
    let port = free_port()?;
    let server = Server::start(kind, &Setup { scratch, port, sink_port: keeper.port, rules, sessions: RECEIVERS })?;
    Load { count: VERIFIED, size: 2048, sessions: 20, mode: Mode::PerConnection }.send(port)?;
    let (start, mut ids) = (Instant::now(), keeper.message_ids()?);
    while (ids.len() as u64) < VERIFIED && start.elapsed() < STALL {
        std::thread::sleep(Duration::from_millis(50));
        ids = keeper.message_ids()?;
    }
    empty_queue(&server)?;
    ids = keeper.message_ids()?;
    let distinct = ids.iter().collect::<HashSet<_>>().len() as u64;
    if distinct == VERIFIED && ids.len() as u64 == VERIFIED {
        return Ok(());
    }
    Err(format!("{kind}: of {VERIFIED} messages {distinct} arrived, in {} copies", ids.len()).into())
}

/// A disk in memory does not wait for fsync, and the comparison would be worth nothing.
fn refuse_memory_disk(dir: &Path) -> Result<()> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    if rustix::fs::statfs(dir)?.f_type as u64 == TMPFS_MAGIC {
        return Err(format!("{} is a disk in memory: choose a --dir elsewhere", dir.display()).into());
    }
    Ok(())
}
