use super::*;

const WHOLE: &[u8] =
    b"EHLO a.example\r\nMAIL FROM:<s@a.example>\r\nRCPT TO:<r@b.example>\r\nDATA\r\nA: 1\r\n\r\nx\r\n.\r\nQUIT\r\n";

fn judge(stage: Stage, verdict: Verdict) -> Script {
    Script { verdicts: [(stage, verdict)].into_iter().collect(), ..Script::default() }
}

/// What a whole mail hears from the given stage's reply on, one code a reply.
fn codes(output: &str) -> String {
    let codes: Vec<&str> =
        output.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')).filter_map(|line| line.get(..3)).collect();
    codes.join(" ")
}

fn never() -> Reply {
    Reply::permanent(550, (7, 1), "never")
}
fn later() -> Reply {
    Reply::transient(450, (7, 1), "later")
}

#[test]
fn only_wanted_stages_are_asked() {
    assert!(talk(&Script::default(), WHOLE, 1000).consulted.is_empty());
    let verdicts = Stage::ALL.into_iter().map(|stage| (stage, Verdict::Pass)).collect();
    let outcome = talk(&Script { verdicts, ..Script::default() }, WHOLE, 1000);
    assert_eq!(outcome.consulted, [Stage::Connect, Stage::Helo, Stage::Mail, Stage::Rcpt], "Message is the driver's");
    assert_eq!(outcome.taken.len(), 1);
}

#[test]
fn refusals() {
    for (stage, reply, heard) in [
        (Stage::Connect, never(), "554 503 503 503 503 503 503 503 503 221"),
        (Stage::Connect, later(), "421"),
        (Stage::Helo, never(), "220 550 503 503 503 421"),
        (Stage::Mail, never(), "220 250 550 503 503 421"),
        (Stage::Mail, later(), "220 250 450 503 503 421"),
        (Stage::Rcpt, never(), "220 250 250 550 554 421"),
        (Stage::Rcpt, later(), "220 250 250 450 554 421"),
    ] {
        for verdict in
            [Verdict::Reject(reply.clone()), Verdict::Defer(reply.clone()), Verdict::DeferIfPermit(reply.clone())]
        {
            let outcome = talk(&judge(stage, verdict), WHOLE, 1000);
            assert_eq!(codes(&outcome.output), heard, "{stage}");
            assert!(outcome.closed && outcome.taken.is_empty());
            assert_eq!(outcome.aborted, outcome.opened);
        }
        let outcome = talk(&judge(stage, Verdict::Disconnect(reply.clone())), WHOLE, 1000);
        assert!(outcome.output.ends_with(&format!("{reply}\r\n")) && outcome.closed);
        assert_eq!(outcome.aborted, outcome.opened);
    }
}

#[test]
fn a_refused_greeting_keeps_its_text() {
    let outcome = talk(&judge(Stage::Connect, Verdict::Reject(never())), b"EHLO a\r\nQUIT\r\n", 3);
    assert_eq!(outcome.output, "554 5.7.1 never\r\n503 5.7.0 never\r\n221 2.0.0 Bye\r\n");
    let outcome = talk(&judge(Stage::Connect, Verdict::Reject(Reply::permanent(521, (3, 2), "no mail"))), b"", 3);
    assert_eq!(outcome.output, "521 5.3.2 no mail\r\n");
}

#[test]
fn a_refused_ehlo_changes_nothing() {
    let mut server = Server::new(Script::default().settings(), [Stage::Helo].into_iter().collect(), script::session());
    let (mut input, mut output) = (Input::new(), Vec::new());
    input.push(b"HELO first\r\nEHLO second\r\n");
    for (name, verdict) in [("first", Verdict::Pass), ("second", Verdict::Reject(never()))] {
        assert_eq!(server.next(&mut input, &mut output), Action::Consult(Stage::Helo));
        assert_eq!(server.session().helo.as_deref(), Some(name), "policies see the new name");
        server.judged(verdict);
    }
    assert_eq!(server.next(&mut input, &mut output), Action::Read);
    assert_eq!((server.session().helo.as_deref(), server.session().extended), (Some("first"), false));
}

