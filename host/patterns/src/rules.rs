//! Tables, ready to be asked.

use crate::engine::{Budget, Patterns};
use crate::syntax::Dialect;
use crate::table::{self, Check, Fault, Op, Reply, Table, Test};

/// Tables that are asked in order until one has a result.
pub struct Rules {
    tables: Vec<Compiled>,
    patterns: Patterns,
}

/// A pattern's number, and whether the test is that it does not match.
type TestId = (usize, bool);

struct Compiled {
    name: String,
    rules: Vec<CompiledRule>,
    /// A rule with a test that is negated: it can have a result though no pattern matches.
    negations: bool,
}

struct CompiledRule {
    line: u32,
    op: CompiledOp,
}

enum CompiledOp {
    Match(Vec<TestId>, Reply),
    If(TestId, Option<usize>),
    EndIf,
}

/// A table as the settings give it.
pub struct Source {
    /// For messages: the file's name, or that of the setting.
    pub name: String,
    /// What it is written in.
    pub dialect: Dialect,
    /// Its text.
    pub text: Vec<u8>,
}

/// A rule that applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit<'a> {
    /// The table's name.
    pub table: &'a str,
    /// Where the rule begins in it, from 1.
    pub line: u32,
    /// What stands behind the pattern, with what its groups matched.
    pub value: Vec<u8>,
}

impl Rules {
    /// Reads and compiles tables; `check` is asked about each result in them. The error says in which table; without a line it is about
    /// all of them.
    pub fn new(
        sources: &[Source],
        check: Check<'_>,
        warn: &mut dyn FnMut(String),
    ) -> Result<Self, (usize, Option<Fault>, String)> {
        let mut tables = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            let table = table::parse(&source.text, source.dialect, check);
            let table = table.map_err(|fault| (index, Some(fault.clone()), fault.message))?;
            for Fault { line, message } in &table.warnings {
                warn(format!("{}, line {line}: {message}", source.name));
            }
            tables.push(table);
        }
        let tests: Vec<(usize, u32, &Test, bool)> = tables.iter().enumerate().flat_map(tests_of).collect();
        let patterns: Vec<_> = tests.iter().map(|(_, _, test, groups)| (&test.pattern, *groups)).collect();
        let patterns =
            Patterns::new(&patterns).map_err(|(index, message)| match index.and_then(|index| tests.get(index)) {
                Some((table, line, ..)) => (*table, Some(Fault { line: *line, message: message.clone() }), message),
                None => (0, None, message),
            })?;
        let mut next = 0;
        let tables =
            tables.into_iter().zip(sources).map(|(table, source)| numbered(table, source, &mut next)).collect();
        Ok(Self { tables, patterns })
    }

    /// Prepares for texts like these.
    pub fn warm(&self, texts: &[Vec<u8>]) {
        self.patterns.warm(texts.iter().map(Vec::as_slice));
    }

    /// The first rule that applies to `text`. An empty text never matches.
    pub fn look_up(&self, text: &[u8], budget: &mut Budget, warn: &mut dyn FnMut(String)) -> Option<Hit<'_>> {
        if text.is_empty() {
            return None;
        }
        let candidates = self.patterns.candidates(text);
        for table in &self.tables {
            if candidates.is_empty() && !table.negations {
                continue;
            }
            let mut holds = |(pattern, negated): TestId, rule: u32| {
                let candidate = candidates.contains(regex_automata::PatternID::must(pattern));
                match candidate.then(|| self.patterns.confirm(pattern, text, budget)) {
                    None => negated,
                    Some(Ok(matches)) => matches != negated,
                    // As in Postfix: a search that fails is no match, and neither is its negation.
                    Some(Err(_)) => {
                        warn(format!("{}, line {rule}: the pattern takes too many steps and is left out", table.name));
                        false
                    }
                }
            };
            if let Some((line, tests, reply)) = table.first(&mut holds) {
                let groups = match (reply, tests.first()) {
                    (Reply::Template(_), Some((pattern, _))) => self.patterns.groups(*pattern, text, budget),
                    _ => Ok(Vec::new()),
                };
                return Some(Hit { table: &table.name, line, value: reply.text(&groups.unwrap_or_default()) });
            }
        }
        None
    }
}

/// The tests of a table in order, with the number of the table, the line, and whether somebody asks for groups.
fn tests_of((index, table): (usize, &Table)) -> impl Iterator<Item = (usize, u32, &Test, bool)> {
    table.rules.iter().flat_map(move |rule| {
        let (tests, groups) = match &rule.op {
            Op::Match(tests, reply) => (tests.as_slice(), matches!(reply, Reply::Template(_))),
            Op::If(test, _) => (std::slice::from_ref(test), false),
            Op::EndIf => (&[][..], false),
        };
        tests.iter().enumerate().map(move |(at, test)| (index, rule.line, test, groups && at == 0))
    })
}

/// The same table with its patterns numbered as in `Patterns`.
fn numbered(table: Table, source: &Source, next: &mut usize) -> Compiled {
    let mut number = |test: Test| {
        *next += 1;
        (*next - 1, test.negated)
    };
    let mut rules = Vec::new();
    for rule in table.rules {
        let op = match rule.op {
            Op::Match(tests, reply) => CompiledOp::Match(tests.into_iter().map(&mut number).collect(), reply),
            Op::If(test, end) => CompiledOp::If(number(test), end),
            Op::EndIf => CompiledOp::EndIf,
        };
        rules.push(CompiledRule { line: rule.line, op });
    }
    let negations = rules.iter().any(|rule| match &rule.op {
        CompiledOp::Match(tests, _) => tests.iter().any(|(_, negated)| *negated),
        CompiledOp::If((_, negated), _) => *negated,
        CompiledOp::EndIf => false,
    });
    Compiled { name: source.name.clone(), rules, negations }
}

impl Compiled {
    /// The first rule whose tests hold.
    fn first(&self, holds: &mut dyn FnMut(TestId, u32) -> bool) -> Option<(u32, &[TestId], &Reply)> {
        let mut at = 0;
        while let Some(rule) = self.rules.get(at) {
            at += 1;
            match &rule.op {
                CompiledOp::Match(tests, reply) if tests.iter().all(|test| holds(*test, rule.line)) => {
                    return Some((rule.line, tests, reply));
                }
                CompiledOp::If(test, end) if !holds(*test, rule.line) => at = (*end)? + 1,
                _ => {}
            }
        }
        None
    }
}
