//! Whole messages, judged natively: the cases that the real Postfix has decided.

use std::path::Path;

use crate::rule::{Edit, Outcome, Verdict, judge};
use crate::settings;

#[path = "../../../tests/support/header_cases.rs"]
mod header_cases;
use header_cases::Case;

/// As the host would put it before the message.
const RECEIVED: &[u8] =
    b"Received: from client.example (localhost [127.0.0.1])\r\n\tby mx.example.org with ESMTP id 1;\r\n\tnow";

fn json(case: &Case) -> String {
    let mut settings = serde_json::Map::new();
    for (kind, table, text) in &case.tables {
        let table = match std::str::from_utf8(text) {
            Ok(text) => serde_json::json!({"type": table, "rules": text}),
            Err(_) => {
                let octets: String = text.iter().copied().map(char::from).collect();
                serde_json::json!({"type": table, "file": "table", "content-octets": octets})
            }
        };
        match settings.entry(kind.clone()).or_insert_with(|| serde_json::json!([])) {
            serde_json::Value::Array(tables) => tables.push(table),
            other => panic!("{other}"),
        }
    }
    for (key, value) in &case.settings {
        let value = value.as_deref().map_or(serde_json::json!([]), |value| serde_json::from_str(value).expect("JSON"));
        settings.insert(key.clone(), value);
    }
    serde_json::Value::Object(settings).to_string()
}

/// Header fields and body.
fn cut(mail: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut fields = vec![RECEIVED.to_vec()];
    let mut at = 0;
    loop {
        let rest = &mail[at..];
        let end = rest.windows(2).position(|pair| pair == b"\r\n").map_or(rest.len(), |end| end + 2);
        let line = &rest[..end];
        at += end;
        match line {
            b"\r\n" | b"" => return (fields, mail[at..].to_vec()),
            [b' ' | b'\t', ..] => {
                let field = fields.last_mut().expect("one is there");
                field.extend_from_slice(b"\r\n");
                field.extend_from_slice(&line[..end - 2]);
            }
            line => fields.push(line[..end - 2].to_vec()),
        }
    }
}

