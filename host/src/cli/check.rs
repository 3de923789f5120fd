//! `wasmta check`: everything that `serve` would find wrong before it opens a port, and nothing changed on disk.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use super::{Failure, code, wait_for};
use crate::config::{ConfigError, Loaded};
use crate::kv;
use crate::net::Resolver;
use crate::plugin::{LoadError, Plugin, Runtime, Sandbox, SandboxError, Services};

/// Loads all there is to load.
pub(super) fn run(loaded: &Loaded) -> Result<(), Failure> {
    // The cache belongs to the server's user; who checks may be somebody else.
    let cache = Scratch::new()?;
    let runtime = Runtime { cache_dir: cache.0.clone(), ..loaded.config.runtime.clone() };
    let plugins = wait_for(load_plugins(loaded, &runtime, trial_services(loaded)?))??;
    let file = loaded.source.file().display();
    let (listeners, policies) = (loaded.config.listeners.len(), plugins.len());
    Ok(writeln!(io::stdout(), "{file}: fine; listeners: {listeners}, policies: {policies}")?)
}

/// Compiles what is not compiled yet.
pub(super) fn prepare(loaded: &Loaded) -> Result<(), Failure> {
    wait_for(load_plugins(loaded, &loaded.config.runtime, trial_services(loaded)?))??;
    Ok(())
}

/// Has another process compile what is not compiled yet: what the compiler takes of memory goes with it. Whatever goes wrong there goes
/// wrong here as well, and is told then.
pub(super) fn prepare_apart(loaded: &Loaded) {
    let config = &loaded.config;
    let ready = |sandbox: Sandbox| config.plugins.values().all(|plugin| sandbox.is_ready(plugin));
    if Sandbox::new(&config.runtime, Services::default()).is_ok_and(ready) {
        return;
    }
    tracing::info!("compiling policies");
    let Ok(program) = std::env::current_exe() else { return };
    let mut compiler = std::process::Command::new(program);
    compiler.arg("prepare").arg("-c").arg(loaded.source.file());
    compiler.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(err) = compiler.status() {
        tracing::debug!("no process of its own for the compiler: {err}");
    }
}

/// What the imports of policies stand on, as the config wants it.
pub(super) fn services(loaded: &Loaded, kv: Arc<dyn kv::Store>) -> Result<Services, ConfigError> {
    let server_name = loaded.config.server.hostname().map(|name| name.to_string()).unwrap_or_default();
    let resolver = Resolver::new(&loaded.config.resolver);
    let resolver = resolver.map_err(|why| loaded.source.error_at(&["resolver"], why))?;
    Ok(Services { server_name, kv: Some(kv), resolver: Some(resolver) })
}

/// The same where nothing on the disk may change: what policies keep is gone with this process.
pub(super) fn trial_services(loaded: &Loaded) -> Result<Services, ConfigError> {
    services(loaded, Arc::new(kv::Memory::default()))
}

/// Every policy of the config, in a sandbox made for them.
pub(super) async fn load_plugins(
    loaded: &Loaded,
    runtime: &Runtime,
    services: Services,
) -> Result<BTreeMap<String, Arc<Plugin>>, ConfigError> {
    if loaded.config.plugins.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sandbox = Sandbox::new(runtime, services).map_err(|err| {
        let key = match err {
            SandboxError::Engine { .. } => "instances",
            SandboxError::Cache(_) => "cache-dir",
        };
        loaded.source.error_at(&["runtime", key], err)
    })?;
    let mut plugins = BTreeMap::new();
    for (name, config) in &loaded.config.plugins {
        let plugin = sandbox.load(name, config).await.map_err(|err| explain(loaded, name, &err))?;
        plugins.insert(name.clone(), plugin);
    }
    Ok(plugins)
}

/// What a policy finds wrong, with the place in the config.
fn explain(loaded: &Loaded, name: &str, err: &LoadError) -> ConfigError {
    let mut path = vec!["plugin", name];
    let message = match err {
        LoadError::Settings { key, message, file, line } => {
            path.push("settings");
            path.extend(key.split('.').filter(|part| !part.is_empty()));
            match (file, line) {
                (Some(file), Some(line)) => format!("{file}:{line}: {message}"),
                (Some(file), None) => format!("{file}: {message}"),
                (None, _) => message.clone(),
            }
        }
        LoadError::Store(why) => return loaded.source.error_at(&["kv", "path"], why),
        LoadError::Import { .. } => {
            path.push("grants");
            err.to_string()
        }
        LoadError::Endpoint { name, key, why } => {
            path.extend(["endpoints", name.as_str(), *key]);
            why.clone()
        }
        LoadError::File { .. }
        | LoadError::NotAComponent { .. }
        | LoadError::Pinned { .. }
        | LoadError::Interface(_)
        | LoadError::Failed { .. } => {
            path.push("source");
            err.to_string()
        }
    };
    // The words are a component's own: they end the line they stand on nowhere.
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    loaded.source.error_at(&path, message)
}

/// A directory for the moment, gone in the end.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("wasmta-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        // Not recursive: if it is there, somebody else made it, and it is not used.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|err| Failure::new(code::SYSTEM, format_args!("cannot make {}: {err}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
