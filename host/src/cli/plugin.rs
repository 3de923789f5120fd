//! `wasmta plugin`: look at policies.

use std::io::{self, Write as _};
use std::path::PathBuf;

use serde_json::Value;

use super::check::Scratch;
use super::{Failure, Place, code, print_json, wait_for};
use crate::plugin::{self, Inspection, LoadError, Runtime, Sandbox};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the policies of the running server with what was counted of them
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a component says of itself: hooks, imports, settings, symbols; no config is needed
    Inspect {
        /// The component
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
pub(super) fn run(config: &Place, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { json } => list(config, json),
        Command::Inspect { file, json } => inspect(file, json),
    }
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

fn inspect(file: PathBuf, json: bool) -> Result<(), Failure> {
    let wrong = |err: LoadError| match err {
        LoadError::File { .. } | LoadError::NotAComponent { .. } => Failure::new(code::DATA, err), // they name it
        err => Failure::new(code::DATA, format_args!("{}: {err}", file.display())),
    };
    let cache = Scratch::new()?;
    let runtime = Runtime { cache_dir: cache.0.clone(), instances: 1, ..Runtime::default() };
    let sandbox = Sandbox::new(&runtime).map_err(|err| Failure::new(code::SYSTEM, err))?;
    let inspection: Inspection = wait_for(sandbox.inspect(&plugin::Config::new(file.clone())))?.map_err(wrong)?;
    if json {
        return print_json(&inspection);
    }
    let manifest = &inspection.manifest;
    let mut out = io::stdout().lock();
    writeln!(out, "{} {}: {}", manifest.name, manifest.version, manifest.summary)?;
    writeln!(out, "hooks: {}", inspection.hooks.join(", "))?;
    writeln!(out, "imports: {}", inspection.imports.join(", "))?;
    for (symbol, weight, summary) in &manifest.symbols {
        writeln!(out, "symbol {symbol} ({weight}): {summary}")?;
    }
    Ok(writeln!(out, "settings: {}", manifest.settings_schema)?)
}
