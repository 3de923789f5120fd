//! One call of a hook: a fresh store and instance, limits, the call, and what it brought forth.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use wasmtime::component::{Instance, Resource};
use wasmtime::{Store, Trap, UpdateDeadline};

use super::bindings::wasmta::policy::types::Verdict as WitVerdict;
use super::call;
use super::config::{Config, Mode};
use super::context::{Context, Identity, Trace, ticks};
use super::engine::Engines;
use super::load::Loaded;
use super::resource::{EnvelopeView, MessageView, SessionView};
use super::staged::Staged;
use crate::mail::{Envelope, QueueId, Recipient};
use crate::policy::{Call, Edit, Mail, Notes, Session, Stage, Symbol, Verdict, told};

/// Failures in a row after which a plugin is left alone for a while.
const BREAKER_FAILURES: u32 = 20;
/// How long it is left alone; one call then tries it again.
const BREAKER_PAUSE: Duration = Duration::from_secs(10);

/// What is judged in one call.
#[derive(Clone)]
pub enum Subject {
    /// The connection.
    Connect,
    /// HELO or EHLO.
    Helo,
    /// MAIL.
    Mail(Transaction),
    /// RCPT.
    Rcpt(Transaction, Recipient),
    /// The message.
    Message(Mail),
}

/// A transaction that has no message yet.
#[derive(Clone)]
pub struct Transaction {
    /// The name of the message to come.
    pub id: QueueId,
    /// What is known of the envelope.
    pub envelope: Arc<Envelope>,
    /// SIZE of MAIL.
    pub announced_size: Option<u64>,
    /// Notes of the transaction.
    pub notes: Notes,
}

impl Subject {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::Connect => Stage::Connect,
            Self::Helo => Stage::Helo,
            Self::Mail(_) => Stage::Mail,
            Self::Rcpt(..) => Stage::Rcpt,
            Self::Message(_) => Stage::Message,
        }
    }

    fn name(&self, session: &Session) -> String {
        match self {
            Self::Connect | Self::Helo => session.id.clone(),
            Self::Mail(transaction) | Self::Rcpt(transaction, _) => transaction.id.to_string(),
            Self::Message(mail) => mail.id.to_string(),
        }
    }
}

/// Why a call has no verdict of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("trapped: {0}")]
    Trap(String),
    #[error("took longer than its timeout")]
    Timeout,
    #[error("waited too long for a free instance")]
    Busy,
    #[error("gave a verdict that cannot be: {0}")]
    Verdict(String),
    #[error("is paused after {BREAKER_FAILURES} failures in a row")]
    Paused,
}

/// What a call brought forth.
pub(super) struct Product {
    pub verdict: Verdict,
    pub edits: Vec<Edit>,
    pub symbols: Vec<Symbol>,
    /// What it wants kept if the message gets into the queue.
    pub staged: Staged,
}

/// A policy that is ready to run, with its place in the config.
pub struct Plugin {
    pub(super) identity: Arc<Identity>,
    pub(super) config: Config,
    pub(super) loaded: Loaded,
    settings: String,
    permits: Semaphore,
    breaker: Breaker,
    /// Their ticker must live as long as a guest may run: without ticks no guest's processor time ends.
    _engines: Arc<Engines>,
}

impl Plugin {
    pub(super) fn new(identity: Arc<Identity>, config: Config, loaded: Loaded, engines: Arc<Engines>) -> Self {
        let permits = Semaphore::new(config.max_instances as usize);
        let settings = config.settings.to_string();
        Self { identity, config, loaded, settings, permits, breaker: Breaker::new(), _engines: engines }
    }

    /// Its name in the config.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Symbols with the operator's weights.
    fn weighed(&self, mut symbols: Vec<Symbol>) -> Vec<Symbol> {
        for symbol in &mut symbols {
            symbol.weight = self.config.weights.get(&symbol.name).copied().unwrap_or(symbol.weight);
        }
        symbols
    }

    /// Whether it has effect, or is only watched.
    pub(super) fn enforced(&self) -> bool {
        self.config.mode == Mode::Enforce
    }

