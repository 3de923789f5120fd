//! Where the MIME parts of a message lie, and their decoded content: RFC 2045, RFC 2046 §5.1.
//!
//! The body is read in windows and never held whole, so a part of 50 MB costs no more memory than one of 50 octets. What is
//! malformed is taken as a reader would: an unclosed multipart ends with the message, an unknown encoding is none.

use std::io;
use std::ops::Range;
use std::sync::Mutex;

use mail_parser::{MessageParser, MimeHeaders};

use crate::policy::Content;

/// Parts that are told apart; what follows belongs to the last one.
const MAX_PARTS: usize = 1000;
/// Nesting that is followed; as Postfix's mime_nesting_limit.
const MAX_DEPTH: usize = 100;
/// Octets of one part's header section that are read.
const MAX_HEADER: usize = 64 * 1024;
/// Octets read at once.
const WINDOW: usize = 64 * 1024;
/// Octets of a line that are looked at; a boundary has 70 (RFC 2046 §5.1.1).
const MAX_LINE: usize = 1000;

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Multiparts and messages around it.
    pub depth: u32,
    /// In lower case.
    pub content_type: String,
    /// As written.
    pub charset: Option<String>,
    /// The file name, decoded.
    pub name: Option<String>,
    /// Whether the disposition says attachment.
    pub attachment: bool,
    /// Where its content lies in the body, still encoded.
    pub body: Range<u64>,
    encoding: Encoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Base64,
    QuotedPrintable,
}

/// All parts of one message, and where the last reader of decoded content stands.
pub struct Parts {
    parts: Vec<Part>,
    cursor: Mutex<Option<Cursor>>,
}

struct Section {
    part: Part,
    boundary: Option<Vec<u8>>,
    /// message/rfc822: a header section comes first.
    message: bool,
}

fn section(header: &[u8], depth: u32, start: u64, default_type: &str) -> Section {
    let message = MessageParser::new().parse_headers(header);
    let content_type = message.as_ref().and_then(|message| message.content_type());
    let full_type = content_type.map_or(default_type.to_owned(), |own| match own.subtype() {
        Some(subtype) => format!("{}/{subtype}", own.ctype()).to_ascii_lowercase(),
        None => own.ctype().to_ascii_lowercase(),
    });
    let attribute = |name: &str| content_type.and_then(|own| own.attribute(name)).map(str::to_owned);
    let encoding = message.as_ref().and_then(|message| message.content_transfer_encoding()).unwrap_or_default();
    let encoding = match encoding.trim().to_ascii_lowercase().as_str() {
        "base64" => Encoding::Base64,
        "quoted-printable" => Encoding::QuotedPrintable,
        _ => Encoding::Identity,
    };
    let boundary = attribute("boundary").filter(|own| full_type.starts_with("multipart/") && !own.is_empty());
    let nested = full_type == "message/rfc822" && encoding == Encoding::Identity;
    let part = Part {
        depth,
        charset: attribute("charset"),
        name: message.as_ref().and_then(|message| message.attachment_name()).map(str::to_owned),
        attachment: message
            .as_ref()
            .and_then(|message| message.content_disposition())
            .is_some_and(|disposition| disposition.ctype().eq_ignore_ascii_case("attachment")),
        body: start..start,
        content_type: full_type,
        encoding,
    };
    Section { part, boundary: boundary.map(String::into_bytes), message: nested }
}

/// A multipart or a message that is open: which part it is and what ends its parts.
struct Open {
    index: usize,
    boundary: Option<Vec<u8>>,
    digest: bool,
}

struct Scanner {
    parts: Vec<Part>,
    open: Vec<Open>,
    /// The leaf that is being read.
    leaf: Option<usize>,
    /// The header section that is being read.
    header: Option<Vec<u8>>,
}

