//! Lists of tables, and the keys that they are asked for, in Postfix's order: the whole address, then less and less of it.
//! `man 5 access`, `canonical`, `virtual`, `relocated`.

use std::net::IpAddr;
use std::sync::Arc;

use super::address::{Plain, quoted};
use super::table::{Found, Key, Live};

/// Tables that are asked in order; the first that has a key counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Maps(pub Vec<Arc<Live>>);

/// A key that a table had.
#[derive(Debug)]
pub(super) struct Match {
    pub found: Found,
    /// The extension, with its delimiter, if the key was without it.
    pub extension: Option<String>,
}

/// One thing to ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    text: String,
    key: Key,
    extension: Option<String>,
}

impl Question {
    fn whole(text: String) -> Self {
        Self { text, key: Key::Whole, extension: None }
    }
    fn piece(text: String) -> Self {
        Self { text, key: Key::Piece, extension: None }
    }
}

impl Maps {
    /// The first answer to the first question that has one.
    pub fn find(&self, questions: impl IntoIterator<Item = Question>) -> Option<Match> {
        if self.0.is_empty() {
            return None;
        }
        questions.into_iter().find_map(|Question { text, key, extension }| {
            let found = self.0.iter().find_map(|table| table.look_up(&text, key))?;
            Some(Match { found, extension })
        })
    }
}

/// Which pieces of an address are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As `man 5 virtual`: `user+extension@domain`, `user@domain`; if the domain is local `user+extension`, `user`; then `@domain`.
    Rewriting {
        /// Whether the domain is local.
        local: bool,
    },
    /// As `man 5 access`: `user+extension@domain`, `user@domain`, the domain and those above it, `user+extension@`, `user@`.
    Access(Above),
}

/// How a domain stands for those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Above {
    /// `example.org` means itself and all below it.
    Plain,
    /// `.example.org` means all below it.
    Dotted,
}

/// What to ask about an address. With quotes first, then without, as Postfix does.
pub(super) fn about_address(address: &Plain, delimiters: &str, form: Form) -> Vec<Question> {
    let bare = address.without_extension(delimiters);
    let both = |behind: &str, first: Key| {
        let mut questions = Vec::new();
        let mut ask = |local: &str, key: Key, extension: Option<&str>| {
            for left in [quoted(local), local.to_owned()] {
                let text = left + behind;
                let extension = extension.map(str::to_owned);
                if questions.last().is_none_or(|last: &Question| last.text != text) {
                    questions.push(Question { text, key, extension });
                }
            }
        };
        ask(&address.local, first, None);
        if let Some((bare, extension)) = &bare {
            ask(&bare.local, Key::Piece, Some(extension));
        }
        questions
    };
    let at_domain = format!("@{}", address.domain);
    let mut questions = both(&at_domain, Key::Whole);
    match form {
        Form::Rewriting { local } => {
            if local {
                questions.extend(both("", Key::Piece));
            }
            questions.push(Question::piece(at_domain));
        }
        Form::Access(above) => {
            let domains = about_domain(&address.domain, above);
            questions.extend(domains.into_iter().map(|question| Question { key: Key::Piece, ..question }));
            questions.extend(both("@", Key::Piece));
        }
    }
    questions
}

/// What to ask about a local part in tables of aliases.
pub(super) fn about_alias(local: &str) -> [Question; 2] {
    [Question::whole(quoted(local)), Question::whole(local.to_owned())]
}

/// What to ask about the name of a host: it and the domains above it. A name that is an address has none above it.
pub(super) fn about_domain(name: &str, above: Above) -> Vec<Question> {
    let mut questions = vec![Question::whole(name.to_owned())];
    if name.parse::<IpAddr>().is_ok() || name.starts_with('[') {
        return questions;
    }
    let mut rest = name;
    while let Some(dot) = rest.get(1..).and_then(|tail| tail.find('.')).map(|dot| dot + 1) {
        let dotted = rest.get(dot..).unwrap_or_default();
        let next = match above {
            Above::Plain => dotted.get(1..).unwrap_or_default(),
            Above::Dotted => dotted,
        };
        if next.is_empty() {
            break;
        }
        questions.push(Question::piece(next.to_owned()));
        rest = next;
    }
    questions
}

/// What to ask about a client's address: all of it, and less and less of its octets or groups.
pub(super) fn about_client(address: IpAddr) -> Vec<Question> {
    let text = address.to_string();
    let delimiter = if address.is_ipv4() { '.' } else { ':' };
    let mut questions = vec![Question::whole(text.clone())];
    let mut rest = text.as_str();
    while let Some((less, _)) = rest.rsplit_once(delimiter) {
        questions.push(Question::piece(less.to_owned()));
        rest = less;
    }
    questions
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn texts(questions: &[Question]) -> Vec<String> {
        let shown = |question: &Question| {
            let mark = if question.key == Key::Whole { "" } else { "~" };
            format!(
                "{mark}{}{}",
                question.text,
                question.extension.as_deref().map(|it| format!(" ({it})")).unwrap_or_default()
            )
        };
        questions.iter().map(shown).collect()
    }

    #[test]
    fn less_and_less_of_an_address() {
        let address = Plain { local: "ann+x".into(), domain: "a.example.org".into() };
        let access = texts(&about_address(&address, "+", Form::Access(Above::Plain)));
        assert_eq!(
            access.join(" "),
            "ann+x@a.example.org ~ann@a.example.org (+x) ~a.example.org ~example.org ~org ~ann+x@ ~ann@ (+x)"
        );
        let access = texts(&about_address(&address, "", Form::Access(Above::Dotted)));
        assert_eq!(access.join(" "), "ann+x@a.example.org ~a.example.org ~.example.org ~.org ~ann+x@");
        let local = texts(&about_address(&address, "+", Form::Rewriting { local: true }));
        assert_eq!(local.join(" "), "ann+x@a.example.org ~ann@a.example.org (+x) ~ann+x ~ann (+x) ~@a.example.org");
        let odd = Plain { local: "a b".into(), domain: "x".into() };
        let odd = texts(&about_address(&odd, "+", Form::Rewriting { local: false }));
        assert_eq!(odd, ["\"a b\"@x", "a b@x", "~@x"]);
    }

    #[test]
    fn less_and_less_of_a_host() {
        assert_eq!(texts(&about_domain("192.0.2.1", Above::Plain)), ["192.0.2.1"]);
        assert_eq!(texts(&about_domain("[192.0.2.1]", Above::Plain)), ["[192.0.2.1]"]);
        assert_eq!(texts(&about_domain("a.example.", Above::Plain)), ["a.example.", "~example."]);
        let client = texts(&about_client("192.0.2.1".parse().unwrap()));
        assert_eq!(client, ["192.0.2.1", "~192.0.2", "~192.0", "~192"]);
        let client = texts(&about_client("2001:db8::1".parse().unwrap()));
        assert_eq!(client, ["2001:db8::1", "~2001:db8:", "~2001:db8", "~2001"]);
    }
}
