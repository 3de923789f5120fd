//! The open database: reads and writes of one key at a time, lists, and what upkeep needs. Everything here may wait for the disk.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fjall::{AbstractTree as _, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::entry::{decode, encode, expiry_parts, expiry_row, parts, place};
use super::{Clock, Fault};
use crate::kv::change::{Act, Change, Entry, Outcome, check_key, decide};
use crate::kv::usage::{Delta, Usage};
use crate::kv::{Config, Error, Listed, MAX_LISTED, Space};

/// Octets of changes in memory before they are written to a table, for each of the two.
const MEMTABLE: u64 = 8 << 20;
/// Octets of journals: the database's minimum.
const JOURNALS: u64 = 64 << 20;
/// Files that it may hold open.
const OPEN_FILES: usize = 100;
/// Locks for keys; keys of the same hash share one.
const LOCKS: usize = 256;
/// How far its writers may be ahead of its workers: memtables that wait, runs of tables that wait. The database lets a writer wait without
/// end beyond twice that.
const MAX_SEALED: usize = 2;
const MAX_RUNS: usize = 15;
/// How long a writer waits for that, and how often it looks.
const BACKLOG_WAIT: Duration = Duration::from_millis(500);
const BACKLOG_LOOK: Duration = Duration::from_millis(5);

/// The database and what belongs to it as long as it is open.
pub(super) struct Tables {
    db: Database,
    entries: Keyspace,
    expiry: Keyspace,
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
    pub usage: Usage,
    clock: Clock,
    /// Something was written since the last sync.
    dirty: AtomicBool,
    /// All that was there when it was opened has been counted.
    pub counted: AtomicBool,
}

