//! The log itself: which segments there are, where each message lies in them, what is written and what is synced. All of it
//! under one lock, which is held for one `pwritev` at most, except when a segment could not be prepared in time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Dirs;
use super::alone::StandIn;
use super::body::file_name;
use super::record::{self, Kind, Marker};
use crate::mail::QueueId;
use crate::queue::CommitError;
use crate::queue::disk::DiskFile;

/// Octets at the end of a segment that only notes may use, so that a full disk does not make us forget what was delivered.
const RESERVE: u64 = 64 << 10;

/// Where a record lies. Segment 0 does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub segment: u32,
    pub at: u32,
    pub len: u32,
}

/// Where a message lies and what became of it. A million of these are in memory: keep it small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub message: Place,
    pub state: Option<Place>,
}

/// A body file.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyName {
    pub number: u32,
    pub len: u64,
}

/// A segment that can be written to.
pub(super) struct Open {
    pub number: u32,
    pub marker: Marker,
    pub file: Arc<DiskFile>,
    pub tail: u64,
}

/// A segment that holds records.
pub(super) struct Segment {
    pub file: Arc<DiskFile>,
    pub marker: Marker,
    /// Octets in use.
    pub len: u64,
    /// Octets that the file takes.
    pub size: u64,
    /// Octets of live records.
    pub live: u64,
    /// Messages in older segments whose removal is noted here: as long as that segment exists, the note must.
    pub graves: BTreeMap<u32, Vec<QueueId>>,
    /// When nothing more was written to it.
    pub sealed: Option<Instant>,
    /// `Log::written` when it was sealed: it may go when all that is synced.
    pub sealed_at: u64,
    /// A sync of it failed: nothing is written there again, not even after all of it is dead.
    pub poisoned: bool,
    /// Something in it cannot be read; it stays until somebody looks.
    pub damaged: bool,
}

/// Something that became of a message and must be remembered, though nobody waits for it.
#[derive(Debug, Clone)]
pub(super) enum Note {
    /// Its new state, encoded.
    State { id: QueueId, meta: Vec<u8> },
    /// It is gone. It lay in these segments; its body file may go when this is durable.
    Removed { id: QueueId, lay_in: Vec<u32>, body: Option<PathBuf> },
}

/// Somebody who waits for a sync.
pub(super) struct Waiter {
    pub lsn: u64,
    pub id: Option<QueueId>,
    pub done: oneshot::Sender<Result<(), CommitError>>,
}

/// What the sync thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sleep {
    /// Working: it will see what there is.
    Awake,
    /// Until it is due anyway; only a waiter is a reason to wake it.
    UntilDue,
    /// Until it is woken.
    Forever,
}

/// All of it.
pub(super) struct Log {
    pub dirs: Arc<Dirs>,
    pub current: Option<Open>,
    /// Prepared ahead of need.
    pub next: Option<Open>,
    pub segments: BTreeMap<u32, Segment>,
    pub last_number: u32,
    pub index: HashMap<QueueId, Slot>,
    pub bodies: HashMap<QueueId, BodyName>,
    /// Older copies of a message that a crash in the middle of a compaction left.
    pub copies: HashMap<QueueId, Vec<u32>>,
    /// Octets ever appended by this process, and how many of them are durable.
    pub written: u64,
    pub synced: u64,
    /// Sealed since the last sync.
    pub unsynced: Vec<(u32, Arc<DiskFile>)>,
    pub waiters: VecDeque<Waiter>,
    /// Written, not yet durable, with the offset they end at.
    pub notes: VecDeque<(u64, Note)>,
    /// Not even written yet.
    pub backlog: VecDeque<Note>,
    /// Body files that may go.
    pub dead_bodies: Vec<PathBuf>,
    pub sleep: Sleep,
    /// When the last sync ended, and how long it took.
    pub synced_at: Instant,
    pub last_sync: Duration,
    /// Who syncs now in the sync thread's place, whether anybody did since it last looked, and whether it looks again soon.
    pub stand_in: Option<StandIn>,
    pub stood_in: bool,
    pub watched: bool,
    pub closing: bool,
    /// The janitor has ended: nobody is left who could wait for another sync.
    pub tidied: bool,
}

