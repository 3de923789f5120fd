//! Which way a recipient's mail goes. Routing by MX will be here; so far there are mailboxes of this host and one next hop for all else.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::directory::{Directory, LocalMailbox};
use crate::mail::{AddressError, Domain, ForwardPath, Reply};
use crate::queue::Destination;

/// A host to hand mail to, by name or address, and its port. Written `HOST:PORT`, `[ADDRESS]:PORT`; the port is 25 where none is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NextHop {
    host: NextHost,
    port: u16,
}

/// Its host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NextHost {
    /// To be looked up.
    Name(Domain),
    /// As it is.
    Address(IpAddr),
}

impl NextHop {
    /// The host.
    pub fn host(&self) -> &NextHost {
        &self.host
    }
    /// The host's name, or its address.
    pub fn name(&self) -> String {
        match &self.host {
            NextHost::Name(name) => name.to_string(),
            NextHost::Address(address) => address.to_string(),
        }
    }
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A text that names no next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a next hop; write it like \"mail.example.org:25\", \"[192.0.2.1]:587\" or \"[2001:db8::1]\"")]
pub struct NoNextHop;

impl From<AddressError> for NoNextHop {
    fn from(_: AddressError) -> Self {
        Self
    }
}

impl FromStr for NextHop {
    type Err = NoNextHop;

    fn from_str(text: &str) -> Result<Self, NoNextHop> {
        let (host, rest) = match text.strip_prefix('[') {
            // As in Postfix, brackets mean: no MX lookup. They may hold a name.
            Some(inner) => inner.split_once(']').ok_or(NoNextHop)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => 25,
            None => return Err(NoNextHop),
            Some("smtp") => 25,
            Some(port) => port.parse().map_err(|_| NoNextHop)?,
        };
        let bare = host.strip_prefix("IPv6:").unwrap_or(host);
        let host = match bare.parse() {
            Ok(address) => NextHost::Address(address),
            Err(_) => NextHost::Name(host.parse()?),
        };
        if port == 0 { Err(NoNextHop) } else { Ok(Self { host, port }) }
    }
}

impl TryFrom<String> for NextHop {
    type Error = NoNextHop;
    fn try_from(text: String) -> Result<Self, NoNextHop> {
        text.parse()
    }
}
impl From<NextHop> for String {
    fn from(hop: NextHop) -> Self {
        hop.to_string()
    }
}
impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            NextHost::Name(name) => write!(f, "{name}:{}", self.port),
            NextHost::Address(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// Which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Into a mailbox here.
    Local(LocalMailbox),
    /// To another host.
    Remote(NextHop),
}

/// All local mailboxes share one queue.
const LOCAL: &str = "local";
/// Before the next hop in a destination's name, and in Postfix's FILTER.
const SMTP: &str = "smtp:";
/// What has no route shares one, too: nothing is to be waited for there.
const NOWHERE: &str = "nowhere";

impl Route {
    /// The queue that it belongs to.
    fn destination(&self) -> Destination {
        match self {
            Self::Local(_) => Destination::new(LOCAL),
            Self::Remote(hop) => Destination::new(format!("{SMTP}{hop}")),
        }
    }
}

/// What waits at a destination.
pub(super) enum Transport {
    /// Mailboxes here.
    Local,
    /// Another host.
    Remote(NextHop),
    /// Nothing: each recipient's route says why.
    Nowhere,
}

impl From<&Destination> for Transport {
    fn from(destination: &Destination) -> Self {
        match (destination.as_str(), destination.as_str().strip_prefix(SMTP).map(str::parse)) {
            (LOCAL, _) => Self::Local,
            (_, Some(Ok(hop))) => Self::Remote(hop),
            _ => Self::Nowhere,
        }
    }
}

/// Decides where mail goes, by what the directory and the config say.
pub(super) struct Routes {
    directory: Arc<Directory>,
    relay_host: Option<NextHop>,
    relay: Destination,
}

impl Routes {
    /// As the config says.
    pub fn new(directory: Arc<Directory>, config: &super::Config) -> Self {
        let relay_host = config.relay_host.clone();
        let name = relay_host.as_ref().map_or_else(|| NOWHERE.to_owned(), |hop| format!("{SMTP}{hop}"));
        Self { directory, relay_host, relay: Destination::new(name) }
    }

