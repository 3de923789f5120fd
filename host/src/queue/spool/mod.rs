//! The spool: a log of our own in segment files, with one sync for many messages.
//!
//! Why not an embedded database, as was planned at first: mail is written once, read rarely, deleted soon. A log-structured tree
//! would write each message to its journal, keep it in a memtable, write it again to a table and again when tables are merged,
//! and rule over its own syncs; here a message is one `pwritev` from the task that received it, is on disk once, and is dead with
//! a record of 32 octets. The index is a few dozen octets a message and is rebuilt by reading the segments at the start.
//!
//! How a commit goes: encode; append under the lock; wait until the sync thread has passed that place. The sync thread syncs
//! whenever somebody waits, so that all who come during one sync share the next; a session that is alone in the house syncs for
//! itself (`alone`). Segments are set aside whole and, when dead,
//! used again: syncing blocks that are there already costs a third less than growing a file.
//!
//! What holds at every moment: a message that was acknowledged is in a segment that is synced up to it, and no note of its
//! removal is older than its delivery; a note of a removal outlives every copy of the message. What a failed sync may or may not
//! have written is not believed again.

mod alone;
mod body;
mod clean;
mod commit;
mod log;
mod meta;
mod read;
mod record;
mod recover;
mod sync;
#[cfg(test)]
mod tests;
mod window;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

pub use body::Draft;
pub use recover::{Damage, Recovered};

use super::disk::Disk;
use super::store::{CommitError, Guests, Letter, LoadError, Message, Promise, State, Store, Stored, Usage};
use super::{Config, OpenError};
use crate::mail::QueueId;
use log::{Log, Note, Sleep};
use meta::encode_state;

/// How long nothing is taken after the disk failed or was full, so that clients are put off quickly and the disk is left alone.
const TROUBLE: Duration = Duration::from_secs(1);

/// Where things are.
struct Dirs {
    disk: Disk,
    spool: PathBuf,
    body: PathBuf,
    damaged: PathBuf,
    segment_size: u64,
}

impl Dirs {
    fn segment_path(&self, number: u32) -> PathBuf {
        self.spool.join(format!("{number:08}.seg"))
    }

    /// Moves a file that nobody understands out of the way.
    fn set_aside(&self, path: &Path) -> io::Result<()> {
        let Some(name) = path.file_name() else { return Ok(()) };
        self.disk.rename(path, &self.damaged.join(name))
    }

    /// Keeps damaged octets. None if they cannot be kept; they are still where they were found, for now.
    fn keep_octets(&self, number: u32, offset: usize, octets: &[u8]) -> Option<PathBuf> {
        let path = self.damaged.join(format!("{number:08}-{offset}"));
        let written = self.disk.create(path.clone()).and_then(|file| {
            file.write_all_at(&mut [io::IoSlice::new(octets)], 0)?;
            file.sync()
        });
        match written {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => None,
            _ => Some(path),
        }
    }
}

/// What tasks and threads share.
struct Shared {
    dirs: Arc<Dirs>,
    log: Mutex<Log>,
    /// Wakes the sync thread.
    work: Condvar,
    /// Wakes the janitor.
    chores: Condvar,
    tidying: Mutex<()>,
    trouble: Trouble,
    guests: Guests,
    space: Mutex<Option<(Instant, Result<(), CommitError>)>>,
    min_free: u64,
    inline_size: u64,
    compact_after: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What went wrong a moment ago.
#[derive(Default)]
struct Trouble(Mutex<Option<(Instant, CommitError)>>);

impl Trouble {
    fn set(&self, err: CommitError) {
        *lock(&self.0) = Some((Instant::now(), err));
    }

