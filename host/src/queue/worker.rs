//! Deliveries: workers ask for jobs, do them, and say what became of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::handle::Desk;
use super::schedule::{Site, Take};
use super::{Contact, Destination, Letter, LoadError, Outcome, Queue, RecipientState, Relayed, UnixTime};
use crate::mail::{Envelope, QueueId, Recipient};

/// How long a message that cannot be read is left alone.
const UNREADABLE: Duration = Duration::from_secs(60);

/// The right to deliver to one destination; as many exist as its concurrency allows. Given back by dropping it.
pub struct Worker {
    queue: Queue,
    site: Site,
    destination: Destination,
    bell: Arc<Notify>,
    /// Opened or called, and not come yet.
    called: bool,
}

/// What to deliver: one message to some of its recipients, all at one destination. Dropped without being settled, it is tried
/// again.
pub struct Job {
    queue: Queue,
    site: Site,
    id: QueueId,
    arrived: UnixTime,
    attempts: u16,
    envelope: Arc<Envelope>,
    letter: Letter,
    recipients: Vec<usize>,
    destination: Destination,
    settled: bool,
}

impl Queue {
    /// Waits until some destination wants one more worker. One task asks for these, and starts a task for each; it also drives the
    /// clockwork of the queue.
    pub async fn opening(&self) -> Worker {
        let inner = &*self.0;
        loop {
            let now = inner.clock.now();
            let (opening, wakeup, overdue) = {
                let mut desk = inner.desk();
                let (calls, overdue) = desk.schedule.advance(now);
                inner.make_calls(&desk, calls);
                let opening = desk.schedule.opening().and_then(|site| self.worker(&mut desk, site));
                (opening, desk.schedule.next_wakeup(), overdue)
            };
            if !overdue.is_empty() {
                let queue = self.clone();
                tokio::spawn(async move {
                    for id in overdue {
                        queue.review(id).await;
                    }
                });
            }
            match (opening, wakeup) {
                (Some(worker), _) => return worker,
                (None, None) => inner.dispatcher.notified().await,
                (None, Some(at)) => {
                    let _ = timeout(inner.clock.until(at), inner.dispatcher.notified()).await;
                }
            }
        }
    }

    fn worker(&self, desk: &mut Desk, site: Site) -> Option<Worker> {
        let destination = desk.schedule.destination(site)?.clone();
        let bell = desk.bells.entry(site).or_default().clone();
        Some(Worker { queue: self.clone(), site, destination, bell, called: true })
    }
}

impl Worker {
    /// Where to.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The next job. None: end this worker, and close its connection; there has been nothing to do for `patience`, or the
    /// destination is to be left alone.
    pub async fn next(&mut self, patience: Duration) -> Option<Job> {
        loop {
            let (id, forced) = loop {
                let take = self.queue.0.desk().schedule.take(self.site, std::mem::take(&mut self.called));
                match take {
                    Take::Entry { id, forced } => break (id, forced),
                    Take::Leave => return None,
                    Take::Idle => {}
                }
                let rang = timeout(patience, self.bell.notified()).await.is_ok();
                // Between the bell and this lock somebody else may have answered it; a look costs little.
                if !rang && self.queue.0.desk().schedule.retire(self.site) {
                    return None;
                }
                self.called = true;
            };
            if let Some(job) = self.job(id, forced).await {
                return Some(job);
            }
        }
    }

    /// The job of an entry. None if nothing is to do for it.
    async fn job(&self, id: QueueId, forced: bool) -> Option<Job> {
        let inner = &*self.queue.0;
        loop {
            if let Some(made) = self.begin(&mut inner.desk(), id, forced) {
                return made;
            }
            let queue = self.queue.clone();
            let loaded = tokio::task::spawn_blocking(move || queue.0.store.load(id)).await;
            match loaded.unwrap_or_else(|err| Err(LoadError::Damaged(err.to_string()))) {
                Ok((_, letter)) => match inner.fetch(&mut inner.desk(), id) {
                    Ok(active) => active.letter = Some(letter),
                    Err(LoadError::Gone) => return None, // while it was being read
                    Err(err) => {
                        tracing::error!(queue_id = %id, "{err}; the message stays in the queue, untried until the next start");
                        return None;
                    }
                },
                Err(LoadError::Gone) => return None,
                Err(LoadError::Io(err)) => {
                    tracing::error!(queue_id = %id, %err, "a message cannot be read, trying again in a minute");
                    let now = inner.clock.now();
                    let mut desk = inner.desk();
                    let call = desk.schedule.enter(id, &self.destination, now.after(UNREADABLE), now);
                    inner.make_calls(&desk, call);
                    return None;
                }
                Err(LoadError::Damaged(what)) => {
                    tracing::error!(queue_id = %id, "{what}; the message is held");
                    self.queue.hold_damaged(id, what).await;
                    return None;
                }
            }
        }
    }

