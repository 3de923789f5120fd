//! The settings: which tables there are, and limits.

use std::rc::Rc;

use serde_json::Value;
use wasmta_patterns::{Dialect, Fault, Source};

use crate::action::Context;
use crate::rule::Checks;
use crate::section::Section;
use crate::warm;

/// Why the settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refused {
    /// Which setting.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// A table's file.
    pub file: Option<String>,
    /// A line in it.
    pub line: Option<u32>,
}

/// The schema of what `parse` understands.
pub const SCHEMA: &str = r##"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "header_checks": {"$ref": "#/$defs/tables", "description": "for the fields of the message's header"},
    "mime_header_checks": {"$ref": "#/$defs/tables", "description": "for MIME's fields; default: header_checks"},
    "nested_header_checks": {"$ref": "#/$defs/tables", "description": "for messages inside the message; default: header_checks"},
    "body_checks": {"$ref": "#/$defs/tables", "description": "for the lines of bodies"},
    "header_size_limit": {"type": "integer", "minimum": 1, "default": 102400, "description": "octets of a field that are looked at"},
    "line_length_limit": {"type": "integer", "minimum": 1, "default": 2048, "description": "octets of a line that are looked at as one"},
    "body_checks_size_limit": {"type": "integer", "minimum": 0, "default": 51200, "description": "octets of each body that are looked at; 0 is all"},
    "disable_mime_input_processing": {"type": "boolean", "default": false, "description": "all behind the header is body"}
  },
  "$defs": {
    "tables": {"type": "array", "items": {"$ref": "#/$defs/table"}},
    "table": {
      "type": "object",
      "additionalProperties": false,
      "required": ["type"],
      "properties": {
        "type": {"enum": ["regexp", "pcre"]},
        "file": {"type": "string", "description": "a table's file"},
        "content": {"type": "string", "description": "its text; comes from the host"},
        "content-octets": {"type": "string", "description": "the same of a file that is not UTF-8, one character for each octet"},
        "rules": {"type": "string", "description": "the table itself, instead of a file"}
      }
    }
  }
}"##;

const KEYS: [&str; 8] = [
    "header_checks",
    "mime_header_checks",
    "nested_header_checks",
    "body_checks",
    "header_size_limit",
    "line_length_limit",
    "body_checks_size_limit",
    "disable_mime_input_processing",
];
const TABLE_KEYS: [&str; 5] = ["type", "file", "content", "content-octets", "rules"];
/// No limit may be so large that a message could fill the memory with it.
const MAX_LIMIT: u64 = 16 * 1024 * 1024;

/// Reads the settings and compiles all tables.
pub fn parse(settings: &str, warn: &mut dyn FnMut(String)) -> Result<Checks, Refused> {
    let settings: Value = serde_json::from_str(settings).map_err(|err| refused("", format!("no JSON: {err}")))?;
    let Value::Object(settings) = settings else { return Err(refused("", "an object is needed".into())) };
    check_keys("", settings.keys(), &KEYS)?;
    let mut checks = Checks::default();
    let limit = |key: &str, default: u64, least: u64| match settings.get(key) {
        None => Ok(default),
        Some(value) => value.as_u64().filter(|value| (least..=MAX_LIMIT).contains(value)).ok_or_else(|| {
            refused(key, format!("a number of octets from {least} to {MAX_LIMIT} is needed, not {value}"))
        }),
    };
    let size = |octets: u64| usize::try_from(octets).unwrap_or(usize::MAX);
    checks.limits.header_size = size(limit("header_size_limit", checks.limits.header_size as u64, 1)?);
    checks.limits.line_length = size(limit("line_length_limit", checks.limits.line_length as u64, 1)?);
    checks.limits.body_checks_size = limit("body_checks_size_limit", checks.limits.body_checks_size, 0)?;
    checks.no_mime = match settings.get("disable_mime_input_processing") {
        None => false,
        Some(value) => value
            .as_bool()
            .ok_or_else(|| refused("disable_mime_input_processing", format!("true or false is needed, not {value}")))?,
    };
    let mut section = |key: &str, context| match settings.get(key) {
        None => Ok(None),
        Some(value) => compile(key, value, context, warn),
    };
    checks.header = section("header_checks", Context::Header)?;
    // As in Postfix: what is not set is as header_checks, and an empty list is none.
    let mut like_header = |key| match settings.contains_key(key) {
        true => section(key, Context::Header),
        false => Ok(checks.header.clone()),
    };
    checks.mime = like_header("mime_header_checks")?;
    checks.nested = like_header("nested_header_checks")?;
    checks.body = section("body_checks", Context::Body)?;
    Ok(checks)
}

