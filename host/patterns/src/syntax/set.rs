//! Sets of octets: what a character class of a pattern means.

use std::fmt::Write as _;

/// A set of octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Set([u64; 4]);

impl Set {
    /// Nothing.
    pub const EMPTY: Self = Self([0; 4]);
    /// Every octet.
    pub const FULL: Self = Self([u64::MAX; 4]);

    /// One octet.
    pub fn one(octet: u8) -> Self {
        let mut set = Self::EMPTY;
        set.add(octet);
        set
    }

    /// Those for which it holds.
    pub fn of(holds: impl Fn(u8) -> bool) -> Self {
        let mut set = Self::EMPTY;
        (0..=255).filter(|octet| holds(*octet)).for_each(|octet| set.add(octet));
        set
    }

    /// A class of POSIX by its name, in the C locale; `word` is Perl's.
    pub fn class(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"alnum" => Self::of(|octet| octet.is_ascii_alphanumeric()),
            b"alpha" => Self::of(|octet| octet.is_ascii_alphabetic()),
            b"ascii" => Self::of(|octet| octet.is_ascii()),
            b"blank" => Self::of(|octet| matches!(octet, b' ' | b'\t')),
            b"cntrl" => Self::of(|octet| octet.is_ascii_control()),
            b"digit" => Self::of(|octet| octet.is_ascii_digit()),
            b"graph" => Self::of(|octet| octet.is_ascii_graphic()),
            b"lower" => Self::of(|octet| octet.is_ascii_lowercase()),
            b"print" => Self::of(|octet| octet.is_ascii_graphic() || octet == b' '),
            b"punct" => Self::of(|octet| octet.is_ascii_punctuation()),
            b"space" => Self::of(is_space),
            b"upper" => Self::of(|octet| octet.is_ascii_uppercase()),
            b"word" => Self::of(|octet| octet.is_ascii_alphanumeric() || octet == b'_'),
            b"xdigit" => Self::of(|octet| octet.is_ascii_hexdigit()),
            _ => return None,
        })
    }

    /// Puts one more in.
    pub fn add(&mut self, octet: u8) {
        self.0[usize::from(octet >> 6)] |= 1 << (octet & 63);
    }

    /// Puts all of another in.
    pub fn add_all(&mut self, other: Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own |= other;
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, octet: u8) {
        self.0[usize::from(octet >> 6)] &= !(1 << (octet & 63));
    }

    /// Whether it is in.
    pub fn has(&self, octet: u8) -> bool {
        self.0[usize::from(octet >> 6)] >> (octet & 63) & 1 == 1
    }

    /// All others.
    pub fn inverted(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    /// With both cases of its letters.
    pub fn caseless(self) -> Self {
        let both = |octet: u8| self.has(octet.to_ascii_lowercase()) || self.has(octet.to_ascii_uppercase());
        Self::of(|octet| if octet.is_ascii_alphabetic() { both(octet) } else { self.has(octet) })
    }

    /// Whether every octet is in.
    pub fn is_full(&self) -> bool {
        *self == Self::FULL
    }

    /// Writes it as a class, or as the one octet that it is.
    pub fn write(&self, out: &mut String) {
        let mut ranges: Vec<(u8, u8)> = Vec::new();
        for octet in (0..=255).filter(|octet| self.has(*octet)) {
            match ranges.last_mut() {
                Some((_, end)) if *end == octet - 1 => *end = octet,
                _ => ranges.push((octet, octet)),
            }
        }
        match ranges.as_slice() {
            [] => out.push_str("[^\\x00-\\xFF]"),
            [(one, end)] if one == end && one.is_ascii() => write_octet(out, *one),
            ranges => {
                out.push('[');
                for (start, end) in ranges {
                    write_octet(out, *start);
                    if end > start {
                        out.push('-');
                        write_octet(out, *end);
                    }
                }
                out.push(']');
            }
        }
    }
}

/// White space of the C locale.
pub fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t'..=b'\r')
}

fn write_octet(out: &mut String, octet: u8) {
    if octet.is_ascii_alphanumeric() {
        out.push(char::from(octet));
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\x{octet:02X}");
    }
}
