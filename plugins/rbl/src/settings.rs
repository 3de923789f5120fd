//! The settings: which zones, what they weigh, what follows.

use serde_json::{Map, Value};

use crate::name;
use crate::zone::{Code, Of, Pattern, Zone, known_codes};

/// Everything that the operator chose.
#[derive(Debug)]
pub struct Settings {
    /// The lists.
    pub zones: Vec<Zone>,
    /// What a listing leads to.
    pub mode: Mode,
    /// Points from which on mail is refused.
    pub threshold: f64,
    /// Whether clients that may relay are looked up, too.
    pub trusted: bool,
    exempt: Vec<String>,
}

/// What a listing leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The plugin refuses from `threshold` on.
    Reject,
    /// It raises symbols, and the sum of all plugins decides.
    Score,
}

/// Why the settings are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which setting.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// The schema of what `parse` understands.
pub const SCHEMA: &str = r##"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "zones": {"type": "array", "maxItems": 30, "items": {"$ref": "#/$defs/zone"}, "description": "the lists; by default zen.spamhaus.org"},
    "mode": {"enum": ["reject", "score"], "default": "reject", "description": "refuse here, or raise symbols for the common score"},
    "threshold": {"type": "number", "default": 1, "description": "in mode reject: from which sum of weights on mail is refused"},
    "spamhaus-key": {"type": "string", "description": "key of Spamhaus's query service: its zones are asked as KEY.zen.dq.spamhaus.net"},
    "exempt-recipients": {"type": "array", "items": {"type": "string"}, "default": ["postmaster", "abuse"], "description": "addresses, or users of any domain, that the listed may write to"},
    "trusted": {"type": "boolean", "default": false, "description": "look up clients that may relay, too"}
  },
  "$defs": {
    "zone": {
      "type": "object",
      "additionalProperties": false,
      "required": ["zone"],
      "properties": {
        "zone": {"type": "string", "description": "its name in the DNS"},
        "of": {"enum": ["client", "client-name", "helo", "sender"], "default": "client", "description": "what it is asked about: an address, or one of three domains"},
        "good": {"type": "boolean", "default": false, "description": "whether it is an allow list"},
        "weight": {"type": "number", "description": "points of a listing; by default 1, of an allow list -1"},
        "codes": {"type": "object", "description": "answers that count, as Postfix writes them (127.0.0.[4..7]), each with its weight; by default all in 127.0.0.0/8, or what is known of the zone"},
        "test": {"type": "boolean", "default": true, "description": "ask for the test points of RFC 5782 each hour and mute the zone if they are wrong"}
      }
    }
  }
}"##;

const KEYS: [&str; 6] = ["zones", "mode", "threshold", "spamhaus-key", "exempt-recipients", "trusted"];
const ZONE_KEYS: [&str; 6] = ["zone", "of", "good", "weight", "codes", "test"];
const MAX_ZONES: usize = 30;

/// Reads the settings.
pub fn parse(settings: &str) -> Result<Settings, Refused> {
    let value: Value = serde_json::from_str(settings).map_err(|err| refused("", format!("no JSON: {err}")))?;
    let Value::Object(map) = value else { return Err(refused("", "an object is needed".into())) };
    known("", &map, &KEYS)?;
    let key = match map.get("spamhaus-key") {
        None => None,
        Some(Value::String(key)) if !key.is_empty() && key.bytes().all(|octet| octet.is_ascii_alphanumeric()) => {
            Some(key.as_str())
        }
        Some(_) => return Err(refused("spamhaus-key", "letters and digits are needed".into())),
    };
    let default = [serde_json::json!({"zone": "zen.spamhaus.org"})];
    let zones = match map.get("zones") {
        None => default.as_slice(),
        Some(Value::Array(zones)) if zones.len() <= MAX_ZONES => zones,
        Some(_) => {
            return Err(refused(
                "zones",
                format!("a list like [{{ zone = \"NAME\" }}] is needed, of at most {MAX_ZONES}"),
            ));
        }
    };
    let zones = zones.iter().enumerate().map(|(index, value)| zone(&format!("zones.{index}"), value, key));
    Ok(Settings {
        zones: zones.collect::<Result<_, _>>()?,
        mode: match map.get("mode").map(|mode| mode.as_str().unwrap_or_default()) {
            None | Some("reject") => Mode::Reject,
            Some("score") => Mode::Score,
            Some(_) => return Err(refused("mode", "\"reject\" or \"score\" is needed".into())),
        },
        threshold: number("threshold", map.get("threshold"))?.unwrap_or(1.0),
        trusted: truth("trusted", map.get("trusted"))?.unwrap_or(false),
        exempt: exempt(map.get("exempt-recipients"))?,
    })
}

