//! The client's side of one SMTP session, as a state machine without sockets: RFC 5321 §3, pipelined where the server allows (RFC 2920),
//! with BDAT where it is wanted (RFC 3030). LMTP (RFC 2033) is the same with LHLO and an answer per recipient.
//!
//! [`Client::next`] takes replies from the input, appends commands to the output, and says what comes next. A letter that is given to
//! it comes back as a [`Report`], whatever the server does: refusals, nonsense, silence and a broken connection included.

mod capabilities;
mod config;
mod letter;
mod replies;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use self::capabilities::Capabilities;
pub use self::config::{ClientConfig, Transfer};
pub use self::letter::{Letter, Outcome, Report};

use self::letter::{Active, Next};
use super::data::{Encoder, Framing};
use super::input::Input;
use super::reply_parser::ReplyParser;
use crate::mail::{Host, Reply};

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 5321.
    Smtp,
    /// RFC 2033: one reply for each accepted recipient at the end of data.
    Lmtp,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write out the output, then read; wait no longer than [`Client::timeout`].
    Read,
    /// Nothing is under way: [`Client::send`] a letter, [`Client::quit`], or keep the connection for later.
    Ready,
    /// Give the next piece of the first letter's content with [`Client::content`], or end it with [`Client::content_end`]; write out the
    /// output before it grows large. Then call [`Client::next`] again.
    Content,
    /// This is what became of the first letter.
    Done(Report),
    /// Write out the output if that goes at once, then close the connection; [`Client::ending`] says why.
    Close,
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// We said QUIT.
    Quit,
    /// The server does not want to talk to us: its greeting or its reply to EHLO and HELO, or 421 at any time.
    Refused(Reply),
    /// The connection broke, or the server was silent or talked nonsense: what happened, as a transient reply of our own.
    Broken(Reply),
}

/// A reply that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Greeting,
    Ehlo,
    Helo,
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    /// A chunk that is not the last.
    Chunk,
    /// To the end of data; in LMTP for this recipient.
    Final(Option<usize>),
    Quit,
}

/// One session.
#[derive(Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    dialect: Dialect,
    hostname: Host,
    parser: ReplyParser,
    offered: Capabilities,
    expected: VecDeque<Expected>,
    /// The first is the one that replies belong to; a second one follows behind its content.
    letters: VecDeque<Active>,
    reports: VecDeque<Report>,
    encoder: Encoder,
    chunk: Vec<u8>,
    /// The server may still have a transaction open that came to nothing.
    needs_reset: bool,
    greeted: bool,
    quitting: bool,
    ending: Option<Ending>,
}

impl Client {
    /// A session over a connection that has just been made. `hostname` is how this host names itself.
    pub fn new(config: Arc<ClientConfig>, dialect: Dialect, hostname: Host) -> Self {
        Self {
            config,
            dialect,
            hostname,
            parser: ReplyParser::default(),
            offered: Capabilities::default(),
            expected: VecDeque::from([Expected::Greeting]),
            letters: VecDeque::new(),
            reports: VecDeque::new(),
            encoder: Encoder::new(Framing::Dots),
            chunk: Vec::new(),
            needs_reset: false,
            greeted: false,
            quitting: false,
            ending: None,
        }
    }

