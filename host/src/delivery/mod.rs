//! The next hop: takes what the queue says is due, hands it over, and reports one outcome for each recipient.
//!
//! `route` says which way, `maildir` delivers to users of this host, `remote` to another host over SMTP. Workers come and go as the
//! queue's schedule wants; each keeps its connection from job to job.
//!
//! Architecture invariant: nothing here decides what follows from an outcome; the queue does.

mod config;
mod maildir;
mod remote;
mod route;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use config::Config;
pub use route::{NextHop, NextHost, NoNextHop, no_route};

use crate::directory::Directory;
use crate::mail::{Domain, ForwardPath, Recipient, Reply};
use crate::queue::{Contact, Destination, Job, Outcome, Queue, Relayed, Response, Router, Worker};
use crate::smtp::ClientConfig;
use remote::{Connection, Parcel};
use route::{Route, Routes, Transport};

/// What all workers share.
pub struct Delivery {
    hostname: Domain,
    terms: CurrentTerms,
}

/// What a delivery begins with and finishes with, whatever is reloaded meanwhile.
pub struct Terms {
    config: Config,
    client: Arc<ClientConfig>,
    directory: Arc<Directory>,
    routes: Routes,
}

impl Terms {
    /// As the config says.
    pub fn new(config: Config, directory: Arc<Directory>) -> Arc<Self> {
        let client = Arc::new(config.smtp.clone());
        let routes = Routes::new(Arc::clone(&directory), &config);
        Arc::new(Self { config, client, directory, routes })
    }
}

/// The terms of deliveries that begin now; the queue's router. Cheap to clone.
#[derive(Clone)]
pub struct CurrentTerms(Arc<dyn Fn() -> Arc<Terms> + Send + Sync>);

impl CurrentTerms {
    /// From wherever they are kept.
    pub fn new(source: impl Fn() -> Arc<Terms> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    fn now(&self) -> Arc<Terms> {
        (self.0)()
    }
}

impl Router for CurrentTerms {
    fn route(&self, recipient: &ForwardPath, filter: Option<&str>) -> Destination {
        self.now().routes.destination(recipient, filter)
    }
}

/// What became of one recipient, by its place in the envelope.
type Outcomes = Vec<(usize, Outcome)>;

impl Delivery {
    /// `terms` are the ones that the queue has as its router.
    pub fn new(hostname: Domain, terms: CurrentTerms) -> Arc<Self> {
        Arc::new(Self { hostname, terms })
    }

