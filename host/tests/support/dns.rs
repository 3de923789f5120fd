//! A DNS server for tests, on 127.0.0.1, over UDP and TCP: answers from a few lines of zone, or says whatever a test makes of a question.

#![allow(dead_code)] // each test uses its part

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub const NXDOMAIN: u8 = 3;
pub const SERVFAIL: u8 = 2;
pub const REFUSED: u8 = 5;
/// The answer is too long: ask over TCP.
pub const TRUNCATED: u16 = 0x0200;

const KINDS: [(&str, u16); 8] =
    [("A", 1), ("NS", 2), ("CNAME", 5), ("SOA", 6), ("PTR", 12), ("MX", 15), ("TXT", 16), ("AAAA", 28)];

/// A question as it came.
#[derive(Debug, Clone)]
pub struct Query {
    pub id: u16,
    /// In lower case, without the last dot.
    pub name: String,
    /// `MX`, or a number.
    pub kind: String,
    pub tcp: bool,
    /// The question section, to be sent back.
    question: Vec<u8>,
}

impl Query {
    fn parse(octets: &[u8], tcp: bool) -> Option<Self> {
        let id = u16::from_be_bytes(octets.get(..2)?.try_into().ok()?);
        let mut at = 12;
        let mut labels = Vec::new();
        while let Some(len) = octets.get(at).map(|len| usize::from(*len)).filter(|len| *len > 0) {
            labels.push(String::from_utf8_lossy(octets.get(at + 1..at + 1 + len)?).to_lowercase());
            at += 1 + len;
        }
        let number = u16::from_be_bytes(octets.get(at + 1..at + 3)?.try_into().ok()?);
        let kind = KINDS.iter().find(|(_, own)| *own == number).map_or(number.to_string(), |(name, _)| (*name).into());
        Some(Self { id, name: labels.join("."), kind, tcp, question: octets.get(12..at + 5)?.to_vec() })
    }

    /// A response: code, further flags, records of the answer section as `NAME KIND DATA`, with a time to live of a minute.
    pub fn reply(&self, code: u8, flags: u16, records: &[&str]) -> Vec<u8> {
        self.reply_with(self.id, &self.question, code, flags, records)
    }

    /// The same with another id.
    pub fn forged(&self, id: u16, records: &[&str]) -> Vec<u8> {
        self.reply_with(id, &self.question, 0, 0, records)
    }

    /// The same about another name.
    pub fn about_another(&self, name: &str, records: &[&str]) -> Vec<u8> {
        let tail = &self.question[self.question.len() - 4..];
        self.reply_with(self.id, &[&encoded(name), tail].concat(), 0, 0, records)
    }

    fn reply_with(&self, id: u16, question: &[u8], code: u8, flags: u16, records: &[&str]) -> Vec<u8> {
        // Without records, the SOA that says how long to believe so.
        let none = [format!("{} SOA", self.name)];
        let authority: Vec<&str> =
            if records.is_empty() && code != SERVFAIL && code != REFUSED && flags & TRUNCATED == 0 {
                none.iter().map(String::as_str).collect()
            } else {
                Vec::new()
            };
        let mut out = Vec::new();
        let flags = 0x8180 | flags | u16::from(code);
        for number in [id, flags, 1, records.len() as u16, authority.len() as u16, 0] {
            out.extend(number.to_be_bytes());
        }
        out.extend(question);
        for record in records.iter().chain(&authority) {
            out.extend(resource(record));
        }
        out
    }
}

fn encoded(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend(label.bytes().map(|octet| if octet == b'^' { 0 } else { octet }));
    }
    out.push(0);
    out
}

