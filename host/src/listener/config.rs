//! What the config says of listeners: `[[listener]]`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One address at which clients are served: `[[listener]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Its name in logs; unique. Required.
    pub name: String,
    /// `ADDRESS:PORT`, IPv6 in brackets. `[::]` takes IPv4 and IPv6. Required.
    pub address: SocketAddr,
    /// What is spoken there. Default `smtp`.
    #[serde(default)]
    pub protocol: Protocol,
    /// The policies that judge, in order, by their names in `[plugin]`. Default none.
    #[serde(default)]
    pub chain: Vec<String>,
    /// Whether clients are mail programs of our own users: then a missing Date or Message-ID is added (RFC 6409 §8). Default false:
    /// what others send is not touched.
    #[serde(default)]
    pub submission: bool,
    /// How many sessions there may be at once. Default 10000; one more is answered with 421.
    #[serde(default = "default_max_sessions")]
    pub max_sessions: u32,
    /// How many of them from one client (IPv6: from one network of 64 bits). Default 50. Does not hold for trusted networks.
    #[serde(default = "default_max_sessions_per_client")]
    pub max_sessions_per_client: u32,
}

fn default_max_sessions() -> u32 {
    10_000
}
fn default_max_sessions_per_client() -> u32 {
    50
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 5321.
    #[default]
    Smtp,
}
