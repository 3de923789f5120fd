//! Through to the next hop, and what becomes of mail that it does not take.

use std::time::Duration;

use crate::support::{Answer, Mta, Peer, Point, Setup, Sink, wait_for};

const MAIL: &str = "Subject: far\r\n\r\n.dot\r\nx\r\n";

fn relay() -> (Sink, Mta) {
    let sink = Sink::start();
    let mta = Setup::new().next_hop(sink.port).start();
    (sink, mta)
}

fn send(mta: &Mta, sender: &str, recipients: &[&str]) {
    let reply = Peer::hello(mta.port).deliver(sender, recipients, MAIL);
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
}

#[test]
fn mail_goes_on_as_it_came() {
    let (sink, mta) = relay();
    send(&mta, "ann@example.test", &["far@elsewhere.example", "further@elsewhere.example"]);
    let taken = sink.wait_for(1).remove(0);
    assert!(taken.mail.starts_with("FROM:<ann@example.test>"), "{taken:?}");
    assert_eq!(taken.rcpt.len(), 2);
    assert!(taken.data.starts_with("Received: from client.example.test") && taken.data.ends_with(MAIL), "{taken:?}");
    wait_for("an empty queue", || mta.queue().is_empty().then_some(()));
}

#[test]
fn connections_are_used_again() {
    let (sink, mta) = relay();
    for _ in 0..30 {
        send(&mta, "ann@example.test", &["far@elsewhere.example"]);
    }
    sink.wait_for(30);
    assert!(sink.connections() < 15, "{} connections for 30 mails", sink.connections());
}

#[test]
fn mail_waits_for_a_next_hop_that_cannot() {
    for (point, answer) in [
        (Point::Greeting, Answer::Say("421 4.3.2 closing".into())),
        (Point::Mail, Answer::Say("451 4.3.0 not now".into())),
        (Point::Rcpt, Answer::Say("450 4.2.0 not now".into())),
        (Point::Data, Answer::Say("451 4.3.0 not now".into())),
        (Point::EndOfData, Answer::Say("452 4.3.1 full".into())),
        (Point::Greeting, Answer::Drop),
        (Point::Rcpt, Answer::Drop),
        (Point::EndOfData, Answer::Drop),
    ] {
        let (sink, mta) = relay();
        sink.at(point, answer.clone());
        send(&mta, "ann@example.test", &["far@elsewhere.example"]);
        wait_for("a try", || (sink.connections() > 0 && mta.log().contains("deferred")).then_some(()));
        assert!(!mta.queue().is_empty(), "{point:?} {answer:?}");
        sink.behave();
        let flushed = mta.command(&["queue", "flush"]);
        assert!(flushed.status.success(), "{flushed:?}");
        sink.wait_for(1);
        wait_for("an empty queue", || mta.queue().is_empty().then_some(()));
    }
}

#[test]
fn mail_whose_fate_is_unknown_is_sent_again() {
    let (sink, mta) = relay();
    sink.at(Point::EndOfData, Answer::TakeAndDrop);
    send(&mta, "ann@example.test", &["far@elsewhere.example"]);
    sink.wait_for(1);
    wait_for("a try", || mta.log().contains("deferred").then_some(()));
    sink.behave();
    mta.command(&["queue", "flush"]);
    sink.wait_for(2); // RFC 5321 §4.2.5 and RFC 1047: rather twice than not at all
    wait_for("an empty queue", || mta.queue().is_empty().then_some(()));
}

#[test]
fn what_is_refused_for_good_comes_back_once() {
    for (point, reply) in [(Point::Rcpt, "550 5.1.1 no such user"), (Point::EndOfData, "554 5.7.1 we do not want it")] {
        let (sink, mta) = relay();
        sink.at(point, Answer::Say(reply.into()));
        send(&mta, "ann@example.test", &["far@elsewhere.example"]);
        let notice = mta.maildir("ann").wait_for(1).remove(0);
        assert!(notice.starts_with("Return-Path: <>\n"), "RFC 5321 §4.5.5: {notice}");
        for part in [
            "multipart/report",
            "message/delivery-status",
            "Final-Recipient: rfc822;",
            "Action: failed",
            "far@elsewhere.example",
        ] {
            assert!(notice.contains(part), "{part}: {notice}");
        }
        assert!(notice.contains(&format!("Status: {}", &reply[4..9])) && notice.contains(&reply[10..]), "{notice}");
        wait_for("an empty queue", || mta.queue().is_empty().then_some(()));
        assert!(sink.taken().is_empty());
    }
}

#[test]
fn a_notice_that_fails_makes_no_notice() {
    let (sink, mta) = relay();
    sink.at(Point::Rcpt, Answer::Say("550 5.1.1 no such user".into()));
    send(&mta, "", &["far@elsewhere.example"]);
    wait_for("an empty queue", || mta.queue().is_empty().then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    assert!(sink.taken().is_empty() && mta.maildir("postmaster").mails().is_empty());
}

#[test]
fn a_next_hop_that_stalls_holds_up_no_mailbox() {
    let (sink, mta) = relay();
    sink.at(Point::Data, Answer::Stall);
    for _ in 0..20 {
        send(&mta, "ann@example.test", &["far@elsewhere.example"]);
    }
    send(&mta, "z@example.org", &["bob@example.test"]);
    mta.maildir("bob").wait_for(1);
}

#[test]
fn held_mail_waits_for_its_release() {
    let (sink, mta) = relay();
    sink.at(Point::Mail, Answer::Say("451 4.3.0 not now".into()));
    let reply = Peer::hello(mta.port).deliver("ann@example.test", &["far@elsewhere.example"], MAIL);
    let id = reply.rsplit(' ').next().unwrap();
    wait_for("a try", || mta.log().contains("deferred").then_some(()));
    let told = |arguments: &[&str]| {
        let output = mta.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    told(&["queue", "hold", id]);
    sink.behave();
    told(&["queue", "flush"]);
    assert!(told(&["queue", "show", id]).contains("far@elsewhere.example"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(sink.taken().is_empty(), "held");
    told(&["queue", "release", id]);
    told(&["queue", "flush"]);
    sink.wait_for(1);
    assert!(!mta.command(&["queue", "show", id]).status.success(), "it is gone");
}
