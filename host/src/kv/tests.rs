//! What every store does, and what the one in files does when files are not as they were.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;

const QUOTA: Quota = Quota { octets: 1 << 20, keys: 10_000 };

/// A directory that goes with the test, and a clock that it sets.
struct Place {
    dir: PathBuf,
    now: Arc<AtomicU64>,
}

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("wasmta-kv-{name}-{}-{:x}", std::process::id(), fastrand::u64(..)));
        fs::create_dir_all(&dir).unwrap();
        Self { dir, now: Arc::new(AtomicU64::new(1_000_000)) }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("kv")
    }

    fn clock(&self) -> super::embedded::Clock {
        let now = Arc::clone(&self.now);
        Arc::new(move || now.load(Ordering::SeqCst))
    }

    fn later(&self, time: Duration) {
        self.now.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn open(&self) -> Embedded {
        let config = Config { path: self.path(), ..Config::default() };
        let store = Embedded::with_clock(config, self.clock());
        store.open().unwrap();
        store
    }

    fn memory(&self) -> Memory {
        Memory::with_clock(self.clock())
    }

    /// Names beside the store's directory.
    fn set_aside(&self) -> Vec<String> {
        let names = fs::read_dir(&self.dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "kv").collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn space(name: &str) -> Space {
    Space::new(name, QUOTA)
}

fn put(key: &str, value: &str, ttl: Option<u64>) -> Put {
    Put { key: key.into(), value: value.into(), ttl: ttl.map(Duration::from_secs) }
}

async fn get(store: &dyn Store, space: &Space, key: &str) -> Option<String> {
    store.get(space, key.into()).await.unwrap().map(|value| String::from_utf8(value).unwrap())
}

async fn keys(store: &dyn Store, space: &Space, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let listed = store.list(space, prefix.into(), after.map(str::to_owned), limit).await.unwrap();
    listed.into_iter().map(|listed| listed.key).collect()
}

/// Until `done`, ten seconds at most.
async fn until<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The same for every store.
async fn behaves(store: &dyn Store, place: &Place) {
    let (own, other) = (space("own"), space("ow"));
    store.put(&own, put("k", "v", None)).await.unwrap();
    store.put(&other, put("nk", "w", None)).await.unwrap();
    assert_eq!(get(store, &own, "k").await.as_deref(), Some("v"));
    assert_eq!(get(store, &other, "k").await, None, "a namespace's keys are its own");
    assert_eq!(keys(store, &other, "", None, 10).await, ["nk"]);

    store.put(&own, put("short", "v", Some(10))).await.unwrap();
    place.later(Duration::from_millis(9_999));
    assert_eq!(get(store, &own, "short").await.as_deref(), Some("v"));
    place.later(Duration::from_millis(1));
    assert_eq!(get(store, &own, "short").await, None);
    assert_eq!(keys(store, &own, "", None, 10).await, ["k"]);
    assert!(!store.delete(&own, "short".into()).await.unwrap(), "what has expired is not there to be deleted");

    store.put(&own, put("k", "x", Some(0))).await.unwrap();
    assert_eq!(get(store, &own, "k").await, None, "no time is no value");
    assert!(store.compare_and_swap(&own, None, put("k", "1", None)).await.unwrap());
    assert!(!store.compare_and_swap(&own, None, put("k", "2", None)).await.unwrap());
    assert!(!store.compare_and_swap(&own, Some(b"2".to_vec()), put("k", "3", None)).await.unwrap());
    assert!(store.compare_and_swap(&own, Some(b"1".to_vec()), put("k", "41", None)).await.unwrap());
    assert_eq!(store.incr(&own, "k".into(), 1, None).await, Ok(42));
    assert_eq!(get(store, &own, "k").await.as_deref(), Some("42"));
    store.put(&own, put("word", "w", None)).await.unwrap();
    assert_eq!(store.incr(&own, "word".into(), 1, None).await, Err(Error::NotANumber));
    assert_eq!(store.incr(&own, "k".into(), i64::MAX, None).await, Err(Error::NotANumber));

    // The end is that of the first.
    for (wait, expected) in [(0, 1), (6, 2), (6, 1)] {
        place.later(Duration::from_secs(wait));
        assert_eq!(store.incr(&own, "rate".into(), 1, Some(Duration::from_secs(10))).await, Ok(expected));
    }

    for key in ["", &"k".repeat(MAX_KEY + 1)] {
        assert_eq!(store.put(&own, put(key, "v", None)).await, Err(Error::TooLarge));
        assert_eq!(store.get(&own, key.into()).await, Err(Error::TooLarge));
        assert_eq!(store.incr(&own, key.into(), 1, None).await, Err(Error::TooLarge));
    }
    let large = Put { key: "large".into(), value: vec![b'x'; MAX_VALUE + 1], ttl: None };
    assert_eq!(store.put(&own, large).await, Err(Error::TooLarge));
    lists(store).await;
    quotas(store, place).await;
}

async fn lists(store: &dyn Store) {
    let space = space("listed");
    for n in 0..1500 {
        store.put(&space, put(&format!("b{n:04}"), "v", None)).await.unwrap();
    }
    for key in ["a", "b", "c", "b\u{0}x", "b\u{10ffff}"] {
        store.put(&space, put(key, "value", None)).await.unwrap();
    }
    let mut all = Vec::new();
    loop {
        let page = keys(store, &space, "b", all.last().map(String::as_str), usize::MAX).await;
        assert!(page.len() <= MAX_LISTED);
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    assert_eq!(all.len(), 1503);
    assert!(all.is_sorted());
    assert_eq!((all[0].as_str(), all[1].as_str(), all[1502].as_str()), ("b", "b\u{0}x", "b\u{10ffff}"));
    assert_eq!(keys(store, &space, "b000", Some("b0007"), 5).await, ["b0008", "b0009"]);
    assert_eq!(keys(store, &space, "b", Some("a"), 2).await, ["b", "b\u{0}x"]);
    assert!(keys(store, &space, "b", Some("c"), 5).await.is_empty());
    assert!(keys(store, &space, "", None, 0).await.is_empty());
    assert_eq!(store.delete_prefix(&space, "b".into()).await, Ok(MAX_LISTED));
    assert_eq!(store.delete_prefix(&space, "b".into()).await, Ok(503));
    assert_eq!(store.delete_prefix(&space, "b".into()).await, Ok(0));
    assert_eq!(keys(store, &space, "", None, 9).await, ["a", "c"]);
}

async fn quotas(store: &dyn Store, place: &Place) {
    let small = Space::new("small", Quota { octets: 20, keys: 2 });
    store.put(&small, put("1", "123456789", None)).await.unwrap();
    store.put(&small, put("2", "123456789", Some(5))).await.unwrap();
    assert_eq!(store.put(&small, put("3", "", None)).await, Err(Error::Quota));
    assert_eq!(store.put(&small, put("1", "1234567890", None)).await, Err(Error::Quota));
    assert_eq!(get(store, &small, "1").await.as_deref(), Some("123456789"), "what was refused changed nothing");
    assert_eq!(store.incr(&small, "n".into(), 1, None).await, Err(Error::Quota));
    let puts = vec![(small.clone(), put("3", "", None)), (space("else"), put("k", "v", None))];
    assert_eq!(store.put_all(puts).await, Err(Error::Quota));
    assert_eq!(get(store, &space("else"), "k").await.as_deref(), Some("v"), "one that fails stops no other");
    place.later(Duration::from_secs(5));
    store.put(&small, put("2", "987654321", None)).await.unwrap();
    store.delete(&small, "1".into()).await.unwrap();
    store.put(&small, put("3", "", None)).await.unwrap();
    let stats = store.stats().await.unwrap();
    let held = stats.spaces.iter().find(|space| space.name == "small").unwrap();
    assert_eq!((held.octets, held.keys), (11, 2));
}

#[tokio::test]
async fn in_memory() {
    let place = Place::new("memory");
    behaves(&place.memory(), &place).await;
}

#[tokio::test]
async fn in_files() {
    let place = Place::new("files");
    behaves(&place.open(), &place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_adds_counts() {
    let place = Place::new("adds");
    let store = Arc::new(place.open());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8_u32 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let space = space("own");
            for _ in 0..200 {
                store.incr(&space, "n".into(), 1, None).await.unwrap();
                let key = format!("swap{}", n % 2);
                loop {
                    let old = store.get(&space, key.clone()).await.unwrap();
                    let value: u32 = old.as_ref().map_or(0, |old| std::str::from_utf8(old).unwrap().parse().unwrap());
                    let new = put(&key, &(value + 1).to_string(), None);
                    if store.compare_and_swap(&space, old, new).await.unwrap() {
                        break;
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    let space = space("own");
    for (key, sum) in [("n", "1600"), ("swap0", "800"), ("swap1", "800")] {
        assert_eq!(get(&*store, &space, key).await.as_deref(), Some(sum));
    }
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart() {
    let place = Place::new("restart");
    let own = space("own");
    let store = place.open();
    for n in 0..300 {
        store.put(&own, put(&format!("k{n}"), "value", (n % 3 == 0).then_some(100))).await.unwrap();
    }
    store.delete(&own, "k1".into()).await.unwrap();
    drop(store);
    place.later(Duration::from_secs(100));
    let store = place.open();
    assert_eq!(get(&store, &own, "k2").await.as_deref(), Some("value"));
    assert_eq!((get(&store, &own, "k1").await, get(&store, &own, "k3").await), (None, None));
    // What has expired is removed and no longer counted.
    until("swept", || async {
        let stats = store.stats().await.unwrap();
        stats.counted && stats.spaces[0].keys == 199
    })
    .await;
    let octets = (0..300).filter(|n| n % 3 != 0 && *n != 1).map(|n| format!("k{n}").len() as u64 + 5).sum::<u64>();
    assert_eq!(store.stats().await.unwrap().spaces[0].octets, octets);
    drop(store);
    let store = place.open();
    until("counted", || async { store.stats().await.unwrap().counted }).await;
    assert_eq!(store.stats().await.unwrap().spaces[0], SpaceUsage { name: "own".into(), octets, keys: 199 });
    assert!(place.set_aside().is_empty());
}

#[tokio::test]
async fn an_end_that_was_moved_is_the_end() {
    let place = Place::new("moved");
    let store = place.open();
    let own = space("own");
    for (key, first, second) in
        [("longer", Some(1), Some(100)), ("for-ever", Some(1), None), ("shorter", None, Some(1))]
    {
        store.put(&own, put(key, "v", first)).await.unwrap();
        store.put(&own, put(key, "v", second)).await.unwrap();
    }
    place.later(Duration::from_secs(50));
    until("swept", || async { store.stats().await.unwrap().spaces[0].keys == 2 }).await;
    assert_eq!(keys(&store, &own, "", None, 9).await, ["for-ever", "longer"]);
    place.later(Duration::from_secs(50));
    until("swept", || async { store.stats().await.unwrap().spaces[0].keys == 1 }).await;
}

#[tokio::test]
async fn a_damaged_store_is_set_aside() {
    for (name, damage) in [
        ("version", (|path: &Path| fs::write(path.join("version"), b"nonsense").unwrap()) as fn(&Path)),
        ("manifest", |path| fs::write(path.join("keyspaces/1/current"), [0xff; 40]).unwrap()),
        ("journal", |path| {
            let journal = path.join("0.jnl");
            let mut octets = fs::read(&journal).unwrap();
            let value = octets.windows(8).position(|octets| octets == b"damaged!").unwrap();
            octets[value] ^= 1;
            fs::write(&journal, octets).unwrap();
        }),
    ] {
        let place = Place::new(name);
        let store = place.open();
        store.put(&space("own"), put("k", "damaged!", None)).await.unwrap();
        drop(store);
        damage(&place.path());
        let store = place.open();
        assert_eq!(get(&store, &space("own"), "k").await, None, "{name}");
        store.put(&space("own"), put("k", "w", None)).await.unwrap();
        let aside = place.set_aside();
        assert!(matches!(aside.as_slice(), [one] if one.starts_with("kv.damaged-")), "{name}: {aside:?}");
        drop(store);
        assert_eq!(get(&place.open(), &space("own"), "k").await.as_deref(), Some("w"), "{name}");
        assert_eq!(place.set_aside().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn damage_that_is_found_later_is_set_aside_then() {
    let place = Place::new("later");
    let own = Space::new("own", Quota { octets: 1 << 30, keys: 1 << 20 });
    let store = place.open();
    for n in 0..400_u32 {
        let value = std::iter::repeat_with(|| fastrand::u8(..)).take(60_000).collect();
        store.put(&own, Put { key: format!("{n:03}"), value, ttl: None }).await.unwrap();
    }
    let tables = || fs::read_dir(place.path().join("keyspaces/1/tables")).unwrap().map(|file| file.unwrap().path());
    until("a table", || async { tables().next().is_some() }).await;
    drop(store);
    for table in tables() {
        let file = fs::OpenOptions::new().write(true).open(table).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xaa; 3000], 100_000).unwrap();
    }
    let store = place.open();
    until("set aside", || async { place.set_aside().len() == 1 }).await;
    until("open again", || async { store.put(&own, put("k", "v", None)).await.is_ok() }).await;
    assert_eq!(keys(&store, &own, "", None, 9).await, ["k"]);
    assert_eq!(store.stats().await.unwrap().spaces[0].keys, 1);
    assert!(store.stats().await.unwrap().failures > 0);
}

#[tokio::test]
async fn a_torn_journal_loses_its_end_alone() {
    let place = Place::new("torn");
    let store = place.open();
    for n in 0..100 {
        store.put(&space("own"), put(&format!("k{n}"), "value", None)).await.unwrap();
    }
    drop(store);
    let journal = place.path().join("0.jnl");
    let octets = fs::read(&journal).unwrap();
    let end = octets.iter().rposition(|octet| *octet != 0).unwrap();
    fs::write(&journal, &octets[..end - 3]).unwrap();
    let store = place.open();
    assert_eq!(get(&store, &space("own"), "k98").await.as_deref(), Some("value"));
    assert_eq!(get(&store, &space("own"), "k99").await, None);
    assert!(place.set_aside().is_empty());
}

#[tokio::test]
async fn two_processes_do_not_share_one() {
    let place = Place::new("shared");
    let _store = place.open();
    let other = Embedded::new(Config { path: place.path(), ..Config::default() });
    let err = other.open().unwrap_err();
    assert!(err.0.contains("another process has it open"), "{err}");
    assert!(place.set_aside().is_empty());
    let err = other.get(&space("own"), "k".into()).await.unwrap_err();
    assert_eq!(err, Error::Failed("the store is not open: no policy is granted kv".into()));
}
