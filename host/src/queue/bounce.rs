//! Delivery status notifications: what the sender is told, as a message. Pure.
//! RFC 3464 (format), RFC 3461 §5.2 and §6 (what must stand in it), RFC 3462 (multipart/report), RFC 3834 (Auto-Submitted),
//! RFC 6533 (addresses beyond ASCII).

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{RecipientState, Relayed, Report, ReportKind, Response, Stored, UnixTime};
use crate::mail::{
    BodyType, Domain, DsnReturn, Envelope, HeaderBlock, Origin, QueueId, Recipient, ReplyClass, ReversePath,
};

/// Octets of a line in the parts that we write; longer ones are folded or cut.
const LINE: usize = 76;
/// Octets of a reply that a notification quotes.
const MAX_QUOTE: usize = 2000;

/// What there is to say it with.
pub struct Facts<'a> {
    /// Who says it.
    pub hostname: &'a Domain,
    /// The name of the notification.
    pub id: QueueId,
    /// Now.
    pub now: UnixTime,
    /// When the message will be given up.
    pub expires: UnixTime,
    /// The header section of the message.
    pub header: &'a [u8],
    /// Its body, if it is small enough to go back.
    pub body: Option<&'a [u8]>,
}

/// A notification.
pub struct Bounce {
    /// From nobody to the sender.
    pub envelope: Envelope,
    /// Its header section.
    pub header: HeaderBlock,
    /// Its body.
    pub body: Vec<u8>,
}

/// Puts the notification together. None for a message that nobody can be told of.
pub fn compose(stored: &Stored, report: &Report, facts: &Facts<'_>) -> Option<Bounce> {
    let ReversePath::Mailbox(sender) = &stored.envelope.reverse_path else { return None };
    let told = || report.recipients.iter().filter_map(|index| stored.envelope.recipients.get(*index));
    // RFC 6533 §3: the forms for UTF-8 are used where an address needs them, and only there.
    let utf8 = !sender.is_ascii() || told().any(|recipient| !recipient.forward_path.to_string().is_ascii());
    let returned = returned(stored, report, facts);
    let boundary = boundary(facts, returned.octets());
    let mut body = Vec::with_capacity(2048 + returned.octets().iter().map(|part| part.len()).sum::<usize>());
    let mut part = |kind: &str, description: &str, content: &[&[u8]]| {
        let eight_bit = content.iter().any(|octets| !octets.is_ascii());
        let encoding = if eight_bit { "8bit" } else { "7bit" };
        let head = format!(
            "--{boundary}\r\nContent-Description: {description}\r\nContent-Type: {kind}\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        content.iter().for_each(|octets| body.extend_from_slice(octets));
        if !body.ends_with(b"\r\n") {
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"\r\n");
    };
    part("text/plain; charset=utf-8", "Notification", &[text(stored, report, facts).as_bytes()]);
    let status_type = if utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    part(status_type, "Delivery report", &[status(stored, report, facts, utf8).as_bytes()]);
    let global = stored.envelope.smtputf8 && returned.octets().iter().any(|octets| !octets.is_ascii());
    match &returned {
        Returned::All(octets) if global => part("message/global", "Undelivered message", octets),
        Returned::All(octets) => part("message/rfc822", "Undelivered message", octets),
        Returned::Header(octets) if global => part("message/global-headers", "Header of the message", octets),
        Returned::Header(octets) => part("text/rfc822-headers", "Header of the message", octets),
    }
    let _ = write!(Sink(&mut body), "--{boundary}--\r\n");
    let eight_bit = !body.is_ascii();
    let mut header = format!(
        "Date: {}\r\nFrom: Mail Delivery System <MAILER-DAEMON@{host}>\r\nTo: <{sender}>\r\nSubject: {}\r\n\
         Message-ID: <{}@{host}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type={};\r\n\tboundary=\"{boundary}\"\r\n",
        date(facts.now),
        subject(stored, report),
        facts.id,
        if utf8 { "global-delivery-status" } else { "delivery-status" },
        host = facts.hostname,
    );
    if eight_bit {
        header.push_str("Content-Transfer-Encoding: 8bit\r\n");
    }
    let envelope = Envelope {
        reverse_path: ReversePath::Null,
        recipients: vec![Recipient::new(crate::mail::ForwardPath::Mailbox(sender.clone()))],
        body: if eight_bit { BodyType::EightBitMime } else { BodyType::SevenBit },
        smtputf8: utf8 || global,
        ret: None,
        envelope_id: None,
        origin: Origin { client: None, helo: String::new(), protocol: "internal".into() },
    };
    Some(Bounce { envelope, header: HeaderBlock::parse(header.as_bytes()).0, body })
}

/// What of the message goes back.
enum Returned<'a> {
    All(Vec<&'a [u8]>),
    Header(Vec<&'a [u8]>),
}

impl<'a> Returned<'a> {
    fn octets(&self) -> &[&'a [u8]] {
        match self {
            Self::All(octets) | Self::Header(octets) => octets,
        }
    }
}

/// RFC 3461 §4.3: RET speaks of failures alone; in all other notices the header is enough.
fn returned<'a>(stored: &Stored, report: &Report, facts: &Facts<'a>) -> Returned<'a> {
    let failed = |index: &usize| matches!(stored.state.recipients.get(*index), Some(RecipientState::Failed { .. }));
    let all = report.recipients.iter().any(failed) && stored.envelope.ret != Some(DsnReturn::Headers);
    match facts.body {
        Some(body) if all => Returned::All(vec![facts.header, b"\r\n", body]),
        _ => Returned::Header(vec![facts.header]),
    }
}

