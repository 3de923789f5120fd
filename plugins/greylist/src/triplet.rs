//! Under which key a triplet of client, reverse-path and forward-path is remembered.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest as _, Sha256};

use crate::settings::{LookupBy, Settings};

/// What `kv` takes.
const MAX_KEY: usize = 512;

/// The key of a triplet.
pub fn triplet(settings: &Settings, address: IpAddr, name: Option<&str>, sender: &str, recipient: &str) -> String {
    let client = client(settings, address, name);
    let sender = sender_without_numbers(sender);
    key(settings, "t/", &format!("{client}/{sender}/{recipient}").to_lowercase())
}

/// The key of a client's successes; a client is one address, whatever `lookup-by` says.
pub fn successes(settings: &Settings, address: IpAddr) -> String {
    key(settings, "c/", &address.to_string())
}

fn key(settings: &Settings, kind: &str, text: &str) -> String {
    if !settings.privacy && kind.len() + text.len() <= MAX_KEY {
        return format!("{kind}{text}");
    }
    let mut key = kind.to_owned();
    for octet in Sha256::digest(text.as_bytes()) {
        let _ = write!(key, "{octet:02x}");
    }
    key
}

fn client(settings: &Settings, address: IpAddr, name: Option<&str>) -> String {
    match (settings.lookup_by, name.and_then(organisation)) {
        (LookupBy::Host, _) => address.to_string(),
        (LookupBy::Domain, Some(domain)) => domain.to_owned(),
        (LookupBy::Domain, None) | (LookupBy::Subnet, _) => network(settings, address).to_string(),
    }
}

fn network(settings: &Settings, address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(settings.ipv4cidr)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(settings.ipv6cidr)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// `example.com` of `mail-wr1-f41.example.com`: those who send from pools name their hosts side by side. A name of two
/// labels stands for itself.
fn organisation(name: &str) -> Option<&str> {
    let name = name.trim_end_matches('.');
    let (_, domain) = name.split_once('.')?;
    Some(if domain.contains('.') { domain } else { name })
}

/// Senders that have a new address for each mail (VERP, BATV, extensions) stay the same sender: postgrey's rules.
pub fn sender_without_numbers(sender: &str) -> String {
    let Some((user, domain)) = sender.split_once('@') else { return sender.to_owned() };
    let user = batv(user).unwrap_or(user);
    let user = user.split('+').next().unwrap_or_default();
    format!("{}@{domain}", numbers_as_signs(user))
}

/// The user of `prvs=TAG=USER`, or of `prvs=USER=TAG`, which some send.
fn batv(user: &str) -> Option<&str> {
    let mut parts = user.strip_prefix("prvs=")?.trim_end_matches('=').split('=');
    let (first, second) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let tag = |part: &str| {
        part.len() >= 10 && part.bytes().take(10).all(|octet| octet.is_ascii_digit() || octet.is_ascii_lowercase())
    };
    Some(if tag(second) && !tag(first) { first } else { second })
}

/// `#` for each number that stands alone: `bounce-17-ann` and `bounce-18-ann` are one, `ann7` is not touched.
fn numbers_as_signs(user: &str) -> String {
    let mut out = String::with_capacity(user.len());
    let mut rest = user;
    while !rest.is_empty() {
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let number = !word.is_empty() && word.bytes().all(|octet| octet.is_ascii_digit());
        out.push_str(if number { "#" } else { word });
        let other = after.find(is_word).unwrap_or(after.len());
        out.push_str(&after[..other]);
        rest = &after[other..];
    }
    out
}
