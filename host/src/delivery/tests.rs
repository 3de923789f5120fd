//! Mail through a real queue to servers on loopback that do what a test says, and into Maildirs.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::mail::{HeaderBlock, QueueId};
use crate::policy::{Mail, Notes};
use crate::queue::disk::Disk;
use crate::queue::testing::{TempDir, envelope};
use crate::{directory, queue, units};

/// What a server does at one point of the dialogue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Good,
    /// Says 421 and hangs up after each message, without waiting for QUIT.
    HangsUpAfterEach,
    /// Hangs up instead of answering the first message's end, having taken it.
    LosesTheFirstReply,
    /// Says nothing at all.
    Silent,
    /// Greets with 554.
    Unfriendly,
}

/// Recipients and content of each message.
type Taken = Vec<(Vec<String>, String)>;

/// A server that notes what it took.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    taken: Arc<Mutex<Taken>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(habit: Habit) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, taken: Arc::default(), connections: Arc::default() };
        let own = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = own.connections.fetch_add(1, Ordering::Relaxed);
                let own = own.clone();
                tokio::spawn(async move {
                    let _ = own.serve(stream, habit, number).await;
                });
            }
        });
        server
    }

    async fn serve(self, stream: TcpStream, habit: Habit, number: usize) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        if habit == Habit::Silent {
            std::future::pending::<()>().await;
        }
        let greeting: &[u8] = if habit == Habit::Unfriendly { b"554 no\r\n" } else { b"220 sink ESMTP\r\n" };
        write.write_all(greeting).await?;
        let (mut to, mut line) = (Vec::new(), String::new());
        loop {
            line.clear();
            if read.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let command = line.trim_end().to_owned();
            let answer = match command.get(..4).unwrap_or_default() {
                "EHLO" => "250-sink\r\n250 PIPELINING\r\n",
                "RCPT" if command.contains("defer") => "450 4.2.0 later\r\n",
                "RCPT" if command.contains("fail") => "550 5.1.1 no such user\r\n",
                "RCPT" => {
                    to.push(command);
                    "250 ok\r\n"
                }
                "DATA" if to.is_empty() => "554 no recipients\r\n",
                "DATA" => {
                    write.write_all(b"354 go\r\n").await?;
                    let content = content(&mut read).await?;
                    self.taken.lock().unwrap().push((std::mem::take(&mut to), content));
                    if habit == Habit::LosesTheFirstReply && number == 0 {
                        return Ok(());
                    }
                    if habit == Habit::HangsUpAfterEach {
                        write.write_all(b"250 ok\r\n421 bye\r\n").await?;
                        return Ok(());
                    }
                    "250 2.0.0 taken\r\n"
                }
                "QUIT" => {
                    write.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                _ => {
                    to.clear();
                    "250 ok\r\n"
                }
            };
            write.write_all(answer.as_bytes()).await?;
        }
    }

    fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }
}

