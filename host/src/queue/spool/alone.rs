//! One session alone: it syncs what it wrote itself, on the thread where it runs. Passing a message to the sync thread and back
//! takes more processor time than judging it, and with nobody else to share the sync with, nothing is won by it.
//!
//! The thread that waits for the disk serves nobody meanwhile. So it is done only if there is one session in the whole house, if
//! the last sync was a matter of a moment, and if another worker can go on. Should the disk take long all the same, the sync
//! thread sees to it that the other worker does.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::Shared;
use super::log::{Log, Sleep};
use super::sync::Round;

/// The last sync took less: then this one is worth waiting for.
const MOMENT: Duration = Duration::from_millis(2);

/// A task that syncs in the sync thread's place.
pub(super) struct StandIn {
    since: Instant,
    runtime: Handle,
}

impl StandIn {
    /// Wakes another worker if this one has waited for longer than that: it may have been the one that looks after sockets and
    /// timers.
    pub fn relieve(&self, patience: Duration) {
        if self.since.elapsed() > patience {
            self.runtime.spawn(async {});
        }
    }
}

impl Shared {
    /// The round that the caller is to run, if it is better done on the spot. What it waits for stands in `waiters` already.
    pub(super) fn stand_in(&self, log: &mut Log) -> Option<Round> {
        let alone = self.guests.count() == 1 && log.waiters.len() == 1;
        let thread_sleeps = log.sleep != Sleep::Awake && log.stand_in.is_none();
        let brief = log.last_sync < MOMENT && log.unsynced.is_empty() && log.backlog.is_empty() && !log.closing;
        if !alone || !thread_sleeps || !brief {
            return None;
        }
        let runtime = Handle::try_current().ok().filter(|runtime| runtime.metrics().num_workers() > 1)?;
        log.stand_in = Some(StandIn { since: Instant::now(), runtime });
        log.stood_in = true;
        if !log.watched {
            self.work.notify_one();
        }
        Some(Round::begin(log))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread;

    use super::*;
    use crate::mail::QueueId;
    use crate::queue::disk::{Disk, Op};
    use crate::queue::store::Store as _;
    use crate::queue::testing::{Script, TempDir, message};
    use crate::queue::{CommitError, Config, Spool};

    /// A disk that notes which threads sync, and does first what is asked of it.
    fn watched(then: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> (Arc<Script>, impl Fn() -> Vec<String>) {
        let threads = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&threads);
        let script = Script::new(move |op, path, len| {
            if op == Op::Sync && path.extension().is_some_and(|extension| extension == "seg") {
                let name = thread::current().name().unwrap_or_default().to_owned();
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                then()?;
            }
            Ok(len)
        });
        (script, move || std::mem::take(&mut *threads.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn open(dir: &TempDir, script: Arc<Script>) -> Arc<Spool> {
        Arc::new(Spool::open(&Config::for_test(dir.path()), Disk::with_faults(script)).unwrap().0)
    }

    fn runtime(workers: usize) -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(workers).thread_name("worker").enable_all().build().unwrap()
    }

    /// On a worker.
    fn commit(runtime: &tokio::runtime::Runtime, spool: &Arc<Spool>, number: u64) -> Result<(), CommitError> {
        let spool = Arc::clone(spool);
        let task = runtime.spawn(async move { spool.commit(&message(number, "x\r\n")).await });
        runtime.block_on(task).unwrap()
    }

    /// As if the disk had been quick so far; a busy machine may have made it seem slow.
    fn quick(spool: &Spool) {
        crate::queue::spool::lock(&spool.shared.log).last_sync = Duration::ZERO;
        // The sync thread goes to sleep only after it has told those who waited.
        while crate::queue::spool::lock(&spool.shared.log).sleep == Sleep::Awake {
            thread::yield_now();
        }
    }

    #[test]
    fn who_is_alone_syncs_for_itself() {
        let dir = TempDir::new();
        let (script, threads) = watched(|| Ok(()));
        let (spool, two, one) = (open(&dir, script), runtime(2), runtime(1));
        let guest = spool.guests().enter();
        threads();
        commit(&two, &spool, 1).unwrap();
        assert_eq!(threads(), ["spool-sync"], "how quick the disk is, is not known yet");
        quick(&spool);
        commit(&two, &spool, 2).unwrap();
        assert_eq!(threads(), ["worker"]);
        quick(&spool);
        commit(&one, &spool, 3).unwrap();
        assert_eq!(threads(), ["spool-sync"], "there is no other worker");
        quick(&spool);
        let other = spool.guests().enter();
        commit(&two, &spool, 4).unwrap();
        assert_eq!(threads(), ["spool-sync"], "others could share it");
        drop((guest, other));
        quick(&spool);
        commit(&two, &spool, 5).unwrap();
        assert_eq!(threads(), ["spool-sync"], "no session is there");
        drop(spool);
        let (spool, _) = Spool::open(&Config::for_test(dir.path()), Disk::default()).unwrap();
        assert_eq!(spool.ids(), (1..=5).map(QueueId::from_u64).collect::<Vec<_>>());
    }

    #[test]
    fn a_disk_that_takes_long_stops_nobody_else() {
        let dir = TempDir::new();
        let stuck = Arc::new(AtomicBool::new(false));
        let gate = Arc::clone(&stuck);
        let (script, threads) = watched(move || {
            while gate.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let (spool, runtime) = (open(&dir, script), runtime(2));
        let _guest = spool.guests().enter();
        commit(&runtime, &spool, 1).unwrap();
        quick(&spool);
        threads();
        stuck.store(true, Ordering::Relaxed);
        // It needs the runtime's timers, which one of the workers looks after.
        let beats = Arc::new(AtomicUsize::new(0));
        let heart = Arc::clone(&beats);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                heart.fetch_add(1, Ordering::Relaxed);
            }
        });
        let committing = {
            let spool = Arc::clone(&spool);
            runtime.spawn(async move { spool.commit(&message(2, "x\r\n")).await })
        };
        let begun = Instant::now();
        while threads().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(1));
        }
        let before = beats.load(Ordering::Relaxed);
        while beats.load(Ordering::Relaxed) < before + 3 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the other worker stands still");
            thread::sleep(Duration::from_millis(1));
        }
        // What others commit meanwhile waits for its turn.
        let other = {
            let spool = Arc::clone(&spool);
            runtime.spawn(async move { spool.commit(&message(3, "x\r\n")).await })
        };
        stuck.store(false, Ordering::Relaxed);
        runtime.block_on(committing).unwrap().unwrap();
        runtime.block_on(other).unwrap().unwrap();
        threads();
        crate::queue::spool::lock(&spool.shared.log).last_sync = MOMENT;
        commit(&runtime, &spool, 4).unwrap();
        assert_eq!(threads(), ["spool-sync"], "it has learnt that the disk is slow");
    }

    #[test]
    fn a_sync_that_fails_is_told_to_who_did_it() {
        let dir = TempDir::new();
        let broken = Arc::new(AtomicBool::new(false));
        let fails = Arc::clone(&broken);
        let (script, threads) = watched(move || match fails.swap(false, Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        });
        let (spool, runtime) = (open(&dir, script), runtime(2));
        let _guest = spool.guests().enter();
        commit(&runtime, &spool, 1).unwrap();
        commit(&runtime, &spool, 2).unwrap();
        spool.remove(QueueId::from_u64(1)); // not synced yet
        quick(&spool);
        threads();
        broken.store(true, Ordering::Relaxed);
        let err = commit(&runtime, &spool, 3).unwrap_err();
        assert!(matches!(err, CommitError::Disk(_)), "{err}");
        assert_eq!(threads().first().map(String::as_str), Some("worker"));
        assert!(matches!(spool.accepting(), Err(CommitError::Disk(_))));
        drop(spool);
        let (spool, _) = Spool::open(&Config::for_test(dir.path()), Disk::default()).unwrap();
        assert_eq!(spool.ids(), [QueueId::from_u64(2)]);
    }
}
