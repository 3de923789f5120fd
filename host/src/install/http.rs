//! HTTP with limits: on octets, on time, on redirections, and on where octets may go in the clear.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Response, StatusCode, Url};

use super::store::Incoming;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// How long one whole answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Redirections of one request.
const MAX_REDIRECTS: usize = 5;

/// Where plain HTTP may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainHttp {
    /// To this machine only.
    #[default]
    Loopback,
    /// Everywhere: the operator said so.
    Anywhere,
}

/// Why something could not be fetched. Whose fault it is stands in the text.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server cannot be reached, or the connection broke.
    #[error("{host}: {why}")]
    Broken {
        /// Whom we asked.
        host: String,
        /// What happened.
        why: String,
    },
    /// The server's answer is not a success.
    #[error("{host} answers {status} to {path}{hint}")]
    Status {
        /// Whom we asked.
        host: String,
        /// What it said.
        status: StatusCode,
        /// For what.
        path: String,
        /// What to do.
        hint: &'static str,
    },
    /// More octets than there may be.
    #[error("{host} sends more than the {limit} octets that {what} may have")]
    TooLarge {
        /// Who.
        host: String,
        /// How many there may be.
        limit: u64,
        /// Of what.
        what: &'static str,
    },
    /// No whole answer in time.
    #[error("{host} did not send the whole answer within {} s", limit.as_secs())]
    TooSlow {
        /// Who.
        host: String,
        /// How long it had.
        limit: Duration,
    },
    /// In the clear, to another machine.
    #[error(
        "{0} would be fetched without TLS: anybody on the way could change it; use https, or say --plain-http if you trust the way"
    )]
    Plain(String),
    /// What came is not what was asked for.
    #[error("{host} sends something else than it was asked for: {what} has {found}, and should have {expected}")]
    Other {
        /// Who.
        host: String,
        /// What it is about.
        what: &'static str,
        /// What came.
        found: String,
        /// What should have come.
        expected: String,
    },
    /// The registry's answer is no component's manifest.
    #[error("{0}")]
    Manifest(String),
    /// The disk here.
    #[error("cannot write {0}")]
    Disk(std::io::Error),
}

impl FetchError {
    /// Of what a registry says; its words end up on a terminal.
    pub(super) fn manifest(text: impl std::fmt::Display) -> Self {
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        Self::Manifest(text.to_string().chars().map(clean).take(2000).collect())
    }
}

/// Fetches things.
pub(super) struct Http {
    client: reqwest::Client,
    plain: PlainHttp,
}

impl Http {
    pub fn new(plain: PlainHttp) -> Result<Self, FetchError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("wasmta/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(Policy::custom(move |attempt| redirected(plain, attempt)))
            .build();
        let client = client.map_err(|err| FetchError::Broken { host: "this machine".into(), why: explain(&err) })?;
        Ok(Self { client, plain })
    }

    /// Whether a host is asked without TLS.
    pub fn is_plain(&self, host: &str) -> bool {
        self.plain == PlainHttp::Anywhere || is_loopback(host)
    }

    /// Whether secrets may go there.
    pub fn keeps_secrets(url: &Url) -> bool {
        url.scheme() == "https" || url.host_str().is_some_and(is_loopback)
    }

    /// Asks, and waits for the head of the answer; any status will do.
    pub async fn ask(
        &self,
        url: &Url,
        accept: &'static str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, FetchError> {
        if !allowed(self.plain, url) {
            return Err(FetchError::Plain(url.to_string()));
        }
        let mut request = self.client.get(url.clone()).header(ACCEPT, accept);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        in_time(url, PATIENCE, async { request.send().await.map_err(|err| broken(url, &err)) }).await
    }

