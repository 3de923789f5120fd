//! One mail transaction, from MAIL to the end of data, RSET or EHLO: RFC 5321 §3.3.

use std::sync::Arc;

use super::content::TOO_LARGE;
use crate::mail::{Envelope, QueueId, Recipient};
use crate::policy::Notes;
use crate::smtp::config::Config;
use crate::smtp::data::{Decoder, Flaws, Framing};
use crate::smtp::header_scan::{HeaderScan, HeaderState};

/// What is to become of a message if nobody objects any more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fate {
    /// It is delivered.
    #[default]
    Deliver,
    /// It is kept for the operator, for this reason.
    Hold(String),
    /// It is accepted and thrown away, for this reason; its content is not kept, and not complete.
    Discard(String),
}

impl Fate {
    /// The harder of two.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Discard(why), _) | (_, Self::Discard(why)) => Self::Discard(why),
            (Self::Hold(why), _) | (_, Self::Hold(why)) => Self::Hold(why),
            (Self::Deliver, Self::Deliver) => Self::Deliver,
        }
    }
}

/// Exists while a transaction is under way.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) envelope: Arc<Envelope>,
    pub(super) announced_size: Option<u64>,
    pub(super) notes: Notes,
    pub(super) fate: Fate,
    /// Given by the driver when it opened the transaction.
    pub(super) id: Option<QueueId>,
    /// The recipient that is being asked about.
    pub(super) candidate: Option<Recipient>,
    /// RCPTs that were put off; beyond `max-recipients` they count as errors.
    pub(super) deferred: usize,
    pub(super) intake: Option<Intake>,
    /// RFC 3030 §2: a chunk was refused; nothing but RSET helps.
    pub(super) failed: bool,
    /// The driver has thrown away what it had opened.
    pub(super) aborted: bool,
}

impl Transaction {
    pub(super) fn take_content(&mut self) -> Option<Vec<u8>> {
        self.intake.as_mut().map(|intake| std::mem::take(&mut intake.content))
    }
}

/// Content on its way in.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) decoder: Decoder,
    pub(super) content: Vec<u8>,
    header: HeaderScan,
    max_header: usize,
    spill_threshold: usize,
    /// Octets of the wire that may still come before the session is closed.
    pub(super) allowance: u64,
    /// Nothing is kept of a message that will be refused or discarded.
    keep: bool,
}

/// The most that is set aside in advance for what MAIL announced.
const MAX_RESERVE: u64 = 64 * 1024;

impl Intake {
    pub(super) fn new(framing: Framing, config: &Config, announced: Option<u64>, fate: &Fate) -> Self {
        let reserve = usize::try_from(announced.unwrap_or(0).min(MAX_RESERVE)).unwrap_or(0);
        let most = config.max_message_size.as_u64();
        Self {
            decoder: Decoder::new(framing, config),
            content: Vec::with_capacity(reserve),
            header: HeaderScan::new(),
            max_header: config.max_header_size.as_usize(),
            spill_threshold: config.spill_threshold.as_usize(),
            // Dots that are doubled lengthen a message by a third at most.
            allowance: most.saturating_add(most / 3).saturating_add(config.max_swallow.as_u64()),
            keep: !matches!(fate, Fate::Discard(_)),
        }
    }

    /// Decodes a piece; see [`Decoder::decode`].
    pub(super) fn take(&mut self, octets: &[u8]) -> (usize, bool) {
        let step = self.decoder.decode(octets, &mut self.content);
        self.allowance = self.allowance.saturating_sub(step.consumed as u64);
        self.look();
        (step.consumed, step.ended)
    }

    /// All chunks are here.
    pub(super) fn finish_chunks(&mut self) {
        self.decoder.finish(&mut self.content);
        self.look();
    }

    fn look(&mut self) {
        if self.header.state() == HeaderState::Open && !self.decoder.flaws().any() {
            self.header.scan(&self.content, self.max_header);
        }
        if self.refusal().is_some() {
            self.content = Vec::new();
        } else if !self.keep && self.wants_spill() {
            self.content.clear();
        }
    }

    /// Whether so much is here that it should go to the spool.
    pub(super) fn wants_spill(&self) -> bool {
        // Policies get the header section in one piece, so it stays until it is complete.
        let much = !self.content.is_empty() && self.content.len() >= self.spill_threshold;
        much && self.header.state() != HeaderState::Open
    }

    /// What the client hears at the end if the message cannot be taken. Does not depend on how the octets came.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        let Flaws { too_large, bare_lf, bare_cr, long_line, nul } = self.decoder.flaws();
        Some(match () {
            () if too_large => TOO_LARGE,
            () if bare_lf => "550 5.5.2 Error: bare <LF> received",
            () if bare_cr => "550 5.5.2 Error: bare <CR> received",
            () if long_line => "550 5.6.0 Error: message has a line that is too long",
            () if nul => "550 5.6.0 Error: message holds a NUL",
            () if self.header.state() == HeaderState::TooLarge => "552 5.3.4 Error: message header exceeds fixed limit",
            () => return None,
        })
    }
}
