//! The queue as the rest of the house has it: takes messages, keeps track of those at work, and wakes whoever is to do something.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::outcome::Rules;
use super::schedule::{Call, Limits, Schedule, Site};
use super::{
    Clock, CommitError, Config, Destination, Draft, Guest, IdSource, Letter, LoadError, Message, OpenError,
    RecipientState, Recovered, Spool, State, Store, Stored, UnixTime, Usage, disk,
};
use crate::mail::{Domain, ForwardPath, QueueId};
use crate::policy::Mail;

/// What a message in memory takes besides its content, roughly.
const OVERHEAD: usize = 1024;

/// Says where the mail for a recipient goes.
pub trait Router: Send + Sync {
    /// By its forward-path, unless a policy set a transport and next hop. Never waits; asked for each try.
    fn route(&self, recipient: &ForwardPath, filter: Option<&str>) -> Destination;
}

/// All of it; cheap to clone, clones share.
#[derive(Clone)]
pub struct Queue(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub store: Box<dyn Store>,
    pub router: Box<dyn Router>,
    pub hostname: Domain,
    pub rules: Rules,
    pub config: Config,
    pub clock: Clock,
    pub ids: IdSource,
    pub desk: Mutex<Desk>,
    /// Wakes the dispatcher.
    pub dispatcher: Notify,
}

/// What is being worked on.
pub(super) struct Desk {
    pub schedule: Schedule,
    /// Messages in memory: not tried yet, or being delivered.
    pub active: HashMap<QueueId, Active>,
    /// Where idle workers of a destination wait.
    pub bells: HashMap<Site, Arc<Notify>>,
    /// Octets in `active`, and the order in which those that wait are let go if they are too many.
    pub hot: usize,
    pub hot_order: VecDeque<QueueId>,
}

/// A message in memory.
pub(super) struct Active {
    pub stored: Stored,
    /// Its content, if it is hot or was loaded.
    pub letter: Option<Letter>,
    /// Recipients whose delivery is going on.
    pub busy: Vec<usize>,
    /// It stays here: somebody is putting a notification together, or it is just being removed.
    pub pinned: bool,
    /// Octets that are counted for it; none if it was loaded for one delivery and goes after it.
    pub weight: usize,
}

impl Desk {
    /// Keeps a message in memory; others go if there are too many.
    pub fn keep(&mut self, active: Active, budget: usize) {
        self.hot += active.weight;
        let id = active.stored.id;
        self.hot_order.push_back(id);
        self.active.insert(id, active);
        while self.hot > budget {
            let Some(oldest) = self.hot_order.pop_front() else { break };
            self.let_go(oldest);
        }
        if self.hot_order.len() > 1024 + 2 * self.active.len() {
            let active = &self.active;
            self.hot_order.retain(|id| active.contains_key(id));
        }
    }

    /// Forgets a message that nobody is working on; it is in the store.
    pub fn let_go(&mut self, id: QueueId) {
        if self.active.get(&id).is_some_and(|active| active.busy.is_empty() && !active.pinned) {
            self.drop_active(id);
        }
    }

    /// Forgets a message, whoever is working on it.
    pub fn drop_active(&mut self, id: QueueId) -> Option<Active> {
        let active = self.active.remove(&id)?;
        self.hot = self.hot.saturating_sub(active.weight);
        Some(active)
    }

    /// Wakes an idle worker.
    pub fn ring(&self, site: Site) {
        if let Some(bell) = self.bells.get(&site) {
            bell.notify_last(); // the one whose connection was used last
        }
    }
}

impl Inner {
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who are called.
    pub fn make_calls(&self, desk: &Desk, calls: impl IntoIterator<Item = Call>) {
        for call in calls {
            match call {
                Call::Worker(site) => desk.ring(site),
                Call::Dispatcher => self.dispatcher.notify_one(),
            }
        }
    }

    /// Makes sure that a message is in memory. Its state is read while the desk is ours, or a delivery that ends in between would be
    /// forgotten; whoever calls this has read it just before, so that the disk does not keep everybody waiting.
    pub fn fetch<'a>(&self, desk: &'a mut Desk, id: QueueId) -> Result<&'a mut Active, LoadError> {
        match desk.active.entry(id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let stored = self.store.stored(id)?;
                Ok(place.insert(Active { stored, letter: None, busy: Vec::new(), pinned: false, weight: 0 }))
            }
        }
    }

    /// Where a recipient's mail goes.
    pub fn route(&self, stored: &Stored, index: usize) -> Option<Destination> {
        let recipient = stored.envelope.recipients.get(index)?;
        Some(self.router.route(&recipient.forward_path, stored.filter.as_deref()))
    }

    /// Whether a recipient is to be tried now. A time that no back-off reaches was noted while a clock was wrong, and does not count.
    pub fn is_due(&self, due: UnixTime, now: UnixTime) -> bool {
        due <= now || due > now.after(self.config.max_backoff.as_std() * 2 + Duration::from_secs(60))
    }

    /// The destinations of those who are yet to be tried, each with when that is due.
    pub fn destinations(&self, stored: &Stored) -> Vec<(Destination, UnixTime)> {
        let mut found: Vec<(Destination, UnixTime)> = Vec::with_capacity(1);
        for (index, recipient) in stored.state.recipients.iter().enumerate() {
            if let RecipientState::Pending { due, .. } = recipient
                && let Some(destination) = self.route(stored, index)
                && !found.iter().any(|known| known.0 == destination && known.1 == *due)
            {
                found.push((destination, *due));
            }
        }
        found
    }

    /// Hands what is yet to be tried to the schedule, anew.
    pub fn enter(&self, desk: &mut Desk, stored: &Stored, now: UnixTime) {
        if stored.state.hold.is_some() {
            return;
        }
        for (destination, due) in self.destinations(stored) {
            let due = if self.is_due(due, now) { now } else { due };
            let call = desk.schedule.enter(stored.id, &destination, due, now);
            self.make_calls(desk, call);
        }
        // What is only left to be told.
        let over =
            |state: &RecipientState| matches!(state, RecipientState::Failed { .. } | RecipientState::Delivered { .. });
        if stored.state.recipients.iter().any(over) {
            desk.schedule.deadline(stored.id, now);
            self.dispatcher.notify_one();
        }
    }
}

