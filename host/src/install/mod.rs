//! `wasmta plugin install`: fetches a component, looks at it, keeps it under its digest, and writes down in the lock file what a name
//! stands for. The server reads the lock file and the files it names; it never fetches anything.
//!
//! Architecture invariant: what is fetched is a stranger's until its digest is in the lock file: each answer has limits on octets, time
//! and redirections, and nothing of the component runs but `describe`, in the sandbox.

mod credentials;
mod http;
mod lock;
mod registry;
mod source;
mod store;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use http::{FetchError, PlainHttp};
pub use lock::{Entry, Lock, LockError, NotInstalled};
pub use source::{NoSource, Source};
pub use store::Store;

use crate::plugin::{self, Digest, Inspection, LoadError, MAX_COMPONENT, Sandbox};
use http::{Http, success};
use registry::Repository;
use store::{Guard, Incoming};

/// Installs for one config.
pub struct Installer<'a> {
    /// Where components are kept.
    pub store: Store,
    /// The lock file.
    pub lock: PathBuf,
    /// Where components are looked at.
    pub sandbox: &'a Sandbox,
    /// Where plain HTTP may go.
    pub plain: PlainHttp,
    /// How long fetching one component may take, all in all.
    pub timeout: Duration,
}

/// Why something is not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The text names no source.
    #[error(transparent)]
    Source(#[from] NoSource),
    /// It did not come in time.
    #[error("{0} did not come whole within {1:?}; a slow way needs a longer --timeout")]
    TooSlow(String, Duration),
    /// It cannot be fetched.
    #[error("{0}")]
    Fetch(#[from] FetchError),
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// It is too large to be a component.
    #[error("{0} has more than the {MAX_COMPONENT} octets that a component may have")]
    TooLarge(String),
    /// It is no policy of this host.
    #[error("{from}: {why}")]
    Component {
        /// Where it came from.
        from: String,
        /// What is wrong with it.
        why: String,
    },
    /// Its digest is not the one that was asked for.
    #[error("{from} has {found}, not {expected}: it is another component than the one that was asked for")]
    Digest {
        /// Where it came from.
        from: String,
        /// What it has.
        found: Digest,
        /// What it should have.
        expected: Digest,
    },
    /// It calls itself something that cannot stand in a config.
    #[error("it calls itself {0:?}; give it a name of letters, digits, `-` and `_` by --name")]
    Name(String),
    /// The directory of components.
    #[error("{0}: {1}")]
    Store(PathBuf, std::io::Error),
    /// The lock file.
    #[error("{0}: {1}")]
    Lock(PathBuf, LockError),
    /// Nothing is installed under that name.
    #[error("nothing is installed as {0}")]
    NoSuchName(String),
}

/// A component that has been fetched and looked at, and is not installed yet.
pub struct Candidate {
    /// Under which name.
    pub name: String,
    /// What the lock file will say.
    pub entry: Entry,
    /// What it says of itself.
    pub inspection: Inspection,
    /// What is installed under that name now.
    pub before: Option<Entry>,
    /// What the config writes for it.
    pub source: String,
    lock: Lock,
    incoming: Incoming,
    guard: Guard,
}

/// Something about an upgrade that nobody should overlook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concern {
    /// The same source gives another component than before.
    Moved {
        /// What it gave.
        old: Digest,
        /// What it gives.
        new: Digest,
    },
    /// It wants more than the version before.
    Imports(Vec<String>),
    /// It is another component altogether, by what it calls itself.
    Replaces(String),
}

impl Candidate {
    /// Whether just that is installed already.
    pub fn is_installed(&self) -> bool {
        let same = |before: &Entry| before.digest == self.entry.digest && before.source == self.entry.source;
        self.before.as_ref().is_some_and(same)
    }

