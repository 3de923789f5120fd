//! Refuses mail whose Subject holds a watched word, and counts in `kv` how often each domain has tried.
//!
//! ```toml
//! [plugin.word-watch]
//! source = "word-watch.wasm"
//! grants = ["kv"]
//! settings = { words = ["lottery"], limit = 3, ttl = 86400 }
//! ```

use std::sync::OnceLock;

use exports::wasmta::policy::meta::{ConfigError, Guest as Meta, Manifest, Symbol};
use exports::wasmta::policy::on_message::{Envelope, Guest as OnMessage, Message, Session, Verdict};
use serde_json::Value;
use wasmta::policy::types::{EnhancedStatus, Reply};
use wasmta::policy::{kv, log, metric, score};

wit_bindgen::generate!({ path: "wit", generate_all });

struct Plugin;
export!(Plugin);

const SCHEMA: &str = r#"{"type":"object","properties":{
"words":{"type":"array","items":{"type":"string"},"description":"words that no Subject may hold, in any case"},
"limit":{"type":"integer","default":3,"description":"from this hit on a domain hears how often it tried"},
"ttl":{"type":"integer","default":86400,"description":"seconds after which its hits are forgotten"}},
"required":["words"]}"#;

struct Settings {
    /// In lower case.
    words: Vec<String>,
    limit: i64,
    ttl: u32,
}

/// Set by `configure`, which runs once; every call of a hook begins in the state that it left.
static SETTINGS: OnceLock<Settings> = OnceLock::new();

impl Meta for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "word-watch".into(),
            version: "0.1.0".into(),
            summary: "refuses mail by words in its Subject and counts who tries".into(),
            settings_schema: SCHEMA.into(),
            symbols: vec![Symbol {
                name: "WATCHED_WORD".into(),
                weight: 2.0,
                summary: "the Subject holds a watched word".into(),
            }],
        }
    }

    fn configure(settings: String) -> Result<(), ConfigError> {
        let settings = read(&settings)?;
        SETTINGS.get_or_init(|| settings);
        Ok(())
    }
}

impl OnMessage for Plugin {
    fn run(_: &Session, envelope: &Envelope, message: &Message) -> Verdict {
        let Some(Settings { words, limit, ttl }) = SETTINGS.get() else { return Verdict::Pass };
        let Some(word) = find(&message.header("Subject"), words) else { return Verdict::Pass };
        score::raise("WATCHED_WORD", 2.0, word);
        metric::add("hits", 1);
        let sender = envelope.sender();
        let domain = domain_of(&sender);
        let hits = count(&domain, *ttl);
        log::write(log::Level::Info, &format!("{word} from {domain}, hit {hits}"));
        let mut text = format!("we have no interest in {word}");
        if hits >= *limit {
            text += &format!(", and {domain} has tried {hits} times");
        }
        Verdict::Reject(Reply { code: 550, enhanced: Some(EnhancedStatus { class: 5, subject: 7, detail: 1 }), text })
    }
}

fn read(settings: &str) -> Result<Settings, ConfigError> {
    let given: Value = serde_json::from_str(settings).map_err(|err| wrong("", &err.to_string()))?;
    let words: Option<Vec<String>> = given["words"].as_array().and_then(|words| words.iter().map(word).collect());
    let words = words.filter(|words| !words.is_empty());
    let words = words.ok_or_else(|| wrong("words", r#"a list of words is needed, like ["lottery"]"#))?;
    let limit = number(&given, "limit", 3)?;
    let ttl = number(&given, "ttl", 86400)?;
    Ok(Settings { words, limit: limit.into(), ttl })
}

fn wrong(key: &str, message: &str) -> ConfigError {
    ConfigError { key: key.into(), message: message.into(), file: None, line: None }
}

fn word(value: &Value) -> Option<String> {
    let word = value.as_str().filter(|word| !word.is_empty() && !word.contains(char::is_control));
    word.map(str::to_lowercase)
}

fn number(given: &Value, key: &str, default: u32) -> Result<u32, ConfigError> {
    let Some(value) = given.get(key) else { return Ok(default) };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    let number = number.filter(|number| (1..=1 << 31).contains(number));
    number.ok_or_else(|| wrong(key, "a number from 1 to 2147483648 is needed"))
}

/// The first watched word that one of the Subjects holds.
fn find<'a>(subjects: &[String], words: &'a [String]) -> Option<&'a str> {
    let lower: Vec<String> = subjects.iter().map(|subject| subject.to_lowercase()).collect();
    words.iter().map(String::as_str).find(|word| lower.iter().any(|subject| subject.contains(word)))
}

/// Whose hits are counted; the null reverse-path has no domain.
fn domain_of(sender: &str) -> String {
    match sender.rsplit_once('@') {
        Some((_, domain)) => domain.to_lowercase(),
        None => "<>".into(),
    }
}

/// One more hit. Without its store the filter still refuses; it only forgets who tried before.
fn count(domain: &str, ttl: u32) -> i64 {
    kv::incr(&format!("hits:{domain}"), 1, Some(ttl)).unwrap_or_else(|err| {
        log::write(log::Level::Warn, &format!("hits of {domain} are not counted: {err:?}"));
        1
    })
}
