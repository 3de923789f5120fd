//! Which lines of a message are header fields, of what, and which are body: Postfix's own reading of MIME.
//! RFC 2045, RFC 2046, and where mail is malformed, what Postfix makes of it.
//!
//! Records are lines without their line end; a line longer than `line_length` comes in several, all but the last of
//! them `continued`.

use std::ops::Range;

use crate::action::header_name_len;

/// Longest boundary that is remembered; what is beyond it is not compared.
const MAX_BOUNDARY: usize = 2048;
/// How deep multiparts may nest.
const MAX_NESTING: i32 = 100;

/// The limits of `man 5 postconf`, with the same defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `header_size_limit`: octets of one header field; the rest is not looked at. 102400.
    pub header_size: usize,
    /// `line_length_limit`: octets of a line that are looked at as one. 2048.
    pub line_length: usize,
    /// `body_checks_size_limit`: octets of each part's body that are looked at; 0 is all. 51200.
    pub body_checks_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_size: 102_400, line_length: 2048, body_checks_size: 51_200 }
    }
}

/// Whose table a header field belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The message's own, MIME's excluded.
    Primary,
    /// MIME's, wherever they stand, and all fields of the parts of a multipart.
    Mime,
    /// Those of a message inside the message, MIME's excluded.
    Nested,
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A field of the message's header, from 0.
    Field(usize),
    /// Octets of the message's body: text, and where the line end behind it ends.
    Body(Range<u64>, u64),
}

/// Gets to see what there is, in order.
pub trait Visitor {
    /// A header field: name, colon and the rest, lines parted by LF.
    fn header(&mut self, class: Class, text: &[u8], place: Place);
    /// A line of a body, or a piece of one; `offset` counts from the begin of that body.
    fn body(&mut self, text: &[u8], place: Place, offset: u64);
    /// A multipart that lies too deep.
    fn too_deep(&mut self);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Primary,
    Multipart,
    Nested,
    Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Leaf,
    /// `message/rfc822` and `message/global`: a message.
    Message,
    Multipart,
}

/// The state machine.
pub struct Machine {
    limits: Limits,
    /// `disable_mime_input_processing` unset.
    mime: bool,
    state: State,
    kind: Kind,
    /// Boundaries, the innermost last, and what parts are if they do not say.
    stack: Vec<(Vec<u8>, Kind)>,
    nesting: i32,
    /// The field that is being read, and where it stands.
    header: Vec<u8>,
    start: u64,
    end: (u64, u64),
    continued: bool,
    offset: u64,
}

impl Machine {
    /// At the beginning of a message.
    pub fn new(limits: Limits, mime: bool) -> Self {
        Self {
            limits,
            mime,
            state: State::Primary,
            kind: Kind::Leaf,
            stack: Vec::new(),
            nesting: -1,
            header: Vec::new(),
            start: 0,
            end: (0, 0),
            continued: false,
            offset: 0,
        }
    }

    /// The next field of the message's header, CRLF where it is folded.
    pub fn field(&mut self, index: usize, field: &[u8], visitor: &mut dyn Visitor) {
        let mut header = std::mem::take(&mut self.header);
        header.clear();
        for (number, line) in field.split(|octet| *octet == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let mut pieces = pieces(line, self.limits.line_length);
            let first = pieces.next().unwrap_or_default();
            if number == 0 {
                begin_header(&mut header, first);
            } else if header.len() < self.limits.header_size {
                header.push(b'\n');
                header.extend_from_slice(first);
            }
            for piece in pieces {
                if header.len() < self.limits.header_size {
                    header.extend_from_slice(piece);
                }
            }
        }
        self.flush(&header, Place::Field(index), visitor);
        self.header = header;
        self.header.clear();
    }

    /// The message's header has ended.
    pub fn end_of_header(&mut self) {
        self.end_of_headers(true);
        // The empty line was the first of the body.
        self.offset += 1;
    }

    /// Whether anything is in the body but body: if not, and nobody looks at body lines, it need not be read.
    pub fn expects_headers(&self) -> bool {
        self.state != State::Body || !self.stack.is_empty()
    }