    /// Which way. Mail in the queue was checked at RCPT; what cannot be routed any more, because the config has changed, is the reply.
    pub fn find(&self, path: &ForwardPath, filter: Option<&str>) -> Result<Route, Reply> {
        route(&self.directory, self.relay_host.as_ref(), filter, path)
    }

    /// The queue for it.
    pub fn destination(&self, recipient: &ForwardPath, filter: Option<&str>) -> Destination {
        match self.find(recipient, filter) {
            // Most mail goes this way; its name need not be put together each time.
            Ok(Route::Remote(hop)) if Some(&hop) == self.relay_host.as_ref() => self.relay.clone(),
            Ok(route) => route.destination(),
            Err(_) => Destination::new(NOWHERE),
        }
    }
}

/// Decides. `filter` is what a policy set (`smtp:[192.0.2.1]:10025`).
fn route(
    directory: &Directory,
    relay_host: Option<&NextHop>,
    filter: Option<&str>,
    path: &ForwardPath,
) -> Result<Route, Reply> {
    if let Some(filter) = filter {
        return filter_route(filter)
            .ok_or_else(|| Reply::transient(451, (3, 5), format!("unknown filter destination {filter}")));
    }
    match directory.resolve(path, true)? {
        crate::directory::Destination::Local(mailbox) => Ok(Route::Local(mailbox)),
        crate::directory::Destination::Relay => relay_host.cloned().map(Route::Remote).ok_or_else(no_route),
    }
}

/// For RCPT: nobody takes mail for other domains.
pub fn no_route() -> Reply {
    Reply::permanent(550, (4, 4), "mail for other domains is not taken here: no relay host is configured")
}

fn filter_route(filter: &str) -> Option<Route> {
    let (transport, hop) = filter.split_once(':')?;
    matches!(transport, "smtp" | "relay").then(|| hop.parse().ok()).flatten().map(Route::Remote)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::directory;

    #[test]
    fn next_hops() {
        for (text, shown) in [
            ("mail.example.org", "mail.example.org:25"),
            ("mail.example.org:587", "mail.example.org:587"),
            ("[127.0.0.1]:2525", "[127.0.0.1]:2525"),
            ("127.0.0.1:2525", "[127.0.0.1]:2525"),
            ("[2001:db8::1]", "[2001:db8::1]:25"),
            ("[IPv6:2001:db8::1]:26", "[2001:db8::1]:26"),
            ("[mail.example.org]:smtp", "mail.example.org:25"),
        ] {
            assert_eq!(text.parse::<NextHop>().unwrap().to_string(), shown);
            assert_eq!(shown.parse::<NextHop>().unwrap().to_string(), shown);
        }
        for bad in ["", ":25", "a:b", "a:0", "a:65536", "[127.0.0.1", "[a]b", "a b", "a:25:26"] {
            assert!(bad.parse::<NextHop>().is_err(), "{bad}");
        }
    }

    #[test]
    fn routes() {
        let config = directory::Config {
            local_domains: vec!["example.org".parse().unwrap()],
            users: vec!["ann".into()],
            ..directory::Config::default()
        };
        let directory = Directory::open(&config, "mx.example.org".parse().unwrap(), []).unwrap();
        let hop: NextHop = "[127.0.0.1]:26".parse().unwrap();
        let to = |path: &str, hop, filter| route(&directory, hop, filter, &path.parse().unwrap());
        assert_eq!(to("ann@example.org", None, None).unwrap().destination().as_str(), "local");
        assert_eq!(to("x@a.example", Some(&hop), None).unwrap().destination().as_str(), "smtp:[127.0.0.1]:26");
        assert_eq!(to("x@a.example", None, None).unwrap_err().code(), 550);
        assert_eq!(to("bob@example.org", Some(&hop), None).unwrap_err().code(), 550);
        let filtered = to("ann@example.org", None, Some("smtp:[127.0.0.1]:10025")).unwrap();
        assert_eq!(filtered.destination().as_str(), "smtp:[127.0.0.1]:10025");
        assert_eq!(to("ann@example.org", None, Some("uucp:x")).unwrap_err().code(), 451);
    }
}
