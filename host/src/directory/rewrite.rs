//! What becomes of an envelope on its way into the queue: canonical addresses, virtual aliases, aliases, blind copies.
//! `man 5 canonical`, `virtual`, `aliases`; limits as in `man 5 postconf`.
//!
//! Aliases are expanded here too, and not when mail is delivered: each recipient that comes of them has a state of its own in the queue,
//! so that what is tried again goes to nobody twice, and nobody who is named by several aliases gets several copies.

use std::collections::HashSet;

use super::address::{self, Plain};
use super::include;
use super::maps::{Form, Maps, Match, about_address, about_alias};
use super::{Directory, Realm};
use crate::mail::{Envelope, ForwardPath, Notify, Recipient, Reply, ReversePath};

/// How often one address may be rewritten by virtual aliases, one after the other (virtual_alias_recursion_limit).
const MAX_STEPS: usize = 1000;
/// Addresses that may come of one (virtual_alias_expansion_limit).
const MAX_ADDRESSES: usize = 1000;
/// The same for aliases: mailing lists are larger.
const MAX_MEMBERS: usize = 10_000;
/// Octets of an address that comes of another (virtual_alias_address_length_limit).
const MAX_LENGTH: usize = 1000;
/// How deep aliases may name aliases.
const MAX_DEPTH: usize = 100;
/// How often a canonical address may be rewritten.
const MAX_CANONICAL: usize = 10;

