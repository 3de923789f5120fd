//! A reload: what is new is in force for new sessions, old ones finish as they began, and what is wrong changes nothing.

use std::time::{Duration, Instant};

use crate::support::{Mta, Peer, Setup, Sink, component_file, free_port, wait_for};

const LOTTERY: &str = "words = [\"lottery\"]";
const CASINO: &str = "words = [\"casino\"]";

/// A site that refuses the word `lottery`.
fn site() -> Setup {
    Setup::new().plugin("words", "subject-words", &format!("settings = {{ {LOTTERY} }}"))
}

fn send(peer: &mut Peer, subject: &str) -> String {
    peer.deliver("a@example.org", &["ann@example.test"], &format!("Subject: {subject}\r\n\r\nx\r\n"))
}

/// What a new session hears about a subject.
fn fresh(mta: &Mta, subject: &str) -> String {
    send(&mut Peer::hello(mta.port), subject)
}

/// `wasmta reload` that is refused; what it said.
#[track_caller]
fn refused(mta: &Mta) -> String {
    let output = mta.command(&["reload"]);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_session_finishes_with_the_policies_it_began_with() {
    let mta = site().start();
    let mut old = Peer::hello(mta.port);
    old.say("MAIL FROM:<a@example.org>", "250");
    mta.edit(LOTTERY, CASINO);
    let told = mta.reload();
    assert!(told.starts_with("generation 2 is in force"), "{told}");
    assert!(told.contains("plugin.words.settings.words[0]: changed") && !told.contains("casino"), "{told}");
    assert!(fresh(&mta, "lottery").starts_with("250") && fresh(&mta, "casino").starts_with("550"));
    old.say("RSET", "250");
    assert!(send(&mut old, "lottery").starts_with("550"), "it began with the old ones");
    assert!(send(&mut old, "casino").starts_with("250"));
    assert_eq!(mta.status()["generation"]["old"], serde_json::json!([1]));
    old.say("QUIT", "221");
    wait_for("the old generation to go", || (mta.status()["generation"]["old"] == serde_json::json!([])).then_some(()));
}

#[test]
fn chains_limits_users_and_routes_change_as_well() {
    let dead = free_port();
    let sink = Sink::start();
    let mta = site().next_hop(dead).start();
    let mut peer = Peer::hello(mta.port);
    assert!(peer.deliver("a@example.org", &["x@elsewhere.example"], "Subject: x\r\n\r\nx\r\n").starts_with("250"));
    mta.edit(&format!("[127.0.0.1]:{dead}"), &format!("[127.0.0.1]:{}", sink.port));
    mta.edit("chain = [\"words\"]", "chain = []\nmax-sessions = 5");
    mta.edit("users = [\"ann\", \"bob\"]", "users = [\"ann\", \"carol\"]");
    mta.edit("hostname =", "log-level = \"debug\"\nworkers = 3\nhostname =");
    mta.edit(&format!("127.0.0.1:{}", mta.port), "127.0.0.1:1");
    let told = mta.reload();
    for change in [
        &format!("delivery.relay-host: \"[127.0.0.1]:{dead}\" → \"[127.0.0.1]:{}\"", sink.port),
        "listener.smtp.chain: [\"words\"] → []",
        "listener.smtp.max-sessions: 10000 → 5",
        "directory.users: [\"ann\",\"bob\"] → [\"ann\",\"carol\"]",
    ] {
        assert!(told.contains(change), "{change} in {told}");
    }
    let (_, restart) = told.split_once("only a restart").unwrap();
    for key in ["server.workers: none → 3", "server.log-level", "listener.smtp.address"] {
        assert!(restart.contains(key), "{key} in {restart}");
    }
    assert!(mta.command(&["queue", "flush", "--all"]).status.success());
    sink.wait_for(1); // what waited in the queue goes the new way
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.say("RCPT TO:<bob@example.test>", "550");
    peer.say("RCPT TO:<carol@example.test>", "250");
    assert!(fresh(&mta, "lottery").starts_with("250"), "nobody judges any more");
    // What needs a restart is told again; the rest has not changed.
    let told = mta.reload();
    assert!(told.starts_with("nothing has changed; generation 2") && told.contains("server.workers"), "{told}");
}

#[test]
fn a_file_that_is_named_counts_as_the_config_does() {
    let mta =
        site().file("users", "ann\n").directory("local-domains = [\"example.test\"]\nusers-file = \"users\"").start();
    assert!(mta.reload().starts_with("nothing has changed"));
    std::fs::write(mta.folder().join("users"), "ann\ndora\n").unwrap();
    let told = mta.reload();
    assert!(told.contains("directory: a file that it names has changed"), "{told}");
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.say("RCPT TO:<dora@example.test>", "250");
}

#[test]
fn another_component_under_the_same_name() {
    let setup = Setup::new();
    let component = setup.folder().join("p.wasm");
    std::fs::copy(component_file("subject-words"), &component).unwrap();
    let lines = "[plugin.p]\nsource = \"p.wasm\"\nsettings = { words = [\"lottery\"], how = \"discard\" }";
    let mta = setup.tables(lines).start_with_chain(&["p"]);
    assert!(fresh(&mta, "lottery").starts_with("550"));
    // As an installer does it: the old file stays whole for whoever has it open.
    let new = mta.folder().join("new.wasm");
    std::fs::copy(component_file("guest-zoo"), &new).unwrap();
    std::fs::rename(&new, &component).unwrap();
    let told = mta.reload();
    assert!(told.contains("plugin.p: version 0.1.0 ("), "{told}");
    assert!(fresh(&mta, "lottery").starts_with("250"));
    // Half a file: the writer is not done.
    let whole = std::fs::read(component_file("subject-words")).unwrap();
    std::fs::write(&component, &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&mta).contains("is no WebAssembly component"));
    assert!(fresh(&mta, "lottery").starts_with("250"));
    std::fs::write(&component, whole).unwrap();
    mta.reload();
    assert!(fresh(&mta, "lottery").starts_with("550"));
}

