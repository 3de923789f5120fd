//! What is on the control socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | `{"ok": true}` |
//! | `GET /status` | version, process, listeners, policies, queue |
//! | `POST /reload` | `Reloaded`; 422 with what is wrong, and nothing has changed; 409 if others wait already |
//! | `GET /plugins` | the policies with what was counted of them |
//! | `POST /queue/list` with a `Filter` | `Listed` |
//! | `GET /queue/ID` | `Shown` |
//! | `GET /kv` | the store: namespaces with what they hold |
//! | `POST /kv/list`, `get`, `delete` with a `Keys` | `KeyList`, `Value`, `Deleted` |
//! | `POST /queue/flush`, `hold`, `release`, `delete`, `bounce` with an `Order` | `Acted` |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hyper::Method;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};

use super::memory;
use super::queue::{self, Act, MAX_IDS, Order, QueueFacts};
use crate::generation::{Generations, Policy, ReloadError};
use crate::kv;
use crate::mail::{Domain, QueueId};
use crate::queue::{AdminError, Queue};
use crate::{listener, plugin};

/// What the control socket shows and steers.
pub struct House {
    /// How this host names itself.
    pub hostname: Domain,
    /// When it was started.
    pub started: (jiff::Timestamp, Instant),
    /// Where each listener listens, in the config's order.
    pub addresses: Vec<String>,
    /// The queue.
    pub queue: Queue,
    /// What policies remember.
    pub kv: Arc<dyn kv::Store>,
    /// What is in force.
    pub generations: Arc<Generations>,
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
    /// What is in force.
    pub generation: GenerationFacts,
    /// Who is served where.
    pub listeners: Vec<ListenerFacts>,
    /// The queue.
    pub queue: QueueFacts,
    /// The policies by name.
    pub plugins: BTreeMap<String, PluginFacts>,
}

/// The generation in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GenerationFacts {
    /// 1 at the start, one more with each reload that changed something.
    pub number: u64,
    /// When it came into force.
    pub loaded: jiff::Timestamp,
    /// Those before it that some session still goes by.
    pub old: Vec<u64>,
}

/// A policy in `wasmta plugin list`.
#[derive(Debug, Clone, Serialize)]
struct ListedPlugin {
    #[serde(flatten)]
    plugin: plugin::Listed,
    /// The generation that it came with.
    generation: u64,
    /// When that was.
    loaded: jiff::Timestamp,
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
    pub(super) fn json(value: &impl Serialize) -> Self {
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

/// A request, read whole.
pub(super) struct Question {
    pub method: Method,
    pub path: String,
    pub body: Bytes,
}

/// Finds and gives the answer.
pub(super) async fn answer(house: &Arc<House>, question: &Question) -> Answer {
    let parts: Vec<&str> = question.path.trim_matches('/').split('/').take(8).collect();
    match (question.method.as_str(), parts.as_slice()) {
        ("GET", ["healthz"]) => Answer::json(&serde_json::json!({"ok": true})),
        ("GET", ["status"]) => {
            let house = Arc::clone(house);
            blocking(move || Answer::json(&status(&house))).await
        }
        ("GET", ["plugins"]) => Answer::json(&plugins(house)),
        ("POST", ["reload"]) => reload(house).await,
        ("GET", ["kv"]) => memory::stats(&*house.kv).await,
        ("POST", ["kv", act]) => memory::act(&*house.kv, act, &question.body).await,
        ("GET", ["queue", id]) => show(house, id).await,
        ("POST", ["queue", "list"]) => list(house, &question.body).await,
        ("POST", ["queue", act]) => act_on(house, act, &question.body).await,
        (method, ["healthz" | "status" | "plugins" | "reload" | "kv"] | ["queue" | "kv", _]) => {
            Answer::wrong(405, format!("{method} cannot be done to {}", question.path))
        }
        _ => Answer::wrong(404, format!("there is no {}", question.path)),
    }
}

/// Runs what reads the disk beside the threads that serve mail.
async fn blocking(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|err| Answer::wrong(500, err.to_string()))
}

async fn list(house: &Arc<House>, body: &[u8]) -> Answer {
    match serde_json::from_slice(body) {
        Ok(filter) => {
            let queue = house.queue.clone();
            blocking(move || Answer::json(&queue::list(&queue, &filter))).await
        }
        Err(err) => Answer::wrong(400, format!("no filter: {err}")),
    }
}

async fn show(house: &Arc<House>, id: &str) -> Answer {
    let id: QueueId = match id.parse() {
        Ok(id) => id,
        Err(err) => return Answer::wrong(400, format!("{err}")),
    };
    let queue = house.queue.clone();
    blocking(move || match queue::show(&queue, id) {
        Ok(shown) => Answer::json(&shown),
        Err(err @ AdminError::NoSuchMessage(_)) => Answer::wrong(404, err.to_string()),
        Err(err) => Answer::wrong(500, format!("{id}: {err}")),
    })
    .await
}

async fn act_on(house: &Arc<House>, act: &str, body: &[u8]) -> Answer {
    let Some(act) = Act::named(act) else {
        return Answer::wrong(404, format!("`{act}` is nothing that can be done to messages"));
    };
    let order: Order = match serde_json::from_slice(body) {
        Ok(order) => order,
        Err(err) => return Answer::wrong(400, format!("no order with a filter: {err}")),
    };
    if order.filter.ids.len() > MAX_IDS {
        return Answer::wrong(400, format!("name at most {MAX_IDS} ids at a time"));
    }
    let queue = house.queue.clone();
    blocking(move || {
        let acted = queue::act(&queue, act, order);
        tracing::info!(act = act.as_str(), messages = acted.done, "queue: by the operator");
        Answer::json(&acted)
    })
    .await
}

async fn reload(house: &House) -> Answer {
    match house.generations.reload(&house.queue).await {
        Ok(reloaded) => Answer::json(&reloaded),
        Err(err @ ReloadError::Busy) => Answer::wrong(409, err.to_string()),
        Err(err) => Answer::wrong(422, err.to_string()),
    }
}

fn plugins(house: &House) -> Vec<ListedPlugin> {
    let listed = |policy: &Policy| ListedPlugin {
        plugin: policy.plugin.listed(),
        generation: policy.generation,
        loaded: policy.loaded,
    };
    house.generations.now().policies.values().map(listed).collect()
}

fn status(house: &House) -> Status {
    let (started, clock) = house.started;
    let now = house.generations.now();
    let counted = |(name, policy): (&String, &Policy)| {
        let counters = policy.plugin.listed().counters;
        (name.clone(), PluginFacts { calls: counters.calls, failures: counters.failures })
    };
    let listener = |(config, address): (&listener::Config, &String)| ListenerFacts {
        name: config.name.clone(),
        address: address.clone(),
        chain: config.chain.clone(),
    };
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        hostname: house.hostname.to_string(),
        started,
        uptime_secs: clock.elapsed().as_secs(),
        generation: GenerationFacts { number: now.number, loaded: now.loaded, old: house.generations.old() },
        listeners: now.config.listeners.iter().zip(&house.addresses).map(listener).collect(),
        queue: queue::facts(&house.queue),
        plugins: now.policies.iter().map(counted).collect(),
    }
}
