//! A small store of keys and values that lasts: what policies remember, by namespace.
//!
//! `Store` is what the rest of the house sees. `embedded` keeps it in files of its own, `memory` forgets it with the process (trials,
//! tests); both do what `change` decides. Values can have an end, namespaces have a quota, numbers are added to in one step.
//!
//! Architecture invariant: nothing in here knows of plugins or mail, and no failure in here ends the process: it is an `Error` for whoever
//! asked.

mod change;
mod config;
mod embedded;
mod memory;
mod usage;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use config::Config;
pub use embedded::{Clock, Embedded};
pub use memory::Memory;

/// Octets of a key.
pub const MAX_KEY: usize = 512;
/// Octets of a value.
pub const MAX_VALUE: usize = 64 * 1024;
/// Keys of one answer.
pub const MAX_LISTED: usize = 1000;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The namespace holds as much as it may.
    #[error("the quota is used up")]
    Quota,
    /// A key or value of a length that cannot be.
    #[error("a key has 1 to {MAX_KEY} octets, a value at most {MAX_VALUE}")]
    TooLarge,
    /// What is to be added to is no number, or the sum would have more than 64 bits.
    #[error("the value is no number of 64 bits, or would be none")]
    NotANumber,
    /// The store failed; this is for the log.
    #[error("{0}")]
    Failed(String),
}

/// Why a store cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// How much a namespace may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Octets of its keys and values.
    pub octets: u64,
    /// Keys.
    pub keys: u64,
}

/// Whose keys: nobody reaches those of another. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    name: Arc<str>,
    quota: Quota,
}

impl Space {
    /// The namespace `name`, of up to 255 octets.
    pub fn new(name: &str, quota: Quota) -> Self {
        Self { name: name.into(), quota }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same namespace as somebody sees it who changes nothing.
    pub fn named(name: &str) -> Self {
        Self::new(name, Quota { octets: 0, keys: 0 })
    }
}

/// A value to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Under which key.
    pub key: String,
    /// What.
    pub value: Vec<u8>,
    /// For how long; without one, until it is deleted. Zero: its time is up at once, and so is that of the value before it.
    pub ttl: Option<Duration>,
}

/// A key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The key.
    pub key: String,
    /// Octets of its value.
    pub size: u64,
    /// When its time is up, in milliseconds since 1970-01-01 UTC.
    pub expires: Option<u64>,
}

/// What a namespace holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceUsage {
    /// Its name.
    pub name: String,
    /// Octets of keys and values, those included whose time is up and which are not removed yet.
    pub octets: u64,
    /// Keys, likewise.
    pub keys: u64,
}

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// By namespace.
    pub spaces: Vec<SpaceUsage>,
    /// Octets of its files.
    pub disk: u64,
    /// Whether all there is has been counted; after a start that takes a moment.
    pub counted: bool,
    /// What was not done because the store failed.
    pub failures: u64,
}

/// What a store answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A store of keys and values. What an answer says has been done stays done when the process ends in whatever way.
pub trait Store: Send + Sync {
    /// Makes it ready; once is enough. May wait for the disk.
    fn open(&self) -> Result<(), OpenError>;
    /// Ends it in good order: what was written is on the disk when this returns. May wait for the disk.
    fn close(&self);
    /// The value, if there is one and its time is not up.
    fn get(&self, space: &Space, key: String) -> Answer<'_, Option<Vec<u8>>>;
    /// Keeps a value.
    fn put(&self, space: &Space, put: Put) -> Answer<'_, ()>;
    /// Keeps several, of whatever namespaces. Each is tried; the first error is told.
    fn put_all(&self, puts: Vec<(Space, Put)>) -> Answer<'_, ()>;
    /// Removes a value; whether there was one.
    fn delete(&self, space: &Space, key: String) -> Answer<'_, bool>;
    /// Removes up to [`MAX_LISTED`] values whose keys begin so; how many. Fewer: there are no more.
    fn delete_prefix(&self, space: &Space, prefix: String) -> Answer<'_, usize>;
    /// Adds to a number, in decimal digits; none counts as 0. One that is made by this gets `ttl`, one that is there keeps its end. In
    /// one step: of two who add, both count.
    fn incr(&self, space: &Space, key: String, by: i64, ttl: Option<Duration>) -> Answer<'_, i64>;
    /// Keeps the value if what is there is `expected` (none: nothing); whether it did. In one step.
    fn compare_and_swap(&self, space: &Space, expected: Option<Vec<u8>>, new: Put) -> Answer<'_, bool>;
    /// Up to `limit` (and [`MAX_LISTED`]) keys that begin with `prefix` and come after `after`, in the order of their octets.
    fn list(&self, space: &Space, prefix: String, after: Option<String>, limit: usize) -> Answer<'_, Vec<Listed>>;
    /// What it holds.
    fn stats(&self) -> Answer<'_, Stats>;
}

#[cfg(test)]
mod tests;
