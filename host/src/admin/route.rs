//! What is on the control socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | `{"ok": true}` |
//! | `GET /status` | version, process, listeners, policies, queue |
//! | `GET /plugins` | the policies with what was counted of them |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::mail::Domain;
use crate::plugin::Plugin;

/// What the control socket shows and steers.
pub struct House {
    /// How this host names itself.
    pub hostname: Domain,
    /// When it was started.
    pub started: (jiff::Timestamp, Instant),
    /// Who is served where.
    pub listeners: Vec<ListenerFacts>,
    /// All policies.
    pub plugins: Vec<Arc<Plugin>>,
}

/// One listener in `wasmta status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerFacts {
    /// Its name.
    pub name: String,
    /// Where it listens; with the port that was given to it if the config says 0.
    pub address: String,
    /// Who judges there.
    pub chain: Vec<String>,
}

/// `GET /status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Of wasmta.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// How this host names itself.
    pub hostname: String,
    /// When it was started.
    pub started: jiff::Timestamp,
    /// How long ago that was.
    pub uptime_secs: u64,
    /// Who is served where.
    pub listeners: Vec<ListenerFacts>,
    /// The policies by name.
    pub plugins: BTreeMap<String, PluginFacts>,
}

/// One policy in `wasmta status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PluginFacts {
    /// Calls of its hooks.
    pub calls: u64,
    /// Those that trapped or took too long.
    pub failures: u64,
}

/// The body of an answer that is no success.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wrong {
    pub error: String,
}

/// An answer before it becomes HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub kind: &'static str,
    /// The content.
    pub body: Vec<u8>,
}

impl Answer {
    fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self { status: 200, kind: "application/json", body },
            Err(err) => Self::wrong(500, err.to_string()),
        }
    }

    /// Tells what is wrong.
    pub(super) fn wrong(status: u16, error: impl Into<String>) -> Self {
        let body = serde_json::to_vec(&Wrong { error: error.into() }).unwrap_or_default();
        Self { status, kind: "application/json", body }
    }
}

/// Finds and gives the answer.
pub(super) async fn answer(house: &House, method: &Method, path: &str, _query: &str) -> Answer {
    let parts: Vec<&str> = path.trim_matches('/').split('/').take(8).collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["healthz"]) => Answer::json(&serde_json::json!({"ok": true})),
        ("GET", ["status"]) => Answer::json(&status(house)),
        ("GET", ["plugins"]) => Answer::json(&house.plugins.iter().map(|plugin| plugin.listed()).collect::<Vec<_>>()),
        (_, ["healthz" | "status" | "plugins"]) => Answer::wrong(405, format!("{method} cannot be done to {path}")),
        _ => Answer::wrong(404, format!("there is no {path}")),
    }
}

fn status(house: &House) -> Status {
    let (started, clock) = house.started;
    let counted = |plugin: &Arc<Plugin>| {
        let counters = plugin.listed().counters;
        (plugin.name().to_owned(), PluginFacts { calls: counters.calls, failures: counters.failures })
    };
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        hostname: house.hostname.to_string(),
        started,
        uptime_secs: clock.elapsed().as_secs(),
        listeners: house.listeners.clone(),
        plugins: house.plugins.iter().map(counted).collect(),
    }
}
