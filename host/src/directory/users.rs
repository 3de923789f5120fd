//! Who has a mailbox.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Config, is_routed};

/// Octets of a user's name.
const MAX_NAME: usize = 64;
/// Octets of a users' file: some millions of names.
const MAX_FILE: u64 = 64 << 20;

/// Why the users are not known.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// A name in the config that cannot be a user's. The key, then the name.
    #[error("`{1}` is no user name; write it without domain, delimiter, `/` or control characters, at most 64 octets")]
    Name(String, String),
    /// A line in the users' file that cannot be a user's.
    #[error("{file}:{line}: `{name}` is no user name; write one name a line, without domain or `/`")]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What stands there.
        name: String,
    },
    /// A delimiter that could not be told from a name or a route.
    #[error(
        "`{0}` cannot end a user's name; use ASCII punctuation other than `@`, `%`, `!`, `/`, `.` and `\"`, like \"+\""
    )]
    Delimiter(char),
    /// The users' file cannot be read.
    #[error("{0} cannot be read: {1}; correct the name or the file")]
    File(PathBuf, std::io::Error),
}

/// Users' names in lower case, with the name as it was written.
type Names = HashMap<Box<str>, Box<str>>;

/// Who has a mailbox, and who stands in for names that nobody has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Users {
    names: Names,
    any: bool,
    catch_all: Option<String>,
    postmaster: String,
    delimiters: String,
}

impl UsersError {
    /// The key in `[directory]` that is at fault.
    pub fn key(&self) -> &str {
        match self {
            Self::Name(key, _) => key,
            Self::Delimiter(_) => "recipient-delimiter",
            Self::Line { .. } | Self::File(..) => "users-file",
        }
    }
}

impl Users {
    /// Takes them from the config and the file that it names.
    pub(super) fn read(config: &Config) -> Result<Self, UsersError> {
        let listed = config.users.iter().enumerate().map(|(index, name)| (format!("users.{index}"), name));
        let catch_all = config.catch_all.iter().map(|name| ("catch-all".to_owned(), name));
        let single = catch_all.chain([("postmaster".to_owned(), &config.postmaster)]);
        for (key, name) in listed.chain(single) {
            if !is_name(name) {
                return Err(UsersError::Name(key, name.clone()));
            }
        }
        if let Some(wrong) =
            config.recipient_delimiter.chars().find(|c| !c.is_ascii_punctuation() || "@%!/.\"\\".contains(*c))
        {
            return Err(UsersError::Delimiter(wrong));
        }
        let mut names: Names = config.users.iter().map(|name| entry(name)).collect();
        if let Some(file) = &config.users_file {
            names.extend(names_in_file(file)?);
        }
        Ok(Self {
            names,
            any: config.any_user,
            catch_all: config.catch_all.clone(),
            postmaster: config.postmaster.clone(),
            delimiters: config.recipient_delimiter.clone(),
        })
    }

    /// Who gets the host's own mail.
    pub(super) fn postmaster(&self) -> &str {
        &self.postmaster
    }

    /// The user that a local part (its quotes undone) means, and the extension: all of it if a user has that name, else what stands
    /// before the first delimiter.
    pub(super) fn find<'a>(&self, local_part: &'a str) -> Option<(String, Option<&'a str>)> {
        if let Some(user) = self.known(local_part) {
            return Some((user, None));
        }
        // A delimiter at the very start leaves no name, so it is none.
        let first = local_part.chars().next()?.len_utf8();
        let rest = local_part.get(first..)?;
        let split = rest.find(|c| self.delimiters.contains(c)).and_then(|at| local_part.split_at_checked(first + at));
        let (name, extension) = match split {
            Some((name, tail)) => (name, tail.get(1..)), // delimiters are ASCII
            None => (local_part, None),
        };
        let user = self.known(name).or_else(|| (self.any && is_path_safe(name)).then(|| name.to_lowercase()));
        match user {
            Some(user) => Some((user, extension)),
            None => self.catch_all.clone().map(|user| (user, None)),
        }
    }

    fn known(&self, name: &str) -> Option<String> {
        let key = name.to_lowercase();
        match self.names.get(key.as_str()) {
            Some(user) => Some(user.to_string()),
            None => (key == "postmaster").then(|| self.postmaster.clone()),
        }
    }
}

