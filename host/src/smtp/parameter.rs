//! Parameters of MAIL and RCPT: RFC 5321 §4.1.1.11, SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), DSN (RFC 3461, RFC 6533).

use super::config::{Config, Extension};
use crate::mail::{BodyType, DsnReturn, Notify};

/// Characters of ENVID as it stands in MAIL, RFC 3461 §4.4.
const MAX_ENVID: usize = 100;
/// Characters of ORCPT as it stands in RCPT, RFC 3461 §4.2.
const MAX_ORCPT: usize = 500;
/// Digits of SIZE, RFC 1870 §3.
const MAX_SIZE_DIGITS: usize = 20;

/// Why parameters are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParameterError {
    /// Not KEYWORD or KEYWORD=VALUE, a value the keyword cannot have, or twice the same.
    Malformed,
    /// A keyword that was not announced.
    Unknown,
}

/// What MAIL said besides the reverse-path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MailParameters {
    pub(super) size: Option<u64>,
    pub(super) body: Option<BodyType>,
    pub(super) smtputf8: bool,
    pub(super) ret: Option<DsnReturn>,
    pub(super) envelope_id: Option<String>,
}

/// What RCPT said besides the forward-path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct RcptParameters {
    pub(super) notify: Option<Notify>,
    pub(super) original: Option<String>,
}

/// Cuts `text` into keywords and values; one with `=` and nothing behind it is malformed.
fn parameters(text: &str) -> impl Iterator<Item = Result<(&str, Option<&str>), ParameterError>> {
    text.split(' ').filter(|word| !word.is_empty()).map(|word| {
        let (keyword, value) = word.split_once('=').map_or((word, None), |(keyword, value)| (keyword, Some(value)));
        let sound_keyword = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
            && keyword.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
        let sound_value =
            value.is_none_or(|value| !value.is_empty() && value.chars().all(|c| !c.is_control() && c != '='));
        if sound_keyword && sound_value { Ok((keyword, value)) } else { Err(ParameterError::Malformed) }
    })
}

