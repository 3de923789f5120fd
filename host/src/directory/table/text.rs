//! `hash:` and its kin: one key and one value a line. `man 1 postmap`, and for aliases `man 1 postalias` and `man 5 aliases`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use wasmta_patterns::{is_space, logical_lines};

use super::Fault;

/// Octets of one line with what continues it.
const MAX_LINE: usize = 4 << 20;
/// What is told of lines that do no harm.
pub(super) type Warn<'a> = &'a mut dyn FnMut(u32, String);

/// Keys in lower case, with their values and lines.
#[derive(Debug, Default)]
pub(super) struct Pairs(HashMap<Box<str>, (Box<str>, u32)>);

impl Pairs {
    /// The value of a key, and its line if it has one.
    pub fn get(&self, key: &str) -> Option<(&str, Option<u32>)> {
        let folded;
        let key = if key.bytes().any(|octet| octet.is_ascii_uppercase() || octet >= 0x80) {
            folded = key.to_lowercase();
            &folded
        } else {
            key
        };
        self.0.get(key).map(|(value, line)| (&**value, Some(*line).filter(|line| *line > 0)))
    }

    /// The later one counts.
    pub fn replace(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_lowercase().into(), (value.into(), 0));
    }

    /// The first one counts, as with `postmap`; the other is told of.
    fn add(&mut self, key: &str, value: &str, line: u32, warn: Warn<'_>) {
        match self.0.entry(key.to_lowercase().into()) {
            Entry::Vacant(place) => drop(place.insert((value.into(), line))),
            Entry::Occupied(first) => {
                warn(line, format!("`{key}` stands in line {} already, and that one counts", first.get().1))
            }
        }
    }
}

/// Lines of `key value`. White space within quotes or behind a backslash is part of the key.
pub(super) fn pairs(text: &[u8], warn: Warn<'_>) -> Result<Pairs, Fault> {
    let mut pairs = Pairs::default();
    for (line, text) in lines(text)? {
        let fault = |message: &str| (line, message.to_owned());
        let end = key_end(&text).ok_or_else(|| fault("a quote is not closed"))?;
        let (key, value) = text.split_at(end);
        let value = value.trim_matches(blank);
        if key.is_empty() || value.is_empty() {
            return Err(fault("a line has a key, white space and a value; remove the line or complete it"));
        }
        if key.ends_with(':') {
            warn(line, format!("`{key}` ends with a colon, as in a file of aliases; no key of mail does"));
        }
        pairs.add(key, value, line, warn);
    }
    Ok(pairs)
}

/// Lines of `name: value`. The name may be in quotes, which are not part of it.
pub(super) fn aliases(text: &[u8], warn: Warn<'_>) -> Result<Pairs, Fault> {
    let mut pairs = Pairs::default();
    for (line, text) in lines(text)? {
        let wrong = || (line, "a line has a name, a colon and a value; remove the line or complete it".to_owned());
        let (name, value) = alias_name(&text).ok_or_else(wrong)?;
        let value = value.trim_matches(blank);
        if name.is_empty() || value.is_empty() {
            return Err(wrong());
        }
        if name.contains('@') {
            warn(line, format!("`{name}` has an @, but names here have no domain: it is never asked for"));
        }
        pairs.add(&name, value, line, warn);
    }
    Ok(pairs)
}

fn lines(text: &[u8]) -> Result<Vec<(u32, String)>, Fault> {
    let lines = logical_lines(text).map_err(|fault| (fault.line, fault.message))?;
    lines
        .into_iter()
        .map(|(line, text)| match String::from_utf8(text) {
            Ok(text) if text.len() <= MAX_LINE && !text.contains('\0') => Ok((line, text)),
            Ok(_) => Err((line, "the line is longer than 4 MiB or has a NUL in it".to_owned())),
            Err(_) => Err((line, "the line is not UTF-8; write it in that encoding".to_owned())),
        })
        .collect()
}

fn blank(c: char) -> bool {
    u8::try_from(c).is_ok_and(is_space)
}

/// Where the key ends: at the first white space that is neither quoted nor behind a backslash.
fn key_end(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut octets = text.bytes().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'\\' => drop(octets.next()),
            b'"' => quoted = !quoted,
            octet if is_space(octet) && !quoted => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

/// The name before the colon, its quotes undone, and what follows.
fn alias_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut quoted = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '"' => quoted = !quoted,
            ':' if !quoted => return Some((name.trim_matches(blank).to_owned(), text.get(at + 1..)?)),
            c => name.push(c),
        }
    }
    None
}
