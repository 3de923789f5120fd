//! What stands in a segment: its head, then records end to end. Pure: octets in, octets out.
//!
//! ```text
//! head    "wasmta-spool-1\n\0" | marker 8 | number 4 | crc 4
//! record  marker 8 | payload length 4 | meta length 4 | id 8 | kind 1 | 0 0 0 | crc 4 | meta | data
//! ```
//! Numbers are little-endian. `crc` covers all before it and the meta; the meta of a message holds the CRC of its data.
//! The marker is random, one for each use of a file: what an earlier use left behind it is no record, and nobody who does not
//! read the spool can put a record into the body of a mail for recovery to find.

use std::io;
use std::ops::Range;

use crc32fast::Hasher;

use crate::mail::QueueId;

const MAGIC: &[u8; 16] = b"wasmta-spool-1\n\0";
/// Octets of a segment's head.
pub const HEAD: usize = 32;
/// Octets of a record before its meta.
pub const HEADER: usize = 32;
/// Octets that are searched at once.
const WINDOW: usize = 1 << 20;
/// Octets of meta that any record may have. A message for 50,000 recipients fits.
const MAX_META: usize = 32 << 20;

/// Random, one for each use of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker(u64);

impl Marker {
    /// One that nobody can guess: the standard library takes the keys of its hash maps from the system's random source.
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self(RandomState::new().hash_one("marker"))
    }

    /// Whether `octets` begin with it or with what is left of it when one octet was damaged.
    fn nearly_begins(self, octets: &[u8]) -> bool {
        octets.first_chunk().is_some_and(|word| (u64::from_le_bytes(*word) ^ self.0).count_ones() <= 8)
    }
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message: envelope, header section, and the body or the name of its file.
    Message = 1,
    /// What became of a message so far; the last one counts.
    State = 2,
    /// The message is gone.
    Removed = 3,
}

/// The head of a segment.
pub fn encode_head(marker: Marker, number: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..16].copy_from_slice(MAGIC);
    head[16..24].copy_from_slice(&marker.0.to_le_bytes());
    head[24..28].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// The marker of a segment, if its head is sound.
pub fn decode_head(octets: &[u8]) -> Result<Marker, ()> {
    let sound = octets.get(..28).is_some_and(|head| head.starts_with(MAGIC))
        && le32(octets, 28) == octets.get(..28).map(crc32fast::hash);
    marker_at(octets, 16).filter(|_| sound).ok_or(())
}

/// The marker of the first record, where the head is damaged but that record is not.
pub fn first_marker(source: &mut impl Source) -> io::Result<Option<Marker>> {
    let Some(marker) = marker_at(source.get(HEAD, HEADER)?, 0) else { return Ok(None) };
    Ok(record_at(source, HEAD, marker)?.map(|_| marker))
}

fn marker_at(octets: &[u8], at: usize) -> Option<Marker> {
    Some(Marker(u64::from_le_bytes(*octets.get(at..)?.first_chunk()?)))
}

fn le32(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*octets.get(at..)?.first_chunk()?))
}

/// The header of a record whose meta is this and whose data has this many octets. None if it is longer than a record can be.
pub fn encode_header(marker: Marker, kind: Kind, id: QueueId, meta: &[u8], data_len: usize) -> Option<[u8; HEADER]> {
    let len = u32::try_from(meta.len().checked_add(data_len)?).ok()?;
    let meta_len = u32::try_from(meta.len()).ok().filter(|len| *len as usize <= MAX_META)?;
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&marker.0.to_le_bytes());
    header[8..12].copy_from_slice(&len.to_le_bytes());
    header[12..16].copy_from_slice(&meta_len.to_le_bytes());
    header[16..24].copy_from_slice(&id.as_u64().to_le_bytes());
    header[24] = kind as u8;
    let mut crc = Hasher::new();
    crc.update(&header[..28]);
    crc.update(meta);
    header[28..].copy_from_slice(&crc.finalize().to_le_bytes());
    Some(header)
}

/// Where the parts of a record lie in the octets it was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// Of which message.
    pub id: QueueId,
    /// All of it.
    pub whole: Range<usize>,
    /// Its meta; its CRC was right.
    pub meta: Range<usize>,
    /// Its data; whoever knows the meta checks its CRC.
    pub data: Range<usize>,
}

/// Reads the header of the record that begins at `at`, without its CRC: kind, id, meta length and payload length.
pub fn peek(octets: &[u8], at: usize, marker: Marker) -> Option<(Kind, QueueId, usize, usize)> {
    let header = octets.get(at..at.checked_add(HEADER)?)?;
    if header.get(..8)? != marker.0.to_le_bytes() {
        return None;
    }
    let (len, meta_len) = (le32(header, 8)? as usize, le32(header, 12)? as usize);
    let id = QueueId::from_u64(u64::from_le_bytes(*header.get(16..)?.first_chunk()?));
    let kind = match header.get(24..28)? {
        [1, 0, 0, 0] => Kind::Message,
        [2, 0, 0, 0] => Kind::State,
        [3, 0, 0, 0] => Kind::Removed,
        _ => return None,
    };
    (meta_len <= len && meta_len <= MAX_META).then_some((kind, id, meta_len, len))
}

