//! How names are looked up: `[resolver]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize};

use crate::units::{ByteSize, Duration};

/// Where the machine says which servers to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Octets of it that are read.
const MAX_RESOLV_CONF: u64 = 64 * 1024;
/// Servers that are asked. The C library asks three.
pub(super) const MAX_SERVERS: usize = 8;
/// Where DNS is spoken.
const PORT: u16 = 53;

/// How names are looked up, for policies and for the names of clients: `[resolver]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The servers to ask, `ADDRESS` or `ADDRESS:PORT`; they must do recursion. Default: those of `/etc/resolv.conf`, read at start; an
    /// empty list switches DNS off.
    #[serde(deserialize_with = "servers", skip_serializing_if = "Option::is_none")]
    pub servers: Option<Vec<SocketAddr>>,
    /// How long one server may take to answer. Default 2s.
    pub timeout: Duration,
    /// How often each is asked, if none answers. Default 2.
    pub attempts: u32,
    /// Questions that may be under way at once; more wait. Each takes a socket. Default 256.
    pub max_queries: u32,
    /// Memory for answers. Default 16 MiB.
    pub cache_size: ByteSize,
    /// How long an answer is kept at least, whatever it says. Default 0s.
    pub min_ttl: Duration,
    /// And at most. Default 1d.
    pub max_ttl: Duration,
    /// How long it is kept at most that a name or record does not exist. Default 1h.
    pub max_negative_ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: None,
            timeout: Duration::from_secs(2),
            attempts: 2,
            max_queries: 256,
            cache_size: ByteSize::from_mib(16),
            min_ttl: Duration::from_secs(0),
            max_ttl: Duration::from_days(1),
            max_negative_ttl: Duration::from_hours(1),
        }
    }
}

impl Config {
    /// The key whose value cannot be, and what would be right.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let servers = self.servers.as_deref().unwrap_or_default();
        let rules = [
            (servers.len() <= MAX_SERVERS, "servers", "more than 8 are of no use; name fewer"),
            (
                servers.iter().all(|server| server.port() != 0),
                "servers",
                "nobody is asked at port 0; leave it out for 53",
            ),
            (!self.timeout.is_zero(), "timeout", "0 would leave no time to answer; write at least \"1ms\""),
            ((1..=10).contains(&self.attempts), "attempts", "write 1 to 10"),
            ((1..=10_000).contains(&self.max_queries), "max-queries", "write 1 to 10000"),
            (self.min_ttl <= self.max_ttl, "min-ttl", "more than max-ttl; lower it"),
        ];
        match rules.into_iter().find(|(sound, _, _)| !sound) {
            Some((_, key, message)) => Err((key, message)),
            None => Ok(()),
        }
    }

    /// Whom to ask: as the config says, else as the machine says, else this machine, as the C library does.
    pub(super) fn effective_servers(&self) -> Vec<SocketAddr> {
        if let Some(servers) = &self.servers {
            return servers.clone();
        }
        let mut text = Vec::new();
        if let Ok(file) = std::fs::File::open(RESOLV_CONF) {
            let _ = std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_RESOLV_CONF), &mut text);
        }
        let mut servers = nameservers(&String::from_utf8_lossy(&text));
        if servers.is_empty() {
            servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
        }
        servers
    }
}

/// The servers that a `resolv.conf` names. What else it says (search domains above all) is not for mail.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT))
    };
    text.lines().filter_map(server).take(MAX_SERVERS).collect()
}

fn servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<SocketAddr>>, D::Error> {
    let parse = |text: &String| {
        let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT));
        address.or_else(|_| text.parse::<SocketAddr>()).map_err(|_| {
            let message =
                "is no address of a server; write one like \"192.0.2.53\", \"127.0.0.1:5353\" or \"[2001:db8::53]:53\"";
            serde::de::Error::custom(format!("`{text}` {message}"))
        })
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(parse).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn whom_the_machine_asks() {
        let text = "# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.53\n nameserver 2001:db8::53 # second\n\
                    nameserver\nnameserver x\noptions ndots:3\n";
        let expected: Vec<SocketAddr> = ["192.0.2.53:53", "[2001:db8::53]:53"].map(|text| text.parse().unwrap()).into();
        assert_eq!(nameservers(text), expected);
        assert_eq!(nameservers(&"nameserver 192.0.2.1\n".repeat(100)).len(), MAX_SERVERS);
    }

    #[test]
    fn servers_of_the_config() {
        let parse = |text: &str| toml::from_str::<Config>(text);
        let config = parse("servers = [\"127.0.0.1:5353\", \"::1\"]").unwrap();
        let expected: Vec<SocketAddr> = ["127.0.0.1:5353", "[::1]:53"].map(|text| text.parse().unwrap()).into();
        assert_eq!(config.effective_servers(), expected);
        assert!(parse("servers = []").unwrap().effective_servers().is_empty());
        assert!(parse("servers = [\"dns.example\"]").unwrap_err().message().starts_with("`dns.example` is no address"));
        assert_eq!(Config::default().check(), Ok(()));
        assert_eq!(parse("attempts = 0").unwrap().check().unwrap_err().0, "attempts");
    }
}
