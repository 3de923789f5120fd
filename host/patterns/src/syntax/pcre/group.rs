//! What stands behind an opening parenthesis in Perl's dialect: groups, lookarounds, conditions, calls, settings.

use super::{Names, Parser};
use crate::syntax::{Condition, Flags, Node};

impl Parser<'_> {
    /// Behind `(`.
    pub(super) fn group(&mut self) -> Result<Option<Node>, String> {
        if self.rest().starts_with(b"*") {
            return Err(self.error("verbs like (*SKIP) are not supported"));
        }
        let outer = self.flags;
        let capture = |node| Node::Group(Box::new(node));
        let node = if !self.take(b"?") {
            self.groups += 1;
            capture(self.alternatives()?)
        } else if self.take(b"=") {
            self.look(false, false)?
        } else if self.take(b"!") {
            self.look(false, true)?
        } else if self.take(b"<=") {
            self.look(true, false)?
        } else if self.take(b"<!") {
            self.look(true, true)?
        } else if self.take(b">") {
            Node::Atomic(Box::new(self.alternatives()?))
        } else if self.take(b":") {
            self.alternatives()?
        } else if self.take(b"|") {
            return Err(self.error("(?| is not supported"));
        } else if self.take(b"P<") || self.take(b"<") {
            self.named(b'>')?;
            capture(self.alternatives()?)
        } else if self.take(b"'") {
            self.named(b'\'')?;
            capture(self.alternatives()?)
        } else if self.take(b"P=") {
            let name = self.name(b')')?;
            return Ok(Some(self.backreference(&name)?));
        } else if self.take(b"P>") || self.take(b"&") {
            let name = self.name(b')')?;
            return Ok(Some(Node::Call(self.group_named(&name)?)));
        } else if self.take(b"(") {
            self.conditional()?
        } else if let Some(call) = self.call()? {
            return Ok(Some(call));
        } else {
            match self.settings()? {
                // `(?i)` holds up to the end of the group that it stands in.
                b')' => return Ok(None),
                _ => self.alternatives()?,
            }
        };
        if !self.take(b")") {
            return Err(self.error("missing closing parenthesis"));
        }
        self.flags = outer;
        // Alternatives without a group of their own must stay together.
        Ok(Some(node))
    }

    fn look(&mut self, behind: bool, negative: bool) -> Result<Node, String> {
        self.looks += 1;
        let node = Box::new(self.alternatives()?);
        self.looks -= 1;
        Ok(Node::Look { behind, negative, node })
    }

    fn named(&mut self, end: u8) -> Result<(), String> {
        let name = self.name(end)?;
        self.groups += 1;
        if self.names.iter().any(|(known, _)| *known == name) {
            return Err(self.error("two named groups have the same name"));
        }
        self.names.push((name, self.groups));
        Ok(())
    }

    pub(super) fn name(&mut self, end: u8) -> Result<Vec<u8>, String> {
        let length = self.rest().iter().position(|octet| *octet == end);
        let name = length.and_then(|length| self.rest().get(..length)).unwrap_or_default().to_vec();
        let sound = name.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'_');
        if name.is_empty() || !sound || name.first().is_some_and(u8::is_ascii_digit) {
            return Err(self.error("group name expected"));
        }
        self.at += name.len() + 1;
        Ok(name)
    }

    /// In the first pass a name that is not known yet stands for group 1.
    pub(super) fn group_named(&self, name: &[u8]) -> Result<usize, String> {
        let of = |names: &Names| names.iter().find(|(known, _)| known == name).map(|(_, group)| *group);
        match &self.known {
            Some((known, _)) => of(known).ok_or_else(|| self.error("reference to a group that does not exist")),
            None => Ok(of(&self.names).unwrap_or(1)),
        }
    }

    pub(super) fn backreference(&self, name: &[u8]) -> Result<Node, String> {
        Ok(Node::Backreference { group: self.group_named(name)?, caseless: self.flags.caseless })
    }

    /// `R)`, `1)`, `+1)`, `-1)`: a group's pattern once more.
    fn call(&mut self) -> Result<Option<Node>, String> {
        let rest = self.rest();
        let Some(end) = rest.iter().position(|octet| *octet == b')') else { return Ok(None) };
        let inner = rest.get(..end).unwrap_or_default();
        let group = match inner {
            b"R" => 0,
            [b'+' | b'-', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                self.relative(inner)?
            }
            digits if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => self.number(digits)? as usize,
            _ => return Ok(None),
        };
        self.at += end + 1;
        Ok(Some(Node::Call(group)))
    }

    pub(super) fn relative(&self, number: &[u8]) -> Result<usize, String> {
        let digits = number.get(1..).unwrap_or_default();
        let by = self.number(digits)? as usize;
        let group = if number.starts_with(b"-") { (self.groups + 1).checked_sub(by) } else { Some(self.groups + by) };
        group.filter(|group| *group > 0 && by > 0).ok_or_else(|| self.error("reference to a group that does not exist"))
    }

    /// Behind `(?(`.
    fn conditional(&mut self) -> Result<Node, String> {
        let condition =
            if self.rest().starts_with(b"?=") || self.rest().starts_with(b"?!") || self.rest().starts_with(b"?<") {
                match self.group()? {
                    Some(look @ Node::Look { .. }) => Condition::Look(Box::new(look)),
                    _ => return Err(self.error("assertion expected after (?(")),
                }
            } else {
                let end = self.rest().iter().position(|octet| *octet == b')');
                let end = end.ok_or_else(|| self.error("missing closing parenthesis for condition"))?;
                let inner = self.rest().get(..end).unwrap_or_default();
                let condition = match inner {
                    b"DEFINE" => Condition::Define,
                    [b'+' | b'-', ..] => Condition::Group(self.relative(inner)?),
                    [b'0'..=b'9', ..] if inner.iter().all(u8::is_ascii_digit) => {
                        Condition::Group(self.number(inner)? as usize)
                    }
                    [b'<', name @ .., b'>'] | [b'\'', name @ .., b'\''] => Condition::Group(self.group_named(name)?),
                    [b'R', ..] => return Err(self.error("conditions on recursion are not supported")),
                    name => Condition::Group(self.group_named(name)?),
                };
                self.at += end + 1;
                condition
            };
        let (yes, no) = match self.alternatives()? {
            Node::Alternatives(mut nodes) if nodes.len() == 2 => {
                let no = nodes.pop().unwrap_or(Node::Empty);
                (nodes.pop().unwrap_or(Node::Empty), no)
            }
            Node::Alternatives(_) => return Err(self.error("a condition has more than two branches")),
            node => (node, Node::Empty),
        };
        Ok(Node::If { condition, yes: Box::new(yes), no: Box::new(no) })
    }

    /// `i-m)` or `i-m:` behind `(?`; returns which of the two ended it.
    fn settings(&mut self) -> Result<u8, String> {
        let mut on = true;
        if self.take(b"^") {
            self.flags = Flags { caseless: false, multiline: false, dot_all: false, extended: false, ..self.flags };
        }
        loop {
            match self.next() {
                Some(b'-') => on = false,
                Some(b'i') => self.flags.caseless = on,
                Some(b'm') => self.flags.multiline = on,
                Some(b's') => self.flags.dot_all = on,
                Some(b'x') => self.flags.extended = on,
                Some(b'U') => self.flags.ungreedy = on,
                Some(end @ (b')' | b':')) => return Ok(end),
                _ => return Err(self.error("unrecognized or unsupported character after (?")),
            }
        }
    }
}
