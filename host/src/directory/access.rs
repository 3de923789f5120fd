//! Access tables for client, HELO, sender and recipient: `man 5 access`. All four are asked at RCPT, when everything is known (Postfix's
//! `smtpd_delay_reject`).

use std::net::IpAddr;

use super::Directory;
use super::address::Plain;
use super::maps::{Above, Form, Maps, Match, about_address, about_client, about_domain};
use crate::mail::{Envelope, ForwardPath, Reply, ReversePath, is_field_name};

/// The tables of one stage, each asked by itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Lists {
    pub client: Vec<Maps>,
    pub helo: Vec<Maps>,
    pub sender: Vec<Maps>,
    pub recipient: Vec<Maps>,
}

impl Lists {
    fn is_empty(&self) -> bool {
        [&self.client, &self.helo, &self.sender, &self.recipient].iter().all(|list| list.is_empty())
    }
}

/// Who asks for what.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// Its name, if it has one.
    pub client_name: Option<&'a str>,
    /// What it said in HELO or EHLO.
    pub helo: Option<&'a str>,
    /// From whom.
    pub envelope: &'a Envelope,
    /// To whom.
    pub recipient: &'a ForwardPath,
}

/// What is to become of the message, apart from being taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// 250, and it is thrown away.
    Discard(String),
    /// Kept for the operator.
    Hold(String),
    /// To this address instead of all.
    Redirect(ForwardPath),
    /// A blind copy.
    Bcc(ForwardPath),
    /// To this transport and next hop.
    Filter(String),
    /// A field on top of the header.
    Prepend(String),
}

/// What all access tables together say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// A refusal, if there is one.
    pub verdict: Result<(), Reply>,
    /// What holds for the message, if it is taken.
    pub effects: Vec<Effect>,
    /// For the log: what WARN and INFO say, and what makes no sense.
    pub notes: Vec<String>,
}

/// What a table is about, in the words of replies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Client,
    Helo,
    Sender,
    Recipient,
}

impl Class {
    fn words(self) -> &'static str {
        match self {
            Self::Client => "Client host",
            Self::Helo => "Helo command",
            Self::Sender => "Sender address",
            Self::Recipient => "Recipient address",
        }
    }
}

/// What one entry says.
enum Action {
    Dunno,
    Permit,
    Refuse(Reply),
    DeferIfPermit(Reply),
    DeferIfReject(Reply),
    Effect(Effect),
    /// As `Effect`, and nothing more of this list is asked.
    Final(Effect),
    Note(String),
}

type Status = (u8, u16, u16);

impl Directory {
    /// What the access tables say to a recipient. `listed` is what is said of the recipient by itself, which comes last.
    pub fn access(&self, request: &Request<'_>, listed: Result<(), Reply>) -> Access {
        if self.maps.access.is_empty() {
            return Access { verdict: listed, effects: vec![], notes: vec![] };
        }
        let mut judge =
            Judge { access: Access { verdict: Ok(()), effects: vec![], notes: vec![] }, permit: None, reject: None };
        let above = if self.maps.parent_domain_matches { Above::Plain } else { Above::Dotted };
        let lists = &self.maps.access;
        let name = request.client_name.unwrap_or("unknown");
        let client = || {
            let mut questions = about_domain(name, above);
            questions.extend(about_client(request.client));
            questions
        };
        let shown = format!("{name}[{}]", request.client);
        // Of all that `listed` may say, this is about the client, and comes before what the operator says of the recipient.
        let no_relay = matches!(&listed, Err(reply) if reply.code() == 554);
        let mut refused = judge.list(&lists.client, Class::Client, &shown, &|maps| maps.find(client()));
        if let Some(helo) = request.helo {
            refused =
                refused || judge.list(&lists.helo, Class::Helo, helo, &|maps| maps.find(about_domain(helo, above)));
        }
        let form = Form::Access(above);
        let sender = request.envelope.reverse_path.to_string();
        let of_sender = |maps: &Maps| match &request.envelope.reverse_path {
            ReversePath::Null => maps.find(about_domain("<>", Above::Dotted)),
            ReversePath::Mailbox(mailbox) => maps.find(about_address(&Plain::from(mailbox), &self.delimiters, form)),
        };
        refused = refused || judge.list(&lists.sender, Class::Sender, &sender, &of_sender);
        let recipient = Plain::of(request.recipient, &self.hostname);
        let of_recipient = |maps: &Maps| maps.find(about_address(&recipient, &self.delimiters, form));
        if !no_relay {
            let subject = request.recipient.to_string();
            refused = refused || judge.list(&lists.recipient, Class::Recipient, &subject, &of_recipient);
        }
        if refused {
            return judge.access;
        }
        judge.access.verdict = match judge.permit.take() {
            Some(reply) if !no_relay => Err(reply),
            _ => listed,
        };
        judge.access
    }
}

