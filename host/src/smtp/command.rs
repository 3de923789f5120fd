//! Command lines: RFC 5321 §4.1.1, RFC 3030 (BDAT). Parsed in two steps, verb first: whether a command is in order is decided before its
//! arguments are looked at.

use super::config::Config;
use crate::mail::{AddressError, Domain, ForwardPath, ReversePath};

/// Octets of an EHLO argument: a domain, RFC 5321 §4.5.3.1.2.
const MAX_HELO: usize = 255;

/// A command with what follows its verb, white space at both ends removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command<'a> {
    pub(super) verb: Verb,
    pub(super) arguments: &'a [u8],
}

/// Verbs that mean something to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Ehlo,
    Helo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
    /// Known to RFCs, but not to this server (yet): 502, RFC 5321 §4.2.4.
    NotImplemented,
    /// A browser speaks: RFC 5321 knows no such verb, and every line it sends would be one more error.
    Http,
    Unknown,
}

const VERBS: [(&str, Verb); 22] = [
    ("EHLO", Verb::Ehlo),
    ("HELO", Verb::Helo),
    ("MAIL", Verb::Mail),
    ("RCPT", Verb::Rcpt),
    ("DATA", Verb::Data),
    ("BDAT", Verb::Bdat),
    ("RSET", Verb::Rset),
    ("NOOP", Verb::Noop),
    ("VRFY", Verb::Vrfy),
    ("EXPN", Verb::Expn),
    ("HELP", Verb::Help),
    ("QUIT", Verb::Quit),
    ("STARTTLS", Verb::NotImplemented),
    ("AUTH", Verb::NotImplemented),
    ("ETRN", Verb::NotImplemented),
    ("TURN", Verb::NotImplemented),
    ("SEND", Verb::NotImplemented),
    ("SOML", Verb::NotImplemented),
    ("SAML", Verb::NotImplemented),
    ("GET", Verb::Http),
    ("POST", Verb::Http),
    ("CONNECT", Verb::Http),
];

/// Cuts a line (without its CRLF) into verb and arguments.
pub(super) fn parse(line: &[u8]) -> Command<'_> {
    let line = line.trim_ascii_end(); // RFC 5321 §4.1.1: white space before the CRLF should be tolerated
    let end = memchr::memchr2(b' ', b'\t', line).unwrap_or(line.len());
    let (verb, arguments) = line.split_at_checked(end).unwrap_or((line, b""));
    let known = VERBS.iter().find(|(name, _)| verb.eq_ignore_ascii_case(name.as_bytes()));
    Command { verb: known.map_or(Verb::Unknown, |(_, verb)| *verb), arguments: arguments.trim_ascii_start() }
}

/// As much of a line as a log may hold: what follows AUTH may be a password.
pub(super) fn fit_for_log(line: &[u8]) -> &[u8] {
    let secret = line.get(..4).filter(|verb| verb.eq_ignore_ascii_case(b"AUTH"));
    secret.unwrap_or(line)
}

/// Why an argument is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArgumentError {
    /// Not of the command's form.
    Syntax,
    /// The form is right, the address within is not.
    Address,
    /// Octets above 127 where SMTPUTF8 was not asked for.
    NotAscii,
}

impl From<AddressError> for ArgumentError {
    fn from(_: AddressError) -> Self {
        Self::Address
    }
}

/// The name that a client gives itself. RFC 5321 §4.1.4: it must not be refused for being wrong, so what can stand in a header and a
/// log is taken; RFC 6531 §3.7.1 keeps it ASCII.
pub(super) fn parse_helo(arguments: &[u8]) -> Result<&str, ArgumentError> {
    let sound = !arguments.is_empty() && arguments.len() <= MAX_HELO && arguments.iter().all(u8::is_ascii_graphic);
    if sound { str::from_utf8(arguments).map_err(|_| ArgumentError::Syntax) } else { Err(ArgumentError::Syntax) }
}

