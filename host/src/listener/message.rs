//! The end of data: the message is put together, judged, and committed. Nothing is acknowledged before the queue has it on disk.

use std::sync::Arc;

use jiff::Zoned;

use super::body::{Whole, whole};
use super::session::Session;
use crate::mail::{Envelope, HeaderBlock, QueueId, Reply};
use crate::policy::{Mail, Stage, Verdict, apply, shown};
use crate::queue::CommitError;
use crate::smtp::{Fate, trace};

/// What the client hears, and whether that is the last it hears.
pub(super) type Answer = (Reply, bool);

fn stay(reply: Reply) -> Answer {
    (reply, false)
}

impl Session {
    /// Answers for the message that has come whole.
    pub(super) async fn settle_message(&mut self) -> Answer {
        let Some(id) = self.server.queue_id() else {
            return stay(Reply::transient(451, (3, 0), "local error in processing"));
        };
        let accepted = || Reply::positive(250, (0, 0), format!("Ok: queued as {id}"));
        if let Some(why) = self.discard.take() {
            self.say(Stage::Message, "", &format!("discard: {why}"));
            return stay(accepted());
        }
        if let Fate::Discard(why) = self.server.fate() {
            self.say(Stage::Message, "", &format!("discard: {why}"));
            return stay(accepted());
        }
        let mut mail = match self.assemble() {
            Ok(mail) => mail,
            Err(reply) => {
                self.say(Stage::Message, "", &format!("reject: {reply}"));
                return stay(reply);
            }
        };
        let session = Arc::clone(self.server.session());
        let judged = self.terms.chain.judge_message(&session, &mut mail, &self.tally).await;
        self.note(Stage::Message, &judged);
        self.tally.note(Stage::Message, &judged.symbols);
        if !judged.delay.is_zero() {
            tokio::time::sleep(judged.delay).await;
        }
        match judged.verdict {
            Verdict::Reject(reply) | Verdict::Defer(reply) | Verdict::DeferIfPermit(reply) => return stay(reply),
            Verdict::Disconnect(reply) => return (reply, true),
            Verdict::Discard(_) => return stay(accepted()),
            Verdict::Quarantine(why) => mail.hold = mail.hold.or(Some(why)),
            Verdict::Pass | Verdict::Accept | Verdict::Delay(_) => {}
        }
        self.staged.extend(judged.staged);
        if mail.envelope.recipients.is_empty() {
            self.say(Stage::Message, "", "discard: policies left no recipient");
            return stay(accepted());
        }
        if let Some(answer) = self.rewrite(&mut mail) {
            return answer;
        }
        let (from, size, recipients, hold) = facts(&mail);
        match self.shared.queue.commit(mail).await {
            Ok(()) => {
                std::mem::take(&mut self.staged).keep(&id.to_string()).await;
                let (session, client, helo) = (self.id(), self.server.session().client.ip(), self.helo());
                let (score, symbols) = (shown(self.tally.sum()), self.tally.names());
                tracing::info!(queue_id = %id, session, %client, helo, from, size, recipients, hold, score, symbols, "queued");
                stay(accepted())
            }
            Err(err) => {
                tracing::error!(queue_id = %id, session = self.id(), from, size, "not queued: {err}");
                stay(Reply::from(&err))
            }
        }
    }

    /// Puts those in the envelope whom aliases mean. The answer, if there is nothing left to be queued.
    fn rewrite(&self, mail: &mut Mail) -> Option<Answer> {
        if !self.terms.directory.rewrites() {
            return None;
        }
        match self.terms.directory.rewrite(&mail.envelope) {
            Ok(envelope) if envelope.recipients.is_empty() => {
                self.say(Stage::Message, "", "discard: all recipients are aliases for nobody");
                Some(stay(Reply::positive(250, (0, 0), format!("Ok: queued as {}", mail.id))))
            }
            Ok(envelope) => {
                mail.envelope = Arc::new(envelope);
                None
            }
            Err(reply) => {
                self.say(Stage::Message, "", &format!("reject: {reply}"));
                Some(stay(reply))
            }
        }
    }

    fn helo(&self) -> &str {
        self.server.session().helo.as_deref().unwrap_or_default()
    }

    /// Header and body as policies shall see them: our Received field first, changes of the envelope made.
    fn assemble(&mut self) -> Result<Mail, Reply> {
        let broken = || Reply::transient(451, (3, 0), "local error in processing");
        let rest = self.server.take_content();
        let Whole { header, body } = match (self.spill_error.take(), self.spilled.take()) {
            (Some(err), _) => Err(err),
            (None, Some(spilled)) => spilled.finish(&rest),
            (None, None) => Ok(whole(rest)),
        }
        .map_err(|err: CommitError| {
            tracing::error!(session = self.id(), "not spooled: {err}");
            Reply::from(&err)
        })?;
        if trace::hops(&header) > self.terms.smtp.config().max_hops {
            return Err(Reply::permanent(554, (4, 6), "Error: too many hops"));
        }
        let (Some(id), Some(envelope), Some(notes)) =
            (self.server.queue_id(), self.server.envelope(), self.server.notes())
        else {
            return Err(broken());
        };
        let hold = match self.server.fate() {
            Fate::Hold(why) => Some(why),
            _ => None,
        };
        let header = self.traced(&header, id, envelope);
        let mut mail = Mail {
            id,
            envelope: Arc::clone(envelope),
            header: Arc::new(header),
            body,
            hold,
            filter: None,
            notes: notes.clone(),
        };
        let edits = std::mem::take(&mut self.edits);
        apply(&mut mail, edits).map_err(|err| {
            tracing::error!(queue_id = %id, session = self.id(), "changes of the envelope cannot be made: {err}");
            broken()
        })?;
        Ok(mail)
    }

    /// The header section with our own fields. RFC 5321 §4.4: Received goes on top. RFC 6409 §8: what a user's mail program left out is
    /// added, and only for those.
    fn traced(&self, header: &HeaderBlock, id: QueueId, envelope: &Envelope) -> HeaderBlock {
        let hostname = self.terms.smtp.hostname();
        let date = trace::date(&Zoned::now());
        let recipient = match envelope.recipients.as_slice() {
            [only] => Some(&only.forward_path),
            _ => None,
        };
        let receipt = trace::Receipt { hostname, id, smtputf8: envelope.smtputf8, recipient, date: &date };
        let mut octets = Vec::with_capacity(header.as_bytes().len() + 512);
        trace::received(self.server.session(), &receipt, &mut octets);
        octets.extend_from_slice(header.as_bytes());
        if self.terms.config.submission {
            trace::missing_fields(header, hostname, id, &date, &mut octets);
        }
        HeaderBlock::parse(&octets).0
    }
}

/// For the log.
fn facts(mail: &Mail) -> (String, u64, usize, String) {
    let from = mail.envelope.reverse_path.to_string();
    let size = mail.header.as_bytes().len() as u64 + 2 + mail.body.len();
    (from, size, mail.envelope.recipients.len(), mail.hold.clone().unwrap_or_default())
}
