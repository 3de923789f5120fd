//! What a server offers: its reply to EHLO, RFC 5321 §4.1.1.1.

use crate::mail::Reply;

/// The extensions of a server, as far as they matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870: offered, and the largest message; 0 is no limit.
    pub size: Option<u64>,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 3207.
    pub starttls: bool,
}

impl From<&Reply> for Capabilities {
    /// Reads the reply to EHLO; the first line is only a greeting.
    fn from(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in reply.lines().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default();
            let is = |name: &str| keyword.eq_ignore_ascii_case(name);
            if is("SIZE") {
                offered.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0));
            }
            offered.pipelining |= is("PIPELINING");
            offered.eight_bit_mime |= is("8BITMIME");
            offered.smtputf8 |= is("SMTPUTF8");
            offered.dsn |= is("DSN");
            offered.chunking |= is("CHUNKING");
            offered.starttls |= is("STARTTLS");
        }
        offered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords() {
        let read = |lines: &[&str]| Capabilities::from(&Reply::from_peer(250, lines.iter().copied()).expect("a code"));
        let all =
            read(&["DSN", "pipelining", "Size 1000", "8BITMIME", "SMTPUTF8", "CHUNKING", "STARTTLS", "AUTH PLAIN"]);
        let expected = Capabilities {
            pipelining: true,
            size: Some(1000),
            eight_bit_mime: true,
            smtputf8: true,
            dsn: false,
            chunking: true,
            starttls: true,
        };
        assert_eq!(all, expected, "the first line is the host's name");
        assert_eq!(read(&["x", "SIZE"]).size, Some(0));
        assert_eq!(read(&["x", "SIZE many"]).size, Some(0));
        assert_eq!(read(&[]), Capabilities::default());
    }
}
