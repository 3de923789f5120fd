//! What a policy costs: a fresh instance with its call, header-checks over a real header section, instances that are alive.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::options::Options;
use super::rules::write_rules;
use super::wasmta::{binary, build};
use super::{machine, scratch_dir};
use crate::machine::{Result, show, target_dir};

/// Header fields of the message that header-checks looks at.
const HEADERS: usize = 30;

/// Help for the options.
pub const HELP: &str = "\
cargo xtask bench policy   fresh instance and call of a hook, on one core; header-checks; memory of live instances
  --calls 5000
  --rules 100              header_checks rules over 30 header fields, none of which matches
  --instances 1000         that are alive together
  --dir target/bench
  --json FILE
";

/// Runs the bench and prints a line for each hook.
pub fn bench(words: &[&str]) -> Result<()> {
    let options = Options::parse(words, &["calls", "rules", "instances", "dir", "json"])?;
    let (calls, instances): (u64, u64) = (options.value("calls", 5000)?, options.value("instances", 1000)?);
    let rules: u64 = options.value("rules", 100)?;
    let scratch = scratch_dir(&options)?;
    build()?;
    let config = scratch.join("policy.toml");
    std::fs::write(&config, config_text(&write_rules(&scratch, rules)?))?;
    let message = scratch.join("message.eml");
    std::fs::write(&message, message_text())?;
    println!(
        "| policy | hook | median µs | 99 % within µs | live instances | their PSS MiB |\n|---|---|---|---|---|---|"
    );
    let mut results = Vec::new();
    for policy in ["bare", "header-checks"] {
        let mut command = pinned(&binary());
        command.args(["plugin", "bench", policy, "--json", "-c"]).arg(&config).arg("--message").arg(&message);
        command.args(["--calls", &calls.to_string(), "--instances", &instances.to_string()]);
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            return Err(format!("{}: {}", show(&command), String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let measured: Value = serde_json::from_slice(&output.stdout)?;
        let pss = measured["live"]["pss_kib"].as_f64().unwrap_or(f64::NAN) / 1024.0;
        for hook in measured["hooks"].as_array().into_iter().flatten() {
            let figure = |name: &str| hook[name].as_f64().unwrap_or(f64::NAN);
            println!(
                "| {policy} | {} | {:.1} | {:.1} | {instances} | {pss:.1} |",
                hook["hook"].as_str().unwrap_or_default(),
                figure("median_us"),
                figure("p99_us"),
            );
        }
        results.push(json!({ "policy": policy, "measured": measured }));
    }
    if let Some(file) = options.text("json") {
        let all =
            json!({ "bench": "policy", "machine": machine(), "rules": rules, "headers": HEADERS, "policies": results });
        std::fs::write(file, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}

/// On one core, where taskset is to be had.
fn pinned(program: &Path) -> Command {
    match crate::machine::find_program("taskset") {
        Some(taskset) => {
            let mut command = Command::new(taskset);
            command.args(["-c", "0"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn config_text(rules: &Path) -> String {
    let component = |name: &str| target_dir().join("plugins").join(format!("{name}.wasm"));
    format!(
        "[server]
hostname = \"mx.example.test\"
[[listener]]
name = \"bench\"
address = \"127.0.0.1:0\"
[plugin.bare]
source = {:?}
settings = {{ how = \"pass\" }}
[plugin.header-checks]
source = {:?}
settings = {{ header_checks = [{{ type = \"pcre\", file = {rules:?} }}] }}
",
        component("guest-zoo"),
        component("header-checks"),
    )
}

/// A header section as mail has it that came over a few hosts.
fn message_text() -> String {
    let mut text = String::new();
    for number in 0..HEADERS - 6 {
        let _ = match number % 3 {
            0 => write!(
                text,
                "Received: from host{number}.example.org (host{number}.example.org [192.0.2.{number}])\r\n\tby mx.example.test with ESMTPS id 4XyZ{number}; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
            ),
            1 => write!(text, "X-Header-{number}: something between forty and sixty octets long\r\n"),
            _ => write!(
                text,
                "Authentication-Results: mx{number}.example.org; dkim=pass header.d=example.org; spf=pass\r\n"
            ),
        };
    }
    text + "From: Somebody <somebody@example.org>\r\nTo: Ann <ann@example.test>\r\nSubject: The minutes of last week's meeting\r\n\
        Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1234567890@example.org>\r\nX-Mailer: A mail program 1.0\r\n\r\nhello\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_thirty_header_fields() {
        let text = message_text();
        let header = text.split_once("\r\n\r\n").map_or("", |(header, _)| header);
        assert_eq!(header.split("\r\n").filter(|line| !line.starts_with('\t')).count(), HEADERS);
    }
}
