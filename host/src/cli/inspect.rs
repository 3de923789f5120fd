//! `wasmta plugin inspect`: what a component says of itself, for people.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::Value;

use super::check::Scratch;
use super::{Failure, code, print_json, wait_for};
use crate::plugin::{self, Inspection, LoadError, Runtime, Sandbox, Services};

/// Levels of a schema that are shown; one may hold itself.
const MAX_DEPTH: usize = 8;
/// Settings that are shown.
const MAX_SHOWN: usize = 500;

/// A sandbox to look at one component in.
pub(super) struct Looked {
    pub sandbox: Sandbox,
    pub _scratch: Scratch,
}

pub(super) fn looking_glass() -> Result<Looked, Failure> {
    let scratch = Scratch::new()?;
    let runtime = Runtime { cache_dir: scratch.0.clone(), instances: 1, ..Runtime::default() };
    let sandbox = Sandbox::new(&runtime, Services::default()).map_err(|err| Failure::new(code::SYSTEM, err))?;
    Ok(Looked { sandbox, _scratch: scratch })
}

/// Shows it.
pub(super) fn run(file: PathBuf, json: bool) -> Result<(), Failure> {
    let wrong = |err: LoadError| match err {
        LoadError::File { .. } | LoadError::NotAComponent { .. } => Failure::new(code::DATA, err), // they name it
        err => Failure::new(code::DATA, format_args!("{}: {err}", file.display())),
    };
    let Looked { sandbox, _scratch } = looking_glass()?;
    let inspection = wait_for(sandbox.inspect(&plugin::Config::new(file.clone())))?.map_err(wrong)?;
    if json {
        let grants = inspection.grants();
        let mut value = serde_json::to_value(&inspection)?;
        if let Some(value) = value.as_object_mut() {
            value.insert("grants".into(), grants.into());
        }
        return print_json(&value);
    }
    Ok(show(&inspection, &mut io::stdout().lock())?)
}

/// What the config writes to grant these.
pub(super) fn grants_line(grants: &[String]) -> String {
    format!("grants = {grants:?}")
}

fn show(inspection: &Inspection, out: &mut impl Write) -> io::Result<()> {
    let manifest = &inspection.manifest;
    writeln!(out, "{} {}: {}", manifest.name, manifest.version, manifest.summary)?;
    writeln!(out, "{}, {} octets", inspection.digest, inspection.size)?;
    writeln!(out, "hooks: {}", inspection.hooks.join(", "))?;
    writeln!(out, "imports: {}", inspection.imports.join(", "))?;
    match inspection.grants().as_slice() {
        [] => writeln!(out, "grants: it needs none")?,
        grants => writeln!(out, "grants: the config has to say {}", grants_line(grants))?,
    }
    if !manifest.symbols.is_empty() {
        writeln!(out, "symbols:")?;
    }
    for (symbol, weight, summary) in &manifest.symbols {
        writeln!(out, "    {symbol} ({weight}): {summary}")?;
    }
    match serde_json::from_str(&manifest.settings_schema) {
        Ok(schema) => settings(&schema, out),
        Err(_) if manifest.settings_schema.trim().is_empty() => writeln!(out, "settings: it says nothing of them"),
        Err(err) => writeln!(out, "settings: its schema is no JSON: {err}"),
    }
}

fn settings(schema: &Value, out: &mut impl Write) -> io::Result<()> {
    if schema.get("properties").and_then(Value::as_object).is_none_or(serde_json::Map::is_empty) {
        writeln!(out, "settings: none")?;
        return Ok(());
    }
    writeln!(out, "settings:")?;
    let mut left = MAX_SHOWN;
    properties(schema, schema, (1, &mut left), out)?;
    if left == 0 { writeln!(out, "    and more") } else { Ok(()) }
}

