//! `wasmta serve`: puts the house together, serves until it is told to end, and ends in good order.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Failure, code, log};
use crate::admin::{Control, House};
use crate::config::Loaded;
use crate::delivery::{CurrentTerms, Delivery};
use crate::generation::{Generations, services};
use crate::kv;
use crate::listener::{Listener, Parts, Port};
use crate::mail::Domain;
use crate::queue::Queue;
use crate::queue::disk::Disk;

/// How long sessions may take to finish the transactions they are in.
const DRAIN: Duration = Duration::from_secs(30);
/// Open files besides one for each session: the queue, deliveries, policies.
const SPARE_FILES: u64 = 1000;
/// How long blocking work that is left may hold up the end.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Serves. Whatever can be wrong is found before the first client is.
pub(super) fn run(loaded: Loaded) -> Result<(), Failure> {
    let _log = log::start(&loaded.config.server);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(loaded.config.server.workers()).thread_name("wasmta").enable_all().build();
    let runtime = runtime.map_err(|err| Failure::new(code::SYSTEM, format_args!("no runtime: {err}")))?;
    let result = runtime.block_on(serve(loaded));
    runtime.shutdown_timeout(LAST_WORK);
    result
}

async fn serve(loaded: Loaded) -> Result<(), Failure> {
    let started = (jiff::Timestamp::now(), Instant::now());
    allow_open_files(&loaded.config.listeners);
    let mut signals = Signals::new()?;
    let config = &loaded.config;
    let hostname = config.server.hostname().ok_or_else(|| {
        loaded.source.error_at(&["server", "hostname"], "the machine's own name is no domain; write one")
    })?;
    let ports = take_ports(&loaded)?;
    make_data_dir(&loaded)?;
    let kv: Arc<dyn kv::Store> = Arc::new(kv::Embedded::new(config.kv.clone()));
    let generations = Generations::start(&loaded, services(&loaded, Arc::clone(&kv))?).await?;
    let terms = generations.delivery_terms();
    let queue = open_queue(&loaded, hostname.clone(), terms.clone())?;
    let listeners = open_listeners(&loaded, ports, &generations, &queue)?;
    let data_dir = &config.server.data_dir;
    let control = Control::bind(data_dir).map_err(|err| {
        let message = format_args!("the control socket in {} cannot be made: {err}", data_dir.display());
        loaded.source.error_at(&["server", "data-dir"], message)
    })?;
    // From here on nothing can fail.
    let (stop, stopped) = watch::channel(false);
    let delivery = Delivery::new(hostname.clone(), terms);
    let house = House {
        hostname,
        started,
        addresses: addresses(&loaded, &listeners),
        queue: queue.clone(),
        kv: Arc::clone(&kv),
        generations: Arc::clone(&generations),
    };
    // The operator can look on until the last delivery has ended.
    let (leave, left) = watch::channel(false);
    let control = tokio::spawn(control.serve(Arc::new(house), left));
    let mut work = JoinSet::new();
    work.spawn(delivery.run(queue.clone(), stopped.clone()));
    for listener in listeners {
        if let Ok(address) = listener.address() {
            tracing::info!(%address, "listening");
        }
        work.spawn(listener.serve(stopped.clone()));
    }
    tracing::info!("serving");
    signals.wait_for_end(&generations, &queue).await;
    tracing::info!("ending: no new sessions, those in a transaction have {} s", DRAIN.as_secs());
    stop.send_replace(true);
    if tokio::time::timeout(DRAIN, async { while work.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("some sessions or deliveries are cut off");
    }
    work.shutdown().await;
    leave.send_replace(true);
    let _ = control.await; // so that the socket is gone when the process is
    let _ = tokio::task::spawn_blocking(move || kv.close()).await;
    tracing::info!("ended");
    Ok(())
}

/// Takes as many open files as the system lets us have. The soft limit is 1,024 on most systems, for the sake of programs that still call
/// select(2): a thousand idle clients would leave none for the queue.
fn allow_open_files(listeners: &[crate::listener::Config]) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        // nothing to gain
    } else if let Err(err) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%err, "the limit on open files cannot be raised");
    }
    let sessions: u64 = listeners.iter().map(|listener| u64::from(listener.max_sessions)).sum();
    let most = getrlimit(Resource::Nofile).current;
    if most.is_some_and(|most| most < sessions.saturating_add(SPARE_FILES)) {
        let most = most.unwrap_or_default();
        tracing::warn!(
            most,
            sessions,
            "fewer open files are allowed than max-sessions asks for; raise the limit (systemd: LimitNOFILE) or lower max-sessions"
        );
    }
}

