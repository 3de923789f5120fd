//! One file, `wasmta.toml`. Each room defines its own part; here they are put together, and what reaches across rooms is checked.

mod check;
mod files;
mod server;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use server::{LogFormat, Server};
pub use source::{ConfigError, Place, Source};

use crate::install::Lock;
use crate::{delivery, directory, kv, listener, net, plugin, policy, queue, smtp};

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The host as a whole.
    #[serde(default)]
    pub server: Server,
    /// Where clients are served; at least one.
    #[serde(default, rename = "listener")]
    pub listeners: Vec<listener::Config>,
    /// Limits and tolerances of the server's side of SMTP.
    #[serde(default)]
    pub smtp: smtp::Config,
    /// Where mail waits, when it is tried, when it goes back.
    #[serde(default)]
    pub queue: queue::Config,
    /// Where mail goes that is not for a mailbox here.
    #[serde(default)]
    pub delivery: delivery::Config,
    /// Who is local and who may relay.
    #[serde(default)]
    pub directory: directory::Config,
    /// How names are looked up.
    #[serde(default)]
    pub resolver: net::Config,
    /// The policies by name.
    #[serde(default, rename = "plugin")]
    pub plugins: BTreeMap<String, plugin::Config>,
    /// What all policies share.
    #[serde(default)]
    pub runtime: plugin::Runtime,
    /// Where their keys and values are kept.
    #[serde(default)]
    pub kv: kv::Config,
    /// What their points lead to.
    #[serde(default)]
    pub score: policy::Scoring,
}

/// A config that is sound in itself, with its text for what is found wrong later.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config; file names in it are relative to the working directory or absolute.
    pub config: Config,
    /// Its text.
    pub source: Source,
}

/// A config file that was read again while the server runs.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// What can be in force now: what only a restart can change is as it was.
    pub loaded: Loaded,
    /// What the file says.
    pub wanted: Config,
}

impl Config {
    /// Reads the file and those it names, and checks everything that can be checked without opening a port or loading a component.
    pub fn load(file: &Path) -> Result<Loaded, ConfigError> {
        let source = Source::read(file)?;
        let mut config: Self = source.parse()?;
        let data_dir = config.server.data_dir.clone();
        files::resolve(&mut config, &source, source.folder().join(data_dir))?;
        check::check(&config, &source)?;
        Ok(Loaded { config, source })
    }

    /// Reads the file again, for the server that runs with `self`.
    pub fn reload(&self, file: &Path) -> Result<Reloaded, ConfigError> {
        let source = Source::read(file)?;
        let mut wanted: Self = source.parse()?;
        // What lies in the data directory stays there until a restart, whatever the file says of it.
        let data_dir = source.folder().join(&wanted.server.data_dir);
        files::resolve(&mut wanted, &source, self.server.data_dir.clone())?;
        check::check(&wanted, &source)?;
        let config = self.changed_to(&wanted);
        if wanted.runtime != config.runtime {
            check::check(&Self { runtime: config.runtime.clone(), ..wanted.clone() }, &source)?;
        }
        wanted.server.data_dir = data_dir;
        Ok(Reloaded { loaded: Loaded { config, source }, wanted })
    }

    /// This config, with everything taken from `wanted` that can change while mail is served.
    fn changed_to(&self, wanted: &Self) -> Self {
        let listener = |own: &listener::Config| match wanted.listeners.iter().find(|other| other.name == own.name) {
            Some(other) => listener::Config { address: own.address, protocol: own.protocol, ..other.clone() },
            None => own.clone(),
        };
        let listeners: Vec<_> = self.listeners.iter().map(listener).collect();
        let mut plugins = wanted.plugins.clone();
        // A listener that the file has no more serves until the restart, with the policies it had.
        for name in listeners.iter().flat_map(|listener| &listener.chain) {
            if let (None, Some(own)) = (plugins.get(name), self.plugins.get(name)) {
                plugins.insert(name.clone(), own.clone());
            }
        }
        Self {
            server: Server { reload_timeout: wanted.server.reload_timeout, ..self.server.clone() },
            listeners,
            plugins,
            smtp: wanted.smtp.clone(),
            delivery: wanted.delivery.clone(),
            directory: wanted.directory.clone(),
            ..self.clone()
        }
    }
}

/// What installing needs of a config. A plugin that the config names may be missing still: it is to be installed.
#[derive(Debug, Clone)]
pub struct Places {
    /// The folder that the config's file names start from.
    pub folder: PathBuf,
    /// The lock file.
    pub lock: PathBuf,
    /// Where components are kept.
    pub plugin_dir: PathBuf,
    /// The `source` of each plugin, as the config writes it.
    pub sources: BTreeMap<String, PathBuf>,
}

impl Places {
    /// Reads the file, and none of those it names.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let source = Source::read(file)?;
        let mut config: Config = source.parse()?;
        let data_dir = source.folder().join(&config.server.data_dir);
        files::resolve_dirs(&mut config, data_dir);
        Ok(Self {
            folder: source.folder().to_owned(),
            lock: Lock::path(file),
            plugin_dir: config.runtime.plugin_dir,
            sources: config.plugins.into_iter().map(|(name, plugin)| (name, plugin.source)).collect(),
        })
    }
}

/// The known name that somebody probably meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase().replace('_', "-");
    let scored = known.into_iter().map(|other| (strsim::jaro_winkler(&name, other), other));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, best)| best)
}

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod tests;
