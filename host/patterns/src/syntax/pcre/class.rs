//! Character classes of Perl's dialect: `[a-z[:digit:]\w]`.

use super::{Parser, shorthand};
use crate::syntax::{Node, Set};

impl Parser<'_> {
    /// Behind `[`.
    pub(super) fn class(&mut self) -> Result<Node, String> {
        let open = self.at;
        let inverted = self.take(b"^");
        let mut set = Set::EMPTY;
        let mut first = true;
        let mut quoted = false;
        loop {
            if quoted && self.take(b"\\E") {
                quoted = false;
                continue;
            }
            if !quoted && self.take(b"\\Q") {
                quoted = true;
                continue;
            }
            if !quoted && self.take(b"\\E") {
                continue;
            }
            let Some(octet) = self.next() else {
                self.at = open;
                return Err(self.error("missing terminating ] for character class"));
            };
            if octet == b']' && !first && !quoted {
                break;
            }
            first = false;
            if octet == b'['
                && !quoted
                && let Some(class) = self.named_class()?
            {
                set.add_all(class);
                self.no_range()?;
                continue;
            }
            let start = if quoted { Ok(octet) } else { self.class_item(octet)? };
            let start = match start {
                Ok(start) => start,
                Err(class) => {
                    set.add_all(class);
                    self.no_range()?;
                    continue;
                }
            };
            let end = if quoted { start } else { self.range_end(start)? };
            (start..=end).for_each(|octet| set.add(octet));
        }
        let set = if self.flags.caseless { set.caseless() } else { set };
        Ok(Node::Octet(if inverted { set.inverted() } else { set }))
    }

    /// One octet or a whole class like `\d`.
    fn class_item(&mut self, octet: u8) -> Result<Result<u8, Set>, String> {
        if octet != b'\\' {
            return Ok(Ok(octet));
        }
        let Some(escaped) = self.next() else { return Err(self.error("\\ at end of pattern")) };
        if let Some(set) = shorthand(escaped) {
            return Ok(Err(set));
        }
        Ok(Ok(match escaped {
            b'b' => 8,
            b'1'..=b'7' => self.octal(u32::from(escaped - b'0'), 2)?,
            escaped => self.character(escaped)?,
        }))
    }

    fn range_end(&mut self, start: u8) -> Result<u8, String> {
        // A hyphen before the end of the class is one of the octets.
        if !self.rest().starts_with(b"-") || matches!(self.rest().get(1), Some(b']') | None) {
            return Ok(start);
        }
        self.at += 1;
        let end = match self.next() {
            Some(b'[') if self.named_class()?.is_some() => None,
            Some(octet) => self.class_item(octet)?.ok(),
            None => None,
        };
        match end {
            None => Err(self.error("invalid range in character class")),
            Some(end) if end < start => Err(self.error("range out of order in character class")),
            Some(end) => Ok(end),
        }
    }

    /// A whole class cannot begin a range.
    fn no_range(&self) -> Result<(), String> {
        match self.rest() {
            [b'-', after, ..] if *after != b']' => Err(self.error("invalid range in character class")),
            _ => Ok(()),
        }
    }

    /// `:alpha:]` behind `[`, within a class.
    fn named_class(&mut self) -> Result<Option<Set>, String> {
        let rest = self.rest();
        if let [kind @ (b'.' | b'='), inner @ ..] = rest
            && let Some(end) = inner.windows(2).position(|pair| pair == [*kind, b']'])
            && !inner.iter().take(end).any(|octet| matches!(octet, b']' | b'\\'))
        {
            return Err(self.error("POSIX collating elements are not supported"));
        }
        let Some(inner) = rest.strip_prefix(b":") else { return Ok(None) };
        let Some(end) = inner.windows(2).position(|pair| pair == b":]") else { return Ok(None) };
        let name = inner.get(..end).unwrap_or_default();
        if !name.iter().all(|octet| octet.is_ascii_lowercase() || *octet == b'^') {
            return Ok(None);
        }
        let (inverted, name) = name.strip_prefix(b"^").map_or((false, name), |name| (true, name));
        let class = Set::class(name).ok_or_else(|| self.error("unknown POSIX class name"))?;
        let letters = self.flags.caseless && matches!(name, b"upper" | b"lower");
        let class = if letters { class.caseless() } else { class };
        self.at += end + 3;
        Ok(Some(if inverted { class.inverted() } else { class }))
    }
}
