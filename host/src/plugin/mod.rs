//! The sandbox: policies are WebAssembly components, and each call of a hook runs in a fresh instance with limits on everything.
//!
//! `load` makes a policy ready, `run` is one call, `import` is what a guest may call, `resource` what it may look at,
//! `services` what those calls stand on, `cache` keeps compiled policies, `stats` counts.
//!
//! Architecture invariant: the only room that names wasmtime. No plugin can do more to a session than its verdict says: a trap, a
//! hang or a full memory is that plugin's failure and counts as its `on-error`.

pub mod bench;
mod bindings;
mod cache;
mod call;
pub mod config;
mod context;
mod digest;
mod engine;
mod import;
mod load;
mod mime;
mod resource;
mod run;
mod services;
mod staged;
mod stats;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

pub use config::{Config, Mode, Pin, Runtime, is_plain_name};
pub use digest::{Digest, NoDigest};
pub use load::{Inspection, LoadError, MAX_COMPONENT, Manifest};
pub use run::{Plugin, Subject, Transaction};
pub use services::Services;
pub use staged::Staged;
pub use stats::Snapshot as Counters;

use cache::Cache;
use context::Identity;
use engine::Engines;
use stats::Stats;

use crate::net::{self, Endpoint, EndpointError};
use crate::policy::{Call, Decision, Mail, Opinion, Scoring, Session, Stage, Symbol, Tally, Verdict, apply};

/// Engines and cache, from which generations of policies are made.
pub struct Sandbox {
    engines: Arc<Engines>,
    cache: Cache,
    services: Services,
}

/// Why the sandbox itself cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Address space for so many instances is not to be had.
    #[error("cannot reserve {instances} instances: {why}; lower `instances` or `slot-memory` in [runtime]")]
    Engine {
        /// How many were asked for.
        instances: u32,
        /// What the system said.
        why: String,
    },
    /// The directory for compiled policies cannot be used.
    #[error("cache-dir {0}")]
    Cache(String),
}

impl Sandbox {
    /// Reserves the instances and opens the cache.
    pub fn new(runtime: &Runtime, services: Services) -> Result<Self, SandboxError> {
        let engines = Engines::new(runtime)
            .map_err(|err| SandboxError::Engine { instances: runtime.instances, why: format!("{err:#}") })?;
        let dir = runtime.cache_dir.as_path();
        let cache = Cache::open(dir).map_err(|err| SandboxError::Cache(format!("{}: {err}", dir.display())))?;
        Ok(Self { engines: Arc::new(engines), cache, services })
    }

    /// Loads one policy under the name that the config gives it; compiles it if it is not in the cache. Compiling takes seconds and more
    /// memory than serving mail ever does.
    pub async fn load(&self, name: &str, config: &Config) -> Result<Arc<Plugin>, LoadError> {
        if let Some(kv) = self.kv_of(config) {
            let opened = tokio::task::spawn_blocking(move || kv.open()).await;
            opened
                .map_err(|err| LoadError::Store(err.to_string()))?
                .map_err(|err| LoadError::Store(err.to_string()))?;
        }
        let identity = self.identity(name, config)?;
        let loaded = load::load(&self.engines, &self.cache, &identity, config).await?;
        load::check_symbols(config, &loaded.manifest)?;
        Ok(Arc::new(Plugin::new(identity, config.clone(), loaded, Arc::clone(&self.engines))))
    }

    /// Loads one policy that lies compiled in the cache; none if it does not. Blocks on the disk, for milliseconds.
    pub fn ready(&self, name: &str, config: &Config) -> Result<Option<Arc<Plugin>>, LoadError> {
        let loaded = load::ready(&self.engines, &self.cache, config)?;
        let Some(loaded) = loaded else { return Ok(None) };
        load::check_symbols(config, &loaded.manifest)?;
        if let Some(kv) = self.kv_of(config) {
            kv.open().map_err(|err| LoadError::Store(err.to_string()))?;
        }
        let identity = self.identity(name, config)?;
        Ok(Some(Arc::new(Plugin::new(identity, config.clone(), loaded, Arc::clone(&self.engines)))))
    }

    /// Where it keeps what it remembers, if it may.
    fn kv_of(&self, config: &Config) -> Option<Arc<dyn crate::kv::Store>> {
        self.services.kv.clone().filter(|_| config.grants.iter().any(|grant| grant == "kv"))
    }

