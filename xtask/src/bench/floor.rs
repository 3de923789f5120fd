//! The least that any durable MTA must do, as a yardstick; not a product. One thread receives over bare epoll; another
//! writes all messages that arrived during its last `fdatasync` to a journal and syncs once; 250 is said only then;
//! the first thread relays over kept connections with MAIL, RCPT and DATA in one write. No policy, log, retry or header.
//!
//! With sink port 0 it keeps what it gets: that is the sink which `relay` uses to look for lost or doubled messages.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use memchr::{memchr, memmem};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use crate::machine::Result;

const LISTENER: u64 = 0;
const SYNCED: u64 = 1;
const FIRST_RELAY: u64 = 2;
const FIRST_CLIENT: u64 = 1 << 32;
/// Connections to the sink.
const CONNECTIONS: usize = 10;
const END_OF_DATA: &[u8] = b"\r\n.\r\n";

/// How the floor is set up.
pub struct Config {
    /// On 127.0.0.1.
    pub port: u16,
    /// The file that all messages are appended to.
    pub journal: PathBuf,
    /// Where to relay to; 0: nowhere.
    pub sink_port: u16,
}

struct Mail {
    client: u64,
    sender: String,
    recipient: String,
    data: Vec<u8>,
}

/// What the two threads share: messages on their way to the disk and back.
#[derive(Default)]
struct Journal {
    waiting: Mutex<Vec<Mail>>,
    arrived: Condvar,
    synced: Mutex<Vec<Mail>>,
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    in_data: bool,
    sender: String,
    recipient: String,
}

enum Step {
    Greeting,
    Hello,
    Idle,
    Envelope,
    Data,
}

struct Relay {
    stream: TcpStream,
    step: Step,
    buffer: Vec<u8>,
    mail: Option<Mail>,
}

struct Floor {
    config: Config,
    epoll: OwnedFd,
    listener: TcpListener,
    wake: Arc<OwnedFd>,
    journal: Arc<Journal>,
    clients: HashMap<u64, Client>,
    next_client: u64,
    relays: Vec<Option<Relay>>,
    ready: VecDeque<Mail>,
    scratch: Vec<u8>,
}

/// Serves until it is killed.
pub fn serve(config: Config) -> Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port))?;
    listener.set_nonblocking(true)?;
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    epoll::add(&epoll, &wake, EventData::new_u64(SYNCED), EventFlags::IN)?;
    let journal = Arc::new(Journal::default());
    let file = File::create(&config.journal)?;
    let (shared, waker) = (Arc::clone(&journal), Arc::clone(&wake));
    std::thread::spawn(move || {
        if let Err(error) = shared.write(file, &waker) {
            eprintln!("floor: journal: {error}");
            std::process::exit(1);
        }
    });
    let relays = (0..if config.sink_port == 0 { 0 } else { CONNECTIONS }).map(|_| None).collect();
    let mut floor = Floor {
        config,
        epoll,
        listener,
        wake,
        journal,
        clients: HashMap::new(),
        next_client: FIRST_CLIENT,
        relays,
        ready: VecDeque::new(),
        scratch: vec![0; 64 * 1024],
    };
    floor.run()
}

impl Journal {
    fn write(&self, mut file: File, wake: &OwnedFd) -> std::io::Result<()> {
        let mut batch = Vec::new();
        loop {
            let mails = {
                let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let filled = self.arrived.wait_while(waiting, |mails| mails.is_empty());
                std::mem::take(&mut *filled.unwrap_or_else(PoisonError::into_inner))
            };
            batch.clear();
            for mail in &mails {
                writeln!(batch, "M {} {} {}", mail.data.len(), mail.sender, mail.recipient)?;
                batch.extend_from_slice(&mail.data);
            }
            file.write_all(&batch)?;
            file.sync_data()?;
            self.synced.lock().unwrap_or_else(PoisonError::into_inner).extend(mails);
            rustix::io::write(wake, &1u64.to_ne_bytes())?;
        }
    }
}

impl Floor {
    fn run(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(256);
        loop {
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    SYNCED => self.synced()?,
                    token if token >= FIRST_CLIENT => self.client_readable(token),
                    token => self.relay_readable((token - FIRST_RELAY) as usize),
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        while let Ok((mut stream, _)) = self.listener.accept() {
            stream.set_nodelay(true)?;
            let token = self.next_client;
            self.next_client += 1;
            epoll::add(&self.epoll, &stream, EventData::new_u64(token), EventFlags::IN)?;
            let _ = stream.write_all(b"220 floor ESMTP\r\n");
            let buffer = Vec::with_capacity(4096);
            let client = Client { stream, buffer, in_data: false, sender: String::new(), recipient: String::new() };
            self.clients.insert(token, client);
        }
        Ok(())
    }

    /// One read for each event (the sockets are blocking, the events level-triggered).
    fn client_readable(&mut self, token: u64) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        let stays = match client.stream.read(&mut self.scratch) {
            Ok(0) | Err(_) => false,
            Ok(count) => client.take(&self.scratch[..count], token, &self.journal),
        };
        if !stays {
            self.clients.remove(&token);
        }
    }

