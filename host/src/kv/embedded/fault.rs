//! What can go wrong in the database, and what is to be done about it.

use std::io;

use crate::kv::Error;

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// Whoever asked is told, and nothing is wrong with the store.
    Said(Error),
    /// What lies in the tables cannot be read.
    Damaged,
    /// The database says so.
    Database(fjall::Error),
}

/// What helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Remedy {
    /// To try again; nothing has to be done.
    Again,
    /// To open the database anew: after a failed write it takes no more.
    Reopen,
    /// To set the files aside and begin with none.
    SetAside,
}

impl From<Error> for Fault {
    fn from(err: Error) -> Self {
        Self::Said(err)
    }
}

impl From<fjall::Error> for Fault {
    fn from(err: fjall::Error) -> Self {
        Self::Database(err)
    }
}

impl Fault {
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Said(_) => Remedy::Again,
            Self::Damaged => Remedy::SetAside,
            Self::Database(err) => remedy(err),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Said(err) => err,
            Fault::Damaged => Self::Failed("a table holds what cannot be read".into()),
            Fault::Database(err) => Self::Failed(explain(&err)),
        }
    }
}

/// What helps against an error of the database.
pub(super) fn remedy(err: &fjall::Error) -> Remedy {
    match err {
        fjall::Error::Io(err) | fjall::Error::Storage(fjall::LsmError::Io(err)) => match err.kind() {
            // A file of the database that is gone, shorter than it was, or of other content.
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Remedy::SetAside,
            _ => Remedy::Reopen,
        },
        fjall::Error::Poisoned | fjall::Error::Locked | fjall::Error::KeyspaceDeleted => Remedy::Reopen,
        // A version that is none is damage; one that is another's is not ours to set aside.
        fjall::Error::InvalidVersion(Some(_)) => Remedy::Reopen,
        _ => Remedy::SetAside,
    }
}

/// For an operator.
pub(super) fn explain(err: &fjall::Error) -> String {
    match err {
        fjall::Error::Io(err) | fjall::Error::Storage(fjall::LsmError::Io(err)) => err.to_string(),
        fjall::Error::Poisoned => "it takes nothing more after a write that failed".into(),
        fjall::Error::Locked => "another process has it open".into(),
        fjall::Error::InvalidVersion(Some(version)) => format!("it is of another version, {version:?}"),
        fjall::Error::Storage(err) => format!("damaged: {err:?}"),
        err => format!("damaged: {err:?}"),
    }
}
