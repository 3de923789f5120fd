//! Many patterns over one text: which of them match, found in one pass; and what the groups of one of them matched.
//!
//! Lazily built automata over all patterns tell which may match. `warm` runs them over usual text beforehand: in a policy, so that
//! their states are in the snapshot from which every call begins. Only a pattern that an automaton cannot
//! express, and that may match, is then run by the backtracking engine, with a limit on its steps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use fancy_regex::{BytesMode, RegexBuilder};
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures, pikevm::PikeVM};
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, PatternID, PatternSet};

use crate::syntax::Translated;

/// Octets of the automaton's states. When it is full it begins anew, which costs time and nothing else.
const CACHE: usize = 4 * 1024 * 1024;
/// Octets of states that are built before the first message.
const WARM_MEMORY: usize = 4 * 1024 * 1024;
/// Steps from state to state that are taken for it.
const WARM_STEPS: usize = 300_000;
/// So many patterns about fields of one name have an automaton of their own.
const OWN_AUTOMATON: usize = 4;
/// Octets of a field name that any pattern can be about.
const MAX_NAME: usize = 256;
/// Texts that a backtracking engine is run over for it.
const WARM_RUNS: usize = 50;
/// Octets of one pattern as it is compiled.
const PATTERN: usize = 4 * 1024 * 1024;
/// Octets of all patterns of one list of tables together.
const PATTERNS: usize = 32 * 1024 * 1024;
/// Steps of the backtracking engine for one pattern and one text.
const STEPS: usize = 1_000_000;
/// How often one pattern may run into that limit in one message before it is left out for the rest of it.
const EXHAUSTED: u32 = 5;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    /// Which pattern.
    pub pattern: usize,
}

/// Patterns, compiled. Those about a field of a certain name are kept apart: no other field is shown to them.
pub struct Patterns {
    /// By the names of fields in lower case.
    named: BTreeMap<Vec<u8>, Automaton>,
    /// All others.
    rest: Automaton,
    engines: Vec<Engines>,
}

/// What one pattern needs beyond the automaton.
#[derive(Default)]
struct Engines {
    /// Decides, if the automaton only guesses.
    backtracking: Option<fancy_regex::Regex>,
    /// Finds the groups, if somebody asks for them.
    groups: Option<PikeVM>,
}

/// How often each pattern ran into the limit while one message is judged.
#[derive(Default)]
pub struct Budget(Vec<u32>);

fn plain_syntax() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false)
}

fn thompson() -> thompson::Config {
    thompson::Config::new().utf8(false)
}

/// Compiles one pattern; `groups` if what they matched will be asked for.
fn compile(pattern: &Translated, groups: bool) -> Result<Engines, String> {
    let reason = |err: &dyn std::fmt::Display| format!("the pattern cannot be compiled: {err}");
    let backtracking = pattern.backtracking.as_ref().map(|text| {
        let mut builder = RegexBuilder::new(text);
        builder.bytes_mode(BytesMode::Ascii).unicode_mode(false).backtrack_limit(STEPS).delegate_size_limit(PATTERN);
        builder.build().map_err(|err| reason(&err))
    });
    let pike = (groups && pattern.backtracking.is_none()).then(|| {
        let thompson = thompson().nfa_size_limit(Some(PATTERN));
        PikeVM::builder()
            .syntax(plain_syntax())
            .thompson(thompson)
            .build(&pattern.plain_groups)
            .map_err(|err| reason(&err))
    });
    if pike.is_none() {
        // For the error alone, which names this pattern; all together they are compiled once more.
        let config = thompson().nfa_size_limit(Some(PATTERN)).which_captures(WhichCaptures::None);
        thompson::Compiler::new()
            .syntax(plain_syntax())
            .configure(config)
            .build(&pattern.plain)
            .map_err(|err| reason(&err))?;
    }
    Ok(Engines { backtracking: backtracking.transpose()?, groups: pike.transpose()? })
}

