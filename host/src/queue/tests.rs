//! The queue as a whole, on a real spool, with a delivery that does what a test says.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::testing::{TempDir, envelope};
use super::*;
use crate::mail::{ForwardPath, HeaderBlock, Notify, QueueId, Reply};
use crate::policy::{Mail, Notes};
use crate::units;

/// Each domain is a destination.
struct ByDomain;

impl Router for ByDomain {
    fn route(&self, recipient: &ForwardPath, filter: Option<&str>) -> Destination {
        let domain = recipient.mailbox().map(|mailbox| mailbox.host().to_string()).unwrap_or_default();
        Destination::new(filter.map_or(domain, str::to_owned))
    }
}

fn config(dir: &TempDir) -> Config {
    let ms = units::Duration::from_millis;
    Config {
        min_backoff: ms(5),
        max_backoff: ms(40),
        min_site_backoff: ms(5),
        max_site_backoff: ms(20),
        ..Config::for_test(dir.path())
    }
}

fn open_with(config: Config) -> Queue {
    Queue::open(config, "mta.example.test".parse().unwrap(), ByDomain, disk::Disk::default()).unwrap().0
}

fn open(dir: &TempDir) -> Queue {
    open_with(config(dir))
}

fn mail(queue: &Queue, from: &str, to: &[&str]) -> Mail {
    Mail {
        id: queue.next_id(),
        envelope: Arc::new(envelope(from, to)),
        header: Arc::new(HeaderBlock::parse(b"Subject: hello\r\n\r\n").0),
        body: Arc::new(b"world\r\n".to_vec()),
        hold: None,
        filter: None,
        notes: Notes::default(),
    }
}

async fn commit(queue: &Queue, from: &str, to: &[&str]) -> QueueId {
    let mail = mail(queue, from, to);
    let id = mail.id;
    queue.commit(mail).await.unwrap();
    id
}

/// The next job, wherever to; its worker leaves at once.
async fn job(queue: &Queue) -> Job {
    loop {
        let mut worker = timeout(Duration::from_secs(5), queue.opening()).await.expect("an opening");
        if let Some(job) = worker.next(Duration::ZERO).await {
            return job;
        }
    }
}

async fn no_job(queue: &Queue) {
    let any = timeout(Duration::from_millis(60), async {
        loop {
            if let Some(job) = queue.opening().await.next(Duration::ZERO).await {
                return job;
            }
        }
    });
    if let Ok(job) = any.await {
        panic!("a job for {} to {}", job.id(), job.destination());
    }
}

fn to(job: &Job) -> Vec<String> {
    job.recipients().map(|(_, recipient)| recipient.forward_path.to_string()).collect()
}

fn said(code: u16) -> Response {
    Response { reply: Reply::plain(code, "so it is"), remote: Some("mx[127.0.0.1]:25".into()) }
}

/// Settles all of a job alike.
async fn settle(mut job: Job, code: u16) {
    let outcomes: Vec<_> =
        job.recipients().map(|(index, _)| (index, Outcome::of(said(code), Relayed::ToOtherHost))).collect();
    job.settle(&outcomes, Contact::Reached).await;
}

fn body(job: &Job) -> String {
    String::from_utf8(job.letter().body_slice().unwrap().to_vec()).unwrap()
}

fn count(queue: &Queue) -> usize {
    queue.usage().messages
}

#[tokio::test]
async fn a_message_is_delivered_once_and_gone() {
    let dir = TempDir::new();
    let queue = open(&dir);
    let id = commit(&queue, "from@example.test", &["to@a.example"]).await;
    let delivery = job(&queue).await;
    assert_eq!((delivery.id(), to(&delivery), delivery.attempts()), (id, vec!["to@a.example".to_string()], 0));
    assert_eq!((delivery.letter().header(), body(&delivery)), (&b"Subject: hello\r\n"[..], "world\r\n".into()));
    settle(delivery, 250).await;
    assert_eq!(count(&queue), 0);
    no_job(&queue).await;
    drop(queue);
    let queue = open(&dir);
    no_job(&queue).await;
}

