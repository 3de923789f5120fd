//! What policies want kept in the store if the message gets into the queue.

use std::sync::Arc;

use super::context::Identity;
use crate::kv::{Put, Space, Store};

/// Values that one transaction may stage, of all policies together, and their octets.
const MAX_PUTS: usize = 10_000;
const MAX_OCTETS: usize = 4 << 20;

/// The staged values of one transaction, or of one stage of it. Nothing happens to them unless they are kept.
#[derive(Default)]
pub struct Staged {
    store: Option<Arc<dyn Store>>,
    puts: Vec<(Space, Put)>,
    octets: usize,
    dropped: usize,
}

impl Staged {
    pub(super) fn new(identity: &Identity, puts: Vec<Put>) -> Self {
        let mut staged = Self { store: identity.services.kv.clone(), ..Self::default() };
        puts.into_iter().for_each(|put| staged.push(identity.space.clone(), put));
        staged
    }

    fn push(&mut self, space: Space, put: Put) {
        let octets = put.key.len() + put.value.len();
        if self.puts.len() >= MAX_PUTS || self.octets + octets > MAX_OCTETS {
            self.dropped += 1;
            return;
        }
        self.octets += octets;
        self.puts.push((space, put));
    }

    /// These as well.
    pub fn extend(&mut self, more: Self) {
        self.store = self.store.take().or(more.store);
        self.dropped += more.dropped;
        more.puts.into_iter().for_each(|(space, put)| self.push(space, put));
    }

    /// Keeps them: the message is in the queue. That one cannot be kept undoes nothing; it is told to the log.
    pub async fn keep(self, queue_id: &str) {
        if self.dropped > 0 {
            tracing::warn!(queue_id, dropped = self.dropped, "kv: policies staged too much for one transaction");
        }
        let Some(store) = self.store.filter(|_| !self.puts.is_empty()) else { return };
        if let Err(err) = store.put_all(self.puts).await {
            tracing::warn!(queue_id, "kv: not all that was staged is kept: {err}");
        }
    }
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged").field("puts", &self.puts.len()).field("octets", &self.octets).finish()
    }
}
