//! What all sessions of a listener share.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::mail::{Domain, Reply, ReplyText};
use crate::policy::Stage;
use crate::smtp::config::{Config, Extension};

/// A config with the replies that follow from it and never change.
#[derive(Debug)]
pub struct Settings {
    config: Config,
    hostname: Domain,
    greeting: String,
    ehlo: String,
}

impl Settings {
    /// `hostname` is how this host names itself to clients.
    pub fn new(config: Config, hostname: Domain) -> Arc<Self> {
        let greeting = ReplyText::lossy(&format!("220 {hostname} {}", config.banner)).to_string() + "\r\n";
        let ehlo = ehlo_reply(&config, &hostname);
        Arc::new(Self { config, hostname, greeting, ehlo })
    }

    /// The limits and tolerances.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How this host names itself.
    pub fn hostname(&self) -> &Domain {
        &self.hostname
    }

    /// For a client that cannot be served now because too many others are, in place of the greeting.
    pub fn too_many_sessions(&self) -> Reply {
        Reply::transient(421, (7, 0), format!("{} Error: too many connections, try again later", self.hostname))
    }

    pub(super) fn greeting(&self) -> &str {
        &self.greeting
    }

    pub(super) fn ehlo(&self) -> &str {
        &self.ehlo
    }
}

fn ehlo_reply(config: &Config, hostname: &Domain) -> String {
    let size = format!("SIZE {}", config.max_message_size.as_u64());
    let optional = |extension, keyword| config.offers(extension).then_some(keyword);
    let keywords = [
        optional(Extension::Pipelining, "PIPELINING"),
        Some(size.as_str()),
        // RFC 5321 §3.5.3 and §4.5.1: VRFY must be there; it says 252.
        Some("VRFY"),
        Some("ENHANCEDSTATUSCODES"),
        Some("8BITMIME"),
        optional(Extension::Dsn, "DSN"),
        optional(Extension::SmtpUtf8, "SMTPUTF8"),
        optional(Extension::Chunking, "CHUNKING"),
        Some("HELP"),
    ];
    let mut reply = format!("250-{hostname}\r\n");
    let mut keywords = keywords.into_iter().flatten().peekable();
    while let Some(keyword) = keywords.next() {
        let separator = if keywords.peek().is_some() { '-' } else { ' ' };
        let _ = write!(reply, "250{separator}{keyword}\r\n"); // writing to a String cannot fail
    }
    reply
}

/// A set of stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages(u8);

impl Stages {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Whether a stage is in it.
    pub fn contains(self, stage: Stage) -> bool {
        self.0 & Self::bit(stage) != 0
    }

    fn bit(stage: Stage) -> u8 {
        match stage {
            Stage::Connect => 1,
            Stage::Helo => 2,
            Stage::Mail => 4,
            Stage::Rcpt => 8,
            Stage::Message => 16,
        }
    }
}

impl FromIterator<Stage> for Stages {
    fn from_iter<I: IntoIterator<Item = Stage>>(stages: I) -> Self {
        Self(stages.into_iter().fold(0, |bits, stage| bits | Self::bit(stage)))
    }
}
