//! Who is local, and what is relayed for whom: a forward-path goes in, a destination or a refusal comes out.
//! RFC 5321 §3.6 (relaying), §4.5.1 (postmaster), §3.3 and appendix C (source routes are gone before they come here).
//!
//! - `table` reads lookup tables in Postfix's formats, `maps` asks them in Postfix's order;
//! - `classes` says whether a recipient is known: local, virtual alias, virtual mailbox, relay or elsewhere;
//! - `rewrite` says who gets a message: canonical addresses, virtual aliases, aliases, blind copies;
//! - `access` says who may send.
//!
//! Architecture invariant: an answer never waits for the network, and reads no file but the `:include:` of an alias. What else is read is
//! read when the directory is made, and by `refresh`.

mod access;
mod address;
mod classes;
mod config;
mod domain;
mod include;
mod maps;
mod network;
mod rewrite;
pub mod table;
mod users;

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

pub use access::{Access, Effect, Request};
pub use config::Config;
pub use domain::DomainPattern;
pub use network::{Network, NetworkError};
pub use users::UsersError;

use crate::mail::{Domain, ForwardPath, Host, Mailbox, Reply};
use address::Plain;
use classes::AllMaps;
use table::TableError;
use users::Users;

/// Where a message to one forward-path goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Into a mailbox here.
    Local(LocalMailbox),
    /// To another host; which one is for the router to say.
    Relay,
}

/// Where mail goes that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Some of it stays here, or all of it is thrown away.
    Here,
    /// All of it goes to other hosts.
    Elsewhere,
}

/// A user's mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalMailbox {
    user: String,
    domain: Domain,
    extension: Option<String>,
    /// Its Maildir, if a table says so.
    folder: Option<String>,
}

impl LocalMailbox {
    /// The user's name as the config writes it; safe as one part of a file name.
    pub fn user(&self) -> &str {
        &self.user
    }
    /// The domain that the mail was addressed to; the host's own for a bare postmaster and for address literals.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
    /// What stood behind the delimiter: `lists` of `ann+lists`. A sender chose it: never part of a file name.
    pub fn extension(&self) -> Option<&str> {
        self.extension.as_deref()
    }
}

/// Answers who is local and what may be relayed. Built once for each config.
#[derive(Debug, PartialEq)]
pub struct Directory {
    hostname: Domain,
    own_addresses: HashSet<IpAddr>,
    local_domains: HashSet<Domain>,
    relay_domains: Vec<DomainPattern>,
    trusted_networks: Vec<Network>,
    users: Users,
    maildir: String,
    virtual_alias_domains: Vec<DomainPattern>,
    virtual_mailbox_domains: Vec<DomainPattern>,
    virtual_mailbox_base: String,
    delimiters: String,
    maps: AllMaps,
}

/// Why there is no directory.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Of the users.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// Of a table: the key in `[directory]`, with the number in its list.
    #[error("{1}")]
    Table(String, TableError),
}

impl OpenError {
    /// The key in `[directory]` that is at fault.
    pub fn key(&self) -> &str {
        match self {
            Self::Users(err) => err.key(),
            Self::Table(key, _) => key,
        }
    }
}

/// Whose a domain is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Realm {
    Local(Domain),
    VirtualAlias,
    VirtualMailbox(Domain),
    Relay,
    Foreign,
}

