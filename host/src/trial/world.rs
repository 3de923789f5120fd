//! What stands around the policy: the sandbox, a clock that only the scenario moves, a store in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{Scenario, TrialError};
use crate::kv::{self, Memory, Space, Store as _};
use crate::mail::QueueId;
use crate::plugin::{Config, LoadError, Plugin, Runtime, Sandbox, Services, is_plain_name};

/// When the clock begins: 2026-01-01T00:00:00Z, so that what a policy makes of the time is the same in every run.
const BEGIN: u64 = 1_767_225_600_000;

/// A policy and what it can reach.
pub struct World {
    pub(super) name: String,
    config: Config,
    sandbox: Sandbox,
    store: Arc<Memory>,
    clock: Arc<AtomicU64>,
    loaded: Option<(Value, Arc<Plugin>)>,
    mails: u64,
}

impl World {
    /// Around the component `file`. Its compiled form is kept in `cache`.
    pub fn new(file: &Path, scenario: &Scenario, cache: &Path) -> Result<Self, TrialError> {
        let mut config = Config::new(file);
        let all = || ["kv", "dns", "net"].map(String::from).to_vec();
        config.grants = scenario.grants.clone().unwrap_or_else(all);
        config.settings = scenario.settings.clone().unwrap_or(config.settings);
        config.timeout = scenario.timeout.unwrap_or(config.timeout);
        config.memory = scenario.memory.unwrap_or(config.memory);
        let clock = Arc::new(AtomicU64::new(BEGIN));
        let now = Arc::clone(&clock);
        let now: kv::Clock = Arc::new(move || now.load(Ordering::Relaxed));
        let store = Arc::new(Memory::with_clock(Arc::clone(&now)));
        let services = Services {
            server_name: "mx.example.test".into(),
            kv: Some(Arc::clone(&store) as Arc<dyn kv::Store>),
            clock: Some(now),
            ..Services::default()
        };
        let slot_memory = Runtime::default().slot_memory.max(config.memory);
        let runtime =
            Runtime { cache_dir: cache.into(), instances: 4, warm_instances: 1, slot_memory, ..Runtime::default() };
        let sandbox = Sandbox::new(&runtime, services)?;
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let name = if is_plain_name(&stem) { stem } else { "policy".to_owned() };
        Ok(Self { name, config, sandbox, store, clock, loaded: None, mails: 0 })
    }

    /// The policy with these settings from now on; with those of before where there are none.
    pub(super) async fn policy(&mut self, settings: Option<&Value>) -> Result<Arc<Plugin>, LoadError> {
        if let Some(settings) = settings {
            self.config.settings = settings.clone();
        }
        match &self.loaded {
            Some((own, plugin)) if *own == self.config.settings => Ok(Arc::clone(plugin)),
            _ => {
                let plugin = self.sandbox.load(&self.name, &self.config).await?;
                self.loaded = Some((self.config.settings.clone(), Arc::clone(&plugin)));
                Ok(plugin)
            }
        }
    }

    /// Time goes by.
    pub(super) fn wait(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.clock.fetch_add(millis, Ordering::Relaxed);
    }

    /// Now.
    pub(super) fn now(&self) -> jiff::Zoned {
        let millis = i64::try_from(self.clock.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let now = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        now.to_zoned(jiff::tz::TimeZone::UTC)
    }

    /// The name of the next mail.
    pub(super) fn next_id(&mut self) -> QueueId {
        self.mails += 1;
        QueueId::from_u64(self.mails)
    }

    /// Keys and values of the policy.
    pub(super) async fn keys(&self) -> BTreeMap<String, String> {
        let space = Space::named(&self.name);
        let mut all = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.store.list(&space, String::new(), after.take(), kv::MAX_LISTED).await.unwrap_or_default();
            let Some(last) = page.last() else { return all };
            after = Some(last.key.clone());
            for listed in page {
                if let Ok(Some(value)) = self.store.get(&space, listed.key.clone()).await {
                    all.insert(listed.key, shown(&value));
                }
            }
        }
    }
}

/// A value as text, or as hexadecimal digits where it is none.
fn shown(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", value.iter().map(|octet| format!("{octet:02x}")).collect::<String>()),
    }
}
