//! The control socket: HTTP/1 (RFC 9112) with JSON over a Unix socket in the data directory. `route` says what is there; the CLI is one
//! client of it, curl another: `curl --unix-socket DATA-DIR/control.sock http://wasmta/status`.
//!
//! Architecture invariant: whoever may open the socket (0600, in a directory that is 0700) may do everything; nothing here asks who it is.

mod client;
mod memory;
mod queue;
mod route;

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

pub use client::{Client, ClientError};
pub use memory::{Deleted, KeyList, Keys, Value};
pub use queue::{Act, Acted, DestinationFacts, Listed, Order, QueueFacts, Shown};
pub use route::{GenerationFacts, House, ListenerFacts, PluginFacts, Status};

use route::{Answer, Question};

/// The socket's name in the data directory.
const SOCKET: &str = "control.sock";
/// Octets of a request's body.
const MAX_BODY: usize = 64 << 10;
/// Octets of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Clients at one time; more wait to be accepted.
const MAX_CLIENTS: usize = 32;
/// How long a client may take to send the head of a request, or the body.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the control socket of a data directory lies.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

/// The control socket, bound.
pub struct Control {
    socket: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Binds the socket. One that a killed server left is replaced; one that is answered is another server's.
    pub fn bind(data_dir: &Path) -> io::Result<Self> {
        let path = socket_path(data_dir);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => {
                if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server has this data directory"));
                }
                std::fs::remove_file(&path)?;
            }
            Ok(_) => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket has its name"));
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
        let socket = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { socket, path })
    }

    /// Answers until `stop` turns true.
    pub async fn serve(self, house: Arc<House>, mut stop: watch::Receiver<bool>) {
        let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok(permit) = Arc::clone(&clients).acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let house = Arc::clone(&house);
                    tokio::spawn(async move {
                        converse(stream, house).await;
                        drop(permit);
                    });
                }
                Err(err) => {
                    tracing::warn!("control socket: cannot accept a connection: {err}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Gone or not: the next start replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, house: Arc<House>) {
    let service = hyper::service::service_fn(move |request| {
        let house = Arc::clone(&house);
        async move { Ok::<_, Infallible>(answer(&house, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true) // who has asked all, and says so, still wants the answer
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(err) = connection.await {
        tracing::debug!("control socket: {err}");
    }
}

async fn answer(house: &Arc<House>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = tokio::time::timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await;
    let answer = match body {
        Ok(Ok(body)) => {
            let question = Question { method: head.method, path: head.uri.path().to_owned(), body: body.to_bytes() };
            route::answer(house, &question).await
        }
        Ok(Err(_)) => Answer::wrong(413, format!("a request's body has at most {MAX_BODY} octets here")),
        Err(_) => Answer::wrong(408, "the request's body did not come in time"),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status).unwrap_or_default();
    let kind = hyper::header::HeaderValue::from_static(answer.kind);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