/// The members of an object, each with its type, its default and what is said about it.
fn properties(
    schema: &Value,
    root: &Value,
    (depth, left): (usize, &mut usize),
    out: &mut impl Write,
) -> io::Result<()> {
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, own) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        let own = resolved(own, root);
        let indent = "    ".repeat(depth);
        let default = match own.get("default") {
            Some(default) => format!(", default {default}"),
            None if required.contains(&key.as_str()) => ", required".to_owned(),
            None => String::new(),
        };
        writeln!(out, "{indent}{}: {}{default}{}", clean(key), kind(own, root), bounds(own))?;
        if let Some(text) = own.get("description").or_else(|| own.get("title")).and_then(Value::as_str) {
            writeln!(out, "{indent}    {}", clean(text))?;
        }
        if depth >= MAX_DEPTH {
            continue;
        }
        properties(own, root, (depth + 1, left), out)?;
        if let Some(items) = own.get("items") {
            properties(resolved(items, root), root, (depth + 1, left), out)?;
        }
    }
    Ok(())
}

/// `text`, `list of integer`, `"a" or "b"`.
fn kind(schema: &Value, root: &Value) -> String {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values.iter().take(20).map(Value::to_string).collect();
        return clean(&values.join(" or "));
    }
    for several in ["oneOf", "anyOf"] {
        if let Some(kinds) = schema.get(several).and_then(Value::as_array) {
            let kinds: Vec<String> = kinds.iter().take(20).map(|own| kind_once(resolved(own, root))).collect();
            return clean(&kinds.join(" or "));
        }
    }
    match (schema.get("type").and_then(Value::as_str), schema.get("items")) {
        (Some("array"), Some(items)) => format!("list of {}", kind_once(resolved(items, root))),
        _ => kind_once(schema),
    }
}

fn kind_once(schema: &Value) -> String {
    let word = |kind: &str| match kind {
        "string" => "text".to_owned(),
        "object" => "table".to_owned(),
        "array" => "list".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => clean(other),
    };
    match schema.get("type") {
        Some(Value::String(kind)) => word(kind),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).map(word).collect::<Vec<_>>().join(" or "),
        _ => schema.get("const").map_or_else(|| "anything".to_owned(), |value| clean(&value.to_string())),
    }
}

fn bounds(schema: &Value) -> String {
    let limits = [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minLength", "characters, at least"),
        ("maxLength", "characters, at most"),
        ("minItems", "entries, at least"),
        ("maxItems", "entries, at most"),
        ("pattern", "like"),
    ];
    let told = limits.iter().filter_map(|(key, words)| Some(format!(", {words} {}", schema.get(key)?)));
    clean(&told.collect::<String>())
}

/// What a `$ref` within the same schema means.
fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let pointer = schema.get("$ref").and_then(Value::as_str).and_then(|own| own.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// The words are a component's own: they stay on their line and within bounds.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shown(schema: &str) -> String {
        let mut out = Vec::new();
        settings(&serde_json::from_str(schema).unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_schema_for_people() {
        let text = shown(
            r##"{"type": "object", "required": ["words"], "properties": {
                "words": {"type": "array", "items": {"type": "string"}, "description": "What is refused.", "minItems": 1},
                "mode": {"enum": ["a", "b"], "default": "a"},
                "limit": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
                "tables": {"type": "array", "items": {"$ref": "#/$defs/table"}},
                "either": {"oneOf": [{"type": "string"}, {"type": "boolean"}]}},
              "$defs": {"table": {"type": "object", "properties": {"file": {"type": "string", "description": "Its\nname."}}}}}"##,
        );
        for line in [
            "    words: list of text, required, entries, at least 1\n        What is refused.\n",
            "    mode: \"a\" or \"b\", default \"a\"\n",
            "    limit: integer, default 3, at least 1, at most 9\n",
            "    tables: list of table\n        file: text\n            Its name.\n",
            "    either: text or true or false\n",
        ] {
            assert!(text.contains(line), "{line}in\n{text}");
        }
    }

    #[test]
    fn hostile_schemas_end() {
        let circle = r##"{"properties": {"a": {"$ref": "#"}}}"##;
        assert!(shown(circle).lines().count() < 100);
        let wide =
            r##"{"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}, "c": {"$ref": "#"}, "d": {"$ref": "#"}}}"##;
        assert!(shown(wide).lines().count() < 2000);
        assert_eq!(shown("{}"), "settings: none\n");
        assert_eq!(shown("[1]"), "settings: none\n");
        assert!(!shown("{\"properties\": {\"a\\u001b[31m\": {\"type\": \"\\u0007\"}}}").contains('\u{1b}'));
    }
}
