//! DATA and BDAT: RFC 5321 §4.1.1.4, RFC 3030 §2.

use super::transaction::{Intake, Transaction};
use super::{Action, Chunk, Phase, Question, Server};
use crate::smtp::command::{ChunkHead, parse_bdat};
use crate::smtp::config::Extension;
use crate::smtp::data::Framing;
use crate::smtp::input::Input;

pub(super) const TOO_LARGE: &str = "552 5.3.4 Error: message size exceeds fixed limit";

impl Server {
    pub(super) fn start_data(&mut self, arguments: &[u8], output: &mut Vec<u8>) {
        let refusal = match &self.transaction {
            _ if !arguments.is_empty() => Some("501 5.5.4 Syntax: DATA"),
            None => Some("503 5.5.1 Error: need MAIL command"),
            // RFC 3030 §2: the two cannot be mixed.
            Some(transaction) if transaction.failed || transaction.intake.is_some() => {
                Some("503 5.5.1 Error: DATA after BDAT")
            }
            Some(transaction) if transaction.envelope.recipients.is_empty() => {
                Some("554 5.5.1 Error: no valid recipients")
            }
            Some(_) => None,
        };
        if let Some(line) = refusal {
            // A client that has sent its message without waiting would have it read as commands.
            self.wary = true;
            return self.refuse(output, line);
        }
        self.start_intake(Framing::Dots);
        self.say(output, "354 End data with <CR><LF>.<CR><LF>");
        // RFC 2920 §3.1 wants the client to wait here. What it has sent already is taken for the message, never for commands.
        self.phase = Phase::Data;
    }

    fn start_intake(&mut self, framing: Framing) {
        let config = self.settings.config();
        if let Some(transaction) = &mut self.transaction
            && transaction.intake.is_none()
        {
            let Transaction { announced_size, fate, .. } = &**transaction;
            transaction.intake = Some(Intake::new(framing, config, *announced_size, fate));
        }
    }

    /// The octets behind 354.
    pub(super) fn data(&mut self, input: &mut Input, output: &mut Vec<u8>) -> Option<Action> {
        let Some(intake) = self.transaction.as_mut().and_then(|transaction| transaction.intake.as_mut()) else {
            self.phase = Phase::Command;
            return None;
        };
        if intake.wants_spill() {
            return Some(Action::Spill);
        }
        let allowance = usize::try_from(intake.allowance).unwrap_or(usize::MAX);
        let octets = input.data();
        if octets.is_empty() {
            return Some(Action::Read);
        }
        let (consumed, ended) = intake.take(octets.get(..allowance).unwrap_or(octets));
        input.consume(consumed);
        self.octets += consumed as u64;
        let exhausted = intake.allowance == 0;
        let Some(line) = intake.refusal().or_else(|| (exhausted && !ended).then_some(TOO_LARGE)) else {
            if ended {
                self.phase = Phase::Asked(Question::Finish);
            }
            return None;
        };
        self.abort_content();
        if ended {
            self.phase = Phase::Command;
            self.refuse(output, line);
            self.drop_transaction();
        } else if exhausted {
            self.say(output, line);
            self.note_refusal(line);
            self.drop_transaction();
            self.phase = Phase::Closing;
        }
        None
    }

    /// What was spooled of a message that will be refused is thrown away at once.
    fn abort_content(&mut self) {
        if let Some(transaction) = &mut self.transaction
            && transaction.id.is_some()
            && !std::mem::replace(&mut transaction.aborted, true)
        {
            self.abort = true;
        }
    }

    pub(super) fn start_chunk(&mut self, arguments: &[u8], output: &mut Vec<u8>) {
        if !self.offers(Extension::Chunking, output) {
            self.wary = true;
            return;
        }
        let (size, last, refusal) = match parse_bdat(arguments) {
            ChunkHead::Sound { size, last } => (size, last, self.chunk_refusal(size)),
            ChunkHead::BadTail { size } => (size, false, Some("501 5.5.4 Syntax: BDAT count [LAST]")),
            ChunkHead::BadSize => {
                self.wary = true;
                return self.refuse(output, "501 5.5.4 Syntax: BDAT count [LAST]");
            }
        };
        if refusal.is_some() {
            if size > self.settings.config().max_swallow.as_u64() {
                // Nobody reads that much for nothing.
                self.refuse(output, refusal.unwrap_or_default());
                self.phase = Phase::Closing;
                return;
            }
            self.fail_transaction();
        } else {
            self.start_intake(Framing::Counted);
        }
        self.phase = Phase::Chunk(Chunk { size, left: size, last, refusal });
    }

    /// Why a chunk cannot be taken, before any of it is here. RFC 3030 §2: its octets are read all the same.
    fn chunk_refusal(&self, size: u64) -> Option<&'static str> {
        let max_size = self.settings.config().max_message_size.as_u64();
        let Some(transaction) = &self.transaction else {
            return Some("503 5.5.1 Error: need MAIL command");
        };
        if transaction.failed {
            return Some("503 5.5.1 Error: a chunk was refused, RSET is needed");
        }
        if transaction.envelope.recipients.is_empty() {
            return Some("554 5.5.1 Error: no valid recipients");
        }
        let so_far = transaction.intake.as_ref().map_or(0, |intake| intake.decoder.size());
        (so_far.saturating_add(size) > max_size).then_some(TOO_LARGE)
    }

    fn fail_transaction(&mut self) {
        self.abort_content();
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
            transaction.intake = None;
        }
    }

    /// The octets of a chunk, then its reply.
    pub(super) fn chunk(&mut self, input: &mut Input, output: &mut Vec<u8>) -> Option<Action> {
        let Phase::Chunk(chunk) = &mut self.phase else { return None };
        let mut intake = self.transaction.as_mut().and_then(|transaction| transaction.intake.as_mut());
        if chunk.refusal.is_none() && intake.as_ref().is_some_and(|intake| intake.wants_spill()) {
            return Some(Action::Spill);
        }
        if chunk.left > 0 {
            let octets = input.data();
            if octets.is_empty() {
                return Some(Action::Read);
            }
            let len = usize::try_from(chunk.left).unwrap_or(usize::MAX).min(octets.len());
            if chunk.refusal.is_none()
                && let Some(intake) = &mut intake
            {
                intake.take(octets.get(..len).unwrap_or_default());
            }
            input.consume(len);
            self.octets += len as u64;
            chunk.left -= len as u64;
            if chunk.left > 0 || intake.is_some_and(|intake| intake.wants_spill()) {
                return None;
            }
        }
        let Chunk { size, last, refusal, .. } = *chunk;
        self.phase = Phase::Command;
        self.end_chunk(size, last, refusal, output)
    }

    fn end_chunk(
        &mut self,
        size: u64,
        last: bool,
        refusal: Option<&'static str>,
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        let intake = self.transaction.as_mut().and_then(|transaction| transaction.intake.as_mut());
        let refusal = refusal.or_else(|| {
            let intake = intake?;
            if last {
                intake.finish_chunks();
            }
            intake.refusal()
        });
        match refusal {
            Some(line) => {
                self.fail_transaction();
                self.refuse(output, line);
                if last {
                    self.drop_transaction();
                }
            }
            None if last => self.phase = Phase::Asked(Question::Finish),
            None => {
                let line = format!("250 2.0.0 Ok: {size} octets");
                self.say(output, &line);
            }
        }
        None
    }
}