/// The record that begins at `at`, if one does and all of it is there.
pub fn decode(octets: &[u8], at: usize, marker: Marker) -> Option<Record> {
    decode_front(octets, at, marker).filter(|record| record.whole.end <= octets.len())
}

/// The same, but its data may lie beyond `octets`.
pub fn decode_front(octets: &[u8], at: usize, marker: Marker) -> Option<Record> {
    let (kind, id, meta_len, len) = peek(octets, at, marker)?;
    let meta = at + HEADER..at + HEADER + meta_len;
    let mut crc = Hasher::new();
    crc.update(octets.get(at..at + 28)?);
    crc.update(octets.get(meta.clone())?);
    if crc.finalize() != le32(octets, at + 28)? {
        return None;
    }
    let end = (at + HEADER).checked_add(len)?;
    Some(Record { kind, id, whole: at..end, data: meta.end..end, meta })
}

/// Octets of a segment, wherever they are.
pub trait Source {
    /// `len` octets from `at`; fewer at the end.
    fn get(&mut self, at: usize, len: usize) -> io::Result<&[u8]>;
}

/// What comes next in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A record. Its ranges count from its beginning.
    Record(Record),
    /// Octets that once were records, or should have become some; sound ones follow, or nothing does.
    Damaged {
        /// How many.
        len: usize,
        /// Whether nothing sound follows: a record that was being written, most likely.
        tail: bool,
    },
    /// Nothing was written from here on.
    End,
}

/// The record that begins at `at`, if a sound one does.
fn record_at(source: &mut impl Source, at: usize, marker: Marker) -> io::Result<Option<Record>> {
    let Some((_, _, _, len)) = peek(source.get(at, HEADER)?, 0, marker) else { return Ok(None) };
    Ok(decode(source.get(at, HEADER.saturating_add(len))?, 0, marker))
}

/// What stands at `at`.
pub fn step(source: &mut impl Source, at: usize, marker: Marker) -> io::Result<Step> {
    if let Some(record) = record_at(source, at, marker)? {
        return Ok(Step::Record(record));
    }
    if let Some(next) = next_record(source, at + 1, marker)? {
        return Ok(Step::Damaged { len: next - at, tail: false });
    }
    let front = source.get(at, HEADER)?;
    if !marker.nearly_begins(front) {
        // Less than a marker at the very end of a file is the beginning of one.
        let cut = !front.is_empty() && front.len() < 8 && marker.0.to_le_bytes().starts_with(front);
        return Ok(if cut { Step::Damaged { len: front.len(), tail: true } } else { Step::End });
    }
    let declared = le32(front, 8).map_or(0, |len| len as usize).saturating_add(HEADER);
    // The length itself may be what is damaged; only what can have been written counts.
    let written = source.get(at, declared)?.iter().rposition(|octet| *octet != 0).map_or(1, |last| last + 1);
    Ok(Step::Damaged { len: written, tail: true })
}

