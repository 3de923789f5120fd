//! `regexp:` and `pcre:`: patterns in order, the first that matches counts. The crate `wasmta-patterns` does the work.

use std::fmt;

use wasmta_patterns::{Budget, Dialect, Reply, Rules, Source};

use super::{Fault, Kind, Purpose, TableName};

/// A table of patterns, compiled.
pub(super) struct Patterns(Rules);

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Patterns")
    }
}

impl Patterns {
    /// Reads and compiles one; a fault in line 0 is one of the whole.
    pub fn new(name: &TableName, text: Vec<u8>, purpose: Purpose, warn: &mut dyn FnMut(String)) -> Result<Self, Fault> {
        let dialect = if name.kind() == Kind::Pcre { Dialect::Perl } else { Dialect::Posix };
        let source = Source { name: name.name().to_owned(), dialect, text };
        let check = |reply: &Reply| match reply {
            Reply::Template(_) if purpose != Purpose::General => {
                Err("no $number here: what a stranger wrote may not become a place to deliver to; write it out".into())
            }
            _ => Ok(()),
        };
        let rules = Rules::new(&[source], &check, warn);
        rules.map(Self).map_err(|(_, fault, message)| fault.map_or((0, message), |fault| (fault.line, fault.message)))
    }

    /// What the first pattern that matches says, and its line.
    pub fn look_up(&self, key: &str) -> Option<(String, u32)> {
        let warn = &mut |warning: String| tracing::warn!("{warning}");
        let hit = self.0.look_up(key.as_bytes(), &mut Budget::default(), warn)?;
        Some((String::from_utf8_lossy(&hit.value).into_owned(), hit.line))
    }
}