/// What the host would make of the edits; its own Received field is left out.
fn edited(fields: &[Vec<u8>], body: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut lines: Vec<Vec<Vec<u8>>> = fields.iter().map(|field| vec![field.clone()]).collect();
    let mut splices = Vec::new();
    for edit in edits {
        match edit {
            Edit::InsertField(index, field) => {
                let at = lines[*index].len() - 1;
                lines[*index].insert(at, field.clone());
            }
            Edit::ReplaceField(index, field) => *lines[*index].last_mut().expect("not removed yet") = field.clone(),
            Edit::RemoveField(index) => drop(lines[*index].pop()),
            Edit::ReplaceBody(range, with) => splices.push((range.clone(), with)),
        }
    }
    let mut out = Vec::new();
    for field in lines.into_iter().flatten().filter(|field| field != RECEIVED) {
        out.extend_from_slice(&field);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    let mut at = 0;
    for (range, with) in splices {
        out.extend_from_slice(&body[at..range.start as usize]);
        out.extend_from_slice(with);
        at = range.end as usize;
    }
    out.extend_from_slice(&body[at..]);
    out
}

fn envelope(outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(outcome.hold.iter().map(|_| "hold".to_owned()));
    lines.extend(matches!(outcome.verdict, Verdict::Discard(_)).then(|| "discard".to_owned()));
    lines.extend(outcome.filter.iter().map(|to| format!("filter {to}")));
    lines.extend(outcome.redirect.iter().map(|to| format!("redirect {to}")));
    for to in &outcome.bcc {
        let line = format!("bcc {to}");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// Judges with the body in pieces of at most so many octets.
fn run(case: &Case, piece: usize) -> Result<(), String> {
    let checks = settings::parse(&json(case), &mut |_| {}).map_err(|err| format!("{err:?}"))?;
    let (fields, body) = cut(&case.mail);
    let mut read = |at: u64, len: u32| {
        let rest = body.get(at as usize..).unwrap_or_default();
        Ok(rest[..rest.len().min(len as usize).min(piece)].to_vec())
    };
    let outcome = judge(&checks, &fields, &mut read)?;
    let reply = match &outcome.verdict {
        Verdict::Reject(refusal) => format!("{} {refusal}", refusal.code).trim_end().to_owned(),
        _ => "250".into(),
    };
    if reply != case.reply {
        return Err(format!("reply `{reply}`, not `{}`", case.reply));
    }
    if reply != "250" {
        return Ok(());
    }
    if envelope(&outcome) != case.envelope {
        return Err(format!("envelope {:?}, not {:?}", envelope(&outcome), case.envelope));
    }
    let result = edited(&fields, &body, &outcome.edits);
    match &case.result {
        Some(expected) if *expected != result && !case.envelope.contains(&"discard".into()) => {
            Err(format!("result\n{}\nnot\n{}", String::from_utf8_lossy(&result), String::from_utf8_lossy(expected)))
        }
        _ => Ok(()),
    }
}

#[test]
fn as_postfix_decides() {
    let cases = header_cases::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/header-checks"));
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut failed = Vec::new();
    for case in &cases {
        for piece in [usize::MAX, 1000, 7] {
            if piece < 1000 && case.mail.len() > 20_000 {
                continue;
            }
            if let Err(why) = run(case, piece) {
                failed.push(format!(
                    "{} (pieces of {piece}): {}",
                    case.name,
                    why.chars().take(600).collect::<String>()
                ));
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{} of {} cases differ:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

/// Which of the texts a pattern matches, and what its groups then are.
fn groups(table: &str, pattern: &str, texts: &[&str]) -> Vec<String> {
    let rules = format!("{pattern} REJECT $1");
    let settings = serde_json::json!({"body_checks": {"type": table, "rules": rules}}).to_string();
    let checks = settings::parse(&settings, &mut |_| {}).unwrap_or_else(|err| panic!("{pattern}: {err:?}"));
    let judged = texts.iter().map(|text| {
        let outcome =
            judge(&checks, &[], &mut |at, _| Ok(text.as_bytes().get(at as usize..).unwrap_or_default().to_vec()));
        match outcome.expect("the body can be read").verdict {
            Verdict::Reject(refusal) => refusal.text,
            _ => "-".into(),
        }
    });
    judged.collect()
}

#[test]
fn patterns_that_other_engines_read_otherwise() {
    for (table, pattern, texts, expected) in [
        ("pcre", r"/([[a]+)$/", &["x[a"][..], &["[a"][..]),
        ("pcre", r"/([a&&b]+)/", &["&b&"], &["&b&"]),
        ("pcre", r"/(\<b\>)/", &["<b>", "b"], &["<b>", "-"]),
        ("pcre", r"/(a{,2})/", &["a{,2}", "aa"], &["a{,2}", "-"]),
        ("pcre", r"/(\Qa.b\E+)/", &["a.bb", "axb"], &["a.bb", "-"]),
        ("pcre", r"/^(\w+)\b/", &["\u{fc}b", "ab\u{fc}"], &["-", "ab"]),
        ("pcre", r"/^(.)$/", &["\u{fc}", "u"], &["-", "u"]),
        ("pcre", r"/(a)(?!\w)/", &["ab", "a\u{fc}"], &["-", "a"]),
        ("pcre", r"/(?<q>['\x22])x\k<q>/", &["'x'", "'x\""], &["'", "-"]),
        ("pcre", r"/^(\((?:[^()]|(?1))*\))$/", &["(a(b)c)", "(a(b c)"], &["(a(b)c)", "-"]),
        ("pcre", r"/(a) # b/x", &["a", "ab"], &["a", "a"]),
        ("regexp", r"/([\d]+)/", &["5", "d\\"], &["-", "d\\"]),
        ("regexp", r"/(a{,2}b)$/", &["aaab"], &["aab"]),
        ("regexp", r"/(x)\>/", &["x y", "xy"], &["x", "-"]),
        ("regexp", r"/\(a\{2\}\)/x", &["aa", "a{2}"], &["aa", "-"]),
        ("regexp", r"/^(a))$/", &["a)"], &["a"]),
    ] {
        assert_eq!(groups(table, pattern, texts), expected, "{pattern}");
    }
}

#[test]
fn settings_that_are_refused() {
    let refused =
        |settings: &str| settings::parse(settings, &mut |_| {}).err().map(|err| (err.key, err.file, err.line));
    for (settings, key, file, line) in [
        ("[]", "", None, None),
        (r#"{"header_check": []}"#, "header_check", None, None),
        (r#"{"header_checks": "pcre:x"}"#, "header_checks", None, None),
        (r#"{"header_checks": [{"rules": ""}]}"#, "header_checks.0", None, None),
        (r#"{"header_checks": [{"type": "hash", "rules": ""}]}"#, "header_checks.0.type", None, None),
        (r#"{"header_checks": [{"type": "pcre"}]}"#, "header_checks.0", None, None),
        (r#"{"header_checks": [{"type": "pcre", "file": "a"}]}"#, "header_checks.0", Some("a"), None),
        (
            r#"{"body_checks": {"type": "pcre", "file": "a", "content": "/a/ OK\n/b/ NO\n"}}"#,
            "body_checks",
            Some("a"),
            Some(2),
        ),
        (r#"{"body_checks": [{"type": "pcre", "rules": "/(a/ OK"}]}"#, "body_checks.0", None, Some(1)),
        (
            r#"{"body_checks": [{"type": "pcre", "rules": "/(((a{999}){999}){999})/ OK"}]}"#,
            "body_checks.0",
            None,
            Some(1),
        ),
        (r#"{"line_length_limit": 0}"#, "line_length_limit", None, None),
        (r#"{"disable_mime_input_processing": "no"}"#, "disable_mime_input_processing", None, None),
    ] {
        assert_eq!(refused(settings), Some((key.into(), file.map(str::to_owned), line)), "{settings}");
    }
    let nearest = settings::parse(r#"{"headr_checks": []}"#, &mut |_| {}).err().map(|err| err.message);
    assert_eq!(nearest.as_deref(), Some("there is no such setting; `header_checks` comes nearest"));
}

/// The example in the plugin's own description.
#[test]
fn the_example_is_sound() {
    let example = "/^<iframe src=(3D)?cid:.* height=(3D)?0 width=(3D)?0>$/ REJECT IFRAME exploit";
    assert!(include_str!("lib.rs").contains(example));
    let settings = serde_json::json!({"body_checks": [{"type": "regexp", "rules": example}],
        "header_checks": [{"type": "pcre", "file": "/etc/postfix/header_checks", "content": "/^Subject: x/ REJECT"}]});
    assert!(settings::parse(&settings.to_string(), &mut |_| {}).is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(settings::SCHEMA).is_ok());
}
