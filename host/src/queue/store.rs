//! What the queue asks of a store, and what it keeps there. The spool beside it is one; a database shared by several nodes can
//! be another.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use super::UnixTime;
use crate::mail::{Envelope, HeaderBlock, QueueId, Reply};
use crate::policy::Content;

/// A result that comes later.
pub type Promise<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a message was not taken. The peer may try again in every case.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The file system, or our share of it, is full, or nearer to that than the config allows. The operator's to mend.
    #[error("no room in the spool: {0}")]
    Full(String),
    /// The disk did not keep it; what it said of the data is not believed again. The disk's fault.
    #[error("the spool did not keep the message: {0}")]
    Disk(String),
    /// The body could not be read from where it lay.
    #[error("the body cannot be read: {0}")]
    Body(String),
    /// Larger than one record of the store can be. Limits before this one should have refused it.
    #[error("the message is larger than the spool can hold")]
    TooLarge,
    /// The queue is closing.
    #[error("the queue is closing")]
    Closed,
}

impl CommitError {
    /// Tells a full disk from a broken one.
    pub(super) fn from_io(err: &io::Error, what: impl fmt::Display) -> Self {
        if super::disk::is_full(err) {
            Self::Full(format!("{what}: {err}"))
        } else {
            Self::Disk(format!("{what}: {err}"))
        }
    }
}

/// What the peer is told. Bland: the detail is for the log.
impl From<&CommitError> for Reply {
    fn from(err: &CommitError) -> Self {
        match err {
            CommitError::Full(_) => Reply::transient(452, (3, 1), "insufficient system storage, try again later"),
            CommitError::Disk(_) | CommitError::Body(_) => {
                Reply::transient(451, (3, 0), "queue file error, try again later")
            }
            CommitError::TooLarge => Reply::permanent(552, (3, 4), "message too big for system"),
            CommitError::Closed => Reply::transient(421, (3, 2), "shutting down, try again later"),
        }
    }
}

/// A message on its way into a store.
#[derive(Clone)]
pub struct Message {
    /// Its name.
    pub id: QueueId,
    /// When it was taken.
    pub arrived: UnixTime,
    /// Where from, where to.
    pub envelope: Arc<Envelope>,
    /// Why it shall wait for the operator, if it shall.
    pub hold: Option<String>,
    /// A transport and next hop that replaces routing.
    pub filter: Option<String>,
    /// Header section and body.
    pub letter: Letter,
}

/// What is kept of a message besides its content.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its name.
    pub id: QueueId,
    /// When it was taken.
    pub arrived: UnixTime,
    /// Where from, where to.
    pub envelope: Arc<Envelope>,
    /// A transport and next hop that replaces routing.
    pub filter: Option<String>,
    /// Octets of header section, empty line and body.
    pub size: u64,
    /// What became of it so far.
    pub state: State,
}

/// Header section and body of a message; cheap to clone.
#[derive(Clone)]
pub struct Letter(Inner);

#[derive(Clone)]
enum Inner {
    /// As it came from the listener.
    Hot { header: Arc<HeaderBlock>, body: Arc<dyn Content> },
    /// As it was read back: the header section and, unless it lies in a file, the body behind it.
    Read { octets: Arc<Vec<u8>>, header_len: usize, file: Option<Arc<dyn Content>> },
}

impl Letter {
    /// As it came from the listener.
    pub fn new(header: Arc<HeaderBlock>, body: Arc<dyn Content>) -> Self {
        Self(Inner::Hot { header, body })
    }

    /// As it was read back. `file` holds the body if it does not follow the header section.
    pub fn read_back(octets: Vec<u8>, header_len: usize, file: Option<Arc<dyn Content>>) -> Self {
        Self(Inner::Read { octets: Arc::new(octets), header_len, file })
    }

    /// The header section, without the empty line that ends it.
    pub fn header(&self) -> &[u8] {
        match &self.0 {
            Inner::Hot { header, .. } => header.as_bytes(),
            Inner::Read { octets, header_len, .. } => octets.get(..*header_len).unwrap_or_default(),
        }
    }

    /// The body, if it lies in memory.
    pub fn body_slice(&self) -> Option<&[u8]> {
        match &self.0 {
            Inner::Hot { body, .. } | Inner::Read { file: Some(body), .. } => body.as_slice(),
            Inner::Read { octets, header_len, file: None } => octets.get(*header_len..),
        }
    }

    /// Octets of the body.
    pub fn body_len(&self) -> u64 {
        match &self.0 {
            Inner::Hot { body, .. } | Inner::Read { file: Some(body), .. } => body.len(),
            Inner::Read { octets, header_len, file: None } => octets.len().saturating_sub(*header_len) as u64,
        }
    }

