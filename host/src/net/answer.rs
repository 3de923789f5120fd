//! Questions, answers, and what is believed of them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};

use super::name::Name;

/// Records of one answer. Nobody needs more, and whoever sends more means no good.
pub(super) const MAX_RECORDS: usize = 512;
/// Aliases (CNAME) that are followed within one answer.
const MAX_ALIASES: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Where mail goes, RFC 5321 §5.1.
    Mx,
    /// Text.
    Txt,
    /// Names of an address; see [`Name::reverse`].
    Ptr,
}

impl Kind {
    fn to_wire(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Mx => RecordType::MX,
            Self::Txt => RecordType::TXT,
            Self::Ptr => RecordType::PTR,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_wire(), f)
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub name: Name,
    pub kind: Kind,
}

impl Question {
    pub fn record_type(&self) -> RecordType {
        self.kind.to_wire()
    }
}

/// One record's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Of A or AAAA.
    Address(IpAddr),
    /// Of MX. The root as exchange means that the domain takes no mail (RFC 7505).
    Mx {
        /// Lower ones first.
        preference: u16,
        /// The host.
        exchange: Name,
    },
    /// Of TXT: its strings, joined without anything between them (RFC 7208 §3.3). At most 64 KiB, and any octets.
    Txt(Vec<u8>),
    /// Of PTR.
    Name(Name),
}

impl Data {
    fn new(data: &RData) -> Option<Self> {
        Some(match data {
            RData::A(address) => Self::Address(IpAddr::V4(address.0)),
            RData::AAAA(address) => Self::Address(IpAddr::V6(address.0)),
            RData::MX(mx) => Self::Mx { preference: mx.preference, exchange: Name::from_wire(&mx.exchange).ok()? },
            RData::TXT(txt) => Self::Txt(txt.txt_data.concat()),
            RData::PTR(name) => Self::Name(Name::from_wire(&name.0).ok()?),
            _ => return None,
        })
    }

    /// Octets that it takes in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Address(_) => 0,
                Self::Mx { exchange: name, .. } | Self::Name(name) => name.as_str().len(),
                Self::Txt(text) => text.len(),
            }
    }
}

/// As text: an address, `PREFERENCE NAME`, a text (what is not UTF-8 replaced by U+FFFD), a name.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Mx { preference, exchange } => write!(f, "{preference} {exchange}"),
            Self::Txt(text) => f.write_str(&String::from_utf8_lossy(text)),
            Self::Name(name) => fmt::Display::fmt(name, f),
        }
    }
}

/// What DNS says. Without records: the name exists, but has none of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// At most 512, in the order of the server.
    pub records: Arc<[Data]>,
    /// How long it holds from now on.
    pub ttl: Duration,
    /// Whether the server says that it has verified it (RFC 4035 §3.2.3). Worth as much as the way to the server: on another machine,
    /// nothing.
    pub authentic: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// NXDOMAIN: neither the name nor anything below it exists. An answer, not a failure.
    #[error("no such name")]
    NoSuchName,
    /// No server answered in time. May go well another time.
    #[error("no answer in time")]
    Timeout,
    /// The servers could not be reached, failed, refused, or sent nonsense. May go well another time.
    #[error("{0}")]
    Failure(String),
}

/// What one response says of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// There are these records.
    Records { records: Vec<Data>, ttl: u32, authentic: bool },
    /// The name exists, without such records.
    Nothing { ttl: Option<u32>, authentic: bool },
    /// The name does not exist.
    NoSuchName { ttl: Option<u32> },
    /// It is another name for this one, of which nothing is said.
    Alias { target: Name, ttl: u32, authentic: bool },
}

/// Reads a response: follows its aliases, takes what was asked for and nothing else.
pub(super) fn read(message: &Message, question: &Question) -> Result<Said, String> {
    let name_error = match message.metadata.response_code {
        ResponseCode::NoError => false,
        ResponseCode::NXDomain => true,
        code => return Err(format!("the server says {code}")),
    };
    let authentic = message.metadata.authentic_data;
    let wire = question.name.to_wire().map_err(|err| err.to_string())?;
    let (mut owner, mut ttl, mut aliases) = (&wire, u32::MAX, 0);
    while let Some((target, alias_ttl)) = message.answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *owner => Some((&target.0, record.ttl)),
        _ => None,
    }) {
        aliases += 1;
        if aliases > MAX_ALIASES {
            return Err("its aliases have no end".into());
        }
        (owner, ttl) = (target, ttl.min(alias_ttl));
    }
    let wanted = |record: &&Record| record.record_type() == question.record_type() && record.name == *owner;
    let found: Vec<&Record> = message.answers.iter().filter(wanted).take(MAX_RECORDS + 1).collect();
    if found.len() > MAX_RECORDS {
        return Err(format!("the answer has more than {MAX_RECORDS} records"));
    }
    let ttl = found.iter().map(|record| record.ttl).fold(ttl, u32::min);
    let records: Vec<Data> = found.iter().filter_map(|record| Data::new(&record.data)).collect();
    if !records.is_empty() {
        return Ok(Said::Records { records, ttl, authentic });
    }
    if !found.is_empty() {
        return Err("the answer holds no name that could be one".into());
    }
    let soa = negative_ttl(message);
    Ok(match (name_error, soa) {
        // RFC 6604 §3: of the last name, if there are aliases.
        (true, soa) => Said::NoSuchName { ttl: soa },
        (false, None) if aliases > 0 => {
            let target = Name::from_wire(owner).map_err(|_| "its alias is no name".to_owned())?;
            Said::Alias { target, ttl, authentic }
        }
        (false, soa) => Said::Nothing { ttl: soa, authentic },
    })
}

/// RFC 2308 §5: the lesser of the SOA record's own time and its MINIMUM; without such a record it is not to be kept.
fn negative_ttl(message: &Message) -> Option<u32> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    })
}
