//! Servers that refuse, vanish or talk nonsense, at each point.

use super::*;

/// A whole session, reply by reply: what the client has written before each is not looked at.
const REPLIES: [&str; 7] = ["220 hi", "250 mx.example", "250 ok", "250 ok", "250 ok", "354 go", "250 queued"];

/// Lets the server answer with `replies`, one for each time that the client reads; then the connection breaks.
fn session(replies: &[&str]) -> (Vec<Report>, Ending) {
    let mut client = Client::new(Arc::new(ClientConfig::default()), Dialect::Smtp, "me.example".parse().unwrap());
    let (mut input, mut output, mut reports) = (Input::new(), Vec::new(), Vec::new());
    let mut letters = vec![letter(&["r@b.example", "u@b.example"])];
    let mut replies = replies.iter();
    for _ in 0..1000 {
        match client.next(&mut input, &mut output) {
            Step::Read => match replies.next() {
                Some(reply) => input.push(format!("{reply}\r\n").as_bytes()),
                None => client.disconnected(),
            },
            Step::Ready => match letters.pop() {
                Some(letter) => client.send(letter, &mut output).unwrap(),
                None => client.quit(&mut output),
            },
            Step::Content => client.content_end(&mut output),
            Step::Done(report) => reports.push(report),
            Step::Close => return (reports, client.ending().unwrap().clone()),
        }
    }
    panic!("the client runs in circles");
}

#[test]
fn all_goes_well() {
    let (reports, ending) = session(&[&REPLIES[..], &["221 bye"]].concat());
    assert_eq!(show(&reports[0]), ["0 delivered 250 queued", "1 delivered 250 queued"]);
    assert_eq!(ending, Ending::Quit);
    // A connection that breaks after QUIT is no matter.
    assert_eq!(session(&REPLIES), (reports, Ending::Quit));
}

#[test]
fn the_connection_breaks_at_each_point() {
    for (answered, when) in [
        (0, "waiting for the greeting"),
        (1, "waiting for the reply to EHLO"),
        (2, "waiting for the reply to MAIL"),
        (3, "waiting for the reply to RCPT"),
        (4, "waiting for the reply to RCPT"),
        (5, "waiting for the reply to DATA"),
        (6, "waiting for the reply to the end of data (the message may have arrived)"),
    ] {
        let (reports, ending) = session(&REPLIES[..answered]);
        let text = format!("451 4.4.2 lost connection while {when}");
        let Ending::Broken(reply) = ending else { panic!("{ending:?}") };
        assert_eq!(reply.to_string(), text);
        if answered < 2 {
            assert!(reports.is_empty());
        } else {
            assert_eq!(show(&reports[0]), [format!("0 deferred {text}"), format!("1 deferred {text}")]);
            assert_eq!(reports[0].untouched, answered == 2);
        }
    }
}

#[test]
fn service_not_available_at_each_point() {
    for answered in 0..7 {
        let replies = [&REPLIES[..answered], &["421 4.3.2 going down"]].concat();
        let (reports, ending) = session(&replies);
        assert_eq!(ending, Ending::Refused(Reply::transient(421, (3, 2), "going down")));
        if answered < 2 {
            assert!(reports.is_empty());
        } else {
            assert_eq!(show(&reports[0]), ["0 deferred 421 4.3.2 going down", "1 deferred 421 4.3.2 going down"]);
            assert_eq!(
                reports[0].untouched,
                answered == 2,
                "421 to MAIL on an old connection is no answer to the message"
            );
        }
    }
    // A recipient that was refused for good stays refused.
    let (reports, _) = session(&["220 hi", "250 mx", "250 ok", "550 5.1.1 unknown", "421 4.3.2 down"]);
    assert_eq!(show(&reports[0]), ["0 failed 550 5.1.1 unknown", "1 deferred 421 4.3.2 down"]);
}

#[test]
fn nonsense_at_each_point() {
    let endless = ["250-x"; 101].join("\r\n");
    let long = "250 ".to_owned() + &"x".repeat(5000);
    for answered in 0..7 {
        for nonsense in ["hello", "", "2x0 ok", "99 ok", "100 ok", "300 ok", &endless, &long] {
            if nonsense == "300 ok" && answered == 5 {
                continue; // 3yz to DATA is a go-ahead
            }
            let replies = [&REPLIES[..answered], &[nonsense]].concat();
            let (reports, ending) = session(&replies);
            assert!(matches!(ending, Ending::Broken(_)), "{answered} {nonsense:?}: {ending:?}");
            for report in reports {
                assert!(report.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Deferred(_))));
                assert_eq!(report.outcomes.len(), 2);
            }
        }
    }
    let (reports, _) = session(&["220 hi", "250 mx", "250 ok", "250 ok", "250 ok", "250 what"]);
    assert_eq!(
        show(&reports[0])[0],
        "0 deferred 451 4.4.2 unexpected reply while waiting for the reply to DATA",
        "250 is no go-ahead"
    );
}

#[test]
fn refused_sessions() {
    for (replies, reply) in [
        (vec!["554 no service"], "554 no service"),
        (vec!["220 hi", "451 later"], "451 later"),
        (vec!["220 hi", "502 what", "550 go away"], "550 go away"),
    ] {
        let (reports, ending) = session(&replies);
        assert!(reports.is_empty());
        let Ending::Refused(refusal) = ending else { panic!("{ending:?}") };
        assert_eq!(refusal.to_string(), reply);
    }
    let (reports, ending) =
        session(&[&["220 hi", "502 what is EHLO", "250 hello"], &REPLIES[2..], &["221 bye"]].concat());
    assert_eq!(ending, Ending::Quit);
    assert_eq!(show(&reports[0])[0], "0 delivered 250 queued", "HELO will do");
}

