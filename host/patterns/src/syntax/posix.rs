//! POSIX's dialect as glibc's `regcomp` reads it in a C locale, with its extensions: `man 7 regex`.
//! One difference remains: where alternatives overlap, POSIX gives a group the longest match, and we the first.

use super::{Flags, Greed, Node, Place, Set};

/// How deep groups may nest.
const MAX_DEPTH: usize = 250;
/// The most that an interval may ask for (RE_DUP_MAX).
const MAX_REPEAT: u32 = 32_767;

/// The tree of a pattern and its number of groups.
pub fn parse(pattern: &[u8], flags: Flags) -> Result<(Node, usize), String> {
    let mut parser = Parser { text: pattern, at: 0, flags, groups: 0, closed: Vec::new(), depth: 0 };
    let node = parser.alternatives()?;
    match parser.text.get(parser.at) {
        None => Ok((node, parser.groups)),
        Some(_) => Err("Unmatched ) or \\)".into()),
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    flags: Flags,
    groups: usize,
    /// Groups that are complete: only those can be referred to.
    closed: Vec<usize>,
    depth: usize,
}

/// What comes next, whichever of the two syntaxes it is written in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    End,
    Open,
    Close,
    Bar,
    Interval,
    Star,
    Plus,
    Question,
    Bracket,
    Dot,
    Start,
    Finish,
    /// A backslash and this.
    Escaped(u8),
    Literal(u8),
}

