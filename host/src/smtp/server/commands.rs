//! What each command does if it is in order: RFC 5321 §4.1.1 and §4.1.4.

use std::sync::Arc;

use super::content::TOO_LARGE;
use super::transaction::Transaction;
use super::{Phase, Question, Server};
use crate::mail::{BodyType, Envelope, Origin, Recipient, Reply};
use crate::policy::{Notes, Stage};
use crate::smtp::command::{self, ArgumentError, Verb};
use crate::smtp::config::Extension;
use crate::smtp::parameter::{self, ParameterError};
use crate::smtp::trace;

const OK: &str = "250 2.0.0 Ok";
const HELP: &str = "214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT (RFC 5321)";

impl Server {
    /// One command line, without its CRLF.
    pub(super) fn execute(&mut self, line: &[u8], output: &mut Vec<u8>) {
        let command = command::parse(line);
        let wary = std::mem::take(&mut self.wary);
        if let Some(refusal) = self.refusal.as_ref().filter(|_| command.verb != Verb::Quit) {
            // RFC 5321 §3.1: after a refusal in place of the greeting, 503 until QUIT.
            let reply = Reply::permanent(503, (7, 0), refusal.lines().next().unwrap_or("access denied"));
            return self.pass_on(output, &reply);
        }
        match command.verb {
            Verb::Quit => {
                // RFC 5321 §4.1.1.10; arguments or not, nobody is helped by an error at the very end.
                self.say(output, "221 2.0.0 Bye");
                self.phase = Phase::Closing;
            }
            Verb::Ehlo | Verb::Helo => self.hello(command.verb, command.arguments, output),
            Verb::Mail => self.mail(command.arguments, output),
            Verb::Rcpt => self.rcpt(command.arguments, output),
            Verb::Data => self.start_data(command.arguments, output),
            Verb::Bdat => self.start_chunk(command.arguments, output),
            Verb::Rset => self.reset(command.arguments, output),
            Verb::Noop => self.idle(output, OK),
            Verb::Help => self.idle(output, HELP),
            // RFC 5321 §3.5.3 and §7.3: says nothing of who is here.
            Verb::Vrfy if command.arguments.is_empty() => self.refuse(output, "501 5.5.4 Syntax: VRFY address"),
            Verb::Vrfy => self.idle(output, "252 2.1.5 Cannot verify; send mail and see"),
            Verb::Expn => self.refuse(output, "502 5.5.1 Error: command not implemented"),
            Verb::NotImplemented => self.refuse(output, "502 5.5.1 Error: command not implemented"),
            Verb::Http => self.close_with(output, "4.7.0", "Error: this is SMTP"),
            Verb::Unknown if wary => self.close_with(output, "4.5.0", "Error: SMTP protocol synchronization lost"),
            Verb::Unknown => self.refuse(output, "500 5.5.2 Error: command not recognized"),
        }
    }

    /// A command that brings no mail nearer is answered, but not for ever.
    fn idle(&mut self, output: &mut Vec<u8>, line: &str) {
        self.say(output, line);
        self.count_idle(output);
    }

    fn count_idle(&mut self, output: &mut Vec<u8>) {
        self.idle_commands += 1;
        if self.idle_commands > self.settings.config().max_idle_commands {
            self.count_error(output);
        }
    }

    fn reset(&mut self, arguments: &[u8], output: &mut Vec<u8>) {
        if !arguments.is_empty() {
            return self.refuse(output, "501 5.5.4 Syntax: RSET");
        }
        self.drop_transaction();
        self.idle(output, OK);
    }

    fn hello(&mut self, verb: Verb, arguments: &[u8], output: &mut Vec<u8>) {
        let Ok(name) = command::parse_helo(arguments) else {
            let line = match (verb, arguments.is_empty()) {
                (Verb::Ehlo, true) => "501 5.5.4 Syntax: EHLO hostname",
                (_, true) => "501 5.5.4 Syntax: HELO hostname",
                _ => "501 5.5.2 Error: malformed host name",
            };
            return self.refuse(output, line);
        };
        let session = Arc::make_mut(&mut self.session);
        let previous = session.helo.replace(name.to_owned());
        let was_extended = std::mem::replace(&mut session.extended, verb == Verb::Ehlo);
        self.phase = Phase::Asked(Question::Helo { previous, was_extended });
        self.count_idle(output);
    }

    fn mail(&mut self, arguments: &[u8], output: &mut Vec<u8>) {
        if self.transaction.is_some() {
            // RFC 5321 §4.1.4: refused, and the transaction stands.
            return self.refuse(output, "503 5.5.1 Error: nested MAIL command");
        }
        if self.settings.config().require_helo && self.session.helo.is_none() {
            return self.refuse(output, "503 5.5.1 Error: send HELO/EHLO first");
        }
        if self.transactions >= self.settings.config().max_transactions {
            return self.close_with(output, "4.7.0", "Error: too many messages in one session");
        }
        match self.new_transaction(arguments) {
            Ok(transaction) => {
                self.transactions += 1;
                self.transaction = Some(Box::new(transaction));
                self.phase = Phase::Asked(Question::Open);
            }
            Err(line) => self.refuse(output, line),
        }
    }

