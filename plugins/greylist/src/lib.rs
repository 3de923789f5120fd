//! Greylisting as postgrey does it: who writes for the first time from a network, as a sender, to a recipient, is asked
//! to come again in five minutes. Mail servers do; most of what sends spam does not.
//!
//! ```toml
//! [plugin.greylist]
//! source = "greylist.wasm"
//! grants = ["kv"]
//! settings = { delay = "5m", hostname = "mx.example.org" }
//! ```
//! Settings have the names of postgrey's options. Differences, all on purpose: that a triplet or a client did well is
//! noted only when the message has been taken (`stage-put`), a full store lets mail pass instead of putting it off for
//! ever, and clients that may relay are not greylisted.

mod date;
mod judge;
mod settings;
mod triplet;
mod whitelist;

use std::cell::OnceCell;
use std::net::IpAddr;

use exports::wasmta::policy::meta::{ConfigError, Guest as Meta, Manifest};
use exports::wasmta::policy::on_message::{Guest as OnMessage, Message};
use exports::wasmta::policy::on_rcpt::{Envelope, Guest as OnRcpt, Recipient, Session, Verdict};
use judge::{Memory, Outcome, Question};
use settings::Settings;
use wasmta::policy::log::{Level, write};
use wasmta::policy::types::{EnhancedStatus, Reply};
use wasmta::policy::{clock, kv};

wit_bindgen::generate!({
    path: "../../wit",
    inline: "package grey:listing; world plugin {
        import wasmta:policy/log@0.1.0; import wasmta:policy/clock@0.1.0; import wasmta:policy/kv@0.1.0;
        export wasmta:policy/meta@0.1.0; export wasmta:policy/on-rcpt@0.1.0; export wasmta:policy/on-message@0.1.0; }",
    world: "grey:listing/plugin",
    generate_all,
});

struct Plugin;
export!(Plugin);

thread_local! {
    /// Set by `configure`, whitelists compiled.
    static SETTINGS: OnceCell<Settings> = const { OnceCell::new() };
}

/// The note of a transaction that says how long its first recipient had to wait.
const DELAYED: &str = "delayed";

impl Meta for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "greylist".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "greylisting as postgrey does it".into(),
            settings_schema: settings::SCHEMA.into(),
            symbols: vec![],
        }
    }

    fn configure(text: String) -> Result<(), ConfigError> {
        let settings = settings::parse(&text, &mut |warning| write(Level::Warn, &warning))
            .map_err(|err| ConfigError { key: err.key, message: err.message, file: err.file, line: err.line })?;
        SETTINGS.with(|cell| drop(cell.set(settings)));
        Ok(())
    }
}

impl OnRcpt for Plugin {
    fn run(session: &Session, envelope: &Envelope, recipient: Recipient) -> Verdict {
        SETTINGS.with(|cell| rcpt(cell.get().expect("configure has run"), session, envelope, &recipient.address))
    }
}

impl OnMessage for Plugin {
    fn run(session: &Session, envelope: &Envelope, message: &Message) -> Verdict {
        let delay = envelope.note(DELAYED).and_then(|note| String::from_utf8(note).ok()?.parse().ok());
        if let Some(delay) = delay {
            let field = SETTINGS.with(|cell| {
                let settings = cell.get().expect("configure has run");
                settings.header(delay, &session.server_name(), clock::now() / 1000)
            });
            // Before our own Received, where Postfix puts what a policy server prepends.
            if let Err(why) = message.insert_header(0, field.as_bytes()) {
                write(Level::Warn, &format!("no X-Greylist field: {why}"));
            }
        }
        Verdict::Pass
    }
}

fn rcpt(settings: &Settings, session: &Session, envelope: &Envelope, recipient: &str) -> Verdict {
    if session.trusted() && !settings.trusted {
        return Verdict::Pass;
    }
    let Ok(address) = session.client_address().parse::<IpAddr>() else { return Verdict::Pass };
    let (name, sender) = (session.client_name(), envelope.sender());
    let question = Question {
        now: clock::now() / 1000,
        address: address.to_canonical(),
        name: name.as_deref(),
        sender: &sender,
        recipient,
    };
    let outcome = judge::judge(settings, &mut Store, &question);
    write(Level::Info, &line(&outcome, &question));
    match outcome {
        Outcome::Greylisted { missing, .. } => Verdict::DeferIfPermit(Reply {
            code: 450,
            enhanced: Some(EnhancedStatus { class: 4, subject: 2, detail: 0 }),
            text: settings.reply(recipient, missing),
        }),
        Outcome::Passed { delay, .. } => {
            // One field a message, however many recipients it has.
            if let Some(delay) = delay
                && envelope.note(DELAYED).is_none()
            {
                let _ = envelope.set_note(DELAYED, delay.to_string().as_bytes());
            }
            Verdict::Pass
        }
    }
}

/// What postgrey logs.
fn line(outcome: &Outcome, question: &Question) -> String {
    let what = match outcome {
        Outcome::Greylisted { new: true, .. } => "action=greylist, reason=new".to_owned(),
        Outcome::Greylisted { missing, .. } => {
            format!("action=greylist, reason=early-retry ({missing}s missing)")
        }
        Outcome::Passed { reason, delay: Some(delay) } => format!("action=pass, reason={reason}, delay={delay}"),
        Outcome::Passed { reason, delay: None } => format!("action=pass, reason={reason}"),
    };
    let sender = match question.sender {
        "" => String::new(),
        sender => format!(", sender={sender}"),
    };
    let (name, address, recipient) = (question.name.unwrap_or("unknown"), question.address, question.recipient);
    format!("{what}, client_name={name}, client_address={address}{sender}, recipient={recipient}")
}

/// The store that the host lends.
struct Store;

impl Memory for Store {
    fn get(&mut self, key: &str) -> Option<String> {
        // Without memory there is no judgement: the trap makes `on-error` of it.
        let value = kv::get(key).unwrap_or_else(|err| panic!("kv: {err:?}"))?;
        String::from_utf8(value).ok()
    }

    fn put(&mut self, key: &str, value: &str, seconds: u32) -> bool {
        kept(kv::put(key, value.as_bytes(), Some(seconds)))
    }

    fn stage(&mut self, key: &str, value: &str, seconds: u32) {
        kept(kv::stage_put(key, value.as_bytes(), Some(seconds)));
    }
}

/// Whether a value was kept; one that never can be must not put off mail for ever.
fn kept(result: Result<(), kv::Error>) -> bool {
    match result {
        Ok(()) => true,
        Err(kv::Error::Quota) => {
            write(Level::Warn, "the store is full: mail passes without greylisting; raise kv-quota");
            false
        }
        Err(err) => panic!("kv: {err:?}"),
    }
}

#[cfg(test)]
mod tests;
