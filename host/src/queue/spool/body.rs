//! Bodies that are too large for a record: a file each, written while the message comes in, gone with the message.

use std::any::Any;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crc32fast::Hasher;

use super::meta::InFile;
use crate::mail::QueueId;
use crate::policy::Content;
use crate::queue::CommitError;
use crate::queue::disk::{Disk, DiskFile};

/// Octets that are read at once.
const PIECE: usize = 256 << 10;

/// Tells drafts of one message apart: a policy may replace a body that lies in a file by another.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);

/// The file's name. Made of numbers alone, so that no record can name a file elsewhere.
pub(super) fn file_name(id: QueueId, number: u32) -> String {
    format!("{id}.{number:08x}")
}

/// A body that is being written.
pub struct Draft {
    body: BodyFile,
    crc: Hasher,
}

impl Draft {
    pub(super) fn create(disk: &Disk, dir: &Path, id: QueueId) -> Result<Self, CommitError> {
        loop {
            let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(file_name(id, number));
            match disk.create(path.clone()) {
                Ok(file) => {
                    let (disk, kept) = (disk.clone(), AtomicBool::new(false));
                    let at = InFile { number, len: 0, crc: None };
                    return Ok(Self { body: BodyFile { file, path, disk, id, at, kept }, crc: Hasher::new() });
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
            .write_all_at(&mut [IoSlice::new(octets)], body.at.len)
            .map_err(|err| CommitError::from_io(&err, body.path.display()))?;
        body.at.len += octets.len() as u64;
        self.crc.update(octets);
        Ok(())
    }

    /// Octets so far.
    pub fn len(&self) -> u64 {
        self.body.at.len
    }

    /// Whether there are none so far.
    pub fn is_empty(&self) -> bool {
        self.body.at.len == 0
    }

    /// The body as policies read it and as `commit` takes it. Unless it is committed, the file goes when the last user drops it.
    pub fn finish(self) -> Arc<dyn Content> {
        self.finish_file()
    }

    pub(super) fn finish_file(mut self) -> Arc<BodyFile> {
        self.body.at.crc = Some(self.crc.finalize());
        Arc::new(self.body)
    }
}

/// A body in a file.
pub(super) struct BodyFile {
    file: DiskFile,
    path: PathBuf,
    disk: Disk,
    id: QueueId,
    at: InFile,
    /// Whether a record names it, so that it is the log's to remove.
    kept: AtomicBool,
}

impl BodyFile {
    /// The body of a message that was read back.
    pub fn open(disk: &Disk, dir: &Path, id: QueueId, at: InFile) -> io::Result<Self> {
        let path = dir.join(file_name(id, at.number));
        let file = disk.open(path.clone())?;
        Ok(Self { file, path, disk: disk.clone(), id, at, kept: AtomicBool::new(true) })
    }

    /// Its message.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// What a record says of it.
    pub fn at(&self) -> InFile {
        self.at
    }

    /// Reads it through: whether it is what was written, as far as one can know.
    pub fn is_sound(&self) -> io::Result<bool> {
        if self.file.size()? != self.at.len {
            return Ok(false);
        }
        let Some(expected) = self.at.crc else { return Ok(true) };
        let (mut crc, mut buffer, mut done) = (Hasher::new(), vec![0; PIECE], 0);
        while done < self.at.len {
            let read = self.read_at(done, &mut buffer)?;
            crc.update(buffer.get(..read).unwrap_or_default());
            done += read as u64;
        }
        Ok(crc.finalize() == expected)
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
        self.at.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.at.len.saturating_sub(offset)).unwrap_or(usize::MAX);
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
