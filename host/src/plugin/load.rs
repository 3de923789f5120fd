//! From a file to a policy that is ready to run: compile, find the hooks, configure, snapshot, compile the snapshot, keep it.
//! All of it off the mail path.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Instance, InstancePre, Lift, Linker, WasmList};
use wasmtime::{Engine, Store};
use wasmtime_wizer::{ComponentContext, ComponentInstanceState, Wizer};

use super::Digest;
use super::bindings::exports::wasmta::policy as exports;
use super::cache::{Cache, Key};
use super::config::Config;
use super::context::{Context, Identity, Trace, ticks};
use super::engine::Engines;
use super::services::Services;
use super::stats::Stats;
use crate::policy::Stage;

const PACKAGE: &str = "wasmta:policy/";
const VERSION: &str = "0.1";
/// Imports that the config has to grant by name.
const NEED_GRANT: [&str; 3] = ["kv", "dns", "net"];
/// Octets of a component's file.
pub const MAX_COMPONENT: u64 = 256 * 1024 * 1024;

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Not a component, or one that is damaged.
    #[error("{path} is no WebAssembly component: {why}")]
    NotAComponent {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another component than the one that was installed.
    #[error("{path} has {found}, but the lock file says {expected}; {remedy}")]
    Pinned {
        /// Which.
        path: PathBuf,
        /// What lies there.
        found: Digest,
        /// What was installed.
        expected: Digest,
        /// What to do.
        remedy: String,
    },
    /// It needs something that it is not given.
    #[error("it imports {import}; {remedy}")]
    Import {
        /// Interface name.
        import: String,
        /// What to do.
        remedy: String,
    },
    /// It is not a policy, or of another version of the interface.
    #[error("{0}")]
    Interface(String),
    /// It failed while it described or configured itself.
    #[error("it failed in {call}: {why}")]
    Failed {
        /// `describe` or `configure`.
        call: &'static str,
        /// How.
        why: String,
    },
    /// The store that it is granted cannot be opened.
    #[error("{0}")]
    Store(String),
    /// An endpoint of its table cannot be used.
    #[error("endpoint `{name}`: {why}")]
    Endpoint {
        /// Which.
        name: String,
        /// The key at fault.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The operator weighs a symbol that it does not have.
    #[error("it has no symbol {symbol}{}", nearest.as_ref().map(|best| format!("; did you mean `{best}`?")).unwrap_or_default())]
    Symbol {
        /// Which.
        symbol: String,
        /// One that it has.
        nearest: Option<String>,
    },
    /// It refused its settings.
    #[error("{}{message}", settings_place(.key, .file, .line))]
    Settings {
        /// The setting at fault; empty if it is the whole.
        key: String,
        /// What it says of it.
        message: String,
        /// A file that the setting names.
        file: Option<String>,
        /// Line in that file.
        line: Option<u32>,
    },
}

/// Whether it has all symbols that the operator weighs.
pub(super) fn check_symbols(config: &Config, manifest: &Manifest) -> Result<(), LoadError> {
    let known = || manifest.symbols.iter().map(|(name, _, _)| name.as_str());
    let Some(symbol) = config.weights.keys().find(|symbol| known().all(|name| name != symbol.as_str())) else {
        return Ok(());
    };
    let scored = known().map(|name| (strsim::jaro_winkler(name, symbol), name));
    let nearest = scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0));
    Err(LoadError::Symbol { symbol: symbol.clone(), nearest: nearest.map(|(_, name)| name.to_owned()) })
}

fn settings_place(key: &str, file: &Option<String>, line: &Option<u32>) -> String {
    let key = if key.is_empty() { String::new() } else { format!("setting `{key}`: ") };
    match (file, line) {
        (Some(file), Some(line)) => format!("{key}{file}:{line}: "),
        (Some(file), None) => format!("{key}{file}: "),
        (None, _) => key,
    }
}

/// What a policy says of itself.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Manifest {
    /// Its own name; the config may call it otherwise.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// JSON Schema of its settings.
    pub settings_schema: String,
    /// Symbols it may raise: name, suggested weight, summary.
    pub symbols: Vec<(String, f64, String)>,
}

/// What is known of a policy besides its code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Card {
    pub manifest: Manifest,
    pub snapshot: bool,
}

