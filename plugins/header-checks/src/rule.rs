//! The decision: which lines of a message are looked up in which tables, and what the results make of the message.
//! `man 5 header_checks`, and where it is silent, what Postfix's cleanup server does.
//!
//! REJECT, DISCARD, PASS and REDIRECT end the checks; of several FILTERs the last one counts. What PREPEND and REPLACE put
//! there is not looked at again. (The manual page lets the checks go on after a REDIRECT; Postfix's code ends them.)

use std::ops::Range;
use std::rc::Rc;

use wasmta_patterns::Budget;

use crate::action::{Action, Context, Refusal, printable};
use crate::mime::{Class, Limits, Machine, Place, Visitor, pieces};
use crate::section::{Found, Section};

/// How many octets of a body are read at once.
const CHUNK: u32 = 64 * 1024;

/// All tables and limits.
#[derive(Default)]
pub struct Checks {
    /// `header_checks`.
    pub header: Option<Rc<Section>>,
    /// `mime_header_checks`; without that setting the same as `header`.
    pub mime: Option<Rc<Section>>,
    /// `nested_header_checks`, likewise.
    pub nested: Option<Rc<Section>>,
    /// `body_checks`.
    pub body: Option<Rc<Section>>,
    /// Limits.
    pub limits: Limits,
    /// `disable_mime_input_processing`: everything behind the header is body.
    pub no_mime: bool,
}

/// A change of the message. Indices and offsets mean the message as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A field before this one.
    InsertField(usize, Vec<u8>),
    /// Another field in its place.
    ReplaceField(usize, Vec<u8>),
    /// Without it.
    RemoveField(usize),
    /// Other octets in place of these octets of the body.
    ReplaceBody(Range<u64>, Vec<u8>),
}

/// What happens to the message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verdict {
    /// It goes on.
    #[default]
    Pass,
    /// It is refused.
    Reject(Refusal),
    /// 250, and it is thrown away.
    Discard(String),
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `reject`, `warning` and so on, as in Postfix's log.
    pub action: &'static str,
    /// Header or body.
    pub context: Context,
    /// The line it is about.
    pub line: String,
    /// The operator's text.
    pub text: String,
}

/// All that comes of one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What happens to it.
    pub verdict: Verdict,
    /// How it changes.
    pub edits: Vec<Edit>,
    /// Blind copies.
    pub bcc: Vec<String>,
    /// Kept, for this reason.
    pub hold: Option<String>,
    /// Sent there, whatever routing says.
    pub filter: Option<String>,
    /// Sent to this address instead of all others.
    pub redirect: Option<String>,
    /// For the log.
    pub notes: Vec<Note>,
    /// Rules that do not work, for the log.
    pub warnings: Vec<String>,
}

/// Gives octets of the body: at most so many from an offset on, none at the end.
pub type ReadBody<'a> = dyn FnMut(u64, u32) -> Result<Vec<u8>, String> + 'a;

/// Judges one message.
pub fn judge(checks: &Checks, fields: &[Vec<u8>], body: &mut ReadBody) -> Result<Outcome, String> {
    let mut judge = Judge { checks, outcome: Outcome::default(), budgets: Default::default(), looking: true };
    let mut machine = Machine::new(checks.limits, !checks.no_mime);
    for (index, field) in fields.iter().enumerate() {
        machine.field(index, field, &mut judge);
        if !judge.looking {
            return Ok(judge.outcome);
        }
    }
    machine.end_of_header();
    let parts = checks.header.is_some() || checks.mime.is_some() || checks.nested.is_some();
    if checks.body.is_some() || parts && machine.expects_headers() {
        read_body(&mut machine, &mut judge, body)?;
    }
    Ok(judge.outcome)
}

/// Cuts the body into records and shows them to the machine, as long as there is something to look for.
fn read_body(machine: &mut Machine, judge: &mut Judge, body: &mut ReadBody) -> Result<(), String> {
    let length = judge.checks.limits.line_length;
    let mut buffer: Vec<u8> = Vec::new();
    let mut base = 0; // where the buffer begins in the body
    loop {
        let chunk = body(base + buffer.len() as u64, CHUNK)?;
        let last = chunk.is_empty();
        if buffer.is_empty() {
            buffer = chunk
        } else {
            buffer.extend_from_slice(&chunk)
        };
        let mut at = 0;
        while at < buffer.len() {
            let rest = buffer.get(at..).unwrap_or_default();
            let here = base + at as u64;
            let Some(line) = memchr::memchr(b'\n', rest).or(last.then_some(rest.len())) else {
                // Not the whole line yet. What is certain to be a piece of it is no longer waited for.
                let Some(piece) = rest.get(..length).filter(|_| rest.len() > length) else { break };
                let end = here + length as u64;
                machine.record(piece, true, (here, end), judge);
                at += length;
                continue;
            };
            let end = here + line as u64 + u64::from(line < rest.len());
            let text = rest.get(..line).unwrap_or_default();
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let mut start = here;
            let mut pieces = pieces(text, length).peekable();
            while let Some(piece) = pieces.next() {
                let piece_end = start + piece.len() as u64;
                let continued = pieces.peek().is_some();
                machine.record(piece, continued, (start, if continued { piece_end } else { end }), judge);
                start = piece_end;
            }
            at += line + 1;
            if !judge.looking || judge.checks.body.is_none() && !machine.expects_headers() {
                return Ok(());
            }
        }
        if last {
            machine.finish(judge);
            return Ok(());
        }
        base += at as u64;
        buffer.drain(..at);
    }
}

