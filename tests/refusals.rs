//! What is refused, when, and in which words: dialogues replayed.

use crate::support::{Peer, Setup, play, wait_for};

#[test]
fn recipients_are_refused_at_rcpt() {
    let mta =
        Setup::new().directory("local-domains = [\"example.test\"]\nusers = [\"ann\"]\ntrusted-networks = []").start();
    play("recipients", mta.port, &[]);
    mta.maildir("ann").wait_for(1);
}

#[test]
fn commands_out_of_order_or_malformed() {
    let mta = Setup::new().start();
    play("order", mta.port, &[]);
    assert_eq!(mta.maildir("ann").mails().len(), 0);
}

#[test]
fn a_client_that_vanishes_leaves_nothing() {
    let mta = Setup::new().start();
    for said in [
        "MAIL FROM:<a@example.org>\r\n",
        "MAIL FROM:<a@example.org>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\nSubject: x\r\n\r\nhalf",
    ] {
        let mut peer = Peer::hello(mta.port);
        peer.send(said.as_bytes()).unwrap();
        peer.expect("250");
    }
    let reply = Peer::hello(mta.port).deliver("a@example.org", &["ann@example.test"], "Subject: whole\r\n\r\nx\r\n");
    assert!(reply.starts_with("250"), "{reply}");
    let mails = mta.maildir("ann").wait_for(1);
    assert!(mails[0].contains("Subject: whole"), "{mails:?}");
}

#[test]
fn every_refusal_stands_in_the_log_with_client_and_reason() {
    let mta =
        Setup::new().directory("local-domains = [\"example.test\"]\nusers = [\"ann\"]\ntrusted-networks = []").start();
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org> SIZE=99999999999", "552");
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.say("RCPT TO:<nobody@example.test>", "550");
    peer.say("RCPT TO:<x@elsewhere.example>", "554");
    peer.say("RCPT TO:<\x1b[31m@example.test>", "501");
    peer.say("RCPT TO:<ann@example.test>", "250");
    peer.say("DATA", "354");
    peer.send(b"Subject: x\n.\n\r\n.\r\n").unwrap();
    peer.expect("550");
    peer.say("MAIL FROM:<b@example.org>", "250");
    drop(peer);
    let lost = "lost connection in the middle of a transaction";
    let log = wait_for("the last line", || Some(mta.log()).filter(|log| log.contains(lost)));
    for (reply, from, to) in [
        ("reject: 552 5.3.4 Error: message size", "", ""),
        ("reject: 550 5.1.1 <nobody@example.test>", "a@example.org", "nobody@example.test"),
        ("reject: 554 5.7.1 <x@elsewhere.example>", "a@example.org", "x@elsewhere.example"),
        ("reject: 501 5.1.3 Bad recipient address", "a@example.org", ""),
        ("reject: 550 5.5.2 Error: bare <LF>", "a@example.org", "ann@example.test"),
        (lost, "b@example.org", ""),
    ] {
        let line = log.lines().find(|line| line.contains(reply)).unwrap_or_else(|| panic!("{reply} is not in {log}"));
        for field in
            ["client=127.0.0.1", "helo=\"client.example.test\"", &format!("from={from:?}"), &format!("to={to:?}")]
        {
            assert!(line.contains(field), "{field} is not in {line}");
        }
    }
    assert!(!log.contains('\x1b'), "no client writes to the administrator's terminal: {log}");
}
