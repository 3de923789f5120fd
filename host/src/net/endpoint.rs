//! Services that policies use: where they are, and connections to them.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::tls::Tls;
use crate::units::Duration;

/// One endpoint, `NAME = "tcp://HOST:PORT"` or a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// `tcp://HOST:PORT`, `tls://HOST:PORT` or `unix:///PATH`. No default.
    pub address: Address,
    /// The name that the certificate of a `tls://` address must have. Default: the host of the address.
    pub server_name: Option<String>,
    /// A PEM file with the certificates to believe. Default: those that the machine believes.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take to come about, TLS included. Default 5s.
    pub connect_timeout: Duration,
    /// How long one read or write may take. Default 30s; the call's own `timeout` mostly ends first.
    pub timeout: Duration,
    /// Connections at once, over all calls; more wait. Default 100.
    pub max_connections: u32,
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host, which may be an address, and a port.
    Tcp(String, u16),
    /// The same with TLS from the first octet on.
    Tls(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Config {
    /// With the defaults.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            server_name: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            max_connections: 100,
        }
    }

    /// The names of files that it holds.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let socket = match &mut self.address {
            Address::Unix(path) => Some(path),
            _ => None,
        };
        socket.into_iter().chain(&mut self.ca_file)
    }

    /// The key whose value cannot be, and what would be right.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let tls = matches!(self.address, Address::Tls(..));
        let rules = [
            (
                tls || self.server_name.is_none(),
                "server-name",
                "there is no certificate without TLS; write tls:// in the address",
            ),
            (
                tls || self.ca_file.is_none(),
                "ca-file",
                "there is no certificate without TLS; write tls:// in the address",
            ),
            (!self.connect_timeout.is_zero(), "connect-timeout", "0 would reach nobody; write at least \"1ms\""),
            (!self.timeout.is_zero(), "timeout", "0 would leave no time to answer; write at least \"1ms\""),
            ((1..=100_000).contains(&self.max_connections), "max-connections", "write 1 to 100000"),
        ];
        match rules.into_iter().find(|(sound, _, _)| !sound) {
            Some((_, key, message)) => Err((key, message)),
            None => Ok(()),
        }
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "no endpoint; write it like \"tcp://127.0.0.1:783\", \"tls://scanner.example.org:6379\" or \"unix:///run/clamd.sock\"";
        let host_and_port = |rest: &str| {
            let (host, port) = rest.rsplit_once(':')?;
            let host = match host.strip_prefix('[') {
                Some(literal) => {
                    literal.strip_suffix(']').filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok())?
                }
                None => host,
            };
            let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
            let plain =
                host.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'/' | b'[' | b']' | b'@'));
            (!host.is_empty() && plain).then(|| (host.to_owned(), port))
        };
        match text.split_once("://") {
            Some(("tcp", rest)) => host_and_port(rest).map(|(host, port)| Self::Tcp(host, port)),
            Some(("tls", rest)) => host_and_port(rest).map(|(host, port)| Self::Tls(host, port)),
            Some(("unix", path)) if !path.is_empty() && !path.contains('\0') => Some(Self::Unix(path.into())),
            _ => None,
        }
        .ok_or(FORMS)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Self::Tcp(name, port) => write!(f, "tcp://{}:{port}", host(name)),
            Self::Tls(name, port) => write!(f, "tls://{}:{port}", host(name)),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|why| de::Error::custom(format!("`{text}` is {why}")))
    }
}

/// The table; each key that is left out has its default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    address: Address,
    server_name: Option<String>,
    ca_file: Option<PathBuf>,
    connect_timeout: Option<Duration>,
    timeout: Option<Duration>,
    max_connections: Option<u32>,
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTable;
        impl<'de> Visitor<'de> for TextOrTable {
            type Value = Config;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address like \"tcp://127.0.0.1:783\", or a table with one")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Config, E> {
                let address = text.parse().map_err(|why| E::custom(format!("`{text}` is {why}")))?;
                Ok(Config::new(address))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Config, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                let default = Config::new(table.address);
                Ok(Config {
                    server_name: table.server_name,
                    ca_file: table.ca_file,
                    connect_timeout: table.connect_timeout.unwrap_or(default.connect_timeout),
                    timeout: table.timeout.unwrap_or(default.timeout),
                    max_connections: table.max_connections.unwrap_or(default.max_connections),
                    ..default
                })
            }
        }
        deserializer.deserialize_any(TextOrTable)
    }
}

/// An endpoint, ready to be connected to. Clones share the limit on connections.
#[derive(Clone)]
pub struct Endpoint {
    config: Config,
    tls: Option<Tls>,
    permits: Arc<Semaphore>,
}

/// What of an endpoint cannot be used, found before it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct EndpointError {
    /// The key at fault.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// Why something on a connection came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It did not come about, for this reason.
    #[error("{0}")]
    Unreachable(String),
    /// It took too long.
    #[error("took too long")]
    Timeout,
    /// The other side has closed.
    #[error("closed by the other side")]
    Closed,
    /// Anything else.
    #[error("{0}")]
    Failure(String),
}

