//! `net`: octets to and from the endpoints that the config names for this plugin.

use std::collections::BTreeMap;

use tokio::time::Instant;
use wasmtime::Result;
use wasmtime::component::Resource;

use super::super::bindings::wasmta::policy::net::{Error, Framing, Host};
use super::super::context::Context;
use super::super::resource::MessageView;
use crate::net::{Connection, Fault};
use crate::policy::Mail;

/// Connections of one call at the same time.
const MAX_OPEN: usize = 8;
/// Connections that one call may open.
const MAX_OPENED: u32 = 64;
/// Octets that one read hands to a guest.
const MAX_READ: usize = 64 * 1024;
/// Octets that one call may read.
const MAX_READ_IN_ALL: u64 = 64 << 20;
/// Octets that one call may write.
const MAX_WRITTEN_IN_ALL: u64 = 256 << 20;
/// Octets of a message that are written at once.
const CHUNK: usize = 64 * 1024;

type Answer<T> = std::result::Result<T, Error>;

/// The connections of one call. They go with it, however it ends.
#[derive(Default)]
pub(in crate::plugin) struct Connections {
    open: BTreeMap<u32, Connection>,
    opened: u32,
    read: u64,
    written: u64,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreachable(why) => Self::Unreachable(why),
            Fault::Timeout => Self::Timeout,
            Fault::Closed => Self::Closed,
            Fault::Failure(why) => Self::Failure(why),
        }
    }
}

impl Host for Context {
    async fn open(&mut self, endpoint: String) -> Result<Answer<u32>> {
        let until = self.until("open a connection")?;
        let Some(found) = self.identity.endpoints.get(&endpoint) else { return Ok(Err(Error::NotGranted)) };
        if self.connections.open.len() >= MAX_OPEN || self.connections.opened >= MAX_OPENED {
            return Ok(Err(Error::Limit));
        }
        let answer = match found.connect(until).await {
            Ok(connection) => {
                self.connections.opened += 1;
                self.connections.open.insert(self.connections.opened, connection);
                Ok(self.connections.opened)
            }
            Err(fault) => {
                let (plugin, subject) = (self.identity.name.as_str(), self.subject.as_str());
                tracing::warn!(plugin, subject, endpoint, address = %found.address(), "no connection: {fault}");
                Err(fault.into())
            }
        };
        self.witness("net", || (format!("open {endpoint}"), told(&answer)));
        Ok(answer)
    }

    async fn write(&mut self, connection: u32, data: Vec<u8>) -> Result<Answer<()>> {
        let until = self.until("write to a connection")?;
        let answer = self.connections.write(connection, &data, until).await;
        self.witness("net", || {
            (format!("write {} octets to {connection}", data.len()), told(&answer.as_ref().map(|()| "done")))
        });
        Ok(answer)
    }

    async fn read(&mut self, connection: u32, len: u32) -> Result<Answer<Vec<u8>>> {
        let until = self.until("read from a connection")?;
        let answer = self.connections.read(connection, len as usize, until).await;
        let octets = answer.as_ref().map(|octets| format!("{} octets", octets.len()));
        self.witness("net", || (format!("read from {connection}"), told(&octets)));
        Ok(answer)
    }

    async fn send_message(
        &mut self,
        connection: u32,
        message: Resource<MessageView>,
        framing: Framing,
        limit: u64,
    ) -> Result<Answer<u64>> {
        let until = self.until("send a message")?;
        let mail = self.table.get(&message)?.mail.clone();
        let answer = self.connections.send(connection, &mail, framing, limit, until).await;
        let octets = answer.as_ref().map(|sent| format!("{sent} octets"));
        self.witness("net", || (format!("send the message to {connection}"), told(&octets)));
        Ok(answer)
    }

    async fn finish(&mut self, connection: u32) -> Result<Answer<()>> {
        let until = self.until("finish a connection")?;
        Ok(match self.connections.open.get_mut(&connection) {
            None => Err(Error::NoSuchConnection),
            Some(connection) => connection.finish(until).await.map_err(Error::from),
        })
    }

    async fn close(&mut self, connection: u32) -> Result<()> {
        self.connections.open.remove(&connection);
        Ok(())
    }
}

/// For `explain`: no content.
fn told<T: std::fmt::Display, E: std::fmt::Display>(answer: &std::result::Result<T, E>) -> String {
    match answer {
        Ok(value) => value.to_string(),
        Err(error) => error.to_string(),
    }
}