impl Parser<'_> {
    /// The token here and its length.
    fn token(&self) -> (Token, usize) {
        let extended = self.flags.extended;
        let Some(octet) = self.text.get(self.at).copied() else { return (Token::End, 0) };
        if octet == b'\\' {
            let Some(next) = self.text.get(self.at + 1).copied() else { return (Token::Literal(octet), 1) };
            let token = match next {
                b'(' if !extended => Token::Open,
                b')' if !extended => Token::Close,
                b'{' if !extended => Token::Interval,
                b'|' if !extended => Token::Bar,
                b'+' if !extended => Token::Plus,
                b'?' if !extended => Token::Question,
                next => Token::Escaped(next),
            };
            return (token, 2);
        }
        let token = match octet {
            b'*' => Token::Star,
            b'[' => Token::Bracket,
            b'.' => Token::Dot,
            b'^' if extended || self.begins_here() => Token::Start,
            b'$' if extended || self.ends_here() => Token::Finish,
            b'(' if extended => Token::Open,
            // One that closes nothing stands for itself.
            b')' if extended && self.depth > 1 => Token::Close,
            b'|' if extended => Token::Bar,
            b'{' if extended => Token::Interval,
            b'+' if extended => Token::Plus,
            b'?' if extended => Token::Question,
            octet => Token::Literal(octet),
        };
        (token, 1)
    }

    /// Basic syntax: `^` is an anchor only at the beginning of the pattern, a group or an alternative.
    fn begins_here(&self) -> bool {
        let before = self.text.get(..self.at).unwrap_or_default();
        before.is_empty() || before.ends_with(b"\\(") || before.ends_with(b"\\|")
    }
    /// And `$` only at the end.
    fn ends_here(&self) -> bool {
        let after = self.text.get(self.at + 1..).unwrap_or_default();
        after.is_empty() || after.starts_with(b"\\)") || after.starts_with(b"\\|")
    }

    fn alternatives(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("Regular expression too big".into());
        }
        let mut nodes = vec![self.sequence()?];
        while let (Token::Bar, length) = self.token() {
            self.at += length;
            nodes.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Alternatives(nodes) })
    }

    fn sequence(&mut self) -> Result<Node, String> {
        let mut nodes = Vec::new();
        let mut first = true;
        while !matches!(self.token().0, Token::End | Token::Bar | Token::Close) {
            let (node, repeatable) = self.item(first)?;
            first = !repeatable;
            nodes.push(if repeatable { self.repeated(node)? } else { node });
        }
        if self.depth == 1 && self.token().0 == Token::Close {
            return Err("Unmatched ) or \\)".into());
        }
        Ok(match nodes.len() {
            0 => Node::Empty,
            1 => nodes.remove(0),
            _ => Node::Sequence(nodes),
        })
    }

    fn octets(&self, set: Set) -> Node {
        Node::Octet(if self.flags.caseless { set.caseless() } else { set })
    }
    fn literal(&self, octet: u8) -> Node {
        self.octets(Set::one(octet))
    }

    /// One item, and whether it can be repeated: an anchor cannot.
    fn item(&mut self, first: bool) -> Result<(Node, bool), String> {
        let (token, length) = self.token();
        self.at += length;
        let extended = self.flags.extended;
        let multiline = self.flags.multiline;
        let node = match token {
            Token::Open => return Ok((self.group()?, true)),
            Token::Start => return Ok((Node::At(if multiline { Place::LineStart } else { Place::TextStart }), false)),
            Token::Finish => return Ok((Node::At(if multiline { Place::LineEnd } else { Place::TextEnd }), false)),
            Token::Star if first && !extended => self.literal(b'*'),
            Token::Plus if first && !extended => self.literal(b'+'),
            Token::Question if first && !extended => self.literal(b'?'),
            Token::Star | Token::Plus | Token::Question | Token::Interval => {
                return Err("Invalid preceding regular expression".into());
            }
            Token::Bracket => self.bracket()?,
            Token::Dot if multiline => Node::Octet(Set::one(b'\n').inverted()),
            Token::Dot => Node::Octet(Set::FULL),
            Token::Escaped(octet) => return self.escaped(octet),
            Token::Literal(b'\\') => return Err("Trailing backslash".into()),
            Token::Literal(octet) => self.literal(octet),
            Token::End | Token::Bar | Token::Close => Node::Empty,
        };
        Ok((node, true))
    }

    fn escaped(&self, octet: u8) -> Result<(Node, bool), String> {
        let place = match octet {
            b'b' => Place::WordBoundary,
            b'B' => Place::NoWordBoundary,
            b'<' => Place::WordStart,
            b'>' => Place::WordEnd,
            b'`' => Place::TextStart,
            b'\'' => Place::TextEnd,
            b'w' | b'W' | b's' | b'S' => {
                let class = if octet.eq_ignore_ascii_case(&b'w') { &b"word"[..] } else { b"space" };
                let set = Set::class(class).unwrap_or_default();
                return Ok((Node::Octet(if octet.is_ascii_uppercase() { set.inverted() } else { set }), true));
            }
            b'1'..=b'9' => {
                let group = usize::from(octet - b'0');
                if !self.closed.contains(&group) {
                    return Err("Invalid back reference".into());
                }
                return Ok((Node::Backreference { group, caseless: self.flags.caseless }, true));
            }
            octet => return Ok((self.literal(octet), true)),
        };
        Ok((Node::At(place), false))
    }

    fn group(&mut self) -> Result<Node, String> {
        self.groups += 1;
        let number = self.groups;
        let node = self.alternatives()?;
        let (token, length) = self.token_in_group();
        if token != Token::Close {
            return Err("Unmatched ( or \\(".into());
        }
        self.at += length;
        self.closed.push(number);
        Ok(Node::Group(Box::new(node)))
    }

    /// The token as seen by the group that may end here.
    fn token_in_group(&mut self) -> (Token, usize) {
        self.depth += 1;
        let token = self.token();
        self.depth -= 1;
        token
    }

    fn repeated(&mut self, mut node: Node) -> Result<Node, String> {
        loop {
            let (token, length) = self.token();
            let (min, max) = match token {
                Token::Star => (0, None),
                Token::Plus => (1, None),
                Token::Question => (0, Some(1)),
                Token::Interval => {
                    self.at += length;
                    let (min, max) = self.interval()?;
                    node = node.repeat(min, max, Greed::Greedy);
                    continue;
                }
                _ => return Ok(node),
            };
            self.at += length;
            node = node.repeat(min, max, Greed::Greedy);
        }
    }

    /// Behind the opening brace: `n`, `n,`, `,m` or `n,m`, and the closing one.
    fn interval(&mut self) -> Result<(u32, Option<u32>), String> {
        let min = self.number();
        let range = self.text.get(self.at) == Some(&b',');
        self.at += usize::from(range);
        let max = if range { self.number() } else { min };
        let close: &[u8] = if self.flags.extended { b"}" } else { b"\\}" };
        let rest = self.text.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Err("Unmatched { or \\{".into());
        }
        if !rest.starts_with(close) || min.is_none() && !range {
            return Err("Invalid content of \\{\\}".into());
        }
        self.at += close.len();
        let min = min.unwrap_or(0);
        if max.is_some_and(|max| max < min) {
            return Err("Invalid content of \\{\\}".into());
        }
        if min.max(max.unwrap_or(0)) > MAX_REPEAT {
            return Err("Regular expression too big".into());
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Option<u32> {
        let rest = self.text.get(self.at..)?;
        let digits = rest.iter().take_while(|octet| octet.is_ascii_digit()).count();
        self.at += digits;
        let fold = |sum: u32, digit: &u8| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
        (digits > 0).then(|| rest.iter().take(digits).fold(0, fold))
    }

    /// Behind `[`. A backslash is nothing special here.
    fn bracket(&mut self) -> Result<Node, String> {
        const UNMATCHED: &str = "Unmatched [, [^, [:, [., or [=";
        let inverted = self.text.get(self.at) == Some(&b'^');
        self.at += usize::from(inverted);
        let mut set = Set::EMPTY;
        let mut first = true;
        loop {
            let octet = *self.text.get(self.at).ok_or(UNMATCHED)?;
            if octet == b']' && !first {
                self.at += 1;
                break;
            }
            first = false;
            let start = match self.bracket_item()? {
                Err(class) => {
                    set.add_all(class);
                    continue;
                }
                Ok(start) => start,
            };
            let after = self.text.get(self.at..).unwrap_or_default();
            if !matches!(after, [b'-', end, ..] if *end != b']') {
                set.add(start);
                continue;
            }
            self.at += 1;
            match self.bracket_item()? {
                Ok(end) if end >= start => (start..=end).for_each(|octet| set.add(octet)),
                _ => return Err("Invalid range end".into()),
            }
        }
        let set = if self.flags.caseless { set.caseless() } else { set };
        let mut set = if inverted { set.inverted() } else { set };
        if inverted && self.flags.multiline {
            set.remove(b'\n');
        }
        Ok(Node::Octet(set))
    }

    /// One octet, perhaps as `[.x.]` or `[=x=]`, or a class `[:name:]`.
    fn bracket_item(&mut self) -> Result<Result<u8, Set>, String> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let [b'[', kind @ (b':' | b'.' | b'='), inner @ ..] = rest else {
            self.at += 1;
            return rest.first().copied().map(Ok).ok_or_else(|| "Unmatched [, [^, [:, [., or [=".into());
        };
        let end = inner.windows(2).position(|pair| pair == [*kind, b']']);
        let name = end.and_then(|end| inner.get(..end)).ok_or("Unmatched [, [^, [:, [., or [=")?;
        self.at += name.len() + 4;
        match (kind, name) {
            (b':', b"ascii" | b"word") => Err("Invalid character class name".into()),
            (b':', name) => {
                let class = Set::class(name).ok_or("Invalid character class name")?;
                Ok(Err(class))
            }
            (_, [octet]) => Ok(Ok(*octet)),
            _ => Err("Invalid collation character".into()),
        }
    }
}
