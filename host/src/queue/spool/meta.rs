//! The meta of a message's record, in postcard.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::mail::Envelope;
use crate::queue::{State, UnixTime};

/// As it is written. The fields are those of `Meta`, in the same order.
#[derive(Serialize)]
pub(super) struct MetaRef<'a> {
    pub arrived: UnixTime,
    pub envelope: &'a Envelope,
    pub hold: &'a Option<String>,
    pub filter: &'a Option<String>,
    pub header_len: u32,
    pub body: BodyPlace,
    pub data_crc: u32,
}

/// As it is read.
#[derive(Deserialize)]
pub(super) struct Meta {
    pub arrived: UnixTime,
    pub envelope: Envelope,
    pub hold: Option<String>,
    pub filter: Option<String>,
    /// Octets of the header section, with which the data begins.
    pub header_len: u32,
    pub body: BodyPlace,
    /// CRC-32 of the data.
    pub data_crc: u32,
}

/// Where the body is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum BodyPlace {
    /// Behind the header section.
    Inline,
    /// In a file.
    File {
        /// Names it, together with the id.
        number: u32,
        /// Octets.
        len: u64,
    },
    /// In a file whose octets can be checked. What is written today; the variant above is read still.
    Checked {
        /// Names it, together with the id.
        number: u32,
        /// Octets.
        len: u64,
        /// CRC-32 of them.
        crc: u32,
    },
}

/// A body in a file, as a record describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFile {
    pub number: u32,
    pub len: u64,
    /// Unknown of bodies that an older version wrote.
    pub crc: Option<u32>,
}

impl BodyPlace {
    /// If it lies in a file.
    pub fn in_file(self) -> Option<InFile> {
        match self {
            Self::Inline => None,
            Self::File { number, len } => Some(InFile { number, len, crc: None }),
            Self::Checked { number, len, crc } => Some(InFile { number, len, crc: Some(crc) }),
        }
    }
}

impl From<InFile> for BodyPlace {
    fn from(InFile { number, len, crc }: InFile) -> Self {
        match crc {
            Some(crc) => Self::Checked { number, len, crc },
            None => Self::File { number, len },
        }
    }
}

impl MetaRef<'_> {
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(self, Vec::with_capacity(256))
    }
}

impl Meta {
    pub fn decode(octets: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(octets)
    }

    /// What became of it before anything was noted.
    pub fn fresh_state(&self) -> State {
        State::fresh(self.envelope.recipients.len(), self.arrived, self.hold.clone())
    }

    pub fn into_envelope(self) -> Arc<Envelope> {
        Arc::new(self.envelope)
    }
}

/// A state, as a note keeps it.
pub(super) fn encode_state(state: &State) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_extend(state, Vec::with_capacity(64 + 32 * state.recipients.len()))
}

/// None if it is none, or of another number of recipients.
pub(super) fn decode_state(octets: &[u8], recipients: usize) -> Option<State> {
    postcard::from_bytes::<State>(octets).ok().filter(|state| state.recipients.len() == recipients)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_version_wrote_of_a_body_is_understood() {
        let old = postcard::to_allocvec(&BodyPlace::File { number: 7, len: 300 }).expect("plain values");
        assert_eq!(old, [1, 7, 0xac, 0x02]);
        let place: BodyPlace = postcard::from_bytes(&old).expect("a place");
        assert!(matches!(place.in_file(), Some(InFile { number: 7, len: 300, crc: None })));
    }
}