    /// What needs a yes.
    pub fn concerns(&self) -> Vec<Concern> {
        let Some(before) = &self.before else { return Vec::new() };
        let mut concerns = Vec::new();
        let can_move = self.entry.source.parse().is_ok_and(|source: Source| source.can_move());
        if can_move && before.source == self.entry.source && before.digest != self.entry.digest {
            concerns.push(Concern::Moved { old: before.digest, new: self.entry.digest });
        }
        let new: Vec<String> =
            self.entry.imports.iter().filter(|import| !before.imports.contains(import)).cloned().collect();
        if !new.is_empty() {
            concerns.push(Concern::Imports(new));
        }
        if before.component != self.entry.component {
            concerns.push(Concern::Replaces(before.component.clone()));
        }
        concerns
    }
}

impl Installer<'_> {
    /// Fetches a component and looks at it. `name` is what the config will call it, if not by its own name; `expected` its digest, if
    /// that is known.
    pub async fn fetch(
        &self,
        source: &str,
        name: Option<&str>,
        expected: Option<Digest>,
    ) -> Result<Candidate, InstallError> {
        let source = match source.parse()? {
            // The operator's file names start where the operator is.
            Source::File(path) => Source::File(std::path::absolute(&path).unwrap_or(path)),
            source => source,
        };
        let (guard, lock) = self.open()?;
        let (incoming, manifest) = self.bring_in_time(&source, &guard, None).await?;
        let digest = incoming.digest();
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(InstallError::Digest { from: source.to_string(), found: digest, expected });
        }
        let inspected = self.sandbox.inspect(&plugin::Config::new(incoming.path())).await;
        let inspection = inspected.map_err(|err| no_policy(&source, err))?;
        let card = &inspection.manifest;
        let name = name.unwrap_or(&card.name);
        if !plugin::is_plain_name(name) {
            return Err(InstallError::Name(name.to_owned()));
        }
        let entry = Entry {
            source: self.lasting(&source).to_string(),
            digest,
            manifest,
            component: card.name.clone(),
            version: card.version.clone(),
            size: incoming.size(),
            imports: inspection.grants(),
            installed: jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default(),
        };
        let before = lock.plugins.get(name).cloned();
        let source = source::for_config(name, &source);
        Ok(Candidate { name: name.to_owned(), entry, inspection, before, source, lock, incoming, guard })
    }

    /// Installs it. The component is safe on the disk before the lock file names it.
    pub fn install(&self, candidate: Candidate) -> Result<(), InstallError> {
        let Candidate { name, entry, before, mut lock, incoming, guard, .. } = candidate;
        self.store.keep(&incoming).map_err(|err| self.store_error(err))?;
        lock.plugins.insert(name, entry);
        lock.write(&self.lock).map_err(|err| InstallError::Lock(self.lock.clone(), err))?;
        // A running server has the old one in memory; its file stays as long as a name stands for it.
        before.map_or(Ok(()), |before| self.discard(&lock, &guard, &before.digest))
    }

    /// Fetches what the lock file names and this machine has not; returns the names.
    pub async fn restore(&self) -> Result<Vec<String>, InstallError> {
        let (guard, lock) = self.open()?;
        let mut restored = Vec::new();
        for (name, entry) in &lock.plugins {
            if self.store.has(&entry.digest) {
                continue;
            }
            let source: Source = entry.source.parse()?;
            let (incoming, _) = self.bring_in_time(&source, &guard, entry.manifest).await?;
            if incoming.digest() != entry.digest {
                let (found, expected) = (incoming.digest(), entry.digest);
                return Err(InstallError::Digest { from: source.to_string(), found, expected });
            }
            self.store.keep(&incoming).map_err(|err| self.store_error(err))?;
            restored.push(name.clone());
        }
        Ok(restored)
    }

    /// Takes a name out of the lock file, and its component off the disk if no other name stands for it.
    pub fn remove(&self, name: &str) -> Result<Entry, InstallError> {
        let (guard, mut lock) = self.open()?;
        let entry = lock.plugins.remove(name).ok_or_else(|| InstallError::NoSuchName(name.to_owned()))?;
        lock.write(&self.lock).map_err(|err| InstallError::Lock(self.lock.clone(), err))?;
        self.discard(&lock, &guard, &entry.digest)?;
        Ok(entry)
    }

    fn discard(&self, lock: &Lock, guard: &Guard, digest: &Digest) -> Result<(), InstallError> {
        if lock.plugins.values().any(|entry| entry.digest == *digest) {
            return Ok(());
        }
        self.store.remove(guard, digest).map_err(|err| self.store_error(err))
    }

    fn open(&self) -> Result<(Guard, Lock), InstallError> {
        let guard = self.store.guard().map_err(|err| self.store_error(err))?;
        let lock = Lock::read(&self.lock).map_err(|err| InstallError::Lock(self.lock.clone(), err))?;
        Ok((guard, lock))
    }

    fn store_error(&self, err: std::io::Error) -> InstallError {
        InstallError::Store(self.store.dir().to_owned(), err)
    }

    async fn bring_in_time(
        &self,
        source: &Source,
        guard: &Guard,
        manifest: Option<Digest>,
    ) -> Result<(Incoming, Option<Digest>), InstallError> {
        let brought = tokio::time::timeout(self.timeout, self.bring(source, guard, manifest)).await;
        brought.map_err(|_| InstallError::TooSlow(source.to_string(), self.timeout))?
    }

    /// Puts the octets of a component beside the others. `manifest` is the one that a registry shall give, whatever its tag says now.
    async fn bring(
        &self,
        source: &Source,
        guard: &Guard,
        manifest: Option<Digest>,
    ) -> Result<(Incoming, Option<Digest>), InstallError> {
        let mut incoming = self.store.incoming(guard, MAX_COMPONENT).map_err(|err| self.store_error(err))?;
        let manifest = match source {
            Source::File(path) => {
                read_file(&self.folder().join(path), &mut incoming)?;
                None
            }
            Source::Url(url) => {
                let response = success(Http::new(self.plain)?.ask(url, "application/wasm, */*", None).await?)?;
                Http::save(response, &mut incoming).await?;
                None
            }
            Source::Registry(reference) => {
                let reference = match manifest {
                    Some(manifest) => &reference.clone_with_digest(manifest.to_string()),
                    None => reference,
                };
                let http = Http::new(self.plain)?;
                let mut repository = Repository::new(&http, reference)?;
                let described = repository.describe().await?;
                if described.size > MAX_COMPONENT {
                    return Err(InstallError::TooLarge(source.to_string()));
                }
                repository.fetch(&described, &mut incoming).await?;
                Some(described.manifest)
            }
        };
        Ok((incoming, manifest))
    }
}

