//! What policies remember: it lasts, it is each one's own, it depends on the mail's fate where that was asked for, it has limits, and the
//! operator sees it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Mta, Peer, Setup, skip, wait_for};

/// A policy that does what `script` says (`tests/guests/script`), with the store.
fn script(setup: Setup, name: &str, script: &Value, lines: &str) -> Setup {
    let settings = script.as_object().unwrap().iter().map(|(hook, lines)| format!("{hook} = {lines}"));
    let settings = settings.collect::<Vec<_>>().join(", ");
    setup.plugin(name, "guest-script", &format!("grants = [\"kv\"]\n{lines}\nsettings = {{ {settings} }}"))
}

fn start(own: &Value) -> Mta {
    script(Setup::new(), "own", own, "").start()
}

/// What the policy says at RCPT, behind `550 5.7.1 `.
#[track_caller]
fn told(peer: &mut Peer, recipient: &str) -> String {
    peer.say("RSET", "250");
    peer.say("MAIL FROM:<a@example.org>", "250");
    let reply = peer.say(&format!("RCPT TO:<{recipient}@example.test>"), "550 5.7.1 ");
    reply["550 5.7.1 ".len()..].to_owned()
}

fn json(mta: &Mta, arguments: &[&str]) -> Value {
    let output = mta.command(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The keys of a policy.
fn keys(mta: &Mta, arguments: &[&str]) -> Vec<String> {
    let listed = json(mta, &[&["kv", "list"], arguments].concat());
    listed.as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap().to_owned()).collect()
}

fn deliver(peer: &mut Peer) -> String {
    peer.try_deliver("a@example.org", "ann@example.test", "Subject: x\r\n\r\nx\r\n")
}

#[test]
fn what_is_kept_lasts() {
    let mut mta =
        start(&json!({"rcpt": ["incr count 1", "get text", "put text gr\u{fc}n", "put gone x 0", "get gone", "say"]}));
    assert_eq!(told(&mut Peer::hello(mta.port), "ann"), "1; None; (); (); None");
    assert_eq!(told(&mut Peer::hello(mta.port), "ann"), "2; Some(\"gr\u{fc}n\"); (); (); None");
    assert_eq!(mta.stop().code(), Some(0));
    mta.restart();
    assert_eq!(told(&mut Peer::hello(mta.port), "ann"), "3; Some(\"gr\u{fc}n\"); (); (); None");
    mta.kill9();
    mta.restart();
    assert_eq!(told(&mut Peer::hello(mta.port), "ann"), "4; Some(\"gr\u{fc}n\"); (); (); None");
}

#[test]
fn what_has_an_end_ends() {
    let mta = start(&json!({"rcpt": ["incr count 1 1", "get count", "say"]}));
    let mut peer = Peer::hello(mta.port);
    assert_eq!(told(&mut peer, "ann"), "1; Some(\"1\")");
    wait_for("the end", || (told(&mut peer, "ann") == "1; Some(\"1\")").then_some(()));
}

#[test]
fn each_policy_has_its_own() {
    let setup = script(Setup::new(), "first", &json!({"rcpt": ["put secret 1", "put %r 1", "keys - 9"]}), "");
    let second = json!({"rcpt": ["get secret", "keys - 9", "delete secret", "put own 2", "say"]});
    let mta = script(setup, "firs", &second, "").start();
    let mut peer = Peer::hello(mta.port);
    assert_eq!(told(&mut peer, "ann"), "None; []; (); ()");
    assert_eq!(told(&mut peer, "ann"), "None; [\"own\"]; (); ()");
    assert_eq!(keys(&mta, &["first"]), ["ann@example.test", "secret"]);
    assert_eq!(keys(&mta, &["firs"]), ["own"]);
}

#[test]
fn what_is_staged_depends_on_the_mail() {
    let own = json!({"rcpt": ["stage rcpt-%r 1", "get rcpt-%r"], "message": ["stage message 1"]});
    // The second one's verdict comes when the first has staged.
    let setup = script(Setup::new(), "own", &own, "");
    let judge = json!({"rcpt": ["put %r 1", "swap bob@example.test - 1", "get bob@example.test"]});
    let mta = script(setup, "judge", &judge, "").start();
    let mut peer = Peer::hello(mta.port);
    for end in ["RSET", "EHLO client.example.test", "QUIT"] {
        peer.say("MAIL FROM:<a@example.org>", "250");
        peer.say("RCPT TO:<ann@example.test>", "250");
        peer.say(end, "2");
    }
    assert!(keys(&mta, &["own"]).is_empty(), "nothing came of it");
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.say("RCPT TO:<ann@example.test>", "250");
    drop(peer);
    assert!(deliver(&mut Peer::hello(mta.port)).starts_with("250"));
    // With the reply it is there.
    assert_eq!(keys(&mta, &["own"]), ["message", "rcpt-ann@example.test"]);
}

#[test]
fn what_is_staged_for_mail_that_is_refused_is_dropped() {
    for (end, queued) in
        [("reject", false), ("defer", false), ("discard", false), ("trap", false), ("quarantine", true), ("pass", true)]
    {
        let own = json!({"connect": ["stage early 1"], "rcpt": ["stage rcpt 1"], "message": ["stage message 1", end]});
        let mta = start(&own);
        deliver(&mut Peer::hello(mta.port));
        let expected: &[&str] = if queued { &["message", "rcpt"] } else { &[] };
        assert_eq!(keys(&mta, &["own"]), expected, "{end}");
    }
    // A recipient that is refused takes its own with it, and leaves the others'.
    let setup = script(Setup::new(), "own", &json!({"rcpt": ["stage %r 1"]}), "");
    let mta = script(setup, "judge", &json!({"rcpt": ["swap seen - 1", "say"]}), "").start();
    let mut peer = Peer::hello(mta.port);
    assert_eq!(told(&mut peer, "ann"), "true");
    assert!(keys(&mta, &["own"]).is_empty());
}

#[test]
fn a_policy_in_shadow_changes_nothing_for_one_in_force() {
    let play = json!({"rcpt": ["incr count 1"], "message": ["stage staged 1"]});
    let mta = script(Setup::new(), "own", &play, "mode = \"shadow\"").start();
    assert!(deliver(&mut Peer::hello(mta.port)).starts_with("250"));
    assert!(keys(&mta, &["own"]).is_empty());
    assert_eq!(keys(&mta, &["own", "--shadow"]), ["count", "staged"]);
}

#[test]
fn limits_hold() {
    let lines = [
        ("put @513 v", "Error::TooLarge"),
        ("put @512 v", "()"),
        ("get @513", "Error::TooLarge"),
        ("put long @65537", "Error::TooLarge"),
        ("put long @65536", "()"),
        ("stage @513 v", "Error::TooLarge"),
        ("stage k @65537", "Error::TooLarge"),
        ("put k v 4294967295", "()"),
        ("incr word 1", "Error::NotANumber"),
        ("incr n 1", "Error::NotANumber"),
        ("incr n -9223372036854775808", "-1"),
        ("keys - 4294967295", "[\"1000\"]"),
        ("keys p149 4294967295", "[\"11\"]"),
        ("keys p149 2", "[\"p149\", \"p1490\"]"),
        ("repeat 1001 stage s%i v", "Error::Quota"),
        ("repeat 100 put q%i @60000", "Error::Quota"),
    ];
    let before = ["put word one", "put n 9223372036854775807", "repeat 1500 put p%i v"];
    for (line, expected) in lines {
        let own = json!({"mail": before, "rcpt": [line, "say"]});
        let mta = script(Setup::new(), "own", &own, "kv-quota = \"2 MiB\"\ntimeout = \"10s\"").start();
        assert_eq!(told(&mut Peer::hello(mta.port), "ann"), expected, "{line}");
    }
}

#[test]
fn a_million_puts_are_too_many() {
    let mta = start(&json!({"rcpt": ["repeat 1000000 put k%i v", "say"]}));
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.say("RCPT TO:<ann@example.test>", "451 4.3.0");
    let log = wait_for("a line", || Some(mta.log()).filter(|log| log.contains("plugin=\"own\"")));
    assert!(log.contains("a call may use kv 10000 times") || log.contains("took longer than its timeout"), "{log}");
    peer.say("NOOP", "250");
}

#[test]
fn it_is_for_hooks_alone() {
    let setup = script(Setup::new(), "own", &json!({"configure": "kv"}), "");
    let output = crate::support::wasmta(&setup.write(), &["check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("kv cannot be used in describe or configure"), "{said}");
    assert!(!setup.folder().join("data/kv").exists(), "a check makes nothing");
}

#[test]
fn it_has_to_be_granted() {
    let setup = Setup::new().plugin("own", "guest-script", "");
    let output = crate::support::wasmta(&setup.write(), &["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("wasmta:policy/kv") && said.contains("grants = [\"kv\"]"), "{said}");
}

#[test]
fn nothing_is_made_for_policies_that_remember_nothing() {
    let mta = Setup::new().plugin("subject-words", "subject-words", "settings = { words = [\"lottery\"] }").start();
    assert!(!mta.folder().join("data/kv").exists());
    let output = mta.command(&["kv", "stats"]);
    assert_eq!(output.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no policy is granted kv"));
}

#[test]
fn the_operator_sees_and_deletes() {
    let lines =
        json!({"rcpt": ["repeat 2500 put k%i value", "put \u{1b}[2J x", "put bin \u{fc} 1000", "stage later 1"]});
    let mta = script(Setup::new(), "own", &lines, "timeout = \"10s\"").start();
    assert!(deliver(&mut Peer::hello(mta.port)).starts_with("250"));
    assert_eq!(keys(&mta, &["own", "k24", "--limit", "3"]), ["k24", "k240", "k2400"]);
    assert_eq!(
        keys(&mta, &["own", "k24", "--after", "k2498"]),
        ["k2499", "k249"].split_first().map(|(first, _)| *first).as_slice()
    );
    assert_eq!(keys(&mta, &["own", "--limit", "9999"]).len(), 2503);
    assert_eq!(keys(&mta, &["own"]).len(), 1000);
    let text = |arguments: &[&str]| String::from_utf8_lossy(&mta.command(arguments).stdout).into_owned();
    assert!(text(&["kv", "list", "own", "--limit", "1"]).contains("\u{fffd}[2J  1 B\n1 keys; more with --after"));
    assert!(text(&["kv", "list", "own", "bin"]).contains("bin  2 B, until 20"));
    assert_eq!(text(&["kv", "get", "own", "k7"]), "value\n");
    assert_eq!(mta.command(&["kv", "get", "own", "bin", "--raw"]).stdout, "\u{fc}".as_bytes());
    assert_eq!(json(&mta, &["kv", "get", "own", "k7"]), json!({"key": "k7", "text": "value", "hex": "76616c7565"}));
    assert_eq!(mta.command(&["kv", "get", "own", "no"]).status.code(), Some(65));
    let stats = wait_for("a count", || Some(json(&mta, &["kv", "stats"])).filter(|stats| stats["counted"] == true));
    assert_eq!(stats["spaces"][0]["keys"], 2503);
    assert_eq!(text(&["kv", "delete", "own", "k7"]), "deleted: 1 key\n");
    assert_eq!(mta.command(&["kv", "delete", "own", "k7"]).status.code(), Some(65));
    assert_eq!(mta.command(&["kv", "delete", "own"]).status.code(), Some(64));
    assert_eq!(text(&["kv", "delete", "own", "--prefix", "k"]), "deleted: 2499 keys\n");
    assert_eq!(text(&["kv", "delete", "own", "--all"]), "deleted: 3 keys\n");
    assert!(text(&["kv", "stats", "own"]).ends_with(" on the disk\n"));
    assert!(mta.log().contains("kv: deleted by the operator"));
}

/// Clients that count as fast as they are told the sum, whatever happens to the server; each counts for itself and for all.
struct Counters {
    told: Arc<Mutex<Vec<u64>>>,
    over: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Counters {
    fn start(port: u16, count: usize) -> Self {
        let told = Arc::new(Mutex::new(vec![0; count]));
        let over = Arc::new(AtomicBool::new(false));
        let port = Arc::new(AtomicU16::new(port));
        let client = |own: usize| {
            let (told, over, port) = (Arc::clone(&told), Arc::clone(&over), Arc::clone(&port));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if Self::session(port.load(Ordering::Relaxed), own, &told, &over).is_err() {
                        std::thread::sleep(Duration::from_millis(5)); // it is down
                    }
                }
            })
        };
        let clients = (0..count).map(client).collect();
        Self { told, over, clients }
    }

    fn session(port: u16, own: usize, told: &Mutex<Vec<u64>>, over: &AtomicBool) -> std::io::Result<()> {
        let mut peer = Peer::try_connect(port)?;
        peer.reply()?;
        peer.send(b"EHLO client.example.test\r\nMAIL FROM:<a@example.org>\r\n")?;
        peer.reply()?;
        peer.reply()?;
        for _ in 0..15 {
            peer.send(format!("RCPT TO:<u{own}@example.test>\r\n").as_bytes())?;
            let reply = peer.reply()?;
            let Some(sum) = reply.strip_prefix("550 5.7.1 ") else { return Err(std::io::ErrorKind::Other.into()) };
            let sum = sum.split(';').next().and_then(|sum| sum.parse().ok()).unwrap();
            let mut told = told.lock().unwrap();
            assert!(sum > told[own], "{sum} after {}", told[own]);
            told[own] = sum;
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    fn all(&self) -> u64 {
        self.told.lock().unwrap().iter().sum()
    }

    fn stop(self) -> Vec<u64> {
        self.over.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

#[test]
fn nothing_that_was_told_is_forgotten_by_kill_9() {
    const CLIENTS: usize = 4;
    let setup = script(Setup::new(), "own", &json!({"rcpt": ["incr %r 1", "incr all 1", "say"]}), "");
    let mut mta = setup.directory("local-domains = [\"example.test\"]\nany-user = true").start();
    let counters = Counters::start(mta.port, CLIENTS);
    for kill in 0..15 {
        let before = counters.all();
        wait_for("load", || (counters.all() > before + 40).then_some(()));
        std::thread::sleep(Duration::from_millis(kill * 37 % 120)); // not always at the same moment
        mta.kill9();
        mta.restart();
    }
    let told = counters.stop();
    let kept = |key: &str| -> u64 { json(&mta, &["kv", "get", "own", key])["text"].as_str().unwrap().parse().unwrap() };
    for (own, told) in told.iter().enumerate() {
        assert!(kept(&format!("u{own}@example.test")) >= *told, "{own}");
    }
    // Both counts were made in each call, the second at most once less for each call that was cut off.
    let sum: u64 = (0..CLIENTS).map(|own| kept(&format!("u{own}@example.test"))).sum();
    assert!(sum - kept("all") <= 15 * CLIENTS as u64, "{sum} {}", kept("all"));
    assert!(!mta.log().contains("damaged"), "{}", mta.log());
}

#[test]
fn a_damaged_store_is_set_aside_and_mail_goes_on() {
    let mut mta = start(&json!({"rcpt": ["incr count 1", "say"]}));
    assert_eq!(told(&mut Peer::hello(mta.port), "ann"), "1");
    assert_eq!(mta.stop().code(), Some(0));
    let data = mta.folder().join("data");
    for file in files(&data.join("kv")) {
        std::fs::write(&file, vec![0x5a; 4096]).unwrap();
    }
    mta.restart();
    assert_eq!(told(&mut Peer::hello(mta.port), "ann"), "1");
    let aside = std::fs::read_dir(&data).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.starts_with("kv.damaged-")).count(), 1);
    let log = mta.log();
    let line = log.lines().find(|line| line.contains("damaged, begins empty")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("set_aside=") && line.contains("ERROR"), "{line}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        match file.is_dir() {
            true => all.extend(files(&file)),
            false => all.push(file),
        }
    }
    all
}

#[test]
fn a_full_disk_is_the_policys_error_until_there_is_room() {
    let own = json!({"rcpt": ["repeat 20 put k%i @60000", "incr count 1", "say"]});
    let setup = script(Setup::new(), "own", &own, "timeout = \"5s\"").tables("[kv]\npath = \"small\"");
    let small = setup.folder().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "none"]).arg(&small).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        return skip(
            "kv::a_full_disk_is_the_policys_error_until_there_is_room",
            "cannot mount a small disk (needs root)",
        );
    }
    let mta = setup.start();
    let mut peer = Peer::hello(mta.port);
    let counted = |told: &str| told.rsplit("; ").next().and_then(|sum| sum.parse::<u64>().ok());
    let mut last = counted(&told(&mut peer, "ann")).unwrap();
    for _ in 0..2 {
        let filler = small.join("filler");
        let full = std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&filler).unwrap());
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        let failed = wait_for("an error", || {
            let mut peer = Peer::hello(mta.port);
            let told = told(&mut peer, "ann");
            last = counted(&told).unwrap_or(last);
            told.contains("Store(").then_some(told)
        });
        assert!(failed.contains("Store("), "{failed}");
        std::fs::remove_file(&filler).unwrap();
        let sum = wait_for("room", || counted(&told(&mut Peer::hello(mta.port), "ann")));
        assert!(sum > last, "{sum} after {last}");
        last = sum;
    }
    assert!(mta.log().contains("kv: open again"), "{}", mta.log());
    assert!(!mta.log().contains("damaged"), "{}", mta.log());
    drop(mta);
    let _ = Command::new("umount").arg("--lazy").arg(&small).status();
}
