//! Processor time and memory of a process with all its descendants, from /proc.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two looks at the memory. PSS costs the kernel a walk over the page tables.
const SAMPLE: Duration = Duration::from_millis(250);

/// A process and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct Tree(pub u32);

struct Process {
    id: u32,
    parent: u32,
    ticks: u64,
}

/// The peak of proportional set size, watched by a thread until [`Watch::peak`] is asked.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Tree {
    /// Seconds of user and system time: the living, and the dead that were waited for.
    pub fn cpu_seconds(self) -> f64 {
        self.members().iter().map(|process| process.ticks).sum::<u64>() as f64 / ticks_per_second()
    }

    /// Proportional set size in KiB: what is shared is counted once.
    pub fn pss_kib(self) -> u64 {
        self.members().iter().filter_map(|process| pss_kib(process.id)).sum()
    }

    /// Watches the memory from now on.
    pub fn watch(self) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !told.load(Ordering::Relaxed) {
                peak = peak.max(self.pss_kib());
                std::thread::park_timeout(SAMPLE);
            }
            peak.max(self.pss_kib())
        });
        Watch { stop, thread }
    }

    fn members(self) -> Vec<Process> {
        let mut others = all_processes();
        let mut ids = HashSet::from([self.0]);
        let mut members = Vec::new();
        loop {
            let (found, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|process| ids.contains(&process.id) || ids.contains(&process.parent));
            if found.is_empty() {
                return members;
            }
            ids.extend(found.iter().map(|process| process.id));
            members.extend(found);
            others = rest;
        }
    }
}

impl Watch {
    /// Ends the watch and tells the peak in KiB.
    pub fn peak(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or(0)
    }
}

/// Seconds that the children of this process used which it has waited for.
pub fn cpu_seconds_of_the_waited_for() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = fields(&stat);
    [13, 14].iter().filter_map(|index| fields.get(*index)?.parse::<u64>().ok()).sum::<u64>() as f64 / ticks_per_second()
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// What stands behind the name, which may hold spaces and brackets: state, parent, …
fn fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| rest.split_ascii_whitespace().collect())
}

fn all_processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| process(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

fn process(id: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields = fields(&stat);
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = (11..15).filter_map(number).sum(); // utime, stime, cutime, cstime
    Some(Process { id, parent: number(1)? as u32, ticks })
}

fn pss_kib(id: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_belongs_to_the_tree() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let members: Vec<u32> = Tree(std::process::id()).members().iter().map(|process| process.id).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(members.contains(&child.id()) && members.contains(&std::process::id()), "{members:?}");
        assert!(!members.contains(&1), "the parent does not");
    }

    #[test]
    fn memory_is_seen() {
        let block = vec![1u8; 64 << 20];
        assert!(Tree(std::process::id()).pss_kib() > 64 << 10);
        drop(std::hint::black_box(block));
    }
}
