//! `wasmta plugin install`: from files, from Debian's registry, from servers that mean no good; and what the lock file is for.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::web::{Artifact, Registry, Web, answer, digest, variant};
use crate::support::{Folder, Mta, Peer, binary, component_file, free_port, shared_cache, skip, wasmta};

/// A site with a config to which sources are added.
struct Site {
    folder: Folder,
    port: u16,
}

impl Site {
    fn new() -> Self {
        let site = Self { folder: Folder::new(), port: free_port() };
        site.config("");
        site
    }

    /// The config with one policy more.
    fn config(&self, plugin: &str) -> PathBuf {
        let chain = if plugin.is_empty() { "" } else { "\"words\"" };
        let text = format!(
            "[server]\nhostname = \"mx.example.test\"\ndata-dir = \"data\"\n[[listener]]\nname = \"smtp\"\n\
             address = \"127.0.0.1:{}\"\nchain = [{chain}]\n[runtime]\ncache-dir = {:?}\n[directory]\nlocal-domains = [\"example.test\"]\nusers = [\"ann\"]\n{plugin}",
            self.port,
            shared_cache()
        );
        self.folder.write("wasmta.toml", text)
    }

    fn uses(&self, source: &str) -> PathBuf {
        self.config(&format!("[plugin.words]\nsource = {source:?}\nsettings = {{ words = [\"lottery\"] }}\n"))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        wasmta(&self.folder.path().join("wasmta.toml"), arguments)
    }

    #[track_caller]
    fn install(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["plugin", "install"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// What it says on standard error; nothing may have been left behind or changed.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let before = self.lock();
        let output = self.run(&[&["plugin", "install"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(self.lock(), before, "the lock file is as it was");
        let left = std::fs::read_dir(self.folder.path().join("data/plugins")).into_iter().flatten();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains("incoming")), "{left:?}");
        text
    }

    fn lock(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("wasmta.lock")).unwrap_or_default()
    }

    fn installed(&self, component: &[u8]) -> PathBuf {
        let name = digest(component).replace("sha256:", "") + ".wasm";
        self.folder.path().join("data/plugins").join(name)
    }

    #[track_caller]
    fn check(&self, expected: &str) {
        let output = self.run(&["check"]);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(expected), "{text}");
    }
}

fn words() -> PathBuf {
    component_file("subject-words")
}

