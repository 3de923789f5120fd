//! Postgrey's decision, from settings, memory and time.

use std::net::IpAddr;

use crate::settings::Settings;
use crate::triplet;

/// Who asks for what, when.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Seconds since 1970.
    pub now: u64,
    /// The client.
    pub address: IpAddr,
    /// Its name, if DNS confirms it.
    pub name: Option<&'a str>,
    /// The reverse-path; empty for `<>`.
    pub sender: &'a str,
    /// The forward-path.
    pub recipient: &'a str,
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// May come in.
    Passed {
        /// Why, for the log.
        reason: &'static str,
        /// Seconds that it had to wait, if this is the first time that it waited long enough.
        delay: Option<u64>,
    },
    /// Shall come again.
    Greylisted {
        /// Seconds until it may.
        missing: u64,
        /// Whether it has been here before.
        new: bool,
    },
}

/// What is remembered.
pub trait Memory {
    /// The value of a key, if its time is not up.
    fn get(&mut self, key: &str) -> Option<String>;
    /// Keeps a value; false if there is no room.
    fn put(&mut self, key: &str, value: &str, seconds: u32) -> bool;
    /// Keeps a value if the message is taken.
    fn stage(&mut self, key: &str, value: &str, seconds: u32);
}

/// A client's success counts once an hour.
const SUCCESS_INTERVAL: u64 = 3600;

/// Decides.
pub fn judge(settings: &Settings, memory: &mut dyn Memory, question: &Question) -> Outcome {
    let passed = |reason| Outcome::Passed { reason, delay: None };
    let name = question.name.unwrap_or("unknown");
    if settings.clients.has_name(name) || settings.clients.has_address(question.address) {
        return passed("client whitelist");
    }
    if settings.recipients.has(question.recipient) {
        return passed("recipient whitelist");
    }
    let mut successes = Successes::read(settings, memory, question);
    if successes.enough(settings) {
        successes.add(settings, memory, question);
        return passed("client AWL");
    }
    let Question { now, address, name, sender, recipient } = *question;
    let key = triplet::triplet(settings, address, name, sender, recipient);
    let (first, before) = seen(settings, memory.get(&key).as_deref(), now);
    let waited = now - first;
    let Some(missing) = settings.delay.checked_sub(waited).filter(|missing| *missing > 0) else {
        memory.stage(&key, &format!("{first},{now}"), seconds(settings.max_age));
        if before {
            return passed("triplet found");
        }
        successes.add(settings, memory, question);
        return Outcome::Passed { reason: "triplet found", delay: Some(waited) };
    };
    if !memory.put(&key, &format!("{first},{now}"), seconds(settings.retry_window)) {
        return passed("no memory left");
    }
    Outcome::Greylisted { missing, new: waited == 0 }
}

/// When the triplet was first seen, and whether it waited long enough already another time.
fn seen(settings: &Settings, value: Option<&str>, now: u64) -> (u64, bool) {
    let Some((first, last)) = value.and_then(pair) else { return (now, false) };
    let before = last.saturating_sub(first) >= settings.delay;
    // Who comes back too late begins anew.
    let late = !before && now.saturating_sub(first) > settings.retry_window;
    // A first time in the future: the clock was set back.
    (if late || first > now { now } else { first }, before)
}

/// How often mail from one address was retried as it should be.
struct Successes {
    key: Option<String>,
    count: u64,
    last: Option<u64>,
}

impl Successes {
    fn read(settings: &Settings, memory: &mut dyn Memory, question: &Question) -> Self {
        if settings.auto_whitelist_clients == 0 {
            return Self { key: None, count: 0, last: None };
        }
        let key = triplet::successes(settings, question.address);
        let value = memory.get(&key).as_deref().and_then(pair);
        Self { key: Some(key), count: value.map_or(0, |(count, _)| count), last: value.map(|(_, last)| last) }
    }

    fn enough(&self, settings: &Settings) -> bool {
        self.key.is_some() && self.count >= settings.auto_whitelist_clients
    }

    /// One more, if the last one is long enough ago.
    fn add(&mut self, settings: &Settings, memory: &mut dyn Memory, question: &Question) {
        let Some(key) = &self.key else { return };
        let due = self.last.is_none_or(|last| {
            question.now >= last.saturating_add(SUCCESS_INTERVAL) || (self.enough(settings) && last > question.now)
        });
        if due {
            let count = self.count.saturating_add(1);
            memory.stage(key, &format!("{count},{}", question.now), seconds(settings.max_age));
        }
    }
}

fn pair(value: &str) -> Option<(u64, u64)> {
    let (first, second) = value.split_once(',')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

fn seconds(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