#[tokio::test]
async fn what_was_committed_is_delivered_after_a_restart() {
    let dir = TempDir::new();
    let queue = open(&dir);
    let id = commit(&queue, "from@example.test", &["to@a.example", "to@b.example"]).await;
    let first = job(&queue).await;
    let destination = first.destination().clone();
    settle(first, 250).await;
    drop(queue);
    let queue = open(&dir);
    let second = job(&queue).await;
    assert_eq!(second.id(), id);
    assert_ne!(*second.destination(), destination);
    assert!(queue.next_id() > id);
    settle(second, 250).await;
    assert_eq!(count(&queue), 0);
}

#[tokio::test]
async fn a_deferred_message_is_tried_again_across_restarts() {
    let dir = TempDir::new();
    let queue = open(&dir);
    commit(&queue, "from@example.test", &["to@a.example"]).await;
    for attempts in 0..3 {
        let delivery = job(&queue).await;
        assert_eq!(delivery.attempts(), attempts);
        settle(delivery, 451).await;
    }
    let listed = queue.list(&Filter::default());
    assert_eq!(listed[0].recipients[0].reason.as_deref(), Some("host mx[127.0.0.1]:25 said: 451 so it is"));
    drop(queue);
    let queue = open(&dir);
    let delivery = job(&queue).await;
    assert_eq!(delivery.attempts(), 3);
    settle(delivery, 250).await;
    assert_eq!(count(&queue), 0);
}

#[tokio::test]
async fn one_bounce_for_all_failures_and_none_for_a_bounce() {
    let dir = TempDir::new();
    let queue = open(&dir);
    commit(&queue, "from@sender.example", &["x@a.example", "y@b.example", "z@c.example"]).await;
    for _ in 0..3 {
        let delivery = job(&queue).await;
        let code = if delivery.destination().as_str() == "c.example" { 250 } else { 550 };
        settle(delivery, code).await;
    }
    let bounce = job(&queue).await;
    assert_eq!(count(&queue), 1, "the message is gone, the bounce is here");
    assert_eq!(
        (to(&bounce), bounce.envelope().reverse_path.to_string()),
        (vec!["from@sender.example".into()], String::new())
    );
    let text = body(&bounce);
    assert!(
        text.contains("rfc822; x@a.example") && text.contains("rfc822; y@b.example") && !text.contains("z@c.example")
    );
    assert!(text.contains("world\r\n"));
    settle(bounce, 550).await;
    assert_eq!(count(&queue), 0, "a double bounce ends in the log");
    no_job(&queue).await;
}

#[tokio::test]
async fn a_bounce_that_was_due_is_sent_after_a_restart() {
    let dir = TempDir::new();
    let queue = open(&dir);
    commit(&queue, "from@sender.example", &["x@a.example", "y@b.example"]).await;
    settle(job(&queue).await, 550).await;
    assert_eq!(count(&queue), 1, "the other recipient comes first");
    drop(queue);
    let queue = open(&dir);
    settle(job(&queue).await, 250).await;
    let bounce = job(&queue).await;
    assert_eq!(to(&bounce), ["from@sender.example"]);
    settle(bounce, 250).await;
    assert_eq!(count(&queue), 0);
}

#[tokio::test]
async fn failures_do_not_wait_for_ever_for_the_others() {
    let dir = TempDir::new();
    let queue = open_with(Config { bounce_gather: units::Duration::from_millis(30), ..config(&dir) });
    commit(&queue, "from@sender.example", &["x@a.example", "y@b.example"]).await;
    settle(job(&queue).await, 550).await;
    let other = job(&queue).await; // takes its time
    let bounce = job(&queue).await;
    assert_eq!(to(&bounce), ["from@sender.example"]);
    settle(bounce, 250).await;
    settle(other, 250).await;
    assert_eq!(count(&queue), 0);
}

#[tokio::test]
async fn the_sender_is_warned_once_then_the_message_expires() {
    let dir = TempDir::new();
    let ms = units::Duration::from_millis;
    let queue = open_with(Config { delay_warning: ms(100), expiry: ms(400), ..config(&dir) });
    commit(&queue, "from@sender.example", &["x@a.example"]).await;
    let mut notices = Vec::new();
    while notices.len() < 2 {
        let delivery = job(&queue).await;
        if delivery.destination().as_str() == "a.example" {
            settle(delivery, 451).await;
        } else {
            notices.push(body(&delivery));
            settle(delivery, 250).await;
        }
    }
    assert!(notices[0].contains("Action: delayed") && notices[1].contains("Action: failed"));
    assert_eq!(count(&queue), 0);
    no_job(&queue).await;
}

