//! The janitor: keeps the disk use near the size of the live mail. Prepares the next segment before it is needed, takes dead
//! segments for that or removes them, moves what is left in nearly dead ones, removes the files of dead bodies.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::log::{Log, Open, Place, Segment, Waiter};
use super::record::{self, Kind, Marker};
use super::{Shared, lock};
use crate::mail::QueueId;
use crate::queue::disk::DiskFile;

/// How often it looks around unasked.
const PERIOD: Duration = Duration::from_secs(1);
/// Octets that a removal takes in a segment.
const GRAVE: u64 = record::HEADER as u64;

/// Runs until the log is closing.
pub(super) fn run(shared: &Shared) {
    loop {
        {
            let log = lock(&shared.log);
            if log.closing {
                return;
            }
            let _ = shared.chores.wait_timeout(log, PERIOD);
        }
        if lock(&shared.log).closing {
            return;
        }
        shared.tidy();
    }
}

impl Shared {
    /// One look around.
    pub(super) fn tidy(&self) {
        let _one_at_a_time = lock(&self.tidying);
        self.remove_bodies();
        self.dispose_of_dead();
        self.prepare_next();
        if let Some(number) = self.worst()
            && let Err(err) = self.compact(number)
        {
            tracing::warn!(segment = number, %err, "a spool segment could not be compacted");
        }
        self.dispose_of_dead();
    }

    fn remove_bodies(&self) {
        let dead = std::mem::take(&mut lock(&self.log).dead_bodies);
        for path in dead {
            if let Err(err) = self.dirs.disk.remove(&path) {
                tracing::warn!(file = %path.display(), %err, "the body of a message that is gone stays behind");
            }
        }
    }

    /// Sealed, durable, and neither a live message nor a note that is still needed in it.
    fn dispose_of_dead(&self) {
        loop {
            let mut log = lock(&self.log);
            let dead = |(number, segment): (&u32, &Segment)| {
                let sealed = segment.sealed.is_some() && segment.sealed_at <= log.synced && !segment.damaged;
                (sealed && segment.live == 0 && segment.graves.is_empty()).then_some((*number, segment.poisoned))
            };
            let Some((number, poisoned)) = log.segments.iter().find_map(dead) else { return };
            let full_size = log.segments.get(&number).is_some_and(|segment| segment.size == self.dirs.segment_size);
            let recycle = (log.next.is_none() && !poisoned && full_size).then(|| log.take_number());
            drop(log);
            let next = match recycle.map(|new| self.dirs.recycle_segment(number, new)) {
                Some(Ok(next)) => Some(next),
                other => {
                    if let Some(Err(err)) = other {
                        tracing::warn!(segment = number, %err, "a spool segment could not be used again");
                    }
                    if let Err(err) = self.dirs.remove_segment(number) {
                        tracing::warn!(segment = number, %err, "a dead spool segment stays behind");
                        return;
                    }
                    None
                }
            };
            let mut log = lock(&self.log);
            log.drop_segment(number);
            if next.is_some() {
                log.next = next;
            }
        }
    }

    /// Only when the current segment is three quarters full: by then one has died under normal load and is taken again, whose
    /// blocks are there already, which makes syncs a third faster.
    fn prepare_next(&self) {
        let mut log = lock(&self.log);
        let needed = match &log.current {
            Some(current) => current.tail >= self.dirs.segment_size / 4 * 3,
            None => true,
        };
        if !needed || log.next.is_some() {
            return;
        }
        let number = log.take_number();
        drop(log);
        match self.dirs.create_segment(number) {
            Ok(next) => lock(&self.log).next = Some(next),
            Err(err) => tracing::warn!(%err, "no room for the next spool segment"),
        }
    }

