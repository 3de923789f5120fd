//! One destination: its entries and what is known of it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::sync::Arc;

use crate::mail::{QueueId, Reply};
use crate::queue::UnixTime;

/// Where deliveries go: a transport and its next hop, `smtp:[192.0.2.1]:25` or `local`. What it says is for `delivery` to
/// understand; here, equal names share a queue. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination(Arc<str>);

impl Destination {
    /// By its name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a destination, and its entries.
#[derive(Debug)]
pub(super) struct SiteState {
    pub destination: Destination,
    /// Never tried, in the order they came.
    pub fresh: VecDeque<QueueId>,
    /// Tried before, or asked for by the operator; the oldest message first.
    pub retry: BinaryHeap<Reverse<(QueueId, bool)>>,
    /// Which of the two is next, so that neither starves the other.
    pub retry_next: bool,
    /// Entries that wait for their time.
    pub waiting: usize,
    pub workers: u32,
    pub idle: u32,
    /// Workers that were called or opened and have not come yet.
    pub coming: u32,
    /// Whether it is among the openings.
    pub announced: bool,
    pub limit: u32,
    pub failures: u32,
    /// How often in a row it was left alone.
    pub deaths: u32,
    pub dead_until: Option<UnixTime>,
    pub reply: Option<Reply>,
}

impl SiteState {
    pub fn new(destination: Destination, limit: u32) -> Self {
        Self {
            destination,
            fresh: VecDeque::new(),
            retry: BinaryHeap::new(),
            retry_next: false,
            waiting: 0,
            workers: 0,
            idle: 0,
            coming: 0,
            announced: false,
            limit,
            failures: 0,
            deaths: 0,
            dead_until: None,
            reply: None,
        }
    }

    pub fn ready(&self) -> usize {
        self.fresh.len() + self.retry.len()
    }

    pub fn wants_worker(&self) -> bool {
        self.ready() > self.coming as usize && self.workers < self.limit && self.dead_until.is_none()
    }

    pub fn is_forgettable(&self) -> bool {
        self.ready() == 0 && self.waiting == 0 && self.workers == 0 && self.dead_until.is_none()
    }
}

/// What one destination looks like, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SiteSummary {
    /// Its name.
    pub destination: String,
    /// Entries that could be delivered now.
    pub ready: usize,
    /// Entries that wait for their time.
    pub waiting: usize,
    /// Workers, idle ones included.
    pub workers: u32,
    /// Until when it is left alone, if it is.
    pub dead_until: Option<UnixTime>,
    /// Why it could not be reached the last time.
    pub reason: Option<String>,
}

impl From<&SiteState> for SiteSummary {
    fn from(state: &SiteState) -> Self {
        Self {
            destination: state.destination.to_string(),
            ready: state.ready(),
            waiting: state.waiting,
            workers: state.workers,
            dead_until: state.dead_until,
            reason: state.reply.as_ref().map(Reply::to_string),
        }
    }
}
