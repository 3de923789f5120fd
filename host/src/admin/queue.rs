//! The queue over the control socket: what is asked, what is answered.

use serde::{Deserialize, Serialize};

use crate::mail::QueueId;
use crate::queue::{AdminError, Filter, Letter, Queue, SiteSummary, Summary, Usage};

/// Octets of a header section that are shown.
const MAX_HEADER: usize = 256 << 10;
/// Ids that one request may name; so many fit into its body.
pub(super) const MAX_IDS: usize = 2000;

/// The answer to `POST /queue/list`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    /// Those that match, oldest first; at most 10,000.
    pub messages: Vec<Summary>,
    /// Messages in the queue, whether they match or not.
    pub total: usize,
}

/// The answer to `GET /queue/ID`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// As in the list.
    #[serde(flatten)]
    pub summary: Summary,
    /// The header section; what is not UTF-8 is replaced.
    pub header: String,
    /// Whether there is more of it than is shown.
    pub header_cut: bool,
}

/// The queue in `GET /status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueFacts {
    /// Messages.
    pub messages: usize,
    /// Octets of mail.
    pub octets: u64,
    /// Octets that it takes on the disk.
    pub disk: u64,
    /// Why no mail is taken now, if that is so.
    pub refusing: Option<String>,
    /// Where mail waits or is being delivered to.
    pub destinations: Vec<DestinationFacts>,
}

/// One destination in `GET /status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DestinationFacts {
    /// Its name.
    pub destination: String,
    /// What could be delivered now.
    pub ready: usize,
    /// What waits for its time.
    pub waiting: usize,
    /// Deliveries, with connections that wait for more.
    pub workers: u32,
    /// Why it could not be reached the last time, if it is being left alone.
    pub unreachable: Option<String>,
}

/// What can be done to messages: `POST /queue/ACT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Try now.
    Flush,
    /// Keep back.
    Hold,
    /// Let go.
    Release,
    /// Throw away.
    Delete,
    /// Give up, and tell the sender.
    Bounce,
}

impl Act {
    const NAMES: [(Self, &'static str, &'static str); 5] = [
        (Self::Flush, "flush", "flushed"),
        (Self::Hold, "hold", "held"),
        (Self::Release, "release", "released"),
        (Self::Delete, "delete", "deleted"),
        (Self::Bounce, "bounce", "bounced"),
    ];

    /// As it stands in a request.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(act, ..)| *act == self).map_or("", |(_, name, _)| name)
    }
    /// As it is told afterwards.
    pub fn past(self) -> &'static str {
        Self::NAMES.iter().find(|(act, ..)| *act == self).map_or("", |(.., past)| past)
    }
    /// By its name in a request.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, own, _)| *own == name).map(|(act, ..)| *act)
    }
}

/// What `POST /queue/ACT` is to be done to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Which messages. One that says nothing means all: whoever asks has to write it out.
    pub filter: Filter,
    /// Why: shown in the list with those that are held, told to the sender of those that are bounced.
    #[serde(default)]
    pub why: Option<String>,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// How many messages it was done to.
    pub done: usize,
    /// Those of the named ids that no message has.
    pub missing: Vec<String>,
}

/// Lists. Blocks on the disk.
pub(super) fn list(queue: &Queue, filter: &Filter) -> Listed {
    Listed { messages: queue.list(filter), total: queue.usage().messages }
}

/// Shows one. Blocks on the disk.
pub(super) fn show(queue: &Queue, id: QueueId) -> Result<Shown, AdminError> {
    let summary = queue.show(id)?;
    let letter: Letter = queue.content(id)?;
    let header = letter.header();
    let shown = header.get(..MAX_HEADER).unwrap_or(header);
    let header_cut = shown.len() < header.len();
    Ok(Shown { summary, header: String::from_utf8_lossy(shown).into_owned(), header_cut })
}

/// Does it. Blocks on the disk.
pub(super) fn act(queue: &Queue, act: Act, order: Order) -> Acted {
    let Order { filter, why } = order;
    let is_missing = |id: &&String| !id.parse().is_ok_and(|id| queue.show(id).is_ok());
    let missing = filter.ids.iter().filter(is_missing).cloned().collect();
    let why = why.as_deref().filter(|why| !why.trim().is_empty());
    let done = match act {
        Act::Flush => queue.flush(&filter),
        Act::Hold => queue.hold(&filter, why.unwrap_or("by the operator")),
        Act::Release => queue.release(&filter),
        Act::Delete => queue.delete(&filter),
        Act::Bounce => queue.bounce(&filter, why.unwrap_or("given up by the operator")),
    };
    Acted { done, missing }
}

/// For the status.
pub(super) fn facts(queue: &Queue) -> QueueFacts {
    let Usage { messages, live, disk, .. } = queue.usage();
    let destination = |site: SiteSummary| DestinationFacts {
        unreachable: site.dead_until.and(site.reason),
        destination: site.destination,
        ready: site.ready,
        waiting: site.waiting,
        workers: site.workers,
    };
    QueueFacts {
        messages,
        octets: live,
        disk,
        refusing: queue.accepting().err().map(|err| err.to_string()),
        destinations: queue.sites().into_iter().map(destination).collect(),
    }
}
