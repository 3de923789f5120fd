//! The resolver: one for the whole house.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, Error, Kind, Question, Said};
use super::cache::{Cache, Outcome};
use super::config::Config;
use super::name::Name;
use super::server::{Fault, Server};

/// Answers that only say "ask for another name" (CNAME) that are followed for one question.
const MAX_ALIASES: usize = 8;
/// How long a failure is believed. RFC 9520 §3.2: at least a second, so that a flood of mail is no flood of questions.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// Asks DNS, and remembers. Cheap to clone; all clones share servers and cache. Names are asked for as they are: search domains are
/// never applied.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    servers: Vec<Arc<Server>>,
    attempts: u32,
    ttl: std::ops::RangeInclusive<Duration>,
    max_negative_ttl: Duration,
    cache: Cache,
    /// Questions that are being asked: whoever has the same one waits for the same answer.
    under_way: Mutex<HashMap<Question, watch::Receiver<Option<Outcome>>>>,
    queries: Arc<Semaphore>,
}

impl Resolver {
    /// Reads `/etc/resolv.conf` if the config names no servers; asks nobody yet.
    pub fn new(config: &Config) -> Result<Self, String> {
        let timeout = config.timeout.as_std();
        let servers = config.effective_servers().into_iter().map(|address| Server::new(address, timeout));
        Ok(Self(Arc::new(Inner {
            servers: servers.collect::<Result<_, _>>()?,
            attempts: config.attempts,
            ttl: config.min_ttl.as_std()..=config.max_ttl.max(config.min_ttl).as_std(),
            max_negative_ttl: config.max_negative_ttl.as_std(),
            cache: Cache::new(config.cache_size.as_usize()),
            under_way: Mutex::default(),
            queries: Arc::new(Semaphore::new(config.max_queries as usize)),
        })))
    }

    /// Finds out now whether the servers answer, so that the log says it at the start and no mail waits to learn it. Needs a runtime.
    pub fn warm_up(&self) {
        for server in &self.0.servers {
            server.watch(Duration::ZERO);
        }
    }

    /// Whom it asks.
    pub fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.servers.iter().map(|server| server.address)
    }

    /// Asks for the records of a name. Takes at most the config's `timeout` times `attempts` for each server and alias, and as long as
    /// too many other questions are under way; the caller sets a limit of its own. Dropping it is fine: the answer is kept for the next.
    pub async fn lookup(&self, name: &Name, kind: Kind) -> Result<Answer, Error> {
        self.begin(Question { name: name.clone(), kind }).await.end().await
    }

    /// Asks many questions at once; the answers are in their order. What has not come until then is a timeout.
    pub async fn lookup_many(&self, questions: Vec<(Name, Kind)>, until: Instant) -> Vec<Result<Answer, Error>> {
        let mut pending = Vec::with_capacity(questions.len());
        for (name, kind) in questions {
            let begun = timeout_at(until, self.begin(Question { name, kind })).await;
            pending.push(begun.unwrap_or(Pending::Known(Err(Error::Timeout))));
        }
        let mut outcomes = Vec::with_capacity(pending.len());
        for one in pending {
            outcomes.push(timeout_at(until, one.end()).await.unwrap_or(Err(Error::Timeout)));
        }
        outcomes
    }

    async fn begin(&self, question: Question) -> Pending {
        if let Some(outcome) = self.0.cache.get(&question, now()) {
            return Pending::Known(outcome);
        }
        let present = self.0.under_way().get(&question).cloned();
        match present {
            Some(answer) => Pending::Asked(answer),
            None => self.ask(question).await,
        }
    }

    /// Has a task of its own ask, so that the answer is not lost with who wanted it first.
    async fn ask(&self, question: Question) -> Pending {
        let Ok(permit) = Arc::clone(&self.0.queries).acquire_owned().await else {
            return Pending::Known(Err(Error::Failure("the resolver is closed".into())));
        };
        let mut under_way = self.0.under_way();
        if let Some(answer) = under_way.get(&question) {
            return Pending::Asked(answer.clone());
        }
        if let Some(outcome) = self.0.cache.get(&question, now()) {
            return Pending::Known(outcome); // it came while we waited
        }
        let (send, answer) = watch::channel(None);
        under_way.insert(question.clone(), answer.clone());
        let task = UnderWay { inner: Arc::clone(&self.0), question };
        tokio::spawn(async move {
            let _permit = permit;
            let (outcome, keep) = task.inner.resolve(&task.question).await;
            task.inner.cache.put(&task.question, &outcome, now(), keep);
            send.send_replace(Some(outcome));
        });
        Pending::Asked(answer)
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// A question on its way.
enum Pending {
    Known(Outcome),
    Asked(watch::Receiver<Option<Outcome>>),
}

impl Pending {
    async fn end(self) -> Outcome {
        let mut answer = match self {
            Self::Known(outcome) => return outcome,
            Self::Asked(answer) => answer,
        };
        match answer.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            _ => Err(Error::Failure("the question was given up".into())),
        }
    }
}

