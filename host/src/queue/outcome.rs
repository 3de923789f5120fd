//! What became of a delivery, and what follows from it: when to give up, whom to tell. Pure.
//! RFC 5321 §4.5.4.1 (retries), RFC 3461 §4.1 and §5.2 (who hears of what).

use std::time::Duration;

use super::{Config, RecipientState, Relayed, Response, State, Stored, UnixTime};
use crate::mail::{Notify, Reply, ReplyClass, ReversePath};

/// What became of one forward-path in one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is somebody else's now, or lies in a mailbox.
    Delivered(Response, Relayed),
    /// Not now.
    Deferred(Response),
    /// Never.
    Failed(Response),
}

impl Outcome {
    /// What the class of a reply means: only a lasting failure is final, and what is unknown passes.
    pub fn of(response: Response, relayed: Relayed) -> Self {
        match response.reply.class() {
            ReplyClass::Positive => Self::Delivered(response, relayed),
            ReplyClass::Transient => Self::Deferred(response),
            ReplyClass::Permanent => Self::Failed(response),
        }
    }
}

/// Whether the destination as such could be reached in a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// It answered, whatever it said of the message.
    Reached,
    /// No connection, or it wants none now.
    Unreachable(Reply),
    /// Cannot be said: the delivery ended before.
    Unknown,
}

/// What is to be told to the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of what kind.
    pub kind: ReportKind,
    /// Whose turn it is, by their place in the envelope.
    pub recipients: Vec<usize>,
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportKind {
    /// Failures, and successes that the sender asked to hear of.
    Final,
    /// It takes longer; nothing is lost yet.
    Delay,
}

/// When mail expires and senders are told.
#[derive(Debug, Clone)]
pub struct Rules {
    expiry: Duration,
    bounce_expiry: Duration,
    delay_warning: Duration,
    bounce_gather: Duration,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        Self {
            expiry: config.expiry.as_std(),
            bounce_expiry: config.bounce_expiry.as_std(),
            delay_warning: config.delay_warning.as_std(),
            bounce_gather: config.bounce_gather.as_std(),
        }
    }
}

impl Rules {
    /// When a message is given up.
    pub fn expires(&self, stored: &Stored) -> UnixTime {
        let bounce = stored.envelope.reverse_path == ReversePath::Null;
        stored.arrived.after(if bounce { self.bounce_expiry } else { self.expiry })
    }

    /// Notes what became of a recipient. `due`: when it is tried next, should it have to be.
    pub fn apply(&self, stored: &mut Stored, index: usize, outcome: &Outcome, now: UnixTime, due: UnixTime) {
        let notify = notify(stored, index);
        let expired = now >= self.expires(stored);
        let Some(recipient) = stored.state.recipients.get_mut(index) else { return };
        let RecipientState::Pending { attempts, .. } = *recipient else { return };
        *recipient = match outcome {
            Outcome::Delivered(response, relayed) if notify.success && *relayed != Relayed::ToDsnHost => {
                RecipientState::Delivered { at: now, response: response.clone().into(), relayed: *relayed }
            }
            Outcome::Delivered(..) => RecipientState::Done,
            Outcome::Deferred(response) if !expired => {
                let attempts = attempts.saturating_add(1);
                RecipientState::Pending { attempts, due, response: Some(response.clone().into()) }
            }
            Outcome::Deferred(response) | Outcome::Failed(response) if notify.failure => {
                RecipientState::Failed { at: now, response: response.clone().into() }
            }
            Outcome::Deferred(_) | Outcome::Failed(_) => RecipientState::Done,
        };
    }

    /// Gives up on whom nobody could deliver to in time, but for those in `busy`. `reason` stands in where nobody tried. Returns who
    /// they are.
    pub fn expire(&self, stored: &mut Stored, busy: &[usize], now: UnixTime, reason: &Reply) -> Vec<usize> {
        let mut given_up = Vec::new();
        if now < self.expires(stored) {
            return given_up;
        }
        for index in 0..stored.state.recipients.len() {
            let notify = notify(stored, index);
            let Some(recipient) = stored.state.recipients.get_mut(index) else { continue };
            if let RecipientState::Pending { response, .. } = recipient
                && !busy.contains(&index)
            {
                let response = response.take().unwrap_or_else(|| Response::own(reason.clone()).into());
                let failed = RecipientState::Failed { at: now, response };
                *recipient = if notify.failure { failed } else { RecipientState::Done };
                given_up.push(index);
            }
        }
        given_up
    }

