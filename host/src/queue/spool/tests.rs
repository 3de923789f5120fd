//! The spool on a real file system, with and without faults.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::log::Place;
use super::*;
use crate::mail::Reply;
use crate::queue::disk::Op;
use crate::queue::testing::{Script, TempDir, block_on, message};
use crate::queue::{RecipientState, Response, UnixTime};

fn open(dir: &TempDir) -> (Spool, Recovered) {
    Spool::open(&Config::for_test(dir.path()), Disk::default()).unwrap()
}

fn open_faulty(dir: &TempDir, script: Arc<Script>) -> Spool {
    Spool::open(&Config::for_test(dir.path()), Disk::with_faults(script)).unwrap().0
}

fn id(number: u64) -> QueueId {
    QueueId::from_u64(number)
}

fn body(spool: &Spool, number: u64) -> Vec<u8> {
    let (stored, letter) = spool.load(id(number)).unwrap();
    assert_eq!(letter.header(), format!("Subject: {number}\r\n").as_bytes());
    assert_eq!(stored.size, letter.len());
    let mut octets = vec![0; usize::try_from(letter.body_len()).unwrap()];
    assert_eq!(letter.read_body_at(0, &mut octets).unwrap(), octets.len());
    octets
}

fn deferred(attempts: u16) -> State {
    let response = Some(Box::new(Response::own(Reply::transient(451, (4, 1), "later"))));
    let due = UnixTime::from_millis(5);
    State { hold: None, warned: true, recipients: vec![RecipientState::Pending { attempts, due, response }] }
}

fn the_segment(dir: &TempDir) -> PathBuf {
    let mut segments: Vec<PathBuf> =
        fs::read_dir(dir.path().join("spool")).unwrap().map(|e| e.unwrap().path()).collect();
    segments.sort();
    segments.remove(0)
}

#[tokio::test]
async fn what_is_committed_is_there_after_a_restart() {
    let dir = TempDir::new();
    let (spool, _) = open(&dir);
    for number in 1..=4 {
        spool.commit(&message(number, format!("body {number}\r\n"))).await.unwrap();
    }
    spool.update(id(2), &deferred(3));
    spool.update(id(2), &deferred(4));
    spool.remove(id(3));
    assert!(!spool.contains(id(3)) && spool.contains(id(2)));
    drop(spool);
    for _ in 0..3 {
        let (spool, recovered) = open(&dir);
        assert_eq!(recovered.damage, []);
        assert_eq!(spool.ids(), [id(1), id(2), id(4)]);
        assert_eq!(recovered.highest, Some(id(4)));
        assert_eq!(body(&spool, 1), b"body 1\r\n");
        let stored = spool.stored(id(2)).unwrap();
        assert_eq!((stored.state, stored.arrived), (deferred(4), UnixTime::from_millis(1_000_002)));
        assert!(matches!(spool.load(id(3)), Err(LoadError::Gone)));
    }
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    let dir = TempDir::new();
    let (spool, _) = open(&dir);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&the_segment(&dir)), 0o600);
    assert_eq!((mode(&dir.path().join("spool")), mode(&dir.path().join("body"))), (0o700, 0o700));
    drop(spool);
}

#[tokio::test]
async fn two_servers_never_share_a_spool() {
    let dir = TempDir::new();
    let (spool, _) = open(&dir);
    assert!(matches!(Spool::open(&Config::for_test(dir.path()), Disk::default()), Err(OpenError::InUse(_))));
    drop(spool);
    open(&dir);
}

/// A spool of three messages, the last record that of the third; copied for each case.
async fn three(dir: &TempDir) -> (PathBuf, Vec<u8>, usize) {
    let (spool, _) = open(dir);
    let mut last = 0;
    for number in 1..=3 {
        last = lock(&spool.shared.log).current.as_ref().unwrap().tail;
        spool.commit(&message(number, format!("body {number}\r\n"))).await.unwrap();
    }
    let end = lock(&spool.shared.log).current.as_ref().unwrap().tail;
    drop(spool);
    let path = the_segment(dir);
    let mut octets = fs::read(&path).unwrap();
    octets.truncate(usize::try_from(end).unwrap());
    (path, octets, usize::try_from(last).unwrap())
}

