//! What policies remember, over the control socket: what is asked, what is answered.

use serde::{Deserialize, Serialize};

use super::route::Answer;
use crate::kv::{Error, Listed, MAX_LISTED, Space, Store};

/// Some keys of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Whose.
    pub space: String,
    /// This one.
    #[serde(default)]
    pub key: Option<String>,
    /// Those that begin so; of all if this is empty.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Those that come after this one.
    #[serde(default)]
    pub after: Option<String>,
    /// How many at most, and not more than 1,000.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// The answer to `POST /kv/list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// In the order of their octets.
    pub keys: Vec<Listed>,
    /// Whether there may be more: ask with the last one as `after`.
    pub more: bool,
}

/// The answer to `POST /kv/get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The key.
    pub key: String,
    /// The value if it is UTF-8.
    pub text: Option<String>,
    /// Its octets, in hexadecimal digits.
    pub hex: String,
}

/// The answer to `POST /kv/delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// How many.
    pub deleted: usize,
    /// Whether there may be more with this prefix: ask again.
    pub more: bool,
}

pub(super) async fn stats(store: &dyn Store) -> Answer {
    match store.stats().await {
        Ok(stats) => Answer::json(&stats),
        Err(err) => failed(&err),
    }
}

pub(super) async fn act(store: &dyn Store, act: &str, body: &[u8]) -> Answer {
    let keys: Keys = match serde_json::from_slice(body) {
        Ok(keys) => keys,
        Err(err) => return Answer::wrong(400, format!("no keys: {err}")),
    };
    let space = Space::named(&keys.space);
    let answer = match act {
        "list" => list(store, &space, keys).await,
        "get" => get(store, &space, keys).await,
        "delete" => delete(store, &space, keys).await,
        _ => return Answer::wrong(404, format!("`{act}` is nothing that can be done to keys")),
    };
    answer.unwrap_or_else(|err| failed(&err))
}

fn failed(err: &Error) -> Answer {
    let status = if matches!(err, Error::Failed(_)) { 503 } else { 400 };
    Answer::wrong(status, err.to_string())
}

async fn list(store: &dyn Store, space: &Space, keys: Keys) -> Result<Answer, Error> {
    let limit = keys.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED);
    let keys = store.list(space, keys.prefix.unwrap_or_default(), keys.after, limit).await?;
    let more = keys.len() == limit;
    Ok(Answer::json(&KeyList { keys, more }))
}

async fn get(store: &dyn Store, space: &Space, keys: Keys) -> Result<Answer, Error> {
    let Some(key) = keys.key else { return Ok(Answer::wrong(400, "say which `key`")) };
    let Some(value) = store.get(space, key.clone()).await? else {
        return Ok(Answer::wrong(404, format!("{} keeps no such key", space.name())));
    };
    let hex = value.iter().map(|octet| format!("{octet:02x}")).collect();
    Ok(Answer::json(&Value { key, text: String::from_utf8(value).ok(), hex }))
}

async fn delete(store: &dyn Store, space: &Space, keys: Keys) -> Result<Answer, Error> {
    let (deleted, more) = match (keys.key, keys.prefix) {
        (Some(key), None) => (usize::from(store.delete(space, key).await?), false),
        (None, Some(prefix)) => {
            let deleted = store.delete_prefix(space, prefix).await?;
            (deleted, deleted == MAX_LISTED)
        }
        _ => return Ok(Answer::wrong(400, "say which `key`, or a `prefix`")),
    };
    tracing::info!(space = space.name(), keys = deleted, "kv: deleted by the operator");
    Ok(Answer::json(&Deleted { deleted, more }))
}