    /// What is to be told now. `busy`: a delivery of this message is going on, so that more may be to tell soon.
    pub fn report(&self, stored: &Stored, busy: bool, now: UnixTime) -> Option<Report> {
        if stored.envelope.reverse_path == ReversePath::Null {
            return None;
        }
        let recipients = || stored.state.recipients.iter().enumerate();
        let final_since = |recipient: &RecipientState| match recipient {
            RecipientState::Failed { at, .. } | RecipientState::Delivered { at, .. } => Some(*at),
            RecipientState::Pending { .. } | RecipientState::Done => None,
        };
        if let Some(since) = recipients().filter_map(|(_, recipient)| final_since(recipient)).min() {
            let untried = recipients().any(|(_, r)| matches!(r, RecipientState::Pending { attempts: 0, .. }));
            if !(busy || untried) || now.since(since) >= self.bounce_gather {
                let whom = recipients().filter(|(_, recipient)| final_since(recipient).is_some());
                let recipients = whom.map(|(index, _)| index).collect();
                return Some(Report { kind: ReportKind::Final, recipients });
            }
        }
        if self.delay_warning.is_zero() || stored.state.warned || now < stored.arrived.after(self.delay_warning) {
            return None;
        }
        let pending = |recipient: &RecipientState| matches!(recipient, RecipientState::Pending { .. });
        let late = recipients().filter(|(index, r)| pending(r) && notify(stored, *index).delay);
        let recipients: Vec<usize> = late.map(|(index, _)| index).collect();
        (!recipients.is_empty()).then_some(Report { kind: ReportKind::Delay, recipients })
    }

    /// The sender has been told.
    pub fn told(&self, state: &mut State, report: &Report) {
        match report.kind {
            ReportKind::Delay => state.warned = true,
            ReportKind::Final => {
                for index in &report.recipients {
                    if let Some(recipient) = state.recipients.get_mut(*index) {
                        *recipient = RecipientState::Done;
                    }
                }
            }
        }
    }

    /// Nobody can be told of a bounce that failed: what failed of it is over.
    pub fn drop_untellable(&self, stored: &mut Stored) {
        if stored.envelope.reverse_path == ReversePath::Null {
            for recipient in &mut stored.state.recipients {
                if matches!(recipient, RecipientState::Failed { .. } | RecipientState::Delivered { .. }) {
                    *recipient = RecipientState::Done;
                }
            }
        }
    }

    /// When the message is to be looked at again though no delivery ends: to warn, to report, to give up.
    pub fn deadline(&self, stored: &Stored, now: UnixTime) -> UnixTime {
        let warning = stored.arrived.after(self.delay_warning);
        let warn = !self.delay_warning.is_zero() && !stored.state.warned && warning > now;
        let gathered = stored.state.recipients.iter().filter_map(|recipient| match recipient {
            RecipientState::Failed { at, .. } | RecipientState::Delivered { at, .. } => {
                Some(at.after(self.bounce_gather))
            }
            RecipientState::Pending { .. } | RecipientState::Done => None,
        });
        let at = gathered.chain(warn.then_some(warning)).chain([self.expires(stored)]).min();
        // Whatever could not be done now is tried again, but not in a tight loop.
        at.unwrap_or(now).max(now.after(Duration::from_millis(100)))
    }
}

