//! `docs/wasmta.example.toml` has every key, and what stands there is the default.
#![allow(clippy::unwrap_used)]

use super::*;

const EXAMPLE: &str = include_str!("../../../docs/wasmta.example.toml");
/// Every table of a config.
const TABLES: [&str; 13] = [
    "[server]",
    "[[listener]]",
    "[smtp]",
    "[queue]",
    "[delivery]",
    "[delivery.smtp]",
    "[directory]",
    "[resolver]",
    "[runtime]",
    "[kv]",
    "[score]",
    "[plugin.example]",
    "[plugin.example.endpoints.scanner]",
];

fn parse(text: &str) -> Result<Config, ConfigError> {
    Source::new("wasmta.example.toml", text).parse()
}

/// The example with what stands behind a `#` without a space.
fn uncommented() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
        _ => line,
    };
    EXAMPLE.lines().map(|text| line(text).to_owned() + "\n").collect()
}

#[test]
fn what_it_says_is_the_default() {
    let minimal = "[[listener]]\nname = \"smtp\"\naddress = \"[::]:25\"\n";
    assert_eq!(parse(EXAMPLE).unwrap(), parse(minimal).unwrap());
    let mut config = parse(&uncommented()).unwrap();
    let mut example = config.plugins.remove("example").unwrap();
    let mut scanner = example.endpoints.remove("scanner").unwrap();
    assert_eq!(example, plugin::Config::new("example.wasm"));
    (scanner.server_name, scanner.ca_file) = (None, None); // those have none
    assert_eq!(scanner, net::EndpointConfig::new(scanner.address.clone()));
}

#[test]
fn every_key_is_there() {
    let text = uncommented();
    for table in TABLES {
        // What serde says to a key that cannot be names all that can.
        let err = toml::from_str::<Config>(&format!("{table}\nno-such-key = 1\n")).unwrap_err();
        let known: Vec<&str> = err.message().split('`').skip(3).step_by(2).collect();
        assert!(!known.is_empty(), "{table}: {err}");
        let section = text.split_once(&format!("\n{table}\n")).expect(table).1;
        let section = section.split("\n[").next().unwrap();
        for key in known {
            let inner = format!("[{}.{key}", table.trim_matches(['[', ']']));
            let is_table =
                TABLES.iter().any(|own| own.strip_prefix(&inner).is_some_and(|rest| rest.starts_with(['.', ']'])));
            assert!(
                is_table || section.contains(&format!("\n{key} = ")),
                "{table} {key} is missing in docs/wasmta.example.toml"
            );
        }
    }
    let err = toml::from_str::<Config>("no-such-table = 1\n").unwrap_err();
    let known = err.message().split('`').skip(3).step_by(2);
    for table in known {
        assert!(TABLES.iter().any(|own| own.trim_matches(['[', ']']).split('.').next() == Some(table)), "{table}");
    }
}

#[test]
fn every_key_has_a_word_said_about_it() {
    let mut before = "";
    for line in EXAMPLE.lines() {
        let is_key = line.contains(" = ") && !line.starts_with("# ");
        assert!(!is_key || before.starts_with("# "), "nothing is said about {line}");
        before = line;
    }
}
