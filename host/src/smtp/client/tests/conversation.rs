//! The two machines of this room talk to each other, in memory.

use super::*;
use crate::mail::QueueId;
use crate::policy::{Notes, Session};
use crate::smtp::{Action, Config, Server, Settings, Stages};

fn server(config: Config) -> Server {
    let session = Session {
        id: "s".into(),
        listener: "mx".into(),
        client: "192.0.2.1:4711".parse().unwrap(),
        local: "127.0.0.1:25".parse().unwrap(),
        client_name: None,
        helo: None,
        extended: false,
        tls: None,
        user: None,
        trusted: false,
        notes: Notes::default(),
    };
    Server::new(Settings::new(config, "mx.example".parse().unwrap()), Stages::NONE, session)
}

struct Both {
    server: Server,
    to_server: Input,
    to_client: Input,
    taken: Vec<(Arc<Envelope>, Vec<u8>)>,
    turns: usize,
}

impl Both {
    /// Gives the server what the client wrote, in random pieces, and the client what the server answers.
    fn turn(&mut self, written: &mut Vec<u8>) -> bool {
        let mut output = Vec::new();
        let mut rest = written.as_slice();
        self.turns += 1;
        let open = loop {
            match self.server.next(&mut self.to_server, &mut output) {
                Action::Read if rest.is_empty() => break true,
                Action::Read => {
                    let (now, later) = rest.split_at(fastrand::usize(1..=rest.len()));
                    self.to_server.push(now);
                    rest = later;
                }
                Action::Open => self.server.opened(Ok(QueueId::from_u64(1))),
                Action::Resolve => {
                    let path = self.server.recipient().unwrap().forward_path.to_string();
                    let known = !path.starts_with("unknown");
                    self.server.resolved(if known { Ok(()) } else { Err(Reply::permanent(550, (1, 1), "unknown")) });
                }
                Action::Finish => {
                    let content = self.server.take_content();
                    self.taken.push((Arc::clone(self.server.envelope().unwrap()), content));
                    self.server.finished(Reply::positive(250, (0, 0), "Ok"));
                }
                Action::Abort => {}
                Action::Close => break false,
                other => panic!("{other:?}"),
            }
        };
        written.clear();
        self.to_client.push(&output);
        open
    }
}

fn converse(client_config: ClientConfig, server_config: Config, contents: &[Vec<u8>]) -> (Both, Vec<Vec<String>>) {
    let mut both = Both {
        server: server(server_config),
        to_server: Input::new(),
        to_client: Input::new(),
        taken: Vec::new(),
        turns: 0,
    };
    let mut client = Client::new(Arc::new(client_config), Dialect::Smtp, "me.example".parse().unwrap());
    let (mut output, mut reports, mut sent, mut sending) = (Vec::new(), Vec::new(), 0, 0);
    loop {
        let step = client.next(&mut both.to_client, &mut output);
        let reading = step == Step::Read;
        match step {
            Step::Content => {
                let content = &contents[sending];
                for piece in content.chunks(100) {
                    client.content(piece, &mut output);
                }
                client.content_end(&mut output);
                sending += 1;
            }
            Step::Done(report) => reports.push(show(&report)),
            Step::Close => return (both, reports),
            Step::Read | Step::Ready => {}
        }
        if client.takes_letter() {
            if sent < contents.len() {
                let size = contents[sent].len() as u64;
                client.send(Letter { size, ..letter(&["r@b.example", "unknown@b.example"]) }, &mut output).unwrap();
                sent += 1;
            } else {
                client.quit(&mut output);
            }
        } else if reading {
            both.turn(&mut output);
        }
    }
}

#[test]
fn every_content_arrives_as_it_was_sent() {
    fastrand::seed(11);
    let words = [&b"\r\n"[..], b".", b"..", b"text", b"\r\n.\r\n", b"MAIL FROM:<>", b"\xff\x00"];
    for round in 0..200 {
        let contents: Vec<Vec<u8>> = (0..fastrand::usize(1..5))
            .map(|_| (0..fastrand::usize(..60)).flat_map(|_| fastrand::choice(words).unwrap().to_vec()).collect())
            .collect();
        let transfer = if round % 2 == 0 { Transfer::Data } else { Transfer::Chunking };
        let chunk_size = ByteSize::from_bytes(fastrand::u64(1..300));
        let client_config = ClientConfig { transfer, chunk_size, ..ClientConfig::default() };
        let all = [Extension::Pipelining, Extension::Chunking, Extension::Dsn];
        let disabled_extensions = all.into_iter().filter(|_| fastrand::u8(..3) == 0).collect();
        let (both, reports) =
            converse(client_config, Config { disabled_extensions, max_errors: 100, ..Config::default() }, &contents);
        for (content, (envelope, arrived)) in contents.iter().zip(&both.taken) {
            let mut expected = content.clone();
            if !expected.is_empty() && !expected.ends_with(b"\r\n") {
                expected.extend_from_slice(b"\r\n");
            }
            assert_eq!(arrived, &expected);
            assert_eq!(envelope.recipients.len(), 1);
        }
        assert_eq!(both.taken.len(), contents.len());
        assert_eq!(reports, vec![["0 delivered 250 2.0.0 Ok", "1 failed 550 5.1.1 unknown"]; contents.len()]);
    }
}

#[test]
fn round_trips() {
    let contents = vec![b"Subject: x\r\n\r\ntext\r\n".to_vec(); 10];
    for (transfer, turns) in [(Transfer::Data, 2 + 1 + 10), (Transfer::Chunking, 2 + 10)] {
        let config = ClientConfig { transfer, ..ClientConfig::default() };
        let (both, reports) = converse(config, Config::default(), &contents);
        assert_eq!(reports.len(), 10);
        assert_eq!(both.turns, turns, "greeting, EHLO, then one for each message, {transfer:?}");
    }
}
