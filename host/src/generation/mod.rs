//! Generations: everything that a config says and a reload may change, made whole beside the one in force, then put in its place by one
//! store of a pointer. A session begins with the generation of that moment and finishes with it.
//!
//! `change` compares configs, `policies` loads what they name, `apart` has it compiled in another process, `reload` does all of it for a
//! server that runs.
//!
//! Architecture invariant: a generation never changes. Nothing here is on a mail's way but `Generations::now`, which takes no lock.

mod apart;
mod change;
mod policies;
mod reload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use jiff::Timestamp;

pub use apart::{Work, prepare};
pub use change::Change;
pub use policies::{load_all, services, trial_services};
pub use reload::{ReloadError, Reloaded};

use crate::config::{Config, ConfigError, Loaded};
use crate::delivery::no_route;
use crate::directory::Directory;
use crate::mail::Domain;
use crate::plugin::{Chain, Plugin, Sandbox, Services};
use crate::smtp::Settings;
use crate::{delivery, listener, plugin};
use apart::Trouble;
use policies::Fault;

/// Old generations that sessions may keep alive before the log says so.
const MANY_OLD: usize = 8;

/// One generation.
pub struct Generation {
    /// 1 at the start, one more with each reload that changed something.
    pub number: u64,
    /// When it came into force.
    pub loaded: Timestamp,
    /// The config in force.
    pub config: Config,
    /// The policies by name.
    pub policies: BTreeMap<String, Policy>,
    directory: Arc<Directory>,
    listeners: Vec<Arc<listener::Terms>>,
    delivery: Arc<delivery::Terms>,
    alive: Weak<Life>,
}

/// A policy with its history.
#[derive(Clone)]
pub struct Policy {
    /// It.
    pub plugin: Arc<Plugin>,
    /// The generation that it came with.
    pub generation: u64,
    /// When that was.
    pub loaded: Timestamp,
}

/// Lives as long as anything of a generation is in use.
struct Life(u64);

impl Drop for Life {
    fn drop(&mut self) {
        tracing::debug!(generation = self.0, "its last session has ended");
    }
}

/// The generation in force, and all that is needed to make the next one.
pub struct Generations {
    current: ArcSwap<Generation>,
    file: PathBuf,
    services: Services,
    /// Made for the first policy there is: it reserves address space, and a server without policies needs none.
    sandbox: OnceLock<Sandbox>,
    /// Those before, as long as sessions keep them alive.
    old: Mutex<Vec<(u64, Weak<Life>)>>,
    reloads: reload::Turn,
}

impl Generations {
    /// The first generation. Policies that are not compiled yet are compiled by another process; here, if there can be none.
    pub async fn start(loaded: &Loaded, services: Services) -> Result<Arc<Self>, ConfigError> {
        let sandbox = OnceLock::new();
        let policies = Policies { sandbox: &sandbox, services: &services, before: None };
        let ready = policies.first(loaded).await?;
        let first = Generation::new(1, loaded, ready)?;
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(first),
            file: loaded.source.file().to_owned(),
            services,
            sandbox,
            old: Mutex::default(),
            reloads: reload::Turn::default(),
        }))
    }

    /// The one in force.
    pub fn now(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// What sessions go by that begin now at a listener, by its place in the config.
    pub fn listener_terms(self: &Arc<Self>, index: usize) -> Box<dyn Fn() -> Arc<listener::Terms> + Send + Sync> {
        let own = Arc::clone(self);
        Box::new(move || {
            let now = own.current.load();
            Arc::clone(now.listeners.get(index).expect("no reload adds, removes or moves a listener"))
        })
    }

    /// What deliveries go by that begin now.
    pub fn delivery_terms(self: &Arc<Self>) -> delivery::CurrentTerms {
        let own = Arc::clone(self);
        delivery::CurrentTerms::new(move || Arc::clone(&own.current.load().delivery))
    }

    /// Old generations that some session still goes by.
    pub fn old(&self) -> Vec<u64> {
        let mut old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
        old.retain(|(_, life)| life.strong_count() > 0);
        old.iter().map(|(number, _)| *number).collect()
    }

    /// From now on sessions begin with this one.
    fn put_in_force(&self, next: Generation) {
        let before = self.current.swap(Arc::new(next));
        self.old.lock().unwrap_or_else(PoisonError::into_inner).push((before.number, before.alive.clone()));
        drop(before);
        let old = self.old();
        if old.len() > MANY_OLD {
            tracing::warn!(old = old.len(), "sessions that began long ago keep many old generations in memory");
        }
    }
}

