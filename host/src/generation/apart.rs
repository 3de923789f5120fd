//! Policies are compiled in a process of its own (`wasmta prepare`), which leaves them in the cache: what the compiler takes of memory
//! goes with it, and a component that the compiler cannot bear costs the server nothing.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::policies::{Fault, sandbox, server_name};
use crate::config::Config;
use crate::kv;
use crate::net::{self, Resolver};
use crate::plugin::{self, Runtime, Services};

/// The process is ourselves, even if the file has been replaced meanwhile: another version would compile for itself alone.
const OURSELVES: &str = "/proc/self/exe";
/// How often we look whether it has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Octets of its answer.
const MAX_ANSWER: u64 = 1 << 20;
/// Instances that the process reserves; it runs one at a time.
const INSTANCES: u32 = 8;
/// It gives way to those that serve mail.
const NICENESS: i32 = 15;

/// What is to be compiled: the process gets it as JSON on its standard input, so that it and the server never read different files.
#[derive(Debug, Serialize, Deserialize)]
pub struct Work {
    server_name: String,
    runtime: Runtime,
    plugins: BTreeMap<String, plugin::Config>,
}

/// What the process says in the end, as JSON on its standard output.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    fault: Option<Fault>,
}

/// Why policies are not ready.
#[derive(Debug)]
pub(super) enum Trouble {
    /// One is wrong.
    Fault(Fault),
    /// The process could not be started, or died.
    Process(String),
    /// It took too long.
    Timeout,
}

impl From<io::Error> for Trouble {
    fn from(err: io::Error) -> Self {
        Self::Process(err.to_string())
    }
}

impl Work {
    /// These policies of a config.
    pub(super) fn new(config: &Config, plugins: BTreeMap<String, plugin::Config>) -> Self {
        Self { server_name: server_name(config), runtime: config.runtime.clone(), plugins }
    }

    /// Has it done by another process. Blocks until that has ended, at most for `limit`.
    pub(super) fn done_apart(&self, limit: Duration) -> Result<(), Trouble> {
        let deadline = Instant::now() + limit;
        let mut process = Command::new(OURSELVES);
        process.arg("prepare").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = Killed(process.spawn()?);
        let (input, output) = (child.0.stdin.take(), child.0.stdout.take());
        thread::scope(|scope| {
            // One that does not read is found out by the deadline; when it ends, both pipes do.
            scope.spawn(|| {
                let mut input = BufWriter::new(input?);
                serde_json::to_writer(&mut input, self).ok()?;
                input.flush().ok()
            });
            let answer = scope.spawn(|| {
                let mut answer = Vec::new();
                let read = output.map(|output| output.take(MAX_ANSWER).read_to_end(&mut answer));
                read.is_some_and(|read| read.is_ok()).then_some(answer)
            });
            let status = child.wait_until(deadline)?;
            let answer = answer.join().ok().flatten().unwrap_or_default();
            match serde_json::from_slice(&answer) {
                Ok(Answer { fault: None }) => Ok(()),
                Ok(Answer { fault: Some(fault) }) => Err(Trouble::Fault(fault)),
                Err(_) => Err(Trouble::Process(format!("it ended with {status}"))),
            }
        })
    }

    /// Does it: the other process's side.
    async fn done_here(&self) -> Result<(), Fault> {
        let runtime = Runtime { instances: INSTANCES, warm_instances: 0, ..self.runtime.clone() };
        // What they remember is gone with this process; none of them is asked about anything here.
        let services = Services {
            server_name: self.server_name.clone(),
            kv: Some(Arc::new(kv::Memory::default())),
            resolver: Resolver::new(&net::Config::default()).ok(),
            clock: None,
        };
        let sandbox = sandbox(&runtime, services)?;
        for (name, config) in &self.plugins {
            sandbox.load(name, config).await.map_err(|err| Fault::new(name, &err))?;
        }
        Ok(())
    }
}

/// A process that does not outlive our interest in it.
struct Killed(Child);

impl Killed {
    fn wait_until(&mut self, deadline: Instant) -> Result<ExitStatus, Trouble> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                self.end();
                return Err(Trouble::Timeout);
            }
            thread::sleep(LOOK);
        }
    }

    fn end(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.end();
    }
}

/// The whole of `wasmta prepare`: work comes in on standard input, the answer goes out on standard output.
pub async fn prepare() -> io::Result<()> {
    use rustix::process::{Signal, nice, set_parent_process_death_signal};
    let _ = nice(NICENESS);
    // If the server dies there is nobody left to compile for.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let work: Work = serde_json::from_reader(io::stdin().lock())?;
    let answer = Answer { fault: work.done_here().await.err() };
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &answer)?;
    out.flush()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn work_arrives_as_it_was_sent() {
        let text = "[server]\nhostname = \"mx.example.test\"\n[plugin.x]\nsource = \"x.wasm\"\ngrants = [\"kv\", \"net\"]\ntimeout = \"3s\"\n\
            settings = { a = [1, 2.5, \"x\", { b = true }], big = 9223372036854775807 }\n\
            endpoints = { one = \"tcp://127.0.0.1:1\", two = { address = \"unix:///run/x\", timeout = \"1s\" } }\n";
        let config: Config = Source::new("test.toml", text).parse().unwrap();
        let sent = Work::new(&config, config.plugins.clone());
        let arrived: Work = serde_json::from_slice(&serde_json::to_vec(&sent).unwrap()).unwrap();
        assert_eq!((&arrived.plugins, &arrived.runtime), (&config.plugins, &config.runtime));
        assert_eq!(arrived.server_name, "mx.example.test");
    }
}
