use std::time::Duration;

use super::*;

fn with(config: Config) -> Script {
    Script { config, ..Script::default() }
}

#[test]
fn command_lines() {
    let script = with(Config {
        max_command_line: ByteSize::from_bytes(30),
        max_overlong_line: ByteSize::from_bytes(100),
        ..Config::default()
    });
    let (fits, too_long) = ("NOOP ".to_owned() + &"x".repeat(23), "NOOP ".to_owned() + &"x".repeat(24));
    dialogue(
        &script,
        &[
            BANNER,
            &format!("C: {fits}"),
            "S: 250 2.0.0 Ok",
            &format!("C: {too_long}"),
            "S: 500 5.5.2 Error: line too long",
            &format!("R: {too_long}x\n{too_long}\r\n"),
            "S: 500 5.5.2 Error: line too long",
            "C: NOOP",
            "S: 250 2.0.0 Ok",
            &format!("R: {}", "x".repeat(150)),
            "S: 500 5.5.2 Error: line too long",
            "S: 421 4.7.0 mx.example Error: endless command line",
        ],
    );
}

#[test]
fn recipients() {
    let script = with(Config { max_recipients: 2, ..Config::default() });
    let mut lines = HELO.to_vec();
    lines.extend([
        "C: MAIL FROM:<>",
        "S: 250 2.1.0 Ok",
        "C: RCPT TO:<a@b.example>",
        "S: 250 2.1.5 Ok",
        "C: RCPT TO:<a@B.example>",
        "S: 250 2.1.5 Ok",
        "C: RCPT TO:<b@b.example>",
        "S: 250 2.1.5 Ok",
        "C: RCPT TO:<c@b.example>",
        "S: 452 4.5.3 Error: too many recipients",
        "C: RCPT TO:<a@b.example>",
        "S: 250 2.1.5 Ok",
    ]);
    dialogue(&script, &lines);
    let endless = "RCPT TO:<c@b.example>\r\n".repeat(100);
    let said = format!("HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<b@b.example>\r\n{endless}");
    let outcome = talk(&script, said.as_bytes(), 1000);
    assert!(outcome.closed);
    assert_eq!(outcome.output.matches("452 4.5.3").count(), 2 + 20);
}

#[test]
fn message_size_and_swallowing() {
    let script = with(Config {
        max_message_size: ByteSize::from_bytes(20),
        max_swallow: ByteSize::from_bytes(50),
        ..Config::default()
    });
    let refused = "S: 552 5.3.4 Error: message size exceeds fixed limit";
    after_data(&script, &["R: 123456789012345678\r\n.\r\n", "S: 250 2.0.0 Ok: queued as 1"]);
    after_data(&script, &["R: 1234567890123456789\r\n.\r\n", refused, "C: NOOP", "S: 250 2.0.0 Ok"]);
    after_data(&script, &["R: ..\r\n..\r\n..\r\n..\r\n..\r\n..\r\n.\r\n", "S: 250 2.0.0 Ok: queued as 1"]);
    let endless = format!("R: {}", "MAIL FROM:<x@y.example>\r\n".repeat(10));
    after_data(&script, &[&endless, refused]);
}

#[test]
fn header_size() {
    let script = with(Config { max_header_size: ByteSize::from_bytes(30), ..Config::default() });
    after_data(
        &script,
        &["R: A: 12345\r\n\r\nB: 12345\r\nC: 12345\r\nD: 12345\r\n.\r\n", "S: 250 2.0.0 Ok: queued as 1"],
    );
    after_data(
        &script,
        &[
            "R: A: 12345\r\nB: 12345\r\nC: 12345\r\nD: 12345\r\n\r\n.\r\n",
            "S: 552 5.3.4 Error: message header exceeds fixed limit",
            "C: NOOP",
            "S: 250 2.0.0 Ok",
        ],
    );
}

#[test]
fn errors() {
    let script = with(Config { soft_errors: 2, max_errors: 4, ..Config::default() });
    let unknown = ["C: X", "S: 500 5.5.2 Error: command not recognized"];
    let mut lines = vec![BANNER];
    lines.extend(unknown.iter().chain(&unknown).chain(&unknown).chain(&unknown));
    lines.extend(["S: 421 4.7.0 mx.example Error: too many errors", "C: NOOP"]);
    dialogue(&script, &lines);
    let mut server = Server::new(script.settings(), Stages::NONE, script::session());
    let (mut input, mut output) = (Input::new(), Vec::new());
    for (said, penalty) in [("", 0), ("X\r\nX\r\n", 0), ("X\r\n", 1), ("NOOP\r\n", 0)] {
        input.push(said.as_bytes());
        assert_eq!(server.next(&mut input, &mut output), Action::Read);
        assert_eq!(server.take_penalty(), Duration::from_secs(penalty), "{said:?}");
    }
}

#[test]
fn a_message_taken_wipes_the_slate() {
    let script = with(Config { max_errors: 3, ..Config::default() });
    let mail = "MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n.\r\n";
    let said = format!("HELO a\r\nX\r\nX\r\n{mail}X\r\nX\r\n{mail}X\r\nX\r\nX\r\nNOOP\r\n");
    let outcome = talk(&script, said.as_bytes(), 1000);
    assert_eq!(outcome.taken.len(), 2);
    assert!(outcome.output.ends_with("421 4.7.0 mx.example Error: too many errors\r\n"));
}

