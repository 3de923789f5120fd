//! How a config names a table: `hash:/etc/postfix/virtual`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a table is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A text of keys and values; what Postfix compiles with `postmap` or reads as `texthash:`.
    Hash,
    /// POSIX's patterns.
    Regexp,
    /// Perl's patterns.
    Pcre,
    /// Networks.
    Cidr,
    /// Keys and values in the name itself.
    Inline,
    /// The same for every key.
    Static,
}

/// Their names. Postfix's databases of other makes are compiled from the same text, and that is what is read here.
const KINDS: [(&str, Kind); 11] = [
    ("hash", Kind::Hash),
    ("texthash", Kind::Hash),
    ("btree", Kind::Hash),
    ("lmdb", Kind::Hash),
    ("cdb", Kind::Hash),
    ("dbm", Kind::Hash),
    ("regexp", Kind::Regexp),
    ("pcre", Kind::Pcre),
    ("cidr", Kind::Cidr),
    ("inline", Kind::Inline),
    ("static", Kind::Static),
];

/// A text that names no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no table; write TYPE:FILE, like \"hash:/etc/postfix/virtual\"; types are {types}", types = types())]
pub struct NoTable(String);

fn types() -> String {
    KINDS.map(|(name, _)| name).join(", ")
}

/// A table's type and file.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    kind: Kind,
    /// As it is written before the colon.
    label: String,
    name: String,
}

impl TableName {
    /// What it is written in.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// What stands behind the colon: a file, or the content.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its file, if it has one.
    pub fn file(&self) -> Option<&Path> {
        (!matches!(self.kind, Kind::Inline | Kind::Static)).then(|| Path::new(&self.name))
    }
    /// The same with a file name that does not depend on the working directory.
    #[must_use]
    pub fn in_folder(&self, folder: &Path) -> Self {
        let name = match self.file() {
            Some(file) => folder.join(file).to_string_lossy().into_owned(), // an absolute name stays
            None => self.name.clone(),
        };
        Self { name, ..self.clone() }
    }
}

impl FromStr for TableName {
    type Err = NoTable;

    fn from_str(text: &str) -> Result<Self, NoTable> {
        let wrong = || NoTable(text.to_owned());
        let (label, name) = text.split_once(':').ok_or_else(wrong)?;
        let (label, kind) = KINDS.into_iter().find(|(own, _)| *own == label).ok_or_else(wrong)?;
        if name.is_empty() { Err(wrong()) } else { Ok(Self { kind, label: label.to_owned(), name: name.to_owned() }) }
    }
}
impl TryFrom<String> for TableName {
    type Error = NoTable;
    fn try_from(text: String) -> Result<Self, NoTable> {
        text.parse()
    }
}
impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.label, self.name)
    }
}
impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
