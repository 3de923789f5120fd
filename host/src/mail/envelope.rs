//! What SMTP says about a message outside of it: RFC 5321 §2.3.1, DSN parameters of RFC 3461, RFC 6152, RFC 6531.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ForwardPath, ReversePath};

/// BODY= of RFC 6152 and RFC 3030.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BodyType {
    /// `BODY=7BIT`, or nothing said.
    #[default]
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// RET= of RFC 3461 §4.3: how much of the message a failure notice returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DsnReturn {
    /// `RET=FULL`.
    Full,
    /// `RET=HDRS`.
    Headers,
}

/// NOTIFY= of RFC 3461 §4.1. All three false is `NOTIFY=NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// On delivery.
    pub success: bool,
    /// On lasting failure.
    pub failure: bool,
    /// On delay.
    pub delay: bool,
}

impl Notify {
    /// `NOTIFY=NEVER`.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
    /// What holds when the client gave no NOTIFY (RFC 3461 §4.1: failure; delay at our choice).
    pub const DEFAULT: Self = Self { success: false, failure: true, delay: true };
}

/// One forward-path with its DSN parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Where it goes.
    pub forward_path: ForwardPath,
    /// ORCPT= as the client gave it, still in xtext (RFC 3461 §4.2).
    pub original: Option<String>,
    /// NOTIFY=, if given.
    pub notify: Option<Notify>,
}

impl Recipient {
    /// Without DSN parameters.
    pub fn new(forward_path: ForwardPath) -> Self {
        Self { forward_path, original: None, notify: None }
    }
}

/// Who handed the message in; kept for the log, the queue list and policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The client's address; none for mail made here (bounces).
    pub client: Option<IpAddr>,
    /// What it said in HELO or EHLO.
    pub helo: String,
    /// `ESMTP`, `SMTP`, … as in the Received header (RFC 3848).
    pub protocol: String,
}

/// Reverse-path, forward-paths and the parameters of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where failure notices go.
    pub reverse_path: ReversePath,
    /// Where the message goes.
    pub recipients: Vec<Recipient>,
    /// BODY=.
    pub body: BodyType,
    /// Whether SMTPUTF8 was given (RFC 6531).
    pub smtputf8: bool,
    /// RET=, if given.
    pub ret: Option<DsnReturn>,
    /// ENVID= as the client gave it, still in xtext.
    pub envelope_id: Option<String>,
    /// Who handed it in.
    pub origin: Origin,
}
