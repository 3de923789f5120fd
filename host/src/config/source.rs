//! The config's text: every fault found in it, at whatever time, is told with file, line and column.

use std::fmt;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::nearest;

/// The largest config file, in octets.
const MAX_CONFIG: u64 = 4 << 20;

/// One clear message: `FILE:LINE:COLUMN: what is wrong; what to do`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    file: PathBuf,
    place: Option<Place>,
    message: String,
}

/// Line and column, from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl ConfigError {
    /// A fault of a whole file.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.into(), place: None, message: message.into() }
    }
    /// Where in the file, if one place is at fault.
    pub fn place(&self) -> Option<Place> {
        self.place
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A config file's name and text.
#[derive(Debug, Clone)]
pub struct Source {
    file: PathBuf,
    text: String,
}

impl Source {
    /// From a text that somebody else read.
    pub fn new(file: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { file: file.into(), text: text.into() }
    }

    /// Reads the file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        match read_text(file, MAX_CONFIG) {
            Ok(text) => Ok(Self { file: file.into(), text }),
            Err(why) => Err(ConfigError::of_file(file, format!("{why}; name the config file with -c FILE"))),
        }
    }

    /// The file's name.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The folder that relative names in the config start from.
    pub fn folder(&self) -> &Path {
        match self.file.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    /// The text as a config.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|err| self.explain(&err))
    }

    /// A fault at the value that lies at `path`, like `["listener", "0", "chain"]`; or at the innermost table that is there.
    pub fn error_at<S: AsRef<str>>(&self, path: &[S], message: impl fmt::Display) -> ConfigError {
        let span = DeTable::parse(&self.text).ok().and_then(|root| {
            let (first, rest) = path.split_first()?;
            let (key, value) = root.get_ref().get_key_value(first.as_ref())?;
            Some(innermost(key.span(), value, rest))
        });
        let place = self.place(span.map_or(0, |span| span.start));
        ConfigError { file: self.file.clone(), place: Some(place), message: format!("{}: {message}", dotted(path)) }
    }

    fn explain(&self, err: &toml::de::Error) -> ConfigError {
        let message = err.message();
        let key = err.span().and_then(|span| self.key_at(&span)).unwrap_or_default();
        let message = if let Some(told) = explain_unknown(message) {
            told
        } else if let Some(name) = quoted(message, "missing field `") {
            match key.as_str() {
                "" => format!("key `{name}` is missing; add it"),
                key => format!("key `{name}` is missing in `{key}`; add it"),
            }
        } else if key.is_empty() {
            format!("{message}; correct the line")
        } else {
            format!("{key}: {message}")
        };
        let place = err.span().map(|span| self.place(span.start));
        ConfigError { file: self.file.clone(), place, message }
    }

    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        Place { line: before.bytes().filter(|octet| *octet == b'\n').count() + 1, column }
    }

    /// The dotted key of the innermost value that holds all of `span`.
    fn key_at(&self, span: &Range<usize>) -> Option<String> {
        fn descend(value: &DeValue<'_>, span: &Range<usize>, path: &mut Vec<String>) {
            let children: Vec<(String, _)> = match value {
                DeValue::Table(table) => table.iter().map(|(key, value)| (key.get_ref().to_string(), value)).collect(),
                DeValue::Array(items) => items.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect(),
                _ => return,
            };
            // A table's own span is its header alone, so tables are entered on trial.
            for (key, child) in children {
                let own = child.span().start <= span.start && span.end <= child.span().end;
                let depth = path.len();
                path.push(key);
                descend(child.get_ref(), span, path);
                if own || path.len() > depth + 1 {
                    return;
                }
                path.truncate(depth);
            }
        }
        let root = DeTable::parse(&self.text).ok()?;
        let mut path = Vec::new();
        descend(&DeValue::Table(root.into_inner()), span, &mut path);
        (!path.is_empty()).then(|| dotted(&path))
    }
}

/// The span of what lies at `path` below `value`, or as far as that leads.
fn innermost<S: AsRef<str>>(key: Range<usize>, value: &toml::Spanned<DeValue<'_>>, path: &[S]) -> Range<usize> {
    let here = match value.get_ref() {
        // A table's own span may begin at any of its keys; its name is what people look for.
        DeValue::Table(_) => key,
        _ => value.span(),
    };
    let Some((first, rest)) = path.split_first() else {
        return here;
    };
    match value.get_ref() {
        DeValue::Table(table) => {
            table.get_key_value(first.as_ref()).map(|(key, child)| innermost(key.span(), child, rest))
        }
        DeValue::Array(items) => {
            let child = first.as_ref().parse::<usize>().ok().and_then(|index| items.get(index));
            child.map(|child| innermost(child.span(), child, rest))
        }
        _ => None,
    }
    .unwrap_or(here)
}

fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    let mut text = String::new();
    for part in path {
        let part = part.as_ref();
        if part.bytes().all(|octet| octet.is_ascii_digit()) && !text.is_empty() {
            text.push_str(&format!("[{part}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(part);
        }
    }
    text
}

/// What stands between `before` and the next backquote.
fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.strip_prefix(before)?.split_once('`').map(|(name, _)| name)
}

/// serde's "unknown field" and "unknown variant", with the nearest known name.
fn explain_unknown(message: &str) -> Option<String> {
    let (what, name) = match (quoted(message, "unknown field `"), quoted(message, "unknown variant `")) {
        (Some(name), _) => ("key", name),
        (None, Some(name)) => ("value", name),
        (None, None) => return None,
    };
    let expected = message.split_once("expected ").map_or("", |(_, expected)| expected);
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    Some(match (nearest(name, known.iter().copied()), known.len()) {
        (Some(best), _) => format!("unknown {what} `{name}`; did you mean `{best}`?"),
        (None, 0) => format!("unknown {what} `{name}`; remove it"),
        (None, _) => format!("unknown {what} `{name}`; known here: {}", known.join(", ")),
    })
}

/// A text file of at most `limit` octets; what is wrong otherwise, as half a sentence.
pub(super) fn read_text(file: &Path, limit: u64) -> Result<String, String> {
    String::from_utf8(read_octets(file, limit)?).map_err(|err| {
        let valid = err.utf8_error().valid_up_to();
        let line = err.as_bytes().iter().take(valid).filter(|octet| **octet == b'\n').count() + 1;
        format!("is not UTF-8 in line {line}")
    })
}

/// A regular file's octets, at most so many.
pub(super) fn read_octets(file: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let failed = |err: std::io::Error| format!("cannot be read: {}", io_words(&err));
    // Looked at before it is opened: opening a named pipe would wait for somebody to write.
    if !std::fs::metadata(file).map_err(failed)?.is_file() {
        return Err("is not a regular file".into());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(file).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(format!("is larger than {}", crate::units::ByteSize::from_bytes(limit)));
    }
    Ok(bytes)
}

/// The system's words without its number: "No such file or directory".
pub(super) fn io_words(err: &std::io::Error) -> String {
    let text = err.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words).to_owned()
}
