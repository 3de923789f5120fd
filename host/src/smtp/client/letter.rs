//! A message on its way out, and what became of it.

use std::sync::Arc;

use super::capabilities::Capabilities;
use crate::mail::{BodyType, DsnReturn, Envelope, ForwardPath, Notify, Recipient, Reply, ReplyClass};

/// One message for one next hop. Its content is asked for when the server wants it.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The envelope as it lies in the queue.
    pub envelope: Arc<Envelope>,
    /// Which of its recipients this next hop gets, as indices.
    pub recipients: Vec<usize>,
    /// Octets of the content: header section, empty line, body. Announced as SIZE.
    pub size: u64,
    /// Whether the content holds an octet over 127.
    pub eight_bit: bool,
    /// Whether a header field does, so that it cannot be read without RFC 6532.
    pub utf8_header: bool,
}

/// What became of a message for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server has it, and the duty to deliver it.
    Delivered(Reply),
    /// Not now.
    Deferred(Reply),
    /// Never.
    Failed(Reply),
}

impl Outcome {
    /// What a refusal means.
    pub(super) fn refused(reply: &Reply) -> Self {
        match reply.class() {
            ReplyClass::Permanent => Self::Failed(reply.clone()),
            _ => Self::Deferred(reply.clone()),
        }
    }

    /// What a refusal of RCPT means. RFC 5321 §4.5.3.1.10: 552 once meant too many recipients, and is then 452.
    pub(super) fn refused_recipient(reply: &Reply) -> Self {
        let limit = reply.enhanced().is_none_or(|status| status.to_string() == "5.5.3");
        if reply.code() == 552 && limit { Self::Deferred(reply.clone()) } else { Self::refused(reply) }
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// For each recipient of the letter, by its index in the envelope, in the letter's order.
    pub outcomes: Vec<(usize, Outcome)>,
    /// The server said nothing to this message but, at most, 421 to its first command, or 503 because it came behind another one's end:
    /// if the connection had been used before, the message may go over a new one at once.
    pub untouched: bool,
}

/// A letter under way.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) letter: Letter,
    /// For each recipient of the letter.
    pub(super) states: Vec<RecipientState>,
    pub(super) next: Next,
    /// Replies that are still to come.
    pub(super) outstanding: usize,
    /// MAIL was accepted: the server has a transaction open.
    pub(super) accepted: bool,
    /// Nothing more is to be sent of it but what the server already waits for.
    pub(super) doomed: bool,
    pub(super) answered: bool,
    /// Its MAIL was written before the end of another message had been answered.
    pub(super) ahead: bool,
    /// And the server would not have it so early.
    pub(super) too_early: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecipientState {
    /// Not answered yet.
    Open,
    /// The server takes mail for it.
    Accepted,
    Decided(Outcome),
}

/// What is to be written next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    /// DATA has been written: its reply decides.
    Go,
    Content,
    /// All is written.
    Nothing,
}

impl Active {
    pub(super) fn new(letter: Letter) -> Self {
        let states = vec![RecipientState::Open; letter.recipients.len()];
        Self {
            letter,
            states,
            next: Next::Mail,
            outstanding: 0,
            accepted: false,
            doomed: false,
            answered: false,
            ahead: false,
            too_early: false,
        }
    }

    /// Refuses here what the server could not take.
    pub(super) fn check(&mut self, offered: &Capabilities) {
        let Letter { envelope, size, eight_bit, utf8_header, .. } = &self.letter;
        let refusal = match offered.size {
            Some(limit) if limit > 0 && *size > limit => {
                let text = format!("message size {size} exceeds size limit {limit} of the next host");
                Some(Reply::permanent(552, (3, 4), text))
            }
            _ if *eight_bit && !offered.eight_bit_mime => Some(Reply::permanent(
                554,
                (6, 3),
                "message holds 8-bit data, and the next host does not offer 8BITMIME",
            )),
            _ if offered.smtputf8 => None,
            _ if (*utf8_header && envelope.smtputf8)
                || envelope.reverse_path.mailbox().is_some_and(|m| !m.is_ascii()) =>
            {
                Some(no_smtputf8())
            }
            _ => None,
        };
        if let Some(reply) = refusal {
            return self.decide_open(&Outcome::Failed(reply));
        }
        for (state, index) in self.states.iter_mut().zip(&self.letter.recipients) {
            match self.letter.envelope.recipients.get(*index) {
                None => {
                    *state =
                        RecipientState::Decided(Outcome::Failed(Reply::permanent(550, (1, 0), "no such recipient")))
                }
                Some(recipient) if !offered.smtputf8 && !is_ascii(&recipient.forward_path) => {
                    *state = RecipientState::Decided(Outcome::Failed(no_smtputf8()));
                }
                Some(_) => {}
            }
        }
    }

