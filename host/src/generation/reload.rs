//! A reload: the config is read again, all that it names is made ready, and if nothing is wrong with any of it, it comes into force.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore};

use super::apart::{Trouble, Work};
use super::change::{self, Change};
use super::policies::Fault;
use super::{Generation, Generations, Policies, Policy, Sorted};
use crate::config::{self, ConfigError, Loaded};
use crate::plugin::LoadError;
use crate::queue::Queue;

/// Reloads at one time: one at work, one that waits for it. What a third one wants the second one will do.
const MAX_RELOADS: usize = 2;
/// Changes that are logged of one reload.
const MAX_LOGGED: usize = 100;

/// What a reload did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloaded {
    /// The generation in force now.
    pub generation: u64,
    /// What is in force now and was not before; empty if nothing changed.
    pub changed: Vec<Change>,
    /// What the file says, but only a restart can change.
    pub restart: Vec<Change>,
    /// How long it took.
    pub took_ms: u64,
}

/// Why a reload changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The config, or a policy.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// There is no process that would compile.
    #[error("the policies cannot be compiled: {0}")]
    Compiler(String),
    /// Something in it does not come to an end.
    #[error("the policies were not compiled within {0:?} (reload-timeout in [server])")]
    Timeout(Duration),
    /// Too many at once.
    #[error("a reload is under way, and another one waits for it; wait for them")]
    Busy,
}

/// One after the other.
pub(super) struct Turn {
    places: Semaphore,
    turn: Mutex<()>,
}

impl Default for Turn {
    fn default() -> Self {
        Self { places: Semaphore::new(MAX_RELOADS), turn: Mutex::new(()) }
    }
}

impl Generations {
    /// Reads everything again and puts it into force, or says why not, and leaves everything as it is. Once begun it is brought to its
    /// end, whether somebody waits for the answer or not. The log has it as well.
    pub async fn reload(self: &Arc<Self>, queue: &Queue) -> Result<Reloaded, ReloadError> {
        let (own, queue) = (Arc::clone(self), queue.clone());
        let task = tokio::spawn(async move {
            let result = own.in_turn(queue).await;
            match &result {
                Ok(reloaded) => reloaded.log(),
                Err(err) => tracing::error!("not reloaded, everything stays as it was: {err}"),
            }
            result
        });
        task.await.unwrap_or_else(|err| Err(ReloadError::Compiler(err.to_string())))
    }

    async fn in_turn(self: Arc<Self>, queue: Queue) -> Result<Reloaded, ReloadError> {
        let own = Arc::clone(&self);
        let _place = own.reloads.places.try_acquire().map_err(|_| ReloadError::Busy)?;
        let _turn = own.reloads.turn.lock().await;
        let work = tokio::task::spawn_blocking(move || self.reload_now(&queue));
        work.await.unwrap_or_else(|err| Err(ReloadError::Compiler(err.to_string())))
    }

    fn reload_now(&self, queue: &Queue) -> Result<Reloaded, ReloadError> {
        let begun = Instant::now();
        let before = self.now();
        let config::Reloaded { loaded, wanted } = before.config.reload(&self.file)?;
        let next = self.next(&before, &loaded, begun + loaded.config.server.reload_timeout.as_std())?;
        let changed = changes(&before, &next);
        let restart = change::between(&next.config, &wanted);
        let generation = if changed.is_empty() { before.number } else { next.number };
        if !changed.is_empty() {
            let rerouted = routes_differ(&before, &next);
            self.put_in_force(next);
            if rerouted {
                queue.reroute();
            }
        }
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Reloaded { generation, changed, restart, took_ms })
    }

    /// The generation that a config makes after another one.
    fn next(&self, before: &Generation, loaded: &Loaded, deadline: Instant) -> Result<Generation, ReloadError> {
        let policies = Policies { sandbox: &self.sandbox, services: &self.services, before: Some(before) };
        let Sorted { mut ready, missing } = policies.sorted(loaded)?;
        if !missing.is_empty() {
            let limit = deadline.saturating_duration_since(Instant::now());
            let work = Work::new(&loaded.config, missing.clone());
            work.done_apart(limit).map_err(|trouble| match trouble {
                Trouble::Fault(fault) => ReloadError::Config(fault.place(loaded)),
                Trouble::Process(why) => ReloadError::Compiler(why),
                Trouble::Timeout => ReloadError::Timeout(loaded.config.server.reload_timeout.as_std()),
            })?;
        }
        for (name, config) in missing {
            let plugin = policies.sandbox(loaded)?.ready(&name, &config).and_then(|plugin| {
                let path = config.source.clone();
                let why = "it changed while it was being loaded; reload once more".into();
                plugin.ok_or(LoadError::File { path, why })
            });
            let plugin = plugin.map_err(|err| Fault::new(&name, &err).place(loaded))?;
            ready.insert(name, Policy::new(plugin, before.number + 1));
        }
        Ok(Generation::new(before.number + 1, loaded, ready)?)
    }
}

/// What differs: keys of the config, and components whose file is another one.
fn changes(before: &Generation, next: &Generation) -> Vec<Change> {
    let mut changes = change::between(&before.config, &next.config);
    if before.config.directory == next.config.directory && before.directory != next.directory {
        changes.push(Change::new("directory", "a file that it names has changed"));
    }
    for (name, policy) in &next.policies {
        let Some(old) = before.policies.get(name) else { continue };
        let (old, new) = (&old.plugin, &policy.plugin);
        if old.digest() == new.digest() {
            continue;
        }
        let told = |plugin: &crate::plugin::Plugin| {
            let digest: String = plugin.digest().hex().chars().take(12).collect();
            format!("{} ({digest})", plugin.manifest().version)
        };
        changes.push(Change::new(format!("plugin.{name}"), format!("version {} → {}", told(old), told(new))));
    }
    changes
}

/// Whether mail in the queue may have to go another way.
fn routes_differ(before: &Generation, next: &Generation) -> bool {
    before.directory != next.directory || before.config.delivery.relay_host != next.config.delivery.relay_host
}

impl Reloaded {
    fn log(&self) {
        let Self { generation, changed, restart, took_ms } = self;
        if changed.is_empty() {
            tracing::info!(generation, took_ms, "reload: nothing has changed");
        } else {
            tracing::info!(generation, took_ms, changes = changed.len(), "reloaded");
        }
        for Change { key, what } in changed.iter().take(MAX_LOGGED) {
            tracing::info!(generation, "reload: {key}: {what}");
        }
        for Change { key, what } in restart.iter().take(MAX_LOGGED) {
            tracing::warn!(generation, "reload: {key}: {what}: needs a restart, left as it was");
        }
    }
}