/// What the sender wants to hear of a recipient.
fn notify(stored: &Stored, index: usize) -> Notify {
    let recipient = stored.envelope.recipients.get(index);
    recipient.and_then(|recipient| recipient.notify).unwrap_or(Notify::DEFAULT)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mail::QueueId;
    use crate::queue::testing::envelope;

    const HOUR: u64 = 3600;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_millis(seconds * 1000)
    }

    fn said(code: u16) -> Response {
        let remote = Some("mx.example.test[127.0.0.1]:25".into());
        Response { reply: Reply::plain(code, "text"), remote }
    }

    fn stored(from: &str, recipients: usize) -> Stored {
        let names: Vec<String> = (0..recipients).map(|n| format!("r{n}@example.test")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Stored {
            id: QueueId::from_u64(1),
            arrived: at(0),
            envelope: Arc::new(envelope(from, &names)),
            filter: None,
            size: 10,
            state: State::fresh(recipients, at(0), None),
        }
    }

    fn rules() -> Rules {
        Rules::from(&Config::default())
    }

    fn wants(stored: &mut Stored, notify: Notify) {
        Arc::make_mut(&mut stored.envelope).recipients[0].notify = Some(notify);
    }

    #[test]
    fn replies_mean() {
        for (code, expected) in [(250, "Delivered"), (421, "Deferred"), (452, "Deferred"), (550, "Failed")] {
            let outcome = format!("{:?}", Outcome::of(said(code), Relayed::No));
            assert!(outcome.starts_with(expected), "{code}: {outcome}");
        }
    }

    #[test]
    fn a_delivered_message_is_done_unless_the_sender_wants_to_hear() {
        let success = Notify { success: true, failure: true, delay: false };
        for (wanted, relayed, reported) in [
            (None, Relayed::No, false),
            (Some(success), Relayed::No, true),
            (Some(success), Relayed::ToOtherHost, true),
            (Some(success), Relayed::ToDsnHost, false),
            (Some(Notify::NEVER), Relayed::No, false),
        ] {
            let mut stored = stored("from@example.test", 1);
            if let Some(wanted) = wanted {
                wants(&mut stored, wanted);
            }
            rules().apply(&mut stored, 0, &Outcome::Delivered(said(250), relayed), at(1), at(9));
            assert_eq!(stored.state.is_done(), !reported, "{wanted:?} {relayed:?}");
            assert_eq!(rules().report(&stored, false, at(1)).is_some(), reported);
        }
    }

    #[test]
    fn a_failure_is_reported_once_and_never_for_a_bounce() {
        for (from, wanted, reported) in [
            ("from@example.test", None, true),
            ("from@example.test", Some(Notify::NEVER), false),
            ("from@example.test", Some(Notify { success: true, failure: false, delay: false }), false),
            ("", None, false),
        ] {
            let mut stored = stored(from, 1);
            if let Some(wanted) = wanted {
                wants(&mut stored, wanted);
            }
            rules().apply(&mut stored, 0, &Outcome::Failed(said(550)), at(1), at(9));
            rules().drop_untellable(&mut stored);
            let report = rules().report(&stored, false, at(1));
            assert_eq!(report.is_some(), reported, "{from:?} {wanted:?}");
            if let Some(report) = report {
                assert_eq!(report, Report { kind: ReportKind::Final, recipients: vec![0] });
                rules().told(&mut stored.state, &report);
            }
            assert!(stored.state.is_done());
        }
    }

    #[test]
    fn failures_of_one_message_are_gathered_but_not_for_ever() {
        let mut stored = stored("from@example.test", 3);
        rules().apply(&mut stored, 0, &Outcome::Failed(said(550)), at(10), at(0));
        assert_eq!(rules().report(&stored, false, at(11)), None, "two others are yet to be tried");
        rules().apply(&mut stored, 1, &Outcome::Failed(said(551)), at(12), at(0));
        assert_eq!(rules().deadline(&stored, at(12)), at(610));
        assert_eq!(rules().report(&stored, false, at(610)).map(|report| report.recipients), Some(vec![0, 1]));
        rules().apply(&mut stored, 2, &Outcome::Deferred(said(451)), at(20), at(320));
        assert_eq!(rules().report(&stored, true, at(20)), None, "a delivery is going on");
        let report = rules().report(&stored, false, at(20)).expect("all have been tried");
        assert_eq!(report.recipients, [0, 1]);
        rules().told(&mut stored.state, &report);
        assert!(!stored.state.is_done());
        let pending = RecipientState::Pending { attempts: 1, due: at(320), response: Some(said(451).into()) };
        assert_eq!(stored.state.recipients[2], pending);
    }

    #[test]
    fn the_sender_is_warned_once_after_four_hours() {
        let mut stored = stored("from@example.test", 2);
        let never = Notify { success: false, failure: true, delay: false };
        wants(&mut stored, never);
        for index in 0..2 {
            rules().apply(&mut stored, index, &Outcome::Deferred(said(451)), at(1), at(300));
        }
        assert_eq!(rules().report(&stored, false, at(4 * HOUR - 1)), None);
        assert_eq!(rules().deadline(&stored, at(1)), at(4 * HOUR));
        let report = rules().report(&stored, false, at(4 * HOUR)).expect("a warning");
        assert_eq!(report, Report { kind: ReportKind::Delay, recipients: vec![1] });
        rules().told(&mut stored.state, &report);
        assert_eq!(rules().report(&stored, false, at(9 * HOUR)), None);
        assert_eq!(rules().deadline(&stored, at(4 * HOUR)), at(5 * 24 * HOUR));
    }

    #[test]
    fn mail_expires_after_five_days() {
        let five_days = at(5 * 24 * HOUR);
        let mut tried = stored("from@example.test", 3);
        rules().apply(&mut tried, 0, &Outcome::Deferred(said(451)), at(1), at(300));
        rules().apply(&mut tried, 1, &Outcome::Deferred(said(452)), five_days, at(0));
        assert_eq!(tried.state.recipients[1], RecipientState::Failed { at: five_days, response: said(452).into() });
        let reason = Reply::transient(451, (4, 1), "never reached");
        assert!(rules().expire(&mut tried.clone(), &[], at(5 * 24 * HOUR - 1), &reason).is_empty());
        assert_eq!(rules().expire(&mut tried, &[2], five_days, &reason), [0]);
        assert_eq!(tried.state.recipients[0], RecipientState::Failed { at: five_days, response: said(451).into() });
        assert_eq!(rules().expire(&mut tried, &[], five_days, &reason), [2]);
        let own = Response::own(reason);
        assert_eq!(tried.state.recipients[2], RecipientState::Failed { at: five_days, response: own.into() });
    }
}