    /// Runs the hook of the subject's stage in a fresh instance, and says what the call was like.
    pub(super) async fn run(
        &self,
        session: &Arc<Session>,
        subject: Subject,
        score: f64,
    ) -> (Result<Product, Failure>, Call) {
        let (started, trace) = (Instant::now(), Trace::default());
        let result = self.judged(session, subject, score, &trace).await;
        let call = self.account(&result, &trace, started.elapsed());
        (result, call)
    }

    async fn judged(
        &self,
        session: &Arc<Session>,
        subject: Subject,
        score: f64,
        trace: &Trace,
    ) -> Result<Product, Failure> {
        if !self.breaker.closed() {
            return Err(Failure::Paused);
        }
        let started = Instant::now();
        let limit = self.config.timeout.as_std();
        let result = match tokio::time::timeout(limit, self.permitted(session, subject, score, trace)).await {
            Ok(result) => result,
            Err(_) if self.permits.available_permits() == 0 => Err(Failure::Busy),
            Err(_) => Err(Failure::Timeout),
        };
        self.identity.stats.called(started.elapsed(), result.is_err());
        // A crowd at the door is no fault of the plugin.
        if result.as_ref().err() != Some(&Failure::Busy) && self.breaker.ended(result.is_ok()) {
            tracing::error!(
                plugin = self.name(),
                "paused for {BREAKER_PAUSE:?} after {BREAKER_FAILURES} failures in a row"
            );
        }
        result
    }

    fn account(&self, result: &Result<Product, Failure>, trace: &Trace, took: Duration) -> Call {
        let mut seen = trace.seen();
        let events = std::mem::take(&mut seen.events);
        let mut call = Call {
            plugin: self.name().to_owned(),
            counts: self.enforced(),
            verdict: Ok(Verdict::Pass),
            instead: None,
            edits: Vec::new(),
            symbols: Vec::new(),
            events: events.kept,
            left_out: events.left_out,
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            memory: seen.memory,
        };
        match result {
            Ok(product) => {
                let (edits, left_out) = told(&product.edits);
                call.verdict = Ok(product.verdict.clone());
                call.edits = edits;
                call.left_out += left_out;
                call.symbols.clone_from(&product.symbols);
            }
            Err(failure) => call.verdict = Err(failure.to_string()),
        }
        call
    }

    async fn permitted(
        &self,
        session: &Arc<Session>,
        subject: Subject,
        score: f64,
        trace: &Trace,
    ) -> Result<Product, Failure> {
        let _permit = self.permits.acquire().await.map_err(|_| Failure::Busy)?;
        let (mut store, verdict) = self.fresh(session, subject, score, trace).await?;
        let context = store.data_mut();
        Ok(Product {
            verdict,
            edits: std::mem::take(&mut context.edits),
            symbols: self.weighed(std::mem::take(&mut context.symbols)),
            staged: Staged::new(&self.identity, std::mem::take(&mut context.staged)),
        })
    }

    /// One call; the instance lives until the store is dropped.
    pub(super) async fn fresh(
        &self,
        session: &Arc<Session>,
        subject: Subject,
        score: f64,
        trace: &Trace,
    ) -> Result<(Store<Context>, Verdict), Failure> {
        let stage = subject.stage();
        let limit = ticks(self.config.timeout.as_std());
        let mut context = Context::new(Arc::clone(&self.identity), subject.name(session), limit, trace.clone());
        context.score_before = score;
        let mut store = Store::new(self.loaded.pre.engine(), context);
        bound(&mut store);
        let verdict = self.call(&mut store, session, subject).await.map_err(|err| Failure::Trap(explain(&err)))?;
        let verdict = call::verdict(verdict, stage).map_err(Failure::Verdict)?;
        Ok((store, verdict))
    }