#[test]
fn a_file_is_installed_pinned_and_used() {
    let site = Site::new();
    let file = words();
    let text = site.install(&[file.to_str().unwrap(), "--name", "words"]);
    for line in ["subject-words ", "needs no grants", "    [plugin.words]\n    source = \"installed:words\"\n"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(site.installed(&std::fs::read(&file).unwrap()).is_file());
    let config = site.uses("installed:words");
    site.check("policies: 1");
    assert!(site.install(&[file.to_str().unwrap(), "--name", "words"]).contains("installed already"));
    let mta = Mta::start(Folder::new(), config, site.port);
    let mut peer = Peer::hello(mta.port);
    let reply = peer.deliver("a@example.org", &["ann@example.test"], "Subject: lottery\r\n\r\nx\r\n");
    assert_eq!(reply, "550 5.7.1 we have no interest in lottery");
}

#[test]
fn a_component_that_changed_is_refused_at_load() {
    let site = Site::new();
    let own = site.folder.write("words.wasm", std::fs::read(words()).unwrap());
    site.install(&[own.to_str().unwrap(), "--name", "words"]);
    assert!(site.lock().contains("source = \"words.wasm\""), "{}", site.lock());
    let installed = site.installed(&std::fs::read(&own).unwrap());
    for (source, file, remedy) in
        [("installed:words", &installed, "plugin install --locked"), ("words.wasm", &own, "words.wasm --name words")]
    {
        site.uses(source);
        site.check("policies: 1");
        let sound = std::fs::read(file).unwrap();
        let changed = variant(file, b'x');
        std::fs::write(file, &changed).unwrap();
        for command in ["check", "serve"] {
            let output = site.run(&[command]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{text}");
            assert!(text.contains(&digest(&changed)) && text.contains(&digest(&sound)), "{text}");
            assert!(text.contains("wasmta.toml:") && text.contains(remedy), "{text}");
        }
        std::fs::write(file, sound).unwrap();
        site.check("policies: 1");
    }
}

#[test]
fn what_is_not_installed_is_told_with_the_command() {
    let site = Site::new();
    site.uses("oci://127.0.0.1:1/words:1");
    let run = "run: wasmta plugin install oci://127.0.0.1:1/words:1 --name words";
    site.check(run);
    let output = site.run(&["serve"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains(run));
}

#[test]
fn the_lock_file_on_another_machine() {
    let site = Site::new();
    let component = std::fs::read(words()).unwrap();
    let own = component.clone();
    let web = Web::start(move |_, _, stream| answer(stream, "200 OK", "", &own));
    let url = format!("http://127.0.0.1:{}/words.wasm", web.port);
    site.install(&[&url, "--name", "words"]);
    site.uses(&url);
    site.check("policies: 1");
    std::fs::remove_dir_all(site.folder.path().join("data")).unwrap();
    site.check("run: wasmta plugin install --locked");
    assert!(site.install(&["--locked"]).contains("fetched words"));
    site.check("policies: 1");
    assert!(site.install(&["--locked"]).contains("is here"));
    // Damage is repaired as well.
    std::fs::write(site.installed(&component), "damaged").unwrap();
    assert!(site.install(&["--locked"]).contains("fetched words"));
    site.check("policies: 1");
}

#[test]
fn removed_unless_it_is_used() {
    let site = Site::new();
    site.install(&[words().to_str().unwrap(), "--name", "words"]);
    site.uses("installed:words");
    let output = site.run(&["plugin", "remove", "words"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("[plugin.words]"));
    site.config("");
    assert!(site.run(&["plugin", "remove", "words"]).status.success());
    assert!(!site.installed(&std::fs::read(words()).unwrap()).exists());
    assert!(!site.run(&["plugin", "remove", "words"]).status.success());
}

#[test]
fn new_imports_and_other_components_need_a_yes() {
    let site = Site::new();
    site.install(&[words().to_str().unwrap(), "--name", "x"]);
    let greedy = component_file("guest-ungranted");
    let output = site.run(&["plugin", "install", greedy.to_str().unwrap(), "--name", "x"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(65), "{text}");
    assert!(text.contains("x newly asks for: kv") && text.contains("x is subject-words now"), "{text}");
    assert!(site.lock().contains("subject-words"), "nothing has changed");
    let text = site.install(&[greedy.to_str().unwrap(), "--name", "x", "--yes"]);
    assert!(text.contains("grants = [\"kv\"]"), "{text}");
    assert!(!site.installed(&std::fs::read(words()).unwrap()).exists(), "nobody stands for the old one");
}

#[test]
fn from_a_registry_by_tag_and_by_digest_and_a_moved_tag() {
    let Some(registry) = Registry::start(None, None) else {
        return skip(
            "install::from_a_registry_by_tag_and_by_digest_and_a_moved_tag",
            "docker-registry is not installed",
        );
    };
    let site = Site::new();
    let host = format!("oci://127.0.0.1:{}/filters/words", registry.port);
    let first = Artifact::new(std::fs::read(words()).unwrap(), "application/wasm");
    let by_digest = registry.push("filters/words", "1", &first);
    let tagged = format!("{host}:1");
    let text = site.install(&[&tagged, "--name", "words"]);
    assert!(text.contains(&digest(&first.component)) && text.contains(&format!("source = {tagged:?}")), "{text}");
    assert!(site.lock().contains(&by_digest), "the manifest is noted as well: {}", site.lock());
    site.uses(&tagged);
    site.check("policies: 1");

    // The tag moves.
    let second = Artifact::new(variant(&words(), b'2'), "application/wasm");
    registry.push("filters/words", "1", &second);
    let output = site.run(&["plugin", "install", &tagged, "--name", "words"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(65), "{text}");
    assert!(text.contains(&format!("{tagged} has moved: it was {}", digest(&first.component))), "{text}");
    assert!(text.contains(&digest(&second.component)), "{text}");
    // What the lock file says is still to be had, by its digest, on a machine that has nothing.
    std::fs::remove_dir_all(site.folder.path().join("data")).unwrap();
    site.install(&["--locked"]);
    assert!(site.installed(&first.component).is_file());
    site.install(&[&tagged, "--name", "words", "--yes"]);
    assert!(site.installed(&second.component).is_file() && !site.installed(&first.component).exists());
    site.check("policies: 1");

    // By digest it is the first one for ever.
    let exact = format!("{host}@{by_digest}");
    site.install(&[&exact, "--name", "exact"]);
    assert!(site.installed(&first.component).is_file());

    // Another version under the same name: the config is behind, and both say so.
    registry.push("filters/words", "2", &first);
    let text = site.install(&[&format!("{host}:2"), "--name", "words"]);
    assert!(text.contains("has another source for it"), "{text}");
    site.check(":2 is installed as words, not");
    site.uses(&format!("{host}:2"));
    site.check("policies: 1");

    let text = site.refused(&[&format!("{host}:none")]);
    assert!(text.contains("404"), "{text}");
    registry.push("filters/words", "tar", &Artifact::new(b"x".to_vec(), "application/vnd.oci.image.layer.v1.tar+gzip"));
    let text = site.refused(&[&format!("{host}:tar")]);
    assert!(text.contains("tar+gzip") && text.contains("application/wasm"), "{text}");
    registry.push("filters/words", "text", &Artifact::new(b"no component".to_vec(), "application/wasm"));
    let text = site.refused(&[&format!("{host}:text")]);
    assert!(text.contains("no WebAssembly component") && text.contains(":text"), "{text}");
}

#[test]
fn a_registry_that_wants_a_login() {
    // crypt_blowfish's own test vector: the password is `U*U`.
    let users = "ann:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";
    let Some(registry) = Registry::start(Some(users), Some("Basic YW5uOlUqVQ==")) else {
        return skip("install::a_registry_that_wants_a_login", "docker-registry is not installed");
    };
    let site = Site::new();
    let host = format!("127.0.0.1:{}", registry.port);
    registry.push("words", "1", &Artifact::new(std::fs::read(words()).unwrap(), "application/wasm"));
    let source = format!("oci://{host}/words:1");
    let text = site.refused(&[&source]);
    assert!(text.contains("401") && text.contains("docker login"), "{text}");
    let login = site.folder.write("config.json", format!(r#"{{"auths": {{"{host}": {{"auth": "YW5uOlUqVQ=="}}}}}}"#));
    let mut command = std::process::Command::new(binary());
    command.args(["plugin", "install", &source, "-c"]).arg(site.folder.path().join("wasmta.toml"));
    let output = command.env("DOCKER_CONFIG", login.parent().unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!site.lock().contains("YW5u"), "secrets stay where they are");
}

#[test]
fn a_registry_that_hands_out_tokens() {
    let artifact = Artifact::new(std::fs::read(words()).unwrap(), "application/vnd.wasm.content.layer.v1+wasm");
    let web = Web::start(move |path, head, stream| {
        let port = stream.local_addr().unwrap().port();
        if path.starts_with("/token?scope=repository%3Awords%3Apull&service=here") {
            return answer(stream, "200 OK", "", br#"{"access_token": "abc"}"#);
        }
        if !head.to_lowercase().contains("authorization: bearer abc\r\n") {
            let challenge =
                format!("WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"here\"\r\n");
            return answer(stream, "401 Unauthorized", &challenge, b"");
        }
        match path {
            "/v2/words/manifests/1" => answer(stream, "200 OK", "", artifact.manifest.as_bytes()),
            // To where the octets are, as large registries do it.
            path if path.starts_with("/v2/words/blobs/") => {
                answer(stream, "307 Temporary Redirect", "Location: /elsewhere\r\n", b"")
            }
            "/elsewhere" => answer(stream, "200 OK", "", &artifact.component),
            _ => answer(stream, "404 Not Found", "", b""),
        }
    });
    let site = Site::new();
    site.install(&[&format!("oci://127.0.0.1:{}/words:1", web.port), "--name", "words"]);
}

/// Serves a sound artifact, but for what `twist` does.
fn twisted(twist: impl Fn(&str, &Artifact, &mut std::net::TcpStream) -> bool + Send + Sync + 'static) -> Web {
    let artifact = Artifact::new(std::fs::read(words()).unwrap(), "application/wasm");
    Web::start(move |path, _, stream| {
        if twist(path, &artifact, stream) {
            return;
        }
        match path {
            path if path.contains("/manifests/") => answer(stream, "200 OK", "", artifact.manifest.as_bytes()),
            path if path.contains("/blobs/") => answer(stream, "200 OK", "", &artifact.component),
            _ => answer(stream, "404 Not Found", "", b""),
        }
    })
}

fn endless(stream: &mut std::net::TcpStream) -> bool {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    let octets = [b'a'; 64 * 1024];
    while stream.write_all(&octets).is_ok() {}
    true
}

type Twist = Box<dyn Fn(&str, &Artifact, &mut std::net::TcpStream) -> bool + Send + Sync>;

/// How a registry misbehaves, what is asked of it, and what the operator reads.
fn misdeeds() -> Vec<(&'static str, Twist, &'static str)> {
    fn twist(f: impl Fn(&str, &Artifact, &mut std::net::TcpStream) -> bool + Send + Sync + 'static) -> Twist {
        Box::new(f)
    }
    vec![
        (
            "an endless manifest",
            twist(|path, _, stream| path.contains("/manifests/") && endless(stream)),
            "a manifest may have",
        ),
        (
            "an endless component",
            twist(|path, _, stream| path.contains("/blobs/") && endless(stream)),
            "the component may have",
        ),
        (
            "a component said to be huge",
            twist(|path, _, stream| {
                path.contains("/blobs/")
                    && stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").is_ok()
            }),
            "the component may have",
        ),
        (
            "another component",
            twist(|path, artifact, stream| {
                let mut octets = artifact.component.clone();
                octets.extend_from_slice(&[0, 2, 1, b'x']);
                let ours = path.contains("/blobs/");
                if ours {
                    answer(stream, "200 OK", "", &octets);
                }
                ours
            }),
            "something else than it was asked for",
        ),
        (
            "half a component",
            twist(|path, artifact, stream| {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", artifact.component.len());
                let half = &artifact.component[..artifact.component.len() / 2];
                path.contains("/blobs/")
                    && stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(half)).is_ok()
            }),
            "broke off",
        ),
        (
            "half a component without a length",
            twist(|path, artifact, stream| {
                let half = &artifact.component[..artifact.component.len() / 2];
                let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                path.contains("/blobs/") && stream.write_all(head).and_then(|()| stream.write_all(half)).is_ok()
            }),
            "something else than it was asked for",
        ),
        (
            "a manifest that contradicts its digest",
            twist(|path, artifact, stream| {
                let ours = path.contains("/manifests/");
                if ours {
                    let header = format!("Docker-Content-Digest: {}\r\n", digest(b"x"));
                    answer(stream, "200 OK", &header, artifact.manifest.as_bytes());
                }
                ours
            }),
            "the manifest has",
        ),
        (
            "a redirection that never ends",
            twist(|_, _, stream| {
                answer(stream, "302 Found", "Location: /again\r\n", b"");
                true
            }),
            "redirections",
        ),
        (
            "a redirection to another machine in the clear",
            twist(|path, _, stream| {
                let ours = path.contains("/blobs/");
                if ours {
                    answer(stream, "302 Found", "Location: http://192.0.2.1/x\r\n", b"");
                }
                ours
            }),
            "not protected by TLS",
        ),
        (
            "a redirection to a file",
            twist(|path, _, stream| {
                let ours = path.contains("/blobs/");
                if ours {
                    answer(stream, "302 Found", "Location: file:///etc/passwd\r\n", b"");
                }
                ours
            }),
            "",
        ),
        (
            "an index",
            twist(|_, _, stream| {
                let index =
                    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
                answer(stream, "200 OK", "", index.as_bytes());
                true
            }),
            "is an index",
        ),
        (
            "words for the terminal",
            twist(|_, _, stream| {
                let manifest = "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"x\",\"digest\":\"x\",\"size\":1},\
                    \"layers\":[{\"mediaType\":\"\\u001b[31mred\",\"digest\":\"x\",\"size\":1}]}";
                answer(stream, "200 OK", "", manifest.as_bytes());
                true
            }),
            "red",
        ),
        (
            "a token service that goes on and on",
            twist(|path, _, stream| {
                if path.starts_with("/token") {
                    return endless(stream);
                }
                let port = stream.local_addr().unwrap().port();
                let challenge = format!("WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\"\r\n");
                answer(stream, "401 Unauthorized", &challenge, b"");
                true
            }),
            "a token may have",
        ),
        (
            "a token service of another machine in the clear",
            twist(|_, _, stream| {
                answer(
                    stream,
                    "401 Unauthorized",
                    "WWW-Authenticate: Bearer realm=\"http://192.0.2.1/token\"\r\n",
                    b"",
                );
                true
            }),
            "without TLS",
        ),
        ("no HTTP", twist(|_, _, stream| stream.write_all(b"220 mx.example ESMTP\r\n").is_ok()), "127.0.0.1"),
    ]
}

#[test]
fn registries_that_mean_no_good() {
    let site = Site::new();
    for (what, twist, told) in misdeeds() {
        let web = twisted(twist);
        let start = Instant::now();
        let text = site.refused(&[&format!("oci://127.0.0.1:{}/words:1", web.port), "--timeout", "30s"]);
        assert!(text.starts_with("wasmta: ") && text.lines().count() == 1 && text.contains(told), "{what}: {text}");
        assert!(!text.contains('\u{1b}'), "{what}: {text:?}");
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: {:?}", start.elapsed());
    }
}

#[test]
fn a_server_that_takes_its_time() {
    let site = Site::new();
    let web = Web::start(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        while stream.write_all(b"a").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let start = Instant::now();
    let text = site.refused(&[&format!("http://127.0.0.1:{}/x.wasm", web.port), "--timeout", "1s"]);
    assert!(text.contains("within 1s") && text.contains("--timeout"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_url_whose_digest_is_known() {
    let site = Site::new();
    let component = std::fs::read(words()).unwrap();
    let (known, other) = (digest(&component), digest(b"x"));
    let web = Web::start(move |_, _, stream| answer(stream, "200 OK", "", &component));
    let url = format!("http://127.0.0.1:{}/words.wasm", web.port);
    let text = site.refused(&[&url, "--digest", &other]);
    assert!(text.contains(&known) && text.contains(&other), "{text}");
    site.install(&[&url, "--digest", &known]);
    for (source, told) in [
        ("http://192.0.2.1/x.wasm", "--plain-http"),
        ("ftp://192.0.2.1/x.wasm", "ftp://"),
        ("/no/such/file.wasm", "/no/such/file.wasm"),
        ("/dev/zero", "no regular file"),
        ("oci://words:1", "no host"),
    ] {
        let text = site.refused(&[source]);
        assert!(text.contains(told), "{source}: {text}");
    }
}

#[test]
fn two_at_once() {
    let site = Site::new();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let site = &site;
            scope.spawn(move || site.install(&[words().to_str().unwrap(), "--name", name]));
        }
    });
    for name in ["a", "b", "c"] {
        assert!(site.lock().contains(&format!("[plugin.{name}]")), "{}", site.lock());
    }
}

#[test]
fn inspect_shows_what_there_is_to_know() {
    let show = |file: &Path, arguments: &[&str]| {
        let arguments = [&["plugin", "inspect", file.to_str().unwrap()], arguments].concat();
        let output = wasmta(Path::new("none.toml"), &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let file = words();
    let text = show(&file, &[]);
    let octets = std::fs::read(&file).unwrap();
    for part in [
        "subject-words ",
        &digest(&octets),
        &format!("{} octets", octets.len()),
        "hooks: message",
        "words: list of text",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&show(&component_file("guest-ungranted"), &["--json"])).unwrap();
    assert_eq!(json["grants"], serde_json::json!(["kv"]));
    assert!(json["digest"].as_str().unwrap().starts_with("sha256:"));
}
