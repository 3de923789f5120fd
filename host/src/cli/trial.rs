//! `wasmta plugin test`: a component's hooks offline, for its author and the author's CI.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::check::Scratch;
use super::{Failure, code, print_json, wait_for};
use crate::config::Source;
use crate::trial::{Case, Hook, Report, Scenario, TrialError, World, read_message};

/// What is to be run.
#[derive(Debug, clap::Args)]
pub(super) struct Test {
    /// The component
    file: PathBuf,
    /// A scenario: settings, grants and `[[case]]`s; docs/writing-policies.md has its keys
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// A message: this one mail is run, and no case of the scenario
    #[arg(long)]
    message: Option<PathBuf>,
    /// The client's address
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// What the client says in EHLO
    #[arg(long, value_name = "NAME")]
    helo: Option<String>,
    /// The reverse-path; '' for <>
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// A forward-path; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Settings in place of the scenario's: JSON, or a file of JSON or TOML
    #[arg(long, value_name = "JSON|FILE")]
    settings: Option<String>,
    /// Where compiled forms are kept [default: wasmta in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl From<TrialError> for Failure {
    fn from(err: TrialError) -> Self {
        let code = match err {
            TrialError::Sandbox(_) => code::SYSTEM,
            TrialError::Message { .. } => code::DATA,
        };
        Self::new(code, err)
    }
}

/// Does it.
pub(super) fn run(arguments: &Test) -> Result<(), Failure> {
    let (mut scenario, folder) = match &arguments.scenario {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text = text.map_err(|err| Failure::new(code::DATA, format_args!("{}: {err}", file.display())))?;
            let source = Source::new(file, text);
            let mut scenario: Scenario = source.parse()?;
            let cases = scenario.cases.iter_mut().filter_map(|case| case.settings.as_mut());
            for settings in scenario.settings.iter_mut().chain(cases) {
                source.read_files_into(settings)?; // `{ file = "NAME" }`, as in a config
            }
            (scenario, source.folder().to_owned())
        }
        None => (Scenario::default(), PathBuf::new()),
    };
    if let Some(settings) = &arguments.settings {
        scenario.settings = Some(read_settings(settings)?);
    }
    let cases = arguments.cases(&scenario)?;
    let scratch;
    let cache = match arguments.cache.clone().or_else(usual_cache) {
        Some(cache) => cache,
        None => {
            scratch = Scratch::new()?;
            scratch.0.clone()
        }
    };
    let mut world = World::new(&arguments.file, &scenario, &cache)?;
    let reports = wait_for(run_all(&mut world, &cases, &folder, arguments.message.as_deref()))??;
    if arguments.json {
        print_json(&reports)?;
    } else {
        reports.iter().try_for_each(print)?;
    }
    let failed = reports.iter().filter(|report| !report.differences.is_empty()).count();
    if failed > 0 {
        return Err(Failure::new(code::DATA, format_args!("{failed} of {} cases failed", reports.len())));
    }
    Ok(())
}

impl Test {
    /// The scenario's cases, or the one that the command line tells.
    fn cases(&self, scenario: &Scenario) -> Result<Vec<Case>, Failure> {
        let named = self.client.is_some() || self.helo.is_some() || self.from.is_some() || !self.to.is_empty();
        if self.message.is_none() && !scenario.cases.is_empty() {
            if named {
                let why = "--client, --helo, --from and --to go with --message; the scenario's cases name their own";
                return Err(Failure::new(code::USAGE, why));
            }
            return Ok(scenario.cases.clone());
        }
        let mut case = Case::default();
        let message = self.message.as_ref().map(|file| file.display().to_string());
        case.name = message.unwrap_or_else(|| "a short message".into());
        case.client = self.client.unwrap_or(case.client);
        case.helo = self.helo.clone().unwrap_or(case.helo);
        case.from = self.from.clone().unwrap_or(case.from);
        if !self.to.is_empty() {
            case.to.clone_from(&self.to);
        }
        Ok(vec![case])
    }
}

async fn run_all(
    world: &mut World,
    cases: &[Case],
    folder: &Path,
    message: Option<&Path>,
) -> Result<Vec<Report>, Failure> {
    let mut reports = Vec::new();
    for case in cases {
        let own = case.message.as_ref().map(|file| folder.join(file));
        let message = message.or(own.as_deref()).map(read_message).transpose()?;
        for _ in 0..case.repeat.max(1) {
            let report = world.run(case, message.as_deref()).await;
            reports.push(report.map_err(|why| Failure::new(code::DATA, format_args!("case {}: {why}", case.name)))?);
        }
    }
    Ok(reports)
}

/// JSON, or a file of it or of TOML.
fn read_settings(text: &str) -> Result<Value, Failure> {
    let wrong = |why: String| Failure::new(code::USAGE, format_args!("--settings: {why}"));
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|err| wrong(err.to_string()));
    }
    let file = Path::new(text);
    let content = std::fs::read_to_string(file).map_err(|err| wrong(format!("{text}: {err}")))?;
    if file.extension().is_some_and(|extension| extension == "toml") {
        let source = Source::new(file, format!("[settings]\n{content}"));
        let scenario: Scenario = source.parse()?;
        return Ok(scenario.settings.unwrap_or_default());
    }
    serde_json::from_str(&content).map_err(|err| wrong(format!("{text}: {err}")))
}

fn usual_cache() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(cache.join("wasmta"))
}

fn print(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mark = if report.differences.is_empty() { "ok" } else { "FAILED" };
    writeln!(out, "{mark} {}", report.name)?;
    let said = match (&report.reply, &report.reason, &report.load_error) {
        (Some(reply), ..) => format!(" {reply}"),
        (_, Some(why), _) | (_, _, Some(why)) => format!(": {why}"),
        _ => String::new(),
    };
    let at = report.stage.map(|stage| format!(" at {stage}")).unwrap_or_default();
    writeln!(out, "   {}{at}{said}; score {}", report.verdict, report.score)?;
    report.hooks.iter().try_for_each(|hook| print_hook(&mut out, hook))?;
    for (key, value) in &report.kv_changes {
        match value {
            Some(value) => writeln!(out, "   kv {key} = {value}")?,
            None => writeln!(out, "   kv {key} is gone")?,
        }
    }
    for (name, value) in &report.metrics {
        writeln!(out, "   metric {name} = {value}")?;
    }
    for difference in &report.differences {
        writeln!(out, "   ! {difference}")?;
    }
    Ok(())
}

fn print_hook(out: &mut impl io::Write, hook: &Hook) -> io::Result<()> {
    let Hook { hook: name, verdict, failure, edits, symbols, events, micros, memory_kib } = hook;
    let failure = failure.as_ref().map(|failure| format!(" because it {failure}")).unwrap_or_default();
    writeln!(out, "   on-{name}: {verdict}{failure} ({micros} µs, {memory_kib} KiB)")?;
    for (symbol, weight, detail) in symbols {
        writeln!(out, "      symbol {symbol} {weight} {detail}")?;
    }
    for edit in edits {
        writeln!(out, "      edit: {edit}")?;
    }
    for (import, what, answer) in events {
        writeln!(out, "      {import} {what}: {answer}")?;
    }
    Ok(())
}