#[tokio::test]
async fn mail_for_a_dead_destination_expires_untried() {
    let dir = TempDir::new();
    let ms = units::Duration::from_millis;
    let slow = ms(60_000);
    let config = Config { min_site_backoff: slow, max_site_backoff: slow, expiry: ms(300), ..config(&dir) };
    let queue = open_with(Config { delay_warning: ms(0), ..config });
    for _ in 0..3 {
        commit(&queue, "", &["x@dead.example"]).await;
    }
    for _ in 0..3 {
        let mut delivery = job(&queue).await;
        let reply = Reply::transient(451, (4, 1), "connection refused");
        let outcome = Outcome::Deferred(Response::own(reply.clone()));
        delivery.settle(&[(0, outcome)], Contact::Unreachable(reply)).await;
    }
    commit(&queue, "from@sender.example", &["y@dead.example"]).await;
    let listed = queue.list(&Filter { recipient: Some("Y@DEAD".into()), ..Filter::default() });
    assert_eq!(listed[0].recipients[0].reason.as_deref(), Some("451 4.4.1 connection refused"));
    commit(&queue, "from@sender.example", &["z@alive.example"]).await;
    assert_eq!(to(&job(&queue).await), ["z@alive.example"]);
    let bounce = job(&queue).await;
    assert!(body(&bounce).contains("rfc822; y@dead.example\r\nAction: failed\r\nStatus: 4.4.1\r\n"));
    settle(bounce, 250).await;
}

#[tokio::test]
async fn success_is_told_if_asked_for() {
    let dir = TempDir::new();
    let queue = open(&dir);
    let mut mail = mail(&queue, "from@sender.example", &["x@a.example"]);
    let notify = Some(Notify { success: true, failure: true, delay: true });
    Arc::make_mut(&mut mail.envelope).recipients[0].notify = notify;
    queue.commit(mail).await.unwrap();
    settle(job(&queue).await, 250).await;
    let notice = job(&queue).await;
    assert!(body(&notice).contains("Action: relayed") && !body(&notice).contains("world"));
    settle(notice, 250).await;
    assert_eq!(count(&queue), 0);
}

#[tokio::test]
async fn a_time_noted_under_a_wrong_clock_does_not_strand_a_message() {
    let dir = TempDir::new();
    let queue = open(&dir);
    let id = commit(&queue, "from@sender.example", &["x@a.example"]).await;
    let in_2100 = UnixTime::from_millis(4_102_444_800_000);
    let pending = RecipientState::Pending { attempts: 3, due: in_2100, response: None };
    queue.0.store.update(id, &State { recipients: vec![pending], ..State::default() });
    drop(queue);
    let queue = open(&dir);
    settle(job(&queue).await, 250).await;
    assert_eq!(count(&queue), 0);
}

#[tokio::test]
async fn an_interrupted_delivery_is_tried_again() {
    let dir = TempDir::new();
    let queue = open(&dir);
    let id = commit(&queue, "from@sender.example", &["x@a.example"]).await;
    drop(job(&queue).await);
    let shown = queue.show(id).unwrap();
    assert_eq!((shown.standing, shown.recipients[0].attempts), (Standing::Deferred, 0));
    queue.flush(&Filter::default());
    settle(job(&queue).await, 250).await;
    assert_eq!(count(&queue), 0);
}

