//! What a reload changes: two configs compared key by key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;

/// Characters of a value that are told.
const MAX_SHOWN: usize = 60;
/// Changes that are told of one reload.
const MAX_TOLD: usize = 1000;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key, like `smtp.max-recipients`, `listener.smtp.chain` or `plugin.header-checks`.
    pub key: String,
    /// `added`, `removed`, or `OLD → NEW`.
    pub what: String,
}

impl Change {
    /// Told in these words.
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into() }
    }
}

/// Every key in which the configs differ. Of plugins' settings the names alone: their values may be secrets.
pub(super) fn between(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    if let (Ok(old), Ok(new)) = (tree(old), tree(new)) {
        compare("", &old, &new, &mut changes);
    }
    changes.truncate(MAX_TOLD);
    changes
}

/// The config as JSON, its listeners by name and not by place.
fn tree(config: &Config) -> serde_json::Result<Value> {
    let mut tree = serde_json::to_value(config)?;
    let by_name: BTreeMap<String, Value> = config
        .listeners
        .iter()
        .map(|own| Ok((own.name.clone(), serde_json::to_value(own)?)))
        .collect::<Result<_, _>>()?;
    tree["listener"] = serde_json::to_value(by_name)?;
    Ok(tree)
}

fn compare(key: &str, old: &Value, new: &Value, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let secret = key.starts_with("plugin.") && key.contains(".settings");
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let absent = Value::Null;
            let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in names {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                compare(&key, old.get(name).unwrap_or(&absent), new.get(name).unwrap_or(&absent), changes);
            }
        }
        (Value::Array(old), Value::Array(new)) if secret && old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                compare(&format!("{key}[{index}]"), old, new, changes);
            }
        }
        (Value::Null, _) if secret || new.is_object() => changes.push(Change::new(key, "added")),
        (_, Value::Null) if secret || old.is_object() => changes.push(Change::new(key, "removed")),
        _ if secret && key.ends_with(".content") => {
            let key = key.strip_suffix(".content").unwrap_or(key);
            changes.push(Change::new(format!("{key}.file"), "the file has changed"));
        }
        _ if secret => changes.push(Change::new(key, "changed")),
        _ => changes.push(Change::new(key, format!("{} → {}", shown(old), shown(new)))),
    }
}

/// A value in the config's words, on one line.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => format!("{text:?}"),
        value => value.to_string(),
    };
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Source;

    const BASE: &str = "[[listener]]\nname = \"smtp\"\naddress = \"[::]:25\"\n";

    fn told(old: &str, new: &str) -> Vec<String> {
        let config = |text: &str| Source::new("test.toml", format!("{BASE}{text}")).parse().unwrap();
        between(&config(old), &config(new))
            .into_iter()
            .map(|change| format!("{}: {}", change.key, change.what))
            .collect()
    }

    #[test]
    fn keys_are_told_with_both_values() {
        assert_eq!(told("", ""), [""; 0]);
        assert_eq!(told("", "[smtp]\nmax-recipients = 50\n"), ["smtp.max-recipients: 1000 → 50"]);
        assert_eq!(told("chain = [\"a\"]", "chain = []"), ["listener.smtp.chain: [\"a\"] → []"]);
        assert_eq!(told("", "[[listener]]\nname = \"more\"\naddress = \"[::]:26\""), ["listener.more: added"]);
        assert_eq!(
            told("[delivery]\nrelay-host = \"a.example\"", ""),
            ["delivery.relay-host: \"a.example:25\" → none"]
        );
    }

    #[test]
    fn settings_keep_their_values_to_themselves() {
        let plugin = |settings: &str| format!("[plugin.x]\nsource = \"x.wasm\"\nsettings = {settings}");
        let changed = |old: &str, new: &str| told(&plugin(old), &plugin(new));
        assert_eq!(changed("{ key = \"one\" }", "{ key = \"two\" }"), ["plugin.x.settings.key: changed"]);
        assert_eq!(changed("{ key = \"one\" }", "{}"), ["plugin.x.settings.key: removed"]);
        assert_eq!(changed("{}", "{ a = { b = 1 } }"), ["plugin.x.settings.a: added"]);
        let file = |text: &str| format!("{{ t = [{{ file = \"f\", content = \"{text}\" }}] }}");
        assert_eq!(changed(&file("one"), &file("two")), ["plugin.x.settings.t[0].file: the file has changed"]);
        assert_eq!(told("", &plugin("{ key = \"one\" }")), ["plugin.x: added"]);
    }
}
