//! What the config says of addresses: `[directory]`.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

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
