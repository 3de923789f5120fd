//! Trace and identification fields: RFC 5321 §4.4 and §6.3, RFC 3848 (`with`), RFC 6531 §4.3, RFC 6409 §8.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::mail::{Domain, ForwardPath, HeaderBlock, Host, QueueId};
use crate::policy::Session;

/// What stands in the Received field besides the session.
#[derive(Debug, Clone, Copy)]
pub struct Receipt<'a> {
    /// How this host names itself.
    pub hostname: &'a Domain,
    /// The name of the message.
    pub id: QueueId,
    /// Whether SMTPUTF8 was asked for.
    pub smtputf8: bool,
    /// The recipient, if there is exactly one: with more, each would learn of the others (RFC 5321 §7.6).
    pub recipient: Option<&'a ForwardPath>,
    /// Now, as RFC 5322 §3.3 writes it; see [`date`].
    pub date: &'a str,
}

/// What was spoken, as RFC 3848 and RFC 6531 name it.
pub fn protocol(session: &Session, smtputf8: bool) -> &'static str {
    let (tls, auth) = (session.tls.is_some(), session.user.is_some());
    match (session.extended, smtputf8, tls, auth) {
        (false, _, _, _) => "SMTP",
        (true, false, false, false) => "ESMTP",
        (true, false, true, false) => "ESMTPS",
        (true, false, false, true) => "ESMTPA",
        (true, false, true, true) => "ESMTPSA",
        (true, true, false, false) => "UTF8SMTP",
        (true, true, true, false) => "UTF8SMTPS",
        (true, true, false, true) => "UTF8SMTPA",
        (true, true, true, true) => "UTF8SMTPSA",
    }
}

/// Appends the Received field of this host with its CRLF, folded.
pub fn received(session: &Session, receipt: &Receipt<'_>, out: &mut Vec<u8>) {
    let mut field = String::with_capacity(320);
    field.push_str("Received: from ");
    push_clean(&mut field, session.helo.as_deref().unwrap_or("unknown"));
    field.push_str(" (");
    push_clean(&mut field, session.client_name.as_deref().unwrap_or("unknown"));
    // Writing to a String cannot fail.
    let _ = write!(field, " {})", Host::Literal(canonical(session.client.ip())));
    if let Some(tls) = &session.tls {
        field.push_str("\r\n\t(using ");
        push_clean(&mut field, &tls.version);
        field.push_str(" with cipher ");
        push_clean(&mut field, &tls.cipher);
        field.push(')');
    }
    let Receipt { hostname, id, smtputf8, recipient, date } = receipt;
    let _ = write!(field, "\r\n\tby {hostname} (wasmta) with {} id {id}", protocol(session, *smtputf8));
    if let Some(recipient) = recipient {
        let _ = write!(field, "\r\n\tfor <{recipient}>");
    }
    let _ = write!(field, "; {date}\r\n");
    out.extend_from_slice(field.as_bytes());
}

/// A client on IPv4 that reached a socket of IPv6 is one on IPv4.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// What the client or its DNS says of itself must not look like anything else in the field: no comment, no quotes, no control characters.
fn push_clean(field: &mut String, text: &str) {
    let kept = text.chars().take(255).map(|c| if c.is_ascii_graphic() && !"()<>\\\";@,".contains(c) { c } else { '?' });
    let before = field.len();
    field.extend(kept);
    if field.len() == before {
        field.push('?');
    }
}

/// How many hosts the message has passed, as its Received fields tell. RFC 5321 §6.3.
pub fn hops(header: &HeaderBlock) -> usize {
    header.indices_of(b"Received").count()
}

/// Appends the Date and Message-ID fields that a message lacks, each with its CRLF. For mail that our own users submit (RFC 6409 §8);
/// what others send is not touched (RFC 5321 §6.4).
pub fn missing_fields(header: &HeaderBlock, hostname: &Domain, id: QueueId, date: &str, out: &mut Vec<u8>) {
    if !header.has("Date") {
        out.extend_from_slice(format!("Date: {date}\r\n").as_bytes());
    }
    if !header.has("Message-ID") {
        // A queue id is never used twice, so neither is this.
        out.extend_from_slice(format!("Message-ID: <{id}@{hostname}>\r\n").as_bytes());
    }
}

