//! The other end of the control socket, for the CLI.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::queue::{Act, Acted, Listed, Order, Shown};
use super::socket_path;
use crate::generation::Reloaded;
use crate::mail::QueueId;
use crate::queue::Filter;

/// Octets of an answer.
const MAX_ANSWER: usize = 64 << 20;
/// How long an answer may take; the server might be busy with a large queue.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no wasmta is running with {0}: start it with `wasmta serve`, or name its config with -c FILE")]
    NotRunning(PathBuf),
    /// The socket cannot be used.
    #[error("control socket {0}: {1}")]
    Socket(PathBuf, io::Error),
    /// The server's answer is none.
    #[error("the server's answer cannot be understood: {0}")]
    Answer(String),
    /// The server says what is wrong with the question.
    #[error("{0}")]
    Refused(String),
    /// No answer in time.
    #[error("the server did not answer within {0:?}")]
    Timeout(Duration),
}

/// One that asks the server of a data directory.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// Nothing is sent yet.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: socket_path(data_dir) }
    }

    /// Asks for what lies at `path`, like `/status`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Vec::new(), PATIENCE).await
    }

    /// Messages of the queue.
    pub async fn list(&self, filter: &Filter) -> Result<Listed, ClientError> {
        self.post("/queue/list", filter).await
    }

    /// One message of the queue.
    pub async fn show(&self, id: QueueId) -> Result<Shown, ClientError> {
        self.get(&format!("/queue/{id}")).await
    }

    /// Does something to messages of the queue.
    pub async fn act(&self, act: Act, order: &Order) -> Result<Acted, ClientError> {
        self.post(&format!("/queue/{}", act.as_str()), order).await
    }

    /// Has the server read its config again; it is given `patience` for that beyond the usual.
    pub async fn reload(&self, patience: Duration) -> Result<Reloaded, ClientError> {
        self.ask(Method::POST, "/reload", Vec::new(), patience + PATIENCE).await
    }

    /// Asks for something to be done, like `/queue/flush`.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|err| ClientError::Answer(err.to_string()))?;
        self.ask(Method::POST, path, body, PATIENCE).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let answer = tokio::time::timeout(patience, self.exchange(method, path, body));
        let (status, body) = answer.await.map_err(|_| ClientError::Timeout(patience))??;
        if !(200..300).contains(&status) {
            let told = serde_json::from_slice::<super::route::Wrong>(&body).map(|wrong| wrong.error);
            return Err(ClientError::Refused(told.unwrap_or_else(|_| format!("the server answers {status}"))));
        }
        serde_json::from_slice(&body).map_err(|err| ClientError::Answer(err.to_string()))
    }

    async fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(u16, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|err| match err.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(self.path.clone()),
            _ => ClientError::Socket(self.path.clone(), err),
        })?;
        let unclear = |err: hyper::Error| ClientError::Answer(err.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unclear)?;
        let request =
            Request::builder().method(method).uri(path).header("host", "wasmta").body(Full::new(Bytes::from(body)));
        let request = request.map_err(|err| ClientError::Answer(err.to_string()))?;
        let asked = async {
            let response = sender.send_request(request).await.map_err(unclear)?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            body.map(|body| (status, body.to_bytes())).map_err(|err| ClientError::Answer(err.to_string()))
        };
        // The connection is driven only as long as the answer is awaited.
        tokio::select! {
            answer = asked => answer,
            Err(err) = connection => Err(unclear(err)),
        }
    }
}
