//! The control socket under questions and under nonsense.
#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::config::{Loaded, Source};
use crate::generation::Generations;
use crate::mail::{BodyType, Envelope, ForwardPath, HeaderBlock, Origin, QueueId, Recipient};
use crate::plugin::Services;
use crate::policy::{Mail, Notes};
use crate::queue::disk::Disk;
use crate::queue::{Config, Destination, Filter, Queue, Router, Standing};

/// Mail that nobody delivers.
struct Nowhere;

impl Router for Nowhere {
    fn route(&self, _: &ForwardPath, _: Option<&str>) -> Destination {
        Destination::new("nowhere")
    }
}

/// A control socket in a directory of its own, gone at the end.
struct Served {
    dir: PathBuf,
    queue: Queue,
    stop: watch::Sender<bool>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Served {
    async fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("wasmta-admin-{}-{}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&dir).unwrap();
        let (stop, stopped) = watch::channel(false);
        let config = Config::for_test(dir.join("queue"));
        let (queue, _) = Queue::open(config, "mx.example.test".parse().unwrap(), Nowhere, Disk::default()).unwrap();
        let text = "[server]\nhostname = \"mx.example.test\"\n";
        let source = Source::new("wasmta.toml", text);
        let loaded = Loaded { config: source.parse().unwrap(), source };
        let house = House {
            queue: queue.clone(),
            hostname: "mx.example.test".parse().unwrap(),
            started: (jiff::Timestamp::now(), std::time::Instant::now()),
            kv: Arc::new(crate::kv::Memory::default()),
            addresses: Vec::new(),
            generations: Generations::start(&loaded, Services::default()).await.unwrap(),
        };
        let serving = tokio::spawn(Control::bind(&dir).unwrap().serve(Arc::new(house), stopped));
        Self { dir, queue, stop, serving: Some(serving) }
    }

    /// Puts a message into the queue.
    async fn queued(&self, from: &str, to: &str) -> QueueId {
        let origin = Origin { client: None, helo: "client.example".into(), protocol: "ESMTP".into() };
        let envelope = Envelope {
            reverse_path: from.parse().unwrap(),
            recipients: vec![Recipient::new(to.parse().unwrap())],
            body: BodyType::SevenBit,
            smtputf8: false,
            ret: None,
            envelope_id: None,
            origin,
        };
        let id = self.queue.next_id();
        let mail = Mail {
            id,
            envelope: Arc::new(envelope),
            header: Arc::new(HeaderBlock::parse(b"Subject: caf\xe9\r\n\r\n").0),
            body: Arc::new(b"body\r\n".to_vec()),
            hold: None,
            filter: None,
            notes: Notes::default(),
        };
        self.queue.commit(mail).await.unwrap();
        id
    }

    /// Sends octets, says that there are no more, and returns what comes back.
    async fn exchange(&self, octets: &[u8]) -> String {
        let mut stream = UnixStream::connect(socket_path(&self.dir)).await.unwrap();
        // The other side may have answered and closed before it has read everything.
        let _ = stream.write_all(octets).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

#[tokio::test]
async fn questions_and_answers() {
    let served = Served::start().await;
    let client = Client::new(&served.dir);
    let status: Status = client.get("/status").await.unwrap();
    assert_eq!((status.hostname.as_str(), status.pid), ("mx.example.test", std::process::id()));
    let health: serde_json::Value = client.get("/healthz").await.unwrap();
    assert_eq!(health["ok"], true);
    let missing = client.get::<serde_json::Value>("/nothing").await.unwrap_err();
    assert_eq!(missing.to_string(), "there is no /nothing");
    let wrong = client.post::<serde_json::Value>("/status", &()).await.unwrap_err();
    assert_eq!(wrong.to_string(), "POST cannot be done to /status");
    let mode = std::fs::metadata(socket_path(&served.dir)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn all() -> Order {
    Order::default()
}

fn one(id: QueueId) -> Order {
    Order { filter: Filter::ids([id]), why: Some("because".into()) }
}

#[tokio::test]
async fn the_queue_is_shown_and_steered() {
    let served = Served::start().await;
    let client = Client::new(&served.dir);
    assert_eq!(client.list(&Filter::default()).await.unwrap().messages, []);
    let (first, second) =
        (served.queued("ann@example.org", "bob@a.example").await, served.queued("", "eve@b.example").await);
    let listed = client.list(&Filter::default()).await.unwrap();
    let ids: Vec<String> = listed.messages.iter().map(|message| message.id.clone()).collect();
    assert_eq!((ids, listed.total), (vec![first.to_string(), second.to_string()], 2));
    let narrow = Filter { domain: Some("B.example".into()), ..Filter::default() };
    let listed = client.list(&narrow).await.unwrap();
    assert_eq!((listed.messages.len(), listed.total), (1, 2));
    let shown = client.show(first).await.unwrap();
    assert_eq!((shown.header.as_str(), shown.header_cut), ("Subject: caf\u{fffd}\r\n", false));
    assert_eq!(shown.summary.recipients[0].address, "bob@a.example");

    let held = client.act(Act::Hold, &one(first)).await.unwrap();
    assert_eq!((held.done, held.missing.len()), (1, 0));
    let shown = client.show(first).await.unwrap().summary;
    assert_eq!((shown.standing, shown.hold.as_deref()), (Standing::Hold, Some("because")));
    assert_eq!(client.act(Act::Release, &all()).await.unwrap().done, 1);
    assert_eq!(client.show(first).await.unwrap().summary.hold, None);
    assert_eq!(client.act(Act::Flush, &all()).await.unwrap().done, 2);

    let status: Status = client.get("/status").await.unwrap();
    assert_eq!((status.queue.messages, status.queue.destinations.len(), status.queue.refusing), (2, 1, None));

    assert_eq!(client.act(Act::Delete, &one(first)).await.unwrap().done, 1);
    let gone = client.act(Act::Delete, &one(first)).await.unwrap();
    assert_eq!((gone.done, gone.missing), (0, vec![first.to_string()]));
    let err = client.show(first).await.unwrap_err().to_string();
    assert_eq!(err, format!("there is no message {first} in the queue"));
    assert_eq!(client.list(&Filter::default()).await.unwrap().total, 1);
}

#[tokio::test]
async fn wrong_orders_change_nothing() {
    let served = Served::start().await;
    served.queued("ann@example.org", "bob@a.example").await;
    let many = format!("{{\"filter\":{{\"ids\":[{}\"x\"]}}}}", "\"0CR5WJ80A4K21\",".repeat(super::queue::MAX_IDS));
    for (path, body, status) in [
        ("/queue/delete", "", 400),
        ("/queue/delete", "{}", 400),
        ("/queue/delete", "{\"filter\": {\"id\": []}}", 400),
        ("/queue/delete", "{\"filter\": {\"ids\": \"all\"}}", 400),
        ("/queue/delete", "[[[[[[[[", 400),
        ("/queue/delete", "\u{fffd}", 400),
        ("/queue/delete", many.as_str(), 400),
        ("/queue/explode", "{\"filter\": {}}", 404),
        ("/queue", "{\"filter\": {}}", 404),
        ("/queue/delete/now", "{\"filter\": {}}", 404),
        ("/queue/list", "nonsense", 400),
        ("/queue/delete", "{\"filter\": {\"ids\": [\"../../etc/passwd\", \"\"]}}", 200),
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let told = served.exchange(request.as_bytes()).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{told} to {path} {:?}", body.get(..40));
    }
    assert_eq!(served.queue.usage().messages, 1);
}

#[tokio::test]
async fn nonsense_is_answered_and_harms_nobody() {
    let served = Served::start().await;
    let long_head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD));
    let long_body =
        format!("POST /status HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999\r\n\r\n{}", "y".repeat(2 * MAX_BODY));
    for (octets, answer) in [
        (&b"\x00\xff\xfe\r\n\r\n"[..], "HTTP/1.1 400"),
        (b"EHLO wrong.door\r\n\r\n", "HTTP/1.1 400"),
        (long_head.as_bytes(), "HTTP/1.1 431"),
        (long_body.as_bytes(), "HTTP/1.1 413"),
        (b"GET /../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 404"),
        (b"GET // HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 404"),
        (b"", ""),
    ] {
        let told = served.exchange(octets).await;
        assert!(told.starts_with(answer), "{told:?} to {:?}", octets.get(..40));
    }
    let health: serde_json::Value = Client::new(&served.dir).get("/healthz").await.unwrap();
    assert_eq!(health["ok"], true);
}

#[tokio::test]
async fn more_clients_than_it_serves_at_once_wait() {
    let served = Served::start().await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CLIENTS {
        silent.push(UnixStream::connect(socket_path(&served.dir)).await.unwrap());
    }
    let client = Client::new(&served.dir);
    let mut asked = std::pin::pin!(client.get::<serde_json::Value>("/healthz"));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut asked).await.is_err());
    silent.pop();
    assert_eq!(asked.await.unwrap()["ok"], true);
}

#[tokio::test]
async fn a_socket_that_a_dead_server_left_is_replaced_and_ours_is_removed() {
    let mut served = Served::start().await;
    assert_eq!(Control::bind(&served.dir).err().map(|err| err.kind()), Some(io::ErrorKind::AddrInUse));
    served.serving.take().unwrap().abort();
    let path = socket_path(&served.dir);
    while path.exists() {
        tokio::task::yield_now().await; // until the task is dropped
    }
    let err = Client::new(&served.dir).get::<Status>("/status").await.unwrap_err();
    assert!(matches!(err, ClientError::NotRunning(_)), "{err}");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let err = Client::new(&served.dir).get::<Status>("/status").await.unwrap_err();
    assert!(matches!(err, ClientError::NotRunning(_)), "{err}");
    let control = Control::bind(&served.dir).unwrap();
    assert!(path.exists());
    drop(control);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert!(Control::bind(&served.dir).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn it_ends_when_told() {
    let mut served = Served::start().await;
    served.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(10), served.serving.take().unwrap()).await.unwrap().unwrap();
    assert!(!socket_path(&served.dir).exists());
}
