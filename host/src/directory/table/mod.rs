//! Lookup tables in Postfix's formats: a key goes in, a text comes out, and with it the file and line that said so.
//! `man 5 postmap`, `regexp_table`, `pcre_table`, `cidr_table`; `man 3 DATABASE_README`.
//!
//! One file for each format. What Postfix would leave out with a warning is an error here, so that nobody trusts a line that is not there.
//! Tables are read whole; a lookup never waits.

mod cidr;
mod file;
mod inline;
mod live;
mod name;
mod pattern;
mod text;

use std::fmt;
use std::path::PathBuf;

pub use live::{Live, Tables};
pub use name::{Kind, TableName};

use cidr::Networks;
use pattern::Patterns;
use text::Pairs;

/// What a table is used for, which decides how it is written and what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// `key value`, and `$1` in the results of patterns.
    General,
    /// As `General`, but a result has no `$1`: what a stranger wrote may not become part of a place to deliver to.
    Delivery,
    /// `key: value, value …`, as `man 5 aliases` has it; no `$1` either.
    Aliases,
}

/// Whether a key is all of what was asked about, or a piece of it. Patterns and networks are never shown pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// All of it.
    Whole,
    /// A piece: a parent domain, an address without its extension.
    Piece,
}

/// What a table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The text.
    pub value: String,
    /// Which table.
    pub table: TableName,
    /// Where in its file, from 1; none if it has no file.
    pub line: Option<u32>,
}

impl fmt::Display for Found {
    /// `FILE:LINE: VALUE`, as grep(1) writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.table.name(), self.value),
            None => f.write_str(&self.value),
        }
    }
}

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file cannot be read.
    #[error("{file} cannot be read: {reason}; correct the name or the file")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// A line is wrong.
    #[error("{file}:{line}: {message}")]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u32,
        /// What is wrong, and what to write.
        message: String,
    },
    /// All of it is wrong, or what stands in the config itself.
    #[error("{name}: {message}")]
    Whole {
        /// The table.
        name: TableName,
        /// What is wrong, and what to write.
        message: String,
    },
}

/// A line that is wrong, before it is known in which file: from 1, and why.
type Fault = (u32, String);

/// A table as it was read.
#[derive(Debug)]
pub struct Table {
    name: TableName,
    content: Content,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Content {
    Pairs(Pairs),
    Patterns(Box<Patterns>),
    Networks(Networks),
    Static(String),
}

impl Table {
    /// Reads it.
    pub fn open(name: &TableName, purpose: Purpose) -> Result<Self, TableError> {
        let whole = |message: String| TableError::Whole { name: name.clone(), message };
        let mut warnings = Vec::new();
        let content = match name.kind() {
            Kind::Static => Content::Static(inline::unbraced(name.name()).map_err(whole)?.to_owned()),
            Kind::Inline => Content::Pairs(inline::parse(name.name()).map_err(whole)?),
            Kind::Hash | Kind::Cidr | Kind::Regexp | Kind::Pcre => {
                let file = PathBuf::from(name.name());
                let text = file::read(&file).map_err(|reason| TableError::Read { file: file.clone(), reason })?;
                let warn =
                    &mut |line: u32, message: String| warnings.push(format!("{}:{line}: {message}", name.name()));
                let parsed = match (name.kind(), purpose) {
                    (Kind::Hash, Purpose::Aliases) => text::aliases(&text, warn).map(Content::Pairs),
                    (Kind::Cidr, _) => cidr::parse(&text, warn).map(Content::Networks),
                    (Kind::Regexp | Kind::Pcre, _) => {
                        Patterns::new(name, text, purpose, &mut |warning| warnings.push(warning))
                            .map(|patterns| Content::Patterns(Box::new(patterns)))
                    }
                    _ => text::pairs(&text, warn).map(Content::Pairs),
                };
                parsed.map_err(|(line, message)| match line {
                    0 => whole(message),
                    line => TableError::Line { file, line, message },
                })?
            }
        };
        Ok(Self { name: name.clone(), content, warnings })
    }

    /// How it is named.
    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// What is odd in it but does no harm, each with its file and line.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What it says to a key. An empty key is never there.
    pub fn look_up(&self, text: &str, key: Key) -> Option<Found> {
        if text.is_empty() {
            return None;
        }
        let (value, line) = match (&self.content, key) {
            (Content::Static(value), _) => (value.clone(), None),
            (Content::Pairs(pairs), _) => pairs.get(text).map(|(value, line)| (value.to_owned(), line))?,
            (Content::Patterns(patterns), Key::Whole) => {
                patterns.look_up(text).map(|(value, line)| (value, Some(line)))?
            }
            (Content::Networks(networks), Key::Whole) => {
                networks.look_up(text).map(|(value, line)| (value.to_owned(), Some(line)))?
            }
            (Content::Patterns(_) | Content::Networks(_), Key::Piece) => return None,
        };
        Some(Found { value, table: self.name.clone(), line })
    }
}

#[cfg(test)]
mod tests;
