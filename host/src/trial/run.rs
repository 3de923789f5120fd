//! One mail through the hooks, in the order of a session, as the listener does it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::report::{ReplyParts, word};
use super::{Case, Hook, Report, World, with_crlf};
use crate::mail::{BodyType, Domain, Envelope, HeaderBlock, Origin, QueueId, Recipient};
use crate::plugin::{Chain, Judged, Staged, Subject, Transaction};
use crate::policy::{Edit, Mail, Notes, Session, Stage, Tally, Verdict, apply};
use crate::smtp::trace;

/// A message for those who have none.
const EXAMPLE: &str = "From: sender@example.org\nTo: user@example.test\nSubject: hello\n\nhello\n";

/// What a case cannot be.
type Wrong = String;

impl World {
    /// Runs one case once. `message` takes the place of the case's own. What is wrong with the case itself is an error.
    pub async fn run(&mut self, case: &Case, message: Option<&[u8]>) -> Result<Report, Wrong> {
        if let Some(time) = case.wait {
            self.wait(time.as_std());
        }
        let before = self.keys().await;
        let mut report = Report { name: case.name.clone(), ..Report::default() };
        match self.policy(case.settings.as_ref()).await {
            Ok(plugin) => {
                let own = with_crlf(case.mail.as_deref().unwrap_or(EXAMPLE).as_bytes());
                let chain = Chain::new(vec![Arc::clone(&plugin)]);
                let mut dialogue = Dialogue::new(self, case, chain)?;
                dialogue.mail(self, case, message.unwrap_or(&own)).await?;
                report = Report { name: report.name, ..dialogue.report };
                report.metrics = plugin.listed().counters.metrics;
            }
            Err(err) => {
                report.verdict = "not loaded".into();
                report.load_error = Some(err.to_string());
            }
        }
        report.kv = self.keys().await;
        report.kv_changes = changes(&before, &report.kv);
        report.differences = case.expect.differences(&report);
        Ok(report)
    }
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), None));
    let new = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    gone.chain(new.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}

struct Dialogue {
    chain: Chain,
    session: Arc<Session>,
    id: QueueId,
    notes: Notes,
    edits: Vec<Edit>,
    staged: Staged,
    tally: Tally,
    report: Report,
}

impl Dialogue {
    fn new(world: &mut World, case: &Case, chain: Chain) -> Result<Self, Wrong> {
        let id = world.next_id();
        let session = Session {
            id: format!("trial-{}", id.as_u64()),
            listener: case.listener.clone(),
            client: SocketAddr::from((case.client, 40_000)),
            local: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
            client_name: case.client_name.clone(),
            helo: None,
            extended: true,
            tls: None,
            user: case.user.clone(),
            trusted: case.trusted,
            notes: Notes::default(),
        };
        Ok(Self {
            chain,
            session: Arc::new(session),
            id,
            notes: Notes::default(),
            edits: Vec::new(),
            staged: Staged::default(),
            tally: Tally::default(),
            report: Report { verdict: "pass".into(), ..Report::default() },
        })
    }

    /// Asks the policy at one stage; true if the session goes on.
    async fn ask(&mut self, stage: Stage, subject: Subject) -> bool {
        let judged = self.chain.judge(&self.session, subject, &self.tally).await;
        let refused = judged.verdict.refuses();
        self.note(stage, judged, refused)
    }

    fn note(&mut self, stage: Stage, judged: Judged, refused: bool) -> bool {
        let Judged { verdict, delay, edits, score, symbols, calls, staged, .. } = judged;
        self.tally.note(stage, &symbols);
        self.report.hooks.extend(calls.into_iter().map(|call| Hook::new(stage.as_str(), call)));
        self.report.delay_ms += u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.report.score = score;
        if !refused {
            self.edits.extend(edits);
            self.staged.extend(staged);
        }
        match &verdict {
            Verdict::Pass | Verdict::Accept | Verdict::Delay(_) => return true,
            Verdict::Reject(reply)
            | Verdict::Defer(reply)
            | Verdict::DeferIfPermit(reply)
            | Verdict::Disconnect(reply) => {
                self.report.reply = Some(ReplyParts::from(reply));
            }
            Verdict::Discard(why) | Verdict::Quarantine(why) => self.report.reason = Some(why.clone()),
        }
        self.report.verdict = word(&verdict).to_owned();
        self.report.stage = Some(stage.as_str());
        // What is to be kept for the operator is still judged.
        matches!(verdict, Verdict::Quarantine(_))
    }

