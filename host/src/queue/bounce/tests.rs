//! Notifications, read back as a mail program would.

use std::sync::Arc;

use mail_parser::{MessageParser, MimeHeaders, PartType};

use super::*;
use crate::mail::{Notify, Reply};
use crate::queue::State;
use crate::queue::testing::envelope;

const HEADER: &[u8] = b"Subject: the original\r\nFrom: <from@example.test>\r\n";
const BODY: &[u8] = b"--=_0000000000009\r\nhello\r\n--=_0000000000009--\r\n";

fn at(seconds: u64) -> UnixTime {
    UnixTime::from_millis(seconds * 1000)
}

fn said(reply: Reply) -> Box<Response> {
    Response { reply, remote: Some("mx.example.test[127.0.0.1]:25".into()) }.into()
}

fn stored(from: &str, recipients: Vec<(&str, RecipientState)>) -> Stored {
    let names: Vec<&str> = recipients.iter().map(|(name, _)| *name).collect();
    let states = recipients.iter().map(|(_, state)| state.clone()).collect();
    Stored {
        id: QueueId::from_u64(1),
        arrived: at(1_000_000_000),
        envelope: Arc::new(envelope(from, &names)),
        filter: None,
        size: 10,
        state: State { hold: None, warned: false, recipients: states },
    }
}

fn failed(reply: Reply) -> RecipientState {
    RecipientState::Failed { at: at(1_000_000_100), response: said(reply) }
}

fn bounce(stored: &Stored, kind: ReportKind) -> (Bounce, Vec<u8>) {
    let report = Report { kind, recipients: (0..stored.state.recipients.len()).collect() };
    let hostname = "mta.example.test".parse().expect("well-formed");
    let facts = Facts {
        hostname: &hostname,
        id: QueueId::from_u64(9),
        now: at(1_000_000_200),
        expires: at(1_000_432_000),
        header: HEADER,
        body: Some(BODY),
    };
    let bounce = compose(stored, &report, &facts).expect("somebody to tell");
    let octets = [bounce.header.as_bytes(), b"\r\n", &bounce.body].concat();
    for line in octets.split(|octet| *octet == b'\n') {
        assert!(line.len() < 999 && (line.is_empty() || line.ends_with(b"\r")), "CRLF, and no line too long");
    }
    (bounce, octets)
}

/// The texts of its parts by type, and the message that it returns.
fn parts(octets: &[u8]) -> (Vec<(String, String)>, Option<String>) {
    let message = MessageParser::default().parse(octets).expect("a message");
    let mut returned = None;
    let mut parts = Vec::new();
    for part in &message.parts {
        let Some(kind) = part.content_type() else { continue };
        let kind = format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default());
        match &part.body {
            PartType::Message(inner) => returned = Some(inner.body_text(0).unwrap_or_default().into_owned()),
            PartType::Text(text) => parts.push((kind, text.to_string())),
            PartType::Binary(octets) => parts.push((kind, String::from_utf8_lossy(octets).into_owned())),
            _ => parts.push((kind, String::new())),
        }
    }
    (parts, returned)
}

fn part<'a>(parts: &'a [(String, String)], kind: &str) -> &'a str {
    parts.iter().find(|(own, _)| own == kind).map_or("", |(_, text)| text)
}

