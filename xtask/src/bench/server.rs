//! The servers under test, each with a sink of its own behind it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use super::load::{free_port, wait_for_port};
use super::postfix::Postfix;
use super::tree::Tree;
use super::wasmta::Wasmta;
use crate::machine::Result;

/// Who can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// This project.
    Wasmta,
    /// The yardstick that people know.
    Postfix,
    /// The yardstick of the machine.
    Floor,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Wasmta => "wasmta",
            Self::Postfix => "postfix",
            Self::Floor => "floor",
        })
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        [Self::Wasmta, Self::Postfix, Self::Floor]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| format!("{text}: a server is wasmta, postfix or floor"))
    }
}

/// One of them, running; stopped when dropped.
pub enum Server {
    /// See [`Kind::Wasmta`].
    Wasmta(Wasmta),
    /// See [`Kind::Postfix`].
    Postfix(Postfix),
    /// See [`Kind::Floor`].
    Floor(Child),
}

/// What all servers are told alike.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// They get a fresh directory below.
    pub scratch: &'a Path,
    /// They receive there,
    pub port: u16,
    /// and relay everything to there.
    pub sink_port: u16,
    /// A pcre table for header_checks.
    pub rules: Option<&'a Path>,
    /// Sessions at a time that they shall bear.
    pub sessions: usize,
}

impl Server {
    /// Starts it.
    pub fn start(kind: Kind, setup: &Setup<'_>) -> Result<Self> {
        let dir = fresh_dir(&setup.scratch.join(kind.to_string()))?;
        Ok(match kind {
            Kind::Wasmta => Self::Wasmta(Wasmta::start(&dir, setup)?),
            Kind::Postfix => Self::Postfix(Postfix::start(&dir, setup)?),
            Kind::Floor => Self::Floor(floor(&dir.join("journal"), setup.port, setup.sink_port)?),
        })
    }

    /// Its processes.
    pub fn tree(&self) -> Tree {
        match self {
            Self::Wasmta(wasmta) => wasmta.tree(),
            Self::Postfix(postfix) => postfix.tree(),
            Self::Floor(child) => Tree(child.id()),
        }
    }

    /// Whether nothing is left to deliver. The floor has no queue to look into.
    pub fn queue_is_empty(&self) -> Result<bool> {
        match self {
            Self::Wasmta(wasmta) => wasmta.queue_is_empty(),
            Self::Postfix(postfix) => postfix.queue_is_empty(),
            Self::Floor(_) => Ok(true),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Floor(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The floor in a process of its own; with `sink_port` 0 it keeps what it gets in the journal.
pub fn floor(journal: &Path, port: u16, sink_port: u16) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("floor").arg(port.to_string()).arg(journal).arg(sink_port.to_string());
    let mut child = command.stdin(Stdio::null()).spawn()?;
    wait_for_port(port, &mut child, "the floor")?;
    Ok(child)
}

/// A sink that keeps all messages, to look for lost and doubled ones.
pub struct Keeper {
    child: Child,
    journal: PathBuf,
    /// Where it listens.
    pub port: u16,
}

impl Keeper {
    /// Starts it.
    pub fn start(scratch: &Path) -> Result<Self> {
        let dir = fresh_dir(&scratch.join("keeper"))?;
        let (port, journal) = (free_port()?, dir.join("journal"));
        Ok(Self { child: floor(&journal, port, 0)?, journal, port })
    }

    /// The Message-Id of every message it got.
    pub fn message_ids(&self) -> Result<Vec<String>> {
        let text = std::fs::read(&self.journal)?;
        let name = b"message-id:";
        let of_line = |line: &[u8]| {
            let (start, value) = line.split_at_checked(name.len())?;
            start.eq_ignore_ascii_case(name).then(|| String::from_utf8_lossy(value).trim().to_owned())
        };
        Ok(text.split(|octet| *octet == b'\n').filter_map(of_line).collect())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fresh_dir(dir: &Path) -> Result<PathBuf> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)?;
    Ok(dir.to_owned())
}