    async fn mail(&mut self, world: &World, case: &Case, message: &[u8]) -> Result<(), Wrong> {
        let mut envelope = envelope(case)?;
        if !self.ask(Stage::Connect, Subject::Connect).await {
            return Ok(());
        }
        Arc::make_mut(&mut self.session).helo = Some(case.helo.clone());
        if !self.ask(Stage::Helo, Subject::Helo).await {
            return Ok(());
        }
        let all = std::mem::take(&mut envelope.recipients);
        let transaction = self.transaction(&envelope, message);
        if !self.ask(Stage::Mail, Subject::Mail(transaction)).await {
            return Ok(());
        }
        for recipient in all {
            let transaction = self.transaction(&envelope, message);
            if self.ask(Stage::Rcpt, Subject::Rcpt(transaction, recipient.clone())).await {
                envelope.recipients.push(recipient);
            } else if !matches!(self.report.verdict.as_str(), "reject" | "defer") {
                return Ok(());
            }
        }
        if envelope.recipients.is_empty() {
            return Ok(());
        }
        self.message(world, envelope, message).await
    }

    fn transaction(&self, envelope: &Envelope, message: &[u8]) -> Transaction {
        Transaction {
            id: self.id,
            envelope: Arc::new(envelope.clone()),
            announced_size: Some(message.len() as u64),
            notes: self.notes.clone(),
        }
    }

    async fn message(&mut self, world: &World, envelope: Envelope, message: &[u8]) -> Result<(), Wrong> {
        let hostname: Domain = "mx.example.test".parse().map_err(|err| format!("{err}"))?;
        let date = trace::date(&world.now());
        let recipient = match envelope.recipients.as_slice() {
            [only] => Some(&only.forward_path),
            _ => None,
        };
        let smtputf8 = envelope.smtputf8;
        let receipt = trace::Receipt { hostname: &hostname, id: self.id, smtputf8, recipient, date: &date };
        let mut header = Vec::new();
        trace::received(&self.session, &receipt, &mut header);
        let (own, body) = HeaderBlock::parse(message);
        header.extend_from_slice(own.as_bytes());
        let mut mail = Mail {
            id: self.id,
            envelope: Arc::new(envelope),
            header: Arc::new(HeaderBlock::parse(&header).0),
            body: Arc::new(message.get(body..).unwrap_or_default().to_vec()),
            hold: None,
            filter: None,
            notes: self.notes.clone(),
        };
        apply(&mut mail, std::mem::take(&mut self.edits)).map_err(|err| err.to_string())?;
        let judged = self.chain.judge_message(&self.session, &mut mail, &self.tally).await;
        let refused = judged.verdict.refuses();
        let kept = self.note(Stage::Message, judged, refused);
        let recipients = mail.envelope.recipients.iter().map(|recipient| recipient.forward_path.to_string());
        self.report.recipients = recipients.collect();
        let fields = (0..mail.header.len()).filter_map(|index| mail.header.field(index));
        self.report.header = fields.map(|field| String::from_utf8_lossy(field).replace("\r\n", "")).collect();
        if kept && !self.report.recipients.is_empty() {
            std::mem::take(&mut self.staged).keep(&self.id.to_string()).await;
        }
        Ok(())
    }
}

fn envelope(case: &Case) -> Result<Envelope, Wrong> {
    let wrong = |key: &str, value: &str, err: &dyn std::fmt::Display| format!("`{key}`: {value}: {err}");
    // As SMTP writes it, or without.
    let path = |text: &str| text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text).to_owned();
    let reverse_path = path(&case.from).parse().map_err(|err| wrong("from", &case.from, &err))?;
    let recipient = |to: &String| match path(to).parse() {
        Ok(forward_path) => Ok(Recipient::new(forward_path)),
        Err(err) => Err(wrong("to", to, &err)),
    };
    Ok(Envelope {
        reverse_path,
        recipients: case.to.iter().map(recipient).collect::<Result<_, _>>()?,
        body: BodyType::SevenBit,
        smtputf8: false,
        ret: None,
        envelope_id: None,
        origin: Origin { client: Some(case.client), helo: case.helo.clone(), protocol: "ESMTP".into() },
    })
}
