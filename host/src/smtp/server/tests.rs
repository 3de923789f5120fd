#![allow(clippy::unwrap_used)]

use super::*;
use crate::mail::Domain;
use crate::smtp::config::{BareLineEnds, Config, Extension};
use crate::units::ByteSize;

mod bdat;
mod limits;
mod policies;
mod random;
mod script;

use script::{Script, Taken, talk};

/// What a client says and hears: `C:` lines with CRLF, `S:` lines the replies to all of them.
fn dialogue(script: &Script, lines: &[&str]) {
    let mut said = Vec::new();
    let mut heard = String::new();
    for line in lines {
        if let Some(text) = line.strip_prefix("C: ") {
            said.extend_from_slice(text.as_bytes());
            said.extend_from_slice(b"\r\n");
        } else if let Some(raw) = line.strip_prefix("R: ") {
            said.extend_from_slice(raw.as_bytes());
        } else {
            heard.push_str(line.strip_prefix("S: ").expect("C:, R: or S:"));
            heard.push('\n');
        }
    }
    let outcome = talk(script, &said, said.len());
    let replies = outcome.output.replace("\r\n", "\n");
    assert_eq!(replies, heard, "\nclient: {}", said.escape_ascii());
    for piece in [1, 2, 3, 7] {
        assert_eq!(talk(script, &said, piece).output, outcome.output, "in pieces of {piece}: {}", said.escape_ascii());
    }
    fastrand::seed(9);
    for _ in 0..5 {
        assert_eq!(talk(script, &said, 0).output, outcome.output, "in random pieces: {}", said.escape_ascii());
    }
}

const BANNER: &str = "S: 220 mx.example ESMTP wasmta";
const HELO: [&str; 3] = [BANNER, "C: HELO a.example", "S: 250 mx.example"];

fn after_helo(lines: &[&str]) {
    let all: Vec<&str> = HELO.iter().chain(lines).copied().collect();
    dialogue(&Script::default(), &all);
}

#[test]
fn one_message() {
    let said = b"EHLO a.example\r\nMAIL FROM:<s@a.example> SIZE=20 BODY=8BITMIME\r\nRCPT TO:<r@b.example>\r\nDATA\r\n\
        Subject: x\r\n\r\n..text\r\n.\r\nQUIT\r\n";
    let outcome = talk(&Script::default(), said, said.len());
    assert_eq!(
        outcome.output,
        "220 mx.example ESMTP wasmta\r\n250-mx.example\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-VRFY\r\n\
         250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250 HELP\r\n\
         250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n250 2.0.0 Ok: queued as 1\r\n221 2.0.0 Bye\r\n"
    );
    let Taken { envelope, content, fate } = &outcome.taken[0];
    assert_eq!(content, b"Subject: x\r\n\r\n.text\r\n");
    assert_eq!(envelope.reverse_path.to_string(), "s@a.example");
    assert_eq!(envelope.recipients.len(), 1);
    assert_eq!((envelope.origin.protocol.as_str(), envelope.origin.helo.as_str()), ("ESMTP", "a.example"));
    assert_eq!(*fate, Fate::Deliver);
    assert_eq!((outcome.opened, outcome.aborted), (1, 0));
}

#[test]
fn a_pipelined_burst_is_answered_at_once() {
    let mut server = Server::new(Script::default().settings(), Stages::NONE, script::session());
    let (mut input, mut output) = (Input::new(), Vec::new());
    assert_eq!(server.next(&mut input, &mut output), Action::Read);
    output.clear();
    input.push(b"EHLO a\r\nNOOP\r\nRSET\r\nNOOP\r\n");
    assert_eq!(server.next(&mut input, &mut output), Action::Read);
    assert_eq!(output.windows(2).filter(|pair| pair == b"\r\n").count(), 10 + 3);
}

