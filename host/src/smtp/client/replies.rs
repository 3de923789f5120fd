//! What a reply means for the session and for the letter that it belongs to.

use super::letter::{Active, Next, Outcome, RecipientState};
use super::{Capabilities, Client, Dialect, Ending, Expected};
use crate::mail::Reply;
use crate::smtp::data::{Encoder, Framing};
use crate::smtp::input::Input;

impl Expected {
    /// For the log and the bounce.
    fn describe(self) -> &'static str {
        match self {
            Self::Greeting => "waiting for the greeting",
            Self::Ehlo => "waiting for the reply to EHLO",
            Self::Helo => "waiting for the reply to HELO",
            Self::Reset => "waiting for the reply to RSET",
            Self::Mail => "waiting for the reply to MAIL",
            Self::Rcpt(_) => "waiting for the reply to RCPT",
            Self::Data => "waiting for the reply to DATA",
            Self::Chunk => "waiting for the reply to BDAT",
            Self::Final(_) => "waiting for the reply to the end of data (the message may have arrived)",
            Self::Quit => "waiting for the reply to QUIT",
        }
    }
}

impl Client {
    /// Takes one reply from the input and acts on it; false if there is none.
    pub(super) fn take_reply(&mut self, input: &mut Input, output: &mut Vec<u8>) -> bool {
        if self.expected.is_empty() && input.is_empty() {
            return false;
        }
        match self.parser.parse(input, self.config.max_reply_line.as_usize()) {
            Ok(None) => false,
            Ok(Some(reply)) => {
                self.reply(&reply, output);
                true
            }
            Err(fault) => {
                self.broken(&fault.to_string());
                true
            }
        }
    }

    fn reply(&mut self, reply: &Reply, output: &mut Vec<u8>) {
        let Some(expected) = self.expected.pop_front() else {
            return self.unasked(reply);
        };
        if expected == Expected::Quit {
            self.ending = Some(Ending::Quit);
            return;
        }
        // RFC 5321 §3.8: 421 may come at any time, and means the whole session.
        if reply.code() == 421 {
            self.expected.push_front(expected);
            return self.refused(reply);
        }
        let positive = reply.code() < 300;
        match expected {
            Expected::Greeting | Expected::Ehlo | Expected::Helo => self.hello(expected, reply, output),
            _ if reply.code() < 400 && positive == (expected == Expected::Data) => self.unexpected(expected),
            _ => {
                self.letter_reply(expected, reply, output);
                self.settle();
            }
        }
    }

    /// A reply to nothing: the server gave up on us, or has lost count.
    fn unasked(&mut self, reply: &Reply) {
        if let Some(first) = self.letters.front_mut().filter(|_| reply.code() >= 400 && reply.code() != 421) {
            // In the middle of the content there is only one thing it can mean.
            first.answered = true;
            first.decide_open(&Outcome::refused(reply));
        }
        match reply.code() {
            421 => self.refused(reply),
            _ => self.broken("unasked reply"),
        }
    }

    /// A reply of a kind that the command cannot have.
    fn unexpected(&mut self, expected: Expected) {
        self.expected.push_front(expected);
        self.broken("unexpected reply");
    }

    fn hello(&mut self, expected: Expected, reply: &Reply, output: &mut Vec<u8>) {
        let (verb, next) = match (expected, reply.code(), self.dialect) {
            (Expected::Greeting, 220, Dialect::Smtp) => ("EHLO", Expected::Ehlo),
            (Expected::Greeting, 220, Dialect::Lmtp) => ("LHLO", Expected::Ehlo),
            (Expected::Ehlo, 200..=299, _) => {
                self.offered = Capabilities::from(reply);
                self.greeted = true;
                return;
            }
            (Expected::Helo, 200..=299, _) => {
                self.greeted = true;
                return;
            }
            // RFC 5321 §3.2: a server that does not know EHLO knows HELO.
            (Expected::Ehlo, 500..=599, Dialect::Smtp) => ("HELO", Expected::Helo),
            (_, 400..=599, _) => {
                output.extend_from_slice(b"QUIT\r\n");
                return self.refused(reply);
            }
            _ => return self.unexpected(expected),
        };
        output.extend_from_slice(format!("{verb} {}\r\n", self.hostname).as_bytes());
        self.expected.push_back(next);
    }

