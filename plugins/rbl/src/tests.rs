//! Lists judged natively.

use serde_json::{Value, json};

use crate::judge::{Answer, Facts, Health, Purpose, findings, question_name, questions, refused_by, reply, tested};
use crate::name;
use crate::settings::{self, Settings};
use crate::zone::{Pattern, known_codes};

fn parse(settings: Value) -> Settings {
    settings::parse(&settings.to_string()).expect("sound settings")
}

fn facts() -> Facts {
    Facts {
        address: Some("192.0.2.7".parse().expect("an address")),
        client_name: Some("Mail.Client.example".into()),
        helo: Some("helo.example".into()),
        sender: "ann@sender.example".into(),
    }
}

fn addresses(answers: &[&str]) -> Answer {
    Answer::Addresses(answers.iter().map(|answer| (*answer).into()).collect())
}

/// Which zone refuses, if the zones (known to be well) answer so.
fn judged(settings: &Settings, answers: &[Answer]) -> Option<usize> {
    let well = vec![Some(Health::Well); settings.zones.len()];
    let questions = questions(&settings.zones, &facts(), &well);
    assert_eq!(questions.len(), answers.len());
    refused_by(settings.threshold, &findings(&settings.zones, &questions, answers).listings)
}

#[test]
fn names_to_ask_for() {
    let settings = parse(json!({"zones": [
        {"zone": "bl.example"}, {"zone": "names.example", "of": "client-name"},
        {"zone": "helo.bl.example", "of": "helo"}, {"zone": "dbl.example.", "of": "sender"},
    ]}));
    let names: Vec<_> = settings.zones.iter().filter_map(|zone| question_name(zone, &facts())).collect();
    assert_eq!(
        names,
        [
            "7.2.0.192.bl.example",
            "mail.client.example.names.example",
            "helo.example.helo.bl.example",
            "sender.example.dbl.example"
        ]
    );
    let unknown = Facts { address: None, client_name: None, helo: Some("[192.0.2.1]".into()), sender: String::new() };
    assert!(settings.zones.iter().all(|zone| question_name(zone, &unknown).is_none()));
    assert_eq!(
        name::reversed("2001:db8::1".parse().expect("an address")),
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
    );
    for name in ["localhost", "192.0.2.1", "a..b", "a b.example", "\u{e9}.example", "-"] {
        assert_eq!(name::domain(name), None, "{name}");
    }
}

#[test]
fn zen_and_its_codes() {
    let settings = parse(json!({}));
    for (answer, listed) in [
        ("127.0.0.2", true),
        ("127.0.0.3", true),
        ("127.0.0.4", true),
        ("127.0.0.10", true),
        ("127.0.0.8", false),
        ("127.0.1.2", false),
        ("127.255.255.254", false),
        ("127.255.255.7", false),
        ("192.0.2.80", false),
        ("garbage", false),
    ] {
        assert_eq!(judged(&settings, &[addresses(&[answer])]).is_some(), listed, "{answer}");
    }
    assert_eq!(judged(&settings, &[addresses(&[])]), None);
    assert_eq!(judged(&settings, &[Answer::Failed("SERVFAIL".into())]), None);
    assert_eq!(judged(&settings, &[addresses(&["203.0.113.1", "127.0.0.2"])]), Some(0));
}

#[test]
fn weights_add_up() {
    let settings = parse(json!({"threshold": 3, "zones": [
        {"zone": "a.example", "weight": 2}, {"zone": "b.example", "codes": {"127.0.0.2": 2.5, "127.0.0.[3..9]": {"weight": 0.5, "meaning": "dial-up"}}},
        {"zone": "white.example", "good": true, "weight": -2},
    ]}));
    let no = || addresses(&[]);
    let yes = |code: &str| addresses(&[code]);
    assert_eq!(judged(&settings, &[yes("127.0.0.5"), no(), no()]), None);
    assert_eq!(judged(&settings, &[yes("127.0.0.5"), yes("127.0.0.4"), no()]), None);
    assert_eq!(judged(&settings, &[yes("127.0.0.5"), yes("127.0.0.2"), no()]), Some(1));
    assert_eq!(judged(&settings, &[yes("127.0.0.5"), addresses(&["127.0.0.4", "127.0.0.2"]), no()]), Some(1));
    assert_eq!(judged(&settings, &[yes("127.0.0.5"), yes("127.0.0.2"), yes("127.0.5.1")]), None);
    assert_eq!(judged(&settings, &[no(), no(), yes("127.0.5.1")]), None);
}

