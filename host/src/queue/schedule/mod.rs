//! Who is tried when: a queue for each destination with a concurrency of its own, oldest first and fair to the new, and the
//! times of those that wait. Pure: time and chance come in as arguments.
//!
//! One entry stands for the recipients of one message at one destination. An entry waits until it is due, then lies ready at its
//! destination until a worker takes it. Workers are counted here, run elsewhere. A destination that cannot be reached is left
//! alone for a while: its entries stay where they are, nobody else's wait.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

mod site;

use super::{Config, UnixTime, id};
use crate::mail::{QueueId, Reply};
use site::SiteState;
pub use site::{Destination, SiteSummary};

/// A destination that has entries or workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site(u32);

/// Somebody has to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// One idle worker of this destination: there is something to take.
    Worker(Site),
    /// Whoever asks for openings: there is one, or the next wake-up is earlier than it was.
    Dispatcher,
}

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// Deliver this message.
    Entry {
        /// Its id.
        id: QueueId,
        /// Even to recipients that are not due yet: the operator says so.
        forced: bool,
    },
    /// Wait for a call, keeping the connection.
    Idle,
    /// Close the connection and leave: there are too many workers, or the destination is to be left alone.
    Leave,
}

/// The times and limits that count here.
#[derive(Debug, Clone)]
pub struct Limits {
    min_backoff: Duration,
    max_backoff: Duration,
    min_site_backoff: Duration,
    max_site_backoff: Duration,
    initial_concurrency: u32,
    max_concurrency: u32,
    first_deadline: Duration,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        let (warning, expiry) = (config.delay_warning, config.expiry);
        Self {
            min_backoff: config.min_backoff.as_std(),
            max_backoff: config.max_backoff.as_std(),
            min_site_backoff: config.min_site_backoff.as_std(),
            max_site_backoff: config.max_site_backoff.as_std(),
            initial_concurrency: config.initial_concurrency.max(1),
            max_concurrency: config.max_concurrency.max(1),
            first_deadline: if warning.is_zero() { expiry } else { warning.min(expiry) }.as_std(),
        }
    }
}

/// Failures in a row after which a destination is left alone. A probe after that has one try.
const FAILURES: u32 = 3;

/// One that waits for its time. A million of these are in memory: keep it small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: UnixTime,
    id: QueueId,
    site: Site,
}

/// All destinations and all that waits.
#[derive(Debug)]
pub struct Schedule {
    limits: Limits,
    sites: Vec<Option<SiteState>>,
    unused: Vec<u32>,
    names: HashMap<Destination, Site>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    revivals: BTreeSet<(UnixTime, Site)>,
    deadlines: BTreeSet<(UnixTime, QueueId)>,
    openings: VecDeque<Site>,
    /// Until when the dispatcher sleeps.
    alarm: Option<UnixTime>,
}

