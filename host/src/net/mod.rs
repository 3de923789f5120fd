//! What this host asks of the network besides mail: names and addresses of DNS, and connections to the services that policies use.
//!
//! `resolver` answers from `cache` or asks the servers in `server`; what they say is checked in `answer` before anybody sees it.
//! `endpoint` connects to a service that the config names, over TCP, a Unix socket or TLS (`tls`).
//!
//! Architecture invariant: the only room that names hickory and rustls. An answer is hostile until it has been checked: names are
//! names, counts and sizes have limits, and nothing waits longer than its limit says.

mod answer;
mod cache;
mod client_name;
mod config;
mod endpoint;
mod name;
mod resolver;
mod server;
mod tls;

pub use answer::{Answer, Data, Error, Kind};
pub use config::Config;
pub use endpoint::{Config as EndpointConfig, Connection, Endpoint, EndpointError, Fault};
pub use name::{Name, NameError};
pub use resolver::Resolver;
