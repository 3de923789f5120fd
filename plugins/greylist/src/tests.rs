//! The cases that the real postgrey has decided, and what is ours alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::judge::{Memory, Outcome, Question, judge};
use crate::settings::{self, Settings};
use crate::{date, triplet};

/// A store in which everything staged takes effect, as every message is taken.
#[derive(Default)]
struct Map {
    values: BTreeMap<String, (String, u64)>,
    now: u64,
    full: bool,
    drop_staged: bool,
}

impl Memory for Map {
    fn get(&mut self, key: &str) -> Option<String> {
        self.values.get(key).filter(|(_, until)| self.now < *until).map(|(value, _)| value.clone())
    }
    fn put(&mut self, key: &str, value: &str, seconds: u32) -> bool {
        assert!(key.len() <= 512, "{key}");
        if !self.full {
            self.values.insert(key.into(), (value.into(), self.now + u64::from(seconds) + 1));
        }
        !self.full
    }
    fn stage(&mut self, key: &str, value: &str, seconds: u32) {
        if !self.drop_staged {
            self.put(key, value, seconds);
        }
    }
}

fn parse(settings: Value) -> Settings {
    settings::parse(&settings.to_string(), &mut |warning| panic!("{warning}")).expect("sound settings")
}

fn ask(settings: &Settings, map: &mut Map, step: (u64, &str, &str, &str, &str)) -> Outcome {
    let (now, name, address, sender, recipient) = step;
    map.now = now;
    let name = (name != "unknown").then_some(name);
    let question = Question { now, address: address.parse().expect("an address"), name, sender, recipient };
    judge(settings, map, &question)
}

