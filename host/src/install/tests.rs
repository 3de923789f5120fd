//! The directory of components and the lock file; what is fetched over HTTP is in `tests/install.rs`, with the real binary.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::plugin::Pin;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("wasmta-install-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
    fn store(&self) -> Store {
        Store::new(self.0.join("plugins"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn entry(source: &str, octets: &[u8]) -> Entry {
    Entry {
        source: source.into(),
        digest: Digest::of(octets),
        manifest: None,
        component: "x".into(),
        version: "1.0.0".into(),
        size: octets.len() as u64,
        imports: Vec::new(),
        installed: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn lock(entries: &[(&str, Entry)]) -> Lock {
    let mut lock = Lock::default();
    lock.plugins.extend(entries.iter().map(|(name, entry)| ((*name).to_owned(), entry.clone())));
    lock
}

#[test]
fn a_component_comes_in_whole_or_not_at_all() {
    let folder = Folder::new();
    let store = folder.store();
    let guard = store.guard().unwrap();
    let mut incoming = store.incoming(&guard, 4).unwrap();
    assert!(incoming.push(b"ab").unwrap() && incoming.push(b"cd").unwrap());
    assert!(!incoming.push(b"e").unwrap(), "more than there may be");
    drop(incoming);
    let mut incoming = store.incoming(&guard, 4).unwrap();
    assert!(incoming.push(b"abcd").unwrap());
    let digest = incoming.digest();
    assert!(!store.has(&digest));
    store.keep(&incoming).unwrap();
    drop(incoming);
    assert!(store.has(&digest));
    assert_eq!(std::fs::read(store.file(&digest)).unwrap(), b"abcd");
    std::fs::write(store.file(&digest), "abce").unwrap();
    assert!(!store.has(&digest), "a damaged one is not here");
    store.remove(&guard, &digest).unwrap();
    store.remove(&guard, &digest).unwrap();
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let folder = Folder::new();
    let store = folder.store();
    drop(store.guard().unwrap());
    std::fs::write(store.dir().join(".incoming-4711"), "half").unwrap();
    drop(store.guard().unwrap());
    assert!(!store.dir().join(".incoming-4711").exists());
}

#[test]
fn the_lock_file_there_and_back() {
    let folder = Folder::new();
    let path = Lock::path(&folder.0.join("wasmta.toml"));
    assert_eq!(path, folder.0.join("wasmta.lock"));
    assert_eq!(Lock::read(&path).unwrap(), Lock::default(), "none yet");
    let written = lock(&[
        ("x", entry("oci://h.example/x:1", b"x")),
        ("y", Entry { imports: vec!["kv".into()], ..entry("y.wasm", b"y") }),
    ]);
    written.write(&path).unwrap();
    assert_eq!(Lock::read(&path).unwrap(), written);
    for (text, why) in [
        ("form = 2\n", "form 2"),
        ("form = 1\nextra = 1\n", "extra"),
        ("nonsense", "take it from a backup"),
        ("form = 1\n[plugin.x]\nsource = 'x'\n", "missing field"),
    ] {
        std::fs::write(&path, text).unwrap();
        let err = Lock::read(&path).unwrap_err().to_string();
        assert!(err.contains(why), "{text}: {err}");
    }
    std::fs::write(&path, b"\xff").unwrap();
    assert!(Lock::read(&path).unwrap_err().to_string().contains("UTF-8"));
    assert!(Lock::read(&folder.0).unwrap_err().to_string().contains("regular file"));
}

#[test]
fn what_a_config_means_by_its_source() {
    let folder = Folder::new();
    let store = folder.store();
    drop(store.guard().unwrap());
    let lock = lock(&[("x", entry("oci://h.example/x:1", b"x")), ("gone", entry("oci://h.example/gone:1", b"gone"))]);
    std::fs::write(store.file(&Digest::of(b"x")), "x").unwrap();
    let locate = |name: &str, source: &str| lock.locate(name, Path::new(source), &folder.0, &store);
    for (name, source) in
        [("x", "oci://h.example/x:1"), ("second", "oci://h.example/x:1"), ("x", "installed:x"), ("z", "installed:x")]
    {
        let (file, pin) = locate(name, source).unwrap();
        assert_eq!((file, pin.unwrap().digest), (store.file(&Digest::of(b"x")), Digest::of(b"x")), "{name} {source}");
    }
    assert_eq!(locate("f", "f.wasm").unwrap(), (folder.0.join("f.wasm"), None), "a file that nobody installed");
    for (name, source, why) in [
        (
            "x",
            "oci://h.example/x:2",
            "oci://h.example/x:1 is installed as x, not oci://h.example/x:2; run: wasmta plugin install",
        ),
        (
            "new",
            "oci://h.example/new:2",
            "is not installed; run: wasmta plugin install oci://h.example/new:2 --name new",
        ),
        ("new", "installed:new", "nothing is installed as new; run: wasmta plugin install SOURCE --name new"),
        ("gone", "installed:gone", "run: wasmta plugin install --locked"),
        ("gone", "oci://h.example/gone:1", "run: wasmta plugin install --locked"),
        ("x", "ftp://h.example/x", "ftp://"),
    ] {
        let err = locate(name, source).unwrap_err().to_string();
        assert!(err.contains(why), "{source}: {err}");
    }
}

#[test]
fn a_file_that_was_installed_is_pinned_where_it_lies() {
    let folder = Folder::new();
    let store = folder.store();
    std::fs::write(folder.0.join("f.wasm"), "f").unwrap();
    let lock = lock(&[("f", entry("f.wasm", b"f"))]);
    let (file, pin) = lock.locate("own", &folder.0.join("./f.wasm"), &folder.0, &store).unwrap();
    let Pin { digest, remedy } = pin.unwrap();
    assert_eq!((file, digest), (folder.0.join("./f.wasm"), Digest::of(b"f")));
    assert!(remedy.contains("wasmta plugin install") && remedy.ends_with("--name f"), "{remedy}");
}
