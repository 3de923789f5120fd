//! A wrong config is one clear message with file, line and column.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;

/// A folder of its own for a config, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("wasmta-config-{}-{}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("p.wasm"), b"\0asm").unwrap();
        Self(path)
    }
    fn load(&self, text: &str) -> Result<Loaded, ConfigError> {
        let file = self.0.join("wasmta.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file)
    }
    /// The message without its folder.
    fn fault(&self, text: &str) -> String {
        let folder = format!("{}/", self.0.display());
        self.load(text).expect_err(text).to_string().replace(&folder, "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

const LISTENER: &str = "[[listener]]\nname = \"smtp\"\naddress = \"127.0.0.1:0\"\n";

#[test]
fn faults_of_form() {
    let folder = Folder::new();
    for (text, fault) in [
        ("[server]\nhostnam = \"a.example\"\n", "2:1: unknown key `hostnam`; did you mean `hostname`?"),
        ("[server]\ndata_dir = \"x\"\n", "2:1: unknown key `data_dir`; did you mean `data-dir`?"),
        ("[sever]\n", "1:2: unknown key `sever`; did you mean `server`?"),
        ("[[listener]]\nname = \"a\"\n", "1:1: key `address` is missing in `listener[0]`; add it"),
        ("[plugin.x]\nmode = \"enforce\"\n", "1:1: key `source` is missing in `plugin.x`; add it"),
        ("[server]\nlog-format = \"josn\"\n", "2:14: unknown value `josn`; did you mean `json`?"),
        ("[server]\nworkers = \"two\"\n", "2:11: server.workers: invalid type: string \"two\", expected u32"),
        (
            "[plugin.x]\nsource = \"p.wasm\"\ntimeout = 5\n",
            "3:11: plugin.x.timeout: invalid type: integer `5`, expected a length of time like \"30s\" or \"5m\"",
        ),
        (
            "[plugin.x]\nsource = \"p.wasm\"\nmemory = \"5 apples\"\n",
            "3:10: plugin.x.memory: \"5 apples\" is not a size; write it like \"512 B\", \"64 KiB\", \"50 MiB\" or \"2 GiB\"",
        ),
        (
            "[directory]\ntrusted-networks = [\"127.0.0.0/8\",\n  \"10.0.0.1/8\"]\n",
            "2:20: directory.trusted-networks: `10.0.0.1/8` has bits set beyond its prefix; write `10.0.0.0/8`",
        ),
        (
            "[[listener]]\nname = \"é\"\naddress = \"localhost:25\"\n",
            "3:11: listener[0].address: invalid socket address syntax",
        ),
        (
            "[directory]\nlocal-domains = [\"a b\"]\n",
            "2:17: directory.local-domains: `a b`: malformed domain; write a name like \"example.org\"",
        ),
    ] {
        assert_eq!(folder.fault(text), format!("wasmta.toml:{fault}"), "{text}");
    }
    let syntax = folder.fault("[server\nx = 1\n");
    assert!(syntax.starts_with("wasmta.toml:1:8: ") && !syntax.contains('\n'), "{syntax}");
    let twice = folder.fault("[server]\nworkers = 1\nworkers = 2\n");
    assert!(twice.starts_with("wasmta.toml:3:1: duplicate key"), "{twice}");
    std::fs::write(folder.0.join("wasmta.toml"), b"[server]\n\xff\n").unwrap();
    let err = Config::load(&folder.0.join("wasmta.toml")).unwrap_err().to_string();
    assert!(err.ends_with("wasmta.toml: is not UTF-8 in line 2; name the config file with -c FILE"), "{err}");
    let err = Config::load(&folder.0.join("missing.toml")).unwrap_err().to_string();
    assert!(err.contains("missing.toml: cannot be read: No such file or directory; "), "{err}");
}

#[test]
fn faults_of_sense() {
    let folder = Folder::new();
    let plugin = "[plugin.header-checks]\nsource = \"p.wasm\"\n";
    for (text, fault) in [
        ("", "1:1: listener: there is none, so nobody could send mail; add [[listener]] with"),
        (&format!("{LISTENER}{LISTENER}"), "5:8: listener[1].name: another listener is named `smtp`"),
        (
            &format!("{LISTENER}chain = [\"header-check\"]\n{plugin}"),
            "4:10: listener[0].chain[0]: there is no plugin `header-check`; did you mean `header-checks`?",
        ),
        (
            &format!("{LISTENER}chain = [\"x\"]\n"),
            "4:10: listener[0].chain[0]: there is no plugin `x`; add a table [plugin.x]",
        ),
        (
            &format!("{LISTENER}chain = [\"header-checks\", \"header-checks\"]\n{plugin}"),
            "4:10: listener[0].chain[0]: `header-checks` is in this chain twice",
        ),
        (
            "[[listener]]\nname = \"a\"\naddress = \"[::1]:25\"\n[[listener]]\nname = \"b\"\naddress = \"[::1]:25\"\n",
            "6:11: listener[1].address: another listener has this address",
        ),
        (&format!("{LISTENER}[plugin.x]\nsource = \"q.wasm\"\n"), "5:10: plugin.x.source: there is no file q.wasm; "),
        (
            &format!("{LISTENER}{plugin}grants = [\"files\"]\n"),
            "6:11: plugin.header-checks.grants[0]: `files` cannot be granted",
        ),
        (&format!("{LISTENER}{plugin}timeout = \"0s\"\n"), "6:11: plugin.header-checks.timeout: 0 would"),
        (&format!("{LISTENER}[server]\nlog-level = \"wasmta=loud\"\n"), "5:13: server.log-level: "),
        (&format!("{LISTENER}[server]\nworkers = 0\n"), "5:11: server.workers: write 1 to 1024"),
        (
            &format!("{LISTENER}[directory]\nusers = [\"ann@example.org\"]\n"),
            "5:10: directory.users[0]: `ann@example.org` is no user name",
        ),
        (&format!("{LISTENER}[directory]\nusers-file = \"no\"\n"), "5:14: directory.users-file: no cannot be read: "),
        (
            &format!("{LISTENER}[directory]\nmaildir = \"/mail\"\n"),
            "5:11: directory.maildir: all users would share one Maildir",
        ),
        (&format!("{LISTENER}[directory]\nmaildir = \"/{{home}}/{{user}}\"\n"), "5:11: directory.maildir: only {user}"),
        (&format!("{LISTENER}[queue]\nsegment-size = \"1 KiB\"\n"), "5:16: queue.segment-size: write at least"),
        (
            &format!("{LISTENER}[directory]\nrelay-domains = [\"a.example\"]\n"),
            "5:17: directory.relay-domains: mail for them could not be passed on",
        ),
        (
            &format!("{LISTENER}[directory]\nlocal-domains = [\"a.example\"]\nrelay-domains = [\".example\"]\n"),
            "5:18: directory.local-domains[0]: a.example is among the relay-domains as well",
        ),
        (
            &format!("{LISTENER}{plugin}settings = {{ tables = [{{ file = \"t.pcre\" }}] }}\n"),
            "6:33: plugin.header-checks.settings.tables[0].file: t.pcre cannot be read: No such file or directory; ",
        ),
    ] {
        let told = folder.fault(text);
        assert!(told.starts_with(&format!("wasmta.toml:{fault}")), "{text}\n{told}");
    }
}

#[test]
fn files_in_settings_are_read() {
    let folder = Folder::new();
    std::fs::write(folder.0.join("t.pcre"), "/^Subject: x/ REJECT\n").unwrap();
    let text = format!(
        "{LISTENER}[plugin.x]\nsource = \"p.wasm\"\n[plugin.x.settings]\nn = 1\nday = 2026-01-02\n[[plugin.x.settings.tables]]\nfile = \"t.pcre\"\ntype = \"pcre\"\n"
    );
    let loaded = folder.load(&text).unwrap();
    let settings = &loaded.config.plugins["x"].settings;
    let content = "/^Subject: x/ REJECT\n";
    let expected = serde_json::json!({
        "n": 1, "day": "2026-01-02", "tables": [{"file": "t.pcre", "type": "pcre", "content": content}],
    });
    assert_eq!(*settings, expected);
    assert_eq!(loaded.config.plugins["x"].source, folder.0.join("p.wasm"));
    assert_eq!(loaded.config.directory.maildir, "/var/lib/wasmta/mail/{user}");
    // Tables are older than UTF-8: nothing in them is refused or lost.
    std::fs::write(folder.0.join("t.pcre"), b"/caf\xe9/ DUNNO\n\xff").unwrap();
    let loaded = folder.load(&text).unwrap();
    let table = &loaded.config.plugins["x"].settings["tables"][0];
    assert_eq!((&table["content"], &table["content-octets"]), (&().into(), &"/caf\u{e9}/ DUNNO\n\u{ff}".into()));
    // What a plugin finds wrong is told with the line of the setting.
    let err = loaded.source.error_at(&["plugin", "x", "settings", "tables", "0", "type"], "no such type");
    assert_eq!(err.place(), Some(Place { line: 11, column: 8 }));
    let err = loaded.source.error_at(&["plugin", "x", "settings", "missing"], "needed");
    assert_eq!(err.place().map(|place| place.line), Some(6));
}

#[test]
fn files_in_settings_are_bounded() {
    let folder = Folder::new();
    let text = format!("{LISTENER}[plugin.x]\nsource = \"p.wasm\"\nsettings.file = \"big\"\n");
    let big = std::fs::File::create(folder.0.join("big")).unwrap();
    big.set_len((16 << 20) + 1).unwrap();
    assert!(folder.fault(&text).ends_with("big is larger than 16 MiB; correct the name or the file"));
    std::fs::remove_file(folder.0.join("big")).unwrap();
    std::fs::create_dir(folder.0.join("big")).unwrap();
    assert!(folder.fault(&text).contains("big is not a regular file"));
    let both =
        format!("{LISTENER}[plugin.x]\nsource = \"p.wasm\"\nsettings = {{ file = \"p.wasm\", content = \"\" }}\n");
    assert!(folder.fault(&both).contains("there is `content` beside it"));
    assert!(folder.fault(&both.replace("content", "content-octets")).contains("there is `content-octets` beside it"));
}

#[test]
fn never_a_panic_on_nonsense() {
    const SIGNS: [char; 14] = ['[', ']', '{', '}', '=', '"', '.', ',', '\n', '\\', '#', 'é', '1', 'x'];
    let folder = Folder::new();
    let mut random = fastrand::Rng::with_seed(7);
    let whole =
        format!("{LISTENER}chain = [\"x\"]\n[plugin.x]\nsource = \"p.wasm\"\nsettings = {{ a = [1, {{ b = 2 }}] }}\n");
    for _ in 0..500 {
        let mut text: Vec<char> = whole.chars().collect();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..text.len());
            text[at] = random.choice(SIGNS).unwrap();
        }
        let _ = folder.load(&text.into_iter().collect::<String>());
    }
    let deep = format!("x = {}", "[".repeat(100_000));
    assert!(folder.load(&deep).is_err());
}
