//! What the config says of SMTP as a client.

use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Duration};

/// Limits and patience of the client's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientConfig {
    /// How content is sent. Default `data`.
    pub transfer: Transfer,
    /// Octets of one chunk; a message of at most so many goes out in one write with its envelope. Default 256 KiB.
    pub chunk_size: ByteSize,
    /// Commands that may be under way without an answer, so that neither side waits for the other to read (RFC 2920 §3.1). Default 100.
    pub max_pipelined: usize,
    /// The longest reply line with its CRLF; RFC 5321 §4.5.3.1.5 allows 512. Default 4 KiB.
    pub max_reply_line: ByteSize,
    /// For the greeting. RFC 5321 §4.5.3.2.1, like the next ones. Default 5m.
    pub greeting_timeout: Duration,
    /// For the reply to EHLO or HELO. Default 5m.
    pub helo_timeout: Duration,
    /// For the reply to MAIL. Default 5m.
    pub mail_timeout: Duration,
    /// For the reply to RCPT. Default 5m.
    pub rcpt_timeout: Duration,
    /// For the reply to DATA. Default 2m.
    pub data_timeout: Duration,
    /// For each piece of content to be taken. Default 3m.
    pub block_timeout: Duration,
    /// For the reply to the end of data: the server may do much work before it. Default 10m.
    pub final_timeout: Duration,
    /// For the reply to RSET and QUIT, which nobody needs for long. Default 10s.
    pub quit_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            transfer: Transfer::Data,
            chunk_size: ByteSize::from_kib(256),
            max_pipelined: 100,
            max_reply_line: ByteSize::from_kib(4),
            greeting_timeout: Duration::from_mins(5),
            helo_timeout: Duration::from_mins(5),
            mail_timeout: Duration::from_mins(5),
            rcpt_timeout: Duration::from_mins(5),
            data_timeout: Duration::from_mins(2),
            block_timeout: Duration::from_mins(3),
            final_timeout: Duration::from_mins(10),
            quit_timeout: Duration::from_secs(10),
        }
    }
}

/// How content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// DATA always: content goes out only after the server has taken a recipient.
    #[default]
    Data,
    /// BDAT where the server offers CHUNKING and PIPELINING: one round trip less, and content sent in vain if no recipient is taken.
    Chunking,
}
