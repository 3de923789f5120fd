//! Patterns as people write them for Postfix, understood octet by octet and written down again for the engines here.
//!
//! Both dialects, Perl's (`pcre:`) and POSIX's (`regexp:`), are parsed into one tree. Where a tree needs nothing but what
//! a finite automaton can do, its plain form is exact. Else the plain form matches whatever the pattern matches, and
//! more: it tells which patterns are worth the backtracking engine.

mod pcre;
mod posix;
mod set;

use std::collections::BTreeSet;
use std::fmt::Write as _;

pub use set::{Set, is_space};

/// Which dialect a table is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `regexp:`, POSIX regular expressions as in glibc.
    Posix,
    /// `pcre:`, Perl-compatible regular expressions.
    Perl,
}

/// What the letters behind a pattern's second delimiter have set; each letter toggles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// `i`: letters match in both cases. On by default.
    pub caseless: bool,
    /// `m`: `^` and `$` match at line ends within the text too; in POSIX, `.` and `[^…]` match no line end then.
    pub multiline: bool,
    /// `s`: `.` matches a line end. On by default. Perl only.
    pub dot_all: bool,
    /// `x`: Perl: white space and comments are left out, off by default. POSIX: extended syntax, on by default.
    pub extended: bool,
    /// `A`: only at the start of the text. Perl only.
    pub anchored: bool,
    /// `U`: quantifiers are lazy, and greedy with `?`. Perl only.
    pub ungreedy: bool,
}

impl Flags {
    /// What holds where no letters are.
    pub fn of(dialect: Dialect) -> Self {
        let extended = dialect == Dialect::Posix;
        Self { caseless: true, multiline: false, dot_all: true, extended, anchored: false, ungreedy: false }
    }
}

/// A pattern, written for the engines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// For a finite automaton: which texts may match. Exact if `backtracking` is none.
    pub plain: String,
    /// The same with its groups, to find what they matched. Exact if `backtracking` is none.
    pub plain_groups: String,
    /// For the backtracking engine, if the pattern needs one.
    pub backtracking: Option<String>,
    /// How many groups it has.
    pub groups: usize,
    /// If it matches only texts that begin like a header field: the names that these have, in lower case.
    pub names: Vec<Vec<u8>>,
}

/// Understands a pattern, or says what is wrong with it.
pub fn translate(dialect: Dialect, pattern: &[u8], flags: Flags) -> Result<Translated, String> {
    let (node, groups) = match dialect {
        Dialect::Perl => pcre::parse(pattern, flags)?,
        Dialect::Posix => posix::parse(pattern, flags)?,
    };
    let mut plain = String::new();
    write_trimmed(&mut plain, &node);
    let mut plain_groups = String::new();
    write_node(&mut plain_groups, &node, Form::Groups);
    let backtracking = node.needs_backtracking().then(|| {
        let mut text = String::new();
        write_node(&mut text, &node, Form::Backtracking);
        text
    });
    let names = field_names(&node);
    Ok(Translated { plain, plain_groups, backtracking, groups, names })
}

/// A pattern as a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Empty,
    /// One octet of a set.
    Octet(Set),
    Sequence(Vec<Node>),
    Alternatives(Vec<Node>),
    /// Groups are numbered in the order in which they are written.
    Group(Box<Node>),
    Repeat {
        node: Box<Node>,
        min: u32,
        max: Option<u32>,
        greed: Greed,
    },
    At(Place),
    Look {
        behind: bool,
        negative: bool,
        node: Box<Node>,
    },
    Atomic(Box<Node>),
    Backreference {
        group: usize,
        caseless: bool,
    },
    /// A group's pattern once more, or the whole with 0.
    Call(usize),
    If {
        condition: Condition,
        yes: Box<Node>,
        no: Box<Node>,
    },
    /// `\K`: the match begins here.
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greed {
    Greedy,
    Lazy,
    Possessive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    TextStart,
    TextEnd,
    LineStart,
    LineEnd,
    WordBoundary,
    NoWordBoundary,
    WordStart,
    WordEnd,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Group(usize),
    Look(Box<Node>),
    /// Never true: its branch only defines groups for calls.
    Define,
}

impl Node {
    /// The node so many times. What takes nothing need not be there more than once.
    fn repeat(self, min: u32, max: Option<u32>, greed: Greed) -> Self {
        let takes_nothing = matches!(self, Self::Empty | Self::At(_) | Self::Look { .. } | Self::Keep);
        match (takes_nothing, min, greed) {
            (true, _, _) if max == Some(0) => Self::Empty,
            (true, 0, Greed::Lazy) => Self::Alternatives(vec![Self::Empty, self]),
            (true, 0, _) => Self::Alternatives(vec![self, Self::Empty]),
            (true, _, _) => self,
            (false, _, _) => Self::Repeat { node: Box::new(self), min, max, greed },
        }
    }

