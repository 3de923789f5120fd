//! `kv`: what the plugin remembers, in its own namespace of the store.

use std::sync::Arc;
use std::time::Duration;

use super::super::bindings::wasmta::policy::kv::{Error, Host};
use super::super::context::{Context, Identity};
use crate::kv::{self, MAX_KEY, MAX_LISTED, MAX_VALUE, Put, Space, Store};
use crate::policy::Stage;

/// Uses in one call.
const MAX_USES: u32 = 10_000;
/// Values that one call may stage, and their octets.
const MAX_STAGED: usize = 1000;
const MAX_STAGED_OCTETS: usize = 4 << 20;

type Answer<T> = wasmtime::Result<Result<T, Error>>;

impl From<kv::Error> for Error {
    fn from(err: kv::Error) -> Self {
        match err {
            kv::Error::Quota => Self::Quota,
            kv::Error::TooLarge => Self::TooLarge,
            kv::Error::NotANumber => Self::NotANumber,
            kv::Error::Failed(why) => Self::Store(why),
        }
    }
}

/// The store, and whose keys.
struct Granted {
    identity: Arc<Identity>,
    store: Arc<dyn Store>,
}

impl Granted {
    fn space(&self) -> &Space {
        &self.identity.space
    }
}

impl Context {
    /// Counts the use. An error is a trap.
    fn kv(&mut self) -> Answer<Granted> {
        if self.stage.is_none() {
            wasmtime::bail!("kv cannot be used in describe or configure");
        }
        self.kv_uses = self.kv_uses.saturating_add(1);
        if self.kv_uses > MAX_USES {
            wasmtime::bail!("a call may use kv {MAX_USES} times");
        }
        let identity = Arc::clone(&self.identity);
        Ok(match identity.services.kv.clone() {
            Some(store) => Ok(Granted { identity, store }),
            None => Err(Error::NotGranted),
        })
    }

    async fn ask_kv<T, F>(&mut self, question: impl FnOnce(Granted) -> F) -> Answer<T>
    where
        F: Future<Output = Result<T, kv::Error>>,
    {
        match self.kv()? {
            Ok(granted) => Ok(question(granted).await.map_err(Error::from)),
            Err(err) => Ok(Err(err)),
        }
    }
}

fn put(key: String, value: Vec<u8>, ttl: Option<u32>) -> Put {
    Put { key, value, ttl: seconds(ttl) }
}

fn seconds(ttl: Option<u32>) -> Option<Duration> {
    ttl.map(|ttl| Duration::from_secs(ttl.into()))
}

impl Host for Context {
    async fn get(&mut self, key: String) -> Answer<Option<Vec<u8>>> {
        self.ask_kv(|own| async move { own.store.get(own.space(), key).await }).await
    }

    async fn put(&mut self, key: String, value: Vec<u8>, ttl: Option<u32>) -> Answer<()> {
        self.ask_kv(|own| async move { own.store.put(own.space(), put(key, value, ttl)).await }).await
    }

    async fn stage_put(&mut self, key: String, value: Vec<u8>, ttl: Option<u32>) -> Answer<()> {
        if let Err(err) = self.kv()? {
            return Ok(Err(err));
        }
        if matches!(self.stage, Some(Stage::Connect | Stage::Helo)) {
            return Ok(Err(Error::NoTransaction));
        }
        if !(1..=MAX_KEY).contains(&key.len()) || value.len() > MAX_VALUE {
            return Ok(Err(Error::TooLarge));
        }
        let octets = self.staged.iter().map(|put| put.key.len() + put.value.len()).sum::<usize>();
        if self.staged.len() >= MAX_STAGED || octets + key.len() + value.len() > MAX_STAGED_OCTETS {
            return Ok(Err(Error::Quota));
        }
        self.staged.push(put(key, value, ttl));
        Ok(Ok(()))
    }

    async fn delete(&mut self, key: String) -> Answer<()> {
        self.ask_kv(|own| async move { own.store.delete(own.space(), key).await.map(drop) }).await
    }

    async fn incr(&mut self, key: String, by: i64, ttl: Option<u32>) -> Answer<i64> {
        self.ask_kv(|own| async move { own.store.incr(own.space(), key, by, seconds(ttl)).await }).await
    }

    async fn compare_and_swap(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        new: Vec<u8>,
        ttl: Option<u32>,
    ) -> Answer<bool> {
        self.ask_kv(|own| async move { own.store.compare_and_swap(own.space(), expected, put(key, new, ttl)).await })
            .await
    }

    async fn keys(&mut self, prefix: String, after: Option<String>, limit: u32) -> Answer<Vec<String>> {
        let limit = usize::try_from(limit).unwrap_or(MAX_LISTED);
        self.ask_kv(|own| async move {
            let listed = own.store.list(own.space(), prefix, after, limit).await?;
            Ok(listed.into_iter().map(|listed| listed.key).collect())
        })
        .await
    }
}