    /// The sealed segment with the least live mail, if all of them together hold more than a quarter of waste.
    fn worst(&self) -> Option<u32> {
        let log = lock(&self.log);
        let live = |segment: &Segment| {
            let graves: usize = segment.graves.values().map(Vec::len).sum();
            segment.live + graves as u64 * GRAVE
        };
        let (mut size, mut used, mut worst) = (0u64, 0u64, None);
        for (number, segment) in &log.segments {
            let Some(sealed) = segment.sealed.filter(|_| segment.sealed_at <= log.synced && !segment.damaged) else {
                continue;
            };
            if segment.poisoned {
                return Some(*number); // what can be read of it is better off elsewhere
            }
            if sealed.elapsed() < self.compact_after {
                continue;
            }
            size += segment.size;
            used += live(segment);
            // Compared by the share of live octets, in parts of 1024.
            let share = live(segment) * 1024 / segment.size.max(1);
            if worst.is_none_or(|(least, _)| share < least) {
                worst = Some((share, *number));
            }
        }
        (size > used + used / 4).then_some(worst?.1)
    }

    /// Copies what lives in a segment to the end of the log, and waits until the copies are durable. Reads the index through,
    /// which takes some 10 ms a million messages.
    pub(super) fn compact(&self, number: u32) -> io::Result<()> {
        let (file, marker, mut places, graves) = {
            let log = lock(&self.log);
            let Some(segment) = log.segments.get(&number) else { return Ok(()) };
            let mut places: Vec<(QueueId, Kind, Place)> = Vec::new();
            for (id, slot) in &log.index {
                if slot.message.segment == number {
                    places.push((*id, Kind::Message, slot.message));
                }
                if let Some(state) = slot.state.filter(|state| state.segment == number) {
                    places.push((*id, Kind::State, state));
                }
            }
            (segment.file.clone(), segment.marker, places, segment.graves.clone())
        };
        places.sort_unstable_by_key(|(_, _, place)| place.at);
        let mut moves = Vec::with_capacity(places.len());
        let copied = self.copy(&file, marker, &places, &mut moves).and_then(|()| {
            let mut log = lock(&self.log);
            for (target, ids) in &graves {
                for id in ids {
                    let place = log.append(Kind::Removed, *id, &[], &[])?;
                    log.mark_graves(place.segment, *id, &[*target]);
                }
            }
            Ok(())
        });
        match copied.and_then(|()| self.wait_for_sync()) {
            Ok(()) => {
                if let Some(segment) = lock(&self.log).segments.get_mut(&number) {
                    segment.graves.clear();
                }
                Ok(())
            }
            Err(err) => {
                self.take_back(&moves);
                if err.kind() == io::ErrorKind::InvalidData
                    && let Some(segment) = lock(&self.log).segments.get_mut(&number)
                {
                    segment.damaged = true;
                }
                Err(err)
            }
        }
    }

    fn copy(
        &self,
        file: &DiskFile,
        marker: Marker,
        places: &[(QueueId, Kind, Place)],
        moves: &mut Vec<Move>,
    ) -> io::Result<()> {
        let mut octets = Vec::new();
        for (id, kind, from) in places {
            octets.resize(from.len as usize, 0);
            let read = file.read_at(&mut octets, u64::from(from.at))?;
            let record = record::decode(octets.get(..read).unwrap_or_default(), 0, marker)
                .filter(|record| record.id == *id && record.kind == *kind);
            let parts = record.and_then(|record| octets.get(record.meta).zip(octets.get(record.data)));
            let Some((meta, data)) = parts else {
                let what = format!("{} is damaged at octet {}", file.path().display(), from.at);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            };
            let mut log = lock(&self.log);
            if log.index.get(id).and_then(|slot| at(slot, *kind)) != Some(*from) {
                continue; // removed or changed meanwhile
            }
            let to = log.append(*kind, *id, meta, &[data])?;
            let step = Move { id: *id, kind: *kind, from: *from, to };
            step.redirect(&mut log, *from, to);
            moves.push(step);
        }
        Ok(())
    }