    /// The disk has them: say 250 and pass them on.
    fn synced(&mut self) -> Result<()> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        let mails = std::mem::take(&mut *self.journal.synced.lock().unwrap_or_else(PoisonError::into_inner));
        for mail in mails {
            if let Some(client) = self.clients.get_mut(&mail.client) {
                let _ = client.stream.write_all(b"250 queued\r\n");
            }
            if !self.relays.is_empty() {
                self.ready.push_back(mail);
            }
        }
        if !self.ready.is_empty() {
            self.connect()?;
            self.pump();
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<()> {
        for (index, relay) in self.relays.iter_mut().enumerate().filter(|(_, relay)| relay.is_none()) {
            let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.config.sink_port)) else {
                std::thread::sleep(Duration::from_millis(10));
                return Ok(());
            };
            stream.set_nodelay(true)?;
            let token = FIRST_RELAY + index as u64;
            epoll::add(&self.epoll, &stream, EventData::new_u64(token), EventFlags::IN)?;
            *relay = Some(Relay { stream, step: Step::Greeting, buffer: Vec::new(), mail: None });
        }
        Ok(())
    }

    fn pump(&mut self) {
        for relay in self.relays.iter_mut().flatten().filter(|relay| matches!(relay.step, Step::Idle)) {
            let Some(mail) = self.ready.pop_front() else { return };
            let envelope = format!("MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n", mail.sender, mail.recipient);
            relay.mail = Some(mail);
            relay.step = Step::Envelope;
            let _ = relay.stream.write_all(envelope.as_bytes());
        }
    }

    fn relay_readable(&mut self, index: usize) {
        let Some(Some(relay)) = self.relays.get_mut(index) else { return };
        match relay.stream.read(&mut self.scratch) {
            Ok(count) if count > 0 && relay.take(&self.scratch[..count]).is_ok() => {}
            _ => {
                self.ready.extend(relay.mail.take());
                self.relays[index] = None;
            }
        }
        self.pump();
    }
}

impl Client {
    /// Takes what has arrived; false when the client is gone.
    fn take(&mut self, octets: &[u8], token: u64, journal: &Journal) -> bool {
        let searched = self.buffer.len().saturating_sub(END_OF_DATA.len() - 1);
        self.buffer.extend_from_slice(octets);
        if self.in_data {
            let Some(at) = memmem::find(&self.buffer[searched..], END_OF_DATA) else { return true };
            let rest = self.buffer.split_off(searched + at + END_OF_DATA.len());
            let data = std::mem::replace(&mut self.buffer, rest);
            let (sender, recipient) = (self.sender.clone(), self.recipient.clone());
            self.in_data = false;
            let mail = Mail { client: token, sender, recipient, data };
            journal.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
            journal.arrived.notify_one();
        }
        let mut replies: Vec<u8> = Vec::new();
        let mut done = 0;
        while !self.in_data
            && let Some(end) = memchr(b'\n', &self.buffer[done..])
        {
            let line = &self.buffer[done..done + end];
            match line.first().map(u8::to_ascii_lowercase) {
                Some(b'e') => replies.extend(b"250-floor\r\n250-PIPELINING\r\n250 8BITMIME\r\n"),
                Some(b'd') => {
                    replies.extend(b"354 go\r\n");
                    self.in_data = true;
                }
                Some(b'q') => {
                    let _ = self.stream.write_all(b"221 bye\r\n");
                    return false;
                }
                Some(b'm') => {
                    self.sender = path(line);
                    replies.extend(b"250 ok\r\n");
                }
                Some(b'r') if line.get(1).is_some_and(|letter| letter.eq_ignore_ascii_case(&b'c')) => {
                    self.recipient = path(line);
                    replies.extend(b"250 ok\r\n");
                }
                _ => replies.extend(b"250 ok\r\n"),
            }
            done += end + 1;
        }
        self.buffer.drain(..done);
        replies.is_empty() || self.stream.write_all(&replies).is_ok()
    }
}

fn path(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or_else(String::new, |(path, _)| path.into())
}

impl Relay {
    fn take(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.buffer.extend_from_slice(octets);
        let lines = self.buffer.split_inclusive(|octet| *octet == b'\n');
        let replies = lines.filter(|line| line.ends_with(b"\n") && line.get(3) == Some(&b' ')).count();
        match (&self.step, &self.mail) {
            (Step::Greeting, _) if replies == 1 => {
                self.step = Step::Hello;
                self.buffer.clear();
                self.stream.write_all(b"EHLO floor\r\n")?;
            }
            (Step::Envelope, Some(mail)) if replies == 3 => {
                self.step = Step::Data;
                self.buffer.clear();
                self.stream.write_all(&mail.data)?;
            }
            (Step::Hello | Step::Data, _) if replies == 1 => {
                self.step = Step::Idle;
                self.buffer.clear();
                self.mail = None;
            }
            _ => {}
        }
        Ok(())
    }
}
