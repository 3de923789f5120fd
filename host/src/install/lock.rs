//! The lock file: which component each installed name stands for. It lies beside the config, is written by
//! `wasmta plugin install` and read by everybody who reads the config.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::source::{Source, Wanted, wanted};
use super::store::{Store, write_whole};
use crate::plugin::{Digest, Pin};

/// Octets of a lock file.
const MAX_LOCK: u64 = 4 << 20;
/// The form that is written and understood.
const FORM: u32 = 1;
const HEAD: &str =
    "# Written by `wasmta plugin install`: what it installed, by digest. Keep it with the config; do not edit it.\n\n";

/// What is installed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lock {
    /// Of this file's form.
    form: u32,
    /// By name.
    #[serde(default, rename = "plugin")]
    pub plugins: BTreeMap<String, Entry>,
}

/// One component that is installed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// Where it came from; a file's name starts from the folder of the lock file.
    pub source: String,
    /// Of the component.
    pub digest: Digest,
    /// Of the manifest by which the registry names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// As it calls itself.
    pub component: String,
    /// As it says.
    pub version: String,
    /// Octets.
    pub size: u64,
    /// What it has to be granted.
    pub imports: Vec<String>,
    /// When it was installed.
    pub installed: jiff::Timestamp,
}

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// It cannot be written.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// It is not what `wasmta plugin install` writes.
    #[error("{0}; it is written by `wasmta plugin install`: take it from a backup, or remove it and install again")]
    Form(String),
}

/// A source of the config that the lock file knows nothing of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotInstalled {
    /// Nothing is installed from there.
    #[error("{source_text} is not installed; run: wasmta plugin install {source_text} --name {name}")]
    From {
        /// As the config writes it.
        source_text: String,
        /// The plugin's name in the config.
        name: String,
    },
    /// Something else is installed under the plugin's name.
    #[error(
        "{installed} is installed as {name}, not {source_text}; run: wasmta plugin install {source_text} --name {name}"
    )]
    Other {
        /// As the config writes it.
        source_text: String,
        /// The plugin's name in the config.
        name: String,
        /// What is installed under that name.
        installed: String,
    },
    /// Nothing is installed under that name.
    #[error("nothing is installed as {0}; run: wasmta plugin install SOURCE --name {0}")]
    Name(String),
    /// The lock file names a component that is not here.
    #[error("{0} is in the lock file and not on this machine; run: wasmta plugin install --locked")]
    Gone(String),
    /// It is no source at all.
    #[error("{0}")]
    NoSource(String),
}

impl Default for Lock {
    fn default() -> Self {
        Self { form: FORM, plugins: BTreeMap::new() }
    }
}

impl Lock {
    /// Where the lock file of a config lies: `wasmta.lock` beside `wasmta.toml`.
    pub fn path(config: &Path) -> PathBuf {
        if config.extension().is_some_and(|extension| extension == "toml") {
            return config.with_extension("lock");
        }
        let mut name = config.as_os_str().to_owned();
        name.push(".lock");
        name.into()
    }

    /// Reads it; one that is not there is empty.
    pub fn read(path: &Path) -> Result<Self, LockError> {
        // Looked at before it is opened: opening a named pipe would wait for somebody to write.
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => return Err(LockError::Form("it is no regular file".into())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(err) => return Err(LockError::Read(err)),
            Ok(_) => {}
        }
        let mut text = String::new();
        let read = fs::File::open(path).and_then(|file| file.take(MAX_LOCK + 1).read_to_string(&mut text));
        match read {
            Ok(len) if len as u64 > MAX_LOCK => {
                return Err(LockError::Form(format!("it has more than {MAX_LOCK} octets")));
            }
            Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                return Err(LockError::Form("it is not UTF-8".into()));
            }
            Err(err) => return Err(LockError::Read(err)),
            Ok(_) => {}
        }
        let lock: Self = toml::from_str(&text).map_err(|err| LockError::Form(err.to_string().trim_end().to_owned()))?;
        if lock.form != FORM {
            return Err(LockError::Form(format!("it has form {}, and this wasmta knows form {FORM}", lock.form)));
        }
        Ok(lock)
    }

    /// Writes it: the file is the old one or the new one, whatever happens.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        let text = toml::to_string(self).map_err(|err| LockError::Write(io::Error::other(err)))?;
        write_whole(path, format!("{HEAD}{text}").as_bytes()).map_err(LockError::Write)
    }

    /// The file that a plugin's `source` in the config means, with what the lock file says of it. `source` is as the config writes it;
    /// `folder` is what its file names start from.
    pub fn locate(
        &self,
        name: &str,
        source: &Path,
        folder: &Path,
        store: &Store,
    ) -> Result<(PathBuf, Option<Pin>), NotInstalled> {
        let (shown, entry) = match wanted(source) {
            Wanted::File(file) => {
                let file = folder.join(file);
                let pin = self.of_file(&file, folder).map(|(name, entry)| pin_of_file(name, entry, &file));
                return Ok((file, pin));
            }
            Wanted::Name(installed) => {
                let entry = self.plugins.get(installed).ok_or_else(|| NotInstalled::Name(installed.to_owned()))?;
                (installed.to_owned(), entry)
            }
            Wanted::From(text) => (text.to_owned(), self.from(name, text)?),
        };
        let file = store.file(&entry.digest);
        if !file.is_file() {
            return Err(NotInstalled::Gone(shown));
        }
        let remedy = "it was damaged or changed; run: wasmta plugin install --locked".to_owned();
        Ok((file, Some(Pin { digest: entry.digest, remedy })))
    }

    /// What was installed from there; of several the one that has the plugin's name.
    fn from(&self, name: &str, text: &str) -> Result<&Entry, NotInstalled> {
        let source: Source = text.parse().map_err(|err: super::NoSource| NotInstalled::NoSource(err.to_string()))?;
        let source = source.to_string();
        let own = self.plugins.get(name);
        if let Some(entry) = own.filter(|entry| entry.source == source) {
            return Ok(entry);
        }
        let (source_text, name) = (text.to_owned(), name.to_owned());
        let other = self.plugins.values().find(|entry| entry.source == source);
        other.ok_or_else(|| match own {
            Some(entry) => NotInstalled::Other { source_text, name, installed: entry.source.clone() },
            None => NotInstalled::From { source_text, name },
        })
    }

    /// A file of the config that was installed as well may not change behind the lock file's back.
    fn of_file(&self, file: &Path, folder: &Path) -> Option<(&str, &Entry)> {
        if self.plugins.is_empty() {
            return None;
        }
        let file = file.canonicalize().ok()?;
        let same = |entry: &Entry| match entry.source.parse() {
            Ok(Source::File(own)) => folder.join(own).canonicalize().is_ok_and(|own| own == file),
            _ => false,
        };
        self.plugins.iter().find(|(_, entry)| same(entry)).map(|(name, entry)| (name.as_str(), entry))
    }
}

fn pin_of_file(name: &str, entry: &Entry, file: &Path) -> Pin {
    let remedy = format!("if that is meant, run: wasmta plugin install {} --name {name}", file.display());
    Pin { digest: entry.digest, remedy }
}
