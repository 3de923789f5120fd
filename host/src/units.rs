//! Lengths of time and sizes as a config writes them: `"5m"`, `"50 MiB"`. A bare number is refused: nobody can see its unit.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is no length of time or no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a length of time.
    #[error("not a length of time; write it like \"500ms\", \"30s\", \"5m\", \"4h\", \"5d\" or \"1h30m\"")]
    Duration,
    /// Not a size.
    #[error("not a size; write it like \"512 B\", \"64 KiB\", \"50 MiB\" or \"2 GiB\"")]
    ByteSize,
    /// More than a century, or than 2⁶³ octets.
    #[error("too large")]
    TooLarge,
}

/// No length of time in a config is longer: a century.
const MAX_MILLIS: u64 = 100 * 366 * 86_400 * 1000;
/// Unit and its milliseconds, the largest first.
const TIMES: [(&str, u64); 6] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// Unit and its octets; those that are displayed come first, the largest at the head.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
];

/// A length of time in a config: whole numbers, each with one of the units `ms`, `s`, `m` (minutes), `h`, `d`, `w`; like `"1h30m"`.
/// In steps of a millisecond, at most a century.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(time::Duration);

impl Duration {
    /// So many milliseconds.
    pub const fn from_millis(n: u64) -> Self {
        Self(time::Duration::from_millis(n))
    }
    /// So many seconds.
    pub const fn from_secs(n: u64) -> Self {
        Self(time::Duration::from_secs(n))
    }
    /// So many minutes.
    pub const fn from_mins(n: u64) -> Self {
        Self::from_secs(n * 60)
    }
    /// So many hours.
    pub const fn from_hours(n: u64) -> Self {
        Self::from_secs(n * 3600)
    }
    /// So many days.
    pub const fn from_days(n: u64) -> Self {
        Self::from_secs(n * 86_400)
    }
    /// As the standard library has it.
    pub const fn as_std(self) -> time::Duration {
        self.0
    }
    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(UnitError::Duration);
        }
        let mut millis = 0u64;
        while !rest.is_empty() {
            let (number, after) = leading_number(rest).ok_or(UnitError::Duration)?;
            let after = after.trim_start();
            let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_len);
            let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit).ok_or(UnitError::Duration)?;
            millis = number
                .checked_mul(*factor)
                .and_then(|part| millis.checked_add(part))
                .filter(|sum| *sum <= MAX_MILLIS)
                .ok_or(UnitError::TooLarge)?;
            rest = after.trim_start();
        }
        Ok(Self::from_millis(millis))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(MAX_MILLIS);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in TIMES.into_iter().skip(1) {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// A number of octets in a config: a whole number and one of the units `B`, `KiB`, `MiB`, `GiB`, `TiB` (steps of 1,024) or `KB`, `MB`,
/// `GB`, `TB` (steps of 1,000); like `"50 MiB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many octets.
    pub const fn from_bytes(n: u64) -> Self {
        Self(n)
    }
    /// So many times 1,024 octets.
    pub const fn from_kib(n: u64) -> Self {
        Self(n << 10)
    }
    /// So many times 1,024² octets.
    pub const fn from_mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// Octets.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
    /// Octets, or the largest `usize` where that is smaller.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = leading_number(text.trim()).ok_or(UnitError::ByteSize)?;
        let unit = unit.trim_start();
        let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(UnitError::ByteSize)?;
        number.checked_mul(*factor).filter(|size| i64::try_from(*size).is_ok()).map(Self).ok_or(UnitError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZES.into_iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (unit, factor) = exact.unwrap_or(("B", 1));
        write!(f, "{} {unit}", self.0 / factor)
    }
}

/// The number at the head and what follows it. `1_000` may be parted as TOML parts it.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    digits.replace('_', "").parse().ok().map(|number| (number, rest))
}

/// Takes a text and says what it would have taken instead of anything else.
struct Text<T>(&'static str, PhantomData<T>);

impl<T: FromStr<Err = UnitError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|err| E::custom(format_args!("\"{text}\" is {err}")))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("a length of time like \"30s\" or \"5m\"", PhantomData))
    }
}
impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("a size like \"64 KiB\" or \"50 MiB\"", PhantomData))
    }
}
impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, millis, shown) in [
            ("500ms", 500, "500ms"),
            ("300s", 300_000, "5m"),
            ("5m", 300_000, "5m"),
            ("1h30m", 5_400_000, "1h30m"),
            (" 1 h 30 m ", 5_400_000, "1h30m"),
            ("5d", 432_000_000, "5d"),
            ("1w", 604_800_000, "7d"),
            ("0s", 0, "0s"),
        ] {
            let duration: Duration = text.parse().expect(text);
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(duration.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(duration), "{text}");
        }
        for text in ["", "5", "m", "5 minutes", "-5s", "1.5h", "5m!", "5M", "_s"] {
            assert_eq!(text.parse::<Duration>(), Err(UnitError::Duration), "{text:?}");
        }
        for text in ["200000d", "99999999999999w", "18446744073709551615s"] {
            assert_eq!(text.parse::<Duration>(), Err(UnitError::TooLarge), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, octets, shown) in [
            ("512 B", 512, "512 B"),
            ("64KiB", 65_536, "64 KiB"),
            ("50 MiB", 52_428_800, "50 MiB"),
            ("50 mib", 52_428_800, "50 MiB"),
            ("10_240 B", 10_240, "10 KiB"),
            ("1 MB", 1_000_000, "1000000 B"),
            ("0 B", 0, "0 B"),
        ] {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!(size.as_u64(), octets, "{text}");
            assert_eq!(size.to_string(), shown, "{text}");
        }
        for text in ["", "50", "MiB", "50 M", "-1 B", "1.5 MiB", "50 MiB x"] {
            assert_eq!(text.parse::<ByteSize>(), Err(UnitError::ByteSize), "{text:?}");
        }
        assert_eq!("8388608 TiB".parse::<ByteSize>(), Err(UnitError::TooLarge));
    }
}
