//! The spool: a log of our own in segment files, with one sync for many messages.
//!
//! Why not an embedded database, as was planned at first: mail is written once, read rarely, deleted soon. A log-structured tree
//! would write each message to its journal, keep it in a memtable, write it again to a table and again when tables are merged,
//! and rule over its own syncs; here a message is one `pwritev` from the task that received it, is on disk once, and is dead with
//! a record of 32 octets. The index is a few dozen octets a message and is rebuilt by reading the segments at the start.
//!
//! How a commit goes: encode; append under the lock; wait until the sync thread has passed that place. The sync thread syncs
//! whenever somebody waits, so that all who come during one sync share the next. Segments are set aside whole and, when dead,
//! used again: syncing blocks that are there already costs a third less than growing a file.
//!
//! What holds at every moment: a message that was acknowledged is in a segment that is synced up to it, and no note of its
//! removal is older than its delivery; a note of a removal outlives every copy of the message. What a failed sync may or may not
//! have written is not believed again.

mod body;
mod clean;
mod log;
mod meta;
mod record;
mod recover;
mod sync;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::sync::oneshot;

pub use body::Draft;
pub use recover::{Damage, Recovered};

use super::disk::Disk;
use super::store::{CommitError, Letter, LoadError, Message, Promise, State, Store, Stored, Usage};
use super::{Config, OpenError};
use crate::mail::QueueId;
use body::BodyFile;
use log::{BodyName, Log, Note, Place, Sleep, Waiter};
use meta::{BodyPlace, Meta, MetaRef, decode_state, encode_state};
use record::{HEADER, Kind, Marker};

