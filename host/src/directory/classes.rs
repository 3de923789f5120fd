//! The tables of `[directory]`, and what they say of a recipient at RCPT. `man 5 postconf`: address classes.

use std::sync::Arc;
use std::time::Duration;

use super::access::Lists;
use super::address::Plain;
use super::maps::{Maps, about_alias};
use super::rewrite::told;
use super::table::{Purpose, TableError, TableName, Tables};
use super::{Admission, Config, Destination, Directory, Realm, is_routed, relay_denied, unknown_user};
use crate::mail::{ForwardPath, Reply};

/// How often files of tables are looked at. A change counts from the second look on.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// All tables by what they are for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct AllMaps {
    pub tables: Tables,
    pub aliases: Maps,
    pub virtual_aliases: Maps,
    pub virtual_mailboxes: Maps,
    pub relay_recipients: Maps,
    pub canonical: Maps,
    pub sender_canonical: Maps,
    pub recipient_canonical: Maps,
    pub relocated: Maps,
    pub always_bcc: Option<String>,
    pub sender_bcc: Maps,
    pub recipient_bcc: Maps,
    pub access: Lists,
    pub parent_domain_matches: bool,
}

impl AllMaps {
    /// Reads them; the error names the key of the list and the place in it.
    pub fn open(config: &Config) -> Result<Self, (String, TableError)> {
        let mut tables = Tables::default();
        let mut open = |key: &str, purpose: Purpose, names: &[TableName]| {
            let mut list = Vec::new();
            for (index, name) in names.iter().enumerate() {
                list.push(tables.open(name, purpose).map_err(|err| (format!("{key}.{index}"), err))?);
            }
            Ok(Maps(list))
        };
        use Purpose::{Aliases, Delivery, General};
        let all = Self {
            aliases: open("aliases", Aliases, &config.aliases)?,
            virtual_aliases: open("virtual-aliases", General, &config.virtual_aliases)?,
            virtual_mailboxes: open("virtual-mailboxes", Delivery, &config.virtual_mailboxes)?,
            relay_recipients: open("relay-recipients", General, &config.relay_recipients)?,
            canonical: open("canonical", General, &config.canonical)?,
            sender_canonical: open("sender-canonical", General, &config.sender_canonical)?,
            recipient_canonical: open("recipient-canonical", General, &config.recipient_canonical)?,
            relocated: open("relocated", General, &config.relocated)?,
            always_bcc: config.always_bcc.clone(),
            sender_bcc: open("sender-bcc", General, &config.sender_bcc)?,
            recipient_bcc: open("recipient-bcc", General, &config.recipient_bcc)?,
            access: Lists {
                client: apart(open("client-access", General, &config.client_access)?),
                helo: apart(open("helo-access", General, &config.helo_access)?),
                sender: apart(open("sender-access", General, &config.sender_access)?),
                recipient: apart(open("recipient-access", General, &config.recipient_access)?),
            },
            parent_domain_matches: config.parent_domain_matches,
            tables: Tables::default(),
        };
        Ok(Self { tables, ..all })
    }
}

/// Each table by itself: one that says DUNNO passes the question on to the next.
fn apart(maps: Maps) -> Vec<Maps> {
    maps.0.into_iter().map(|table| Maps(vec![table])).collect()
}

