//! What the operator sees of the queue and does to it. Everything here blocks on the disk as long as it reads messages.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Letter, LoadError, Outcome, Queue, RecipientState, Response, SiteSummary, Stored, UnixTime};
use crate::mail::{QueueId, Reply};

/// Messages that one answer lists at most.
const MAX_LIST: usize = 10_000;

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It is being delivered.
    Active,
    /// It can be delivered any moment.
    Ready,
    /// It was tried and waits for its time.
    Deferred,
    /// It waits for the operator.
    Hold,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub standing: Standing,
    /// When it came.
    pub arrived: UnixTime,
    /// Octets.
    pub size: u64,
    /// Reverse-path; empty for a notification.
    pub sender: String,
    /// Why it is held, if it is.
    pub hold: Option<String>,
    /// Those for whom something is left to do.
    pub recipients: Vec<RecipientSummary>,
}

/// One of its recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientSummary {
    /// Forward-path.
    pub address: String,
    /// Where its mail goes.
    pub destination: String,
    /// Tries so far.
    pub attempts: u16,
    /// When it is tried next; none if only its sender is yet to be told.
    pub due: Option<UnixTime>,
    /// What came of the last try.
    pub reason: Option<String>,
}

/// Which messages. What is not given does not count; all that is must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Filter {
    /// These.
    pub ids: Vec<String>,
    /// The reverse-path holds this, without regard to case; `<>` means the null path.
    pub sender: Option<String>,
    /// A waiting recipient holds this, without regard to case.
    pub recipient: Option<String>,
    /// A waiting recipient's domain is this, without regard to case.
    pub domain: Option<String>,
    /// A reason holds this, without regard to case.
    pub reason: Option<String>,
    /// Where it stands.
    pub standing: Option<Standing>,
    /// At least this old, in seconds.
    pub min_age: Option<u64>,
    /// At least so many octets.
    pub min_size: Option<u64>,
    /// Not more messages than this.
    pub limit: Option<usize>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is none of that id.
    #[error("there is no message {0} in the queue")]
    NoSuchMessage(String),
    /// It cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
}

fn holds(text: &str, part: &Option<String>) -> bool {
    part.as_ref().is_none_or(|part| text.to_lowercase().contains(&part.to_lowercase()))
}

impl Filter {
    /// Exactly these.
    pub fn ids(ids: impl IntoIterator<Item = QueueId>) -> Self {
        Self { ids: ids.into_iter().map(|id| id.to_string()).collect(), ..Self::default() }
    }

    fn matches(&self, summary: &Summary, now: UnixTime) -> bool {
        let any = |test: &dyn Fn(&RecipientSummary) -> bool| summary.recipients.iter().any(test);
        let domain = |address: &str| address.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
        let age = now.since(summary.arrived);
        let sender = match self.sender.as_deref() {
            Some("<>") => summary.sender.is_empty(),
            _ => holds(&summary.sender, &self.sender),
        };
        sender
            && (self.recipient.is_none() || any(&|r| holds(&r.address, &self.recipient)))
            && (self.reason.is_none() || any(&|r| holds(r.reason.as_deref().unwrap_or_default(), &self.reason)))
            && self.domain.as_ref().is_none_or(|own| any(&|r| domain(&r.address) == Some(own.to_lowercase())))
            && self.standing.is_none_or(|standing| standing == summary.standing)
            && self.min_age.is_none_or(|seconds| age >= Duration::from_secs(seconds))
            && self.min_size.is_none_or(|size| summary.size >= size)
    }
}

impl Queue {
    /// Those messages that match, oldest first.
    pub fn list(&self, filter: &Filter) -> Vec<Summary> {
        let limit = filter.limit.unwrap_or(MAX_LIST).min(MAX_LIST);
        self.matching(filter).take(limit).collect()
    }

