//! Policies that misbehave: the session gets a proper reply, everybody else notices nothing, the server lives on.

use std::time::{Duration, Instant};

use crate::support::{Mta, Peer, Setup, wait_for};

fn zoo(how: &str, lines: &str) -> Mta {
    Setup::new()
        .plugin("zoo", "guest-zoo", &format!("timeout = \"1s\"\n{lines}\nsettings = {{ how = {how:?} }}"))
        .start()
}

#[test]
fn misbehaviour_at_rcpt_is_on_error() {
    for how in
        ["trap", "spin", "hoard", "recurse", "nan", "cr-reply", "long-reply", "wrong-class", "wrong-code", "code-999"]
    {
        let mta = zoo(how, "");
        let mut bystander = Peer::hello(mta.port);
        let mut victim = Peer::hello(mta.port);
        victim.say("MAIL FROM:<a@example.org>", "250");
        victim.send(b"RCPT TO:<ann@example.test>\r\n").unwrap();
        let start = Instant::now();
        bystander.say("NOOP", "250");
        assert!(start.elapsed() < Duration::from_secs(1), "{how}: nobody else waits");
        let reply = victim.expect("451 4.");
        assert!(!reply.contains("zoo") && !reply.contains("yes"), "{how}: the client hears nothing of it: {reply}");
        victim.say("NOOP", "250");
        victim.say("QUIT", "221");
        wait_for("a line for the operator", || mta.log().contains("zoo").then_some(()));
    }
}

#[test]
fn misbehaviour_at_the_message_is_on_error() {
    for how in ["message-trap", "message-spin", "message-hoard", "message-cr-reply", "message-edits-then-trap"] {
        let mta = zoo(how, "");
        let mut peer = Peer::hello(mta.port);
        let reply = peer.deliver("a@example.org", &["ann@example.test"], "Subject: x\r\n\r\nx\r\n");
        assert!(reply.starts_with("451 4."), "{how}: {reply}");
        peer.say("NOOP", "250");
        assert!(mta.maildir("ann").mails().is_empty(), "{how}");
    }
}

#[test]
fn on_error_skip_lets_the_mail_pass_unedited() {
    let mta = zoo("message-edits-then-trap", "on-error = \"skip\"");
    let reply = Peer::hello(mta.port).deliver("a@example.org", &["ann@example.test"], "Subject: x\r\n\r\nx\r\n");
    assert!(reply.starts_with("250"), "{reply}");
    let mail = mta.maildir("ann").wait_for(1).remove(0);
    assert!(!mail.contains("X-Zoo"), "a trap undoes the edits: {mail}");
}

#[test]
fn verdicts_reach_the_client() {
    let rcpt = |how: &str, reply: &str| {
        let mta = zoo(how, "");
        let mut peer = Peer::hello(mta.port);
        peer.say("MAIL FROM:<a@example.org>", "250");
        let said = peer.say("RCPT TO:<ann@example.test>", reply);
        (mta, peer, said)
    };
    let (_mta, _, said) = rcpt("lines", "550 5.7.1 two");
    assert!(said.starts_with("550-5.7.1 one\n"), "{said}");
    let (_mta, mut peer, _) = rcpt("disconnect", "421 4.7.1 go away");
    peer.expect_close();
    let (mta, mut peer, _) = rcpt("remember", "250");
    peer.say("RCPT TO:<bob@example.test>", "250");
    drop(mta);
}

#[test]
fn discarded_and_quarantined_mail_is_acknowledged_but_not_delivered() {
    for how in ["message-discard", "message-quarantine"] {
        let mta = zoo(how, "");
        let reply = Peer::hello(mta.port).deliver("a@example.org", &["ann@example.test"], "Subject: x\r\n\r\nx\r\n");
        assert!(reply.starts_with("250 2.0.0"), "{how}: {reply}");
        assert_eq!(mta.queue().len(), usize::from(how == "message-quarantine"), "{how}");
        std::thread::sleep(Duration::from_millis(300));
        assert!(mta.maildir("ann").mails().is_empty(), "{how}");
    }
}

#[test]
fn edits_take_effect() {
    let mta = Setup::new()
        .plugin("zoo", "guest-zoo", "settings = { how = \"message-all-edits\" }")
        .directory("local-domains = [\"example.test\"]\nusers = [\"ann\", \"copy\"]")
        .start();
    let reply = Peer::hello(mta.port).deliver("a@example.org", &["ann@example.test"], "Subject: x\r\n\r\nbody\r\n");
    assert!(reply.starts_with("250"), "{reply}");
    for user in ["ann", "copy"] {
        let mail = mta.maildir(user).wait_for(1).remove(0);
        assert!(mail.ends_with("Subject: x\nX-Zoo: last\n\ninserted\nbody\n"), "{user}: {mail}");
        assert!(mail.contains("\nX-Zoo: first\n"), "{user}: {mail}");
    }
}

#[test]
fn a_flood_of_log_lines_is_stemmed() {
    let mta = zoo("flood", "");
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.send(b"RCPT TO:<ann@example.test>\r\n").unwrap();
    let reply = peer.reply().unwrap();
    assert!(reply.starts_with("250") || reply.starts_with("451"), "{reply}");
    assert!(mta.log().len() < 1 << 20, "{} octets of log", mta.log().len());
}

#[test]
fn a_policy_forges_no_log_line() {
    let mta = zoo("forge-log", "");
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.say("RCPT TO:<ann@example.test>", "250");
    let log = wait_for("the line", || Some(mta.log()).filter(|log| log.contains("forged")));
    assert!(!log.lines().any(|line| line.starts_with("1970-01-01")), "{log}");
}

#[test]
fn a_mail_is_refused_with_the_policys_words() {
    let mta = Setup::new().plugin("subject-words", "subject-words", "settings = { words = [\"lottery\"] }").start();
    let mut peer = Peer::hello(mta.port);
    let reply = peer.deliver("a@example.org", &["ann@example.test"], "Subject: You won the lottery\r\n\r\nx\r\n");
    assert_eq!(reply, "550 5.7.1 we have no interest in lottery");
    let reply = peer.deliver("a@example.org", &["ann@example.test"], "Subject: dinner\r\n\r\nx\r\n");
    assert!(reply.starts_with("250"), "{reply}");
    let mails = mta.maildir("ann").wait_for(1);
    assert!(mails[0].contains("Subject: dinner"), "{mails:?}");
}

#[test]
fn a_spinning_policy_does_not_hold_up_the_end() {
    let mut mta = zoo("spin", "");
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.send(b"RCPT TO:<ann@example.test>\r\n").unwrap();
    drop(peer); // whose transaction would be given 30 s to end
    let start = Instant::now();
    assert_eq!(mta.stop().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
