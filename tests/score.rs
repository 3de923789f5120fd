//! Points of all policies and all stages make one sum, and the operator's thresholds say what it leads to.

use serde_json::{Value, json};

use crate::support::{Mta, Peer, Setup, wait_for, wasmta};

/// A policy that does what `script` says (`tests/guests/script`).
fn script(setup: Setup, name: &str, script: &Value) -> Setup {
    let settings = script.as_object().unwrap().iter().map(|(hook, lines)| format!("{hook} = {lines}"));
    let settings = settings.collect::<Vec<_>>().join(", ");
    setup.plugin(name, "guest-script", &format!("grants = [\"kv\"]\nsettings = {{ {settings} }}"))
}

fn site(own: &Value, score: &str) -> Mta {
    script(Setup::new(), "own", own).tables(&format!("[score]\n{score}")).start()
}

fn deliver(mta: &Mta, header: &str) -> String {
    let message = format!("{header}Subject: x\r\n\r\nx\r\n");
    Peer::hello(mta.port).try_deliver("a@example.org", "ann@example.test", &message)
}

#[test]
fn all_stages_and_policies_count_together() {
    let first =
        json!({"connect": ["score BAD 1"], "helo": ["score BAD 1"], "mail": ["score BAD 1"], "rcpt": ["score BAD 1"]});
    let second = json!({"message": ["total", "score WORSE 0.5", "total", "say"]});
    let mta = script(script(Setup::new(), "first", &first), "second", &second).start();
    // What the policy itself raises is not among those before it.
    assert_eq!(deliver(&mta, ""), "550 5.7.1 4; ; 4");
    // HELO counts the last time, and a transaction leaves nothing behind.
    let mut peer = Peer::hello(mta.port);
    for _ in 0..3 {
        peer.say("EHLO again.example.test", "250");
        assert_eq!(peer.try_deliver("a@example.org", "ann@example.test", "\r\n"), "550 5.7.1 4; ; 4");
    }
    // A symbol counts once, for however many recipients.
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.say("RCPT TO:<ann@example.test>", "250");
    peer.say("RCPT TO:<bob@example.test>", "250");
    peer.say("DATA", "354");
    peer.say("Subject: x\r\n.", "550 5.7.1 4; ; 4");
}

#[test]
fn thresholds_lead_to_actions() {
    const SCORE: &str = "tag = 1\nquarantine = 2\ndefer = 3\nreject = 4.5\nreject-text = \"{score} is too much\"";
    for (points, reply, header, held) in [
        ("0.99", "250 ", "", 0),
        ("1", "250 ", "X-Spam-Flag: YES\nX-Spam-Score: 1\nX-Spam-Symbols: own.BAD=1\n", 0),
        ("2", "250 ", "", 1),
        ("3", "451 4.7.1 this looks like spam (score 3), try again later", "", 0),
        ("4.5", "550 5.7.1 4.5 is too much", "", 0),
    ] {
        let mta = site(&json!({"message": [format!("score BAD {points}")]}), SCORE);
        assert!(deliver(&mta, "").starts_with(reply), "{points}");
        let log = wait_for("a line", || Some(mta.log()).filter(|log| log.contains("own.BAD=")));
        assert!(log.contains(points), "{log}");
        assert_eq!(mta.queue().len(), held, "{points}");
        if reply == "250 " && held == 0 {
            let mail = mta.maildir("ann").wait_for(1).remove(0);
            assert_eq!(mail.contains("X-Spam"), !header.is_empty(), "{mail}");
            assert!(mail.contains(&format!("{header}Subject: x\n")), "{mail}");
        }
    }
}

#[test]
fn without_thresholds_points_have_no_effect() {
    let mta =
        script(Setup::new(), "own", &json!({"rcpt": ["score BAD 1000"], "message": ["score WORSE 1000"]})).start();
    assert!(deliver(&mta, "X-Spam-Flag: NO\r\n").starts_with("250"));
    let mail = mta.maildir("ann").wait_for(1).remove(0);
    assert!(mail.contains("X-Spam-Flag: NO\n") && !mail.contains("YES"), "{mail}");
    let log = wait_for("a line", || Some(mta.log()).filter(|log| log.contains("queued")));
    assert!(log.contains("score=\"2000\" symbols=\"own.BAD=1000 own.WORSE=1000\""), "{log}");
}

#[test]
fn nobody_marks_his_own_mail() {
    let mta = site(&json!({"message": ["score GOOD -1"]}), "tag = 5\nheader = \"X-Junk\"");
    assert!(deliver(&mta, "X-Junk-Flag: NO\r\nx-junk-score : -100\r\nX-Spam-Flag: NO\r\n").starts_with("250"));
    let mail = mta.maildir("ann").wait_for(1).remove(0).to_lowercase();
    assert!(!mail.contains("x-junk") && mail.contains("x-spam-flag: no\n"), "{mail}");
}

#[test]
fn the_operator_weighs() {
    let own = json!({"message": ["score BAD 1", "score GOOD -1"]});
    let score = "tag = 5\n[score.weights]\n\"own.BAD\" = 7.25\n\"own.GOOD\" = 0";
    let mta = site(&own, score);
    assert!(deliver(&mta, "").starts_with("250"));
    let mail = mta.maildir("ann").wait_for(1).remove(0);
    assert!(mail.contains("X-Spam-Score: 7.25\nX-Spam-Symbols: own.BAD=7.25 own.GOOD=0\n"), "{mail}");
}

#[test]
fn a_recipient_is_refused_as_soon_as_it_is_certain() {
    let own = json!({"helo": ["score BAD 3"], "rcpt": ["score WORSE 3"], "message": ["score GOOD -4"]});
    let mta = site(&own, "reject = 5");
    let mut peer = Peer::hello(mta.port);
    peer.say("MAIL FROM:<a@example.org>", "250");
    peer.say("RCPT TO:<ann@example.test>", "550 5.7.1 this looks like spam (score 6)");
    assert!(
        wait_for("a line", || Some(mta.log()).filter(|log| log.contains("own.WORSE=3"))).contains("plugin=\"score\"")
    );
    let mta = site(&own, "reject = 5\nearly = false");
    assert!(deliver(&mta, "").starts_with("250"), "a later policy took points away");
}

#[test]
fn a_policys_own_no_stands() {
    let mta = site(&json!({"message": ["score BAD 9", "defer"]}), "reject = 5");
    assert_eq!(deliver(&mta, ""), "450 4.7.1 as told");
    let mta = site(&json!({"message": ["score BAD 9", "accept"]}), "reject = 5");
    assert!(deliver(&mta, "").starts_with("550 5.7.1"), "no objection is no acquittal");
}

#[test]
fn mistakes_are_told() {
    for (score, told) in [
        ("tag = 5\nreject = 4", "reject: 4 is less than `tag`, 5"),
        ("[score.weights]\n\"own.BADD\" = 1", "it has no symbol BADD; did you mean `BAD`?"),
        ("[score.weights]\n\"owm.BAD\" = 1", "there is no plugin `owm`; did you mean `own`?"),
        ("[score.weights]\nBAD = 1", "write \"PLUGIN.SYMBOL\""),
        ("reject-text = \"a\\r\\nb\"", "control character"),
        ("header = \"no header\"", "no header field can be named so"),
        ("tag = nan", "write a number"),
    ] {
        let setup = script(Setup::new(), "own", &json!({})).tables(&format!("[score]\n{score}"));
        let output = wasmta(&setup.write(), &["check"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{score}: {said}");
        assert!(said.contains(told) && said.contains("wasmta.toml:"), "{score}: {said}");
    }
}
