//! The store's part of the config: `[kv]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Duration};

/// Where policies' keys and values are kept: `[kv]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The directory of the store; made when the first plugin is granted `kv`. Default `{data-dir}/kv`.
    pub path: PathBuf,
    /// How long what was written may wait to be synced to the disk. A crash of the process loses nothing; a power failure may lose
    /// what was written within this time. Default 1 s, which is little work for a disk and little to lose.
    pub sync_interval: Duration,
    /// Octets of memory for blocks that were read. Default 16 MiB: the keys of some hundred thousand senders.
    pub cache: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self { path: "{data-dir}/kv".into(), sync_interval: Duration::from_secs(1), cache: ByteSize::from_mib(16) }
    }
}

impl Config {
    /// The key at fault and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let sync = self.sync_interval.as_std();
        if sync.as_millis() < 10 || sync.as_secs() > 3600 {
            return Err(("sync-interval", "write at least \"10ms\" and at most \"1h\""));
        }
        if self.cache < ByteSize::from_mib(1) {
            return Err(("cache", "every read would go to the disk; write at least \"1 MiB\""));
        }
        Ok(())
    }
}
