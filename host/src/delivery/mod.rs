//! The next hop: takes what the queue says is due, hands it over, and reports one outcome for each recipient.
//!
//! `route` says which way, `maildir` delivers to users of this host, `remote` to another host over SMTP.

mod config;
mod maildir;
mod remote;
mod route;

pub use config::Config;
pub use route::{NextHop, NextHost, NoNextHop, Route, no_route, route};