    fn check(&self) -> Result<(), CommitError> {
        let mut trouble = lock(&self.0);
        match &*trouble {
            Some((since, err)) if since.elapsed() < TROUBLE => Err(again(err)),
            Some(_) => {
                *trouble = None;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The same error once more.
fn again(err: &CommitError) -> CommitError {
    match err {
        CommitError::Full(why) => CommitError::Full(why.clone()),
        CommitError::Disk(why) => CommitError::Disk(why.clone()),
        CommitError::Body(why) => CommitError::Body(why.clone()),
        CommitError::TooLarge => CommitError::TooLarge,
        CommitError::Closed => CommitError::Closed,
    }
}

/// The store in files.
pub struct Spool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held as long as the spool is open.
    _lock: File,
}

impl Spool {
    /// Opens the spool, which is made if it is not there, and reads what is in it.
    pub fn open(config: &Config, disk: Disk) -> Result<(Self, Recovered), OpenError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        let dirs = Arc::new(Dirs {
            spool: config.path.join("spool"),
            body: config.path.join("body"),
            damaged: config.path.join("damaged"),
            segment_size: config.segment_size.as_u64(),
            disk,
        });
        for dir in [&config.path, &dirs.spool, &dirs.body, &dirs.damaged] {
            dirs.disk.create_dir(dir).map_err(at(dir))?;
        }
        let lock_path = config.path.join("lock");
        let lock_file = match dirs.disk.lock(&lock_path) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Err(OpenError::InUse(config.path.clone())),
            taken => taken.map_err(at(&lock_path))?,
        };
        dirs.disk.sync_dir(&config.path).map_err(at(&config.path))?;
        let (mut log, recovered) = recover::recover(dirs.clone()).map_err(at(&dirs.spool))?;
        if let Err(err) = log.roll() {
            // What is there can still be delivered, and delivering makes room.
            tracing::error!(%err, "no new spool segment: mail is put off until there is room");
        }
        let shared = Arc::new(Shared {
            dirs,
            log: Mutex::new(log),
            work: Condvar::new(),
            chores: Condvar::new(),
            tidying: Mutex::new(()),
            trouble: Trouble::default(),
            guests: Guests::default(),
            space: Mutex::new(None),
            min_free: config.min_free.as_u64(),
            inline_size: config.inline_size.as_u64(),
            compact_after: config.compact_after.as_std(),
        });
        let mut spool = Self { shared, threads: Vec::new(), _lock: lock_file };
        for (name, job) in [("spool-sync", sync::run as fn(&Shared)), ("spool-clean", clean::run)] {
            let shared = spool.shared.clone();
            let thread = thread::Builder::new().name(name.into()).spawn(move || job(&shared));
            spool.threads.push(thread.map_err(at(&config.path))?);
        }
        Ok((spool, recovered))
    }
}

impl Drop for Spool {
    /// Syncs what is unsynced.
    fn drop(&mut self) {
        lock(&self.shared.log).closing = true;
        self.shared.work.notify_all();
        self.shared.chores.notify_all();
        // The janitor first: it may be waiting for a sync.
        while let Some(thread) = self.threads.pop() {
            // A thread that panicked has said so already.
            let _ = thread.join();
            lock(&self.shared.log).tidied = true;
            self.shared.work.notify_all();
        }
    }
}

impl Shared {
    /// Whether the disk has the room that the config wants to stay free, and the spool is still there: a segment that somebody removed
    /// takes writes as ever, and gives nothing back after a restart. Asked once a second at most.
    fn check_space(&self) -> Result<(), CommitError> {
        let mut space = lock(&self.space);
        if space.as_ref().is_none_or(|(since, _)| since.elapsed() >= Duration::from_secs(1)) {
            *space = Some((Instant::now(), self.look_at_the_disk()));
        }
        match &*space {
            Some((_, Err(err))) => Err(again(err)),
            _ => Ok(()),
        }
    }

    fn look_at_the_disk(&self) -> Result<(), CommitError> {
        let (dirs, gone) = (&self.dirs, |path: &Path| CommitError::Disk(format!("{} is gone", path.display())));
        match dirs.disk.free(&dirs.spool) {
            Ok(free) if free < self.min_free => {
                return Err(CommitError::Full(format!("{free} octets free, min-free is {}", self.min_free)));
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(gone(&dirs.spool)),
            _ => {} // if it cannot be asked, writing will tell
        }
        let current = lock(&self.log).current.as_ref().map(|current| current.file.clone());
        match current {
            Some(file) if file.is_removed() => Err(gone(file.path())),
            _ => Ok(()),
        }
    }

    fn note(&self, make: impl FnOnce(&mut Log) -> Option<Note>) {
        let mut log = lock(&self.log);
        if let Some(note) = make(&mut log) {
            log.note(note);
            if log.sleep == Sleep::Forever {
                self.work.notify_one();
            }
        }
    }
}

impl Store for Spool {
    fn commit<'a>(&'a self, message: &'a Message) -> Promise<'a, Result<(), CommitError>> {
        Box::pin(async move {
            self.accepting()?;
            self.shared.commit(message).await
        })
    }

    fn guests(&self) -> &Guests {
        &self.shared.guests
    }

    fn update(&self, id: QueueId, state: &State) {
        match encode_state(state) {
            Ok(meta) => self.shared.note(|log| log.index.contains_key(&id).then_some(Note::State { id, meta })),
            Err(err) => tracing::error!(queue_id = %id, %err, "a state cannot be encoded"),
        }
    }

    fn remove(&self, id: QueueId) {
        self.shared.note(|log| log.forget(id));
    }

    fn stored(&self, id: QueueId) -> Result<Stored, LoadError> {
        self.shared.stored(id)
    }

    fn load(&self, id: QueueId) -> Result<(Stored, Letter), LoadError> {
        self.shared.load(id)
    }

    fn contains(&self, id: QueueId) -> bool {
        lock(&self.shared.log).index.contains_key(&id)
    }

    fn ids(&self) -> Vec<QueueId> {
        let mut ids: Vec<QueueId> = lock(&self.shared.log).index.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    fn draft(&self, id: QueueId) -> Result<Draft, CommitError> {
        self.accepting()?;
        Draft::create(&self.shared.dirs.disk, &self.shared.dirs.body, id)
    }

    fn accepting(&self) -> Result<(), CommitError> {
        self.shared.trouble.check()?;
        self.shared.check_space()
    }

    fn usage(&self) -> Usage {
        let log = lock(&self.shared.log);
        let bodies: u64 = log.bodies.values().map(|body| body.len).sum();
        Usage {
            messages: log.index.len(),
            live: bodies + log.segments.values().map(|segment| segment.live).sum::<u64>(),
            disk: clean::disk_use(&log, self.shared.dirs.segment_size),
        }
    }
}
