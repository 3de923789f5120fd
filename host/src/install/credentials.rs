//! What `docker login` keeps for a registry: config.json in $DOCKER_CONFIG or ~/.docker.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use reqwest::header::HeaderValue;
use serde::Deserialize;

/// Octets of the file.
const MAX_FILE: u64 = 1 << 20;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    /// `user:password` in Base64: just what stands behind `Basic` (RFC 7617).
    #[serde(default)]
    auth: String,
}

/// User and password for a registry as a header's value, if there are any. Credential helpers are not asked.
pub(super) fn basic(registry: &str) -> Option<HeaderValue> {
    let dir = std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let dir = dir.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")))?;
    let mut text = String::new();
    File::open(dir.join("config.json")).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    find(&text, registry)
}

fn find(text: &str, registry: &str) -> Option<HeaderValue> {
    let config: DockerConfig = serde_json::from_str(text).ok()?;
    // docker writes a host, or the URL that it used to have.
    let bare = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        key.split('/').next().unwrap_or_default().to_owned()
    };
    let (_, found) = config.auths.iter().find(|(key, auth)| bare(key) == registry && !auth.auth.is_empty())?;
    let base64 = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/' | b'=');
    let auth = Some(found.auth.trim()).filter(|auth| auth.bytes().all(base64))?;
    let mut value = HeaderValue::from_str(&format!("Basic {auth}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_host() {
        let text = r#"{"auths": {"registry.example": {"auth": "YW5uOnNlY3JldA=="}, "https://index.docker.io/v1/": {"auth": "YTpi"},
            "helper.example": {}, "odd.example": {"auth": "a\r\nX: y"}}, "credsStore": "x"}"#;
        let found = |registry| find(text, registry).and_then(|value| value.to_str().map(str::to_owned).ok());
        assert_eq!(found("registry.example").as_deref(), Some("Basic YW5uOnNlY3JldA=="));
        assert_eq!(found("index.docker.io").as_deref(), Some("Basic YTpi"));
        for registry in ["helper.example", "odd.example", "other.example", ""] {
            assert_eq!(found(registry), None, "{registry}");
        }
        assert_eq!(find("nonsense", "x"), None);
    }
}