    fn new_transaction(&self, arguments: &[u8]) -> Result<Transaction, &'static str> {
        let config = self.settings.config();
        let (path, parameters) = command::split_path(arguments, "FROM:", config).map_err(mail_error)?;
        let parameters = parameter::parse_mail(parameters, config).map_err(parameter_error)?;
        let reverse_path = command::parse_reverse_path(path, parameters.smtputf8).map_err(mail_error)?;
        if parameters.size.is_some_and(|size| size > config.max_message_size.as_u64()) {
            // RFC 1870 §6.1
            return Err(TOO_LARGE);
        }
        let envelope = Envelope {
            reverse_path,
            recipients: Vec::new(),
            body: parameters.body.unwrap_or(BodyType::SevenBit),
            smtputf8: parameters.smtputf8,
            ret: parameters.ret,
            envelope_id: parameters.envelope_id,
            origin: Origin {
                client: Some(self.session.client.ip().to_canonical()),
                helo: self.session.helo.clone().unwrap_or_default(),
                protocol: trace::protocol(&self.session, parameters.smtputf8).to_owned(),
            },
        };
        Ok(Transaction {
            envelope: Arc::new(envelope),
            announced_size: parameters.size,
            notes: Notes::default(),
            fate: self.connect_fate.clone().or(self.helo_fate.clone()),
            id: None,
            candidate: None,
            deferred: 0,
            intake: None,
            failed: false,
            aborted: false,
        })
    }

    fn rcpt(&mut self, arguments: &[u8], output: &mut Vec<u8>) {
        let config = self.settings.config();
        let Some(transaction) = &mut self.transaction else {
            return self.refuse(output, "503 5.5.1 Error: need MAIL command");
        };
        if transaction.failed || transaction.intake.is_some() {
            // RFC 3030 §2: no more recipients once content has begun.
            return self.refuse(output, "503 5.5.1 Error: RCPT after BDAT");
        }
        let smtputf8 = transaction.envelope.smtputf8;
        let parsed =
            command::split_path(arguments, "TO:", config).map_err(rcpt_error).and_then(|(path, parameters)| {
                let parameters = parameter::parse_rcpt(parameters, smtputf8, config).map_err(parameter_error)?;
                let forward_path = command::parse_forward_path(path, smtputf8).map_err(rcpt_error)?;
                Ok(Recipient { forward_path, original: parameters.original, notify: parameters.notify })
            });
        let recipient = match parsed {
            Ok(recipient) => recipient,
            Err(line) => return self.refuse(output, line),
        };
        let known = &transaction.envelope.recipients;
        if known.iter().any(|known| known.forward_path == recipient.forward_path) {
            // Named twice, it still gets the message once.
            return self.say(output, "250 2.1.5 Ok");
        }
        if known.len() >= config.max_recipients {
            // RFC 5321 §4.5.3.1.10: those taken stand, the client sends the others another time.
            return self.put_off(output, None);
        }
        transaction.candidate = Some(recipient);
        self.phase = Phase::Asked(Question::Resolve);
    }

    /// Refuses a recipient for now; a client that goes on and on is not left alone with it.
    pub(super) fn put_off(&mut self, output: &mut Vec<u8>, reply: Option<&Reply>) {
        match reply {
            Some(reply) => self.pass_on(output, reply),
            None => {
                self.say(output, "452 4.5.3 Error: too many recipients");
                self.note_refusal("452 4.5.3 Error: too many recipients");
            }
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.deferred += 1;
            if transaction.deferred > self.settings.config().max_recipients {
                self.count_error(output);
            }
        }
    }

    /// A command that was legal and to which nobody objects: its effect and its reply.
    pub(super) fn proceed(&mut self, stage: Stage, output: &mut Vec<u8>) {
        match stage {
            Stage::Connect => output.extend_from_slice(self.settings.greeting().as_bytes()),
            Stage::Helo => {
                // RFC 5321 §4.1.4: EHLO in mid-session is a RSET as well.
                self.drop_transaction();
                if self.session.extended {
                    output.extend_from_slice(self.settings.ehlo().as_bytes());
                } else {
                    let line = format!("250 {}", self.settings.hostname());
                    self.say(output, &line);
                }
            }
            Stage::Mail => self.say(output, "250 2.1.0 Ok"),
            Stage::Rcpt => {
                if let Some(transaction) = &mut self.transaction
                    && let Some(recipient) = transaction.candidate.take()
                {
                    Arc::make_mut(&mut transaction.envelope).recipients.push(recipient);
                }
                self.say(output, "250 2.1.5 Ok");
            }
            Stage::Message => {}
        }
    }

    /// Whether an extension that a command belongs to is on; says 502 if not.
    pub(super) fn offers(&mut self, extension: Extension, output: &mut Vec<u8>) -> bool {
        let offered = self.settings.config().offers(extension);
        if !offered {
            self.refuse(output, "502 5.5.1 Error: command not implemented");
        }
        offered
    }
}

fn mail_error(error: ArgumentError) -> &'static str {
    match error {
        ArgumentError::Syntax => "501 5.5.4 Syntax: MAIL FROM:<address>",
        ArgumentError::Address => "501 5.1.7 Bad sender address syntax",
        ArgumentError::NotAscii => "553 5.6.7 Error: non-ASCII sender address needs SMTPUTF8",
    }
}

fn rcpt_error(error: ArgumentError) -> &'static str {
    match error {
        ArgumentError::Syntax => "501 5.5.4 Syntax: RCPT TO:<address>",
        ArgumentError::Address => "501 5.1.3 Bad recipient address syntax",
        ArgumentError::NotAscii => "553 5.6.7 Error: non-ASCII recipient address needs SMTPUTF8",
    }
}

fn parameter_error(error: ParameterError) -> &'static str {
    match error {
        ParameterError::Malformed => "501 5.5.4 Error: malformed or repeated parameter",
        // RFC 5321 §4.1.1.11
        ParameterError::Unknown => "555 5.5.4 Error: unsupported parameter",
    }
}
