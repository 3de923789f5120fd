//! The name of a client: that of its address, if the address is one of the name's. Anybody can give his address any name; only the
//! owner of a name can give it an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::answer::{Data, Kind};
use super::name::Name;
use super::resolver::Resolver;

/// Names of one address that are looked at.
const MAX_NAMES: usize = 4;

impl Resolver {
    /// The name of an address that forward and reverse DNS agree on.
    pub async fn client_name(&self, address: IpAddr) -> Option<Name> {
        let address = address.to_canonical();
        if !address.is_loopback() {
            return self.confirmed(address).await;
        }
        // RFC 6303 §3, RFC 6761 §6.3: loopback addresses are nobody else's business; a server on this machine may know more of them.
        let name =
            if self.servers().any(|server| server.ip().is_loopback()) { self.confirmed(address).await } else { None };
        let localhost = address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST;
        name.or_else(|| if localhost { "localhost".parse().ok() } else { None })
    }

    async fn confirmed(&self, address: IpAddr) -> Option<Name> {
        let kind = if address.is_ipv4() { Kind::A } else { Kind::Aaaa };
        let names = self.lookup(&Name::reverse(address), Kind::Ptr).await.ok()?;
        let hosts = names.records.iter().filter_map(|data| match data {
            Data::Name(name) if name.is_host() => Some(name),
            _ => None,
        });
        for name in hosts.take(MAX_NAMES) {
            let known = self.lookup(name, kind).await;
            if known.is_ok_and(|answer| answer.records.contains(&Data::Address(address))) {
                return Some(name.clone());
            }
        }
        None
    }
}
