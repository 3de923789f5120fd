//! `wasmta check`: everything that `serve` would find wrong before it opens a port, and nothing changed on disk.

use std::io::{self, Write as _};
use std::path::PathBuf;

use super::{Failure, code, wait_for};
use crate::config::Loaded;
use crate::generation::{self, load_all, trial_services};
use crate::plugin::Runtime;

/// Loads all there is to load.
pub(super) fn run(loaded: &Loaded) -> Result<(), Failure> {
    // The cache belongs to the server's user; who checks may be somebody else.
    let cache = Scratch::new()?;
    let runtime = Runtime { cache_dir: cache.0.clone(), ..loaded.config.runtime.clone() };
    let plugins = wait_for(load_all(loaded, &runtime, trial_services(loaded)?))??;
    let file = loaded.source.file().display();
    let (listeners, policies) = (loaded.config.listeners.len(), plugins.len());
    Ok(writeln!(io::stdout(), "{file}: fine; listeners: {listeners}, policies: {policies}")?)
}

/// Compiles the policies that the server asks for on standard input.
pub(super) fn prepare() -> Result<(), Failure> {
    Ok(wait_for(generation::prepare())??)
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
