//! Each format by itself; tests/tables.rs asks the real Postfix the same.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use super::*;

struct TableFile(PathBuf);

impl TableFile {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let file = std::env::temp_dir().join(format!("wasmta-table-{}-{}", std::process::id(), fastrand::u64(..)));
        std::fs::write(&file, text).unwrap();
        Self(file)
    }
    fn name(&self, kind: &str) -> TableName {
        format!("{kind}:{}", self.0.display()).parse().unwrap()
    }
}
impl Drop for TableFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn ask(table: &Table, key: &str) -> Option<(String, Option<u32>)> {
    table.look_up(key, Key::Whole).map(|found| (found.value, found.line))
}

fn fault(kind: &str, text: &[u8], purpose: Purpose) -> Option<u32> {
    let file = TableFile::new(text);
    match Table::open(&file.name(kind), purpose) {
        Err(TableError::Line { line, .. }) => Some(line),
        Err(TableError::Whole { .. } | TableError::Read { .. }) => Some(0),
        Ok(_) => None,
    }
}

#[test]
fn hash() {
    let file = TableFile::new("# c\nA@x one\n  two\n\n\"a b\"@x\tthree \na@x again\nk\\ k four\n");
    let table = Table::open(&file.name("hash"), Purpose::General).unwrap();
    assert_eq!(ask(&table, "a@X"), Some(("one  two".into(), Some(2))));
    assert_eq!(ask(&table, "\"a b\"@x"), Some(("three".into(), Some(5))));
    assert_eq!(ask(&table, "k\\ k"), Some(("four".into(), Some(7))));
    assert_eq!((ask(&table, "b"), ask(&table, "")), (None, None));
    assert_eq!(table.warnings().len(), 1);
    assert!(table.warnings()[0].contains(":6: "), "{:?}", table.warnings());
}

#[test]
fn aliases() {
    let file = TableFile::new("Root: ann,\n bob\n\"odd name\" : x\n\"a:b\": y\n");
    let table = Table::open(&file.name("hash"), Purpose::Aliases).unwrap();
    assert_eq!(ask(&table, "root"), Some(("ann, bob".into(), Some(1))));
    assert_eq!(ask(&table, "odd name"), Some(("x".into(), Some(3))));
    assert_eq!(ask(&table, "a:b"), Some(("y".into(), Some(4))));
}

#[test]
fn networks() {
    let text = "192.0.2.1 one\n!192.0.2.0/24 not\nif 192.0.2.0/25\n192.0.2.2/31 two\nendif\nif !10.0.0.0/8\n192.0.2.0/24 rest\nendif\n[2001:db8::]/32 six\n[::/0] any\n";
    let file = TableFile::new(text);
    let table = Table::open(&file.name("cidr"), Purpose::General).unwrap();
    for (key, value) in [
        ("192.0.2.1", Some(("one", 1))),
        ("192.0.2.3", Some(("two", 4))),
        ("192.0.2.200", Some(("rest", 7))),
        ("198.51.100.1", Some(("not", 2))),
        ("2001:db8::1", Some(("six", 9))),
        ("::1", Some(("any", 10))),
        ("192.0.2", None),
        ("x", None),
    ] {
        assert_eq!(ask(&table, key), value.map(|(text, line)| (text.to_owned(), Some(line))), "{key}");
    }
    assert_eq!(table.look_up("192.0.2.1", Key::Piece), None);
}

