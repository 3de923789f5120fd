//! A store that is gone with the process: for trials of a policy, and for tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::change::{Act, Change, Entry, Outcome, check_key, decide};
use super::embedded::{Clock, wall_clock};
use super::usage::{Delta, Usage};
use super::{Answer, Error, Listed, MAX_LISTED, OpenError, Put, Space, Stats, Store};

/// By namespace and key.
type Entries = BTreeMap<(String, String), Entry>;

/// Keeps everything in memory.
pub struct Memory {
    entries: Mutex<Entries>,
    usage: Usage,
    clock: Clock,
}

impl Default for Memory {
    fn default() -> Self {
        Self::with_clock(wall_clock())
    }
}

impl Memory {
    /// Times are what this clock says.
    pub fn with_clock(clock: Clock) -> Self {
        Self { entries: Mutex::default(), usage: Usage::default(), clock }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, space: &Space, key: &str, act: Act) -> Result<Outcome, Error> {
        check_key(key)?;
        let mut entries = self.entries();
        let place = (space.name().to_owned(), key.to_owned());
        let stored = entries.get(&place);
        let (change, outcome) = decide(act, stored, (self.clock)())?;
        let before = stored.map(|entry| entry.value.len());
        match change {
            Change::Keep => {}
            Change::Set(entry) => {
                self.usage.reserve(space, Delta::new(key, before, Some(entry.value.len())))?;
                entries.insert(place, entry);
            }
            Change::Remove => {
                self.usage.reserve(space, Delta::new(key, before, None))?;
                entries.remove(&place);
            }
        }
        Ok(outcome)
    }

    fn page(&self, space: &Space, prefix: &str, after: Option<&str>, limit: usize) -> Vec<Listed> {
        let now = (self.clock)();
        let entries = self.entries();
        let from = after.unwrap_or_default().max(prefix).to_owned();
        let begin = Bound::Included((space.name().to_owned(), from));
        entries
            .range((begin, Bound::Unbounded))
            .take_while(|((own, key), _)| own == space.name() && key.starts_with(prefix))
            .filter(|((_, key), entry)| entry.live(now) && after.is_none_or(|after| key.as_str() > after))
            .take(limit.min(MAX_LISTED))
            .map(|((_, key), entry)| Listed {
                key: key.clone(),
                size: entry.value.len() as u64,
                expires: entry.expires,
            })
            .collect()
    }
}

fn at_once<'a, T: Send + 'a>(result: Result<T, Error>) -> Answer<'a, T> {
    Box::pin(std::future::ready(result))
}

impl Store for Memory {
    fn open(&self) -> Result<(), OpenError> {
        Ok(())
    }
    fn close(&self) {}
    fn get(&self, space: &Space, key: String) -> Answer<'_, Option<Vec<u8>>> {
        let now = (self.clock)();
        let value = |key: String| self.entries().get(&(space.name().to_owned(), key)).cloned();
        at_once(check_key(&key).map(|()| value(key).filter(|entry| entry.live(now)).map(|entry| entry.value)))
    }
    fn put(&self, space: &Space, Put { key, value, ttl }: Put) -> Answer<'_, ()> {
        at_once(self.change(space, &key, Act::Put { value, ttl }).map(drop))
    }
    fn put_all(&self, puts: Vec<(Space, Put)>) -> Answer<'_, ()> {
        let put = |(space, Put { key, value, ttl }): (Space, Put)| self.change(&space, &key, Act::Put { value, ttl });
        let done: Vec<_> = puts.into_iter().map(put).collect();
        at_once(done.into_iter().try_for_each(|one| one.map(drop)))
    }
    fn delete(&self, space: &Space, key: String) -> Answer<'_, bool> {
        at_once(self.change(space, &key, Act::Delete).map(Outcome::was))
    }
    fn delete_prefix(&self, space: &Space, prefix: String) -> Answer<'_, usize> {
        let keys = self.page(space, &prefix, None, MAX_LISTED);
        let result: Result<Vec<_>, _> = keys.iter().map(|key| self.change(space, &key.key, Act::Delete)).collect();
        at_once(result.map(|all| all.len()))
    }
    fn incr(&self, space: &Space, key: String, by: i64, ttl: Option<Duration>) -> Answer<'_, i64> {
        at_once(self.change(space, &key, Act::Incr { by, ttl }).map(Outcome::sum))
    }
    fn compare_and_swap(&self, space: &Space, expected: Option<Vec<u8>>, new: Put) -> Answer<'_, bool> {
        let Put { key, value, ttl } = new;
        at_once(self.change(space, &key, Act::Swap { expected, new: value, ttl }).map(Outcome::was))
    }
    fn list(&self, space: &Space, prefix: String, after: Option<String>, limit: usize) -> Answer<'_, Vec<Listed>> {
        at_once(Ok(self.page(space, &prefix, after.as_deref(), limit)))
    }
    fn stats(&self) -> Answer<'_, Stats> {
        at_once(Ok(Stats { spaces: self.usage.all(), disk: 0, counted: true, failures: 0 }))
    }
}