/// `FROM:<path> parameters` or `TO:<path> parameters`: the octets between the angle brackets and what follows them.
pub(super) fn split_path<'a>(
    arguments: &'a [u8],
    keyword: &str,
    config: &Config,
) -> Result<(&'a [u8], &'a str), ArgumentError> {
    let (head, rest) = arguments.split_at_checked(keyword.len()).ok_or(ArgumentError::Syntax)?;
    if !head.eq_ignore_ascii_case(keyword.as_bytes()) {
        return Err(ArgumentError::Syntax);
    }
    let rest = if config.allow_space_after_colon { rest.trim_ascii_start() } else { rest };
    let inside = rest.strip_prefix(b"<").ok_or(ArgumentError::Syntax)?;
    let end = path_end(inside).ok_or(ArgumentError::Syntax)?;
    let path = inside.get(..end).ok_or(ArgumentError::Syntax)?;
    let parameters = inside.get(end + 1..).unwrap_or_default();
    if parameters.first().is_some_and(|octet| *octet != b' ') {
        return Err(ArgumentError::Syntax);
    }
    Ok((path, str::from_utf8(parameters).map_err(|_| ArgumentError::Syntax)?))
}

/// Where the `>` is that no quoting hides.
fn path_end(inside: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut octets = inside.iter().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'>' if !quoted => return Some(at),
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                octets.next();
            }
            _ => {}
        }
    }
    None
}

/// The mailbox of a path as text: UTF-8 only where it was asked for, its source route removed.
fn mailbox_text(path: &[u8], smtputf8: bool) -> Result<&str, ArgumentError> {
    if !smtputf8 && !path.is_ascii() {
        return Err(ArgumentError::NotAscii);
    }
    let text = str::from_utf8(path).map_err(|_| ArgumentError::Address)?;
    if !text.starts_with('@') {
        return Ok(text);
    }
    // RFC 5321 §4.1.1.3 and appendix C: a source route must be accepted and should be ignored.
    let (route, mailbox) = text.split_once(':').ok_or(ArgumentError::Address)?;
    for hop in route.split(',') {
        hop.strip_prefix('@').ok_or(ArgumentError::Address)?.parse::<Domain>()?;
    }
    Ok(mailbox)
}

/// What stands between the angle brackets of MAIL.
pub(super) fn parse_reverse_path(path: &[u8], smtputf8: bool) -> Result<ReversePath, ArgumentError> {
    let text = mailbox_text(path, smtputf8)?;
    if text.is_empty() && !path.is_empty() {
        return Err(ArgumentError::Address); // `<@relay.example:>`
    }
    Ok(text.parse()?)
}

/// What stands between the angle brackets of RCPT.
pub(super) fn parse_forward_path(path: &[u8], smtputf8: bool) -> Result<ForwardPath, ArgumentError> {
    Ok(mailbox_text(path, smtputf8)?.parse()?)
}

/// The size of a chunk and whether it is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkHead {
    /// `BDAT n` or `BDAT n LAST`.
    Sound { size: u64, last: bool },
    /// The size can be read, what follows it cannot: the octets must be skipped all the same.
    BadTail { size: u64 },
    /// Nobody knows how many octets follow.
    BadSize,
}

