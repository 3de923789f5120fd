//! The settings, under the names of postgrey's options.

use serde_json::{Map, Value};

use crate::date;
use crate::whitelist::{Clients, Recipients};

/// Everything that the operator chose.
#[derive(Debug)]
pub struct Settings {
    /// Seconds that a new triplet waits.
    pub delay: u64,
    /// Seconds within which it has to come back.
    pub retry_window: u64,
    /// Seconds after which what was not seen again is forgotten.
    pub max_age: u64,
    /// What counts as the same client.
    pub lookup_by: LookupBy,
    /// Bits of an IPv4 network.
    pub ipv4cidr: u8,
    /// Bits of an IPv6 network.
    pub ipv6cidr: u8,
    /// Successes after which a client waits no more; 0: never.
    pub auto_whitelist_clients: u64,
    /// Whether keys are digests, so that the store tells nobody who writes to whom.
    pub privacy: bool,
    /// Whether clients that may relay wait, too.
    pub trusted: bool,
    /// Clients that never wait.
    pub clients: Clients,
    /// Recipients for whom nobody waits.
    pub recipients: Recipients,
    text: String,
    header: String,
    hostname: Option<String>,
}

/// What counts as the same client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupBy {
    /// The network of its address.
    Subnet,
    /// Its address.
    Host,
    /// The domain of its name, if DNS confirms the name; else its network.
    Domain,
}

/// Why the settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refused {
    /// Which setting.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// A whitelist's file.
    pub file: Option<String>,
    /// A line in it.
    pub line: Option<u32>,
}

/// The schema of what `parse` understands.
pub const SCHEMA: &str = r##"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "delay": {"$ref": "#/$defs/length", "default": "5m", "description": "how long a new triplet waits; a bare number is in seconds"},
    "retry-window": {"$ref": "#/$defs/length", "default": "2d", "description": "how long it may take to come back; a bare number is in days"},
    "max-age": {"$ref": "#/$defs/length", "default": "35d", "description": "after how long what was not seen again is forgotten; a bare number is in days"},
    "lookup-by": {"enum": ["subnet", "host", "domain"], "default": "subnet", "description": "what is the same client: its network, its address, or the domain of its confirmed name (else its network)"},
    "ipv4cidr": {"type": "integer", "minimum": 0, "maximum": 32, "default": 24, "description": "bits of an IPv4 network"},
    "ipv6cidr": {"type": "integer", "minimum": 0, "maximum": 128, "default": 64, "description": "bits of an IPv6 network"},
    "auto-whitelist-clients": {"type": "integer", "minimum": 0, "default": 5, "description": "after so many successes, one an hour, an address waits no more; 0 is never"},
    "greylist-text": {"type": "string", "default": "Greylisted, see http://postgrey.schweikert.ch/help/%r.html", "description": "the reply; %s: seconds to wait, %r: the recipient's domain"},
    "x-greylist-header": {"type": "string", "default": "X-Greylist: delayed %t seconds by greylist-%v at %h; %d", "description": "%t: seconds, %v: version, %h: host, %d: date; empty for none"},
    "hostname": {"type": "string", "description": "the %h of the header; the server's own name by default"},
    "privacy": {"type": "boolean", "default": false, "description": "keep digests instead of addresses"},
    "trusted": {"type": "boolean", "default": false, "description": "greylist clients that may relay, too"},
    "default-whitelist": {"type": "boolean", "default": true, "description": "spare the built-in list of large senders that retry from other networks, and postmaster and abuse"},
    "whitelist-clients": {"$ref": "#/$defs/lists", "description": "files in postgrey's format: names, addresses, networks, /patterns/"},
    "whitelist-recipients": {"$ref": "#/$defs/lists", "description": "files in postgrey's format: addresses, user@, domains, /patterns/"}
  },
  "$defs": {
    "length": {"type": ["string", "integer"]},
    "lists": {"type": "array", "items": {"$ref": "#/$defs/list"}},
    "list": {
      "type": "object",
      "additionalProperties": false,
      "properties": {
        "file": {"type": "string", "description": "a file's name"},
        "content": {"type": "string", "description": "its text; comes from the host"},
        "entries": {"type": "string", "description": "the lines themselves, instead of a file"}
      }
    }
  }
}"##;

