//! Tables in Postfix's formats, line by line: `man 5 regexp_table`, `man 5 pcre_table`.
//!
//! What Postfix would leave out with a warning is an error here, so that nobody trusts a rule that is not there.

use crate::syntax::{Dialect, Flags, Translated, translate};

pub use crate::syntax::is_space;

/// A table as it was read. Positions in `rules` are what `Op::If` points to.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// In order.
    pub rules: Vec<Rule>,
    /// What Postfix would only warn of.
    pub warnings: Vec<Fault>,
}

/// Something wrong in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: u32,
    /// What.
    pub message: String,
}

/// One line of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where it begins, from 1.
    pub line: u32,
    /// What it is.
    pub op: Op,
}

/// What a line of a table says.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// If all tests hold, this is the result. There are two tests only in POSIX's `/one/!/two/`.
    Match(Vec<Test>, Reply),
    /// If the test does not hold, go on behind this position; at the end of the table if it is none.
    If(Test, Option<usize>),
    /// End of an `if`.
    EndIf,
}

/// One pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// The pattern.
    pub pattern: Translated,
    /// `!`: holds if the pattern does not match.
    pub negated: bool,
}

/// The result of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Always the same.
    Fixed(Vec<u8>),
    /// With `$1` and the like in it.
    Template(Vec<Part>),
}

/// A piece of a result.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// This.
    Text(Vec<u8>),
    /// What that group matched.
    Group(usize),
}

/// Says what is wrong with a result, if something is.
pub type Check<'a> = &'a dyn Fn(&Reply) -> Result<(), String>;

/// Reads a table. `check` is asked about every result.
pub fn parse(text: &[u8], dialect: Dialect, check: Check<'_>) -> Result<Table, Fault> {
    let mut table = Table { rules: Vec::new(), warnings: Vec::new() };
    let mut open: Vec<usize> = Vec::new();
    for (line, text) in logical_lines(text)? {
        let mut cursor = Cursor { rest: &text, dialect };
        let (op, warning) = cursor.rule(check, !open.is_empty()).map_err(|message| Fault { line, message })?;
        table.warnings.extend(warning.map(|message| Fault { line, message }));
        match op {
            None => continue,
            Some(Op::If(..)) => open.push(table.rules.len()),
            Some(Op::EndIf) => {
                let here = table.rules.len();
                if let Some(Op::If(_, end)) = open.pop().and_then(|at| table.rules.get_mut(at)).map(|rule| &mut rule.op)
                {
                    *end = Some(here);
                }
            }
            Some(Op::Match(..)) => {}
        }
        table.rules.extend(op.map(|op| Rule { line, op }));
    }
    for at in open {
        let line = table.rules.get(at).map_or(0, |rule| rule.line);
        table.warnings.push(Fault { line, message: "this if has no endif".into() });
    }
    Ok(table)
}

/// Lines with what continues them: a line that begins with white space belongs to the one before. Comments and empty
/// lines are left out, between continuations too. Each with the number of its first line, from 1.
pub fn logical_lines(text: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, Fault> {
    let mut lines: Vec<(u32, Vec<u8>)> = Vec::new();
    for (number, line) in (1..).zip(text.split(|octet| *octet == b'\n')) {
        match line.iter().find(|octet| !is_space(**octet)) {
            None | Some(b'#') => continue,
            Some(_) => {}
        }
        if !line.first().copied().is_some_and(is_space) {
            lines.push((number, line.to_vec()));
        } else if let Some((_, open)) = lines.last_mut() {
            open.extend_from_slice(line);
        } else {
            return Err(Fault {
                line: number,
                message: "white space begins the line, but there is none to continue".into(),
            });
        }
    }
    for (_, line) in &mut lines {
        let end = line.iter().rposition(|octet| !is_space(*octet)).map_or(0, |last| last + 1);
        line.truncate(end);
    }
    Ok(lines)
}

struct Cursor<'a> {
    rest: &'a [u8],
    dialect: Dialect,
}

