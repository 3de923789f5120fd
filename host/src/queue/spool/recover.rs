//! What a start finds: segments are read through, records checked, the index rebuilt. What is damaged is said precisely, kept
//! aside, and never deleted; all else lives on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::body::file_name;
use super::log::{BodyName, Log, Place, Segment, Slot};
use super::meta::{InFile, Meta};
use super::record::{self, Kind, Marker, Record, Source as _, Step};
use super::window::Window;
use super::{Dirs, clean};
use crate::mail::QueueId;
use crate::queue::disk::DiskFile;

/// What a start found.
#[derive(Debug, Default, Serialize)]
pub struct Recovered {
    /// Messages that wait.
    pub messages: usize,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// Bodies of messages that were never committed, or gone; removed.
    pub orphans: usize,
    /// Segments that were read.
    pub segments: usize,
    /// The highest id that was ever seen.
    #[serde(skip)]
    pub highest: Option<QueueId>,
}

/// Octets that are not what was written, or never came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// In which file.
    pub file: PathBuf,
    /// From which octet.
    pub offset: u64,
    /// How many octets.
    pub len: u64,
    /// What it was, as far as one can tell.
    pub what: String,
    /// Where the octets are kept for whoever wants to look.
    pub kept_as: Option<PathBuf>,
}

/// What the segments say, before it is put together.
#[derive(Default)]
struct Findings {
    /// The newest copy of each message, and of some its last state. Taken over as it is: there may be a million.
    index: HashMap<QueueId, Slot>,
    /// Older copies of some, which a compaction left that was cut short.
    older: HashMap<QueueId, Vec<u32>>,
    bodies: HashMap<QueueId, BodyName>,
    /// States whose message is yet to come: a compaction may move it behind them.
    states: HashMap<QueueId, Place>,
    /// In which segment the removal is noted.
    gone: HashMap<QueueId, u32>,
    /// A segment holds nothing: most likely nothing was ever written there.
    blank: bool,
    report: Recovered,
}

/// Reads all segments.
pub(super) fn recover(dirs: Arc<Dirs>) -> io::Result<(Log, Recovered)> {
    let mut log = Log::new(dirs.clone());
    let mut findings = Findings::default();
    let mut numbers: Vec<u32> = dirs.disk.names(&dirs.spool)?.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    for (index, number) in numbers.iter().copied().enumerate() {
        let is_last = index + 1 == numbers.len();
        log.last_number = number;
        if let Some(segment) = findings.read_segment(&dirs, number, is_last)? {
            log.segments.insert(number, segment);
        }
    }
    findings.report.segments = numbers.len();
    let report = findings.settle(&dirs, &mut log)?;
    Ok((log, report))
}

/// `00000001.seg` is 1.
fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".seg").filter(|digits| digits.len() == 8)?.parse().ok()?;
    (number > 0).then_some(number)
}

impl Findings {
    fn read_segment(&mut self, dirs: &Dirs, number: u32, is_last: bool) -> io::Result<Option<Segment>> {
        let path = dirs.segment_path(number);
        let file = dirs.disk.open(path.clone())?;
        let size = file.size()?;
        let mut window = Window { file: &file, octets: Vec::new(), start: 0, at_end: false };
        let head = window.get(0, 2 * record::HEAD)?;
        let marker = match record::decode_head(head) {
            Ok(marker) => marker,
            Err(()) => {
                let head_len = head.len().min(record::HEAD);
                // A crash while the file was made leaves it without a head; nothing was ever written to it then.
                // That can only be the newest one.
                if window.is_blank()? {
                    drop(file);
                    self.blank = true;
                    match is_last {
                        true => dirs.remove_segment(number)?,
                        false => self.emptied(dirs, number, size)?,
                    }
                    return Ok(None);
                }
                let found = record::first_marker(&mut window)?;
                let what = match found {
                    Some(_) => "the head of the segment is damaged; the records are not",
                    None => "this is no spool segment, or its beginning is lost",
                };
                self.damage(dirs, number, &mut window, 0..head_len, what.into())?;
                match found {
                    Some(marker) => marker,
                    None => {
                        dirs.set_aside(&path)?;
                        return Ok(None);
                    }
                }
            }
        };
        let len = self.read_records(dirs, number, &mut window, marker, is_last)?;
        // What follows the last record was set aside for more, or is left from an earlier use.
        if size > len {
            file.set_len(len)?;
        }
        // The records of a process that was killed may be in the page cache only.
        file.sync()?;
        Ok(Some(segment(file, marker, len)))
    }

    /// Returns where the records end.
    fn read_records(
        &mut self,
        dirs: &Dirs,
        number: u32,
        window: &mut Window<'_>,
        marker: Marker,
        is_last: bool,
    ) -> io::Result<u64> {
        let mut at = record::HEAD;
        loop {
            match record::step(window, at, marker)? {
                Step::Record(found) => {
                    self.read_record(dirs, number, window, at, &found)?;
                    at += found.whole.end;
                }
                Step::Damaged { len, tail } => {
                    let what = match (tail, is_last) {
                        (true, true) => {
                            "the end is torn: a record that was being written when the server died, or a damaged one"
                        }
                        (true, false) => "the last record of the segment is damaged",
                        (false, _) => "a damaged record; those after it are sound",
                    };
                    self.damage(dirs, number, window, at..at + len, what.into())?;
                    at += len;
                    if tail {
                        return Ok(at as u64);
                    }
                }
                Step::End => return Ok(at as u64),
            }
        }
    }