/// The hooks that a component exports.
pub(super) struct Hooks {
    pub connect: Option<exports::on_connect::GuestIndices>,
    pub helo: Option<exports::on_helo::GuestIndices>,
    pub mail: Option<exports::on_mail::GuestIndices>,
    pub rcpt: Option<exports::on_rcpt::GuestIndices>,
    pub message: Option<exports::on_message::GuestIndices>,
    pub meta: exports::meta::GuestIndices,
}

impl Hooks {
    pub fn has(&self, stage: Stage) -> bool {
        match stage {
            Stage::Connect => self.connect.is_some(),
            Stage::Helo => self.helo.is_some(),
            Stage::Mail => self.mail.is_some(),
            Stage::Rcpt => self.rcpt.is_some(),
            Stage::Message => self.message.is_some(),
        }
    }
}

impl Hooks {
    /// Whether each hook takes and gives what this host will give and take. Done once, before the compiled form is kept.
    fn check_types(&self, store: &mut Store<Context>, instance: &Instance) -> Result<(), LoadError> {
        let wrong = |name: &'static str| {
            move |err: wasmtime::Error| {
                LoadError::Interface(format!("its {name} is not of the type that this host calls: {err:#}"))
            }
        };
        self.meta.load(&mut *store, instance).map_err(wrong("meta"))?;
        if let Some(hook) = &self.connect {
            hook.load(&mut *store, instance).map_err(wrong("on-connect"))?;
        }
        if let Some(hook) = &self.helo {
            hook.load(&mut *store, instance).map_err(wrong("on-helo"))?;
        }
        if let Some(hook) = &self.mail {
            hook.load(&mut *store, instance).map_err(wrong("on-mail"))?;
        }
        if let Some(hook) = &self.rcpt {
            hook.load(&mut *store, instance).map_err(wrong("on-rcpt"))?;
        }
        if let Some(hook) = &self.message {
            hook.load(&mut *store, instance).map_err(wrong("on-message"))?;
        }
        Ok(())
    }
}

/// A component, compiled, configured and linked.
pub(super) struct Loaded {
    pub pre: InstancePre<Context>,
    pub hooks: Hooks,
    pub manifest: Manifest,
    /// False if each instance has to be configured anew, because the component cannot be snapshotted.
    pub snapshot: bool,
    /// Of the component's file.
    pub digest: Digest,
}

/// What is asked of a policy's file before anything is known of its config.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Name, version, settings, symbols.
    pub manifest: Manifest,
    /// Stages at which it is asked.
    pub hooks: Vec<&'static str>,
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Octets of the file.
    pub size: u64,
    /// Of the file.
    pub digest: Digest,
}

impl Inspection {
    /// What it has to be granted, in the config's words.
    pub fn grants(&self) -> Vec<String> {
        let interfaces = self.imports.iter().filter_map(|name| name.strip_prefix(PACKAGE)?.split('@').next());
        interfaces.filter(|name| NEED_GRANT.contains(name)).map(str::to_owned).collect()
    }
}

/// Whether it is the component that the lock file means, if it says one.
fn check_pin(config: &Config, found: Digest) -> Result<(), LoadError> {
    match &config.pin {
        Some(pin) if pin.digest != found => {
            let (path, remedy) = (config.source.clone(), pin.remedy.clone());
            Err(LoadError::Pinned { path, found, expected: pin.digest, remedy })
        }
        _ => Ok(()),
    }
}

/// Opens a component's file, bounded.
fn open(path: &Path) -> Result<impl Read, LoadError> {
    let error = |why: String| LoadError::File { path: path.to_owned(), why };
    // Looked at before it is opened: opening a named pipe would wait for somebody to write.
    let metadata = std::fs::metadata(path).map_err(|err| error(err.to_string()))?;
    if !metadata.is_file() {
        return Err(error("it is no regular file".into()));
    }
    let size = metadata.len();
    if size > MAX_COMPONENT {
        return Err(error(format!("it has {size} octets, more than the {MAX_COMPONENT} that a component may have")));
    }
    Ok(std::fs::File::open(path).map_err(|err| error(err.to_string()))?.take(MAX_COMPONENT))
}

/// Reads a component's file, bounded.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    let read = open(path)?.read_to_end(&mut bytes);
    read.map_err(|err| LoadError::File { path: path.to_owned(), why: err.to_string() })?;
    Ok(bytes)
}