/// Where the next sound record begins.
fn next_record(source: &mut impl Source, mut at: usize, marker: Marker) -> io::Result<Option<usize>> {
    let needle = marker.0.to_le_bytes();
    loop {
        let window = source.get(at, WINDOW)?;
        let len = window.len();
        let found: Vec<usize> = memchr::memmem::find_iter(window, &needle).map(|found| at + found).collect();
        for place in found {
            if record_at(source, place, marker)?.is_some() {
                return Ok(Some(place));
            }
        }
        if len < WINDOW {
            return Ok(None);
        }
        at += WINDOW - (needle.len() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Source for &[u8] {
        fn get(&mut self, at: usize, len: usize) -> io::Result<&[u8]> {
            let rest = &self[at.min(self.len())..];
            Ok(&rest[..len.min(rest.len())])
        }
    }

    const MARKER: Marker = Marker(0x1122_3344_5566_7788);

    fn segment(records: &[(u64, &[u8], &[u8])]) -> Vec<u8> {
        let mut octets = encode_head(MARKER, 1).to_vec();
        for (id, meta, data) in records {
            let header = encode_header(MARKER, Kind::Message, QueueId::from_u64(*id), meta, data.len());
            octets.extend_from_slice(&header.expect("short"));
            octets.extend_from_slice(meta);
            octets.extend_from_slice(data);
        }
        octets
    }

    fn at(mut octets: &[u8], at: usize, marker: Marker) -> Step {
        step(&mut octets, at, marker).expect("no input or output")
    }

    fn ids(octets: &[u8]) -> (Vec<u64>, Vec<(Range<usize>, bool)>) {
        let (mut place, mut ids, mut damage) = (HEAD, Vec::new(), Vec::new());
        loop {
            match at(octets, place, MARKER) {
                Step::Record(record) => {
                    ids.push(record.id.as_u64());
                    place += record.whole.end;
                }
                Step::Damaged { len, tail } => {
                    damage.push((place..place + len, tail));
                    place += len;
                    if tail {
                        return (ids, damage);
                    }
                }
                Step::End => return (ids, damage),
            }
        }
    }

    #[test]
    fn there_and_back() {
        let mut octets = segment(&[(1, b"meta", b"data"), (2, b"", b""), (3, b"m", b"")]);
        assert_eq!(decode_head(&octets), Ok(MARKER));
        octets.resize(octets.len() + 1000, 0);
        assert_eq!(ids(&octets), (vec![1, 2, 3], vec![]));
        let Step::Record(first) = at(&octets, HEAD, MARKER) else { panic!("no record") };
        let first_octets = &octets[HEAD..];
        assert_eq!((&first_octets[first.meta], &first_octets[first.data]), (&b"meta"[..], &b"data"[..]));
    }

    #[test]
    fn a_torn_tail_is_found_at_every_octet() {
        let whole = segment(&[(1, b"meta", b"data"), (2, b"second", b"record")]);
        let first_end = segment(&[(1, b"meta", b"data")]).len();
        for cut in first_end + 1..whole.len() {
            for padding in [0, 500] {
                let mut octets = whole[..cut].to_vec();
                octets.resize(cut + padding, 0);
                let (ids, damage) = ids(&octets);
                if octets.len() < whole.len() || cut < whole.len() - b"record".len() {
                    assert_eq!(ids, [1], "cut at {cut}");
                }
                // The data is checked by whoever knows its CRC; less than half a marker before zeros is nothing at all.
                assert!(damage.iter().all(|(at, tail)| at.start == first_end && *tail));
                assert!(padding > 0 || damage.len() == 1, "cut at {cut}: {damage:?}");
            }
        }
    }

    #[test]
    fn every_flipped_octet_of_header_and_meta_is_reported_and_the_rest_salvaged() {
        let sound = segment(&[(1, b"meta", b"data"), (2, b"second", b"record"), (3, b"third", b"")]);
        let start = segment(&[(1, b"meta", b"data")]).len();
        let end = start + HEADER + b"second".len();
        for at in start..end {
            for flip in [0x01, 0x80, 0xff] {
                let mut octets = sound.clone();
                octets[at] ^= flip;
                let (ids, damage) = ids(&octets);
                assert_eq!(ids, [1, 3], "octet {at}");
                assert_eq!(damage, [(start..end + b"record".len(), false)]);
            }
        }
    }

    #[test]
    fn every_flipped_octet_of_the_last_record_is_reported() {
        let sound = segment(&[(1, b"meta", b"data"), (2, b"second", b"")]);
        let start = segment(&[(1, b"meta", b"data")]).len();
        for at in start..sound.len() {
            let mut octets = sound.clone();
            octets[at] ^= 0xff;
            octets.resize(octets.len() + 64, 0);
            let (ids, damage) = ids(&octets);
            assert_eq!(ids, [1], "octet {at}");
            assert!(matches!(damage.as_slice(), [(range, true)] if range.start == start), "octet {at}: {damage:?}");
        }
    }

    #[test]
    fn what_an_earlier_use_left_is_no_record() {
        let mut octets = segment(&[(1, b"meta", b"data")]);
        let stale = segment(&[(8, b"old", b"old"), (9, b"old", b"old")]);
        let other = Marker(0x0807_0605_0403_0201);
        let mut head = encode_head(other, 2).to_vec();
        head.extend_from_slice(&stale[HEAD..]);
        assert_eq!(decode_head(&head), Ok(other));
        assert_eq!(at(&head, HEAD, other), Step::End);
        // And after a few records of the new use the old ones are cut anywhere.
        octets.extend_from_slice(&head[HEAD + 7..]);
        let marker = MARKER;
        let Step::Record(record) = at(&octets, HEAD, marker) else { panic!("no record") };
        assert!(record.whole.end < octets.len());
    }

    #[test]
    fn a_damaged_head_is_made_good_by_the_first_record() {
        let mut octets = segment(&[(1, b"meta", b"data")]);
        octets[17] ^= 1;
        let first = |octets: &[u8]| first_marker(&mut &*octets).expect("no input or output");
        assert_eq!((decode_head(&octets), first(&octets)), (Err(()), Some(MARKER)));
        assert_eq!((decode_head(&octets[..40]), first(&octets[..40])), (Err(()), None));
        assert_eq!((decode_head(b""), first(b"")), (Err(()), None));
    }

    #[test]
    fn hostile_lengths_are_no_records() {
        for (len, meta) in [(u32::MAX, 0), (0, 1), (u32::MAX, u32::MAX), (10, 11)] {
            let mut octets = segment(&[(1, b"", b"")]);
            octets[HEAD + 8..HEAD + 12].copy_from_slice(&len.to_le_bytes());
            octets[HEAD + 12..HEAD + 16].copy_from_slice(&meta.to_le_bytes());
            assert_eq!(decode(&octets, HEAD, MARKER), None);
        }
    }
}
