//! Components in registries: the OCI Distribution Specification 1.1 as far as fetching goes, and artifacts as `wkg` and `oras` push
//! them: a manifest with one layer, which is the component.
//!
//! A registry is a stranger: each answer has limits, and what a digest names is checked against it. `oci-client` knows the grammar of
//! references and manifests; its own HTTP has no limits and follows redirections out of TLS, so it is not used.

use oci_client::Reference;
use oci_client::manifest::{
    OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciManifest, WASM_LAYER_MEDIA_TYPE,
};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::credentials;
use super::http::{FetchError, Http, host, success};
use super::store::Incoming;
use crate::plugin::Digest;

/// Octets of a manifest; the specification asks registries to take 4 MiB.
const MAX_MANIFEST: u64 = 4 << 20;
/// Octets of a token's answer.
const MAX_TOKEN: u64 = 256 << 10;
/// What a manifest may be. An index is asked for as well, to be refused by name.
const ACCEPT_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
/// What a component is pushed as: by the conventions of the Bytecode Alliance, and by those before them.
const LAYERS: [&str; 3] =
    ["application/wasm", WASM_LAYER_MEDIA_TYPE, "application/vnd.module.wasm.content.layer.v1+wasm"];

/// One repository of a registry.
pub(super) struct Repository<'a> {
    http: &'a Http,
    reference: &'a Reference,
    base: Url,
    authorization: Option<HeaderValue>,
}

/// A component as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// Of the manifest.
    pub manifest: Digest,
    /// Of the component.
    pub component: Digest,
    /// Octets.
    pub size: u64,
}

impl<'a> Repository<'a> {
    pub fn new(http: &'a Http, reference: &'a Reference) -> Result<Self, FetchError> {
        let registry = reference.resolve_registry();
        let scheme = if http.is_plain(registry) { "http" } else { "https" };
        let base = format!("{scheme}://{registry}/v2/{}/", reference.repository());
        let base = base.parse().map_err(|err| FetchError::manifest(format_args!("{base}: {err}")))?;
        Ok(Self { http, reference, base, authorization: None })
    }

    /// What the registry has under the reference: its digest if it has one, else its tag.
    pub async fn describe(&mut self) -> Result<Described, FetchError> {
        let asked = match self.reference.digest() {
            Some(digest) => Some(digest.parse::<Digest>().map_err(FetchError::manifest)?),
            None => None,
        };
        let name = match asked {
            Some(digest) => digest.to_string(),
            None => self.reference.tag().unwrap_or("latest").to_owned(),
        };
        let response = self.ask(&format!("manifests/{name}"), ACCEPT_MANIFEST).await?;
        let (host, headers) = (host(response.url()), response.headers().clone());
        let octets = Http::read(response, "a manifest", MAX_MANIFEST).await?;
        let manifest = Digest::of(&octets);
        let told: Option<Digest> = header(&headers, "docker-content-digest").and_then(|text| text.parse().ok());
        if let Some(expected) = asked.or(told).filter(|expected| *expected != manifest) {
            let (found, expected) = (manifest.to_string(), expected.to_string());
            return Err(FetchError::Other { host, what: "the manifest", found, expected });
        }
        let (component, size) =
            layer(&octets).map_err(|why| FetchError::manifest(format_args!("{}: {why}", self.reference)))?;
        Ok(Described { manifest, component, size })
    }

    /// Fetches the component.
    pub async fn fetch(&mut self, described: &Described, incoming: &mut Incoming) -> Result<(), FetchError> {
        let response = self.ask(&format!("blobs/{}", described.component), "application/wasm, */*").await?;
        let host = host(response.url());
        Http::save(response, incoming).await?;
        let (found, expected) = (incoming.digest(), described.component);
        if found == expected && incoming.size() == described.size {
            return Ok(());
        }
        let show = |digest: Digest, size: u64| format!("{digest} and {size} octets");
        let (found, expected) = (show(found, incoming.size()), show(expected, described.size));
        Err(FetchError::Other { host, what: "the component", found, expected })
    }