type Warning = Option<String>;

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }
    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.next();
        }
    }

    fn rule(&mut self, check: Check<'_>, inside_if: bool) -> Result<(Option<Op>, Warning), String> {
        if !self.peek().is_some_and(|octet| octet.is_ascii_alphanumeric()) {
            return Ok((Some(self.match_rule(check)?), None));
        }
        if self.keyword(b"if") {
            self.skip_space();
            let test = self.test()?;
            self.skip_space();
            let extra = "text behind the pattern of an if is ignored; do not indent what stands between if and endif";
            let warning = self.peek().map(|_| extra.into());
            return Ok((Some(Op::If(test, None)), warning));
        }
        if self.keyword(b"endif") {
            self.skip_space();
            return Ok(match (inside_if, self.peek()) {
                (false, _) => (None, Some("this endif has no if".into())),
                (true, None) => (Some(Op::EndIf), None),
                (true, Some(_)) => (Some(Op::EndIf), Some("text behind endif is ignored".into())),
            });
        }
        let word: Vec<u8> = self.rest.iter().copied().take_while(|octet| !is_space(*octet)).collect();
        Err(format!("a line begins with /pattern/, if or endif, not with `{}`", String::from_utf8_lossy(&word)))
    }

    fn keyword(&mut self, word: &[u8]) -> bool {
        let own = self.rest.get(..word.len()).is_some_and(|own| own.eq_ignore_ascii_case(word));
        let ends = !self.rest.get(word.len()).is_some_and(u8::is_ascii_alphanumeric);
        if own && ends {
            self.rest = self.rest.get(word.len()..).unwrap_or_default();
        }
        own && ends
    }

    fn match_rule(&mut self, check: Check<'_>) -> Result<Op, String> {
        let mut tests = vec![self.test()?];
        if self.dialect == Dialect::Posix && self.peek() == Some(b'!') {
            tests.push(self.test()?);
        }
        self.skip_space();
        if self.rest.is_empty() {
            return Err("there is no action behind the pattern".into());
        }
        let parts = template(self.rest)?;
        let highest =
            parts.iter().map(|part| if let Part::Group(group) = part { *group } else { 0 }).max().unwrap_or(0);
        let first = tests.first().ok_or("there is no pattern")?;
        if highest > 0 && first.negated {
            return Err("a pattern with ! matches nothing that a $number could stand for".into());
        }
        if highest > first.pattern.groups {
            return Err(format!("${highest} is used, but the pattern has {} groups", first.pattern.groups));
        }
        let reply = if highest > 0 {
            Reply::Template(parts)
        } else {
            let text = |part| if let Part::Text(text) = part { text } else { vec![] };
            Reply::Fixed(parts.into_iter().flat_map(text).collect())
        };
        check(&reply)?;
        Ok(Op::Match(tests, reply))
    }

    /// `!/pattern/flags`
    fn test(&mut self) -> Result<Test, String> {
        let mut negated = false;
        while let Some(octet) = self.peek().filter(|octet| *octet == b'!' || is_space(*octet)) {
            negated ^= octet == b'!';
            self.next();
        }
        let Some(delimiter) = self.next() else { return Err("there is no pattern".into()) };
        let start = self.rest;
        loop {
            match self.next() {
                Some(octet) if octet == delimiter && octet != b'\\' => break,
                // Whatever stands behind a backslash does not end the pattern.
                Some(b'\\') if self.next().is_some() => {}
                Some(octet) if octet != b'\\' => {}
                _ => return Err(format!("the pattern has no closing {}", char::from(delimiter))),
            }
        }
        let pattern = start.get(..start.len() - self.rest.len() - 1).unwrap_or_default();
        let flags = self.flags()?;
        let pattern = translate(self.dialect, pattern, flags)?;
        Ok(Test { pattern, negated })
    }

    fn flags(&mut self) -> Result<Flags, String> {
        let mut flags = Flags::of(self.dialect);
        let posix = self.dialect == Dialect::Posix;
        while let Some(letter) = self.peek().filter(|octet| !(is_space(*octet) || posix && *octet == b'!')) {
            match (letter, posix) {
                (b'i', _) => flags.caseless ^= true,
                (b'm', _) => flags.multiline ^= true,
                (b'x', _) => flags.extended ^= true,
                (b's', false) => flags.dot_all ^= true,
                (b'A', false) => flags.anchored ^= true,
                (b'U', false) => flags.ungreedy ^= true,
                // E: `$` only at the very end, which is where it is for texts that end in no line end.
                // X: PCRE2 knows it no more.
                (b'E' | b'X', false) => {}
                (letter, _) => return Err(format!("there is no flag `{}`", char::from(letter))),
            }
            self.next();
        }
        Ok(flags)
    }
}

