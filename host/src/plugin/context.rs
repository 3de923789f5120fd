//! What one call of a hook has to itself: resources, limits, and what it brought forth so far.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::import::{Asked, Connections};
use super::services::Services;
use super::stats::Stats;
use crate::kv::{Put, Space};
use crate::net::Endpoint;
use crate::policy::{Edit, Events, Stage, Symbol};

/// Handles of the host that a call may have at once. It is lent three; the rest is for WASI.
const MAX_HANDLES: usize = 256;
/// Octets of headers and bodies that the edits of one call may hold together.
const MAX_EDIT_OCTETS: usize = 64 * 1024 * 1024;
/// Edits of one call.
const MAX_EDITS: usize = 100_000;

/// The most of a call's time that is left when waiting in a host call ends.
const MAX_REST: Duration = Duration::from_millis(100);

/// Octets that a guest may print in one call.
const MAX_OUTPUT: usize = 64 * 1024;
/// Lines of them that reach the log.
const MAX_OUTPUT_LINES: usize = 100;

/// What every instance of one plugin shares.
pub(super) struct Identity {
    /// Its name in the config.
    pub name: String,
    /// Octets of linear memory.
    pub memory: usize,
    /// What its imports stand on.
    pub services: Services,
    /// Whose keys are its own.
    pub space: Space,
    /// The endpoints that are its own.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// What it counts.
    pub stats: Stats,
}

/// The data of one store.
pub(super) struct Context {
    pub identity: Arc<Identity>,
    pub table: ResourceTable,
    pub limits: Limits,
    pub edits: Vec<Edit>,
    pub edit_octets: usize,
    pub symbols: Vec<Symbol>,
    /// The stage of the hook; none while the policy describes or configures itself.
    pub stage: Option<Stage>,
    /// How often the call has used `kv`, and what it wants kept if the message gets into the queue.
    pub kv_uses: u32,
    pub staged: Vec<Put>,
    /// Points of the plugins before this one.
    pub score_before: f64,
    pub log_lines: u32,
    /// What it asked of the host; kept by others when the call is cut off.
    trace: Trace,
    /// What the lines of the log are about.
    pub subject: String,
    pub started: Instant,
    /// Epoch ticks of processor time left.
    pub ticks_left: u64,
    /// When waiting in a host call ends; none while the network is out of bounds.
    until: Option<tokio::time::Instant>,
    /// What it has asked DNS.
    pub asked: Asked,
    /// What it is connected to.
    pub connections: Connections,
    wasi: Option<WasiCtx>,
    output: Option<MemoryOutputPipe>,
}

impl Context {
    pub fn new(identity: Arc<Identity>, subject: String, ticks: u64, trace: Trace) -> Self {
        // Instances, tables and memories of one component: generous for JavaScript and Python, finite for the rest.
        let limits = StoreLimitsBuilder::new()
            .memory_size(identity.memory)
            .table_elements(100_000)
            .instances(64)
            .tables(32)
            .memories(8)
            .trap_on_grow_failure(false)
            .build();
        let limits = Limits { limits, memory: 0, trace: trace.clone() };
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Self {
            identity,
            table,
            limits,
            edits: Vec::new(),
            edit_octets: 0,
            symbols: Vec::new(),
            stage: None,
            kv_uses: 0,
            staged: Vec::new(),
            score_before: 0.0,
            log_lines: 0,
            trace,
            subject,
            started: Instant::now(),
            ticks_left: ticks,
            until: None,
            asked: Asked::default(),
            connections: Connections::default(),
            wasi: None,
            output: None,
        }
    }

    /// Notes what the guest asked of the host and was told, for `explain`. The texts are made only if there is room for them; no content of
    /// messages and no value of a store goes in there.
    pub fn witness(&self, import: &'static str, texts: impl FnOnce() -> (String, String)) {
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.trace.seen().events.note(micros, import, texts);
    }

    /// From here on the call may use the network, and wait until a little of its time is left: enough to say what follows from it.
    pub fn go_online(&mut self, timeout: Duration) {
        let rest = (timeout / 10).min(MAX_REST);
        self.until = Some(tokio::time::Instant::from_std(self.started) + timeout.saturating_sub(rest));
    }

    /// Until when a host call may wait. Before `go_online` it is a trap: a component is described and configured once, and what the
    /// network says would be frozen into every later call.
    pub fn until(&self, what: &str) -> wasmtime::Result<tokio::time::Instant> {
        self.until.ok_or_else(|| wasmtime::format_err!("it may not {what} while it is described or configured"))
    }

    /// Notes an edit. An error is a trap: the call asked for more than any sound policy does.
    pub fn note_edit(&mut self, edit: Edit) -> wasmtime::Result<()> {
        self.edit_octets = self.edit_octets.saturating_add(match &edit {
            Edit::InsertHeader { field, .. } | Edit::ReplaceHeader { field, .. } => field.len(),
            Edit::ReplaceBody { with, .. } => with.len(),
            Edit::Hold(text) | Edit::Filter(text) => text.len(),
            _ => 64,
        });
        if self.edits.len() >= MAX_EDITS || self.edit_octets > MAX_EDIT_OCTETS {
            wasmtime::bail!("a call may ask for {MAX_EDITS} edits of {MAX_EDIT_OCTETS} octets");
        }
        self.edits.push(edit);
        Ok(())
    }
}

/// What is known of a call even if it is cut off in the middle.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What it asked of the host.
    pub events: Events,
    /// The most linear memory that it had, in octets.
    pub memory: usize,
}

impl Trace {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Limits of a store, which notice how much memory it takes.
pub(super) struct Limits {
    limits: StoreLimits,
    /// Octets that all its memories have together; a memory never shrinks.
    memory: usize,
    trace: Trace,
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let may = self.limits.memory_growing(current, desired, maximum)?;
        if may {
            self.memory = self.memory.saturating_add(desired.saturating_sub(current));
            self.trace.seen().memory = self.memory;
        }
        Ok(may)
    }
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.limits.memory_grow_failed(error)
    }
    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }
    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.limits.table_grow_failed(error)
    }
    fn instances(&self) -> usize {
        self.limits.instances()
    }
    fn tables(&self) -> usize {
        self.limits.tables()
    }
    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

impl WasiView for Context {
    /// WASI is there for guests whose language expects it, and grants nothing: no files, no sockets, no environment.
    /// What the guest prints goes to its log when the call is over.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let output = &mut self.output;
        let ctx = self.wasi.get_or_insert_with(|| {
            let pipe = output.insert(MemoryOutputPipe::new(MAX_OUTPUT));
            let mut builder = WasiCtxBuilder::new();
            builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
            builder.stdout(pipe.clone()).stderr(pipe.clone());
            builder.build()
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let Some(output) = self.output.take() else { return };
        for line in String::from_utf8_lossy(&output.contents()).lines().take(MAX_OUTPUT_LINES) {
            tracing::info!(plugin = self.identity.name, subject = self.subject, "{}", super::import::clean(line));
        }
    }
}

/// Counts epochs: 10 ms of the wall clock each.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// How many ticks a time limit is, rounded up, and at least two: the first may be almost over.
pub(super) fn ticks(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX).saturating_add(1)
}

/// A counter that is read while others write it.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
