//! One session: carries octets between the client and `smtp::Server`, and its questions to those who know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::body::Spilled;
use super::{Shared, Terms};
use crate::directory::{Admission, Effect, Request};
use crate::mail::{QueueId, Reply};
use crate::plugin::{Judged, Staged, Subject, Transaction};
use crate::policy::{self, Edit, Stage, Tally, Verdict, shown};
use crate::queue::{CommitError, Guest};
use crate::smtp::{Action, Input, Refusal, Server, Stages};

/// How long a client may take to close after we have, and how much it may still send: a connection that is closed with octets unread is
/// reset, and the client may never see the last reply.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_OCTETS: usize = 1024 * 1024;

/// Names for sessions in the log: unique while the process lives.
pub(super) fn name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("s{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One session.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    /// What it began with; a reload does not change that under it.
    pub(super) terms: Arc<Terms>,
    pub(super) server: Server,
    input: Input,
    output: Vec<u8>,
    /// The client's progress when it was last seen to make some, and until when it has to make more.
    patience: Option<(u64, Instant)>,
    /// What lies in the spool of the message that is coming in.
    pub(super) spilled: Option<Spilled>,
    /// That the spool did not take it; told when the message ends.
    pub(super) spill_error: Option<CommitError>,
    /// What policies changed of the envelope before there was a message.
    pub(super) edits: Vec<Edit>,
    /// Why an access table throws the message away.
    pub(super) discard: Option<String>,
    /// What they want kept if the message gets into the queue.
    pub(super) staged: Staged,
    /// The points that they gave so far.
    pub(super) tally: Tally,
    /// Counts it.
    _guest: Guest,
}

/// The client has gone, or we are done with it.
struct Gone;

impl Session {
    pub fn new(shared: Arc<Shared>, terms: Arc<Terms>, facts: policy::Session) -> Self {
        let stages: Stages = terms.chain.stages().collect();
        let server = Server::new(Arc::clone(&terms.smtp), stages, facts);
        let guest = shared.queue.guest();
        Self {
            shared,
            terms,
            server,
            input: Input::new(),
            output: Vec::new(),
            patience: None,
            spilled: None,
            spill_error: None,
            edits: Vec::new(),
            discard: None,
            staged: Staged::default(),
            tally: Tally::default(),
            _guest: guest,
        }
    }

    /// Until the client or we end it.
    pub async fn run(mut self, mut stream: TcpStream, mut stop: watch::Receiver<bool>) {
        tracing::debug!(session = self.id(), client = %self.server.session().client, "connect");
        loop {
            let wish = self.server.next(&mut self.input, &mut self.output);
            self.tell_refusals();
            let carried = match wish {
                Action::Read => self.exchange(&mut stream, &mut stop).await,
                Action::Consult(stage) => self.consult(stage).await,
                Action::Resolve => self.resolve(),
                Action::Open => self.open(),
                Action::Spill => self.spill(),
                Action::Finish => self.finish().await,
                Action::Abort => self.forget(),
                Action::Close => {
                    let _ = self.flush(&mut stream).await; // it may have gone before us
                    break;
                }
            };
            if carried.is_err() {
                self.tell_loss();
                break;
            }
        }
        tracing::debug!(session = self.id(), "disconnect");
        drop(self); // what lingers needs none of it
        linger(stream).await;
    }

    pub(super) fn id(&self) -> &str {
        &self.server.session().id
    }

