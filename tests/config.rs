//! A wrong config is one clear line with file, place and what to do, exit code 78, and nothing is half started.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::support::{Setup, wasmta};

/// EX_CONFIG of sysexits(3).
const CONFIG: i32 = 78;

/// Runs `check` and `serve` on a config that is wrong, and returns what both said.
#[track_caller]
fn refused(setup: &Setup) -> String {
    let config = setup.write();
    let checked = said(&config, "check");
    let said = said(&config, "serve");
    // Who never ends runs into the limit of processor time or into that of time, whichever is noticed first.
    let spent = |said: &str| said.replace("it took longer than configure-timeout, 1s", "its processor time is spent");
    assert_eq!(spent(&said), spent(&checked));
    assert!(!setup.folder().join("data/control").exists(), "nothing is half started");
    said
}

#[track_caller]
fn said(config: &Path, command: &str) -> String {
    let output = wasmta(config, &[command]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(CONFIG), "{stderr}");
    let told: Vec<&str> = stderr.lines().filter(|line| line.starts_with("wasmta: ")).collect();
    assert_eq!(told.len(), 1, "one line: {stderr}");
    told[0].to_owned()
}

/// `FILE:LINE:` of the first line in the config that holds this text.
fn place(setup: &Setup, text: &str) -> String {
    let config = setup.folder().join("wasmta.toml");
    let content = std::fs::read_to_string(&config).unwrap();
    let line = content.lines().position(|line| line.contains(text)).unwrap() + 1;
    format!("{}:{line}:", config.display())
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (setup, line, told) in [
        (Setup::new().server("hots-name = \"x\""), "hots-name", "did you mean `hostname`?"),
        (Setup::new().server("workers = \"many\""), "workers", "expected u32"),
        (Setup::new().tables("[plugin.x]\nsource = \"missing.wasm\"\n"), "missing.wasm", "missing.wasm"),
        (Setup::new().file("no.wasm", "no").tables("[plugin.x]\nsource = \"no.wasm\"\n"), "no.wasm", "component"),
        (Setup::new().directory("users-file = \"nobody\""), "users-file", "nobody"),
        (Setup::new().listener("name = \"again\""), "name = \"again\"", "duplicate key"),
    ] {
        let said = refused(&setup);
        assert!(said.contains(&place(&setup, line)), "{said}");
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn a_file_where_a_directory_belongs_is_told() {
    for (lines, key) in [("data", "server.data-dir"), ("data/queue", "queue.path")] {
        let setup = Setup::new();
        std::fs::create_dir_all(setup.folder().join(lines).parent().unwrap()).unwrap();
        std::fs::write(setup.folder().join(lines), "").unwrap();
        let said = refused(&setup);
        assert!(said.contains(key) && said.contains("is no directory"), "{said}");
    }
}

#[test]
fn a_missing_config_is_told() {
    let said = said(Path::new("/nowhere/wasmta.toml"), "serve");
    assert!(said.contains("/nowhere/wasmta.toml") && said.contains("-c FILE"), "{said}");
}

#[test]
fn settings_that_the_policy_refuses_are_told_in_its_words() {
    let setup = Setup::new().plugin("zoo", "guest-zoo", "settings = { how = \"configure-refuse\" }");
    let said = refused(&setup);
    assert!(said.contains(&place(&setup, "how =")) && said.contains("I take nothing"), "{said}");
}

#[test]
fn a_policy_that_cannot_be_configured_is_refused() {
    for how in ["configure-trap", "configure-spin"] {
        let lines = format!("configure-timeout = \"1s\"\nsettings = {{ how = {how:?} }}");
        let setup = Setup::new().plugin("zoo", "guest-zoo", &lines);
        let said = refused(&setup);
        assert!(said.contains(&place(&setup, "guest-zoo.wasm")), "{how}: {said}");
    }
}

#[test]
fn a_policy_that_wants_more_than_it_is_granted_is_refused() {
    let setup = Setup::new().plugin("kv", "guest-ungranted", "");
    let said = refused(&setup);
    assert!(said.contains("grants") && said.contains("kv"), "{said}");
}
#[test]
fn a_port_in_use_is_told() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let setup = Setup::new().port(taken.local_addr().unwrap().port());
    let said = said(&setup.write(), "serve"); // `check` opens no ports
    assert!(said.contains(&place(&setup, "address =")) && said.contains("in use"), "{said}");
    assert!(!setup.folder().join("data").exists(), "nothing is half started");
}
