//! `wasmta plugin install` and `remove`: what is installed, what needs a yes, and what to write into the config.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use super::inspect::{Looked, grants_line, looking_glass};
use super::{Failure, Place, code, wait_for};
use crate::config::Places;
use crate::install::{Candidate, Concern, InstallError, Installer, Lock, PlainHttp, Store};
use crate::plugin::Digest;
use crate::units;

#[derive(Debug, clap::Args)]
pub(super) struct Install {
    /// A file, oci://HOST/REPOSITORY:TAG, oci://HOST/REPOSITORY@sha256:…, or https://…
    #[arg(required_unless_present = "locked")]
    source: Option<String>,
    /// What the config calls it [default: its own name]
    #[arg(long)]
    name: Option<String>,
    /// The digest that its component has to have
    #[arg(long)]
    digest: Option<Digest>,
    /// Say yes to whatever would be asked: a tag that has moved, imports that are new
    #[arg(long, short)]
    yes: bool,
    /// Fetch without TLS from other machines as well
    #[arg(long)]
    plain_http: bool,
    /// How long fetching may take
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    timeout: units::Duration,
    /// Fetch what the lock file names and this machine has not, and nothing else
    #[arg(long, conflicts_with_all = ["source", "name", "digest", "yes"])]
    locked: bool,
}

/// Installs.
pub(super) fn run(config: &Place, arguments: &Install) -> Result<(), Failure> {
    let Looked { sandbox, _scratch } = looking_glass()?;
    let file = config.file();
    let places = Places::load(&file)?;
    let installer = Installer {
        store: Store::new(&places.plugin_dir),
        lock: places.lock.clone(),
        sandbox: &sandbox,
        plain: if arguments.plain_http { PlainHttp::Anywhere } else { PlainHttp::Loopback },
        timeout: arguments.timeout.as_std(),
    };
    let mut out = io::stdout().lock();
    let Some(source) = &arguments.source else {
        let told = match wait_for(installer.restore())??.as_slice() {
            [] => format!("everything in {} is here", places.lock.display()),
            names => format!("fetched {}", names.join(", ")),
        };
        return Ok(writeln!(out, "{told}")?);
    };
    let candidate = wait_for(installer.fetch(source, arguments.name.as_deref(), arguments.digest))??;
    describe(&mut out, &candidate)?;
    if candidate.is_installed() && installer.store.file(&candidate.entry.digest).is_file() {
        return Ok(writeln!(out, "installed already, as {}", candidate.name)?);
    }
    let concerns = candidate.concerns();
    for concern in &concerns {
        tell(&mut out, &candidate, concern)?;
    }
    if !concerns.is_empty() && !arguments.yes && !asked(&mut out, &candidate.name)? {
        let message = format_args!("{} is not changed; to go on, say --yes", candidate.name);
        return Err(Failure::new(code::DATA, message));
    }
    let next = next_step(&file, &places, &candidate);
    let name = candidate.name.clone();
    installer.install(candidate)?;
    Ok(writeln!(out, "installed as {name}; {} says so\n{next}", places.lock.display())?)
}

/// What the operator does now.
fn next_step(file: &Path, places: &Places, candidate: &Candidate) -> String {
    let Candidate { name, source, inspection, .. } = candidate;
    let file = file.display();
    match places.sources.get(name) {
        Some(written) if written == Path::new(source) || written == Path::new(&format!("installed:{name}")) => {
            "`wasmta check` loads it; a running server has it after a restart".to_owned()
        }
        Some(written) => {
            let written = written.display().to_string();
            format!(
                "\n{file} has another source for it; change\n\n    source = {written:?}\n\nunder [plugin.{name}] to\n\n    \
                 source = {source:?}"
            )
        }
        None => {
            let grants = match inspection.grants().as_slice() {
                [] => String::new(),
                grants => format!("\n    {}", grants_line(grants)),
            };
            format!(
                "\nto use it, write into {file}:\n\n    [plugin.{name}]\n    source = {source:?}{grants}\n\nand {name:?} into the \
                 `chain` of a [[listener]]"
            )
        }
    }
}

/// Takes it away, unless the config needs it.
pub(super) fn remove(config: &Place, name: &str) -> Result<(), Failure> {
    let Looked { sandbox, _scratch } = looking_glass()?;
    let places = Places::load(&config.file())?;
    let store = Store::new(&places.plugin_dir);
    let mut lock = Lock::read(&places.lock)
        .map_err(|err| Failure::new(code::DATA, format_args!("{}: {err}", places.lock.display())))?;
    let found = |lock: &Lock| -> Vec<String> {
        let here =
            places.sources.iter().filter(|(name, source)| lock.locate(name, source, &places.folder, &store).is_ok());
        here.map(|(name, _)| name.clone()).collect()
    };
    let before = found(&lock);
    lock.plugins.remove(name);
    let after = found(&lock);
    if let Some(user) = before.iter().find(|name| !after.contains(name)) {
        let message = format_args!("{name} is what [plugin.{user}] of the config uses; take that out first");
        return Err(Failure::new(code::DATA, message));
    }
    let installer = Installer {
        store,
        lock: places.lock.clone(),
        sandbox: &sandbox,
        plain: PlainHttp::default(),
        timeout: std::time::Duration::ZERO,
    };
    let entry = installer.remove(name)?;
    Ok(writeln!(io::stdout(), "removed {name}: {} {} from {}", entry.component, entry.version, entry.source)?)
}

/// What it is.
fn describe(out: &mut impl io::Write, candidate: &Candidate) -> io::Result<()> {
    let Candidate { entry, inspection, before, .. } = candidate;
    writeln!(out, "{} {}: {}", entry.component, entry.version, inspection.manifest.summary)?;
    writeln!(out, "    from {}", entry.source)?;
    writeln!(out, "    {}, {} octets", entry.digest, entry.size)?;
    match entry.imports.as_slice() {
        [] => writeln!(out, "    needs no grants")?,
        imports => writeln!(out, "    needs to be granted: {}", imports.join(", "))?,
    }
    match before {
        Some(before) if before.digest != entry.digest => {
            writeln!(out, "    installed until now: {} {}, {}", before.component, before.version, before.digest)
        }
        _ => Ok(()),
    }
}

fn tell(out: &mut impl io::Write, candidate: &Candidate, concern: &Concern) -> io::Result<()> {
    let Candidate { name, entry, .. } = candidate;
    match concern {
        Concern::Moved { old, new } => {
            writeln!(out, "{} has moved: it was {old} when {name} was installed, and is {new} now", entry.source)
        }
        Concern::Imports(imports) => {
            writeln!(
                out,
                "{name} newly asks for: {}; the config has to grant that, or it is refused",
                imports.join(", ")
            )
        }
        Concern::Replaces(old) => writeln!(out, "{name} is {old} now, and would be {}", entry.component),
    }
}

/// Asks whoever sits at the terminal; nobody is no.
fn asked(out: &mut impl io::Write, name: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(false);
    }
    write!(out, "install {name}? [y/N] ")?;
    out.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

impl From<InstallError> for Failure {
    fn from(err: InstallError) -> Self {
        let code = match &err {
            InstallError::Source(_) | InstallError::Name(_) => code::USAGE,
            InstallError::Fetch(_) | InstallError::TooSlow(..) => code::UNAVAILABLE,
            InstallError::Store(..) | InstallError::Lock(..) => code::SYSTEM,
            _ => code::DATA,
        };
        Self::new(code, err)
    }
}
