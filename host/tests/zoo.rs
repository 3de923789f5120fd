//! The guests' zoo against the sandbox: whatever a policy does, it is that policy's failure alone.
//! Needs the guests that `cargo xtask guests` builds.

#![allow(clippy::expect_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use wasmta::mail::{BodyType, Envelope, HeaderBlock, Origin, QueueId, Recipient, ReversePath};
use wasmta::plugin::{Chain, Config, LoadError, Plugin, Runtime, Sandbox, Services, Subject, Transaction};
use wasmta::policy::{Mail, Notes, Session, Tally, Verdict};

fn guest(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins").join(format!("{name}.wasm"));
    assert!(path.exists(), "{name}.wasm is not built: run `cargo xtask guests` first");
    path
}

fn config(source: PathBuf, how: &str, more: serde_json::Value) -> Config {
    let mut value = json!({"source": source, "settings": {"how": how}, "timeout": "300ms", "configure-timeout": "3s"});
    for (key, own) in more.as_object().expect("a table") {
        value[key] = own.clone();
    }
    serde_json::from_value(value).expect("a sound config")
}

struct Bed {
    sandbox: Sandbox,
    _cache: TempDir,
}

struct TempDir(PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Bed {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("wasmta-zoo-{name}-{}", std::process::id()));
        let runtime = Runtime { cache_dir: dir.clone(), instances: 32, warm_instances: 4, ..Runtime::default() };
        Self { sandbox: Sandbox::new(&runtime, Services::default()).expect("a sandbox"), _cache: TempDir(dir) }
    }

    async fn zoo(&self, how: &str) -> Arc<Plugin> {
        self.zoo_with(how, json!({})).await
    }

    async fn zoo_with(&self, how: &str, more: serde_json::Value) -> Arc<Plugin> {
        self.sandbox.load("zoo", &config(guest("guest-zoo"), how, more)).await.expect("the zoo loads")
    }

    async fn refused(&self, source: PathBuf, how: &str) -> LoadError {
        match self.sandbox.load("zoo", &config(source.clone(), how, json!({}))).await {
            Ok(_) => panic!("{} with {how:?} must not load", source.display()),
            Err(err) => err,
        }
    }
}