#[test]
fn replies_that_nobody_asked_for() {
    let mut client = Client::new(Arc::new(ClientConfig::default()), Dialect::Smtp, "me.example".parse().unwrap());
    let (mut input, mut output) = (Input::new(), Vec::new());
    input.push(b"220 hi\r\n250 mx\r\n");
    assert_eq!(client.next(&mut input, &mut output), Step::Ready);
    input.push(b"421 4.4.2 idle too long\r\n");
    assert_eq!(client.next(&mut input, &mut output), Step::Close);
    assert_eq!(client.ending(), Some(&Ending::Refused(Reply::transient(421, (4, 2), "idle too long"))));

    // In the middle of the content: the server has given up on the message.
    let mut client = Client::new(Arc::new(ClientConfig::default()), Dialect::Smtp, "me.example".parse().unwrap());
    input.push(b"220 hi\r\n250-mx\r\n250 PIPELINING\r\n");
    assert_eq!(client.next(&mut input, &mut output), Step::Ready);
    client.send(letter(&["r@b.example"]), &mut output).unwrap();
    input.push(b"250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(client.next(&mut input, &mut output), Step::Content);
    client.content(b"text\r\n", &mut output);
    input.push(b"552 5.3.4 too large\r\n");
    let Step::Done(report) = client.next(&mut input, &mut output) else { panic!("a report") };
    assert_eq!(show(&report), ["0 failed 552 5.3.4 too large"]);
    assert_eq!(client.next(&mut input, &mut output), Step::Close);
}

#[test]
fn the_number_of_unanswered_commands_is_bounded() {
    let names: Vec<String> = (0..500).map(|n| format!("r{n}@b.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let config = ClientConfig { max_pipelined: 50, ..ClientConfig::default() };
    let mut client = Client::new(Arc::new(config), Dialect::Smtp, "me.example".parse().unwrap());
    let (mut input, mut output) = (Input::new(), Vec::new());
    input.push(b"220 hi\r\n250-mx\r\n250 PIPELINING\r\n");
    assert_eq!(client.next(&mut input, &mut output), Step::Ready);
    output.clear();
    client.send(letter(&names), &mut output).unwrap();
    let mut sent = 0;
    loop {
        match client.next(&mut input, &mut output) {
            Step::Read => {
                let commands = output.windows(2).filter(|pair| pair == b"\r\n").count();
                assert!((1..=50).contains(&commands));
                sent += commands;
                let data = output.ends_with(b"DATA\r\n");
                output.clear();
                input.push("250 ok\r\n".repeat(commands - usize::from(data)).as_bytes());
                if data {
                    input.push(b"354 go\r\n");
                }
            }
            Step::Content => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent, 502);
}

#[test]
fn whatever_a_server_says_each_letter_is_reported_once() {
    fastrand::seed(6);
    let words = [
        "220 hi\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "250-x\r\n",
        "250-PIPELINING\r\n",
        "250-CHUNKING\r\n",
        "250 PIPELINING\r\n",
        "354 go\r\n",
        "354 go\r\n",
        "421 bye\r\n",
        "450 later\r\n",
        "550 never\r\n",
        "503 order\r\n",
        "x",
        "\r\n",
    ];
    for round in 0..20_000 {
        let transfer = *fastrand::choice(&[Transfer::Data, Transfer::Chunking]).unwrap();
        let dialect = *fastrand::choice(&[Dialect::Smtp, Dialect::Smtp, Dialect::Lmtp]).unwrap();
        let chunk_size = ByteSize::from_bytes(fastrand::u64(1..60));
        let max_pipelined = fastrand::usize(1..6);
        let config = ClientConfig { transfer, chunk_size, max_pipelined, ..ClientConfig::default() };
        let mut client = Client::new(Arc::new(config), dialect, "me.example".parse().unwrap());
        let (mut input, mut output, mut reports, mut sent) = (Input::new(), Vec::new(), Vec::new(), 0);
        if fastrand::u8(..10) > 0 {
            input.push(b"220 hi\r\n250-x\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
        }
        let mut pieces = 0;
        for turn in 0.. {
            assert!(turn < 10_000, "round {round} runs in circles");
            match client.next(&mut input, &mut output) {
                Step::Read if turn > 60 => client.disconnected(),
                Step::Read => (0..fastrand::usize(1..4)).for_each(|_| {
                    input.push(fastrand::choice(&words).unwrap().as_bytes());
                }),
                Step::Ready => {}
                Step::Content if fastrand::bool() || pieces > 10 => client.content_end(&mut output),
                Step::Content => {
                    pieces += 1;
                    client.content(b"some text\r\n.", &mut output);
                }
                Step::Done(report) => reports.push(report),
                Step::Close => break,
            }
            if client.takes_letter() && fastrand::bool() {
                if sent < 5 {
                    sent += 1;
                    client.send(letter(&["r@b.example", "u@b.example", "v@b.example"]), &mut output).unwrap();
                } else {
                    client.quit(&mut output);
                }
            }
        }
        assert_eq!(reports.len(), sent, "round {round}");
        assert!(reports.iter().all(|report| report.outcomes.len() == 3), "round {round}");
    }
}
