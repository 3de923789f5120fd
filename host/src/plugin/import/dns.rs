//! `dns`: questions through the host's resolver and its cache.

use std::net::IpAddr;

use wasmtime::Result;

use super::super::bindings::wasmta::policy::dns::{
    Answer as WitAnswer, Error as WitError, Host, Kind as WitKind, Question,
};
use super::super::context::Context;
use crate::net::{Answer, Error, Kind, Name};

/// Questions at once.
const MAX_BATCH: usize = 64;
/// Questions of one call.
const MAX_QUESTIONS: usize = 256;
/// Octets of all answers of one call.
const MAX_OCTETS: usize = 1 << 20;

type Answers = std::result::Result<Vec<WitAnswer>, WitError>;

/// What a call has asked so far.
#[derive(Default)]
pub(in crate::plugin) struct Asked {
    questions: usize,
    octets: usize,
}

impl Host for Context {
    async fn query(&mut self, question: Question) -> Result<Answers> {
        let mut answers = self.query_many(vec![question]).await?;
        Ok(answers.pop().unwrap_or(Err(WitError::Limit)))
    }

    async fn query_many(&mut self, questions: Vec<Question>) -> Result<Vec<Answers>> {
        let until = self.until("ask DNS")?;
        let mut results: Vec<Option<Answers>> = Vec::with_capacity(questions.len());
        let mut sound = Vec::new();
        for (place, question) in questions.iter().enumerate() {
            results.push(match name(question) {
                _ if place >= MAX_BATCH || self.asked.questions >= MAX_QUESTIONS => Some(Err(WitError::Limit)),
                None => Some(Err(WitError::Malformed)),
                Some(name) => {
                    self.asked.questions += 1;
                    sound.push((name, kind(question.kind)));
                    None
                }
            });
        }
        let outcomes = match &self.identity.services.resolver {
            Some(resolver) => resolver.lookup_many(sound, until).await,
            None => Vec::new(),
        };
        let mut outcomes = outcomes.into_iter();
        let mut answers = Vec::with_capacity(results.len());
        for (known, question) in results.into_iter().zip(&questions) {
            let answer = known.unwrap_or_else(|| self.asked.take(outcomes.next()));
            self.witness("dns", || (format!("{} {}", kind(question.kind), question.name), told(&answer)));
            answers.push(answer);
        }
        Ok(answers)
    }
}

impl Asked {
    fn take(&mut self, outcome: Option<std::result::Result<Answer, Error>>) -> Answers {
        let answer = match outcome {
            None => return Err(WitError::NotGranted),
            Some(Ok(answer)) => answer,
            Some(Err(Error::NoSuchName)) => return Err(WitError::NoSuchName),
            Some(Err(Error::Timeout)) => return Err(WitError::Timeout),
            Some(Err(Error::Failure(why))) => return Err(WitError::Failure(why)),
        };
        let ttl = u32::try_from(answer.ttl.as_secs()).unwrap_or(u32::MAX);
        let values: Vec<String> = answer.records.iter().map(ToString::to_string).collect();
        self.octets = self.octets.saturating_add(values.iter().map(String::len).sum());
        if self.octets > MAX_OCTETS {
            return Err(WitError::Limit);
        }
        Ok(values.into_iter().map(|value| WitAnswer { value, ttl }).collect())
    }
}

fn told(answers: &Answers) -> String {
    match answers {
        Ok(answers) if answers.is_empty() => "nothing".into(),
        Ok(answers) => answers.iter().map(|answer| answer.value.as_str()).collect::<Vec<_>>().join(", "),
        Err(error) => error.to_string(),
    }
}

fn name(question: &Question) -> Option<Name> {
    match question.name.parse::<IpAddr>() {
        Ok(address) if matches!(question.kind, WitKind::Ptr) => Some(Name::reverse(address)),
        _ => question.name.parse().ok(),
    }
}

fn kind(kind: WitKind) -> Kind {
    match kind {
        WitKind::A => Kind::A,
        WitKind::Aaaa => Kind::Aaaa,
        WitKind::Mx => Kind::Mx,
        WitKind::Txt => Kind::Txt,
        WitKind::Ptr => Kind::Ptr,
    }
}
