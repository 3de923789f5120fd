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
/// How often the sync thread looks after tasks that sync in its place.
const WATCH: Duration = Duration::from_millis(20);

/// What one sync covers.
pub(super) struct Round {
    files: Vec<(u32, Arc<DiskFile>)>,
    upto: u64,
}

/// Runs until the log is closing, the janitor has ended and all is synced, or cannot be.
pub(super) fn run(shared: &Shared) {
    while let Some(round) = next_round(shared) {
        let failed = round.run(shared).is_err();
        if failed && lock(&shared.log).tidied {
            return;
        }
    }
}

impl Round {
    /// All that is written and not yet synced. One round at a time: an error is told to one of two who sync the same file.
    pub fn begin(log: &mut Log) -> Self {
        let mut files = std::mem::take(&mut log.unsynced);
        files.extend(log.current.as_ref().map(|current| (current.number, current.file.clone())));
        Self { files, upto: log.written }
    }

    /// Syncs, and tells those who wait for it.
    pub fn run(self, shared: &Shared) -> io::Result<()> {
        let begun = Instant::now();
        let failed = self.files.iter().find_map(|(number, file)| file.sync().err().map(|err| (*number, err)));
        let mut log = lock(&shared.log);
        log.synced_at = Instant::now();
        log.last_sync = log.synced_at - begun;
        log.stand_in = None;
        let done = match &failed {
            None => log.synced(self.upto),
            Some((number, err)) => {
                tracing::error!(segment = number, %err, "sync failed: what was written since the last one is not believed");
                let numbers: Vec<u32> = self.files.iter().map(|(number, _)| *number).collect();
                log.poison(&numbers)
            }
        };
        if log.backlog.front().is_some()
            && let Err(err) = log.write_backlog()
        {
            tracing::error!(notes = log.backlog.len(), %err, "results of deliveries cannot be written, they are kept in memory");
        }
        let chores = !log.dead_bodies.is_empty() || failed.is_some();
        // After a round of its own the thread is awake and sees for itself.
        let more = log.sleep != Sleep::Awake && (!log.waiters.is_empty() || log.closing || failed.is_some());
        drop(log);
        if more {
            shared.work.notify_one();
        }
        if chores {
            shared.chores.notify_one();
        }
        if let Some((_, err)) = &failed {
            shared.trouble.set(CommitError::Disk(format!("sync: {err}")));
        }
        tell(done, failed.as_ref().map(|(_, err)| err));
        failed.map_or(Ok(()), |(_, err)| Err(err))
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

/// Sleeps until there is something to sync. None when nobody is left who could want it, and nothing is.
fn next_round(shared: &Shared) -> Option<Round> {
    let mut log = lock(&shared.log);
    while log.waiters.is_empty() || log.stand_in.is_some() {
        let unsynced = is_unsynced(&log);
        let mut timeout = Duration::from_secs(3600);
        log.sleep = Sleep::Forever;
        if let Some(stand_in) = &log.stand_in {
            stand_in.relieve(WATCH);
        } else {
            if log.tidied && !unsynced {
                return None;
            }
            let rest = NOTES_WAIT.saturating_sub(log.synced_at.elapsed());
            if unsynced && (rest.is_zero() || log.closing) {
                break;
            }
            if unsynced {
                (log.sleep, timeout) = (Sleep::UntilDue, rest);
            }
        }
        log.watched = std::mem::take(&mut log.stood_in) || log.stand_in.is_some();
        if log.watched {
            (log.sleep, timeout) = (Sleep::UntilDue, timeout.min(WATCH));
        }
        log = match shared.work.wait_timeout(log, timeout) {
            Ok((log, _)) => log,
            Err(poisoned) => poisoned.into_inner().0,
        };
    }
    log.sleep = Sleep::Awake;
    if !log.backlog.is_empty() && log.write_backlog().is_err() && log.tidied && log.written == log.synced {
        tracing::error!(notes = log.backlog.len(), "closing without room for results of deliveries: expect repeats");
        return None;
    }
    Some(Round::begin(&mut log))
}
