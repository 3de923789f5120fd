//! Names that lists are asked for: RFC 5782 §2.

use std::fmt::Write as _;
use std::net::IpAddr;

/// `2.0.0.127`, or the nibbles of an IPv6 address.
pub fn reversed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(address) => {
            let mut name = String::with_capacity(63);
            for octet in address.octets().iter().rev() {
                let dot = if name.is_empty() { "" } else { "." };
                let _ = write!(name, "{dot}{:x}.{:x}", octet & 15, octet >> 4);
            }
            name
        }
    }
}

/// A domain that a list can be asked for: a host name of at least two labels, no address.
pub fn domain(name: &str) -> Option<String> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
    };
    let sound = name.len() <= 200 && name.contains('.') && name.split('.').all(label);
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit()));
    (sound && !numeric).then_some(name)
}
