//! From facts to questions, from answers to listings. Pure: whoever calls asks the questions.

use std::net::{IpAddr, Ipv4Addr};

use crate::name;
use crate::zone::{Of, Zone};

/// What is known when MAIL has been said.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The client.
    pub address: Option<IpAddr>,
    /// Its name, if DNS confirms it.
    pub client_name: Option<String>,
    /// What it said in HELO or EHLO.
    pub helo: Option<String>,
    /// The reverse-path; empty for `<>`.
    pub sender: String,
}

/// How a zone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Its test points were right.
    Well,
    /// They were not; why.
    Sick(String),
    /// It did not answer; tried again soon.
    Silent(String),
}

impl Health {
    /// How long that holds.
    pub fn seconds(&self) -> u32 {
        match self {
            Self::Well | Self::Sick(_) => 3600,
            Self::Silent(_) => 300,
        }
    }

    /// As it is remembered.
    pub fn write(&self, now: u64) -> String {
        let until = now.saturating_add(self.seconds().into());
        match self {
            Self::Well => format!("{until} well"),
            Self::Sick(why) => format!("{until} sick {why}"),
            Self::Silent(why) => format!("{until} silent {why}"),
        }
    }

    /// What `write` wrote, if it still holds.
    pub fn read(text: &str, now: u64) -> Option<Self> {
        let (until, rest) = text.split_once(' ')?;
        if until.parse::<u64>().ok()? <= now {
            return None;
        }
        let (word, why) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(match word {
            "well" => Self::Well,
            "sick" => Self::Sick(why.into()),
            "silent" => Self::Silent(why.into()),
            _ => return None,
        })
    }
}

/// What a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The mail at hand.
    Mail,
    /// The test point that has to be listed.
    Listed,
    /// The one that must not be.
    Unlisted,
}

/// One name to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Which zone, by its place in the settings.
    pub zone: usize,
    /// What for.
    pub purpose: Purpose,
    /// The whole name.
    pub name: String,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The addresses; none if there is no such name.
    Addresses(Vec<String>),
    /// Nothing; why.
    Failed(String),
}

/// The name to ask a zone for, if there is anything to ask.
pub fn question_name(zone: &Zone, facts: &Facts) -> Option<String> {
    let about = match zone.of {
        Of::Client => name::reversed(facts.address?),
        Of::ClientName => name::domain(facts.client_name.as_deref()?)?,
        Of::Helo => name::domain(facts.helo.as_deref()?)?,
        Of::Sender => name::domain(facts.sender.rsplit_once('@')?.1)?,
    };
    Some(format!("{about}.{}", zone.name))
}

/// All questions for one mail; the test points of zones of which nothing is known are among them.
pub fn questions(zones: &[Zone], facts: &Facts, health: &[Option<Health>]) -> Vec<Question> {
    let mut questions = Vec::new();
    for (index, (zone, health)) in zones.iter().zip(health).enumerate() {
        let question = |purpose, name| Question { zone: index, purpose, name };
        if matches!(health, Some(Health::Sick(_) | Health::Silent(_))) {
            continue;
        }
        if let Some(name) = question_name(zone, facts) {
            questions.push(question(Purpose::Mail, name));
        }
        if health.is_none() && zone.test {
            let (listed, unlisted) = test_points(zone);
            questions.push(question(Purpose::Listed, format!("{listed}.{}", zone.name)));
            questions.push(question(Purpose::Unlisted, format!("{unlisted}.{}", zone.name)));
        }
    }
    questions
}

/// What is listed and what is not in each list, RFC 5782 §5. One that holds IPv6 addresses alone has other points: `test = false`.
fn test_points(zone: &Zone) -> (&'static str, &'static str) {
    match zone.of {
        Of::Client => ("2.0.0.127", "1.0.0.127"),
        Of::ClientName | Of::Helo | Of::Sender => ("test", "invalid"),
    }
}

/// The health of the zones that were tested.
pub fn tested<'a>(zones: &'a [Zone], questions: &[Question], answers: &[Answer]) -> Vec<(&'a Zone, Health)> {
    let find = |zone: usize, purpose: Purpose| {
        let index = questions.iter().position(|question| question.zone == zone && question.purpose == purpose)?;
        answers.get(index)
    };
    let health = |index: usize| match (find(index, Purpose::Listed)?, find(index, Purpose::Unlisted)?) {
        (Answer::Failed(why), _) | (_, Answer::Failed(why)) => Some(Health::Silent(why.clone())),
        (Answer::Addresses(listed), Answer::Addresses(unlisted)) => Some(diagnosis(listed, unlisted)),
    };
    zones.iter().enumerate().filter_map(|(index, zone)| Some((zone, health(index)?))).collect()
}

