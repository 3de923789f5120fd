//! Bodies that are too large for a record: a file each, written while the message comes in, gone with the message.

use std::any::Any;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::mail::QueueId;
use crate::policy::Content;
use crate::queue::CommitError;
use crate::queue::disk::{Disk, DiskFile};

/// Tells drafts of one message apart: a policy may replace a body that lies in a file by another.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);

/// The file's name. Made of numbers alone, so that no record can name a file elsewhere.
pub(super) fn file_name(id: QueueId, number: u32) -> String {
    format!("{id}.{number:08x}")
}

/// A body that is being written.
pub struct Draft {
    body: BodyFile,
}

impl Draft {
    pub(super) fn create(disk: &Disk, dir: &Path, id: QueueId) -> Result<Self, CommitError> {
        loop {
            let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(file_name(id, number));
            match disk.create(path.clone()) {
                Ok(file) => {
                    let (disk, kept) = (disk.clone(), AtomicBool::new(false));
                    return Ok(Self { body: BodyFile { file, path, disk, id, number, len: 0, kept } });
                }
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                Err(err) => return Err(CommitError::from_io(&err, path.display())),
            }
        }
    }

    /// Appends. Goes to the page cache, which takes microseconds; pieces of some 64 KiB are best.
    pub fn write(&mut self, octets: &[u8]) -> Result<(), CommitError> {
        let body = &mut self.body;
        body.file
            .write_all_at(&mut [IoSlice::new(octets)], body.len)
            .map_err(|err| CommitError::from_io(&err, body.path.display()))?;
        body.len += octets.len() as u64;
        Ok(())
    }

    /// Octets so far.
    pub fn len(&self) -> u64 {
        self.body.len
    }

    /// Whether there are none so far.
    pub fn is_empty(&self) -> bool {
        self.body.len == 0
    }

    /// The body as policies read it and as `commit` takes it. Unless it is committed, the file goes when the last user drops it.
    pub fn finish(self) -> Arc<dyn Content> {
        self.finish_file()
    }

    pub(super) fn finish_file(self) -> Arc<BodyFile> {
        Arc::new(self.body)
    }
}

/// A body in a file.
pub(super) struct BodyFile {
    file: DiskFile,
    path: PathBuf,
    disk: Disk,
    id: QueueId,
    number: u32,
    len: u64,
    /// Whether a record names it, so that it is the log's to remove.
    kept: AtomicBool,
}

impl BodyFile {
    /// The body of a message that was read back.
    pub fn open(disk: &Disk, dir: &Path, id: QueueId, number: u32, len: u64) -> io::Result<Self> {
        let path = dir.join(file_name(id, number));
        let file = disk.open(path.clone())?;
        Ok(Self { file, path, disk: disk.clone(), id, number, len, kept: AtomicBool::new(true) })
    }

    /// Its message and number.
    pub fn name(&self) -> (QueueId, u32) {
        (self.id, self.number)
    }

    /// Makes it and its name durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync()?;
        self.path.parent().map_or(Ok(()), |dir| self.disk.sync_dir(dir))
    }

    /// A record is going to name it, or after all not.
    pub fn keep(&self, kept: bool) {
        self.kept.store(kept, Ordering::Relaxed);
    }
}

impl Content for BodyFile {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let n = rest.min(buffer.len());
        let Some(buffer) = buffer.get_mut(..n) else { return Ok(0) };
        match self.file.read_at(buffer, offset)? {
            read if read == n => Ok(n),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} is too short", self.path.display()))),
        }
    }
    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed)
            && let Err(err) = self.disk.remove(&self.path)
        {
            tracing::warn!(file = %self.path.display(), %err, "an abandoned body stays behind");
        }
    }
}
