//! `--name value` pairs of the benches.

use std::str::FromStr;

use crate::machine::Result;

/// What was given on the command line, checked against the names a bench knows.
pub struct Options(Vec<(String, String)>);

impl Options {
    /// Refuses a name that is not `known` and a name without value.
    pub fn parse(words: &[&str], known: &[&str]) -> Result<Self> {
        let mut pairs = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").filter(|name| known.contains(name));
            let name = name.ok_or_else(|| format!("{word}: the options are --{}", known.join(", --")))?;
            let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
            pairs.push((name.to_owned(), (*value).to_owned()));
        }
        Ok(Self(pairs))
    }

    /// The last value given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// One value, or what holds without.
    pub fn value<T: FromStr>(&self, name: &str, default: T) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        self.text(name).map_or(Ok(default), |text| read(name, text))
    }

    /// Values with commas between, or what holds without.
    pub fn list<T: FromStr>(&self, name: &str, default: &str) -> Result<Vec<T>>
    where
        T::Err: std::fmt::Display,
    {
        self.text(name).unwrap_or(default).split(',').map(|item| read(name, item)).collect()
    }
}

fn read<T: FromStr>(name: &str, text: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.trim().parse().map_err(|error| format!("--{name} {text}: {error}").into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_lists_and_mistakes() {
        let options = Options::parse(&["--count", "7", "--sizes", "1,2"], &["count", "sizes"]).unwrap();
        assert_eq!(options.value("count", 5).unwrap(), 7);
        assert_eq!(options.value("rounds", 3).unwrap(), 3);
        assert_eq!(options.list::<u64>("sizes", "9").unwrap(), [1, 2]);
        for wrong in [["--cuont", "7"].as_slice(), &["--count"], &["count", "7"]] {
            assert!(Options::parse(wrong, &["count"]).is_err(), "{wrong:?}");
        }
        assert!(Options::parse(&["--count", "x"], &["count"]).unwrap().value("count", 5).is_err());
    }
}
