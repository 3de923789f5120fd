//! The sync thread: one `fdatasync` for all that was written during the last one. The busier, the more share one; an idle server
//! syncs at once. Notes that nobody waits for ride along, or go after a second.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::log::{Log, Sleep, Waiter};
use super::{Shared, lock};
use crate::queue::CommitError;
use crate::queue::disk::DiskFile;

/// How long a note waits for a sync that somebody needs.
const NOTES_WAIT: Duration = Duration::from_secs(1);

/// What one sync covers.
struct Round {
    files: Vec<(u32, Arc<DiskFile>)>,
    upto: u64,
}

/// Runs until the log is closing and all is synced, or cannot be.
pub(super) fn run(shared: &Shared) {
    let mut last = Instant::now();
    while let Some(round) = next_round(shared, last) {
        last = Instant::now();
        let failed = round.files.iter().find_map(|(number, file)| file.sync().err().map(|err| (*number, err)));
        let mut log = lock(&shared.log);
        let done = match &failed {
            None => log.synced(round.upto),
            Some((number, err)) => {
                tracing::error!(segment = number, %err, "sync failed: what was written since the last one is not believed");
                let numbers: Vec<u32> = round.files.iter().map(|(number, _)| *number).collect();
                log.poison(&numbers)
            }
        };
        if log.backlog.front().is_some()
            && let Err(err) = log.write_backlog()
        {
            tracing::error!(notes = log.backlog.len(), %err, "results of deliveries cannot be written, they are kept in memory");
        }
        let chores = !log.dead_bodies.is_empty() || failed.is_some();
        let give_up = failed.is_some() && log.closing;
        drop(log);
        if chores {
            shared.chores.notify_one();
        }
        if let Some((_, err)) = &failed {
            shared.trouble.set(CommitError::Disk(format!("sync: {err}")));
        }
        tell(done, failed.as_ref().map(|(_, err)| err));
        if give_up {
            return;
        }
    }
}

fn tell(waiters: Vec<Waiter>, err: Option<&io::Error>) {
    for waiter in waiters {
        let result = err.map_or(Ok(()), |err| Err(CommitError::Disk(format!("sync: {err}"))));
        // Who has gone meanwhile has dropped the message too.
        let _ = waiter.done.send(result);
    }
}

fn is_unsynced(log: &Log) -> bool {
    log.written > log.synced || !log.backlog.is_empty()
}

/// Sleeps until there is something to sync. None when the log is closing and nothing is left.
fn next_round(shared: &Shared, last: Instant) -> Option<Round> {
    let mut log = lock(&shared.log);
    while log.waiters.is_empty() {
        let unsynced = is_unsynced(&log);
        if log.closing && !unsynced {
            return None;
        }
        let rest = NOTES_WAIT.saturating_sub(last.elapsed());
        if unsynced && (rest.is_zero() || log.closing) {
            break;
        }
        log.sleep = if unsynced { Sleep::UntilDue } else { Sleep::Forever };
        let timeout = if unsynced { rest } else { Duration::from_secs(3600) };
        log = match shared.work.wait_timeout(log, timeout) {
            Ok((log, _)) => log,
            Err(poisoned) => poisoned.into_inner().0,
        };
        log.sleep = Sleep::Awake;
    }
    if !log.backlog.is_empty() && log.write_backlog().is_err() && log.closing && log.written == log.synced {
        tracing::error!(notes = log.backlog.len(), "closing without room for results of deliveries: expect repeats");
        return None;
    }
    let mut files = std::mem::take(&mut log.unsynced);
    files.extend(log.current.as_ref().map(|current| (current.number, current.file.clone())));
    Some(Round { files, upto: log.written })
}