    /// Writes what there is to say, then reads.
    async fn exchange(&mut self, stream: &mut TcpStream, stop: &mut watch::Receiver<bool>) -> Result<(), Gone> {
        let penalty = self.server.take_penalty();
        if !penalty.is_zero() {
            tokio::time::sleep(penalty).await;
        }
        self.flush(stream).await?;
        match stream.try_read(self.input.space(self.server.read_size())) {
            Ok(0) => return Err(Gone),
            Ok(n) => {
                self.input.filled(n);
                return Ok(());
            }
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Gone),
        }
        let busy = self.server.in_transaction();
        if !busy {
            self.input.release(); // an idle session holds no buffers
            self.output = Vec::new();
        }
        let deadline = self.deadline();
        tokio::select! {
            ready = timeout_at(deadline, stream.readable()) => match ready {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Gone),
                Err(_) => {
                    self.tell_timeout();
                    self.server.timed_out(&mut self.output);
                }
            },
            _ = stop.wait_for(|stop| *stop), if !busy => self.server.shutting_down(&mut self.output),
        }
        Ok(())
    }

    fn tell_timeout(&self) {
        let facts = self.server.session();
        let queue_id = self.server.queue_id().map(|id| id.to_string()).unwrap_or_default();
        let helo = facts.helo.as_deref().unwrap_or_default();
        let limit = self.server.timeout();
        tracing::info!(queue_id, session = facts.id, client = %facts.client.ip(), helo, "timeout after {limit:?}");
    }

    /// Until when the client has to get something done. An octet now and then does not count, or a session could last for ever.
    fn deadline(&mut self) -> Instant {
        let progress = self.server.progress();
        match self.patience {
            Some((seen, deadline)) if seen == progress => deadline,
            _ => {
                let deadline = Instant::now() + self.server.timeout();
                self.patience = Some((progress, deadline));
                deadline
            }
        }
    }

    async fn flush(&mut self, stream: &mut TcpStream) -> Result<(), Gone> {
        if self.output.is_empty() {
            return Ok(());
        }
        // A client that takes no replies is as good as gone.
        let written = timeout(self.server.timeout(), stream.write_all(&self.output)).await;
        self.output.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// What the policies say before there is a message.
    async fn consult(&mut self, stage: Stage) -> Result<(), Gone> {
        let subject = match (stage, self.transaction(), self.server.recipient()) {
            (Stage::Connect, ..) => Subject::Connect,
            (Stage::Helo, ..) => Subject::Helo,
            (Stage::Rcpt, Some(transaction), Some(recipient)) => Subject::Rcpt(transaction, recipient.clone()),
            (_, Some(transaction), _) => Subject::Mail(transaction),
            (_, None, _) => Subject::Helo,
        };
        let session = Arc::clone(self.server.session());
        let judged = self.terms.chain.judge(&session, subject, &self.tally).await;
        self.note(stage, &judged);
        if !judged.verdict.refuses() {
            self.edits.extend(judged.edits);
            self.staged.extend(judged.staged);
            self.tally.note(stage, &judged.symbols);
        }
        if !judged.delay.is_zero() {
            tokio::time::sleep(judged.delay).await;
        }
        self.server.judged(judged.verdict);
        Ok(())
    }

    fn transaction(&self) -> Option<Transaction> {
        Some(Transaction {
            id: self.server.queue_id()?,
            envelope: Arc::clone(self.server.envelope()?),
            announced_size: self.server.announced_size(),
            notes: self.server.notes()?.clone(),
        })
    }

    /// One line in the log for what a policy decided.
    pub(super) fn note(&self, stage: Stage, judged: &Judged) {
        let decision = match &judged.verdict {
            Verdict::Pass | Verdict::Accept | Verdict::Delay(_) => return,
            Verdict::Reject(reply) => format!("reject: {reply}"),
            Verdict::Defer(reply) | Verdict::DeferIfPermit(reply) => format!("defer: {reply}"),
            Verdict::Disconnect(reply) => format!("disconnect: {reply}"),
            Verdict::Discard(why) => format!("discard: {why}"),
            Verdict::Quarantine(why) => format!("hold: {why}"),
        };
        let mut tally = self.tally.clone();
        tally.note(stage, &judged.symbols);
        let points = match tally.names() {
            names if names.is_empty() => names,
            names => format!(" (score {}: {names})", shown(judged.score)),
        };
        self.say(stage, judged.plugin.as_deref().unwrap_or_default(), &format!("{decision}{points}"));
    }

    /// One line in the log, with who wants to send what to whom.
    pub(super) fn say(&self, stage: Stage, plugin: &str, decision: &str) {
        let facts = self.server.session();
        let from = self.server.envelope().map(|envelope| envelope.reverse_path.to_string()).unwrap_or_default();
        let to = self.server.recipient().map(|recipient| recipient.forward_path.to_string());
        let to = to.or_else(|| self.only_recipient()).unwrap_or_default();
        let queue_id = self.server.queue_id().map(|id| id.to_string()).unwrap_or_default();
        let helo = facts.helo.as_deref().unwrap_or_default();
        tracing::info!(queue_id, session = facts.id, client = %facts.client.ip(), helo, %stage, plugin, from, to, "{decision}");
    }

    fn only_recipient(&self) -> Option<String> {
        match self.server.envelope()?.recipients.as_slice() {
            [only] => Some(only.forward_path.to_string()),
            _ => None,
        }
    }

    /// One line in the log for each thing that the protocol itself forbade.
    fn tell_refusals(&mut self) {
        for Refusal { queue_id, from, to, command, reply } in self.server.take_refusals() {
            let facts = self.server.session();
            let (queue_id, client) = (queue_id.map(|id| id.to_string()).unwrap_or_default(), facts.client.ip());
            let helo = facts.helo.as_deref().unwrap_or_default();
            tracing::info!(queue_id, session = facts.id, %client, helo, command, from, to, "reject: {reply}");
        }
    }

    /// A mail that did not come because the client went away leaves a trace.
    fn tell_loss(&self) {
        if self.server.in_transaction() {
            self.say(Stage::Message, "", "lost connection in the middle of a transaction");
        }
    }

    /// May this client send to this recipient? Asked before the policies: it costs little.
    fn resolve(&mut self) -> Result<(), Gone> {
        let answer = self.access();
        if let Err(reply) = &answer {
            self.say(Stage::Rcpt, "", &format!("reject: {reply}"));
        }
        self.server.resolved(answer);
        Ok(())
    }

    /// What the directory says: is the recipient known, and do access tables object?
    fn access(&mut self) -> Result<(), Reply> {
        let facts = Arc::clone(self.server.session());
        let (Some(envelope), Some(recipient)) = (self.server.envelope().cloned(), self.server.recipient()) else {
            return Err(Reply::permanent(503, (5, 1), "no recipient"));
        };
        let recipient = recipient.forward_path.clone();
        let directory = Arc::clone(&self.terms.directory);
        let listed = match (directory.admit(&recipient, facts.trusted), &self.terms.no_relay) {
            (Ok(Admission::Elsewhere), Some(reply)) => Err(reply.clone()),
            (Ok(_), _) => Ok(()),
            (Err(reply), _) => Err(reply),
        };
        let request = Request {
            client: facts.client.ip(),
            client_name: facts.client_name.as_deref(),
            helo: facts.helo.as_deref(),
            envelope: &envelope,
            recipient: &recipient,
        };
        let access = directory.access(&request, listed);
        access.notes.iter().for_each(|note| self.say(Stage::Rcpt, "", &format!("warn: {note}")));
        access.verdict?;
        for effect in access.effects {
            let edit = match effect {
                Effect::Discard(why) => {
                    self.discard.get_or_insert(why);
                    continue;
                }
                Effect::Hold(why) => Edit::Hold(why),
                Effect::Redirect(path) => Edit::Redirect(path),
                Effect::Bcc(path) => Edit::AddRecipient(path),
                Effect::Filter(destination) => Edit::Filter(destination),
                Effect::Prepend(field) => Edit::InsertHeader { index: 0, field: field.into_bytes() },
            };
            // A client's entry is found again at each of its recipients.
            if !self.edits.contains(&edit) {
                self.edits.push(edit);
            }
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), Gone> {
        let queue = &self.shared.queue;
        let answer: Result<QueueId, Reply> = queue.accepting().map(|()| queue.next_id()).map_err(|err| {
            let facts = self.server.session();
            let from = self.server.envelope().map(|envelope| envelope.reverse_path.to_string()).unwrap_or_default();
            tracing::warn!(session = facts.id, client = %facts.client.ip(), from, "no mail is taken: {err}");
            Reply::from(&err)
        });
        self.server.opened(answer);
        Ok(())
    }

    /// Puts content into the spool. If that fails, the client hears of it at the end: in the middle of DATA nobody listens.
    fn spill(&mut self) -> Result<(), Gone> {
        let octets = self.server.take_content();
        if self.spill_error.is_some() {
            return Ok(());
        }
        let result = match (&mut self.spilled, self.server.queue_id()) {
            (Some(spilled), _) => spilled.push(&octets),
            (None, Some(id)) => {
                let begun = self.shared.queue.draft(id).and_then(|draft| Spilled::begin(&octets, draft));
                begun.map(|spilled| self.spilled = Some(spilled))
            }
            (None, None) => Ok(()),
        };
        if let Err(err) = result {
            self.spilled = None;
            self.spill_error = Some(err);
        }
        Ok(())
    }

    /// The message is here: judge and keep it.
    async fn finish(&mut self) -> Result<(), Gone> {
        let (reply, close) = self.settle_message().await;
        let _ = self.forget();
        self.server.finished(reply);
        if close {
            self.server.disconnect(&mut self.output);
        }
        Ok(())
    }

    /// The transaction came to nothing, or its message is in the queue.
    fn forget(&mut self) -> Result<(), Gone> {
        self.spilled = None;
        self.spill_error = None;
        self.edits.clear();
        self.discard = None;
        self.staged = Staged::default();
        self.tally.end_transaction();
        Ok(())
    }
}

/// Lets the client read our last words before the connection goes.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let waste = async {
        let mut octets = [0; 1024];
        let mut seen = 0;
        while seen < LINGER_OCTETS {
            if stream.readable().await.is_err() {
                return;
            }
            match stream.try_read(&mut octets) {
                Ok(0) => return,
                Ok(n) => seen += n,
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(LINGER, waste).await; // whoever has not read by then never will
}
