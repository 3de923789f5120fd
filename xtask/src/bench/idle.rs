//! What a session costs that is open and says nothing: proportional set size before and with them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::load::{Sink, free_port};
use super::options::Options;
use super::server::{Kind, Server, Setup};
use super::{machine, scratch_dir};
use crate::machine::Result;

/// Connections that are opened before the first is greeted: the backlog of any server holds them.
const AT_ONCE: usize = 100;
/// For a server to come to rest.
const REST: Duration = Duration::from_secs(2);

/// Help for the options.
pub const HELP: &str = "\
cargo xtask bench idle     memory of sessions that have said EHLO and nothing since
  --sessions 1000
  --only wasmta,postfix    Postfix has a process for each: 1,000 take it more than 1 GiB
  --dir target/bench
  --json FILE
";

/// Runs the bench and prints a line for each server.
pub fn bench(words: &[&str]) -> Result<()> {
    let options = Options::parse(words, &["sessions", "only", "dir", "json"])?;
    let sessions: usize = options.value("sessions", 1000)?;
    let kinds: Vec<Kind> = options.list("only", "wasmta,postfix")?;
    let scratch = scratch_dir(&options)?;
    if kinds.contains(&Kind::Wasmta) {
        super::wasmta::build()?;
    }
    let sink = Sink::start(&scratch)?;
    println!(
        "| server | sessions | before MiB | with them MiB | KiB a session | opened in s |\n|---|---|---|---|---|---|"
    );
    let mut results = Vec::new();
    for kind in kinds {
        let port = free_port()?;
        let setup = Setup { scratch: &scratch, port, sink_port: sink.port, rules: None, sessions };
        let server = Server::start(kind, &setup)?;
        std::thread::sleep(REST);
        let before = server.tree().pss_kib();
        let start = Instant::now();
        let open = open_all(port, sessions).map_err(|error| format!("{kind}: {error}"))?;
        let seconds = start.elapsed().as_secs_f64();
        std::thread::sleep(REST);
        let with = server.tree().pss_kib();
        drop(open);
        results.push(show(kind, sessions, before, with, seconds));
    }
    if let Some(file) = options.text("json") {
        std::fs::write(
            file,
            serde_json::to_string_pretty(&json!({ "bench": "idle", "machine": machine(), "servers": results }))?,
        )?;
    }
    Ok(())
}

fn show(kind: Kind, sessions: usize, before: u64, with: u64, seconds: f64) -> Value {
    let each = with.saturating_sub(before) as f64 / sessions as f64;
    let (before_mib, with_mib) = (before as f64 / 1024.0, with as f64 / 1024.0);
    println!("| {kind} | {sessions} | {before_mib:.1} | {with_mib:.1} | {each:.1} | {seconds:.2} |");
    json!({
        "server": kind.to_string(), "sessions": sessions, "pss_kib_before": before, "pss_kib_with": with,
        "pss_kib_per_session": each, "opened_in_s": seconds,
    })
}

fn open_all(port: u16, sessions: usize) -> Result<Vec<TcpStream>> {
    let mut open = Vec::with_capacity(sessions);
    while open.len() < sessions {
        let count = AT_ONCE.min(sessions - open.len());
        let mut group = Vec::with_capacity(count);
        for _ in 0..count {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            group.push(stream);
        }
        for stream in &mut group {
            read_reply(stream, b"220")?;
            stream.write_all(b"EHLO idle.example.test\r\n")?;
        }
        for stream in &mut group {
            read_reply(stream, b"250")?;
        }
        open.append(&mut group);
    }
    Ok(open)
}

/// Reads up to the last line of a reply.
fn read_reply(stream: &mut TcpStream, code: &[u8]) -> Result<()> {
    let mut reply = Vec::new();
    let mut octets = [0; 2048];
    loop {
        let count = stream.read(&mut octets)?;
        reply.extend_from_slice(&octets[..count]);
        let last = reply.strip_suffix(b"\r\n").and_then(|lines| lines.rsplit(|octet| *octet == b'\n').next());
        if last.is_some_and(|line| line.starts_with(code) && line.get(3) == Some(&b' ')) {
            return Ok(());
        }
        if count == 0 || reply.len() > 64 * 1024 {
            return Err(format!("no {} but {}", code.escape_ascii(), reply.escape_ascii()).into());
        }
    }
}
