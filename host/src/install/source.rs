//! Where a component comes from, as a command line or a config writes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_client::Reference;
use reqwest::Url;

/// What a config writes for the component that was installed under a name, wherever that came from.
const INSTALLED: &str = "installed:";

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file here.
    File(PathBuf),
    /// `oci://HOST/REPOSITORY:TAG` or `…@sha256:…`.
    Registry(Reference),
    /// `https://…`.
    Url(Url),
}

/// A text that is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}: {why}")]
pub struct NoSource {
    text: String,
    why: String,
}

impl Source {
    /// Whether what lies there can change while its name stays: a tag, a page. A file of one's own is no such surprise.
    pub fn can_move(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Registry(reference) => reference.digest().is_none(),
            Self::Url(_) => true,
        }
    }
}

impl FromStr for Source {
    type Err = NoSource;

    fn from_str(text: &str) -> Result<Self, NoSource> {
        let no = |why: &str| NoSource { text: text.to_owned(), why: why.to_owned() };
        match text.split_once("://") {
            Some(("oci", rest)) => registry(rest).map(Self::Registry).map_err(|why| no(&why)),
            Some(("https" | "http", _)) => {
                let url: Url = text.parse().map_err(|err| no(&format!("no URL: {err}")))?;
                if !url.username().is_empty() || url.password().is_some() {
                    return Err(no("user and password cannot stand in it: it is written to the lock file"));
                }
                Ok(Self::Url(url))
            }
            Some((scheme, _)) => {
                Err(no(&format!("nothing is fetched by {scheme}://; write a path, oci:// or https://")))
            }
            None if text.is_empty() => Err(no("an empty name is no source")),
            None => Ok(Self::File(text.into())),
        }
    }
}

fn registry(rest: &str) -> Result<Reference, String> {
    let form = "write oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:…, the repository in lower case";
    let reference: Reference = rest.parse().map_err(|err| format!("{err}; {form}"))?;
    // A reference without a host would be one of Docker's registry: here nothing is guessed.
    if rest.split_once('/').is_none_or(|(host, _)| host != reference.registry()) {
        return Err(format!("there is no host in it; {form}"));
    }
    if reference.digest().is_some_and(|digest| digest.parse::<crate::plugin::Digest>().is_err()) {
        return Err(format!("the digest is none that is known here; {form}"));
    }
    Ok(reference)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Registry(reference) => write!(f, "oci://{reference}"),
            Self::Url(url) => write!(f, "{url}"),
        }
    }
}

/// What a config's `source` means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    /// A file.
    File(&'a Path),
    /// What was installed under this name.
    Name(&'a str),
    /// What was installed from there.
    From(&'a str),
}

pub(super) fn wanted(source: &Path) -> Wanted<'_> {
    match source.to_str() {
        Some(text) => match text.strip_prefix(INSTALLED) {
            Some(name) => Wanted::Name(name),
            None if text.contains("://") => Wanted::From(text),
            None => Wanted::File(source),
        },
        None => Wanted::File(source),
    }
}

/// What a config writes for what is installed under this name from there.
pub(super) fn for_config(name: &str, source: &Source) -> String {
    match source {
        Source::File(_) => format!("{INSTALLED}{name}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_written_is_what_is_meant() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, can_move) in [
            ("build/x.wasm", false),
            ("oci://127.0.0.1:5000/filters/x:1.2", true),
            ("oci://registry.example/x:latest", true),
            (&format!("oci://registry.example/x@{digest}"), false),
            (&format!("oci://registry.example/x:1.2@{digest}"), false),
            ("https://example.org/x.wasm", true),
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!((source.to_string().as_str(), source.can_move()), (text, can_move));
        }
        assert_eq!("oci://localhost/x".parse::<Source>().unwrap().to_string(), "oci://localhost/x:latest");
    }

    #[test]
    fn nonsense_is_refused_with_a_word() {
        for (text, why) in [
            ("", "empty"),
            ("ftp://example.org/x", "ftp://"),
            ("oci://", "oci://HOST/REPOSITORY:TAG"),
            ("oci://x", "no host"),
            ("oci://filters/x:1", "no host"),
            ("oci://registry.example/X:1", "in lower case"),
            ("oci://registry.example/x@sha512:00", "oci://HOST"),
            ("oci://registry.example/../../etc/passwd", "oci://HOST"),
            ("https://", "no URL"),
            ("https://ann:secret@example.org/x.wasm", "password"),
        ] {
            let err = text.parse::<Source>().unwrap_err().to_string();
            assert!(err.contains(why), "{text}: {err}");
        }
    }

    #[test]
    fn what_a_config_means() {
        assert_eq!(wanted(Path::new("a/b.wasm")), Wanted::File(Path::new("a/b.wasm")));
        assert_eq!(wanted(Path::new("installed:x")), Wanted::Name("x"));
        assert_eq!(wanted(Path::new("oci://h.example/x:1")), Wanted::From("oci://h.example/x:1"));
    }
}
