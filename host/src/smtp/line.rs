//! Where a command line ends: at CRLF, and nowhere else. RFC 5321 §2.3.8.

use memchr::{memchr, memchr2};

/// What stands at the head of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// No whole line yet.
    Incomplete,
    /// A line of so many octets, and two more for its CRLF.
    Whole(usize),
    /// A line that ends, but holds a bare CR or a NUL; with its CRLF it has so many octets.
    Malformed(usize),
    /// A bare LF after so many octets, itself included. The line goes on to the next CRLF.
    BareLf(usize),
    /// More octets than a line may have, and no end yet.
    TooLong,
}

/// Cuts one line off the head of `data`. `limit` counts the CRLF (RFC 5321 §4.5.3.1.4).
pub(super) fn first_line(data: &[u8], limit: usize) -> Line {
    let Some(lf) = memchr(b'\n', data) else {
        return if data.len() > limit { Line::TooLong } else { Line::Incomplete };
    };
    if lf >= limit {
        return Line::TooLong;
    }
    match data.get(..lf).and_then(|line| line.strip_suffix(b"\r")) {
        None => Line::BareLf(lf + 1),
        Some(text) if memchr2(b'\r', 0, text).is_some() => Line::Malformed(lf + 1),
        Some(text) => Line::Whole(text.len()),
    }
}

/// Skips the rest of a line that was refused, over as many inputs as it takes.
#[derive(Debug, Default)]
pub(super) struct Skip {
    after_cr: bool,
    skipped: usize,
}

impl Skip {
    /// How many octets of `data` belong to the line, and whether its CRLF is among them.
    pub(super) fn skip(&mut self, data: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while let Some(lf) = data.get(at..).and_then(|rest| memchr(b'\n', rest)).map(|lf| at + lf) {
            let before = if lf == 0 { self.after_cr } else { data.get(lf - 1) == Some(&b'\r') };
            at = lf + 1;
            if before {
                self.skipped += at;
                return (at, true);
            }
        }
        if let Some(last) = data.last() {
            self.after_cr = *last == b'\r';
        }
        self.skipped += data.len();
        (data.len(), false)
    }

    /// Octets skipped so far.
    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (data, line) in [
            (&b""[..], Line::Incomplete),
            (b"NOOP", Line::Incomplete),
            (b"NOOP\r", Line::Incomplete),
            (b"NOOP\r\n", Line::Whole(4)),
            (b"\r\n", Line::Whole(0)),
            (b"NOOP\r\nQUIT\r\n", Line::Whole(4)),
            (b"NOOP\n", Line::BareLf(5)),
            (b"NO\nOP\r\n", Line::BareLf(3)),
            (b"\n", Line::BareLf(1)),
            (b"NO\rOP\r\n", Line::Malformed(7)),
            (b"NOOP\r\r\n", Line::Malformed(7)),
            (b"NO\0P\r\n", Line::Malformed(6)),
            (b"12345678\r\n", Line::Whole(8)),
            (b"123456789\r\n", Line::TooLong),
            (b"1234567890", Line::Incomplete),
            (b"12345678901", Line::TooLong),
            (b"12345678901\n", Line::TooLong),
        ] {
            assert_eq!(first_line(data, 10), line, "{data:?}");
        }
    }

    #[test]
    fn skipping_ends_at_crlf_alone() {
        for (pieces, rest) in [
            (vec!["abc\r\nrest"], "rest"),
            (vec!["abc", "\r", "\nrest"], "rest"),
            (vec!["abc\n", "\n\r", "\r", "\nrest"], "rest"),
            (vec!["\r", "x\n\r\nrest"], "rest"),
        ] {
            let mut skip = Skip::default();
            for (at, piece) in pieces.iter().enumerate() {
                let (n, ended) = skip.skip(piece.as_bytes());
                assert_eq!(ended, at + 1 == pieces.len(), "{pieces:?}");
                if ended {
                    assert_eq!(&piece[n..], rest);
                    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
                    assert_eq!(skip.skipped(), total - rest.len());
                }
            }
        }
    }
}
