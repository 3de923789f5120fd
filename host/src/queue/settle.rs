//! What follows from the outcome of a delivery: the message is removed, tried again, or goes back to its sender. A bounce is durable
//! before what it tells of is forgotten, so that no crash loses both.

use std::time::Duration;

use super::bounce::{Facts, compose};
use super::handle::Desk;
use super::schedule::Site;
use super::{
    Contact, Letter, LoadError, Message, Outcome, Queue, RecipientState, Report, ReportKind, Stored, UnixTime,
};
use crate::mail::{QueueId, Reply, ReversePath};

/// How long a notification that could not be committed waits for the next try.
const REPORT_AGAIN: Duration = Duration::from_secs(60);
/// How long a message waits whose delivery ended without a word.
const INTERRUPTED: Duration = Duration::from_secs(10);

impl Queue {
    /// All of it.
    pub(super) async fn settle(
        &self,
        id: QueueId,
        site: Site,
        recipients: &[usize],
        outcomes: &[(usize, Outcome)],
        contact: Contact,
    ) {
        if let Some(report) = self.note(id, site, recipients, outcomes, contact) {
            self.tell(id, report).await;
        }
    }

    /// The part that never waits. Returns what is to be told.
    pub(super) fn note(
        &self,
        id: QueueId,
        site: Site,
        recipients: &[usize],
        outcomes: &[(usize, Outcome)],
        contact: Contact,
    ) -> Option<Report> {
        let inner = &*self.0;
        let now = inner.clock.now();
        let mut desk = inner.desk();
        match contact {
            Contact::Reached => {
                let call = desk.schedule.reached(site);
                inner.make_calls(&desk, call);
            }
            Contact::Unreachable(reply) => desk.schedule.unreachable(site, reply, now, fastrand::f64()),
            Contact::Unknown => {}
        }
        let Desk { schedule, active, .. } = &mut *desk;
        let active = active.get_mut(&id)?; // deleted meanwhile
        active.busy.retain(|index| !recipients.contains(index));
        let attempts = recipients.iter().filter_map(|index| match active.stored.state.recipients.get(*index) {
            Some(RecipientState::Pending { attempts, .. }) => Some(attempts.saturating_add(1)),
            _ => None,
        });
        let due = match attempts.max() {
            _ if outcomes.is_empty() => now.after(INTERRUPTED),
            attempts => now.after(schedule.backoff(attempts.unwrap_or(1), fastrand::f64())),
        };
        let bounced = active.stored.envelope.reverse_path == ReversePath::Null;
        for (index, outcome) in outcomes.iter().filter(|(index, _)| recipients.contains(index)) {
            let given_up = matches!(outcome, Outcome::Failed(_))
                || matches!(outcome, Outcome::Deferred(_)) && now >= inner.rules.expires(&active.stored);
            if given_up && bounced {
                let to = active.stored.envelope.recipients.get(*index).map(|r| r.forward_path.to_string());
                tracing::warn!(queue_id = %id, to, "double bounce: nobody can be told, the notification is dropped");
            }
            inner.rules.apply(&mut active.stored, *index, outcome, now, due);
        }
        inner.rules.drop_untellable(&mut active.stored);
        let report = inner.rules.report(&active.stored, !active.busy.is_empty() || active.pinned, now);
        let report = report.filter(|_| !active.pinned);
        active.pinned |= report.is_some();
        // Who was not told of is as if nobody had tried, but not at once again.
        self.reenter(&mut desk, id, recipients, due, now);
        let done = self.record(&mut desk, id, now);
        drop(desk);
        if done {
            self.finish(id);
        }
        report
    }

    /// Removes a message of which nothing is left to do. It is gone from the store before it is gone from memory, so that no worker
    /// can load it in between.
    fn finish(&self, id: QueueId) {
        self.0.store.remove(id);
        self.0.desk().drop_active(id);
    }

