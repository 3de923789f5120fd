//! wasmta itself: the release build, with header-checks in the chain and its own data directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::load::wait_for_port;
use super::server::Setup;
use super::tree::Tree;
use crate::guests;
use crate::machine::{Result, cargo, run, show, target_dir};

/// So that header-checks has something to do where Postfix checks no headers at all.
const FEW_RULES: &str = "/^Subject:.*\\bcheap pills\\b/ REJECT we have no interest in pills\n\
    /^From:.*@spam\\.example/ REJECT we know you\n/^X-Mailer: bulk/ WARN bulk mail\n";

/// A running server; stopped when dropped.
pub struct Wasmta {
    child: Child,
    config: PathBuf,
}

/// The release build.
pub fn binary() -> PathBuf {
    target_dir().join("release/wasmta")
}

/// Builds it and the policies, if they are not what the source says.
pub fn build() -> Result<()> {
    guests::build()?;
    run(cargo().args(["build", "--release", "--package", "wasmta"]))
}

impl Wasmta {
    /// Starts it below `dir`.
    pub fn start(dir: &Path, setup: &Setup<'_>) -> Result<Self> {
        let config = dir.join("wasmta.toml");
        std::fs::write(&config, config_text(dir, setup))?;
        let log = File::create(dir.join("log"))?;
        let mut command = Command::new(binary());
        command.args(["serve", "-c"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().map_err(|error| format!("wasmta: {error}"))?;
        wait_for_port(setup.port, &mut child, "wasmta")
            .map_err(|error| format!("{error}; its log is {}", dir.join("log").display()))?;
        Ok(Self { child, config })
    }

    /// One process.
    pub fn tree(&self) -> Tree {
        Tree(self.child.id())
    }

    /// Whether no message is left.
    pub fn queue_is_empty(&self) -> Result<bool> {
        let mut command = Command::new(binary());
        let output = command.args(["queue", "list", "--json", "-c"]).arg(&self.config).output()?;
        if !output.status.success() {
            return Err(format!("{}: {}", show(&command), String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(listed.as_array().is_some_and(Vec::is_empty))
    }
}

impl Drop for Wasmta {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config_text(dir: &Path, setup: &Setup<'_>) -> String {
    let Setup { port, sink_port, rules, .. } = *setup;
    let plugins = target_dir().join("plugins");
    let table = match rules {
        Some(file) => format!("{{ type = \"pcre\", file = {file:?} }}"),
        None => format!("{{ type = \"pcre\", rules = {FEW_RULES:?} }}"),
    };
    format!(
        "[server]
hostname = \"mx.example.test\"
data-dir = {dir:?}

[[listener]]
name = \"bench\"
address = \"127.0.0.1:{port}\"
chain = [\"header-checks\"]

[delivery]
relay-host = \"[127.0.0.1]:{sink_port}\"

[plugin.header-checks]
source = {:?}
settings = {{ header_checks = [{table}] }}
",
        plugins.join("header-checks.wasm")
    )
}
