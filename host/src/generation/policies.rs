//! The policies of a config, and what is wrong with them, with its place in the config.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError, Loaded};
use crate::kv;
use crate::net::Resolver;
use crate::plugin::{LoadError, Plugin, Runtime, Sandbox, SandboxError, Services};

/// What is wrong with a policy: the key in the config, and the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    path: Vec<String>,
    message: String,
}

impl Fault {
    /// With its place in the config's text.
    pub fn place(&self, loaded: &Loaded) -> ConfigError {
        loaded.source.error_at(&self.path, &self.message)
    }

    /// What a policy finds wrong, or the host with it.
    pub fn new(name: &str, err: &LoadError) -> Self {
        let mut path = vec!["plugin".to_owned(), name.to_owned()];
        let message = match err {
            LoadError::Settings { key, message, file, line } => {
                path.push("settings".into());
                path.extend(key.split('.').filter(|part| !part.is_empty()).map(str::to_owned));
                match (file, line) {
                    (Some(file), Some(line)) => format!("{file}:{line}: {message}"),
                    (Some(file), None) => format!("{file}: {message}"),
                    (None, _) => message.clone(),
                }
            }
            LoadError::Store(_) => {
                path = vec!["kv".into(), "path".into()];
                err.to_string()
            }
            LoadError::Symbol { symbol, .. } => {
                path = vec!["score".into(), "weights".into(), format!("{name}.{symbol}")];
                err.to_string()
            }
            LoadError::Import { .. } => {
                path.push("grants".into());
                err.to_string()
            }
            LoadError::Endpoint { name, key, why } => {
                path.extend(["endpoints".to_owned(), name.clone(), (*key).to_owned()]);
                why.clone()
            }
            LoadError::File { .. }
            | LoadError::NotAComponent { .. }
            | LoadError::Pinned { .. }
            | LoadError::Interface(_)
            | LoadError::Failed { .. } => {
                path.push("source".into());
                err.to_string()
            }
        };
        // The words are a component's own: they end the line they stand on nowhere.
        Self { path, message: message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() }
    }

    fn of_sandbox(err: &SandboxError) -> Self {
        let key = match err {
            SandboxError::Engine { .. } => "instances",
            SandboxError::Cache(_) => "cache-dir",
        };
        Self { path: vec!["runtime".into(), key.into()], message: err.to_string() }
    }
}

/// What the imports of policies stand on, as the config wants it.
pub fn services(loaded: &Loaded, kv: Arc<dyn kv::Store>) -> Result<Services, ConfigError> {
    let resolver = Resolver::new(&loaded.config.resolver);
    let resolver = resolver.map_err(|why| loaded.source.error_at(&["resolver"], why))?;
    Ok(Services { server_name: server_name(&loaded.config), kv: Some(kv), resolver: Some(resolver), clock: None })
}

/// The same where nothing on the disk may change: what policies keep is gone with this process.
pub fn trial_services(loaded: &Loaded) -> Result<Services, ConfigError> {
    services(loaded, Arc::new(kv::Memory::default()))
}

pub(super) fn server_name(config: &Config) -> String {
    config.server.hostname().map(|name| name.to_string()).unwrap_or_default()
}

pub(super) fn sandbox(runtime: &Runtime, services: Services) -> Result<Sandbox, Fault> {
    Sandbox::new(runtime, services).map_err(|err| Fault::of_sandbox(&err))
}

/// Every policy of the config, compiled here if need be, in a sandbox made for them: for whoever does not serve.
pub async fn load_all(
    loaded: &Loaded,
    runtime: &Runtime,
    services: Services,
) -> Result<BTreeMap<String, Arc<Plugin>>, ConfigError> {
    if loaded.config.plugins.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sandbox = sandbox(runtime, services).map_err(|fault| fault.place(loaded))?;
    let mut plugins = BTreeMap::new();
    for (name, config) in &loaded.config.plugins {
        let plugin = sandbox.load(name, config).await.map_err(|err| Fault::new(name, &err).place(loaded))?;
        plugins.insert(name.clone(), plugin);
    }
    Ok(plugins)
}