    /// The next record of the body, which stands at `text_at`; its line end, if it has one, ends at `end`.
    pub fn record(&mut self, text: &[u8], continued: bool, (text_at, end): (u64, u64), visitor: &mut dyn Visitor) {
        let text_end = text_at + text.len() as u64;
        if self.state != State::Body {
            if !self.header.is_empty() {
                let folded = matches!(text.first(), Some(b' ' | b'\t'));
                if self.continued || folded {
                    if self.header.len() < self.limits.header_size {
                        if !self.continued {
                            self.header.push(b'\n');
                        }
                        self.header.extend_from_slice(text);
                    }
                    self.continued = continued;
                    self.end = (text_end, end);
                    return;
                }
                self.flush_own(visitor);
            }
            if header_name_len(text).is_some() {
                begin_header(&mut self.header, text);
                self.start = text_at;
                self.end = (text_end, end);
                self.continued = continued;
                return;
            }
            self.end_of_headers(text.is_empty());
        }
        if !self.continued && text.len() > 2 && text.starts_with(b"--") {
            self.boundary(text.get(2..).unwrap_or_default());
        }
        visitor.body(text, Place::Body(text_at..text_end, end), self.offset);
        self.offset += text.len() as u64 + 1;
        self.continued = continued;
    }

    /// The message has ended.
    pub fn finish(&mut self, visitor: &mut dyn Visitor) {
        if !self.header.is_empty() {
            self.flush_own(visitor);
        }
    }

    fn flush_own(&mut self, visitor: &mut dyn Visitor) {
        let header = std::mem::take(&mut self.header);
        let (text_end, end) = self.end;
        self.flush(&header, Place::Body(self.start..text_end, end), visitor);
        self.header = header;
        self.header.clear();
        self.continued = false;
    }

    fn flush(&mut self, header: &[u8], place: Place, visitor: &mut dyn Visitor) {
        let name_len = header.iter().position(|octet| *octet == b':').unwrap_or(header.len());
        let (name, value) = header.split_at(name_len);
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if self.mime && is("Content-Type") {
            self.content_type(value.get(1..).unwrap_or_default(), visitor);
        }
        const MIME: [&str; 6] = [
            "Content-Description",
            "Content-Disposition",
            "Content-ID",
            "Content-Transfer-Encoding",
            "Content-Type",
            "MIME-Version",
        ];
        let class = match self.state {
            State::Multipart => Class::Mime,
            _ if MIME.iter().any(|known| is(known)) => Class::Mime,
            State::Nested => Class::Nested,
            State::Primary | State::Body => Class::Primary,
        };
        visitor.header(class, header, place);
    }

    fn content_type(&mut self, value: &[u8], visitor: &mut dyn Visitor) {
        let mut tokens = Tokens { rest: value };
        let first = tokens.parameter().filter(|[kind, ..]| *kind != Token::None);
        let Some([kind, slash, subtype]) = first else {
            self.kind = Kind::Leaf;
            return;
        };
        let sub = |name: &str| slash == Token::Special(b'/') && subtype.is(name);
        // A type of another name leaves the default of the part as it is: Postfix does so.
        if kind.is("text") {
            self.kind = Kind::Leaf;
        } else if kind.is("message") {
            self.kind = if sub("rfc822") || sub("global") { Kind::Message } else { Kind::Leaf };
        } else if kind.is("multipart") {
            self.kind = Kind::Multipart;
            let default = if sub("digest") { Kind::Message } else { Kind::Leaf };
            while let Some([name, equals, boundary]) = tokens.parameter() {
                if !name.is("boundary") || equals != Token::Special(b'=') || boundary == Token::None {
                    continue;
                }
                if self.nesting > MAX_NESTING {
                    visitor.too_deep();
                    continue;
                }
                let mut boundary = boundary.text();
                boundary.truncate(MAX_BOUNDARY);
                self.nesting += 1;
                self.stack.push((boundary, default));
            }
        }
    }