#[test]
fn patterns_inline_and_static() {
    let file = TableFile::new("/^(.*)@old\\.example$/ $1@new.example\nif /x/\n!/y/ z\nendif\n");
    let table = Table::open(&file.name("pcre"), Purpose::General).unwrap();
    assert_eq!(ask(&table, "Ann@old.example"), Some(("Ann@new.example".into(), Some(1))));
    assert_eq!(ask(&table, "x"), Some(("z".into(), Some(3))));
    assert_eq!((ask(&table, "xy"), table.look_up("x", Key::Piece)), (None, None));
    let inline = |text: &str| Table::open(&text.parse().unwrap(), Purpose::General);
    let table = inline("inline:{a=1, {b = d, e}}").unwrap();
    assert_eq!((ask(&table, "A"), ask(&table, "b")), (Some(("1".into(), None)), Some(("d, e".into(), None))));
    for bad in [
        "inline:a=b",
        "inline:{}",
        "inline:{a}",
        "inline:{{a=b}",
        "inline:{{a=b}c}",
        "inline:{=b}",
        "inline:{{b c=d}}",
        "static:{a",
    ] {
        assert!(inline(bad).is_err(), "{bad}");
    }
    let table = inline("static:{ a b }").unwrap();
    assert_eq!(table.look_up("x", Key::Piece).map(|found| found.value), Some("a b".into()));
}

#[test]
fn faults_name_their_line() {
    use Purpose::{Aliases, Delivery, General};
    for (kind, text, purpose, line) in [
        ("hash", &b"a b\nc\n"[..], General, 2),
        ("hash", b"  a b\n", General, 1),
        ("hash", b"\n\"a b\n", General, 2),
        ("hash", b"a b\nc \xff\n", General, 2),
        ("hash", b"a b\0\n", General, 1),
        ("hash", b"a: b\nc d\n", Aliases, 2),
        ("hash", b"a:\n", Aliases, 1),
        ("cidr", b"1.2.3.4/8 x\n", General, 1),
        ("cidr", b"#\n1.2.3.4\n", General, 2),
        ("cidr", b"1.2.3.4/33 x\n", General, 1),
        ("cidr", b"endif\n", General, 1),
        ("cidr", b"if\n", General, 1),
        ("regexp", b"/a/ b\n/[/ c\n", General, 2),
        ("pcre", b"/(a)/ $1\n", Delivery, 1),
        ("pcre", b"/(a)/ $1\n", Aliases, 1),
        ("regexp", b"/(a)/ $2\n", General, 1),
    ] {
        assert_eq!(fault(kind, text, purpose), Some(line), "{kind} {:?}", String::from_utf8_lossy(text));
    }
    for (kind, text) in [("cidr", &b"if 1.2.3.4\n"[..]), ("hash", b""), ("pcre", b"endif\n")] {
        assert_eq!(fault(kind, text, General), None, "{kind}");
    }
    for bad in ["", "hash", "hash:", "mysql:/etc/x", "/etc/aliases"] {
        assert!(bad.parse::<TableName>().is_err(), "{bad}");
    }
    assert!(matches!(Table::open(&"hash:/nonexistent/table".parse().unwrap(), General), Err(TableError::Read { .. })));
    assert!(matches!(Table::open(&"hash:/".parse().unwrap(), General), Err(TableError::Read { .. })));
}

#[test]
fn a_changed_file_is_taken_over_and_a_broken_one_is_not() {
    let file = TableFile::new("a one\n");
    let mut tables = Tables::default();
    let live = tables.open(&file.name("hash"), Purpose::General).unwrap();
    assert!(Arc::ptr_eq(&live, &tables.open(&file.name("hash"), Purpose::General).unwrap()));
    let value = || live.look_up("a", Key::Whole).map(|found| found.value);
    let change = |text: &str| {
        std::fs::write(&file.0, text).unwrap();
        tables.refresh();
        tables.refresh();
    };
    change("a two two\n");
    assert_eq!(value().as_deref(), Some("two two"));
    change("a three\nb\n");
    assert_eq!(value().as_deref(), Some("two two"));
    std::fs::remove_file(&file.0).unwrap();
    tables.refresh();
    tables.refresh();
    assert_eq!(value().as_deref(), Some("two two"));
    change("a four\n");
    assert_eq!(value().as_deref(), Some("four"));
    std::fs::write(&file.0, "a half of").unwrap();
    tables.refresh();
    assert_eq!(value().as_deref(), Some("four"), "one look is not enough");
}
