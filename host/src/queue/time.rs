//! Points in time as the queue stores and compares them, and the clock that yields them.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(u64);

impl UnixTime {
    /// From milliseconds.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }
    /// In milliseconds.
    pub fn as_millis(self) -> u64 {
        self.0
    }
    /// That much later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)))
    }
    /// How long since `earlier`; zero if that lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(i64::try_from(self.0).unwrap_or(i64::MAX)) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}
impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The wall clock as it stood at the start, driven on by the monotonic one: a clock that is set while the server runs moves no
/// due time and expires no mail.
#[derive(Debug, Clone)]
pub struct Clock {
    wall: UnixTime,
    start: Instant,
}

impl Clock {
    /// Reads the wall clock, once.
    pub fn system() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: UnixTime::default().after(wall), start: Instant::now() }
    }
    /// Now.
    pub fn now(&self) -> UnixTime {
        self.wall.after(self.start.elapsed())
    }
    /// How long from now until `then`; zero if it has passed.
    pub fn until(&self, then: UnixTime) -> Duration {
        then.since(self.now())
    }
}
