//! The directory of installed components: each lies there once, under its digest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::plugin::Digest;

/// What the name of a component begins with while it comes in.
const INCOMING: &str = ".incoming-";
/// Held by the one who changes something.
const GUARD: &str = ".lock";

/// The directory of installed components.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// The right to change the directory and the lock file; given back when it is dropped or its process ends.
pub(super) struct Guard {
    _file: File,
}

/// A component on its way in. Gone when dropped, unless it is kept.
pub(super) struct Incoming {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    size: u64,
    limit: u64,
}

impl Store {
    /// Nothing is looked at or made yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the component of a digest lies, if it is here.
    pub fn file(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{}.wasm", digest.hex()))
    }

    /// Makes the directory if it is not there, and waits for whoever else installs something. What a process left half done that was
    /// killed is removed.
    pub(super) fn guard(&self) -> io::Result<Guard> {
        // The server's user reads here what root may have installed.
        if let Some(data_dir) = self.dir.parent().filter(|parent| !parent.exists()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.dir)?;
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(self.dir.join(GUARD))?;
        file.lock()?;
        for entry in fs::read_dir(&self.dir)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(INCOMING) {
                let _ = fs::remove_file(entry.path()); // it costs room, nothing else
            }
        }
        Ok(Guard { _file: file })
    }

    /// A place for a component of at most `limit` octets.
    pub(super) fn incoming(&self, _guard: &Guard, limit: u64) -> io::Result<Incoming> {
        let path = self.dir.join(format!("{INCOMING}{}", std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&path)?;
        Ok(Incoming { path, file, hasher: Sha256::new(), size: 0, limit })
    }

    /// Keeps it under its digest, safe on the disk.
    pub(super) fn keep(&self, incoming: &Incoming) -> io::Result<()> {
        incoming.file.sync_all()?;
        fs::rename(&incoming.path, self.file(&incoming.digest()))?;
        sync_dir(&self.dir)
    }

    /// Whether the component is here, whole.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        let hashed = File::open(self.file(digest)).and_then(|mut file| {
            let mut hasher = Sha256::new();
            io::copy(&mut file, &mut hasher)?;
            Ok(Digest::from_hasher(hasher))
        });
        hashed.is_ok_and(|found| found == *digest)
    }

    /// Removes a component.
    pub(super) fn remove(&self, _guard: &Guard, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.file(digest)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}

impl Incoming {
    /// Takes the next octets; false if they are more than there may be.
    pub fn push(&mut self, octets: &[u8]) -> io::Result<bool> {
        self.size = self.size.saturating_add(octets.len() as u64);
        if self.size > self.limit {
            return Ok(false);
        }
        self.hasher.update(octets);
        self.file.write_all(octets)?;
        Ok(true)
    }

    /// Octets that there may be.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Octets so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Of the octets so far.
    pub fn digest(&self) -> Digest {
        Digest::from_hasher(self.hasher.clone())
    }

    /// Where it lies for the time being.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // not there any more if it was kept
    }
}

/// A file appears whole or not at all, and stays.
pub(super) fn write_whole(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
    let written = file.write_all(octets).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        let _ = fs::remove_file(&temporary); // the first error is the one to report
    });
    renamed.and_then(|()| sync_dir(path.parent().unwrap_or(Path::new("/"))))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(if dir == Path::new("") { Path::new(".") } else { dir })?.sync_all()
}
