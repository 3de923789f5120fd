//! Points: what policies raised in a session and a transaction, and what the operator makes of the sum.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Edit, EditError, Mail, Stage, Symbol, Verdict, apply};
use crate::mail::{Reply, ReplyError, ReplyText, is_field_name};

/// Symbols that a header field or a log line names.
const MAX_NAMED: usize = 50;
/// Octets after which a header field is folded.
const FOLD: usize = 70;
/// Where a reply's text has the points.
const PLACE: &str = "{score}";

/// What the operator makes of points: `[score]`. Where nothing is set, points have no effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Scoring {
    /// Weights by `"plugin.SYMBOL"`, in place of what the plugin suggests. Default none.
    pub weights: BTreeMap<String, f64>,
    /// From how many points on a message is marked in its header. Default: never.
    pub tag: Option<f64>,
    /// From how many points on it is kept for the operator. Default: never.
    pub quarantine: Option<f64>,
    /// From how many points on it is put off with 451. Default: never.
    pub defer: Option<f64>,
    /// From how many points on it is refused with 550. Default: never.
    pub reject: Option<f64>,
    /// Whether a recipient is refused at RCPT if the points reach `reject` by then. Default true: the cheapest moment.
    pub early: bool,
    /// The beginning of the names of the fields that mark a message: `-Flag`, `-Score` and `-Symbols` follow. Those that a message
    /// brings along are removed. Default `X-Spam`.
    pub header: String,
    /// What the client hears when it is put off. `{score}` stands for the points.
    pub defer_text: String,
    /// What it hears when it is refused.
    pub reject_text: String,
}

impl Default for Scoring {
    fn default() -> Self {
        Self {
            weights: BTreeMap::new(),
            tag: None,
            quarantine: None,
            defer: None,
            reject: None,
            early: true,
            header: "X-Spam".into(),
            defer_text: "this looks like spam (score {score}), try again later".into(),
            reject_text: "this looks like spam (score {score})".into(),
        }
    }
}

/// What a sum of points leads to, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Nothing,
    Tag,
    Quarantine,
    Defer,
    Reject,
}

