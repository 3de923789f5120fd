//! Replies of a server: RFC 5321 §4.2. A server may say anything; what it can make us hold in memory is bounded.

use memchr::memchr;

use super::input::Input;
use crate::mail::Reply;

/// Lines of one reply.
const MAX_LINES: usize = 100;

/// Why what a server said is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplyFault {
    /// No three-digit code between 200 and 599, or another one than on the line before.
    #[error("malformed reply")]
    Malformed,
    /// A line that does not end.
    #[error("reply line too long")]
    LineTooLong,
    /// A reply that does not end.
    #[error("reply with too many lines")]
    TooManyLines,
}

/// Collects the lines of one reply, over any number of calls.
#[derive(Debug, Default)]
pub(super) struct ReplyParser {
    code: u16,
    lines: Vec<String>,
}

impl ReplyParser {
    /// Takes one whole reply from the input, if one is there. `max_line` counts the CRLF.
    pub(super) fn parse(&mut self, input: &mut Input, max_line: usize) -> Result<Option<Reply>, ReplyFault> {
        loop {
            let data = input.data();
            let Some(lf) = memchr(b'\n', data) else {
                return if data.len() > max_line { Err(ReplyFault::LineTooLong) } else { Ok(None) };
            };
            if lf >= max_line {
                return Err(ReplyFault::LineTooLong);
            }
            // RFC 5321 §2.3.8 wants CRLF. Nothing of ours stands in a reply that could hold a bare LF, so a server that ends its lines
            // with one is only odd.
            let line = data.get(..lf).unwrap_or_default();
            let (code, last, text) = split_line(line.strip_suffix(b"\r").unwrap_or(line))?;
            if !self.lines.is_empty() && self.code != code {
                return Err(ReplyFault::Malformed);
            }
            self.code = code;
            self.lines.push(String::from_utf8_lossy(text).into_owned());
            input.consume(lf + 1);
            if last {
                let lines = std::mem::take(&mut self.lines);
                return Ok(Reply::from_peer(code, lines.iter().map(String::as_str)));
            }
            if self.lines.len() >= MAX_LINES {
                return Err(ReplyFault::TooManyLines);
            }
        }
    }
}

/// Code, whether it is the last line, text.
fn split_line(line: &[u8]) -> Result<(u16, bool, &[u8]), ReplyFault> {
    let (digits, rest) = line.split_at_checked(3).ok_or(ReplyFault::Malformed)?;
    let code = digits.iter().try_fold(0u16, |code, octet| match octet {
        b'0'..=b'9' => Ok(code * 10 + u16::from(octet - b'0')),
        _ => Err(ReplyFault::Malformed),
    })?;
    let (last, text) = match rest.split_first() {
        None => (true, rest),
        Some((b' ', text)) => (true, text),
        Some((b'-', text)) => (false, text),
        Some(_) => return Err(ReplyFault::Malformed),
    };
    if (200..600).contains(&code) { Ok((code, last, text)) } else { Err(ReplyFault::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_in_pieces(wire: &[u8], piece: usize) -> (Vec<String>, Option<ReplyFault>) {
        let (mut parser, mut input, mut replies) = (ReplyParser::default(), Input::new(), Vec::new());
        for chunk in wire.chunks(piece) {
            input.push(chunk);
            loop {
                match parser.parse(&mut input, 60) {
                    Ok(Some(reply)) => replies.push(reply.to_string()),
                    Ok(None) => break,
                    Err(fault) => return (replies, Some(fault)),
                }
            }
        }
        (replies, None)
    }

    #[test]
    fn replies() {
        let endless = "250-x\r\n".repeat(101);
        let long = "250 ".to_owned() + &"x".repeat(60);
        for (wire, replies, fault) in [
            ("220 ready\r\n", vec!["220 ready"], None),
            ("250\r\n", vec!["250 "], None),
            ("250-a\r\n250-b\r\n250 c\r\n354 go\r\n", vec!["250 a b c", "354 go"], None),
            ("550-5.1.1 a\r\n550 5.1.1 b\r\n", vec!["550 5.1.1 a b"], None),
            ("250 lf\n250 again\n", vec!["250 lf", "250 again"], None),
            ("250 \u{fc}\u{1b}[2J\r\n", vec!["250 \u{fc} [2J"], None),
            ("250-a\r\n", vec![], None),
            ("250-a\r\n550 b\r\n", vec![], Some(ReplyFault::Malformed)),
            ("hello\r\n", vec![], Some(ReplyFault::Malformed)),
            ("\r\n", vec![], Some(ReplyFault::Malformed)),
            ("25\r\n", vec![], Some(ReplyFault::Malformed)),
            ("2500 x\r\n", vec![], Some(ReplyFault::Malformed)),
            ("150 x\r\n", vec![], Some(ReplyFault::Malformed)),
            ("600 x\r\n", vec![], Some(ReplyFault::Malformed)),
            (&long, vec![], Some(ReplyFault::LineTooLong)),
            (&endless, vec![], Some(ReplyFault::TooManyLines)),
        ] {
            for piece in [1, 2, 1000] {
                let (parsed, seen) = parse_in_pieces(wire.as_bytes(), piece);
                assert_eq!((parsed, seen), (replies.iter().map(|&text| text.to_owned()).collect(), fault), "{wire:?}");
            }
        }
    }
}
