//! Which of this node's addresses a peer is told, and as whom we introduce ourselves.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ferrocast_bgp_proto::{Family, wire::NextHop};
use ferrocast_core::config::SessionPolicy;
use if_addrs::IfAddr;
use ipnet::IpNet;

/// An address of an interface of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceAddress {
    pub(crate) interface: String,
    pub(crate) ip: IpAddr,
    /// Length of the prefix that is on the link, bits.
    pub(crate) prefix_len: u8,
}

impl InterfaceAddress {
    /// Is `ip` on this address's link?
    fn reaches(&self, ip: IpAddr) -> bool {
        IpNet::new(self.ip, self.prefix_len).is_ok_and(|net| net.contains(&ip))
    }
}

/// The addresses of this node's interfaces, as the kernel lists them; none if it does not say.
pub(crate) fn interface_addresses() -> Vec<InterfaceAddress> {
    let all = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the addresses of the interfaces");
        vec![]
    });
    let address = |i: if_addrs::Interface| {
        let prefix_len = match &i.addr {
            IfAddr::V4(v4) => v4.prefixlen,
            IfAddr::V6(v6) => v6.prefixlen,
        };
        InterfaceAddress { ip: i.ip(), interface: i.name, prefix_len }
    };
    all.into_iter().map(address).collect()
}

/// What the next hops of a session follow from.
#[derive(Clone, Debug)]
pub(crate) struct Position<'a> {
    /// Our end of the connection.
    pub(crate) local: IpAddr,
    /// The peer's end.
    pub(crate) remote: IpAddr,
    /// The peer takes IPv4 routes with IPv6 next hops (RFC 8950).
    pub(crate) extended: bool,
    /// The addresses of this node's interfaces.
    pub(crate) interfaces: &'a [InterfaceAddress],
    /// The Node's InternalIPs.
    pub(crate) internal_ips: &'a [IpAddr],
    /// Configured next hops.
    pub(crate) policy: &'a SessionPolicy,
}