async fn content(read: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> std::io::Result<String> {
    let mut content = String::new();
    loop {
        let start = content.len();
        if read.read_line(&mut content).await? == 0 || content.get(start..) == Some(".\r\n") {
            content.truncate(start);
            return Ok(content);
        }
    }
}

/// A queue and its delivery. Users ann and bob are local; all else goes to the relay.
struct House {
    dir: TempDir,
    queue: Queue,
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
}

impl House {
    fn start(relay: Option<SocketAddr>) -> Self {
        Self::start_in(TempDir::new(), relay)
    }

    fn start_in(dir: TempDir, relay: Option<SocketAddr>) -> Self {
        let hostname: Domain = "mx.example.org".parse().unwrap();
        let users = directory::Config {
            local_domains: vec!["example.org".parse().unwrap()],
            users: vec!["ann".into(), "bob".into(), "from".into()],
            maildir: dir.path().join("mail/{user}").display().to_string(),
            ..directory::Config::default()
        };
        let directory = Arc::new(Directory::open(&users, hostname.clone(), []).unwrap());
        let relay_host = relay.map(|address| address.to_string().parse().unwrap());
        let mut config = Config { relay_host, connect_timeout: units::Duration::from_secs(1), ..Config::default() };
        config.smtp.greeting_timeout = units::Duration::from_millis(100);
        let terms = Terms::new(config, directory);
        let terms = CurrentTerms::new(move || Arc::clone(&terms));
        let ms = units::Duration::from_millis;
        let queue = queue::Config {
            min_backoff: ms(20),
            max_backoff: ms(40),
            ..queue::Config::for_test(dir.path().join("queue"))
        };
        let queue = Queue::open(queue, hostname.clone(), terms.clone(), Disk::default()).unwrap().0;
        let (stop, stopped) = watch::channel(false);
        let delivery = Delivery::new(hostname, terms);
        let running = tokio::spawn(delivery.run(queue.clone(), stopped));
        Self { dir, queue, stop, running }
    }

    async fn send(&self, to: &[&str], body: &str) -> QueueId {
        self.send_with(to, body, None).await
    }

    async fn send_with(&self, to: &[&str], body: &str, filter: Option<&str>) -> QueueId {
        let mail = Mail {
            id: self.queue.next_id(),
            envelope: Arc::new(envelope("from@example.org", to)),
            header: Arc::new(HeaderBlock::parse(b"Subject: hello\r\n\r\n").0),
            body: Arc::new(body.as_bytes().to_vec()),
            hold: None,
            filter: filter.map(str::to_owned),
            notes: Notes::default(),
        };
        let id = mail.id;
        self.queue.commit(mail).await.unwrap();
        id
    }

    /// Waits until that many messages are left in the queue.
    async fn left(&self, messages: usize) {
        until(|| self.queue.usage().messages == messages).await;
    }

    /// The mails of a user.
    fn mailbox(&self, user: &str) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.dir.path().join("mail").join(user).join("new")) else {
            return Vec::new();
        };
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    async fn end(self) -> TempDir {
        self.stop.send_replace(true);
        self.running.await.unwrap();
        drop(self.queue);
        self.dir
    }
}

async fn until(done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come to that");
}

