//! Which of this node's addresses a peer is told, and as whom we introduce ourselves.
use std::net::{IpAddr, Ipv4Addr};

use ferrocast_bgp_proto::Family;

/// An address of an interface of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceAddress {
    pub(crate) interface: String,
    pub(crate) ip: IpAddr,
}

/// The addresses of this node's interfaces, as the kernel lists them; none if it does not say.
pub(crate) fn interface_addresses() -> Vec<InterfaceAddress> {
    match if_addrs::get_if_addrs() {
        Ok(all) => all.into_iter().map(|i| InterfaceAddress { ip: i.ip(), interface: i.name }).collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list the addresses of the interfaces");
            vec![]
        }
    }
}

/// Next hops by family of a session with the local address `local`.
///
/// For its own family the local address; for the other the first global address on the same interface, else the Node's
/// InternalIP of that family, else none.
pub(crate) fn next_hops(
    local: IpAddr,
    interfaces: &[InterfaceAddress],
    internal_ips: &[IpAddr],
) -> [Option<IpAddr>; Family::ALL.len()] {
    let own = Family::of(local);
    Family::ALL.map(|family| {
        if family == own {
            return Some(local);
        }
        let interface = interfaces.iter().find(|i| i.ip == local).map(|i| &i.interface);
        let beside = interfaces
            .iter()
            .find(|i| Some(&i.interface) == interface && Family::of(i.ip) == family && is_global(i.ip))
            .map(|i| i.ip);
        beside.or_else(|| internal_ips.iter().copied().find(|ip| Family::of(*ip) == family))
    })
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

    #[test]
    fn next_hop_of_the_other_family_comes_from_the_same_interface() {
        let interfaces: Vec<_> = [
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("eth0", "192.0.2.5"),
            ("eth0", "fe80::5"),
            ("eth0", "fd00::5"),
            ("eth1", "198.51.100.5"),
            ("eth1", "fe80::6"),
        ]
        .map(|(interface, address)| InterfaceAddress { interface: interface.to_owned(), ip: ip(address) })
        .into();
        for (local, internal, want_v4, want_v6) in [
            ("192.0.2.5", "", Some("192.0.2.5"), Some("fd00::5")),
            ("fd00::5", "", Some("192.0.2.5"), Some("fd00::5")),
            ("198.51.100.5", "", Some("198.51.100.5"), None),
            ("198.51.100.5", "fd99::1", Some("198.51.100.5"), Some("fd99::1")),
            ("127.0.0.11", "fd99::1", Some("127.0.0.11"), Some("fd99::1")),
            ("127.0.0.1", "", Some("127.0.0.1"), None),
        ] {
            let internal: Vec<_> = internal.parse().into_iter().collect();
            let got = next_hops(ip(local), &interfaces, &internal);
            assert_eq!(got, [want_v4.map(ip), want_v6.map(ip)], "{local} {internal:?}");
        }
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
