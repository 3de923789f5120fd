//! The queue's part of the config: `[queue]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Duration};

/// Where mail is kept, when it is tried again, when its sender hears of it: `[queue]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The directory of the queue; made if it is not there. On a disk of its own, mail survives a full `/var`. Default
    /// `{data-dir}/queue`.
    pub path: PathBuf,
    /// Octets of a spool file. Room is set aside for a whole one. Default 16 MiB: two of them are little on
    /// any disk, and one lasts for half a second at full speed.
    pub segment_size: ByteSize,
    /// Messages longer than this keep their body in a file of its own. Default 1 MiB.
    pub inline_size: ByteSize,
    /// Octets that must stay free on the disk; below, mail is put off with 452. Default 64 MiB.
    pub min_free: ByteSize,
    /// Octets of waiting mail that are kept in memory for their first delivery. Default 16 MiB.
    pub hot_size: ByteSize,
    /// How long a full spool file is left to its messages before those that remain are moved out of it. Default 5 s.
    pub compact_after: Duration,
    /// Wait before the second try; doubled for each further one. Default 5 min, as Postfix has it.
    pub min_backoff: Duration,
    /// Longest wait between two tries. Default 4000 s, as Postfix has it (RFC 5321 §4.5.4.1 asks for at least 30 min at first).
    pub max_backoff: Duration,
    /// How long mail is tried before it goes back. Default 5 d (RFC 5321 §4.5.4.1: at least 4 to 5 days).
    pub expiry: Duration,
    /// The same for bounces. Default 5 d.
    pub bounce_expiry: Duration,
    /// When the sender is told of a delay; `0s` for never. Default 4 h.
    pub delay_warning: Duration,
    /// How long failed recipients wait for the others of the same message, so that one bounce tells of all. Default 10 min.
    pub bounce_gather: Duration,
    /// Most octets of a message that a bounce returns; of a longer one only the header goes back. Default 50 KiB.
    pub bounce_size: ByteSize,
    /// Deliveries to one destination at a time, at first. Default 5.
    pub initial_concurrency: u32,
    /// Deliveries to one destination at a time, at most. Default 20.
    pub max_concurrency: u32,
    /// Recipients of one delivery. Default 50 (RFC 5321 §4.5.3.1.8: every server takes 100).
    pub max_recipients: usize,
    /// How long a destination that cannot be reached is left alone, at first; doubled each time. Default 1 min.
    pub min_site_backoff: Duration,
    /// The same, at most. Default 30 min.
    pub max_site_backoff: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "{data-dir}/queue".into(),
            segment_size: ByteSize::from_mib(16),
            inline_size: ByteSize::from_mib(1),
            min_free: ByteSize::from_mib(64),
            hot_size: ByteSize::from_mib(16),
            compact_after: Duration::from_secs(5),
            min_backoff: Duration::from_mins(5),
            max_backoff: Duration::from_secs(4000),
            expiry: Duration::from_days(5),
            bounce_expiry: Duration::from_days(5),
            delay_warning: Duration::from_hours(4),
            bounce_gather: Duration::from_mins(10),
            bounce_size: ByteSize::from_kib(50),
            initial_concurrency: 5,
            max_concurrency: 20,
            max_recipients: 50,
            min_site_backoff: Duration::from_mins(1),
            max_site_backoff: Duration::from_mins(30),
        }
    }
}

impl Config {
    /// The least segment that is allowed.
    pub const MIN_SEGMENT: ByteSize = ByteSize::from_kib(64);
    /// The largest: places in a segment are kept in 32 bits.
    pub const MAX_SEGMENT: ByteSize = ByteSize::from_mib(1024);

    /// What is wrong with the values taken together or each by itself: the key, and what to do.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let segment = self.segment_size;
        let rules = [
            (segment >= Self::MIN_SEGMENT, "segment-size", "write at least \"64 KiB\""),
            (segment <= Self::MAX_SEGMENT, "segment-size", "write at most \"1 GiB\""),
            (self.inline_size.as_u64() <= 64 << 20, "inline-size", "write at most \"64 MiB\""),
            (
                !self.min_backoff.is_zero(),
                "min-backoff",
                "0 would never let go of a destination; write at least \"1ms\"",
            ),
            (
                self.max_backoff >= self.min_backoff,
                "max-backoff",
                "it is less than min-backoff; write at least as much",
            ),
            (self.initial_concurrency >= 1, "initial-concurrency", "0 would deliver nothing; write at least 1"),
            (
                self.max_concurrency >= self.initial_concurrency,
                "max-concurrency",
                "it is less than initial-concurrency; write at least as much",
            ),
            (self.max_recipients >= 1, "max-recipients", "0 would deliver nothing; write at least 1"),
            (!self.min_site_backoff.is_zero(), "min-site-backoff", "write at least \"1ms\""),
            (
                self.max_site_backoff >= self.min_site_backoff,
                "max-site-backoff",
                "it is less than min-site-backoff; write at least as much",
            ),
        ];
        rules.iter().find(|(sound, _, _)| !sound).map_or(Ok(()), |(_, key, what)| Err((*key, *what)))
    }

    /// Small and quick, below `path`.
    pub fn for_test(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            segment_size: Self::MIN_SEGMENT,
            inline_size: ByteSize::from_kib(16),
            min_free: ByteSize::from_bytes(0),
            compact_after: Duration::from_millis(1),
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_millis(800),
            min_site_backoff: Duration::from_millis(100),
            max_site_backoff: Duration::from_millis(800),
            ..Self::default()
        }
    }
}
