//! `inline:{key=value, {key = value with spaces}}` and `static:value`: tables that stand in the config itself.

use super::text::Pairs;

/// The text of `static:`, without its braces if it has them.
pub(super) fn unbraced(text: &str) -> Result<&str, String> {
    match text.strip_prefix('{') {
        None => Ok(text),
        Some(_) => match braces(text) {
            Some((inner, "")) => Ok(inner.trim()),
            _ => Err("the braces do not end where the text does; write static:{text}".into()),
        },
    }
}

/// The pairs of `inline:`. Of a key that is there twice the later one counts, as in Postfix.
pub(super) fn parse(text: &str) -> Result<Pairs, String> {
    const FORM: &str = "write inline:{key=value, {key = value with spaces}}";
    let Some((mut rest, "")) = braces(text) else { return Err(format!("one pair of braces is needed; {FORM}")) };
    let mut pairs = Pairs::default();
    let mut empty = true;
    loop {
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
        if rest.is_empty() {
            break;
        }
        let (item, tail) = match braces(rest) {
            Some((inner, tail)) if tail.is_empty() || tail.starts_with([',', ' ', '\t', '\r', '\n']) => (inner, tail),
            Some(_) => return Err(format!("something stands behind a closing brace; {FORM}")),
            None if rest.starts_with('{') => return Err(format!("a brace is not closed; {FORM}")),
            None => rest.split_at(rest.find([',', ' ', '\t', '\r', '\n']).unwrap_or(rest.len())),
        };
        rest = tail;
        let (key, value) = item.split_once('=').ok_or_else(|| format!("`{item}` has no `=`; {FORM}"))?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(format!("`{item}` has no key of one word; {FORM}"));
        }
        pairs.replace(key, value);
        empty = false;
    }
    if empty { Err(format!("the table is empty; {FORM}")) } else { Ok(pairs) }
}

/// What stands between a brace at the start and the one that closes it, and what follows.
fn braces(text: &str) -> Option<(&str, &str)> {
    let mut level = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => level += 1,
            '}' => level -= 1,
            _ => {}
        }
        if level == 0 {
            return (at > 0).then(|| Some((text.get(1..at)?, text.get(at + 1..)?)))?;
        }
    }
    None
}
