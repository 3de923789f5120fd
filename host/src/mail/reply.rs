//! Replies: RFC 5321 §4.2, with the enhanced status codes of RFC 3463 and RFC 2034.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Octets of text on one reply line: 512 less code, enhanced status, separators and CRLF (RFC 5321 §4.5.3.1.5).
const MAX_TEXT: usize = 480;
/// Lines of one reply. Nobody reads more.
const MAX_LINES: usize = 100;

/// Why a text or a code is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The code is not one of 200–299, 400–599 (354 is the server's own).
    #[error("reply code {0} is not in 200-299 or 400-599")]
    Code(u16),
    /// An enhanced status whose class is not the first digit of the code.
    #[error("enhanced status {1} does not belong to reply code {0}")]
    Class(u16, EnhancedStatus),
    /// CR, LF or another control character in the text.
    #[error("reply text holds a control character")]
    Control,
    /// More lines or octets than a reply may have.
    #[error("reply text is too long")]
    TooLong,
    /// Not of the form `D.DDD.DDD`.
    #[error("malformed enhanced status code")]
    EnhancedStatus,
}

/// Whether a reply is success, a passing failure or a lasting one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReplyClass {
    /// 2yz and 3yz.
    Positive,
    /// 4yz: try again later.
    Transient,
    /// 5yz: do not try again.
    Permanent,
}

/// `class.subject.detail`, RFC 3463.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnhancedStatus {
    class: u8,
    subject: u16,
    detail: u16,
}

impl EnhancedStatus {
    /// None unless class is 2, 4 or 5 and the others have at most three digits.
    pub fn new(class: u8, subject: u16, detail: u16) -> Option<Self> {
        (matches!(class, 2 | 4 | 5) && subject <= 999 && detail <= 999).then_some(Self { class, subject, detail })
    }
    /// 2, 4 or 5.
    pub fn class(self) -> u8 {
        self.class
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl FromStr for EnhancedStatus {
    type Err = ReplyError;
    fn from_str(text: &str) -> Result<Self, ReplyError> {
        let mut parts = text.split('.').map(|part| {
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit());
            if digits { part.parse::<u16>().ok() } else { None }
        });
        let status = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(class)), Some(Some(subject)), Some(Some(detail)), None) => {
                u8::try_from(class).ok().and_then(|class| Self::new(class, subject, detail))
            }
            _ => None,
        };
        status.ok_or(ReplyError::EnhancedStatus)
    }
}

/// One line of text that cannot end the line it stands on: no control character, so nobody can forge a reply with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplyText(Box<str>);

impl ReplyText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whatever of a foreign text can stand in a reply: control characters become spaces, the rest is cut.
    pub fn lossy(text: &str) -> Self {
        let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if clean.len() > MAX_TEXT {
            clean.truncate(clean.floor_char_boundary(MAX_TEXT));
        }
        Self(clean.into())
    }
}

impl FromStr for ReplyText {
    type Err = ReplyError;
    fn from_str(text: &str) -> Result<Self, ReplyError> {
        if text.chars().any(char::is_control) {
            Err(ReplyError::Control)
        } else if text.len() > MAX_TEXT {
            Err(ReplyError::TooLong)
        } else {
            Ok(Self(text.into()))
        }
    }
}
impl TryFrom<String> for ReplyText {
    type Error = ReplyError;
    fn try_from(text: String) -> Result<Self, ReplyError> {
        text.parse()
    }
}
impl From<ReplyText> for String {
    fn from(text: ReplyText) -> Self {
        text.0.into()
    }
}
impl fmt::Display for ReplyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A whole reply. Its class cannot disagree with its enhanced status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    code: u16,
    enhanced: Option<EnhancedStatus>,
    lines: Vec<ReplyText>,
}

impl Reply {
    /// From parts that somebody else chose, a plugin or a peer. `text` may hold several lines, parted by LF or CRLF.
    pub fn try_new(code: u16, enhanced: Option<EnhancedStatus>, text: &str) -> Result<Self, ReplyError> {
        if !matches!(code, 200..=299 | 400..=599) {
            return Err(ReplyError::Code(code));
        }
        if let Some(status) = enhanced.filter(|status| u16::from(status.class) != code / 100) {
            return Err(ReplyError::Class(code, status));
        }
        let lines = text.lines().take(MAX_LINES + 1).map(str::parse).collect::<Result<Vec<ReplyText>, _>>()?;
        if lines.len() > MAX_LINES {
            return Err(ReplyError::TooLong);
        }
        Ok(Self { code, enhanced, lines })
    }

    /// A success: `Reply::positive(250, (1, 5), "Ok")` is `250 2.1.5 Ok`.
    pub fn positive(code: u16, status: (u16, u16), text: impl AsRef<str>) -> Self {
        debug_assert!((200..300).contains(&code));
        Self::of_class(code, 2, status, text.as_ref())
    }

    /// A passing failure: `Reply::transient(451, (3, 0), "…")` is `451 4.3.0 …`.
    pub fn transient(code: u16, status: (u16, u16), text: impl AsRef<str>) -> Self {
        debug_assert!((400..500).contains(&code));
        Self::of_class(code, 4, status, text.as_ref())
    }

