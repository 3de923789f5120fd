//! The rooms of the house import one way only: reads what each room names of the others and of the outside world.

use std::path::{Path, PathBuf};

/// Every room may import these.
const COMMON: [&str; 1] = ["units"];

/// What a pure room gets told instead of looking it up itself.
const PURE: [&str; 3] = ["mail", "policy", "smtp"];
const IMPURE: [&str; 10] = [
    "tokio",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

/// Crates that one room alone may name.
const ALONE: [(&str, &str); 6] = [
    ("wasmtime", "plugin"),
    ("wasmtime_wasi", "plugin"),
    ("hickory", "net"),
    ("rustls", "net"),
    ("oci_client", "install"),
    ("reqwest", "install"),
];

#[test]
fn rooms_import_one_way() {
    let table = table();
    let mut wrong = Vec::new();
    for (file, room, code) in sources() {
        for other in named_rooms(&code) {
            if other != room && !may_import(&table, &room, &other) {
                wrong.push(format!("{}: {room} must not import {other}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the arrows:\n{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_see_no_clock_disk_or_network() {
    let mut wrong = Vec::new();
    for (file, _, code) in sources().into_iter().filter(|(_, room, _)| PURE.contains(&room.as_str())) {
        wrong.extend(
            IMPURE.iter().filter(|name| code.contains(*name)).map(|name| format!("{}: {name}", file.display())),
        );
    }
    assert!(wrong.is_empty(), "not pure:\n{}", wrong.join("\n"));
}

#[test]
fn some_crates_have_one_room() {
    let mut wrong = Vec::new();
    for (file, room, code) in sources() {
        for (name, own_room) in ALONE.iter().filter(|(_, own_room)| *own_room != room) {
            if code.contains(&format!("{name}::")) {
                wrong.push(format!("{}: {name} belongs to {own_room}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "crates outside their room:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_reads_them() {
    let code = "use crate::{mail::Domain, policy::{self, Verdict}};\nuse crate::queue;\nfn f(x: crate::net::Tls) {}\n";
    assert_eq!(named_rooms(code), ["mail", "net", "policy", "queue"]);
    assert_eq!(without_comments("a // crate::mail\nb"), "a \nb");
    let table = table();
    assert!(!may_import(&table, "mail", "policy") && may_import(&table, "policy", "mail"));
    assert!(!may_import(&table, "admin", "cli") && may_import(&table, "admin", "queue"));
}

fn may_import(table: &[(String, String)], room: &str, other: &str) -> bool {
    if COMMON.contains(&other) {
        return true;
    }
    if COMMON.contains(&room) {
        return false;
    }
    let (_, allowed) = table
        .iter()
        .find(|(name, _)| name == room)
        .unwrap_or_else(|| panic!("{room} is not in ARCHITECTURE.md's table"));
    match allowed.as_str() {
        "all" => true,
        "all but cli" => other != "cli",
        "every room's `Config`" => !["cli", "admin", "generation"].contains(&other),
        allowed => allowed.split(", ").any(|name| name == other),
    }
}

/// Room and what it may import, as ARCHITECTURE.md has it for people: one truth for both.
fn table() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md")).unwrap();
    let section = text.split_once("\n## The rooms\n").unwrap().1;
    let section = section.split_once("\n## ").unwrap().0;
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.trim_end_matches('|').split('|');
        let room = cells.next()?.trim().trim_end_matches('`');
        Some((room.to_owned(), cells.next_back()?.trim().to_owned()))
    });
    let rows: Vec<_> = rows.chain([("main".to_owned(), "all".to_owned())]).collect();
    assert!(rows.len() > 8, "{rows:?}");
    rows
}

/// File, its room, and its text without comments.
fn sources() -> Vec<(PathBuf, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src");
    let mut found = Vec::new();
    let mut dirs = vec![src.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&src).unwrap().to_owned();
                let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
                let room = first.trim_end_matches(".rs").to_owned();
                if room != "lib" {
                    found.push((inside, room, without_comments(&std::fs::read_to_string(&path).unwrap())));
                }
            }
        }
    }
    assert!(found.len() > 10, "the house has rooms");
    found
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code)).collect::<Vec<_>>().join("\n")
}

/// The rooms named behind `crate::`, those in braces too.
fn named_rooms(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_') {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(heads_of_group(group)),
            None => rooms.push(head(rest)),
        }
    }
    rooms.retain(|room| room.starts_with(|letter: char| letter.is_ascii_lowercase()));
    rooms.sort();
    rooms.dedup();
    rooms
}

/// The first word of each member of `{a::b, c::{d, e}}`, whose opening brace is gone already.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut heads = vec![head(group.trim_start())];
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(head(group[at + 1..].trim_start())),
            _ => {}
        }
    }
    heads
}

fn head(path: &str) -> String {
    path.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}
