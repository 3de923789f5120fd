//! The site of `cargo xtask run`: its config is sound, a mail arrives, and a rule's text comes back.

use std::path::Path;
use std::process::Command;

use crate::support::{Folder, Maildir, Mta, Peer, component_file, free_port, skip};

const CONFIG: &str = include_str!("../xtask/first-look/wasmta.toml");
const HEADER_CHECKS: &str = include_str!("../xtask/first-look/header_checks");

/// The site as `cargo xtask run` lays it out, on another port.
fn site() -> (Mta, Maildir) {
    let folder = Folder::new();
    let port = free_port();
    let config = CONFIG.replace("127.0.0.1:2525", &format!("127.0.0.1:{port}"));
    assert_ne!(config, CONFIG);
    folder.write("header_checks", HEADER_CHECKS);
    std::fs::create_dir(folder.path().join("plugins")).unwrap();
    for line in CONFIG.lines() {
        let Some(source) = line.strip_prefix("source = \"").and_then(|rest| rest.strip_suffix('"')) else { continue };
        let component = component_file(Path::new(source).file_stem().unwrap().to_str().unwrap());
        std::fs::copy(component, folder.path().join(source)).unwrap();
    }
    let config = folder.write("wasmta.toml", config);
    let mta = Mta::start(folder, config, port);
    let maildir = Maildir(mta.folder().join("mail/ann"));
    (mta, maildir)
}

#[test]
fn mail_arrives_or_is_refused_with_a_rules_text() {
    let (mta, maildir) = site();
    let mut peer = Peer::hello(mta.port);
    let reply = peer.deliver("you@example.org", &["ann@example.test"], "Subject: hello\r\n\r\nhello\r\n");
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    maildir.wait_for(1);
    let (rule, text) = HEADER_CHECKS.lines().find_map(|line| line.split_once(" REJECT ")).unwrap();
    assert!(rule.contains("free money"), "the mail below matches this rule: {rule}");
    let reply = peer.deliver("you@example.org", &["ann@example.test"], "Subject: free money\r\n\r\nhello\r\n");
    assert!(reply.starts_with("550 5.7.1 ") && reply.ends_with(text), "{reply}");
}

#[test]
fn swaks_sends_to_it() {
    let (mta, maildir) = site();
    let mut swaks = Command::new("swaks");
    swaks.args(["--from", "you@example.org", "--to", "ann@example.test", "--header", "Subject: hello", "--server"]);
    let Ok(output) = swaks.arg(format!("127.0.0.1:{}", mta.port)).output() else {
        return skip("first_look::swaks_sends_to_it", "swaks is not installed");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(maildir.wait_for(1)[0].contains("Subject: hello"));
}