impl Schedule {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            sites: Vec::new(),
            unused: Vec::new(),
            names: HashMap::new(),
            waiting: BinaryHeap::new(),
            revivals: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            openings: VecDeque::new(),
            alarm: None,
        }
    }

    fn site(&mut self, destination: &Destination) -> Site {
        if let Some(site) = self.names.get(destination) {
            return *site;
        }
        let state = SiteState::new(destination.clone(), self.limits.initial_concurrency);
        let index = match self.unused.pop() {
            Some(index) => index,
            None => {
                self.sites.push(None);
                u32::try_from(self.sites.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = self.sites.get_mut(index as usize) {
            *place = Some(state);
        }
        self.names.insert(destination.clone(), Site(index));
        Site(index)
    }

    fn get(&mut self, site: Site) -> Option<&mut SiteState> {
        self.sites.get_mut(site.0 as usize)?.as_mut()
    }

    /// Its destination.
    pub fn destination(&self, site: Site) -> Option<&Destination> {
        Some(&self.sites.get(site.0 as usize)?.as_ref()?.destination)
    }

    /// Why the destination could not be reached the last time, if it is being left alone.
    pub fn dead_reply(&self, destination: &Destination) -> Option<&Reply> {
        let site = self.names.get(destination)?;
        let state = self.sites.get(site.0 as usize)?.as_ref()?;
        state.dead_until.and(state.reply.as_ref())
    }

    /// An entry that nobody has tried: at once.
    pub fn enter_fresh(&mut self, id: QueueId, destination: &Destination, now: UnixTime) -> Option<Call> {
        let site = self.site(destination);
        let first_deadline = id::arrival(id).after(self.limits.first_deadline);
        let state = self.get(site)?;
        state.fresh.push_back(id);
        if state.dead_until.is_some() {
            self.deadline(id, first_deadline.max(now));
        }
        self.call(site)
    }

    /// An entry that was tried before, or not yet in this run: when it is due.
    pub fn enter(&mut self, id: QueueId, destination: &Destination, due: UnixTime, now: UnixTime) -> Option<Call> {
        let site = self.site(destination);
        if due <= now {
            self.get(site)?.retry.push(Reverse((id, false)));
            return self.call(site);
        }
        self.get(site)?.waiting += 1;
        self.waiting.push(Reverse(Waiting { due, id, site }));
        self.alarm.is_none_or(|alarm| due < alarm).then_some(Call::Dispatcher)
    }

    /// The message is to be looked at then, whatever becomes of its entries: the sender is to hear of a delay, or it expires.
    pub fn deadline(&mut self, id: QueueId, at: UnixTime) {
        self.deadlines.insert((at, id));
    }

    /// Who is to be woken after an entry became ready.
    fn call(&mut self, site: Site) -> Option<Call> {
        let state = self.get(site)?;
        if state.ready() <= state.coming as usize || state.dead_until.is_some() {
            return None;
        }
        if state.idle > 0 {
            state.idle -= 1;
            state.coming += 1;
            return Some(Call::Worker(site));
        }
        self.announce(site)
    }

    fn announce(&mut self, site: Site) -> Option<Call> {
        let state = self.get(site)?;
        if state.announced || !state.wants_worker() {
            return None;
        }
        state.announced = true;
        self.openings.push_back(site);
        Some(Call::Dispatcher)
    }

    /// A destination that wants one more worker; whoever asks provides it.
    pub fn opening(&mut self) -> Option<Site> {
        while let Some(site) = self.openings.pop_front() {
            let Some(state) = self.get(site) else { continue };
            state.announced = false;
            if !state.wants_worker() {
                self.forget_if_empty(site);
                continue;
            }
            state.workers += 1;
            state.coming += 1;
            self.announce(site); // perhaps it wants yet another
            return Some(site);
        }
        None
    }

    /// What a worker is to do next. `called`: it has just been opened or called.
    pub fn take(&mut self, site: Site, called: bool) -> Take {
        let Some(state) = self.get(site) else { return Take::Leave };
        if called {
            state.coming = state.coming.saturating_sub(1);
        }
        if state.dead_until.is_some() || state.workers > state.limit {
            return Take::Leave;
        }
        let retry_first = state.retry_next || state.fresh.is_empty();
        state.retry_next = !state.retry_next;
        let retried = if retry_first { state.retry.pop() } else { None };
        let taken = match retried {
            Some(Reverse((id, forced))) => Some(Take::Entry { id, forced }),
            None => state.fresh.pop_front().map(|id| Take::Entry { id, forced: false }),
        };
        taken.unwrap_or_else(|| {
            state.idle += 1;
            Take::Idle
        })
    }

    /// More of the same entry is left than one delivery takes: it is next.
    pub fn put_back(&mut self, id: QueueId, site: Site, forced: bool) -> Option<Call> {
        let state = self.get(site)?;
        if forced {
            state.retry.push(Reverse((id, true)));
        } else {
            state.fresh.push_front(id);
        }
        self.call(site)
    }

    /// An idle worker has waited long enough. False if it has been called meanwhile: then it must take.
    pub fn retire(&mut self, site: Site) -> bool {
        match self.get(site) {
            Some(state) if state.idle == 0 => false,
            Some(state) => {
                state.idle -= 1;
                true
            }
            None => true,
        }
    }

    /// A worker is gone.
    pub fn leave(&mut self, site: Site) -> Option<Call> {
        let state = self.get(site)?;
        state.workers = state.workers.saturating_sub(1);
        let call = self.announce(site);
        self.forget_if_empty(site);
        call
    }

    /// A worker was called, but goes away without having taken anything.
    pub fn desert(&mut self, site: Site) {
        if let Some(state) = self.get(site) {
            state.coming = state.coming.saturating_sub(1);
        }
    }

    fn forget_if_empty(&mut self, site: Site) {
        let Some(state) = self.get(site).filter(|state| state.is_forgettable() && !state.announced) else { return };
        // What was learnt of a destination that failed lives as long as it has mail waiting; that is long enough.
        let destination = state.destination.clone();
        self.names.remove(&destination);
        if let Some(place) = self.sites.get_mut(site.0 as usize) {
            *place = None;
            self.unused.push(site.0);
        }
    }

    /// A delivery reached the destination: it bears more.
    pub fn reached(&mut self, site: Site) -> Option<Call> {
        let (initial, max) = (self.limits.initial_concurrency, self.limits.max_concurrency);
        let state = self.get(site)?;
        let limit = if state.deaths > 0 { initial } else { (state.limit + 1).min(max) };
        (state.failures, state.deaths, state.reply) = (0, 0, None);
        if limit == state.limit {
            return None;
        }
        state.limit = limit;
        self.announce(site)
    }

    /// A delivery did not reach the destination: it bears less, and is left alone if that goes on. `chance` is from 0 to 1.
    pub fn unreachable(&mut self, site: Site, reply: Reply, now: UnixTime, chance: f64) {
        let (min, max) = (self.limits.min_site_backoff, self.limits.max_site_backoff);
        let Some(state) = self.get(site) else { return };
        state.reply = Some(reply);
        if state.dead_until.is_some() {
            return; // a worker that began before
        }
        state.failures += 1;
        state.limit = (state.limit / 2).max(1);
        if state.failures < FAILURES && state.deaths == 0 {
            return;
        }
        let until = now.after(spread(doubled(min, max, state.deaths), chance));
        state.deaths = state.deaths.saturating_add(1);
        state.dead_until = Some(until);
        let untried: Vec<QueueId> = state.fresh.drain(..).collect();
        self.revivals.insert((until, site));
        // They will not be called fresh again; the sender hears of them in time though nobody tries them.
        for id in untried {
            let at = id::arrival(id).after(self.limits.first_deadline).max(now);
            self.deadline(id, at);
            if let Some(state) = self.get(site) {
                state.retry.push(Reverse((id, false)));
            }
        }
    }

    /// Makes ready what is due by now, and wakes destinations that were left alone long enough. Returns whom to call, and the
    /// messages whose deadline has come.
    pub fn advance(&mut self, now: UnixTime) -> (Vec<Call>, Vec<QueueId>) {
        let mut calls = Vec::new();
        while let Some(Reverse(entry)) = self.waiting.peek().copied().filter(|Reverse(entry)| entry.due <= now) {
            self.waiting.pop();
            if let Some(state) = self.get(entry.site) {
                state.waiting = state.waiting.saturating_sub(1);
                state.retry.push(Reverse((entry.id, false)));
            }
            calls.extend(self.call(entry.site));
        }
        while let Some((due, site)) = self.revivals.first().copied().filter(|(due, _)| *due <= now) {
            self.revivals.remove(&(due, site));
            calls.extend(self.revive(site));
        }
        let mut overdue = Vec::new();
        while let Some((due, id)) = self.deadlines.first().copied().filter(|(due, _)| *due <= now) {
            self.deadlines.remove(&(due, id));
            overdue.push(id);
        }
        (calls, overdue)
    }

    /// One probe, then more if it gets through.
    fn revive(&mut self, site: Site) -> Option<Call> {
        let state = self.get(site)?;
        state.dead_until = None;
        state.limit = 1;
        let call = self.announce(site);
        self.forget_if_empty(site);
        call
    }

    /// Everything that `wanted` names is ready now, and no destination is left alone any more.
    pub fn flush(&mut self, wanted: impl Fn(QueueId) -> bool) -> Vec<Call> {
        let (now, later): (Vec<_>, Vec<_>) = self.waiting.drain().partition(|Reverse(entry)| wanted(entry.id));
        self.waiting = later.into();
        let mut calls = Vec::new();
        for Reverse(entry) in now {
            if let Some(state) = self.get(entry.site) {
                state.waiting = state.waiting.saturating_sub(1);
                state.retry.push(Reverse((entry.id, true)));
            }
            calls.extend(self.call(entry.site));
        }
        for (_, site) in std::mem::take(&mut self.revivals) {
            calls.extend(self.revive(site));
        }
        calls
    }

    /// Takes the entries of these messages out; they are held or gone.
    pub fn forget(&mut self, unwanted: impl Fn(QueueId) -> bool) {
        let (out, kept): (Vec<_>, Vec<_>) = self.waiting.drain().partition(|Reverse(entry)| unwanted(entry.id));
        self.waiting = kept.into();
        for Reverse(entry) in out {
            if let Some(state) = self.get(entry.site) {
                state.waiting = state.waiting.saturating_sub(1);
            }
        }
        for state in self.sites.iter_mut().flatten() {
            state.fresh.retain(|id| !unwanted(*id));
            state.retry.retain(|Reverse((id, _))| !unwanted(*id));
        }
        self.deadlines.retain(|(_, id)| !unwanted(*id));
        for index in 0..self.sites.len() {
            self.forget_if_empty(Site(u32::try_from(index).unwrap_or(u32::MAX)));
        }
    }

    /// When `advance` is to be called next. The dispatcher sleeps until then and is called if that changes.
    pub fn next_wakeup(&mut self) -> Option<UnixTime> {
        let waiting = self.waiting.peek().map(|Reverse(entry)| entry.due);
        let revival = self.revivals.first().map(|(due, _)| *due);
        let deadline = self.deadlines.first().map(|(due, _)| *due);
        self.alarm = [waiting, revival, deadline].into_iter().flatten().min();
        self.alarm
    }

    /// How long to wait after so many tries in vain. `chance` is from 0 to 1: what was put off together comes back apart.
    pub fn backoff(&self, attempts: u16, chance: f64) -> Duration {
        let doublings = u32::from(attempts.saturating_sub(1));
        spread(doubled(self.limits.min_backoff, self.limits.max_backoff, doublings), chance)
    }

    /// All destinations, by name.
    pub fn summaries(&self) -> Vec<SiteSummary> {
        let mut all: Vec<SiteSummary> = self.sites.iter().flatten().map(SiteSummary::from).collect();
        all.sort_by(|a, b| a.destination.cmp(&b.destination));
        all
    }
}

fn doubled(min: Duration, max: Duration, times: u32) -> Duration {
    min.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX)).min(max)
}

/// From seven eighths of it to nine eighths.
fn spread(duration: Duration, chance: f64) -> Duration {
    duration.mul_f64(0.875 + chance.clamp(0.0, 1.0) / 4.0)
}

#[cfg(test)]
mod tests;
