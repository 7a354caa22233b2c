//! Maps by address, each family by its plain number: small and quick to hash.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::hash::QuickMap;

/// A map by address.
#[derive(Debug)]
pub(super) struct ByIp<V> {
    v4: QuickMap<u32, V>,
    v6: QuickMap<u128, V>,
}

impl<V> Default for ByIp<V> {
    fn default() -> Self {
        Self { v4: QuickMap::default(), v6: QuickMap::default() }
    }
}

impl<V> ByIp<V> {
    pub(super) fn get(&self, ip: IpAddr) -> Option<&V> {
        match ip {
            IpAddr::V4(ip) => self.v4.get(&ip.to_bits()),
            IpAddr::V6(ip) => self.v6.get(&ip.to_bits()),
        }
    }

    pub(super) fn get_mut(&mut self, ip: IpAddr) -> Option<&mut V> {
        match ip {
            IpAddr::V4(ip) => self.v4.get_mut(&ip.to_bits()),
            IpAddr::V6(ip) => self.v6.get_mut(&ip.to_bits()),
        }
    }

    pub(super) fn insert(&mut self, ip: IpAddr, value: V) -> Option<V> {
        match ip {
            IpAddr::V4(ip) => self.v4.insert(ip.to_bits(), value),
            IpAddr::V6(ip) => self.v6.insert(ip.to_bits(), value),
        }
    }

    pub(super) fn remove(&mut self, ip: IpAddr) -> Option<V> {
        match ip {
            IpAddr::V4(ip) => self.v4.remove(&ip.to_bits()),
            IpAddr::V6(ip) => self.v6.remove(&ip.to_bits()),
        }
    }

    /// All addresses, in order.
    pub(super) fn ips(&self) -> Vec<IpAddr> {
        let v4 = self.v4.keys().map(|bits| IpAddr::V4(Ipv4Addr::from_bits(*bits)));
        let mut ips: Vec<IpAddr> =
            v4.chain(self.v6.keys().map(|bits| IpAddr::V6(Ipv6Addr::from_bits(*bits)))).collect();
        ips.sort_unstable();
        ips
    }
}