impl Patterns {
    /// Compiles them all. The error names the one that cannot be, if it is one.
    pub fn new(patterns: &[(&Translated, bool)]) -> Result<Self, (Option<usize>, String)> {
        let mut engines = Vec::new();
        for (index, (pattern, groups)) in patterns.iter().enumerate() {
            engines.push(compile(pattern, *groups).map_err(|err| (Some(index), err))?);
        }
        let mut by_name: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        for (index, (pattern, _)) in patterns.iter().enumerate() {
            pattern.names.iter().for_each(|name| by_name.entry(name).or_default().push(index));
        }
        by_name.retain(|_, patterns| patterns.len() >= OWN_AUTOMATON);
        // One that is about several names may be in several automata; it must be in all of them.
        let apart = |pattern: &Translated| {
            !pattern.names.is_empty() && pattern.names.iter().all(|name| by_name.contains_key(name.as_slice()))
        };
        let rest: Vec<usize> = (0..patterns.len())
            .filter(|index| patterns.get(*index).is_some_and(|(pattern, _)| !apart(pattern)))
            .collect();
        let named = by_name.iter().map(|(name, own)| Ok((name.to_vec(), Automaton::new(patterns, own)?)));
        let named = named.collect::<Result<_, String>>().map_err(|err| (None, err))?;
        let rest = Automaton::new(patterns, &rest).map_err(|err| (None, err))?;
        Ok(Self { named, rest, engines })
    }

    /// Prepares for texts like these.
    pub fn warm<'t>(&self, texts: impl Iterator<Item = &'t [u8]> + Clone) {
        // The backtracking engines have automata within, with states of their own.
        for regex in self.engines.iter().filter_map(|engines| engines.backtracking.as_ref()) {
            let mut budget = Budget::default();
            // One that exhausts itself over usual text will do so over a message too, and is left out then.
            let _ = texts
                .clone()
                .take(WARM_RUNS)
                .try_for_each(|text| budget.run(0, || regex.is_match(text).ok()).map(drop));
        }
        let share = WARM_MEMORY / (self.named.len() + 1);
        self.rest.warm(texts.clone().map(<[u8]>::to_vec), share);
        for (name, automaton) in &self.named {
            // What stands in one field may stand in another.
            let value =
                |text: &[u8]| text.iter().position(|octet| *octet == b':').map(|colon| text.split_at(colon).1.to_vec());
            automaton.warm(texts.clone().filter_map(value).map(|value| [name.clone(), value].concat()), share);
        }
    }

    /// Which patterns may match.
    pub fn candidates(&self, text: &[u8]) -> PatternSet {
        let mut set = PatternSet::new(self.engines.len());
        self.rest.search(text, &mut set);
        let name = text.iter().position(|octet| *octet == b':').and_then(|colon| text.get(..colon));
        // Names that rules are about are short.
        if let Some(name) = name.filter(|name| !self.named.is_empty() && name.len() <= MAX_NAME)
            && let Some(automaton) = self.named.get(&name.to_ascii_lowercase())
        {
            automaton.search(text, &mut set);
        }
        set
    }

    /// Whether one of the candidates does match.
    pub fn confirm(&self, index: usize, text: &[u8], budget: &mut Budget) -> Result<bool, Exhausted> {
        match self.engines.get(index).and_then(|engines| engines.backtracking.as_ref()) {
            None => Ok(true),
            Some(regex) => budget.run(index, || regex.is_match(text).ok()),
        }
    }

    /// What the groups of a pattern that matches did match, the whole match first.
    pub fn groups<'t>(
        &self,
        index: usize,
        text: &'t [u8],
        budget: &mut Budget,
    ) -> Result<Vec<Option<&'t [u8]>>, Exhausted> {
        let Some(engines) = self.engines.get(index) else { return Ok(Vec::new()) };
        if let Some(regex) = &engines.backtracking {
            let captures = budget.run(index, || regex.captures(text).ok())?;
            let Some(captures) = captures else { return Ok(Vec::new()) };
            let group = |index| captures.get(index).and_then(|group| text.get(group.start()..group.end()));
            return Ok((0..captures.len()).map(group).collect());
        }
        let Some(pike) = &engines.groups else { return Ok(Vec::new()) };
        let mut captures = pike.create_captures();
        pike.captures(&mut pike.create_cache(), text, &mut captures);
        Ok(captures.iter().map(|group| group.and_then(|group| text.get(group.range()))).collect())
    }
}

