//! The server's side of one SMTP session, as a state machine without sockets.
//! RFC 5321 §3 and §4.1.4 (order of commands), RFC 2920 (pipelining), RFC 3030 (BDAT).
//!
//! [`Server::next`] consumes what it can of the input, appends replies, and says what it wants; whoever drives it does that and calls
//! again. Replies are written out when it wants to [`Read`](Action::Read), so that a pipelined burst is answered in one write.
//!
//! A command has three steps: is it legal now (here), what do the policies say ([`Action::Consult`]), effect and reply (here).

mod commands;
mod content;
mod judgement;
mod refusal;
mod settings;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

pub use self::refusal::Refusal;
pub use self::settings::{Settings, Stages};
pub use self::transaction::Fate;

use self::transaction::Transaction;
use super::input::Input;
use super::line::{Line, Skip, first_line};
use crate::mail::{Envelope, QueueId, Recipient, Reply, ReplyClass};
use crate::policy::{Notes, Session, Stage, Verdict};

/// What the machine wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Write out the replies, then read more; wait no longer than [`Server::timeout`].
    Read,
    /// Ask the policies of this stage and answer with [`Server::judged`]. Only for the stages given at the start, never
    /// [`Stage::Message`].
    Consult(Stage),
    /// May this session send to [`Server::recipient`]? Relay control and unknown users. Answer with [`Server::resolved`].
    Resolve,
    /// A transaction begins: answer with [`Server::opened`]. Comes before the policies are asked, so that they know the queue id.
    Open,
    /// Much content has come: take it with [`Server::take_content`] and put it into the spool. The first time, the whole header section
    /// is in it.
    Spill,
    /// The message is here: the rest of its content is to be had from [`Server::take_content`] (all of it, if there was no `Spill`).
    /// Judge it, commit it (unless [`Server::fate`] says otherwise), and answer with [`Server::finished`].
    Finish,
    /// The transaction that was opened came to nothing: throw away what was spooled of it.
    Abort,
    /// Write out the replies, then close the connection.
    Close,
}

/// One session.
#[derive(Debug)]
pub struct Server {
    settings: Arc<Settings>,
    stages: Stages,
    session: Arc<Session>,
    phase: Phase,
    answer: Option<Answer>,
    transaction: Option<Box<Transaction>>,
    /// Set when a policy refused the connection: every command but QUIT hears it.
    refusal: Option<Reply>,
    connect_fate: Fate,
    helo_fate: Fate,
    errors: usize,
    penalised: usize,
    idle_commands: usize,
    transactions: usize,
    /// Lines that have been answered, and octets of content that have come.
    commands: u64,
    octets: u64,
    /// An opened transaction ended without its message having been handed over.
    abort: bool,
    /// DATA or BDAT was refused in a way that a careless client might not wait for: the next line may be content.
    wary: bool,
    /// What was refused here, for the log.
    refusals: Vec<Refusal>,
}

#[derive(Debug)]
enum Phase {
    Begin,
    Asked(Question),
    Command,
    Skip(Skip),
    Data,
    Chunk(Chunk),
    Closing,
}

/// What the driver has been asked for and has to answer.
#[derive(Debug)]
enum Question {
    Connect,
    Helo { previous: Option<String>, was_extended: bool },
    Open,
    Mail,
    Resolve,
    Rcpt,
    Finish,
}

#[derive(Debug)]
enum Answer {
    Verdict(Verdict),
    Resolved(Result<(), Reply>),
    Opened(Result<QueueId, Reply>),
    Finished(Reply),
}

/// A chunk of BDAT on its way in.
#[derive(Debug)]
struct Chunk {
    size: u64,
    left: u64,
    last: bool,
    /// What the client will hear once the octets are gone.
    refusal: Option<&'static str>,
}

impl Server {
    /// A session that has just been accepted. `session` holds what is known of the client so far.
    pub fn new(settings: Arc<Settings>, stages: Stages, session: Session) -> Self {
        Self {
            settings,
            stages,
            session: Arc::new(session),
            phase: Phase::Begin,
            answer: None,
            transaction: None,
            refusal: None,
            connect_fate: Fate::Deliver,
            helo_fate: Fate::Deliver,
            errors: 0,
            penalised: 0,
            idle_commands: 0,
            transactions: 0,
            commands: 0,
            octets: 0,
            abort: false,
            wary: false,
            refusals: Vec::new(),
        }
    }

