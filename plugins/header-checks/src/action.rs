//! What the text behind a pattern tells to do: `man 5 header_checks`, ACTIONS.

/// Where a line stands that an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// A header field, of the message or of one inside it.
    Header,
    /// A line of a body.
    Body,
}

/// One action. Texts are octets: what a pattern matched may be in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Blind copy to this address.
    Bcc(Vec<u8>),
    /// Say 250 and throw the message away.
    Discard(Vec<u8>),
    /// The next line, please.
    Dunno,
    /// Send the message to this `transport:destination`.
    Filter(Vec<u8>),
    /// Keep the message for the operator.
    Hold(Vec<u8>),
    /// The line goes, silently.
    Ignore,
    /// A line in the log.
    Info(Vec<u8>),
    /// No more checks for this message.
    Pass(Vec<u8>),
    /// A line before this one.
    Prepend(Vec<u8>),
    /// Send the message to this address instead of all others.
    Redirect(Vec<u8>),
    /// Another line instead of this one.
    Replace(Vec<u8>),
    /// Refuse the message.
    Reject(Vec<u8>),
    /// The line goes, and the log says so.
    Strip(Vec<u8>),
    /// A warning in the log.
    Warn(Vec<u8>),
}

impl Action {
    /// Understands `value`, or says why Postfix would warn and do nothing.
    pub fn parse(value: &[u8], context: Context) -> Result<Self, String> {
        let (name, text) = match value.iter().position(|octet| matches!(octet, b' ' | b'\t')) {
            Some(end) => value.split_at(end),
            None => (value, &b""[..]),
        };
        let text = text.trim_ascii_start();
        let needed =
            |example: &str| if text.is_empty() { Err(format!("a text is missing: {example}")) } else { Ok(()) };
        let owned = || text.to_vec();
        match name.to_ascii_uppercase().as_slice() {
            b"BCC" | b"REDIRECT" if !text.contains(&b'@') => Err(format!("{} needs user@domain", show(name))),
            b"BCC" => Ok(Self::Bcc(owned())),
            b"DISCARD" => Ok(Self::Discard(owned())),
            b"DUNNO" | b"OK" => Ok(Self::Dunno),
            b"FILTER" if !text.contains(&b':') => Err("FILTER needs transport:destination".into()),
            b"FILTER" => Ok(Self::Filter(owned())),
            b"HOLD" => Ok(Self::Hold(owned())),
            b"IGNORE" => Ok(Self::Ignore),
            b"INFO" => Ok(Self::Info(owned())),
            b"PASS" => Ok(Self::Pass(owned())),
            b"PREPEND" | b"REPLACE" => {
                needed(&format!("{} TEXT", show(name)))?;
                if context == Context::Header && header_name_len(text).is_none() {
                    return Err(format!("{} needs a header field here, like `X-Checked: yes`", show(name)));
                }
                Ok(if name.eq_ignore_ascii_case(b"PREPEND") { Self::Prepend(owned()) } else { Self::Replace(owned()) })
            }
            b"REDIRECT" => Ok(Self::Redirect(owned())),
            b"REJECT" => Ok(Self::Reject(owned())),
            b"STRIP" => Ok(Self::Strip(owned())),
            b"WARN" => Ok(Self::Warn(owned())),
            _ => Err(format!("there is no action {}", show(name))),
        }
    }
}

fn show(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// How long the name is if this begins like a header field: name, perhaps white space, colon. As Postfix sees it.
pub fn header_name_len(line: &[u8]) -> Option<usize> {
    let name = line.iter().take_while(|octet| octet.is_ascii_graphic() && **octet != b':').count();
    let rest = line.get(name..)?;
    let space = rest.iter().take_while(|octet| matches!(octet, b' ' | b'\t')).count();
    (name > 0 && rest.get(space) == Some(&b':')).then_some(name)
}

/// What a refusal says: code, enhanced status and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 550, or 451 where the enhanced status is a 4.
    pub code: u16,
    /// Class, subject, detail.
    pub status: (u8, u16, u16),
    /// The rest.
    pub text: String,
}

impl Refusal {
    /// From the text of a REJECT. It may begin with an enhanced status; without one it is 5.7.1.
    pub fn new(text: &[u8]) -> Self {
        let text = printable(text);
        if text.is_empty() {
            return Self { code: 550, status: (5, 7, 1), text: "message content rejected".into() };
        }
        let (status, text) = match split_status(&text) {
            Some((status, rest)) => (status, rest.trim_ascii_start()),
            None => ((5, 7, 1), text.as_str()),
        };
        match status {
            (5, ..) => Self { code: 550, status, text: text.into() },
            // A success cannot refuse: Postfix makes a 4 of it.
            (_, subject, detail) => Self { code: 451, status: (4, subject, detail), text: text.into() },
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (class, subject, detail) = self.status;
        write!(f, "{class}.{subject}.{detail} {}", self.text)
    }
}

/// An enhanced status (RFC 3463) and what follows.
fn split_status(text: &str) -> Option<((u8, u16, u16), &str)> {
    let end = text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let mut parts = word.split('.').map(|part| {
        let sound = (1..=3).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit());
        if sound { part.parse::<u16>().ok() } else { None }
    });
    match (parts.next()??, parts.next()??, parts.next()??, parts.next()) {
        (class @ (2 | 4 | 5), subject, detail, None) if word.as_bytes().get(1) == Some(&b'.') => {
            Some(((u8::try_from(class).ok()?, subject, detail), rest))
        }
        _ => None,
    }
}

/// What can stand in a reply or a log line: valid UTF-8 without control characters, everything else a space.
pub fn printable(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        out.extend(chunk.valid().chars().map(|c| if c.is_control() { ' ' } else { c }));
        out.extend(chunk.invalid().iter().map(|_| ' '));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions() {
        let header = |value: &str| Action::parse(value.as_bytes(), Context::Header);
        assert_eq!(header("reject"), Ok(Action::Reject(vec![])));
        assert_eq!(header("Reject \t no "), Ok(Action::Reject(b"no ".to_vec())));
        assert_eq!(header("ok whatever"), Ok(Action::Dunno));
        assert_eq!(header("PREPEND X-A : b"), Ok(Action::Prepend(b"X-A : b".to_vec())));
        for bad in ["REJECTED", "", "FILTER smtp", "BCC root", "REDIRECT", "PREPEND", "PREPEND no name", "REPLACE x"] {
            assert!(header(bad).is_err(), "{bad}");
        }
        assert!(Action::parse(b"REPLACE no name", Context::Body).is_ok());
    }

    #[test]
    fn refusals() {
        for (text, code, status, rest) in [
            ("", 550, (5, 7, 1), "message content rejected"),
            ("no", 550, (5, 7, 1), "no"),
            ("5.1.3 no", 550, (5, 1, 3), "no"),
            ("4.7.10 later", 451, (4, 7, 10), "later"),
            ("2.0.0 fine", 451, (4, 0, 0), "fine"),
            ("3.0.0 odd", 550, (5, 7, 1), "3.0.0 odd"),
            ("5.7.1", 550, (5, 7, 1), ""),
            ("05.7.1 x", 550, (5, 7, 1), "05.7.1 x"),
            ("a\nb", 550, (5, 7, 1), "a b"),
        ] {
            assert_eq!(Refusal::new(text.as_bytes()), Refusal { code, status, text: rest.into() }, "{text}");
        }
    }
}
