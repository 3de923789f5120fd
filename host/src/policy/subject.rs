//! What is judged: a session, an envelope, a message.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::mail::{Envelope, HeaderBlock, QueueId};

/// When the policies are asked. Each is one hook of the plugin interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Before the greeting.
    Connect,
    /// After HELO or EHLO.
    Helo,
    /// After MAIL.
    Mail,
    /// After RCPT, for one forward-path that this host is ready to take.
    Rcpt,
    /// After the end of data.
    Message,
}

impl Stage {
    /// In the order of a session.
    pub const ALL: [Self; 5] = [Self::Connect, Self::Helo, Self::Mail, Self::Rcpt, Self::Message];

    /// As it stands in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Message => "message",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What TLS was agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.3`.
    pub version: String,
    /// `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
}

/// The facts of one session, as far as they are known.
#[derive(Debug, Clone)]
pub struct Session {
    /// Names the session in logs.
    pub id: String,
    /// The listener's name in the config.
    pub listener: String,
    /// The client's address and port.
    pub client: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
    /// The client's name, if reverse and forward DNS agree on one.
    pub client_name: Option<String>,
    /// What it said in HELO or EHLO.
    pub helo: Option<String>,
    /// Whether it said EHLO.
    pub extended: bool,
    /// TLS, once it is there.
    pub tls: Option<TlsFacts>,
    /// The user, after AUTH.
    pub user: Option<String>,
    /// Whether it may relay: in a trusted network, or authenticated.
    pub trusted: bool,
    /// What plugins noted, for the whole session.
    pub notes: Notes,
}

/// Small things that a plugin remembers between its hooks, by plugin and key. Cheap to clone; clones share.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<NoteMap>>);

/// By plugin and key.
type NoteMap = BTreeMap<(String, String), Vec<u8>>;

impl Notes {
    /// Octets of keys and values that all plugins together may keep in one place.
    pub const LIMIT: usize = 64 * 1024;

    /// What `plugin` noted under `key`.
    pub fn get(&self, plugin: &str, key: &str) -> Option<Vec<u8>> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.get(&(plugin.to_owned(), key.to_owned())).cloned()
    }

    /// Notes it; false if the limit would be passed, and nothing is changed then.
    #[must_use]
    pub fn put(&self, plugin: &str, key: &str, value: Vec<u8>) -> bool {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = (plugin.to_owned(), key.to_owned());
        let used: usize = notes.iter().filter(|(own, _)| **own != id).map(|((_, k), v)| k.len() + v.len()).sum();
        if used + key.len() + value.len() > Self::LIMIT {
            return false;
        }
        notes.insert(id, value);
        true
    }
}

/// Octets of a message body that lie somewhere: in memory or in a spool file.
pub trait Content: Send + Sync {
    /// How many.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads from `offset` as much as there is room for; less only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// All of it as one slice, if it lies in memory.
    fn as_slice(&self) -> Option<&[u8]> {
        None
    }
    /// The thing itself, for the store to know its own file again instead of copying it.
    fn as_any(&self) -> Option<&dyn std::any::Any> {
        None
    }
}

impl Content for Vec<u8> {
    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
    fn as_slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// A whole message on its way through the policies and into the queue.
#[derive(Clone)]
pub struct Mail {
    /// Its name.
    pub id: QueueId,
    /// Where from, where to.
    pub envelope: Arc<Envelope>,
    /// The header section, our trace fields included.
    pub header: Arc<HeaderBlock>,
    /// The body, without the empty line before it; CRLF line ends, dots unstuffed.
    pub body: Arc<dyn Content>,
    /// Why it shall wait for the operator, if it shall.
    pub hold: Option<String>,
    /// A transport and next hop that replaces routing (Postfix's FILTER).
    pub filter: Option<String>,
    /// What plugins noted, for this transaction.
    pub notes: Notes,
}