    /// Goes on as far as it gets. Called again without the answer that it waits for, it asks again.
    pub fn next(&mut self, input: &mut Input, output: &mut Vec<u8>) -> Action {
        loop {
            if std::mem::take(&mut self.abort) {
                return Action::Abort;
            }
            let wish = match &mut self.phase {
                Phase::Begin => self.begin(output),
                Phase::Asked(_) => self.resume(output),
                Phase::Command => self.command(input, output),
                Phase::Skip(_) => self.skip(input, output),
                Phase::Data => self.data(input, output),
                Phase::Chunk(_) => self.chunk(input, output),
                Phase::Closing => {
                    self.drop_transaction();
                    if std::mem::take(&mut self.abort) { Some(Action::Abort) } else { Some(Action::Close) }
                }
            };
            if let Some(action) = wish {
                return action;
            }
        }
    }

    /// The policies' answer to [`Action::Consult`].
    pub fn judged(&mut self, verdict: Verdict) {
        self.answer = Some(Answer::Verdict(verdict));
    }

    /// The answer to [`Action::Resolve`].
    pub fn resolved(&mut self, result: Result<(), Reply>) {
        self.answer = Some(Answer::Resolved(result));
    }

    /// The answer to [`Action::Open`]: the name of the message, or why there can be none now (452 4.3.1: no room).
    pub fn opened(&mut self, result: Result<QueueId, Reply>) {
        self.answer = Some(Answer::Opened(result));
    }

    /// The answer to [`Action::Finish`]: what the client hears. A success is the promise that the message will not be lost.
    pub fn finished(&mut self, reply: Reply) {
        self.answer = Some(Answer::Finished(reply));
    }

    /// Closes the session once the answer given has been worked off; after [`finished`](Self::finished) the client still hears its reply.
    pub fn disconnect(&mut self, output: &mut Vec<u8>) {
        if matches!(self.phase, Phase::Asked(_)) && self.answer.is_some() {
            self.resume(output);
        }
        self.phase = Phase::Closing;
    }

    /// The client said nothing for [`timeout`](Self::timeout): 421 4.4.2, then [`Action::Close`].
    pub fn timed_out(&mut self, output: &mut Vec<u8>) {
        self.end_with(output, "4.4.2", "Error: timeout exceeded");
    }

    /// This host goes down: 421 4.3.2, then [`Action::Close`].
    pub fn shutting_down(&mut self, output: &mut Vec<u8>) {
        self.end_with(output, "4.3.2", "Error: shutting down, try again later");
    }

    /// How long to wait for the client now. RFC 5321 §4.5.3.2. Counts from the last change of [`progress`](Self::progress), not from the
    /// last octet: or a client that sends one octet a minute keeps its session for days.
    pub fn timeout(&self) -> Duration {
        match self.phase {
            Phase::Data | Phase::Chunk(_) => self.settings.config().data_timeout.as_std(),
            _ => self.settings.config().command_timeout.as_std(),
        }
    }

    /// Changes when the client has got something done: a command, or 4 KiB of content.
    pub fn progress(&self) -> u64 {
        self.commands + self.octets / 4096
    }

    /// How many octets are worth reading at once now.
    pub fn read_size(&self) -> usize {
        match self.phase {
            Phase::Data | Phase::Chunk(_) => 64 * 1024,
            _ => 4 * 1024,
        }
    }

    /// How long the client has earned to wait for what stands in the output, for its errors since the last call.
    pub fn take_penalty(&mut self) -> Duration {
        let config = self.settings.config();
        let new = self.errors.saturating_sub(self.penalised.max(config.soft_errors));
        self.penalised = self.errors;
        config.error_delay.as_std().saturating_mul(u32::try_from(new).unwrap_or(u32::MAX))
    }

    /// The facts of the session.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The facts of the session, to add what became known.
    pub fn session_mut(&mut self) -> &mut Session {
        Arc::make_mut(&mut self.session)
    }

    /// The envelope so far, in a transaction.
    pub fn envelope(&self) -> Option<&Arc<Envelope>> {
        self.transaction.as_ref().map(|transaction| &transaction.envelope)
    }

    /// The recipient in question, at [`Action::Resolve`] and [`Stage::Rcpt`]. It is not in the envelope yet.
    pub fn recipient(&self) -> Option<&Recipient> {
        self.transaction.as_ref()?.candidate.as_ref()
    }

    /// The name of the message, once the transaction has been opened.
    pub fn queue_id(&self) -> Option<QueueId> {
        self.transaction.as_ref()?.id
    }

    /// SIZE as MAIL announced it, RFC 1870.
    pub fn announced_size(&self) -> Option<u64> {
        self.transaction.as_ref()?.announced_size
    }

