//! Mail addresses: RFC 5321 §4.1.2 (syntax), §4.1.3 (address literals), RFC 6531 §3.3 (UTF-8).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Octets of a local part. RFC 5321 §4.5.3.1.1 makes 64 the least that must be taken; VERP and SRS addresses in use are longer.
const MAX_LOCAL_PART: usize = 256;
/// Octets of a domain, RFC 5321 §4.5.3.1.2.
const MAX_DOMAIN: usize = 255;
/// Octets of a label, RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@`, or nothing on one side of it.
    #[error("an address needs a local part, an @ and a domain")]
    Incomplete,
    /// The local part is neither a dot-string nor a quoted string.
    #[error("malformed local part")]
    LocalPart,
    /// The domain is neither a host name nor an address literal.
    #[error("malformed domain")]
    Domain,
    /// Longer than this system takes.
    #[error("address too long")]
    TooLong,
    /// Octets above 127 that are not UTF-8.
    #[error("address is not valid UTF-8")]
    Encoding,
}

/// Whether there is a control character or a line separator in it. RFC 6531 §3.3 speaks of octets above 127 without exception, but U+0085,
/// U+009B and the like mean something to terminals and to whoever splits logs and headers into lines.
fn breaks_lines(text: &str) -> bool {
    !text.is_ascii() && text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// A domain name as it was written; compared without regard to ASCII case (RFC 5321 §2.3.5).
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Box<str>);

impl Domain {
    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in lower case, for use as a key.
    pub fn to_lowercase(&self) -> String {
        self.0.to_lowercase()
    }

    /// Whether it has at least two labels; `localhost` has one.
    pub fn is_fully_qualified(&self) -> bool {
        self.0.contains('.')
    }

    /// Whether any octet is outside ASCII, so that SMTPUTF8 or an A-label is needed to send it.
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }
}

fn is_domain_octet(octet: u8) -> bool {
    // `_` is no host name character, but names in use have it and nothing is endangered by it.
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_') || octet >= 0x80
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_DOMAIN {
            return Err(AddressError::TooLong);
        }
        let name = text.strip_suffix('.').unwrap_or(text); // an absolute name means the same
        let well_formed = !breaks_lines(name)
            && name.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= MAX_LABEL
                    && label.bytes().all(is_domain_octet)
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            });
        if well_formed { Ok(Self(name.into())) } else { Err(AddressError::Domain) }
    }
}

impl TryFrom<String> for Domain {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0.into()
    }
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}
impl Eq for Domain {}

impl Hash for Domain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for octet in self.0.bytes() {
            state.write_u8(octet.to_ascii_lowercase());
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands right of the `@`, or in EHLO: a name or an address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A domain name.
    Domain(Domain),
    /// An address literal, RFC 5321 §4.1.3.
    Literal(IpAddr),
}

impl Host {
    /// The domain, if it is not an address literal.
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Domain(domain) => Some(domain),
            Self::Literal(_) => None,
        }
    }
}

impl FromStr for Host {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some(inner) = text.strip_prefix('[') else {
            return text.parse().map(Self::Domain);
        };
        let inner = inner.strip_suffix(']').ok_or(AddressError::Domain)?;
        let is_v6 = inner.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let address = match inner.get(5..) {
            Some(v6) if is_v6 => v6.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
            _ => inner.parse().map(IpAddr::V4).ok(),
        };
        address.map(Self::Literal).ok_or(AddressError::Domain)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Literal(IpAddr::V4(v4)) => write!(f, "[{v4}]"),
            Self::Literal(IpAddr::V6(v6)) => write!(f, "[IPv6:{v6}]"),
        }
    }
}

/// What stands left of the `@`, with its quotes if it has them. Case is kept and counts (RFC 5321 §2.4).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LocalPart(Box<str>);

impl LocalPart {
    /// As it was written, quotes included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the quoting stands for: `"a\ b"` is `a b`.
    pub fn unquoted(&self) -> String {
        match self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            None => self.0.to_string(),
            Some(inner) => {
                let mut text = String::with_capacity(inner.len());
                let mut chars = inner.chars();
                while let Some(c) = chars.next() {
                    text.extend(if c == '\\' { chars.next() } else { Some(c) });
                }
                text
            }
        }
    }
}

fn is_atext(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&octet)
}

impl FromStr for LocalPart {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_LOCAL_PART {
            return Err(AddressError::TooLong);
        }
        let well_formed = match text.strip_prefix('"') {
            Some(rest) => quoted_string_end(rest.as_bytes()) == Some(rest.len()),
            None => text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext)),
        };
        if well_formed && !breaks_lines(text) { Ok(Self(text.into())) } else { Err(AddressError::LocalPart) }
    }
}

/// Where a quoted string ends, just past the closing quote; `rest` begins after the opening one.
fn quoted_string_end(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(&octet) = rest.get(at) {
        match octet {
            b'"' => return Some(at + 1),
            b'\\' => {
                rest.get(at + 1).filter(|octet| (32..127).contains(*octet))?;
                at += 2;
            }
            32..=126 | 0x80.. => at += 1,
            _ => return None,
        }
    }
    None
}