#[test]
fn test_points_tell_sick_zones() {
    let settings = parse(json!({}));
    let unknown = [None];
    let asked = questions(&settings.zones, &facts(), &unknown);
    let names: Vec<_> = asked.iter().map(|question| (question.purpose, question.name.as_str())).collect();
    assert_eq!(
        names,
        [
            (Purpose::Mail, "7.2.0.192.zen.spamhaus.org"),
            (Purpose::Listed, "2.0.0.127.zen.spamhaus.org"),
            (Purpose::Unlisted, "1.0.0.127.zen.spamhaus.org")
        ]
    );
    let health = |listed: Answer, unlisted: Answer| {
        tested(&settings.zones, &asked, &[addresses(&[]), listed, unlisted]).remove(0).1
    };
    assert_eq!(health(addresses(&["127.0.0.2", "127.0.0.4"]), addresses(&[])), Health::Well);
    for (listed, unlisted, why) in [
        (&[][..], &[][..], "dead"),
        (&["127.0.0.2"], &["127.0.0.2"], "everything"),
        (&["127.255.255.254"], &["127.255.255.254"], "public resolvers"),
        (&["203.0.113.9"], &["203.0.113.9"], "rewrites"),
        (&["127.0.0.2"], &["203.0.113.9"], "rewrites"),
    ] {
        match health(addresses(listed), addresses(unlisted)) {
            Health::Sick(said) => assert!(said.contains(why), "{said}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(health(Answer::Failed("slow".into()), addresses(&[])), Health::Silent(_)));
    for health in [Health::Well, Health::Sick("why so".into()), Health::Silent("no answer".into())] {
        assert_eq!(Health::read(&health.write(1000), 1001), Some(health.clone()));
        assert_eq!(Health::read(&health.write(1000), 5000), None);
    }
    // The sick are not asked.
    assert!(questions(&settings.zones, &facts(), &[Some(Health::Sick("x".into()))]).is_empty());
    assert_eq!(Health::read("nonsense", 0), None);
}

#[test]
fn an_error_answer_mutes_the_zone() {
    let settings = parse(json!({}));
    let asked = questions(&settings.zones, &facts(), &[Some(Health::Well)]);
    let found = findings(&settings.zones, &asked, &[addresses(&["127.255.255.255"])]);
    assert!(found.listings.is_empty());
    assert!(matches!(found.refused[0].mute, Some(Health::Sick(_))));
}

#[test]
fn the_key_of_the_query_service_is_not_shown() {
    let settings = parse(json!({"spamhaus-key": "abc123"}));
    let zone = &settings.zones[0];
    assert_eq!(question_name(zone, &facts()).as_deref(), Some("7.2.0.192.abc123.zen.dq.spamhaus.net"));
    assert_eq!(
        reply(zone, &facts(), "https://check.example/q\r\n250 ok"),
        "Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org; https://check.example/q  250 ok"
    );
    assert!(reply(zone, &facts(), &"ü".repeat(1000)).len() <= 480);
    assert!(!zone.health_key().contains("abc123"));
}

#[test]
fn replies_as_postfix_has_them() {
    let settings =
        parse(json!({"zones": [{"zone": "a.example", "of": "sender"}, {"zone": "b.example", "of": "helo"}]}));
    assert_eq!(
        reply(&settings.zones[0], &facts(), ""),
        "Service unavailable; Sender address [ann@sender.example] blocked using a.example"
    );
    assert_eq!(
        reply(&settings.zones[1], &facts(), "why"),
        "Service unavailable; Helo command [helo.example] blocked using b.example; why"
    );
}

#[test]
fn patterns_as_postfix_writes_them() {
    let has = |pattern: &str, answer: &str| {
        Pattern::parse(pattern).expect("a pattern").has(answer.parse().expect("an address"))
    };
    assert!(has("127.0.0.2", "127.0.0.2") && !has("127.0.0.2", "127.0.0.3"));
    assert!(has("127.0.0.[2;4..7]", "127.0.0.6") && !has("127.0.0.[2;4..7]", "127.0.0.3"));
    assert!(has("127.0.[0..255].[0..3]", "127.0.77.3"));
    for wrong in
        ["", "127", "127.0.0", "127.0.0.256", "127.0.0.[7..4]", "127.0.0.[2", "127.0.0.2.3", "127.0.0.x", "127.0.0.[]"]
    {
        assert_eq!(Pattern::parse(wrong), None, "{wrong}");
    }
    assert_eq!(known_codes("zen.spamhaus.org").len(), 5);
    assert_eq!(known_codes("dbl.spamhaus.org").len(), 5);
    assert_eq!(known_codes("list.dnswl.org").len(), 4);
}

#[test]
fn exempt_recipients() {
    let settings = parse(json!({}));
    assert!(settings.is_exempt("Postmaster@r.example") && settings.is_exempt("postmaster"));
    assert!(!settings.is_exempt("ann@r.example"));
    let settings = parse(json!({"exempt-recipients": ["ann@r.example", "help@"]}));
    assert!(settings.is_exempt("ann@R.example") && settings.is_exempt("help@x.example"));
    assert!(!settings.is_exempt("postmaster@r.example") && !settings.is_exempt("ann@x.example"));
}

#[test]
fn wrong_settings_name_key_and_remedy() {
    for (settings, key) in [
        (json!({"zone": []}), "zone"),
        (json!({"zones": {}}), "zones"),
        (json!({"zones": ["zen.spamhaus.org"]}), "zones.0"),
        (json!({"zones": [{}]}), "zones.0.zone"),
        (json!({"zones": [{"zone": "a b"}]}), "zones.0.zone"),
        (json!({"zones": [{"zone": "a.example", "wieght": 1}]}), "zones.0.wieght"),
        (json!({"zones": [{"zone": "a.example", "weight": "1"}]}), "zones.0.weight"),
        (json!({"zones": [{"zone": "a.example", "weight": -1}]}), "zones.0.weight"),
        (json!({"zones": [{"zone": "a.example", "of": "rcpt"}]}), "zones.0.of"),
        (json!({"zones": [{"zone": "a.example", "codes": {"2": 1}}]}), "zones.0.codes.2"),
        (json!({"mode": "tag"}), "mode"),
        (json!({"threshold": true}), "threshold"),
        (json!({"spamhaus-key": "a.b"}), "spamhaus-key"),
        (json!({"exempt-recipients": "x"}), "exempt-recipients"),
    ] {
        let refused = settings::parse(&settings.to_string()).expect_err("wrong settings");
        assert_eq!(refused.key, key, "{refused:?}");
    }
    assert!(settings::parse(&json!({"zones": vec![json!({"zone": "a.example"}); 31]}).to_string()).is_err());
}
