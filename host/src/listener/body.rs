//! The content of a message while it comes in: small ones stay in memory, large ones go to the spool as they arrive.

use std::io;
use std::sync::Arc;

use crate::mail::HeaderBlock;
use crate::policy::Content;
use crate::queue::{CommitError, Draft};

/// A body in memory, behind the header section in the same octets: moving it would be a copy.
struct Tail {
    octets: Vec<u8>,
    start: usize,
}

impl Tail {
    fn octets(&self) -> &[u8] {
        self.octets.get(self.start..).unwrap_or_default()
    }
}

impl Content for Tail {
    fn len(&self) -> u64 {
        self.octets().len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.octets().get(offset..)).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
    fn as_slice(&self) -> Option<&[u8]> {
        Some(self.octets())
    }
}

/// A message that has come whole.
pub(super) struct Whole {
    /// Its header section.
    pub header: HeaderBlock,
    /// Its body.
    pub body: Arc<dyn Content>,
}

/// A message whose beginning lies in the spool already.
pub(super) struct Spilled {
    header: HeaderBlock,
    draft: Draft,
}

impl Spilled {
    /// `head` holds the whole header section and the first octets of the body.
    pub fn begin(head: &[u8], mut draft: Draft) -> Result<Self, CommitError> {
        let (header, body) = HeaderBlock::parse(head);
        draft.write(head.get(body..).unwrap_or_default())?;
        Ok(Self { header, draft })
    }

    /// More of the body.
    pub fn push(&mut self, octets: &[u8]) -> Result<(), CommitError> {
        self.draft.write(octets)
    }

    /// The last of it.
    pub fn finish(mut self, rest: &[u8]) -> Result<Whole, CommitError> {
        self.draft.write(rest)?;
        Ok(Whole { header: self.header, body: self.draft.finish() })
    }
}

/// A message that stayed in memory.
pub(super) fn whole(octets: Vec<u8>) -> Whole {
    let (header, start) = HeaderBlock::parse(&octets);
    Whole { header, body: Arc::new(Tail { octets, start }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_body_are_told_apart() {
        let message = whole(b"A: b\r\n\r\nbody\r\n".to_vec());
        assert_eq!(message.header.as_bytes(), b"A: b\r\n");
        assert_eq!(message.body.as_slice(), Some(&b"body\r\n"[..]));
        let mut piece = [0; 3];
        assert_eq!((message.body.read_at(4, &mut piece).ok(), &piece[..2]), (Some(2), &b"\r\n"[..]));
        assert_eq!(message.body.read_at(u64::MAX, &mut piece).ok(), Some(0));
        assert!(whole(Vec::new()).body.is_empty());
    }
}