struct Judge<'a> {
    checks: &'a Checks,
    outcome: Outcome,
    /// One for each of the four sections.
    budgets: [Budget; 4],
    /// False once nothing is looked up any more.
    looking: bool,
}

/// What becomes of the line.
enum Line {
    Stays,
    Goes,
    Becomes(Vec<u8>),
}

impl Visitor for Judge<'_> {
    fn header(&mut self, class: Class, text: &[u8], place: Place) {
        let checks = self.checks;
        let (section, number) = match class {
            Class::Primary => (&checks.header, 0),
            Class::Mime => (&checks.mime, 1),
            Class::Nested => (&checks.nested, 2),
        };
        self.look_up(section.as_deref(), number, text, Context::Header, &place);
    }

    fn body(&mut self, text: &[u8], place: Place, offset: u64) {
        let checks = self.checks;
        let limit = checks.limits.body_checks_size;
        if limit == 0 || offset < limit {
            self.look_up(checks.body.as_deref(), 3, text, Context::Body, &place);
        }
    }

    fn too_deep(&mut self) {
        let checks = self.checks;
        if self.looking && (checks.header.is_some() || checks.mime.is_some() || checks.nested.is_some()) {
            self.reject(Refusal::new(b"5.6.0 MIME nesting exceeds safety limit"));
        }
    }
}

impl Judge<'_> {
    fn look_up(&mut self, section: Option<&Section>, number: usize, text: &[u8], context: Context, place: &Place) {
        let (true, Some(section), Some(budget)) = (self.looking, section, self.budgets.get_mut(number)) else { return };
        let warnings = &mut self.outcome.warnings;
        let action = match section.look_up(text, budget, &mut |warning| warnings.push(warning)) {
            Found::Nothing => return,
            Found::Senseless(why) => return self.outcome.warnings.push(why),
            Found::Action(action) => action,
        };
        match self.act(action, text, context, place) {
            Line::Stays => {}
            Line::Goes => self.outcome.edits.push(match place {
                Place::Field(index) => Edit::RemoveField(*index),
                Place::Body(range, end) => Edit::ReplaceBody(range.start..*end, Vec::new()),
            }),
            Line::Becomes(line) => self.outcome.edits.push(match place {
                Place::Field(index) => Edit::ReplaceField(*index, line),
                Place::Body(range, _) => Edit::ReplaceBody(range.clone(), line),
            }),
        }
    }

    fn act(&mut self, action: Action, line: &[u8], context: Context, place: &Place) -> Line {
        let mut note = |action, text: &[u8]| {
            let line = printable(line.get(..200).unwrap_or(line));
            self.outcome.notes.push(Note { action, context, line, text: printable(text) });
        };
        match action {
            Action::Dunno => {}
            Action::Ignore => return Line::Goes,
            Action::Info(text) => note("info", &text),
            Action::Warn(text) => note("warning", &text),
            Action::Strip(text) => {
                note("strip", &text);
                return Line::Goes;
            }
            Action::Replace(text) => {
                note("replace", &text);
                return Line::Becomes(if context == Context::Header { folded(&text) } else { text });
            }
            Action::Prepend(text) => {
                note("prepend", &text);
                let text = if context == Context::Header { folded(&text) } else { text };
                self.outcome.edits.push(match place {
                    Place::Field(index) => Edit::InsertField(*index, text),
                    Place::Body(range, _) => {
                        Edit::ReplaceBody(range.start..range.start, [&text, &b"\r\n"[..]].concat())
                    }
                });
            }
            Action::Bcc(address) => {
                note("bcc", &address);
                self.outcome.bcc.push(printable(&address));
            }
            Action::Filter(destination) => {
                note("filter", &destination);
                self.outcome.filter = Some(printable(&destination));
            }
            Action::Hold(text) => {
                if self.outcome.hold.is_none() {
                    note("hold", &text);
                    let reason = if text.is_empty() { b"header_checks or body_checks".to_vec() } else { text };
                    self.outcome.hold = Some(printable(&reason));
                }
            }
            Action::Redirect(address) => {
                note("redirect", &address);
                self.outcome.redirect = Some(printable(&address));
                self.looking = false;
            }
            Action::Pass(text) => {
                note("pass", &text);
                self.looking = false;
            }
            Action::Discard(text) => {
                note("discard", &text);
                self.outcome.verdict = Verdict::Discard(printable(&text));
                self.looking = false;
            }
            Action::Reject(text) => {
                let refusal = Refusal::new(&text);
                note("reject", refusal.to_string().as_bytes());
                self.reject(refusal);
            }
        }
        Line::Stays
    }

    fn reject(&mut self, refusal: Refusal) {
        self.outcome.verdict = Verdict::Reject(refusal);
        self.looking = false;
    }
}

/// A field as it stands in a message: lines parted by CRLF, each but the first beginning with white space.
fn folded(text: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(text.len() + 8);
    for (number, line) in text.split(|octet| *octet == b'\n').enumerate() {
        if number > 0 {
            field.extend_from_slice(b"\r\n");
            if !matches!(line.first(), Some(b' ' | b'\t')) {
                field.push(b'\t');
            }
        }
        field.extend_from_slice(line);
    }
    field
}