/// Forgets the question when its task ends, however it ends.
struct UnderWay {
    inner: Arc<Inner>,
    question: Question,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.inner.under_way().remove(&self.question);
    }
}

impl Inner {
    fn under_way(&self) -> MutexGuard<'_, HashMap<Question, watch::Receiver<Option<Outcome>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer, and how long it may be kept.
    async fn resolve(&self, question: &Question) -> (Outcome, Duration) {
        let positive = |ttl: u32| Duration::from_secs(ttl.into()).clamp(*self.ttl.start(), *self.ttl.end());
        let negative = |ttl: Option<u32>| Duration::from_secs(ttl.unwrap_or(0).into()).min(self.max_negative_ttl);
        let mut asked = question.clone();
        let (mut chain_ttl, mut chain_authentic) = (u32::MAX, true);
        for _ in 0..MAX_ALIASES {
            let said = match self.ask(&asked).await {
                Ok(said) => said,
                Err(error) => return (Err(error), FAILURE_TTL),
            };
            let (records, ttl, authentic) = match said {
                Said::Records { records, ttl, authentic } => (records, positive(ttl.min(chain_ttl)), authentic),
                Said::Nothing { ttl, authentic } => (Vec::new(), negative(ttl).min(positive(chain_ttl)), authentic),
                Said::NoSuchName { ttl } => {
                    return (Err(Error::NoSuchName), negative(ttl).min(positive(chain_ttl)));
                }
                Said::Alias { target, ttl, authentic } => {
                    asked.name = target;
                    chain_ttl = chain_ttl.min(ttl);
                    chain_authentic &= authentic;
                    continue;
                }
            };
            let answer = Answer { records: records.into(), ttl, authentic: authentic && chain_authentic };
            return (Ok(answer), ttl);
        }
        (Err(Error::Failure(format!("more than {MAX_ALIASES} aliases"))), FAILURE_TTL)
    }

    /// Asks one server after the other, and all of them again while there is hope.
    async fn ask(&self, question: &Question) -> Result<Said, Error> {
        let mut last = None;
        for _ in 0..self.attempts {
            for server in self.servers.iter().filter(|server| !server.is_failing()) {
                match server.ask(question).await {
                    Ok(said) => return Ok(said),
                    Err(fault) => {
                        tracing::debug!(server = %server.address, name = %question.name, kind = %question.kind, ?fault, "dns");
                        last = Some((server.address, fault));
                    }
                }
            }
            // Who says that he cannot will say so again.
            if !matches!(last, Some((_, Fault::Timeout))) {
                break;
            }
        }
        Err(match last {
            Some((_, Fault::Timeout)) => Error::Timeout,
            Some((address, Fault::Unreachable(why) | Fault::Said(why))) => Error::Failure(format!("{address}: {why}")),
            None if self.servers.is_empty() => Error::Failure("the config names no DNS servers".into()),
            None => Error::Failure("no DNS server answers".into()),
        })
    }
}
