//! Compiled policies on disk, so that a start need not compile.
//!
//! What lies here is native code that the process will run. It is trusted because only the MTA's own user can write to the
//! directory (0700, checked at each start) and because the name of a file is a digest over everything it came from. This is the
//! one place of the project where `unsafe` is allowed.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::load::Card;

/// Where compiled policies are kept.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    dir: PathBuf,
}

/// The digest of all that a compiled policy depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// `parts` in order; each is told apart from the next by its length.
    pub fn new(engine: &Engine, parts: &[&[u8]]) -> Self {
        use std::hash::{Hash as _, Hasher as _};
        let mut compatible = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut compatible);
        let mut digest = Sha256::new();
        digest.update(compatible.finish().to_le_bytes());
        digest.update(env!("CARGO_PKG_VERSION"));
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Self(digest.finalize().iter().map(|octet| format!("{octet:02x}")).collect())
    }
}

impl Cache {
    /// Makes the directory if it is not there. One that others can write to is refused.
    pub fn open(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let metadata = fs::metadata(dir)?;
        let own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !own || metadata.mode() & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{} holds compiled policies and must belong to the user that runs wasmta, with nobody else allowed to write \
                     (chmod 700)",
                    dir.display()
                ),
            ));
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(format!("{}.cwasm", key.0))
    }

    /// What was kept under the key. A file that does not fit this engine counts as none.
    pub fn get(&self, engine: &Engine, key: &Key) -> Option<Component> {
        let path = self.path(key);
        let metadata = fs::symlink_metadata(&path).ok()?;
        if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0
        {
            return None;
        }
        load(engine, &path).inspect_err(|err| tracing::debug!("compiled policy not used: {err:#}")).ok()
    }

    /// The name card that was kept under the key.
    pub fn card(&self, key: &Key) -> Option<Card> {
        let text = fs::read(self.dir.join(format!("{}.json", key.0))).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Keeps a name card. One that cannot be kept costs a compilation at the next start and nothing else.
    pub fn put_card(&self, key: &Key, card: &Card) {
        let written = serde_json::to_vec(card)
            .map_err(io::Error::other)
            .and_then(|text| self.write(&format!("{}.json", key.0), &text));
        if let Err(err) = written {
            tracing::warn!("a compiled policy cannot be kept: {err}");
        }
    }

    /// Keeps a compiled policy.
    pub fn put(&self, key: &Key, compiled: &[u8]) -> io::Result<()> {
        self.write(&format!("{}.cwasm", key.0), compiled)
    }

    /// The file appears whole or not at all.
    fn write(&self, name: &str, octets: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join(format!("{name}.{}.tmp", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let written = file.write_all(octets).and_then(|()| file.sync_all());
        drop(file);
        written.and_then(|()| fs::rename(&temporary, self.dir.join(name))).inspect_err(|_| {
            let _ = fs::remove_file(&temporary); // the first error is the one to report
        })
    }
}

#[allow(unsafe_code)]
fn load(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file was written by `put`, from the output of this very compiler, into a directory that only our own user can
    // write to; `get` has checked owner and mode of the file. Wasmtime checks version and settings itself.
    unsafe { Component::deserialize_file(engine, path) }
}