impl Scoring {
    /// The key at fault and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let thresholds =
            [("tag", self.tag), ("quarantine", self.quarantine), ("defer", self.defer), ("reject", self.reject)];
        let set: Vec<(&str, f64)> = thresholds.iter().filter_map(|(key, points)| Some((*key, (*points)?))).collect();
        if let Some((key, _)) = thresholds.iter().find(|(_, points)| points.is_some_and(|points| !points.is_finite())) {
            return Err((key, "no sum of points reaches that; write a number".into()));
        }
        let falls = |pair: &&[(&'static str, f64)]| matches!(pair, [(_, milder), (_, harder)] if milder > harder);
        let set: Vec<(&'static str, f64)> = set;
        if let Some([(milder, points), (harder, less)]) = set.windows(2).find(falls) {
            return Err((
                harder,
                format!("{less} is less than `{milder}`, {points}, which would never count; write more"),
            ));
        }
        if !is_field_name(format!("{}-Symbols", self.header).as_bytes()) || self.header.is_empty() {
            return Err(("header", "no header field can be named so; write letters, digits and `-`".into()));
        }
        for (key, text) in [("defer-text", &self.defer_text), ("reject-text", &self.reject_text)] {
            let sample: Result<ReplyText, ReplyError> = text.replace(PLACE, "-1234.56").parse();
            sample.map_err(|err| (key, err.to_string()))?;
        }
        Ok(())
    }

    /// The weights of one policy's symbols.
    pub fn weights_of(&self, plugin: &str) -> BTreeMap<String, f64> {
        let own = |(key, weight): (&String, &f64)| {
            let symbol = key.strip_prefix(plugin)?.strip_prefix('.')?;
            Some((symbol.to_owned(), *weight))
        };
        self.weights.iter().filter_map(own).collect()
    }

    fn action(&self, points: f64) -> Action {
        let reached = |threshold: Option<f64>| threshold.is_some_and(|threshold| points >= threshold);
        match () {
            () if reached(self.reject) => Action::Reject,
            () if reached(self.defer) => Action::Defer,
            () if reached(self.quarantine) => Action::Quarantine,
            () if reached(self.tag) => Action::Tag,
            () => Action::Nothing,
        }
    }

    /// What the points say of a recipient; none if nothing.
    pub fn judge_recipient(&self, points: f64) -> Option<Verdict> {
        (self.early && self.action(points) == Action::Reject).then(|| self.reject(points))
    }

    /// What the points say of a message, which is marked; none if nothing.
    pub fn judge_message(&self, tally: &Tally, mail: &mut Mail) -> Result<Option<Verdict>, EditError> {
        let points = tally.sum();
        let action = self.action(points);
        if self.tag.is_some() {
            self.mark(tally, mail, action >= Action::Tag)?;
        }
        Ok(match action {
            Action::Nothing | Action::Tag => None,
            Action::Quarantine => Some(Verdict::Quarantine(format!("score {}: {}", shown(points), tally.names()))),
            Action::Defer => {
                let text = self.defer_text.replace(PLACE, &shown(points));
                Some(Verdict::Defer(Reply::transient(451, (7, 1), text)))
            }
            Action::Reject => Some(self.reject(points)),
        })
    }

    fn reject(&self, points: f64) -> Verdict {
        Verdict::Reject(Reply::permanent(550, (7, 1), self.reject_text.replace(PLACE, &shown(points))))
    }

    /// Removes the marks that others have made, and makes our own below the first field, which is our Received.
    fn mark(&self, tally: &Tally, mail: &mut Mail, marked: bool) -> Result<(), EditError> {
        let name = |part: &str| format!("{}-{part}", self.header);
        let names = [name("Flag"), name("Score"), name("Symbols")];
        let foreign = |field: &[u8]| names.iter().any(|name| is_named(field, name));
        let fields = mail.header.len();
        let mut edits: Vec<Edit> = (0..fields)
            .filter(|index| mail.header.field(*index).is_some_and(foreign))
            .map(|index| Edit::RemoveHeader { index })
            .collect();
        if marked {
            let [flag, score, symbols] = &names;
            let values = [(flag, "YES".to_owned()), (score, shown(tally.sum())), (symbols, tally.names())];
            edits.extend(values.iter().map(|(name, value)| Edit::InsertHeader {
                index: fields.min(1),
                field: folded(name, value).into_bytes(),
            }));
        }
        apply(mail, edits)
    }
}

fn is_named(field: &[u8], name: &str) -> bool {
    let own = memchr::memchr(b':', field).and_then(|colon| field.get(..colon));
    own.is_some_and(|own| own.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()))
}

/// A field, its lines broken between words.
fn folded(name: &str, value: &str) -> String {
    let mut field = format!("{name}:");
    let mut width = field.len();
    for word in value.split(' ') {
        let fold = if width + word.len() > FOLD && width > 1 { "\r\n" } else { "" };
        width = if fold.is_empty() { width + 1 + word.len() } else { 1 + word.len() };
        field.push_str(&format!("{fold} {word}"));
    }
    field
}

/// Points with two decimals at most.
pub fn shown(points: f64) -> String {
    let text = format!("{points:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// What has been raised so far, by stage. A symbol counts once in a transaction: one that was raised for several recipients counts with
/// the weight that says most, so that many recipients make no spam.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    connect: Vec<(String, Symbol)>,
    helo: Vec<(String, Symbol)>,
    mail: Vec<(String, Symbol)>,
    recipients: Vec<(String, Symbol)>,
    message: Vec<(String, Symbol)>,
}

fn points(symbols: &[(String, Symbol)]) -> f64 {
    symbols.iter().map(|(_, symbol)| symbol.weight).filter(|weight| weight.is_finite()).sum()
}

impl Tally {
    /// Takes what a stage brought forth; of a recipient only if it is accepted. HELO may come again and counts the last time.
    pub fn note(&mut self, stage: Stage, symbols: &[(String, Symbol)]) {
        match stage {
            Stage::Connect => self.connect = symbols.to_vec(),
            Stage::Helo => self.helo = symbols.to_vec(),
            Stage::Mail => self.mail = symbols.to_vec(),
            Stage::Message => self.message = symbols.to_vec(),
            Stage::Rcpt => symbols.iter().for_each(|own| self.note_recipient(own)),
        }
    }

    fn note_recipient(&mut self, (plugin, symbol): &(String, Symbol)) {
        let same = |known: &&mut (String, Symbol)| known.0 == *plugin && known.1.name == symbol.name;
        match self.recipients.iter_mut().find(same) {
            Some((_, known)) if known.weight.abs() >= symbol.weight.abs() => {}
            Some((_, known)) => *known = symbol.clone(),
            None => self.recipients.push((plugin.clone(), symbol.clone())),
        }
    }

    /// The transaction is over.
    pub fn end_transaction(&mut self) {
        self.mail.clear();
        self.recipients.clear();
        self.message.clear();
    }

    /// What counted before a stage began. Other recipients count for a message, and not for a recipient.
    pub fn before(&self, stage: Stage) -> f64 {
        let session = points(&self.connect) + points(&self.helo);
        match stage {
            Stage::Connect => 0.0,
            Stage::Helo => points(&self.connect),
            Stage::Mail => session,
            Stage::Rcpt => session + points(&self.mail),
            Stage::Message => session + points(&self.mail) + points(&self.recipients),
        }
    }

    /// All points.
    pub fn sum(&self) -> f64 {
        self.before(Stage::Message) + points(&self.message)
    }

    /// The symbols with their points, like `dnsbl.LISTED=2.5`; at most fifty.
    pub fn names(&self) -> String {
        let all = [&self.connect, &self.helo, &self.mail, &self.recipients, &self.message];
        let named = |(plugin, symbol): &(String, Symbol)| format!("{plugin}.{}={}", symbol.name, shown(symbol.weight));
        let mut names: Vec<String> = all.into_iter().flatten().take(MAX_NAMED).map(named).collect();
        let left_out = all.into_iter().flatten().count() - names.len();
        if left_out > 0 {
            names.push(format!("and-{left_out}-more"));
        }
        names.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, weight: f64) -> (String, Symbol) {
        ("p".into(), Symbol { name: name.into(), weight, detail: String::new() })
    }

    fn scoring(text: [Option<f64>; 4]) -> Scoring {
        let [tag, quarantine, defer, reject] = text;
        Scoring { tag, quarantine, defer, reject, ..Scoring::default() }
    }

    #[test]
    fn thresholds_are_reached_exactly() {
        let all = scoring([Some(1.0), Some(2.0), Some(3.0), Some(4.0)]);
        for (points, action) in [
            (0.99, Action::Nothing),
            (1.0, Action::Tag),
            (2.0, Action::Quarantine),
            (3.0, Action::Defer),
            (4.0, Action::Reject),
            (f64::MAX, Action::Reject),
            (f64::NAN, Action::Nothing),
        ] {
            assert_eq!(all.action(points), action, "{points}");
        }
        assert_eq!(Scoring::default().action(1000.0), Action::Nothing);
        let later = Scoring { early: false, ..all.clone() };
        assert_eq!(later.judge_recipient(5.0), None);
        let Some(Verdict::Reject(reply)) = all.judge_recipient(5.25) else { panic!("refused") };
        assert_eq!(reply.to_string(), "550 5.7.1 this looks like spam (score 5.25)");
        assert_eq!(all.judge_recipient(3.5), None, "only what is certain is refused early");
    }

    #[test]
    fn what_cannot_be_is_told() {
        assert_eq!(scoring([Some(1.0), None, None, Some(1.0)]).check(), Ok(()));
        assert_eq!(scoring([Some(5.0), None, Some(4.0), None]).check().map_err(|(key, _)| key), Err("defer"));
        assert_eq!(scoring([None, Some(f64::INFINITY), None, None]).check().map_err(|(key, _)| key), Err("quarantine"));
        for header in ["", "X Spam", "X:"] {
            let wrong = Scoring { header: header.into(), ..Scoring::default() };
            assert_eq!(wrong.check().map_err(|(key, _)| key), Err("header"));
        }
        let wrong = Scoring { reject_text: "a\r\n250 b".into(), ..Scoring::default() };
        assert_eq!(wrong.check().map_err(|(key, _)| key), Err("reject-text"));
    }

    #[test]
    fn stages_add_up_and_recipients_do_not() {
        let mut tally = Tally::default();
        tally.note(Stage::Connect, &[symbol("C", 1.0)]);
        tally.note(Stage::Helo, &[symbol("H", 5.0)]);
        tally.note(Stage::Helo, &[symbol("H", 2.0)]);
        tally.note(Stage::Mail, &[symbol("M", 0.5)]);
        for weight in [1.0, 3.0, 2.0] {
            assert_eq!(tally.before(Stage::Rcpt), 3.5);
            tally.note(Stage::Rcpt, &[symbol("R", weight)]);
        }
        tally.note(Stage::Message, &[symbol("B", -1.5)]);
        assert_eq!(tally.sum(), 5.0);
        assert_eq!(tally.names(), "p.C=1 p.H=2 p.M=0.5 p.R=3 p.B=-1.5");
        tally.end_transaction();
        assert_eq!((tally.sum(), tally.names().as_str()), (3.0, "p.C=1 p.H=2"));
    }

    #[test]
    fn how_they_are_written() {
        for (points, text) in [(0.0, "0"), (-0.001, "0"), (10.0, "10"), (2.5, "2.5"), (-1.005, "-1"), (7.126, "7.13")] {
            assert_eq!(shown(points), text);
        }
        let long = folded("X-Spam-Symbols", &["plugin.SYMBOL=1.25"; 8].join(" "));
        assert!(long.lines().all(|line| line.len() < 78), "{long}");
        assert_eq!(long.replace("\r\n", ""), format!("X-Spam-Symbols: {}", ["plugin.SYMBOL=1.25"; 8].join(" ")));
        assert!(super::super::edit::check_field(long.as_bytes()).is_ok());
        assert_eq!(folded("A", ""), "A: ");
    }
}