impl Directory {
    /// Whether mail to `path` is taken at RCPT, from this client; what a refusal says is what Postfix says.
    pub fn admit(&self, path: &ForwardPath, trusted: bool) -> Result<Admission, Reply> {
        let own = Plain::of(path, &self.hostname);
        let realm = own.domain.parse().map(|host| self.realm(&host)).unwrap_or(Realm::Foreign);
        if let ForwardPath::Mailbox(mailbox) = path {
            match realm {
                Realm::Foreign if !trusted => return Err(relay_denied(mailbox)),
                // Postfix's allow_untrusted_routing = no; no table may lead around it.
                Realm::Foreign => {}
                _ if is_routed(&own.local) => return self.resolve(path, trusted).map(admission),
                _ => {}
            }
        }
        let maps = &self.maps;
        let is_rewritten = [&maps.recipient_canonical, &maps.canonical, &maps.virtual_aliases]
            .into_iter()
            .any(|maps| self.match_of(maps, &own).is_some());
        if !is_rewritten {
            if let Some(moved) = self.match_of(&maps.relocated, &own) {
                let text = format!("<{path}>: Recipient address rejected: User has moved to {}", moved.found.value);
                return Err(Reply::permanent(550, (1, 6), text));
            }
            self.listed(path, &own, &realm)?;
        }
        let canonical = self.canonical(own.clone(), [&maps.recipient_canonical, &maps.canonical]);
        let targets = self.expand(&canonical).map_err(|trouble| told(&trouble).reply(&own.quoted()))?;
        let mut refusal = None;
        let mut elsewhere = false;
        for target in &targets {
            let resolved = match target.path() {
                _ if target.folded() == own.folded() => self.resolve(path, true),
                Some(path) => self.resolve(&path, true),
                None => Err(unknown_user(path)),
            };
            match resolved {
                Ok(Destination::Relay) => elsewhere = true,
                Ok(Destination::Local(_)) => return Ok(Admission::Here),
                Err(reply) if target.folded() == own.folded() => refusal = Some(reply),
                // Where an alias leads is nobody's business.
                Err(_) => drop(refusal.get_or_insert_with(|| unknown_user(path))),
            }
        }
        match refusal {
            _ if elsewhere => Ok(Admission::Elsewhere),
            Some(reply) => Err(reply),
            None => Ok(Admission::Here), // an alias for /dev/null
        }
    }

    /// Whether an address is in the tables of its class.
    fn listed(&self, path: &ForwardPath, own: &Plain, realm: &Realm) -> Result<(), Reply> {
        let unknown = |table: &str| {
            let text = format!("<{path}>: Recipient address rejected: User unknown in {table} table");
            Err(Reply::permanent(550, (1, 1), text))
        };
        let maps = &self.maps;
        match realm {
            Realm::Local(_) => {
                let bare = own.without_extension(&self.delimiters).map(|(bare, _)| bare.local);
                let mut names = std::iter::once(own.local.clone()).chain(bare);
                let is_alias = names.any(|name| maps.aliases.find(about_alias(&name)).is_some());
                if is_alias || self.users.find(&own.local).is_some() { Ok(()) } else { unknown("local recipient") }
            }
            Realm::VirtualAlias => unknown("virtual alias"),
            Realm::VirtualMailbox(_) if self.match_of(&maps.virtual_mailboxes, own).is_none() => {
                unknown("virtual mailbox")
            }
            Realm::Relay
                if !maps.relay_recipients.0.is_empty() && self.match_of(&maps.relay_recipients, own).is_none() =>
            {
                unknown("relay recipient")
            }
            Realm::VirtualMailbox(_) | Realm::Relay | Realm::Foreign => Ok(()),
        }
    }

    /// Looks whether files of tables have changed, and reads those that have. Blocks on the disk.
    fn refresh(&self) {
        self.maps.tables.refresh();
    }

    /// Has somebody call `refresh` as long as this directory is in use.
    pub fn follow(self: &Arc<Self>) {
        if self.maps.tables.is_empty() {
            return;
        }
        let directory = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            loop {
                ticks.tick().await;
                let Some(directory) = directory.upgrade() else { return };
                if tokio::task::spawn_blocking(move || directory.refresh()).await.is_err() {
                    return; // the process ends
                }
            }
        });
    }

    /// Whether `rewrite` can change anything.
    pub fn rewrites(&self) -> bool {
        let maps = &self.maps;
        let lists = [
            &maps.aliases,
            &maps.virtual_aliases,
            &maps.canonical,
            &maps.sender_canonical,
            &maps.recipient_canonical,
            &maps.sender_bcc,
            &maps.recipient_bcc,
        ];
        maps.always_bcc.is_some() || lists.iter().any(|maps| !maps.0.is_empty())
    }
}

fn admission(destination: Destination) -> Admission {
    match destination {
        Destination::Local(_) => Admission::Here,
        Destination::Relay => Admission::Elsewhere,
    }
}
