//! What becomes of one key: pure, so that every store does the same.

use std::time::Duration;

use super::{Error, MAX_KEY, MAX_VALUE};

/// What is to be done with one key.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Put { value: Vec<u8>, ttl: Option<Duration> },
    Delete,
    Incr { by: i64, ttl: Option<Duration> },
    Swap { expected: Option<Vec<u8>>, new: Vec<u8>, ttl: Option<Duration> },
}

/// A value with its end, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub value: Vec<u8>,
    pub expires: Option<u64>,
}

impl Entry {
    pub(super) fn live(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// What the store has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Keep,
    Set(Entry),
    Remove,
}

/// What is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Was(bool),
    Sum(i64),
}

impl Outcome {
    pub(super) fn was(self) -> bool {
        matches!(self, Self::Was(true))
    }
    pub(super) fn sum(self) -> i64 {
        match self {
            Self::Sum(sum) => sum,
            Self::Done | Self::Was(_) => 0,
        }
    }
}

/// Whether a key can be.
pub(super) fn check_key(key: &str) -> Result<(), Error> {
    if (1..=MAX_KEY).contains(&key.len()) { Ok(()) } else { Err(Error::TooLarge) }
}

/// The change that `act` makes to what is there (expired or not) at `now`.
pub(super) fn decide(act: Act, stored: Option<&Entry>, now: u64) -> Result<(Change, Outcome), Error> {
    let live = stored.filter(|entry| entry.live(now));
    Ok(match act {
        Act::Put { value, ttl } => (set(value, ttl, now)?, Outcome::Done),
        Act::Delete => (Change::Remove, Outcome::Was(live.is_some())),
        Act::Incr { by, ttl } => {
            let before = live.map_or(Some(0), |entry| number(&entry.value)).ok_or(Error::NotANumber)?;
            let sum = before.checked_add(by).ok_or(Error::NotANumber)?;
            let value = sum.to_string().into_bytes();
            let change = match live {
                Some(entry) => Change::Set(Entry { value, expires: entry.expires }),
                None => set(value, ttl, now)?,
            };
            (change, Outcome::Sum(sum))
        }
        Act::Swap { expected, new, ttl } => {
            let new = set(new, ttl, now)?;
            let same = live.map(|entry| entry.value.as_slice()) == expected.as_deref();
            (if same { new } else { Change::Keep }, Outcome::Was(same))
        }
    })
}

fn set(value: Vec<u8>, ttl: Option<Duration>, now: u64) -> Result<Change, Error> {
    if value.len() > MAX_VALUE {
        return Err(Error::TooLarge);
    }
    let millis = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    Ok(match ttl {
        Some(ttl) if ttl.is_zero() => Change::Remove,
        ttl => Change::Set(Entry { value, expires: ttl.map(|ttl| now.saturating_add(millis(ttl))) }),
    })
}

/// Decimal digits with or without a minus, as `incr` writes them.
fn number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(value: &str, expires: Option<u64>) -> Entry {
        Entry { value: value.into(), expires }
    }

    #[test]
    fn numbers() {
        for (stored, by, expected) in [
            (None, 5, Ok("5")),
            (Some("41"), 1, Ok("42")),
            (Some("-3"), 3, Ok("0")),
            (Some("9223372036854775807"), 0, Ok("9223372036854775807")),
            (Some("9223372036854775807"), 1, Err(Error::NotANumber)),
            (Some("-9223372036854775808"), -1, Err(Error::NotANumber)),
            (Some("9223372036854775808"), -1, Err(Error::NotANumber)),
            (Some(""), 1, Err(Error::NotANumber)),
            (Some("+1"), 1, Err(Error::NotANumber)),
            (Some("1 "), 1, Err(Error::NotANumber)),
            (Some("one"), 1, Err(Error::NotANumber)),
        ] {
            let stored = stored.map(|value| entry(value, Some(50)));
            let got = decide(Act::Incr { by, ttl: Some(Duration::from_secs(1)) }, stored.as_ref(), 10);
            // What is there keeps its end; what is new gets one.
            let expires = Some(if stored.is_some() { 50 } else { 1010 });
            let expected = expected.map(|value| {
                (Change::Set(Entry { value: value.into(), expires }), Outcome::Sum(value.parse().unwrap()))
            });
            assert_eq!(got, expected, "{stored:?} + {by}");
        }
    }

    #[test]
    fn what_has_expired_is_not_there() {
        let stored = entry("7", Some(100));
        let incr = |now| decide(Act::Incr { by: 1, ttl: None }, Some(&stored), now).unwrap();
        assert_eq!(incr(99), (Change::Set(entry("8", Some(100))), Outcome::Sum(8)));
        assert_eq!(incr(100), (Change::Set(entry("1", None)), Outcome::Sum(1)));
        let swap = |expected: Option<&str>, now| {
            let expected = expected.map(|value| value.as_bytes().to_vec());
            decide(Act::Swap { expected, new: b"x".to_vec(), ttl: None }, Some(&stored), now).unwrap()
        };
        assert_eq!(swap(Some("7"), 99), (Change::Set(entry("x", None)), Outcome::Was(true)));
        assert_eq!(swap(Some("8"), 99), (Change::Keep, Outcome::Was(false)));
        assert_eq!(swap(None, 99), (Change::Keep, Outcome::Was(false)));
        assert_eq!(swap(None, 100), (Change::Set(entry("x", None)), Outcome::Was(true)));
        let delete = |now| decide(Act::Delete, Some(&stored), now).unwrap();
        assert_eq!(
            (delete(99), delete(100)),
            ((Change::Remove, Outcome::Was(true)), (Change::Remove, Outcome::Was(false)))
        );
    }

    #[test]
    fn ends_and_lengths() {
        let put = |len, ttl| decide(Act::Put { value: vec![0; len], ttl }, None, 1000);
        assert_eq!(put(1, Some(Duration::ZERO)).unwrap().0, Change::Remove);
        let Change::Set(kept) = put(1, Some(Duration::from_secs(u64::from(u32::MAX)))).unwrap().0 else {
            panic!("kept for 136 years")
        };
        assert_eq!(kept.expires, Some(4_294_967_295_000 + 1000));
        assert!(put(MAX_VALUE, None).is_ok());
        assert_eq!(put(MAX_VALUE + 1, None), Err(Error::TooLarge));
        for (len, fits) in [(0, false), (1, true), (MAX_KEY, true), (MAX_KEY + 1, false)] {
            assert_eq!(check_key(&"k".repeat(len)).is_ok(), fits);
        }
    }
}
