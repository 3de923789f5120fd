//! Many sessions, large messages, and how soon the server is there: all within bounds.

use std::time::{Duration, Instant};

use crate::support::{Mta, Peer, Setup, pss_kib, wait_for};

fn small_site() -> Setup {
    Setup::new().plugin("subject-words", "subject-words", "settings = { words = [\"lottery\"] }")
}

fn deliver(mta: &Mta) {
    let reply = Peer::hello(mta.port).deliver("a@example.org", &["ann@example.test"], "Subject: x\r\n\r\nx\r\n");
    assert!(reply.starts_with("250"), "{reply}");
}

#[test]
fn a_thousand_idle_sessions_fit_in_150_mb() {
    crate::support::many_files();
    let mta = small_site().start();
    let mut idle: Vec<Peer> = Vec::new();
    for _ in 0..1000 {
        idle.push(Peer::hello(mta.port));
    }
    deliver(&mta);
    let memory = pss_kib(mta.pid());
    assert!(memory < 150_000, "{memory} KiB");
    for peer in idle.iter_mut().step_by(100) {
        peer.say("NOOP", "250");
    }
}

#[test]
fn a_large_message_is_streamed() {
    const LINES: usize = 640_000; // of 78 octets: just below 50 MB
    let mta = small_site().start();
    deliver(&mta);
    mta.maildir("ann").wait_for(1);
    let before = peak_kib(mta.pid());
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.say("RCPT TO:<ann@example.test>", "250");
    peer.say("DATA", "354");
    peer.send(b"Subject: large\r\n\r\n").unwrap();
    for thousand in 0..LINES / 1000 {
        let lines: String = (0..1000).map(|line| format!("{:076}\r\n", thousand * 1000 + line)).collect();
        peer.send_quietly(lines.as_bytes()).unwrap();
    }
    peer.say(".", "250 2.0.0");
    let mails = mta.maildir("ann").wait_for(2);
    let large = mails.iter().find(|mail| mail.contains("Subject: large")).unwrap();
    let body = large.split_once("\n\n").unwrap().1;
    assert_eq!(body.lines().count(), LINES);
    assert!(body.lines().enumerate().all(|(number, line)| line.parse() == Ok(number)), "no line lost or out of order");
    let grown = peak_kib(mta.pid()) - before;
    assert!(grown < 20_000, "{grown} KiB more for a message of 50 MB");
}

#[test]
fn more_than_the_limit_is_refused() {
    let mta = Setup::new().tables("[smtp]\nmax-message-size = \"100 KiB\"\nmax-recipients = 100").start();
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org> SIZE=200000", "552 5.3.4");
    let reply = peer.deliver("a@example.org", &["ann@example.test"], &"x\r\n".repeat(50_000));
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    peer.say("MAIL FROM:<a@example.org>", "250");
    for number in 0..100 {
        peer.say(&format!("RCPT TO:<ann+{number}@example.test>"), "250");
    }
    peer.say("RCPT TO:<bob@example.test>", "452 4.5.3");
}

#[test]
fn nothing_a_client_sends_grows_without_bound() {
    let mta = Setup::new().start();
    deliver(&mta);
    let before = peak_kib(mta.pid());
    // A command that never ends.
    let mut peer = Peer::hello(mta.port);
    for _ in 0..200 {
        if peer.send_quietly(&[b'x'; 64 * 1024]).is_err() {
            break;
        }
    }
    // A header that never ends, in short lines, in one long line, and folded.
    for line in ["X: y\r\n", "X", "X:\r\n y\r\n"] {
        let mut peer = Peer::hello(mta.port);
        peer.say("MAIL FROM:<a@example.org>", "250");
        peer.say("RCPT TO:<ann@example.test>", "250");
        peer.say("DATA", "354");
        let block = line.repeat(64 * 1024 / line.len());
        for _ in 0..200 {
            if peer.send_quietly(block.as_bytes()).is_err() {
                break;
            }
        }
        let _ = peer.send_quietly(b"\r\n.\r\n");
        if let Ok(reply) = peer.reply() {
            assert!(reply.starts_with('5'), "{reply}");
        }
    }
    deliver(&mta);
    let grown = peak_kib(mta.pid()) - before;
    assert!(grown < 20_000, "{grown} KiB more");
}

#[test]
fn the_greeting_comes_within_a_second_when_policies_are_compiled() {
    let mut mta = small_site().start();
    let mut took = Vec::new();
    for _ in 0..3 {
        mta.stop();
        let start = Instant::now();
        mta.restart();
        Peer::connect(mta.port).expect("220");
        took.push(start.elapsed());
    }
    // The quickest: other tests run at the same time.
    assert!(took.iter().min().unwrap() < &Duration::from_secs(1), "{took:?}");
}

#[test]
fn sessions_of_one_client_are_counted() {
    let mta = Setup::new()
        .listener("max-sessions-per-client = 5")
        .directory("local-domains = [\"example.test\"]\nusers = [\"ann\"]\ntrusted-networks = []")
        .start();
    let mut open: Vec<Peer> = (0..5).map(|_| Peer::hello(mta.port)).collect();
    let mut more = Peer::connect(mta.port);
    more.expect("421 4.7.0");
    more.expect_close();
    open.pop();
    wait_for("a free place", || Peer::connect(mta.port).reply().ok().filter(|reply| reply.starts_with("220")));
}

/// The most memory the process ever had in hand at once.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}