    fn matching<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = Summary> + 'a {
        let now = self.0.clock.now();
        let ids = match filter.ids.as_slice() {
            [] => self.0.store.ids(),
            named => named.iter().filter_map(|id| id.parse().ok()).collect(),
        };
        let summaries = ids.into_iter().filter_map(move |id| Some(self.summary(&self.stored(id).ok()?, now)));
        summaries.filter(move |summary| filter.matches(summary, now))
    }

    fn summary(&self, stored: &Stored, now: UnixTime) -> Summary {
        let mut recipients = Vec::new();
        let mut ready = false;
        for (index, state) in stored.state.recipients.iter().enumerate() {
            let (attempts, due, reason) = match state {
                RecipientState::Pending { attempts, due, response } => (*attempts, Some(*due), response.as_deref()),
                RecipientState::Failed { response, .. } | RecipientState::Delivered { response, .. } => {
                    (0, None, Some(&**response))
                }
                RecipientState::Done => continue,
            };
            ready |= due.is_some_and(|due| due <= now);
            let destination = self.0.route(stored, index);
            let dead = destination.as_ref().filter(|_| reason.is_none());
            let dead = dead.and_then(|site| self.0.desk().schedule.dead_reply(site).map(Reply::to_string));
            recipients.push(RecipientSummary {
                address: stored.envelope.recipients.get(index).map(|r| r.forward_path.to_string()).unwrap_or_default(),
                destination: destination.map(|destination| destination.to_string()).unwrap_or_default(),
                attempts,
                due,
                reason: reason.map(Response::to_string).or(dead),
            });
        }
        let busy = self.0.desk().active.get(&stored.id).is_some_and(|active| !active.busy.is_empty());
        let standing = match stored.state.hold {
            _ if busy => Standing::Active,
            Some(_) => Standing::Hold,
            None if ready => Standing::Ready,
            None => Standing::Deferred,
        };
        Summary {
            id: stored.id.to_string(),
            standing,
            arrived: stored.arrived,
            size: stored.size,
            sender: stored.envelope.reverse_path.to_string(),
            hold: stored.state.hold.clone(),
            recipients,
        }
    }

    /// All destinations that have mail or workers.
    pub fn sites(&self) -> Vec<SiteSummary> {
        self.0.desk().schedule.summaries()
    }

    /// One message.
    pub fn show(&self, id: QueueId) -> Result<Summary, AdminError> {
        match self.stored(id) {
            Ok(stored) => Ok(self.summary(&stored, self.0.clock.now())),
            Err(LoadError::Gone) => Err(AdminError::NoSuchMessage(id.to_string())),
            Err(err) => Err(err.into()),
        }
    }

    /// Its content.
    pub fn content(&self, id: QueueId) -> Result<Letter, AdminError> {
        match self.0.store.load(id) {
            Ok((_, letter)) => Ok(letter),
            Err(LoadError::Gone) => Err(AdminError::NoSuchMessage(id.to_string())),
            Err(err) => Err(err.into()),
        }
    }

    fn ids(&self, filter: &Filter) -> HashSet<QueueId> {
        self.matching(filter)
            .take(filter.limit.unwrap_or(usize::MAX))
            .filter_map(|summary| summary.id.parse().ok())
            .collect()
    }

    /// Changes the state of those messages that match; returns how many.
    fn change(&self, filter: &Filter, change: impl Fn(&mut Stored, &[usize]) -> bool) -> HashSet<QueueId> {
        let inner = &*self.0;
        let mut changed = HashSet::new();
        for id in self.ids(filter) {
            let mut desk = inner.desk();
            let now_known = match desk.active.get_mut(&id) {
                Some(active) => {
                    let busy = active.busy.clone();
                    change(&mut active.stored, &busy).then(|| active.stored.state.clone())
                }
                // Read while the desk is ours, or a delivery might end in between and be forgotten.
                None => match inner.store.stored(id) {
                    Ok(mut stored) => change(&mut stored, &[]).then_some(stored.state),
                    Err(_) => None,
                },
            };
            if let Some(state) = now_known {
                inner.store.update(id, &state);
                changed.insert(id);
            }
        }
        changed
    }

    /// Keeps those that match until they are released. What is being delivered now is; the rest waits. Returns how many.
    pub fn hold(&self, filter: &Filter, why: &str) -> usize {
        let held = self.change(filter, |stored, _| {
            let new = stored.state.hold.is_none();
            stored.state.hold.get_or_insert_with(|| why.to_owned());
            new
        });
        let mut desk = self.0.desk();
        desk.schedule.forget(|id| held.contains(&id));
        held.iter().for_each(|id| desk.let_go(*id));
        held.len()
    }

    /// A message that cannot be read waits for the operator, for this reason.
    pub(super) async fn hold_damaged(&self, id: QueueId, why: String) {
        let queue = self.clone();
        // If not even its envelope can be read, nothing can be noted of it; it is out of the schedule until the next start.
        let _ = tokio::task::spawn_blocking(move || queue.hold(&Filter::ids([id]), &why)).await;
    }

    /// Lets those that match go on at once. Returns how many.
    pub fn release(&self, filter: &Filter) -> usize {
        let now = self.0.clock.now();
        let released = self.change(filter, |stored, busy| {
            for (index, state) in stored.state.recipients.iter_mut().enumerate() {
                if let RecipientState::Pending { due, .. } = state
                    && stored.state.hold.is_some()
                    && !busy.contains(&index)
                {
                    *due = now;
                }
            }
            stored.state.hold.take().is_some()
        });
        for id in &released {
            if let Ok(stored) = self.stored(*id) {
                self.0.enter(&mut self.0.desk(), &stored, now);
            }
        }
        released.len()
    }

    /// Removes those that match; nobody is told. Returns how many.
    pub fn delete(&self, filter: &Filter) -> usize {
        let ids = self.ids(filter);
        let mut desk = self.0.desk();
        desk.schedule.forget(|id| ids.contains(&id));
        for id in &ids {
            desk.drop_active(*id);
        }
        drop(desk);
        for id in &ids {
            self.0.store.remove(*id);
            tracing::info!(queue_id = %id, "removed by the operator");
        }
        ids.len()
    }

    /// Tries those that match at once, even where the destination is being left alone. Returns how many.
    pub fn flush(&self, filter: &Filter) -> usize {
        let all = *filter == Filter::default();
        let ids = if all { HashSet::new() } else { self.ids(filter) };
        let mut desk = self.0.desk();
        let calls = desk.schedule.flush(|id| all || ids.contains(&id));
        self.0.make_calls(&desk, calls);
        drop(desk);
        if all { self.0.store.usage().messages } else { ids.len() }
    }

    /// Gives those that match up: their senders are told. Returns how many.
    pub fn bounce(&self, filter: &Filter, why: &str) -> usize {
        let inner = &*self.0;
        let now = inner.clock.now();
        let outcome = Outcome::Failed(Response::own(Reply::permanent(550, (7, 0), why)));
        let given_up = self.change(filter, |stored, busy| {
            stored.state.hold = None;
            for index in (0..stored.state.recipients.len()).filter(|index| !busy.contains(index)) {
                inner.rules.apply(stored, index, &outcome, now, now);
            }
            true
        });
        let mut desk = inner.desk();
        desk.schedule.forget(|id| given_up.contains(&id));
        for id in &given_up {
            desk.schedule.deadline(*id, now);
        }
        drop(desk);
        inner.dispatcher.notify_one();
        given_up.len()
    }
}