const KEYS: [&str; 15] = [
    "delay",
    "retry-window",
    "max-age",
    "lookup-by",
    "ipv4cidr",
    "ipv6cidr",
    "auto-whitelist-clients",
    "greylist-text",
    "x-greylist-header",
    "hostname",
    "privacy",
    "trusted",
    "default-whitelist",
    "whitelist-clients",
    "whitelist-recipients",
];

const DAY: u64 = 86_400;
/// Ten years: longer is a mistake.
const MAX_LENGTH: u64 = 3660 * DAY;
const DEFAULT_CLIENTS: &str = include_str!("../whitelist_clients");
const DEFAULT_RECIPIENTS: &str = "postmaster@\nabuse@\n";

/// Reads the settings and the whitelists.
pub fn parse(settings: &str, warn: &mut dyn FnMut(String)) -> Result<Settings, Refused> {
    let value: Value = serde_json::from_str(settings).map_err(|err| refused("", format!("no JSON: {err}")))?;
    let Value::Object(map) = value else { return Err(refused("", "an object is needed".into())) };
    if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(refused(key, format!("is not known; there are {}", KEYS.join(", "))));
    }
    let read = Reader(&map);
    let settings = Settings {
        delay: read.length("delay", 300, 1)?,
        retry_window: read.length("retry-window", 2 * DAY, DAY)?,
        max_age: read.length("max-age", 35 * DAY, DAY)?,
        lookup_by: match read.text("lookup-by")?.as_deref() {
            None | Some("subnet") => LookupBy::Subnet,
            Some("host") => LookupBy::Host,
            Some("domain") => LookupBy::Domain,
            Some(other) => {
                return Err(refused(
                    "lookup-by",
                    format!("\"subnet\", \"host\" or \"domain\" is needed, not {other:?}"),
                ));
            }
        },
        ipv4cidr: u8::try_from(read.number("ipv4cidr", 24, 32)?).unwrap_or(32),
        ipv6cidr: u8::try_from(read.number("ipv6cidr", 64, 128)?).unwrap_or(128),
        auto_whitelist_clients: read.number("auto-whitelist-clients", 5, 1_000_000)?,
        privacy: read.truth("privacy", false)?,
        trusted: read.truth("trusted", false)?,
        clients: read.clients()?,
        recipients: read.recipients()?,
        text: read
            .text("greylist-text")?
            .unwrap_or_else(|| "Greylisted, see http://postgrey.schweikert.ch/help/%r.html".into()),
        header: read
            .text("x-greylist-header")?
            .unwrap_or_else(|| "X-Greylist: delayed %t seconds by greylist-%v at %h; %d".into()),
        hostname: read.text("hostname")?,
    };
    if !settings.header.is_empty() && !settings.header.split_once(':').is_some_and(|(name, _)| is_field_name(name)) {
        return Err(refused(
            "x-greylist-header",
            "a header field is needed, like \"X-Greylist: delayed %t seconds\"".into(),
        ));
    }
    if settings.retry_window <= settings.delay {
        warn("retry-window is not longer than delay: nobody can come back in time".into());
    }
    Ok(settings)
}

impl Settings {
    /// What the client is told.
    pub fn reply(&self, recipient: &str, missing: u64) -> String {
        let mut text = format!("<{recipient}>: Recipient address rejected: {}", self.greeting(recipient, missing));
        text.truncate(text.floor_char_boundary(480));
        text
    }

    /// The operator's text.
    pub fn greeting(&self, recipient: &str, missing: u64) -> String {
        let domain = recipient.rsplit('@').next().unwrap_or_default();
        self.text.replacen("%s", &missing.to_string(), 1).replacen("%r", domain, 1)
    }