fn diagnosis(listed: &[String], unlisted: &[String]) -> Health {
    let signals: Vec<Signal> = listed.iter().chain(unlisted).map(|answer| signal(answer)).collect();
    if let Some(why) = signals.iter().find_map(|signal| match signal {
        Signal::Error(why) => Some(*why),
        Signal::Listing(_) | Signal::Foreign => None,
    }) {
        return Health::Sick(why.into());
    }
    if signals.contains(&Signal::Foreign) {
        return Health::Sick(
            "its answers are not in 127.0.0.0/8: the resolver or somebody on the way rewrites them".into(),
        );
    }
    match (listed.is_empty(), unlisted.is_empty()) {
        (false, true) => Health::Well,
        (true, _) => Health::Sick("its test entry is not listed: it is dead, or does not answer this resolver".into()),
        (false, false) => Health::Sick("it lists everything".into()),
    }
}

/// What one address says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Listing(Ipv4Addr),
    /// "You may not ask": what Spamhaus and those who do like it answer from 127.255.255.0/24.
    Error(&'static str),
    /// No list answers so: a rewritten NXDOMAIN.
    Foreign,
}

fn signal(answer: &str) -> Signal {
    let Ok(address) = answer.parse::<Ipv4Addr>() else { return Signal::Foreign };
    match address.octets() {
        [127, 255, 255, 252] => Signal::Error("127.255.255.252: the zone's name is mistyped"),
        [127, 255, 255, 254] => {
            Signal::Error("127.255.255.254: it does not answer public resolvers; ask through one of your own")
        }
        [127, 255, 255, 255] => Signal::Error("127.255.255.255: too many questions were asked"),
        [127, 255, 255, _] => Signal::Error("127.255.255.x: it refuses to answer"),
        [127, ..] => Signal::Listing(address),
        _ => Signal::Foreign,
    }
}

/// The mail is in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing<'a> {
    /// Which, by its place in the settings.
    pub index: usize,
    /// Which.
    pub zone: &'a Zone,
    /// Points.
    pub weight: f64,
    /// What the answer means, if that is known.
    pub meaning: String,
    /// The answer.
    pub answer: Ipv4Addr,
}

/// An answer that does not count.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused<'a> {
    /// Whose.
    pub zone: &'a Zone,
    /// Why not.
    pub why: String,
    /// What that says of the zone.
    pub mute: Option<Health>,
}

/// What the answers say.
#[derive(Debug, Clone, Default)]
pub struct Findings<'a> {
    /// Where the mail is listed.
    pub listings: Vec<Listing<'a>>,
    /// What did not count.
    pub refused: Vec<Refused<'a>>,
}

/// Reads the answers.
pub fn findings<'a>(zones: &'a [Zone], questions: &[Question], answers: &[Answer]) -> Findings<'a> {
    let mut findings = Findings::default();
    for (question, answer) in questions.iter().zip(answers) {
        let Some(zone) = zones.get(question.zone).filter(|_| question.purpose == Purpose::Mail) else { continue };
        let addresses = match answer {
            Answer::Addresses(addresses) => addresses,
            Answer::Failed(why) => {
                findings.refused.push(Refused { zone, why: why.clone(), mute: Some(Health::Silent(why.clone())) });
                continue;
            }
        };
        let mut best: Option<Listing> = None;
        for address in addresses {
            match signal(address) {
                Signal::Listing(answer) => {
                    let Some((weight, meaning)) = zone.meaning(answer) else { continue };
                    // Of several answers the one that weighs most.
                    if best.as_ref().is_none_or(|best| weight.abs() > best.weight.abs()) {
                        best = Some(Listing { index: question.zone, zone, weight, meaning: meaning.into(), answer });
                    }
                }
                Signal::Error(why) => {
                    let mute = Some(Health::Sick(why.into()));
                    findings.refused.push(Refused { zone, why: why.into(), mute });
                }
                Signal::Foreign => findings.refused.push(Refused {
                    zone,
                    why: format!("{} is no answer of a list", address.escape_debug()),
                    mute: None,
                }),
            }
        }
        findings.listings.extend(best);
    }
    findings
}

/// The block list to name in the refusal, if the sum of all weights reaches the threshold: the one that weighs most.
pub fn refused_by(threshold: f64, listings: &[Listing]) -> Option<usize> {
    let sum: f64 = listings.iter().map(|listing| listing.weight).sum();
    let bad = listings.iter().filter(|listing| !listing.zone.good && listing.weight > 0.0);
    // Of equal ones the first, as Postfix would have asked them.
    let worst = bad.reduce(|worst, next| if next.weight > worst.weight { next } else { worst })?;
    (sum >= threshold).then_some(worst.index)
}

/// Octets of a reply's text.
const MAX_REPLY: usize = 480;

/// Postfix's `default_rbl_reply`.
pub fn reply(zone: &Zone, facts: &Facts, reason: &str) -> String {
    let what = match zone.of {
        Of::Client => facts.address.map(|address| address.to_string()).unwrap_or_default(),
        Of::ClientName => facts.client_name.clone().unwrap_or_default(),
        Of::Helo => facts.helo.clone().unwrap_or_default(),
        Of::Sender => facts.sender.clone(),
    };
    let mut text = format!("Service unavailable; {} [{what}] blocked using {}", zone.of.class(), zone.shown());
    if !reason.is_empty() {
        text.push_str("; ");
        text.extend(reason.chars().map(|letter| if letter.is_control() { ' ' } else { letter }));
    }
    text.truncate(text.floor_char_boundary(MAX_REPLY));
    text
}
