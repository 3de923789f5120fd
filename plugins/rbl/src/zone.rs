//! One list: what it is about and what its answers mean.

use std::net::Ipv4Addr;

/// What a list is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The client's address.
    Client,
    /// The client's name, if DNS confirms it.
    ClientName,
    /// The name in HELO or EHLO.
    Helo,
    /// The domain of the reverse-path.
    Sender,
}

impl Of {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Client, Self::ClientName, Self::Helo, Self::Sender];

    /// As the settings have it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "client" => Self::Client,
            "client-name" => Self::ClientName,
            "helo" => Self::Helo,
            "sender" => Self::Sender,
            _ => return None,
        })
    }

    /// As Postfix calls it in its reply.
    pub fn class(self) -> &'static str {
        match self {
            Self::Client | Self::ClientName => "Client host",
            Self::Helo => "Helo command",
            Self::Sender => "Sender address",
        }
    }

    /// What a listing raises.
    pub fn symbol(self, good: bool) -> &'static str {
        match (self, good) {
            (Self::Client, false) => "RBL_CLIENT",
            (Self::Client, true) => "RBL_CLIENT_GOOD",
            (Self::ClientName, false) => "RBL_CLIENT_NAME",
            (Self::ClientName, true) => "RBL_CLIENT_NAME_GOOD",
            (Self::Helo, false) => "RBL_HELO",
            (Self::Helo, true) => "RBL_HELO_GOOD",
            (Self::Sender, false) => "RBL_SENDER",
            (Self::Sender, true) => "RBL_SENDER_GOOD",
        }
    }
}

/// One list.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Its name, with the key of a query service if there is one.
    pub name: String,
    /// Its name without the key: for replies and logs.
    pub shown: String,
    /// What it is asked about.
    pub of: Of,
    /// Whether a listing speaks for the client.
    pub good: bool,
    /// Points of a listing that no code says otherwise of.
    pub weight: f64,
    /// What its answers mean; none: each answer in 127.0.0.0/8 is a listing.
    pub codes: Vec<Code>,
    /// Whether it is tested (RFC 5782 §5).
    pub test: bool,
}

impl Zone {
    /// Its name for people.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Under which key its health is remembered.
    pub fn health_key(&self) -> String {
        format!("zone/{}/{}", self.of.symbol(self.good), self.shown)
    }

    /// What an answer means; none if it is no listing.
    pub fn meaning(&self, answer: Ipv4Addr) -> Option<(f64, &str)> {
        if self.codes.is_empty() {
            return Some((self.weight, ""));
        }
        let code = self.codes.iter().find(|code| code.pattern.has(answer))?;
        Some((code.weight.unwrap_or(self.weight), &code.meaning))
    }
}

/// A set of answers with one meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct Code {
    /// Which.
    pub pattern: Pattern,
    /// What is said of it in logs.
    pub meaning: String,
    /// Points, if not those of the zone.
    pub weight: Option<f64>,
}

/// Answers as Postfix writes them: `127.0.0.2`, `127.0.0.[4..7]`, `127.0.[1;3].[0..255]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern([Vec<(u8, u8)>; 4]);

impl Pattern {
    /// Reads one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields: [Vec<(u8, u8)>; 4] = Default::default();
        let mut rest = text;
        for (index, field) in fields.iter_mut().enumerate() {
            if index > 0 {
                rest = rest.strip_prefix('.')?;
            }
            let part;
            (part, rest) = match rest.strip_prefix('[') {
                Some(inner) => inner.split_once(']')?,
                None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
            };
            for range in part.split(';') {
                let (from, to) = range.split_once("..").unwrap_or((range, range));
                let (from, to) = (from.parse().ok()?, to.parse().ok()?);
                if from > to {
                    return None;
                }
                field.push((from, to));
            }
        }
        rest.is_empty().then_some(Self(fields))
    }

    /// Whether an answer is in it.
    pub fn has(&self, answer: Ipv4Addr) -> bool {
        let in_field =
            |(field, octet): (&Vec<(u8, u8)>, u8)| field.iter().any(|(from, to)| (*from..=*to).contains(&octet));
        self.0.iter().zip(answer.octets()).all(in_field)
    }
}

/// What is known of the large lists.
pub fn known_codes(zone: &str) -> Vec<Code> {
    let code = |pattern: &str, meaning: &str| {
        let pattern = Pattern::parse(pattern)?;
        Some(Code { pattern, meaning: meaning.into(), weight: None })
    };
    let codes: &[(&str, &str)] = match zone {
        "zen.spamhaus.org" => &[
            ("127.0.0.2", "SBL"),
            ("127.0.0.3", "CSS"),
            ("127.0.0.[4..7]", "XBL"),
            ("127.0.0.9", "DROP"),
            ("127.0.0.[10..11]", "PBL"),
        ],
        "dbl.spamhaus.org" => &[
            ("127.0.1.2", "spam domain"),
            ("127.0.1.4", "phishing domain"),
            ("127.0.1.5", "malware domain"),
            ("127.0.1.6", "botnet domain"),
            ("127.0.1.[102..106]", "abused legitimate domain"),
        ],
        "list.dnswl.org" => &[
            ("127.0.[0..254].0", "no trust"),
            ("127.0.[0..254].1", "low trust"),
            ("127.0.[0..254].2", "medium trust"),
            ("127.0.[0..254].3", "high trust"),
        ],
        _ => &[],
    };
    codes.iter().filter_map(|(pattern, meaning)| code(pattern, meaning)).collect()
}