    /// Makes the job if the message is in memory with its content; None if it must be loaded.
    fn begin(&self, desk: &mut Desk, id: QueueId, forced: bool) -> Option<Option<Job>> {
        let inner = &*self.queue.0;
        let now = inner.clock.now();
        let active = desk.active.get_mut(&id)?;
        if active.stored.state.hold.is_some() {
            return Some(None);
        }
        let is_due = |state: &RecipientState| match state {
            RecipientState::Pending { due, .. } => forced || inner.is_due(*due, now),
            _ => false,
        };
        let states = active.stored.state.recipients.iter().enumerate();
        let mut recipients: Vec<usize> = states
            .filter(|(index, state)| is_due(state) && !active.busy.contains(index))
            .map(|(index, _)| index)
            .filter(|index| inner.route(&active.stored, *index).as_ref() == Some(&self.destination))
            .collect();
        if recipients.is_empty() {
            desk.let_go(id);
            return Some(None);
        }
        let letter = active.letter.clone()?;
        let more = recipients.len() > inner.config.max_recipients;
        recipients.truncate(inner.config.max_recipients);
        active.busy.extend_from_slice(&recipients);
        let stored = &active.stored;
        let attempts = recipients.iter().filter_map(|index| match stored.state.recipients.get(*index) {
            Some(RecipientState::Pending { attempts, .. }) => Some(*attempts),
            _ => None,
        });
        let job = Job {
            queue: self.queue.clone(),
            site: self.site,
            id,
            arrived: stored.arrived,
            attempts: attempts.max().unwrap_or(0),
            envelope: stored.envelope.clone(),
            letter,
            recipients,
            destination: self.destination.clone(),
            settled: false,
        };
        if more {
            let call = desk.schedule.put_back(id, self.site, forced);
            inner.make_calls(desk, call);
        }
        Some(Some(job))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let inner = &*self.queue.0;
        let mut desk = inner.desk();
        if self.called {
            desk.schedule.desert(self.site);
        }
        let call = desk.schedule.leave(self.site);
        inner.make_calls(&desk, call);
        if desk.schedule.destination(self.site).is_none() {
            desk.bells.remove(&self.site);
        }
    }
}

impl Job {
    /// Its message.
    pub fn id(&self) -> QueueId {
        self.id
    }
    /// When that came.
    pub fn arrived(&self) -> UnixTime {
        self.arrived
    }
    /// How long ago.
    pub fn age(&self) -> Duration {
        self.queue.0.clock.now().since(self.arrived)
    }
    /// Tries before this one, of the recipient with most of them.
    pub fn attempts(&self) -> u16 {
        self.attempts
    }
    /// Where to.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }
    /// Reverse-path and parameters. Its recipients are all of the message's, not those of this job alone.
    pub fn envelope(&self) -> &Arc<Envelope> {
        &self.envelope
    }
    /// Header section and body.
    pub fn letter(&self) -> &Letter {
        &self.letter
    }
    /// Whom to deliver to, each with its place in the envelope, by which `settle` knows it.
    pub fn recipients(&self) -> impl Iterator<Item = (usize, &Recipient)> {
        self.recipients.iter().filter_map(|index| Some((*index, self.envelope.recipients.get(*index)?)))
    }

    /// Says what became of it, one outcome for each recipient; one that is missing is tried again. What follows is done here: it is
    /// noted, tried again, bounced or removed. Call this at once when the last reply is read: until it is noted, a crash means a
    /// second delivery. Only the first call counts.
    pub async fn settle(&mut self, outcomes: &[(usize, Outcome)], contact: Contact) {
        if self.settled {
            return;
        }
        self.settled = true;
        self.queue.settle(self.id, self.site, &self.recipients, outcomes, contact).await;
    }
}

impl Drop for Job {
    /// The worker was cancelled or panicked: what became of the message is not known, so it is tried again.
    fn drop(&mut self) {
        if !self.settled {
            let told = self.queue.note(self.id, self.site, &self.recipients, &[], Contact::Unknown);
            if told.is_some() {
                // There may be no runtime any more to tell it now.
                self.queue.tell_later(self.id);
            }
        }
    }
}

/// Whether the next hop takes over the duty to tell the sender.
impl Relayed {
    /// By whether it announced DSN in its answer to EHLO (RFC 3461 §4).
    pub fn to_host(announced_dsn: bool) -> Self {
        if announced_dsn { Self::ToDsnHost } else { Self::ToOtherHost }
    }
}