fn refused(key: &str, message: String) -> Refused {
    Refused { key: key.into(), message, ..Refused::default() }
}

fn compile(
    key: &str,
    value: &Value,
    context: Context,
    warn: &mut dyn FnMut(String),
) -> Result<Option<Rc<Section>>, Refused> {
    let single = std::slice::from_ref(value);
    let (tables, list) = match value {
        Value::Array(tables) => (tables.as_slice(), true),
        Value::Object(_) => (single, false),
        other => return Err(refused(key, format!("a list of tables is needed, not {other}"))),
    };
    if tables.is_empty() {
        return Ok(None);
    }
    let name = |index: usize| if list { format!("{key}.{index}") } else { key.to_owned() };
    let sources = tables.iter().enumerate().map(|(index, table)| source(&name(index), table));
    let sources = sources.collect::<Result<Vec<Source>, Refused>>()?;
    let section = Section::new(&sources, context, warn).map_err(|(index, fault, message)| {
        let file = tables.get(index).and_then(|table| table.get("file")).and_then(Value::as_str).map(str::to_owned);
        let place = match &fault {
            Some(Fault { line, .. }) if file.is_none() => format!("line {line}: "),
            _ => String::new(),
        };
        Refused { key: name(index), message: place + &message, file, line: fault.map(|fault| fault.line) }
    })?;
    section.warm(&match context {
        Context::Header => warm::headers(),
        Context::Body => warm::bodies(),
    });
    Ok(Some(Rc::new(section)))
}

fn source(key: &str, table: &Value) -> Result<Source, Refused> {
    let Value::Object(table) = table else {
        return Err(refused(key, format!("a table like {{type = \"pcre\", file = \"NAME\"}} is needed, not {table}")));
    };
    check_keys(key, table.keys(), &TABLE_KEYS)?;
    let dialect = match table.get("type").and_then(Value::as_str) {
        Some("pcre") => Dialect::Perl,
        Some("regexp") => Dialect::Posix,
        Some(other) => {
            return Err(refused(&format!("{key}.type"), format!("`pcre` or `regexp` is needed, not `{other}`")));
        }
        None => return Err(refused(key, "`type` is missing: `pcre` or `regexp`".into())),
    };
    let text = |name: &str| match table.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(refused(&format!("{key}.{name}"), format!("a text is needed, not {other}"))),
    };
    let content = match (text("content")?, text("content-octets")?) {
        (Some(text), None) => Some(text.into_bytes()),
        (None, Some(octets)) => {
            let octets: Result<Vec<u8>, _> = octets.chars().map(u8::try_from).collect();
            Some(octets.map_err(|_| refused(key, "`content-octets` has characters that are no octets".into()))?)
        }
        (None, None) => None,
        (Some(_), Some(_)) => return Err(refused(key, "either `content` or `content-octets` is needed".into())),
    };
    match (text("file")?, content, text("rules")?) {
        (Some(name), Some(content), None) => Ok(Source { name, dialect, text: content }),
        (None, None, Some(rules)) => Ok(Source { name: key.to_owned(), dialect, text: rules.into_bytes() }),
        (Some(file), None, None) => {
            Err(Refused { file: Some(file), ..refused(key, "the host did not read this file".into()) })
        }
        _ => Err(refused(key, "either `file` or `rules` is needed".into())),
    }
}

fn check_keys<'a>(place: &str, keys: impl Iterator<Item = &'a String>, known: &[&str]) -> Result<(), Refused> {
    for key in keys {
        if !known.contains(&key.as_str()) {
            let nearest = known.iter().min_by_key(|known| distance(known, key)).copied().unwrap_or_default();
            let key = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
            return Err(refused(&key, format!("there is no such setting; `{nearest}` comes nearest")));
        }
    }
    Ok(())
}

/// How many letters must be changed, added or left out to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, a) in one.bytes().enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(other.bytes()) {
            let cost = (diagonal + usize::from(a != b)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
