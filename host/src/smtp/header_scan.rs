//! Where the header section of a message ends, found while the message arrives. The rule is that of `mail::HeaderBlock::parse`.

use memchr::memchr;

use crate::mail::is_field_name;

/// What is known of the header section so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderState {
    /// It may go on.
    Open,
    /// It ends within what has been seen.
    Ended,
    /// It is larger than allowed.
    TooLarge,
}

/// Looks at each line once.
#[derive(Debug)]
pub(super) struct HeaderScan {
    line: usize,
    searched: usize,
    any_field: bool,
    state: HeaderState,
}

enum Kind {
    Field,
    Continuation,
    NoField,
    Unknown,
}

fn kind(line: &[u8]) -> Kind {
    match (line.first(), memchr(b':', line).and_then(|colon| line.get(..colon))) {
        (Some(b' ' | b'\t'), _) => Kind::Continuation,
        (_, Some(name)) if is_field_name(name.trim_ascii_end()) => Kind::Field,
        (_, None) if is_field_name(line.trim_ascii_end()) => Kind::Unknown,
        _ => Kind::NoField,
    }
}

impl HeaderScan {
    pub(super) fn new() -> Self {
        Self { line: 0, searched: 0, any_field: false, state: HeaderState::Open }
    }

    pub(super) fn state(&self) -> HeaderState {
        self.state
    }

    /// Takes the whole content so far, CRLF line ends; it may only have grown since the last call.
    pub(super) fn scan(&mut self, content: &[u8], limit: usize) -> HeaderState {
        while self.state == HeaderState::Open {
            let rest = content.get(self.searched..).unwrap_or_default();
            let Some(lf) = memchr(b'\n', rest).map(|lf| self.searched + lf) else {
                self.searched = content.len();
                self.state = self.open_line(content, limit);
                break;
            };
            let line = content.get(self.line..lf).unwrap_or_default();
            self.line = lf + 1;
            self.searched = self.line;
            self.state = match kind(line.strip_suffix(b"\r").unwrap_or(line)) {
                Kind::Field => {
                    self.any_field = true;
                    self.too_large_beyond(limit)
                }
                Kind::Continuation if self.any_field => self.too_large_beyond(limit),
                _ => HeaderState::Ended,
            };
        }
        self.state
    }

    fn too_large_beyond(&self, limit: usize) -> HeaderState {
        if self.line > limit { HeaderState::TooLarge } else { HeaderState::Open }
    }

    /// A line whose end is not here yet counts only if it will be a field whatever follows.
    fn open_line(&self, content: &[u8], limit: usize) -> HeaderState {
        let line = content.get(self.line..).unwrap_or_default();
        if content.len() <= limit {
            return HeaderState::Open;
        }
        match kind(line) {
            Kind::Field => HeaderState::TooLarge,
            Kind::Continuation if self.any_field => HeaderState::TooLarge,
            Kind::Unknown => HeaderState::Open,
            _ => HeaderState::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::HeaderBlock;

    #[test]
    fn agrees_with_the_parser() {
        for content in [
            "A: 1\r\nB: 2\r\n 3\r\n\r\nbody: x\r\n",
            "\r\nbody\r\n",
            "no field\r\nA: 1\r\n",
            " continuation of nothing\r\n",
            "A : 1\r\n\r\nB: 2\r\n",
            "A: 1\r\nnot a field\r\nB: 2\r\n\r\n",
            "A: 1\r\n:\r\n",
        ] {
            let (_, body) = HeaderBlock::parse(content.as_bytes());
            let mut scan = HeaderScan::new();
            for end in 0..=content.len() {
                let state = scan.scan(&content.as_bytes()[..end], 1000);
                assert!(state != HeaderState::Ended || end >= body, "{content:?} at {end}");
            }
            assert_eq!(scan.state(), HeaderState::Ended, "{content:?}");
        }
    }

    #[test]
    fn limit_does_not_depend_on_the_cut() {
        for (content, state) in [
            ("A: 1\r\nB: 23456\r\n\r\n".to_owned(), HeaderState::TooLarge),
            ("A: 1\r\n\r\nB: 23456\r\n".to_owned(), HeaderState::Ended),
            ("x".repeat(50) + "\r\n", HeaderState::Ended),
            ("x y".repeat(50) + "\r\n", HeaderState::Ended),
            ("x".repeat(50) + ": y\r\n", HeaderState::TooLarge),
            ("A: 1\r\n ".to_owned() + &"x".repeat(50), HeaderState::TooLarge),
        ] {
            let mut whole = HeaderScan::new();
            assert_eq!(whole.scan(content.as_bytes(), 12), state, "{content:?}");
            let mut cut = HeaderScan::new();
            for end in 0..=content.len() {
                cut.scan(&content.as_bytes()[..end], 12);
            }
            assert_eq!(cut.state(), state, "{content:?}");
        }
    }
}
