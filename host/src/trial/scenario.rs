//! What an author writes: `[[case]]` after `[[case]]`, each a mail of one session, in order; what the policy keeps in `kv` goes from one to
//! the next.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::units::{ByteSize, Duration};

/// A scenario file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Scenario {
    /// Settings of the policy, as in `[plugin.NAME]`. Default none.
    #[serde(deserialize_with = "settings")]
    pub settings: Option<Value>,
    /// What it is granted. Default: whatever it imports.
    pub grants: Option<Vec<String>>,
    /// How long one call may take. Default 2s, as for the server.
    pub timeout: Option<Duration>,
    /// How much memory one instance may have. Default 64 MiB, as for the server.
    pub memory: Option<ByteSize>,
    /// The mails, in order.
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
}

/// One mail of one session.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Other settings from this case on: the policy is loaded anew, and its keys stay.
    #[serde(deserialize_with = "settings")]
    pub settings: Option<Value>,
    /// How much time goes by before it. Default none: the clock stands.
    pub wait: Option<Duration>,
    /// How often it comes. Each must turn out as expected. Default once.
    pub repeat: u32,
    /// The listener's name. Default `smtp`.
    pub listener: String,
    /// The client's address. Default 192.0.2.1.
    pub client: IpAddr,
    /// The client's name, where reverse and forward DNS agree. Default none.
    pub client_name: Option<String>,
    /// What it says in EHLO. Default `client.example.org`.
    pub helo: String,
    /// The user, if it authenticated.
    pub user: Option<String>,
    /// Whether it may relay. Default false.
    pub trusted: bool,
    /// The reverse-path; empty for `<>`. Default `sender@example.org`.
    pub from: String,
    /// The forward-paths. Default `user@example.test`.
    pub to: Vec<String>,
    /// A file with the message; a relative name starts from the scenario's folder.
    pub message: Option<PathBuf>,
    /// The message itself. Default: a short one.
    pub mail: Option<String>,
    /// How it is to end.
    pub expect: Expect,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: String::new(),
            settings: None,
            wait: None,
            repeat: 1,
            listener: "smtp".into(),
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            client_name: None,
            helo: "client.example.org".into(),
            user: None,
            trusted: false,
            from: "sender@example.org".into(),
            to: vec!["user@example.test".into()],
            message: None,
            mail: None,
            expect: Expect::default(),
        }
    }
}

/// What must hold afterwards. What is left out may be anything, but a failure of the policy is one unless it is expected.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Expect {
    /// What became of the mail: `pass`, `reject`, `defer`, `disconnect`, `discard` or `quarantine`.
    pub verdict: Option<String>,
    /// The stage at which that was decided: `connect`, `helo`, `mail`, `rcpt`, `message`.
    pub stage: Option<String>,
    /// The reply's code.
    pub code: Option<u16>,
    /// The reply's enhanced code, like `5.7.1`.
    pub enhanced: Option<String>,
    /// A part of the reply's text, or of the reason.
    pub text: Option<String>,
    /// Points of all stages together.
    pub score: Option<f64>,
    /// Symbols that were raised, at whatever stage; no others may be.
    pub symbols: Option<Vec<String>>,
    /// Parts of log lines; each must be there.
    pub log: Vec<String>,
    /// Header fields of the message in the end, unfolded, like `X-Spam: yes`; each must be there.
    pub header: Vec<String>,
    /// Names of header fields that must not be there.
    pub no_header: Vec<String>,
    /// The recipients in the end, in order.
    pub recipients: Option<Vec<String>>,
    /// Keys and values of the store in the end; each must be there. An empty value: the key must not.
    pub kv: BTreeMap<String, String>,
    /// A part of the words in which the policy refuses its settings, or in which it is refused.
    pub load_error: Option<String>,
    /// A part of what is said of a call that failed (a trap, a timeout).
    pub failure: Option<String>,
}

fn settings<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    crate::plugin::config::table(deserializer).map(Some)
}
