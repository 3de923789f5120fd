//! Perl's dialect as PCRE2 reads it in a C locale, without UTF: octets, letters are ASCII's.
//! `man 3 pcre2pattern`. What is understood there and not here is named in the error.

mod class;
mod group;

use super::set::is_space;
use super::{Flags, Greed, Node, Place, Set};

/// How deep groups may nest: as in PCRE2.
const MAX_DEPTH: usize = 250;
/// The most that a quantifier may ask for.
const MAX_REPEAT: u32 = 65_535;

/// The tree of a pattern and its number of groups.
pub fn parse(pattern: &[u8], flags: Flags) -> Result<(Node, usize), String> {
    // Names may be used before the group that has them: the first pass finds them.
    let mut first = Parser::new(pattern, flags, None);
    first.whole()?;
    let mut second = Parser::new(pattern, flags, Some((first.names, first.groups)));
    let mut node = second.whole()?;
    if flags.anchored {
        node = Node::Sequence(vec![Node::At(Place::TextStart), node]);
    }
    Ok((node, second.groups))
}

/// Groups that have a name.
type Names = Vec<(Vec<u8>, usize)>;
/// What the first pass finds: names, and how many groups there are.
type Known = (Names, usize);

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    flags: Flags,
    /// Names of groups, as they are found.
    names: Names,
    /// Names and number of groups that the first pass found; none in the first pass.
    known: Option<Known>,
    groups: usize,
    depth: usize,
    /// Within `\Q…\E`.
    quoted: bool,
    /// Within so many lookarounds.
    looks: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a [u8], flags: Flags, known: Option<Known>) -> Self {
        Self { text, at: 0, flags, names: Vec::new(), known, groups: 0, depth: 0, quoted: false, looks: 0 }
    }

    fn whole(&mut self) -> Result<Node, String> {
        if self.rest().starts_with(b"(*") {
            return Err("verbs like (*UTF) are not supported".into());
        }
        let node = self.alternatives()?;
        match self.peek() {
            None => Ok(node),
            Some(_) => Err(self.error("unmatched closing parenthesis")),
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
    fn take(&mut self, what: &[u8]) -> bool {
        let there = self.rest().starts_with(what);
        if there {
            self.at += what.len();
        }
        there
    }
    fn next(&mut self) -> Option<u8> {
        let octet = self.peek()?;
        self.at += 1;
        Some(octet)
    }
    fn error(&self, what: &str) -> String {
        format!("{what} at offset {}", self.at)
    }

    /// Up to a closing parenthesis or the end.
    fn alternatives(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("parentheses are too deeply nested"));
        }
        let mut nodes = vec![self.sequence()?];
        while self.take(b"|") {
            nodes.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Alternatives(nodes) })
    }

    fn sequence(&mut self) -> Result<Node, String> {
        let mut nodes = Vec::new();
        loop {
            self.skip_ignored()?;
            if !self.quoted && matches!(self.peek(), None | Some(b'|' | b')')) || self.peek().is_none() {
                break;
            }
            let group = !self.quoted && self.peek() == Some(b'(');
            let Some(node) = self.item()? else { continue };
            let node = self.quantified(node, group)?;
            nodes.push(node);
        }
        Ok(match nodes.len() {
            0 => Node::Empty,
            1 => nodes.remove(0),
            _ => Node::Sequence(nodes),
        })
    }

    /// White space and comments, where they do not count; `\E` and `\Q`.
    fn skip_ignored(&mut self) -> Result<(), String> {
        loop {
            if self.quoted {
                if !self.take(b"\\E") {
                    return Ok(());
                }
                self.quoted = false;
            } else if self.take(b"\\Q") {
                self.quoted = true;
            } else if self.take(b"\\E") {
            } else if self.rest().starts_with(b"(?#") {
                let end = self.rest().iter().position(|octet| *octet == b')');
                self.at += end.ok_or_else(|| self.error("missing ) after (?# comment"))? + 1;
            } else if self.flags.extended && self.peek().is_some_and(is_space) {
                self.at += 1;
            } else if self.flags.extended && self.peek() == Some(b'#') {
                let line = self.rest().iter().position(|octet| *octet == b'\n');
                self.at += line.map_or(self.rest().len(), |line| line + 1);
            } else {
                return Ok(());
            }
        }
    }

    fn literal(&self, octet: u8) -> Node {
        self.octets(Set::one(octet))
    }
    fn octets(&self, set: Set) -> Node {
        Node::Octet(if self.flags.caseless { set.caseless() } else { set })
    }

    /// One item without its quantifier; none if it was a setting.
    fn item(&mut self) -> Result<Option<Node>, String> {
        let at = self.at;
        let Some(octet) = self.next() else { return Ok(None) };
        if self.quoted {
            return Ok(Some(self.literal(octet)));
        }
        Ok(Some(match octet {
            b'.' if self.flags.dot_all => Node::Octet(Set::FULL),
            b'.' => Node::Octet(Set::one(b'\n').inverted()),
            b'^' if self.flags.multiline => Node::At(Place::LineStart),
            b'^' => Node::At(Place::TextStart),
            b'$' if self.flags.multiline => Node::At(Place::LineEnd),
            // Without E, `$` would also match before a line end that ends the text; no text that is looked up ends so.
            b'$' => Node::At(Place::TextEnd),
            b'[' => self.class()?,
            b'(' => return self.group(),
            b'\\' => self.escape()?,
            b'*' | b'+' | b'?' => {
                self.at = at;
                return Err(self.error("quantifier does not follow a repeatable item"));
            }
            b'{' if self.interval_at(at).is_some() => {
                self.at = at;
                return Err(self.error("quantifier does not follow a repeatable item"));
            }
            octet => self.literal(octet),
        }))
    }

    /// `{n}`, `{n,}` or `{n,m}` at this place, and where it ends. Anything else that begins with `{` is literal.
    fn interval_at(&self, at: usize) -> Option<(&'a [u8], &'a [u8], bool, usize)> {
        let inner = self.text.get(at..)?.strip_prefix(b"{")?;
        let end = inner.iter().position(|octet| *octet == b'}')?;
        let inner = inner.get(..end)?;
        let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
        let (min, max, open) = match inner.iter().position(|octet| *octet == b',') {
            None => (inner, inner, false),
            Some(comma) => (inner.get(..comma)?, inner.get(comma + 1..)?, inner.len() == comma + 1),
        };
        (!min.is_empty() && digits(min) && digits(max)).then_some((min, max, open, at + end + 2))
    }

    /// The item with its quantifier, if it has one. An anchor may have one only if it stands in a group.
    fn quantified(&mut self, node: Node, group: bool) -> Result<Node, String> {
        if self.quoted && !self.take(b"\\E") {
            return Ok(node);
        }
        self.quoted = false;
        self.skip_ignored()?;
        let Some((min, max)) = self.quantifier()? else { return Ok(node) };
        if matches!(node, Node::At(_) | Node::Keep) && !group {
            return Err(self.error("quantifier does not follow a repeatable item"));
        }
        if self.flags.extended {
            self.skip_ignored()?;
        }
        let greed = match (self.peek().filter(|_| !self.quoted), self.flags.ungreedy) {
            (Some(b'+'), _) => Greed::Possessive,
            (Some(b'?'), true) => Greed::Greedy,
            (Some(b'?'), false) => Greed::Lazy,
            (_, true) => Greed::Lazy,
            (_, false) => Greed::Greedy,
        };
        if matches!(self.peek(), Some(b'+' | b'?')) && !self.quoted {
            self.at += 1;
        }
        Ok(node.repeat(min, max, greed))
    }

    fn quantifier(&mut self) -> Result<Option<(u32, Option<u32>)>, String> {
        let simple = match self.peek().filter(|_| !self.quoted) {
            Some(b'*') => (0, None),
            Some(b'+') => (1, None),
            Some(b'?') => (0, Some(1)),
            Some(b'{') => {
                let Some((min, max, open, end)) = self.interval_at(self.at) else { return Ok(None) };
                let min = self.number(min)?;
                let max = if open { None } else { Some(self.number(max)?) };
                if max.is_some_and(|max| max < min) {
                    return Err(self.error("numbers out of order in {} quantifier"));
                }
                self.at = end;
                return Ok(Some((min, max)));
            }
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(simple))
    }

    fn number(&self, digits: &[u8]) -> Result<u32, String> {
        let number = digits
            .iter()
            .fold(0_u32, |sum, digit| sum.saturating_mul(10).saturating_add(u32::from(digit.saturating_sub(b'0'))));
        if number > MAX_REPEAT { Err(self.error("number too big in {} quantifier")) } else { Ok(number) }
    }

    /// Behind a backslash, outside a class.
    fn escape(&mut self) -> Result<Node, String> {
        let Some(octet) = self.next() else { return Err(self.error("\\ at end of pattern")) };
        if let Some(set) = shorthand(octet) {
            return Ok(Node::Octet(set));
        }
        Ok(match octet {
            b'A' | b'G' => Node::At(Place::TextStart),
            b'Z' | b'z' => Node::At(Place::TextEnd),
            b'b' => Node::At(Place::WordBoundary),
            b'B' => Node::At(Place::NoWordBoundary),
            b'K' if self.looks > 0 => return Err(self.error("\\K is not allowed in lookarounds")),
            b'K' => Node::Keep,
            b'R' => newline(),
            b'N' => Node::Octet(Set::one(b'\n').inverted()),
            b'C' => Node::Octet(Set::FULL),
            b'g' => self.group_reference()?,
            b'k' => {
                let end = match self.next() {
                    Some(b'<') => b'>',
                    Some(b'\'') => b'\'',
                    Some(b'{') => b'}',
                    _ => return Err(self.error("\\k is not followed by a name")),
                };
                let name = self.name(end)?;
                self.backreference(&name)?
            }
            b'1'..=b'9' => self.digits(octet)?,
            octet => {
                let octet = self.character(octet)?;
                self.literal(octet)
            }
        })
    }

    fn character(&mut self, octet: u8) -> Result<u8, String> {
        Ok(match octet {
            b'a' => 7,
            b'e' => 27,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0' => self.octal(0, 2)?,
            b'o' => self.braced(8)?,
            b'x' if self.peek() == Some(b'{') => self.braced(16)?,
            b'x' => {
                let mut value = 0;
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|digit| char::from(digit).to_digit(16)) else { break };
                    value = value * 16 + digit;
                    self.at += 1;
                }
                u8::try_from(value).unwrap_or_default()
            }
            b'c' => match self.next() {
                Some(control @ b' '..=b'~') => control.to_ascii_uppercase() ^ 0x40,
                _ => return Err(self.error("\\c must be followed by a printable ASCII character")),
            },
            octet if octet.is_ascii_alphanumeric() => {
                return Err(self.error(&format!("unrecognized or unsupported \\{}", char::from(octet))));
            }
            octet => octet,
        })
    }

    fn octal(&mut self, first: u32, more: usize) -> Result<u8, String> {
        let mut value = first;
        for _ in 0..more {
            let Some(digit) = self.peek().and_then(|digit| char::from(digit).to_digit(8)) else { break };
            value = value * 8 + digit;
            self.at += 1;
        }
        u8::try_from(value).map_err(|_| self.error("character code point value is too large"))
    }

    fn braced(&mut self, radix: u32) -> Result<u8, String> {
        let inner = self.rest().strip_prefix(b"{").unwrap_or_default();
        let end = inner.iter().position(|octet| *octet == b'}');
        let digits = end.and_then(|end| std::str::from_utf8(inner.get(..end)?).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, radix).ok());
        let value = value.ok_or_else(|| self.error("a number up to 255 in braces is expected"))?;
        self.at += digits.map_or(0, str::len) + 2;
        Ok(value)
    }

    /// A backreference or an octal number. PCRE2: the former if it is below 10, begins with 8 or 9, or so many groups
    /// were opened before.
    fn digits(&mut self, first: u8) -> Result<Node, String> {
        let start = self.at - 1;
        let more = self.rest().iter().take_while(|octet| octet.is_ascii_digit()).count();
        let number = self
            .number(self.text.get(start..self.at + more).unwrap_or_default())
            .map_or(usize::MAX, |number| number as usize);
        if number < 10 || first >= b'8' || number <= self.groups {
            self.at += more;
            return self.numbered(number);
        }
        let value = self.octal(u32::from(first - b'0'), 2)?;
        Ok(self.literal(value))
    }

    fn numbered(&self, group: usize) -> Result<Node, String> {
        // In the first pass it is not known yet how many there are.
        if group == 0 || self.known.as_ref().is_some_and(|(_, groups)| group > *groups) {
            return Err(self.error("reference to a group that does not exist"));
        }
        Ok(Node::Backreference { group, caseless: self.flags.caseless })
    }

    /// Behind `\g`: `1`, `-1`, `{1}`, `{-1}`, `{name}` refer back; `<1>`, `<name>`, `'…'` call.
    fn group_reference(&mut self) -> Result<Node, String> {
        let end = match self.peek() {
            Some(b'{') => b'}',
            Some(b'<') => b'>',
            Some(b'\'') => b'\'',
            _ => {
                let sign = usize::from(matches!(self.peek(), Some(b'-' | b'+')));
                let digits = self.rest().iter().skip(sign).take_while(|octet| octet.is_ascii_digit()).count();
                let inner = self.rest().get(..sign + digits).unwrap_or_default();
                self.at += inner.len();
                return self.numbered(self.reference(inner)?);
            }
        };
        self.at += 1;
        let length = self.rest().iter().position(|octet| *octet == end);
        let length = length.ok_or_else(|| self.error("\\g is not followed by a group"))?;
        let inner = self.rest().get(..length).unwrap_or_default();
        self.at += length + 1;
        let group = self.reference(inner)?;
        if end == b'}' { self.numbered(group) } else { Ok(Node::Call(group)) }
    }

    fn reference(&self, inner: &[u8]) -> Result<usize, String> {
        match inner {
            [] | [b'+' | b'-'] => Err(self.error("\\g is not followed by a group")),
            [b'+' | b'-', ..] => self.relative(inner),
            digits if digits.iter().all(u8::is_ascii_digit) => Ok(self.number(digits)? as usize),
            name => self.group_named(name),
        }
    }
}

/// `\d` and its kin.
fn shorthand(octet: u8) -> Option<Set> {
    let vertical = || Set::of(|octet| matches!(octet, 10..=13 | 0x85));
    let horizontal = || Set::of(|octet| matches!(octet, b'\t' | b' ' | 0xA0));
    let set = match octet.to_ascii_lowercase() {
        b'd' => Set::class(b"digit")?,
        b's' => Set::class(b"space")?,
        b'w' => Set::class(b"word")?,
        b'h' => horizontal(),
        b'v' => vertical(),
        _ => return None,
    };
    Some(if octet.is_ascii_uppercase() { set.inverted() } else { set })
}

/// `\R`: CRLF as one, or any vertical space.
fn newline() -> Node {
    let crlf = Node::Sequence(vec![Node::Octet(Set::one(b'\r')), Node::Octet(Set::one(b'\n'))]);
    let other = Node::Octet(Set::of(|octet| matches!(octet, 10..=13 | 0x85)));
    Node::Atomic(Box::new(Node::Alternatives(vec![crlf, other])))
}
