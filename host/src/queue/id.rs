//! Where queue ids come from: 42 bits of milliseconds, then 22 bits that are random at first and counted on within a millisecond.

use std::sync::atomic::{AtomicU64, Ordering};

use super::UnixTime;
use crate::mail::QueueId;

/// Bits below the time. Two million ids a millisecond before one borrows from the next.
const LOW_BITS: u32 = 22;

/// When the message of this id came, by its id. Right to the millisecond unless a clock was set back.
pub(super) fn arrival(id: QueueId) -> UnixTime {
    UnixTime::from_millis(id.as_u64() >> LOW_BITS)
}

/// Hands out queue ids: each above all before it, restarts and a clock that went back included.
#[derive(Debug)]
pub struct IdSource {
    last: AtomicU64,
}

impl IdSource {
    /// Above `highest`, the highest id that the store knows.
    pub fn new(highest: QueueId) -> Self {
        Self { last: AtomicU64::new(highest.as_u64()) }
    }

    /// The next one.
    pub fn next(&self, now: UnixTime) -> QueueId {
        // The upper half of the low bits stays free for counting on; the random lower half keeps a clock that was set back
        // between two runs from giving an id of a mail that is long gone to another.
        let fresh = (now.as_millis() << LOW_BITS) | fastrand::u64(..1 << (LOW_BITS - 1));
        let next = |last: u64| Some(fresh.max(last.saturating_add(1)));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_else(|last| last);
        QueueId::from_u64(fresh.max(last.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_and_follow_time() {
        let ids = IdSource::new(QueueId::from_u64(0));
        let mut last = QueueId::from_u64(0);
        for at in [5_000, 5_000, 5_001, 4_000, 9_000] {
            for _ in 0..1_000 {
                let id = ids.next(UnixTime::from_millis(at));
                assert!(id > last);
                last = id;
            }
        }
        assert_eq!(last.as_u64() >> LOW_BITS, 9_000);
    }

    #[test]
    fn ids_continue_above_what_the_store_knows() {
        let known = QueueId::from_u64(7_000 << LOW_BITS);
        assert!(IdSource::new(known).next(UnixTime::from_millis(3)) > known);
    }
}