#[test]
fn a_failure() {
    let mut stored = stored(
        "from@example.test",
        vec![
            ("a@far.example", failed(Reply::permanent(550, (1, 1), "no such user\nsorry"))),
            ("b@far.example", failed(Reply::plain(554, "no"))),
            ("c@far.example", failed(Reply::plain(451, "four days of this"))),
        ],
    );
    let envelope = Arc::make_mut(&mut stored.envelope);
    envelope.envelope_id = Some("id+2B+3D1".into());
    envelope.recipients[0].original = Some("rfc822;Alias+2Bx@here.example".into());
    envelope.recipients[1].original = Some("broken".into());
    let (bounce, octets) = bounce(&stored, ReportKind::Final);
    assert_eq!(bounce.envelope.reverse_path, ReversePath::Null);
    assert_eq!(bounce.envelope.recipients.len(), 1);
    assert_eq!(bounce.envelope.recipients[0].forward_path.to_string(), "from@example.test");
    let message = MessageParser::default().parse(&octets).expect("a message");
    assert_eq!(message.subject(), Some("Undelivered Mail Returned to Sender"));
    assert_eq!(message.header_raw("Auto-Submitted").map(str::trim), Some("auto-replied"));
    assert_eq!(
        message.from().and_then(|from| from.first()).and_then(|from| from.address()),
        Some("MAILER-DAEMON@mta.example.test")
    );
    assert_eq!(message.date().map(mail_parser::DateTime::to_timestamp), Some(1_000_000_200));
    let kind = message.content_type().expect("a type");
    assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("report")));
    assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
    let (parts, returned) = parts(&octets);
    assert_eq!(returned.as_deref(), Some(str::from_utf8(BODY).expect("text")));
    let text = part(&parts, "text/plain");
    assert!(text.contains("<a@far.example>: host mx.example.test[127.0.0.1]:25 said: 550 5.1.1 no such"), "{text}");
    let status = part(&parts, "message/delivery-status").replace("\r\n", "\n");
    assert_eq!(
        status.trim(),
        "Reporting-MTA: dns; mta.example.test\n\
         Original-Envelope-Id: id+=1\n\
         Arrival-Date: Sun, 9 Sep 2001 01:46:40 +0000\n\
         \n\
         Original-Recipient: rfc822; Alias+x@here.example\n\
         Final-Recipient: rfc822; a@far.example\n\
         Action: failed\n\
         Status: 5.1.1\n\
         Remote-MTA: dns; mx.example.test\n\
         Diagnostic-Code: smtp; 550 5.1.1 no such user sorry\n\
         Last-Attempt-Date: Sun, 9 Sep 2001 01:48:20 +0000\n\
         \n\
         Final-Recipient: rfc822; b@far.example\n\
         Action: failed\n\
         Status: 5.0.0\n\
         Remote-MTA: dns; mx.example.test\n\
         Diagnostic-Code: smtp; 554 no\n\
         Last-Attempt-Date: Sun, 9 Sep 2001 01:48:20 +0000\n\
         \n\
         Final-Recipient: rfc822; c@far.example\n\
         Action: failed\n\
         Status: 4.4.7\n\
         Remote-MTA: dns; mx.example.test\n\
         Diagnostic-Code: smtp; 451 four days of this\n\
         Last-Attempt-Date: Sun, 9 Sep 2001 01:48:20 +0000"
    );
}

#[test]
fn how_much_goes_back() {
    let bad = || failed(Reply::permanent(550, (1, 1), "no"));
    let good =
        || RecipientState::Delivered { at: at(5), response: said(Reply::plain(250, "ok")), relayed: Relayed::No };
    let full = Some(DsnReturn::Full);
    for (state, ret, all) in [
        (bad(), None, true),
        (bad(), full, true),
        (bad(), Some(DsnReturn::Headers), false),
        (good(), full, false),
        (good(), None, false),
    ] {
        let mut stored = stored("from@example.test", vec![("a@far.example", state)]);
        Arc::make_mut(&mut stored.envelope).ret = ret;
        let (_, octets) = bounce(&stored, ReportKind::Final);
        let (parts, returned) = parts(&octets);
        assert_eq!(returned.is_some(), all, "{ret:?}");
        assert_eq!(part(&parts, "text/rfc822-headers").trim().is_empty(), all, "{ret:?}");
    }
}

#[test]
fn a_delay() {
    let pending = |response| RecipientState::Pending { attempts: 3, due: at(9), response };
    let stored = stored(
        "from@example.test",
        vec![
            ("a@far.example", pending(Some(said(Reply::transient(450, (2, 0), "greylisted"))))),
            ("b@dead.example", pending(None)),
        ],
    );
    let (_, octets) = bounce(&stored, ReportKind::Delay);
    let (parts, returned) = parts(&octets);
    assert_eq!(returned, None);
    let status = part(&parts, "message/delivery-status");
    assert!(status.contains("Action: delayed\r\nStatus: 4.2.0\r\n"), "{status}");
    assert!(status.contains("b@dead.example\r\nAction: delayed\r\nStatus: 4.4.1\r\n"), "{status}");
    assert!(status.contains("Will-Retry-Until: Fri, 14 Sep 2001 01:46:40 +0000\r\n"), "{status}");
    let message = MessageParser::default().parse(&octets).expect("a message");
    assert_eq!(message.subject(), Some("Delayed Mail (still being retried)"));
}