    pub(super) fn recipient(&self, at: usize) -> Option<&Recipient> {
        self.letter.envelope.recipients.get(*self.letter.recipients.get(at)?)
    }

    /// Recipients that may still get it.
    pub(super) fn hopeful(&self) -> usize {
        self.states.iter().filter(|state| !matches!(state, RecipientState::Decided(_))).count()
    }

    pub(super) fn accepted_recipients(&self) -> impl Iterator<Item = usize> + '_ {
        let accepted = |(at, state): (usize, &RecipientState)| (*state == RecipientState::Accepted).then_some(at);
        self.states.iter().enumerate().filter_map(accepted)
    }

    /// The same for all whose lot is not cast.
    pub(super) fn decide_open(&mut self, outcome: &Outcome) {
        for state in &mut self.states {
            if !matches!(state, RecipientState::Decided(_)) {
                *state = RecipientState::Decided(outcome.clone());
            }
        }
    }

    pub(super) fn into_report(mut self) -> Report {
        // Every way here has decided on everybody; should one not have, nothing is lost.
        self.decide_open(&Outcome::Deferred(Reply::transient(
            451,
            (5, 0),
            "the next host said nothing of this recipient",
        )));
        let outcomes = self.letter.recipients.into_iter().zip(self.states).filter_map(|(index, state)| match state {
            RecipientState::Decided(outcome) => Some((index, outcome)),
            RecipientState::Open | RecipientState::Accepted => None,
        });
        Report { outcomes: outcomes.collect(), untouched: !self.answered || self.too_early }
    }

    /// Appends MAIL with the parameters that the server understands.
    pub(super) fn write_mail(&self, offered: &Capabilities, out: &mut Vec<u8>) {
        let Letter { envelope, size, eight_bit, .. } = &self.letter;
        push(out, &["MAIL FROM:<", &envelope.reverse_path.to_string(), ">"]);
        if offered.size.is_some() {
            push(out, &[" SIZE=", &size.to_string()]);
        }
        if offered.eight_bit_mime && (*eight_bit || envelope.body == BodyType::EightBitMime) {
            push(out, &[" BODY=8BITMIME"]);
        }
        if offered.smtputf8 && self.uses_smtputf8() {
            push(out, &[" SMTPUTF8"]);
        }
        if offered.dsn {
            match envelope.ret {
                Some(DsnReturn::Full) => push(out, &[" RET=FULL"]),
                Some(DsnReturn::Headers) => push(out, &[" RET=HDRS"]),
                None => {}
            }
            if let Some(id) = envelope.envelope_id.as_deref().filter(|id| fits(id, false)) {
                push(out, &[" ENVID=", id]);
            }
        }
        push(out, &["\r\n"]);
    }

    fn uses_smtputf8(&self) -> bool {
        let envelope = &self.letter.envelope;
        envelope.smtputf8
            || envelope.reverse_path.mailbox().is_some_and(|mailbox| !mailbox.is_ascii())
            || (0..self.states.len()).filter_map(|at| self.recipient(at)).any(|to| !is_ascii(&to.forward_path))
    }

    /// Appends RCPT for one recipient.
    pub(super) fn write_rcpt(&self, at: usize, offered: &Capabilities, out: &mut Vec<u8>) {
        let Some(recipient) = self.recipient(at) else { return };
        push(out, &["RCPT TO:<", &recipient.forward_path.to_string(), ">"]);
        if offered.dsn {
            if let Some(notify) = recipient.notify {
                push(out, &[" NOTIFY=", &notify_text(notify)]);
            }
            if let Some(original) = recipient.original.as_deref().filter(|text| fits(text, offered.smtputf8)) {
                push(out, &[" ORCPT=", original]);
            }
        }
        push(out, &["\r\n"]);
    }
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn notify_text(notify: Notify) -> String {
    let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let chosen: Vec<&str> = words.into_iter().filter_map(|(wanted, word)| wanted.then_some(word)).collect();
    if chosen.is_empty() { "NEVER".to_owned() } else { chosen.join(",") }
}

/// Whether a value that came from outside can stand in a command line.
fn fits(value: &str, utf8: bool) -> bool {
    !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() || (utf8 && !c.is_ascii() && !c.is_control()))
}

fn is_ascii(path: &ForwardPath) -> bool {
    path.mailbox().is_none_or(crate::mail::Mailbox::is_ascii)
}

fn no_smtputf8() -> Reply {
    Reply::permanent(553, (6, 7), "address or header is not ASCII, and the next host does not offer SMTPUTF8")
}
