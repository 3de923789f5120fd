//! Where clients come in: accepts connections, counts sessions, and drives `smtp::Server` over each of them.
//!
//! Architecture invariant: every judgement is made elsewhere (`smtp` says what is legal, `directory` who is local, the policies what is
//! wanted, `queue` what is safe); this room carries octets and answers between them.

mod body;
mod config;
mod message;
mod permits;
mod session;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub use config::{Config, Protocol};

use crate::directory::Directory;
use crate::mail::Reply;
use crate::plugin::Chain;
use crate::queue::Queue;
use crate::{policy, smtp};
use permits::{Limits, Permits, Refused};

/// Connections that wait to be accepted. A burst of clients must fit in.
const BACKLOG: i32 = 4096;
/// How long to wait when the system has no more descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// One listener at work.
pub struct Listener {
    shared: Arc<Shared>,
    socket: TcpListener,
}

/// What all sessions of one listener share.
struct Shared {
    name: String,
    queue: Queue,
    permits: Permits,
    terms: Box<dyn Fn() -> Arc<Terms> + Send + Sync>,
}

/// What a session begins with and finishes with, whatever is reloaded meanwhile.
pub struct Terms {
    /// The listener's own config.
    pub config: Config,
    /// Limits of the protocol, and how this host names itself.
    pub smtp: Arc<smtp::Settings>,
    /// Who is local.
    pub directory: Arc<Directory>,
    /// Who judges.
    pub chain: Chain,
    /// What a client hears of recipients elsewhere if there is no way to reach them; none if there is one.
    pub no_relay: Option<Reply>,
    /// Tells how long somebody goes by these terms.
    pub alive: Arc<dyn Send + Sync>,
}

/// A port that is ours, at which nobody is served yet: taken before anything else, so that a port in use leaves nothing behind.
pub struct Port(Socket);

impl Port {
    /// Takes it.
    pub fn take(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        Ok(Self(socket))
    }
}

/// What a listener needs of the rest of the house.
pub struct Parts {
    /// Its port.
    pub port: Port,
    /// Its name.
    pub name: String,
    /// Where messages go.
    pub queue: Queue,
    /// What a session goes by that begins now.
    pub terms: Box<dyn Fn() -> Arc<Terms> + Send + Sync>,
}

impl Listener {
    /// Opens the port: clients may connect, and are served from `serve` on.
    pub fn open(parts: Parts) -> io::Result<Self> {
        let Parts { port: Port(socket), name, queue, terms } = parts;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        let shared = Shared { name, queue, permits: Permits::new(), terms };
        Ok(Self { shared: Arc::new(shared), socket })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves clients until `stop` turns true, then ends the sessions: each finishes the transaction it is in. Returns when the last
    /// one is gone; the caller sets the limit on that.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let (alive, mut all_gone) = tokio::sync::mpsc::channel::<()>(1);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, client)) => {
                    let (shared, stop, alive) = (Arc::clone(&self.shared), stop.clone(), alive.clone());
                    tokio::spawn(async move {
                        shared.welcome(stream, client, stop).await;
                        drop(alive);
                    });
                }
                Err(err) => {
                    // Too many open files: sessions that end make room. Anything else concerns that one client.
                    tracing::warn!(listener = self.shared.name, "cannot accept a connection: {err}");
                    tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                }
            }
        }
        drop(self.socket);
        drop(alive);
        let _ = all_gone.recv().await; // none: every sender is gone
    }
}

impl Shared {
    async fn welcome(self: Arc<Self>, stream: TcpStream, client: SocketAddr, stop: watch::Receiver<bool>) {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let terms = (self.terms)();
        let trusted = terms.directory.trusts(client.ip());
        let limits = Limits::from(&terms.config);
        let _permit = match self.permits.acquire(client.ip(), trusted, limits) {
            Ok(permit) => permit,
            Err(refused) => return self.refuse(&stream, client, &terms, refused),
        };
        let Ok(local) = stream.local_addr() else { return };
        // Replies are written in bursts of our own; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let facts = policy::Session {
            id: session::name(),
            listener: self.name.clone(),
            client,
            local: SocketAddr::new(local.ip().to_canonical(), local.port()),
            client_name: None,
            helo: None,
            extended: false,
            tls: None,
            user: None,
            trusted,
            notes: policy::Notes::default(),
        };
        session::Session::new(self, terms, facts).run(stream, stop).await;
    }

    /// RFC 5321 §3.8: 421 in place of the greeting. Nobody waits for a client to take it.
    fn refuse(&self, stream: &TcpStream, client: SocketAddr, terms: &Terms, refused: Refused) {
        let mut reply = Vec::new();
        terms.smtp.too_many_sessions().write_to(&mut reply);
        let _ = stream.try_write(&reply); // it may have gone already
        let limit = match refused {
            Refused::All => "max-sessions",
            Refused::Client => "max-sessions-per-client",
        };
        tracing::info!(listener = self.name, client = %client.ip(), "refused: {limit} reached");
    }
}