/// Puts a value where none may be yet.
fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), ParameterError> {
    match (slot.is_some(), value) {
        (false, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(ParameterError::Malformed),
    }
}

/// Parameters of MAIL.
pub(super) fn parse_mail(text: &str, config: &Config) -> Result<MailParameters, ParameterError> {
    let mut parsed = MailParameters::default();
    let mut auth = None;
    for parameter in parameters(text) {
        let (keyword, value) = parameter?;
        let is = |name: &str| keyword.eq_ignore_ascii_case(name);
        let dsn = config.offers(Extension::Dsn);
        if is("SIZE") {
            once(&mut parsed.size, value.and_then(parse_size))?;
        } else if is("BODY") {
            // BINARYMIME was not announced: RFC 5321 §4.1.1.11.
            let body = value.and_then(parse_body).ok_or(ParameterError::Unknown)?;
            once(&mut parsed.body, Some(body))?;
        } else if is("SMTPUTF8") && config.offers(Extension::SmtpUtf8) {
            if parsed.smtputf8 || value.is_some() {
                return Err(ParameterError::Malformed);
            }
            parsed.smtputf8 = true;
        } else if is("RET") && dsn {
            once(&mut parsed.ret, value.and_then(parse_ret))?;
        } else if is("ENVID") && dsn {
            let sound = |id: &&str| id.len() <= MAX_ENVID && is_xtext(id);
            once(&mut parsed.envelope_id, value.filter(sound).map(str::to_owned))?;
        } else if is("AUTH") && value == Some("<>") {
            // RFC 4954 §5: "sent by nobody I vouch for". Some clients say it unasked; it claims nothing.
            once(&mut auth, Some(()))?;
        } else {
            return Err(ParameterError::Unknown);
        }
    }
    Ok(parsed)
}

/// Parameters of RCPT; `smtputf8` as MAIL said.
pub(super) fn parse_rcpt(text: &str, smtputf8: bool, config: &Config) -> Result<RcptParameters, ParameterError> {
    let mut parsed = RcptParameters::default();
    for parameter in parameters(text) {
        let (keyword, value) = parameter?;
        if keyword.eq_ignore_ascii_case("NOTIFY") && config.offers(Extension::Dsn) {
            once(&mut parsed.notify, value.and_then(parse_notify))?;
        } else if keyword.eq_ignore_ascii_case("ORCPT") && config.offers(Extension::Dsn) {
            let sound = |original: &&str| original.len() <= MAX_ORCPT && is_original_recipient(original, smtputf8);
            once(&mut parsed.original, value.filter(sound).map(str::to_owned))?;
        } else {
            return Err(ParameterError::Unknown);
        }
    }
    Ok(parsed)
}

fn parse_size(value: &str) -> Option<u64> {
    let digits = value.len() <= MAX_SIZE_DIGITS && value.bytes().all(|octet| octet.is_ascii_digit());
    // 20 digits can say more than 64 bits hold; larger than any limit it is either way.
    digits.then(|| value.parse().unwrap_or(u64::MAX))
}

fn parse_body(value: &str) -> Option<BodyType> {
    match value {
        _ if value.eq_ignore_ascii_case("7BIT") => Some(BodyType::SevenBit),
        _ if value.eq_ignore_ascii_case("8BITMIME") => Some(BodyType::EightBitMime),
        _ => None,
    }
}

fn parse_ret(value: &str) -> Option<DsnReturn> {
    match value {
        _ if value.eq_ignore_ascii_case("FULL") => Some(DsnReturn::Full),
        _ if value.eq_ignore_ascii_case("HDRS") => Some(DsnReturn::Headers),
        _ => None,
    }
}

fn parse_notify(value: &str) -> Option<Notify> {
    let mut notify = Notify::NEVER;
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(notify); // RFC 3461 §4.1: stands alone
    }
    for word in value.split(',') {
        let flag = match word {
            _ if word.eq_ignore_ascii_case("SUCCESS") => &mut notify.success,
            _ if word.eq_ignore_ascii_case("FAILURE") => &mut notify.failure,
            _ if word.eq_ignore_ascii_case("DELAY") => &mut notify.delay,
            _ => return None,
        };
        if std::mem::replace(flag, true) {
            return None;
        }
    }
    Some(notify)
}

/// RFC 3461 §4: printable ASCII, where `+` begins two hexadecimal digits. What is hidden in them must be printable as well, or it
/// could break a line of the notice that it ends up in.
fn is_xtext(text: &str) -> bool {
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let printable = match octet {
            b'+' => hex_octet(octets.next(), octets.next()).is_some_and(|hidden| (32..127).contains(&hidden)),
            b'=' => false,
            _ => octet.is_ascii_graphic(),
        };
        if !printable {
            return false;
        }
    }
    !text.is_empty()
}

fn hex_octet(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    u8::try_from(digit(high?)? * 16 + digit(low?)?).ok()
}