fn session() -> Arc<Session> {
    Arc::new(Session {
        id: "test".into(),
        listener: "test".into(),
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
        client_name: None,
        helo: Some("client.example.test".into()),
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

fn mail(content: &str) -> Mail {
    let content = content.replace('\n', "\r\n").into_bytes();
    let (header, body) = HeaderBlock::parse(&content);
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
    let mail = mail("");
    let transaction = Transaction { id: mail.id, envelope: mail.envelope, announced_size: None, notes: mail.notes };
    let chain = Chain::new(vec![Arc::clone(plugin)]);
    chain.judge(&session(), Subject::Rcpt(transaction, recipient()), &Tally::default()).await.verdict
}

async fn message(plugin: &Arc<Plugin>, content: &str) -> (Verdict, Mail) {
    let mut mail = mail(content);
    let judged = Chain::new(vec![Arc::clone(plugin)]).judge_message(&session(), &mut mail, &Tally::default()).await;
    (judged.verdict, mail)
}

fn is_failure(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Defer(reply) if reply.to_string().starts_with("451 4.3.0 a policy is unavailable"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misbehaviour_is_the_plugins_failure() {
    let bed = Bed::new("misbehaviour");
    for how in [
        "trap",
        "spin",
        "hoard",
        "recurse",
        "many-symbols",
        "nan",
        "cr-reply",
        "long-reply",
        "wrong-class",
        "wrong-code",
        "code-999",
    ] {
        let plugin = bed.zoo(how).await;
        let started = Instant::now();
        let verdict = rcpt(&plugin).await;
        assert!(is_failure(&verdict), "{how}: {verdict:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "{how} took {:?}", started.elapsed());
        assert_eq!(plugin.listed().counters.failures, 1, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_verdicts_come_through() {
    let bed = Bed::new("sound");
    let patient = json!({"timeout": "30s"}); // a flood takes a while on a busy machine
    for how in ["flood", "forge-log", "remember", "notes"] {
        let plugin = bed.zoo_with(how, patient.clone()).await;
        for _ in 0..3 {
            assert_eq!(rcpt(&plugin).await, Verdict::Pass, "{how}");
        }
    }
    assert!(matches!(rcpt(&bed.zoo("lines").await).await, Verdict::Reject(reply) if reply.lines().count() == 2));
    assert!(matches!(rcpt(&bed.zoo("disconnect").await).await, Verdict::Disconnect(_)));
    assert_eq!(rcpt(&bed.zoo("discard").await).await, Verdict::Discard("not wanted".into()));
    let flood = bed.zoo_with("flood", patient).await;
    rcpt(&flood).await;
    let counters = flood.listed().counters;
    assert_eq!((counters.metrics.len(), counters.dropped_metrics), (100, 99_900));
}

#[tokio::test]
async fn on_error_says_what_a_failure_counts_as() {
    let bed = Bed::new("on-error");
    let skip = bed.zoo_with("trap", json!({"on-error": "skip"})).await;
    assert_eq!(rcpt(&skip).await, Verdict::Pass);
    let reject = bed.zoo_with("trap", json!({"on-error": "reject"})).await;
    assert!(matches!(rcpt(&reject).await, Verdict::Reject(reply) if reply.code() == 554));
    let quarantine = bed.zoo_with("trap", json!({"on-error": "quarantine"})).await;
    assert!(matches!(rcpt(&quarantine).await, Verdict::Quarantine(_)));
    let shadow = bed.zoo_with("disconnect", json!({"mode": "shadow"})).await;
    assert_eq!(rcpt(&shadow).await, Verdict::Pass);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spinning_plugin_leaves_others_their_time() {
    let bed = Bed::new("spinning");
    let (spin, good) = (bed.zoo_with("spin", json!({"timeout": "2s"})).await, bed.zoo("").await);
    // More spinners than threads.
    let spinners: Vec<_> = (0..6)
        .map(|_| {
            let spin = Arc::clone(&spin);
            tokio::spawn(async move { rcpt(&spin).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut calls = 0;
    while spinners.iter().any(|spinner| !spinner.is_finished()) {
        assert_eq!(rcpt(&good).await, Verdict::Pass);
        calls += 1;
    }
    assert!(calls > 0, "the good plugin had no turn while the others span");
    for spinner in spinners {
        assert!(is_failure(&spinner.await.expect("it ends")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_outlives_its_sandbox_is_still_stopped() {
    let bed = Bed::new("outlives");
    let spin = bed.zoo("spin").await;
    let Bed { sandbox, _cache } = bed;
    drop(sandbox);
    assert!(is_failure(&tokio::time::timeout(Duration::from_secs(20), rcpt(&spin)).await.expect("it is stopped")));
}

#[tokio::test]
async fn the_breaker_opens_and_closes_again() {
    let bed = Bed::new("breaker");
    let plugin = bed.zoo("trap").await;
    for _ in 0..50 {
        assert!(is_failure(&rcpt(&plugin).await));
    }
    assert_eq!(plugin.listed().counters.calls, 20, "after 20 failures in a row it is left alone");
}

#[tokio::test]
async fn a_trap_undoes_the_edits() {
    let bed = Bed::new("edits");
    let plugin = bed.zoo("message-edits-then-trap").await;
    let (verdict, mail) = message(&plugin, "Subject: x\n\nbody\n").await;
    assert!(is_failure(&verdict));
    assert_eq!((mail.header.as_bytes(), mail.hold), (&b"Subject: x\r\n"[..], None));
}

#[tokio::test]
async fn edits_are_checked_and_applied_together() {
    let bed = Bed::new("checked");
    for how in ["message-bad-edits", "message-out-of-range"] {
        let (verdict, mail) = message(&bed.zoo(how).await, "Subject: x\n\nbody\n").await;
        assert_eq!(verdict, Verdict::Pass, "{how}");
        assert_eq!(mail.header.as_bytes(), b"Subject: x\r\n");
    }
    let (verdict, mail) = message(&bed.zoo("message-all-edits").await, "Subject: x\n\nbody\n").await;
    assert_eq!(verdict, Verdict::Pass);
    assert_eq!(mail.header.as_bytes(), b"X-Zoo: first\r\nSubject: x\r\nX-Zoo: last\r\n");
    assert_eq!(mail.body.as_slice(), Some(&b"inserted\r\nbody\r\n"[..]));
    assert_eq!(mail.envelope.recipients.len(), 2);
    let multipart = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\nx\n--b--\n";
    let (_, mail) = message(&bed.zoo("message-parts").await, multipart).await;
    assert_eq!(mail.header.field(0), Some(&b"X-Parts: 0:multipart/mixed 1:text/html"[..]));
}

#[tokio::test]
async fn notes_last_from_rcpt_to_message() {
    let bed = Bed::new("notes");
    let chain = Chain::new(vec![bed.zoo("notes").await]);
    let (session, mut mail) = (session(), mail("Subject: x\n\n"));
    let transaction = Transaction {
        id: mail.id,
        envelope: Arc::clone(&mail.envelope),
        announced_size: None,
        notes: mail.notes.clone(),
    };
    assert_eq!(
        chain.judge(&session, Subject::Rcpt(transaction, recipient()), &Tally::default()).await.verdict,
        Verdict::Pass
    );
    assert_eq!(chain.judge_message(&session, &mut mail, &Tally::default()).await.verdict, Verdict::Pass);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_call_was_like_is_known_even_if_it_failed() {
    let bed = Bed::new("calls");
    for (how, failed) in [("hoard", "trapped"), ("spin", "processor time is spent"), ("forge-log", "")] {
        let mail = mail("");
        let transaction = Transaction { id: mail.id, envelope: mail.envelope, announced_size: None, notes: mail.notes };
        let chain = Chain::new(vec![bed.zoo(how).await]);
        let calls = chain.judge(&session(), Subject::Rcpt(transaction, recipient()), &Tally::default()).await.calls;
        let [call] = calls.as_slice() else { panic!("{how}: {calls:?}") };
        assert!(call.plugin == "zoo" && call.counts && call.memory > 0 && call.micros > 0, "{how}: {call:?}");
        match &call.verdict {
            Err(why) => assert!(!failed.is_empty() && call.instead.is_some(), "{how}: {why}"),
            Ok(verdict) => {
                assert_eq!((verdict, failed), (&Verdict::Pass, ""), "{how}");
                assert!(
                    call.events.iter().all(|event| event.import == "log" && !event.answer.contains('\n')),
                    "{call:?}"
                );
                assert!(!call.events.is_empty());
            }
        }
    }
    let calls = Chain::new(vec![bed.zoo("message-all-edits").await])
        .judge_message(&session(), &mut mail("Subject: x\n\nbody\n"), &Tally::default())
        .await
        .calls;
    let edits = calls.first().map(|call| call.edits.as_slice()).expect("a call");
    assert!(edits.iter().any(|edit| edit == "inserts header field 0: X-Zoo: first"), "{edits:?}");
}

#[tokio::test]
async fn what_cannot_be_a_policy_is_refused_at_load() {
    let bed = Bed::new("refused");
    let zoo = guest("guest-zoo");
    assert!(matches!(bed.refused(zoo.clone(), "configure-trap").await, LoadError::Failed { call: "configure", .. }));
    assert!(matches!(bed.refused(zoo.clone(), "configure-spin").await, LoadError::Failed { call: "configure", .. }));
    let refused = bed.refused(zoo.clone(), "configure-refuse").await.to_string();
    assert_eq!(refused, "setting `how`: I take nothing  at all");

    let ungranted = bed.refused(guest("guest-ungranted"), "").await.to_string();
    assert!(ungranted.contains("wasmta:policy/kv") && ungranted.contains("grants = [\"kv\"]"), "{ungranted}");

    let bytes = std::fs::read(&zoo).expect("readable");
    let file = |name: &str, bytes: &[u8]| {
        let path = bed._cache.0.join(name);
        std::fs::write(&path, bytes).expect("writable");
        path
    };
    let other = replace(&bytes, b"@0.1.0", b"@0.2.0");
    let other = bed.refused(file("other.wasm", &other), "").await.to_string();
    assert!(other.contains("@0.2.0"), "{other}");
    let mistyped = replace(&bytes, b"wasmta:policy/on-rcpt@", b"wasmta:policy/on-helo@");
    let mistyped = bed.refused(file("mistyped.wasm", &mistyped), "").await.to_string();
    assert!(mistyped.contains("on-helo"), "{mistyped}");
    for (name, bytes) in [
        ("core", &b"\0asm\x01\0\0\0"[..]),
        ("truncated", &bytes[..bytes.len() / 2]),
        ("empty", b""),
        ("text", b"hello"),
    ] {
        let err = bed.refused(file(name, bytes), "").await;
        assert!(matches!(err, LoadError::NotAComponent { .. }), "{name}: {err}");
    }
    assert!(matches!(bed.refused("/nonexistent.wasm".into(), "").await, LoadError::File { .. }));
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    for at in 0..out.len().saturating_sub(from.len()) {
        if out[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
        }
    }
    out
}

#[tokio::test]
async fn a_damaged_cache_is_not_trusted() {
    let bed = Bed::new("cache");
    let first = bed.zoo("").await;
    assert!(first.listed().snapshot);
    for entry in std::fs::read_dir(&bed._cache.0).expect("the cache") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "cwasm") {
            // Another file under the name: the old one is mapped by the policy that runs.
            std::fs::remove_file(&path).expect("removable");
            std::fs::write(&path, b"garbage").expect("writable");
        }
    }
    assert_eq!(rcpt(&bed.zoo("").await).await, Verdict::Pass);
}
