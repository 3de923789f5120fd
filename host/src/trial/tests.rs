#![allow(clippy::unwrap_used)]
use super::*;

fn scenario(text: &str) -> Result<Scenario, String> {
    toml::from_str(text).map_err(|err| err.to_string())
}

#[test]
fn line_ends() {
    assert_eq!(with_crlf(b"a\nb\r\n\nc"), b"a\r\nb\r\n\r\nc");
    assert_eq!(with_crlf(b""), b"");
}

#[test]
fn a_scenario_has_defaults_and_no_unknown_keys() {
    let read =
        scenario("settings = { words = [1] }\n[[case]]\nname = 'x'\nwait = '1h'\n[case.expect]\ncode = 550\n").unwrap();
    assert_eq!(read.settings, Some(serde_json::json!({"words": [1]})));
    let case = &read.cases[0];
    assert_eq!((case.repeat, case.from.as_str(), case.expect.code), (1, "sender@example.org", Some(550)));
    let wrong = scenario("[[case]]\nexpct = {}\n").unwrap_err();
    assert!(wrong.contains("line 2") && wrong.contains("expct"), "{wrong}");
}

#[test]
fn each_difference_is_told() {
    let expect = Expect {
        verdict: Some("reject".into()),
        code: Some(550),
        text: Some("lottery".into()),
        score: Some(2.0),
        symbols: Some(vec!["B".into(), "A".into()]),
        log: vec!["hit".into()],
        header: vec!["X-Spam: yes".into()],
        no_header: vec!["bcc".into()],
        kv: [("hits".into(), "1".into())].into(),
        failure: Some("trapped".into()),
        ..Expect::default()
    };
    let pass = Report { verdict: "pass".into(), header: vec!["Bcc: x".into()], ..Report::default() };
    let told = expect.differences(&pass);
    let begin = ["verdict", "code", "text", "score", "log", "symbols", "header", "no-header", "kv hits", "failure"];
    for what in begin {
        assert!(told.iter().any(|line| line.starts_with(&format!("{what}: expected "))), "{what}: {told:?}");
    }
    assert_eq!(told.len(), begin.len(), "{told:?}");
    assert_eq!(told[0], "verdict: expected reject, got pass");
}

#[test]
fn what_nobody_expects_is_a_difference_only_if_it_is_a_failure() {
    assert!(Expect::default().differences(&Report { verdict: "reject".into(), ..Report::default() }).is_empty());
    let refused = Report { load_error: Some("no words".into()), ..Report::default() };
    assert_eq!(Expect::default().differences(&refused), ["load-error: expected none, got no words"]);
    let expected = Expect { load_error: Some("words".into()), ..Expect::default() };
    assert!(expected.differences(&refused).is_empty());
}