/// The digest of a component's file, which is never in memory as a whole.
pub(super) fn digest(path: &Path) -> Result<Digest, LoadError> {
    let mut file = open(path)?;
    let mut hasher = Sha256::new();
    let mut octets = vec![0; 64 * 1024];
    loop {
        match file.read(&mut octets) {
            Ok(0) => return Ok(Digest::from_hasher(hasher)),
            Ok(count) => hasher.update(octets.get(..count).unwrap_or_default()),
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => return Err(LoadError::File { path: path.to_owned(), why: err.to_string() }),
        }
    }
}

fn compile(engines: &Engines, config: &Config, bytes: &[u8]) -> Result<Component, LoadError> {
    let not = |why: String| LoadError::NotAComponent { path: config.source.clone(), why };
    if bytes.starts_with(b"\0asm\x01\0\0\0") {
        return Err(not("it is a core module; build it with wasm-component-ld or `wasm-tools component new`".into()));
    }
    Component::new(&engines.load, bytes).map_err(|err| not(format!("{err:#}")))
}

/// Whether it has been granted what it imports, and the host has it.
fn check_grants(
    component: &Component,
    engines: &Engines,
    grants: &[String],
    services: &Services,
) -> Result<(), LoadError> {
    for (name, _) in component.component_type().imports(&engines.load) {
        let refused = |remedy| Err(LoadError::Import { import: name.into(), remedy });
        let interface = name.strip_prefix(PACKAGE).and_then(|interface| interface.split('@').next());
        let Some(interface) = interface.filter(|interface| NEED_GRANT.contains(interface)) else { continue };
        if !grants.iter().any(|grant| grant == interface) {
            return refused(format!("add `grants = [\"{interface}\"]` to its table in the config if it may have that"));
        }
        if !services.provides(interface) {
            return refused("this wasmta does not provide it".into());
        }
    }
    Ok(())
}

/// What it exports and imports, by its type alone.
fn check_type(component: &Component, engines: &Engines) -> Result<Vec<String>, LoadError> {
    let kind = component.component_type();
    let engine = &engines.load;
    let mut imports = Vec::new();
    for (name, _) in kind.imports(engine) {
        imports.push(name.to_owned());
        let Some(interface) = name.strip_prefix(PACKAGE) else {
            if name.starts_with("wasi:") {
                continue;
            }
            return Err(LoadError::Import { import: name.into(), remedy: "this host does not know it".into() });
        };
        let (interface, version) = interface.split_once('@').unwrap_or((interface, ""));
        check_version(name, version)?;
        match interface {
            "types" | "log" | "metric" | "clock" | "score" => {}
            interface if NEED_GRANT.contains(&interface) => {}
            _ => return Err(LoadError::Import { import: name.into(), remedy: "this host does not know it".into() }),
        }
    }
    for (name, item) in kind.exports(engine) {
        let Some(interface) = name.strip_prefix(PACKAGE) else { continue };
        let (interface, version) = interface.split_once('@').unwrap_or((interface, ""));
        check_version(name, version)?;
        let known = interface == "meta" || Stage::ALL.iter().any(|stage| interface == format!("on-{stage}"));
        if !known || !matches!(item.ty, ComponentItem::ComponentInstance(_)) {
            return Err(LoadError::Interface(format!("it exports {name}, which is no hook of this host")));
        }
    }
    Ok(imports)
}

fn check_version(name: &str, version: &str) -> Result<(), LoadError> {
    if version == VERSION || version.starts_with("0.1.") {
        return Ok(());
    }
    Err(LoadError::Interface(format!("it is built for {name}; this host speaks wasmta:policy@{VERSION}")))
}