impl From<io::Error> for Fault {
    fn from(err: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        match err.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof => Self::Closed,
            _ => Self::Failure(err.to_string()),
        }
    }
}

impl Endpoint {
    /// Reads the certificates to believe, and connects to nobody.
    pub fn new(config: &Config) -> Result<Self, EndpointError> {
        let tls = match &config.address {
            Address::Tls(host, _) => {
                let name = config.server_name.as_deref().unwrap_or(host);
                Some(Tls::new(name, config.ca_file.as_deref()).map_err(|(key, why)| EndpointError { key, why })?)
            }
            _ => None,
        };
        let permits = Arc::new(Semaphore::new(config.max_connections as usize));
        Ok(Self { config: config.clone(), tls, permits })
    }

    /// For the log.
    pub fn address(&self) -> &Address {
        &self.config.address
    }

    /// Connects; the wait for one of `max-connections`, the look-up of a name, TCP and TLS all have to be through by then, and within the
    /// endpoint's `connect-timeout`.
    pub async fn connect(&self, until: Instant) -> Result<Connection, Fault> {
        let until = until.min(Instant::now() + self.config.connect_timeout.as_std());
        let connecting = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(io::Error::other)?;
            let stream: Box<dyn Stream> = match (&self.config.address, &self.tls) {
                (Address::Unix(path), _) => Box::new(UnixStream::connect(path).await?),
                (Address::Tcp(host, port) | Address::Tls(host, port), tls) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?; // what is written at once is sent at once
                    match tls {
                        Some(tls) => Box::new(tls.connect(stream).await?),
                        None => Box::new(stream),
                    }
                }
            };
            Ok(Connection { stream, timeout: self.config.timeout.as_std(), _permit: permit })
        };
        match timeout_at(until, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(err)) => Err(Fault::Unreachable(io::Error::to_string(&err))),
            Err(_) => Err(Fault::Timeout),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection; closed when it is dropped. Each step has to be through `until` then, and within the endpoint's `timeout`.
pub struct Connection {
    stream: Box<dyn Stream>,
    timeout: std::time::Duration,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Reads what there is, at most as much as there is room for; nothing if the other side has closed.
    pub async fn read(&mut self, buffer: &mut [u8], until: Instant) -> Result<usize, Fault> {
        let until = self.limit(until);
        match timeout_at(until, self.stream.read(buffer)).await {
            // A peer that leaves TLS without a word: what came before is whole as far as the protocol within says so.
            Ok(Err(err)) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Ok(result) => Ok(result?),
            Err(_) => Err(Fault::Timeout),
        }
    }

    /// Writes everything. After an error nobody knows how much has arrived.
    pub async fn write(&mut self, octets: &[u8], until: Instant) -> Result<(), Fault> {
        let until = self.limit(until);
        let writing = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        Ok(timeout_at(until, writing).await.map_err(|_| Fault::Timeout)??)
    }

    /// Says that nothing more will be written.
    pub async fn finish(&mut self, until: Instant) -> Result<(), Fault> {
        let until = self.limit(until);
        Ok(timeout_at(until, self.stream.shutdown()).await.map_err(|_| Fault::Timeout)??)
    }

    fn limit(&self, until: Instant) -> Instant {
        until.min(Instant::now() + self.timeout)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses() {
        for text in ["tcp://127.0.0.1:783", "tls://[2001:db8::1]:6379", "unix:///run/clamd.sock", "tcp://spamd:783"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "127.0.0.1:783",
            "tcp://x",
            "tcp://:1",
            "tcp://x:0",
            "tcp://x:65536",
            "unix://",
            "udp://x:1",
            "tcp://2001:db8::1:25]:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_text_or_a_table() {
        #[derive(Deserialize)]
        struct Endpoints {
            e: Config,
        }
        let parse = |text: &str| toml::from_str::<Endpoints>(text).map(|endpoints| endpoints.e);
        let short = parse("e = \"tcp://127.0.0.1:783\"").unwrap();
        assert_eq!(parse("e = { address = \"tcp://127.0.0.1:783\" }").unwrap(), short);
        let table = "e = { address = \"tls://a.example:1\", server-name = \"b.example\", timeout = \"1s\", max-connections = 3 }";
        let table = parse(table).unwrap();
        assert_eq!((table.server_name.as_deref(), table.max_connections), (Some("b.example"), 3));
        let error = |text: &str| parse(text).unwrap_err().message().to_owned();
        assert!(error("e = \"spamd\"").starts_with("`spamd` is no endpoint"));
        assert!(error("e = { address = \"tcp://x:1\", adress = 1 }").contains("unknown field `adress`"));
        assert!(error("e = {}").contains("address"));
        assert!(error("e = 783").contains("an address like"));
        assert_eq!(short.check(), Ok(()));
        assert_eq!(Config { ca_file: Some("x".into()), ..short }.check().unwrap_err().0, "ca-file");
    }
}
