//! Tables that follow their files: a changed file is read again while the server runs. One with an error in it changes nothing: the last
//! good table stays in force, and the log says what is wrong, with file and line.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::file::Stamp;
use super::{Found, Key, Purpose, Table, TableError, TableName};

/// A table, and the state of its file.
#[derive(Debug)]
pub struct Live {
    name: TableName,
    purpose: Purpose,
    table: ArcSwap<Table>,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    /// What was read, or could not be.
    read: Option<Stamp>,
    /// What the last look saw.
    seen: Option<Stamp>,
}

impl Live {
    fn open(name: &TableName, purpose: Purpose) -> Result<Self, TableError> {
        // Before the file is read: if it changes meanwhile, the next look finds out.
        let read = name.file().and_then(Stamp::of);
        let table = Table::open(name, purpose)?;
        table.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let watched = Mutex::new(Watched { read, seen: read });
        Ok(Self { name: name.clone(), purpose, table: ArcSwap::from_pointee(table), watched })
    }

    /// What it says to a key.
    pub fn look_up(&self, text: &str, key: Key) -> Option<Found> {
        self.table.load().look_up(text, key)
    }

    /// Reads the file again if it has changed, and lies still since the last look: half of a table is none. Blocks on the disk.
    fn refresh(&self) {
        let Some(file) = self.name.file() else { return };
        let now = Stamp::of(file);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = std::mem::replace(&mut watched.seen, now) == now;
        if !settled || watched.read == now {
            return;
        }
        watched.read = now;
        match Table::open(&self.name, self.purpose) {
            Ok(table) => {
                table.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
                self.table.store(Arc::new(table));
                tracing::info!(table = %self.name, "table read again");
            }
            Err(err) => tracing::error!(table = %self.name, "the table as it was stays in force: {err}"),
        }
    }
}

/// The same table of the same file in the same state.
impl PartialEq for Live {
    fn eq(&self, other: &Self) -> bool {
        let read = |live: &Self| live.watched.lock().unwrap_or_else(PoisonError::into_inner).read;
        self.name == other.name && self.purpose == other.purpose && read(self) == read(other)
    }
}

/// All tables of a config; one that is named twice for the same purpose is there once.
#[derive(Debug, Default, PartialEq)]
pub struct Tables(Vec<Arc<Live>>);

impl Tables {
    /// The table of that name, opened if it is not yet.
    pub fn open(&mut self, name: &TableName, purpose: Purpose) -> Result<Arc<Live>, TableError> {
        if let Some(known) = self.0.iter().find(|live| live.name == *name && live.purpose == purpose) {
            return Ok(Arc::clone(known));
        }
        let live = Arc::new(Live::open(name, purpose)?);
        self.0.push(Arc::clone(&live));
        Ok(live)
    }

    /// Looks at each file once; a change is taken over by the second look that sees the same. Blocks on the disk.
    pub fn refresh(&self) {
        self.0.iter().for_each(|live| live.refresh());
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
