//! The host as a whole: `[server]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::mail::Domain;
use crate::units::Duration;

/// The host as a whole: `[server]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Server {
    /// How this host names itself in the greeting, EHLO, Received and notices. Default: the machine's name.
    pub hostname: Option<Domain>,
    /// Queue, control socket and compiled policies. Default `/var/lib/wasmta`.
    pub data_dir: PathBuf,
    /// Threads that serve mail. Default: one per processor.
    pub workers: Option<u32>,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or finer, like `info,wasmta::queue=debug`. Default `info`.
    pub log_level: String,
    /// How it is logged. Default `text`.
    pub log_format: LogFormat,
    /// How long a reload may take until it is given up and everything stays as it was. Default 5m: policies of a scripting language take a
    /// minute to compile.
    pub reload_timeout: Duration,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            hostname: None,
            data_dir: "/var/lib/wasmta".into(),
            workers: None,
            log_level: "info".into(),
            log_format: LogFormat::Text,
            reload_timeout: Duration::from_mins(5),
        }
    }
}

impl Server {
    /// The name from the config, else the machine's; none if that is no domain.
    pub fn hostname(&self) -> Option<Domain> {
        let machine = || rustix::system::uname().nodename().to_str().ok()?.parse().ok();
        self.hostname.clone().or_else(machine)
    }

    /// Threads that serve mail.
    pub fn workers(&self) -> usize {
        match self.workers {
            Some(count) => count as usize,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}