impl Queue {
    /// Opens the spool and enters what is in it. Blocks on the disk. Nothing is delivered before somebody asks for openings.
    pub fn open(
        config: Config,
        hostname: Domain,
        router: impl Router + 'static,
        disk: disk::Disk,
    ) -> Result<(Self, Recovered), OpenError> {
        let (spool, recovered) = Spool::open(&config, disk)?;
        for damage in &recovered.damage {
            let (file, offset, len) = (damage.file.display(), damage.offset, damage.len);
            let kept = damage.kept_as.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            tracing::error!(%file, offset, len, kept_as = kept, "damage in the queue: {}", damage.what);
        }
        let queue = Self::with_store(config, hostname, router, spool, recovered.highest);
        tracing::info!(messages = recovered.messages, segments = recovered.segments, "queue opened");
        Ok((queue, recovered))
    }

    /// On any store.
    fn with_store(
        config: Config,
        hostname: Domain,
        router: impl Router + 'static,
        store: impl Store + 'static,
        highest: Option<QueueId>,
    ) -> Self {
        let desk = Desk {
            schedule: Schedule::new(Limits::from(&config)),
            active: HashMap::new(),
            bells: HashMap::new(),
            hot: 0,
            hot_order: VecDeque::new(),
        };
        let inner = Inner {
            store: Box::new(store),
            router: Box::new(router),
            hostname,
            rules: Rules::from(&config),
            clock: Clock::system(),
            ids: IdSource::new(highest.unwrap_or(QueueId::from_u64(0))),
            desk: Mutex::new(desk),
            dispatcher: Notify::new(),
            config,
        };
        let queue = Self(Arc::new(inner));
        queue.reroute();
        queue
    }

    /// Asks the router anew for every message that waits, as at the start. Blocks on the disk.
    pub fn reroute(&self) {
        let inner = &*self.0;
        inner.desk().schedule.forget(|_| true);
        for id in inner.store.ids() {
            let known = inner.desk().active.get(&id).map(|active| active.stored.clone());
            match known.map_or_else(|| inner.store.stored(id), Ok) {
                Ok(stored) => {
                    let now = inner.clock.now();
                    inner.enter(&mut inner.desk(), &stored, now);
                }
                Err(LoadError::Gone) => {}
                Err(err) => {
                    tracing::error!(queue_id = %id, %err, "a message cannot be read; it stays in the queue, untried")
                }
            }
        }
    }

    /// A name for the next message.
    pub fn next_id(&self) -> QueueId {
        self.0.ids.next(self.0.clock.now())
    }

    /// Whether mail is taken now; ask before MAIL is answered.
    pub fn accepting(&self) -> Result<(), CommitError> {
        self.0.store.accepting()
    }

    /// Says that one more session is there, until it drops this. A session that is alone has its mail on the disk with less effort.
    pub fn guest(&self) -> Guest {
        self.0.store.guests().enter()
    }

    /// A place for a body that is too large for memory.
    pub fn draft(&self, id: QueueId) -> Result<Draft, CommitError> {
        self.0.store.draft(id)
    }

    /// Room and use.
    pub fn usage(&self) -> Usage {
        self.0.store.usage()
    }

    /// Takes a message. When this returns Ok, it is on the disk and in the schedule: 250 may be said. Given up before that, the
    /// message is dropped.
    pub async fn commit(&self, mail: Mail) -> Result<(), CommitError> {
        let Mail { id, envelope, header, body, hold, filter, .. } = mail;
        let arrived = self.0.clock.now();
        self.take(Message { id, arrived, envelope, hold, filter, letter: Letter::new(header, body) }).await
    }

    /// Durable first, then scheduled.
    pub(super) async fn take(&self, message: Message) -> Result<(), CommitError> {
        let inner = &*self.0;
        if message.envelope.recipients.is_empty() {
            tracing::warn!(queue_id = %message.id, "a message for nobody is not kept");
            return Ok(());
        }
        inner.store.commit(&message).await?;
        let Message { id, arrived, envelope, hold, filter, letter } = message;
        let state = State::fresh(envelope.recipients.len(), arrived, hold);
        let stored = Stored { id, arrived, envelope, filter, size: letter.len(), state };
        if stored.state.hold.is_some() {
            return Ok(());
        }
        let destinations = inner.destinations(&stored);
        let weight = letter.in_memory() + OVERHEAD;
        let now = inner.clock.now();
        let mut desk = inner.desk();
        let active = Active { stored, letter: Some(letter), busy: Vec::new(), pinned: false, weight };
        desk.keep(active, inner.config.hot_size.as_usize());
        for (destination, _) in destinations {
            let call = desk.schedule.enter_fresh(id, &destination, now);
            inner.make_calls(&desk, call);
        }
        Ok(())
    }

    /// Envelope and state of a message, wherever they are. Blocks on the disk.
    pub(super) fn stored(&self, id: QueueId) -> Result<Stored, LoadError> {
        let known = self.0.desk().active.get(&id).map(|active| active.stored.clone());
        known.map_or_else(|| self.0.store.stored(id), Ok)
    }
}
