//! Delivery to another host: carries octets between it and `smtp::Client`, and letters over one connection, one after the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::route::{NextHop, NextHost};
use crate::mail::{Domain, Envelope, Host, Reply};
use crate::queue::Letter;
use crate::smtp::{self, Client, ClientConfig, Dialect, Ending, Input, Report, Step};

/// Octets read at once: replies are short.
const READ: usize = 4 * 1024;
/// Octets that are gathered before they are written, and octets of a body in a file that are read at once.
const PIECE: usize = 64 * 1024;

/// A connection to a next hop.
pub(super) struct Connection {
    stream: TcpStream,
    /// Name, address and port, for log and notices.
    peer: String,
    client: Client,
    input: Input,
    output: Vec<u8>,
    /// Letters that went over it.
    letters: u32,
}

/// What is to be delivered: a message for some of its recipients.
pub(super) struct Parcel<'a> {
    pub envelope: &'a Arc<Envelope>,
    /// Indices into the envelope.
    pub recipients: Vec<usize>,
    pub letter: &'a Letter,
}

impl Connection {
    /// Connects, and says EHLO when the first letter is sent. The reply tells why that failed.
    pub async fn open(
        hop: &NextHop,
        connect_timeout: Duration,
        config: &Arc<ClientConfig>,
        hostname: &Domain,
    ) -> Result<Self, Reply> {
        let failed = |why: &dyn std::fmt::Display| Reply::transient(451, (4, 1), format!("connect to {hop}: {why}"));
        let connecting = async {
            match hop.host() {
                NextHost::Address(address) => TcpStream::connect((*address, hop.port())).await,
                // Each of its addresses in turn.
                NextHost::Name(name) => TcpStream::connect((name.as_str(), hop.port())).await,
            }
        };
        let stream = match timeout(connect_timeout, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(err)) => return Err(failed(&err)),
            Err(_) => return Err(failed(&"timed out")),
        };
        let peer = match stream.peer_addr() {
            Ok(address) => format!("{}[{}]:{}", hop.name(), address.ip(), address.port()),
            Err(_) => hop.to_string(),
        };
        let _ = stream.set_nodelay(true); // what is written at once is sent at once
        let client = Client::new(Arc::clone(config), Dialect::Smtp, Host::Domain(hostname.clone()));
        Ok(Self { stream, peer, client, input: Input::new(), output: Vec::new(), letters: 0 })
    }

    /// Until the greeting and EHLO are through. The reply tells why they are not.
    pub async fn greet(&mut self) -> Result<(), Reply> {
        loop {
            match self.client.next(&mut self.input, &mut self.output) {
                Step::Read => self.exchange().await,
                Step::Ready => return Ok(()),
                Step::Close => return Err(self.ending()),
                Step::Content | Step::Done(_) => {} // nothing has been sent yet
            }
        }
    }

    /// Whether the host has said that it does not want us.
    pub fn was_refused(&self) -> bool {
        matches!(self.client.ending(), Some(Ending::Refused(_)))
    }

    /// Whether another letter may go over it.
    pub fn is_usable(&self) -> bool {
        self.client.takes_letter()
    }

    /// Whom it reaches.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// How many letters went over it.
    pub fn letters(&self) -> u32 {
        self.letters
    }

    /// Whether it has carried a letter before: if the next one stays untouched, the server has closed it meanwhile and a new
    /// connection may do better.
    pub fn is_used(&self) -> bool {
        self.letters > 1
    }

    /// Whether the host takes over the duty to tell the sender of success (RFC 3461 §5.2.1).
    pub fn offers_dsn(&self) -> bool {
        self.client.capabilities().dsn
    }

    /// Hands a message over. Whatever happens, there is an outcome for each recipient.
    pub async fn deliver(&mut self, parcel: Parcel<'_>) -> Report {
        self.letters += 1;
        let letter = self.describe(&parcel);
        if let Err(letter) = self.client.send(letter, &mut self.output) {
            return deferred(&letter.recipients, &self.ending());
        }
        let recipients = parcel.recipients;
        loop {
            match self.client.next(&mut self.input, &mut self.output) {
                Step::Read => self.exchange().await,
                Step::Content => {
                    if let Err(reply) = self.content(parcel.letter).await {
                        return deferred(&recipients, &reply);
                    }
                }
                Step::Done(report) => return report,
                Step::Ready | Step::Close => return deferred(&recipients, &self.ending()),
            }
        }
    }

    fn describe(&self, parcel: &Parcel<'_>) -> smtp::Letter {
        let utf8_header = !parcel.letter.header().is_ascii();
        let eight_bit = match parcel.letter.body_slice() {
            Some(body) => utf8_header || !body.is_ascii(),
            // Not read twice for that: where 8BITMIME is offered, saying so costs nothing.
            None => self.offers_eight_bit() || utf8_header || has_eight_bit(parcel.letter),
        };
        smtp::Letter {
            envelope: Arc::clone(parcel.envelope),
            recipients: parcel.recipients.clone(),
            size: parcel.letter.len(),
            eight_bit,
            utf8_header,
        }
    }

    fn offers_eight_bit(&self) -> bool {
        self.client.capabilities().eight_bit_mime
    }

    /// Header section, empty line and body. What can be written at once is.
    async fn content(&mut self, letter: &Letter) -> Result<(), Reply> {
        self.client.content(letter.header(), &mut self.output);
        self.client.content(b"\r\n", &mut self.output);
        if let Some(body) = letter.body_slice() {
            for piece in body.chunks(PIECE) {
                self.client.content(piece, &mut self.output);
                self.flush_large().await;
            }
        } else {
            let mut piece = vec![0; PIECE];
            let mut at = 0;
            while at < letter.body_len() {
                let n = read(letter, at, &mut piece).map_err(|err| {
                    // The server has seen half a message and must never see its end.
                    self.client.disconnected();
                    Reply::transient(451, (3, 0), format!("message cannot be read: {err}"))
                })?;
                self.client.content(piece.get(..n).unwrap_or_default(), &mut self.output);
                self.flush_large().await;
                at += n as u64;
            }
        }
        self.client.content_end(&mut self.output);
        Ok(())
    }

    async fn flush_large(&mut self) {
        if self.output.len() >= PIECE {
            self.flush().await;
        }
    }

    /// Writes what there is to say, then reads.
    async fn exchange(&mut self) {
        self.flush().await;
        if self.client.ending().is_some() {
            return;
        }
        let limit = self.client.timeout();
        match timeout(limit, self.stream.read(self.input.space(READ))).await {
            Ok(Ok(0) | Err(_)) => self.client.disconnected(),
            Ok(Ok(n)) => self.input.filled(n),
            Err(_) => self.client.timed_out(),
        }
    }

    async fn flush(&mut self) {
        if self.output.is_empty() {
            return;
        }
        let written = timeout(self.client.timeout(), self.stream.write_all(&self.output)).await;
        self.output.clear();
        match written {
            Ok(Ok(())) => {}
            Ok(Err(_)) => self.client.disconnected(),
            Err(_) => self.client.timed_out(),
        }
    }

    /// Whether the server has closed the connection, or said something unasked (421, most likely), while nobody used it.
    pub fn is_stale(&self) -> bool {
        let mut octet = [0];
        match self.stream.try_read(&mut octet) {
            Err(err) => err.kind() != io::ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }

    /// Says QUIT and does not wait long for the answer.
    pub async fn quit(mut self) {
        self.client.quit(&mut self.output);
        loop {
            match self.client.next(&mut self.input, &mut self.output) {
                Step::Read => self.exchange().await,
                _ => return,
            }
        }
    }

    fn ending(&self) -> Reply {
        match self.client.ending() {
            Some(Ending::Refused(reply) | Ending::Broken(reply)) => reply.clone(),
            Some(Ending::Quit) | None => Reply::transient(451, (4, 2), "the connection was closed"),
        }
    }
}

fn deferred(recipients: &[usize], reply: &Reply) -> Report {
    let outcome = smtp::Outcome::Deferred(reply.clone());
    Report { outcomes: recipients.iter().map(|index| (*index, outcome.clone())).collect(), untouched: false }
}

/// Reads from a body in a file: the page cache has most of it, and what it has not is one short wait.
fn read(letter: &Letter, at: u64, piece: &mut [u8]) -> io::Result<usize> {
    match letter.read_body_at(at, piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => Ok(n),
    }
}

fn has_eight_bit(letter: &Letter) -> bool {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < letter.body_len() {
        match read(letter, at, &mut piece) {
            Ok(n) if piece.get(..n).is_some_and(<[u8]>::is_ascii) => at += n as u64,
            // What cannot be read is found out, and reported, when it is sent.
            _ => return true,
        }
    }
    false
}
