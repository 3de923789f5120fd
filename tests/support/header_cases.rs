//! The cases of `tests/data/header-checks`: rules, a mail, and what becomes of it. Its README tells how they are written.
//! The plugin's own tests read them too, so nothing but std is used here.

use std::path::Path;

/// One case.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// File and name.
    pub name: String,
    /// Tables: kind of check, type, text.
    pub tables: Vec<(String, String, Vec<u8>)>,
    /// Other settings; none turns a table off.
    pub settings: Vec<(String, Option<String>)>,
    /// As the client sends it, with CRLF.
    pub mail: Vec<u8>,
    /// What the client hears: code and text, or only a code.
    pub reply: String,
    /// What is queued, with CRLF; none if that is not to be compared.
    pub result: Option<Vec<u8>>,
    /// `hold`, `discard`, `filter WHERE`, `redirect TO`, `bcc TO`.
    pub envelope: Vec<String>,
}

/// All cases of a directory.
pub fn load(dir: &Path) -> Vec<Case> {
    let mut files: Vec<_> =
        std::fs::read_dir(dir).expect("the cases are there").flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        cases.extend(split(&text, "=== ").into_iter().map(|(name, text)| parse(&format!("{file}/{name}"), &text)));
    }
    cases
}

/// Cuts a text at the lines that begin with `mark`: the rest of such a line, and what follows.
fn split(text: &str, mark: &str) -> Vec<(String, String)> {
    let mut pieces: Vec<(String, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        match (line.strip_prefix(mark), pieces.last_mut()) {
            (Some(head), _) => pieces.push((head.trim().to_owned(), String::new())),
            (None, Some((_, text))) => text.push_str(line),
            (None, None) => {}
        }
    }
    pieces
}

fn parse(name: &str, text: &str) -> Case {
    let mut case = Case { name: name.to_owned(), reply: "250".into(), ..Case::default() };
    let mut result = None;
    let mut compare = true;
    for (head, text) in split(text, "--- ") {
        let words: Vec<&str> = head.split(' ').collect();
        match words.as_slice() {
            ["mail"] => case.mail = crlf(&expand(&text)),
            ["reply"] => case.reply = String::from_utf8_lossy(&expand(text.trim_end_matches('\n'))).into_owned(),
            ["result"] => result = Some(crlf(&expand(&text))),
            ["result-skip"] => compare = false,
            ["envelope"] => case.envelope = text.lines().map(str::to_owned).collect(),
            ["set", key, value @ ..] => {
                case.settings.push(((*key).to_owned(), value.first().map(|value| (*value).to_owned())));
            }
            [kind, table, "latin-1"] => {
                let octets = text.chars().map(|c| u8::try_from(c).expect("a character of Latin-1")).collect();
                case.tables.push(((*kind).to_owned(), (*table).to_owned(), octets));
            }
            [kind, table] => case.tables.push(((*kind).to_owned(), (*table).to_owned(), text.into_bytes())),
            _ => panic!("{name}: what is `--- {head}`?"),
        }
    }
    assert!(!case.mail.is_empty(), "{name}: no mail");
    case.result = compare.then(|| result.unwrap_or_else(|| case.mail.clone()));
    case
}

/// `<<text*N>>` and `\xNN`.
fn expand(text: &str) -> Vec<u8> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, inner)) = rest.split_once("<<") {
        let Some((inner, after)) = inner.split_once(">>") else { break };
        let Some((inner, count)) = inner.rsplit_once('*') else { break };
        out.push_str(before);
        out.push_str(&inner.repeat(count.parse().expect("a number")));
        rest = after;
    }
    out.push_str(rest);
    let mut octets = Vec::new();
    let mut pieces = out.split("\\x");
    octets.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        octets.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
        octets.extend_from_slice(rest.as_bytes());
    }
    octets
}

fn crlf(text: &[u8]) -> Vec<u8> {
    text.iter().flat_map(|octet| if *octet == b'\n' { b"\r\n".to_vec() } else { vec![*octet] }).collect()
}