/// A moment as RFC 5322 §3.3 writes it: `Tue, 1 Jul 2025 10:52:37 +0200`. One lookup a second is enough for any number of messages.
pub fn date(moment: &jiff::Zoned) -> String {
    moment.strftime("%a, %-d %b %Y %H:%M:%S %z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Notes, TlsFacts};

    fn session() -> Session {
        Session {
            id: "s".into(),
            listener: "mx".into(),
            client: "[2001:db8::7]:4711".parse().expect("an address"),
            local: "127.0.0.1:25".parse().expect("an address"),
            client_name: Some("mail.a.example".into()),
            helo: Some("a.example".into()),
            extended: true,
            tls: None,
            user: None,
            trusted: false,
            notes: Notes::default(),
        }
    }

    fn field(session: &Session, recipient: Option<&str>) -> String {
        let recipient: Option<ForwardPath> = recipient.map(|path| path.parse().expect("a path"));
        let receipt = Receipt {
            hostname: &"mx.b.example".parse().expect("a name"),
            id: QueueId::from_u64(1),
            smtputf8: false,
            recipient: recipient.as_ref(),
            date: "Tue, 1 Jul 2025 10:52:37 +0200",
        };
        let mut out = Vec::new();
        received(session, &receipt, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn the_field() {
        let mut session = session();
        assert_eq!(
            field(&session, Some("c@b.example")),
            "Received: from a.example (mail.a.example [IPv6:2001:db8::7])\r\n\tby mx.b.example (wasmta) with ESMTP id \
             0000000000001\r\n\tfor <c@b.example>; Tue, 1 Jul 2025 10:52:37 +0200\r\n"
        );
        session.client = "[::ffff:192.0.2.1]:25".parse().expect("an address");
        session.tls = Some(TlsFacts { version: "TLSv1.3".into(), cipher: "TLS_AES_256_GCM_SHA384".into() });
        session.client_name = None;
        assert_eq!(
            field(&session, None),
            "Received: from a.example (unknown [192.0.2.1])\r\n\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)\r\n\tby \
             mx.b.example (wasmta) with ESMTPS id 0000000000001; Tue, 1 Jul 2025 10:52:37 +0200\r\n"
        );
    }

    #[test]
    fn a_client_cannot_write_into_it() {
        let mut session = session();
        session.helo = Some("x)\r\nSubject:<\u{202e}@\";(".into());
        session.client_name = Some("a\nb".into());
        let field = field(&session, None);
        assert!(field.starts_with("Received: from x???Subject:??????"), "{field}");
        assert_eq!(field.matches("\r\n").count(), 2);
        let (block, _) = HeaderBlock::parse(field.as_bytes());
        assert_eq!(block.len(), 1);
    }

    #[test]
    fn protocols() {
        let mut session = session();
        assert_eq!(protocol(&session, true), "UTF8SMTP");
        session.user = Some("u".into());
        assert_eq!(protocol(&session, false), "ESMTPA");
        session.extended = false;
        assert_eq!(protocol(&session, true), "SMTP");
    }

    #[test]
    fn what_is_missing() {
        let hostname = "mx.b.example".parse().expect("a name");
        for (header, expected) in [
            ("Date: x\r\nmessage-id: y\r\n\r\n", ""),
            ("Date: x\r\n\r\n", "Message-ID: <0000000000001@mx.b.example>\r\n"),
            ("", "Date: now\r\nMessage-ID: <0000000000001@mx.b.example>\r\n"),
        ] {
            let mut out = Vec::new();
            let (block, _) = HeaderBlock::parse(header.as_bytes());
            missing_fields(&block, &hostname, QueueId::from_u64(1), "now", &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
        let (block, _) = HeaderBlock::parse(b"Received: a\r\nreceived: b\r\nX-Received: c\r\n\r\n");
        assert_eq!(hops(&block), 2);
    }

    #[test]
    fn dates() {
        let moment: jiff::Zoned = "2025-07-01T10:52:37+02:00[Europe/Berlin]".parse().expect("a moment");
        assert_eq!(date(&moment), "Tue, 1 Jul 2025 10:52:37 +0200");
    }
}
