//! An SMTP client that does what a test says, right or wrong, and one that replays a dialogue from a file.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use super::PATIENCE;

/// One connection.
pub struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// All that was said, for the message of a failed test.
    transcript: String,
}

impl Peer {
    /// Connects, and reads nothing yet.
    #[track_caller]
    pub fn connect(port: u16) -> Self {
        Self::try_connect(port).unwrap()
    }

    /// Connects to a server that may be down.
    pub fn try_connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new(), transcript: String::new() })
    }

    /// Connects, reads the greeting and says EHLO.
    #[track_caller]
    pub fn hello(port: u16) -> Self {
        let mut peer = Self::connect(port);
        peer.expect("220");
        peer.say("EHLO client.example.test", "250");
        peer
    }

    /// Sends octets as they are.
    pub fn send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.transcript += &format!("C: {}\n", octets.escape_ascii());
        self.stream.write_all(octets)
    }

    /// Sends octets that are not worth a place in the transcript.
    pub fn send_quietly(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(octets)
    }

    /// Sends a line and wants a reply that begins so; returns the whole reply.
    #[track_caller]
    pub fn say(&mut self, line: &str, reply: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).unwrap();
        self.expect(reply)
    }

    /// Reads a reply, all its lines, and wants its last line to begin so.
    #[track_caller]
    pub fn expect(&mut self, start: &str) -> String {
        let reply = self.reply().unwrap_or_else(|error| panic!("{error} instead of {start}\n{}", self.transcript));
        let last = reply.lines().last().unwrap_or_default();
        assert!(last.starts_with(start), "got {reply:?} instead of {start}\n{}", self.transcript);
        reply
    }

    /// One reply, lines parted by LF.
    pub fn reply(&mut self) -> std::io::Result<String> {
        let mut reply = String::new();
        loop {
            let line = self.line()?;
            reply += &line;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(reply);
            }
            reply.push('\n');
        }
    }

    /// One line, without its CRLF. A line that ends otherwise is an error.
    pub fn line(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = line.strip_suffix(b"\r\n").ok_or(ErrorKind::InvalidData)?;
                let line = String::from_utf8_lossy(line).into_owned();
                self.transcript += &format!("S: {line}\n");
                return Ok(line);
            }
            let mut octets = [0; 4096];
            match self.stream.read(&mut octets)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.buffer.extend_from_slice(&octets[..count]),
            }
        }
    }

    /// Wants the server to close without a further word.
    #[track_caller]
    pub fn expect_close(&mut self) {
        match self.line() {
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {}
            other => panic!("{other:?} instead of the end\n{}", self.transcript),
        }
    }

    /// A whole transaction; returns the reply to the end of data. `message` has CRLF line ends; dots get stuffed.
    #[track_caller]
    pub fn deliver(&mut self, sender: &str, recipients: &[&str], message: &str) -> String {
        self.say(&format!("MAIL FROM:<{sender}>"), "250");
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>"), "250");
        }
        self.say("DATA", "354");
        self.send_message(message)
    }

    /// A whole transaction that may fail anywhere; returns the first reply that is no yes, or the last one.
    #[track_caller]
    pub fn try_deliver(&mut self, sender: &str, recipient: &str, message: &str) -> String {
        for command in [format!("MAIL FROM:<{sender}>"), format!("RCPT TO:<{recipient}>"), "DATA".into()] {
            let reply = self.say(&command, "");
            if !reply.starts_with(['2', '3']) {
                return reply;
            }
        }
        self.send_message(message)
    }

    #[track_caller]
    fn send_message(&mut self, message: &str) -> String {
        let octets = stuffed(message);
        self.transcript += &format!("C: a message of {} octets\n", octets.len());
        self.send_quietly(octets.as_bytes()).unwrap();
        self.reply().unwrap_or_else(|error| panic!("{error} instead of a reply\n{}", self.transcript))
    }
}

/// RFC 5321 §4.5.2, with the end of data.
fn stuffed(message: &str) -> String {
    let mut text: String = message
        .split_inclusive('\n')
        .map(|line| if line.starts_with('.') { format!(".{line}") } else { line.into() })
        .collect();
    if !text.ends_with("\r\n") {
        text += "\r\n";
    }
    text + ".\r\n"
}

/// Replays `dialogues/NAME.smtp` on connections of its own.
///
/// | line | |
/// |---|---|
/// | `C: text` | sends the text and CRLF |
/// | `R: text` | sends the text alone |
/// | `S: text` | one line of a reply; `*` stands for anything |
/// | `S. 250 text` | a reply, however many lines, the last of which is this |
/// | `X` | the server closes |
/// | `---` | a new connection |
///
/// In `C` and `R`, `\r`, `\n`, `\0`, `\\` and `\xNN` mean what they mean in Rust, and `{NAME}` is replaced as given.
#[track_caller]
pub fn play(name: &str, port: u16, names: &[(&str, &str)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues").join(format!("{name}.smtp"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut peer = Peer::connect(port);
    for (index, line) in text.lines().enumerate() {
        let line =
            names.iter().fold(line.to_owned(), |line, (name, value)| line.replace(&format!("{{{name}}}"), value));
        let place = format!("{name}.smtp:{}", index + 1);
        if let Err(error) = step(&mut peer, &line, port) {
            panic!("{place}: {line}: {error}\n{}", peer.transcript);
        }
    }
}

fn step(peer: &mut Peer, line: &str, port: u16) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    match (line.trim_end(), line.split_once(' ').unwrap_or((line, ""))) {
        ("", _) => {}
        ("X", _) => peer.expect_close(),
        ("---", _) => *peer = Peer::connect(port),
        (_, ("#", _)) => {}
        (_, ("C:", text)) => peer.send(&[&unescaped(text)?[..], b"\r\n"].concat()).map_err(told)?,
        (_, ("R:", text)) => peer.send(&unescaped(text)?).map_err(told)?,
        (_, ("S:", pattern)) => matched(pattern, &peer.line().map_err(told)?)?,
        (_, ("S.", pattern)) => matched(pattern, peer.reply().map_err(told)?.lines().last().unwrap_or_default())?,
        _ => return Err("no line of a dialogue".into()),
    }
    Ok(())
}

fn matched(pattern: &str, line: &str) -> Result<(), String> {
    if matches(pattern.trim_end(), line) { Ok(()) } else { Err(format!("got {line:?}")) }
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, &text[at..]))
        }),
    }
}

fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        octets.extend_from_slice(before.as_bytes());
        let (octet, length) = match after.as_bytes() {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', ..] => {
                let digits = after.get(1..3).ok_or("\\x wants two digits")?;
                (u8::from_str_radix(digits, 16).map_err(|_| "\\x wants two digits")?, 3)
            }
            _ => return Err("no such escape".into()),
        };
        octets.push(octet);
        rest = &after[length..];
    }
    octets.extend_from_slice(rest.as_bytes());
    Ok(octets)
}

#[test]
fn patterns_and_escapes() {
    assert!(matches("250 2.1.0 *", "250 2.1.0 ok") && matches("250*queued*", "250 2.0.0 queued as X"));
    assert!(!matches("250 2.1.0 *", "250 2.1.5 ok") && !matches("250", "250 ok"));
    assert_eq!(unescaped(r"a\r\n\x00\\.").unwrap(), b"a\r\n\0\\.");
    assert!(unescaped(r"\q").is_err() && unescaped(r"\x0").is_err());
    assert_eq!(stuffed(".a\r\nb"), "..a\r\nb\r\n.\r\n");
}