/// `ADDRESS-TYPE;xtext`, RFC 3461 §4.2, and `utf-8;…` of RFC 6533 §3.
fn is_original_recipient(text: &str, smtputf8: bool) -> bool {
    let Some((kind, address)) = text.split_once(';') else {
        return false;
    };
    let atom = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*-/?^_`{|}~".contains(&octet);
    if kind.is_empty() || !kind.bytes().all(atom) {
        return false;
    }
    if kind.eq_ignore_ascii_case("utf-8") { is_utf8_address(address, smtputf8) } else { is_xtext(address) }
}

/// RFC 6533 §3: `\x{HEX}` stands for a character; others stand for themselves if SMTPUTF8 was asked for.
fn is_utf8_address(text: &str, smtputf8: bool) -> bool {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        if c == '\\' {
            let Some((hex, after)) = rest.strip_prefix("x{").and_then(|inner| inner.split_once('}')) else {
                return false;
            };
            let digits = (2..=6).contains(&hex.len()) && hex.bytes().all(|octet| octet.is_ascii_hexdigit());
            let character = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
            if !digits || character.is_none_or(char::is_control) {
                return false;
            }
            rest = after;
        } else if !(c.is_ascii_graphic() && c != '+' && c != '=') && (c.is_ascii() || !smtputf8 || c.is_control()) {
            return false;
        }
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::ParameterError::{Malformed, Unknown};
    use super::*;

    #[test]
    fn mail() {
        let parse = |text| parse_mail(text, &Config::default());
        let parsed = parse(" SIZE=1000 BODY=8bitmime  smtputf8 RET=HDRS ENVID=QQ314159+2B AUTH=<>").expect("sound");
        assert_eq!((parsed.size, parsed.body), (Some(1000), Some(BodyType::EightBitMime)));
        assert!(parsed.smtputf8);
        assert_eq!((parsed.ret, parsed.envelope_id.as_deref()), (Some(DsnReturn::Headers), Some("QQ314159+2B")));
        assert_eq!(parse("SIZE=99999999999999999999").expect("20 digits").size, Some(u64::MAX));
        assert_eq!(parse(""), Ok(MailParameters::default()));
        let long_id = format!("ENVID={}", "x".repeat(101));
        for (text, error) in [
            ("SIZE=", Malformed),
            ("SIZE", Malformed),
            ("SIZE=-1", Malformed),
            ("SIZE=1 SIZE=1", Malformed),
            ("SIZE=999999999999999999999", Malformed),
            ("BODY=7BIT BODY=7BIT", Malformed),
            ("BODY=BINARYMIME", Unknown),
            ("BODY", Unknown),
            ("SMTPUTF8=yes", Malformed),
            ("SMTPUTF8 SMTPUTF8", Malformed),
            ("RET=ALL", Malformed),
            ("ENVID=a+0D+0Ab", Malformed),
            ("ENVID=a+0", Malformed),
            ("ENVID=a=b", Malformed),
            (&long_id, Malformed),
            ("=x", Malformed),
            ("-X=1", Malformed),
            ("AUTH=<> AUTH=<>", Malformed),
            ("AUTH=a@b.example", Unknown),
            ("NOTIFY=NEVER", Unknown),
            ("HOLDFOR=1", Unknown),
            ("x", Unknown),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn rcpt() {
        let parse = |text| parse_rcpt(text, false, &Config::default());
        let parsed = parse("NOTIFY=success,DELAY ORCPT=rfc822;Bob+2Btag@ivory.example").expect("sound");
        assert_eq!(parsed.notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!(parsed.original.as_deref(), Some("rfc822;Bob+2Btag@ivory.example"));
        assert_eq!(parse("NOTIFY=NEVER").expect("sound").notify, Some(Notify::NEVER));
        assert!(parse(r"ORCPT=utf-8;\x{FC}ser@x.example").is_ok());
        assert!(parse_rcpt("ORCPT=utf-8;üser@x.example", true, &Config::default()).is_ok());
        let long = format!("ORCPT=rfc822;{}", "x".repeat(500));
        for (text, error) in [
            ("NOTIFY=", Malformed),
            ("NOTIFY=NEVER,SUCCESS", Malformed),
            ("NOTIFY=SUCCESS,SUCCESS", Malformed),
            ("NOTIFY=SUCCESS,", Malformed),
            ("NOTIFY=NEVER NOTIFY=NEVER", Malformed),
            ("ORCPT=bob@x.example", Malformed),
            ("ORCPT=;bob@x.example", Malformed),
            ("ORCPT=rfc822;", Malformed),
            ("ORCPT=rfc822;a+0Ab", Malformed),
            ("ORCPT=utf-8;üser@x.example", Malformed),
            (r"ORCPT=utf-8;\x{A}", Malformed),
            (r"ORCPT=utf-8;\x{D800}", Malformed),
            (&long, Malformed),
            ("SIZE=1", Unknown),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn what_is_off_is_unknown() {
        let config = Config {
            disabled_extensions: [Extension::Dsn, Extension::SmtpUtf8].into_iter().collect(),
            ..Config::default()
        };
        assert_eq!(parse_mail("RET=FULL", &config), Err(Unknown));
        assert_eq!(parse_mail("SMTPUTF8", &config), Err(Unknown));
        assert_eq!(parse_rcpt("NOTIFY=NEVER", false, &config), Err(Unknown));
    }
}