/// How long nothing is taken after the disk failed or was full, so that clients are put off quickly and the disk is left alone.
const TROUBLE: Duration = Duration::from_secs(1);
/// Octets read at once where only the meta is wanted.
const FRONT: usize = 8 << 10;

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
    space: Mutex<Option<(Instant, Result<(), String>)>>,
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
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Whether the disk has the room that the config wants to stay free. Asked once a second at most.
    fn check_space(&self) -> Result<(), CommitError> {
        if self.min_free == 0 {
            return Ok(());
        }
        let mut space = lock(&self.space);
        if space.as_ref().is_none_or(|(since, _)| since.elapsed() >= Duration::from_secs(1)) {
            let enough = match self.dirs.disk.free(&self.dirs.spool) {
                Ok(free) if free < self.min_free => Err(format!("{free} octets free, min-free is {}", self.min_free)),
                _ => Ok(()), // if it cannot be asked, writing will tell
            };
            *space = Some((Instant::now(), enough));
        }
        match &*space {
            Some((_, Err(why))) => Err(CommitError::Full(why.clone())),
            _ => Ok(()),
        }
    }

    /// Where the body is to lie; what is not to lie in the record is in a file when this returns, and durable.
    async fn place_body(&self, message: &Message) -> Result<Option<Arc<BodyFile>>, CommitError> {
        let Some(body) = message.letter.body() else { return Ok(None) };
        let in_memory = body.as_slice().is_some();
        if in_memory && body.len() <= self.inline_size {
            return Ok(None);
        }
        let (dirs, body, id) = (self.dirs.clone(), body.clone(), message.id);
        let write = move || {
            // A policy may have changed the body; then the draft is not what is to be kept.
            let own =
                body.as_any().and_then(|any| any.downcast_ref::<BodyFile>()).is_some_and(|own| own.name().0 == id);
            let sync = |file: &BodyFile| file.sync().map_err(|err| CommitError::from_io(&err, "sync of the body"));
            if own {
                body.as_any().and_then(|any| any.downcast_ref::<BodyFile>()).map_or(Ok(()), sync)?;
                return Ok(None);
            }
            let mut draft = Draft::create(&dirs.disk, &dirs.body, id)?;
            let mut buffer = vec![0; 256 << 10];
            while draft.len() < body.len() {
                match body.read_at(draft.len(), &mut buffer) {
                    Ok(0) => return Err(CommitError::Body("it is shorter than it was".into())),
                    Ok(n) => draft.write(buffer.get(..n).unwrap_or_default())?,
                    Err(err) => return Err(CommitError::Body(err.to_string())),
                }
            }
            let file = draft.finish_file();
            sync(&file)?;
            Ok(Some(file))
        };
        tokio::task::spawn_blocking(write).await.map_err(|err| CommitError::Body(err.to_string()))?
    }

    fn append(
        &self,
        message: &Message,
        body: Option<&BodyFile>,
    ) -> Result<oneshot::Receiver<Result<(), CommitError>>, CommitError> {
        let header = message.letter.header();
        let inline = if body.is_some() { None } else { message.letter.body_slice() };
        let place = match body {
            Some(file) => BodyPlace::File { number: file.name().1, len: crate::policy::Content::len(file) },
            None => BodyPlace::Inline,
        };
        let mut crc = crc32fast::Hasher::new();
        crc.update(header);
        crc.update(inline.unwrap_or_default());
        let meta = MetaRef {
            arrived: message.arrived,
            envelope: &message.envelope,
            hold: &message.hold,
            filter: &message.filter,
            header_len: u32::try_from(header.len()).map_err(|_| CommitError::TooLarge)?,
            body: place,
            data_crc: crc.finalize(),
        };
        let meta = meta.encode().map_err(|_| CommitError::TooLarge)?;
        let (done, result) = oneshot::channel();
        let mut log = lock(&self.log);
        if log.closing {
            return Err(CommitError::Closed);
        }
        let at = log
            .append(Kind::Message, message.id, &meta, &[header, inline.unwrap_or_default()])
            .map_err(|err| self.refuse(&err))?;
        let body = match place {
            BodyPlace::File { number, len } => Some(BodyName { number, len }),
            BodyPlace::Inline => None,
        };
        log.insert(message.id, at, body);
        let lsn = log.written;
        log.waiters.push_back(Waiter { lsn, id: Some(message.id), done });
        let wake = log.sleep != Sleep::Awake;
        let fill = u64::from(at.at) + u64::from(at.len);
        let three_quarters = self.dirs.segment_size / 4 * 3;
        let tidy = fill >= three_quarters && u64::from(at.at) < three_quarters;
        drop(log);
        if wake {
            self.work.notify_one();
        }
        if tidy {
            self.chores.notify_one();
        }
        Ok(result)
    }

    fn refuse(&self, err: &io::Error) -> CommitError {
        let refused = CommitError::from_io(err, "write");
        self.trouble.set(again(&refused));
        self.chores.notify_one(); // perhaps something can be cleaned away
        refused
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

    /// Reads a record, or its front at least: as much as `want` octets. Where it is may change while it is being read.
    fn read(&self, id: QueueId, kind: Kind, want: usize) -> Result<Option<(Vec<u8>, Marker)>, LoadError> {
        let mut tried: Option<Place> = None;
        loop {
            let (place, file, marker) = {
                let log = lock(&self.log);
                let slot = log.index.get(&id).ok_or(LoadError::Gone)?;
                let place = if kind == Kind::Message { Some(slot.message) } else { slot.state };
                let Some(place) = place else { return Ok(None) };
                let segment = log.segments.get(&place.segment).ok_or(LoadError::Gone)?;
                (place, segment.file.clone(), segment.marker)
            };
            let mut octets = vec![0; want.min(place.len as usize)];
            let read = file.read_at(&mut octets, u64::from(place.at))?;
            octets.truncate(read);
            if record::peek(&octets, 0, marker).is_some_and(|(found, own, ..)| found == kind && own == id) {
                return Ok(Some((octets, marker)));
            }
            if tried == Some(place) {
                return Err(damaged(file.path(), place));
            }
            tried = Some(place);
        }
    }

    fn read_meta(&self, id: QueueId) -> Result<(Meta, u64), LoadError> {
        let mut want = FRONT;
        loop {
            let (octets, marker) = self.read(id, Kind::Message, want)?.ok_or(LoadError::Gone)?;
            let needed = record::peek(&octets, 0, marker).map_or(0, |(_, _, meta, _)| HEADER + meta);
            if needed > octets.len() && needed > want {
                want = needed;
                continue;
            }
            let record = record::decode_front(&octets, 0, marker);
            let meta = record
                .and_then(|record| Some((Meta::decode(octets.get(record.meta)?).ok()?, record.data.len() as u64)));
            return meta.ok_or_else(|| LoadError::Damaged(format!("the record of message {id} is damaged")));
        }
    }

    fn state(&self, id: QueueId, meta: &Meta) -> Result<State, LoadError> {
        let bad = || LoadError::Damaged(format!("the state of message {id} is damaged"));
        let recipients = meta.envelope.recipients.len();
        if let Some(octets) = lock(&self.log).unwritten_state(id) {
            return decode_state(&octets, recipients).ok_or_else(bad);
        }
        match self.read(id, Kind::State, usize::MAX)? {
            None => Ok(meta.fresh_state()),
            Some((octets, marker)) => record::decode(&octets, 0, marker)
                .and_then(|record| decode_state(octets.get(record.meta)?, recipients))
                .ok_or_else(bad),
        }
    }

    fn stored(id: QueueId, meta: Meta, data_len: u64, state: State) -> Stored {
        let body = match meta.body {
            BodyPlace::Inline => data_len.saturating_sub(u64::from(meta.header_len)),
            BodyPlace::File { len, .. } => len,
        };
        let size = u64::from(meta.header_len) + 2 + body;
        let (arrived, filter) = (meta.arrived, meta.filter.clone());
        Stored { id, arrived, envelope: meta.into_envelope(), filter, size, state }
    }
}