struct Judge {
    access: Access,
    /// A refusal for now that takes the place of a permission.
    permit: Option<Reply>,
    /// A refusal for now that takes the place of one for good in the same list.
    reject: Option<Reply>,
}

impl Judge {
    /// Whether a table of the list refuses.
    fn list(&mut self, list: &[Maps], class: Class, subject: &str, find: &dyn Fn(&Maps) -> Option<Match>) -> bool {
        for maps in list {
            let Some(Match { found, .. }) = find(maps) else { continue };
            match action(&found.value, class, subject) {
                Ok(Action::Dunno) => {}
                Ok(Action::Permit) => return false,
                Ok(Action::Refuse(reply)) => {
                    self.refuse(reply);
                    return true;
                }
                Ok(Action::DeferIfPermit(reply)) => drop(self.permit.get_or_insert(reply)),
                Ok(Action::DeferIfReject(reply)) => drop(self.reject.get_or_insert(reply)),
                Ok(Action::Effect(effect)) => self.access.effects.push(effect),
                Ok(Action::Final(effect)) => {
                    self.access.effects.push(effect);
                    return false;
                }
                Ok(Action::Note(text)) => self.access.notes.push(text),
                Err(why) => {
                    self.access.notes.push(format!("{found}: {why}"));
                    self.access.verdict = Err(Reply::transient(451, (3, 5), "Server configuration error"));
                    return true;
                }
            }
        }
        false
    }

    fn refuse(&mut self, reply: Reply) {
        let softened = self.reject.take().filter(|_| reply.code() >= 500);
        self.access.verdict = Err(softened.unwrap_or(reply));
    }
}

/// What the right-hand side of an entry says.
fn action(value: &str, class: Class, subject: &str) -> Result<Action, String> {
    let (word, text) = match value.split_once([' ', '\t']) {
        Some((word, text)) => (word, text.trim()),
        None => (value, ""),
    };
    let refusal = |code: u16, status: Status, usual: &str| refusal((code, status), text, usual, class, subject);
    let path = |text: &str| {
        text.parse::<ForwardPath>().map_err(|_| format!("`{text}` is no address; write {word} user@domain"))
    };
    let triggers = |usual: &str| {
        let text = if text.is_empty() { usual } else { text };
        format!("<{subject}>: {} {text}", class.words())
    };
    Ok(match word.to_ascii_uppercase().as_str() {
        "OK" | "RELAY" | "PERMIT" => Action::Permit,
        _ if value.bytes().all(|octet| octet.is_ascii_digit()) && !value.is_empty() => Action::Permit,
        "DUNNO" => Action::Dunno,
        "REJECT" => Action::Refuse(refusal(554, (5, 7, 1), "Access denied")?),
        "DEFER" => Action::Refuse(refusal(450, (4, 7, 1), "Access denied")?),
        "DEFER_IF_PERMIT" => Action::DeferIfPermit(refusal(450, (4, 7, 1), "Service unavailable")?),
        "DEFER_IF_REJECT" => Action::DeferIfReject(refusal(450, (4, 7, 1), "Service unavailable")?),
        "WARN" | "INFO" => Action::Note(triggers("matches")),
        "DISCARD" => Action::Final(Effect::Discard(triggers("triggers DISCARD action"))),
        "HOLD" => Action::Effect(Effect::Hold(triggers("triggers HOLD action"))),
        "REDIRECT" => Action::Effect(Effect::Redirect(path(text)?)),
        "BCC" => Action::Effect(Effect::Bcc(path(text)?)),
        "FILTER" if text.contains(':') => Action::Effect(Effect::Filter(text.to_owned())),
        "FILTER" => return Err("write FILTER transport:destination".into()),
        "PREPEND" => match text.split_once(':') {
            Some((name, _)) if is_field_name(name.trim_end().as_bytes()) && !text.contains(['\r', '\n']) => {
                Action::Effect(Effect::Prepend(text.to_owned()))
            }
            _ => return Err("write PREPEND Name: text".into()),
        },
        code if code.len() == 3 && !text.is_empty() && code.starts_with(['4', '5']) => {
            let code: u16 = code.parse().map_err(|_| unknown(word))?;
            let class = if code >= 500 { 5 } else { 4 };
            Action::Refuse(refusal(code, (class, 7, 1), "Access denied")?)
        }
        _ => return Err(unknown(word)),
    })
}

fn unknown(word: &str) -> String {
    format!("`{word}` is no action; write OK, REJECT, DEFER, 4NN or 5NN with a text, or another of man 5 access")
}