fn entry(name: &str) -> (Box<str>, Box<str>) {
    (name.to_lowercase().into(), name.into())
}

/// Whether an operator may give this name to a user: one part of a path, and nothing that reads like a route.
fn is_name(name: &str) -> bool {
    let sound = !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.') && !is_routed(name);
    sound && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control() || c.is_whitespace())
}

/// Whether a name that a stranger chose may become part of a path.
fn is_path_safe(name: &str) -> bool {
    is_name(name) && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet))
}

fn names_in_file(file: &Path) -> Result<Names, UsersError> {
    let failed = |err| UsersError::File(file.into(), err);
    // Looked at before it is opened: opening a named pipe would wait for somebody to write.
    let facts = std::fs::metadata(file).map_err(failed)?;
    if !facts.is_file() || facts.len() > MAX_FILE {
        return Err(failed(std::io::Error::other("not a regular file of at most 64 MiB")));
    }
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let lines = text.lines().map(str::trim).enumerate();
    let entries = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    entries
        .map(|(index, line)| {
            let name = line.split(':').next().unwrap_or(line).trim_end();
            let wrong = || UsersError::Line { file: file.into(), line: index + 1, name: name.into() };
            is_name(name).then(|| entry(name)).ok_or_else(wrong)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn in_file(text: &str) -> Result<Users, UsersError> {
        let file = std::env::temp_dir().join(format!("wasmta-users-{}-{}", std::process::id(), fastrand::u64(..)));
        std::fs::write(&file, text).unwrap();
        let users = Users::read(&Config { users_file: Some(file.clone()), ..Config::default() });
        std::fs::remove_file(file).unwrap();
        users
    }

    #[test]
    fn a_file_of_users() {
        let users = in_file("# people\r\nann\r\n\n Bob:x:1000:1000::/home/bob:/bin/sh\n").unwrap();
        assert_eq!(users.find("ANN"), Some(("ann".into(), None)));
        assert_eq!(users.find("bob+x"), Some(("Bob".into(), Some("x"))));
        assert_eq!(users.find("# people"), None);
        for (text, line) in [("ann\nann@example.org\n", 2), ("../etc\n", 1), (":x:0\n", 1), ("a b\n", 1)] {
            assert!(matches!(in_file(text), Err(UsersError::Line { line: at, .. }) if at == line), "{text:?}");
        }
    }

    #[test]
    fn names_that_cannot_be() {
        for name in ["", "a/b", "..", ".hidden", "a@b", "a%b", "a!b", "a b", "a\0", &"a".repeat(65)] {
            let config = Config { users: vec!["ann".into(), name.into()], ..Config::default() };
            assert_eq!(Users::read(&config).unwrap_err().key(), "users.1", "{name:?}");
        }
        for delimiter in ["@", "+%", "a", ".", "é", " "] {
            let config = Config { recipient_delimiter: delimiter.into(), ..Config::default() };
            assert_eq!(Users::read(&config).unwrap_err().key(), "recipient-delimiter", "{delimiter:?}");
        }
        let missing = Config { users_file: Some("/nonexistent/users".into()), ..Config::default() };
        assert!(matches!(Users::read(&missing), Err(UsersError::File(..))));
        let folder = Config { users_file: Some("/".into()), ..Config::default() };
        assert!(matches!(Users::read(&folder), Err(UsersError::File(..))));
    }

    #[test]
    fn several_delimiters_and_none() {
        let users = |delimiter: &str| {
            let config =
                Config { users: vec!["ann".into()], recipient_delimiter: delimiter.into(), ..Config::default() };
            Users::read(&config).unwrap()
        };
        assert_eq!(users("+-").find("ann-a+b"), Some(("ann".into(), Some("a+b"))));
        assert_eq!(users("").find("ann+a"), None);
        assert_eq!(users("+").find("é+a"), None);
        assert_eq!(users("+").find(""), None);
    }
}
