//! What was to come against what came.

use std::fmt::Display;

use super::{Expect, Report};

impl Expect {
    /// One line for each thing that is not as expected.
    pub(super) fn differences(&self, report: &Report) -> Vec<String> {
        let mut found = Differences(Vec::new());
        let reply = report.reply.as_ref();
        let missing = || "none".to_owned();
        found.equal("verdict", self.verdict.as_ref(), &report.verdict);
        found.equal("stage", self.stage.as_ref(), &report.stage.map_or_else(missing, str::to_owned));
        found.equal("code", self.code.as_ref(), &reply.map_or(0, |reply| reply.code));
        let enhanced = reply.and_then(|reply| reply.enhanced.clone()).unwrap_or_else(missing);
        found.equal("enhanced", self.enhanced.as_ref(), &enhanced);
        let text = reply.map(|reply| reply.text.as_str()).or(report.reason.as_deref()).unwrap_or_default();
        found.part("text", self.text.as_deref(), text);
        if let Some(score) = self.score.filter(|score| (score - report.score).abs() > 1e-6) {
            found.differ("score", &score, &report.score);
        }
        self.symbols(report, &mut found);
        let lines: Vec<&str> = report.hooks.iter().flat_map(|hook| hook.log()).map(|(_, line)| line).collect();
        for part in self.log.iter().filter(|part| !lines.iter().any(|line| line.contains(*part))) {
            found.differ("log", part, &lines.join(" / "));
        }
        self.message(report, &mut found);
        for (key, value) in &self.kv {
            let there = report.kv.get(key).map(String::as_str).unwrap_or_default();
            found.equal(&format!("kv {key}"), Some(&value.as_str()), &there);
        }
        self.failures(report, &mut found);
        found.0
    }

    fn symbols(&self, report: &Report, found: &mut Differences) {
        let Some(wanted) = &self.symbols else { return };
        let sorted = |names: &mut dyn Iterator<Item = &String>| {
            let mut names: Vec<&str> = names.map(String::as_str).collect();
            names.sort_unstable();
            names.join(", ")
        };
        let raised = sorted(&mut report.hooks.iter().flat_map(|hook| &hook.symbols).map(|(name, ..)| name));
        found.equal("symbols", Some(&sorted(&mut wanted.iter())), &raised);
    }

    fn message(&self, report: &Report, found: &mut Differences) {
        for field in self.header.iter().filter(|field| !report.header.contains(field)) {
            found.differ("header", field, &report.header.join(" / "));
        }
        let named = |field: &String, name: &str| {
            field.split(':').next().is_some_and(|own| own.trim_end().eq_ignore_ascii_case(name))
        };
        for name in &self.no_header {
            if let Some(field) = report.header.iter().find(|field| named(field, name)) {
                found.differ("no-header", name, field);
            }
        }
        if let Some(wanted) = &self.recipients {
            found.equal("recipients", Some(&wanted.join(", ")), &report.recipients.join(", "));
        }
    }

    fn failures(&self, report: &Report, found: &mut Differences) {
        match (&self.load_error, &report.load_error) {
            (Some(part), Some(err)) => found.part("load-error", Some(part), err),
            (Some(part), None) => found.differ("load-error", part, &"none"),
            (None, Some(err)) => found.differ("load-error", &"none", err),
            (None, None) => {}
        }
        let failures: Vec<&str> = report.hooks.iter().filter_map(|hook| hook.failure.as_deref()).collect();
        let failures = failures.join(" / ");
        match &self.failure {
            Some(part) => found.part("failure", Some(part), &failures),
            None if !failures.is_empty() => found.differ("failure", &"none", &failures),
            None => {}
        }
    }
}

struct Differences(Vec<String>);

impl Differences {
    fn differ(&mut self, what: &str, expected: &dyn Display, got: &dyn Display) {
        self.0.push(format!("{what}: expected {expected}, got {got}"));
    }

    fn equal<T: Display + PartialEq>(&mut self, what: &str, expected: Option<&T>, got: &T) {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            self.differ(what, expected, got);
        }
    }

    fn part(&mut self, what: &str, expected: Option<&str>, got: &str) {
        if let Some(expected) = expected.filter(|expected| !got.contains(*expected)) {
            self.differ(what, &format!("{expected:?} in it"), &format!("{got:?}"));
        }
    }
}
