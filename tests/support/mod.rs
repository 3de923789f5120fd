//! What the scenarios share.

mod folder;
pub mod header_cases;
mod maildir;
mod mta;
mod peer;
mod sink;
pub mod web;

pub use folder::Folder;
pub use maildir::Maildir;
pub use mta::{Mta, Setup, binary, component_file, shared_cache, wasmta};
pub use peer::{Peer, play};
pub use sink::{Answer, Point, Sink};

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up. Generous: machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A port of 127.0.0.1 that nobody uses, below those that the system gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 100) as u16 * 100;
    loop {
        let port = 20_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Asks until there is an answer, or fails with `what` when patience ends.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends a test that the machine cannot run, in sight: `return skip("crash::disk_full", "needs root")`.
/// libtest swallows what is printed, so this goes around it.
pub fn skip(test: &str, why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "SKIPPED {test}: {why}");
}

/// Proportional set size of a process.
pub fn pss_kib(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Lets this process have as many open files as the system allows it.
pub fn many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