    /// Asks; where the registry wants to know who asks, it is told and asked again.
    async fn ask(&mut self, path: &str, accept: &'static str) -> Result<Response, FetchError> {
        let url = self.base.join(path).map_err(|err| FetchError::manifest(format_args!("{path}: {err}")))?;
        let response = self.http.ask(&url, accept, self.authorization.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || self.authorization.is_some() {
            return success(response);
        }
        let Some(authorization) = self.authorize(&url, response.headers()).await? else { return success(response) };
        self.authorization = Some(authorization);
        success(self.http.ask(&url, accept, self.authorization.as_ref()).await?)
    }

    /// What a challenge asks for, if it can be had.
    async fn authorize(&self, url: &Url, headers: &HeaderMap) -> Result<Option<HeaderValue>, FetchError> {
        let basic = credentials::basic(self.reference.resolve_registry());
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        for challenge in challenges {
            match Challenge::parse(challenge) {
                Some(Challenge::Bearer { realm, service }) => {
                    return self.token(&realm, service.as_deref(), basic.as_ref()).await.map(Some);
                }
                Some(Challenge::Basic) if Http::keeps_secrets(url) => return Ok(basic),
                _ => {}
            }
        }
        Ok(None)
    }

    /// A token of the registry's own choice: <https://distribution.github.io/distribution/spec/auth/token/>.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        basic: Option<&HeaderValue>,
    ) -> Result<HeaderValue, FetchError> {
        let wrong = |why: String| FetchError::manifest(format_args!("{}: {why}", self.base));
        let mut url: Url =
            realm.parse().map_err(|err| wrong(format!("its tokens cannot be had from {realm:?}: {err}")))?;
        url.query_pairs_mut().append_pair("scope", &format!("repository:{}:pull", self.reference.repository()));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let basic = basic.filter(|_| Http::keeps_secrets(&url));
        let response = success(self.http.ask(&url, "application/json", basic).await?)?;
        let octets = Http::read(response, "a token", MAX_TOKEN).await?;
        let token: Token = serde_json::from_slice(&octets).map_err(|err| wrong(format!("it gives no token: {err}")))?;
        let token = token.token.or(token.access_token).unwrap_or_default();
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut value = value.map_err(|_| wrong("its token cannot stand in a header".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// The one layer of a manifest that is a component; or why there is none.
fn layer(octets: &[u8]) -> Result<(Digest, u64), String> {
    let manifest: OciManifest = serde_json::from_slice(octets).map_err(|_| "it is no OCI manifest".to_owned())?;
    let manifest = match manifest {
        OciManifest::Image(manifest) => manifest,
        OciManifest::ImageIndex(index) => {
            let digests: Vec<&str> = index.manifests.iter().take(10).map(|entry| entry.digest.as_str()).collect();
            return Err(format!(
                "it is an index ({OCI_IMAGE_INDEX_MEDIA_TYPE}), not one component; name one of its manifests by digest: {}",
                digests.join(", ")
            ));
        }
    };
    if manifest.schema_version != 2 {
        return Err(format!("it is a manifest of version {}, not 2", manifest.schema_version));
    }
    if manifest.media_type.as_deref().is_some_and(|own| own != OCI_IMAGE_MEDIA_TYPE) {
        return Err(format!("it is a {}, not a {OCI_IMAGE_MEDIA_TYPE}", manifest.media_type.unwrap_or_default()));
    }
    let [only] = manifest.layers.as_slice() else {
        return Err(format!("it has {} layers; a component is one", manifest.layers.len()));
    };
    let OciDescriptor { media_type, digest, size, .. } = only;
    if !LAYERS.contains(&media_type.as_str()) {
        return Err(format!("its layer is a {media_type:?}; a component is one of {}", LAYERS.join(", ")));
    }
    let digest = digest.parse().map_err(|err| format!("its layer's digest is {digest:?}: {err}"))?;
    let size = u64::try_from(*size).map_err(|_| format!("its layer has {size} octets"))?;
    Ok((digest, size))
}

/// RFC 9110 §11.6.1, one challenge.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        let mut rest = rest.trim_start();
        while let Some((name, value)) = rest.split_once('=') {
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_once(',').unwrap_or((value, "")),
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                _ => {}
            }
            rest = after.trim_start_matches([',', ' ']);
        }
        Some(Self::Bearer { realm: realm?, service })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn manifest(layers: &str) -> String {
        let config = r#"{"mediaType": "application/vnd.wasm.config.v0+json", "digest": "sha256:00", "size": 2}"#;
        format!(
            r#"{{"schemaVersion": 2, "mediaType": "{OCI_IMAGE_MEDIA_TYPE}", "config": {config}, "layers": [{layers}]}}"#
        )
    }

    fn one(kind: &str, digest: &str, size: i64) -> String {
        format!(r#"{{"mediaType": "{kind}", "digest": "{digest}", "size": {size}}}"#)
    }

    #[test]
    fn one_layer_of_a_known_kind() {
        let digest = Digest::of(b"x");
        for kind in LAYERS {
            assert_eq!(layer(manifest(&one(kind, &digest.to_string(), 5)).as_bytes()), Ok((digest, 5)));
        }
    }

    #[test]
    fn others_are_refused_plainly() {
        let digest = Digest::of(b"x").to_string();
        let good = one(LAYERS[0], &digest, 5);
        for (text, why) in [
            ("nonsense".to_owned(), "no OCI manifest"),
            (manifest(""), "0 layers"),
            (manifest(&format!("{good}, {good}")), "2 layers"),
            (manifest(&one("application/vnd.oci.image.layer.v1.tar+gzip", &digest, 5)), "tar+gzip"),
            (manifest(&one(LAYERS[0], "sha512:00", 5)), "sha512:00"),
            (manifest(&one(LAYERS[0], &digest, -1)), "-1 octets"),
            (manifest(&good).replace("Version\": 2", "Version\": 1"), "version 1"),
            (manifest(&good).replace(OCI_IMAGE_MEDIA_TYPE, "application/x"), "application/x"),
            (
                format!(r#"{{"schemaVersion": 2, "mediaType": "{OCI_IMAGE_INDEX_MEDIA_TYPE}", "manifests": []}}"#),
                "index",
            ),
        ] {
            let err = layer(text.as_bytes()).unwrap_err();
            assert!(err.contains(why), "{text}: {err}");
        }
    }

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        for (text, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            ("Bearer realm=\"https://a/t\",service=\"s\",scope=\"r:x:pull,push\"", bearer("https://a/t", Some("s"))),
            ("bearer scope=\"a,b\", realm=\"https://a/t?x=1\"", bearer("https://a/t?x=1", None)),
            ("Bearer realm=plain,service=s", bearer("plain", Some("s"))),
            ("Bearer service=\"s\"", None),
            ("Bearer realm=\"open", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(text), expected, "{text}");
        }
    }
}