impl Scanner {
    fn default_type(&self) -> &'static str {
        // RFC 2046 §5.1.5: in a digest, what says nothing is a message.
        if self.open.last().is_some_and(|open| open.digest) { "message/rfc822" } else { "text/plain" }
    }

    /// A header section is complete; content begins at `start`.
    fn enter(&mut self, header: &[u8], start: u64) {
        let depth = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        let Section { part, boundary, message } = section(header, depth, start, self.default_type());
        let index = self.parts.len();
        if index >= MAX_PARTS {
            return;
        }
        let digest = part.content_type == "multipart/digest";
        let deeper = self.open.len() < MAX_DEPTH && (boundary.is_some() || message);
        self.parts.push(part);
        self.leaf = None;
        if deeper {
            self.open.push(Open { index, boundary, digest });
            self.header = message.then(Vec::new);
        } else {
            self.leaf = Some(index);
        }
    }

    fn end(&mut self, index: usize, at: u64) {
        if let Some(part) = self.parts.get_mut(index) {
            part.body.end = at.max(part.body.start);
        }
    }

    /// A boundary line of the open multipart number `level`: everything inside of it ends before the line.
    fn boundary(&mut self, level: usize, closing: bool, line: Range<u64>) {
        // RFC 2046 §5.1.1: the CRLF before the boundary belongs to the boundary.
        let end = line.start.saturating_sub(2);
        if let Some(leaf) = self.leaf.take() {
            self.end(leaf, end);
        }
        if let Some(header) = self.header.take() {
            self.enter(&header, end); // a header section without an empty line
            if let Some(leaf) = self.leaf.take() {
                self.end(leaf, end);
            }
        }
        while self.open.len() > level + 1 {
            if let Some(inner) = self.open.pop() {
                self.end(inner.index, end);
            }
        }
        if closing {
            if let Some(open) = self.open.pop() {
                self.end(open.index, line.end); // the rest is epilogue of nobody
            }
        } else {
            self.header = Some(Vec::new());
        }
    }

    fn line(&mut self, line: &[u8], at: Range<u64>) {
        if let Some(text) = line.strip_prefix(b"--") {
            let text = text.trim_ascii_end();
            let matching = self.open.iter().enumerate().rev().find_map(|(level, open)| {
                let boundary = open.boundary.as_deref()?;
                let closing = match text.strip_prefix(boundary)? {
                    b"" => false,
                    b"--" => true,
                    _ => return None,
                };
                Some((level, closing))
            });
            if let Some((level, closing)) = matching {
                return self.boundary(level, closing, at);
            }
        }
        if let Some(header) = &mut self.header {
            if line.trim_ascii().is_empty() {
                let header = self.header.take().unwrap_or_default();
                self.enter(&header, at.end);
            } else if header.len() < MAX_HEADER {
                header.extend_from_slice(line.get(..MAX_HEADER - header.len()).unwrap_or(line));
                if !header.ends_with(b"\r\n") {
                    header.extend_from_slice(b"\r\n"); // a cut line stays a line
                }
            }
        }
    }

    fn finish(mut self, end: u64) -> Vec<Part> {
        if let Some(header) = self.header.take() {
            self.enter(&header, end);
        }
        let unended: Vec<usize> = self.leaf.into_iter().chain(self.open.iter().map(|open| open.index)).collect();
        for index in unended {
            self.end(index, end);
        }
        self.parts
    }
}

/// Finds the parts; `header` is the message's own header section.
pub fn scan(header: &[u8], body: &dyn Content) -> io::Result<Parts> {
    let mut scanner = Scanner { parts: Vec::new(), open: Vec::new(), leaf: None, header: None };
    scanner.enter(header, 0);
    if !scanner.open.is_empty() {
        let mut window = vec![0; WINDOW];
        let (mut at, mut line, mut line_start) = (0, Vec::with_capacity(MAX_LINE), 0);
        loop {
            let n = body.read_at(at, &mut window)?;
            let Some(read) = window.get(..n).filter(|read| !read.is_empty()) else { break };
            let mut from = 0;
            for end in memchr::memchr_iter(b'\n', read) {
                push_bounded(&mut line, &read[from..=end]);
                from = end + 1;
                let next = at + from as u64;
                scanner.line(&line, line_start..next);
                line.clear();
                line_start = next;
            }
            push_bounded(&mut line, &read[from..]);
            at += n as u64;
        }
        if !line.is_empty() {
            scanner.line(&line, line_start..at);
        }
    }
    Ok(Parts { parts: scanner.finish(body.len()), cursor: Mutex::new(None) })
}

fn push_bounded(line: &mut Vec<u8>, more: &[u8]) {
    let room = MAX_LINE.saturating_sub(line.len()).min(more.len());
    line.extend_from_slice(&more[..room]);
}