#[test]
fn every_case_as_the_real_postgrey() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/greylist/cases.json");
    let tables: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).expect("cases")).expect("JSON");
    let mut differ = Vec::new();
    for table in &tables {
        let mut own = table["settings"].clone();
        own["default-whitelist"] = json!(false);
        own["whitelist-clients"] = json!([{"entries": table["clients"]}]);
        own["whitelist-recipients"] = json!([{"entries": table["recipients"]}]);
        let settings = parse(own);
        let mut map = Map::default();
        for case in table["cases"].as_array().expect("cases") {
            let mut with_field = None;
            for step in case["steps"].as_array().expect("steps") {
                let text = |index: usize| step[index].as_str().expect("text");
                let now = 1_000_000_000 + step[0].as_u64().expect("seconds");
                let outcome = ask(&settings, &mut map, (now, text(1), text(2), text(3), text(4)));
                let action = match outcome {
                    Outcome::Greylisted { missing, .. } => {
                        format!("DEFER_IF_PERMIT 4.2.0 {}", settings.greeting(text(4), missing))
                    }
                    // One field a message.
                    Outcome::Passed { delay: Some(delay), .. } if with_field != Some(text(5)) => {
                        with_field = Some(text(5));
                        format!("PREPEND X-Greylist: delayed {delay} seconds")
                    }
                    Outcome::Passed { .. } => "DUNNO".into(),
                };
                if action != text(6) {
                    differ.push(format!("{}: {step}: {action}", case["name"]));
                }
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

const FIRST: (u64, &str, &str, &str, &str) = (1000, "unknown", "192.0.2.1", "a@s.example", "b@r.example");

#[test]
fn what_is_not_taken_is_not_remembered_as_a_success() {
    let (settings, mut map) = (parse(json!({})), Map { drop_staged: true, ..Map::default() });
    ask(&settings, &mut map, FIRST);
    for now in [1400, 1500] {
        let outcome = ask(&settings, &mut map, (now, FIRST.1, FIRST.2, FIRST.3, FIRST.4));
        assert_eq!(outcome, Outcome::Passed { reason: "triplet found", delay: Some(now - 1000) });
    }
}

#[test]
fn a_full_store_lets_mail_pass() {
    let (settings, mut map) = (parse(json!({})), Map { full: true, ..Map::default() });
    assert!(matches!(ask(&settings, &mut map, FIRST), Outcome::Passed { .. }));
}

#[test]
fn by_domain_a_pool_is_one_client() {
    let (settings, mut map) = (parse(json!({"lookup-by": "domain"})), Map::default());
    ask(&settings, &mut map, (0, "out1.s.example", "192.0.2.1", "a@s.example", "b@r.example"));
    let later = (400, "out2.s.example", "198.51.100.1", "a@s.example", "b@r.example");
    assert!(matches!(ask(&settings, &mut map, later), Outcome::Passed { .. }));
    // Without a name the network counts, and a domain is no network.
    let nameless = (400, "unknown", "198.51.100.1", "a@s.example", "b@r.example");
    assert!(matches!(ask(&settings, &mut map, nameless), Outcome::Greylisted { .. }));
}

#[test]
fn long_addresses_have_a_key() {
    let settings = parse(json!({}));
    let (sender, recipient) = (format!("{}@s.example", "a".repeat(600)), "b@r.example");
    let address = "192.0.2.1".parse().expect("an address");
    let key = triplet::triplet(&settings, address, None, &sender, recipient);
    assert!(key.len() <= 512);
    assert_ne!(key, triplet::triplet(&settings, address, None, &format!("b{sender}"), recipient));
}

#[test]
fn built_in_whitelists() {
    let settings = parse(json!({}));
    assert!(settings.clients.has_name("mail-wr1-f41.google.com"));
    assert!(!settings.clients.has_name("notgoogle.com"));
    assert!(settings.recipients.has("Postmaster@r.example"));
    assert!(parse(json!({"whitelist-clients": {"entries": "mx.example"}})).clients.has_name("mx.example"));
}

#[test]
fn wrong_settings_name_key_and_remedy() {
    for (settings, key, message) in [
        (json!({"dealy": 5}), "dealy", "is not known; there are delay"),
        (json!({"delay": "5"}), "delay", "like \"300s\""),
        (json!({"delay": 0}), "delay", "like \"300s\""),
        (json!({"delay": u64::MAX}), "delay", "like \"300s\""),
        (json!({"max-age": "99999999999999999w"}), "max-age", "like \"300s\""),
        (json!({"lookup-by": "name"}), "lookup-by", "\"subnet\", \"host\" or \"domain\""),
        (json!({"ipv4cidr": 33}), "ipv4cidr", "from 0 to 32"),
        (json!({"privacy": "yes"}), "privacy", "true or false"),
        (json!({"greylist-text": "a\r\nb"}), "greylist-text", "one line"),
        (json!({"x-greylist-header": "no field"}), "x-greylist-header", "a header field"),
        (json!({"whitelist-clients": "x"}), "whitelist-clients", "a list like"),
        (json!({"whitelist-clients": [{}]}), "whitelist-clients.0", "{ file"),
    ] {
        let refused = settings::parse(&settings.to_string(), &mut |_| {}).expect_err("wrong settings");
        assert_eq!(refused.key, key);
        assert!(refused.message.contains(message), "{refused:?}");
    }
    assert!(settings::parse("[]", &mut |_| {}).is_err());
    assert!(settings::parse("no", &mut |_| {}).is_err());
}

#[test]
fn a_wrong_line_is_named() {
    for (kind, text, line) in [
        ("whitelist-clients", "a.example\n/(/\n", 2),
        ("whitelist-clients", "\n\n192.0.2.0/33", 3),
        ("whitelist-clients", "2001:db8::/129", 1),
        ("whitelist-clients", "1.2.3.4.5", 1),
        ("whitelist-clients", "two words", 1),
        ("whitelist-recipients", "# fine\ntwo words", 2),
    ] {
        let settings = json!({kind: [{"file": "list", "content": text}]});
        let refused = settings::parse(&settings.to_string(), &mut |_| {}).expect_err("a wrong line");
        assert_eq!((refused.file.as_deref(), refused.line), (Some("list"), Some(line)), "{text:?}");
    }
}

#[test]
fn units_as_in_postgrey() {
    let settings = parse(json!({"delay": 60, "retry-window": 1, "max-age": "1w"}));
    assert_eq!((settings.delay, settings.retry_window, settings.max_age), (60, 86_400, 604_800));
}

#[test]
fn replies_and_fields() {
    let settings = parse(json!({}));
    assert_eq!(
        settings.reply("b@r.example", 300),
        "<b@r.example>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/r.example.html"
    );
    assert!(settings.reply(&format!("{}@r.example", "ü".repeat(400)), 300).len() <= 480);
    let field = settings.header(301, "mx.example.org", 951_827_696);
    let date = "Tue, 29 Feb 2000 12:34:56 UTC";
    assert_eq!(field, format!("X-Greylist: delayed 301 seconds by greylist-0.1.0 at mx.example.org; {date}"));
    assert_eq!(date::text(0), "Thu, 01 Jan 1970 00:00:00 UTC");
    assert_eq!(date::text(4_102_444_799), "Thu, 31 Dec 2099 23:59:59 UTC");
}

#[test]
fn senders_of_any_letters() {
    for (sender, same) in [("ü7-8@s", "ü#-#@s"), ("@s", "@s"), ("+x@s", "@s"), ("7@", "#@"), ("prvs=@s", "prvs=@s")] {
        assert_eq!(triplet::sender_without_numbers(sender), same);
    }
}
