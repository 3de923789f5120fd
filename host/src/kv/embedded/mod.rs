//! The store in files of its own: a log-structured database in one directory.
//!
//! What an answer says has been done stands in the journal, so that it outlives the process; it is synced to the disk within
//! `sync-interval`. Requests run on threads that may wait for the disk, a bounded number of them; one more thread does the `upkeep`.
//!
//! After a failed write (a full disk) the database takes nothing more: it is opened anew every few seconds. One that is damaged is set
//! aside under another name, never deleted, and an empty one takes its place: what policies remember is worth less than mail that goes on.

mod entry;
mod fault;
mod tables;
mod upkeep;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;

use self::fault::{Fault, Remedy, explain, remedy};
use self::tables::{Counting, Tables};
use super::change::{Act, Outcome};
use super::{Answer, Config, Error, Listed, MAX_LISTED, OpenError, Put, Space, Stats, Store};

/// Requests that may wait for the disk at once; more wait for these.
const MAX_AT_ONCE: usize = 64;
/// Between two lines in the log that say the same.
const LOG_PAUSE: u64 = 10_000;

/// Milliseconds since 1970-01-01 UTC.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The machine's own.
pub(super) fn wall_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The store in files.
pub struct Embedded {
    inner: Arc<Inner>,
    permits: Arc<Semaphore>,
}

/// What requests and upkeep share.
struct Inner {
    config: Config,
    clock: Clock,
    state: RwLock<State>,
    /// What upkeep has to do besides the usual; and that it shall end.
    orders: Mutex<Orders>,
    wake: Condvar,
    failures: AtomicU64,
    logged: AtomicU64,
}

#[derive(Default)]
enum State {
    #[default]
    Closed,
    Open(Box<Open>),
    /// It could not be opened, for this reason; upkeep tries again.
    Broken(String),
}

struct Open {
    tables: Tables,
    progress: Mutex<Progress>,
}

/// How far upkeep has come.
struct Progress {
    counting: Option<Counting>,
    swept: Vec<u8>,
}

struct Orders {
    remedy: Remedy,
    running: bool,
    end: bool,
}

impl Embedded {
    /// A store that is not open yet: nothing is made on the disk.
    pub fn new(config: Config) -> Self {
        Self::with_clock(config, wall_clock())
    }

    pub(super) fn with_clock(config: Config, clock: Clock) -> Self {
        let inner = Inner {
            config,
            clock,
            state: RwLock::default(),
            orders: Mutex::new(Orders { remedy: Remedy::Again, running: false, end: false }),
            wake: Condvar::new(),
            failures: AtomicU64::new(0),
            logged: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner), permits: Arc::new(Semaphore::new(MAX_AT_ONCE)) }
    }

    /// Runs `job` where it may wait.
    fn run<T: Send + 'static>(&self, job: impl FnOnce(&Tables) -> Result<T, Fault> + Send + 'static) -> Answer<'_, T> {
        let (permits, inner) = (Arc::clone(&self.permits), Arc::clone(&self.inner));
        Box::pin(async move {
            let Ok(permit) = permits.acquire_owned().await else { return Err(closed()) };
            let work = move || {
                let _permit = permit; // held until the work is done, though nobody may wait for it any more
                inner.with(job)
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(err) => {
                    self.inner.trouble(Remedy::Reopen, &format!("its code failed: {err}"));
                    Err(Error::Failed("the store failed".into()))
                }
            }
        })
    }

    fn change<T: Send + 'static>(
        &self,
        space: &Space,
        key: String,
        act: Act,
        outcome: impl FnOnce(Outcome) -> T + Send + 'static,
    ) -> Answer<'_, T> {
        let space = space.clone();
        self.run(move |tables| tables.change(&space, &key, act).map(outcome))
    }
}

impl Store for Embedded {
    fn open(&self) -> Result<(), OpenError> {
        self.inner.open()?;
        upkeep::start(&self.inner)
    }

    fn close(&self) {
        self.inner.orders().end = true;
        self.inner.wake.notify_all();
        self.inner.close();
    }