impl Directory {
    /// Reads the users' file, if there is one. `own_addresses` are those whose literals mean this host (`user@[192.0.2.1]`); loopback
    /// needs no mention.
    pub fn open(
        config: &Config,
        hostname: Domain,
        own_addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            local_domains: config.local_domains.iter().cloned().chain([hostname.clone()]).collect(),
            hostname,
            own_addresses: own_addresses.into_iter().map(|address| address.to_canonical()).collect(),
            relay_domains: config.relay_domains.clone(),
            trusted_networks: config.trusted_networks.clone(),
            users: Users::read(config)?,
            maildir: config.maildir.clone(),
            virtual_alias_domains: config.virtual_alias_domains.clone(),
            virtual_mailbox_domains: config.virtual_mailbox_domains.clone(),
            virtual_mailbox_base: config.virtual_mailbox_base.clone(),
            delimiters: config.recipient_delimiter.clone(),
            maps: AllMaps::open(config).map_err(|(key, err)| OpenError::Table(key, err))?,
        })
    }

    /// Whether `open` would find the users and read the tables.
    pub fn check(config: &Config) -> Result<(), OpenError> {
        Users::read(config)?;
        AllMaps::open(config).map(drop).map_err(|(key, err)| OpenError::Table(key, err))
    }

    /// Whether clients at this address may send to everywhere.
    pub fn trusts(&self, client: IpAddr) -> bool {
        self.trusted_networks.iter().any(|network| network.contains(client))
    }

    /// Where mail to `path` goes, or why it is refused. No alias is looked up: that happened on the way into the queue. `trusted`: the
    /// client is in a trusted network or authenticated; for mail that is in the queue already it is true.
    pub fn resolve(&self, path: &ForwardPath, trusted: bool) -> Result<Destination, Reply> {
        let mailbox = match path {
            // RFC 5321 §4.5.1: "RCPT TO:<Postmaster>" without a domain is for this host.
            ForwardPath::Postmaster => return Ok(local(self.users.postmaster().into(), self.hostname.clone(), None)),
            ForwardPath::Mailbox(mailbox) => mailbox,
        };
        let local_part = mailbox.local_part().unquoted();
        match self.realm(mailbox.host()) {
            // Postfix's allow_untrusted_routing = no. Here routes are never followed, so a trusted client names a user that cannot be.
            Realm::Local(_) if is_routed(&local_part) && trusted => Err(unknown_user(path)),
            Realm::Local(_) if is_routed(&local_part) => Err(relay_denied(mailbox)),
            Realm::Local(domain) => match self.users.find(&local_part) {
                Some((user, extension)) => Ok(local(user, domain, extension)),
                None => Err(unknown_user(path)),
            },
            Realm::VirtualAlias | Realm::VirtualMailbox(_) if is_routed(&local_part) => Err(relay_denied(mailbox)),
            Realm::VirtualAlias => Err(unknown_user(path)),
            Realm::VirtualMailbox(domain) => self.virtual_mailbox(mailbox, domain).ok_or_else(|| unknown_user(path)),
            // A host behind us might undo the trick and send the mail on for a stranger, because it came from us.
            Realm::Relay if is_routed(&local_part) && !trusted => Err(relay_denied(mailbox)),
            Realm::Relay => Ok(Destination::Relay),
            Realm::Foreign if trusted => Ok(Destination::Relay),
            Realm::Foreign => Err(relay_denied(mailbox)),
        }
    }

    /// Where the Maildir of a mailbox lies.
    pub fn maildir(&self, mailbox: &LocalMailbox) -> PathBuf {
        if let Some(folder) = &mailbox.folder {
            return format!("{}/{folder}", self.virtual_mailbox_base).into();
        }
        let domain = mailbox.domain.to_lowercase(); // a domain has neither `/` nor an empty label
        self.maildir.replace("{domain}", &domain).replace("{user}", &mailbox.user).into()
    }

    fn virtual_mailbox(&self, mailbox: &Mailbox, domain: Domain) -> Option<Destination> {
        let address = Plain::from(mailbox);
        let found = self.match_of(&self.maps.virtual_mailboxes, &address)?;
        let extension = found.extension.as_deref().and_then(|text| text.get(1..)).map(str::to_owned); // delimiters are ASCII
        let folder = Some(found.found.value);
        Some(Destination::Local(LocalMailbox { user: address.local, domain, extension, folder }))
    }

    fn realm(&self, host: &Host) -> Realm {
        match host {
            Host::Domain(domain) if self.local_domains.contains(domain) => Realm::Local(domain.clone()),
            Host::Domain(domain) if self.virtual_alias_domains.iter().any(|pattern| pattern.matches(domain)) => {
                Realm::VirtualAlias
            }
            Host::Domain(domain) if self.virtual_mailbox_domains.iter().any(|pattern| pattern.matches(domain)) => {
                Realm::VirtualMailbox(domain.clone())
            }
            Host::Domain(domain) if self.relay_domains.iter().any(|pattern| pattern.matches(domain)) => Realm::Relay,
            Host::Domain(_) => Realm::Foreign,
            Host::Literal(address) => {
                let address = address.to_canonical();
                let own = address.is_loopback() || address.is_unspecified() || self.own_addresses.contains(&address);
                if own { Realm::Local(self.hostname.clone()) } else { Realm::Foreign }
            }
        }
    }
}