    pub(super) fn wait_for_sync(&self) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        let mut log = lock(&self.log);
        let lsn = log.written;
        log.waiters.push_back(Waiter { lsn, id: None, done });
        drop(log);
        self.work.notify_one();
        match result.blocking_recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(err)) => Err(io::Error::other(err.to_string())),
            Err(_) => Err(io::Error::other("the spool is closing")),
        }
    }

    /// The copies are not believed: the originals are still there.
    fn take_back(&self, moves: &[Move]) {
        let mut log = lock(&self.log);
        for step in moves {
            if log.index.get(&step.id).and_then(|slot| at(slot, step.kind)) == Some(step.to) {
                step.redirect(&mut log, step.to, step.from);
            }
            if step.kind == Kind::Message && log.index.contains_key(&step.id) {
                // Should the copy turn out to be there after all, it must not outlive the message.
                log.copies.entry(step.id).or_default().push(step.to.segment);
            }
        }
    }
}

/// A record that was copied.
struct Move {
    id: QueueId,
    kind: Kind,
    from: Place,
    to: Place,
}

impl Move {
    fn redirect(&self, log: &mut Log, from: Place, to: Place) {
        if let Some(slot) = log.index.get_mut(&self.id) {
            match self.kind {
                Kind::Message => slot.message = to,
                Kind::State | Kind::Removed => slot.state = Some(to),
            }
            log.count(from, false);
            log.count(to, true);
        }
    }
}

fn at(slot: &super::log::Slot, kind: Kind) -> Option<Place> {
    match kind {
        Kind::Message => Some(slot.message),
        Kind::State | Kind::Removed => slot.state,
    }
}

impl super::Dirs {
    /// A fresh segment, durable by name, with room set aside.
    pub(super) fn create_segment(&self, number: u32) -> io::Result<Open> {
        let path = self.segment_path(number);
        let marker = Marker::random();
        let make = || {
            let file = self.disk.create(path.clone())?;
            file.allocate(self.segment_size)?;
            self.begin(file, number, marker)
        };
        make().inspect_err(|_| {
            let _ = self.disk.remove(&path); // an empty segment would do no harm
        })
    }

    /// Head first, name second: after a crash in between, the old name holds an empty segment.
    pub(super) fn recycle_segment(&self, old: u32, new: u32) -> io::Result<Open> {
        let marker = Marker::random();
        let from = self.segment_path(old);
        let to = self.segment_path(new);
        let file = self.disk.open(from.clone())?;
        file.write_all_at(&mut [io::IoSlice::new(&record::encode_head(marker, new))], 0)?;
        file.sync()?;
        self.disk.rename(&from, &to)?;
        self.disk.sync_dir(&self.spool)?;
        Ok(Open { number: new, marker, file: Arc::new(self.disk.open(to)?), tail: record::HEAD as u64 })
    }

    fn begin(&self, file: DiskFile, number: u32, marker: Marker) -> io::Result<Open> {
        file.write_all_at(&mut [io::IoSlice::new(&record::encode_head(marker, number))], 0)?;
        file.sync()?;
        self.disk.sync_dir(&self.spool)?;
        Ok(Open { number, marker, file: Arc::new(file), tail: record::HEAD as u64 })
    }

    /// Durable: what other segments say of this one's messages may go afterwards.
    pub(super) fn remove_segment(&self, number: u32) -> io::Result<()> {
        self.disk.remove(&self.segment_path(number))?;
        self.disk.sync_dir(&self.spool)
    }
}

/// A segment as `usage` counts it.
pub(super) fn disk_use(log: &Log, segment_size: u64) -> u64 {
    let segments: u64 = log.segments.values().map(|segment| segment.size).sum();
    segments + if log.next.is_some() { segment_size } else { 0 } + log.bodies.values().map(|body| body.len).sum::<u64>()
}

/// When a segment of an earlier run counts as sealed: long ago.
pub(super) fn long_ago() -> Option<Instant> {
    Instant::now().checked_sub(Duration::from_secs(86_400)).or_else(|| Some(Instant::now()))
}
