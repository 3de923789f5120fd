//! How many sessions there may be: in all, and from one client. RFC 5321 §4.5.4.2 leaves that to the server.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::Config;

/// Counts sessions. Cheap to clone; clones share.
#[derive(Clone)]
pub(super) struct Permits(Arc<Inner>);

#[derive(Default)]
struct Inner {
    open: Mutex<Open>,
}

/// How many there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// In all.
    pub all: usize,
    /// From one client.
    pub client: usize,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self { all: config.max_sessions as usize, client: config.max_sessions_per_client as usize }
    }
}

#[derive(Default)]
struct Open {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// Why a session may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are too many in all.
    All,
    /// There are too many from this client.
    Client,
}

/// One session; counted until it is dropped.
pub(super) struct Permit {
    permits: Permits,
    client: IpAddr,
}

/// Clients of one IPv6 network of 64 bits count as one: each of them has all its addresses to itself.
fn key(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

impl Permits {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// A permit for one more session; those that are open already stay when a limit sinks. Only the limit on all holds for trusted clients: webmail and relays of one's own send much.
    pub fn acquire(&self, client: IpAddr, trusted: bool, limits: Limits) -> Result<Permit, Refused> {
        let client = key(client);
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= limits.all {
            return Err(Refused::All);
        }
        let own = open.by_client.entry(client).or_default();
        if !trusted && *own >= limits.client {
            return Err(Refused::Client);
        }
        *own += 1;
        open.all += 1;
        Ok(Permit { permits: self.clone(), client })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.permits.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        if let Some(own) = open.by_client.get_mut(&self.client) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                open.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_by_client_and_in_all() {
        let (permits, limits) = (Permits::new(), Limits { all: 3, client: 2 });
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = permits.acquire(a, false, limits).ok();
        let second = permits.acquire(a, false, limits).ok();
        assert_eq!(permits.acquire(a, false, limits).err(), Some(Refused::Client));
        let third = permits.acquire(b, false, limits).ok();
        assert_eq!(permits.acquire(b, false, limits).err(), Some(Refused::All));
        let more = permits.acquire(b, false, Limits { all: 4, ..limits }).ok();
        assert!(more.is_some(), "a limit that rose holds at once");
        drop((first, second, third, more));
        assert!(permits.0.open.lock().is_ok_and(|open| open.all == 0));
        assert!(permits.0.open.lock().is_ok_and(|open| open.by_client.is_empty()));
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let (permits, limits) = (Permits::new(), Limits { all: 10, client: 1 });
        let _one = permits.acquire("2001:db8::1".parse().expect("address"), false, limits);
        assert!(permits.acquire("2001:db8::2".parse().expect("address"), false, limits).is_err());
        assert!(permits.acquire("2001:db8:0:1::2".parse().expect("address"), false, limits).is_ok());
    }
}
