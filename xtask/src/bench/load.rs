//! The load: Postfix's smtp-source before the server and its smtp-sink behind it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::tree::Tree;
use crate::machine::{Result, find_program, is_root, show};

/// One run of smtp-source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Messages.
    pub count: u64,
    /// Octets of the body.
    pub size: u64,
    /// Sessions at a time.
    pub sessions: u64,
    /// Whether a session carries many messages or one.
    pub mode: Mode,
}

/// How many messages a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One.
    PerConnection,
    /// As many as there are.
    Reuse,
}

impl std::str::FromStr for Mode {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "perconn" => Ok(Self::PerConnection),
            "reuse" => Ok(Self::Reuse),
            _ => Err(format!("{text}: a mode is perconn or reuse")),
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::PerConnection => "perconn",
            Self::Reuse => "reuse",
        })
    }
}

impl Load {
    /// Sends everything to the port and waits for the last 250. smtp-source dies on the first reply that is no
    /// success, and so does this.
    pub fn send(&self, port: u16) -> Result<()> {
        let mut command = Command::new(program("smtp-source")?);
        if self.mode == Mode::Reuse {
            command.arg("-d");
        }
        for (flag, value) in [("-s", self.sessions), ("-m", self.count), ("-l", self.size)] {
            command.arg(flag).arg(value.to_string());
        }
        command.args(["-f", "load@example.test", "-t", "user@example.test"]).arg(format!("127.0.0.1:{port}"));
        let output = command.stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{}: {}: {}", show(&command), output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
    }
}

/// A running smtp-sink that counts.
pub struct Sink {
    child: Child,
    counters: File,
    /// Where it listens.
    pub port: u16,
}

impl Sink {
    /// Starts it on a free port; its counters go to memory, not to the disk under test.
    pub fn start(scratch: &Path) -> Result<Self> {
        let port = free_port()?;
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { memory } else { scratch };
        let path = dir.join(format!("wasmta-bench-sink-{}-{port}", std::process::id()));
        let counters = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        let mut command = Command::new(program("smtp-sink")?);
        if is_root() {
            command.args(["-u", "nobody"]);
        }
        command.args(["-m", "2000", "-c", &format!("127.0.0.1:{port}"), "1000"]);
        let child = command.stdin(Stdio::null()).stdout(counters.try_clone()?).stderr(Stdio::null()).spawn()?;
        let mut sink = Self { child, counters, port };
        wait_for_port(port, &mut sink.child, "smtp-sink")?;
        Ok(sink)
    }

    /// Messages taken since the start.
    pub fn count(&mut self) -> Result<u64> {
        const LAST: u64 = 400;
        let length = self.counters.metadata()?.len();
        self.counters.seek(SeekFrom::Start(length.saturating_sub(LAST)))?;
        let mut tail = Vec::new();
        Read::by_ref(&mut self.counters).take(LAST).read_to_end(&mut tail)?;
        Ok(messages(&String::from_utf8_lossy(&tail)))
    }

    /// The process, for its processor time.
    pub fn tree(&self) -> Tree {
        Tree(self.child.id())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From the last whole `sess=… quit=… mesg=…\r`.
fn messages(tail: &str) -> u64 {
    let whole = tail.rsplit_once('\r').map_or("", |(before, _)| before);
    whole.rsplit_once("mesg=").and_then(|(_, count)| count.trim().parse().ok()).unwrap_or(0)
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Waits until somebody listens; fails when the process has ended.
pub fn wait_for_port(port: u16, child: &mut Child, name: &str) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            return Err(format!("{name} ended at once: {status}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("{name} does not listen on port {port}").into())
}

fn program(name: &str) -> Result<std::path::PathBuf> {
    find_program(name).ok_or_else(|| format!("{name} is missing: it comes with Debian's package postfix").into())
}

#[cfg(test)]
mod tests {
    use super::messages;

    #[test]
    fn the_last_whole_count() {
        assert_eq!(messages(""), 0);
        assert_eq!(messages("sess=1 quit=0 mesg=7\r"), 7);
        assert_eq!(messages("sess=1 quit=0 mesg=7\rsess=1 quit=1 mesg=12\rsess=2 quit=1 mesg=1"), 12);
    }
}