    fn needs_backtracking(&self) -> bool {
        match self {
            Self::Empty | Self::Octet(_) | Self::At(_) => false,
            Self::Sequence(nodes) | Self::Alternatives(nodes) => nodes.iter().any(Self::needs_backtracking),
            Self::Group(node) => node.needs_backtracking(),
            Self::Repeat { node, greed, .. } => *greed == Greed::Possessive || node.needs_backtracking(),
            Self::Look { .. } | Self::Atomic(_) | Self::Backreference { .. } => true,
            Self::Call(_) | Self::If { .. } | Self::Keep => true,
        }
    }

    /// Whether it takes any number of whatever there is.
    fn anything(&self) -> bool {
        match self {
            Self::Repeat { node, min: 0, max: None, .. } => matches!(&**node, Self::Octet(set) if set.is_full()),
            Self::Group(node) => node.anything(),
            _ => false,
        }
    }
}

/// Leaves out, at both ends, what matches anything anyway: which texts match stays the same, and it is found out sooner.
fn write_trimmed(out: &mut String, node: &Node) {
    let Node::Sequence(nodes) = node else { return write_node(out, node, Form::Set) };
    let mut nodes = nodes.as_slice();
    if let [Node::At(Place::TextStart), any, rest @ ..] = nodes
        && any.anything()
    {
        nodes = rest;
    }
    loop {
        match nodes {
            [rest @ .., any, Node::At(Place::TextEnd)] | [rest @ .., any] if any.anything() => nodes = rest,
            _ => break,
        }
    }
    nodes.iter().for_each(|node| write_node(out, node, Form::Set));
}

/// How many names one pattern may have before they are not worth telling apart.
const MAX_NAMES: usize = 16;

/// The names of the fields that a pattern is about, if it begins like `^Subject:` or `^(From|To):`.
fn field_names(node: &Node) -> Vec<Vec<u8>> {
    let Node::Sequence(nodes) = node else { return Vec::new() };
    let [Node::At(Place::TextStart), nodes @ ..] = nodes.as_slice() else { return Vec::new() };
    let mut names = vec![Vec::new()];
    for node in nodes {
        let Some(pieces) = literals(node) else { return Vec::new() };
        if pieces == [b":"] {
            return names;
        }
        names = names.iter().flat_map(|name| pieces.iter().map(|piece| [name.as_slice(), piece].concat())).collect();
        if names.len() > MAX_NAMES || names.iter().any(|name| name.contains(&b':')) {
            return Vec::new();
        }
    }
    Vec::new()
}

/// The texts that a node matches, in lower case, if they are few.
fn literals(node: &Node) -> Option<Vec<Vec<u8>>> {
    match node {
        Node::Octet(set) => {
            let octets: BTreeSet<u8> =
                (0..=255).filter(|octet| set.has(*octet)).map(|octet| octet.to_ascii_lowercase()).collect();
            (octets.len() == 1).then(|| octets.into_iter().map(|octet| vec![octet]).collect())
        }
        Node::Group(node) => literals(node),
        Node::Alternatives(nodes) if nodes.len() <= MAX_NAMES => {
            let texts: Option<Vec<Vec<Vec<u8>>>> = nodes.iter().map(literals).collect();
            texts.map(|texts| texts.into_iter().flatten().collect())
        }
        Node::Sequence(nodes) => {
            let mut texts = vec![Vec::new()];
            for node in nodes {
                let pieces = literals(node)?;
                texts = texts
                    .iter()
                    .flat_map(|text: &Vec<u8>| pieces.iter().map(|piece| [text.as_slice(), piece].concat()))
                    .collect();
                if texts.len() > MAX_NAMES {
                    return None;
                }
            }
            Some(texts)
        }
        _ => None,
    }
}

/// What a text is written for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A set of patterns of which one asks only whether they match.
    Set,
    /// One plain pattern with its groups.
    Groups,
    /// The backtracking engine.
    Backtracking,
}

const WORD: &str = "[0-9A-Z_a-z]";