#[test]
fn idle_commands() {
    let script = with(Config { max_idle_commands: 5, max_errors: 3, ..Config::default() });
    let outcome = talk(&script, "NOOP\r\n".repeat(20).as_bytes(), 1000);
    assert_eq!(outcome.output.matches("250 2.0.0 Ok").count(), 5 + 3);
    assert!(outcome.closed);
}

#[test]
fn transactions() {
    let script = with(Config { max_transactions: 2, ..Config::default() });
    let outcome = talk(&script, b"HELO a\r\nMAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n", 1000);
    assert!(outcome.output.ends_with("421 4.7.0 mx.example Error: too many messages in one session\r\n"));
    assert_eq!((outcome.opened, outcome.aborted), (2, 2));
}

#[test]
fn spilling() {
    let script = with(Config { spill_threshold: ByteSize::from_bytes(100), ..Config::default() });
    let header = format!("A: {}\r\nB: 1\r\n\r\n", "x".repeat(300));
    let body = "line of text\r\n".repeat(100);
    let said = format!("HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n{header}{body}.\r\n");
    for piece in [1, 10, 150, said.len()] {
        let outcome = talk(&script, said.as_bytes(), piece);
        assert_eq!(outcome.taken[0].content, (header.clone() + &body).as_bytes());
        assert!((outcome.spills >= 1 || piece == said.len()) && outcome.aborted == 0);
    }
    let chunked = format!(
        "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT {}\r\n{header}BDAT {} LAST\r\n{body}NOOP\r\n",
        header.len(),
        body.len()
    );
    for piece in [1, 10, 150, chunked.len()] {
        let outcome = talk(&script, chunked.as_bytes(), piece);
        assert_eq!(outcome.taken[0].content, (header.clone() + &body).as_bytes());
        assert!(
            (outcome.spills >= 1 || piece == chunked.len())
                && outcome.output.ends_with("queued as 1\r\n250 2.0.0 Ok\r\n")
        );
    }
    let refused = said.replacen("line of text\r\n.\r\n", "line\nof text\r\n.\r\n", 1);
    for piece in [1, 10, 150, refused.len()] {
        let outcome = talk(&script, refused.as_bytes(), piece);
        assert_eq!((outcome.taken.len(), outcome.aborted), (0, 1));
    }
    // The first piece that is spilled holds the whole header section.
    let mut server = Server::new(script.settings(), Stages::NONE, script::session());
    let (mut input, mut output) = (Input::new(), Vec::new());
    let mut octets = said.bytes();
    loop {
        match server.next(&mut input, &mut output) {
            Action::Read => input.push(&[octets.next().unwrap()]),
            Action::Open => server.opened(Ok(QueueId::from_u64(1))),
            Action::Resolve => server.resolved(Ok(())),
            Action::Spill => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(server.take_content().starts_with(header.as_bytes()));
}

#[test]
fn web_browsers() {
    let outcome = talk(&Script::default(), b"GET / HTTP/1.1\r\nHost: mx.example\r\n\r\n", 1000);
    assert!(outcome.output.ends_with("421 4.7.0 mx.example Error: this is SMTP\r\n"));
    assert!(outcome.closed);
}

#[test]
fn progress_is_whole_commands_and_much_content() {
    let mut server = Server::new(Script::default().settings(), Stages::NONE, script::session());
    let (mut input, mut output) = (Input::new(), Vec::new());
    let mut say = |said: &[u8]| {
        input.push(said);
        loop {
            match server.next(&mut input, &mut output) {
                Action::Open => server.opened(Ok(QueueId::from_u64(1))),
                Action::Resolve => server.resolved(Ok(())),
                Action::Read => return (server.progress(), server.read_size(), server.timeout().as_secs()),
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(say(b"HEL"), (0, 4096, 300));
    assert_eq!(say(b"O a"), (0, 4096, 300), "octets alone are none");
    assert_eq!(say(b"\r\n"), (1, 4096, 300));
    assert_eq!(say(b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n"), (4, 65536, 180));
    assert_eq!(say(b"A: 1\r\n"), (4, 65536, 180));
    assert_eq!(say(&[b'x'; 4096]), (5, 65536, 180));
}

#[test]
fn a_spill_threshold_of_nothing_ends() {
    let config = Config { spill_threshold: ByteSize::from_kib(0), ..Config::default() };
    let script = Script { config, ..Script::default() };
    let dots = b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nA: b\r\n\r\nbody\r\nmore\r\n.\r\n";
    let chunks =
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 8\r\nA: b\r\n\r\nBDAT 12 LAST\r\nbody\r\nmore\r\n";
    for said in [&dots[..], chunks] {
        for piece in 1..said.len() {
            let outcome = talk(&script, said, piece);
            assert_eq!(outcome.taken.len(), 1, "{}", outcome.output);
            assert_eq!(outcome.taken[0].content, b"A: b\r\n\r\nbody\r\nmore\r\n");
        }
    }
}