impl Settings {
    /// Whether the listed may write to this address.
    pub fn is_exempt(&self, recipient: &str) -> bool {
        let recipient = recipient.to_lowercase();
        let user = recipient.rsplit_once('@').map_or(recipient.as_str(), |(user, _)| user);
        self.exempt.iter().any(|exempt| *exempt == recipient || exempt.trim_end_matches('@') == user)
    }
}

fn refused(key: &str, message: String) -> Refused {
    Refused { key: key.into(), message }
}

fn known(at: &str, map: &Map<String, Value>, keys: &[&str]) -> Result<(), Refused> {
    let Some(key) = map.keys().find(|key| !keys.contains(&key.as_str())) else { return Ok(()) };
    let dot = if at.is_empty() { "" } else { "." };
    Err(refused(&format!("{at}{dot}{key}"), format!("is not known; there are {}", keys.join(", "))))
}

fn number(key: &str, value: Option<&Value>) -> Result<Option<f64>, Refused> {
    let Some(value) = value else { return Ok(None) };
    let number = value.as_f64().filter(|number| number.is_finite() && number.abs() <= 1e6);
    number.map(Some).ok_or_else(|| refused(key, format!("a number is needed, not {value}")))
}

fn truth(key: &str, value: Option<&Value>) -> Result<Option<bool>, Refused> {
    let Some(value) = value else { return Ok(None) };
    value.as_bool().map(Some).ok_or_else(|| refused(key, format!("true or false is needed, not {value}")))
}

fn exempt(value: Option<&Value>) -> Result<Vec<String>, Refused> {
    let Some(value) = value else { return Ok(vec!["postmaster".into(), "abuse".into()]) };
    let list = value.as_array().and_then(|list| {
        list.iter().map(|item| Some(item.as_str().filter(|text| !text.is_empty())?.to_lowercase())).collect()
    });
    list.ok_or_else(|| refused("exempt-recipients", "a list of addresses or users is needed".into()))
}

fn zone(at: &str, value: &Value, key: Option<&str>) -> Result<Zone, Refused> {
    let Value::Object(map) = value else {
        return Err(refused(at, format!("{{ zone = \"NAME\" }} is needed, not {value}")));
    };
    known(at, map, &ZONE_KEYS)?;
    let at = |key: &str| format!("{at}.{key}");
    let shown = map.get("zone").and_then(Value::as_str).and_then(name::domain);
    let shown = shown.ok_or_else(|| {
        refused(&at("zone"), "the list's name in the DNS is needed, like \"zen.spamhaus.org\"".into())
    })?;
    let of = match map.get("of") {
        None => Of::Client,
        Some(of) => of.as_str().and_then(Of::named).ok_or_else(|| {
            refused(&at("of"), "\"client\", \"client-name\", \"helo\" or \"sender\" is needed".into())
        })?,
    };
    let good = truth(&at("good"), map.get("good"))?.unwrap_or(false);
    let weight = number(&at("weight"), map.get("weight"))?.unwrap_or(if good { -1.0 } else { 1.0 });
    if (good && weight > 0.0) || (!good && weight < 0.0) {
        return Err(refused(
            &at("weight"),
            "points below 0 speak for the client: they belong to a zone with `good = true`, and only to one".into(),
        ));
    }
    let codes = match map.get("codes") {
        None => known_codes(&shown),
        Some(Value::Object(codes)) => {
            codes.iter().map(|(code, value)| self::code(&at("codes"), code, value)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(refused(&at("codes"), "a table like { \"127.0.0.[4..7]\" = 2.5 } is needed".into())),
    };
    let name = match (key, shown.strip_suffix(".spamhaus.org")) {
        (Some(key), Some(list)) => format!("{key}.{list}.dq.spamhaus.net"),
        _ => shown.clone(),
    };
    let test = truth(&at("test"), map.get("test"))?.unwrap_or(true);
    Ok(Zone { name, shown, of, good, weight, codes, test })
}

/// `"127.0.0.2" = 3.5`, or `{ weight = 3.5, meaning = "SBL" }`.
fn code(at: &str, code: &str, value: &Value) -> Result<Code, Refused> {
    let at = format!("{at}.{code}");
    let pattern = Pattern::parse(code);
    let pattern = pattern
        .ok_or_else(|| refused(&at, "is no answer; write 127.0.0.2, 127.0.0.[4..7] or 127.0.0.[2;4..7]".into()))?;
    let (weight, meaning) = match value {
        Value::Object(map) => {
            known(&at, map, &["weight", "meaning"])?;
            (map.get("weight"), map.get("meaning").and_then(Value::as_str).unwrap_or_default())
        }
        weight => (Some(weight), ""),
    };
    Ok(Code { pattern, meaning: meaning.into(), weight: number(&at, weight)? })
}
