//! Where log lines go: standard error, one line each.
//!
//! Lines are gathered for a moment and written together by a thread of their own: a message that passes leaves several lines, and a write
//! for each would cost more than judging it. A reader that does not read never holds up mail: what does not fit is dropped and counted.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, Server};

/// How long lines are gathered.
const GATHER: Duration = Duration::from_millis(10);
/// Libraries that tell more than an operator wants to know.
const QUIET: &str = "fjall=warn,lsm_tree=warn";
/// Octets of lines that may wait.
const MAX_WAITING: usize = 4 * 1024 * 1024;

/// Log lines are written as long as this lives; the last ones when it is dropped.
pub(super) struct Log {
    gathered: Gathered,
    writer: Option<JoinHandle<()>>,
}

/// From now on log lines are written as the config says; before, they go nowhere.
pub(super) fn start(config: &Server) -> Log {
    let gathered = Gathered::default();
    // `config` has been checked; nonsense would leave errors alone. What it says of the same part comes later and counts.
    let filter = EnvFilter::builder().parse_lossy(format!("{QUIET},{}", config.log_level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(gathered.clone());
    // That one is there already happens in tests alone, and then it is the right one.
    let _ = match config.log_format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    let lines = gathered.clone();
    let writer = thread::Builder::new().name("log".into()).spawn(move || lines.write_out(&mut io::stderr())).ok();
    Log { gathered, writer }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.gathered.lock().closing = true;
        self.gathered.0.ready.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // it ends when all is written
        }
    }
}

/// Lines that wait to be written.
#[derive(Clone, Default)]
struct Gathered(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<Lines>,
    ready: Condvar,
}

#[derive(Default)]
struct Lines {
    octets: Vec<u8>,
    dropped: u64,
    closing: bool,
    /// The writer sleeps until it is woken.
    asleep: bool,
}

impl Gathered {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, out: &mut dyn Write) {
        let mut octets = Vec::new();
        loop {
            let mut lines = self.lock();
            while lines.octets.is_empty() && !lines.closing {
                lines.asleep = true;
                lines = self.0.ready.wait(lines).unwrap_or_else(PoisonError::into_inner);
                lines.asleep = false;
            }
            if !lines.closing {
                drop(lines);
                thread::sleep(GATHER);
                lines = self.lock();
            }
            std::mem::swap(&mut octets, &mut lines.octets);
            let dropped = std::mem::take(&mut lines.dropped);
            let last = lines.closing;
            drop(lines);
            // If standard error is gone there is nobody to tell.
            let _ = out.write_all(&octets);
            if dropped > 0 {
                let _ = writeln!(out, "{dropped} log lines were dropped: nobody read them in time");
            }
            octets.clear();
            octets.shrink_to(64 * 1024);
            if last {
                return;
            }
        }
    }
}

/// One line comes in one call: that is how `tracing_subscriber` writes.
impl Write for Gathered {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.lock();
        if lines.octets.len() + line.len() > MAX_WAITING {
            lines.dropped += 1;
        } else {
            lines.octets.extend_from_slice(line);
        }
        let asleep = lines.asleep;
        drop(lines);
        if asleep {
            self.0.ready.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Gathered {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_written_in_order_and_what_does_not_fit_is_counted() {
        let mut gathered = Gathered::default();
        for n in 0..3 {
            assert!(gathered.write(format!("line {n}\n").as_bytes()).is_ok());
        }
        assert!(gathered.write(&vec![b'x'; MAX_WAITING]).is_ok());
        gathered.lock().closing = true;
        let mut out = Vec::new();
        gathered.write_out(&mut out);
        let text = String::from_utf8_lossy(&out);
        assert_eq!(text, "line 0\nline 1\nline 2\n1 log lines were dropped: nobody read them in time\n");
    }
}
