//! Postgrey's whitelist files: clients by name, address, network or pattern; recipients by address, user, domain or pattern.

use std::net::{IpAddr, Ipv4Addr};

use fancy_regex::{BytesMode, Regex, RegexBuilder};

/// What a pattern may try before it counts as no match.
const BACKTRACK_LIMIT: usize = 100_000;

/// A line that is no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// Clients that are never asked to wait.
#[derive(Debug, Default)]
pub struct Clients {
    names: Vec<Name>,
    networks: Vec<(IpAddr, u8)>,
}

#[derive(Debug)]
enum Name {
    /// This domain and what is below it; lower case.
    Domain(String),
    Pattern(Regex),
}

impl Clients {
    /// Adds a file's entries.
    pub fn read(&mut self, text: &str) -> Result<(), Fault> {
        entries(text).try_for_each(|(line, entry)| {
            let fault = |message| Fault { line, message };
            if let Some(pattern) = pattern(entry) {
                self.names.push(Name::Pattern(compile(pattern).map_err(fault)?));
            } else if let Some(network) = network(entry).map_err(fault)? {
                self.networks.push(network);
            } else if entry.contains(char::is_whitespace) {
                return Err(fault(format!("{entry:?} is no host name, address or /pattern/")));
            } else {
                self.names.push(Name::Domain(entry.to_lowercase()));
            }
            Ok(())
        })
    }

    /// Whether a name stands here.
    pub fn has_name(&self, name: &str) -> bool {
        let lower = name.to_lowercase();
        self.names.iter().any(|entry| match entry {
            Name::Domain(domain) => is_or_is_below(&lower, domain),
            Name::Pattern(pattern) => pattern.is_match(name.as_bytes()).unwrap_or(false),
        })
    }

    /// Whether an address does.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|(network, bits)| match (network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(*bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(*bits)
            }
            _ => false,
        })
    }
}

/// Recipients whose mail never waits.
#[derive(Debug, Default)]
pub struct Recipients(Vec<Recipient>);

#[derive(Debug)]
enum Recipient {
    /// Lower case, the user's extension left out.
    Mailbox(String, String),
    /// At any domain.
    User(String),
    Domain(String),
    Pattern(Regex),
}

impl Recipients {
    /// Adds a file's entries.
    pub fn read(&mut self, text: &str) -> Result<(), Fault> {
        entries(text).try_for_each(|(line, entry)| {
            let fault = |message| Fault { line, message };
            if let Some(pattern) = pattern(entry) {
                self.0.push(Recipient::Pattern(compile(pattern).map_err(fault)?));
                return Ok(());
            }
            if entry.contains(char::is_whitespace) {
                return Err(fault(format!("{entry:?} is no address, user@, domain or /pattern/")));
            }
            let entry = entry.to_lowercase();
            self.0.push(match entry.split_once('@') {
                None => Recipient::Domain(entry),
                Some((user, "")) => Recipient::User(user.into()),
                Some((user, domain)) => Recipient::Mailbox(user.into(), domain.into()),
            });
            Ok(())
        })
    }

    /// Whether an address stands here.
    pub fn has(&self, address: &str) -> bool {
        let lower = address.to_lowercase();
        // Both as postgrey's patterns split: a user ends at the first @, a domain begins behind the last.
        let (mailbox, domain) = (lower.split_once('@'), lower.rsplit('@').next().unwrap_or_default());
        let is_user = |user: &str, listed: &str| {
            user.strip_prefix(listed).is_some_and(|rest| rest.is_empty() || (rest.len() > 1 && rest.starts_with('+')))
        };
        self.0.iter().any(|entry| match entry {
            Recipient::Mailbox(user, at) => mailbox.is_some_and(|(own, domain)| is_user(own, user) && domain == at),
            Recipient::User(user) => mailbox.is_some_and(|(own, _)| is_user(own, user)),
            Recipient::Domain(listed) => mailbox.is_some() && is_or_is_below(domain, listed),
            Recipient::Pattern(pattern) => pattern.is_match(address.as_bytes()).unwrap_or(false),
        })
    }
}

/// Lines with something in them, without comments.
fn entries(text: &str) -> impl Iterator<Item = (u32, &str)> {
    text.lines().zip(1..).filter_map(|(line, number)| {
        let entry = line.split('#').next().unwrap_or_default().trim();
        (!entry.is_empty()).then_some((number, entry))
    })
}

fn pattern(entry: &str) -> Option<&str> {
    entry.strip_prefix('/')?.strip_suffix('/').filter(|inner| !inner.is_empty() && !inner.contains(char::is_whitespace))
}

/// Octets, as Perl takes what it is not told to be text.
fn compile(pattern: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(pattern);
    builder.case_insensitive(true).bytes_mode(BytesMode::Ascii).unicode_mode(false).backtrack_limit(BACKTRACK_LIMIT);
    builder.build().map_err(|err| format!("/{pattern}/ is no pattern: {err}"))
}

/// An address, a network, or the beginning of an IPv4 address; none if it is something else.
fn network(entry: &str) -> Result<Option<(IpAddr, u8)>, String> {
    let (address, length) = match entry.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (entry, None),
    };
    let numbers = || address.split('.').map(str::parse::<u8>).collect::<Result<Vec<u8>, _>>();
    let digits = address.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
    let (parsed, whole): (IpAddr, u8) = match address.parse() {
        Ok(address @ IpAddr::V4(_)) => (address, 32),
        Ok(address @ IpAddr::V6(_)) => (address, 128),
        Err(_) if digits && length.is_none() => match numbers().as_deref() {
            Ok([a, b, c]) => (Ipv4Addr::new(*a, *b, *c, 0).into(), 24),
            Ok([a, b]) => (Ipv4Addr::new(*a, *b, 0, 0).into(), 16),
            _ => return Err(format!("{entry} is no address")),
        },
        Err(_) if digits || address.contains(':') => return Err(format!("{entry} is no address")),
        Err(_) => return Ok(None),
    };
    match length.map(str::parse::<u8>) {
        None => Ok(Some((parsed, whole))),
        Some(Ok(bits)) if bits <= whole => Ok(Some((parsed, bits))),
        Some(_) => Err(format!("{entry}: a network is ADDRESS/0 to ADDRESS/{whole}")),
    }
}

fn is_or_is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
