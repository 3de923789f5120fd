//! The figures as a table for people and as JSON for comparison.

use std::fmt;

use serde_json::{Value, json};

use super::load::Load;
use super::machine;
use super::server::Kind;

/// What one run brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Messages a second until the last 250 to the source.
    pub accept_rate: f64,
    /// Messages a second until the sink had them all.
    pub end_to_end_rate: f64,
    /// Processor time of the server for each message, in milliseconds.
    pub server_cpu_ms: f64,
    /// That of source and sink.
    pub load_cpu_ms: f64,
    /// Peak of the server's proportional set size.
    pub peak_pss_kib: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accept, end_to_end, cpu) = (self.accept_rate, self.end_to_end_rate, self.server_cpu_ms);
        write!(f, "accept {accept:.0}/s, e2e {end_to_end:.0}/s, cpu {cpu:.3} ms, pss {} KiB", self.peak_pss_kib)
    }
}

/// All runs of one load.
pub struct Case {
    load: Load,
    runs: Vec<(Kind, Figures)>,
}

impl Case {
    /// Nothing measured yet.
    pub fn new(load: Load) -> Self {
        Self { load, runs: Vec::new() }
    }

    /// One more run.
    pub fn add(&mut self, kind: Kind, figures: Figures) {
        self.runs.push((kind, figures));
    }

    fn kinds(&self) -> Vec<Kind> {
        [Kind::Wasmta, Kind::Postfix, Kind::Floor].into_iter().filter(|kind| self.of(*kind).next().is_some()).collect()
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Figures> {
        self.runs.iter().filter(move |(ran, _)| *ran == kind).map(|(_, figures)| figures)
    }

    /// Medians of rates and times, the highest of the memory peaks.
    fn summary(&self, kind: Kind) -> Figures {
        let median = |figure: fn(&Figures) -> f64| median(self.of(kind).map(figure).collect());
        Figures {
            accept_rate: median(|run| run.accept_rate),
            end_to_end_rate: median(|run| run.end_to_end_rate),
            server_cpu_ms: median(|run| run.server_cpu_ms),
            load_cpu_ms: median(|run| run.load_cpu_ms),
            peak_pss_kib: self.of(kind).map(|run| run.peak_pss_kib).max().unwrap_or(0),
        }
    }

    /// wasmta's figures as multiples of another's.
    fn ratios(&self, other: Kind) -> Option<Figures> {
        let kinds = self.kinds();
        if !kinds.contains(&Kind::Wasmta) || !kinds.contains(&other) {
            return None;
        }
        let (ours, theirs) = (self.summary(Kind::Wasmta), self.summary(other));
        Some(Figures {
            accept_rate: ours.accept_rate / theirs.accept_rate,
            end_to_end_rate: ours.end_to_end_rate / theirs.end_to_end_rate,
            server_cpu_ms: ours.server_cpu_ms / theirs.server_cpu_ms,
            load_cpu_ms: ours.load_cpu_ms / theirs.load_cpu_ms,
            peak_pss_kib: 0,
        })
    }

    fn json(&self) -> Value {
        let servers: serde_json::Map<String, Value> =
            self.kinds().into_iter().map(|kind| (kind.to_string(), self.server_json(kind))).collect();
        let ratios: serde_json::Map<String, Value> = [Kind::Postfix, Kind::Floor]
            .into_iter()
            .filter_map(|other| {
                let ratio = self.ratios(other)?;
                let memory = self.summary(Kind::Wasmta).peak_pss_kib as f64 / self.summary(other).peak_pss_kib as f64;
                let value = json!({
                    "accept_rate": ratio.accept_rate,
                    "end_to_end_rate": ratio.end_to_end_rate,
                    "server_cpu": ratio.server_cpu_ms,
                    "peak_pss": memory,
                });
                Some((format!("wasmta_to_{other}"), value))
            })
            .collect();
        let Load { count, size, sessions, mode } = self.load;
        json!({
            "count": count, "size": size, "sessions": sessions, "mode": mode.to_string(),
            "servers": servers, "ratios": ratios,
        })
    }

    fn server_json(&self, kind: Kind) -> Value {
        let figures = |figures: &Figures| {
            json!({
                "accept_rate": figures.accept_rate,
                "end_to_end_rate": figures.end_to_end_rate,
                "server_cpu_ms_per_message": figures.server_cpu_ms,
                "load_cpu_ms_per_message": figures.load_cpu_ms,
                "peak_pss_kib": figures.peak_pss_kib,
            })
        };
        json!({ "summary": figures(&self.summary(kind)), "runs": self.of(kind).map(figures).collect::<Vec<_>>() })
    }
}

/// All cases.
pub struct Report {
    rules: u64,
    rounds: u64,
    cases: Vec<Case>,
}

impl Report {
    /// Empty.
    pub fn new(rules: u64, rounds: u64) -> Self {
        Self { rules, rounds, cases: Vec::new() }
    }

    /// One more case.
    pub fn add(&mut self, case: Case) {
        self.cases.push(case);
    }

    /// Everything, with the machine it was measured on.
    pub fn json(&self) -> Value {
        json!({
            "bench": "relay",
            "machine": machine(),
            "header_rules": self.rules,
            "rounds": self.rounds,
            "delivered_exactly_once": true, // or there would be no report
            "cases": self.cases.iter().map(Case::json).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rounds, rules) = (self.rounds, self.rules);
        writeln!(f, "median of {rounds} alternating rounds; {rules} header rules; every message arrived once")?;
        writeln!(
            f,
            "| octets | sessions | mode | server | accept/s | e2e/s | e2e ratio | server CPU ms | ratio | load CPU ms | peak PSS MiB |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for case in &self.cases {
            let Load { size, sessions, mode, .. } = case.load;
            for kind in case.kinds() {
                let Figures { accept_rate, end_to_end_rate, server_cpu_ms, load_cpu_ms, peak_pss_kib } =
                    case.summary(kind);
                let ratio = case.ratios(kind).filter(|_| kind != Kind::Wasmta);
                let shown = |figure: fn(&Figures) -> f64| {
                    ratio.as_ref().map_or_else(|| "–".into(), |ratio| format!("{:.2}", figure(ratio)))
                };
                writeln!(
                    f,
                    "| {size} | {sessions} | {mode} | {kind} | {accept_rate:.0} | {end_to_end_rate:.0} | {} | {server_cpu_ms:.3} | {} | {load_cpu_ms:.3} | {:.1} |",
                    shown(|ratio| ratio.end_to_end_rate),
                    shown(|ratio| ratio.server_cpu_ms),
                    peak_pss_kib as f64 / 1024.0
                )?;
            }
        }
        write!(f, "Ratios are wasmta's figure by the row's.")
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => figures[middle],
        _ => (figures[middle - 1] + figures[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