fn find_hooks(pre: &InstancePre<Context>) -> Result<Hooks, LoadError> {
    let component = pre.component();
    let exported = |interface: &str| {
        component
            .component_type()
            .exports(component.engine())
            .any(|(name, _)| name.strip_prefix(PACKAGE).is_some_and(|rest| rest.split('@').next() == Some(interface)))
    };
    // An export that is there but of the wrong type is an error, never "no hook".
    fn hook<T>(there: bool, indices: wasmtime::Result<T>, name: &str) -> Result<Option<T>, LoadError> {
        match (there, indices) {
            (false, _) => Ok(None),
            (true, Ok(indices)) => Ok(Some(indices)),
            (true, Err(err)) => {
                Err(LoadError::Interface(format!("its {name} is not of the type that this host calls: {err:#}")))
            }
        }
    }
    let meta = hook(exported("meta"), exports::meta::GuestIndices::new(pre), "meta")?
        .ok_or_else(|| LoadError::Interface("it exports no wasmta:policy/meta, so it is no policy".into()))?;
    let hooks = Hooks {
        connect: hook(exported("on-connect"), exports::on_connect::GuestIndices::new(pre), "on-connect")?,
        helo: hook(exported("on-helo"), exports::on_helo::GuestIndices::new(pre), "on-helo")?,
        mail: hook(exported("on-mail"), exports::on_mail::GuestIndices::new(pre), "on-mail")?,
        rcpt: hook(exported("on-rcpt"), exports::on_rcpt::GuestIndices::new(pre), "on-rcpt")?,
        message: hook(exported("on-message"), exports::on_message::GuestIndices::new(pre), "on-message")?,
        meta,
    };
    if Stage::ALL.iter().all(|stage| !hooks.has(*stage)) {
        return Err(LoadError::Interface(
            "it exports no hook (on-connect, on-helo, on-mail, on-rcpt, on-message)".into(),
        ));
    }
    Ok(hooks)
}

fn linker(engine: &Engine) -> Result<Linker<Context>, LoadError> {
    let mut linker = Linker::new(engine);
    super::import::add_to_linker(&mut linker).map_err(|err| LoadError::Interface(format!("{err:#}")))?;
    Ok(linker)
}

fn link(engines: &Engines, run: bool, component: &Component) -> Result<InstancePre<Context>, LoadError> {
    let linker = linker(if run { &engines.run } else { &engines.load })?;
    linker.instantiate_pre(component).map_err(|err| LoadError::Interface(format!("it does not fit this host: {err:#}")))
}

/// A store in which `describe` and `configure` run, with limits like a hook's.
fn load_store(engines: &Engines, identity: &Arc<Identity>, config: &Config) -> Store<Context> {
    let context =
        Context::new(Arc::clone(identity), "load".into(), ticks(config.configure_timeout.as_std()), Trace::default());
    let mut store = Store::new(&engines.load, context);
    super::run::bound(&mut store);
    store
}

fn failed(call: &'static str) -> impl Fn(wasmtime::Error) -> LoadError {
    move |err| LoadError::Failed { call, why: super::run::explain(&err) }
}

async fn bounded<T>(
    config: &Config,
    call: &'static str,
    work: impl Future<Output = Result<T, LoadError>>,
) -> Result<T, LoadError> {
    let limit = config.configure_timeout.as_std();
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(LoadError::Failed { call, why: format!("it took longer than configure-timeout, {limit:?}") }),
    }
}

async fn describe(store: &mut Store<Context>, instance: &Instance, hooks: &Hooks) -> Result<Manifest, LoadError> {
    let meta = hooks.meta.load(&mut *store, instance).map_err(failed("describe"))?;
    let own = meta.call_describe(store).await.map_err(failed("describe"))?;
    let clean = super::import::clean;
    Ok(Manifest {
        name: clean(&own.name),
        version: clean(&own.version),
        summary: clean(&own.summary),
        settings_schema: own.settings_schema,
        symbols: own
            .symbols
            .into_iter()
            .map(|symbol| (clean(&symbol.name), symbol.weight, clean(&symbol.summary)))
            .collect(),
    })
}

pub(super) async fn configure(
    store: &mut Store<Context>,
    instance: &Instance,
    hooks: &Hooks,
    settings: &str,
) -> Result<(), LoadError> {
    let meta = hooks.meta.load(&mut *store, instance).map_err(failed("configure"))?;
    let clean = super::import::clean;
    meta.call_configure(store, settings).await.map_err(failed("configure"))?.map_err(|err| LoadError::Settings {
        key: clean(&err.key),
        message: clean(&err.message),
        file: err.file.map(|file| clean(&file)),
        line: err.line,
    })
}

