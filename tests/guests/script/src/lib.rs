//! Does what its settings say: `{"rcpt": ["incr count 1", "say"]}`, a list of lines for each hook.
//!
//! | line | what it does |
//! |---|---|
//! | `get KEY`, `delete KEY` | |
//! | `put KEY VALUE [TTL]`, `stage KEY VALUE [TTL]` | |
//! | `incr KEY BY [TTL]` | |
//! | `swap KEY EXPECTED NEW` | EXPECTED `-` for: there is none |
//! | `keys PREFIX LIMIT` | PREFIX `-` for all |
//! | `repeat N LINE` | the line so often, the last result counts |
//! | `score SYMBOL WEIGHT` | raises it |
//! | `total` | points so far |
//! | `say` | rejects with what the lines before brought forth |
//! | `pass`, `accept`, `reject`, `defer`, `discard`, `quarantine`, `trap` | ends the hook so |
//!
//! In a line `%r` is the recipient, `%i` the turn of `repeat`, and `@N` N times the letter x.

use std::sync::OnceLock;

use exports::wasmta::policy::meta::{ConfigError, Guest as Meta, Manifest, Symbol};
use exports::wasmta::policy::on_connect::Guest as OnConnect;
use exports::wasmta::policy::on_helo::Guest as OnHelo;
use exports::wasmta::policy::on_mail::Guest as OnMail;
use exports::wasmta::policy::on_message::{Guest as OnMessage, Message};
use exports::wasmta::policy::on_rcpt::{Envelope, Guest as OnRcpt, Recipient, Session, Verdict};
use serde_json::Value;
use wasmta::policy::types::{EnhancedStatus, Reply};
use wasmta::policy::{kv, score};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package guest:script; world plugin {
        import wasmta:policy/kv@0.1.0;
        import wasmta:policy/score@0.1.0;
        export wasmta:policy/meta@0.1.0;
        export wasmta:policy/on-connect@0.1.0;
        export wasmta:policy/on-helo@0.1.0;
        export wasmta:policy/on-mail@0.1.0;
        export wasmta:policy/on-rcpt@0.1.0;
        export wasmta:policy/on-message@0.1.0;
    }",
    world: "guest:script/plugin",
    generate_all,
});

struct Plugin;
export!(Plugin);

static SETTINGS: OnceLock<Value> = OnceLock::new();

impl Meta for Plugin {
    fn describe() -> Manifest {
        let symbol = |name: &str, weight| Symbol { name: name.into(), weight, summary: "for tests".into() };
        Manifest {
            name: "script".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "does what its settings say".into(),
            settings_schema: "{}".into(),
            symbols: vec![symbol("BAD", 1.0), symbol("WORSE", 3.0), symbol("GOOD", -1.0)],
        }
    }

    fn configure(settings: String) -> Result<(), ConfigError> {
        let settings: Value = serde_json::from_str(&settings).unwrap_or_default();
        if settings["configure"] == "kv" {
            let _ = kv::get("key");
        }
        if settings["configure"] == "refuse" {
            let message = "it was told to refuse".into();
            return Err(ConfigError { key: "configure".into(), message, file: None, line: None });
        }
        SETTINGS.get_or_init(|| settings);
        Ok(())
    }
}

/// What a line brought forth, or how the hook ends.
enum Step {
    Result(String),
    End(Verdict),
}

fn reply(code: u16, text: &str) -> Reply {
    let class = if code < 500 { 4 } else { 5 };
    Reply { code, enhanced: Some(EnhancedStatus { class, subject: 7, detail: 1 }), text: text.into() }
}

fn shown<T: std::fmt::Debug>(result: Result<T, kv::Error>) -> Step {
    Step::Result(match result {
        Ok(value) => format!("{value:?}"),
        Err(err) => err.to_string(),
    })
}

/// A word of a line, with what stands for something else.
fn filled(word: &str, recipient: &str, turn: usize) -> String {
    match word.strip_prefix('@').and_then(|count| count.parse().ok()) {
        Some(count) => "x".repeat(count),
        None => word.replace("%r", recipient).replace("%i", &turn.to_string()),
    }
}

fn step(words: &[String], results: &[String]) -> Step {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ttl = |at: usize| words.get(at).and_then(|ttl| ttl.parse().ok());
    match words.as_slice() {
        ["get", key] => {
            shown(kv::get(key).map(|value| value.map(|value| String::from_utf8_lossy(&value).into_owned())))
        }
        ["put", key, value, ..] => shown(kv::put(key, value.as_bytes(), ttl(3))),
        ["stage", key, value, ..] => shown(kv::stage_put(key, value.as_bytes(), ttl(3))),
        ["delete", key] => shown(kv::delete(key)),
        ["incr", key, by, ..] => shown(kv::incr(key, by.parse().unwrap_or(1), ttl(3))),
        ["swap", key, expected, new] => {
            let expected = (*expected != "-").then_some(expected.as_bytes());
            shown(kv::compare_and_swap(key, expected, new.as_bytes(), None))
        }
        ["keys", prefix, limit] => {
            let prefix = if *prefix == "-" { "" } else { prefix };
            let keys = kv::keys(prefix, None, limit.parse().unwrap_or(u32::MAX));
            shown(keys.map(|keys| if keys.len() > 10 { vec![keys.len().to_string()] } else { keys }))
        }
        ["score", symbol, weight] => {
            score::raise(symbol, weight.parse().unwrap_or(f64::NAN), "as told");
            Step::Result(String::new())
        }
        ["total"] => Step::Result(score::total().to_string()),
        ["say"] => Step::End(Verdict::Reject(reply(550, &results.join("; ")))),
        ["pass"] => Step::End(Verdict::Pass),
        ["accept"] => Step::End(Verdict::Accept),
        ["reject"] => Step::End(Verdict::Reject(reply(550, "as told"))),
        ["defer"] => Step::End(Verdict::Defer(reply(450, "as told"))),
        ["discard"] => Step::End(Verdict::Discard("as told".into())),
        ["quarantine"] => Step::End(Verdict::Quarantine("as told".into())),
        _ => panic!("as told: {words:?}"),
    }
}

fn play(hook: &str, recipient: &str) -> Verdict {
    let mut results = Vec::new();
    let lines = SETTINGS.get().and_then(|settings| settings[hook].as_array()).into_iter().flatten();
    for line in lines.filter_map(Value::as_str) {
        let mut words: Vec<&str> = line.split(' ').collect();
        let mut turns = 1;
        if let ["repeat", count, rest @ ..] = words.as_slice() {
            turns = count.parse().unwrap_or(0);
            words = rest.to_vec();
        }
        let mut result = String::new();
        for turn in 0..turns {
            let words: Vec<String> = words.iter().map(|word| filled(word, recipient, turn)).collect();
            match step(&words, &results) {
                Step::Result(own) => result = own,
                Step::End(verdict) => return verdict,
            }
        }
        results.push(result);
    }
    Verdict::Pass
}

impl OnConnect for Plugin {
    fn run(_: &Session) -> Verdict {
        play("connect", "")
    }
}

impl OnHelo for Plugin {
    fn run(_: &Session) -> Verdict {
        play("helo", "")
    }
}

impl OnMail for Plugin {
    fn run(_: &Session, _: &Envelope) -> Verdict {
        play("mail", "")
    }
}

impl OnRcpt for Plugin {
    fn run(_: &Session, _: &Envelope, recipient: Recipient) -> Verdict {
        play("rcpt", &recipient.address)
    }
}

impl OnMessage for Plugin {
    fn run(_: &Session, _: &Envelope, _: &Message) -> Verdict {
        play("message", "")
    }
}