    fn read_record(
        &mut self,
        dirs: &Dirs,
        number: u32,
        window: &mut Window<'_>,
        start: usize,
        found: &Record,
    ) -> io::Result<()> {
        let id = found.id;
        self.report.highest = self.report.highest.max(Some(id));
        let place = u32::try_from(start).ok().zip(u32::try_from(found.whole.len()).ok());
        let Some((at, len)) = place else { return Ok(()) };
        let place = Place { segment: number, at, len };
        match found.kind {
            Kind::State => match self.index.get_mut(&id) {
                Some(slot) => slot.state = Some(place),
                None => drop(self.states.insert(id, place)),
            },
            Kind::Removed => drop(self.gone.insert(id, number)),
            Kind::Message => {
                let octets = window.get(start, found.whole.len())?;
                let data = octets.get(found.data.clone()).unwrap_or_default();
                let meta = octets.get(found.meta.clone()).and_then(|meta| Meta::decode(meta).ok());
                match meta {
                    Some(meta) if crc32fast::hash(data) == meta.data_crc => self.found_message(id, place, &meta),
                    _ => {
                        let sender = meta.map(|meta| format!(" from <{}>", meta.envelope.reverse_path));
                        let sender = sender.unwrap_or_default();
                        let what = format!(
                            "the content of message {id}{sender} is not what was written: damaged, or cut short when the \
                             server died"
                        );
                        self.damage(dirs, number, window, start..start + found.whole.len(), what)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn found_message(&mut self, id: QueueId, place: Place, meta: &Meta) {
        if let Some(InFile { number, len, .. }) = meta.body.in_file() {
            self.bodies.insert(id, BodyName { number, len });
        }
        let state = self.states.remove(&id);
        let slot = self.index.entry(id).or_insert(Slot { message: place, state });
        let old = std::mem::replace(&mut slot.message, place);
        if old != place {
            self.older.entry(id).or_default().push(old.segment);
        }
    }

    /// An older segment is there by name only.
    fn emptied(&mut self, dirs: &Dirs, number: u32, len: u64) -> io::Result<()> {
        let file = dirs.segment_path(number);
        dirs.set_aside(&file)?;
        let kept_as = file.file_name().map(|name| dirs.damaged.join(name));
        let what = "the segment is empty, though there are later ones: what was in it is lost".into();
        self.report.damage.push(Damage { file, offset: 0, len, what, kept_as });
        Ok(())
    }

    fn damage(
        &mut self,
        dirs: &Dirs,
        number: u32,
        window: &mut Window<'_>,
        range: Range<usize>,
        what: String,
    ) -> io::Result<()> {
        let kept_as = dirs.keep_octets(number, range.start, window.get(range.start, range.len())?);
        let (offset, len) = (range.start as u64, range.len() as u64);
        self.report.damage.push(Damage { file: dirs.segment_path(number), offset, len, what, kept_as });
        Ok(())
    }

    /// Puts together what is alive.
    fn settle(mut self, dirs: &Dirs, log: &mut Log) -> io::Result<Recovered> {
        for (id, noted_in) in &self.gone {
            self.bodies.remove(id);
            let older = self.older.remove(id).unwrap_or_default();
            if let Some(slot) = self.index.remove(id) {
                let lay_in: Vec<u32> = older.into_iter().chain([slot.message.segment]).collect();
                log.mark_graves(*noted_in, *id, &lay_in);
            }
        }
        for slot in self.index.values() {
            log.count(slot.message, true);
            if let Some(state) = slot.state {
                log.count(state, true);
            }
        }
        (log.index, log.copies, log.bodies) = (self.index, self.older, self.bodies);
        (self.index, self.older, self.bodies) = Default::default();
        self.report.messages = log.index.len();
        self.check_bodies(dirs, log)?;
        Ok(self.report)
    }

    /// Bodies that are missing are reported, bodies that nobody names removed.
    fn check_bodies(&mut self, dirs: &Dirs, log: &Log) -> io::Result<()> {
        let mut orphans: HashSet<String> = dirs.disk.names(&dirs.body)?.into_iter().collect();
        for (id, body) in &log.bodies {
            let name = file_name(*id, body.number);
            let path = dirs.body.join(&name);
            orphans.remove(&name);
            let len = dirs.disk.open(path.clone()).and_then(|file| file.size());
            let what = match len {
                Ok(len) if len == body.len => continue,
                Ok(len) => format!("the body of message {id} has {len} octets instead of {}", body.len),
                Err(err) => format!("the body of message {id}: {err}"),
            };
            self.report.damage.push(Damage { file: path, offset: 0, len: body.len, what, kept_as: None });
        }
        for name in orphans {
            let path = dirs.body.join(name);
            // If records are damaged, or were made to vanish, this may be a body of theirs.
            if self.report.damage.is_empty() && !self.blank {
                dirs.disk.remove(&path)?;
                self.report.orphans += 1;
            } else {
                dirs.set_aside(&path)?;
            }
        }
        Ok(())
    }
}

fn segment(file: DiskFile, marker: Marker, len: u64) -> Segment {
    Segment {
        file: Arc::new(file),
        marker,
        len,
        size: len,
        live: 0,
        graves: BTreeMap::new(),
        sealed: clean::long_ago(),
        sealed_at: 0,
        poisoned: false,
        damaged: false,
    }
}
