//! How a policy is named, limited and set up: `[plugin.NAME]`, and `[runtime]` for all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::Digest;
use crate::kv::{Quota, Space};
use crate::net::EndpointConfig;
use crate::policy::OnError;
use crate::units::{ByteSize, Duration};

/// One policy, `[plugin.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The component's file; a relative name is taken from the directory of the config file. No default.
    pub source: PathBuf,
    /// `enforce` (default), or `shadow`: judged and logged, without effect.
    #[serde(default)]
    pub mode: Mode,
    /// What a trap, a timeout or a lack of instances counts as: `defer` (default; 451, nothing unjudged passes), `skip`, `reject` or
    /// `quarantine`.
    #[serde(default)]
    pub on_error: OnError,
    /// How long one call may take, host calls and the wait for an instance included. Default 2s.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// How long `configure` may take at load. Default 60s: compiling a large table of patterns takes a while.
    #[serde(default = "default_configure_timeout")]
    pub configure_timeout: Duration,
    /// How much memory one instance may have. Default 64 MiB; at most `slot-memory` of `[runtime]`.
    #[serde(default = "default_memory")]
    pub memory: ByteSize,
    /// How many calls of this plugin may run at once; more wait within their timeout. Default 200, so that one slow plugin leaves
    /// instances to the others.
    #[serde(default = "default_max_instances")]
    pub max_instances: u32,
    /// Imports beyond `log`, `metric`, `clock` and `score` that it may use: `kv`, `dns`, `net`. Default none.
    #[serde(default)]
    pub grants: Vec<String>,
    /// Octets of keys and values that it may keep in `kv`. Default 64 MiB.
    #[serde(default = "default_kv_quota")]
    pub kv_quota: ByteSize,
    /// Keys that it may keep in `kv`. Default 1000000.
    #[serde(default = "default_kv_keys")]
    pub kv_keys: u64,
    /// The services that it may connect to with the grant `net`, by the names under which it knows them. Default none.
    #[serde(default)]
    pub endpoints: BTreeMap<String, EndpointConfig>,
    /// Its settings, in its own words. `{ file = "NAME" }` anywhere in them gets the file's text added as `content`.
    #[serde(default = "default_settings", deserialize_with = "table")]
    pub settings: serde_json::Value,
    /// The operator's weights for its symbols, from `[score]`.
    #[serde(skip)]
    pub weights: BTreeMap<String, f64>,
    /// Which component the file must hold, if the lock file says so.
    #[serde(skip)]
    pub pin: Option<Pin>,
}

/// What the lock file says of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its digest.
    pub digest: Digest,
    /// What the operator does if the file has another.
    pub remedy: String,
}

/// Whether a text can be a plugin's name: 1 to 64 letters, digits, `-` and `_`.
pub fn is_plain_name(name: &str) -> bool {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

impl Config {
    /// With the defaults.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            mode: Mode::default(),
            on_error: OnError::default(),
            timeout: default_timeout(),
            configure_timeout: default_configure_timeout(),
            memory: default_memory(),
            max_instances: default_max_instances(),
            grants: Vec::new(),
            kv_quota: default_kv_quota(),
            kv_keys: default_kv_keys(),
            endpoints: BTreeMap::new(),
            settings: default_settings(),
            weights: BTreeMap::new(),
            pin: None,
        }
    }
}

impl Config {
    /// Where what it keeps in `kv` lies. In shadow mode apart from what it keeps in force.
    pub(super) fn space(&self, name: &str) -> Space {
        let quota = Quota { octets: self.kv_quota.as_u64(), keys: self.kv_keys };
        match self.mode {
            Mode::Enforce => Space::new(name, quota),
            Mode::Shadow => Space::new(&format!("{name}:shadow"), quota),
        }
    }
}

/// Whether a policy has effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its verdicts, edits and symbols count.
    #[default]
    Enforce,
    /// It is asked and what it says is logged, nothing more.
    Shadow,
}

fn default_timeout() -> Duration {
    Duration::from_secs(2)
}
fn default_configure_timeout() -> Duration {
    Duration::from_secs(60)
}
fn default_memory() -> ByteSize {
    ByteSize::from_mib(64)
}
fn default_max_instances() -> u32 {
    200
}
fn default_kv_quota() -> ByteSize {
    ByteSize::from_mib(64)
}
fn default_kv_keys() -> u64 {
    1_000_000
}
fn default_settings() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// What all policies share, `[runtime]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Runtime {
    /// Where compiled policies are kept; nobody but the MTA's user may write there. Default `cache` in the data directory.
    pub cache_dir: PathBuf,
    /// Where `wasmta plugin install` keeps components. Default `plugins` in the data directory.
    pub plugin_dir: PathBuf,
    /// How many instances may live at once, for all plugins together. Each reserves `slot-memory` of address space (not of memory).
    /// Default 1000.
    pub instances: u32,
    /// How many unused instances are kept prepared. More cost memory (some 100 KiB each), fewer cost time under load. Default 64.
    pub warm_instances: u32,
    /// The most memory that one instance can ever have. Default 64 MiB.
    pub slot_memory: ByteSize,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            cache_dir: PathBuf::from("cache"),
            plugin_dir: PathBuf::from("plugins"),
            instances: 1000,
            warm_instances: 64,
            slot_memory: ByteSize::from_mib(64),
        }
    }
}

/// A TOML table as JSON; dates become texts, as JSON has none.
pub(crate) fn table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<serde_json::Value, D::Error> {
    fn json(value: toml::Value) -> Result<serde_json::Value, String> {
        Ok(match value {
            toml::Value::String(text) => text.into(),
            toml::Value::Integer(number) => number.into(),
            toml::Value::Float(number) => serde_json::Number::from_f64(number)
                .ok_or("settings are handed on as JSON, which has no inf and no nan; write a number")?
                .into(),
            toml::Value::Boolean(truth) => truth.into(),
            toml::Value::Datetime(date) => date.to_string().into(),
            toml::Value::Array(items) => items.into_iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
            toml::Value::Table(items) => object(items)?.into(),
        })
    }
    fn object(items: toml::Table) -> Result<serde_json::Map<String, serde_json::Value>, String> {
        items.into_iter().map(|(key, item)| Ok((key, json(item)?))).collect()
    }
    let items = toml::Table::deserialize(deserializer)?;
    object(items).map(Into::into).map_err(serde::de::Error::custom)
}
