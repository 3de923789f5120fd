//! Reading messages back. Where they are may change while they are being read: the janitor moves them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::body::BodyFile;
use super::log::Place;
use super::meta::{InFile, Meta, decode_state};
use super::record::{self, HEADER, Kind, Marker};
use super::{Shared, lock};
use crate::mail::QueueId;
use crate::policy::Content;
use crate::queue::{Letter, LoadError, State, Stored};

/// Octets read at once where only the meta is wanted.
const FRONT: usize = 8 << 10;

impl Shared {
    /// All but the content.
    pub(super) fn stored(&self, id: QueueId) -> Result<Stored, LoadError> {
        let (meta, data_len) = self.read_meta(id)?;
        let state = self.state(id, &meta)?;
        Ok(assemble(id, meta, data_len, state))
    }

    /// All of it.
    pub(super) fn load(&self, id: QueueId) -> Result<(Stored, Letter), LoadError> {
        match self.load_once(id) {
            // Its segment may have been used again in the middle of the read; then it is elsewhere now.
            Err(LoadError::Damaged(_)) => self.load_once(id),
            done => done,
        }
    }

    fn load_once(&self, id: QueueId) -> Result<(Stored, Letter), LoadError> {
        let (mut octets, marker) = self.read(id, Kind::Message, usize::MAX)?.ok_or(LoadError::Gone)?;
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
        let file = meta.body.in_file().map(|at| self.body_file(id, at)).transpose()?;
        let letter = Letter::read_back(octets, meta.header_len as usize, file);
        let state = self.state(id, &meta)?;
        Ok((assemble(id, meta, data_len, state), letter))
    }

    /// The body's file, if what is in it is what was written. Reading it through costs little: it is going to be sent.
    fn body_file(&self, id: QueueId, at: InFile) -> Result<Arc<dyn Content>, LoadError> {
        let checked = BodyFile::open(&self.dirs.disk, &self.dirs.body, id, at)
            .and_then(|file| file.is_sound().map(|sound| (file, sound)));
        match checked {
            Ok((file, true)) => Ok(Arc::new(file)),
            Ok((_, false)) => Err(LoadError::Damaged(format!("the body file of message {id} is not what was written"))),
            Err(err) if err.kind() == io::ErrorKind::NotFound && lock(&self.log).index.contains_key(&id) => {
                Err(LoadError::Damaged(format!("the body file of message {id} is missing")))
            }
            Err(err) => Err(LoadError::Io(err)),
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
}

fn assemble(id: QueueId, meta: Meta, data_len: u64, state: State) -> Stored {
    let inline = data_len.saturating_sub(u64::from(meta.header_len));
    let body = meta.body.in_file().map_or(inline, |file| file.len);
    let size = u64::from(meta.header_len) + 2 + body;
    let (arrived, filter) = (meta.arrived, meta.filter.clone());
    Stored { id, arrived, envelope: meta.into_envelope(), filter, size, state }
}

fn damaged(path: &Path, place: Place) -> LoadError {
    LoadError::Damaged(format!("{}, octet {}: a damaged record", path.display(), place.at))
}
