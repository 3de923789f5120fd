//! Refuses mail whose Subject holds one of the configured words. The smallest whole policy: copy it to begin your own.
//!
//! ```toml
//! [plugin.subject-words]
//! source = "subject-words.wasm"
//! settings = { words = ["lottery", "casino"] }
//! ```
//! It needs no grant.

use std::sync::OnceLock;

use exports::wasmta::policy::meta::{ConfigError, Guest as Meta, Manifest};
use exports::wasmta::policy::on_message::{Envelope, Guest as OnMessage, Message, Session, Verdict};
use wasmta::policy::types::{EnhancedStatus, Reply};

wit_bindgen::generate!({
    path: "../../wit",
    inline: "package subject:words; world plugin { export wasmta:policy/meta@0.1.0; export wasmta:policy/on-message@0.1.0; }",
    world: "subject:words/plugin",
    generate_all,
});

struct Plugin;
export!(Plugin);

/// Set by `configure`, which runs once; every call of a hook begins in the state that it left.
static WORDS: OnceLock<Vec<String>> = OnceLock::new();

impl Meta for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "subject-words".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "refuses mail by words in its Subject".into(),
            settings_schema: r#"{"type":"object","properties":{"words":{"type":"array","items":{"type":"string"}}},"required":["words"]}"#.into(),
            symbols: vec![],
        }
    }

    fn configure(settings: String) -> Result<(), ConfigError> {
        let words = parse_words(&settings).map_err(|message| ConfigError {
            key: "words".into(),
            message,
            file: None,
            line: None,
        })?;
        WORDS.get_or_init(|| words);
        Ok(())
    }
}

impl OnMessage for Plugin {
    fn run(_: &Session, _: &Envelope, message: &Message) -> Verdict {
        match message.header("Subject").iter().find_map(|subject| find(subject, WORDS.get()?)) {
            Some(word) => Verdict::Reject(Reply {
                code: 550,
                enhanced: Some(EnhancedStatus { class: 5, subject: 7, detail: 1 }),
                text: format!("we have no interest in {word}"),
            }),
            None => Verdict::Pass,
        }
    }
}

fn parse_words(settings: &str) -> Result<Vec<String>, String> {
    let settings: serde_json::Value = serde_json::from_str(settings).map_err(|err| err.to_string())?;
    let words = settings["words"].as_array().ok_or("a list of words is needed, like [\"lottery\"]")?;
    let word = |word: &serde_json::Value| match word.as_str() {
        Some(word) if !word.is_empty() && !word.contains(char::is_control) => Ok(word.to_lowercase()),
        _ => Err(format!("{word} is no word")),
    };
    words.iter().map(word).collect()
}

fn find<'a>(subject: &str, words: &'a [String]) -> Option<&'a str> {
    let subject = subject.to_lowercase();
    words.iter().map(String::as_str).find(|word| subject.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_any_case() {
        let words = parse_words(r#"{"words": ["Lottery"]}"#).expect("sound settings");
        assert_eq!(find("You won the LOTTERY!", &words), Some("lottery"));
        assert_eq!(find("lots of trees", &words), None);
    }

    #[test]
    fn wrong_settings_are_refused() {
        for settings in ["", "{}", r#"{"words": "lottery"}"#, r#"{"words": [1]}"#, r#"{"words": [""]}"#] {
            assert!(parse_words(settings).is_err(), "{settings}");
        }
    }
}