/// A reply in Postfix's words. The text may begin with an enhanced status.
fn refusal(
    (code, usual_status): (u16, Status),
    text: &str,
    usual: &str,
    class: Class,
    subject: &str,
) -> Result<Reply, String> {
    let (status, text) = match split_status(text) {
        Some((status, rest)) => (status, rest),
        None => (usual_status, text),
    };
    let (_, subject_code, detail) = fitting(status, class);
    let text = if text.is_empty() { usual } else { text };
    let text = format!("<{subject}>: {} rejected: {text}", class.words());
    match code {
        400..=499 => Ok(Reply::transient(code, (subject_code, detail), text)),
        500..=599 => Ok(Reply::permanent(code, (subject_code, detail), text)),
        _ => Err(format!("{code} refuses nothing")),
    }
}

/// An enhanced status about an address, made one about the address in question.
fn fitting(status: Status, class: Class) -> Status {
    let (kind, subject, detail) = status;
    if subject != 1 {
        return status;
    }
    let detail = match (class, detail) {
        (Class::Sender, 2 | 8) => 8,
        (Class::Sender, 3 | 7) => 7,
        (Class::Sender, _) => 0,
        (Class::Recipient, 1..=6) => detail,
        (Class::Recipient, 7) => 3,
        (Class::Recipient, 8) => 2,
        (Class::Recipient, _) => 0,
        (Class::Client | Class::Helo, _) => return (kind, 0, 0),
    };
    (kind, 1, detail)
}

fn split_status(text: &str) -> Option<(Status, &str)> {
    let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    let mut numbers = word.split('.').map(|part| {
        let sound = (1..=3).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit());
        sound.then(|| part.parse::<u16>().ok()).flatten()
    });
    let (kind, subject, detail) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let sound = matches!(kind, 2 | 4 | 5) && numbers.next().is_none();
    sound.then(|| Some(((u8::try_from(kind).ok()?, subject, detail), rest.trim_start())))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str, class: Class) -> String {
        match action(value, class, "x") {
            Ok(Action::Refuse(reply)) => reply.to_string(),
            Ok(Action::DeferIfPermit(reply)) => format!("permit {reply}"),
            Ok(Action::DeferIfReject(reply)) => format!("reject {reply}"),
            Ok(Action::Permit) => "ok".into(),
            Ok(Action::Dunno) => "dunno".into(),
            Ok(Action::Note(text)) => text,
            Ok(Action::Effect(effect) | Action::Final(effect)) => format!("{effect:?}"),
            Err(why) => format!("! {why}"),
        }
    }

    #[test]
    fn right_hand_sides() {
        use Class::{Client, Recipient, Sender};
        for (value, class, answer) in [
            ("OK", Client, "ok"),
            ("relay", Client, "ok"),
            ("1234", Client, "ok"),
            ("Dunno whatever", Client, "dunno"),
            ("REJECT", Client, "554 5.7.1 <x>: Client host rejected: Access denied"),
            ("REJECT go away", Sender, "554 5.7.1 <x>: Sender address rejected: go away"),
            ("REJECT 5.1.1 no such", Sender, "554 5.1.0 <x>: Sender address rejected: no such"),
            ("reject 5.1.8 no such", Recipient, "554 5.1.2 <x>: Recipient address rejected: no such"),
            ("550 5.1.1 no such", Client, "550 5.0.0 <x>: Client host rejected: no such"),
            ("450 4.2.0 later", Recipient, "450 4.2.0 <x>: Recipient address rejected: later"),
            ("450 5.2.0 later", Recipient, "450 4.2.0 <x>: Recipient address rejected: later"),
            ("DEFER", Recipient, "450 4.7.1 <x>: Recipient address rejected: Access denied"),
            ("DEFER_IF_PERMIT", Recipient, "permit 450 4.7.1 <x>: Recipient address rejected: Service unavailable"),
            ("defer_if_reject q", Recipient, "reject 450 4.7.1 <x>: Recipient address rejected: q"),
            ("BCC a@b.example", Recipient, "Bcc(Mailbox(a@b.example))"),
            ("PREPEND X-A: b", Recipient, "Prepend(\"X-A: b\")"),
            ("FILTER smtp:[::1]:25", Recipient, "Filter(\"smtp:[::1]:25\")"),
        ] {
            assert_eq!(shown(value, class), answer, "{value}");
        }
        for bad in ["BCC root", "REDIRECT", "PREPEND no field", "FILTER smtp", "maybe", "55x no", "550"] {
            assert!(shown(bad, Recipient).starts_with(['!', 'o']), "{bad}: {}", shown(bad, Recipient));
        }
    }
}