    fn identity(&self, name: &str, config: &Config) -> Result<Arc<Identity>, LoadError> {
        let endpoint = |(name, config): (&String, &net::EndpointConfig)| match Endpoint::new(config) {
            Ok(endpoint) => Ok((name.clone(), endpoint)),
            Err(EndpointError { key, why }) => Err(LoadError::Endpoint { name: name.clone(), key, why }),
        };
        let endpoints = config.endpoints.iter().map(endpoint).collect::<Result<_, _>>()?;
        Ok(Arc::new(Identity {
            name: name.to_owned(),
            memory: config.memory.as_usize(),
            services: self.services.clone(),
            space: config.space(name),
            endpoints,
            stats: Stats::default(),
        }))
    }

    /// What a file says of itself.
    pub async fn inspect(&self, config: &Config) -> Result<Inspection, LoadError> {
        load::inspect(&self.engines, config).await
    }
}

/// One plugin in `wasmta plugin list`.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Its name in the config.
    pub name: String,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Stages at which it is asked.
    pub hooks: Vec<&'static str>,
    /// `enforce` or `shadow`.
    pub mode: Mode,
    /// Whether calls begin in a snapshot; if not, each call configures anew.
    pub snapshot: bool,
    /// What was counted since it was loaded.
    pub counters: Counters,
}

/// The digest of a component's file. Blocks on the disk.
pub fn digest_of(file: &Path) -> Result<Digest, LoadError> {
    load::digest(file)
}

impl Plugin {
    /// What it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.loaded.manifest
    }

    /// Of the file it was loaded from.
    pub fn digest(&self) -> Digest {
        self.loaded.digest
    }

    /// For the operator.
    pub fn listed(&self) -> Listed {
        let hooks = Stage::ALL.iter().filter(|stage| self.loaded.hooks.has(**stage)).map(|stage| stage.as_str());
        Listed {
            name: self.name().to_owned(),
            manifest: self.loaded.manifest.clone(),
            hooks: hooks.collect(),
            mode: self.config.mode,
            snapshot: self.loaded.snapshot,
            counters: self.identity.stats.snapshot(),
        }
    }
}

/// The policies of one listener, in order, and what the operator makes of their points.
#[derive(Clone, Default)]
pub struct Chain {
    plugins: Arc<[Arc<Plugin>]>,
    scoring: Arc<Scoring>,
}

/// What the chain says at one stage.
#[derive(Debug)]
pub struct Judged {
    /// Who decided; none if nobody objected.
    pub plugin: Option<String>,
    /// What. Never `Accept`, `DeferIfPermit` or `Delay`.
    pub verdict: Verdict,
    /// How long the client waits before it hears of it.
    pub delay: std::time::Duration,
    /// Changes of the envelope that a stage before the message asked for.
    pub edits: Vec<crate::policy::Edit>,
    /// Points of the transaction so far, this stage included.
    pub score: f64,
    /// What was noticed at this stage, and by whom.
    pub symbols: Vec<(String, Symbol)>,
    /// What each call was like.
    pub calls: Vec<Call>,
    /// What the policies want kept if the message gets into the queue.
    pub staged: Staged,
}

impl Chain {
    /// In the order in which they are asked.
    pub fn new(plugins: Vec<Arc<Plugin>>) -> Self {
        Self { plugins: plugins.into(), scoring: Arc::default() }
    }

    /// With what the operator makes of points.
    #[must_use]
    pub fn with_scoring(self, scoring: Arc<Scoring>) -> Self {
        Self { scoring, ..self }
    }

    /// The stages at which anybody is asked.
    pub fn stages(&self) -> impl Iterator<Item = Stage> {
        Stage::ALL.into_iter().filter(|stage| self.plugins.iter().any(|plugin| plugin.loaded.hooks.has(*stage)))
    }

    /// Its plugins.
    pub fn plugins(&self) -> &[Arc<Plugin>] {
        &self.plugins
    }

    /// Asks the policies of a stage before the message. `tally` has the points of those before it.
    pub async fn judge(&self, session: &Arc<Session>, subject: Subject, tally: &Tally) -> Judged {
        let (stage, mut edits) = (subject.stage(), Vec::new());
        let heard = self.ask(session, subject, tally.before(stage), |_, own| {
            edits.extend(own);
            Ok(())
        });
        let mut judged = judged(heard.await, tally.before(stage), edits);
        if stage == Stage::Rcpt && !judged.verdict.ends() {
            judged.scored(self.scoring.judge_recipient(judged.score));
        }
        judged
    }

