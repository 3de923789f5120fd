//! `log`: the plugin's own lines, marked with its name and what the call is about.

use super::super::bindings::wasmta::policy::log::{Host, Level};
use super::super::context::Context;

/// Lines of one call; what comes after is dropped.
const MAX_LINES: u32 = 100;
/// Octets of one line.
const MAX_LINE: usize = 1024;

impl Host for Context {
    fn write(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.log_lines = self.log_lines.saturating_add(1);
        let (plugin, subject) = (self.identity.name.as_str(), self.subject.as_str());
        if self.log_lines > MAX_LINES {
            if self.log_lines == MAX_LINES + 1 {
                tracing::warn!(plugin, subject, "further lines of this call are dropped");
            }
            return Ok(());
        }
        let line = clean(&message);
        self.witness("log", || (word(level).to_owned(), line.clone()));
        match level {
            Level::Debug => tracing::debug!(plugin, subject, "{line}"),
            Level::Info => tracing::info!(plugin, subject, "{line}"),
            Level::Warn => tracing::warn!(plugin, subject, "{line}"),
            Level::Error => tracing::error!(plugin, subject, "{line}"),
        }
        Ok(())
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// One line that cannot be mistaken for two.
pub(in crate::plugin) fn clean(message: &str) -> String {
    let cut = message.floor_char_boundary(MAX_LINE);
    message[..cut].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