    /// A report that is due now is made when the dispatcher looks at the message.
    pub(super) fn tell_later(&self, id: QueueId) {
        let inner = &*self.0;
        let mut desk = inner.desk();
        if let Some(active) = desk.active.get_mut(&id) {
            active.pinned = false;
        }
        desk.let_go(id);
        desk.schedule.deadline(id, inner.clock.now());
        inner.dispatcher.notify_one();
    }

    /// Those of these recipients that are to be tried again wait for it.
    fn reenter(&self, desk: &mut Desk, id: QueueId, recipients: &[usize], due: UnixTime, now: UnixTime) {
        let inner = &*self.0;
        let Some(active) = desk.active.get_mut(&id) else { return };
        let mut destinations = Vec::new();
        for index in recipients {
            if let Some(RecipientState::Pending { due: own, .. }) = active.stored.state.recipients.get_mut(*index) {
                *own = due;
                let destination = inner.route(&active.stored, *index);
                destinations.extend(destination.filter(|destination| !destinations.contains(destination)));
            }
        }
        if destinations.is_empty() || active.stored.state.hold.is_some() {
            return;
        }
        let deadline = inner.rules.deadline(&active.stored, now);
        desk.schedule.deadline(id, deadline);
        for destination in destinations {
            let call = desk.schedule.enter(id, &destination, due, now);
            inner.make_calls(desk, call);
        }
    }

    /// Notes the state of a message in the store, and lets go of it if nobody works on it. True if nothing is left to do: then it is
    /// to be finished when the desk is free.
    fn record(&self, desk: &mut Desk, id: QueueId, now: UnixTime) -> bool {
        let inner = &*self.0;
        let Some(active) = desk.active.get_mut(&id) else { return false };
        if active.stored.state.is_done() {
            active.pinned = true;
            return true;
        }
        inner.store.update(id, &active.stored.state);
        let over =
            |state: &RecipientState| matches!(state, RecipientState::Failed { .. } | RecipientState::Delivered { .. });
        if !active.pinned && active.stored.state.recipients.iter().any(over) {
            let deadline = inner.rules.deadline(&active.stored, now);
            desk.schedule.deadline(id, deadline);
            inner.dispatcher.notify_one();
        }
        let untried = |state: &RecipientState| matches!(state, RecipientState::Pending { attempts: 0, .. });
        if active.weight == 0 || !active.stored.state.recipients.iter().any(untried) {
            desk.let_go(id);
        }
        false
    }

    /// A message whose time has come though no delivery ended: it expires, its sender is warned, or a notification is overdue.
    pub(super) async fn review(&self, id: QueueId) {
        let inner = &*self.0;
        let queue = self.clone();
        let loaded = tokio::task::spawn_blocking(move || queue.stored(id)).await;
        let stored = match loaded {
            Ok(Ok(stored)) => stored,
            Ok(Err(LoadError::Gone)) => return,
            Ok(Err(err)) => return tracing::error!(queue_id = %id, %err, "a message cannot be read"),
            Err(_) => return,
        };
        let reason = self.reason(&stored);
        let (report, done) = {
            let now = inner.clock.now();
            let mut desk = inner.desk();
            let Ok(active) = inner.fetch(&mut desk, id) else { return };
            if active.stored.state.hold.is_some() {
                return desk.let_go(id);
            }
            for index in inner.rules.expire(&mut active.stored, &active.busy, now, &reason) {
                let to = active.stored.envelope.recipients.get(index).map(|r| r.forward_path.to_string());
                tracing::info!(queue_id = %id, to, status = "expired", "given up: not delivered in time");
            }
            inner.rules.drop_untellable(&mut active.stored);
            let report = inner.rules.report(&active.stored, !active.busy.is_empty() || active.pinned, now);
            let report = report.filter(|_| !active.pinned);
            active.pinned |= report.is_some();
            let deadline = inner.rules.deadline(&active.stored, now);
            desk.schedule.deadline(id, deadline);
            (report, self.record(&mut desk, id, now))
        };
        if done {
            self.finish(id);
        }
        if let Some(report) = report {
            self.tell(id, report).await;
        }
    }