    /// What policies noted for this transaction.
    pub fn notes(&self) -> Option<&Notes> {
        self.transaction.as_ref().map(|transaction| &transaction.notes)
    }

    /// What is to become of the message if nobody objects.
    pub fn fate(&self) -> Fate {
        self.transaction.as_ref().map_or(Fate::Deliver, |transaction| transaction.fate.clone())
    }

    /// The content received since the last call: CRLF line ends, dots unstuffed.
    pub fn take_content(&mut self) -> Vec<u8> {
        self.transaction.as_mut().and_then(|transaction| transaction.take_content()).unwrap_or_default()
    }

    /// Whether an opened transaction is under way: if the connection breaks now, what was spooled of it is waste.
    pub fn in_transaction(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.id.is_some() && !transaction.aborted)
    }

    /// One command from the input, if a whole line is there.
    fn command(&mut self, input: &mut Input, output: &mut Vec<u8>) -> Option<Action> {
        let limit = self.settings.config().max_command_line.as_usize();
        match first_line(input.data(), limit) {
            Line::Incomplete => return Some(Action::Read),
            Line::Whole(len) => {
                self.commands += 1;
                let line = input.data().get(..len).unwrap_or_default();
                let known = self.refusals.len();
                self.execute(line, output);
                self.refusals.iter_mut().skip(known).for_each(|refusal| refusal.answers(line));
                input.consume(len + 2);
            }
            Line::Malformed(len) => {
                input.consume(len);
                self.refuse(output, "500 5.5.2 Error: bare <CR> or NUL in command line");
            }
            Line::BareLf(len) => {
                input.consume(len);
                self.phase = Phase::Skip(Skip::default());
                self.refuse(output, "500 5.5.2 Error: bare <LF> received");
            }
            Line::TooLong => {
                self.phase = Phase::Skip(Skip::default());
                self.refuse(output, "500 5.5.2 Error: line too long");
            }
        }
        None
    }

    /// The rest of a line that has been refused.
    fn skip(&mut self, input: &mut Input, output: &mut Vec<u8>) -> Option<Action> {
        let Phase::Skip(skip) = &mut self.phase else { return None };
        let (len, ended) = skip.skip(input.data());
        input.consume(len);
        if skip.skipped() > self.settings.config().max_overlong_line.as_usize() {
            self.close_with(output, "4.7.0", "Error: endless command line");
        } else if ended {
            self.phase = Phase::Command;
        } else {
            return Some(Action::Read);
        }
        None
    }

    /// Appends a reply that we chose ourselves.
    fn say(&mut self, output: &mut Vec<u8>, line: &str) {
        output.extend_from_slice(line.as_bytes());
        output.extend_from_slice(b"\r\n");
    }

    /// Appends a refusal and counts it.
    fn refuse(&mut self, output: &mut Vec<u8>, line: &str) {
        self.say(output, line);
        self.note_refusal(line);
        self.count_error(output);
    }

    /// Appends a reply that somebody else chose; a lasting refusal counts, and one that announces the end is the end.
    fn pass_on(&mut self, output: &mut Vec<u8>, reply: &Reply) {
        reply.write_to(output);
        if matches!(reply.code(), 421 | 521) {
            self.phase = Phase::Closing;
        } else if reply.class() == ReplyClass::Permanent {
            self.count_error(output);
        }
    }

    fn count_error(&mut self, output: &mut Vec<u8>) {
        self.errors += 1;
        if self.errors >= self.settings.config().max_errors {
            self.close_with(output, "4.7.0", "Error: too many errors");
        }
    }

    /// The client has gone too far.
    fn close_with(&mut self, output: &mut Vec<u8>, status: &str, text: &str) {
        if let Some(line) = self.end_with(output, status, text) {
            self.note_refusal(&line);
        }
    }

    /// RFC 5321 §3.8: 421 may come at any time, and the connection is closed behind it. Gives what was said, if it was.
    fn end_with(&mut self, output: &mut Vec<u8>, status: &str, text: &str) -> Option<String> {
        if matches!(self.phase, Phase::Closing) {
            return None;
        }
        let line = format!("421 {status} {} {text}", self.settings.hostname());
        self.say(output, &line);
        self.phase = Phase::Closing;
        Some(line)
    }

    /// Ends the transaction, if there is one; what was opened for it is to be thrown away.
    fn drop_transaction(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.abort |= transaction.id.is_some() && !transaction.aborted;
        }
    }
}

#[cfg(test)]
mod tests;
