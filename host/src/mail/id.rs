//! The name of a message in this MTA's logs, replies, queue and headers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"; // Crockford's: nobody mistakes O for 0 on the telephone
const DIGITS: usize = 13;

/// 64 bits, written as 13 letters and digits. Ordered by time of arrival; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QueueId(u64);

impl QueueId {
    /// From its number.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
    /// Its number.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; DIGITS];
        for (place, octet) in text.iter_mut().rev().enumerate() {
            *octet = ALPHABET[((self.0 >> (5 * place)) & 31) as usize];
        }
        f.pad(str::from_utf8(&text).unwrap_or_default())
    }
}
impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no queue id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a queue id has 13 letters and digits, like 0CR5WJ80A4K21")]
pub struct NoQueueId;

impl FromStr for QueueId {
    type Err = NoQueueId;
    fn from_str(text: &str) -> Result<Self, NoQueueId> {
        if text.len() != DIGITS {
            return Err(NoQueueId);
        }
        text.bytes()
            .try_fold(0u64, |number, octet| {
                let digit =
                    ALPHABET.iter().position(|letter| *letter == octet.to_ascii_uppercase()).ok_or(NoQueueId)?;
                if number >> 59 != 0 {
                    return Err(NoQueueId);
                }
                Ok((number << 5) | digit as u64)
            })
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for number in [0, 1, 31, 32, u64::MAX, 0x0123_4567_89AB_CDEF] {
            let id = QueueId::from_u64(number);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!("ZZZZZZZZZZZZZ".parse::<QueueId>().is_err());
        assert!("../../etc/pas".parse::<QueueId>().is_err());
    }
}