/// One that stands in none of what goes back, whatever a sender guessed.
fn boundary(facts: &Facts<'_>, returned: &[&[u8]]) -> String {
    let mut boundary = format!("=_{}", facts.id);
    while returned.iter().any(|octets| memchr::memmem::find(octets, boundary.as_bytes()).is_some()) {
        boundary.push('=');
    }
    boundary
}

/// Writes text into octets.
struct Sink<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// RFC 5322 §3.3, in UTC.
fn date(time: UnixTime) -> String {
    let time = i64::try_from(time.as_millis()).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let time = time.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    jiff::fmt::rfc2822::to_string(&time).unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 +0000".into())
}

fn has_failures(stored: &Stored, report: &Report) -> bool {
    let states = report.recipients.iter().filter_map(|index| stored.state.recipients.get(*index));
    states.into_iter().any(|state| matches!(state, RecipientState::Failed { .. }))
}

fn subject(stored: &Stored, report: &Report) -> &'static str {
    match report.kind {
        ReportKind::Delay => "Delayed Mail (still being retried)",
        ReportKind::Final if has_failures(stored, report) => "Undelivered Mail Returned to Sender",
        ReportKind::Final => "Successful Mail Delivery Report",
    }
}

/// For people.
fn text(stored: &Stored, report: &Report, facts: &Facts<'_>) -> String {
    let host = facts.hostname;
    let (arrived, expires) = (date(stored.arrived), date(facts.expires));
    let mut text = format!("This is the mail system at host {host}.\r\n\r\n");
    let lead = match report.kind {
        ReportKind::Delay => format!(
            "Your message of {arrived} could not be delivered yet\r\nto the recipients below. You need not send it again: \
             it will be tried until\r\n{expires}.\r\n"
        ),
        ReportKind::Final if has_failures(stored, report) => format!(
            "Your message of {arrived} could not be delivered\r\nto one or more recipients. It will not be tried \
             again. What came of it is below;\r\nthe message, or its header, is attached.\r\n"
        ),
        ReportKind::Final => format!("Your message of {arrived} was delivered, as you asked to be told.\r\n"),
    };
    text.push_str(&lead);
    for index in &report.recipients {
        let (Some(recipient), Some(state)) =
            (stored.envelope.recipients.get(*index), stored.state.recipients.get(*index))
        else {
            continue;
        };
        let what = match state {
            RecipientState::Failed { response, .. } => response.to_string(),
            RecipientState::Pending { response: Some(response), .. } => response.to_string(),
            RecipientState::Pending { response: None, .. } => "not tried yet: its destination cannot be reached".into(),
            RecipientState::Delivered { response, relayed: Relayed::No, .. } => format!("delivered: {response}"),
            RecipientState::Delivered { response, .. } => {
                format!("relayed to a host that sends no notices of its own: {response}")
            }
            RecipientState::Done => continue,
        };
        text.push_str("\r\n");
        fold(&mut text, &format!("<{}>: {}", recipient.forward_path, quotable(&what)), "    ");
    }
    text
}