fn damaged(path: &Path, place: Place) -> LoadError {
    LoadError::Damaged(format!("{}, octet {}: a damaged record", path.display(), place.at))
}

/// Drops the message again if the one who committed it goes away before it is durable: the client was never told 250.
struct Unacknowledged<'a> {
    shared: &'a Shared,
    id: Option<QueueId>,
}

impl Drop for Unacknowledged<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.note(|log| log.forget(id));
        }
    }
}

impl Store for Spool {
    fn commit<'a>(&'a self, message: &'a Message) -> Promise<'a, Result<(), CommitError>> {
        Box::pin(async move {
            let shared = &*self.shared;
            self.accepting()?;
            let written = shared.place_body(message).await?;
            let own =
                message.letter.body().and_then(|body| body.as_any()).and_then(|any| any.downcast_ref::<BodyFile>());
            let file = written.as_deref().or(own);
            let result = shared.append(message, file)?;
            // From here on the log names the file, and removes it with the message.
            if let Some(file) = file {
                file.keep(true);
            }
            let mut guard = Unacknowledged { shared, id: Some(message.id) };
            let result = result.await.unwrap_or(Err(CommitError::Closed));
            guard.id = None;
            result
        })
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
        let (meta, data_len) = self.shared.read_meta(id)?;
        let state = self.shared.state(id, &meta)?;
        Ok(Shared::stored(id, meta, data_len, state))
    }

    fn load(&self, id: QueueId) -> Result<(Stored, Letter), LoadError> {
        let shared = &*self.shared;
        let (mut octets, marker) = shared.read(id, Kind::Message, usize::MAX)?.ok_or(LoadError::Gone)?;
        let bad = |what: &str| LoadError::Damaged(format!("{what} of message {id} is damaged"));
        let record = record::decode(&octets, 0, marker).ok_or_else(|| bad("the record"))?;
        let meta = octets.get(record.meta.clone()).and_then(|meta| Meta::decode(meta).ok());
        let meta = meta.ok_or_else(|| bad("the envelope"))?;
        let data_len = record.data.len() as u64;
        octets.drain(..record.data.start);
        octets.truncate(record.data.len());
        if crc32fast::hash(&octets) != meta.data_crc {
            return Err(bad("the content"));
        }
        let file = match meta.body {
            BodyPlace::Inline => None,
            BodyPlace::File { number, len } => {
                let file = BodyFile::open(&shared.dirs.disk, &shared.dirs.body, id, number, len);
                let file = file.map_err(|err| match err.kind() {
                    io::ErrorKind::NotFound if self.contains(id) => {
                        LoadError::Damaged(format!("the body file of message {id} is missing"))
                    }
                    _ => LoadError::Io(err),
                })?;
                Some(Arc::new(file) as Arc<dyn crate::policy::Content>)
            }
        };
        let letter = Letter::read_back(octets, meta.header_len as usize, file);
        let state = shared.state(id, &meta)?;
        Ok((Shared::stored(id, meta, data_len, state), letter))
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
