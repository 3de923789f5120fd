//! What came of one mail.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::mail::Reply;
use crate::policy::{Call, Verdict};

/// What came of one mail.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The case's name.
    pub name: String,
    /// What became of it: `pass`, `reject`, `defer`, `disconnect`, `discard`, `quarantine`; `not loaded`.
    pub verdict: String,
    /// The stage at which that was decided; none if nobody objected.
    pub stage: Option<&'static str>,
    /// The reply of a refusal.
    pub reply: Option<ReplyParts>,
    /// Why it was thrown away or kept for the operator.
    pub reason: Option<String>,
    /// How long the client waits, all stages together, in milliseconds. The trial does not wait.
    pub delay_ms: u64,
    /// Points, all stages together.
    pub score: f64,
    /// Every call.
    pub hooks: Vec<Hook>,
    /// The header fields of the message in the end, unfolded; empty if it did not come to a message.
    pub header: Vec<String>,
    /// The recipients in the end.
    pub recipients: Vec<String>,
    /// Keys of the store that were changed, each with its value in the end; without one, it was removed or its time is up.
    pub kv_changes: BTreeMap<String, Option<String>>,
    /// All keys and values of the store in the end.
    #[serde(skip)]
    pub kv: BTreeMap<String, String>,
    /// The policy's metrics since it was loaded.
    pub metrics: BTreeMap<String, f64>,
    /// Why it was not loaded.
    pub load_error: Option<String>,
    /// What is not as expected.
    pub differences: Vec<String>,
}

/// A reply in its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplyParts {
    /// Like 550.
    pub code: u16,
    /// Like `5.7.1`.
    pub enhanced: Option<String>,
    /// Its lines.
    pub text: String,
}

impl From<&Reply> for ReplyParts {
    fn from(reply: &Reply) -> Self {
        Self {
            code: reply.code(),
            enhanced: reply.enhanced().map(|status| status.to_string()),
            text: reply.lines().collect::<Vec<_>>().join("\n"),
        }
    }
}

impl std::fmt::Display for ReplyParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = &self.enhanced {
            write!(f, " {enhanced}")?;
        }
        write!(f, " {}", self.text.replace('\n', " / "))
    }
}

/// One call of a hook.
#[derive(Debug, Clone, Serialize)]
pub struct Hook {
    /// `connect`, `helo`, …
    pub hook: &'static str,
    /// What the policy said.
    pub verdict: String,
    /// Why it said nothing: a trap, a timeout.
    pub failure: Option<String>,
    /// Its edits, in words.
    pub edits: Vec<String>,
    /// Its symbols: name, weight, detail.
    pub symbols: Vec<(String, f64, String)>,
    /// What it asked of the host: import, question, answer. Its log is in here.
    pub events: Vec<(&'static str, String, String)>,
    /// How long the call took, in microseconds.
    pub micros: u64,
    /// The most memory it had, in KiB.
    pub memory_kib: usize,
}

impl Hook {
    pub(super) fn new(hook: &'static str, call: Call) -> Self {
        let (verdict, failure) = match call.verdict {
            Ok(verdict) => (told(&verdict), None),
            Err(failure) => (call.instead.as_ref().map(told).unwrap_or_default(), Some(failure)),
        };
        Self {
            hook,
            verdict,
            failure,
            edits: call.edits,
            symbols: call.symbols.into_iter().map(|symbol| (symbol.name, symbol.weight, symbol.detail)).collect(),
            events: call.events.into_iter().map(|event| (event.import, event.what, event.answer)).collect(),
            micros: call.micros,
            memory_kib: call.memory / 1024,
        }
    }

    /// Its log lines.
    pub fn log(&self) -> impl Iterator<Item = (&str, &str)> {
        self.events
            .iter()
            .filter(|(import, ..)| *import == "log")
            .map(|(_, level, line)| (level.as_str(), line.as_str()))
    }
}

/// The verdict's word.
pub(super) fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Accept => "accept",
        Verdict::Reject(_) => "reject",
        Verdict::Defer(_) => "defer",
        Verdict::DeferIfPermit(_) => "defer-if-permit",
        Verdict::Discard(_) => "discard",
        Verdict::Quarantine(_) => "quarantine",
        Verdict::Disconnect(_) => "disconnect",
        Verdict::Delay(_) => "delay",
    }
}

/// The verdict with what it says.
fn told(verdict: &Verdict) -> String {
    let word = word(verdict);
    match verdict {
        Verdict::Pass | Verdict::Accept => word.to_owned(),
        Verdict::Reject(reply) | Verdict::Defer(reply) | Verdict::DeferIfPermit(reply) | Verdict::Disconnect(reply) => {
            format!("{word} {}", ReplyParts::from(reply))
        }
        Verdict::Discard(why) | Verdict::Quarantine(why) => format!("{word}: {why}"),
        Verdict::Delay(time) => format!("{word} {} ms", time.as_millis()),
    }
}
