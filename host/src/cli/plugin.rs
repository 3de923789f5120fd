//! `wasmta plugin`: look at policies.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::check::Scratch;
use super::{Failure, Place, code, inspect, install, print_json, trial, wait_for};
use crate::generation::{load_all, services};
use crate::kv;
use crate::plugin::{Runtime, bench};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the policies of the running server with what was counted of them
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a component says of itself: hooks, the grants it needs, settings, symbols; no config is needed
    Inspect {
        /// The component
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Install a policy from a file, a registry (oci://HOST/REPOSITORY:TAG) or an https URL, or another version of one
    Install(install::Install),
    /// Take an installed policy away again
    Remove {
        /// Under which name it is installed
        name: String,
    },
    /// Run a component's hooks offline on one mail, or on the cases of a scenario, and compare with what the scenario expects
    Test(trial::Test),
    /// Time every hook of a policy of the config: a fresh instance, the call, and its end; and what live instances cost
    Bench {
        /// Its name in the config
        name: String,
        /// A message to judge; without one, a short one
        #[arg(long)]
        message: Option<PathBuf>,
        /// Calls of each hook that are counted
        #[arg(long, default_value_t = 2000)]
        calls: u32,
        /// Instances that live together
        #[arg(long, default_value_t = 1000)]
        instances: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
pub(super) fn run(config: &Place, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { json } => list(config, json),
        Command::Inspect { file, json } => inspect::run(file, json),
        Command::Install(arguments) => install::run(config, &arguments),
        Command::Remove { name } => install::remove(config, &name),
        Command::Test(arguments) => trial::run(&arguments),
        Command::Bench { name, message, calls, instances, json } => {
            let message = message.map_or_else(|| Ok(b"Subject: hello\r\n\r\nhello\r\n".to_vec()), std::fs::read)?;
            wait_for(time(config, &name, &message, calls, instances, json))?
        }
    }
}

async fn time(
    config: &Place,
    name: &str,
    message: &[u8],
    calls: u32,
    instances: u32,
    json: bool,
) -> Result<(), Failure> {
    let mut loaded = config.load()?;
    loaded.config.plugins.retain(|own, _| own == name);
    let cache = Scratch::new()?;
    let runtime = Runtime { cache_dir: cache.0.clone(), instances, ..loaded.config.runtime.clone() };
    // Files of its own: what `kv` costs is measured, and what the server keeps is left alone.
    let kv = kv::Config { path: cache.0.join("kv"), ..loaded.config.kv.clone() };
    let services = services(&loaded, Arc::new(kv::Embedded::new(kv)))?;
    let plugins = load_all(&loaded, &runtime, services).await?;
    let no_plugin = || Failure::new(code::USAGE, format_args!("the config has no [plugin.{name}]"));
    let plugin = plugins.get(name).ok_or_else(no_plugin)?;
    let message = if message.contains(&b'\r') {
        message.to_vec()
    } else {
        String::from_utf8_lossy(message).replace('\n', "\r\n").into_bytes() // a file with the line ends of this system
    };
    let hooks = bench::times(plugin, &message, calls).await;
    let live = bench::live(plugin, &message, instances).await?;
    if json {
        return print_json(&serde_json::json!({ "hooks": hooks, "live": live }));
    }
    let mut out = io::stdout().lock();
    for hook in &hooks {
        let bench::HookTimes { hook, calls, median_us, p99_us, verdict } = hook;
        writeln!(out, "{hook}: {calls} calls, median {median_us:.1} µs, 99 % within {p99_us:.1} µs: {verdict}")?;
    }
    Ok(writeln!(out, "{} live instances: {} KiB", live.instances, live.pss_kib)?)
}

fn list(config: &Place, json: bool) -> Result<(), Failure> {
    let plugins: Vec<Value> = wait_for(config.client()?.get("/plugins"))??;
    if json {
        return print_json(&plugins);
    }
    let mut out = io::stdout().lock();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for plugin in &plugins {
        let (manifest, counters) = (&plugin["manifest"], &plugin["counters"]);
        let hooks: Vec<String> = plugin["hooks"].as_array().into_iter().flatten().map(text).collect();
        let start = if plugin["snapshot"] == true { "" } else { ", configured at each call: it cannot be snapshot" };
        writeln!(
            out,
            "{}: {} {}, {}, hooks: {}{start}\n    {} calls, {} failed, median {} µs, 99 % within {} µs",
            text(&plugin["name"]),
            text(&manifest["name"]),
            text(&manifest["version"]),
            text(&plugin["mode"]),
            hooks.join(", "),
            counters["calls"],
            counters["failures"],
            counters["p50_us"],
            counters["p99_us"],
        )?;
    }
    Ok(())
}