fn write_node(out: &mut String, node: &Node, form: Form) {
    let exact = form == Form::Backtracking;
    match node {
        Node::Empty | Node::Keep if !exact => out.push_str("(?:)"),
        Node::Empty => out.push_str("(?:)"),
        Node::Keep => out.push_str("\\K"),
        Node::Octet(set) => set.write(out),
        Node::Sequence(nodes) => nodes.iter().for_each(|node| write_node(out, node, form)),
        Node::Alternatives(nodes) => {
            out.push_str("(?:");
            write_list(out, nodes, form);
            out.push(')');
        }
        Node::Group(node) => wrapped(out, if form == Form::Set { "(?:" } else { "(" }, node, form),
        Node::Repeat { node, min, max, greed } => {
            wrapped(out, "(?:", node, form);
            write_quantifier(out, *min, *max);
            match greed {
                Greed::Greedy => {}
                Greed::Lazy => out.push('?'),
                Greed::Possessive if exact => out.push('+'),
                Greed::Possessive => {}
            }
        }
        Node::At(place) => write_place(out, *place, exact),
        // What a pattern looks at without taking it can only make it match less.
        Node::Look { .. } if !exact => out.push_str("(?:)"),
        Node::Look { behind, negative, node } => {
            let opening = match (behind, negative) {
                (false, false) => "(?=",
                (false, true) => "(?!",
                (true, false) => "(?<=",
                (true, true) => "(?<!",
            };
            wrapped(out, opening, node, form);
        }
        Node::Atomic(node) => wrapped(out, if exact { "(?>" } else { "(?:" }, node, form),
        Node::Backreference { .. } | Node::Call(_) if !exact => {
            Set::FULL.write(out);
            out.push('*');
        }
        Node::Backreference { group, caseless: true } => drop(write!(out, "(?i:\\{group})")),
        Node::Backreference { group, caseless: false } => drop(write!(out, "(?:\\{group})")),
        Node::Call(group) => drop(write!(out, "\\g<{group}>")),
        Node::If { condition, yes, no } => write_if(out, condition, [yes, no], form),
    }
}

fn wrapped(out: &mut String, opening: &str, node: &Node, form: Form) {
    out.push_str(opening);
    match node {
        Node::Alternatives(nodes) => write_list(out, nodes, form),
        node => write_node(out, node, form),
    }
    out.push(')');
}

fn write_list(out: &mut String, nodes: &[Node], form: Form) {
    for (index, node) in nodes.iter().enumerate() {
        if index > 0 {
            out.push('|');
        }
        write_node(out, node, form);
    }
}

fn write_quantifier(out: &mut String, min: u32, max: Option<u32>) {
    match (min, max) {
        (0, None) => out.push('*'),
        (1, None) => out.push('+'),
        (0, Some(1)) => out.push('?'),
        (min, None) => drop(write!(out, "{{{min},}}")),
        (min, Some(max)) => drop(write!(out, "{{{min},{max}}}")),
    }
}

fn write_place(out: &mut String, place: Place, exact: bool) {
    // The backtracking engine counts letters beyond ASCII as parts of words in some places; Postfix never does.
    let text = match place {
        Place::TextStart => "\\A".to_owned(),
        Place::TextEnd => "\\z".to_owned(),
        Place::LineStart => "(?m:^)".to_owned(),
        Place::LineEnd => "(?m:$)".to_owned(),
        Place::WordBoundary if exact => format!("(?:(?<={WORD})(?!{WORD})|(?<!{WORD})(?={WORD}))"),
        Place::NoWordBoundary if exact => format!("(?:(?<={WORD})(?={WORD})|(?<!{WORD})(?!{WORD}))"),
        Place::WordStart if exact => format!("(?:(?<!{WORD})(?={WORD}))"),
        Place::WordEnd if exact => format!("(?:(?<={WORD})(?!{WORD}))"),
        Place::WordBoundary => "\\b".to_owned(),
        Place::NoWordBoundary => "\\B".to_owned(),
        Place::WordStart => "\\b{start}".to_owned(),
        Place::WordEnd => "\\b{end}".to_owned(),
    };
    out.push_str(&text);
}

fn write_if(out: &mut String, condition: &Condition, [yes, no]: [&Node; 2], form: Form) {
    if form != Form::Backtracking {
        out.push_str("(?:");
        write_node(out, yes, form);
        out.push('|');
        write_node(out, no, form);
        return out.push(')');
    }
    match condition {
        Condition::Group(group) => drop(write!(out, "(?({group})")),
        Condition::Look(look) => {
            out.push_str("(?(");
            write_node(out, look, form);
            out.push(')');
        }
        Condition::Define => {
            wrapped(out, "(?:", yes, form);
            return out.push_str("{0}");
        }
    }
    wrapped(out, "(?:", yes, form);
    out.push('|');
    wrapped(out, "(?:", no, form);
    out.push(')');
}
