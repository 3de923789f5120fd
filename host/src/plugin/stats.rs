//! What is counted of a plugin: its calls, its failures, how long it takes, and its own metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::context::Count;

/// Names that a plugin's own metrics may have.
const MAX_METRICS: usize = 100;
/// Octets of a metric's name.
const MAX_METRIC_NAME: usize = 64;
/// Upper bounds of the latency classes in microseconds: 1, 2, 4, … 2^23 (8 s); the last takes the rest.
const CLASSES: usize = 25;

/// Counters of one plugin, for all its hooks.
#[derive(Default)]
pub(super) struct Stats {
    calls: Count,
    failures: Count,
    latency: [Count; CLASSES],
    dropped_metrics: Count,
    metrics: Mutex<BTreeMap<String, f64>>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// Calls of hooks, failed ones included.
    pub calls: u64,
    /// Calls that trapped, timed out or said something that cannot be.
    pub failures: u64,
    /// Half of the calls took at most so many microseconds.
    pub p50_us: u64,
    /// Ninety-nine of a hundred did.
    pub p99_us: u64,
    /// The plugin's own metrics.
    pub metrics: BTreeMap<String, f64>,
    /// Metrics it lost by naming too many.
    pub dropped_metrics: u64,
}

impl Stats {
    pub fn called(&self, took: Duration, failed: bool) {
        self.calls.add(1);
        self.failures.add(u64::from(failed));
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = (64 - micros.leading_zeros() as usize).min(CLASSES - 1);
        if let Some(count) = self.latency.get(class) {
            count.add(1);
        }
    }

    pub fn metric(&self, name: &str, change: impl FnOnce(&mut f64)) {
        let sound = !name.is_empty()
            && name.len() <= MAX_METRIC_NAME
            && name.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_');
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if !sound || (metrics.len() >= MAX_METRICS && !metrics.contains_key(name)) {
            self.dropped_metrics.add(1);
            return;
        }
        change(metrics.entry(name.to_owned()).or_default());
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            calls: self.calls.get(),
            failures: self.failures.get(),
            p50_us: self.percentile(50),
            p99_us: self.percentile(99),
            metrics: self.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            dropped_metrics: self.dropped_metrics.get(),
        }
    }

    /// The upper bound of the class in which the percentile lies.
    fn percentile(&self, percent: u64) -> u64 {
        let counts: Vec<u64> = self.latency.iter().map(Count::get).collect();
        let wanted = (counts.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        for (class, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return 1 << class;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_limits() {
        let stats = Stats::default();
        for micros in [10, 10, 10, 5000] {
            stats.called(Duration::from_micros(micros), false);
        }
        for n in 0..200 {
            stats.metric(&format!("m{n}"), |value| *value += 1.0);
        }
        stats.metric("Bad Name", |value| *value = 1.0);
        let snapshot = stats.snapshot();
        assert_eq!((snapshot.calls, snapshot.p50_us, snapshot.p99_us), (4, 16, 8192));
        assert_eq!((snapshot.metrics.len(), snapshot.dropped_metrics), (100, 101));
    }
}
