//! DNS lists of addresses and domains (RFC 5782): block lists, allow lists, with a weight for each meaning.
//!
//! ```toml
//! [plugin.rbl]
//! source = "rbl.wasm"
//! grants = ["dns", "kv"]
//! settings.zones = [
//!   { zone = "zen.spamhaus.org" },
//!   { zone = "list.dnswl.org", good = true, weight = -2.0 },
//!   { zone = "dbl.spamhaus.org", of = "sender" },
//! ]
//! ```
//! Without `zones` it is zen.spamhaus.org alone. All zones are asked at once after MAIL; who is refused hears it at RCPT.
//! Answers that are no listing (127.255.255.x, anything outside 127.0.0.0/8) never count, and a zone that fails its test
//! points is muted for an hour. `kv` remembers which ones are.

mod judge;
mod name;
mod settings;
mod zone;

use std::cell::OnceCell;
use std::net::IpAddr;

use exports::wasmta::policy::meta::{ConfigError, Guest as Meta, Manifest, Symbol};
use exports::wasmta::policy::on_mail::Guest as OnMail;
use exports::wasmta::policy::on_rcpt::{Envelope, Guest as OnRcpt, Recipient, Session, Verdict};
use judge::{Answer, Facts, Health, Listing};
use settings::{Mode, Settings};
use wasmta::policy::log::{Level, write};
use wasmta::policy::types::{EnhancedStatus, Reply};
use wasmta::policy::{clock, dns, kv, score};

wit_bindgen::generate!({
    path: "../../wit",
    inline: "package dns:lists; world plugin {
        import wasmta:policy/log@0.1.0; import wasmta:policy/clock@0.1.0; import wasmta:policy/score@0.1.0;
        import wasmta:policy/kv@0.1.0; import wasmta:policy/dns@0.1.0;
        export wasmta:policy/meta@0.1.0; export wasmta:policy/on-mail@0.1.0; export wasmta:policy/on-rcpt@0.1.0; }",
    world: "dns:lists/plugin",
    generate_all,
});

struct Plugin;
export!(Plugin);

thread_local! {
    /// Set by `configure`.
    static SETTINGS: OnceCell<Settings> = const { OnceCell::new() };
}

/// The note of a transaction that says which zone to name in the refusal.
const REFUSED_BY: &str = "refused-by";
/// Questions of one `query-many`.
const BATCH: usize = 64;

impl Meta for Plugin {
    fn describe() -> Manifest {
        let symbol = |of: zone::Of, good: bool| Symbol {
            name: of.symbol(good).into(),
            weight: if good { -1.0 } else { 1.0 },
            summary: format!("{} is in {}", of.class(), if good { "an allow list" } else { "a block list" }),
        };
        Manifest {
            name: "rbl".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "DNS block and allow lists of addresses and domains".into(),
            settings_schema: settings::SCHEMA.into(),
            symbols: zone::Of::ALL.iter().flat_map(|of| [symbol(*of, false), symbol(*of, true)]).collect(),
        }
    }

    fn configure(text: String) -> Result<(), ConfigError> {
        let settings = settings::parse(&text).map_err(|err| ConfigError {
            key: err.key,
            message: err.message,
            file: None,
            line: None,
        })?;
        SETTINGS.with(|cell| drop(cell.set(settings)));
        Ok(())
    }
}

impl OnMail for Plugin {
    fn run(session: &Session, envelope: &Envelope) -> Verdict {
        SETTINGS.with(|cell| mail(cell.get().expect("configure has run"), session, envelope))
    }
}

impl OnRcpt for Plugin {
    fn run(session: &Session, envelope: &Envelope, recipient: Recipient) -> Verdict {
        let note = envelope.note(REFUSED_BY).and_then(|note| String::from_utf8(note).ok()?.parse::<usize>().ok());
        let Some(index) = note else { return Verdict::Pass };
        SETTINGS.with(|cell| {
            let settings = cell.get().expect("configure has run");
            if settings.is_exempt(&recipient.address) {
                return Verdict::Pass;
            }
            refuse(settings, session, envelope, index).unwrap_or(Verdict::Pass)
        })
    }
}

