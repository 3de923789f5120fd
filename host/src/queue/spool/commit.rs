//! Taking a message: its body where it belongs, its record appended, the sync awaited.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::body::{BodyFile, Draft};
use super::log::{BodyName, Sleep, Waiter};
use super::meta::{BodyPlace, InFile, MetaRef};
use super::record::Kind;
use super::{Shared, again, lock};
use crate::mail::QueueId;
use crate::queue::{CommitError, Message};

impl Shared {
    /// Done means durable.
    pub(super) async fn commit(&self, message: &Message) -> Result<(), CommitError> {
        let written = self.place_body(message).await?;
        let file = written.as_deref().or(own_file(message));
        let result = self.append(message, file)?;
        // From here on the log names the file, and removes it with the message.
        if let Some(file) = file {
            file.keep(true);
        }
        let mut guard = Unacknowledged { shared: self, id: Some(message.id) };
        let result = result.await.unwrap_or(Err(CommitError::Closed));
        guard.id = None;
        result
    }

    /// Where the body is to lie; what is not to lie in the record is in a file when this returns, and durable.
    async fn place_body(&self, message: &Message) -> Result<Option<Arc<BodyFile>>, CommitError> {
        let Some(body) = message.letter.body() else { return Ok(None) };
        let in_memory = body.as_slice().is_some();
        if in_memory && body.len() <= self.inline_size {
            return Ok(None);
        }
        let (dirs, body, id) = (self.dirs.clone(), body.clone(), message.id);
        let write = move || {
            // A policy may have changed the body; then the draft is not what is to be kept.
            let own = body.as_any().and_then(|any| any.downcast_ref::<BodyFile>()).is_some_and(|own| own.id() == id);
            let sync = |file: &BodyFile| file.sync().map_err(|err| CommitError::from_io(&err, "sync of the body"));
            if own {
                body.as_any().and_then(|any| any.downcast_ref::<BodyFile>()).map_or(Ok(()), sync)?;
                return Ok(None);
            }
            let mut draft = Draft::create(&dirs.disk, &dirs.body, id)?;
            let mut buffer = vec![0; 256 << 10];
            while draft.len() < body.len() {
                match body.read_at(draft.len(), &mut buffer) {
                    Ok(0) => return Err(CommitError::Body("it is shorter than it was".into())),
                    Ok(n) => draft.write(buffer.get(..n).unwrap_or_default())?,
                    Err(err) => return Err(CommitError::Body(err.to_string())),
                }
            }
            let file = draft.finish_file();
            sync(&file)?;
            Ok(Some(file))
        };
        tokio::task::spawn_blocking(write).await.map_err(|err| CommitError::Body(err.to_string()))?
    }

    fn append(
        &self,
        message: &Message,
        body: Option<&BodyFile>,
    ) -> Result<oneshot::Receiver<Result<(), CommitError>>, CommitError> {
        let header = message.letter.header();
        let inline = if body.is_some() { None } else { message.letter.body_slice() };
        let place = match body {
            Some(file) => file.at().into(),
            None => BodyPlace::Inline,
        };
        let mut crc = crc32fast::Hasher::new();
        crc.update(header);
        crc.update(inline.unwrap_or_default());
        let meta = MetaRef {
            arrived: message.arrived,
            envelope: &message.envelope,
            hold: &message.hold,
            filter: &message.filter,
            header_len: u32::try_from(header.len()).map_err(|_| CommitError::TooLarge)?,
            body: place,
            data_crc: crc.finalize(),
        };
        let meta = meta.encode().map_err(|_| CommitError::TooLarge)?;
        let (done, result) = oneshot::channel();
        let mut log = lock(&self.log);
        if log.closing {
            return Err(CommitError::Closed);
        }
        let at = log
            .append(Kind::Message, message.id, &meta, &[header, inline.unwrap_or_default()])
            .map_err(|err| self.refuse(&err))?;
        let body = place.in_file().map(|InFile { number, len, .. }| BodyName { number, len });
        log.insert(message.id, at, body);
        let lsn = log.written;
        log.waiters.push_back(Waiter { lsn, id: Some(message.id), done });
        let round = self.stand_in(&mut log);
        let wake = log.sleep != Sleep::Awake && log.stand_in.is_none();
        let fill = u64::from(at.at) + u64::from(at.len);
        let three_quarters = self.dirs.segment_size / 4 * 3;
        let tidy = fill >= three_quarters && u64::from(at.at) < three_quarters;
        drop(log);
        if wake {
            self.work.notify_one();
        }
        if let Some(round) = round {
            let _ = round.run(self); // told like everybody who waits
        }
        if tidy {
            self.chores.notify_one();
        }
        Ok(result)
    }

    fn refuse(&self, err: &io::Error) -> CommitError {
        let refused = CommitError::from_io(err, "write");
        self.trouble.set(again(&refused));
        self.chores.notify_one(); // perhaps something can be cleaned away
        refused
    }
}

/// The body's file, if it was drafted here.
fn own_file(message: &Message) -> Option<&BodyFile> {
    message.letter.body()?.as_any()?.downcast_ref()
}

/// Drops the message again if the one who committed it goes away before it is durable: the client was never told 250.
struct Unacknowledged<'a> {
    shared: &'a Shared,
    id: Option<QueueId>,
}

impl Drop for Unacknowledged<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.note(|log| log.forget(id));
        }
    }
}
