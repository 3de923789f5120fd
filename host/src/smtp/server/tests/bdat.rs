use super::*;

const TO_RCPT: [&str; 4] =
    ["C: MAIL FROM:<a@b.example>", "S: 250 2.1.0 Ok", "C: RCPT TO:<c@d.example>", "S: 250 2.1.5 Ok"];

fn after_rcpt(script: &Script, lines: &[&str]) {
    let all: Vec<&str> = HELO.iter().chain(&TO_RCPT).chain(lines).copied().collect();
    dialogue(script, &all);
}

fn content_of(said: &str) -> Vec<u8> {
    let said = format!("HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n{said}");
    let outcome = talk(&Script::default(), said.as_bytes(), 5);
    assert_eq!(outcome.taken.len(), 1, "{}", outcome.output);
    outcome.taken[0].content.clone()
}

#[test]
fn chunks() {
    let none = Script::default();
    after_rcpt(
        &none,
        &["C: BDAT 6 LAST", "R: a\r\n.\r\n", "S: 250 2.0.0 Ok: queued as 1", "C: NOOP", "S: 250 2.0.0 Ok"],
    );
    after_rcpt(
        &none,
        &[
            "C: BDAT 3",
            "R: QUI",
            "S: 250 2.0.0 Ok: 3 octets",
            "C: BDAT 0",
            "S: 250 2.0.0 Ok: 0 octets",
            "C: BDAT 3",
            "R: T\r\n",
            "S: 250 2.0.0 Ok: 3 octets",
            "C: BDAT 0 LAST",
            "S: 250 2.0.0 Ok: queued as 1",
        ],
    );
    after_rcpt(&none, &["C: BDAT 0 LAST", "S: 250 2.0.0 Ok: queued as 1"]);
    assert_eq!(content_of("BDAT 0 LAST\r\n"), b"");
    assert_eq!(content_of("BDAT 3\r\na\r\nBDAT 3 LAST\r\n.\r\n"), b"a\r\n.\r\n", "dots are dots");
    assert_eq!(content_of("BDAT 2\r\na\rBDAT 2 LAST\r\n\nb"), b"a\r\nb\r\n", "a CRLF may be cut, a last one is added");
}

#[test]
fn refused_chunks_are_swallowed() {
    let none = Script::default();
    dialogue(
        &none,
        &[
            BANNER,
            "C: BDAT 6 LAST",
            "R: QUIT\r\n",
            "S: 503 5.5.1 Error: need MAIL command",
            "C: NOOP",
            "S: 250 2.0.0 Ok",
        ],
    );
    after_helo(&[
        "C: MAIL FROM:<>",
        "S: 250 2.1.0 Ok",
        "C: BDAT 6",
        "R: QUIT\r\n",
        "S: 554 5.5.1 Error: no valid recipients",
        "C: BDAT 6 LAST",
        "R: QUIT\r\n",
        "S: 503 5.5.1 Error: a chunk was refused, RSET is needed",
        "C: MAIL FROM:<>",
        "S: 250 2.1.0 Ok",
    ]);
    after_rcpt(
        &none,
        &[
            "C: BDAT 4",
            "R: a\nbc",
            "S: 550 5.5.2 Error: bare <LF> received",
            "C: BDAT 3",
            "R: x\r\n",
            "S: 503 5.5.1 Error: a chunk was refused, RSET is needed",
            "C: RCPT TO:<x@y.example>",
            "S: 503 5.5.1 Error: RCPT after BDAT",
            "C: MAIL FROM:<>",
            "S: 503 5.5.1 Error: nested MAIL command",
            "C: DATA",
            "S: 503 5.5.1 Error: DATA after BDAT",
            "C: RSET",
            "S: 250 2.0.0 Ok",
            "C: MAIL FROM:<>",
            "S: 250 2.1.0 Ok",
        ],
    );
    after_rcpt(&none, &["C: BDAT 2 LAST", "R: a\r", "S: 550 5.5.2 Error: bare <CR> received"]);
    after_rcpt(
        &none,
        &["C: BDAT 6 FIRST", "R: QUIT\r\n", "S: 501 5.5.4 Syntax: BDAT count [LAST]", "C: NOOP", "S: 250 2.0.0 Ok"],
    );
}

#[test]
fn data_and_chunks_do_not_mix() {
    after_rcpt(
        &Script::default(),
        &[
            "C: BDAT 3",
            "R: a\r\n",
            "S: 250 2.0.0 Ok: 3 octets",
            "C: DATA",
            "S: 503 5.5.1 Error: DATA after BDAT",
            "C: RCPT TO:<x@y.example>",
            "S: 503 5.5.1 Error: RCPT after BDAT",
            "C: BDAT 0 LAST",
            "S: 250 2.0.0 Ok: queued as 1",
        ],
    );
}

#[test]
fn a_size_that_cannot_be_read() {
    after_rcpt(
        &Script::default(),
        &["C: BDAT", "S: 501 5.5.4 Syntax: BDAT count [LAST]", "C: NOOP", "S: 250 2.0.0 Ok"],
    );
    after_rcpt(
        &Script::default(),
        &[
            "C: BDAT five LAST",
            "S: 501 5.5.4 Syntax: BDAT count [LAST]",
            "C: hello",
            "S: 421 4.5.0 mx.example Error: SMTP protocol synchronization lost",
        ],
    );
}

#[test]
fn sizes() {
    let config = Config {
        max_message_size: ByteSize::from_bytes(10),
        max_swallow: ByteSize::from_bytes(30),
        ..Config::default()
    };
    let small = Script { config, ..Script::default() };
    after_rcpt(&small, &["C: BDAT 10 LAST", "R: 12345678\r\n", "S: 250 2.0.0 Ok: queued as 1"]);
    after_rcpt(
        &small,
        &[
            "C: BDAT 6",
            "R: 1234\r\n",
            "S: 250 2.0.0 Ok: 6 octets",
            "C: BDAT 6 LAST",
            "R: 1234\r\n",
            "S: 552 5.3.4 Error: message size exceeds fixed limit",
            "C: NOOP",
            "S: 250 2.0.0 Ok",
        ],
    );
    // The CRLF that we add counts.
    after_rcpt(&small, &["C: BDAT 10 LAST", "R: 1234567890", "S: 552 5.3.4 Error: message size exceeds fixed limit"]);
    after_rcpt(&small, &["C: BDAT 31 LAST", "S: 552 5.3.4 Error: message size exceeds fixed limit", "C: NOOP"]);
    after_rcpt(&small, &["C: BDAT 18446744073709551615 LAST", "S: 552 5.3.4 Error: message size exceeds fixed limit"]);
}

#[test]
fn off() {
    let config = Config { disabled_extensions: [Extension::Chunking].into_iter().collect(), ..Config::default() };
    let script = Script { config, ..Script::default() };
    after_rcpt(&script, &["C: BDAT 3 LAST", "S: 502 5.5.1 Error: command not implemented"]);
    let outcome = talk(&script, b"EHLO a\r\n", 100);
    assert!(!outcome.output.contains("CHUNKING"));
}