/// Why an address cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// Aliases that name each other.
    #[error("alias database loop for {0}")]
    Loop(String),
    /// Virtual aliases without an end, or too many of them.
    #[error("the virtual aliases of {0} have no end or are too many or too long")]
    Endless(String),
    /// More members than are taken.
    #[error("the aliases of {0} are more than 10000 addresses or more than 100 deep")]
    TooMany(String),
    /// An entry in a table that leads nowhere.
    #[error("{place}: `{item}` {why}")]
    Entry {
        /// File and line.
        place: String,
        /// What stands there.
        item: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Trouble {
    /// What a client hears who names this address. The detail is for the log.
    pub fn reply(&self, address: &str) -> Reply {
        match self {
            Self::Loop(name) => {
                let text = format!("<{address}>: Recipient address rejected: alias database loop for {name}");
                Reply::permanent(550, (4, 6), text)
            }
            Self::Endless(_) => Reply::transient(451, (6, 0), "Alias expansion error"),
            Self::TooMany(_) | Self::Entry { .. } => {
                Reply::transient(451, (3, 5), format!("<{address}>: mail system configuration error"))
            }
        }
    }
}

impl Directory {
    /// The envelope as it shall be queued. An empty list of recipients means that all were aliases for nobody.
    pub fn rewrite(&self, envelope: &Envelope) -> Result<Envelope, Reply> {
        let mut new = envelope.clone();
        let maps = &self.maps;
        if let ReversePath::Mailbox(mailbox) = &envelope.reverse_path {
            let sender = Plain::from(mailbox);
            let rewritten = self.canonical(sender.clone(), [&maps.sender_canonical, &maps.canonical]);
            if let Some(ForwardPath::Mailbox(mailbox)) = rewritten.path().filter(|_| rewritten != sender) {
                new.reverse_path = ReversePath::Mailbox(mailbox);
            }
        }
        let mut blind: Vec<Plain> = maps.always_bcc.iter().map(|text| self.plain(text)).collect();
        if let ReversePath::Mailbox(mailbox) = &new.reverse_path {
            blind.extend(self.copy_of(&maps.sender_bcc, &Plain::from(mailbox)));
        }
        new.recipients.clear();
        let mut known = HashSet::new();
        for recipient in &envelope.recipients {
            let own = Plain::of(&recipient.forward_path, &self.hostname);
            let canonical = self.canonical(own.clone(), [&maps.recipient_canonical, &maps.canonical]);
            blind.extend(self.copy_of(&maps.recipient_bcc, &canonical));
            let targets = self.expand(&canonical).map_err(|trouble| told(&trouble).reply(&own.quoted()))?;
            for target in targets {
                if known.insert(self.place(&target)) {
                    new.recipients.extend(heir(recipient, &own, &target, new.recipients.len()));
                }
            }
        }
        for copy in blind {
            let canonical = self.canonical(copy, [&maps.recipient_canonical, &maps.canonical]);
            for target in self.expand(&canonical).map_err(|trouble| told(&trouble).reply(&canonical.quoted()))? {
                // The sender did not name this one and hears nothing of it.
                let silent = |path| Recipient { notify: Some(Notify::NEVER), ..Recipient::new(path) };
                if known.insert(self.place(&target)) {
                    new.recipients.extend(target.path().map(silent));
                }
            }
        }
        Ok(new)
    }

    /// What two addresses have in common that lead to the same mailbox.
    fn place(&self, address: &Plain) -> String {
        match address.domain.parse().map(|host| self.realm(&host)) {
            Ok(Realm::Local(_)) => address.local.to_lowercase(),
            _ => address.folded(),
        }
    }

    /// An address of a table or the config; without a domain it is one of this host.
    pub(super) fn plain(&self, text: &str) -> Plain {
        Plain::parse(text, &self.hostname)
    }

    fn copy_of(&self, maps: &Maps, address: &Plain) -> Option<Plain> {
        self.match_of(maps, address).map(|found| self.plain(found.found.value.trim()))
    }

    /// What a table says about an address, in the order of `man 5 virtual`.
    pub(super) fn match_of(&self, maps: &Maps, address: &Plain) -> Option<Match> {
        if maps.0.is_empty() {
            return None;
        }
        let local = address.domain.parse().is_ok_and(|host| matches!(self.realm(&host), Realm::Local(_)));
        maps.find(about_address(address, &self.delimiters, Form::Rewriting { local }))
    }

    /// The addresses that a table makes of one. `@domain` keeps the name; what follows the delimiter goes along.
    fn mapped(&self, maps: &Maps, address: &Plain) -> Option<Vec<Plain>> {
        let Match { found, extension } = self.match_of(maps, address)?;
        let extension = extension.unwrap_or_default();
        if let Some(domain) = found.value.trim().strip_prefix('@') {
            return Some(vec![Plain { local: address.local.clone(), domain: domain.to_owned() }]);
        }
        let with_extension = |text: String| {
            let plain = self.plain(&text);
            Plain { local: plain.local + &extension, ..plain }
        };
        Some(address::list(&found.value).into_iter().map(with_extension).collect())
    }

    pub(super) fn canonical(&self, address: Plain, maps: [&Maps; 2]) -> Plain {
        let mut address = address;
        for maps in maps {
            for _ in 0..MAX_CANONICAL {
                let Some(new) = self.mapped(maps, &address).and_then(|list| list.into_iter().next()) else { break };
                let same = new.folded() == address.folded();
                address = new;
                if same {
                    break;
                }
            }
        }
        address
    }

    /// All that an address stands for. Without an entry anywhere that is the address itself.
    pub(super) fn expand(&self, address: &Plain) -> Result<Vec<Plain>, Trouble> {
        let mut expansion = Expansion { directory: self, targets: Vec::new(), done: HashSet::new(), path: Vec::new() };
        expansion.add(address)?;
        Ok(expansion.targets)
    }

    /// What virtual aliases make of an address. One that stands for itself among others is not asked about again.
    fn virtually(&self, address: &Plain) -> Result<Vec<Plain>, Trouble> {
        let endless = || Trouble::Endless(address.quoted());
        let mut addresses = vec![address.clone()];
        let mut settled = HashSet::new();
        let mut at = 0;
        while let Some(current) = addresses.get(at).cloned() {
            let mut current = current;
            for step in 0.. {
                if settled.contains(&current.folded()) {
                    break;
                }
                let Some(list) = self.mapped(&self.maps.virtual_aliases, &current) else { break };
                if step >= MAX_STEPS || list.is_empty() || list.iter().any(|new| new.quoted().len() > MAX_LENGTH) {
                    return Err(endless());
                }
                if list.iter().any(|new| new.folded() == current.folded()) {
                    settled.insert(current.folded());
                }
                let mut list = list.into_iter();
                current = list.next().unwrap_or(current);
                addresses.extend(list);
                if addresses.len() > MAX_ADDRESSES {
                    return Err(endless());
                }
            }
            if let Some(place) = addresses.get_mut(at) {
                *place = current;
            }
            at += 1;
        }
        Ok(addresses)
    }
}

/// The recipient that takes the place of one that was expanded. RFC 3461 §5.2.7.3 (c): what the sender wants to hear of a delivery goes
/// to one of many; all keep the original address.
fn heir(recipient: &Recipient, own: &Plain, target: &Plain, before: usize) -> Option<Recipient> {
    if target.folded() == own.folded() {
        return Some(recipient.clone());
    }
    let original = recipient.original.clone().or_else(|| Some(format!("rfc822;{}", xtext(&own.quoted()))));
    let notify = recipient.notify.map(|notify| match notify {
        Notify { success: true, .. } if before > 0 => Notify { success: false, ..notify },
        notify => notify,
    });
    Some(Recipient { forward_path: target.path()?, original: original.filter(|text| text.is_ascii()), notify })
}

/// RFC 3461 §4.
fn xtext(text: &str) -> String {
    let escape = |c: char| match c {
        '+' | '=' => format!("+{:02X}", u32::from(c)),
        c if c.is_ascii_graphic() || !c.is_ascii() => c.to_string(),
        c => format!("+{:02X}", u32::from(c)),
    };
    text.chars().map(escape).collect()
}

/// Notes it in the log: it is the operator's to mend.
pub(super) fn told(trouble: &Trouble) -> &Trouble {
    tracing::warn!("mail is refused: {trouble}");
    trouble
}

/// Aliases of this host, on their way to those they stand for.
struct Expansion<'a> {
    directory: &'a Directory,
    targets: Vec<Plain>,
    /// Aliases and include files that were expanded: once is enough.
    done: HashSet<String>,
    /// Aliases that are being expanded, from the outermost on.
    path: Vec<String>,
}

