//! The tables of one kind of line, ready to be asked: what `header_checks` and its three siblings are each.

use wasmta_patterns::{Budget, Fault, Part, Reply, Rules, Source};

use crate::action::{Action, Context};

/// Tables that are asked in order until one has a result.
pub struct Section {
    context: Context,
    rules: Rules,
}

/// What a line of a message leads to.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// No rule has a result.
    Nothing,
    /// Do this.
    Action(Action),
    /// A rule has a result that makes no sense: `table, line N: why`. Nothing is done.
    Senseless(String),
}

impl Section {
    /// Reads and compiles tables. The error says in which; without a line it is about all of them.
    pub fn new(
        sources: &[Source],
        context: Context,
        warn: &mut dyn FnMut(String),
    ) -> Result<Self, (usize, Option<Fault>, String)> {
        Ok(Self { context, rules: Rules::new(sources, &|reply| check(reply, context), warn)? })
    }

    /// Prepares for lines like these.
    pub fn warm(&self, lines: &[Vec<u8>]) {
        self.rules.warm(lines);
    }

    /// What the first rule that applies to `line` says. An empty line never matches.
    pub fn look_up(&self, line: &[u8], budget: &mut Budget, warn: &mut dyn FnMut(String)) -> Found {
        let Some(hit) = self.rules.look_up(line, budget, warn) else { return Found::Nothing };
        match Action::parse(&hit.value, self.context) {
            Ok(action) => Found::Action(action),
            Err(why) => Found::Senseless(format!("{}, line {}: {why}", hit.table, hit.line)),
        }
    }
}

/// What can be said of an action before it is known what its groups match: whether its name is one.
fn check(reply: &Reply, context: Context) -> Result<(), String> {
    let parts = match reply {
        Reply::Fixed(text) => return Action::parse(text, context).map(drop),
        Reply::Template(parts) => parts,
    };
    let Some(Part::Text(text)) = parts.first() else { return Ok(()) };
    let Some(end) = text.iter().position(|octet| matches!(octet, b' ' | b'\t')) else { return Ok(()) };
    let name = text.get(..end).unwrap_or_default();
    // An argument that suits every action.
    let probe = [name, b" x:y@z"].concat();
    Action::parse(&probe, context).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmta_patterns::Dialect;

    #[test]
    fn actions_are_checked_when_a_table_is_read() {
        for (text, line) in [
            ("/a/ REJECTT no", Some(1)),
            ("/(a)/ NOTHING $1", Some(1)),
            ("/b/ OK\n/a/ PREPEND nothing", Some(2)),
            ("/(a)/ REJECT $1", None),
            ("/a/ PREPEND X-A: b", None),
        ] {
            let source = Source { name: "t".into(), dialect: Dialect::Perl, text: text.into() };
            let fault = Section::new(&[source], Context::Header, &mut |_| {}).err();
            assert_eq!(fault.and_then(|(_, fault, _)| fault).map(|fault| fault.line), line, "{text}");
        }
    }
}