fn facts(session: &Session, envelope: &Envelope) -> Facts {
    Facts {
        address: session.client_address().parse::<IpAddr>().ok().map(|address| address.to_canonical()),
        client_name: session.client_name(),
        helo: session.helo(),
        sender: envelope.sender(),
    }
}

fn mail(settings: &Settings, session: &Session, envelope: &Envelope) -> Verdict {
    if session.trusted() && !settings.trusted {
        return Verdict::Pass;
    }
    let now = clock::now() / 1000;
    let health: Vec<Option<Health>> = settings.zones.iter().map(|zone| recall(&zone.health_key(), now)).collect();
    let questions = judge::questions(&settings.zones, &facts(session, envelope), &health);
    let answers = ask(&questions.iter().map(|question| question.name.clone()).collect::<Vec<_>>());
    for (zone, health) in judge::tested(&settings.zones, &questions, &answers) {
        remember(&zone.health_key(), zone.shown(), &health, now);
    }
    let findings = judge::findings(&settings.zones, &questions, &answers);
    for finding in &findings.refused {
        write(Level::Warn, &format!("{}: {}", finding.zone.shown(), finding.why));
        if let Some(health) = &finding.mute {
            remember(&finding.zone.health_key(), finding.zone.shown(), health, now);
        }
    }
    for Listing { zone, weight, meaning, answer, .. } in &findings.listings {
        let detail = format!("{} {answer} {meaning}", zone.shown());
        write(Level::Info, &format!("listed: {} in {detail}, weight {weight}", zone.of.class()));
        if settings.mode == Mode::Score {
            score::raise(zone.of.symbol(zone.good), *weight, &detail);
        }
    }
    if settings.mode == Mode::Reject
        && let Some(index) = judge::refused_by(settings.threshold, &findings.listings)
    {
        let _ = envelope.set_note(REFUSED_BY, index.to_string().as_bytes());
    }
    Verdict::Pass
}

/// The reply that Postfix gives (`default_rbl_reply`), with what the zone has to say.
fn refuse(settings: &Settings, session: &Session, envelope: &Envelope, index: usize) -> Option<Verdict> {
    let zone = settings.zones.get(index)?;
    let facts = facts(session, envelope);
    let name = judge::question_name(zone, &facts)?;
    let texts = dns::query(&dns::Question { name, kind: dns::Kind::Txt }).unwrap_or_default();
    let reason = texts.first().map(|answer| answer.value.as_str()).unwrap_or_default();
    let text = judge::reply(zone, &facts, reason);
    Some(Verdict::Reject(Reply { code: 554, enhanced: Some(EnhancedStatus { class: 5, subject: 7, detail: 1 }), text }))
}

/// Addresses for each name, in order.
fn ask(names: &[String]) -> Vec<Answer> {
    let question = |name: &String| dns::Question { name: name.clone(), kind: dns::Kind::A };
    let ask = |names: &[String]| dns::query_many(&names.iter().map(question).collect::<Vec<_>>());
    let answer = |answer: Result<Vec<dns::Answer>, dns::Error>| match answer {
        Ok(answers) => Answer::Addresses(answers.into_iter().map(|answer| answer.value).collect()),
        Err(dns::Error::NoSuchName) => Answer::Addresses(vec![]),
        Err(dns::Error::Timeout) => Answer::Failed("no answer in time".into()),
        Err(dns::Error::Failure(why)) => Answer::Failed(why),
        Err(other) => Answer::Failed(format!("{other:?}")),
    };
    names.chunks(BATCH).flat_map(ask).map(answer).collect()
}

/// What is known of a zone; none if it is to be tested.
fn recall(key: &str, now: u64) -> Option<Health> {
    // Without memory each message tests anew, which the resolver's cache makes bearable.
    let value = kv::get(key).ok()??;
    Health::read(&String::from_utf8(value).ok()?, now)
}

fn remember(key: &str, zone: &str, health: &Health, now: u64) {
    if let Health::Sick(why) = health {
        let minutes = health.seconds() / 60;
        write(Level::Warn, &format!("{zone} is not asked for {minutes} minutes: {why}"));
    }
    if let Err(err) = kv::put(key, health.write(now).as_bytes(), Some(health.seconds())) {
        write(Level::Warn, &format!("{zone}: its state cannot be kept: {err:?}"));
    }
}

#[cfg(test)]
mod tests;
