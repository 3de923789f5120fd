//! Mail smuggling (CVE-2023-51764 and its kin): nothing but CRLF.CRLF ends a message, and nothing but CRLF ends a line.

use crate::support::{Peer, Setup, Sink};

/// What has been taken for the end of a message somewhere.
const FALSE_ENDS: [&str; 10] = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r\n.\r",
    "\r.\r\n",
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\n\n.\r\n",
    "\r\r\n.\r\r\n",
];
const SMUGGLED: &str =
    "MAIL FROM:<boss@example.test>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\nSubject: smuggled\r\n\r\npay\r\n.\r\n";

#[test]
fn nothing_else_ends_a_message() {
    let mta = Setup::new().start();
    for end in FALSE_ENDS {
        let mut peer = Peer::hello(mta.port);
        peer.say("MAIL FROM:<eve@example.org>", "250");
        peer.say("RCPT TO:<bob@example.test>", "250");
        peer.say("DATA", "354");
        peer.send(format!("Subject: outer\r\n\r\nbody{end}{SMUGGLED}").as_bytes()).unwrap();
        let reply = peer.reply().unwrap();
        assert!(reply.starts_with("550 5.") || reply.starts_with("250 2.0.0"), "{end:?}: {reply}");
        // One reply for one message: the smuggled commands were content.
        peer.say("NOOP", "250 2.0.0");
        peer.say("QUIT", "221");
    }
    Peer::hello(mta.port).deliver("a@example.org", &["bob@example.test"], "Subject: after\r\n\r\nx\r\n");
    crate::support::wait_for("the last mail", || {
        mta.maildir("bob").mails().iter().any(|mail| mail.contains("Subject: after")).then_some(())
    });
    assert_eq!(mta.maildir("ann").mails(), [""; 0], "nothing was smuggled");
}

#[test]
fn nothing_is_smuggled_to_the_next_hop() {
    let sink = Sink::start();
    let mta = Setup::new().next_hop(sink.port).server("").tables("[smtp]\nbare-line-ends = \"normalize\"").start();
    for end in FALSE_ENDS {
        let mut peer = Peer::hello(mta.port);
        peer.say("MAIL FROM:<eve@example.org>", "250");
        peer.say("RCPT TO:<far@elsewhere.example>", "250");
        peer.say("DATA", "354");
        peer.send(format!("Subject: outer\r\n\r\nbody{end}{SMUGGLED}").as_bytes()).unwrap();
        peer.expect("250 2.0.0");
        peer.say("NOOP", "250 2.0.0");
    }
    for taken in sink.wait_for(FALSE_ENDS.len()) {
        assert!(taken.mail.starts_with("FROM:<eve@example.org>"), "{taken:?}");
        assert!(taken.data.contains("Subject: smuggled"), "all of it is content of the one message");
    }
}

#[test]
fn bare_line_ends_end_no_command() {
    let mta = Setup::new().start();
    let mut peer = Peer::hello(mta.port);
    peer.send(b"NOOP\nMAIL FROM:<a@example.org>\nNOOP\r\n").unwrap();
    peer.expect("500 5.5.2");
    peer.say("RCPT TO:<ann@example.test>", "503 5.5.1");
    peer.send(b"NOOP\rNOOP\r\n").unwrap();
    peer.expect("500 5.5.2");
}
