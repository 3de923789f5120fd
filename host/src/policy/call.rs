//! What one call of a policy's hook was: what it said, what it changed, and what it saw on the way. For `explain`; judgement needs none
//! of it.

use super::{Edit, Symbol, Verdict};

/// Octets of one text of an event.
const MAX_TEXT: usize = 500;
/// Events of one call; what comes after is counted.
const MAX_EVENTS: usize = 200;
/// Octets of all texts of one call.
const MAX_OCTETS: usize = 16 * 1024;
/// Edits of one call that are kept as text; what comes after is counted.
const MAX_EDITS: usize = 50;

/// One call of a hook, when it is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The policy's name in the config.
    pub plugin: String,
    /// Whether what it said counted, or was only looked at.
    pub counts: bool,
    /// What it said, or why it said nothing.
    pub verdict: Result<Verdict, String>,
    /// What counted in place of a verdict that it did not give.
    pub instead: Option<Verdict>,
    /// What it changed; none of it if it failed.
    pub edits: Vec<String>,
    /// What it noticed.
    pub symbols: Vec<Symbol>,
    /// What it asked the host, in order, and what it was told.
    pub events: Vec<Event>,
    /// Edits and events for which there was no room.
    pub left_out: usize,
    /// How long it took, waiting included, in microseconds.
    pub micros: u64,
    /// The most linear memory that it had, in octets.
    pub memory: usize,
}

/// One thing that a policy asked of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Microseconds after the call began.
    pub micros: u64,
    /// Whom it asked: `log`, `dns`, `net`, `kv`.
    pub import: &'static str,
    /// What, like `TXT example.org`.
    pub what: String,
    /// The answer.
    pub answer: String,
}

/// Events of a call that is going on. Bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// In order.
    pub kept: Vec<Event>,
    /// Those for which there was no room.
    pub left_out: usize,
    octets: usize,
}

impl Events {
    /// Notes one, or that there was one: the texts are made only if there is room.
    pub fn note(&mut self, micros: u64, import: &'static str, texts: impl FnOnce() -> (String, String)) {
        if self.kept.len() >= MAX_EVENTS || self.octets >= MAX_OCTETS {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let (what, answer) = texts();
        let (what, answer) = (plain(what), plain(answer));
        self.octets = self.octets.saturating_add(what.len() + answer.len());
        self.kept.push(Event { micros, import, what, answer });
    }
}

/// On one line, and not without end.
fn plain(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    if text.chars().any(char::is_control) { text.replace(char::is_control, " ") } else { text }
}

/// Edits as texts, and how many there was no room for.
pub fn told(edits: &[Edit]) -> (Vec<String>, usize) {
    let told: Vec<String> = edits.iter().take(MAX_EDITS).map(|edit| plain(edit.to_string())).collect();
    let left_out = edits.len() - told.len();
    (told, left_out)
}

impl Call {
    /// What it takes in memory, roughly.
    pub fn octets(&self) -> usize {
        let edits: usize = self.edits.iter().map(|edit| edit.len() + size_of::<String>()).sum();
        let symbol = |symbol: &Symbol| symbol.name.len() + symbol.detail.len() + size_of::<Symbol>();
        let event = |event: &Event| event.what.len() + event.answer.len() + size_of::<Event>();
        let symbols: usize = self.symbols.iter().map(symbol).sum();
        size_of::<Self>() + self.plugin.len() + edits + symbols + self.events.iter().map(event).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_bounded() {
        let mut events = Events::default();
        for n in 0..300 {
            events.note(n, "log", || ("info".into(), "x\r\ny".into()));
        }
        assert_eq!((events.kept.len(), events.left_out), (MAX_EVENTS, 100));
        assert_eq!(events.kept.first().map(|event| event.answer.as_str()), Some("x  y"));
        let mut events = Events::default();
        for n in 0..100 {
            events.note(n, "dns", || ("TXT example.org".into(), "ä".repeat(100_000)));
        }
        let octets: usize = events.kept.iter().map(|event| event.what.len() + event.answer.len()).sum();
        assert!(octets < MAX_OCTETS + 2 * MAX_TEXT, "{octets}");
        assert_eq!(events.kept.len() + events.left_out, 100);
    }

    #[test]
    fn edits_are_bounded() {
        let edits = vec![Edit::RemoveHeader { index: 1 }; 60];
        assert_eq!(told(&edits), (vec!["removes header field 1".to_owned(); 50], 10));
    }
}
