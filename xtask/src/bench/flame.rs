//! Where wasmta's time goes: it is watched by `perf` while smtp-source sends, and the stacks are drawn as one SVG.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::load::{Load, Mode, Sink, free_port};
use super::options::Options;
use super::postfix::RECEIVERS;
use super::rules::write_rules;
use super::scratch_dir;
use super::server::{Kind, Server, Setup};
use crate::machine::{Result, find_program, show};

const WIDTH: f64 = 1600.0;
const ROW: f64 = 17.0;
/// Frames narrower than this (of [`WIDTH`]) are left out: nobody could read them.
const MIN_WIDTH: f64 = 0.8;

/// Help for the options.
pub const HELP: &str = "\
cargo xtask bench flame    a flame graph of wasmta under load; needs perf (Debian: linux-perf)
  --count 20000
  --size 10240
  --sessions 50
  --mode perconn
  --rules 100
  --dir target/bench
  --out target/bench/flame.svg
";

/// Runs the load and draws.
pub fn bench(words: &[&str]) -> Result<()> {
    let options = Options::parse(words, &["count", "size", "sessions", "mode", "rules", "dir", "out"])?;
    let scratch = scratch_dir(&options)?;
    let perf = find_program("perf").ok_or("perf is missing: apt-get install linux-perf")?;
    let load = Load {
        count: options.value("count", 20_000)?,
        size: options.value("size", 10_240)?,
        sessions: options.value("sessions", 50)?,
        mode: options.value("mode", Mode::PerConnection)?,
    };
    super::wasmta::build()?;
    let rules = write_rules(&scratch, options.value("rules", 100)?)?;
    let (sink, port) = (Sink::start(&scratch)?, free_port()?);
    let setup = Setup { scratch: &scratch, port, sink_port: sink.port, rules: Some(&rules), sessions: RECEIVERS };
    let server = Server::start(Kind::Wasmta, &setup)?;
    let samples = scratch.join("perf.data");
    let mut record = Command::new(&perf);
    // The stacks are unwound by the tables that every binary has: nothing need be built anew for it.
    record.args(["record", "-q", "-e", "cpu-clock", "-F", "299", "--call-graph", "dwarf,16384", "-o"]).arg(&samples);
    record.args(["-p", &server.tree().0.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut recording = record.spawn()?;
    std::thread::sleep(Duration::from_millis(500)); // until it watches
    let sent = load.send(port);
    let pid = rustix::process::Pid::from_child(&recording);
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    recording.wait()?;
    sent?;
    drop(server);
    let mut script = Command::new(&perf);
    script.args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"]).arg(&samples).stdin(Stdio::null());
    let output = script.stderr(Stdio::null()).output()?;
    let root = fold(&String::from_utf8_lossy(&output.stdout));
    if root.samples == 0 {
        return Err(format!("{}: no samples", show(&script)).into());
    }
    let out = options.text("out").map_or_else(|| scratch.join("flame.svg"), PathBuf::from);
    std::fs::write(&out, draw(&root))?;
    println!("{} samples in {}", root.samples, out.display());
    Ok(())
}

/// A function with those that it called.
#[derive(Default)]
struct Frame {
    samples: u64,
    callees: BTreeMap<String, Frame>,
}

impl Frame {
    fn add<'a>(&mut self, mut stack: impl Iterator<Item = &'a str>) {
        self.samples += 1;
        if let Some(name) = stack.next() {
            self.callees.entry(name.to_owned()).or_default().add(stack);
        }
    }

    fn depth(&self) -> usize {
        self.callees.values().map(Self::depth).max().map_or(0, |depth| depth + 1)
    }
}

/// Reads what `perf script` prints: the thread, the stack from the innermost frame on, an empty line.
fn fold(text: &str) -> Frame {
    let mut root = Frame::default();
    for sample in text.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some(thread) = lines.next() else { continue };
        let frames: Vec<&str> = lines.filter_map(|line| Some(function(line.trim().split_once(' ')?.1))).collect();
        root.add(std::iter::once(thread.trim()).chain(frames.into_iter().rev()));
    }
    root
}

/// Without the hash that Rust puts behind a name.
fn function(name: &str) -> &str {
    name.rsplit_once("::h").filter(|(_, hash)| hash.len() == 16).map_or(name, |(name, _)| name)
}

fn draw(root: &Frame) -> String {
    let height = (root.depth() + 1) as f64 * ROW + 2.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n"
    );
    draw_frame(&mut svg, "all", root, 0.0, height - ROW, WIDTH / root.samples as f64, root.samples);
    svg + "</svg>\n"
}

fn draw_frame(svg: &mut String, name: &str, frame: &Frame, x: f64, y: f64, scale: f64, all: u64) {
    let width = frame.samples as f64 * scale;
    if width < MIN_WIDTH {
        return;
    }
    let hue = name.bytes().fold(0u32, |sum, octet| sum.wrapping_mul(31).wrapping_add(octet.into())) % 50;
    let percent = 100.0 * frame.samples as f64 / all as f64;
    let _ = write!(
        svg,
        "<g><title>{}: {percent:.1} %</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"hsl({hue},80%,65%)\"/>",
        escaped(name),
        ROW - 1.0
    );
    let letters = (width / 6.7) as usize;
    if letters > 3 {
        // What does not fit is in the title; the end of a path says most.
        let skipped = name.chars().count().saturating_sub(letters);
        let shown = escaped(&name.chars().skip(skipped).collect::<String>());
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{shown}</text>", x + 2.0, y + ROW - 5.0);
    }
    svg.push_str("</g>\n");
    let mut left = x;
    for (name, callee) in &frame.callees {
        draw_frame(svg, name, callee, left, y - ROW, scale, all);
        left += callee.samples as f64 * scale;
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_folded_and_drawn() {
        let text = "wasmta\n\t  55aa inner::h0123456789abcdef\n\t  55bb outer<T>\n\nwasmta\n\t  55bb outer<T>\n\nspool-sync\n\t 1 fsync\n";
        let root = fold(text);
        assert_eq!((root.samples, root.depth()), (3, 3));
        assert_eq!(root.callees["wasmta"].callees["outer<T>"].callees["inner"].samples, 1);
        let svg = draw(&root);
        assert!(svg.contains("outer&lt;T&gt;: 66.7 %") && svg.ends_with("</svg>\n"));
    }
}