#[tokio::test]
async fn many_mails_go_over_a_few_kept_connections() {
    let server = Server::start(Habit::Good).await;
    let house = House::start(Some(server.address));
    for number in 0..200 {
        house.send(&["x@far.example"], &format!(".{number}\r\n..\r\n")).await;
    }
    house.left(0).await;
    let mut bodies: Vec<String> = server.taken.lock().unwrap().iter().map(|(_, content)| content.clone()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!((bodies.len(), server.count()), (200, 200), "each came once");
    assert!(bodies.contains(&"Subject: hello\r\n\r\n..7\r\n...\r\n".to_owned()), "dots are stuffed: {:?}", bodies[0]);
    assert!(server.connections.load(Ordering::Relaxed) <= 20);
    house.end().await;
}

#[tokio::test]
async fn a_server_that_hangs_up_after_each_message_gets_each_once() {
    let server = Server::start(Habit::HangsUpAfterEach).await;
    let house = House::start(Some(server.address));
    for number in 0..30 {
        house.send(&["x@far.example"], &format!("{number}\r\n")).await;
    }
    house.left(0).await;
    assert_eq!(server.count(), 30);
    house.end().await;
}

#[tokio::test]
async fn each_recipient_has_its_own_fate_and_the_sender_hears_of_the_lost() {
    let server = Server::start(Habit::Good).await;
    let house = House::start(Some(server.address));
    let id =
        house.send(&["ok@far.example", "fail@far.example", "defer@far.example", "ann+x@example.org"], "text\r\n").await;
    until(|| house.mailbox("from").len() == 1).await;
    let bounce = &house.mailbox("from")[0];
    assert!(bounce.starts_with("Return-Path: <>\nDelivered-To: from@example.org\n"), "{bounce}");
    assert!(bounce.contains("Final-Recipient: rfc822; fail@far.example\nAction: failed\nStatus: 5.1.1\n"), "{bounce}");
    assert!(!bounce.contains("rfc822; defer@") && !bounce.contains("rfc822; ok@"));
    let ann = &house.mailbox("ann")[0];
    assert_eq!(ann, "Return-Path: <from@example.org>\nDelivered-To: ann+x@example.org\nSubject: hello\n\ntext\n");
    house.left(1).await;
    let shown = house.queue.show(id).unwrap();
    assert_eq!(shown.recipients.len(), 1);
    assert_eq!(shown.recipients[0].address, "defer@far.example");
    let reason = shown.recipients[0].reason.clone().unwrap();
    assert!(reason.starts_with("host 127.0.0.1") && reason.ends_with("said: 450 4.2.0 later"), "{reason}");
    assert_eq!(server.taken.lock().unwrap()[0].0.len(), 1);
    house.end().await;
}

#[tokio::test]
async fn a_reply_that_never_came_means_another_try() {
    // RFC 5321 §4.5.4.1: the end of data was not answered, so the message is still ours; the server may see it twice.
    let server = Server::start(Habit::LosesTheFirstReply).await;
    let house = House::start(Some(server.address));
    house.send(&["x@far.example"], "text\r\n").await;
    house.left(0).await;
    assert_eq!(server.count(), 2);
    house.end().await;
}

#[tokio::test]
async fn a_dead_or_silent_or_unfriendly_relay_holds_nobody_else_up_and_loses_nothing() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = Server::start(Habit::Silent).await;
    let unfriendly = Server::start(Habit::Unfriendly).await;
    let good = Server::start(Habit::Good).await;
    for sick in [closed, silent.address, unfriendly.address] {
        let house = House::start(Some(sick));
        for _ in 0..10 {
            house.send(&["x@far.example"], "text\r\n").await;
        }
        let via = format!("smtp:{}", good.address);
        let before = good.count();
        house.send(&["bob@example.org"], "here\r\n").await;
        house.send_with(&["y@far.example"], "there\r\n", Some(&via)).await;
        until(|| house.mailbox("bob").len() == 1 && good.count() == before + 1).await;
        house.left(10).await;
        house.end().await;
    }
}

#[tokio::test]
async fn mail_without_a_route_goes_back() {
    let house = House::start(None);
    house.send(&["x@far.example", "nobody@example.org"], "text\r\n").await;
    until(|| house.mailbox("from").len() == 1).await;
    let bounce = &house.mailbox("from")[0];
    assert!(bounce.contains("x@far.example\nAction: failed\nStatus: 5.4.4\n"), "{bounce}");
    assert!(bounce.contains("nobody@example.org\nAction: failed\nStatus: 5.1.1\n"), "{bounce}");
    house.left(0).await;
    house.end().await;
}

#[tokio::test]
async fn a_large_message_from_a_file_arrives_whole() {
    let server = Server::start(Habit::Good).await;
    let house = House::start(Some(server.address));
    let line = "0123456789abcdef0123456789abcdef0123456789abcdef\r\n";
    let body = line.repeat(20_000);
    house.send(&["x@far.example", "ann@example.org"], &body).await;
    house.left(0).await;
    assert_eq!(server.taken.lock().unwrap()[0].1, format!("Subject: hello\r\n\r\n{body}"));
    assert!(house.mailbox("ann")[0].ends_with(&line.repeat(20_000).replace("\r\n", "\n")));
    house.end().await;
}

#[tokio::test]
async fn what_was_not_delivered_at_the_end_is_after_the_next_start() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let house = House::start(Some(closed));
    for _ in 0..5 {
        house.send(&["x@far.example"], "text\r\n").await;
    }
    let dir = house.end().await;
    let server = Server::start(Habit::Good).await;
    let house = House::start_in(dir, Some(server.address));
    house.left(0).await;
    assert_eq!(server.count(), 5);
    house.end().await;
}
