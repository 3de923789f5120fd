//! A domain, or all names below one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mail::{AddressError, Domain};

/// `example.org` for that name alone, `.example.org` for every name below it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainPattern {
    domain: Domain,
    below: bool,
}

impl DomainPattern {
    /// Whether it means this domain.
    pub fn matches(&self, domain: &Domain) -> bool {
        if !self.below {
            return self.domain == *domain;
        }
        let (name, base) = (domain.as_str().as_bytes(), self.domain.as_str().as_bytes());
        name.len().checked_sub(base.len() + 1).and_then(|dot| name.get(dot..)).is_some_and(|tail| {
            tail.split_first().is_some_and(|(dot, tail)| *dot == b'.' && tail.eq_ignore_ascii_case(base))
        })
    }
}

impl FromStr for DomainPattern {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix('.') {
            Some(base) => Ok(Self { domain: base.parse()?, below: true }),
            None => Ok(Self { domain: text.parse()?, below: false }),
        }
    }
}
impl TryFrom<String> for DomainPattern {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}
impl From<DomainPattern> for String {
    fn from(pattern: DomainPattern) -> Self {
        pattern.to_string()
    }
}
impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "." } else { "" }, self.domain)
    }
}
impl fmt::Debug for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
