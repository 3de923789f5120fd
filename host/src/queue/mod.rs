//! Durability: mail that was acknowledged is delivered or bounced, whatever dies in between.
//!
//! - `store` says what is kept, `spool` keeps it in files; `disk` is their boundary to the file system.
//! - `schedule` says who is tried when; pure.
//!
//! Architecture invariant: nothing else writes to the queue's directory, and only this room acts on what became of a delivery.

mod config;
pub mod disk;
mod id;
mod spool;
mod store;
#[cfg(test)]
mod testing;
mod time;

use std::io;
use std::path::PathBuf;

pub use config::Config;
pub use id::IdSource;
pub use spool::{Damage, Draft, Recovered, Spool};
pub use store::{
    CommitError, Letter, LoadError, Message, Promise, RecipientState, Relayed, State, Store, Stored, Usage,
};
pub use time::{Clock, UnixTime};

/// Why the queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two servers on one spool would deliver everything twice.
    #[error("{0} is in use by another server; stop that one, or give this one a queue.path of its own")]
    InUse(PathBuf),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
