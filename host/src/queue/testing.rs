//! What tests of this room share.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Letter, Message, UnixTime};
use crate::mail::{BodyType, Envelope, HeaderBlock, Origin, QueueId, Recipient};

/// A directory of its own that goes with it.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("wasmta-test-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// From `<from>` to these.
pub fn envelope(from: &str, to: &[&str]) -> Envelope {
    Envelope {
        reverse_path: from.parse().unwrap(),
        recipients: to.iter().map(|to| Recipient::new(to.parse().unwrap())).collect(),
        body: BodyType::SevenBit,
        smtputf8: false,
        ret: None,
        envelope_id: None,
        origin: Origin { client: None, helo: "client.example".into(), protocol: "ESMTP".into() },
    }
}

/// A message whose body says its number.
pub fn message(number: u64, body: impl Into<Vec<u8>>) -> Message {
    let header = HeaderBlock::parse(format!("Subject: {number}\r\n\r\n").as_bytes()).0;
    Message {
        id: QueueId::from_u64(number),
        arrived: UnixTime::from_millis(1_000_000 + number),
        envelope: Arc::new(envelope("from@example.test", &["to@example.test"])),
        hold: None,
        filter: None,
        letter: Letter::new(Arc::new(header), Arc::new(body.into())),
    }
}

type Decide = dyn Fn(super::disk::Op, &Path, usize) -> std::io::Result<usize> + Send + Sync;

/// Faults as a closure says.
pub struct Script(Box<Decide>);

impl Script {
    pub fn new(
        script: impl Fn(super::disk::Op, &Path, usize) -> std::io::Result<usize> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self(Box::new(script)))
    }
}

impl super::disk::Faults for Script {
    fn on(&self, op: super::disk::Op, path: &Path, len: usize) -> std::io::Result<usize> {
        (self.0)(op, path, len)
    }
}

/// For tests that also do what blocks.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
