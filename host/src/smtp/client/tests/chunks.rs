//! Other ways to hand over content: BDAT, and the end of data in LMTP.

use super::*;

#[test]
fn chunks() {
    let offer = ["S: 220 hi", "C: EHLO me.example", "S: 250-mx.example", "S: 250-PIPELINING", "S: 250 CHUNKING"];
    let play = Play::chunking(vec![(letter(&["r@b.example"]), "A: 1\r\n\r\n.x"), (letter(&["u@b.example"]), "")]);
    let lines = after(
        &offer,
        &[
            "C: MAIL FROM:<s@a.example>",
            "C: RCPT TO:<r@b.example>",
            "C: BDAT 12 LAST",
            "D: A: 1\r\n\r\n.x\r\n",
            "C: RSET",
            "C: MAIL FROM:<s@a.example>",
            "C: RCPT TO:<u@b.example>",
            "S: 250 ok",
            "S: 550 unknown",
            "S: 554 no valid recipients",
            "S: 250 ok",
            "S: 250 ok",
            "S: 250 ok",
            "C: BDAT 0 LAST",
            "C: QUIT",
            "S: 250 queued",
            "S: 221 bye",
        ],
    );
    play.check(&lines, &[&["0 failed 550 unknown"], &["0 delivered 250 queued"]]);

    // More than one chunk waits for a recipient; a chunk that is refused ends it.
    let large = Letter { size: 100, ..letter(&["r@b.example"]) };
    let content = "123456789012345678901234567890123456789\r\n123456789012345678901234567890123456789\r\nrest";
    let config = Play::chunking(Vec::new()).config;
    let mut wire = Vec::new();
    let mut client = Client::new(Arc::new(config), Dialect::Smtp, "me.example".parse().unwrap());
    let mut input = Input::new();
    input.push(b"220 hi\r\n250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
    assert_eq!(client.next(&mut input, &mut wire), Step::Ready);
    client.send(large, &mut wire).unwrap();
    assert_eq!(client.next(&mut input, &mut wire), Step::Read);
    wire.clear();
    input.push(b"250 ok\r\n250 ok\r\n");
    let mut pieces = content.as_bytes().chunks(20);
    let mut reads = 0;
    loop {
        match client.next(&mut input, &mut wire) {
            Step::Content => match pieces.next() {
                Some(piece) => client.content(piece, &mut wire),
                None => client.content_end(&mut wire),
            },
            Step::Read => {
                reads += 1;
                input.push(if reads == 1 { b"250 ok\r\n" } else { b"451 disk full\r\n" });
            }
            Step::Done(report) => {
                assert_eq!(show(&report), ["0 deferred 451 disk full"]);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    // The CR at the end of a piece waits for its LF.
    assert!(wire.starts_with(b"BDAT 60\r\n1234"), "{}", wire.escape_ascii());
    assert!(client.takes_letter());
    client.send(letter(&["u@b.example"]), &mut wire).unwrap();
    assert!(wire.ends_with(b"RSET\r\nMAIL FROM:<s@a.example>\r\nRCPT TO:<u@b.example>\r\n"), "{}", wire.escape_ascii());
}

#[test]
fn lmtp() {
    let play = Play {
        dialect: Dialect::Lmtp,
        ..Play::new(vec![(letter(&["r@b.example", "u@b.example", "v@b.example"]), "x\r\n")])
    };
    let lines = [
        "S: 220 hi",
        "C: LHLO me.example",
        "S: 250-mx.example",
        "S: 250 PIPELINING",
        "C: MAIL FROM:<s@a.example>",
        "C: RCPT TO:<r@b.example>",
        "C: RCPT TO:<u@b.example>",
        "C: RCPT TO:<v@b.example>",
        "C: DATA",
        "S: 250 ok",
        "S: 250 ok",
        "S: 550 unknown",
        "S: 250 ok",
        "S: 354 go",
        "D: x\r\n.\r\n",
        "C: QUIT",
        "S: 250 stored",
        "S: 452 full",
        "S: 221 bye",
    ];
    play.check(&lines, &[&["0 delivered 250 stored", "1 failed 550 unknown", "2 deferred 452 full"]]);
}