impl Parts {
    /// All of them, in order of appearance.
    pub fn iter(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }

    /// At most `len` octets of a part's decoded content from `offset` on. Reading on where the last read ended is cheap.
    pub fn read(&self, index: usize, body: &dyn Content, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let no_part = || io::Error::new(io::ErrorKind::NotFound, format!("there is no part {index}"));
        let part = self.parts.get(index).ok_or_else(no_part)?;
        if part.encoding == Encoding::Identity {
            let start = part.body.start.saturating_add(offset).min(part.body.end);
            let rest = usize::try_from(part.body.end - start).unwrap_or(usize::MAX);
            let mut octets = vec![0; rest.min(len)];
            let n = body.read_at(start, &mut octets)?;
            octets.truncate(n);
            return Ok(octets);
        }
        let mut cursor = self.cursor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fits = cursor.as_ref().is_some_and(|cursor| cursor.part == index && cursor.decoded <= offset);
        if !fits {
            *cursor = Some(Cursor {
                part: index,
                raw: part.body.start,
                decoded: 0,
                pending: Vec::new(),
                decoder: Decoder::default(),
            });
        }
        match cursor.as_mut() {
            Some(cursor) => cursor.read(part, body, offset, len),
            None => Err(no_part()),
        }
    }
}

/// How far a part has been decoded.
struct Cursor {
    part: usize,
    /// The next encoded octet.
    raw: u64,
    /// The offset of the first pending octet.
    decoded: u64,
    /// Decoded, not handed out.
    pending: Vec<u8>,
    decoder: Decoder,
}

impl Cursor {
    fn read(&mut self, part: &Part, body: &dyn Content, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut window = vec![0; WINDOW];
        loop {
            let skip = usize::try_from(offset - self.decoded).unwrap_or(usize::MAX).min(self.pending.len());
            self.pending.drain(..skip);
            self.decoded += skip as u64;
            let exhausted = self.raw >= part.body.end;
            if exhausted || self.decoded == offset && self.pending.len() >= len {
                let take = if self.decoded == offset { len.min(self.pending.len()) } else { 0 };
                self.decoded += take as u64;
                return Ok(self.pending.drain(..take).collect());
            }
            let want = usize::try_from(part.body.end - self.raw).unwrap_or(usize::MAX).min(WINDOW);
            let n = body.read_at(self.raw, &mut window[..want])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.raw += n as u64;
            match part.encoding {
                Encoding::Base64 => self.decoder.base64(&window[..n], &mut self.pending),
                _ => self.decoder.quoted_printable(&window[..n], &mut self.pending, self.raw >= part.body.end),
            }
        }
    }
}

/// Transfer decoding that can stop and go on anywhere.
#[derive(Default)]
struct Decoder {
    sextets: u32,
    bits: u32,
    /// What may be a soft line break, an escape, or white space at the end of a line.
    held: Vec<u8>,
}

impl Decoder {
    /// RFC 2045 §6.8: what is not of the alphabet is passed over.
    fn base64(&mut self, encoded: &[u8], out: &mut Vec<u8>) {
        for octet in encoded {
            let value = match octet {
                b'A'..=b'Z' => octet - b'A',
                b'a'..=b'z' => octet - b'a' + 26,
                b'0'..=b'9' => octet - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                b'=' => {
                    (self.sextets, self.bits) = (0, 0); // padding ends a group
                    continue;
                }
                _ => continue,
            };
            self.sextets = (self.sextets << 6) | u32::from(value);
            self.bits += 6;
            if self.bits >= 8 {
                self.bits -= 8;
                out.push(((self.sextets >> self.bits) & 0xFF) as u8);
            }
        }
    }

    /// RFC 2045 §6.7: malformed escapes stand for themselves, white space before a line break goes.
    fn quoted_printable(&mut self, encoded: &[u8], out: &mut Vec<u8>, last: bool) {
        for &octet in encoded {
            match (self.held.first(), octet) {
                (Some(b'='), _) => self.escape(octet, out),
                (_, b' ' | b'\t') => {
                    if self.held.len() < MAX_LINE {
                        self.held.push(octet);
                    }
                }
                (_, b'\r') => {
                    self.held.clear();
                    out.push(octet);
                }
                (_, b'=') => {
                    out.append(&mut self.held);
                    self.held.push(octet);
                }
                _ => {
                    out.append(&mut self.held);
                    out.push(octet);
                }
            }
        }
        if last && self.held.len() > 1 && self.held.starts_with(b"=") {
            out.append(&mut self.held); // half an escape; white space and a soft break at the end mean nothing
        }
    }