impl Tables {
    pub fn open(path: &Path, config: &Config, clock: Clock) -> Result<Self, fjall::Error> {
        let db = Database::builder(path)
            .cache_size(config.cache.as_u64())
            .max_journaling_size(JOURNALS)
            .max_cached_files(Some(OPEN_FILES))
            .worker_threads(1)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE);
        let entries = db.keyspace("entries", options)?;
        let expiry = db.keyspace("expiry", options)?;
        let locks = (0..LOCKS).map(|_| Mutex::new(())).collect();
        let (hasher, usage) = (RandomState::new(), Usage::default());
        let (dirty, counted) = (AtomicBool::new(true), AtomicBool::new(false));
        Ok(Self { db, entries, expiry, locks, hasher, usage, clock, dirty, counted })
    }

    pub fn now(&self) -> u64 {
        (self.clock)()
    }

    fn read(&self, place: &[u8]) -> Result<Option<Entry>, Fault> {
        let Some(octets) = self.entries.get(place)? else { return Ok(None) };
        let (expires, value) = decode(&octets).ok_or(Fault::Damaged)?;
        Ok(Some(Entry { value: value.to_vec(), expires }))
    }

    pub fn get(&self, space: &Space, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        check_key(key)?;
        let now = self.now();
        Ok(self.read(&own_place(space, key)?)?.filter(|entry| entry.live(now)).map(|entry| entry.value))
    }

    /// Reads, decides and writes one key; nobody else changes it meanwhile.
    pub fn change(&self, space: &Space, key: &str, act: Act) -> Result<Outcome, Fault> {
        check_key(key)?;
        let place = own_place(space, key)?;
        self.wait_for_room()?;
        let _lock = self.lock(&place);
        let stored = self.read(&place)?;
        let (change, outcome) = decide(act, stored.as_ref(), self.now())?;
        self.make(space, key, place, stored.as_ref(), change)?;
        Ok(outcome)
    }

    fn make(
        &self,
        space: &Space,
        key: &str,
        place: Vec<u8>,
        stored: Option<&Entry>,
        change: Change,
    ) -> Result<(), Fault> {
        let new = match change {
            Change::Keep => return Ok(()),
            Change::Remove if stored.is_none() => return Ok(()),
            Change::Remove => None,
            Change::Set(entry) => Some(entry),
        };
        let len = |entry: &Entry| entry.value.len();
        let delta = Delta::new(key, stored.map(len), new.as_ref().map(len));
        self.usage.reserve(space, delta)?;
        self.write(place, stored.and_then(|entry| entry.expires), new.as_ref())
            .inspect_err(|_| self.usage.release(space, delta))
    }

    /// Both tables in one step.
    fn write(&self, place: Vec<u8>, expired: Option<u64>, new: Option<&Entry>) -> Result<(), Fault> {
        let expires = new.and_then(|entry| entry.expires);
        let mut batch = self.db.batch();
        if expired != expires {
            if let Some(expired) = expired {
                batch.remove(&self.expiry, expiry_row(expired, &place));
            }
            if let Some(expires) = expires {
                batch.insert(&self.expiry, expiry_row(expires, &place), []);
            }
        }
        match new {
            Some(entry) => batch.insert(&self.entries, place, encode(entry)),
            None => batch.remove(&self.entries, place),
        }
        batch.commit()?;
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Up to `limit` live keys after `after`.
    pub fn list(&self, space: &Space, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Listed>, Fault> {
        let now = self.now();
        let begin = own_place(space, after.unwrap_or_default().max(prefix))?;
        let prefix = own_place(space, prefix)?;
        let after = after.map(|after| own_place(space, after)).transpose()?;
        let mut listed = Vec::new();
        for row in self.entries.range(begin..) {
            let (place, value) = row.into_inner()?;
            if listed.len() >= limit.min(MAX_LISTED) || !place.starts_with(&prefix) {
                break;
            }
            let (expires, value) = decode(&value).ok_or(Fault::Damaged)?;
            let (_, key) = parts(&place).ok_or(Fault::Damaged)?;
            let live = expires.is_none_or(|expires| now < expires);
            if live && after.as_ref().is_none_or(|after| *place > **after) {
                listed.push(Listed { key: key.to_owned(), size: value.len() as u64, expires });
            }
        }
        Ok(listed)
    }

    fn lock(&self, place: &[u8]) -> Option<std::sync::MutexGuard<'_, ()>> {
        let which = usize::try_from(self.hasher.hash_one(place)).unwrap_or(0) % LOCKS;
        self.locks.get(which).map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Beyond some backlog the database itself would let a writer wait without end, even for workers that are no more.
    fn wait_for_room(&self) -> Result<(), Fault> {
        let behind =
            |table: &Keyspace| table.sealed_memtable_count() > MAX_SEALED || table.tree.l0_run_count() > MAX_RUNS;
        let begun = std::time::Instant::now();
        while behind(&self.entries) || behind(&self.expiry) {
            if begun.elapsed() > BACKLOG_WAIT {
                return Err(Fault::Said(Error::Failed("the disk does not keep up with what is written".into())));
            }
            std::thread::sleep(BACKLOG_LOOK);
        }
        Ok(())
    }

    /// What was written so far is on the disk when this returns.
    pub fn sync(&self, path: &Path) -> Result<(), Fault> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.sync_journals(path).inspect_err(|_| self.dirty.store(true, Ordering::Release))
    }

    /// The database's own sync lets all writers wait until the disk is done. Whoever else syncs its journals does not.
    fn sync_journals(&self, path: &Path) -> Result<(), Fault> {
        let mut synced = false;
        for file in std::fs::read_dir(path).map_err(fjall::Error::from)? {
            let file = file.map_err(fjall::Error::from)?.path();
            if file.extension().is_some_and(|extension| extension == "jnl") {
                synced |= sync_file(&file).map_err(fjall::Error::from)?;
            }
        }
        if !synced {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }

    /// Counts what is there; all of it at once is too much for one step.
    pub fn counting(&self) -> Counting {
        Counting(self.entries.iter())
    }

    /// Removes up to `most` values whose time is up, from the row `from` on; the row to go on from if there are more.
    pub fn sweep(&self, from: &mut Vec<u8>, most: usize) -> Result<usize, Fault> {
        let now = self.now();
        let until = expiry_row(now.saturating_add(1), &[]);
        if *from >= until {
            from.clear(); // the clock was set back
        }
        let mut seen = 0;
        for row in self.expiry.range(from.clone()..until).take(most) {
            let row = row.key()?;
            let (expires, place) = expiry_parts(&row).ok_or(Fault::Damaged)?;
            self.wait_for_room()?;
            self.remove_expired(expires, place)?;
            from.clear();
            from.extend_from_slice(&row);
            seen += 1;
        }
        Ok(seen)
    }

    fn remove_expired(&self, expires: u64, place: &[u8]) -> Result<(), Fault> {
        let _lock = self.lock(place);
        let stored = self.read(place)?;
        match stored.filter(|entry| entry.expires == Some(expires)) {
            Some(entry) => {
                let (name, key) = parts(place).ok_or(Fault::Damaged)?;
                self.make(&Space::named(name), key, place.to_vec(), Some(&entry), Change::Remove)
            }
            None => Ok(self.expiry.remove(expiry_row(expires, place))?),
        }
    }

    pub fn disk(&self) -> u64 {
        self.db.disk_space().unwrap_or(0)
    }
}

/// True: it is there no more, or it is synced.
fn sync_file(path: &Path) -> std::io::Result<bool> {
    match std::fs::OpenOptions::new().write(true).open(path) {
        Ok(file) => file.sync_data().map(|()| true),
        // The database has removed it, because all that stood in it is in tables, and synced.
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err),
    }
}

fn own_place(space: &Space, key: &str) -> Result<Vec<u8>, Error> {
    place(space.name(), key).ok_or_else(|| Error::Failed("the namespace's name is too long".into()))
}

/// A count under way, of what was there when it began.
pub(super) struct Counting(fjall::Iter);

impl Counting {
    /// Counts `most` more; true if that was all.
    pub fn step(&mut self, tables: &Tables, most: usize) -> Result<bool, Fault> {
        for row in self.0.by_ref().take(most) {
            count(&tables.usage, row)?;
        }
        let Some(row) = self.0.next() else {
            tables.counted.store(true, Ordering::Release);
            return Ok(true);
        };
        count(&tables.usage, row).map(|()| false)
    }
}

fn count(usage: &Usage, row: Guard) -> Result<(), Fault> {
    let (place, value) = row.into_inner()?;
    let (name, key) = parts(&place).ok_or(Fault::Damaged)?;
    let (_, value) = decode(&value).ok_or(Fault::Damaged)?;
    usage.count(name, Delta::new(key, None, Some(value.len())));
    Ok(())
}
