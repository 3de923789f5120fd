//! Names of DNS, as far as mail needs them. RFC 1035 §2.3.4 (limits), RFC 2181 §11 (what a label may hold).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use hickory_resolver::proto::rr;

/// Octets of a name as text, without the last dot: 255 octets on the wire.
const MAX_NAME: usize = 253;
/// Octets of a label.
const MAX_LABEL: usize = 63;

/// A whole name of DNS, in lower case and without the last dot; the root is `.`. Labels hold printable ASCII without space, `.` and `\`:
/// a name that needs escapes is of no use to mail.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// A text that is no name, or no name that anybody should ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no domain name")]
pub struct NameError;

impl Name {
    /// The name itself; `.` for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the root: as the exchange of an MX record it means that there is no mail (RFC 7505).
    pub fn is_root(&self) -> bool {
        &*self.0 == "."
    }

    /// Where PTR records of an address are: RFC 1035 §3.5, RFC 3596 §2.5.
    pub fn reverse(address: IpAddr) -> Self {
        let mut text = String::with_capacity(72);
        match address.to_canonical() {
            IpAddr::V4(address) => {
                for octet in address.octets().iter().rev() {
                    text.push_str(&octet.to_string());
                    text.push('.');
                }
                text.push_str("in-addr.arpa");
            }
            IpAddr::V6(address) => {
                for octet in address.octets().iter().rev() {
                    for digit in [octet & 15, octet >> 4] {
                        text.extend(char::from_digit(digit.into(), 16));
                        text.push('.');
                    }
                }
                text.push_str("ip6.arpa");
            }
        }
        Self(text.into())
    }

    /// Whether it can be the name of a host, which has letters, digits, `-` and (because many have it) `_`, more than one label, and a
    /// last label that is no number: nobody shall take it for an address.
    pub fn is_host(&self) -> bool {
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        let sound = |label: &str| label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-');
        let last = self.0.rsplit('.').next().unwrap_or_default();
        self.0.contains('.')
            && !self.is_root()
            && self.0.split('.').all(sound)
            && last.contains(|c: char| !c.is_ascii_digit())
    }

    fn from_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Result<Self, NameError> {
        let mut text = String::with_capacity(64);
        for label in labels {
            let sound = (1..=MAX_LABEL).contains(&label.len())
                && label.iter().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'.' | b'\\'));
            if !sound {
                return Err(NameError);
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|octet| char::from(octet.to_ascii_lowercase())));
        }
        if text.is_empty() {
            text.push('.');
        }
        if text.len() <= MAX_NAME { Ok(Self(text.into())) } else { Err(NameError) }
    }

    /// What an answer holds.
    pub(super) fn from_wire(name: &rr::Name) -> Result<Self, NameError> {
        Self::from_labels(name.iter())
    }

    /// For a question.
    pub(super) fn to_wire(&self) -> Result<rr::Name, NameError> {
        let labels = self.0.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
        let mut name = rr::Name::from_labels(labels).map_err(|_| NameError)?;
        name.set_fqdn(true); // so that nothing is ever appended to it
        Ok(name)
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// One dot at the end is fine. Letters beyond ASCII become what IDNA makes of them (RFC 5891).
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_ascii() {
            let name = text.strip_suffix('.').unwrap_or(text);
            return Self::from_labels(name.split('.').map(str::as_bytes));
        }
        if text.len() > MAX_NAME * 4 || text.contains('\\') {
            return Err(NameError);
        }
        Self::from_wire(&rr::Name::from_utf8(text).map_err(|_| NameError)?)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names() {
        for (text, name) in [
            ("Example.ORG.", "example.org"),
            ("_25._tcp.mx.example", "_25._tcp.mx.example"),
            ("0/25.2.0.192.in-addr.arpa", "0/25.2.0.192.in-addr.arpa"),
            ("com", "com"),
            ("bücher.example", "xn--bcher-kva.example"),
        ] {
            let parsed: Name = text.parse().unwrap();
            assert_eq!(parsed.as_str(), name);
            assert_eq!(Name::from_wire(&parsed.to_wire().unwrap()), Ok(parsed));
        }
        let long = "a".repeat(64) + ".example";
        let many = "a.".repeat(126) + "aa";
        for text in ["", ".", "..", "a..b", ".a", "a b", "a\\.b", "a\nb", "a\0b", &long, &many, "\u{202e}", "é\\046x"]
        {
            assert_eq!(text.parse::<Name>(), Err(NameError), "{text:?}");
        }
        assert!(("a.".repeat(126) + "a").parse::<Name>().is_ok());
    }

    #[test]
    fn addresses() {
        let reverse = |address: &str| Name::reverse(address.parse().unwrap()).to_string();
        assert_eq!(reverse("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        assert_eq!(reverse("::ffff:192.0.2.1"), "1.2.0.192.in-addr.arpa");
        assert_eq!(
            reverse("2001:db8::1234"),
            "4.3.2.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }

    #[test]
    fn hosts() {
        let host = |name: &str| name.parse::<Name>().unwrap().is_host();
        assert!(host("mx.example") && host("a_b.example") && host("3com.1x"));
        for name in ["localhost", "192.0.2.1", "a.-b.c", "(x).example", "a,b.example", "x.5"] {
            assert!(!host(name), "{name}");
        }
        assert!(!Name::from_wire(&rr::Name::root()).unwrap().is_host());
    }
}
