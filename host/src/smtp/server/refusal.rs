//! What the machine refused by itself, for the log: an administrator asks why a mail did not come, and only this side knows.

use super::Server;
use crate::mail::QueueId;
use crate::smtp::command;

/// Octets of a command that are kept.
const MAX_COMMAND: usize = 256;

/// A reply that says no, and to what. What policies, the directory and the queue refuse is known to those who asked them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The transaction, if one was under way.
    pub queue_id: Option<QueueId>,
    /// Its reverse-path.
    pub from: String,
    /// Its recipient, if it has exactly one.
    pub to: String,
    /// The beginning of the command, whatever it holds; empty for content.
    pub command: String,
    /// What the client heard.
    pub reply: String,
}

impl Refusal {
    /// It was this line that was refused.
    pub(super) fn answers(&mut self, line: &[u8]) {
        let shown = command::fit_for_log(line);
        self.command = String::from_utf8_lossy(shown.get(..MAX_COMMAND).unwrap_or(shown)).into_owned();
    }
}

impl Server {
    /// What was refused since the last call.
    pub fn take_refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }

    /// Remembers a refusal, with the transaction as it is now.
    pub(super) fn note_refusal(&mut self, reply: &str) {
        let envelope = self.envelope();
        let to = match envelope.map(|envelope| envelope.recipients.as_slice()) {
            Some([only]) => only.forward_path.to_string(),
            _ => String::new(),
        };
        let from = envelope.map(|envelope| envelope.reverse_path.to_string()).unwrap_or_default();
        let (queue_id, command) = (self.queue_id(), String::new());
        self.refusals.push(Refusal { queue_id, from, to, command, reply: reply.to_owned() });
    }
}
