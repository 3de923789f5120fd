//! Durability: mail that was acknowledged is delivered or bounced, whatever dies in between.
//!
//! - `store` says what is kept, `spool` keeps it in files; `disk` is their boundary to the file system.
//! - `schedule` says who is tried when, `outcome` what follows from a delivery, `bounce` what the sender is told; all three are pure.
//! - `handle` is the queue as others have it; `worker` hands out jobs, `settle` acts on what became of them, `admin` is the operator's.
//!
//! Architecture invariant: nothing else writes to the queue's directory, and only this room acts on what became of a delivery.

mod admin;
mod bounce;
mod config;
pub mod disk;
mod handle;
mod id;
mod outcome;
mod schedule;
mod settle;
mod spool;
mod store;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod time;
mod worker;

use std::io;
use std::path::PathBuf;

pub use admin::{AdminError, Filter, RecipientSummary, Standing, Summary};
pub use config::Config;
pub use handle::{Queue, Router};
pub use id::IdSource;
pub use outcome::{Contact, Outcome, Report, ReportKind};
pub use schedule::{Destination, SiteSummary};
pub use spool::{Damage, Draft, Recovered, Spool};
pub use store::{
    CommitError, Guest, Guests, Letter, LoadError, Message, Promise, RecipientState, Relayed, Response, State, Store,
    Stored, Usage,
};
pub use time::{Clock, UnixTime};
pub use worker::{Job, Worker};

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