    /// Asks the policies about a message; each sees the edits of those before it. `tally` has the points of the stages before.
    pub async fn judge_message(&self, session: &Arc<Session>, mail: &mut Mail, tally: &Tally) -> Judged {
        let subject = Subject::Message(mail.clone());
        let before = tally.before(Stage::Message);
        let heard = self.ask(session, subject, before, |subject, own| {
            if own.is_empty() {
                return Ok(());
            }
            let mut edited = mail.clone();
            apply(&mut edited, own).map_err(|err| run::Failure::Verdict(err.to_string()))?;
            *mail = edited;
            *subject = Subject::Message(mail.clone());
            Ok(())
        });
        let mut judged = judged(heard.await, before, Vec::new());
        if !judged.verdict.ends() {
            let mut all = tally.clone();
            all.note(Stage::Message, &judged.symbols);
            match self.scoring.judge_message(&all, mail) {
                Ok(verdict) => judged.scored(verdict),
                Err(err) => tracing::error!(session = session.id, "not marked: {err}"),
            }
        }
        judged
    }

    async fn ask(
        &self,
        session: &Arc<Session>,
        mut subject: Subject,
        points: f64,
        mut take: impl FnMut(&mut Subject, Vec<crate::policy::Edit>) -> Result<(), run::Failure>,
    ) -> Heard {
        let stage = subject.stage();
        let Heard { mut decision, mut calls, mut staged } = Heard::default();
        for plugin in self.plugins.iter().filter(|plugin| plugin.loaded.hooks.has(stage)) {
            let (mut result, mut call) = plugin.run(session, subject.clone(), points + decision.score()).await;
            if !plugin.enforced() {
                // Its keys are its own: nobody in force sees them.
                staged.extend(result.as_mut().map(|product| std::mem::take(&mut product.staged)).unwrap_or_default());
                shadow(plugin, session, stage, &result);
                calls.push(call);
                continue;
            }
            let taken = result.and_then(|mut product| {
                take(&mut subject, std::mem::take(&mut product.edits))?;
                Ok(product)
            });
            let opinion = match taken {
                Ok(product) => {
                    staged.extend(product.staged);
                    let plugin = plugin.name().to_owned();
                    Opinion { plugin, verdict: product.verdict, symbols: product.symbols }
                }
                Err(failure) => {
                    let on_error = plugin.config.on_error;
                    // That it is paused was said once, when the pause began.
                    if failure != run::Failure::Paused {
                        tracing::warn!(plugin = plugin.name(), session = session.id, %stage, ?on_error, "plugin {failure}");
                    }
                    let verdict = match on_error.verdict(plugin.name()) {
                        // Before there is a message there is nothing to keep for the operator: the client comes back.
                        Verdict::Quarantine(_) if matches!(stage, Stage::Connect | Stage::Helo) => Verdict::Pass,
                        verdict => verdict,
                    };
                    call.verdict = Err(failure.to_string());
                    call.edits.clear();
                    call.instead = Some(verdict.clone());
                    Opinion { plugin: plugin.name().to_owned(), verdict, symbols: Vec::new() }
                }
            };
            calls.push(call);
            if !decision.add(opinion) {
                break;
            }
        }
        Heard { decision, calls, staged }
    }
}

/// What the policies of one stage brought forth together.
#[derive(Default)]
struct Heard {
    decision: Decision,
    calls: Vec<Call>,
    staged: Staged,
}

/// Logs what a plugin in shadow mode would have done.
fn shadow(plugin: &Plugin, session: &Session, stage: Stage, result: &Result<run::Product, run::Failure>) {
    let (plugin, session) = (plugin.name(), session.id.as_str());
    match result {
        Ok(product) => {
            let (edits, symbols) = (product.edits.len(), product.symbols.len());
            tracing::info!(plugin, session, %stage, verdict = ?product.verdict, edits, symbols, "shadow");
        }
        Err(failure) => tracing::warn!(plugin, session, %stage, "shadow: plugin {failure}"),
    }
}

fn judged(heard: Heard, before: f64, edits: Vec<crate::policy::Edit>) -> Judged {
    let Heard { decision, calls, staged } = heard;
    let (delay, score, symbols) = (decision.delay(), before + decision.score(), decision.symbols().to_vec());
    let (plugin, verdict) = decision.outcome();
    Judged { plugin, verdict, delay, edits, score, symbols, calls, staged }
}

impl Judged {
    /// What the points say stands in place of a milder verdict.
    fn scored(&mut self, verdict: Option<Verdict>) {
        match verdict {
            // Kept for the operator it is anyway, for a policy's own reason.
            None | Some(Verdict::Quarantine(_)) if matches!(self.verdict, Verdict::Quarantine(_)) => {}
            None => {}
            Some(verdict) => (self.plugin, self.verdict) = (Some("score".into()), verdict),
        }
    }
}