/// What a start makes of a spool with one such segment.
fn restart_with(path: &Path, octets: &[u8]) -> (Vec<QueueId>, Vec<Damage>) {
    let root = TempDir::new();
    fs::create_dir(root.path().join("spool")).unwrap();
    fs::write(root.path().join("spool").join(path.file_name().unwrap()), octets).unwrap();
    let dirs = Dirs {
        disk: Disk::default(),
        spool: root.path().join("spool"),
        body: root.path().join("body"),
        damaged: root.path().join("damaged"),
        segment_size: 1 << 16,
    };
    for dir in [&dirs.body, &dirs.damaged] {
        fs::create_dir(dir).unwrap();
    }
    let (log, recovered) = recover::recover(Arc::new(dirs)).unwrap();
    for damage in &recovered.damage {
        let kept = fs::read(damage.kept_as.as_ref().unwrap()).unwrap();
        let start = usize::try_from(damage.offset).unwrap();
        assert_eq!(kept, octets[start..start + kept.len()], "damaged octets are kept");
    }
    let mut ids: Vec<QueueId> = log.index.keys().copied().collect();
    ids.sort();
    (ids, recovered.damage)
}

#[tokio::test]
async fn a_tail_torn_at_any_octet_is_cut_and_reported() {
    let dir = TempDir::new();
    let (path, octets, last) = three(&dir).await;
    for cut in last..=octets.len() {
        let (ids, damage) = restart_with(&path, &octets[..cut]);
        let (expected, reports) = match cut {
            _ if cut == last => (2, 0),
            _ if cut == octets.len() => (3, 0),
            _ => (2, 1),
        };
        assert_eq!((ids.len(), damage.len()), (expected, reports), "cut at {cut} of {last}..{}", octets.len());
        assert!(damage.iter().all(|damage| damage.offset == last as u64));
    }
}