impl Log {
    pub fn new(dirs: Arc<Dirs>) -> Self {
        Self {
            dirs,
            current: None,
            next: None,
            segments: BTreeMap::new(),
            last_number: 0,
            index: HashMap::new(),
            bodies: HashMap::new(),
            copies: HashMap::new(),
            written: 0,
            synced: 0,
            unsynced: Vec::new(),
            waiters: VecDeque::new(),
            notes: VecDeque::new(),
            backlog: VecDeque::new(),
            dead_bodies: Vec::new(),
            sleep: Sleep::Awake,
            synced_at: Instant::now(),
            last_sync: Duration::MAX,
            stand_in: None,
            stood_in: false,
            watched: false,
            closing: false,
            tidied: false,
        }
    }

    /// A number that no segment ever had.
    pub fn take_number(&mut self) -> u32 {
        self.last_number = self.last_number.saturating_add(1);
        self.last_number
    }

    /// Octets of a segment that messages may use.
    fn room(&self, kind: Kind) -> u64 {
        let size = self.dirs.segment_size;
        if kind == Kind::Message { size - RESERVE.min(size / 8) } else { size }
    }

    /// Seals the current segment and goes on to the next.
    pub fn roll(&mut self) -> io::Result<()> {
        let next = match self.next.take() {
            Some(next) => next,
            None => {
                let number = self.take_number();
                self.dirs.create_segment(number)?
            }
        };
        self.seal();
        let segment = Segment {
            file: next.file.clone(),
            marker: next.marker,
            len: next.tail,
            size: self.dirs.segment_size,
            live: 0,
            graves: BTreeMap::new(),
            sealed: None,
            sealed_at: 0,
            poisoned: false,
            damaged: false,
        };
        self.segments.insert(next.number, segment);
        self.current = Some(next);
        Ok(())
    }

    /// Nothing more is written to the current segment.
    pub fn seal(&mut self) {
        let Some(old) = self.current.take() else { return };
        if let Some(segment) = self.segments.get_mut(&old.number) {
            segment.len = old.tail;
            segment.size = segment.size.max(old.tail);
            segment.sealed = Some(Instant::now());
            segment.sealed_at = self.written;
        }
        self.unsynced.push((old.number, old.file));
    }

    /// Writes one record. After an error nothing of it counts: the next record is written over what came of it.
    pub fn append(&mut self, kind: Kind, id: QueueId, meta: &[u8], data: &[&[u8]]) -> io::Result<Place> {
        let data_len: usize = data.iter().map(|part| part.len()).sum();
        let len = (record::HEADER + meta.len() + data_len) as u64;
        let full = |open: &Open| open.tail + len > self.room(kind) && open.tail > record::HEAD as u64;
        if self.current.as_ref().is_none_or(full) {
            self.roll()?;
        }
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        let header = record::encode_header(current.marker, kind, id, meta, data_len);
        let place = header.zip(u32::try_from(current.tail).ok()).zip(u32::try_from(len).ok());
        let Some(((header, at), len)) = place else { return Err(io::ErrorKind::FileTooLarge.into()) };
        let mut slices = Vec::with_capacity(2 + data.len());
        slices.extend([IoSlice::new(&header), IoSlice::new(meta)]);
        slices.extend(data.iter().map(|part| IoSlice::new(part)));
        current.file.write_all_at(&mut slices, current.tail)?;
        current.tail += u64::from(len);
        self.written += u64::from(len);
        Ok(Place { segment: current.number, at, len })
    }