/// For programs: RFC 3464 §2.
fn status(stored: &Stored, report: &Report, facts: &Facts<'_>, utf8: bool) -> String {
    let envelope = &stored.envelope;
    let mut out = format!("Reporting-MTA: dns; {}\r\n", facts.hostname);
    // RFC 3461 §6.3: if there was an ENVID, it must be here, decoded.
    if let Some(id) = envelope.envelope_id.as_deref().and_then(xtext) {
        let _ = write!(out, "Original-Envelope-Id: {}\r\n", quotable(&id));
    }
    let _ = write!(out, "Arrival-Date: {}\r\n", date(stored.arrived));
    for index in &report.recipients {
        let (Some(recipient), Some(state)) = (envelope.recipients.get(*index), stored.state.recipients.get(*index))
        else {
            continue;
        };
        let (action, response, at) = match state {
            RecipientState::Failed { at, response } => ("failed", Some(&**response), Some(*at)),
            RecipientState::Pending { response, .. } => ("delayed", response.as_deref(), None),
            RecipientState::Delivered { at, response, relayed: Relayed::No } => {
                ("delivered", Some(&**response), Some(*at))
            }
            RecipientState::Delivered { at, response, .. } => ("relayed", Some(&**response), Some(*at)),
            RecipientState::Done => continue,
        };
        out.push_str("\r\n");
        let address = recipient.forward_path.to_string();
        if let Some((kind, original)) = recipient.original.as_deref().and_then(original_recipient) {
            let _ = write!(out, "Original-Recipient: {kind}; {original}\r\n");
        }
        let kind = if utf8 && !address.is_ascii() { "utf-8" } else { "rfc822" };
        let _ = write!(out, "Final-Recipient: {kind}; {address}\r\nAction: {action}\r\n");
        let _ = write!(out, "Status: {}\r\n", status_code(action, response));
        if let Some(response) = response {
            diagnostic(&mut out, response);
        }
        if let Some(at) = at {
            let _ = write!(out, "Last-Attempt-Date: {}\r\n", date(at));
        }
        if report.kind == ReportKind::Delay {
            let _ = write!(out, "Will-Retry-Until: {}\r\n", date(facts.expires));
        }
    }
    out
}

/// RFC 3464 §2.3.4: the class says what the action says; a failure after passing failures keeps the class of what was said last.
fn status_code(action: &str, response: Option<&Response>) -> String {
    if let Some(status) = response.and_then(|response| response.reply.enhanced()) {
        return status.to_string();
    }
    let code = match (action, response.map(|response| response.reply.class())) {
        ("failed", Some(ReplyClass::Permanent)) => "5.0.0",
        ("failed", _) => "4.4.7", // delivery time expired
        ("delayed", None) => "4.4.1",
        ("delayed", _) => "4.0.0",
        _ => "2.0.0",
    };
    code.into()
}

/// RFC 3464 §2.3.5 and §2.3.6: who said what. Only what came over SMTP is of type smtp.
fn diagnostic(out: &mut String, response: &Response) {
    let said = ascii(&quotable(&response.reply.to_string()));
    match &response.remote {
        Some(remote) => {
            let name = remote.split(['[', ':']).next().filter(|name| !name.is_empty()).unwrap_or(remote);
            let _ = write!(out, "Remote-MTA: dns; {}\r\n", ascii(name));
            fold(out, &format!("Diagnostic-Code: smtp; {said}"), "    ");
        }
        None => fold(out, &format!("Diagnostic-Code: x-wasmta; {said}"), "    "),
    }
}

/// ORCPT= as it stands in a notification: the type, and the address decoded. RFC 3461 §4.2.
fn original_recipient(orcpt: &str) -> Option<(&str, String)> {
    let (kind, address) = orcpt.split_once(';')?;
    let plain = !kind.is_empty() && kind.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let address = xtext(address)?;
    plain.then(|| (kind, quotable(&address)))
}

/// RFC 3461 §4: `+XX` is an octet. None if it is malformed.
fn xtext(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'+' {
            octets.push(*first);
            continue;
        }
        let digits = str::from_utf8(rest.get(..2)?).ok().filter(|two| two.bytes().all(|d| d.is_ascii_hexdigit()))?;
        octets.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(octets).ok()
}

/// What can stand in a line: no control characters, and not without end.
fn quotable(text: &str) -> String {
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.truncate(clean.floor_char_boundary(MAX_QUOTE));
    clean
}

fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

/// Appends a line, broken at spaces; further lines begin with `indent`. What has no space is broken where it must be, below the 998
/// octets of RFC 5322 §2.1.1.
fn fold(out: &mut String, line: &str, indent: &str) {
    let mut used = 0;
    for (index, word) in line.split(' ').enumerate() {
        if index > 0 {
            if used + 1 + word.len() > LINE && !word.is_empty() {
                out.push_str("\r\n");
                out.push_str(indent);
                used = indent.len();
            } else {
                out.push(' ');
                used += 1;
            }
        }
        let mut word = word;
        while word.len() > 900 {
            let (head, tail) = word.split_at(word.floor_char_boundary(900));
            let _ = write!(out, "{head}\r\n{indent}");
            word = tail;
        }
        out.push_str(word);
        used += word.len();
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests;
