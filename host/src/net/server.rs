//! One server that is asked: over UDP, over TCP if the answer is too long for that (RFC 7766), and whether it answers at all.
//!
//! A server that does not is not asked again before it answers a question of our own (NS of the root, which every server can say
//! something about). So a dead one costs its time once, and a question that nobody can answer makes no server look dead.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime};
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Edns, Message, Query};
use hickory_resolver::proto::rr::{self, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;

use super::answer::{Question, Said, read};

/// The longest answer over UDP: what passes every network in one piece (RFC 9715).
const UDP_PAYLOAD: u16 = 1232;
/// Questions without an answer, one after the other, after which the server has to show that it lives.
const SUSPICIOUS: u32 = 2;
/// The wait between two looks at a server that does not answer, at first and at most.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LAST_LOOK: Duration = Duration::from_secs(10);

/// Why a server gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing came in time.
    Timeout,
    /// It cannot be reached.
    Unreachable(String),
    /// It answered, but that it cannot, or what makes no sense.
    Said(String),
}

/// One server.
pub(super) struct Server {
    pub address: SocketAddr,
    pool: NameServerPool<Provider>,
    timeout: Duration,
    /// Questions without an answer since the last answer.
    silent: AtomicU32,
    failing: AtomicBool,
    watched: AtomicBool,
}

impl Server {
    pub fn new(address: SocketAddr, timeout: Duration) -> Result<Arc<Self>, String> {
        let mut options = ResolverOpts::default();
        options.timeout = timeout;
        options.num_concurrent_reqs = 1;
        let over = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let connections = vec![over(ConnectionConfig::udp()), over(ConnectionConfig::tcp())];
        let server = NameServerConfig::new(address.ip(), true, connections);
        let tls = TlsConfig::new().map_err(|err| err.to_string())?;
        let context = Arc::new(PoolContext::new(options, tls));
        let pool = NameServerPool::from_config([server], context, Provider::default());
        Ok(Arc::new(Self {
            address,
            pool,
            timeout,
            silent: AtomicU32::new(0),
            failing: AtomicBool::new(false),
            watched: AtomicBool::new(false),
        }))
    }

    /// Whether there is no point in asking.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Asks.
    pub async fn ask(self: &Arc<Self>, question: &Question) -> Result<Said, Fault> {
        let name = question.name.to_wire().map_err(|err| Fault::Said(err.to_string()))?;
        let result = self.exchange(Query::query(name, question.record_type())).await;
        let result = match result {
            Ok(Response::Message(message)) => read(&message, question).map_err(Fault::Said),
            Ok(Response::Nothing { name_error: false, ttl }) => Ok(Said::Nothing { ttl, authentic: false }),
            Ok(Response::Nothing { name_error: true, ttl }) => Ok(Said::NoSuchName { ttl }),
            Err(fault) => Err(fault),
        };
        match &result {
            Ok(_) | Err(Fault::Said(_)) => self.answered(),
            Err(Fault::Unreachable(why)) => {
                self.fails(why);
                self.watch(FIRST_LOOK);
            }
            Err(Fault::Timeout) => {
                if self.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SUSPICIOUS {
                    self.watch(Duration::ZERO);
                }
            }
        }
        result
    }

    async fn exchange(&self, query: Query) -> Result<Response, Fault> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.metadata.authentic_data = true; // RFC 6840 §5.7: please say whether it is verified
        message.add_query(query);
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        message.set_edns(edns);
        let mut options = DnsRequestOptions::default();
        options.edns_payload_len = UDP_PAYLOAD;
        let request = DnsRequest::new(message, options);
        // Both ways, over UDP and over TCP, have the time of one.
        match tokio::time::timeout(self.timeout, self.pool.send(request).first_answer()).await {
            Err(_) | Ok(Err(NetError::Timeout)) => Err(Fault::Timeout),
            Ok(Ok(response)) => Ok(Response::Message(response.into_message())),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                let name_error = none.response_code == hickory_resolver::proto::op::ResponseCode::NXDomain;
                Ok(Response::Nothing { name_error, ttl: none.negative_ttl })
            }
            Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => Err(Fault::Said(format!("the server says {code}"))),
            Ok(Err(NetError::NoConnections)) => Err(Fault::Unreachable("nobody listens there".into())),
            Ok(Err(NetError::Io(err))) => Err(Fault::Unreachable(err.to_string())),
            Ok(Err(err)) => Err(Fault::Said(err.to_string())),
        }
    }

    fn answered(&self) {
        self.silent.store(0, Ordering::Relaxed);
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(server = %self.address, "the DNS server answers again");
        }
    }

    /// Said once, however many questions there are.
    fn fails(&self, why: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(server = %self.address, "the DNS server does not answer: {why}");
        }
    }

    /// Looks after it until it answers.
    pub fn watch(self: &Arc<Self>, mut pause: Duration) {
        if self.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let server: Weak<Self> = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(server) = server.upgrade() else { return };
                match server.exchange(Query::query(rr::Name::root(), RecordType::NS)).await {
                    Ok(_) | Err(Fault::Said(_)) => {
                        server.watched.store(false, Ordering::Relaxed);
                        return server.answered();
                    }
                    Err(Fault::Timeout) => server.fails(&format!("nothing comes within {:?}", server.timeout)),
                    Err(Fault::Unreachable(why)) => server.fails(&why),
                }
                pause = (pause * 2).clamp(FIRST_LOOK, LAST_LOOK);
            }
        });
    }
}

/// What came, before anybody has looked at it.
enum Response {
    Message(Message),
    Nothing { name_error: bool, ttl: Option<u32> },
}

/// Sockets that are connected, so that they take datagrams of the server alone, and hear at once that nobody listens there.
#[derive(Clone, Default)]
struct Provider(TokioRuntimeProvider);

impl RuntimeProvider for Provider {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Connected;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> TokioHandle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        self.0.connect_tcp(server, local, timeout)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Connected>>>> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(Connected { socket, server })
        })
    }
}

struct Connected {
    socket: UdpSocket,
    server: SocketAddr,
}

impl DnsUdpSocket for Connected {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buf = ReadBuf::new(buf);
        ready!(self.socket.poll_recv(cx, &mut buf))?;
        Poll::Ready(Ok((buf.filled().len(), self.server)))
    }

    /// Wakes for errors as well: that nobody listens there makes the socket no more readable.
    fn recv_from<'s, 'b, 'f>(
        &'s self,
        buf: &'b mut [u8],
    ) -> Pin<Box<dyn Future<Output = io::Result<(usize, SocketAddr)>> + Send + 'f>>
    where
        's: 'f,
        'b: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            loop {
                self.socket.ready(Interest::READABLE | Interest::ERROR).await?;
                match self.socket.try_recv(buf) {
                    Ok(len) => return Ok((len, self.server)),
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                    Err(err) => return Err(err),
                }
                if let Some(err) = self.socket.take_error()? {
                    return Err(err);
                }
                // There was none after all: wait for the next.
                let none = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
                let _ = self.socket.try_io(Interest::ERROR, none);
            }
        })
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], _: SocketAddr) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, buf)
    }
}