    /// Why a message that nobody tried lies here.
    fn reason(&self, stored: &Stored) -> Reply {
        let desk = self.0.desk();
        let destinations = self.0.destinations(stored);
        let reply = destinations.iter().find_map(|(destination, _)| desk.schedule.dead_reply(destination));
        reply.cloned().unwrap_or_else(|| Reply::transient(451, (4, 7), "delivery time expired"))
    }

    /// Tells the sender, and then notes that it was told.
    async fn tell(&self, id: QueueId, report: Report) {
        let inner = &*self.0;
        let told = self.send_report(id, &report).await;
        let now = inner.clock.now();
        let mut desk = inner.desk();
        let Some(active) = desk.active.get_mut(&id) else { return };
        active.pinned = false;
        match told {
            Ok(()) => {
                inner.rules.told(&mut active.stored.state, &report);
                let done = self.record(&mut desk, id, now);
                drop(desk);
                if done {
                    self.finish(id);
                }
            }
            Err(err) => {
                tracing::error!(queue_id = %id, "the sender could not be told, trying again: {err}");
                desk.schedule.deadline(id, now.after(REPORT_AGAIN));
                inner.dispatcher.notify_one();
                desk.let_go(id);
            }
        }
    }

    async fn send_report(&self, id: QueueId, report: &Report) -> Result<(), String> {
        let inner = &*self.0;
        let known = inner.desk().active.get(&id).map(|active| (active.stored.clone(), active.letter.clone()));
        let Some((stored, letter)) = known else { return Ok(()) };
        let letter = match letter {
            Some(letter) => letter,
            None => {
                let queue = self.clone();
                let loaded = tokio::task::spawn_blocking(move || queue.0.store.load(id)).await;
                loaded.map_err(|err| err.to_string())?.map_err(|err| err.to_string())?.1
            }
        };
        let whole = self.whole_body(&stored, report, &letter).await?;
        let facts = Facts {
            hostname: &inner.hostname,
            id: self.next_id(),
            now: inner.clock.now(),
            expires: inner.rules.expires(&stored),
            header: letter.header(),
            body: whole.as_deref().or_else(|| letter.body_slice().filter(|_| self.goes_back(&stored))),
        };
        let Some(bounce) = compose(&stored, report, &facts) else { return Ok(()) };
        let message = Message {
            id: facts.id,
            arrived: facts.now,
            envelope: bounce.envelope.into(),
            hold: None,
            filter: None,
            letter: Letter::new(bounce.header.into(), std::sync::Arc::new(bounce.body)),
        };
        let (notification, to) = (message.id, stored.envelope.reverse_path.to_string());
        self.take(message).await.map_err(|err| err.to_string())?;
        let kind = match report.kind {
            ReportKind::Final => "delivery status",
            ReportKind::Delay => "delay",
        };
        tracing::info!(queue_id = %id, notification = %notification, to, "sender notified: {kind}");
        Ok(())
    }

    /// Whether the message is small enough to go back whole.
    fn goes_back(&self, stored: &Stored) -> bool {
        stored.size <= self.0.config.bounce_size.as_u64()
    }

    /// The body, if it goes back and lies in a file.
    async fn whole_body(&self, stored: &Stored, report: &Report, letter: &Letter) -> Result<Option<Vec<u8>>, String> {
        if report.kind == ReportKind::Delay || letter.body_slice().is_some() || !self.goes_back(stored) {
            return Ok(None);
        }
        let letter = letter.clone();
        let read = move || {
            let mut octets = vec![0; usize::try_from(letter.body_len()).unwrap_or(0)];
            letter.read_body_at(0, &mut octets).map(|read| {
                octets.truncate(read);
                octets
            })
        };
        let octets = tokio::task::spawn_blocking(read).await.map_err(|err| err.to_string())?;
        octets.map(Some).map_err(|err| err.to_string())
    }
}
