//! The octets of a message on the wire: RFC 5321 §4.5.2 (transparency), §4.1.1.4 (end of data), RFC 3030 §2 (chunks).
//!
//! Only CRLF ends a line and only CRLF.CRLF ends a message (RFC 5321 §2.3.8, CVE-2023-51764). Runs are found with memchr and copied
//! whole.

use memchr::{memchr2, memchr3};

use super::config::{BareLineEnds, Config, NulOctets};

/// How the end of a message is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// DATA: dots are doubled at the beginning of lines, a line with one dot ends it.
    Dots,
    /// BDAT: octets are counted.
    Counted,
}

/// Where in a line the decoder stands. A dot or CR that it has seen in the last three has not been handed on yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    Text,
    Cr,
    Dot,
    DotCr,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flaws {
    pub(super) too_large: bool,
    pub(super) bare_lf: bool,
    pub(super) bare_cr: bool,
    pub(super) long_line: bool,
    pub(super) nul: bool,
}

impl Flaws {
    /// Whether the message is to be refused.
    pub(super) fn any(self) -> bool {
        self != Self::default()
    }
}

/// What [`Decoder::decode`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Octets of the input that belong to the message and its end.
    pub(super) consumed: usize,
    /// Whether the end of the message was among them.
    pub(super) ended: bool,
}

/// Turns what comes over the wire into the octets of the message, over any number of calls.
#[derive(Debug)]
pub(super) struct Decoder {
    framing: Framing,
    normalize: bool,
    refuse_nul: bool,
    max_size: u64,
    max_line: u64,
    place: Place,
    size: u64,
    line: u64,
    flaws: Flaws,
}

impl Decoder {
    pub(super) fn new(framing: Framing, config: &Config) -> Self {
        Self {
            framing,
            normalize: config.bare_line_ends == BareLineEnds::Normalize,
            refuse_nul: config.nul_octets == NulOctets::Reject,
            max_size: config.max_message_size.as_u64(),
            max_line: config.max_text_line.as_u64(),
            place: Place::LineStart,
            size: 0,
            line: 0,
            flaws: Flaws::default(),
        }
    }

    /// What is wrong so far. What is wrong does not depend on how the octets were cut into calls.
    pub(super) fn flaws(&self) -> Flaws {
        self.flaws
    }

    /// Octets of the message so far, those that a flaw kept from being handed on included.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Decodes until the end of the message or of `input`. Once there is a flaw nothing more is handed on, but the end is still found.
    pub(super) fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Decoded {
        let mut at = 0; // what is before it has been looked at
        let mut run = 0; // what is between the two is to be copied
        while let Some(&octet) = input.get(at) {
            match (self.place, octet) {
                (Place::LineStart, b'.') if self.framing == Framing::Dots => {
                    self.hand_on(input.get(run..at), out);
                    at += 1;
                    run = at;
                    self.place = Place::Dot;
                }
                (Place::LineStart, _) => self.place = Place::Text,
                (Place::Text, _) => match self.text(input, &mut at) {
                    Some(bare) => {
                        self.hand_on(input.get(run..at), out);
                        at += 1;
                        run = at;
                        self.bare_line_end(bare, out);
                    }
                    None if self.place == Place::Cr => {
                        self.hand_on(input.get(run..at), out);
                        at += 1;
                        run = at;
                    }
                    None => {}
                },
                (Place::Cr, b'\n') => {
                    self.hand_on(Some(b"\r\n"), out);
                    self.end_line();
                    at += 1;
                    run = at;
                }
                (Place::Dot, b'\r') => {
                    self.place = Place::DotCr;
                    at += 1;
                    run = at;
                }
                // RFC 5321 §4.5.2: a dot before other characters goes.
                (Place::Dot, _) => self.place = Place::Text,
                (Place::DotCr, b'\n') => return Decoded { consumed: at + 1, ended: true },
                (Place::Cr | Place::DotCr, _) => self.bare_line_end(b'\r', out),
            }
        }
        self.hand_on(input.get(run..at), out);
        Decoded { consumed: at, ended: false }
    }