/// Opens the queue and reads what is in it.
fn open_queue(loaded: &Loaded, hostname: Domain, routes: CurrentTerms) -> Result<Queue, Failure> {
    let opened = Queue::open(loaded.config.queue.clone(), hostname, routes, Disk::default());
    opened.map(|(queue, _)| queue).map_err(|err| loaded.source.error_at(&["queue", "path"], err).into())
}

/// Takes the ports of all listeners, before anything is made or changed on the disk.
fn take_ports(loaded: &Loaded) -> Result<Vec<Port>, Failure> {
    let take = |(index, listener): (usize, &crate::listener::Config)| {
        Port::take(listener.address).map_err(|err| port_error(loaded, index, &err))
    };
    loaded.config.listeners.iter().enumerate().map(take).collect()
}

/// Puts the listeners together; from now on clients may connect.
fn open_listeners(
    loaded: &Loaded,
    ports: Vec<Port>,
    generations: &Arc<Generations>,
    queue: &Queue,
) -> Result<Vec<Listener>, Failure> {
    let open = |(index, (port, listener)): (usize, (Port, &crate::listener::Config))| {
        let (name, terms) = (listener.name.clone(), generations.listener_terms(index));
        let parts = Parts { port, name, queue: queue.clone(), terms };
        Listener::open(parts).map_err(|err| port_error(loaded, index, &err))
    };
    ports.into_iter().zip(&loaded.config.listeners).enumerate().map(open).collect()
}

fn port_error(loaded: &Loaded, index: usize, err: &io::Error) -> Failure {
    let address = loaded.config.listeners.get(index).map(|listener| listener.address.to_string());
    let message = format!("{} {}", address.unwrap_or_default(), cannot_bind(err));
    loaded.source.error_at(&["listener", &index.to_string(), "address"], message).into()
}

/// Why, and what to do.
fn cannot_bind(err: &io::Error) -> String {
    match err.kind() {
        io::ErrorKind::AddrInUse => "is in use; stop the program that listens there, or choose another port".into(),
        io::ErrorKind::AddrNotAvailable => {
            "is no address of this machine; write one that is, or \"[::]:PORT\" for all".into()
        }
        io::ErrorKind::PermissionDenied => {
            "is not allowed to this user; ports below 1024 need root or CAP_NET_BIND_SERVICE".into()
        }
        _ => format!("cannot be listened on: {err}"),
    }
}

/// Makes the data directory, for the MTA's user alone.
fn make_data_dir(loaded: &Loaded) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let path: &Path = &loaded.config.server.data_dir;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|err| {
        let message = format_args!("{} cannot be made: {err}; name a directory this user can write to", path.display());
        loaded.source.error_at(&["server", "data-dir"], message).into()
    })
}

/// Where each listener listens: with the port that was given to it, where the config says 0.
fn addresses(loaded: &Loaded, listeners: &[Listener]) -> Vec<String> {
    let address = |(config, listener): (&crate::listener::Config, &Listener)| {
        listener.address().unwrap_or(config.address).to_string()
    };
    loaded.config.listeners.iter().zip(listeners).map(address).collect()
}

/// What the system tells a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|err| Failure::new(code::SYSTEM, format_args!("cannot listen for signals: {err}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// SIGTERM or SIGINT. Each SIGHUP is a reload.
    async fn wait_for_end(&mut self, generations: &Arc<Generations>, queue: &Queue) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reloading");
                    let (generations, queue) = (Arc::clone(generations), queue.clone());
                    tokio::spawn(async move { generations.reload(&queue).await }); // which logs what came of it
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_open_files_that_may_be_had_are_taken() {
        let limit = getrlimit(Resource::Nofile);
        let less = limit.maximum.unwrap_or(20_000) - 1;
        setrlimit(Resource::Nofile, Rlimit { current: Some(less), ..limit }).expect("lowering is always allowed");
        allow_open_files(&[]);
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }
}
