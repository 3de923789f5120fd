//! `wasmta serve`: puts the house together, serves until it is told to end, and ends in good order.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::check::load_plugins;
use super::{Failure, code, log};
use crate::admin::{Control, House, ListenerFacts};
use crate::config::Loaded;
use crate::directory::Directory;
use crate::mail::Domain;
use crate::plugin::Plugin;

/// How long sessions may take to finish the transactions they are in.
const DRAIN: Duration = Duration::from_secs(30);
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
    let mut signals = Signals::new()?;
    let config = &loaded.config;
    let hostname = config.server.hostname().ok_or_else(|| {
        loaded.source.error_at(&["server", "hostname"], "the machine's own name is no domain; write one")
    })?;
    make_data_dir(&loaded)?;
    let plugins = load_plugins(&loaded, &config.runtime).await?;
    let directory = Arc::new(directory(&loaded, hostname.clone())?);
    let data_dir = &config.server.data_dir;
    let control = Control::bind(data_dir).map_err(|err| {
        let message = format_args!("the control socket in {} cannot be made: {err}", data_dir.display());
        loaded.source.error_at(&["server", "data-dir"], message)
    })?;
    // From here on nothing can fail.
    let (stop, stopped) = watch::channel(false);
    let house = Arc::new(house(&loaded, hostname, started, &plugins));
    tokio::spawn(control.serve(house, stopped));
    tracing::info!("serving");
    signals.wait_for_end().await;
    tracing::info!("ending: no new sessions, those in a transaction have {} s", DRAIN.as_secs());
    stop.send_replace(true);
    drop(directory);
    tracing::info!("ended");
    Ok(())
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

fn directory(loaded: &Loaded, hostname: Domain) -> Result<Directory, Failure> {
    let own = loaded.config.listeners.iter().map(|listener| listener.address.ip());
    Directory::open(&loaded.config.directory, hostname, own)
        .map_err(|err| loaded.source.error_at(&["directory"], err).into())
}

fn house(
    loaded: &Loaded,
    hostname: Domain,
    started: (jiff::Timestamp, Instant),
    plugins: &BTreeMap<String, Arc<Plugin>>,
) -> House {
    let facts = |listener: &crate::config::Listener| ListenerFacts {
        name: listener.name.clone(),
        address: listener.address.to_string(),
        chain: listener.chain.clone(),
    };
    let listeners = loaded.config.listeners.iter().map(facts).collect();
    House { hostname, started, listeners, plugins: plugins.values().cloned().collect() }
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

    /// SIGTERM or SIGINT. SIGHUP, with which daemons are told to read their config again, changes nothing here: the log says so.
    async fn wait_for_end(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => tracing::warn!("SIGHUP changes nothing: restart to use a changed config"),
            }
        }
    }
}