/// Cuts a result into text and `$1`, `${1}`, `$(1)`; `$$` is a dollar.
fn template(text: &[u8]) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'$' {
            literal.push(*first);
            continue;
        }
        if let [b'$', tail @ ..] = rest {
            literal.push(b'$');
            rest = tail;
            continue;
        }
        let (name, tail) = match rest {
            [b'{', tail @ ..] => bracketed(tail, b'{', b'}')?,
            [b'(', tail @ ..] => bracketed(tail, b'(', b')')?,
            _ => {
                rest.split_at(rest.iter().take_while(|octet| octet.is_ascii_alphanumeric() || **octet == b'_').count())
            }
        };
        rest = tail;
        let group = std::str::from_utf8(name).ok().filter(|name| name.bytes().all(|octet| octet.is_ascii_digit()));
        let group = group.and_then(|name| name.parse().ok()).filter(|group| *group > 0);
        let group = group.ok_or_else(|| {
            format!("`${}` is no group: write $1, ${{1}} or $(1), and $$ for a dollar", String::from_utf8_lossy(name))
        })?;
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal)));
        }
        parts.push(Part::Group(group));
    }
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Ok(parts)
}

fn bracketed(text: &[u8], open: u8, close: u8) -> Result<(&[u8], &[u8]), String> {
    let mut level = 1;
    for (at, octet) in text.iter().enumerate() {
        level += i32::from(*octet == open) - i32::from(*octet == close);
        if level == 0 {
            return Ok((text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()));
        }
    }
    Err("a $(…) or ${…} is not closed".into())
}

impl Reply {
    /// The text, with what the groups matched.
    pub fn text(&self, groups: &[Option<&[u8]>]) -> Vec<u8> {
        match self {
            Self::Fixed(text) => text.clone(),
            Self::Template(parts) => {
                let mut text = Vec::new();
                for part in parts {
                    match part {
                        Part::Text(literal) => text.extend_from_slice(literal),
                        Part::Group(group) => {
                            text.extend_from_slice(groups.get(*group).copied().flatten().unwrap_or_default())
                        }
                    }
                }
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Table, Fault> {
        parse(text.as_bytes(), Dialect::Perl, &|reply| {
            let Reply::Fixed(text) = reply else { return Ok(()) };
            if text == b"wrong" { Err("wrong".into()) } else { Ok(()) }
        })
    }

    #[test]
    fn lines_and_continuations() {
        let lines = logical_lines(b"# a\n\n/one/\n  REJECT\n# b\n\n\tno \r\n/two/ OK").expect("sound");
        assert_eq!(lines, [(3, b"/one/  REJECT\tno".to_vec()), (8, b"/two/ OK".to_vec())]);
        assert_eq!(logical_lines(b"\n  /one/ OK").map_err(|fault| fault.line), Err(2));
    }

    #[test]
    fn ifs_nest() {
        let table = read("if /a/\n/b/ OK\nIF !/c/\n/d/ OK\nendif\nENDIF\n/e/ OK\n").expect("sound");
        let ends: Vec<_> =
            table.rules.iter().filter_map(|rule| if let Op::If(_, end) = rule.op { Some(end) } else { None }).collect();
        assert_eq!(ends, [Some(5), Some(4)]);
        assert!(table.warnings.is_empty());
        let table = read("if /a/\n/b/ OK\n").expect("sound");
        assert_eq!(table.warnings.len(), 1);
        let table = read("endif\n/b/ OK\n").expect("sound");
        assert_eq!((table.rules.len(), table.warnings.len()), (1, 1));
    }

    #[test]
    fn faults_name_their_line() {
        for (text, line) in [
            ("/a/ OK\n/b\n", 2),
            ("/a/z OK", 1),
            ("/(a/ OK", 1),
            ("/a/", 1),
            ("/a/ OK\n/a/ wrong", 2),
            ("/a/ REJECT $1", 1),
            ("!/(a)/ REJECT $1", 1),
            ("/(a)/ REJECT $x", 1),
            ("/(a)/ REJECT ${1", 1),
            ("/(a)/ REJECT $1st", 1),
            ("\n\nreject /a/", 3),
            ("if\n", 1),
        ] {
            assert_eq!(read(text).map_err(|fault| fault.line), Err(line), "{text}");
        }
    }

    #[test]
    fn results_with_groups() {
        let parts = template(b"$$5 $1, ${2} $(3)x").expect("sound");
        let text = |text: &str| Part::Text(text.into());
        assert_eq!(
            parts,
            [text("$5 "), Part::Group(1), text(", "), Part::Group(2), text(" "), Part::Group(3), text("x")]
        );
        let reply = Reply::Template(template(b"REJECT $1-$2").expect("sound"));
        assert_eq!(reply.text(&[None, Some(b"a"), None]), b"REJECT a-");
    }

    #[test]
    fn delimiters_and_flags() {
        assert!(read("|a\\|b| OK\n!  ! /a/imsxAEUX OK\n").is_ok());
        assert!(parse(b"/a/imx!/b/i OK", Dialect::Posix, &|_| Ok(())).is_ok());
        assert!(parse(b"/a/s OK", Dialect::Posix, &|_| Ok(())).is_err());
    }
}
