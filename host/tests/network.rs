//! The imports `dns` and `net`, as a guest uses and misuses them. Needs the guests that `cargo xtask guests` builds.

#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "support/dns.rs"]
mod dns;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dns::{Dns, SERVFAIL};
use serde_json::{Value, json};
use wasmta::mail::{BodyType, Envelope, HeaderBlock, Origin, QueueId, Recipient, ReversePath};
use wasmta::net::Resolver;
use wasmta::plugin::{Chain, Config, LoadError, Plugin, Runtime, Sandbox, Services, Subject, Transaction};
use wasmta::policy::{Mail, Notes, Session, Tally, Verdict};

struct Bed {
    sandbox: Sandbox,
    cache: PathBuf,
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.cache);
    }
}

impl Bed {
    fn new(name: &str, servers: &[SocketAddr]) -> Self {
        let cache = std::env::temp_dir().join(format!("wasmta-network-{name}-{}", std::process::id()));
        let runtime = Runtime { cache_dir: cache.clone(), instances: 32, warm_instances: 4, ..Runtime::default() };
        let config = wasmta::net::Config {
            servers: Some(servers.to_vec()),
            timeout: "30s".parse().unwrap(),
            ..Default::default()
        };
        let resolver = Some(Resolver::new(&config).expect("a resolver"));
        let services = Services { resolver, ..Services::default() };
        Self { sandbox: Sandbox::new(&runtime, services).expect("a sandbox"), cache }
    }

    async fn try_load(&self, lines: Value, more: Value) -> Result<Arc<Plugin>, LoadError> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins/guest-network.wasm");
        assert!(source.exists(), "guest-network.wasm is not built: run `cargo xtask guests` first");
        let mut config = json!({"source": source, "settings": lines, "timeout": "20s", "grants": ["dns", "net"]});
        for (key, own) in more.as_object().expect("a table") {
            config[key] = own.clone();
        }
        let config: Config = serde_json::from_value(config).expect("a sound config");
        self.sandbox.load("network", &config).await
    }

    async fn load(&self, lines: Value, more: Value) -> Arc<Plugin> {
        self.try_load(lines, more).await.expect("it loads")
    }

    /// What the lines bring forth at RCPT.
    async fn play(&self, lines: &[&str], more: Value) -> String {
        text(rcpt(&self.load(json!({"do": lines}), more).await).await)
    }
}

fn session() -> Arc<Session> {
    Arc::new(Session {
        id: "test".into(),
        listener: "test".into(),
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
        client_name: None,
        helo: None,
        extended: true,
        tls: None,
        user: None,
        trusted: false,
        notes: Notes::default(),
    })
}

fn recipient() -> Recipient {
    Recipient::new("user@example.test".parse().expect("an address"))
}

fn mail(content: &[u8]) -> Mail {
    let (header, body) = HeaderBlock::parse(content);
    Mail {
        id: QueueId::from_u64(7),
        envelope: Arc::new(Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![recipient()],
            body: BodyType::SevenBit,
            smtputf8: false,
            ret: None,
            envelope_id: None,
            origin: Origin { client: None, helo: String::new(), protocol: "SMTP".into() },
        }),
        header: Arc::new(header),
        body: Arc::new(content[body..].to_vec()),
        hold: None,
        filter: None,
        notes: Notes::default(),
    }
}

async fn rcpt(plugin: &Arc<Plugin>) -> Verdict {
    let mail = mail(b"\r\n");
    let transaction = Transaction { id: mail.id, envelope: mail.envelope, announced_size: None, notes: mail.notes };
    let chain = Chain::new(vec![Arc::clone(plugin)]);
    chain.judge(&session(), Subject::Rcpt(transaction, recipient()), &Tally::default()).await.verdict
}

fn text(verdict: Verdict) -> String {
    match verdict {
        Verdict::Reject(reply) => reply.to_string().trim_start_matches("550 5.7.1 ").to_owned(),
        other => format!("{other:?}"),
    }
}