#[tokio::test]
async fn many_recipients_go_in_several_deliveries() {
    let dir = TempDir::new();
    let queue = open_with(Config { max_recipients: 2, ..config(&dir) });
    let names: Vec<String> = (0..7).map(|n| format!("u{n}@a.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    commit(&queue, "from@sender.example", &names).await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(job(&queue).await);
    }
    let mut seen: Vec<String> = jobs.iter().flat_map(to).collect();
    seen.sort();
    assert_eq!(seen, names);
    let last = jobs.pop().unwrap();
    for delivery in jobs {
        settle(delivery, 250).await;
    }
    settle(last, 451).await; // one of them again, alone
    assert_eq!(to(&job(&queue).await).len(), 1);
}

#[tokio::test]
async fn without_memory_mail_is_read_from_the_spool() {
    let dir = TempDir::new();
    let queue = open_with(Config { hot_size: units::ByteSize::from_bytes(0), ..config(&dir) });
    for _ in 0..20 {
        commit(&queue, "from@sender.example", &["x@a.example", "y@b.example"]).await;
    }
    for _ in 0..40 {
        let delivery = job(&queue).await;
        assert_eq!(body(&delivery), "world\r\n");
        settle(delivery, 250).await;
    }
    assert_eq!(count(&queue), 0);
    assert!(queue.0.desk().active.is_empty());
}

#[tokio::test]
async fn memory_is_bounded_and_given_back() {
    let dir = TempDir::new();
    let minute = units::Duration::from_mins(1); // nothing is tried twice here
    let config = Config { min_backoff: minute, max_backoff: minute, ..config(&dir) };
    let queue = open_with(Config { hot_size: units::ByteSize::from_bytes(5_000), ..config });
    for _ in 0..50 {
        commit(&queue, "from@sender.example", &["x@a.example"]).await;
        assert!(queue.0.desk().hot <= 5_000);
    }
    for _ in 0..50 {
        settle(job(&queue).await, 451).await;
    }
    let desk = queue.0.desk();
    assert_eq!((desk.active.len(), desk.hot), (0, 0));
}

#[tokio::test]
async fn hold_release_delete() {
    let dir = TempDir::new();
    let queue = open(&dir);
    let id = commit(&queue, "from@sender.example", &["x@a.example"]).await;
    let other = commit(&queue, "from@sender.example", &["x@b.example"]).await;
    assert_eq!(queue.hold(&Filter::ids([id]), "let me see"), 1);
    assert_eq!(queue.hold(&Filter::ids([id]), "again"), 0);
    let delivery = job(&queue).await;
    assert_eq!(delivery.id(), other);
    settle(delivery, 250).await;
    no_job(&queue).await;
    let shown = queue.show(id).unwrap();
    assert_eq!((shown.standing, shown.hold.as_deref()), (Standing::Hold, Some("let me see")));
    drop(queue);
    let queue = open(&dir);
    no_job(&queue).await;
    assert_eq!(queue.release(&Filter { sender: Some("SENDER".into()), ..Filter::default() }), 1);
    let delivery = job(&queue).await;
    assert_eq!(queue.show(id).unwrap().standing, Standing::Active);
    assert_eq!(queue.hold(&Filter::default(), "too late for this one"), 1);
    settle(delivery, 451).await;
    no_job(&queue).await;
    assert_eq!(queue.delete(&Filter::default()), 1);
    assert!(matches!(queue.show(id), Err(AdminError::NoSuchMessage(_))));
    assert_eq!(count(&queue), 0);
    let quarantined = Mail { hold: Some("quarantine".into()), ..mail(&queue, "a@b.example", &["x@a.example"]) };
    let id = quarantined.id;
    queue.commit(quarantined).await.unwrap();
    no_job(&queue).await;
    assert_eq!(queue.show(id).unwrap().hold.as_deref(), Some("quarantine"));
}

#[tokio::test]
async fn a_message_deleted_while_it_is_delivered_is_not_tried_again() {
    let dir = TempDir::new();
    let queue = open(&dir);
    commit(&queue, "from@sender.example", &["x@a.example"]).await;
    let delivery = job(&queue).await;
    assert_eq!(queue.delete(&Filter::default()), 1);
    settle(delivery, 451).await;
    no_job(&queue).await;
    assert_eq!(count(&queue), 0);
}

#[tokio::test]
async fn the_operator_can_give_a_message_up() {
    let dir = TempDir::new();
    let queue = open(&dir);
    let id = commit(&queue, "from@sender.example", &["x@a.example"]).await;
    settle(job(&queue).await, 451).await;
    assert_eq!(queue.bounce(&Filter::ids([id]), "no more of this"), 1);
    let bounce = job(&queue).await;
    assert!(body(&bounce).contains("Diagnostic-Code: x-wasmta; 550 5.7.0 no more of this"));
    settle(bounce, 250).await;
    assert_eq!(count(&queue), 0);
}

#[tokio::test]
async fn filters() {
    let dir = TempDir::new();
    let queue = open(&dir);
    commit(&queue, "ann@sender.example", &["x@a.example"]).await;
    commit(&queue, "", &["y@b.example"]).await;
    let listed = |filter: Filter| queue.list(&filter).len();
    let all = Filter::default;
    assert_eq!(listed(all()), 2);
    assert_eq!(listed(Filter { sender: Some("ANN".into()), ..all() }), 1);
    assert_eq!(listed(Filter { sender: Some("<>".into()), ..all() }), 1);
    assert_eq!(listed(Filter { domain: Some("A.example".into()), ..all() }), 1);
    assert_eq!(listed(Filter { domain: Some("example".into()), ..all() }), 0);
    assert_eq!(listed(Filter { recipient: Some("y@".into()), ..all() }), 1);
    assert_eq!(listed(Filter { standing: Some(Standing::Ready), ..all() }), 2);
    assert_eq!(listed(Filter { min_age: Some(60), ..all() }), 0);
    assert_eq!(listed(Filter { min_size: Some(10), limit: Some(1), ..all() }), 1);
    assert_eq!(listed(Filter { ids: vec!["nonsense".into()], ..all() }), 0);
}

#[tokio::test]
async fn a_policy_can_choose_the_next_hop() {
    let dir = TempDir::new();
    let queue = open(&dir);
    queue
        .commit(Mail { filter: Some("smtp:[127.0.0.1]:10025".into()), ..mail(&queue, "", &["x@a.example"]) })
        .await
        .unwrap();
    drop(queue);
    let queue = open(&dir);
    assert_eq!(job(&queue).await.destination().as_str(), "smtp:[127.0.0.1]:10025");
}

#[tokio::test]
async fn a_damaged_message_is_held_and_the_others_go_on() {
    use std::os::unix::fs::FileExt as _;
    let dir = TempDir::new();
    let queue = open_with(Config { hot_size: units::ByteSize::from_bytes(0), ..config(&dir) });
    let id = commit(&queue, "from@sender.example", &["x@a.example"]).await;
    let segment = dir.path().join("spool/00000001.seg");
    let octets = std::fs::read(&segment).unwrap();
    let at = memchr::memmem::find(&octets, b"world").unwrap();
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().write_at(b"W", at as u64).unwrap();
    let other = commit(&queue, "from@sender.example", &["y@a.example"]).await;
    let delivery = job(&queue).await;
    assert_eq!(delivery.id(), other);
    settle(delivery, 250).await;
    no_job(&queue).await;
    let shown = queue.show(id).unwrap();
    assert!(shown.hold.unwrap().contains("damaged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_through_many_workers() {
    let dir = TempDir::new();
    let queue = open(&dir);
    let delivered = Arc::new(std::sync::Mutex::new(Vec::new()));
    let dispatcher = {
        let (queue, delivered) = (queue.clone(), delivered.clone());
        tokio::spawn(async move {
            loop {
                let mut worker = queue.opening().await;
                let delivered = delivered.clone();
                tokio::spawn(async move {
                    while let Some(job) = worker.next(Duration::from_millis(20)).await {
                        tokio::task::yield_now().await;
                        if job.attempts() == 0 && fastrand::u8(..) < 50 {
                            settle(job, 451).await;
                            continue;
                        }
                        delivered.lock().unwrap().extend(to(&job));
                        settle(job, 250).await;
                    }
                });
            }
        })
    };
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..20 {
        let queue = queue.clone();
        senders.spawn(async move {
            for number in 0..50 {
                let names = [format!("u{sender}-{number}@a.example"), format!("u{sender}-{number}@b.example")];
                commit(&queue, "from@sender.example", &[&names[0], &names[1]]).await;
            }
        });
    }
    senders.join_all().await;
    for _ in 0..500 {
        if count(&queue) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    dispatcher.abort();
    let mut delivered = std::mem::take(&mut *delivered.lock().unwrap());
    let all = delivered.len();
    delivered.sort();
    delivered.dedup();
    assert_eq!((count(&queue), all, delivered.len()), (0, 2000, 2000));
}