    /// The rest of an answer, in memory.
    pub async fn read(mut response: Response, what: &'static str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let url = response.url().clone();
        in_time(&url, PATIENCE, async {
            let mut octets = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|err| broken(&url, &err))? {
                if (octets.len() + chunk.len()) as u64 > limit {
                    return Err(FetchError::TooLarge { host: host(&url), limit, what });
                }
                octets.extend_from_slice(&chunk);
            }
            Ok(octets)
        })
        .await
    }

    /// The rest of an answer, on the disk. The caller sets the limit on time: a component may be large and the way slow.
    pub async fn save(mut response: Response, incoming: &mut Incoming) -> Result<(), FetchError> {
        let url = response.url().clone();
        let limit = incoming.limit();
        let too_large = || FetchError::TooLarge { host: host(&url), limit, what: "the component" };
        // One that says so is believed: it saves the way.
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        while let Some(chunk) = response.chunk().await.map_err(|err| broken(&url, &err))? {
            if !incoming.push(&chunk).map_err(FetchError::Disk)? {
                return Err(too_large());
            }
        }
        Ok(())
    }
}

/// An answer that is a success, or what it is instead.
pub(super) fn success(response: Response) -> Result<Response, FetchError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; it may want a login (`docker login` puts one where wasmta reads it: config.json in $DOCKER_CONFIG or ~/.docker), or \
             it may not exist"
        }
        StatusCode::NOT_FOUND => "; look for a mistake in the name or the tag",
        _ => "",
    };
    let url = response.url();
    Err(FetchError::Status { host: host(url), status, path: url.path().to_owned(), hint })
}

async fn in_time<T>(
    url: &Url,
    limit: Duration,
    work: impl Future<Output = Result<T, FetchError>>,
) -> Result<T, FetchError> {
    let late = |_| FetchError::TooSlow { host: host(url), limit };
    tokio::time::timeout(limit, work).await.map_err(late)?
}

/// RFC 9110 §15.4, as far as it can be trusted: never out of TLS, never for long.
fn redirected(plain: PlainHttp, attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let out_of_tls = |from: &Url| from.scheme() == "https" && attempt.url().scheme() != "https";
    if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error(format!("more than {MAX_REDIRECTS} redirections"))
    } else if !allowed(plain, attempt.url()) || attempt.previous().last().is_some_and(out_of_tls) {
        let to = attempt.url().to_string();
        attempt.error(format!("redirects to {to}, which is not protected by TLS"))
    } else {
        attempt.follow()
    }
}

fn allowed(plain: PlainHttp, url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => plain == PlainHttp::Anywhere || url.host_str().is_some_and(is_loopback),
        _ => false,
    }
}

/// `localhost`, 127.0.0.0/8 and `[::1]`, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        _ => host,
    };
    let address: Option<IpAddr> = name.trim_matches(['[', ']']).parse().ok();
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

/// Host and port, for the operator.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn broken(url: &Url, err: &reqwest::Error) -> FetchError {
    FetchError::Broken { host: host(err.url().unwrap_or(url)), why: explain(err) }
}

/// The innermost reason: the outer ones only say that there was one.
fn explain(err: &reqwest::Error) -> String {
    if err.is_timeout() {
        return "no answer in time".into();
    }
    let mut inner: &dyn std::error::Error = err;
    while let Some(next) = inner.source() {
        inner = next;
    }
    let text: String = inner.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    if err.is_body() || err.is_decode() { format!("the answer broke off: {text}") } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn plain_http_stays_here() {
        for (url, here, anywhere) in [
            ("https://example.org/x", true, true),
            ("http://127.0.0.1:5000/v2/", true, true),
            ("http://127.8.9.1/", true, true),
            ("http://[::1]:5000/", true, true),
            ("http://LocalHost/", true, true),
            ("http://localhost.example.org/", false, true),
            ("http://127.0.0.1.example.org/", false, true),
            ("http://192.0.2.1/", false, true),
            ("http://[2001:db8::1]/", false, true),
            ("ftp://127.0.0.1/", false, false),
            ("file:///etc/passwd", false, false),
        ] {
            let url: Url = url.parse().unwrap();
            assert_eq!(allowed(PlainHttp::Loopback, &url), here, "{url}");
            assert_eq!(allowed(PlainHttp::Anywhere, &url), anywhere, "{url}");
        }
    }

    #[test]
    fn loopback_by_name_and_port() {
        for (host, is) in
            [("127.0.0.1:5000", true), ("localhost:5000", true), ("[::1]:5000", true), ("[::1]", true), ("h:1", false)]
        {
            assert_eq!(is_loopback(host), is, "{host}");
        }
    }
}
