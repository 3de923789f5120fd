//! The real binary with a config, a data directory and a port of its own.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{LazyLock, mpsc};

use super::{Folder, Maildir, PATIENCE, free_port, wait_for};

/// A config in the making. What it leaves alone is the default of a small site: `example.test` is local, Ann and Bob have mailboxes.
pub struct Setup {
    folder: Folder,
    port: u16,
    server: String,
    listener: String,
    directory: String,
    rest: String,
    chain: Vec<String>,
}

impl Setup {
    /// The small site.
    pub fn new() -> Self {
        Self {
            folder: Folder::new(),
            port: free_port(),
            server: "hostname = \"mx.example.test\"\n".into(),
            listener: String::new(),
            directory: "local-domains = [\"example.test\"]\nusers = [\"ann\", \"bob\"]\n".into(),
            rest: String::new(),
            chain: Vec::new(),
        }
    }

    /// Another port than the free one that was chosen.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Lines for `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        writeln!(self.server, "{lines}").unwrap();
        self
    }

    /// Lines for the listener.
    pub fn listener(mut self, lines: &str) -> Self {
        writeln!(self.listener, "{lines}").unwrap();
        self
    }

    /// Lines for `[directory]` in place of the small site's.
    pub fn directory(mut self, lines: &str) -> Self {
        self.directory = format!("{lines}\n");
        self
    }

    /// Whole tables.
    pub fn tables(mut self, text: &str) -> Self {
        writeln!(self.rest, "{text}").unwrap();
        self
    }

    /// Everything that is not local goes to this port of 127.0.0.1.
    pub fn next_hop(mut self, port: u16) -> Self {
        writeln!(self.rest, "[delivery]\nrelay-host = \"[127.0.0.1]:{port}\"").unwrap();
        self
    }

    /// A policy, last in the chain: its name, the component of `cargo xtask guests`, lines for its table.
    pub fn plugin(mut self, name: &str, component: &str, lines: &str) -> Self {
        let source = component_file(component);
        writeln!(self.rest, "[plugin.{name}]\nsource = {source:?}\n{lines}").unwrap();
        self.chain.push(name.to_owned());
        self
    }

    /// A file beside the config.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.folder.write(name, content);
        self
    }

    /// The folder that config and data are in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the config.
    pub fn write(&self) -> PathBuf {
        let Self { port, server, listener, directory, rest, chain, .. } = self;
        let cache = shared_cache();
        let text = format!(
            "[server]\ndata-dir = \"data\"\n{server}\n[[listener]]\nname = \"smtp\"\naddress = \"127.0.0.1:{port}\"\nchain = {chain:?}\n{listener}\n\
             [directory]\n{directory}\n[runtime]\ncache-dir = {cache:?}\n\n{rest}"
        );
        self.folder.write("wasmta.toml", text)
    }

    /// Starts it with policies of `tables` in the chain.
    #[track_caller]
    pub fn start_with_chain(mut self, chain: &[&str]) -> Mta {
        self.chain.extend(chain.iter().map(|name| (*name).to_owned()));
        self.start()
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Mta {
        let config = self.write();
        Mta::start(self.folder, config, self.port)
    }
}

/// A running server; stopped when dropped. Its log is shown if the test fails.
pub struct Mta {
    /// Where SMTP is spoken on 127.0.0.1.
    pub port: u16,
    folder: Folder,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Mta {
    /// Starts it with a config in a folder, which says this port, and waits until it listens.
    #[track_caller]
    pub fn start(folder: Folder, config: PathBuf, port: u16) -> Self {
        let log = folder.path().join("log");
        let mut mta = Self { child: None, port, folder, config, log };
        mta.restart();
        mta
    }

    /// Starts it again, with the same files, and waits until it listens.
    #[track_caller]
    pub fn restart(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = command(&self.config, &["serve"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let port = self.port;
        wait_for("the server to listen", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the server ended: {ended:?}");
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
    }

    /// Ends it as a power failure would, as far as a process can be.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end, as systemd would, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("running");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_for("the server to end", || child.try_wait().unwrap())
    }

    /// Changes the config file, where `from` stands exactly once.
    #[track_caller]
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
        std::fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    /// `wasmta reload` with success; what it printed.
    #[track_caller]
    pub fn reload(&self) -> String {
        let output = self.command(&["reload"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().expect("running"));
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// `wasmta status --json`.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let output = self.command(&["status", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// A command of the same binary with the same config.
    pub fn command(&self, arguments: &[&str]) -> Output {
        wasmta(&self.config, arguments)
    }

    /// What waits in the queue.
    #[track_caller]
    pub fn queue(&self) -> Vec<serde_json::Value> {
        let listed = self.command(&["queue", "list", "--json"]);
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        serde_json::from_slice(&listed.stdout).unwrap()
    }

    /// A user's Maildir.
    pub fn maildir(&self, user: &str) -> Maildir {
        Maildir(self.folder.path().join("data/mail").join(user))
    }

    /// The folder that the config is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }
}

impl Drop for Mta {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the server's log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// Runs a command that ends by itself; one that does not is a failure.
#[track_caller]
pub fn wasmta(config: &Path, arguments: &[&str]) -> Output {
    let mut command = command(config, arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (told, output) = mpsc::channel();
    std::thread::spawn(move || told.send(child.wait_with_output()));
    match output.recv_timeout(PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            panic!("{arguments:?} did not end");
        }
    }
}

/// The program under test.
pub fn binary() -> &'static Path {
    &BINARY
}

fn command(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).arg("-c").arg(config);
    command
}

/// Built here, so that no scenario ever runs a stale one: cargo makes no binaries for another package's tests.
static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "wasmta", "--profile", profile]);
    let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
    assert!(status.success(), "wasmta does not build");
    let binary = build_dir().join("wasmta");
    assert!(binary.is_file(), "{} is missing", binary.display());
    binary
});

/// `target/debug` or `target/release`: this program lies in `deps` there.
fn build_dir() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}

/// Components compiled by one scenario serve the next.
pub fn shared_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-policies")
}

/// A component that `cargo xtask guests` has built.
pub fn component_file(name: &str) -> PathBuf {
    let file = build_dir().parent().unwrap().join("plugins").join(format!("{name}.wasm"));
    assert!(file.is_file(), "{} is missing: cargo xtask guests", file.display());
    file
}
