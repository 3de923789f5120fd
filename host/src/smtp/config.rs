//! What the config says of SMTP as a server: `[smtp]`. Every limit of the protocol has its name here.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Duration};

/// Limits and tolerances of the server's side: `[smtp]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// What follows the host's name in the greeting; control characters become spaces. Default `ESMTP wasmta`.
    pub banner: String,
    /// The largest message, in octets after dot-unstuffing; announced as SIZE (RFC 1870) and refused with 552 5.3.4 above. Default 50 MiB.
    pub max_message_size: ByteSize,
    /// The largest header section, 552 5.3.4 above. It is held in memory while it arrives and while policies read it. Default 256 KiB.
    pub max_header_size: ByteSize,
    /// The longest command line with its CRLF, 500 5.5.2 above. RFC 5321 §4.5.3.1.4 asks for 512, and each extension for more: DSN, SIZE,
    /// SMTPUTF8 and long addresses come to about 1,600. Default 2 KiB.
    pub max_command_line: ByteSize,
    /// How much of an overlong command line is read and thrown away before the session is closed. Default 64 KiB.
    pub max_overlong_line: ByteSize,
    /// The longest line of a message with its CRLF, 550 5.6.0 above. RFC 5321 §4.5.3.1.6 asks for 1,000; base64 that nobody wrapped is
    /// much longer and does no harm here. Default 1 MiB.
    pub max_text_line: ByteSize,
    /// How much more than `max-message-size` of one message is read and thrown away before the session is closed: a client that only hears
    /// a closed connection comes back and tries again. Default 100 MiB.
    pub max_swallow: ByteSize,
    /// Recipients of one message, 452 4.5.3 above; RFC 5321 §4.5.3.1.8 asks for 100. Default 1000.
    pub max_recipients: usize,
    /// Received fields of one message, 554 5.4.6 above: it goes in circles (RFC 5321 §6.3). Default 50.
    pub max_hops: usize,
    /// Refused commands after which each one more makes the client wait `error-delay`. Default 10.
    pub soft_errors: usize,
    /// Refused commands after which the session is closed with 421 4.7.0. A message taken sets the count to nothing. Default 20.
    pub max_errors: usize,
    /// The wait beyond `soft-errors`. Default 1s.
    pub error_delay: Duration,
    /// NOOP, RSET, EHLO, VRFY and the like since the last message; above, each counts as an error. Default 100.
    pub max_idle_commands: usize,
    /// MAIL commands of one session, 421 4.7.0 above. Default 100,000: a relay that keeps its connection open is welcome.
    pub max_transactions: usize,
    /// Octets of a message that are held in memory; what is beyond goes to the spool as it arrives. Default 128 KiB.
    pub spill_threshold: ByteSize,
    /// Whether MAIL needs a HELO or EHLO before it (RFC 5321 §4.1.4). Default true.
    pub require_helo: bool,
    /// Whether `MAIL FROM: <a@b.example>` is understood: RFC 5321 §3.3 allows no space after the colon, but many clients send one.
    /// Default true.
    pub allow_space_after_colon: bool,
    /// What becomes of a message with a CR or LF that is not part of a CRLF. Never does one end a line or a message. Default `reject`.
    pub bare_line_ends: BareLineEnds,
    /// What becomes of a message with a NUL. Default `accept`, as Postfix does; RFC 5322 §4 calls them obsolete.
    pub nul_octets: NulOctets,
    /// Extensions that are neither announced nor understood. Default none.
    pub disabled_extensions: BTreeSet<Extension>,
    /// How long to wait for the next command. RFC 5321 §4.5.3.2.7: at least 5 minutes. Default 5m.
    pub command_timeout: Duration,
    /// How long to wait for the next octets of a message. RFC 5321 §4.5.3.2.5. Default 3m.
    pub data_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            banner: "ESMTP wasmta".into(),
            max_message_size: ByteSize::from_mib(50),
            max_header_size: ByteSize::from_kib(256),
            max_command_line: ByteSize::from_kib(2),
            max_overlong_line: ByteSize::from_kib(64),
            max_text_line: ByteSize::from_mib(1),
            max_swallow: ByteSize::from_mib(100),
            max_recipients: 1000,
            max_hops: 50,
            soft_errors: 10,
            max_errors: 20,
            error_delay: Duration::from_secs(1),
            max_idle_commands: 100,
            max_transactions: 100_000,
            spill_threshold: ByteSize::from_kib(128),
            require_helo: true,
            allow_space_after_colon: true,
            bare_line_ends: BareLineEnds::Reject,
            nul_octets: NulOctets::Accept,
            disabled_extensions: BTreeSet::new(),
            command_timeout: Duration::from_mins(5),
            data_timeout: Duration::from_mins(3),
        }
    }
}

impl Config {
    /// Whether an extension is on.
    pub fn offers(&self, extension: Extension) -> bool {
        !self.disabled_extensions.contains(&extension)
    }
}

/// What becomes of a message with a bare CR or LF: to some other host it may end a line, or the message (CVE-2023-51764).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BareLineEnds {
    /// 550 5.5.2 at its end.
    #[default]
    Reject,
    /// Each becomes a CRLF.
    Normalize,
}

/// What becomes of a message with a NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NulOctets {
    /// It stays as it is.
    #[default]
    Accept,
    /// 550 5.6.0 at its end.
    Reject,
}

/// Extensions that can be turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extension {
    /// RFC 2920. Turning it off only stops the announcement.
    Pipelining,
    /// RFC 3030, BDAT.
    Chunking,
    /// RFC 6531.
    SmtpUtf8,
    /// RFC 3461.
    Dsn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let text = "max-message-size = \"1 MiB\"\nbare-line-ends = \"normalize\"\ndisabled-extensions = [\"chunking\", \"smtputf8\"]\n";
        let config: Config = toml::from_str(text).expect("known keys");
        assert_eq!(config.max_message_size, ByteSize::from_mib(1));
        assert_eq!(config.bare_line_ends, BareLineEnds::Normalize);
        assert!(!config.offers(Extension::Chunking) && config.offers(Extension::Dsn));
        assert_eq!(config.max_errors, Config::default().max_errors);
        for wrong in ["max-mesage-size = \"1 MiB\"", "max-message-size = 5", "bare-line-ends = \"maybe\""] {
            assert!(toml::from_str::<Config>(wrong).is_err(), "{wrong}");
        }
        let written = toml::to_string(&Config::default()).expect("plain values");
        assert_eq!(toml::from_str::<Config>(&written), Ok(Config::default()));
    }
}
