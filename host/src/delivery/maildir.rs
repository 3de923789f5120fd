//! Delivery into a Maildir: written to `tmp`, synced, renamed into `new`, the directory synced.
//!
//! The file's name is made from the queue id and the recipient's number, so that a second try after a crash finds the first one's file
//! and does not deliver twice. Lines end with LF, as everything that reads a Maildir expects.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::mail::{Domain, ForwardPath, QueueId, Reply, ReversePath};
use crate::queue::Letter;

/// Octets written at once.
const BUFFER: usize = 64 * 1024;
/// Flags that a mail program has probably set if it has seen the file already: the name it then has in `cur`.
const SEEN: [&str; 4] = ["", ":2,", ":2,S", ":2,RS"];

/// One message for one mailbox.
pub(super) struct Item<'a> {
    /// Its name in the queue.
    pub id: QueueId,
    /// Number of the recipient in the envelope.
    pub index: usize,
    /// When it arrived, in seconds since 1970.
    pub arrived: u64,
    /// For Return-Path, RFC 5321 §4.4.
    pub reverse_path: &'a ReversePath,
    /// For Delivered-To.
    pub forward_path: &'a ForwardPath,
    /// The message.
    pub letter: &'a Letter,
}

/// Delivers it. Blocks on the disk. The maildir is made if it is not there.
pub(super) fn deliver(maildir: &Path, hostname: &Domain, item: &Item<'_>) -> Result<(), Reply> {
    try_deliver(maildir, hostname, item).map_err(|err| {
        tracing::warn!(queue_id = %item.id, maildir = %maildir.display(), "cannot deliver: {err}");
        reply(&err)
    })
}

/// What the sender may hear of it some day. All of it is worth another try: an operator can make room.
fn reply(err: &io::Error) -> Reply {
    match err.kind() {
        io::ErrorKind::QuotaExceeded => Reply::transient(452, (2, 2), "mailbox full"),
        io::ErrorKind::StorageFull => Reply::transient(452, (3, 1), "insufficient system storage"),
        _ => Reply::transient(451, (2, 0), "cannot write to the mailbox now"),
    }
}

fn try_deliver(maildir: &Path, hostname: &Domain, item: &Item<'_>) -> io::Result<()> {
    let name = format!("{}.Q{}R{}.{hostname}", item.arrived, item.id, item.index);
    let (tmp, new, cur) = (maildir.join("tmp"), maildir.join("new"), maildir.join("cur"));
    make(maildir, &[&tmp, &new, &cur])?;
    let there = new.join(&name);
    let delivered = |path: PathBuf| path.symlink_metadata().is_ok();
    if delivered(there.clone()) || SEEN.iter().any(|flags| delivered(cur.join(format!("{name}{flags}")))) {
        return sync_dir(&new); // by a try whose end was not noted
    }
    let draft = tmp.join(&name);
    let _ = fs::remove_file(&draft); // of a try that was cut short; most often there is none
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = write(file, item).and_then(|()| fs::rename(&draft, &there));
    if written.is_err() {
        let _ = fs::remove_file(&draft); // the first error is the one to report
    }
    written.and_then(|()| sync_dir(&new))
}

