//! The next hop: an SMTP server that records what it gets and fails where a test wants it to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{PATIENCE, wait_for};

/// Where in a session something can be made to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before 220.
    Greeting,
    /// At EHLO or HELO.
    Hello,
    /// At MAIL.
    Mail,
    /// At RCPT.
    Rcpt,
    /// At DATA.
    Data,
    /// After the end of data.
    EndOfData,
}

/// What the sink does there.
#[derive(Debug, Clone)]
pub enum Answer {
    /// This reply, without CRLF. What is not answered with 2yz is not taken.
    Say(String),
    /// Nothing, and the connection stays.
    Stall,
    /// Closes.
    Drop,
    /// Takes what it got and closes without a word: the sender cannot know.
    TakeAndDrop,
}

/// A message that the sink took.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The line of MAIL from `FROM:` on.
    pub mail: String,
    /// The lines of RCPT from `TO:` on.
    pub rcpt: Vec<String>,
    /// The message, dots unstuffed, without the end of data.
    pub data: String,
}

#[derive(Default)]
struct Shared {
    taken: Mutex<Vec<Taken>>,
    answers: Mutex<HashMap<Point, Answer>>,
    connections: Mutex<usize>,
}

/// Listens until the test ends.
pub struct Sink {
    /// On 127.0.0.1.
    pub port: u16,
    shared: Arc<Shared>,
}

impl Sink {
    /// On a port that the system chooses.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                *shared.connections.lock().unwrap() += 1;
                // A peer that goes away in mid-session is no failure of the test.
                thread::spawn(move || Session::new(stream, &shared).map(Session::serve));
            }
        });
        Self { port, shared }
    }

    /// From now on answers so at this point.
    pub fn at(&self, point: Point, answer: Answer) {
        self.shared.answers.lock().unwrap().insert(point, answer);
    }

    /// From now on answers as it should.
    pub fn behave(&self) {
        self.shared.answers.lock().unwrap().clear();
    }

    /// What it took so far.
    pub fn taken(&self) -> Vec<Taken> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }

    /// Waits until it took so many; more are a failure.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Taken> {
        let taken = wait_for(&format!("{count} messages at the sink"), || {
            let taken = self.taken();
            (taken.len() >= count).then_some(taken)
        });
        assert_eq!(taken.len(), count, "{taken:?}");
        taken
    }
}

struct Session<'a> {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
    shared: &'a Shared,
    mail: String,
    rcpt: Vec<String>,
}

/// Ends a session.
struct Over;

impl<'a> Session<'a> {
    fn new(stream: TcpStream, shared: &'a Shared) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self { reader, stream, shared, mail: String::new(), rcpt: Vec::new() })
    }

    fn serve(mut self) {
        let _ = self.session();
    }

    fn session(&mut self) -> Result<(), Over> {
        self.answer(Point::Greeting, "220 sink.example.test ESMTP")?;
        loop {
            let line = self.line()?;
            let verb = line.get(..4).unwrap_or(&line).to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" | "HELO" => {
                    let extensions = "250-sink.example.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 SIZE 0";
                    self.answer(Point::Hello, extensions)?;
                }
                "MAIL" => {
                    self.mail.clear();
                    self.rcpt.clear();
                    if self.answer(Point::Mail, "250 2.1.0 ok")? {
                        self.mail = line.get(5..).unwrap_or_default().into();
                    }
                }
                "RCPT" if self.mail.is_empty() => self.say("503 5.5.1 need MAIL")?,
                "RCPT" => {
                    if self.answer(Point::Rcpt, "250 2.1.5 ok")? {
                        self.rcpt.push(line.get(5..).unwrap_or_default().into());
                    }
                }
                "DATA" if self.rcpt.is_empty() => self.say("554 5.5.1 no valid recipients")?,
                "DATA" => {
                    if self.answer(Point::Data, "354 go on")? {
                        self.data()?;
                    }
                }
                "RSET" => {
                    self.mail.clear();
                    self.rcpt.clear();
                    self.say("250 2.0.0 ok")?;
                }
                "NOOP" => self.say("250 2.0.0 ok")?,
                "QUIT" => {
                    self.say("221 2.0.0 bye")?;
                    return Err(Over);
                }
                _ => self.say("500 5.5.2 no such command")?,
            }
        }
    }

    fn data(&mut self) -> Result<(), Over> {
        let mut data = String::new();
        loop {
            let line = self.line()?;
            if line == "." {
                break;
            }
            data += line.strip_prefix('.').unwrap_or(&line);
            data += "\r\n";
        }
        let taken = Taken { mail: std::mem::take(&mut self.mail), rcpt: std::mem::take(&mut self.rcpt), data };
        let answers = self.shared.answers.lock().unwrap().get(&Point::EndOfData).cloned();
        let takes = match &answers {
            None | Some(Answer::TakeAndDrop) => true,
            Some(Answer::Say(reply)) => reply.starts_with('2'),
            Some(_) => false,
        };
        if takes {
            self.shared.taken.lock().unwrap().push(taken);
        }
        self.answer(Point::EndOfData, "250 2.0.0 taken").map(drop)
    }

    /// Answers as the test wants or as it should; tells whether that was a yes.
    fn answer(&mut self, point: Point, usual: &str) -> Result<bool, Over> {
        let wanted = self.shared.answers.lock().unwrap().get(&point).cloned();
        match wanted {
            None => self.say(usual).map(|()| true),
            Some(Answer::Say(reply)) => {
                self.say(&reply).map(|()| matches!(reply.as_bytes().first(), Some(b'2' | b'3')))
            }
            Some(Answer::Stall) => {
                // Until the other side loses patience.
                let _ = self.stream.set_read_timeout(Some(PATIENCE * 2));
                let _ = std::io::copy(&mut self.reader.by_ref().take(1 << 30), &mut std::io::sink());
                Err(Over)
            }
            Some(Answer::Drop | Answer::TakeAndDrop) => Err(Over),
        }
    }

    fn say(&mut self, reply: &str) -> Result<(), Over> {
        self.stream.write_all(format!("{reply}\r\n").as_bytes()).map_err(|_| Over)
    }

    fn line(&mut self) -> Result<String, Over> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(count) if count > 0 && line.ends_with(b"\r\n") => {
                line.truncate(line.len() - 2);
                Ok(String::from_utf8_lossy(&line).into_owned())
            }
            _ => Err(Over),
        }
    }
}