fn is_failure(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Defer(reply) if reply.to_string().starts_with("451 4.3.0 a policy is unavailable"))
}

/// A service on a port of its own: what it does with each connection.
fn service(act: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let act = Arc::clone(&act);
            std::thread::spawn(move || act(stream));
        }
    });
    address
}

fn endpoints(address: &str) -> Value {
    json!({"endpoints": {"peer": address}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dns_tells_answers_from_failures() {
    let dns = Dns::new(|query| match query.name.as_str() {
        "broken.test" => vec![query.reply(SERVFAIL, 0, &[])],
        "good.test" if query.kind == "A" => {
            vec![query.reply(0, 0, &["good.test A 192.0.2.1", "good.test A 192.0.2.2"])]
        }
        "good.test" if query.kind == "MX" => vec![query.reply(0, 0, &["good.test MX 10 MX.good.test"])],
        "good.test" => vec![query.reply(0, 0, &[])],
        "1.2.0.192.in-addr.arpa" => vec![query.reply(0, 0, &["1.2.0.192.in-addr.arpa PTR mx.good.test"])],
        _ => vec![query.reply(dns::NXDOMAIN, 0, &[])],
    });
    let bed = Bed::new("answers", &[dns.address]);
    let lines = [
        "query A good.test",
        "query AAAA good.test",
        "query MX Good.Test.",
        "query PTR 192.0.2.1",
        "query A nowhere.test",
        "query A broken.test",
        "query A a..b",
        "query A a%40b.test",
    ];
    assert_eq!(
        bed.play(&lines, json!({})).await,
        "192.0.2.1,192.0.2.2; ; 10 mx.good.test; mx.good.test; no-such-name; failure; malformed; malformed"
    );
    assert!(!dns.asked().iter().any(|asked| asked.contains(' ') && asked.split(' ').count() > 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_asked_at_once_and_has_limits() {
    let dns = Dns::new(|query| {
        std::thread::sleep(Duration::from_millis(300));
        vec![query.reply(0, 0, &[&format!("{} A 192.0.2.1", query.name)])]
    });
    let bed = Bed::new("batch", &[dns.address]);
    let started = Instant::now();
    assert_eq!(bed.play(&["batch 10 A n%i.test"], json!({})).await, "10 answered");
    let took = started.elapsed();
    let ten = bed.load(json!({"do": ["batch 10 A m%i.test"]}), json!({})).await;
    let started = Instant::now();
    rcpt(&ten).await;
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}, with loading {took:?}", started.elapsed());
    assert_eq!(bed.play(&["batch 100 A n%i.test"], json!({})).await, "64 answered,36 limit");
    let five = ["batch 60 A n%i.test"; 5];
    assert_eq!(
        bed.play(&five, json!({})).await,
        "60 answered; 60 answered; 60 answered; 60 answered; 16 answered,44 limit"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_one_call_have_a_limit() {
    let text = "x".repeat(30_000);
    let zone: String = (0..60).map(|n| format!("n{n}.test TXT {text}\n")).collect();
    let dns = Dns::zone(&zone);
    let bed = Bed::new("octets", &[dns.address]);
    assert_eq!(bed.play(&["batch 60 TXT n%i.test"], json!({})).await, "34 answered,26 limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_ends_before_the_call_does() {
    let silent = Dns::new(|_| Vec::new());
    let bed = Bed::new("waiting", &[silent.address]);
    let mute = service(|stream| {
        std::thread::sleep(Duration::from_secs(60));
        drop(stream);
    });
    for lines in [&["query A a.test"][..], &["open peer", "read 1 100"]] {
        let mut more = endpoints(&mute);
        more["timeout"] = "1s".into();
        let plugin = bed.load(json!({"do": lines}), more).await;
        let started = Instant::now();
        let said = text(rcpt(&plugin).await);
        let took = started.elapsed();
        assert!(said.ends_with("timeout"), "{said}");
        assert!(took > Duration::from_millis(800) && took < Duration::from_millis(1000), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_is_no_processor_time() {
    // Ten questions that take 100 ms each, in a call that may take 1.5 s: none of that is the guest's own time.
    let dns = Dns::new(|query| {
        std::thread::sleep(Duration::from_millis(100));
        vec![query.reply(0, 0, &[&format!("{} A 192.0.2.1", query.name)])]
    });
    let bed = Bed::new("time", &[dns.address]);
    assert_eq!(bed.play(&["many 10 A n%i.test"], json!({"timeout": "2500ms"})).await, "10 answered");
    // And what it spends of its own is still bounded.
    let spins = bed.load(json!({"do": ["query A n1.test", "spin"]}), json!({"timeout": "300ms"})).await;
    let started = Instant::now();
    assert!(is_failure(&rcpt(&spins).await));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn octets_go_there_and_come_back() {
    let echo = service(|mut stream| {
        let mut octets = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut octets) {
            stream.write_all(&octets[..read]).unwrap();
        }
        stream.write_all(b" that was all").unwrap();
    });
    let bed = Bed::new("echo", &[]);
    let lines = [
        "open peer",
        "write 1 hello",
        "read 1 3",
        "read 1 100",
        "finish 1",
        "read 1 100",
        "read 1 100",
        "close 1",
        "read 1 1",
    ];
    assert_eq!(
        bed.play(&lines, endpoints(&echo)).await,
        "1; written; hel; lo; finished;  that was all; ; closed by us; no-such-connection"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_its_own_endpoints_and_connections() {
    let bed = Bed::new("own", &[]);
    let (told, closed) = mpsc::channel();
    let peer = service(move |mut stream| {
        let _ = stream.read(&mut [0; 10]); // until the other side closes
        told.send(()).unwrap();
    });
    let said = bed
        .play(&["open other", "open ", "open 127.0.0.1:25", "write 1 x", "read 7 1", "finish 0"], endpoints(&peer))
        .await;
    assert_eq!(
        said,
        "not-granted; not-granted; not-granted; no-such-connection; no-such-connection; no-such-connection"
    );
    // A number from the call before is nothing in this one, and what that call left open is closed.
    let first = bed.load(json!({"do": ["open peer"]}), endpoints(&peer)).await;
    assert_eq!(text(rcpt(&first).await), "1");
    closed.recv_timeout(Duration::from_secs(10)).expect("closed when the call has ended");
    assert_eq!(bed.play(&["write 1 x"], endpoints(&peer)).await, "no-such-connection");
    // Also when it traps or is cut off.
    for end in ["trap", "spin"] {
        let mut more = endpoints(&peer);
        more["timeout"] = "500ms".into();
        let plugin = bed.load(json!({"do": ["open peer", end]}), more).await;
        assert!(is_failure(&rcpt(&plugin).await), "{end}");
        closed.recv_timeout(Duration::from_secs(10)).expect("closed when the call has ended badly");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_have_limits() {
    let bed = Bed::new("limits", &[]);
    let patient = service(|mut stream| drop(stream.read(&mut [0; 10])));
    assert_eq!(bed.play(&["leak 100 peer"], endpoints(&patient)).await, "8 then limit");
    let mut endless = vec!["open peer", "drain 1"];
    let peer = service(|mut stream| while stream.write_all(&[b'x'; 65536]).is_ok() {});
    assert!(bed.play(&endless, endpoints(&peer)).await.ends_with("then limit"));
    endless.pop();
    // One at a time for all calls together: the second waits, and in vain.
    let more = json!({"timeout": "1s", "endpoints": {"peer": {"address": patient, "max-connections": 1}}});
    assert_eq!(bed.play(&["open peer", "open peer"], more).await, "1; timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_are_not_there_or_go_away() {
    let bed = Bed::new("peers", &[]);
    let nobody = format!("tcp://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    assert_eq!(bed.play(&["open peer"], endpoints(&nobody)).await, "unreachable");
    assert_eq!(bed.play(&["open peer"], endpoints("unix:///nonexistent/socket")).await, "unreachable");
    let closing = service(drop);
    assert_eq!(bed.play(&["open peer", "read 1 10", "read 1 10"], endpoints(&closing)).await, "1; ; ");
    // No TLS there: refused, not spoken in the clear.
    let plain = service(|mut stream| drop(stream.write_all(b"220 hello\r\n")));
    let tls = plain.replace("tcp://127.0.0.1", "tls://localhost");
    assert_eq!(bed.play(&["open peer"], endpoints(&tls)).await, "unreachable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_message_goes_out_from_the_host() {
    let (told, received) = mpsc::channel();
    let sink = service(move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        told.send(all).unwrap();
    });
    let bed = Bed::new("message", &[]);
    let body = "a line of the body\r\n".repeat(10_000);
    let content = format!("Subject: x\r\n\r\n{body}");
    for (line, expected) in [
        ("send 1 raw 100000000", content.as_bytes().to_vec()),
        ("send 1 raw 20", content.as_bytes()[..20].to_vec()),
        ("send 1 raw 0", Vec::new()),
        ("send 1 prefixed 5", [&[0, 0, 0, 5][..], b"Subje", &[0; 4]].concat()),
    ] {
        let plugin = bed.load(json!({"message": ["open peer", line, "finish 1"]}), endpoints(&sink)).await;
        let judged =
            Chain::new(vec![plugin]).judge_message(&session(), &mut mail(content.as_bytes()), &Tally::default()).await;
        let got = received.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(got == expected, "{line}: {} octets, {:?}", got.len(), text(judged.verdict));
    }
    let plugin = bed.load(json!({"message": ["open peer", "send 1 prefixed 100000000"]}), endpoints(&sink)).await;
    let judged =
        Chain::new(vec![plugin]).judge_message(&session(), &mut mail(content.as_bytes()), &Tally::default()).await;
    assert_eq!(text(judged.verdict), format!("1; {}", content.len()));
    let framed = received.recv_timeout(Duration::from_secs(10)).unwrap();
    let (mut rest, mut whole) = (&framed[..], Vec::new());
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (chunk, after) = after.split_at(u32::from_be_bytes(*len) as usize);
        whole.extend_from_slice(chunk);
        rest = after;
    }
    assert!(whole == content.as_bytes() && framed.ends_with(&[0; 4]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_is_there_without_a_grant_or_before_the_first_call() {
    let bed = Bed::new("grants", &[]);
    for (grants, missing) in
        [(json!([]), "dns"), (json!(["net"]), "dns"), (json!(["dns"]), "net"), (json!(["dnsx", "net"]), "dns")]
    {
        let err = bed.try_load(json!({}), json!({"grants": grants})).await.err().expect("refused").to_string();
        assert!(
            err.contains(&format!("grants = [\"{missing}\"]")) || err.contains(&format!("wasmta:policy/{missing}")),
            "{err}"
        );
    }
    for line in ["query A a.test", "open peer", "write 1 x", "read 1 1", "finish 1"] {
        let err = bed.try_load(json!({"configure": line}), json!({})).await.err().expect("refused");
        assert!(
            matches!(&err, LoadError::Failed { call: "configure", why } if why.contains("it may not")),
            "{line}: {err}"
        );
    }
    let more = json!({"endpoints": {"peer": {"address": "tls://localhost:1", "ca-file": "/nonexistent.pem"}}});
    let err = bed.try_load(json!({}), more).await.err().expect("refused").to_string();
    assert!(err.contains("endpoint `peer`") && err.contains("/nonexistent.pem"), "{err}");
}
