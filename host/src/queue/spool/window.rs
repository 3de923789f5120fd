//! A segment file seen through a window, so that a start needs the memory of one record and not that of a whole segment.

use std::io;

use super::record::Source;
use crate::queue::disk::DiskFile;

/// Octets that are read ahead.
const AHEAD: usize = 1 << 20;

/// The part of a file that is in memory.
pub(super) struct Window<'a> {
    pub file: &'a DiskFile,
    pub octets: Vec<u8>,
    /// Where in the file they begin.
    pub start: usize,
    /// Whether the file ends with them.
    pub at_end: bool,
}

impl Source for Window<'_> {
    fn get(&mut self, at: usize, len: usize) -> io::Result<&[u8]> {
        let wanted = at.saturating_add(len);
        let inside = at >= self.start && (wanted <= self.start + self.octets.len() || self.at_end);
        if !inside {
            // No more than there is, whatever a damaged length says.
            let rest = usize::try_from(self.file.size()?).unwrap_or(usize::MAX).saturating_sub(at);
            self.octets.clear();
            self.octets.resize(len.max(AHEAD).min(rest), 0);
            let read = self.file.read_at(&mut self.octets, at as u64)?;
            self.octets.truncate(read);
            self.octets.shrink_to(2 * AHEAD);
            (self.start, self.at_end) = (at, read >= rest || read < len.max(AHEAD));
        }
        let rest = self.octets.get(at - self.start..).unwrap_or_default();
        Ok(rest.get(..len).unwrap_or(rest))
    }
}

impl Window<'_> {
    /// Whether there is nothing but zeros.
    pub fn is_blank(&mut self) -> io::Result<bool> {
        let mut at = 0;
        loop {
            let piece = self.get(at, AHEAD)?;
            if piece.iter().any(|octet| *octet != 0) {
                return Ok(false);
            }
            if piece.len() < AHEAD {
                return Ok(true);
            }
            at += AHEAD;
        }
    }
}