impl Installer<'_> {
    /// The folder that names of files in the lock file start from.
    fn folder(&self) -> &Path {
        match self.lock.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    /// A source as the lock file writes it: a file in its own folder by a name that means the same on another machine.
    fn lasting(&self, source: &Source) -> Source {
        let Source::File(path) = source else { return source.clone() };
        let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
        let inside =
            self.folder().canonicalize().ok().and_then(|folder| whole.strip_prefix(folder).ok().map(Path::to_owned));
        Source::File(inside.unwrap_or(whole))
    }
}

fn read_file(path: &Path, incoming: &mut Incoming) -> Result<(), InstallError> {
    let failed = |err| InstallError::File(path.to_owned(), err);
    // Looked at before it is opened: opening a named pipe would wait for somebody to write.
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is no regular file")));
    }
    let mut file = File::open(path).map_err(failed)?;
    let mut octets = vec![0; 64 * 1024];
    loop {
        let n = file.read(&mut octets).map_err(failed)?;
        if n == 0 {
            return Ok(());
        }
        let part = octets.get(..n).unwrap_or_default();
        if !incoming.push(part).map_err(|err| InstallError::Fetch(FetchError::Disk(err)))? {
            return Err(InstallError::TooLarge(path.display().to_string()));
        }
    }
}

/// What the sandbox finds wrong, told of where the component came from and not of where it lies for the moment.
fn no_policy(source: &Source, err: LoadError) -> InstallError {
    let why = match err {
        LoadError::File { why, .. } => why,
        LoadError::NotAComponent { why, .. } => format!("it is no WebAssembly component: {why}"),
        err => err.to_string(),
    };
    InstallError::Component {
        from: source.to_string(),
        why: why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
    }
}

#[cfg(test)]
mod tests;
