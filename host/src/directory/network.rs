//! Address blocks as clients are told apart by, RFC 4632 §3.1 and RFC 4291 §2.3.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no address block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not `ADDRESS` or `ADDRESS/BITS`.
    #[error("`{0}` is no network; write it like \"192.0.2.0/24\", \"2001:db8::/32\" or one address")]
    Malformed(String),
    /// The length of the prefix is not possible.
    #[error("`{0}` has a prefix length that is out of range; it may be 0 to 32 for IPv4 and 0 to 128 for IPv6")]
    Prefix(String),
    /// Bits beyond the prefix are set, so that something else may have been meant.
    #[error("`{0}` has bits set beyond its prefix; write `{1}`")]
    HostBits(String, Network),
}

/// An address block, `192.0.2.0/24`. An IPv4 client that came in over an IPv6 socket (`::ffff:192.0.2.1`) counts as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// `127.0.0.0/8` and `::1/128`.
    pub fn loopback() -> [Self; 2] {
        [
            Self { address: Ipv4Addr::new(127, 0, 0, 0).into(), prefix: 8 },
            Self { address: Ipv6Addr::LOCALHOST.into(), prefix: 128 },
        ]
    }

    /// Whether the address is of its kind: IPv4 or IPv6.
    pub fn is_family_of(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
    }

    /// Whether the address lies in it.
    pub fn contains(&self, client: IpAddr) -> bool {
        masked(client.to_canonical(), self.prefix) == Some(self.address)
    }
}

/// The address with all bits beyond the prefix cleared; none if it has not so many.
fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let beyond = 32u32.checked_sub(prefix.into())?;
            Some(Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(beyond).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            let beyond = 128u32.checked_sub(prefix.into())?;
            Some(Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(beyond).unwrap_or(0)).into())
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let malformed = || NetworkError::Malformed(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let prefix = match prefix {
            None if address.is_ipv4() => 32,
            None => 128,
            Some(digits) if digits.bytes().all(|octet| octet.is_ascii_digit()) && !digits.is_empty() => {
                digits.parse().map_err(|_| NetworkError::Prefix(text.to_owned()))?
            }
            Some(_) => return Err(malformed()),
        };
        let base = masked(address, prefix).ok_or_else(|| NetworkError::Prefix(text.to_owned()))?;
        if base == address {
            Ok(Self { address, prefix })
        } else {
            Err(NetworkError::HostBits(text.to_owned(), Self { address: base, prefix }))
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;
    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}
impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership() {
        for (network, client, inside) in [
            ("127.0.0.0/8", "127.255.0.1", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("[2001:db8::]/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
            ("::1", "::1", true),
        ] {
            let network: Network = network.parse().expect(network);
            assert_eq!(network.contains(client.parse().expect(client)), inside, "{client} in {network}");
        }
    }

    #[test]
    fn malformed() {
        for text in ["", "localhost", "1.2.3", "1.2.3.4/", "1.2.3.4/x", "1.2.3.4/+8", "1.2.3.4/8/8", "01.2.3.4"] {
            assert!(matches!(text.parse::<Network>(), Err(NetworkError::Malformed(_))), "{text}");
        }
        for text in ["1.2.3.4/33", "::/129", "1.2.3.4/256", "1.2.3.4/99999999999"] {
            assert!(matches!(text.parse::<Network>(), Err(NetworkError::Prefix(_))), "{text}");
        }
        let err = "192.0.2.1/24".parse::<Network>().expect_err("host bits");
        assert!(err.to_string().ends_with("write `192.0.2.0/24`"), "{err}");
    }
}
