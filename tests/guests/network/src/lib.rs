//! Asks DNS and talks to endpoints as its settings say: `{"do": ["query A example.test"]}`. Its verdict, at RCPT and at the message, is a
//! refusal with what the lines brought forth.
//!
//! | line | what it does |
//! |---|---|
//! | `query KIND NAME` | `%40` in a name stands for a space |
//! | `batch N KIND NAME` | N questions at once, `%i` in the name is the number; tells how many ended how |
//! | `many N KIND NAME` | the same one after the other |
//! | `open ENDPOINT`, `leak N ENDPOINT` | the second opens as many as it can |
//! | `write N TEXT`, `read N LENGTH`, `drain N` | on connection number N; the last reads until it cannot |
//! | `send N FRAMING LIMIT` | the message |
//! | `finish N`, `close N` | |
//! | `spin`, `trap` | |

use std::collections::BTreeMap;
use std::sync::OnceLock;

use exports::wasmta::policy::meta::{ConfigError, Guest as Meta, Manifest};
use exports::wasmta::policy::on_message::{Guest as OnMessage, Message};
use exports::wasmta::policy::on_rcpt::{Envelope, Guest as OnRcpt, Recipient, Session, Verdict};
use serde_json::Value;
use wasmta::policy::dns::{self, Kind, Question};
use wasmta::policy::net::{self, Framing};
use wasmta::policy::types::{EnhancedStatus, Reply};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package guest:network; world plugin {
        import wasmta:policy/dns@0.1.0;
        import wasmta:policy/net@0.1.0;
        export wasmta:policy/meta@0.1.0;
        export wasmta:policy/on-rcpt@0.1.0;
        export wasmta:policy/on-message@0.1.0;
    }",
    world: "guest:network/plugin",
    generate_all,
});

struct Plugin;
export!(Plugin);

static SETTINGS: OnceLock<Value> = OnceLock::new();

impl Meta for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "network".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "asks DNS and talks to endpoints as its settings say".into(),
            settings_schema: "{}".into(),
            symbols: vec![],
        }
    }

    fn configure(settings: String) -> Result<(), ConfigError> {
        let settings: Value = serde_json::from_str(&settings).unwrap_or_default();
        if let Some(line) = settings["configure"].as_str() {
            let _ = step(line, None);
        }
        SETTINGS.get_or_init(|| settings);
        Ok(())
    }
}

fn question(kind: &str, name: &str, number: usize) -> Question {
    let kind = match kind {
        "A" => Kind::A,
        "AAAA" => Kind::Aaaa,
        "MX" => Kind::Mx,
        "TXT" => Kind::Txt,
        "PTR" => Kind::Ptr,
        _ => panic!("as told: {kind}"),
    };
    Question { name: name.replace("%40", " ").replace("%i", &number.to_string()), kind }
}

type Answers = Result<Vec<dns::Answer>, dns::Error>;

fn answers(answers: Answers) -> String {
    match answers {
        Ok(answers) => answers.iter().map(|answer| answer.value.as_str()).collect::<Vec<_>>().join(","),
        Err(dns::Error::NotGranted) => "not-granted".into(),
        Err(dns::Error::NoSuchName) => "no-such-name".into(),
        Err(dns::Error::Malformed) => "malformed".into(),
        Err(dns::Error::Timeout) => "timeout".into(),
        Err(dns::Error::Limit) => "limit".into(),
        Err(dns::Error::Failure(_)) => "failure".into(),
    }
}

fn counted(all: impl IntoIterator<Item = Answers>) -> String {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for one in all {
        let kind = if one.is_ok() { "answered".into() } else { answers(one) };
        *counts.entry(kind).or_default() += 1;
    }
    counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(",")
}

fn shown<T: ToString>(result: Result<T, net::Error>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(net::Error::NotGranted) => "not-granted".into(),
        Err(net::Error::Unreachable(_)) => "unreachable".into(),
        Err(net::Error::Timeout) => "timeout".into(),
        Err(net::Error::Closed) => "closed".into(),
        Err(net::Error::NoSuchConnection) => "no-such-connection".into(),
        Err(net::Error::Limit) => "limit".into(),
        Err(net::Error::Failure(_)) => "failure".into(),
    }
}

fn step(line: &str, message: Option<&Message>) -> String {
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    let number = |word: &str| word.parse().expect("a number");
    match words.as_slice() {
        ["query", kind, name] => answers(dns::query(&question(kind, name, 0))),
        ["batch", count, kind, name] => {
            let questions: Vec<_> = (0..number(count) as usize).map(|n| question(kind, name, n)).collect();
            counted(dns::query_many(&questions))
        }
        ["many", count, kind, name] => {
            counted((0..number(count) as usize).map(|n| dns::query(&question(kind, name, n))))
        }
        ["open", endpoint] => shown(net::open(endpoint)),
        ["leak", count, endpoint] => {
            let opened = (0..number(count)).map(|_| net::open(endpoint)).take_while(Result::is_ok).count();
            format!("{opened} then {}", shown(net::open(endpoint)))
        }
        ["write", connection, text @ ..] => {
            let text = text.join(" ").replace("\\n", "\r\n");
            shown(net::write(number(connection), text.as_bytes()).map(|()| "written"))
        }
        ["read", connection, len] => {
            let octets = net::read(number(connection), number(len));
            shown(octets.map(|octets| String::from_utf8_lossy(&octets).trim_end().to_owned()))
        }
        ["drain", connection] => {
            let (mut octets, mut end) = (0, "end".to_owned());
            loop {
                match net::read(number(connection), u32::MAX) {
                    Ok(more) if more.is_empty() => break,
                    Ok(more) => octets += more.len(),
                    Err(err) => {
                        end = shown::<u32>(Err(err));
                        break;
                    }
                }
            }
            format!("{octets} then {end}")
        }
        ["send", connection, framing, limit] => {
            let framing = if *framing == "raw" { Framing::Raw } else { Framing::LengthPrefixed };
            let message = message.expect("a message");
            shown(net::send_message(number(connection), message, framing, limit.parse().expect("a number")))
        }
        ["finish", connection] => shown(net::finish(number(connection)).map(|()| "finished")),
        ["close", connection] => {
            net::close(number(connection));
            "closed by us".into()
        }
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        _ => panic!("as told: {line}"),
    }
}

fn play(hook: &str, message: Option<&Message>) -> Verdict {
    let lines = SETTINGS.get().and_then(|settings| settings[hook].as_array()).into_iter().flatten();
    let results: Vec<String> = lines.filter_map(Value::as_str).map(|line| step(line, message)).collect();
    if results.is_empty() {
        return Verdict::Pass;
    }
    let mut text = results.join("; ");
    text.truncate(400);
    let enhanced = Some(EnhancedStatus { class: 5, subject: 7, detail: 1 });
    Verdict::Reject(Reply { code: 550, enhanced, text })
}

impl OnRcpt for Plugin {
    fn run(_: &Session, _: &Envelope, _: Recipient) -> Verdict {
        play("do", None)
    }
}

impl OnMessage for Plugin {
    fn run(_: &Session, _: &Envelope, message: &Message) -> Verdict {
        play("message", Some(message))
    }
}