    /// Goes on over text and whole line ends, up to the end of the input, a dot at the beginning of a line, or a bare line end, which
    /// it returns. With the last octet a CR, it stops before it with `place` set to `Cr`.
    fn text(&mut self, input: &[u8], at: &mut usize) -> Option<u8> {
        loop {
            let rest = input.get(*at..).unwrap_or_default();
            let found = if self.refuse_nul { memchr3(b'\r', b'\n', 0, rest) } else { memchr2(b'\r', b'\n', rest) };
            let len = found.unwrap_or(rest.len());
            *at += len;
            self.lengthen_line(len);
            let octet = *input.get(*at)?;
            if octet == 0 {
                self.flaws.nul = true;
                *at += 1;
                self.lengthen_line(1);
                continue;
            }
            if octet == b'\n' {
                return Some(octet);
            }
            match input.get(*at + 1) {
                None => {
                    self.place = Place::Cr;
                    return None;
                }
                Some(b'\n') => {
                    *at += 2;
                    self.end_line();
                    if self.framing == Framing::Dots && input.get(*at).is_none_or(|next| *next == b'.') {
                        return None;
                    }
                    self.place = if *at < input.len() { Place::Text } else { Place::LineStart };
                }
                Some(_) => return Some(octet),
            }
        }
    }

    fn lengthen_line(&mut self, by: usize) {
        self.line += by as u64;
        self.flaws.long_line |= self.line + 2 > self.max_line; // its CRLF counts
    }

    fn end_line(&mut self) {
        self.line = 0;
        self.place = Place::LineStart;
    }

    /// A CR or LF that stands alone. The line goes on behind it: a dot there is a dot.
    fn bare_line_end(&mut self, octet: u8, out: &mut Vec<u8>) {
        self.place = Place::Text;
        if self.normalize {
            self.hand_on(Some(b"\r\n"), out);
            self.line = 0;
            if self.framing == Framing::Counted {
                self.place = Place::LineStart;
            }
        } else if octet == b'\n' {
            self.flaws.bare_lf = true;
        } else {
            self.flaws.bare_cr = true;
        }
    }

    fn hand_on(&mut self, run: Option<&[u8]>, out: &mut Vec<u8>) {
        let run = run.unwrap_or_default();
        self.size += run.len() as u64;
        self.flaws.too_large |= self.size > self.max_size;
        if !self.flaws.any() {
            out.extend_from_slice(run);
        }
    }

    /// The octets have all been counted: a last line without CRLF gets one. For [`Framing::Counted`].
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.place == Place::Cr {
            self.bare_line_end(b'\r', out);
        }
        if self.place != Place::LineStart {
            self.hand_on(Some(b"\r\n"), out);
            self.end_line();
        }
    }
}

/// Makes the octets of a message fit for the wire: dots at the beginning of lines are doubled for DATA, and what holds a bare CR or LF
/// after all leaves with CRLF, so that nothing we send can end a message early for anybody.
#[derive(Debug, Clone)]
pub struct Encoder {
    framing: Framing,
    line_start: bool,
    after_cr: bool,
}

impl Encoder {
    /// At the beginning of a message.
    pub fn new(framing: Framing) -> Self {
        Self { framing, line_start: true, after_cr: false }
    }

    /// Takes the next piece of the message, cut anywhere.
    pub fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len() + 2);
        let mut rest = piece;
        if self.after_cr && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            self.break_line(out);
        }
        let mut run = 0;
        let mut at = 0;
        while at < rest.len() {
            if self.line_start && self.framing == Framing::Dots && rest.get(at) == Some(&b'.') {
                out.extend_from_slice(rest.get(run..at).unwrap_or_default());
                out.push(b'.');
                run = at;
            }
            self.line_start = false;
            let tail = rest.get(at..).unwrap_or_default();
            let Some(len) = memchr2(b'\r', b'\n', tail) else {
                break;
            };
            at += len;
            match (tail.get(len), tail.get(len + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    at += 2;
                    self.line_start = true;
                }
                (Some(b'\r'), None) => {
                    // Its LF may come with the next piece.
                    out.extend_from_slice(rest.get(run..at).unwrap_or_default());
                    self.after_cr = true;
                    return;
                }
                _ => {
                    out.extend_from_slice(rest.get(run..at).unwrap_or_default());
                    self.break_line(out);
                    at += 1;
                    run = at;
                }
            }
        }
        out.extend_from_slice(rest.get(run..).unwrap_or_default());
    }

    fn break_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.line_start = true;
        self.after_cr = false;
    }

    /// The message is over: its last line gets a CRLF if it has none, and for DATA the line with the one dot follows.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line_start {
            self.break_line(out);
        }
        if self.framing == Framing::Dots {
            out.extend_from_slice(b".\r\n");
        }
    }
}

#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
