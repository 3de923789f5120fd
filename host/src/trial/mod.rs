//! A policy tried offline: `wasmta plugin test`. The same sandbox as the server's, around it a world that is made up: clients and mails as a
//! scenario tells them, a clock that stands until the scenario moves it, a store in memory.
//!
//! `scenario` is what an author writes, `world` what stands around the policy, `run` asks the hooks in the order of a session, `report` is
//! what came of it, `expect` compares it with what was to come.

mod expect;
mod report;
mod run;
mod scenario;
mod world;

use std::path::{Path, PathBuf};

pub use report::{Hook, Report};
pub use scenario::{Case, Expect, Scenario};
pub use world::World;

use crate::plugin::SandboxError;

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The sandbox cannot be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A message cannot be read.
    #[error("{}: {why}", .file.display())]
    Message {
        /// Which.
        file: PathBuf,
        /// Why not.
        why: String,
    },
}

/// Octets of a message.
const MAX_MESSAGE: u64 = 256 << 20;

/// Reads a message; line ends of this system become those of mail.
pub fn read_message(file: &Path) -> Result<Vec<u8>, TrialError> {
    let error = |why: String| TrialError::Message { file: file.to_owned(), why };
    let size = std::fs::metadata(file).map_err(|err| error(err.to_string()))?.len();
    if size > MAX_MESSAGE {
        return Err(error(format!("it has {size} octets, more than the {MAX_MESSAGE} that are read")));
    }
    Ok(with_crlf(&std::fs::read(file).map_err(|err| error(err.to_string()))?))
}

/// A text with the line ends of mail.
pub fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

#[cfg(test)]
mod tests;