    fn end_of_headers(&mut self, empty_line: bool) {
        self.offset = 0;
        (self.state, self.kind) = match (empty_line, self.kind) {
            (true, Kind::Message) => (State::Nested, Kind::Leaf),
            (true, Kind::Multipart) => (State::Body, Kind::Leaf),
            (_, kind) => (State::Body, kind),
        };
    }

    /// A line that began with two hyphens, without them.
    fn boundary(&mut self, line: &[u8]) {
        let Some(depth) = self.stack.iter().rposition(|(boundary, _)| line.starts_with(boundary)) else { return };
        let closes = self
            .stack
            .get(depth)
            .is_some_and(|(boundary, _)| line.get(boundary.len()..).is_some_and(|rest| rest.starts_with(b"--")));
        self.nesting -= i32::try_from(self.stack.len() - depth - 1).unwrap_or_default();
        self.stack.truncate(depth + 1);
        if closes {
            self.stack.pop();
            self.nesting -= 1;
            (self.state, self.kind) = (State::Body, Kind::Leaf);
            self.offset = 0;
        } else {
            self.state = State::Multipart;
            self.kind = self.stack.last().map_or(Kind::Leaf, |(_, default)| *default);
        }
    }
}

/// Postfix leaves out white space between name and colon.
fn begin_header(header: &mut Vec<u8>, line: &[u8]) {
    let name = header_name_len(line).unwrap_or_default();
    let (name, rest) = line.split_at(name);
    header.clear();
    header.extend_from_slice(name);
    header.extend_from_slice(if name.is_empty() { rest } else { rest.trim_ascii_start() });
}

/// A line as Postfix's SMTP server hands it on: in pieces of so many octets. A line of just that length comes with an empty
/// piece behind it.
pub fn pieces(line: &[u8], length: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let now = rest?;
        let (piece, after) = now.split_at_checked(length).map_or((now, None), |(piece, after)| (piece, Some(after)));
        rest = after;
        Some(piece)
    })
}

/// A piece of a structured header field, RFC 2045 §5.1.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    None,
    Word(Vec<u8>),
    Quoted(Vec<u8>),
    Special(u8),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own.eq_ignore_ascii_case(word.as_bytes()))
    }
    fn text(self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Word(text) | Self::Quoted(text) => text,
            Self::Special(octet) => vec![octet],
        }
    }
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl Tokens<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// The first three tokens up to the next semicolon; none at the end.
    fn parameter(&mut self) -> Option<[Token; 3]> {
        let mut tokens = [Token::None, Token::None, Token::None];
        let mut count = 0;
        let mut ended = false;
        while let Some(octet) = self.next() {
            let token = match octet {
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                b';' => {
                    ended = true;
                    break;
                }
                b'(' => {
                    self.comment();
                    continue;
                }
                b'"' => Token::Quoted(self.quoted()),
                octet if is_special(octet) => Token::Special(octet),
                octet => {
                    let length =
                        self.rest.iter().take_while(|octet| !is_special(**octet) && !matches!(octet, b' ')).count();
                    let (word, rest) = self.rest.split_at(length);
                    self.rest = rest;
                    Token::Word([&[octet], word].concat())
                }
            };
            if let Some(free) = tokens.get_mut(count) {
                *free = token;
            }
            count += 1;
        }
        (count > 0 || ended).then_some(tokens)
    }

    fn comment(&mut self) {
        let mut level = 1;
        while level > 0
            && let Some(octet) = self.next()
        {
            match octet {
                b'(' => level += 1,
                b')' => level -= 1,
                b'\\' => drop(self.next()),
                _ => {}
            }
        }
    }

    fn quoted(&mut self) -> Vec<u8> {
        let mut text: Vec<u8> = Vec::new();
        while let Some(octet) = self.next() {
            match octet {
                b'"' => break,
                // A line break inside goes, with the white space before it.
                b'\n' => text.truncate(text.trim_ascii_end().len()),
                b'\\' => text.extend(self.next()),
                octet => text.push(octet),
            }
        }
        text
    }
}

/// Specials of RFC 2045 and control characters.
fn is_special(octet: u8) -> bool {
    octet.is_ascii_control() || b"()<>@,;:\\\"/[]?=".contains(&octet)
}