    fn get(&self, space: &Space, key: String) -> Answer<'_, Option<Vec<u8>>> {
        let space = space.clone();
        self.run(move |tables| tables.get(&space, &key))
    }

    fn put(&self, space: &Space, Put { key, value, ttl }: Put) -> Answer<'_, ()> {
        self.change(space, key, Act::Put { value, ttl }, |_| ())
    }

    fn put_all(&self, puts: Vec<(Space, Put)>) -> Answer<'_, ()> {
        self.run(move |tables| {
            let put = |(space, Put { key, value, ttl }): (Space, Put)| {
                tables.change(&space, &key, Act::Put { value, ttl }).map(drop)
            };
            // One that fails keeps none of the others back.
            let done: Vec<_> = puts.into_iter().map(put).collect();
            done.into_iter().collect()
        })
    }

    fn delete(&self, space: &Space, key: String) -> Answer<'_, bool> {
        self.change(space, key, Act::Delete, Outcome::was)
    }

    fn delete_prefix(&self, space: &Space, prefix: String) -> Answer<'_, usize> {
        let space = space.clone();
        self.run(move |tables| {
            let keys = tables.list(&space, &prefix, None, MAX_LISTED)?;
            for listed in &keys {
                tables.change(&space, &listed.key, Act::Delete)?;
            }
            Ok(keys.len())
        })
    }

    fn incr(&self, space: &Space, key: String, by: i64, ttl: Option<Duration>) -> Answer<'_, i64> {
        self.change(space, key, Act::Incr { by, ttl }, Outcome::sum)
    }

    fn compare_and_swap(&self, space: &Space, expected: Option<Vec<u8>>, new: Put) -> Answer<'_, bool> {
        let Put { key, value, ttl } = new;
        self.change(space, key, Act::Swap { expected, new: value, ttl }, Outcome::was)
    }

    fn list(&self, space: &Space, prefix: String, after: Option<String>, limit: usize) -> Answer<'_, Vec<Listed>> {
        let space = space.clone();
        self.run(move |tables| tables.list(&space, &prefix, after.as_deref(), limit))
    }

    fn stats(&self) -> Answer<'_, Stats> {
        let failures = self.inner.failures.load(Ordering::Relaxed);
        self.run(move |tables| {
            let (counted, spaces) = (tables.counted.load(Ordering::Acquire), tables.usage.all());
            Ok(Stats { spaces, disk: tables.disk(), counted, failures })
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

fn closed() -> Error {
    Error::Failed("the store is not open: no policy is granted kv".into())
}

impl Inner {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, job: impl FnOnce(&Tables) -> Result<T, Fault>) -> Result<T, Error> {
        let state = self.state();
        let open = match &*state {
            State::Open(open) => open,
            State::Closed => return Err(closed()),
            State::Broken(why) => return Err(Error::Failed(why.clone())),
        };
        job(&open.tables).map_err(|fault| {
            let remedy = fault.remedy();
            let err = Error::from(fault);
            if matches!(err, Error::Failed(_)) {
                self.trouble(remedy, &err.to_string());
            }
            err
        })
    }

    /// Counts a failure, has it logged now and then, and asks upkeep for a remedy.
    fn trouble(&self, remedy: Remedy, why: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let (now, last) = ((self.clock)(), self.logged.load(Ordering::Relaxed));
        if now.abs_diff(last) > LOG_PAUSE {
            self.logged.store(now, Ordering::Relaxed);
            tracing::error!(path = %self.config.path.display(), "kv: {why}");
        }
        if remedy > Remedy::Again {
            let mut orders = self.orders();
            orders.remedy = orders.remedy.max(remedy);
            self.wake.notify_all();
        }
    }

    fn open(&self) -> Result<(), OpenError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Closed) {
            return Ok(());
        }
        *state = self.opened()?;
        Ok(())
    }

    fn close(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(open) = &*state
            && let Err(fault) = open.tables.sync(&self.config.path)
        {
            tracing::error!(path = %self.config.path.display(), "kv: not synced: {}", Error::from(fault));
        }
        *state = State::Closed;
    }

    /// Drops the database and opens it anew, damaged files set aside.
    fn reopen(&self, remedy: Remedy) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Closed) {
            return;
        }
        *state = State::Broken("it is being opened anew".into()); // the files are closed now
        let path = self.config.path.as_path();
        let opened = match remedy {
            Remedy::SetAside => self.set_aside("damage was found").and_then(|()| self.opened()),
            Remedy::Again | Remedy::Reopen => self.opened(),
        };
        *state = match opened {
            Ok(opened) => {
                if matches!(opened, State::Open(_)) {
                    tracing::info!(path = %path.display(), "kv: open again");
                }
                opened
            }
            Err(OpenError(why)) => {
                tracing::error!(path = %path.display(), "kv: {why}");
                State::Broken(why)
            }
        };
    }

    /// Opens what is there, or what takes its place. A full disk is no error: it is tried again, and mail goes on.
    fn opened(&self) -> Result<State, OpenError> {
        let path = self.config.path.as_path();
        let said = |why: String| OpenError(format!("{}: {why}", path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|err| said(err.to_string()))?;
        let open = || {
            let tables = catch_unwind(AssertUnwindSafe(|| Tables::open(path, &self.config, Arc::clone(&self.clock))));
            tables.unwrap_or(Err(fjall::Error::Unrecoverable)) // it panics at some damage
        };
        let tables = match open() {
            Err(err) if remedy(&err) == Remedy::SetAside => {
                self.set_aside(&explain(&err))?;
                open()
            }
            opened => opened,
        };
        match tables {
            Ok(tables) => {
                let progress = Mutex::new(Progress { counting: Some(tables.counting()), swept: Vec::new() });
                Ok(State::Open(Box::new(Open { tables, progress })))
            }
            Err(fjall::Error::Io(err)) if is_full(&err) => {
                tracing::error!(path = %path.display(), "kv: cannot be opened: {err}");
                Ok(State::Broken(err.to_string()))
            }
            Err(err) => Err(said(explain(&err))),
        }
    }

    /// Gives the directory another name and makes an empty one.
    fn set_aside(&self, why: &str) -> Result<(), OpenError> {
        let path = self.config.path.as_path();
        let aside = free_name(path);
        let moved = fs::rename(path, &aside).and_then(|()| DirBuilder::new().mode(0o700).create(path));
        let (path, aside) = (path.display(), aside.display());
        tracing::error!(%path, set_aside = %aside, "kv: damaged, begins empty: {why}");
        moved.map_err(|err| OpenError(format!("{path} is damaged and cannot be renamed to {aside}: {err}")))
    }
}

impl Open {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_full(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A name beside `path` that says what it is and since when.
fn free_name(path: &Path) -> PathBuf {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let name = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{time}"));
        if n > 0 {
            name.push(format!("-{n}"));
        }
        PathBuf::from(name)
    };
    (0..1000).map(name).find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_else(|| name(1000))
}
