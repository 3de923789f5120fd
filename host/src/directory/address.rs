//! Addresses as tables write them: with their quotes undone, in lists, without a domain, with an extension.

use std::fmt::Write as _;

use crate::mail::{Domain, ForwardPath, Mailbox};

/// An address with its quotes undone: what Postfix calls the internal form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Plain {
    pub local: String,
    pub domain: String,
}

impl Plain {
    /// Of a forward-path; a bare postmaster is at `origin`.
    pub fn of(path: &ForwardPath, origin: &Domain) -> Self {
        match path {
            ForwardPath::Postmaster => Self { local: "postmaster".into(), domain: origin.to_string() },
            ForwardPath::Mailbox(mailbox) => Self::from(mailbox),
        }
    }

    /// From what a table says: `user@domain`, or `user` for one at `origin`. The last `@` counts.
    pub fn parse(text: &str, origin: &Domain) -> Self {
        match text.rsplit_once('@') {
            Some((local, domain)) if !domain.is_empty() => Self { local: local.to_owned(), domain: domain.to_owned() },
            Some((local, _)) => Self { local: local.to_owned(), domain: origin.to_string() },
            None => Self { local: text.to_owned(), domain: origin.to_string() },
        }
    }

    /// The address with quotes where they are needed; none if it is none.
    pub fn path(&self) -> Option<ForwardPath> {
        self.quoted().parse().ok()
    }

    /// Written with quotes where they are needed.
    pub fn quoted(&self) -> String {
        format!("{}@{}", quoted(&self.local), self.domain)
    }

    /// For telling whether two are the same: case does not count.
    pub fn folded(&self) -> String {
        format!("{}@{}", self.local, self.domain).to_lowercase()
    }

    /// The address without its extension, and the extension with its delimiter.
    pub fn without_extension(&self, delimiters: &str) -> Option<(Self, &str)> {
        let at = extension(&self.local, delimiters)?;
        let (user, extension) = self.local.split_at_checked(at)?;
        Some((Self { local: user.to_owned(), domain: self.domain.clone() }, extension))
    }
}

impl From<&Mailbox> for Plain {
    fn from(mailbox: &Mailbox) -> Self {
        Self { local: mailbox.local_part().unquoted(), domain: mailbox.host().to_string() }
    }
}

/// Where the extension begins: at the first delimiter that is not the first character. As in Postfix, some names have none.
fn extension(local: &str, delimiters: &str) -> Option<usize> {
    let special = ["postmaster", "mailer-daemon", "double-bounce"].iter().any(|name| local.eq_ignore_ascii_case(name));
    let lower = local.to_ascii_lowercase();
    let list = delimiters.contains('-')
        && (lower.starts_with("owner-") || lower.strip_suffix("-request").is_some_and(|rest| !rest.is_empty()));
    if special || list {
        return None;
    }
    local.find(|c| delimiters.contains(c)).filter(|at| *at > 0)
}

/// A local part as it stands in an address.
pub(super) fn quoted(local: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    if !local.is_empty() && local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(plain)) {
        return local.to_owned();
    }
    let mut text = String::from("\"");
    for c in local.chars() {
        let escape = if matches!(c, '"' | '\\') { "\\" } else { "" };
        let _ = write!(text, "{escape}{c}"); // writing to a String cannot fail
    }
    text + "\""
}

/// The items of a list of addresses, quotes undone: separated by commas or, as Postfix has it, by white space. Comments in parentheses and
/// names before `<address>` are left out.
pub(super) fn list(text: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut person = 0; // where the words began that may turn out to be somebody's name
    let mut item = String::new();
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    let mut comment = 0_u32;
    let end = |items: &mut Vec<String>, item: &mut String| {
        if !item.is_empty() {
            items.push(std::mem::take(item));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' if comment == 0 && (quoted || chars.peek().is_some_and(|next| !next.is_alphanumeric())) => {
                item.extend(chars.next());
            }
            '"' if comment == 0 => quoted = !quoted,
            '(' if !quoted => comment += 1,
            ')' if !quoted && comment > 0 => comment -= 1,
            _ if comment > 0 => {}
            '<' if !quoted => {
                items.truncate(person);
                item.clear();
                item.extend(chars.by_ref().take_while(|c| *c != '>'));
                end(&mut items, &mut item);
                person = items.len();
            }
            ',' if !quoted => {
                end(&mut items, &mut item);
                person = items.len();
            }
            c if c.is_ascii_whitespace() && !quoted => end(&mut items, &mut item),
            c => item.push(c),
        }
    }
    end(&mut items, &mut item);
    items
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (text, items) in [
            ("a, b c,,d", &["a", "b", "c", "d"][..]),
            ("Ann Smith <ann@x>, bob@x (the (other) one)", &["ann@x", "bob@x"]),
            ("\"|/bin/cat -n\", /dev/null, :include:/x", &["|/bin/cat -n", "/dev/null", ":include:/x"]),
            ("\"a b\"@x", &["a b@x"]),
            ("\\user", &["\\user"]),
            ("", &[]),
        ] {
            assert_eq!(list(text), items, "{text}");
        }
    }

    #[test]
    fn extensions_and_quotes() {
        let origin: Domain = "mx.example".parse().unwrap();
        let without = |text: &str, delimiters: &str| {
            let plain = Plain::parse(text, &origin);
            plain.without_extension(delimiters).map(|(plain, extension)| (plain.quoted(), extension.to_owned()))
        };
        assert_eq!(without("a+b+c@x", "+-"), Some(("a@x".into(), "+b+c".into())));
        assert_eq!(without("a-b", "+-"), Some(("a@mx.example".into(), "-b".into())));
        for none in ["+a@x", "Postmaster@x", "owner-list@x", "list-request@x"] {
            assert_eq!(without(none, "+-"), None, "{none}");
        }
        assert_eq!(Plain::parse("a b@x", &origin).quoted(), "\"a b\"@x");
        assert_eq!(Plain::from(&"\"a\\\"b\"@x".parse().unwrap()).quoted(), "\"a\\\"b\"@x");
    }
}