/// What the file says of itself, without settings.
pub(super) async fn inspect(engines: &Engines, config: &Config) -> Result<Inspection, LoadError> {
    let bytes = read(&config.source)?;
    let component = compile(engines, config, &bytes)?;
    let imports = check_type(&component, engines)?;
    let mut linker = linker(&engines.load)?;
    // What `describe` may not use anyway need not be there.
    let pre = linker.define_unknown_imports_as_traps(&component).and_then(|()| linker.instantiate_pre(&component));
    let pre = pre.map_err(|err| LoadError::Interface(format!("it does not fit this host: {err:#}")))?;
    let hooks = find_hooks(&pre)?;
    let identity = Arc::new(Identity {
        name: "inspect".into(),
        memory: config.memory.as_usize(),
        services: Services::default(),
        space: config.space("inspect"),
        endpoints: BTreeMap::new(),
        stats: Stats::default(),
    });
    let manifest = bounded(config, "describe", async {
        let mut store = load_store(engines, &identity, config);
        let instance = pre.instantiate_async(&mut store).await.map_err(failed("describe"))?;
        describe(&mut store, &instance, &hooks).await
    })
    .await?;
    let hooks = Stage::ALL.iter().filter(|stage| hooks.has(**stage)).map(|stage| stage.as_str()).collect();
    Ok(Inspection { manifest, hooks, imports, size: bytes.len() as u64, digest: Digest::of(&bytes) })
}

/// Under what a policy with its settings lies in the cache.
struct Keys {
    compiled: Key,
    card: Key,
}

impl Keys {
    fn new(engines: &Engines, config: &Config, digest: &Digest, settings: &str) -> Self {
        let (digest, limits) = (digest.to_string(), format!("{:?}", (config.memory, &config.grants)));
        let key =
            |kind: &[u8]| Key::new(&engines.run, &[digest.as_bytes(), settings.as_bytes(), limits.as_bytes(), kind]);
        Self { compiled: key(b"compiled"), card: key(b"card") }
    }
}

/// A policy that has been made ready: its compiled form with its settings lies in the cache. None if it does not. Blocks on the disk.
pub(super) fn ready(engines: &Engines, cache: &Cache, config: &Config) -> Result<Option<Loaded>, LoadError> {
    let digest = digest(&config.source)?;
    check_pin(config, digest)?;
    let keys = Keys::new(engines, config, &digest, &config.settings.to_string());
    let kept = cache.get(&engines.run, &keys.compiled).zip(cache.card(&keys.card));
    kept.map(|(component, card)| linked(engines, &component, card, digest)).transpose()
}

fn linked(engines: &Engines, component: &Component, card: Card, digest: Digest) -> Result<Loaded, LoadError> {
    let pre = link(engines, true, component)?;
    let hooks = find_hooks(&pre)?;
    Ok(Loaded { pre, hooks, manifest: card.manifest, snapshot: card.snapshot, digest })
}

/// Loads a policy with its settings; from the cache if it was loaded so before.
pub(super) async fn load(
    engines: &Engines,
    cache: &Cache,
    identity: &Arc<Identity>,
    config: &Config,
) -> Result<Loaded, LoadError> {
    if let Some(loaded) = ready(engines, cache, config)? {
        return Ok(loaded);
    }
    let bytes = read(&config.source)?;
    let digest = Digest::of(&bytes);
    check_pin(config, digest)?;
    let settings = config.settings.to_string();
    let keys = Keys::new(engines, config, &digest, &settings);
    let (manifest, snapshot) = prepare(engines, identity, config, &bytes, &settings).await?;
    let compiled = engines
        .run
        .precompile_component(snapshot.as_deref().unwrap_or(&bytes))
        .map_err(|err| LoadError::NotAComponent { path: config.source.clone(), why: format!("{err:#}") })?;
    let kept = cache.put(&keys.compiled, &compiled).map_err(|err| LoadError::File {
        path: config.source.clone(),
        why: format!("its compiled form cannot be written to the cache: {err}"),
    });
    kept?;
    let component = cache.get(&engines.run, &keys.compiled).ok_or_else(|| LoadError::File {
        path: config.source.clone(),
        why: "its compiled form cannot be read back from the cache".into(),
    })?;
    let card = Card { manifest, snapshot: snapshot.is_some() };
    cache.put_card(&keys.card, &card);
    linked(engines, &component, card, digest)
}