#[test]
fn an_unchanged_policy_keeps_what_it_counted() {
    let mta = site().start();
    fresh(&mta, "one");
    mta.edit("users = [\"ann\", \"bob\"]", "users = [\"ann\"]");
    mta.reload();
    fresh(&mta, "two");
    let listed = mta.command(&["plugin", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed[0]["counters"]["calls"], &listed[0]["generation"]), (&2.into(), &1.into()));
    assert_eq!(mta.status()["generation"]["number"], 2);
}

#[test]
fn a_wrong_config_changes_nothing_and_is_told_with_its_place() {
    let mta = site().start();
    let config = mta.folder().join("wasmta.toml");
    let sound = std::fs::read_to_string(&config).unwrap();
    for (from, to, told) in [
        ("settings = {", "setings = {", "did you mean `settings`?"),
        ("users = [", "users = [17, ", "directory"),
        ("words = [\"lottery\"]", "words = 17", "a list of words is needed"),
        ("source = ", "source = \"missing.wasm\" #", "missing.wasm"),
        ("chain = [\"words\"]", "chain = [\"word\"]", "did you mean `words`?"),
        ("[plugin.words]", "[plugin.words]\nmemory = \"1 GiB\"", "slot-memory"),
    ] {
        mta.edit(from, to);
        let line = std::fs::read_to_string(&config)
            .unwrap()
            .lines()
            .position(|line| line.contains(to.lines().last().unwrap()));
        let place = format!("wasmta.toml:{}:", line.unwrap() + 1);
        let said = refused(&mta);
        assert!(said.contains(told) && said.contains(&place), "{to}: {said}");
        assert!(fresh(&mta, "lottery").starts_with("550"));
        std::fs::write(&config, &sound).unwrap();
    }
    assert_eq!(mta.status()["generation"]["number"], 1);
}

