//! Answers that were given before, within a limit of memory.
//!
//! Two generations: what is asked for moves into the young one; when that has grown to half of the limit it becomes the old one, and
//! what was old and nobody asked for is gone. So both finding and making room take the same short time however much there is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer::{Answer, Error, Question};

/// What was answered, or that it could not be.
pub(super) type Outcome = Result<Answer, Error>;

/// Octets of an entry beside its records: keys, tables, counters.
const OVERHEAD: usize = 256;

pub(super) struct Cache {
    half: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Question, Entry>,
    old: HashMap<Question, Entry>,
    /// Of the young.
    octets: usize,
}

struct Entry {
    outcome: Outcome,
    until: Instant,
}

impl Cache {
    pub fn new(octets: usize) -> Self {
        Self { half: octets / 2, generations: Mutex::default() }
    }

    /// What is still true.
    pub fn get(&self, question: &Question, now: Instant) -> Option<Outcome> {
        let mut generations = self.generations();
        if let Some(entry) = generations.young.get(question) {
            return entry.at(now);
        }
        let entry = generations.old.remove(question)?;
        let outcome = entry.at(now)?;
        self.insert(&mut generations, question.clone(), entry);
        Some(outcome)
    }

    /// Keeps an outcome for so long.
    pub fn put(&self, question: &Question, outcome: &Outcome, now: Instant, keep: Duration) {
        if keep.is_zero() {
            return;
        }
        let entry = Entry { outcome: outcome.clone(), until: now + keep };
        let mut generations = self.generations();
        generations.old.remove(question);
        self.insert(&mut generations, question.clone(), entry);
    }

    fn insert(&self, generations: &mut Generations, question: Question, entry: Entry) {
        let name = question.name.as_str().len();
        let weight = entry.weight() + name;
        if weight > self.half {
            return;
        }
        if generations.octets + weight > self.half {
            generations.old = std::mem::take(&mut generations.young);
            generations.octets = 0;
        }
        generations.octets += weight;
        if let Some(former) = generations.young.insert(question, entry) {
            generations.octets = generations.octets.saturating_sub(former.weight() + name);
        }
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn at(&self, now: Instant) -> Option<Outcome> {
        let left = self.until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        let mut outcome = self.outcome.clone();
        if let Ok(answer) = &mut outcome {
            answer.ttl = left;
        }
        Some(outcome)
    }

    fn weight(&self) -> usize {
        let records = match &self.outcome {
            Ok(answer) => answer.records.iter().map(|data| data.weight()).sum(),
            Err(Error::Failure(why)) => why.len(),
            Err(_) => 0,
        };
        OVERHEAD + records
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::net::{Data, Kind};

    fn question(name: &str) -> Question {
        Question { name: name.parse().unwrap(), kind: Kind::Txt }
    }

    fn text(octets: usize) -> Outcome {
        Ok(Answer { records: [Data::Txt(vec![b'x'; octets])].into(), ttl: Duration::ZERO, authentic: false })
    }

    #[test]
    fn answers_grow_old() {
        let cache = Cache::new(1 << 20);
        let begin = Instant::now();
        let seconds = Duration::from_secs;
        cache.put(&question("a.example"), &text(1), begin, seconds(10));
        cache.put(&question("b.example"), &Err(Error::NoSuchName), begin, seconds(5));
        cache.put(&question("c.example"), &text(1), begin, Duration::ZERO);
        let later = begin + seconds(4);
        assert_eq!(cache.get(&question("a.example"), later).unwrap().unwrap().ttl, seconds(6));
        assert_eq!(cache.get(&question("b.example"), later), Some(Err(Error::NoSuchName)));
        assert_eq!(cache.get(&question("b.example"), begin + seconds(5)), None);
        assert_eq!(cache.get(&question("c.example"), later), None);
        assert_eq!(cache.get(&question("a.example"), begin + seconds(10)), None);
    }

    #[test]
    fn memory_has_a_limit_and_what_is_used_stays() {
        let cache = Cache::new(100_000);
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        cache.put(&question("used.example"), &text(10), now, hour);
        for n in 0..10_000 {
            cache.put(&question(&format!("n{n}.example")), &text(1000), now, hour);
            assert!(cache.get(&question("used.example"), now).is_some());
            let generations = cache.generations();
            let all = generations.young.iter().chain(&generations.old);
            let octets: usize = all.map(|(question, entry)| entry.weight() + question.name.as_str().len()).sum();
            assert!(octets <= 100_000, "{octets} after {n}");
        }
        assert!(cache.get(&question("n0.example"), now).is_none());
        cache.put(&question("huge.example"), &text(60_000), now, hour);
        assert!(
            cache.get(&question("huge.example"), now).is_none() && cache.get(&question("used.example"), now).is_some()
        );
    }

    #[test]
    fn the_same_question_counts_once() {
        let cache = Cache::new(10_000);
        for _ in 0..1000 {
            cache.put(&question("a.example"), &text(1000), Instant::now(), Duration::from_secs(60));
        }
        assert!(cache.generations().octets < 2000);
        assert!(cache.generations().old.is_empty());
    }
}
