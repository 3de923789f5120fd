//! kill -9 under load, twenty times: no acknowledged message is lost, no message is delivered twice to a mailbox, none torn.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{Peer, Setup, Sink, wait_for};

const KILLS: u64 = 20;
const CLIENTS: u64 = 6;
/// The last line of each message: a torn one has it not.
const END: &str = "the end of it";

/// Clients that send numbered messages as fast as they are acknowledged, whatever happens to the server.
struct Load {
    acknowledged: Arc<Mutex<Vec<u64>>>,
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (acknowledged, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let number = Arc::new(AtomicU64::new(0));
        let port = Arc::new(AtomicU16::new(port));
        let client = |_| {
            let (port, number) = (Arc::clone(&port), Arc::clone(&number));
            let (acknowledged, over): (Arc<Mutex<Vec<u64>>>, _) = (Arc::clone(&acknowledged), Arc::clone(&over));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let sent = session(port.load(Ordering::Relaxed), &number, &acknowledged, &over);
                    if sent.is_err() {
                        std::thread::sleep(Duration::from_millis(5)); // it is down
                    }
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { acknowledged, over, clients }
    }

    /// How many have been acknowledged so far.
    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Ends the load; the numbers of the messages for which 250 was heard.
    fn stop(self) -> Vec<u64> {
        self.over.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

/// One session of up to 20 messages.
fn session(port: u16, number: &AtomicU64, acknowledged: &Mutex<Vec<u64>>, over: &AtomicBool) -> std::io::Result<()> {
    let mut peer = Peer::try_connect(port)?;
    peer.reply()?;
    peer.send(b"EHLO client.example.test\r\n")?;
    peer.reply()?;
    for _ in 0..20 {
        let number = number.fetch_add(1, Ordering::Relaxed);
        // Some are held in memory when they arrive, some go to files of their own.
        let filler = "x".repeat(70) + "\r\n";
        let body = filler.repeat(if number.is_multiple_of(10) { 4000 } else { (number % 40) as usize });
        let message = format!(
            "MAIL FROM:<load@example.org>\r\nRCPT TO:<ann@example.test>\r\nRCPT TO:<far@elsewhere.example>\r\nDATA\r\n\
             Subject: load\r\nX-Number: {number}\r\n\r\n{body}{END}\r\n.\r\n"
        );
        peer.send(message.as_bytes())?;
        for _ in 0..4 {
            peer.reply()?;
        }
        if peer.reply()?.starts_with("250 2.0.0") {
            acknowledged.lock().unwrap().push(number);
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    peer.send(b"QUIT\r\n")
}

#[test]
fn no_acknowledged_message_is_lost() {
    let sink = Sink::start();
    let mut mta = Setup::new().next_hop(sink.port).start();
    let load = Load::start(mta.port);
    for kill in 0..KILLS {
        let before = load.count();
        wait_for("load", || (load.count() > before + 10).then_some(()));
        std::thread::sleep(Duration::from_millis(kill * 37 % 150)); // not always at the same moment of a cycle
        mta.kill9();
        mta.restart();
    }
    let acknowledged = load.stop();
    assert!(acknowledged.len() > 10 * KILLS as usize, "{}", acknowledged.len());
    mta.command(&["queue", "flush"]);
    wait_for("an empty queue", || mta.queue().is_empty().then_some(()));

    let local = mta.maildir("ann").mails();
    let relayed: Vec<String> = sink.taken().into_iter().map(|taken| taken.data.replace("\r\n", "\n")).collect();
    let (local, relayed) = (copies(&local), copies(&relayed));
    let lost = |arrived: &HashMap<u64, usize>| -> Vec<u64> {
        acknowledged.iter().copied().filter(|number| !arrived.contains_key(number)).collect()
    };
    assert_eq!(lost(&local), [0; 0], "acknowledged, but not in the Maildir, of {}", acknowledged.len());
    assert_eq!(lost(&relayed), [0; 0], "acknowledged, but not at the next hop, of {}", acknowledged.len());
    assert!(local.values().all(|count| *count == 1), "twice in a mailbox: {local:?}");
    // SMTP itself allows a second copy of what was on its way when the server died (RFC 5321 §6.1), and of no more.
    let doubled = relayed.values().filter(|count| **count > 1).count();
    assert!(
        doubled <= (KILLS * 50) as usize && relayed.values().all(|count| *count <= 3),
        "{doubled} twice at the next hop"
    );
    assert!(mta.maildir("ann").unfinished().is_empty(), "left over: {:?}", mta.maildir("ann").unfinished());
}

/// How often each number arrived; each mail must be whole.
fn copies(mails: &[String]) -> HashMap<u64, usize> {
    let mut copies = HashMap::new();
    for mail in mails {
        assert!(mail.ends_with(&format!("{END}\n")), "torn: {}", &mail[..mail.len().min(2000)]);
        let number = mail.lines().find_map(|line| line.strip_prefix("X-Number: ")).unwrap();
        *copies.entry(number.parse().unwrap()).or_default() += 1;
    }
    copies
}