fn resource(record: &str) -> Vec<u8> {
    let mut words = record.splitn(3, ' ');
    let (name, kind, data) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
    let number = KINDS.iter().find(|(own, _)| *own == kind).expect("a known kind").1;
    let data = match kind {
        "A" | "AAAA" => match data.parse::<IpAddr>().expect("an address") {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        },
        "MX" => {
            let (preference, exchange) = data.split_once(' ').expect("PREFERENCE NAME");
            [&preference.parse::<u16>().unwrap().to_be_bytes()[..], &encoded(exchange)].concat()
        }
        "TXT" => data.as_bytes().chunks(255).flat_map(|part| [&[part.len() as u8], part].concat()).collect(),
        "SOA" => [&encoded("ns.test")[..], &encoded("admin.test"), &[0; 16], &60u32.to_be_bytes()].concat(),
        _ => encoded(data),
    };
    let mut out = encoded(name);
    out.extend(number.to_be_bytes());
    out.extend(1u16.to_be_bytes());
    out.extend(60u32.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
    out
}

type Answerer = dyn Fn(&Query) -> Vec<Vec<u8>> + Send + Sync;

/// The server; ends when dropped.
pub struct Dns {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Query>>>,
    end: Arc<AtomicBool>,
}

impl Dns {
    /// What it says to each question: any number of messages. Each question has a thread of its own, so that it may take its time.
    pub fn new(answer: impl Fn(&Query) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let dns = Self { address: udp.local_addr().unwrap(), asked: Arc::default(), end: Arc::default() };
        let answer: Arc<Answerer> = Arc::new(answer);
        dns.serve_udp(udp, Arc::clone(&answer));
        dns.serve_tcp(tcp, answer);
        dns
    }

    /// Answers from lines `NAME KIND DATA`; aliases are followed; what is not there does not exist.
    pub fn zone(lines: &str) -> Self {
        let lines: Vec<String> =
            lines.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
        Self::new(move |query| vec![from_zone(&lines, query)])
    }

    /// What was asked so far, without looks at whether it is alive, as `NAME KIND`.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|query| !query.name.is_empty())
            .map(|query| format!("{} {}", query.name, query.kind))
            .collect()
    }

    /// The same as they came.
    pub fn queries(&self) -> Vec<Query> {
        self.asked.lock().unwrap().clone()
    }

    fn serve_udp(&self, socket: UdpSocket, answer: Arc<Answerer>) {
        let (asked, end) = (Arc::clone(&self.asked), Arc::clone(&self.end));
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        thread::spawn(move || {
            let mut octets = [0; 4096];
            while !end.load(Ordering::Relaxed) {
                let Ok((len, client)) = socket.recv_from(&mut octets) else { continue };
                let Some(query) = Query::parse(&octets[..len], false) else { continue };
                asked.lock().unwrap().push(query.clone());
                let (socket, answer) = (socket.try_clone().unwrap(), Arc::clone(&answer));
                thread::spawn(move || {
                    for message in answer(&query) {
                        let _ = socket.send_to(&message, client);
                    }
                });
            }
        });
    }

    fn serve_tcp(&self, listener: TcpListener, answer: Arc<Answerer>) {
        let (asked, end) = (Arc::clone(&self.asked), Arc::clone(&self.end));
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
                thread::spawn(move || serve_connection(stream, &asked, &*answer));
            }
        });
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

fn serve_connection(mut stream: TcpStream, asked: &Mutex<Vec<Query>>, answer: &Answerer) -> Option<()> {
    loop {
        let mut len = [0; 2];
        stream.read_exact(&mut len).ok()?;
        let mut octets = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut octets).ok()?;
        let query = Query::parse(&octets, true)?;
        asked.lock().unwrap().push(query.clone());
        for message in answer(&query) {
            stream.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes()).ok()?;
            stream.write_all(&message).ok()?;
        }
    }
}

fn from_zone(lines: &[String], query: &Query) -> Vec<u8> {
    let mut name = query.name.clone();
    let mut found: Vec<&str> = Vec::new();
    for _ in 0..16 {
        let of = |kind: &str| {
            let head = format!("{name} {kind} ").to_lowercase();
            lines.iter().filter(move |line| line.to_lowercase().starts_with(&head)).map(String::as_str)
        };
        found.extend(of(&query.kind));
        let Some(alias) = of("CNAME").next() else { break };
        found.push(alias);
        name = alias.rsplit(' ').next().unwrap().to_lowercase();
    }
    let exists = |line: &String| {
        let own = line.split(' ').next().unwrap().to_lowercase();
        own == name || own.ends_with(&format!(".{name}"))
    };
    let code = if lines.iter().any(exists) || name.is_empty() { 0 } else { NXDOMAIN };
    let whole = query.reply(code, 0, &found);
    if whole.len() > 1232 && !query.tcp { query.reply(code, TRUNCATED, &[]) } else { whole }
}