#[test]
fn order_of_commands() {
    dialogue(
        &Script::default(),
        &[
            BANNER,
            "C: MAIL FROM:<>",
            "S: 503 5.5.1 Error: send HELO/EHLO first",
            "C: RCPT TO:<a@b.example>",
            "S: 503 5.5.1 Error: need MAIL command",
            "C: DATA",
            "S: 503 5.5.1 Error: need MAIL command",
            "C: NOOP ignored",
            "S: 250 2.0.0 Ok",
            "C: RSET",
            "S: 250 2.0.0 Ok",
            "C: VRFY postmaster",
            "S: 252 2.1.5 Cannot verify; send mail and see",
            "C: QUIT",
            "S: 221 2.0.0 Bye",
        ],
    );
    after_helo(&[
        "C: MAIL FROM:<a@b.example>",
        "S: 250 2.1.0 Ok",
        "C: MAIL FROM:<c@d.example>",
        "S: 503 5.5.1 Error: nested MAIL command",
        "C: DATA",
        "S: 554 5.5.1 Error: no valid recipients",
        "C: RCPT TO:<unknown@b.example>",
        "S: 550 5.1.1 no such user",
        "C: DATA",
        "S: 554 5.5.1 Error: no valid recipients",
        "C: RCPT TO:<postmaster>",
        "S: 250 2.1.5 Ok",
        "C: RSET",
        "S: 250 2.0.0 Ok",
        "C: RCPT TO:<a@b.example>",
        "S: 503 5.5.1 Error: need MAIL command",
        "C: MAIL FROM:<>",
        "S: 250 2.1.0 Ok",
        "C: HELO again.example",
        "S: 250 mx.example",
        "C: RCPT TO:<a@b.example>",
        "S: 503 5.5.1 Error: need MAIL command",
        "C: MAIL FROM:<>",
        "S: 250 2.1.0 Ok",
        "C: EHLO",
        "S: 501 5.5.4 Syntax: EHLO hostname",
        "C: RCPT TO:<a@b.example>",
        "S: 250 2.1.5 Ok",
    ]);
}

