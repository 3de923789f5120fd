//! How long a policy's calls take, and what its instances cost: `wasmta plugin bench`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::context::Trace;
use super::{Chain, Plugin, Subject, Transaction};
use crate::mail::{BodyType, Envelope, ForwardPath, HeaderBlock, Origin, QueueId, Recipient, ReversePath};
use crate::policy::{Mail, Notes, Session, Stage, Tally};

/// Calls that are made before any is counted.
const WARM_UP: u32 = 200;

/// The times of one hook.
#[derive(Debug, Clone, Serialize)]
pub struct HookTimes {
    /// `connect`, `helo`, …
    pub hook: &'static str,
    /// Calls counted.
    pub calls: u32,
    /// Half of the calls took at most this, in microseconds: a fresh instance, the call, and its end.
    pub median_us: f64,
    /// Ninety-nine of a hundred did.
    pub p99_us: f64,
    /// What it said, for the curious.
    pub verdict: String,
}

/// Times every hook of a plugin, one call after the other. `message` is a whole message; its octets are read as SMTP would give them.
pub async fn times(plugin: &Arc<Plugin>, message: &[u8], calls: u32) -> Vec<HookTimes> {
    let chain = Chain::new(vec![Arc::clone(plugin)]);
    let session = Arc::new(example_session());
    let mail = example_mail(message);
    let mut all = Vec::new();
    for stage in chain.stages() {
        let mut took = Vec::with_capacity(calls as usize);
        let mut verdict = String::new();
        for n in 0..WARM_UP + calls {
            let started = Instant::now();
            verdict = format!("{:?}", call(&chain, &session, &mail, stage).await);
            if n >= WARM_UP {
                took.push(started.elapsed());
            }
        }
        took.sort();
        let at = |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
        let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
        all.push(HookTimes { hook: stage.as_str(), calls, median_us: micros(at(50)), p99_us: micros(at(99)), verdict });
    }
    all
}

/// What many live instances cost.
#[derive(Debug, Clone, Serialize)]
pub struct LiveCost {
    /// Instances that were alive together, each after one call.
    pub instances: u32,
    /// Memory of this process that they added, in KiB of PSS.
    pub pss_kib: u64,
}

/// Keeps `instances` alive, each after a call of the plugin's last hook, and measures what memory they take.
pub async fn live(plugin: &Arc<Plugin>, message: &[u8], instances: u32) -> std::io::Result<LiveCost> {
    let session = Arc::new(example_session());
    let mail = example_mail(message);
    let stage = Chain::new(vec![Arc::clone(plugin)]).stages().last().unwrap_or(Stage::Connect);
    let before = pss_kib()?;
    let mut alive = Vec::new();
    for _ in 0..instances {
        let call = plugin.fresh(&session, subject(&mail, stage), 0.0, &Trace::default()).await;
        alive.push(call.map_err(|failure| std::io::Error::other(failure.to_string()))?);
    }
    Ok(LiveCost { instances, pss_kib: pss_kib()?.saturating_sub(before) })
}

/// Proportional set size of this process.
fn pss_kib() -> std::io::Result<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().map_err(std::io::Error::other)
}

fn subject(mail: &Mail, stage: Stage) -> Subject {
    let transaction = || Transaction {
        id: mail.id,
        envelope: Arc::clone(&mail.envelope),
        announced_size: None,
        notes: Notes::default(),
    };
    match stage {
        Stage::Connect => Subject::Connect,
        Stage::Helo => Subject::Helo,
        Stage::Mail => Subject::Mail(transaction()),
        Stage::Rcpt => Subject::Rcpt(transaction(), Recipient::new(ForwardPath::Postmaster)),
        Stage::Message => Subject::Message(mail.clone()),
    }
}

async fn call(chain: &Chain, session: &Arc<Session>, mail: &Mail, stage: Stage) -> crate::policy::Verdict {
    let judged = match stage {
        Stage::Message => chain.judge_message(session, &mut mail.clone(), &Tally::default()).await,
        _ => chain.judge(session, subject(mail, stage), &Tally::default()).await,
    };
    judged.verdict
}

fn example_session() -> Session {
    let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 40000));
    Session {
        id: "bench".into(),
        listener: "bench".into(),
        client,
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
        client_name: None,
        helo: Some("client.example.test".into()),
        extended: true,
        tls: None,
        user: None,
        trusted: false,
        notes: Notes::default(),
    }
}

fn example_mail(message: &[u8]) -> Mail {
    let (header, body) = HeaderBlock::parse(message);
    Mail {
        id: QueueId::from_u64(1),
        envelope: Arc::new(Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient::new(ForwardPath::Postmaster)],
            body: BodyType::SevenBit,
            smtputf8: false,
            ret: None,
            envelope_id: None,
            origin: Origin { client: None, helo: "client.example.test".into(), protocol: "ESMTP".into() },
        }),
        header: Arc::new(header),
        body: Arc::new(message.get(body..).unwrap_or_default().to_vec()),
        hold: None,
        filter: None,
        notes: Notes::default(),
    }
}