fn make(maildir: &Path, parts: &[&PathBuf]) -> io::Result<()> {
    if parts.iter().all(|part| part.is_dir()) {
        return Ok(());
    }
    for part in parts {
        DirBuilder::new().recursive(true).mode(0o700).create(part)?;
    }
    sync_dir(maildir)?;
    maildir.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn write(file: File, item: &Item<'_>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, file);
    write!(out, "Return-Path: <{}>\nDelivered-To: {}\n", item.reverse_path, item.forward_path)?;
    let mut lines = LineEnds::new(&mut out);
    lines.write_all(item.letter.header())?;
    lines.write_all(b"\r\n")?;
    if let Some(body) = item.letter.body_slice() {
        lines.write_all(body)?;
    } else {
        let mut body = BodyReader { letter: item.letter, at: 0 };
        let mut piece = vec![0; BUFFER];
        loop {
            match body.read(&mut piece)? {
                0 => break,
                n => lines.write_all(piece.get(..n).unwrap_or_default())?,
            }
        }
    }
    lines.finish()?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

struct BodyReader<'a> {
    letter: &'a Letter,
    at: u64,
}

impl io::Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.letter.read_body_at(self.at, buffer)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Turns CRLF into LF, whatever pieces the octets come in, and ends the last line.
struct LineEnds<W> {
    out: W,
    /// A CR that came last and may be followed by an LF.
    held: bool,
    last: u8,
}

impl<W: Write> LineEnds<W> {
    fn new(out: W) -> Self {
        Self { out, held: false, last: b'\n' }
    }

    fn write_all(&mut self, mut octets: &[u8]) -> io::Result<()> {
        let Some(last) = octets.last() else { return Ok(()) };
        if std::mem::take(&mut self.held) && octets.first() != Some(&b'\n') {
            self.out.write_all(b"\r")?;
        }
        self.last = *last;
        if let [rest @ .., b'\r'] = octets {
            self.held = true;
            octets = rest;
        }
        let mut from = 0;
        for at in memchr::memmem::find_iter(octets, b"\r\n") {
            self.out.write_all(octets.get(from..at).unwrap_or_default())?;
            from = at + 1;
        }
        self.out.write_all(octets.get(from..).unwrap_or_default())
    }

    fn finish(mut self) -> io::Result<()> {
        if self.held {
            self.out.write_all(b"\r")?;
        }
        if self.last == b'\n' { Ok(()) } else { self.out.write_all(b"\n") }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mail::HeaderBlock;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("wasmta-maildir-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
        fn files(&self, part: &str) -> Vec<PathBuf> {
            fs::read_dir(self.0.join(part)).unwrap().map(|entry| entry.unwrap().path()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn letter() -> Letter {
        let header = HeaderBlock::parse(b"Subject: a\r\n b\r\n\r\n").0;
        Letter::new(Arc::new(header), Arc::new(b"one\r\n\r\ntwo".to_vec()))
    }

    fn send(folder: &Folder, letter: &Letter) -> Result<(), Reply> {
        let item = Item {
            id: QueueId::from_u64(5),
            index: 0,
            arrived: 1_700_000_000,
            reverse_path: &ReversePath::Null,
            forward_path: &"ann+x@example.org".parse().unwrap(),
            letter,
        };
        deliver(&folder.0, &"mx.example.org".parse().unwrap(), &item)
    }

    #[test]
    fn once_with_lf_and_nothing_left_in_tmp() {
        let folder = Folder::new("once");
        send(&folder, &letter()).unwrap();
        send(&folder, &letter()).unwrap();
        let new = folder.files("new");
        assert_eq!((new.len(), folder.files("tmp").len()), (1, 0));
        let text = fs::read_to_string(&new[0]).unwrap();
        assert_eq!(text, "Return-Path: <>\nDelivered-To: ann+x@example.org\nSubject: a\n b\n\none\n\ntwo\n");
        let seen = folder.0.join("cur").join(format!("{}:2,S", new[0].file_name().unwrap().to_str().unwrap()));
        fs::rename(&new[0], seen).unwrap();
        send(&folder, &letter()).unwrap();
        assert!(folder.files("new").is_empty(), "a file that was read already is found again");
    }

    #[test]
    fn a_leftover_of_a_crash_is_replaced() {
        let folder = Folder::new("leftover");
        send(&folder, &letter()).unwrap();
        let new = folder.files("new").remove(0);
        fs::rename(&new, folder.0.join("tmp").join(new.file_name().unwrap())).unwrap();
        send(&folder, &letter()).unwrap();
        assert_eq!((folder.files("new").len(), folder.files("tmp").len()), (1, 0));
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let folder = Folder::new("blocked");
        fs::write(&folder.0, b"a file where the maildir should be").unwrap();
        let refused = send(&folder, &letter()).unwrap_err();
        assert_eq!(refused.code(), 451);
        fs::remove_file(&folder.0).unwrap();
    }

    #[test]
    fn line_ends_in_any_pieces() {
        let text = b"a\r\nb\r\r\nc\rd\n\r\n";
        for step in 1..text.len() {
            let mut out = Vec::new();
            let mut lines = LineEnds::new(&mut out);
            text.chunks(step).for_each(|piece| lines.write_all(piece).unwrap());
            lines.finish().unwrap();
            assert_eq!(out, b"a\nb\r\nc\rd\n\n", "in pieces of {step}");
        }
    }
}
