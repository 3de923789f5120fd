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