#[test]
fn no_bad_policy_comes_into_force() {
    let zoo = |how: &str| format!("source = {:?}\nsettings = {{ how = {how:?} }}", component_file("guest-zoo"));
    let whole = std::fs::read(component_file("guest-zoo")).unwrap();
    let setup = site().file("half.wasm", &whole[..whole.len() / 2]).file("core.wasm", b"\0asm\x01\0\0\0");
    let setup = setup.file("text.wasm", "hello").file("next.wasm", replaced(&whole, b"@0.1.0", b"@0.2.0"));
    let setup = setup.file("mistyped.wasm", replaced(&whole, b"policy/on-rcpt@", b"policy/on-helo@"));
    let mta = setup.start();
    let sound = std::fs::read_to_string(mta.folder().join("wasmta.toml")).unwrap();
    for (lines, told) in [
        (zoo("configure-trap"), "it failed in configure"),
        (zoo("configure-spin"), "it failed in configure"),
        (zoo("configure-refuse"), "I take nothing"),
        (format!("source = {:?}", component_file("guest-ungranted")), "grants = [\"kv\"]"),
        ("source = \"half.wasm\"".into(), "no WebAssembly component"),
        ("source = \"core.wasm\"".into(), "core module"),
        ("source = \"text.wasm\"".into(), "no WebAssembly component"),
        ("source = \"next.wasm\"".into(), "@0.2.0"),
        ("source = \"mistyped.wasm\"".into(), "on-helo"),
    ] {
        mta.edit("chain = [\"words\"]", "chain = [\"words\", \"bad\"]");
        mta.edit("[plugin.words]", &format!("[plugin.bad]\nconfigure-timeout = \"1s\"\n{lines}\n[plugin.words]"));
        let said = refused(&mta);
        assert!(said.contains(told) && said.contains("wasmta.toml:"), "{lines}: {said}");
        assert!(fresh(&mta, "lottery").starts_with("550") && fresh(&mta, "hello").starts_with("250"));
        std::fs::write(mta.folder().join("wasmta.toml"), &sound).unwrap();
    }
    assert!(mta.reload().starts_with("nothing has changed; generation 1"));
}

fn replaced(octets: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = octets.to_vec();
    for at in 0..out.len() - from.len() {
        if out[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
        }
    }
    assert_ne!(out, octets);
    out
}

#[test]
fn sighup_reloads_and_the_log_tells_what_came_of_it() {
    let mta = site().start();
    mta.edit(LOTTERY, CASINO);
    mta.hang_up();
    wait_for("the reload", || mta.log().contains("reloaded").then_some(()));
    assert!(fresh(&mta, "casino").starts_with("550"));
    mta.edit(CASINO, "words = 17");
    mta.hang_up();
    wait_for("the refusal", || mta.log().contains("not reloaded").then_some(()));
    let log = mta.log();
    let line = log.lines().find(|line| line.contains("not reloaded")).unwrap();
    assert!(line.contains("wasmta.toml:") && line.contains("a list of words is needed"), "{line}");
    assert!(fresh(&mta, "casino").starts_with("550"));
}

#[test]
fn a_policy_that_does_not_finish_ends_the_reload_in_time() {
    let mta = site().server("reload-timeout = \"2s\"").start();
    let zoo = format!(
        "[plugin.bad]\nsource = {:?}\nsettings = {{ how = \"configure-spin\" }}\n",
        component_file("guest-zoo")
    );
    mta.edit("[plugin.words]", &format!("{zoo}[plugin.words]"));
    let begun = Instant::now();
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| refused(&mta));
        let second = scope.spawn(|| refused(&mta));
        (first.join().unwrap(), second.join().unwrap())
    });
    assert!(first.contains("reload-timeout") && second.contains("reload-timeout"), "{first} {second}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(fresh(&mta, "lottery").starts_with("550"));
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", mta.pid())).unwrap_or_default();
    assert_eq!(children, "", "no compiler is left");
}