/// An automaton over some of the patterns.
struct Automaton {
    dfa: DFA,
    /// Shared by all who search: a search takes microseconds.
    cache: Mutex<Cache>,
    /// Its patterns' numbers among all.
    patterns: Vec<usize>,
}

impl Automaton {
    fn new(all: &[(&Translated, bool)], own: &[usize]) -> Result<Self, String> {
        let texts = own.iter().filter_map(|index| all.get(*index)).map(|(pattern, _)| pattern.plain.as_str());
        let dfa = DFA::builder()
            .configure(DFA::config().match_kind(MatchKind::All).cache_capacity(CACHE).skip_cache_capacity_check(true))
            .syntax(plain_syntax())
            .thompson(thompson().nfa_size_limit(Some(PATTERNS)))
            .build_many(&texts.collect::<Vec<_>>())
            .map_err(|err| format!("the patterns are too many or too large: {err}"))?;
        let cache = Mutex::new(dfa.create_cache());
        Ok(Self { dfa, cache, patterns: own.to_vec() })
    }

    fn search(&self, text: &[u8], all: &mut PatternSet) {
        if self.patterns.is_empty() {
            return;
        }
        let mut own = PatternSet::new(self.patterns.len());
        let cache = &mut *self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        self.dfa.try_which_overlapping_matches(cache, &Input::new(text), &mut own).expect(
            "without a limit on clearing the cache, and without Unicode word boundaries, the search cannot fail",
        );
        for pattern in own.iter().filter_map(|own| self.patterns.get(own.as_usize())) {
            all.insert(PatternID::must(*pattern));
        }
    }

    /// Builds the states that these texts lead to, and from those all that is near, as far as memory and time allow.
    fn warm(&self, texts: impl Iterator<Item = Vec<u8>>, memory: usize) {
        let cache = &mut *self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut states = States::default();
        for text in texts {
            let Ok(mut state) = self.dfa.start_state_forward(cache, &Input::new(&text)) else { return };
            states.add(state);
            for octet in text {
                let Ok(next) = self.dfa.next_state(cache, state, octet) else { return };
                states.add(next);
                state = next;
            }
            if cache.memory_usage() > memory {
                return;
            }
        }
        let octets: Vec<u8> =
            self.dfa.byte_classes().representatives(0..=255).filter_map(|unit| unit.as_u8()).collect();
        let mut steps = 0;
        while let Some(state) = states.next() {
            for octet in &octets {
                let Ok(next) = self.dfa.next_state(cache, state, *octet) else { return };
                states.add(next);
            }
            let _ = self.dfa.next_eoi_state(cache, state);
            steps += octets.len();
            if cache.memory_usage() > memory || steps > WARM_STEPS || cache.clear_count() > 0 {
                return;
            }
        }
    }
}

/// States of the automaton in the order in which they were met.
#[derive(Default)]
struct States {
    known: BTreeSet<LazyStateID>,
    queue: VecDeque<LazyStateID>,
}

impl States {
    fn add(&mut self, state: LazyStateID) {
        if !state.is_dead() && !state.is_quit() && self.known.insert(state) {
            self.queue.push_back(state);
        }
    }
    fn next(&mut self) -> Option<LazyStateID> {
        self.queue.pop_front()
    }
}

impl Budget {
    fn run<T>(&mut self, pattern: usize, search: impl FnOnce() -> Option<T>) -> Result<T, Exhausted> {
        if self.0.len() <= pattern {
            self.0.resize(pattern + 1, 0);
        }
        let Some(spent) = self.0.get_mut(pattern) else { return Err(Exhausted { pattern }) };
        if *spent >= EXHAUSTED {
            return Err(Exhausted { pattern });
        }
        search().ok_or_else(|| {
            *spent += 1;
            Exhausted { pattern }
        })
    }
}