    /// A lasting failure: `Reply::permanent(550, (7, 1), "…")` is `550 5.7.1 …`.
    pub fn permanent(code: u16, status: (u16, u16), text: impl AsRef<str>) -> Self {
        debug_assert!((500..600).contains(&code));
        Self::of_class(code, 5, status, text.as_ref())
    }

    /// A reply that by its nature has no enhanced status: greeting, EHLO, 354 (RFC 2034 §4).
    pub fn plain(code: u16, text: impl AsRef<str>) -> Self {
        Self { code, enhanced: None, lines: text.as_ref().lines().take(MAX_LINES).map(ReplyText::lossy).collect() }
    }

    /// What a peer said, for logs, bounces and the client that waits for it: each line as far as it can stand in a reply of ours. An
    /// enhanced status at the head of the lines is taken from there if it belongs to the code. None unless the code is in 200–599.
    pub fn from_peer<'a>(code: u16, lines: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        if !matches!(code, 200..=599) {
            return None;
        }
        let mut enhanced = None;
        let mut kept = Vec::new();
        for line in lines.into_iter().take(MAX_LINES) {
            let (head, tail) = line.split_once(' ').unwrap_or((line, ""));
            let status = head.parse().ok().filter(|status: &EnhancedStatus| u16::from(status.class()) == code / 100);
            if kept.is_empty() {
                enhanced = status;
            }
            let text = if status.is_some() && status == enhanced { tail } else { line };
            kept.push(ReplyText::lossy(text));
        }
        Some(Self { code, enhanced, lines: kept })
    }

    fn of_class(code: u16, class: u8, (subject, detail): (u16, u16), text: &str) -> Self {
        let enhanced = EnhancedStatus::new(class, subject, detail);
        Self { enhanced, ..Self::plain(code, text) }
    }

    /// The three-digit code.
    pub fn code(&self) -> u16 {
        self.code
    }
    /// The enhanced status, if it has one.
    pub fn enhanced(&self) -> Option<EnhancedStatus> {
        self.enhanced
    }
    /// Success, passing or lasting failure.
    pub fn class(&self) -> ReplyClass {
        match self.code {
            ..400 => ReplyClass::Positive,
            400..500 => ReplyClass::Transient,
            _ => ReplyClass::Permanent,
        }
    }
    /// The lines of text.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(ReplyText::as_str)
    }

    /// As it goes over the wire, CRLF included.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        use std::io::Write as _;
        let last = self.lines.len().saturating_sub(1);
        let mut line = |index: usize, text: &str| {
            let separator = if index == last { ' ' } else { '-' };
            // Writing to a Vec cannot fail.
            let _ = match self.enhanced {
                Some(status) => write!(out, "{}{separator}{status} {text}\r\n", self.code),
                None => write!(out, "{}{separator}{text}\r\n", self.code),
            };
        };
        if self.lines.is_empty() {
            line(0, "");
        }
        for (index, text) in self.lines.iter().enumerate() {
            line(index, text.as_str());
        }
    }
}

/// On one line, for logs and DSNs.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.enhanced {
            write!(f, " {status}")?;
        }
        for line in &self.lines {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form() {
        let mut out = Vec::new();
        Reply::permanent(550, (1, 1), "no such user\nask postmaster").write_to(&mut out);
        assert_eq!(out, b"550-5.1.1 no such user\r\n550 5.1.1 ask postmaster\r\n");
        out.clear();
        Reply::plain(250, "").write_to(&mut out);
        assert_eq!(out, b"250 \r\n");
    }

    #[test]
    fn what_peers_say() {
        for (code, lines, expected) in [
            (550, vec!["5.1.1 no such user", "5.1.1 ask postmaster"], "550 5.1.1 no such user ask postmaster"),
            (550, vec!["5.1.1 no", "5.7.1 never"], "550 5.1.1 no 5.7.1 never"),
            (450, vec!["5.1.1 no such user"], "450 5.1.1 no such user"),
            (354, vec!["go on"], "354 go on"),
            (250, vec!["2.0.0"], "250 2.0.0 "),
            (250, vec!["a\rb\0c"], "250 a b c"),
            (250, vec![], "250"),
        ] {
            assert_eq!(Reply::from_peer(code, lines).map(|reply| reply.to_string()).as_deref(), Some(expected));
        }
        assert_eq!(Reply::from_peer(199, ["x"]), None);
        assert_eq!(Reply::from_peer(600, ["x"]), None);
    }

    #[test]
    fn no_forged_reply() {
        assert_eq!(Reply::try_new(550, None, "a\r250 ok"), Err(ReplyError::Control));
        assert_eq!(Reply::try_new(354, None, "go"), Err(ReplyError::Code(354)));
        let status = "4.7.1".parse().expect("well-formed");
        assert_eq!(Reply::try_new(550, Some(status), "x"), Err(ReplyError::Class(550, status)));
        assert!("5.7.1000".parse::<EnhancedStatus>().is_err());
        assert!("3.7.1".parse::<EnhancedStatus>().is_err());
    }
}
