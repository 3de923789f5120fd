//! How many sessions there may be: in all, and from one client. RFC 5321 §4.5.4.2 leaves that to the server.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts sessions. Cheap to clone; clones share.
#[derive(Clone)]
pub(super) struct Permits(Arc<Inner>);

struct Inner {
    max: usize,
    max_per_client: usize,
    open: Mutex<Open>,
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
    pub fn new(max: usize, max_per_client: usize) -> Self {
        Self(Arc::new(Inner { max, max_per_client, open: Mutex::default() }))
    }

    /// A permit for one more session. Only the limit on all holds for trusted clients: webmail and relays of one's own send much.
    pub fn acquire(&self, client: IpAddr, trusted: bool) -> Result<Permit, Refused> {
        let client = key(client);
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.0.max {
            return Err(Refused::All);
        }
        let own = open.by_client.entry(client).or_default();
        if !trusted && *own >= self.0.max_per_client {
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
        let permits = Permits::new(3, 2);
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = permits.acquire(a, false).ok();
        let second = permits.acquire(a, false).ok();
        assert_eq!(permits.acquire(a, false).err(), Some(Refused::Client));
        let third = permits.acquire(b, false).ok();
        assert_eq!(permits.acquire(b, false).err(), Some(Refused::All));
        drop((first, second, third));
        assert!(permits.0.open.lock().is_ok_and(|open| open.all == 0));
        assert!(permits.0.open.lock().is_ok_and(|open| open.by_client.is_empty()));
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let permits = Permits::new(10, 1);
        let _one = permits.acquire("2001:db8::1".parse().expect("address"), false);
        assert!(permits.acquire("2001:db8::2".parse().expect("address"), false).is_err());
        assert!(permits.acquire("2001:db8:0:1::2".parse().expect("address"), false).is_ok());
    }
}