#[test]
fn syntax() {
    for (command, reply) in [
        ("", "500 5.5.2 Error: command not recognized"),
        ("XYZZY", "500 5.5.2 Error: command not recognized"),
        ("\u{1}\u{2}", "500 5.5.2 Error: command not recognized"),
        ("STARTTLS", "502 5.5.1 Error: command not implemented"),
        ("EXPN list", "502 5.5.1 Error: command not implemented"),
        ("VRFY", "501 5.5.4 Syntax: VRFY address"),
        ("HELO", "501 5.5.4 Syntax: HELO hostname"),
        ("EHLO a b", "501 5.5.2 Error: malformed host name"),
        ("EHLO ü.example", "501 5.5.2 Error: malformed host name"),
        ("RSET x", "501 5.5.4 Syntax: RSET"),
        ("DATA x", "501 5.5.4 Syntax: DATA"),
        ("MAIL", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL FROM:", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL FROM:a@b.example", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL FROM:<a@b.example>SIZE=1", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL FROM:<a@b..example>", "501 5.1.7 Bad sender address syntax"),
        ("MAIL FROM:<a>", "501 5.1.7 Bad sender address syntax"),
        ("MAIL FROM:<ü@b.example>", "553 5.6.7 Error: non-ASCII sender address needs SMTPUTF8"),
        ("MAIL FROM:<a@b.example> X=1", "555 5.5.4 Error: unsupported parameter"),
        ("MAIL FROM:<a@b.example> BODY=BINARYMIME", "555 5.5.4 Error: unsupported parameter"),
        ("MAIL FROM:<a@b.example> SIZE=1 SIZE=1", "501 5.5.4 Error: malformed or repeated parameter"),
        ("MAIL FROM:<a@b.example> SIZE=52428801", "552 5.3.4 Error: message size exceeds fixed limit"),
        ("MAIL FROM:<ü@b.example> SMTPUTF8", "250 2.1.0 Ok"),
        ("MAIL FROM:<a@b.example> SIZE=52428800", "250 2.1.0 Ok"),
        ("MAIL FROM: <a@b.example>", "250 2.1.0 Ok"),
        ("mail from:<@x.example:a@b.example>  ret=full", "250 2.1.0 Ok"),
        (r#"MAIL FROM:<"a b>"@b.example>"#, "250 2.1.0 Ok"),
    ] {
        after_helo(&[&format!("C: {command}"), &format!("S: {reply}")]);
    }
    for (command, reply) in [
        ("RCPT", "501 5.5.4 Syntax: RCPT TO:<address>"),
        ("RCPT TO:<>", "501 5.1.3 Bad recipient address syntax"),
        ("RCPT TO:<a@b.example", "501 5.5.4 Syntax: RCPT TO:<address>"),
        ("RCPT TO:<ü@b.example>", "553 5.6.7 Error: non-ASCII recipient address needs SMTPUTF8"),
        ("RCPT TO:<a@b.example> SIZE=1", "555 5.5.4 Error: unsupported parameter"),
        ("RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY", "501 5.5.4 Error: malformed or repeated parameter"),
        ("RCPT TO:<a@b.example> NOTIFY=DELAY ORCPT=rfc822;a@b.example", "250 2.1.5 Ok"),
        ("RCPT TO:<PostMaster>", "250 2.1.5 Ok"),
        ("RCPT TO:<a@[127.0.0.1]>", "250 2.1.5 Ok"),
    ] {
        after_helo(&["C: MAIL FROM:<>", "S: 250 2.1.0 Ok", &format!("C: {command}"), &format!("S: {reply}")]);
    }
}

#[test]
fn only_crlf_ends_a_command() {
    for (raw, reply) in [
        ("NOOP\nNOOP\r\n", "500 5.5.2 Error: bare <LF> received"),
        ("NOOP\n", "500 5.5.2 Error: bare <LF> received"),
        ("\nMAIL FROM:<>\n\n\r\n", "500 5.5.2 Error: bare <LF> received"),
        ("NOOP\rNOOP\r\n", "500 5.5.2 Error: bare <CR> or NUL in command line"),
        ("NOOP\r\r\n", "500 5.5.2 Error: bare <CR> or NUL in command line"),
        ("NO\0OP\r\n", "500 5.5.2 Error: bare <CR> or NUL in command line"),
    ] {
        let (raw, reply) = (format!("R: {raw}"), format!("S: {reply}"));
        after_helo(&[&raw, &reply]);
        if raw.ends_with("\r\n") {
            after_helo(&[&raw, &reply, "C: NOOP", "S: 250 2.0.0 Ok"]);
        }
    }
}

const TO_DATA: [&str; 6] = [
    "C: MAIL FROM:<a@b.example>",
    "S: 250 2.1.0 Ok",
    "C: RCPT TO:<c@d.example>",
    "S: 250 2.1.5 Ok",
    "C: DATA",
    "S: 354 End data with <CR><LF>.<CR><LF>",
];

fn after_data(script: &Script, lines: &[&str]) {
    let all: Vec<&str> = HELO.iter().chain(&TO_DATA).chain(lines).copied().collect();
    dialogue(script, &all);
}

#[test]
fn content_with_bare_line_ends_is_refused_at_its_end() {
    for (form, which) in [
        ("\n.\n", "LF"),
        ("\n.\r\n", "LF"),
        ("\r\n.\n", "LF"),
        ("\n.\r", "LF"),
        ("x\ny\rz", "LF"),
        ("\r.\r", "CR"),
        ("\r.\r\n", "CR"),
        ("\r\n.\r", "CR"),
        ("\r\r\n.\r\r\n", "CR"),
    ] {
        let raw = format!("R: Subject: x\r\n\r\na{form}MAIL FROM:<evil@x.example>\r\nRCPT TO:<d@d.example>\r\n.\r\n");
        let reply = format!("S: 550 5.5.2 Error: bare <{which}> received");
        after_data(&Script::default(), &[&raw, &reply, "C: NOOP", "S: 250 2.0.0 Ok"]);
    }
    let normalize =
        Script { config: Config { bare_line_ends: BareLineEnds::Normalize, ..Config::default() }, ..Script::default() };
    after_data(&normalize, &["R: a\n.\nb\r\n.\r\n", "S: 250 2.0.0 Ok: queued as 1"]);
    let said = b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\na\n.\nb\r\n.\r\n";
    assert_eq!(talk(&normalize, said, 3).taken[0].content, b"a\r\n.\r\nb\r\n");
}

#[test]
fn the_next_message_may_follow_at_once() {
    after_data(
        &Script::default(),
        &[
            "R: one\r\n.\r\n",
            "S: 250 2.0.0 Ok: queued as 1",
            "C: MAIL FROM:<>",
            "S: 250 2.1.0 Ok",
            "C: RCPT TO:<c@d.example>",
            "S: 250 2.1.5 Ok",
            "C: DATA",
            "S: 354 End data with <CR><LF>.<CR><LF>",
            "R: .\r\n",
            "S: 250 2.0.0 Ok: queued as 2",
            "C: QUIT",
            "S: 221 2.0.0 Bye",
        ],
    );
}

#[test]
fn a_message_sent_without_waiting_never_becomes_commands() {
    after_helo(&[
        "C: MAIL FROM:<a@b.example>",
        "S: 250 2.1.0 Ok",
        "C: RCPT TO:<unknown@d.example>",
        "S: 550 5.1.1 no such user",
        "C: DATA",
        "S: 554 5.5.1 Error: no valid recipients",
        "C: Subject: not a command",
        "S: 421 4.5.0 mx.example Error: SMTP protocol synchronization lost",
        "C: MAIL FROM:<evil@x.example>",
    ]);
}

#[test]
fn events_from_outside() {
    for (event, reply) in [
        (Server::timed_out as fn(&mut Server, &mut Vec<u8>), "421 4.4.2 mx.example Error: timeout exceeded\r\n"),
        (Server::shutting_down, "421 4.3.2 mx.example Error: shutting down, try again later\r\n"),
    ] {
        let mut server = Server::new(Script::default().settings(), Stages::NONE, script::session());
        let (mut input, mut output) = (Input::new(), Vec::new());
        input.push(b"HELO a\r\nMAIL FROM:<>\r\n");
        assert_eq!(server.next(&mut input, &mut output), Action::Open);
        server.opened(Ok(QueueId::from_u64(1)));
        assert_eq!(server.next(&mut input, &mut output), Action::Read);
        output.clear();
        event(&mut server, &mut output);
        event(&mut server, &mut output);
        assert_eq!(String::from_utf8_lossy(&output), reply);
        assert_eq!(server.next(&mut input, &mut output), Action::Abort);
        assert_eq!(server.next(&mut input, &mut output), Action::Close);
        assert_eq!(server.next(&mut input, &mut output), Action::Close);
    }
    let refusal = Script::default().settings().too_many_sessions();
    assert_eq!(refusal.to_string(), "421 4.7.0 mx.example Error: too many connections, try again later");
}

#[test]
fn what_is_refused_here_is_told() {
    let said =
        b"EHLO a\r\nAUTH PLAIN c2VjcmV0\r\nMAIL FROM:<a@b.example> X=1\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<>\r\n\
                 RCPT TO:<unknown@d.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\na\nb\r\n.\r\nN\xffOP\x1b\r\nQUIT\r\n";
    let told = talk(&Script::default(), said, 7).refusals;
    let seen: Vec<_> = told.iter().map(|refusal| (refusal.command.as_str(), refusal.reply.as_str())).collect();
    let expected = [
        ("AUTH", "502 5.5.1 Error: command not implemented"), // never what follows
        ("MAIL FROM:<a@b.example> X=1", "555 5.5.4 Error: unsupported parameter"),
        ("RCPT TO:<>", "501 5.1.3 Bad recipient address syntax"),
        ("", "550 5.5.2 Error: bare <LF> received"),
        ("N\u{fffd}OP\u{1b}", "500 5.5.2 Error: command not recognized"),
    ];
    assert_eq!(seen, expected);
    let content = &told[3];
    assert_eq!((content.from.as_str(), content.to.as_str()), ("a@b.example", "c@d.example"));
    assert_eq!(content.queue_id, Some(QueueId::from_u64(1)));
    let many = b"EHLO a\r\n".iter().chain(b"X\r\n".repeat(1000).iter()).copied().collect::<Vec<u8>>();
    assert_eq!(talk(&Script::default(), &many, 4096).refusals.len(), Config::default().max_errors + 1);
    let mut server = Server::new(Script::default().settings(), Stages::NONE, script::session());
    server.shutting_down(&mut Vec::new());
    assert_eq!(server.take_refusals(), [], "ten thousand idle sessions are not ten thousand lines");
}