/// `local-part@host`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mailbox {
    local_part: LocalPart,
    host: Host,
}

impl Mailbox {
    /// From its two halves.
    pub fn new(local_part: LocalPart, host: Host) -> Self {
        Self { local_part, host }
    }
    /// What stands left of the `@`.
    pub fn local_part(&self) -> &LocalPart {
        &self.local_part
    }
    /// What stands right of the `@`.
    pub fn host(&self) -> &Host {
        &self.host
    }
    /// The domain, if the right side is not an address literal.
    pub fn domain(&self) -> Option<&Domain> {
        self.host.domain()
    }
    /// Whether it can be sent without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.local_part.0.is_ascii() && self.host.domain().is_none_or(Domain::is_ascii)
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let at = match text.strip_prefix('"') {
            Some(rest) => 1 + quoted_string_end(rest.as_bytes()).ok_or(AddressError::LocalPart)?,
            None => text.find('@').ok_or(AddressError::Incomplete)?,
        };
        let (local, rest) = text.split_at_checked(at).ok_or(AddressError::Incomplete)?;
        let host = rest.strip_prefix('@').ok_or(AddressError::Incomplete)?;
        if local.is_empty() || host.is_empty() {
            return Err(AddressError::Incomplete);
        }
        Ok(Self { local_part: local.parse()?, host: host.parse()? })
    }
}

impl TryFrom<String> for Mailbox {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Mailbox> for String {
    fn from(mailbox: Mailbox) -> Self {
        mailbox.to_string()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part.as_str(), self.host)
    }
}
impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where bounces go: the argument of MAIL, RFC 5321 §4.1.1.2. Displayed without its angle brackets; the null path is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ReversePath {
    /// `<>`: the mail is itself a notification and must never be bounced.
    Null,
    /// A mailbox.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, unless the path is null.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

impl FromStr for ReversePath {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() { Ok(Self::Null) } else { text.parse().map(Self::Mailbox) }
    }
}
impl TryFrom<String> for ReversePath {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}
impl From<ReversePath> for String {
    fn from(path: ReversePath) -> Self {
        path.to_string()
    }
}
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// Where mail goes: the argument of RCPT, RFC 5321 §4.1.1.3. Displayed without its angle brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain, which every server must take (RFC 5321 §4.5.1).
    Postmaster,
    /// A mailbox.
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// The mailbox, unless it is the bare postmaster.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

impl FromStr for ForwardPath {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.eq_ignore_ascii_case("postmaster") { Ok(Self::Postmaster) } else { text.parse().map(Self::Mailbox) }
    }
}
impl TryFrom<String> for ForwardPath {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}
impl From<ForwardPath> for String {
    fn from(path: ForwardPath) -> Self {
        path.to_string()
    }
}
impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_breaks_a_line() {
        for address in ["a\u{85}@b.example", "a\u{9b}31m@b.example", "a\u{2028}@b.example", "\"a\u{2029}\"@b.example"] {
            assert_eq!(address.parse::<Mailbox>(), Err(AddressError::LocalPart), "{address:?}");
        }
        for address in ["a@b\u{85}.example", "a@\u{9f}.example"] {
            assert_eq!(address.parse::<Mailbox>(), Err(AddressError::Domain), "{address:?}");
        }
        assert!("\u{e4}@\u{f6}.example".parse::<Mailbox>().is_ok());
    }

    #[test]
    fn mailboxes() {
        for good in [
            "a@b.example",
            "a.b+c@example.test",
            "\"a b\"@example.test",
            "\"a\\\"@b\"@example.test",
            "user@[127.0.0.1]",
            "user@[IPv6:::1]",
            "grüße@bücher.example",
            "x@localhost",
        ] {
            assert_eq!(good.parse::<Mailbox>().map(|m| m.to_string()), Ok(good.to_string()));
        }
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@@b",
            "a..b@c",
            ".a@b",
            "a.@b",
            "a b@c",
            "a@b c",
            "a@-b",
            "a@b-.c",
            "a@b..c",
            "a\r\n@b",
            "a@b\r\n",
            "\"a@b",
            "\"a\"b@c",
            "a@[1.2.3]",
            "a@[IPv6:1]",
            "a@b@c",
            "a\0@b",
            "<a@b>",
        ] {
            assert!(bad.parse::<Mailbox>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!("".parse(), Ok(ReversePath::Null));
        assert_eq!("PostMaster".parse(), Ok(ForwardPath::Postmaster));
        assert!("".parse::<ForwardPath>().is_err());
    }

    #[test]
    fn domains_compare_without_case() {
        assert_eq!("Example.TEST".parse::<Domain>(), "example.test.".parse());
    }

    #[test]
    fn unquoting() {
        let mailbox: Mailbox = "\"a \\\"b\"@c".parse().expect("well-formed");
        assert_eq!(mailbox.local_part().unquoted(), "a \"b");
    }
}