impl Position<'_> {
    /// Our address on the connection as the kernel has it on an interface.
    fn own(&self) -> Option<&InterfaceAddress> {
        self.interfaces.iter().find(|i| i.ip == self.local)
    }

    /// Is the peer on the same link as our end?
    pub(crate) fn is_on_link(&self) -> bool {
        is_link_local(self.remote) || self.own().is_some_and(|own| own.reaches(self.remote))
    }

    fn beside(&self, wanted: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        let own = &self.own()?.interface;
        self.interfaces.iter().find(|i| i.interface == *own && wanted(&i.ip)).map(|i| i.ip)
    }

    /// Next hops by family.
    ///
    /// Configured ones first; then the session's own address for its own family. For the other family the first global address
    /// on the same interface, then the Node's InternalIP of that family, then for IPv4 the session's IPv6 address if the peer
    /// takes that (RFC 8950); on a link without addresses that comes before the InternalIP. Else none.
    pub(crate) fn next_hops(&self) -> [Option<NextHop>; Family::ALL.len()] {
        Family::ALL.map(|family| match family {
            Family::Ipv4Unicast => self.next_hop_v4(),
            Family::Ipv6Unicast => self.next_hop_v6(),
        })
    }

    fn next_hop_v4(&self) -> Option<NextHop> {
        if let Some(ip) = self.policy.next_hop_v4 {
            return (ip.is_ipv4() || self.extended).then(|| ip.into());
        }
        match self.local {
            IpAddr::V4(ip) => Some(NextHop::V4(ip)),
            IpAddr::V6(local) => {
                let beside = self.beside(|ip| ip.is_ipv4() && is_global(*ip)).map(NextHop::from);
                let over_v6 = || self.extended.then(|| self.with_link_local(local));
                let internal = || self.internal(IpAddr::is_ipv4);
                if local.is_unicast_link_local() {
                    beside.or_else(over_v6).or_else(internal) // a link without addresses is not where the Node's are
                } else {
                    beside.or_else(internal).or_else(over_v6)
                }
            }
        }
    }

    fn next_hop_v6(&self) -> Option<NextHop> {
        if let Some(address) = self.policy.next_hop_v6 {
            return Some(NextHop::V6 { address, link_local: None });
        }
        match self.local {
            IpAddr::V6(local) => Some(self.with_link_local(local)),
            IpAddr::V4(_) => {
                let beside = self.beside(|ip| ip.is_ipv6() && is_global(*ip)).map(NextHop::from);
                beside.or_else(|| self.internal(IpAddr::is_ipv6))
            }
        }
    }

    fn internal(&self, family: impl Fn(&IpAddr) -> bool) -> Option<NextHop> {
        self.internal_ips.iter().copied().find(family).map(NextHop::from)
    }

    /// Our address, and beside it the other kind of address of the same interface: the link-local one belongs beside a global
    /// one where the peer is on the link (RFC 2545 §3); a session between link-local addresses names a global one if there is.
    fn with_link_local(&self, local: Ipv6Addr) -> NextHop {
        let v6 = |ip: IpAddr| if let IpAddr::V6(ip) = ip { Some(ip) } else { None };
        if local.is_unicast_link_local() {
            let global = self.beside(|ip| ip.is_ipv6() && is_global(*ip)).and_then(v6);
            return match global {
                Some(address) => NextHop::V6 { address, link_local: Some(local) },
                None => NextHop::V6 { address: local, link_local: None },
            };
        }
        let link_local = || self.beside(|ip| is_link_local(*ip)).and_then(v6);
        NextHop::V6 { address: local, link_local: self.is_on_link().then(link_local).flatten() }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn is_global(ip: IpAddr) -> bool {
    ferrocast_core::announce::is_announceable(ip)
}

/// The BGP identifier: as configured, else the session's own address, else the Node's, else made of the node's name, so that it
/// is the same after a restart. Never zero. Source: RFC 6286 §2.1.
pub(crate) fn router_id(given: Option<Ipv4Addr>, local: IpAddr, internal_ips: &[IpAddr], node_name: &str) -> Ipv4Addr {
    let v4 = |ip: IpAddr| if let IpAddr::V4(ip) = ip { Some(ip) } else { None };
    given
        .or_else(|| v4(local))
        .or_else(|| internal_ips.iter().copied().find_map(v4))
        .filter(|id| !id.is_unspecified())
        .unwrap_or_else(|| Ipv4Addr::from_bits(fnv1a(node_name.as_bytes()).max(1)))
}

/// FNV-1a, 32 bits: the same on every machine and in every version.
fn fnv1a(octets: &[u8]) -> u32 {
    octets.iter().fold(0x811c_9dc5, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn interfaces() -> Vec<InterfaceAddress> {
        let all = [
            ("lo", "127.0.0.1", 8),
            ("lo", "::1", 128),
            ("eth0", "192.0.2.5", 24),
            ("eth0", "fe80::5", 64),
            ("eth0", "fd00::5", 64),
            ("eth1", "198.51.100.5", 24),
            ("eth1", "fe80::6", 64),
            ("eth2", "fe80::7", 64),
        ];
        all.map(|(interface, address, prefix_len)| InterfaceAddress {
            interface: interface.to_owned(),
            ip: ip(address),
            prefix_len,
        })
        .into()
    }

    /// Next hops in words: the address, and the link-local one behind a plus sign.
    fn told(local: &str, remote: &str, extended: bool, internal: &str, policy: &SessionPolicy) -> [String; 2] {
        let internal: Vec<_> = internal.parse().into_iter().collect();
        let position = Position {
            local: ip(local),
            remote: ip(remote),
            extended,
            interfaces: &interfaces(),
            internal_ips: &internal,
            policy,
        };
        position.next_hops().map(|hop| match hop {
            None => "none".to_owned(),
            Some(NextHop::V6 { address, link_local: Some(link_local) }) => format!("{address}+{link_local}"),
            Some(hop) => hop.address().to_string(),
        })
    }

    #[test]
    fn next_hops_follow_from_the_connection_and_the_node() {
        let policy = SessionPolicy::default();
        for (local, remote, extended, internal, want) in [
            ("192.0.2.5", "192.0.2.1", false, "", ["192.0.2.5", "fd00::5"]),
            ("fd00::5", "fd00::1", false, "", ["192.0.2.5", "fd00::5+fe80::5"]),
            ("fd00::5", "fd01::1", true, "", ["192.0.2.5", "fd00::5"]),
            ("198.51.100.5", "198.51.100.1", false, "", ["198.51.100.5", "none"]),
            ("198.51.100.5", "198.51.100.1", false, "fd00::9", ["198.51.100.5", "fd00::9"]),
            ("127.0.0.1", "127.0.0.2", false, "", ["127.0.0.1", "none"]),
            ("fe80::7", "fe80::1", true, "10.0.0.9", ["fe80::7", "fe80::7"]),
            ("fe80::7", "fe80::1", false, "10.0.0.9", ["10.0.0.9", "fe80::7"]),
            ("fe80::5", "fe80::1", true, "", ["192.0.2.5", "fd00::5+fe80::5"]),
        ] {
            assert_eq!(
                told(local, remote, extended, internal, &policy),
                want,
                "{local} {remote} {extended} {internal:?}"
            );
        }
    }

    #[test]
    fn configured_next_hops_come_first() {
        let policy = SessionPolicy {
            next_hop_v4: Some(ip("fd00::77")),
            next_hop_v6: Some(Ipv6Addr::LOCALHOST),
            ..SessionPolicy::default()
        };
        assert_eq!(told("192.0.2.5", "192.0.2.1", true, "", &policy), ["fd00::77", "::1"]);
        assert_eq!(told("192.0.2.5", "192.0.2.1", false, "", &policy), ["none", "::1"], "the peer would not take it");
    }

    #[test]
    fn router_id_is_never_zero_and_stays_the_same() {
        let (v4, v6) = (ip("192.0.2.5"), ip("fd00::5"));
        let given = Ipv4Addr::new(1, 2, 3, 4);
        assert_eq!(router_id(Some(given), v4, &[], "n"), given);
        assert_eq!(router_id(None, v4, &[], "n").to_string(), "192.0.2.5");
        assert_eq!(router_id(None, v6, &[v6, v4], "n").to_string(), "192.0.2.5");
        let hashed = router_id(None, v6, &[], "worker-1");
        assert_eq!(hashed, router_id(None, v6, &[v6], "worker-1"));
        assert_ne!(hashed, router_id(None, v6, &[], "worker-2"));
        assert!(!router_id(None, v6, &[], "").is_unspecified());
    }
}