/// Arguments of BDAT, RFC 3030 §2.
pub(super) fn parse_bdat(arguments: &[u8]) -> ChunkHead {
    let text = str::from_utf8(arguments).unwrap_or_default();
    let (size, tail) = text.split_once(' ').unwrap_or((text, ""));
    let digits = !size.is_empty() && size.bytes().all(|octet| octet.is_ascii_digit());
    match (size.parse(), tail.trim_ascii_start()) {
        (Ok(size), "") if digits => ChunkHead::Sound { size, last: false },
        (Ok(size), tail) if digits && tail.eq_ignore_ascii_case("LAST") => ChunkHead::Sound { size, last: true },
        (Ok(size), _) if digits => ChunkHead::BadTail { size },
        _ => ChunkHead::BadSize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs() {
        for (line, verb, arguments) in [
            (&b"EHLO a.example"[..], Verb::Ehlo, &b"a.example"[..]),
            (b"ehlo  a.example \t", Verb::Ehlo, b"a.example"),
            (b"QUIT", Verb::Quit, b""),
            (b"qUiT ", Verb::Quit, b""),
            (b"MAIL FROM:<>", Verb::Mail, b"FROM:<>"),
            (b"", Verb::Unknown, b""),
            (b" QUIT", Verb::Unknown, b"QUIT"),
            (b"QUITE", Verb::Unknown, b""),
            (b"\xff\xfe", Verb::Unknown, b""),
            (b"GET / HTTP/1.1", Verb::Http, b"/ HTTP/1.1"),
            (b"STARTTLS", Verb::NotImplemented, b""),
        ] {
            assert_eq!(parse(line), Command { verb, arguments }, "{line:?}");
        }
    }

    #[test]
    fn paths() {
        let config = Config::default();
        for (arguments, path, parameters) in [
            ("FROM:<>", "", ""),
            ("from:<a@b.example> SIZE=1", "a@b.example", " SIZE=1"),
            ("FROM: <a@b.example>", "a@b.example", ""),
            (r#"FROM:<"a>b"@c.example> X"#, r#""a>b"@c.example"#, " X"),
            (r#"FROM:<"a\">b"@c.example>"#, r#""a\">b"@c.example"#, ""),
        ] {
            assert_eq!(
                split_path(arguments.as_bytes(), "FROM:", &config),
                Ok((path.as_bytes(), parameters)),
                "{arguments}"
            );
        }
        for arguments in [
            "",
            "FROM",
            "FROM:",
            "FROM:a@b.example",
            "FROM:<a@b.example",
            "FROM:<a@b.example>SIZE=1",
            "TO:<a@b.example>",
            "FROM :<>",
        ] {
            assert_eq!(split_path(arguments.as_bytes(), "FROM:", &config), Err(ArgumentError::Syntax), "{arguments}");
        }
        let strict = Config { allow_space_after_colon: false, ..Config::default() };
        assert_eq!(split_path(b"FROM: <>", "FROM:", &strict), Err(ArgumentError::Syntax));
    }

    #[test]
    fn addresses() {
        let forward = |path: &str, smtputf8| parse_forward_path(path.as_bytes(), smtputf8).map(|path| path.to_string());
        for (path, expected) in [
            ("a@b.example", "a@b.example"),
            ("@x.example,@y.example:a@b.example", "a@b.example"),
            ("PostMaster", "postmaster"),
            (r#""a:b"@c.example"#, r#""a:b"@c.example"#),
            ("a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
        ] {
            assert_eq!(forward(path, false).as_deref(), Ok(expected), "{path}");
        }
        for path in [
            "",
            "a",
            "@x.example",
            "@x.example:",
            "@:a@b.example",
            "@x.example,y.example:a@b.example",
            "a@b@c.example",
            "a b@c.example",
        ] {
            assert_eq!(forward(path, false), Err(ArgumentError::Address), "{path}");
        }
        assert_eq!(forward("ü@b.example", false), Err(ArgumentError::NotAscii));
        assert!(forward("ü@b.example", true).is_ok());
        assert_eq!(parse_forward_path(b"\xfc@b.example", true), Err(ArgumentError::Address));
        assert_eq!(parse_reverse_path(b"", false), Ok(ReversePath::Null));
        assert!(parse_reverse_path(b"@x.example:", false).is_err());
        assert!(parse_reverse_path(b"postmaster", false).is_err());
    }

    #[test]
    fn helo() {
        let long = "a".repeat(256);
        for good in ["a.example", "[192.0.2.1]", "localhost", "under_score", "a.example."] {
            assert_eq!(parse_helo(good.as_bytes()), Ok(good));
        }
        for bad in ["", "a b", "a\tb", "ü.example", "a\x7f", &long] {
            assert_eq!(parse_helo(bad.as_bytes()), Err(ArgumentError::Syntax), "{bad:?}");
        }
    }

    #[test]
    fn chunks() {
        for (arguments, head) in [
            ("0", ChunkHead::Sound { size: 0, last: false }),
            ("86 LAST", ChunkHead::Sound { size: 86, last: true }),
            ("86  last", ChunkHead::Sound { size: 86, last: true }),
            ("5 FIRST", ChunkHead::BadTail { size: 5 }),
            ("5 LAST x", ChunkHead::BadTail { size: 5 }),
            ("", ChunkHead::BadSize),
            ("x", ChunkHead::BadSize),
            ("-1", ChunkHead::BadSize),
            ("+1", ChunkHead::BadSize),
            ("5LAST", ChunkHead::BadSize),
            ("99999999999999999999", ChunkHead::BadSize),
        ] {
            assert_eq!(parse_bdat(arguments.as_bytes()), head, "{arguments}");
        }
    }
}