#[test]
fn fates() {
    for (stage, verdict, fate) in [
        (Stage::Connect, Verdict::Quarantine("q".into()), Fate::Hold("q".into())),
        (Stage::Helo, Verdict::Quarantine("q".into()), Fate::Hold("q".into())),
        (Stage::Mail, Verdict::Quarantine("q".into()), Fate::Hold("q".into())),
        (Stage::Rcpt, Verdict::Quarantine("q".into()), Fate::Hold("q".into())),
        (Stage::Mail, Verdict::Discard("d".into()), Fate::Discard("d".into())),
        (Stage::Rcpt, Verdict::Discard("d".into()), Fate::Discard("d".into())),
        (Stage::Rcpt, Verdict::Accept, Fate::Deliver),
        (Stage::Rcpt, Verdict::Delay(std::time::Duration::from_secs(1)), Fate::Deliver),
    ] {
        let outcome = talk(&judge(stage, verdict), WHOLE, 1000);
        assert_eq!(outcome.taken[0].fate, fate, "{stage}");
    }
    let verdicts = [(Stage::Mail, Verdict::Discard("d".into())), (Stage::Rcpt, Verdict::Reject(never()))];
    let script = Script { verdicts: verdicts.into_iter().collect(), ..Script::default() };
    let outcome = talk(&script, WHOLE, 1000);
    assert_eq!(outcome.consulted, [Stage::Mail], "nobody is asked about what is thrown away anyhow");
    assert_eq!(outcome.taken[0].fate, Fate::Discard("d".into()));
}

#[test]
fn what_is_discarded_is_not_kept() {
    let config = Config { spill_threshold: ByteSize::from_bytes(100), ..Config::default() };
    let script = Script { config, ..judge(Stage::Mail, Verdict::Discard("d".into())) };
    let body = "text\r\n".repeat(1000);
    let said = format!("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n\r\n{body}.\r\nNOOP\r\n");
    let outcome = talk(&script, said.as_bytes(), 50);
    assert_eq!(outcome.spills, 0);
    assert!(outcome.taken[0].content.len() < 200);
    assert!(outcome.output.ends_with("250 2.0.0 Ok\r\n"));
}

#[test]
fn no_room() {
    let outcome =
        talk(&Script { full: true, ..Script::default() }, b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n", 1000);
    assert!(outcome.output.ends_with("452 4.3.1 no room\r\n503 5.5.1 Error: need MAIL command\r\n"));
    assert_eq!(outcome.aborted, 0);
}

#[test]
fn the_queue_says_no() {
    let script = Script { queue: Some(Reply::transient(451, (3, 0), "later")), ..Script::default() };
    let outcome = talk(&script, WHOLE, 1000);
    assert!(outcome.output.ends_with("451 4.3.0 later\r\n221 2.0.0 Bye\r\n"));
    assert_eq!((outcome.opened, outcome.aborted), (1, 0), "the driver knows");
}

#[test]
fn asked_again_without_an_answer() {
    let mut server = Server::new(Script::default().settings(), [Stage::Mail].into_iter().collect(), script::session());
    let (mut input, mut output) = (Input::new(), Vec::new());
    input.push(b"HELO a\r\nMAIL FROM:<>\r\n");
    assert_eq!(server.next(&mut input, &mut output), Action::Open);
    server.judged(Verdict::Pass); // not what was asked
    assert_eq!(server.next(&mut input, &mut output), Action::Open);
    server.opened(Ok(QueueId::from_u64(7)));
    assert_eq!(server.next(&mut input, &mut output), Action::Consult(Stage::Mail));
    assert_eq!(server.queue_id(), Some(QueueId::from_u64(7)), "policies know the name of the message");
    assert_eq!(server.next(&mut input, &mut output), Action::Consult(Stage::Mail));
    let mut last_words = Vec::new();
    server.judged(Verdict::Pass);
    server.disconnect(&mut last_words);
    assert_eq!(last_words, b"250 2.1.0 Ok\r\n");
    assert_eq!(server.next(&mut input, &mut output), Action::Abort);
    assert_eq!(server.next(&mut input, &mut output), Action::Close);
}

#[test]
fn a_reply_that_announces_the_end_is_the_end() {
    for code in [421, 521] {
        let reply = Reply::try_new(code, None, "go away").unwrap();
        for stage in [Stage::Helo, Stage::Mail, Stage::Rcpt] {
            let outcome = talk(&judge(stage, Verdict::Reject(reply.clone())), WHOLE, 1000);
            assert!(outcome.output.ends_with(&format!("{code} go away\r\n")) && outcome.closed, "{stage}");
            assert_eq!(outcome.aborted, outcome.opened);
        }
        let outcome = talk(&Script { queue: Some(reply.clone()), ..Script::default() }, WHOLE, 1000);
        assert!(outcome.output.ends_with(&format!("{code} go away\r\n")) && outcome.closed);
    }
}