    /// Reads from the body, wherever it lies; less than there is room for only at its end. Blocks on the disk if it lies there.
    pub fn read_body_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match (&self.0, self.body_slice()) {
            (Inner::Hot { body, .. } | Inner::Read { file: Some(body), .. }, None) => body.read_at(offset, buffer),
            (_, slice) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = slice.and_then(|body| body.get(start..)).unwrap_or_default();
                let n = rest.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
                    to.copy_from_slice(from);
                }
                Ok(n)
            }
        }
    }

    /// The body itself, if it is not part of what was read back.
    pub(super) fn body(&self) -> Option<&Arc<dyn Content>> {
        match &self.0 {
            Inner::Hot { body, .. } | Inner::Read { file: Some(body), .. } => Some(body),
            Inner::Read { file: None, .. } => None,
        }
    }

    /// Octets of the whole message as it goes over the wire before dot stuffing: header section, empty line, body.
    pub fn len(&self) -> u64 {
        self.header().len() as u64 + 2 + self.body_len()
    }

    /// Never: there is always the empty line.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Octets that it keeps in memory.
    pub fn in_memory(&self) -> usize {
        self.header().len() + self.body_slice().map_or(0, <[u8]>::len)
    }
}

/// What became of a message so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Why it waits for the operator, if it does.
    pub hold: Option<String>,
    /// Whether the sender was told of the delay.
    pub warned: bool,
    /// In the order of the envelope.
    pub recipients: Vec<RecipientState>,
}

/// A reply, and who gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// What was said.
    pub reply: Reply,
    /// The other host, like `mx.example.org[192.0.2.1]:25`; none if it is this one's own word.
    pub remote: Option<String>,
}

impl Response {
    /// This host's own word.
    pub fn own(reply: Reply) -> Self {
        Self { reply, remote: None }
    }
}

/// `host mx.example.org[192.0.2.1]:25 said: 550 5.1.1 no such user`, as in Postfix's logs.
impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remote {
            Some(remote) => write!(f, "host {remote} said: {}", self.reply),
            None => write!(f, "{}", self.reply),
        }
    }
}

/// What became of one recipient so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// To be tried.
    Pending {
        /// Tries so far.
        attempts: u16,
        /// Not before this.
        due: UnixTime,
        /// What came of the last try.
        response: Option<Box<Response>>,
    },
    /// Failed for good; the sender is yet to be told.
    Failed {
        /// When.
        at: UnixTime,
        /// Why.
        response: Box<Response>,
    },
    /// Delivered, and the sender wants to know.
    Delivered {
        /// When.
        at: UnixTime,
        /// What the next hop said.
        response: Box<Response>,
        /// Whether the next hop takes over the duty to tell the sender.
        relayed: Relayed,
    },
    /// Nothing is left to do.
    Done,
}

/// Where a delivered message is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relayed {
    /// In a mailbox: this is the end of its way.
    No,
    /// At a host that understands DSN and will tell the sender itself.
    ToDsnHost,
    /// At a host that does not understand DSN.
    ToOtherHost,
}

impl State {
    /// Of a message of so many recipients that nobody has tried.
    pub fn fresh(recipients: usize, due: UnixTime, hold: Option<String>) -> Self {
        let pending = RecipientState::Pending { attempts: 0, due, response: None };
        Self { hold, warned: false, recipients: vec![pending; recipients] }
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.recipients.iter().all(|recipient| *recipient == RecipientState::Done)
    }
}

/// Why a message cannot be had back.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is none of that id.
    #[error("no such message")]
    Gone,
    /// What is there is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// It cannot be read now.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Room and use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Messages.
    pub messages: usize,
    /// Octets of live mail.
    pub live: u64,
    /// Octets that the store takes on the disk.
    pub disk: u64,
}

/// Counts those who may want to commit something: a store that knows that there is one alone need not wait for others.
#[derive(Debug, Clone, Default)]
pub struct Guests(Arc<AtomicUsize>);

/// One of them; counted until it is dropped.
#[derive(Debug)]
pub struct Guest(Guests);

impl Guests {
    /// One more.
    pub fn enter(&self) -> Guest {
        self.0.fetch_add(1, Ordering::Relaxed);
        Guest(self.clone())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A durable store of messages and of what became of them.
pub trait Store: Send + Sync {
    /// Keeps a message. Done means durable: power may fail then. If the caller loses interest before, the message is dropped.
    fn commit<'a>(&'a self, message: &'a Message) -> Promise<'a, Result<(), CommitError>>;

    /// Those who may commit something.
    fn guests(&self) -> &Guests;

    /// Notes what became of a message. Survives the death of the process at once and a power failure about a second later: what
    /// can come of that is a second delivery, never a lost one. Cannot fail: what cannot be written now is written later.
    fn update(&self, id: QueueId, state: &State);

    /// Forgets a message. Durable as `update` is.
    fn remove(&self, id: QueueId);

    /// All but the content. Blocks on the disk.
    fn stored(&self, id: QueueId) -> Result<Stored, LoadError>;

    /// All of it. Blocks on the disk.
    fn load(&self, id: QueueId) -> Result<(Stored, Letter), LoadError>;

    /// Whether there is such a message.
    fn contains(&self, id: QueueId) -> bool;

    /// The ids of all messages, oldest first.
    fn ids(&self) -> Vec<QueueId>;

    /// A place for a body that is too large for memory.
    fn draft(&self, id: QueueId) -> Result<super::Draft, CommitError>;

    /// Whether a message would be taken now, as far as one can know.
    fn accepting(&self) -> Result<(), CommitError>;

    /// Room and use.
    fn usage(&self) -> Usage;
}
