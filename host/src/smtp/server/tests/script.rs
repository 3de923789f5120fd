//! A driver for tests: it answers what the machine asks by simple rules and remembers what it was given.

use std::collections::BTreeMap;

use super::*;

/// How the host around the machine behaves.
#[derive(Clone, Default)]
pub struct Script {
    pub config: Config,
    /// What the policies say; a stage without an entry has no policies.
    pub verdicts: BTreeMap<Stage, Verdict>,
    /// Whether the queue has room.
    pub full: bool,
    /// What the queue says of a whole message, if not 250.
    pub queue: Option<Reply>,
}

impl Script {
    pub fn settings(&self) -> Arc<Settings> {
        let hostname: Domain = "mx.example".parse().unwrap();
        Settings::new(self.config.clone(), hostname)
    }
}

/// A message that was handed over.
pub struct Taken {
    pub envelope: Arc<Envelope>,
    pub content: Vec<u8>,
    pub fate: Fate,
}

#[derive(Default)]
pub struct Outcome {
    pub output: String,
    pub taken: Vec<Taken>,
    pub opened: usize,
    pub aborted: usize,
    pub spills: usize,
    pub consulted: Vec<Stage>,
    pub refusals: Vec<Refusal>,
    pub closed: bool,
    pub in_transaction: bool,
}

pub fn session() -> Session {
    Session {
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
    }
}

/// Says all of it in pieces of so many octets (0: random), whatever the replies are.
pub fn talk(script: &Script, said: &[u8], piece: usize) -> Outcome {
    let mut server = Server::new(script.settings(), script.verdicts.keys().copied().collect(), session());
    let (mut input, mut output, mut outcome) = (Input::new(), Vec::new(), Outcome::default());
    let (mut rest, mut content) = (said, Vec::new());
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps < 20 * said.len() + 1000, "the machine runs in circles");
        let action = server.next(&mut input, &mut output);
        outcome.refusals.append(&mut server.take_refusals());
        match action {
            Action::Read if rest.is_empty() => break,
            Action::Read => {
                let most = if piece == 0 { fastrand::usize(1..=rest.len().min(60)) } else { piece };
                let (now, later) = rest.split_at(most.min(rest.len()));
                input.push(now);
                rest = later;
            }
            Action::Consult(stage) => {
                outcome.consulted.push(stage);
                server.judged(script.verdicts[&stage].clone());
            }
            Action::Resolve => {
                let unknown = server.recipient().unwrap().forward_path.to_string().starts_with("unknown@");
                server.resolved(if unknown { Err(Reply::permanent(550, (1, 1), "no such user")) } else { Ok(()) });
            }
            Action::Open => {
                outcome.opened += 1;
                let id = QueueId::from_u64(outcome.opened as u64);
                server.opened(if script.full { Err(Reply::transient(452, (3, 1), "no room")) } else { Ok(id) });
            }
            Action::Spill => {
                outcome.spills += 1;
                let piece = server.take_content();
                assert!(!piece.is_empty());
                content.extend(piece);
            }
            Action::Finish => {
                content.extend(server.take_content());
                let envelope = Arc::clone(server.envelope().unwrap());
                let fate = server.fate();
                let reply = script.queue.clone().unwrap_or_else(|| {
                    let number = outcome.taken.len() + 1;
                    outcome.taken.push(Taken { envelope, content: std::mem::take(&mut content), fate });
                    Reply::positive(250, (0, 0), format!("Ok: queued as {number}"))
                });
                content.clear();
                server.finished(reply);
            }
            Action::Abort => {
                outcome.aborted += 1;
                content.clear();
            }
            Action::Close => {
                outcome.closed = true;
                break;
            }
        }
    }
    outcome.in_transaction = server.in_transaction() && !outcome.closed;
    outcome.output = String::from_utf8(output).unwrap();
    outcome
}
