//! The thread that syncs, counts, removes what has expired, and opens a database anew that has stopped. Every step is bounded.

use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::fault::{Fault, Remedy};
use super::{Error, Inner, OpenError, State};

/// Values that are counted in one step, and expired ones that are removed.
const COUNTED_AT_ONCE: usize = 20_000;
const SWEPT_AT_ONCE: usize = 500;
/// Between two steps when there is more to do: others want the disk too.
const BETWEEN_STEPS: Duration = Duration::from_millis(10);
/// Between two looks at what has expired.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to open a database anew.
const REOPEN_EVERY: Duration = Duration::from_secs(5);

/// Starts it, if it does not run yet.
pub(super) fn start(inner: &Arc<Inner>) -> Result<(), OpenError> {
    let mut orders = inner.orders();
    orders.end = false;
    if orders.running {
        return Ok(());
    }
    let weak = Arc::downgrade(inner);
    let started = thread::Builder::new().name("kv".into()).spawn(move || run(&weak));
    started.map_err(|err| OpenError(format!("no thread: {err}")))?;
    orders.running = true;
    Ok(())
}

fn run(inner: &Weak<Inner>) {
    let mut synced = Instant::now();
    let mut swept = Instant::now();
    let mut opened: Option<Instant> = None;
    // One that nobody holds any more has been closed.
    while let Some(inner) = inner.upgrade() {
        let interval = inner.config.sync_interval.as_std();
        let order = {
            let mut orders = inner.orders();
            if orders.end {
                orders.running = false;
                return;
            }
            if opened.is_none_or(|opened| opened.elapsed() >= REOPEN_EVERY) {
                std::mem::replace(&mut orders.remedy, Remedy::Again)
            } else {
                Remedy::Again
            }
        };
        if order > Remedy::Again || (inner.broken() && opened.is_none_or(|opened| opened.elapsed() >= REOPEN_EVERY)) {
            opened = Some(Instant::now());
            inner.reopen(order);
        }
        if synced.elapsed() >= interval {
            inner.attend(|open| open.tables.sync(&inner.config.path));
            synced = Instant::now();
        }
        let mut more = inner.count();
        if swept.elapsed() >= SWEEP_EVERY {
            match inner.sweep() {
                true => more = true,
                false => swept = Instant::now(),
            }
        }
        inner.pause(if more { BETWEEN_STEPS } else { interval.min(SWEEP_EVERY) });
    }
}

impl Inner {
    /// Does something with the open database; what goes wrong is told to the log and remedied.
    fn attend<T: Default>(&self, job: impl FnOnce(&super::Open) -> Result<T, Fault>) -> T {
        let state = self.state();
        let State::Open(open) = &*state else { return T::default() };
        job(open).unwrap_or_else(|fault| {
            let remedy = fault.remedy();
            self.trouble(remedy, &Error::from(fault).to_string());
            T::default()
        })
    }

    fn broken(&self) -> bool {
        matches!(&*self.state(), State::Broken(_))
    }

    /// Whether there is more to count.
    fn count(&self) -> bool {
        self.attend(|open| {
            let mut progress = open.progress();
            let Some(counting) = &mut progress.counting else { return Ok(false) };
            let done = counting.step(&open.tables, COUNTED_AT_ONCE)?;
            if done {
                progress.counting = None; // nothing it has seen needs to be kept for it any longer
            }
            Ok(!done)
        })
    }

    /// Whether there may be more to remove.
    fn sweep(&self) -> bool {
        self.attend(|open| {
            let mut progress = open.progress();
            open.tables.sweep(&mut progress.swept, SWEPT_AT_ONCE).map(|seen| seen == SWEPT_AT_ONCE)
        })
    }

    /// Waits, unless there is an order.
    fn pause(&self, time: Duration) {
        let orders = self.orders();
        if !orders.end {
            let _ = self.wake.wait_timeout(orders, time).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
