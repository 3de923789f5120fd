//! What the answers of the driver lead to: verdicts of policies, relay control, the queue.

use std::sync::Arc;

use super::transaction::Fate;
use super::{Action, Answer, Phase, Question, Server};
use crate::mail::{Reply, ReplyClass};
use crate::policy::{Stage, Verdict};

/// What a verdict comes down to.
enum Judgement {
    Go(Fate),
    Refuse(Reply),
    Disconnect(Reply),
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            // The driver has let the client wait already.
            Verdict::Pass | Verdict::Accept | Verdict::Delay(_) => Self::Go(Fate::Deliver),
            Verdict::Discard(why) => Self::Go(Fate::Discard(why)),
            Verdict::Quarantine(why) => Self::Go(Fate::Hold(why)),
            Verdict::Reject(reply) | Verdict::Defer(reply) | Verdict::DeferIfPermit(reply) => Self::Refuse(reply),
            Verdict::Disconnect(reply) => Self::Disconnect(reply),
        }
    }
}

impl Server {
    pub(super) fn begin(&mut self, output: &mut Vec<u8>) -> Option<Action> {
        self.phase = Phase::Asked(Question::Connect);
        self.resume(output)
    }

    /// Goes on with the question that was asked: with its answer, without one if nobody is to be asked, or by asking.
    pub(super) fn resume(&mut self, output: &mut Vec<u8>) -> Option<Action> {
        let question = match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Asked(question) => question,
            other => {
                self.phase = other;
                return None;
            }
        };
        match question {
            Question::Connect => self.consult(question, Stage::Connect, output),
            Question::Helo { .. } => self.consult(question, Stage::Helo, output),
            Question::Mail => self.consult(question, Stage::Mail, output),
            Question::Rcpt => self.consult(question, Stage::Rcpt, output),
            Question::Open => match self.answer.take() {
                Some(Answer::Opened(result)) => self.open(result, output),
                _ => self.ask(question, Action::Open),
            },
            Question::Resolve => match self.answer.take() {
                Some(Answer::Resolved(result)) => self.resolve(result, output),
                _ => self.ask(question, Action::Resolve),
            },
            Question::Finish => match self.answer.take() {
                Some(Answer::Finished(reply)) => self.finish(&reply, output),
                _ => self.ask(question, Action::Finish),
            },
        }
    }

    fn ask(&mut self, question: Question, action: Action) -> Option<Action> {
        self.phase = Phase::Asked(question);
        Some(action)
    }

    fn consult(&mut self, question: Question, stage: Stage, output: &mut Vec<u8>) -> Option<Action> {
        // Nobody needs to be asked about a message that is thrown away whatever they say.
        let discarded = matches!(self.fate(), Fate::Discard(_)) && matches!(stage, Stage::Mail | Stage::Rcpt);
        let judgement = match self.answer.take() {
            _ if discarded || !self.stages.contains(stage) => Judgement::Go(Fate::Deliver),
            Some(Answer::Verdict(verdict)) => verdict.into(),
            _ => return self.ask(question, Action::Consult(stage)),
        };
        match judgement {
            Judgement::Go(fate) => {
                self.remember(stage, fate);
                self.proceed(stage, output);
            }
            Judgement::Refuse(reply) => self.turn_down(question, reply, output),
            Judgement::Disconnect(reply) => {
                self.pass_on(output, &reply);
                self.phase = Phase::Closing;
            }
        }
        None
    }

    fn remember(&mut self, stage: Stage, fate: Fate) {
        match (stage, &mut self.transaction) {
            (Stage::Connect, _) => self.connect_fate = fate,
            (Stage::Helo, _) => self.helo_fate = fate,
            (_, Some(transaction)) => transaction.fate = std::mem::take(&mut transaction.fate).or(fate),
            (_, None) => {}
        }
    }

    /// A policy said no.
    fn turn_down(&mut self, question: Question, reply: Reply, output: &mut Vec<u8>) {
        match question {
            Question::Connect if reply.class() == ReplyClass::Permanent => {
                // RFC 5321 §3.1: 554 in place of the greeting; RFC 7504: 521 says that there never is service here.
                let code = if reply.code() == 521 { 521 } else { 554 };
                with_code(&reply, code).write_to(output);
                self.refusal = Some(reply);
            }
            Question::Connect => {
                with_code(&reply, 421).write_to(output);
                self.phase = Phase::Closing;
            }
            Question::Helo { previous, was_extended } => {
                // RFC 5321 §4.1.4: the session is as it was before the command.
                let session = Arc::make_mut(&mut self.session);
                session.helo = previous;
                session.extended = was_extended;
                self.pass_on(output, &reply);
            }
            Question::Mail => {
                self.drop_transaction();
                self.pass_on(output, &reply);
            }
            _ => self.turn_recipient_down(&reply, output),
        }
    }

    fn turn_recipient_down(&mut self, reply: &Reply, output: &mut Vec<u8>) {
        if let Some(transaction) = &mut self.transaction {
            transaction.candidate = None;
        }
        match reply.class() {
            ReplyClass::Transient => self.put_off(output, Some(reply)),
            _ => self.pass_on(output, reply),
        }
    }

    fn open(&mut self, result: Result<crate::mail::QueueId, Reply>, output: &mut Vec<u8>) -> Option<Action> {
        match (result, &mut self.transaction) {
            (Ok(id), Some(transaction)) => {
                transaction.id = Some(id);
                self.phase = Phase::Asked(Question::Mail);
            }
            (Ok(_), None) => {}
            (Err(reply), _) => {
                self.drop_transaction();
                self.pass_on(output, &reply);
            }
        }
        None
    }

    fn resolve(&mut self, result: Result<(), Reply>, output: &mut Vec<u8>) -> Option<Action> {
        match result {
            Ok(()) => self.phase = Phase::Asked(Question::Rcpt),
            Err(reply) => self.turn_recipient_down(&reply, output),
        }
        None
    }

    fn finish(&mut self, reply: &Reply, output: &mut Vec<u8>) -> Option<Action> {
        self.transaction = None; // the driver has it, or has done away with it
        self.pass_on(output, reply);
        if reply.class() == ReplyClass::Positive {
            self.errors = 0;
            self.penalised = 0;
            self.idle_commands = 0;
        }
        None
    }
}

/// The same text under another code of the same class.
fn with_code(reply: &Reply, code: u16) -> Reply {
    let text: Vec<&str> = reply.lines().collect();
    Reply::try_new(code, reply.enhanced(), &text.join("\n"))
        .unwrap_or_else(|_| Reply::plain(code, "no service for you"))
}
