//! The command line; one file per command. Errors may be boxed here and nowhere else: they end in one line on stderr and an exit code
//! of sysexits(3).

mod check;
mod inspect;
mod install;
mod kv;
mod log;
mod plugin;
mod queue;
mod reload;
mod serve;
mod status;
mod table;
mod trial;

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::admin::{Client, ClientError};
use crate::config::{Config, ConfigError, Loaded};

/// Where the config lies if nobody says.
const DEFAULT_CONFIG: &str = "/etc/wasmta/wasmta.toml";

/// A mail transfer agent whose policies are WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "wasmta", version, max_term_width = 100, arg_required_else_help = true)]
struct Arguments {
    /// The config file [default: $WASMTA_CONFIG, else /etc/wasmta/wasmta.toml]
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve mail until SIGTERM or SIGINT
    Serve,
    /// Check the config, the files it names and the policies with their settings; change nothing
    Check,
    /// Have the running server read its config again; if anything in it is wrong, nothing changes
    Reload(reload::Arguments),
    /// Show what the running server does
    Status(status::Arguments),
    /// See and steer the queue of the running server
    #[command(subcommand)]
    Queue(queue::Command),
    /// See what policies remember, and have them forget it
    #[command(subcommand)]
    Kv(kv::Command),
    /// Look things up in tables
    #[command(subcommand)]
    Table(table::Command),
    /// Look at policies
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Compile the policies that come as JSON on standard input; the server runs it for what is not compiled yet
    #[command(hide = true)]
    Prepare,
    /// Print the version
    Version,
}

/// Why a command did not do what it should.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

/// sysexits(3).
mod code {
    /// What was looked up is not there.
    pub(super) const NOT_FOUND: u8 = 1;
    /// Something the command works on is not there or not right.
    pub(super) const DATA: u8 = 65;
    /// A service that is needed is not to be had.
    pub(super) const UNAVAILABLE: u8 = 69;
    /// The system refused something.
    pub(super) const SYSTEM: u8 = 71;
    /// Output could not be written.
    pub(super) const OUTPUT: u8 = 74;
    /// Try again later: the server is not running.
    pub(super) const TRY_LATER: u8 = 75;
    /// The config is wrong.
    pub(super) const CONFIG: u8 = 78;
    /// The command line is wrong.
    pub(super) const USAGE: u8 = 64;
}

impl Failure {
    fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl From<ConfigError> for Failure {
    fn from(err: ConfigError) -> Self {
        Self::new(code::CONFIG, err)
    }
}

impl From<ClientError> for Failure {
    fn from(err: ClientError) -> Self {
        let code = match err {
            ClientError::NotRunning(_) | ClientError::Timeout(_) => code::TRY_LATER,
            ClientError::Socket(..) | ClientError::Answer(_) => code::UNAVAILABLE,
            ClientError::Refused(_) => code::DATA,
        };
        Self::new(code, err)
    }
}

impl From<io::Error> for Failure {
    /// Of writing to standard output.
    fn from(err: io::Error) -> Self {
        // Whoever read our output has seen enough (`| head`).
        let code = if err.kind() == io::ErrorKind::BrokenPipe { 0 } else { code::OUTPUT };
        Self::new(code, format_args!("cannot write: {err}"))
    }
}

impl From<serde_json::Error> for Failure {
    /// Of writing to standard output.
    fn from(err: serde_json::Error) -> Self {
        io::Error::from(err).into()
    }
}

/// Parses the arguments, runs the command, and says what its exit code is.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(err) => {
            let _ = err.print();
            return ExitCode::from(if err.use_stderr() { code::USAGE } else { 0 });
        }
    };
    match arguments.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.code != 0 {
                let _ = writeln!(io::stderr(), "wasmta: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

impl Arguments {
    fn run(self) -> Result<(), Failure> {
        let config = Place(self.config);
        match self.command {
            Command::Serve => serve::run(config.load()?),
            Command::Prepare => check::prepare(),
            Command::Check => check::run(&config.load()?),
            Command::Reload(arguments) => reload::run(&config, &arguments),
            Command::Status(arguments) => status::run(&config, &arguments),
            Command::Queue(command) => queue::run(&config, command),
            Command::Kv(command) => kv::run(&config, command),
            Command::Plugin(command) => plugin::run(&config, command),
            Command::Table(command) => table::run(command),
            Command::Version => Ok(writeln!(io::stdout(), "wasmta {}", env!("CARGO_PKG_VERSION"))?),
        }
    }
}

/// Where the config is.
struct Place(Option<PathBuf>);

impl Place {
    fn file(&self) -> PathBuf {
        let from_environment = || std::env::var_os("WASMTA_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        self.0.clone().or_else(from_environment).unwrap_or_else(|| DEFAULT_CONFIG.into())
    }

    fn load(&self) -> Result<Loaded, Failure> {
        Ok(Config::load(&self.file())?)
    }

    /// One that asks the running server.
    fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(&self.load()?.config.server.data_dir))
    }
}

/// Runs something that has to wait, on this thread.
fn wait_for<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|err| Failure::new(code::SYSTEM, format_args!("no runtime: {err}")))?.block_on(future))
}

/// As pretty JSON on standard output.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    Ok(writeln!(out)?)
}
