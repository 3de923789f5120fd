//! What the config says of addresses: `[directory]`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::table::TableName;
use super::{DomainPattern, Network};
use crate::mail::{AddressError, Domain};

/// Who is local, where mail may be relayed to, and for whom: `[directory]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Domains whose mail ends here, in the mailboxes of `users`. The host's own name and its address literals always do. Default none.
    #[serde(deserialize_with = "domains")]
    pub local_domains: Vec<Domain>,
    /// Domains whose mail is taken from everybody and passed on; `.example.org` means all names below it. Default none.
    #[serde(deserialize_with = "domains")]
    pub relay_domains: Vec<DomainPattern>,
    /// Networks whose clients may send to everywhere. Default loopback alone: nobody becomes an open relay by leaving this out.
    pub trusted_networks: Vec<Network>,
    /// Users who have a mailbox, without domain; case does not count. Default none.
    pub users: Vec<String>,
    /// A file with more of them, one a line; of lines like those of `/etc/passwd` the first field counts. Default none.
    pub users_file: Option<PathBuf>,
    /// Whether every well-formed name has a mailbox. Default false; for trying things out.
    pub any_user: bool,
    /// Who gets mail for names that no user has. Default nobody: it is refused.
    pub catch_all: Option<String>,
    /// Who gets mail for `postmaster`, which is always taken (RFC 5321 §4.5.1). Default `postmaster`, a mailbox of that name.
    pub postmaster: String,
    /// Characters of which the first one ends the user's name: `ann+lists` is Ann's. Default `+`; empty for none.
    pub recipient_delimiter: String,
    /// Where a user's Maildir lies: `{user}`, `{domain}` and `{data-dir}` are filled in. Default `{data-dir}/mail/{user}`.
    pub maildir: String,
    /// Tables of what local names stand for (`man 5 aliases`). Default none.
    pub aliases: Vec<TableName>,
    /// Tables of what addresses of any domain stand for (`man 5 virtual`). Default none.
    pub virtual_aliases: Vec<TableName>,
    /// Domains of which every address is in `virtual_aliases`. Default none.
    #[serde(deserialize_with = "domains")]
    pub virtual_alias_domains: Vec<DomainPattern>,
    /// Domains of which every address has a Maildir in `virtual_mailboxes`. Default none.
    #[serde(deserialize_with = "domains")]
    pub virtual_mailbox_domains: Vec<DomainPattern>,
    /// Tables of their Maildirs, below `virtual_mailbox_base`. Default none.
    pub virtual_mailboxes: Vec<TableName>,
    /// Where the Maildirs of `virtual_mailboxes` begin; `{data-dir}` is filled in. Default `{data-dir}/virtual`.
    pub virtual_mailbox_base: String,
    /// Tables of the addresses in `relay_domains` that there are. Default none: all are taken.
    pub relay_recipients: Vec<TableName>,
    /// Tables of better addresses for senders and recipients (`man 5 canonical`). Default none.
    pub canonical: Vec<TableName>,
    /// The same for senders alone, asked first. Default none.
    pub sender_canonical: Vec<TableName>,
    /// The same for recipients alone, asked first. Default none.
    pub recipient_canonical: Vec<TableName>,
    /// Tables of those who have moved, and where to (`man 5 relocated`). Default none.
    pub relocated: Vec<TableName>,
    /// Who gets a blind copy of every message. Default nobody.
    pub always_bcc: Option<String>,
    /// Tables of who gets a blind copy, by sender. Default none.
    pub sender_bcc: Vec<TableName>,
    /// Tables of who gets a blind copy, by recipient. Default none.
    pub recipient_bcc: Vec<TableName>,
    /// Tables of who may and who may not, by the client's name and address (`man 5 access`). Default none.
    pub client_access: Vec<TableName>,
    /// The same by the name in HELO. Default none.
    pub helo_access: Vec<TableName>,
    /// The same by the sender. Default none.
    pub sender_access: Vec<TableName>,
    /// The same by the recipient. Default none.
    pub recipient_access: Vec<TableName>,
    /// Whether `example.org` in access tables means the names below it too; else `.example.org` does. Default true.
    pub parent_domain_matches: bool,
}

impl Config {
    /// Makes file names independent of the working directory.
    pub fn start_from(&mut self, folder: &Path) {
        let lists = [
            &mut self.aliases,
            &mut self.virtual_aliases,
            &mut self.virtual_mailboxes,
            &mut self.relay_recipients,
            &mut self.canonical,
            &mut self.sender_canonical,
            &mut self.recipient_canonical,
            &mut self.relocated,
            &mut self.sender_bcc,
            &mut self.recipient_bcc,
            &mut self.client_access,
            &mut self.helo_access,
            &mut self.sender_access,
            &mut self.recipient_access,
        ];
        for name in lists.into_iter().flatten() {
            *name = name.in_folder(folder);
        }
        if let Some(file) = &mut self.users_file {
            *file = folder.join(&*file);
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            local_domains: Vec::new(),
            relay_domains: Vec::new(),
            trusted_networks: Network::loopback().to_vec(),
            users: Vec::new(),
            users_file: None,
            any_user: false,
            catch_all: None,
            postmaster: "postmaster".into(),
            recipient_delimiter: "+".into(),
            maildir: "{data-dir}/mail/{user}".into(),
            aliases: Vec::new(),
            virtual_aliases: Vec::new(),
            virtual_alias_domains: Vec::new(),
            virtual_mailbox_domains: Vec::new(),
            virtual_mailboxes: Vec::new(),
            virtual_mailbox_base: "{data-dir}/virtual".into(),
            relay_recipients: Vec::new(),
            canonical: Vec::new(),
            sender_canonical: Vec::new(),
            recipient_canonical: Vec::new(),
            relocated: Vec::new(),
            always_bcc: None,
            sender_bcc: Vec::new(),
            recipient_bcc: Vec::new(),
            client_access: Vec::new(),
            helo_access: Vec::new(),
            sender_access: Vec::new(),
            recipient_access: Vec::new(),
            parent_domain_matches: true,
        }
    }
}

/// A list, with a message that says which of its texts is wrong.
fn domains<'de, D: Deserializer<'de>, T: FromStr<Err = AddressError>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let wrong = |text: &str, err| format!("`{text}`: {err}; write a name like \"example.org\"");
    let parse = |text: String| text.parse().map_err(|err| serde::de::Error::custom(wrong(&text, err)));
    texts.into_iter().map(parse).collect()
}