    fn escape(&mut self, octet: u8, out: &mut Vec<u8>) {
        self.held.push(octet);
        match self.held.as_slice() {
            [_, b' ' | b'\t', ..] if octet != b'\n' && self.held.len() < 80 => {} // transport padding before a soft break
            [_, b'\r'] => {}
            [.., b'\n'] => self.held.clear(),
            [_, high] if high.is_ascii_hexdigit() => {}
            [_, high, low] => {
                match mail_parser::decoders::quoted_printable::quoted_printable_decode_char(*high, *low) {
                    Some(value) => out.push(value),
                    None => out.extend_from_slice(&self.held),
                }
                self.held.clear();
            }
            _ => out.append(&mut self.held),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(header: &str, body: &str) -> (Parts, Vec<u8>) {
        let body = body.replace('\n', "\r\n").into_bytes();
        (scan(header.replace('\n', "\r\n").as_bytes(), &body).expect("in memory"), body)
    }

    fn read_all(parts: &Parts, body: &Vec<u8>, index: usize, step: usize) -> String {
        let mut content = Vec::new();
        loop {
            let more = parts.read(index, body, content.len() as u64, step).expect("in memory");
            if more.is_empty() {
                return String::from_utf8_lossy(&content).into_owned();
            }
            content.extend(more);
        }
    }

    #[test]
    fn a_plain_message_is_one_part() {
        let (parts, body) = parts("Subject: x\n", "hello\n");
        let all: Vec<_> = parts.iter().collect();
        assert_eq!((all.len(), all[0].content_type.as_str(), all[0].body.clone()), (1, "text/plain", 0..7));
        assert_eq!(read_all(&parts, &body, 0, 3), "hello\r\n");
    }

    const MIXED: &str = "preamble\n--b1\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n\
        gr=C3=BC=C3=9Fe =\nund =zz  \n--b1\nContent-Type: application/zip; name=\"a.zip\"\nContent-Disposition: attachment\n\
        Content-Transfer-Encoding: base64\n\naGVs\nbG8=\n--b1\nContent-Type: message/rfc822\n\nSubject: inner\nContent-Type: \
        multipart/alternative; boundary=b2\n\n--b2\n\nplain\n--b2--\n--b1--\nepilogue\n";

    #[test]
    fn nested_parts_are_found_and_decoded() {
        let (parts, body) = parts("Content-Type: multipart/mixed; boundary=\"b1\"\n", MIXED);
        let types: Vec<_> = parts.iter().map(|part| (part.depth, part.content_type.as_str())).collect();
        let expected = [
            (0, "multipart/mixed"),
            (1, "text/plain"),
            (1, "application/zip"),
            (1, "message/rfc822"),
            (2, "multipart/alternative"),
            (3, "text/plain"),
        ];
        assert_eq!(types, expected);
        let zip = parts.iter().nth(2).expect("there");
        assert_eq!((zip.name.as_deref(), zip.attachment), (Some("a.zip"), true));
        for step in [1, 2, 1000] {
            assert_eq!(read_all(&parts, &body, 1, step), "grüße und =zz");
            assert_eq!(read_all(&parts, &body, 2, step), "hello");
            assert_eq!(read_all(&parts, &body, 5, step), "plain");
        }
        assert!(parts.read(6, &body, 0, 1).is_err());
        assert!(parts.read(2, &body, u64::MAX, 1).expect("past the end").is_empty());
    }

    #[test]
    fn ten_thousand_nested_parts_are_bounded() {
        let mut body = String::new();
        for n in 0..10_000 {
            body += &format!("--b{n}\nContent-Type: multipart/mixed; boundary=b{}\n\n", n + 1);
        }
        let (parts, _) = parts("Content-Type: multipart/mixed; boundary=b0\n", &body);
        assert!(parts.iter().count() <= MAX_PARTS);
        assert!(parts.iter().all(|part| part.depth as usize <= MAX_DEPTH));
    }
}