fn local(user: String, domain: Domain, extension: Option<&str>) -> Destination {
    Destination::Local(LocalMailbox { user, domain, extension: extension.map(Into::into), folder: None })
}

/// Whether a local part asks for another route: the percent hack, a UUCP path, an address within the address.
fn is_routed(local_part: &str) -> bool {
    local_part.contains(['@', '%', '!'])
}

fn unknown_user(path: &ForwardPath) -> Reply {
    let text = format!("<{path}>: Recipient address rejected: User unknown in local recipient table");
    Reply::permanent(550, (1, 1), text)
}

fn relay_denied(mailbox: &Mailbox) -> Reply {
    Reply::permanent(554, (7, 1), format!("<{mailbox}>: Relay access denied"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    fn directory(change: impl FnOnce(&mut Config)) -> Directory {
        let mut config = Config {
            local_domains: vec!["example.org".parse().unwrap()],
            relay_domains: vec!["relay.example".parse().unwrap(), ".below.example".parse().unwrap()],
            users: vec!["ann".into(), "Bob".into(), "with+plus".into()],
            ..Config::default()
        };
        change(&mut config);
        Directory::open(&config, "mx.example.org".parse().unwrap(), ["192.0.2.1".parse().unwrap()]).unwrap()
    }

    /// `user`, `user+extension`, `relay`, or the code of the refusal.
    fn resolve(directory: &Directory, path: &str, trusted: bool) -> String {
        match directory.resolve(&path.parse().expect(path), trusted) {
            Ok(Destination::Relay) => "relay".into(),
            Ok(Destination::Local(LocalMailbox { user, extension: None, .. })) => user,
            Ok(Destination::Local(LocalMailbox { user, extension: Some(extension), .. })) => {
                format!("{user} {extension}")
            }
            Err(reply) => format!("{} {}", reply.code(), reply.enhanced().unwrap()),
        }
    }

    const UNKNOWN: &str = "550 5.1.1";
    const DENIED: &str = "554 5.7.1";

    #[test]
    fn strangers_and_friends() {
        let directory = directory(|_| {});
        for (path, stranger, friend) in [
            ("ann@example.org", "ann", "ann"),
            ("ANN@EXAMPLE.ORG", "ann", "ann"),
            ("bob@example.org", "Bob", "Bob"),
            ("\"ann\"@example.org", "ann", "ann"),
            ("ann@mx.example.org", "ann", "ann"),
            ("ann@example.org.", "ann", "ann"),
            ("ann+lists+x@example.org", "ann lists+x", "ann lists+x"),
            ("ann+@example.org", "ann ", "ann "),
            ("with+plus@example.org", "with+plus", "with+plus"),
            ("with+plus+x@example.org", UNKNOWN, UNKNOWN),
            ("+ann@example.org", UNKNOWN, UNKNOWN),
            ("eve@example.org", UNKNOWN, UNKNOWN),
            ("ann@sub.example.org", DENIED, "relay"),
            ("eve@relay.example", "relay", "relay"),
            ("eve@sub.relay.example", DENIED, "relay"),
            ("eve@a.below.example", "relay", "relay"),
            ("eve@below.example", DENIED, "relay"),
            ("eve@notbelow.example", DENIED, "relay"),
            ("eve@elsewhere.example", DENIED, "relay"),
            ("postmaster", "postmaster", "postmaster"),
            ("PostMaster@example.org", "postmaster", "postmaster"),
            ("postmaster@elsewhere.example", DENIED, "relay"),
            ("ann@[192.0.2.1]", "ann", "ann"),
            ("ann@[127.0.0.1]", "ann", "ann"),
            ("ann@[IPv6:::1]", "ann", "ann"),
            ("ann@[IPv6:::ffff:192.0.2.1]", "ann", "ann"),
            ("ann@[192.0.2.2]", DENIED, "relay"),
            ("postmaster@[192.0.2.1]", "postmaster", "postmaster"),
        ] {
            assert_eq!(resolve(&directory, path, false), stranger, "{path} by a stranger");
            assert_eq!(resolve(&directory, path, true), friend, "{path} by a friend");
        }
    }

    #[test]
    fn no_open_relay_by_routes_within_the_local_part() {
        for routed in [
            "eve%elsewhere.example",
            "\"eve@elsewhere.example\"",
            "elsewhere.example!eve",
            "ann%elsewhere.example",
            "\"@relay.example:eve@elsewhere.example\"",
            "ann+x%elsewhere.example",
        ] {
            for wide in [false, true] {
                let directory = directory(|config| {
                    config.any_user = wide;
                    config.catch_all = wide.then(|| "ann".to_owned());
                });
                for host in ["example.org", "mx.example.org", "relay.example", "a.below.example", "[127.0.0.1]"] {
                    let path = format!("{routed}@{host}");
                    assert_eq!(resolve(&directory, &path, false), DENIED, "{path}");
                }
                assert_eq!(resolve(&directory, &format!("{routed}@example.org"), true), UNKNOWN, "{routed}");
            }
        }
    }

    #[test]
    fn any_user_takes_only_names_that_are_safe_in_a_path() {
        let directory = directory(|config| config.any_user = true);
        assert_eq!(resolve(&directory, "Carol.X-1_y@example.org", false), "carol.x-1_y");
        assert_eq!(resolve(&directory, "carol+lists@example.org", false), "carol lists");
        assert_eq!(resolve(&directory, "BOB@example.org", false), "Bob");
        let long = format!("{}@example.org", "a".repeat(65));
        for path in [
            "\"../x\"@example.org",
            "\".\"@example.org",
            "a/b@example.org",
            "\"a b\"@example.org",
            "\"\"@example.org",
            &long,
        ] {
            assert_eq!(resolve(&directory, path, false), UNKNOWN, "{path}");
        }
    }

    #[test]
    fn a_catch_all_catches() {
        let directory = directory(|config| config.catch_all = Some("Bob".into()));
        assert_eq!(resolve(&directory, "nobody@example.org", false), "Bob");
        assert_eq!(resolve(&directory, "ann+x@example.org", false), "ann x");
        assert_eq!(resolve(&directory, "nobody@elsewhere.example", false), DENIED);
    }

    #[test]
    fn postmaster_goes_where_the_config_says() {
        let directory = directory(|config| config.postmaster = "ann".into());
        assert_eq!(resolve(&directory, "postmaster", false), "ann");
        assert_eq!(resolve(&directory, "POSTMASTER+x@example.org", false), "ann x");
    }

    #[test]
    fn the_words_of_a_refusal() {
        let directory = directory(|_| {});
        let refusal = |path: &str| directory.resolve(&path.parse().unwrap(), false).unwrap_err().to_string();
        assert_eq!(
            refusal("eve@example.org"),
            "550 5.1.1 <eve@example.org>: Recipient address rejected: User unknown in local recipient table"
        );
        assert_eq!(refusal("eve@elsewhere.example"), "554 5.7.1 <eve@elsewhere.example>: Relay access denied");
    }

    #[test]
    fn maildirs() {
        let directory = directory(|config| config.maildir = "/mail/{domain}/{user}".into());
        let Ok(Destination::Local(mailbox)) = directory.resolve(&"Bob+x@Example.ORG".parse().unwrap(), false) else {
            panic!("Bob is local")
        };
        assert_eq!(directory.maildir(&mailbox), Path::new("/mail/example.org/Bob"));
    }

    #[test]
    fn trust() {
        let directory = directory(|_| {});
        for (client, trusted) in [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("192.0.2.1", false)]
        {
            assert_eq!(directory.trusts(client.parse().unwrap()), trusted, "{client}");
        }
    }
}