    /// The header field of a message that had to wait.
    pub fn header(&self, delay: u64, host: &str, now: u64) -> String {
        let host = self.hostname.as_deref().unwrap_or(host);
        let header = self.header.replacen("%t", &delay.to_string(), 1);
        let header = header.replacen("%v", env!("CARGO_PKG_VERSION"), 1);
        header.replacen("%d", &date::text(now), 1).replacen("%h", host, 1)
    }
}

fn refused(key: &str, message: String) -> Refused {
    Refused { key: key.into(), message, ..Refused::default() }
}

/// RFC 5322 §2.2.
fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|octet| (33..=126).contains(&octet))
}

struct Reader<'a>(&'a Map<String, Value>);

impl Reader<'_> {
    fn text(&self, key: &str) -> Result<Option<String>, Refused> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.contains(char::is_control) => {
                Err(refused(key, "one line is needed".into()))
            }
            Some(Value::String(text)) if text.len() <= 900 => Ok(Some(text.clone())),
            Some(Value::String(_)) => Err(refused(key, "at most 900 octets fit".into())),
            Some(other) => Err(refused(key, format!("a text is needed, not {other}"))),
        }
    }

    fn truth(&self, key: &str, default: bool) -> Result<bool, Refused> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Value::Bool(truth)) => Ok(*truth),
            Some(other) => Err(refused(key, format!("true or false is needed, not {other}"))),
        }
    }

    fn number(&self, key: &str, default: u64, most: u64) -> Result<u64, Refused> {
        match self.0.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .filter(|number| *number <= most)
                .ok_or_else(|| refused(key, format!("a number from 0 to {most} is needed, not {value}"))),
        }
    }

    /// Seconds; a bare number counts in `unit`, as in postgrey's options.
    fn length(&self, key: &str, default: u64, unit: u64) -> Result<u64, Refused> {
        let seconds = match self.0.get(key) {
            None => Some(default),
            Some(Value::Number(number)) => number.as_u64().and_then(|number| number.checked_mul(unit)),
            Some(Value::String(text)) => length(text),
            Some(_) => None,
        };
        seconds.filter(|seconds| (1..=MAX_LENGTH).contains(seconds)).ok_or_else(|| {
            refused(key, "a length of time is needed, like \"300s\", \"5m\", \"6h\" or \"2d\"; up to ten years".into())
        })
    }

    fn clients(&self) -> Result<Clients, Refused> {
        let mut clients = Clients::default();
        self.lists("whitelist-clients", DEFAULT_CLIENTS, |text| clients.read(text))?;
        Ok(clients)
    }

    fn recipients(&self) -> Result<Recipients, Refused> {
        let mut recipients = Recipients::default();
        self.lists("whitelist-recipients", DEFAULT_RECIPIENTS, |text| recipients.read(text))?;
        Ok(recipients)
    }

    fn lists(
        &self,
        key: &str,
        built_in: &str,
        mut take: impl FnMut(&str) -> Result<(), crate::whitelist::Fault>,
    ) -> Result<(), Refused> {
        if self.truth("default-whitelist", true)? {
            take(built_in).map_err(|fault| refused("default-whitelist", fault.message))?;
        }
        let lists = match self.0.get(key) {
            None => return Ok(()),
            Some(Value::Array(lists)) => lists.as_slice(),
            Some(single @ Value::Object(_)) => std::slice::from_ref(single),
            Some(other) => {
                return Err(refused(key, format!("a list like [{{ file = \"NAME\" }}] is needed, not {other}")));
            }
        };
        for (index, list) in lists.iter().enumerate() {
            let key = format!("{key}.{index}");
            let text = list.get("content").or_else(|| list.get("entries")).and_then(Value::as_str);
            let text =
                text.ok_or_else(|| refused(&key, "{ file = \"NAME\" } or { entries = \"…\" } is needed".into()))?;
            take(text).map_err(|fault| Refused {
                key: key.clone(),
                message: fault.message,
                file: list.get("file").and_then(Value::as_str).map(str::to_owned),
                line: Some(fault.line),
            })?;
        }
        Ok(())
    }
}

/// `90s`, `5m`, `6h`, `2d`, `1w`.
fn length(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY,
        "w" => 7 * DAY,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