    /// Counts octets as live, or as no longer so.
    pub fn count(&mut self, place: Place, born: bool) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            let len = u64::from(place.len);
            segment.live = if born { segment.live + len } else { segment.live.saturating_sub(len) };
        }
    }

    /// A message was appended there.
    pub fn insert(&mut self, id: QueueId, message: Place, body: Option<BodyName>) {
        self.count(message, true);
        self.index.insert(id, Slot { message, state: None });
        if let Some(body) = body {
            self.bodies.insert(id, body);
        }
    }

    /// Takes a message out of the index. The note that makes this last, unless there is no such message.
    pub fn forget(&mut self, id: QueueId) -> Option<Note> {
        let slot = self.index.remove(&id)?;
        self.count(slot.message, false);
        if let Some(state) = slot.state {
            self.count(state, false);
        }
        let mut lay_in = self.copies.remove(&id).unwrap_or_default();
        lay_in.push(slot.message.segment);
        let body = self.bodies.remove(&id).map(|body| self.dirs.body.join(file_name(id, body.number)));
        Some(Note::Removed { id, lay_in, body })
    }

    /// Writes a note, or remembers to do so.
    pub fn note(&mut self, note: Note) {
        self.backlog.push_back(note);
        if self.backlog.len() == 1 || self.current.is_none() {
            // An error is not lost: the sync thread tries again and reports it.
            let _ = self.write_backlog();
        }
    }

    /// Writes the notes that could not be written before.
    pub fn write_backlog(&mut self) -> io::Result<()> {
        while let Some(note) = self.backlog.pop_front() {
            if let Err(err) = self.write_note(&note) {
                self.backlog.push_front(note);
                return Err(err);
            }
            self.notes.push_back((self.written, note));
        }
        Ok(())
    }

    fn write_note(&mut self, note: &Note) -> io::Result<()> {
        match note {
            Note::State { id, meta } => {
                if !self.index.contains_key(id) {
                    return Ok(()); // it has been removed meanwhile
                }
                let place = self.append(Kind::State, *id, meta, &[])?;
                self.count(place, true);
                if let Some(old) = self.index.get_mut(id).and_then(|slot| slot.state.replace(place)) {
                    self.count(old, false);
                }
            }
            Note::Removed { id, lay_in, .. } => {
                let place = self.append(Kind::Removed, *id, &[], &[])?;
                self.mark_graves(place.segment, *id, lay_in);
            }
        }
        Ok(())
    }

    /// A removal is noted in `segment`; as long as one of `lay_in` exists, the note must.
    pub fn mark_graves(&mut self, segment: u32, id: QueueId, lay_in: &[u32]) {
        for target in lay_in.iter().filter(|target| **target != segment) {
            if self.segments.contains_key(target)
                && let Some(own) = self.segments.get_mut(&segment)
            {
                own.graves.entry(*target).or_default().push(id);
            }
        }
    }

    /// A state that is not written yet.
    pub fn unwritten_state(&self, id: QueueId) -> Option<Vec<u8>> {
        self.backlog.iter().rev().find_map(|note| match note {
            Note::State { id: own, meta } if *own == id => Some(meta.clone()),
            _ => None,
        })
    }

    /// A segment is no more: notes on messages in it need not be kept.
    pub fn drop_segment(&mut self, number: u32) {
        self.segments.remove(&number);
        for segment in self.segments.values_mut() {
            segment.graves.remove(&number);
        }
        self.copies.retain(|_, segments| {
            segments.retain(|segment| *segment != number);
            !segments.is_empty()
        });
    }

    /// All up to `lsn` is durable: those who wait for it may be told.
    pub fn synced(&mut self, lsn: u64) -> Vec<Waiter> {
        self.synced = self.synced.max(lsn);
        while self.notes.front().is_some_and(|(end, _)| *end <= lsn) {
            if let Some((_, Note::Removed { body: Some(body), .. })) = self.notes.pop_front() {
                self.dead_bodies.push(body);
            }
        }
        let ready = self.waiters.iter().take_while(|waiter| waiter.lsn <= lsn).count();
        self.waiters.drain(..ready).collect()
    }

    /// A sync failed. Whatever was written since the last good one may or may not be on the disk, whatever the system says from
    /// now on: messages in it were never acknowledged and are dropped, notes are written again elsewhere. Returns whom to tell.
    pub fn poison(&mut self, files: &[u32]) -> Vec<Waiter> {
        self.seal();
        for (number, _) in std::mem::take(&mut self.unsynced) {
            self.poison_segment(number);
        }
        for number in files {
            self.poison_segment(*number);
        }
        let failed: Vec<Waiter> = self.waiters.drain(..).collect();
        let mut notes: VecDeque<Note> = self.notes.drain(..).map(|(_, note)| note).collect();
        for id in failed.iter().filter_map(|waiter| waiter.id) {
            notes.extend(self.forget(id));
        }
        notes.append(&mut self.backlog);
        self.backlog = notes;
        self.synced = self.written; // nothing of it waits any more
        failed
    }

    fn poison_segment(&mut self, number: u32) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.poisoned = true;
        }
    }
}
