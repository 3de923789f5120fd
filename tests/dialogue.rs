//! The harness itself: a dialogue replayed against the sink.

use crate::support::{Answer, Maildir, Peer, Point, Sink, play};

#[test]
fn replayed_against_the_sink() {
    let sink = Sink::start();
    play("harness", sink.port, &[("RECIPIENT", "bob@example.test")]);
    let taken = sink.wait_for(1);
    assert_eq!(taken[0].rcpt, ["TO:<bob@example.test>"]);
    assert_eq!(taken[0].data, "Subject: dots\r\n\r\n.one\r\n");
}

#[test]
fn the_sink_fails_where_it_should() {
    let sink = Sink::start();
    let deliver = || Peer::hello(sink.port).deliver("a@example.test", &["b@example.test"], "Subject: x\r\n\r\nx\r\n");
    sink.at(Point::EndOfData, Answer::Say("451 4.3.0 not now".into()));
    assert_eq!(deliver(), "451 4.3.0 not now");
    sink.behave();
    assert_eq!(deliver(), "250 2.0.0 taken");
    sink.at(Point::Greeting, Answer::Drop);
    Peer::connect(sink.port).expect_close();
    assert_eq!((sink.taken().len(), sink.connections()), (1, 3));
}

#[test]
fn no_maildir_is_an_empty_one() {
    let nowhere = Maildir("/nowhere".into());
    assert!(nowhere.mails().is_empty() && nowhere.unfinished().is_empty());
}
