//! Dialogues that nobody would write: what is answered never depends on how the octets were cut, and every transaction ends once.

use super::*;

const WORDS: [&str; 46] = [
    "EHLO a.example\r\n",
    "EHLO a.example\r\n",
    "HELO b\r\n",
    "MAIL FROM:<a@b.example>\r\n",
    "MAIL FROM:<a@b.example>\r\n",
    "MAIL FROM:<> SIZE=30 BODY=8BITMIME\r\n",
    "MAIL FROM:<> SIZE=3000\r\n",
    "RCPT TO:<c@d.example>\r\n",
    "RCPT TO:<c@d.example>\r\n",
    "RCPT TO:<e@d.example> NOTIFY=NEVER\r\n",
    "RCPT TO:<unknown@d.example>\r\n",
    "DATA\r\n",
    "DATA\r\n",
    "DATA\r\n",
    "BDAT 10\r\n",
    "BDAT 10 LAST\r\n",
    "BDAT 0 LAST\r\n",
    "BDAT 70\r\n",
    "BDAT 99999\r\n",
    "BDAT x\r\n",
    "0123456789",
    "01234567\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "VRFY a\r\n",
    "NONSENSE\r\n",
    "QUIT\r\n",
    "\r\n.\r\n",
    "\r\n.\r\n",
    ".\r\n",
    "A: field\r\n",
    "B: another field of the header\r\n continued\r\n",
    "\r\n",
    "\r\n",
    "text\r\n",
    "..\r\n",
    ".x\r\n",
    "\r",
    "\n",
    ".",
    "\0",
    "x",
    "long line, longer than a line of this host may be, longer and longer",
    "\n.\n",
    "\r.\r",
    "\u{fc}",
];

fn random_config() -> Config {
    let size = |choices: &[u64]| ByteSize::from_bytes(*fastrand::choice(choices).unwrap());
    Config {
        max_message_size: size(&[50, 100, 1000]),
        max_header_size: size(&[20, 40, 1000]),
        max_command_line: size(&[40, 60, 200]),
        max_overlong_line: size(&[80, 300]),
        max_text_line: size(&[30, 100, 1000]),
        max_swallow: size(&[0, 40, 1000]),
        max_recipients: fastrand::usize(1..3),
        max_errors: fastrand::usize(5..50),
        max_idle_commands: fastrand::usize(2..50),
        max_transactions: fastrand::usize(1..10),
        spill_threshold: size(&[1, 30, 1000]),
        bare_line_ends: *fastrand::choice(&[BareLineEnds::Reject, BareLineEnds::Normalize]).unwrap(),
        ..Config::default()
    }
}

#[test]
fn the_cut_makes_no_difference() {
    fastrand::seed(3);
    for round in 0..4000 {
        let mut script = Script { config: random_config(), ..Script::default() };
        for stage in [Stage::Mail, Stage::Rcpt] {
            if fastrand::u8(..8) == 0 {
                let reply = Reply::transient(450, (7, 1), "later");
                let verdicts = [
                    Verdict::Pass,
                    Verdict::Discard("d".into()),
                    Verdict::Quarantine("q".into()),
                    Verdict::Defer(reply.clone()),
                    Verdict::Disconnect(reply),
                ];
                script.verdicts.insert(stage, fastrand::choice(verdicts).unwrap());
            }
        }
        let start = if fastrand::bool() { "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n" } else { "" };
        let said: String = std::iter::once(start)
            .chain((0..fastrand::usize(1..60)).map(|_| *fastrand::choice(&WORDS).unwrap()))
            .collect();
        let whole = talk(&script, said.as_bytes(), said.len());
        for piece in [1, 2, 5, 0, 0] {
            let cut = talk(&script, said.as_bytes(), piece);
            let case = format!("round {round}, pieces of {piece}: {}\n{:#?}", said.escape_debug(), script.config);
            assert_eq!(cut.output, whole.output, "{case}");
            assert_eq!((cut.opened, cut.closed), (whole.opened, whole.closed), "{case}");
            assert_eq!(cut.taken.len(), whole.taken.len(), "{case}");
            for (one, other) in cut.taken.iter().zip(&whole.taken) {
                assert_eq!((&one.envelope, &one.fate), (&other.envelope, &other.fate), "{case}");
                if !matches!(one.fate, Fate::Discard(_)) {
                    assert_eq!(one.content, other.content, "{case}");
                }
            }
            let under_way = usize::from(cut.in_transaction);
            assert_eq!(cut.opened, cut.taken.len() + cut.aborted + under_way, "each transaction ends once: {case}");
        }
    }
}

#[test]
fn noise() {
    fastrand::seed(4);
    for _ in 0..2000 {
        let config = random_config();
        let said: Vec<u8> = (0..fastrand::usize(..400)).map(|_| fastrand::u8(..)).collect();
        let script = Script { config, ..Script::default() };
        let outcome = talk(&script, &said, 0);
        assert!(outcome.output.lines().skip(1).all(|line| line.starts_with('5') || line.starts_with('4')), "{said:?}");
    }
}