    /// Goes on as far as it gets.
    pub fn next(&mut self, input: &mut Input, output: &mut Vec<u8>) -> Step {
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Step::Done(report);
            }
            if self.ending.is_some() {
                return Step::Close;
            }
            if self.take_reply(input, output) {
                continue;
            }
            self.write_commands(output);
            if self.finish_letter() {
                continue;
            }
            if self.takes_content() && self.chunks_under_way() < 2 {
                return Step::Content;
            }
            if !self.expected.is_empty() {
                return Step::Read;
            }
            if self.quitting {
                self.ending = Some(Ending::Quit);
                continue;
            }
            return Step::Ready;
        }
    }

    /// Whether [`send`](Self::send) takes a letter now: nothing is under way, or, where the server allows pipelining, the content of the
    /// only letter has been written. RFC 2920 §3.1 lets the next MAIL follow the final dot in the same write.
    pub fn takes_letter(&self) -> bool {
        let free = match (self.letters.front(), self.letters.len()) {
            (None, _) => self.expected.is_empty(),
            (Some(first), 1) => self.offered.pipelining && first.next == Next::Nothing && !first.doomed,
            _ => false,
        };
        free && self.greeted && !self.quitting && self.ending.is_none()
    }

    /// Sends a letter; it comes back if [`takes_letter`](Self::takes_letter) says no.
    pub fn send(&mut self, letter: Letter, output: &mut Vec<u8>) -> Result<(), Letter> {
        if !self.takes_letter() {
            return Err(letter);
        }
        // RFC 3030 §2: whether a transaction is open after BDAT is known only when its reply is here.
        let mut active = Active::new(letter);
        active.ahead = !self.letters.is_empty();
        if self.needs_reset || (self.uses_chunks() && active.ahead) {
            active.next = Next::Reset;
        }
        active.check(&self.offered);
        if active.hopeful() == 0 {
            active.next = Next::Nothing;
            active.answered = true; // by us: another connection would not help
        }
        self.letters.push_back(active);
        self.write_commands(output);
        Ok(())
    }

    /// The next piece of the content, cut anywhere; at [`Step::Content`].
    pub fn content(&mut self, piece: &[u8], output: &mut Vec<u8>) {
        if !self.takes_content() {
            return;
        }
        if !self.uses_chunks() {
            return self.encoder.encode(piece, output);
        }
        self.encoder.encode(piece, &mut self.chunk);
        if self.chunk.len() >= self.config.chunk_size.as_usize() {
            self.write_chunk(Expected::Chunk, output);
        }
    }

    /// The content is complete; at [`Step::Content`].
    pub fn content_end(&mut self, output: &mut Vec<u8>) {
        if !self.takes_content() {
            return;
        }
        if self.uses_chunks() {
            self.encoder.finish(&mut self.chunk);
            self.write_chunk(Expected::Final(None), output);
        } else {
            self.encoder.finish(output);
            self.expect_final();
        }
        if let Some(first) = self.letters.front_mut() {
            first.next = Next::Nothing;
        }
    }

    /// Says QUIT. May be said as soon as [`takes_letter`](Self::takes_letter) is true, behind the final dot as well.
    pub fn quit(&mut self, output: &mut Vec<u8>) {
        if self.takes_letter() {
            self.quitting = true;
            output.extend_from_slice(b"QUIT\r\n");
            self.expected.push_back(Expected::Quit);
        }
    }

    /// The server said nothing for [`timeout`](Self::timeout), or did not take what we wrote.
    pub fn timed_out(&mut self) {
        self.broken("timed out");
    }

    /// The connection is gone. If writing failed, what could still be read should be given to [`next`](Self::next) before: it may be the
    /// reason.
    pub fn disconnected(&mut self) {
        self.broken("lost connection");
    }

    /// How long to wait for the server now. RFC 5321 §4.5.3.2.
    pub fn timeout(&self) -> Duration {
        let config = &self.config;
        let timeout = match self.expected.front() {
            None => config.block_timeout,
            Some(Expected::Greeting) => config.greeting_timeout,
            Some(Expected::Ehlo | Expected::Helo) => config.helo_timeout,
            Some(Expected::Mail) => config.mail_timeout,
            Some(Expected::Rcpt(_)) => config.rcpt_timeout,
            Some(Expected::Data) => config.data_timeout,
            Some(Expected::Chunk | Expected::Final(_)) => config.final_timeout,
            Some(Expected::Reset | Expected::Quit) => config.quit_timeout,
        };
        timeout.as_std()
    }

    /// What the server offers; nothing before it has said so.
    pub fn capabilities(&self) -> &Capabilities {
        &self.offered
    }

    /// Why the session is over, once it is.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    fn uses_chunks(&self) -> bool {
        self.config.transfer == Transfer::Chunking
            && self.dialect == Dialect::Smtp
            && self.offered.chunking
            && self.offered.pipelining
    }

    /// Whether all of a letter fits into one chunk, which then goes out behind its envelope.
    fn in_one_chunk(&self, active: &Active) -> bool {
        self.uses_chunks() && active.letter.size <= self.config.chunk_size.as_u64()
    }

    fn takes_content(&self) -> bool {
        self.letters.front().is_some_and(|first| first.next == Next::Content)
    }

    /// Two keep the line busy; more would only fill buffers, and be sent in vain if the first is refused.
    fn chunks_under_way(&self) -> usize {
        self.expected.iter().filter(|expected| **expected == Expected::Chunk).count()
    }

    /// Writes what can be written of the last letter's envelope.
    fn write_commands(&mut self, output: &mut Vec<u8>) {
        let most = if self.offered.pipelining { self.config.max_pipelined.max(1) } else { 1 };
        while self.expected.len() < most {
            let one_chunk = self.letters.back().is_some_and(|active| self.in_one_chunk(active));
            let alone = self.letters.len() == 1;
            let (chunks, offered) = (self.uses_chunks(), self.offered);
            let Some(active) = self.letters.back_mut() else { return };
            let expected = match active.next {
                Next::Reset => {
                    output.extend_from_slice(b"RSET\r\n");
                    self.needs_reset = false;
                    active.next = Next::Mail;
                    Expected::Reset
                }
                Next::Mail => {
                    active.write_mail(&offered, output);
                    active.next = Next::Rcpt(0);
                    Expected::Mail
                }
                Next::Rcpt(at) if at >= active.states.len() => {
                    active.next = Next::Data;
                    continue;
                }
                Next::Rcpt(_) if active.doomed => {
                    active.next = Next::Nothing;
                    continue;
                }
                Next::Rcpt(at) => {
                    active.next = Next::Rcpt(at + 1);
                    if active.states.get(at) != Some(&letter::RecipientState::Open) {
                        continue; // refused here
                    }
                    active.write_rcpt(at, &offered, output);
                    Expected::Rcpt(at)
                }
                Next::Data if active.doomed || (active.outstanding == 0 && active.hopeful() == 0) => {
                    active.next = Next::Nothing;
                    continue;
                }
                Next::Data if chunks => {
                    // Content waits for the letter before, and if it is much, for a recipient.
                    if !alone || !(one_chunk || active.outstanding == 0) {
                        return;
                    }
                    active.next = Next::Content;
                    self.encoder = Encoder::new(Framing::Counted);
                    return;
                }
                Next::Data => {
                    output.extend_from_slice(b"DATA\r\n");
                    active.next = Next::Go;
                    Expected::Data
                }
                Next::Go | Next::Content | Next::Nothing => return,
            };
            active.outstanding += 1;
            self.expected.push_back(expected);
        }
    }

    fn write_chunk(&mut self, expected: Expected, output: &mut Vec<u8>) {
        let last = if matches!(expected, Expected::Final(_)) { " LAST" } else { "" };
        output.extend_from_slice(format!("BDAT {}{last}\r\n", self.chunk.len()).as_bytes());
        output.append(&mut self.chunk);
        self.expect(expected);
    }

    /// A reply to something of the first letter is to come.
    fn expect(&mut self, expected: Expected) {
        self.expected.push_back(expected);
        if let Some(first) = self.letters.front_mut() {
            first.outstanding += 1;
        }
    }

    fn expect_final(&mut self) {
        if self.dialect == Dialect::Smtp {
            return self.expect(Expected::Final(None));
        }
        let accepted: Vec<usize> =
            self.letters.front().map(|first| first.accepted_recipients().collect()).unwrap_or_default();
        for at in accepted {
            self.expect(Expected::Final(Some(at)));
        }
    }

    /// Reports on the first letter if nothing of it is under way any more.
    fn finish_letter(&mut self) -> bool {
        let over = self.letters.front().is_some_and(|first| first.next == Next::Nothing && first.outstanding == 0);
        if over && let Some(first) = self.letters.pop_front() {
            self.reports.push_back(first.into_report());
        }
        over
    }
}

#[cfg(test)]
mod tests;
