//! What is refused, when, and in which words: dialogues replayed.

use crate::support::{Peer, Setup, play};

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
