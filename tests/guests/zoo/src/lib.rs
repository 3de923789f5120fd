//! Misbehaves as its settings say: `{"how":"spin"}`. Whatever it does, the session must go on with the verdict of `on-error`,
//! and nobody else's session may notice.

use std::sync::OnceLock;

use exports::wasmta::policy::meta::{ConfigError, Guest as Meta, Manifest};
use exports::wasmta::policy::on_message::{Guest as OnMessage, Message};
use exports::wasmta::policy::on_rcpt::{Envelope, Guest as OnRcpt, Recipient, Session, Verdict};
use wasmta::policy::types::{EnhancedStatus, Reply};
use wasmta::policy::{log, metric, score};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package guest:zoo; world plugin {
        import wasmta:policy/log@0.1.0;
        import wasmta:policy/metric@0.1.0;
        import wasmta:policy/score@0.1.0;
        export wasmta:policy/meta@0.1.0;
        export wasmta:policy/on-rcpt@0.1.0;
        export wasmta:policy/on-message@0.1.0;
    }",
    world: "guest:zoo/plugin",
    generate_all,
});

struct Plugin;
export!(Plugin);

static HOW: OnceLock<String> = OnceLock::new();
/// Counts the calls of one instance: a second one would show that instances are not fresh.
static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Meta for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "zoo".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "misbehaves as its settings say".into(),
            settings_schema: "{}".into(),
            symbols: vec![],
        }
    }

    fn configure(settings: String) -> Result<(), ConfigError> {
        let how = settings.split('"').nth(3).unwrap_or_default().to_owned();
        match how.as_str() {
            "configure-trap" => panic!("as it must"),
            "configure-spin" => spin(),
            "configure-refuse" => {
                let message = "I take nothing\r\nat all".into();
                return Err(ConfigError { key: "how".into(), message, file: None, line: None });
            }
            _ => {}
        }
        HOW.get_or_init(|| how);
        Ok(())
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 16]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + here[3] }
}

fn reply(code: u16, class: u8, text: &str) -> Reply {
    Reply { code, enhanced: Some(EnhancedStatus { class, subject: 7, detail: 1 }), text: text.into() }
}

/// What can be done without a message.
fn misbehave(how: &str) -> Verdict {
    match how {
        "trap" => panic!("as it must"),
        "spin" => spin(),
        "hoard" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 1 << 20]);
                std::hint::black_box(&hoard);
            }
        }
        "recurse" => {
            std::hint::black_box(recurse(0));
        }
        "flood" => {
            for n in 0..100_000 {
                log::write(log::Level::Info, &format!("line {n} {}", "x".repeat(2000)));
                metric::add(&format!("m{n}"), 1);
            }
        }
        "forge-log" => log::write(log::Level::Info, "one\r\n1970-01-01T00:00:00Z ERROR forged"),
        "many-symbols" => (0..10_000).for_each(|n| score::raise(&format!("S{n}"), 1.0, "")),
        "nan" => score::raise("NAN", f64::NAN, ""),
        "cr-reply" => return Verdict::Reject(reply(550, 5, "no\r\n250 2.0.0 yes")),
        "long-reply" => return Verdict::Reject(reply(550, 5, &"x".repeat(100_000))),
        "wrong-class" => return Verdict::Reject(reply(550, 4, "no")),
        "wrong-code" => return Verdict::Reject(reply(250, 2, "fine")),
        "code-999" => return Verdict::Defer(reply(999, 4, "no")),
        "lines" => return Verdict::Reject(reply(550, 5, "one\ntwo")),
        "disconnect" => return Verdict::Disconnect(reply(421, 4, "go away")),
        "discard" => return Verdict::Discard("not wanted".into()),
        "quarantine" => return Verdict::Quarantine("suspicious".into()),
        _ => {}
    }
    Verdict::Pass
}

impl OnRcpt for Plugin {
    fn run(_: &Session, envelope: &Envelope, _: Recipient) -> Verdict {
        let how = HOW.get().map(String::as_str).unwrap_or_default();
        if how == "remember" {
            let calls = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if calls > 0 {
                return Verdict::Reject(reply(550, 5, "this instance is not fresh"));
            }
        }
        if how == "notes" {
            assert!(envelope.set_note("small", b"kept"));
            assert!(!envelope.set_note("large", &vec![0; 1 << 20]));
        }
        match how.strip_prefix("message-") {
            Some(_) => Verdict::Pass,
            None => misbehave(how),
        }
    }
}

impl OnMessage for Plugin {
    fn run(_: &Session, envelope: &Envelope, message: &Message) -> Verdict {
        let how = HOW.get().map(String::as_str).unwrap_or_default();
        match how {
            "message-edits-then-trap" => {
                let _ = message.insert_header(0, b"X-Zoo: must not be seen");
                envelope.hold("must not be seen");
                panic!("as it must")
            }
            "message-bad-edits" => {
                assert!(message.insert_header(0, b"X-Zoo: a\r\nX-Forged: b").is_err());
                assert!(message.insert_header(0, b"no colon").is_err());
                assert!(message.insert_header(1_000_000, b"X-Zoo: far").is_err());
                assert!(message.remove_header(u32::MAX).is_err());
                assert!(message.replace_body(u64::MAX, u64::MAX, b"x").is_err());
                assert!(message.replace_body(0, 0, b"bare\nline").is_err());
                assert!(envelope.add_recipient("not an address").is_err());
                assert!(envelope.set_filter("no transport").is_err());
                Verdict::Pass
            }
            "message-out-of-range" => {
                assert!(message.headers(u32::MAX, u32::MAX).is_empty());
                assert!(message.body(u64::MAX, u32::MAX).is_ok_and(|octets| octets.is_empty()));
                assert!(message.part_content(u32::MAX, 0, 1).is_err());
                assert!(envelope.recipients(u32::MAX, u32::MAX).is_empty());
                assert!(message.headers(0, u32::MAX).len() as u32 == message.header_count());
                Verdict::Pass
            }
            "message-all-edits" => {
                let count = message.header_count();
                message.insert_header(count, b"X-Zoo: last").expect("sound");
                message.insert_header(0, b"X-Zoo: first").expect("sound");
                message.replace_body(0, 0, b"inserted\r\n").expect("sound");
                envelope.add_recipient("copy@example.test").expect("sound");
                Verdict::Pass
            }
            "message-parts" => {
                let parts = message.parts().expect("readable");
                let line: Vec<String> =
                    parts.iter().map(|part| format!("{}:{}", part.depth, part.content_type)).collect();
                message.insert_header(0, format!("X-Parts: {}", line.join(" ")).as_bytes()).expect("sound");
                Verdict::Pass
            }
            "notes" => {
                assert_eq!(envelope.note("small").as_deref(), Some(&b"kept"[..]));
                Verdict::Pass
            }
            _ => match how.strip_prefix("message-") {
                Some(how) => misbehave(how),
                None => Verdict::Pass,
            },
        }
    }
}