impl Generation {
    fn new(number: u64, loaded: &Loaded, policies: BTreeMap<String, Policy>) -> Result<Self, ConfigError> {
        let config = &loaded.config;
        let hostname = config.server.hostname().ok_or_else(|| {
            loaded.source.error_at(&["server", "hostname"], "the machine's own name is no domain; write one")
        })?;
        let directory = Arc::new(directory(loaded, hostname.clone())?);
        directory.follow();
        let smtp = Settings::new(config.smtp.clone(), hostname);
        let no_relay = config.delivery.relay_host.is_none().then(no_route);
        let life = Arc::new(Life(number));
        let scoring = Arc::new(config.score.clone());
        let terms = |own: &listener::Config| {
            // The config has been checked: each name is that of a policy.
            let chain = own.chain.iter().filter_map(|name| policies.get(name)).map(|policy| Arc::clone(&policy.plugin));
            Arc::new(listener::Terms {
                config: own.clone(),
                smtp: Arc::clone(&smtp),
                directory: Arc::clone(&directory),
                chain: Chain::new(chain.collect()).with_scoring(Arc::clone(&scoring)),
                no_relay: no_relay.clone(),
                alive: Arc::clone(&life) as Arc<dyn Send + Sync>,
            })
        };
        let listeners = config.listeners.iter().map(terms).collect();
        let delivery = delivery::Terms::new(config.delivery.clone(), Arc::clone(&directory));
        let (loaded, alive) = (Timestamp::now(), Arc::downgrade(&life));
        Ok(Self { number, loaded, config: config.clone(), policies, directory, listeners, delivery, alive })
    }
}

fn directory(loaded: &Loaded, hostname: Domain) -> Result<Directory, ConfigError> {
    let own = loaded.config.listeners.iter().map(|listener| listener.address.ip());
    Directory::open(&loaded.config.directory, hostname, own).map_err(|err| loaded.source.error_at(&["directory"], err))
}

/// From a config to its policies.
struct Policies<'a> {
    sandbox: &'a OnceLock<Sandbox>,
    services: &'a Services,
    before: Option<&'a Generation>,
}

/// Policies that can run, and the config of those that are to be compiled first.
#[derive(Default)]
struct Sorted {
    ready: BTreeMap<String, Policy>,
    missing: BTreeMap<String, plugin::Config>,
}

impl Policies<'_> {
    /// Those of the first generation.
    async fn first(&self, loaded: &Loaded) -> Result<BTreeMap<String, Policy>, ConfigError> {
        let Sorted { mut ready, missing } = self.sorted(loaded)?;
        if missing.is_empty() {
            return Ok(ready);
        }
        tracing::info!(policies = missing.len(), "compiling");
        let limit = loaded.config.server.reload_timeout.as_std();
        match Work::new(&loaded.config, missing.clone()).done_apart(limit) {
            Ok(()) => {}
            Err(Trouble::Fault(fault)) => return Err(fault.place(loaded)),
            // Nobody is served yet who would have to wait for us.
            Err(trouble) => tracing::warn!("compiling without a process of its own: {trouble:?}"),
        }
        for (name, config) in missing {
            let plugin = self.sandbox(loaded)?.load(&name, &config).await;
            let plugin = plugin.map_err(|err| Fault::new(&name, &err).place(loaded))?;
            ready.insert(name, Policy::new(plugin, 1));
        }
        Ok(ready)
    }

    /// Looks which ones run already, unchanged, and which lie compiled in the cache. Blocks on the disk.
    fn sorted(&self, loaded: &Loaded) -> Result<Sorted, ConfigError> {
        let mut sorted = Sorted::default();
        let number = self.before.map_or(0, |before| before.number) + 1;
        for (name, config) in &loaded.config.plugins {
            let fault = |err| Fault::new(name, &err).place(loaded);
            if let Some(policy) = self.before.and_then(|before| before.policies.get(name)) {
                let same = policy.plugin.config() == config
                    && plugin::digest_of(&config.source).map_err(fault)? == policy.plugin.digest();
                if same {
                    sorted.ready.insert(name.clone(), policy.clone());
                    continue;
                }
            }
            match self.sandbox(loaded)?.ready(name, config).map_err(fault)? {
                Some(plugin) => sorted.ready.insert(name.clone(), Policy::new(plugin, number)).map(drop),
                None => sorted.missing.insert(name.clone(), config.clone()).map(drop),
            };
        }
        Ok(sorted)
    }

    fn sandbox(&self, loaded: &Loaded) -> Result<&Sandbox, ConfigError> {
        if let Some(sandbox) = self.sandbox.get() {
            return Ok(sandbox);
        }
        let made = policies::sandbox(&loaded.config.runtime, self.services.clone());
        let made = made.map_err(|fault| fault.place(loaded))?;
        Ok(self.sandbox.get_or_init(|| made))
    }
}

impl Policy {
    fn new(plugin: Arc<Plugin>, generation: u64) -> Self {
        Self { plugin, generation, loaded: Timestamp::now() }
    }
}
