//! Where log lines go: standard error, one line each.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Server};

/// From now on log lines are written as the config says; before, they go nowhere.
pub(super) fn start(config: &Server) {
    // `config` has been checked; nonsense would leave errors alone.
    let filter = EnvFilter::builder().parse_lossy(&config.log_level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // That one is there already happens in tests alone, and then it is the right one.
    let _ = match config.log_format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
