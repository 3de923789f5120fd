//! A table's file: read with a limit, and known again when it has changed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Octets of one table: some millions of lines.
pub(super) const MAX_FILE: u64 = 128 << 20;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The file's state now; none if it is not there.
    pub fn of(file: &Path) -> Option<Self> {
        let facts = fs::metadata(file).ok()?;
        Some(Self {
            inode: facts.ino(),
            size: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        })
    }
}

/// All of it.
pub(super) fn read(file: &Path) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: opening a named pipe would wait for somebody to write.
    let facts = fs::metadata(file)?;
    let too_much = || io::Error::other(format!("not a regular file of at most {} MiB", MAX_FILE >> 20));
    if !facts.is_file() || facts.len() > MAX_FILE {
        return Err(too_much());
    }
    let mut text = Vec::with_capacity(usize::try_from(facts.len()).unwrap_or_default());
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE { Err(too_much()) } else { Ok(text) }
}