#[tokio::test]
async fn any_flipped_octet_is_reported_where_it_is_and_the_rest_salvaged() {
    let dir = TempDir::new();
    let (path, octets, last) = three(&dir).await;
    for at in 0..octets.len() {
        let mut flipped = octets.clone();
        flipped[at] ^= 0x55;
        flipped.resize(octets.len() + 4096, 0);
        let (ids, damage) = restart_with(&path, &flipped);
        assert_eq!(damage.len(), 1, "octet {at}: {damage:?}");
        let (start, len) = (usize::try_from(damage[0].offset).unwrap(), usize::try_from(damage[0].len).unwrap());
        assert!(start <= at, "octet {at}: {damage:?}");
        assert!(at < start + len || at >= last, "octet {at}: {damage:?}");
        assert_eq!(ids.len(), if at < record::HEAD { 3 } else { 2 }, "octet {at}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_segment_is_set_aside() {
    let dir = TempDir::new();
    drop(open(&dir));
    fs::write(dir.path().join("spool/00000077.seg"), b"what is this?").unwrap();
    fs::write(dir.path().join("spool/00000078.seg"), [0; 5000]).unwrap();
    fs::write(dir.path().join("spool/README"), b"hands off").unwrap();
    let (spool, recovered) = open(&dir);
    assert_eq!(recovered.damage.len(), 1);
    assert_eq!(fs::read(dir.path().join("damaged/00000077.seg")).unwrap(), b"what is this?");
    assert!(dir.path().join("spool/README").exists());
    spool.commit(&message(1, "x\r\n")).await.unwrap();
}

#[tokio::test]
async fn a_body_cannot_forge_a_record() {
    // Somebody who mails a copy of a whole segment, even of one with the marker of another use, puts no message into the queue.
    let dir = TempDir::new();
    let (path, octets, _) = three(&dir).await;
    let other = TempDir::new();
    let (spool, _) = open(&other);
    spool.commit(&message(9, octets)).await.unwrap();
    drop(spool);
    let mut damaged = fs::read(the_segment(&other)).unwrap();
    damaged[record::HEAD + 9] ^= 1;
    let (ids, damage) = restart_with(&path, &damaged);
    assert_eq!((ids, damage.len()), (vec![], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commits_share_a_sync() {
    let dir = TempDir::new();
    let syncs = Arc::new(AtomicUsize::new(0));
    let script = {
        let syncs = syncs.clone();
        Script::new(move |op, path, len| {
            if op == Op::Sync && path.extension().is_some_and(|ext| ext == "seg") {
                syncs.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
            Ok(len)
        })
    };
    let spool = Arc::new(open_faulty(&dir, script));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=200 {
        let spool = spool.clone();
        tasks.spawn(async move { spool.commit(&message(number, "x\r\n".repeat(100))).await.unwrap() });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(syncs.load(Ordering::Relaxed) < 30, "{syncs:?} syncs");
    assert_eq!(spool.ids().len(), 200);
    drop(spool);
    assert_eq!(open(&dir).1.messages, 200);
}

#[tokio::test]
async fn a_full_disk_puts_mail_off_and_recovers_by_itself() {
    let dir = TempDir::new();
    let full = Arc::new(AtomicBool::new(false));
    let script = {
        let full = full.clone();
        // The first half of the record gets through, as on a real disk.
        let halves = AtomicUsize::new(0);
        Script::new(move |op, _, len| match op {
            Op::Write if full.load(Ordering::Relaxed) => {
                if halves.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                    Ok(len / 2)
                } else {
                    Err(io::ErrorKind::StorageFull.into())
                }
            }
            _ => Ok(len),
        })
    };
    let spool = open_faulty(&dir, script);
    spool.commit(&message(1, "one\r\n")).await.unwrap();
    spool.commit(&message(2, "two\r\n")).await.unwrap();
    full.store(true, Ordering::Relaxed);
    let err = spool.commit(&message(3, "three\r\n")).await.unwrap_err();
    assert!(matches!(err, CommitError::Full(_)));
    assert_eq!(Reply::from(&err).to_string(), "452 4.3.1 insufficient system storage, try again later");
    assert!(matches!(spool.accepting(), Err(CommitError::Full(_))));
    assert!(!spool.contains(id(3)));
    // What became of the others is not forgotten meanwhile.
    spool.remove(id(1));
    spool.update(id(2), &deferred(7));
    assert_eq!(spool.stored(id(2)).unwrap().state, deferred(7));
    full.store(false, Ordering::Relaxed);
    *lock(&spool.shared.trouble.0) = None;
    spool.commit(&message(4, "four\r\n")).await.unwrap();
    drop(spool);
    let (spool, recovered) = open(&dir);
    assert_eq!((spool.ids(), recovered.damage), (vec![id(2), id(4)], vec![]));
    assert_eq!((spool.stored(id(2)).unwrap().state, body(&spool, 4)), (deferred(7), b"four\r\n".to_vec()));
}

#[tokio::test]
async fn too_little_free_space_puts_mail_off() {
    let dir = TempDir::new();
    let config = Config { min_free: crate::units::ByteSize::from_bytes(1 << 62), ..Config::for_test(dir.path()) };
    let (spool, _) = Spool::open(&config, Disk::default()).unwrap();
    assert!(matches!(spool.accepting(), Err(CommitError::Full(_))));
    assert!(matches!(spool.commit(&message(1, "x")).await, Err(CommitError::Full(_))));
    assert!(matches!(spool.draft(id(1)).map(drop), Err(CommitError::Full(_))));
}

#[tokio::test]
async fn what_a_failed_sync_may_have_written_is_not_believed() {
    let dir = TempDir::new();
    let broken = Arc::new(AtomicBool::new(false));
    let script = {
        let broken = broken.clone();
        Script::new(move |op, _, len| match op {
            // Fails once, then pretends that all is well, as Linux does.
            Op::Sync if broken.swap(false, Ordering::Relaxed) => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(len),
        })
    };
    let spool = open_faulty(&dir, script);
    for number in 1..=3 {
        spool.commit(&message(number, "sound\r\n")).await.unwrap();
    }
    spool.remove(id(1)); // not synced yet
    spool.update(id(2), &deferred(2));
    broken.store(true, Ordering::Relaxed);
    let err = spool.commit(&message(4, "lost\r\n")).await.unwrap_err();
    assert!(matches!(err, CommitError::Disk(_)));
    assert_eq!(Reply::from(&err).code(), 451);
    assert!(matches!(spool.accepting(), Err(CommitError::Disk(_))));
    assert!(!spool.contains(id(4)));
    *lock(&spool.shared.trouble.0) = None;
    spool.commit(&message(5, "sound\r\n")).await.unwrap();
    assert_eq!(spool.stored(id(2)).unwrap().state, deferred(2));
    // The janitor may have moved what is sound out of it already.
    assert!(lock(&spool.shared.log).segments.get(&1).is_none_or(|segment| segment.poisoned));
    assert_ne!(lock(&spool.shared.log).current.as_ref().unwrap().number, 1);
    drop(spool);
    let (spool, recovered) = open(&dir);
    assert_eq!((spool.ids(), recovered.damage), (vec![id(2), id(3), id(5)], vec![]));
    assert_eq!(spool.stored(id(2)).unwrap().state, deferred(2));
    assert_eq!(body(&spool, 3), b"sound\r\n");
}

#[tokio::test]
async fn a_commit_that_is_given_up_leaves_no_message() {
    let dir = TempDir::new();
    let script = Script::new(|op, path, len| {
        if op == Op::Sync && path.extension().is_some_and(|ext| ext == "seg") {
            thread::sleep(Duration::from_millis(50));
        }
        Ok(len)
    });
    let spool = open_faulty(&dir, script);
    let message = message(1, "x\r\n");
    assert!(tokio::time::timeout(Duration::from_millis(5), spool.commit(&message)).await.is_err());
    assert!(!spool.contains(id(1)));
    drop(spool);
    assert_eq!(open(&dir).1.messages, 0);
}

/// Octets in all files of the spool.
fn on_disk(dir: &TempDir) -> u64 {
    fs::read_dir(dir.path().join("spool")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn dead_segments_go_and_nearly_dead_ones_are_emptied() {
    let dir = TempDir::new();
    let (spool, _) = open(&dir);
    let mut kept = Vec::new();
    for number in 1..=600 {
        block_on(spool.commit(&message(number, "z".repeat(2000)))).unwrap();
        if number % 50 == 0 {
            spool.update(id(number), &deferred(u16::try_from(number).unwrap()));
            kept.push(id(number));
        } else {
            spool.remove(id(number));
        }
        if number % 20 == 0 {
            thread::sleep(Duration::from_millis(2)); // so that segments are old enough
            spool.shared.tidy();
        }
    }
    assert_eq!(spool.ids(), kept);
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(2));
        spool.shared.tidy();
    }
    let (live, segment) = (spool.usage().live, Config::MIN_SEGMENT.as_u64());
    assert!(live > 24_000 && live < 40_000, "{live}");
    let bound = live + live * 3 / 10 + 2 * segment;
    assert!(on_disk(&dir) <= bound, "{} octets on disk, {live} live", on_disk(&dir));
    assert!(spool.usage().disk <= bound);
    for number in &kept {
        assert_eq!(body(&spool, number.as_u64()).len(), 2000);
    }
    drop(spool);
    let (spool, recovered) = open(&dir);
    assert_eq!((spool.ids(), recovered.damage), (kept.clone(), vec![]));
    for number in kept {
        let attempts = u16::try_from(number.as_u64()).unwrap();
        assert_eq!(spool.stored(number).unwrap().state, deferred(attempts));
    }
}

#[test]
fn a_removal_is_remembered_as_long_as_the_message_lies_anywhere() {
    // Message 1 is pinned in the first segment by message 2; its removal is noted in a later one, which dies before the first.
    let dir = TempDir::new();
    let config = Config { compact_after: crate::units::Duration::from_hours(1), ..Config::for_test(dir.path()) };
    let (spool, _) = Spool::open(&config, Disk::default()).unwrap();
    let big = || "z".repeat(12_000);
    block_on(spool.commit(&message(1, big()))).unwrap();
    block_on(spool.commit(&message(2, big()))).unwrap();
    for number in 3..=40 {
        block_on(spool.commit(&message(number, big()))).unwrap();
        if number == 8 {
            spool.remove(id(1));
        }
        spool.remove(id(number));
        spool.shared.tidy();
    }
    block_on(spool.commit(&message(41, "sync"))).unwrap();
    spool.shared.tidy();
    let segments: Vec<u32> = lock(&spool.shared.log).segments.keys().copied().collect();
    assert!(segments.len() >= 3 && segments.len() < 5, "{segments:?}");
    drop(spool);
    let (spool, _) = open(&dir);
    assert_eq!(spool.ids(), [id(2), id(41)]);
    // Emptying the segment that holds the note carries the note along.
    spool.shared.tidy();
    thread::sleep(Duration::from_millis(5));
    spool.shared.tidy();
    drop(spool);
    assert_eq!(open(&dir).0.ids(), [id(2), id(41)]);
}

#[test]
fn a_segment_that_is_used_again_shows_nothing_of_its_past() {
    let dir = TempDir::new();
    let (spool, _) = open(&dir);
    for number in 1..=300 {
        block_on(spool.commit(&message(number, "z".repeat(1000)))).unwrap();
        spool.remove(id(number));
        spool.shared.tidy();
    }
    assert!(on_disk(&dir) <= 3 * Config::MIN_SEGMENT.as_u64());
    block_on(spool.commit(&message(301, "new\r\n"))).unwrap();
    let copy = TempDir::new();
    fs::create_dir(copy.path().join("spool")).unwrap();
    for entry in fs::read_dir(dir.path().join("spool")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join("spool").join(path.file_name().unwrap())).unwrap();
    }
    // As after kill -9: the tail of the current segment is an old one's.
    let (again, recovered) = open(&copy);
    assert_eq!((again.ids(), recovered.damage), (vec![id(301)], vec![]));
}

#[test]
fn a_failed_compaction_loses_nothing() {
    let dir = TempDir::new();
    let broken = Arc::new(AtomicBool::new(false));
    let script = {
        let broken = broken.clone();
        Script::new(move |op, _, len| match op {
            Op::Sync if broken.swap(false, Ordering::Relaxed) => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(len),
        })
    };
    let config = Config { compact_after: crate::units::Duration::from_hours(1), ..Config::for_test(dir.path()) };
    let (spool, _) = Spool::open(&config, Disk::with_faults(script)).unwrap();
    for number in 1..=12 {
        block_on(spool.commit(&message(number, "z".repeat(10_000)))).unwrap();
    }
    spool.update(id(1), &deferred(1));
    block_on(spool.commit(&message(13, "sync"))).unwrap();
    let first = lock(&spool.shared.log).segments.keys().next().copied().unwrap();
    broken.store(true, Ordering::Relaxed);
    assert!(spool.shared.compact(first).is_err());
    assert_eq!(body(&spool, 1).len(), 10_000);
    spool.shared.compact(first).unwrap();
    spool.shared.tidy();
    assert!(!lock(&spool.shared.log).segments.contains_key(&first));
    assert_eq!(body(&spool, 1).len(), 10_000);
    drop(spool);
    let (spool, recovered) = open(&dir);
    assert_eq!((spool.ids().len(), recovered.damage), (13, vec![]));
    assert_eq!(spool.stored(id(1)).unwrap().state, deferred(1));
}

#[test]
fn drafts() {
    let dir = TempDir::new();
    let (spool, _) = open(&dir);
    let files = || fs::read_dir(dir.path().join("body")).unwrap().count();
    let mut draft = spool.draft(id(1)).unwrap();
    for _ in 0..100 {
        draft.write(&[b'x'; 1000]).unwrap();
    }
    let mut large = message(1, "");
    let content = draft.finish();
    let mut three = [0; 3];
    assert_eq!((content.len(), content.read_at(99_998, &mut three).unwrap()), (100_000, 2));
    large.letter = Letter::new(Arc::new(crate::mail::HeaderBlock::parse(b"Subject: 1\r\n\r\n").0), content);
    block_on(spool.commit(&large)).unwrap();
    drop(large);
    assert_eq!(body(&spool, 1), vec![b'x'; 100_000]);
    // In memory, but too large for the log; then a draft that nobody commits.
    block_on(spool.commit(&message(2, "y".repeat(50_000)))).unwrap();
    assert_eq!((body(&spool, 2).len(), files()), (50_000, 2));
    let mut draft = spool.draft(id(3)).unwrap();
    draft.write(b"never mind").unwrap();
    assert_eq!(files(), 3);
    drop(draft.finish());
    assert_eq!(files(), 2);
    drop(spool);
    fs::write(dir.path().join("body").join(body::file_name(id(9), 0)), b"orphan").unwrap();
    let (spool, recovered) = open(&dir);
    assert_eq!((recovered.orphans, files()), (1, 2));
    assert_eq!(body(&spool, 1).len(), 100_000);
    spool.remove(id(1));
    block_on(spool.commit(&message(4, "sync"))).unwrap();
    spool.shared.tidy();
    assert_eq!(files(), 1);
    fs::remove_file(fs::read_dir(dir.path().join("body")).unwrap().next().unwrap().unwrap().path()).unwrap();
    assert!(matches!(spool.load(id(2)), Err(LoadError::Damaged(_))));
    drop(spool);
    let (spool, recovered) = open(&dir);
    assert_eq!((spool.ids(), recovered.damage.len()), (vec![id(2), id(4)], 1));
}

#[tokio::test]
async fn a_body_whose_file_cannot_be_synced_is_not_taken() {
    let dir = TempDir::new();
    let script = Script::new(|op, path, len| match op {
        Op::Sync if path.to_string_lossy().contains("/body/") => Err(io::Error::from_raw_os_error(5)),
        _ => Ok(len),
    });
    let spool = open_faulty(&dir, script);
    let err = spool.commit(&message(1, "y".repeat(50_000))).await.unwrap_err();
    assert!(matches!(err, CommitError::Disk(_)));
    assert_eq!(fs::read_dir(dir.path().join("body")).unwrap().count(), 0);
}

#[test]
fn a_body_file_that_is_not_what_was_written_is_never_delivered() {
    let dir = TempDir::new();
    let (spool, _) = open(&dir);
    block_on(spool.commit(&message(1, "y".repeat(50_000)))).unwrap();
    assert_eq!(body(&spool, 1).len(), 50_000);
    let path = fs::read_dir(dir.path().join("body")).unwrap().next().unwrap().unwrap().path();
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_at(b"z", 49_999).unwrap();
    let Err(LoadError::Damaged(what)) = spool.load(id(1)) else { panic!("it is damaged") };
    assert_eq!(what, format!("the body file of message {} is not what was written", id(1)));
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_at(b"y", 49_999).unwrap();
    assert_eq!(body(&spool, 1).len(), 50_000);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_at(b"y", 50_000).unwrap();
    assert!(matches!(spool.load(id(1)), Err(LoadError::Damaged(_))));
}

#[test]
fn a_segment_that_was_emptied_is_told_and_its_bodies_are_kept() {
    let dir = TempDir::new();
    let (spool, _) = open(&dir);
    block_on(spool.commit(&message(1, "y".repeat(50_000)))).unwrap();
    drop(spool);
    let segment = the_segment(&dir);
    let (spool, _) = open(&dir); // begins a second segment
    block_on(spool.commit(&message(2, "later"))).unwrap();
    drop(spool);
    fs::write(&segment, b"").unwrap();
    let (spool, recovered) = open(&dir);
    assert_eq!((spool.ids(), recovered.orphans), (vec![id(2)], 0));
    let [damage] = recovered.damage.as_slice() else { panic!("{:?}", recovered.damage) };
    assert!(damage.file == segment && damage.what.starts_with("the segment is empty"), "{damage:?}");
    drop(spool);
    let kept = |name: &str| dir.path().join("damaged").join(name).is_file();
    assert!(kept("00000001.seg") && kept(&body::file_name(id(1), the_only_body_number(&dir))));
    // The newest one may be one that was being made: no damage, but bodies that nobody names are kept all the same.
    fs::write(the_last_segment(&dir), b"").unwrap();
    fs::write(dir.path().join("body").join(body::file_name(id(9), 0)), b"whose?").unwrap();
    let (_, recovered) = open(&dir);
    assert_eq!((recovered.damage, recovered.orphans), (vec![], 0));
    assert!(kept(&body::file_name(id(9), 0)));
}

fn the_last_segment(dir: &TempDir) -> PathBuf {
    fs::read_dir(dir.path().join("spool")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap()
}

/// The number in the name of the body that was set aside.
fn the_only_body_number(dir: &TempDir) -> u32 {
    let names = fs::read_dir(dir.path().join("damaged")).unwrap().map(|entry| entry.unwrap().file_name());
    let name = names.filter_map(|name| name.into_string().ok()).find(|name| name.starts_with(&id(1).to_string()));
    u32::from_str_radix(name.unwrap().rsplit('.').next().unwrap(), 16).unwrap()
}

#[test]
fn a_spool_that_was_removed_under_the_server_takes_no_mail() {
    for what in ["spool", "spool/00000001.seg"] {
        let dir = TempDir::new();
        let (spool, _) = open(&dir);
        block_on(spool.commit(&message(1, "x"))).unwrap();
        let (there, away) = (dir.path().join(what), dir.path().join("away"));
        fs::rename(&there, &away).unwrap();
        if away.is_file() {
            fs::remove_file(&away).unwrap();
        }
        *lock(&spool.shared.space) = None; // as if a second had passed
        let err = block_on(spool.commit(&message(2, "x"))).unwrap_err();
        assert!(matches!(&err, CommitError::Disk(why) if why.ends_with("is gone")), "{what}: {err}");
        if away.is_dir() {
            fs::rename(&away, &there).unwrap();
            *lock(&spool.shared.space) = None;
            block_on(spool.commit(&message(2, "x"))).unwrap();
        }
    }
}

#[tokio::test]
async fn damage_under_the_running_server_is_noticed() {
    let dir = TempDir::new();
    let (spool, _) = open(&dir);
    spool.commit(&message(1, "sound\r\n")).await.unwrap();
    let place = lock(&spool.shared.log).index.get(&id(1)).unwrap().message;
    let file = fs::OpenOptions::new().write(true).open(the_segment(&dir)).unwrap();
    file.write_at(b"X", u64::from(place.at + place.len - 3)).unwrap();
    assert!(matches!(spool.load(id(1)), Err(LoadError::Damaged(_))));
    assert!(spool.stored(id(1)).is_ok()); // the envelope is sound
    file.write_at(b"XXXX", u64::from(place.at + 40)).unwrap();
    assert!(matches!(spool.stored(id(1)), Err(LoadError::Damaged(_))));
}

#[test]
fn damage_is_found_wherever_the_reading_window_ends() {
    let dir = TempDir::new();
    let config = Config { segment_size: crate::units::ByteSize::from_mib(8), ..Config::for_test(dir.path()) };
    let config = Config { inline_size: crate::units::ByteSize::from_mib(2), ..config };
    let (spool, _) = Spool::open(&config, Disk::default()).unwrap();
    for number in 1..=200 {
        let len = if number == 100 { 1_500_000 } else { 20_000 + usize::try_from(number).unwrap() * 7 };
        block_on(spool.commit(&message(number, vec![b'z'; len]))).unwrap();
    }
    let places: Vec<Place> = (1..=200).map(|n| lock(&spool.shared.log).index.get(&id(n)).unwrap().message).collect();
    drop(spool);
    let path = the_segment(&dir);
    let octets = fs::read(&path).unwrap();
    for victim in (0..200).step_by(33).chain([99]) {
        for at in [0, 12, 200] {
            let mut damaged = octets.clone();
            damaged[places[victim].at as usize + at] ^= 1;
            let (ids, damage) = restart_with(&path, &damaged);
            assert_eq!((ids.len(), damage.len()), (199, 1), "message {victim}, octet {at}");
            assert_eq!(
                (damage[0].offset, damage[0].len),
                (u64::from(places[victim].at), u64::from(places[victim].len))
            );
        }
    }
}

#[test]
fn closing_waits_for_no_sync_that_never_comes() {
    let dir = TempDir::new();
    let (spool, _) = open(&dir);
    // The janitor is in the middle of its work when the spool is closed, and asks for a sync only then.
    lock(&spool.shared.log).closing = true;
    spool.shared.work.notify_all();
    std::thread::sleep(Duration::from_millis(100));
    let (shared, (done, synced)) = (Arc::clone(&spool.shared), std::sync::mpsc::channel());
    let janitor = std::thread::spawn(move || done.send(shared.wait_for_sync().is_ok()));
    assert_eq!(synced.recv_timeout(Duration::from_secs(20)), Ok(true));
    janitor.join().unwrap().unwrap();
}