    fn letter_reply(&mut self, expected: Expected, reply: &Reply, output: &mut Vec<u8>) {
        let positive = reply.code() < 300;
        let chunks = self.uses_chunks();
        let Some(first) = self.letters.front_mut() else { return };
        first.outstanding = first.outstanding.saturating_sub(1);
        first.answered |= expected != Expected::Reset;
        match expected {
            Expected::Mail if positive => first.accepted = true,
            Expected::Mail => {
                // "Bad sequence" may only mean that the server was not ready to be told so early: nothing to bounce a message for.
                first.too_early = first.ahead && reply.code() == 503;
                let outcome = if first.too_early { Outcome::Deferred(reply.clone()) } else { Outcome::refused(reply) };
                first.decide_open(&outcome);
                first.doomed = true;
            }
            Expected::Rcpt(at) => {
                if let Some(state) = first.states.get_mut(at).filter(|state| **state == RecipientState::Open) {
                    *state = if positive {
                        RecipientState::Accepted
                    } else {
                        RecipientState::Decided(Outcome::refused_recipient(reply))
                    };
                }
            }
            Expected::Data if reply.code() < 400 => self.go_ahead(output),
            // The transaction is open, and nothing will come of it.
            Expected::Data => {
                first.decide_open(&Outcome::refused(reply));
                first.next = Next::Nothing;
            }
            Expected::Chunk if positive => {}
            Expected::Chunk => {
                // RFC 3030 §2: no more chunks; those under way are refused as well.
                first.decide_open(&Outcome::refused(reply));
                first.next = Next::Nothing;
                self.chunk.clear();
            }
            Expected::Final(None) => {
                let outcome = if positive { Outcome::Delivered(reply.clone()) } else { Outcome::refused(reply) };
                first.decide_open(&outcome);
                // RFC 3030 §2: after a chunk that was refused, only RSET is sure to end the transaction.
                first.accepted &= !positive && chunks;
            }
            Expected::Final(Some(at)) => {
                let outcome = if positive { Outcome::Delivered(reply.clone()) } else { Outcome::refused(reply) };
                if let Some(state) = first.states.get_mut(at).filter(|state| **state == RecipientState::Accepted) {
                    *state = RecipientState::Decided(outcome);
                }
                first.accepted = false;
            }
            _ => {}
        }
    }

    /// The server waits for content.
    fn go_ahead(&mut self, output: &mut Vec<u8>) {
        let Some(first) = self.letters.front_mut() else { return };
        if first.hopeful() > 0 {
            first.next = Next::Content;
            self.encoder = Encoder::new(Framing::Dots);
            return;
        }
        // RFC 2920 §3.1: it said 354 although it took no recipient, so it gets a message of nothing.
        first.next = Next::Nothing;
        first.doomed = true;
        first.accepted = false;
        output.extend_from_slice(b".\r\n");
        if self.dialect == Dialect::Smtp {
            self.expect(Expected::Final(None));
        }
    }

    /// Reports on the first letter if nothing more is to come of it, and notes whether the server is left with an open transaction.
    fn settle(&mut self) {
        let Some(first) = self.letters.front_mut() else { return };
        if first.outstanding == 0 && first.hopeful() == 0 {
            first.next = Next::Nothing;
            self.needs_reset |= std::mem::take(&mut first.accepted);
        }
        self.finish_letter();
    }

    fn refused(&mut self, reply: &Reply) {
        self.end(Ending::Refused(reply.clone()), &Outcome::Deferred(reply.clone()));
    }

    /// Something went wrong that no reply tells of: whatever is under way is put off. If that is after the end of data, nobody knows
    /// whether the message arrived; RFC 5321 §4.5.3.2.6 and RFC 1047: sent twice is better than lost.
    pub(super) fn broken(&mut self, what: &str) {
        if self.ending.is_some() {
            return;
        }
        let sending = self.letters.front().is_some_and(|first| first.next == Next::Content);
        let when = match self.expected.front() {
            _ if sending => "sending the message",
            Some(expected) => expected.describe(),
            None => "idle",
        };
        let reply = Reply::transient(451, (4, 2), format!("{what} while {when}"));
        self.end(Ending::Broken(reply.clone()), &Outcome::Deferred(reply));
    }

    fn end(&mut self, ending: Ending, outcome: &Outcome) {
        for mut active in self.letters.drain(..) {
            active.decide_open(outcome);
            self.reports.push_back(Active::into_report(active));
        }
        self.expected.clear();
        self.ending = Some(if self.quitting { Ending::Quit } else { ending });
    }
}