impl Expansion<'_> {
    fn add(&mut self, address: &Plain) -> Result<(), Trouble> {
        for address in self.directory.virtually(address)? {
            let local = address.domain.parse().is_ok_and(|host| matches!(self.directory.realm(&host), Realm::Local(_)));
            if !(local && self.alias(&address)?) {
                self.targets.push(address);
            }
        }
        if self.targets.len() > MAX_MEMBERS { Err(Trouble::TooMany(self.outermost())) } else { Ok(()) }
    }

    fn outermost(&self) -> String {
        self.path.first().cloned().unwrap_or_default()
    }

    /// Expands an alias, if it is one: all of the local part, then what stands before the delimiter.
    fn alias(&mut self, address: &Plain) -> Result<bool, Trouble> {
        let bare = address.without_extension(&self.directory.delimiters).map(|(bare, _)| bare.local);
        for name in std::iter::once(address.local.clone()).chain(bare) {
            let name = name.to_lowercase();
            // An alias that has its own name among its values means the user of that name.
            if self.path.last() == Some(&name) {
                return Ok(false);
            }
            let Some(Match { found, .. }) = self.directory.maps.aliases.find(about_alias(&name)) else { continue };
            if self.path.contains(&name) {
                return Err(Trouble::Loop(name));
            }
            if !self.done.insert(name.clone()) {
                return Ok(true);
            }
            if self.path.len() >= MAX_DEPTH {
                return Err(Trouble::TooMany(self.outermost()));
            }
            let place = match found.line {
                Some(line) => format!("{}:{line}", found.table.name()),
                None => found.table.to_string(),
            };
            self.path.push(name);
            address::list(&found.value).iter().try_for_each(|item| self.item(item, &place))?;
            self.path.pop();
            return Ok(true);
        }
        Ok(false)
    }

    /// One value of an alias.
    fn item(&mut self, item: &str, place: &str) -> Result<(), Trouble> {
        let entry = |why: &str| Trouble::Entry { place: place.into(), item: item.into(), why: why.into() };
        let is_include = item.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(":include:"));
        if is_include {
            let file = item.get(9..).unwrap_or_default();
            if !self.done.insert(item.to_owned()) {
                return Ok(());
            }
            let lines = include::read(file).map_err(|why| entry(&why))?;
            for (line, items) in lines {
                let place = format!("{file}:{line}");
                items.iter().try_for_each(|item| self.item(item, &place))?;
            }
            return Ok(());
        }
        match item.chars().next() {
            _ if item == "/dev/null" => Ok(()),
            Some('|') => Err(entry("is a command, and none is run here; name a user or another host's address")),
            Some('/' | '~') => Err(entry("is a file, and mail goes into Maildirs only; name a user")),
            // `\user`: the user, whatever aliases say.
            Some('\\') => {
                let user = item.get(1..).unwrap_or_default();
                self.targets.push(self.directory.plain(user));
                Ok(())
            }
            _ => {
                let address = self.directory.plain(item);
                if address.path().is_none() {
                    return Err(entry("is no address; write user or user@domain"));
                }
                self.add(&address)
            }
        }
    }
}
