//! Postfix's `header_checks`, `mime_header_checks`, `nested_header_checks` and `body_checks`, with the table files that
//! people have: `man 5 header_checks`, `man 5 regexp_table`, `man 5 pcre_table`.
//!
//! ```toml
//! [plugin.header-checks]
//! source = "header-checks.wasm"
//! [plugin.header-checks.settings]
//! header_checks = [{ type = "pcre", file = "/etc/postfix/header_checks" }]
//! body_checks = [{ type = "regexp", rules = "/^<iframe src=(3D)?cid:.* height=(3D)?0 width=(3D)?0>$/ REJECT IFRAME exploit" }]
//! ```
//! Without `mime_header_checks` and `nested_header_checks` those are as `header_checks`; an empty list turns them off.
//! It needs no grant.

mod action;
mod mime;
mod rule;
mod section;
mod settings;
mod warm;

use std::cell::OnceCell;

use action::{Context, Refusal};
use exports::wasmta::policy::meta::{ConfigError, Guest as Meta, Manifest};
use exports::wasmta::policy::on_message::{Envelope, Guest as OnMessage, Message, Session, Verdict};
use rule::{Checks, Edit, Note, Outcome};
use wasmta::policy::log::{Level, write};
use wasmta::policy::types::{EnhancedStatus, Reply};

wit_bindgen::generate!({
    path: "../../wit",
    inline: "package header:checks; world plugin {
        import wasmta:policy/log@0.1.0; export wasmta:policy/meta@0.1.0; export wasmta:policy/on-message@0.1.0; }",
    world: "header:checks/plugin",
    generate_all,
});

struct Plugin;
export!(Plugin);

thread_local! {
    /// Compiled by `configure`.
    static CHECKS: OnceCell<Checks> = const { OnceCell::new() };
}

impl Meta for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "header-checks".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Postfix's header_checks and body_checks".into(),
            settings_schema: settings::SCHEMA.into(),
            symbols: vec![],
        }
    }

    fn configure(text: String) -> Result<(), ConfigError> {
        let checks = settings::parse(&text, &mut |warning| write(Level::Warn, &warning));
        let checks =
            checks.map_err(|err| ConfigError { key: err.key, message: err.message, file: err.file, line: err.line })?;
        CHECKS.with(|cell| drop(cell.set(checks)));
        fill_holes();
        Ok(())
    }
}

impl OnMessage for Plugin {
    fn run(session: &Session, envelope: &Envelope, message: &Message) -> Verdict {
        let outcome: Outcome = CHECKS.with(|cell| {
            let checks = cell.get().expect("configure has run");
            // A body that cannot be read is no body without findings: the trap makes `on-error` of it.
            rule::judge(checks, &fields(message), &mut |at, len| message.body(at, len)).expect("the body can be read")
        });
        outcome.warnings.iter().for_each(|warning| write(Level::Warn, warning));
        if !outcome.notes.is_empty() {
            let origin = origin(session, envelope);
            outcome.notes.iter().for_each(|note| log(note, &origin));
        }
        apply(&outcome, envelope, message);
        match outcome.verdict {
            rule::Verdict::Pass => Verdict::Pass,
            rule::Verdict::Discard(text) => Verdict::Discard(text),
            rule::Verdict::Reject(refusal) if refusal.code == 451 => Verdict::Defer(reply(refusal)),
            rule::Verdict::Reject(refusal) => Verdict::Reject(reply(refusal)),
        }
    }
}

/// More than any hole that compiling leaves.
const LARGE: usize = 4 << 20;

/// Compiling leaves holes all over the memory. What a call allocated there would each time make a page its own that could
/// be shared with all other calls; with the holes filled, its allocations lie side by side at the end.
fn fill_holes() {
    let large = Vec::<u8>::with_capacity(LARGE);
    let end = large.as_ptr().addr();
    drop(large);
    for size in [1 << 16, 1 << 14, 1 << 12, 1 << 10, 1 << 8, 128, 64, 32, 16] {
        for _ in 0..LARGE {
            let block = std::mem::ManuallyDrop::new(Vec::<u8>::with_capacity(size));
            if block.as_ptr().addr() >= end {
                break;
            }
        }
    }
}

/// All fields, in as few calls as there can be.
fn fields(message: &Message) -> Vec<Vec<u8>> {
    let count = message.header_count();
    let mut fields = message.headers(0, count);
    while let Ok(have @ 1..) = u32::try_from(fields.len())
        && have < count
    {
        let more = message.headers(have, count - have);
        if more.is_empty() {
            break;
        }
        fields.extend(more);
    }
    fields
}

fn apply(outcome: &Outcome, envelope: &Envelope, message: &Message) {
    let refused = |done: Result<(), String>| {
        if let Err(why) = done {
            write(Level::Warn, &why);
        }
    };
    for edit in &outcome.edits {
        refused(match edit {
            Edit::InsertField(index, field) => message.insert_header(number(*index), field),
            Edit::ReplaceField(index, field) => message.replace_header(number(*index), field),
            Edit::RemoveField(index) => message.remove_header(number(*index)),
            Edit::ReplaceBody(range, with) => message.replace_body(range.start, range.end - range.start, with),
        });
    }
    outcome.bcc.iter().for_each(|address| refused(envelope.add_recipient(address)));
    if let Some(reason) = &outcome.hold {
        envelope.hold(reason);
    }
    // A redirection overrides a filter, and takes the place of all recipients, blind copies included.
    match (&outcome.redirect, &outcome.filter) {
        (Some(address), _) => refused(envelope.redirect(address)),
        (None, Some(destination)) => refused(envelope.set_filter(destination)),
        (None, None) => {}
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// One line of at most as many octets as a reply may have.
fn reply(refusal: Refusal) -> Reply {
    let (class, subject, detail) = refusal.status;
    let mut text = refusal.text;
    text.truncate(text.floor_char_boundary(480));
    Reply { code: refusal.code, enhanced: Some(EnhancedStatus { class, subject, detail }), text }
}

/// Whose message it is, as Postfix's log has it.
fn origin(session: &Session, envelope: &Envelope) -> String {
    let name = session.client_name().unwrap_or_else(|| "unknown".into());
    let recipients = envelope.recipients(0, 1);
    let to = recipients.first().map(|recipient| format!(" to=<{}>", recipient.address)).unwrap_or_default();
    let helo = session.helo().map(|helo| format!(" helo=<{helo}>")).unwrap_or_default();
    let protocol = if session.extended() { "ESMTP" } else { "SMTP" };
    format!("{name}[{}]; from=<{}>{to} proto={protocol}{helo}", session.client_address(), envelope.sender())
}

fn log(note: &Note, origin: &str) {
    let level = if note.action == "warning" { Level::Warn } else { Level::Info };
    let context = match note.context {
        Context::Header => "header",
        Context::Body => "body",
    };
    let text = if note.text.is_empty() { String::new() } else { format!(": {}", note.text) };
    write(level, &format!("{}: {context} {} from {origin}{text}", note.action, note.line));
}

#[cfg(test)]
mod tests;