    async fn call(
        &self,
        store: &mut Store<Context>,
        session: &Arc<Session>,
        subject: Subject,
    ) -> wasmtime::Result<WitVerdict> {
        let instance = self.loaded.pre.instantiate_async(&mut *store).await?;
        if !self.loaded.snapshot {
            let configured = super::load::configure(store, &instance, &self.loaded.hooks, &self.settings).await;
            configured.map_err(|err| wasmtime::format_err!("{err}"))?;
        }
        store.data_mut().stage = Some(subject.stage());
        store.data_mut().go_online(self.config.timeout.as_std());
        let session = lend(store, SessionView(Arc::clone(session)))?;
        let hooks = &self.loaded.hooks;
        let no_hook = || wasmtime::format_err!("it has no such hook");
        match subject {
            Subject::Connect => {
                hooks.connect.as_ref().ok_or_else(no_hook)?.load(&mut *store, &instance)?.call_run(store, session).await
            }
            Subject::Helo => {
                hooks.helo.as_ref().ok_or_else(no_hook)?.load(&mut *store, &instance)?.call_run(store, session).await
            }
            Subject::Mail(transaction) => {
                let hook = hooks.mail.as_ref().ok_or_else(no_hook)?.load(&mut *store, &instance)?;
                let envelope = lend(store, transaction.into())?;
                hook.call_run(store, session, envelope).await
            }
            Subject::Rcpt(transaction, recipient) => {
                let hook = hooks.rcpt.as_ref().ok_or_else(no_hook)?.load(&mut *store, &instance)?;
                let envelope = lend(store, transaction.into())?;
                hook.call_run(store, session, envelope, &call::wit_recipient(&recipient)).await
            }
            Subject::Message(mail) => self.call_message(store, &instance, session, mail).await,
        }
    }

    async fn call_message(
        &self,
        store: &mut Store<Context>,
        instance: &Instance,
        session: Resource<SessionView>,
        mail: Mail,
    ) -> wasmtime::Result<WitVerdict> {
        let hook = self.loaded.hooks.message.as_ref().ok_or_else(|| wasmtime::format_err!("it has no such hook"))?;
        let hook = hook.load(&mut *store, instance)?;
        let envelope = EnvelopeView {
            id: mail.id,
            envelope: Arc::clone(&mail.envelope),
            announced_size: None,
            notes: mail.notes.clone(),
        };
        let envelope = lend(store, envelope)?;
        let message = lend(store, MessageView::new(mail))?;
        hook.call_run(store, session, envelope, message).await
    }
}

impl From<Transaction> for EnvelopeView {
    fn from(transaction: Transaction) -> Self {
        let Transaction { id, envelope, announced_size, notes } = transaction;
        Self { id, envelope, announced_size, notes }
    }
}

/// Puts something of ours where the guest can ask about it, for the length of the call.
fn lend<T: Send + 'static>(store: &mut Store<Context>, view: T) -> wasmtime::Result<Resource<T>> {
    let own = store.data_mut().table.push(view)?;
    Ok(Resource::new_borrow(own.rep()))
}

/// Memory, tables, instances and processor time of a store are limited from here on. At each tick of 10 ms the guest lets others
/// run; when its ticks are spent, it traps.
pub(super) fn bound(store: &mut Store<Context>) {
    store.limiter(|context| &mut context.limits);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| {
        let context = store.data_mut();
        context.ticks_left = context.ticks_left.saturating_sub(1);
        Ok(if context.ticks_left == 0 { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
    });
}

/// What went wrong in a call, on one line, for the log.
pub(super) fn explain(err: &wasmtime::Error) -> String {
    let why = match err.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => "its processor time is spent".to_owned(),
        Some(Trap::StackOverflow) => "its stack is used up".to_owned(),
        Some(Trap::UnreachableCodeReached) => "it panicked (unreachable code reached)".to_owned(),
        Some(trap) => trap.to_string(),
        None => format!("{:#}", err.root_cause()),
    };
    super::import::clean(&why)
}

/// Leaves a plugin alone that does nothing but fail, so that its failures cost no time.
struct Breaker {
    failures: AtomicU32,
    /// Milliseconds after `epoch` until which it stays open.
    open_until: AtomicU64,
    epoch: Instant,
}

impl Breaker {
    fn new() -> Self {
        Self { failures: AtomicU32::new(0), open_until: AtomicU64::new(0), epoch: Instant::now() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn closed(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < BREAKER_FAILURES
            || self.now() >= self.open_until.load(Ordering::Relaxed)
    }

    /// Notes how a call ended; true if that opened the breaker.
    fn ended(&self, well: bool) -> bool {
        if well {
            self.failures.store(0, Ordering::Relaxed);
            return false;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < BREAKER_FAILURES {
            return false;
        }
        let until = self.now().saturating_add(u64::try_from(BREAKER_PAUSE.as_millis()).unwrap_or(u64::MAX));
        self.open_until.store(until, Ordering::Relaxed);
        failures == BREAKER_FAILURES
    }
}
