#![allow(clippy::unwrap_used)]

use super::*;
use crate::mail::{BodyType, DsnReturn, Envelope, Notify, Origin, Recipient};
use crate::smtp::Extension;
use crate::units::ByteSize;

mod chunks;
mod conversation;
mod hostile;

/// A server that follows a script: `C:` what the client must have written by then, `S:` what the server says to it, with CRLF.
/// `D:` is a piece of content in the client's output.
struct Play {
    config: ClientConfig,
    dialect: Dialect,
    letters: Vec<(Letter, &'static str)>,
}

impl Play {
    fn new(letters: Vec<(Letter, &'static str)>) -> Self {
        Self { config: ClientConfig::default(), dialect: Dialect::Smtp, letters }
    }

    fn chunking(letters: Vec<(Letter, &'static str)>) -> Self {
        let config = ClientConfig {
            transfer: Transfer::Chunking,
            chunk_size: ByteSize::from_bytes(40),
            ..ClientConfig::default()
        };
        Self { config, ..Self::new(letters) }
    }

    /// Plays it with the server's words cut into pieces; at the end of the script the connection breaks. Letters are sent as soon as
    /// the client takes them; QUIT is said when there are no more.
    fn run(&self, lines: &[&str], piece: usize) -> (Vec<Report>, Ending) {
        let mut client = Client::new(Arc::new(self.config.clone()), self.dialect, "me.example".parse().unwrap());
        let (mut input, mut output, mut reports) = (Input::new(), Vec::new(), Vec::new());
        let mut waiting: VecDeque<&(Letter, &str)> = self.letters.iter().collect();
        let mut script = lines.iter().peekable();
        for _ in 0..10_000 {
            let step = client.next(&mut input, &mut output);
            let reading = step == Step::Read;
            match step {
                Step::Done(report) => reports.push(report),
                Step::Content => {
                    let (_, content) = &self.letters[reports.len()];
                    for octets in content.as_bytes().chunks(7) {
                        client.content(octets, &mut output);
                    }
                    client.content_end(&mut output);
                }
                Step::Close => return (reports, client.ending().unwrap().clone()),
                Step::Ready | Step::Read => {}
            }
            if client.takes_letter() {
                match waiting.pop_front() {
                    Some((letter, _)) => {
                        client.send(letter.clone(), &mut output).unwrap();
                        continue;
                    }
                    None => client.quit(&mut output),
                }
            }
            if !reading {
                continue;
            }
            let mut expected = String::new();
            while let Some(line) = script.next_if(|line| !line.starts_with("S: ")) {
                match line.strip_prefix("C: ") {
                    Some(text) => expected += &(text.to_owned() + "\r\n"),
                    None => expected += line.strip_prefix("D: ").unwrap(),
                }
            }
            assert_eq!(String::from_utf8_lossy(&output), expected);
            output.clear();
            let mut said = String::new();
            while let Some(line) = script.next_if(|line| line.starts_with("S: ")) {
                said += &(line[3..].to_owned() + "\r\n");
            }
            if said.is_empty() {
                client.disconnected();
            }
            // All but the last piece leave the client wanting more; what it makes of them early must be the same.
            let mut pieces = said.as_bytes().chunks(piece).peekable();
            while let Some(octets) = pieces.next() {
                input.push(octets);
                if pieces.peek().is_some() {
                    match client.next(&mut input, &mut output) {
                        Step::Done(report) => reports.push(report),
                        Step::Read => {}
                        _ => {
                            pieces.by_ref().for_each(|octets| input.push(octets));
                            break;
                        }
                    }
                }
            }
        }
        panic!("the client runs in circles");
    }

    fn check(&self, lines: &[&str], outcomes: &[&[&str]]) -> Ending {
        let (reports, ending) = self.run(lines, usize::MAX);
        let shown: Vec<Vec<String>> = reports.iter().map(show).collect();
        assert_eq!(shown, outcomes, "{lines:#?}");
        ending
    }
}

fn show(report: &Report) -> Vec<String> {
    let shown = report.outcomes.iter().map(|(index, outcome)| match outcome {
        Outcome::Delivered(reply) => format!("{index} delivered {reply}"),
        Outcome::Deferred(reply) => format!("{index} deferred {reply}"),
        Outcome::Failed(reply) => format!("{index} failed {reply}"),
    });
    shown.collect()
}

fn letter(recipients: &[&str]) -> Letter {
    Letter {
        envelope: Arc::new(Envelope {
            reverse_path: "s@a.example".parse().unwrap(),
            recipients: recipients.iter().map(|path| Recipient::new(path.parse().unwrap())).collect(),
            body: BodyType::SevenBit,
            smtputf8: false,
            ret: None,
            envelope_id: None,
            origin: Origin { client: None, helo: String::new(), protocol: "ESMTP".into() },
        }),
        recipients: (0..recipients.len()).collect(),
        size: 30,
        eight_bit: false,
        utf8_header: false,
    }
}

fn with_envelope(mut letter: Letter, change: impl FnOnce(&mut Envelope)) -> Letter {
    change(Arc::make_mut(&mut letter.envelope));
    letter
}

const PLAIN: [&str; 3] = ["S: 220 hi", "C: EHLO me.example", "S: 250 mx.example"];
const PIPELINED: [&str; 4] = ["S: 220 hi", "C: EHLO me.example", "S: 250-mx.example", "S: 250 PIPELINING"];

fn after<'a>(start: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    start.iter().chain(rest).copied().collect()
}

#[test]
fn step_by_step() {
    let play = Play::new(vec![(letter(&["r@b.example", "u@b.example"]), "A: 1\r\n\r\n.dot\r\n")]);
    let lines = after(
        &PLAIN,
        &[
            "C: MAIL FROM:<s@a.example>",
            "S: 250 ok",
            "C: RCPT TO:<r@b.example>",
            "S: 250 ok",
            "C: RCPT TO:<u@b.example>",
            "S: 550 5.1.1 unknown",
            "C: DATA",
            "S: 354 go",
            "D: A: 1\r\n\r\n..dot\r\n.\r\n",
            "S: 250 2.0.0 queued",
            "C: QUIT",
            "S: 221 bye",
        ],
    );
    let outcomes: &[&[&str]] = &[&["0 delivered 250 2.0.0 queued", "1 failed 550 5.1.1 unknown"]];
    assert_eq!(play.check(&lines, outcomes), Ending::Quit);
    for piece in [1, 2, 3] {
        assert_eq!(play.run(&lines, piece), play.run(&lines, usize::MAX));
    }
}

#[test]
fn pipelined_with_the_next_letter_behind_the_dot() {
    let play =
        Play::new(vec![(letter(&["r@b.example"]), "one\r\n"), (letter(&["u@b.example", "v@b.example"]), "two\r\n")]);
    let lines = after(
        &PIPELINED,
        &[
            "C: MAIL FROM:<s@a.example>",
            "C: RCPT TO:<r@b.example>",
            "C: DATA",
            "S: 250 ok",
            "S: 250 ok",
            "S: 354 go",
            "D: one\r\n.\r\n",
            "C: MAIL FROM:<s@a.example>",
            "C: RCPT TO:<u@b.example>",
            "C: RCPT TO:<v@b.example>",
            "C: DATA",
            "S: 250 queued as 1",
            "S: 250 ok",
            "S: 450 later",
            "S: 250 ok",
            "S: 354 go",
            "D: two\r\n.\r\n",
            "C: QUIT",
            "S: 250 queued as 2",
            "S: 221 bye",
        ],
    );
    let outcomes: &[&[&str]] =
        &[&["0 delivered 250 queued as 1"], &["0 deferred 450 later", "1 delivered 250 queued as 2"]];
    assert_eq!(play.check(&lines, outcomes), Ending::Quit);
}

#[test]
fn a_server_that_will_not_have_the_next_letter_so_early() {
    let play = Play::new(vec![(letter(&["r@b.example"]), "one\r\n"), (letter(&["u@b.example"]), "two\r\n")]);
    let lines = after(
        &PIPELINED,
        &[
            "C: MAIL FROM:<s@a.example>",
            "C: RCPT TO:<r@b.example>",
            "C: DATA",
            "S: 250 ok",
            "S: 250 ok",
            "S: 354 go",
            "D: one\r\n.\r\n",
            "C: MAIL FROM:<s@a.example>",
            "C: RCPT TO:<u@b.example>",
            "C: DATA",
            "S: 250 queued",
            "S: 503 nested MAIL",
            "S: 503 no",
            "S: 503 no",
            "C: QUIT",
            "S: 221 bye",
        ],
    );
    let (reports, _) = play.run(&lines, usize::MAX);
    assert_eq!(show(&reports[1]), ["0 deferred 503 nested MAIL"]);
    assert!(reports[1].untouched && !reports[0].untouched);
}

#[test]
fn refusals() {
    let two = || letter(&["r@b.example", "u@b.example"]);
    for (lines, outcome) in [
        (
            vec!["C: MAIL FROM:<s@a.example>", "S: 550 5.7.1 no", "C: QUIT", "S: 221 bye"],
            ["0 failed 550 5.7.1 no", "1 failed 550 5.7.1 no"],
        ),
        (
            vec![
                "C: MAIL FROM:<s@a.example>",
                "S: 250 ok",
                "C: RCPT TO:<r@b.example>",
                "S: 450 later",
                "C: RCPT TO:<u@b.example>",
                "S: 550 never",
                "C: QUIT",
                "S: 221 bye",
            ],
            ["0 deferred 450 later", "1 failed 550 never"],
        ),
        (
            vec![
                "C: MAIL FROM:<s@a.example>",
                "S: 250 ok",
                "C: RCPT TO:<r@b.example>",
                "S: 250 ok",
                "C: RCPT TO:<u@b.example>",
                "S: 552 too many",
                "C: DATA",
                "S: 451 later",
                "C: QUIT",
                "S: 221 bye",
            ],
            ["0 deferred 451 later", "1 deferred 552 too many"],
        ),
        (
            vec![
                "C: MAIL FROM:<s@a.example>",
                "S: 250 ok",
                "C: RCPT TO:<r@b.example>",
                "S: 251 will forward",
                "C: RCPT TO:<u@b.example>",
                "S: 552 5.2.2 mailbox full",
                "C: DATA",
                "S: 354 go",
                "D: x\r\n.\r\n",
                "S: 554 5.6.0 spam",
                "C: QUIT",
                "S: 221 bye",
            ],
            ["0 failed 554 5.6.0 spam", "1 failed 552 5.2.2 mailbox full"],
        ),
    ] {
        Play::new(vec![(two(), "x\r\n")]).check(&after(&PLAIN, &lines), &[&outcome]);
    }
}

#[test]
fn reset_after_a_transaction_that_came_to_nothing() {
    let play = Play::new(vec![(letter(&["r@b.example"]), "one\r\n"), (letter(&["u@b.example"]), "two\r\n")]);
    let lines = after(
        &PIPELINED,
        &[
            "C: MAIL FROM:<s@a.example>",
            "C: RCPT TO:<r@b.example>",
            "C: DATA",
            "S: 250 ok",
            "S: 550 5.1.1 unknown",
            "S: 554 5.5.1 no valid recipients",
            "C: RSET",
            "C: MAIL FROM:<s@a.example>",
            "C: RCPT TO:<u@b.example>",
            "C: DATA",
            "S: 250 ok",
            "S: 250 ok",
            "S: 250 ok",
            "S: 354 go",
            "D: two\r\n.\r\n",
            "C: QUIT",
            "S: 250 queued",
            "S: 221 bye",
        ],
    );
    play.check(&lines, &[&["0 failed 550 5.1.1 unknown"], &["0 delivered 250 queued"]]);
}

#[test]
fn go_ahead_without_recipients_gets_an_empty_message() {
    let play = Play::new(vec![(letter(&["r@b.example"]), "one\r\n")]);
    let lines = after(
        &PIPELINED,
        &[
            "C: MAIL FROM:<s@a.example>",
            "C: RCPT TO:<r@b.example>",
            "C: DATA",
            "S: 250 ok",
            "S: 550 5.1.1 unknown",
            "S: 354 go",
            "D: .\r\n",
            "S: 554 no recipients",
            "C: QUIT",
            "S: 221 bye",
        ],
    );
    play.check(&lines, &[&["0 failed 550 5.1.1 unknown"]]);
}

#[test]
fn parameters() {
    let rich = with_envelope(letter(&["r@b.example"]), |envelope| {
        envelope.body = BodyType::EightBitMime;
        envelope.smtputf8 = true;
        envelope.ret = Some(DsnReturn::Headers);
        envelope.envelope_id = Some("id+2B1".into());
        envelope.recipients[0].notify = Some(Notify { success: true, failure: true, delay: false });
        envelope.recipients[0].original = Some("rfc822;o@b.example".into());
    });
    let forged = with_envelope(letter(&["postmaster"]), |envelope| {
        envelope.reverse_path = "".parse().unwrap();
        envelope.envelope_id = Some("x\r\nRSET".into());
        envelope.recipients[0].original = Some("a b".into());
        envelope.recipients[0].notify = Some(Notify::NEVER);
    });
    for (letter, offer, mail, rcpt) in [
        (rich.clone(), "X", "MAIL FROM:<s@a.example>", "RCPT TO:<r@b.example>"),
        (
            rich.clone(),
            "DSN",
            "MAIL FROM:<s@a.example> RET=HDRS ENVID=id+2B1",
            "RCPT TO:<r@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o@b.example",
        ),
        (rich.clone(), "SIZE 100", "MAIL FROM:<s@a.example> SIZE=30", "RCPT TO:<r@b.example>"),
        (rich.clone(), "8BITMIME", "MAIL FROM:<s@a.example> BODY=8BITMIME", "RCPT TO:<r@b.example>"),
        (rich, "SMTPUTF8", "MAIL FROM:<s@a.example> SMTPUTF8", "RCPT TO:<r@b.example>"),
        (forged, "DSN", "MAIL FROM:<>", "RCPT TO:<postmaster> NOTIFY=NEVER"),
    ] {
        let (offer, mail, rcpt) = (format!("S: 250 {offer}"), format!("C: {mail}"), format!("C: {rcpt}"));
        let lines = after(
            &PLAIN[..2],
            &["S: 250-mx.example", &offer, &mail, "S: 250 ok", &rcpt, "S: 550 no", "C: QUIT", "S: 221 bye"],
        );
        Play::new(vec![(letter, "")]).check(&lines, &[&["0 failed 550 no"]]);
    }
}

#[test]
fn what_the_server_could_not_take() {
    let utf8 = with_envelope(letter(&["ü@b.example", "r@b.example"]), |envelope| envelope.smtputf8 = true);
    let header =
        Letter { utf8_header: true, ..with_envelope(letter(&["r@b.example"]), |envelope| envelope.smtputf8 = true) };
    let quit = ["C: QUIT", "S: 221 bye"];
    for (letter, offer, outcome) in [
        (
            Letter { size: 101, ..letter(&["r@b.example"]) },
            "SIZE 100",
            "0 failed 552 5.3.4 message size 101 exceeds size limit 100 of the next host",
        ),
        (
            Letter { eight_bit: true, ..letter(&["r@b.example"]) },
            "SIZE 0",
            "0 failed 554 5.6.3 message holds 8-bit data, and the next host does not offer 8BITMIME",
        ),
        (
            header,
            "8BITMIME",
            "0 failed 553 5.6.7 address or header is not ASCII, and the next host does not offer SMTPUTF8",
        ),
    ] {
        let offer = format!("S: 250 {offer}");
        let lines = after(&PLAIN[..2], &after(&["S: 250-mx.example", &offer], &quit));
        let (reports, _) = Play::new(vec![(letter, "")]).run(&lines, 5);
        assert_eq!(reports.iter().map(show).collect::<Vec<_>>(), [[outcome]]);
        assert!(!reports[0].untouched);
    }
    let lines = after(
        &PLAIN,
        &[
            "C: MAIL FROM:<s@a.example>",
            "S: 250 ok",
            "C: RCPT TO:<r@b.example>",
            "S: 250 ok",
            "C: DATA",
            "S: 354 go",
            "D: x\r\n.\r\n",
            "S: 250 queued",
            "C: QUIT",
            "S: 221 bye",
        ],
    );
    let no = "0 failed 553 5.6.7 address or header is not ASCII, and the next host does not offer SMTPUTF8";
    Play::new(vec![(utf8, "x\r\n")]).check(&lines, &[&[no, "1 delivered 250 queued"]]);
}
