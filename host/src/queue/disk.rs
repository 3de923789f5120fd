//! The file boundary of the queue: everything that it does to files goes through here, so that a test can make any of it fail.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A file is opened or made.
    Open,
    /// Octets are written.
    Write,
    /// Octets are read.
    Read,
    /// A file's data is made durable.
    Sync,
    /// A directory's entries are made durable.
    SyncDir,
    /// Blocks are set aside.
    Allocate,
    /// A file gets another name.
    Rename,
    /// A file goes.
    Remove,
}

/// Decides what fails. For tests and torture.
pub trait Faults: Send + Sync {
    /// How many of `len` octets may pass, or the error instead. Less than `len` is a short write.
    fn on(&self, op: Op, path: &Path, len: usize) -> io::Result<usize>;
}

/// The file system.
#[derive(Clone, Default)]
pub struct Disk {
    faults: Option<Arc<dyn Faults>>,
}

impl Disk {
    /// One that fails as `faults` says.
    pub fn with_faults(faults: Arc<dyn Faults>) -> Self {
        Self { faults: Some(faults) }
    }

    fn check(&self, op: Op, path: &Path, len: usize) -> io::Result<usize> {
        self.faults.as_ref().map_or(Ok(len), |faults| faults.on(op, path, len))
    }

    /// A new file for reading and writing, 0600; an error if one is there.
    pub fn create(&self, path: PathBuf) -> io::Result<DiskFile> {
        self.open_with(path, OpenOptions::new().read(true).write(true).create_new(true).mode(0o600))
    }

    /// A file that is there, for reading and writing.
    pub fn open(&self, path: PathBuf) -> io::Result<DiskFile> {
        self.open_with(path, OpenOptions::new().read(true).write(true))
    }

    fn open_with(&self, path: PathBuf, options: &OpenOptions) -> io::Result<DiskFile> {
        self.check(Op::Open, &path, 0)?;
        Ok(DiskFile { file: options.open(&path)?, path, disk: self.clone() })
    }

    /// A directory and those above it, 0700; fine if it is there.
    pub fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.check(Op::Open, path, 0)?;
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// Makes names durable that were made, changed or removed in a directory.
    pub fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.check(Op::SyncDir, path, 0)?;
        File::open(path)?.sync_all()
    }

    /// Another name for a file.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Op::Rename, from, 0)?;
        fs::rename(from, to)
    }

    /// Removes a file; fine if it is not there.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(Op::Remove, path, 0)?;
        match fs::remove_file(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// The names in a directory that are valid UTF-8; ours all are.
    pub fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    /// Octets that we may still write there.
    pub fn free(&self, path: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(path)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Takes the lock file of a directory, or says that somebody else has it. Held until the file is dropped.
    pub fn lock(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }
}

/// An open file. Positions are always given: nothing depends on a file offset that tasks would share.
pub struct DiskFile {
    file: File,
    path: PathBuf,
    disk: Disk,
}

impl DiskFile {
    /// Where it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all of `slices` at `offset`, in as few calls as the system allows.
    pub fn write_all_at(&self, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0); // drops empty ones
        while !slices.is_empty() {
            let len = slices.iter().map(|slice| slice.len()).sum();
            let allowed = self.disk.check(Op::Write, &self.path, len)?;
            let written = if allowed < len {
                let flat: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(allowed).collect();
                self.file.write_at(&flat, offset)?
            } else {
                match rustix::io::pwritev(&self.file, slices, offset) {
                    Ok(written) => written,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(err) => return Err(err.into()),
                }
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    /// Reads as much as there is room for; less only at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            self.disk.check(Op::Read, &self.path, rest.len())?;
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(done)
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.check(Op::Sync, &self.path, 0)?;
        self.file.sync_data()
    }

    /// Sets blocks aside for the first `len` octets, so that writing them later cannot run out of room.
    pub fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.check(Op::Allocate, &self.path, usize::try_from(len).unwrap_or(usize::MAX))?;
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            // Some file systems cannot; then writes may run out of room and say so.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Cuts or extends it.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// Whether no name leads to it any more, so that all of it is gone when it is closed.
    pub fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|facts| facts.nlink() == 0)
    }

    /// How many octets it has now.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// Whether the error means that there is no room, so that room makes it go away.
pub fn is_full(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
