//! What the config says of deliveries: `[delivery]`.

use serde::{Deserialize, Serialize};

use super::NextHop;
use crate::smtp::ClientConfig;
use crate::units::Duration;

/// Where mail goes that is not for a mailbox here, and how long to wait for other hosts: `[delivery]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The host that gets all mail for other domains: `HOST:PORT`, `[ADDRESS]:PORT`, or without a port for 25. Default none: mail for other
    /// domains is refused at RCPT.
    pub relay_host: Option<NextHop>,
    /// How long a connection may take to come about. Default 30s, as Postfix has it.
    pub connect_timeout: Duration,
    /// How long a connection is kept for the next message. Default 5s: hosts do not like idle clients.
    pub keep_idle: Duration,
    /// Messages over one connection. Default 1000.
    pub max_messages: u32,
    /// Limits and patience of the dialogue.
    pub smtp: ClientConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            relay_host: None,
            connect_timeout: Duration::from_secs(30),
            keep_idle: Duration::from_secs(5),
            max_messages: 1000,
            smtp: ClientConfig::default(),
        }
    }
}