/// Describes and configures the component, and takes its snapshot. Without one (the snapshotter cannot take every component)
/// the second half is none, and the reason is in the log.
async fn prepare(
    engines: &Engines,
    identity: &Arc<Identity>,
    config: &Config,
    bytes: &[u8],
    settings: &str,
) -> Result<(Manifest, Option<Vec<u8>>), LoadError> {
    let wizer = Wizer::new();
    let instrumented = instrument(&wizer, bytes);
    // One compilation, not two: the snapshotter adds exports, and what is judged below are the others.
    let component = compile(engines, config, instrumented.as_ref().map_or(bytes, |(_, instrumented)| instrumented))?;
    check_type(&component, engines)?;
    check_grants(&component, engines, &config.grants, &identity.services)?;
    bounded(config, "configure", async {
        let (manifest, mut state) = configured(engines, identity, config, &component, settings).await?;
        let snapshot = match instrumented {
            Ok((parsed, _)) => wizer.snapshot_component(&parsed, &mut state).await,
            Err(err) => Err(err),
        };
        let snapshot =
            snapshot
                .and_then(|snapshot| {
                    if state.broken { Err(wasmtime::format_err!("its state cannot be read")) } else { Ok(snapshot) }
                })
                .inspect_err(|err| tracing::warn!(plugin = identity.name, "runs without a snapshot: {err:#}"))
                .ok();
        Ok((manifest, snapshot))
    })
    .await
}

/// Makes the component such that its state can be read. The snapshotter panics on some features that it does not know.
fn instrument<'a>(wizer: &Wizer, bytes: &'a [u8]) -> wasmtime::Result<(ComponentContext<'a>, Vec<u8>)> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wizer.instrument_component(bytes)))
        .unwrap_or_else(|_| Err(wasmtime::format_err!("it uses what cannot be snapshot")))
}

async fn configured(
    engines: &Engines,
    identity: &Arc<Identity>,
    config: &Config,
    component: &Component,
    settings: &str,
) -> Result<(Manifest, Snapshotted), LoadError> {
    let pre = link(engines, false, component)?;
    let hooks = find_hooks(&pre)?;
    let mut store = load_store(engines, identity, config);
    let instance = pre.instantiate_async(&mut store).await.map_err(failed("describe"))?;
    hooks.check_types(&mut store, &instance)?;
    let manifest = describe(&mut store, &instance, &hooks).await?;
    configure(&mut store, &instance, &hooks, settings).await?;
    Ok((manifest, Snapshotted { store, instance, broken: false }))
}

/// A configured instance that the snapshotter reads.
struct Snapshotted {
    store: Store<Context>,
    instance: Instance,
    /// Something could not be read: the snapshot is worth nothing.
    broken: bool,
}

impl Snapshotted {
    /// Calls one of the functions that the snapshotter put into the component. A guest cannot remove them, but it can have spent
    /// its time or its memory.
    async fn call<R: Lift + Send + Sync + 'static>(&mut self, instance: &str, func: &str) -> Option<R> {
        let value = self.try_call(instance, func).await;
        self.broken |= value.is_none();
        value
    }

    async fn try_call<R: Lift + Send + Sync + 'static>(&mut self, instance: &str, func: &str) -> Option<R> {
        let (_, interface) = self.instance.get_export(&mut self.store, None, instance)?;
        let (_, func) = self.instance.get_export(&mut self.store, Some(&interface), func)?;
        let func = self.instance.get_typed_func::<(), (R,)>(&mut self.store, func).ok()?;
        func.call_async(&mut self.store, ()).await.ok().map(|(value,)| value)
    }
}

impl ComponentInstanceState for Snapshotted {
    async fn call_func_ret_list_u8(&mut self, instance: &str, func: &str, contents: impl FnOnce(&[u8]) + Send) {
        let octets = self.call::<WasmList<u8>>(instance, func).await;
        contents(octets.as_ref().map(|octets| octets.as_le_slice(&self.store)).unwrap_or_default());
    }
    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.call(instance, func).await.unwrap_or_default()
    }
    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.call(instance, func).await.unwrap_or_default()
    }
    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.call::<f32>(instance, func).await.unwrap_or_default().to_bits()
    }
    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.call::<f64>(instance, func).await.unwrap_or_default().to_bits()
    }
}