#[test]
fn success_and_relay() {
    let done = |relayed| RecipientState::Delivered { at: at(5), response: said(Reply::plain(250, "ok")), relayed };
    let stored = stored(
        "from@example.test",
        vec![("a@here.example", done(Relayed::No)), ("b@far.example", done(Relayed::ToOtherHost))],
    );
    let (_, octets) = bounce(&stored, ReportKind::Final);
    let status = parts(&octets).0;
    let status = part(&status, "message/delivery-status");
    assert!(status.contains("a@here.example\r\nAction: delivered\r\nStatus: 2.0.0\r\n"), "{status}");
    assert!(status.contains("b@far.example\r\nAction: relayed\r\nStatus: 2.0.0\r\n"), "{status}");
}

#[test]
fn nobody_is_told_of_a_bounce() {
    let stored = stored("", vec![("a@far.example", failed(Reply::permanent(550, (1, 1), "no")))]);
    let report = Report { kind: ReportKind::Final, recipients: vec![0] };
    let hostname = "mta.example.test".parse().expect("well-formed");
    let (id, now) = (QueueId::from_u64(9), at(1));
    let facts = Facts { hostname: &hostname, id, now, expires: now, header: HEADER, body: None };
    assert!(compose(&stored, &report, &facts).is_none());
}

#[test]
fn addresses_beyond_ascii() {
    let no = || failed(Reply::permanent(550, (1, 1), "kein Zutritt für Sie"));
    let stored = stored("grüße@bücher.example", vec![("päivää@far.example", no())]);
    let (bounce, octets) = bounce(&stored, ReportKind::Final);
    assert!(bounce.envelope.smtputf8);
    assert_eq!(bounce.envelope.body, BodyType::EightBitMime);
    let text = String::from_utf8(octets).expect("UTF-8");
    assert!(text.contains("report-type=global-delivery-status"));
    assert!(text.contains("Final-Recipient: utf-8; päivää@far.example\r\n"));
    assert!(text.contains("Diagnostic-Code: smtp; 550 5.1.1 kein Zutritt f?r Sie\r\n"));
}

#[test]
fn a_hostile_reply_breaks_nothing() {
    let endless = Reply::permanent(550, (1, 1), format!("{}\n\r\nAction: delivered", "x".repeat(5000)));
    let spaces = Reply::plain(550, vec!["y y ".repeat(110); 90].join("\n"));
    let stored =
        stored("from@example.test", vec![("a@far.example", failed(endless)), ("b@far.example", failed(spaces))]);
    let (_, octets) = bounce(&stored, ReportKind::Final);
    let status = parts(&octets).0;
    let status = part(&status, "message/delivery-status");
    assert_eq!(status.matches("\nAction:").count(), 2, "{status}");
    assert!(octets.len() < 12_000);
}

#[test]
fn xtext_is_decoded_strictly() {
    for (text, decoded) in
        [("a+2Bb", Some("a+b")), ("", Some("")), ("+", None), ("+2", None), ("+zz", None), ("+FF", None), ("++2", None)]
    {
        assert_eq!(xtext(text).as_deref(), decoded, "{text:?}");
    }
    let stored = stored("from@example.test", vec![("a@far.example", failed(Reply::plain(550, "x")))]);
    let mut forged = stored;
    let envelope = Arc::make_mut(&mut forged.envelope);
    envelope.envelope_id = Some("a+0D+0AX-Forged: 1".into());
    envelope.recipients[0].original = Some("rfc822;x+0D+0AAction: delivered".into());
    envelope.recipients[0].notify = Some(Notify::DEFAULT);
    let (_, octets) = bounce(&forged, ReportKind::Final);
    let text = String::from_utf8(octets).expect("UTF-8");
    assert!(!text.contains("\nX-Forged") && !text.contains("\nAction: delivered"));
}
