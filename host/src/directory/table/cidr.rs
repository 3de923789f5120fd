//! `cidr:`: networks in order, the first that has the address counts. `man 5 cidr_table`.

use std::net::IpAddr;

use wasmta_patterns::logical_lines;

use super::Fault;
use super::text::Warn;
use crate::directory::Network;

/// Rules in order.
#[derive(Debug, Default)]
pub(super) struct Networks(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    line: u32,
    op: Op,
}

#[derive(Debug)]
enum Op {
    Match(Test, Box<str>),
    /// If the test does not hold, go on behind this position; at the end if it is none.
    If(Test, Option<usize>),
    EndIf,
}

#[derive(Debug)]
struct Test {
    network: Network,
    negated: bool,
}

impl Test {
    /// A network of the other family neither holds an address nor does its negation.
    fn holds(&self, address: IpAddr) -> bool {
        self.network.is_family_of(address) && self.network.contains(address) != self.negated
    }
}

impl Networks {
    /// What the first rule says that has this address; nothing has what is no address.
    pub fn look_up(&self, key: &str) -> Option<(&str, u32)> {
        let address: IpAddr = key.parse().ok()?;
        let mut at = 0;
        while let Some(rule) = self.0.get(at) {
            at += 1;
            match &rule.op {
                Op::Match(test, value) if test.holds(address) => return Some((value, rule.line)),
                Op::If(test, end) if !test.holds(address) => at = (*end)? + 1,
                _ => {}
            }
        }
        None
    }
}

/// Reads a table.
pub(super) fn parse(text: &[u8], warn: Warn<'_>) -> Result<Networks, Fault> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for (line, text) in logical_lines(text).map_err(|fault| (fault.line, fault.message))? {
        let fault = |message: String| (line, message);
        let text = String::from_utf8(text).map_err(|_| fault("the line is not UTF-8".into()))?;
        let op = match (keyword(&text, "if"), keyword(&text, "endif")) {
            (Some(rest), _) => Op::If(test(rest.trim()).map_err(fault)?, None),
            (_, Some(rest)) if !rest.trim().is_empty() => {
                return Err(fault("nothing may stand behind endif; remove it".into()));
            }
            (_, Some(_)) => {
                let Some(at) = open.pop() else { return Err(fault("this endif has no if; remove it".into())) };
                let here = rules.len();
                if let Some(Op::If(_, end)) = rules.get_mut(at).map(|rule| &mut rule.op) {
                    *end = Some(here);
                }
                Op::EndIf
            }
            (None, None) => pair(&text).map_err(fault)?,
        };
        if matches!(op, Op::If(..)) {
            open.push(rules.len());
        }
        rules.push(Rule { line, op });
    }
    for at in open {
        warn(rules.get(at).map_or(0, |rule| rule.line), "this if has no endif".into());
    }
    Ok(Networks(rules))
}

fn keyword<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (own, rest) = text.split_at_checked(word.len())?;
    (own.eq_ignore_ascii_case(word) && !rest.starts_with(|c: char| c.is_ascii_alphanumeric())).then_some(rest)
}

/// `! network value`
fn pair(text: &str) -> Result<Op, String> {
    let start = text.find(|c: char| c != '!' && !c.is_ascii_whitespace()).unwrap_or(text.len());
    let rest = text.get(start..).unwrap_or_default();
    let end = rest.find(|c: char| c.is_ascii_whitespace()).unwrap_or(rest.len());
    let value = rest.get(end..).unwrap_or_default().trim();
    if value.is_empty() {
        return Err("a line has a network, white space and a value; remove the line or complete it".into());
    }
    Ok(Op::Match(test(text.get(..start + end).unwrap_or_default())?, value.into()))
}

fn test(text: &str) -> Result<Test, String> {
    let bare = text.trim_start_matches(|c: char| c == '!' || c.is_ascii_whitespace());
    let negations = text.len() - bare.len();
    let negations = text.bytes().take(negations).filter(|octet| *octet == b'!').count();
    let network = unbracketed(bare).parse().map_err(|err: crate::directory::NetworkError| err.to_string())?;
    Ok(Test { network, negated: negations % 2 == 1 })
}

/// `[address/bits]` is the same as `address/bits` and `[address]/bits`.
fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|inner| inner.contains('/')).unwrap_or(text)
}
