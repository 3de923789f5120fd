//! The main way: a message comes in over SMTP and lies in a Maildir.

use crate::support::{Peer, Setup};

const MAIL: &str = "From: Zoë <z@example.org>\r\nSubject: hello\r\n\r\nline one\r\n.dot\r\n\r\nlast\r\n";

#[test]
fn a_mail_arrives_as_it_was_sent() {
    let mta = Setup::new().start();
    let mut peer = Peer::hello(mta.port);
    let reply = peer.deliver("z@example.org", &["ann@example.test"], MAIL);
    let id = reply.strip_prefix("250 2.0.0 Ok: queued as ").unwrap_or_else(|| panic!("{reply}")).to_owned();
    peer.say("QUIT", "221 2.0.0");
    peer.expect_close();

    let mails = mta.maildir("ann").wait_for(1);
    let (trace, rest) = mails[0].split_once("From: Zoë").unwrap();
    assert_eq!(
        rest,
        &MAIL["From: Zoë".len()..].replace("\r\n", "\n"),
        "header and body untouched, lines end as in files"
    );
    assert!(trace.starts_with("Return-Path: <z@example.org>\n"), "RFC 5321 §4.4: {trace}");
    let received = &trace[trace.find("Received: ").unwrap()..];
    for part in ["from client.example.test", "[127.0.0.1]", "by mx.example.test", "with ESMTP", &id] {
        assert!(received.contains(part), "{part}: {received}");
    }
    assert!(mta.maildir("ann").unfinished().is_empty());
    assert!(mta.log().contains(&id), "the log names it");
}

#[test]
fn many_recipients_and_names() {
    let mta = Setup::new().start();
    let mut peer = Peer::hello(mta.port);
    let recipients =
        ["ann@example.test", "BOB@Example.Test", "ann+lists@example.test", "postmaster@example.test", "Postmaster"];
    let reply = peer.deliver("", &recipients, "Subject: all\r\n\r\nx\r\n");
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    mta.maildir("ann").wait_for(2);
    assert!(mta.maildir("bob").wait_for(1)[0].starts_with("Return-Path: <>\n"));
    mta.maildir("postmaster").wait_for(2);
}

#[test]
fn a_session_carries_many_mails() {
    let mta = Setup::new().start();
    let mut peer = Peer::hello(mta.port);
    for number in 0..20 {
        let reply =
            peer.deliver("a@example.org", &["ann@example.test"], &format!("Subject: {number}\r\n\r\n{number}\r\n"));
        assert!(reply.starts_with("250"), "{reply}");
    }
    let mails = mta.maildir("ann").wait_for(20);
    for number in 0..20 {
        assert_eq!(mails.iter().filter(|mail| mail.ends_with(&format!("\n\n{number}\n"))).count(), 1, "{number}");
    }
}

#[test]
fn a_pipelined_burst_in_one_packet() {
    let mta = Setup::new().start();
    let mut peer = Peer::connect(mta.port);
    peer.expect("220");
    peer.say("EHLO client.example.test", "250");
    let envelope = "MAIL FROM:<a@example.org>\r\nRCPT TO:<ann@example.test>\r\nRCPT TO:<eve@example.test>\r\nDATA\r\n";
    peer.send(envelope.as_bytes()).unwrap();
    for reply in ["250 2.1.0", "250 2.1.5", "550 5.1.1", "354"] {
        peer.expect(reply);
    }
    peer.send(b"Subject: burst\r\n\r\nx\r\n.\r\nMAIL FROM:<b@example.org>\r\nRSET\r\nQUIT\r\n").unwrap();
    for reply in ["250 2.0.0", "250 2.1.0", "250 2.0.0", "221"] {
        peer.expect(reply);
    }
    mta.maildir("ann").wait_for(1);
}

#[test]
fn chunks_are_a_message() {
    let mta = Setup::new().start();
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org> BODY=8BITMIME SIZE=30", "250 2.1.0");
    peer.say("RCPT TO:<ann@example.test>", "250 2.1.5");
    peer.send(b"BDAT 18\r\nSubject: chunks\r\n\r").unwrap();
    peer.expect("250");
    peer.send(b"BDAT 7 LAST\r\n\n.\r\nx\r\n").unwrap();
    peer.expect("250 2.0.0");
    let mail = mta.maildir("ann").wait_for(1).remove(0);
    assert!(mail.ends_with("Subject: chunks\n\n.\nx\n"), "RFC 3030: no dots are unstuffed: {mail}");
}

#[test]
fn what_was_taken_outlives_an_orderly_end() {
    let mut mta = Setup::new().start();
    let reply = Peer::hello(mta.port).deliver("a@example.org", &["ann@example.test"], "Subject: x\r\n\r\nx\r\n");
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(mta.stop().code(), Some(0));
    mta.restart();
    mta.maildir("ann").wait_for(1);
}
