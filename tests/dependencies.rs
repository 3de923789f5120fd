//! Every dependency stands in ARCHITECTURE.md with its reason, and no other does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A heading of ARCHITECTURE.md and the folder whose packages it speaks of.
const PARTS: [(&str, &[&str]); 4] = [
    ("host", &["host", "host/patterns"]),
    ("xtask", &["xtask"]),
    ("tests", &["tests"]),
    ("plugins", &["plugins/*", "tests/guests/*"]),
];

#[test]
fn each_has_its_reason() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (heading, folders) in PARTS {
        let told = told(&text, heading);
        let used: BTreeSet<String> =
            folders.iter().flat_map(|folder| packages(folder)).flat_map(|file| used(&file)).collect();
        assert!(!used.is_empty(), "{heading}");
        assert_eq!(told, used, "{heading}: ARCHITECTURE.md on the left, Cargo.toml on the right");
    }
}

/// The names in the first column of the table behind `heading/`.
fn told(text: &str, heading: &str) -> BTreeSet<String> {
    let table = text.split_once(&format!("\n`{heading}/`\n")).expect(heading).1;
    let rows = table.lines().take_while(|line| line.starts_with('|')).skip(2);
    let names = rows.filter_map(|row| row.split('|').nth(1)).flat_map(|column| column.split(','));
    names.map(|name| name.trim().to_owned()).collect()
}

fn used(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut names = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && let Some((name, _)) = line.split_once(['=', '.']) {
            names.push(name.trim().to_owned());
        }
    }
    names
}

fn packages(folder: &str) -> Vec<PathBuf> {
    let folders = match folder.strip_suffix("/*") {
        None => vec![root().join(folder)],
        Some(parent) => std::fs::read_dir(root().join(parent)).unwrap().map(|entry| entry.unwrap().path()).collect(),
    };
    folders.into_iter().map(|folder| folder.join("Cargo.toml")).filter(|file| file.is_file()).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