impl Connections {
    async fn write(&mut self, number: u32, octets: &[u8], until: Instant) -> Answer<()> {
        let connection = self.open.get_mut(&number).ok_or(Error::NoSuchConnection)?;
        self.written = self.written.saturating_add(octets.len() as u64);
        if self.written > MAX_WRITTEN_IN_ALL {
            return Err(Error::Limit);
        }
        let result = connection.write(octets, until).await;
        if result.is_err() {
            self.open.remove(&number); // how much arrived is not known
        }
        Ok(result?)
    }

    async fn read(&mut self, number: u32, len: usize, until: Instant) -> Answer<Vec<u8>> {
        let connection = self.open.get_mut(&number).ok_or(Error::NoSuchConnection)?;
        if self.read >= MAX_READ_IN_ALL {
            return Err(Error::Limit);
        }
        let mut octets = vec![0; len.min(MAX_READ)];
        if !octets.is_empty() {
            let read = connection.read(&mut octets, until).await?;
            octets.truncate(read);
            self.read = self.read.saturating_add(read as u64);
        }
        Ok(octets)
    }

    async fn send(&mut self, number: u32, mail: &Mail, framing: Framing, limit: u64, until: Instant) -> Answer<u64> {
        let length_prefixed = matches!(framing, Framing::LengthPrefixed);
        let mut sent = 0;
        let mut chunk = Vec::with_capacity(4 + CHUNK);
        loop {
            chunk.clear();
            chunk.extend_from_slice(&[0; 4]);
            let most = usize::try_from(limit.saturating_sub(sent)).unwrap_or(usize::MAX).min(CHUNK);
            let read = append(mail, sent, most, &mut chunk).map_err(|err| Error::Failure(err.to_string()))?;
            sent += read as u64;
            let prefix = u32::try_from(read).unwrap_or(u32::MAX).to_be_bytes();
            chunk[..4].copy_from_slice(&prefix);
            let begin = if length_prefixed { 0 } else { 4 };
            self.write(number, &chunk[begin..], until).await?;
            if read == 0 {
                return Ok(sent); // with a prefix, its zero has ended the stream
            }
        }
    }
}

/// Appends at most `most` octets of the message as it would be sent, from `offset` on; less only at its end.
fn append(mail: &Mail, offset: u64, most: usize, out: &mut Vec<u8>) -> std::io::Result<usize> {
    let header = mail.header.as_bytes();
    let body_begins = header.len() as u64 + 2;
    let begin = out.len();
    let left = |out: &Vec<u8>| most - (out.len() - begin);
    let position = |out: &Vec<u8>| offset.saturating_add((out.len() - begin) as u64);
    for (part, begins) in [(header, 0), (&b"\r\n"[..], header.len() as u64)] {
        let skipped = usize::try_from(position(out).saturating_sub(begins)).unwrap_or(usize::MAX);
        let rest = part.get(skipped..).unwrap_or_default();
        out.extend_from_slice(&rest[..rest.len().min(left(out))]);
    }
    while left(out) > 0 {
        let (in_body, before) = (position(out).saturating_sub(body_begins), out.len());
        out.resize(before + left(out), 0);
        let read = mail.body.read_at(in_body, &mut out[before..])?;
        out.truncate(before + read);
        if read == 0 {
            break;
        }
    }
    Ok(out.len() - begin)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::mail::{BodyType, Envelope, HeaderBlock, Origin, QueueId, ReversePath};
    use crate::policy::Notes;

    #[test]
    fn a_message_in_pieces_of_any_size() {
        let whole = b"Subject: x\r\nTo: y\r\n\r\nfirst line\r\nsecond line\r\n";
        let (header, body) = HeaderBlock::parse(whole);
        let origin = Origin { client: None, helo: String::new(), protocol: "SMTP".into() };
        let mail = Mail {
            id: QueueId::from_u64(1),
            envelope: Arc::new(Envelope {
                reverse_path: ReversePath::Null,
                recipients: Vec::new(),
                body: BodyType::SevenBit,
                smtputf8: false,
                ret: None,
                envelope_id: None,
                origin,
            }),
            header: Arc::new(header),
            body: Arc::new(whole[body..].to_vec()),
            hold: None,
            filter: None,
            notes: Notes::default(),
        };
        for size in 1..whole.len() + 3 {
            let mut out = b"before".to_vec();
            while let read @ 1.. = append(&mail, out.len() as u64 - 6, size, &mut out).unwrap() {
                assert!(read <= size);
            }
            assert_eq!(&out[6..], whole, "{size} at a time");
        }
        assert_eq!(append(&mail, u64::MAX, 10, &mut Vec::new()).unwrap(), 0);
    }
}