    /// Delivers until `stop` turns true; then the deliveries that are under way are finished. The caller sets the limit on that.
    pub async fn run(self: Arc<Self>, queue: Queue, mut stop: watch::Receiver<bool>) {
        let mut workers = JoinSet::new();
        let stopped = stop.clone();
        loop {
            tokio::select! {
                worker = queue.opening() => workers.spawn(Arc::clone(&self).work(worker, stopped.clone())),
                Some(_) = workers.join_next(), if !workers.is_empty() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
        }
        while workers.join_next().await.is_some() {}
    }

    async fn work(self: Arc<Self>, mut worker: Worker, mut stop: watch::Receiver<bool>) {
        let transport = Transport::from(worker.destination());
        let mut connection = None;
        loop {
            let job = tokio::select! {
                job = worker.next(self.terms.now().config.keep_idle.as_std()) => job,
                _ = stop.wait_for(|stop| *stop) => None,
            };
            let Some(mut job) = job else { break };
            let terms = self.terms.now();
            let (outcomes, contact) = match &transport {
                Transport::Local => (self.deliver_here(&job, terms).await, Contact::Reached),
                Transport::Remote(hop) => self.deliver_there(&job, hop, &terms, &mut connection).await,
                Transport::Nowhere => (refuse(&job, &terms), Contact::Reached),
            };
            job.settle(&outcomes, contact).await; // first of all: a crash before it means a second delivery
            for (index, outcome) in &outcomes {
                log(&job, *index, outcome);
            }
        }
        drop(worker); // its place is free while we say goodbye
        if let Some(connection) = connection {
            connection.quit().await;
        }
    }

    /// Into mailboxes of this host.
    async fn deliver_here(&self, job: &Job, terms: Arc<Terms>) -> Outcomes {
        let hostname = self.hostname.clone();
        let (id, arrived, letter, envelope) =
            (job.id(), job.arrived().as_millis() / 1000, job.letter().clone(), Arc::clone(job.envelope()));
        let recipients: Vec<(usize, Recipient)> = job.recipients().map(|(index, own)| (index, own.clone())).collect();
        let work = move || {
            let deliver = |(index, recipient): (usize, Recipient)| {
                let item = maildir::Item {
                    id,
                    index,
                    arrived,
                    reverse_path: &envelope.reverse_path,
                    forward_path: &recipient.forward_path,
                    letter: &letter,
                };
                let delivered = match terms.routes.find(&recipient.forward_path, None) {
                    Ok(Route::Local(mailbox)) => maildir::deliver(&terms.directory.maildir(&mailbox), &hostname, &item),
                    Ok(Route::Remote(_)) => Err(Reply::transient(451, (4, 4), "the route has changed")),
                    Err(reply) => Err(reply),
                };
                let reply =
                    delivered.map_or_else(|reply| reply, |()| Reply::positive(250, (0, 0), "delivered to maildir"));
                (index, Outcome::of(Response::own(reply), Relayed::No))
            };
            recipients.into_iter().map(deliver).collect()
        };
        // If the thread is gone, nothing is known: what is missing is tried again, and the Maildir knows its own.
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    }

    /// To another host, over the connection that is there, or a new one.
    async fn deliver_there(
        &self,
        job: &Job,
        hop: &NextHop,
        terms: &Terms,
        connection: &mut Option<Connection>,
    ) -> (Outcomes, Contact) {
        loop {
            let mut open = match self.connection(hop, terms, connection.take()).await {
                Ok(open) => open,
                Err(response) => return unreachable(job, response),
            };
            let recipients = job.recipients().map(|(index, _)| index).collect();
            let parcel = Parcel { envelope: job.envelope(), recipients, letter: job.letter() };
            let report = open.deliver(parcel).await;
            if report.untouched && open.is_used() {
                continue; // it was closed while nobody used it, and a new one may do better
            }
            let remote = Some(open.peer().to_owned());
            let relayed = Relayed::to_host(open.offers_dsn());
            let reply_of = |outcome: &crate::smtp::Outcome| match outcome {
                crate::smtp::Outcome::Delivered(reply)
                | crate::smtp::Outcome::Deferred(reply)
                | crate::smtp::Outcome::Failed(reply) => reply.clone(),
            };
            let contact = match report.outcomes.first() {
                Some((_, outcome)) if report.untouched => Contact::Unreachable(reply_of(outcome)),
                _ => Contact::Reached,
            };
            let outcomes = report.outcomes.into_iter().map(|(index, outcome)| {
                let response = Response { reply: reply_of(&outcome), remote: remote.clone() };
                let outcome = match outcome {
                    crate::smtp::Outcome::Delivered(_) => Outcome::Delivered(response, relayed),
                    crate::smtp::Outcome::Deferred(_) => Outcome::Deferred(response),
                    crate::smtp::Outcome::Failed(_) => Outcome::Failed(response),
                };
                (index, outcome)
            });
            let outcomes = outcomes.collect();
            if open.is_usable() {
                *connection = Some(open);
            }
            return (outcomes, contact);
        }
    }

    /// The connection that is there if it is still good, else a new one.
    async fn connection(&self, hop: &NextHop, terms: &Terms, old: Option<Connection>) -> Result<Connection, Response> {
        if let Some(old) = old {
            if old.letters() < terms.config.max_messages && !old.is_stale() {
                return Ok(old);
            }
            old.quit().await;
        }
        let limit = terms.config.connect_timeout.as_std();
        let opened = Connection::open(hop, limit, &terms.client, &self.hostname).await;
        let mut open = opened.map_err(Response::own)?;
        match open.greet().await {
            Ok(()) => Ok(open),
            Err(reply) if open.was_refused() => Err(Response { reply, remote: Some(open.peer().to_owned()) }),
            Err(reply) => Err(Response::own(reply)),
        }
    }
}

/// What has no route, each with its reason.
fn refuse(job: &Job, terms: &Terms) -> Outcomes {
    job.recipients()
        .map(|(index, recipient)| {
            let reply = match terms.routes.find(&recipient.forward_path, None) {
                Err(reply) => reply,
                // What a policy set is no destination; the operator can mend its table while the mail waits.
                Ok(_) => Reply::transient(451, (3, 5), "the filter that a policy set names no transport:host:port"),
            };
            (index, Outcome::of(Response::own(reply), Relayed::No))
        })
        .collect()
}

fn unreachable(job: &Job, response: Response) -> (Outcomes, Contact) {
    let contact = Contact::Unreachable(response.reply.clone());
    // A host that refuses us for good may have its reasons today; mail is not lost for what is said before MAIL.
    let outcome = Outcome::Deferred(response);
    (job.recipients().map(|(index, _)| (index, outcome.clone())).collect(), contact)
}

/// One line for each recipient.
fn log(job: &Job, index: usize, outcome: &Outcome) {
    let to = job.envelope().recipients.get(index).map(|recipient| recipient.forward_path.to_string());
    let to = to.unwrap_or_default();
    let (status, response) = match outcome {
        Outcome::Delivered(response, _) => ("sent", response),
        Outcome::Deferred(response) => ("deferred", response),
        Outcome::Failed(response) => ("bounced", response),
    };
    let relay = response.remote.as_deref().unwrap_or(job.destination().as_str());
    let delay = format!("{:.2}", job.age().as_secs_f64());
    let dsn =
        response.reply.enhanced().map_or_else(|| format!("{}.0.0", response.reply.code() / 100), |it| it.to_string());
    tracing::info!(queue_id = %job.id(), to, relay, delay, dsn, status, "{}", response.reply);
}

#[cfg(test)]
mod tests;
