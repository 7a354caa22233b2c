//! Whether a peer as configured can be spoken to at all.
use ferrocast_core::config::{Peer, PeerAs, PeerEndpoint};

use crate::kernel::Kernel;

/// Why no session with `peer` is tried, in words for its user; the node it would be on plays no part. Pure.
///
/// # Errors
/// The reason.
pub fn support(peer: &Peer) -> Result<(), String> {
    if let Some(why) =
        [&peer.password_missing, &peer.session.tcp_ao_missing, &peer.bfd_missing].into_iter().flatten().next()
    {
        return Err(why.clone());
    }
    if peer.peer_asn == PeerAs::Number(0) {
        return Err("peerASN 0 is reserved: give 1 to 4294967295".to_owned());
    }
    if peer.my_asn == 0 || peer.local_asn == Some(0) {
        return Err("AS number 0 is reserved: give 1 to 4294967295".to_owned());
    }
    match (&peer.endpoint, peer.source_address) {
        (PeerEndpoint::Address(to), Some(from)) if to.is_ipv4() != from.is_ipv4() => {
            Err(format!("sourceAddress {from} is of another family than peerAddress {to}"))
        }
        _ => Ok(()),
    }
}

/// Why no session with `peer` is tried on a node with this kernel.
pub(crate) fn lacking(peer: &Peer, kernel: Kernel) -> Result<(), String> {
    match &peer.vrf {
        Some(vrf) if !kernel.vrf => {
            return Err(format!("vrf {vrf:?}: the kernel of this node has no VRFs (CONFIG_NET_VRF)"));
        }
        _ => {}
    }
    if !peer.session.tcp_ao.is_empty() && !kernel.tcp_ao {
        return Err("tcpAO: the kernel of this node has no TCP-AO (Linux 6.7 with CONFIG_TCP_AO)".to_owned());
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ferrocast_core::config::{Password, SessionPolicy, TcpAoAlgorithm, TcpAoKey};

    /// An external peer with nothing unusual about it.
    pub(crate) fn peer(name: &str) -> Peer {
        Peer::new(name, 64_512, 64_513, ([192, 0, 2, 1], 179).into())
    }

    #[test]
    fn peers_that_cannot_work_are_refused_in_words() {
        let plain = || peer("a");
        assert_eq!(support(&plain()), Ok(()));
        for (peer, words) in [
            (Peer { peer_asn: PeerAs::Number(0), ..plain() }, "peerASN 0"),
            (Peer { my_asn: 0, ..plain() }, "AS number 0"),
            (Peer { local_asn: Some(0), ..plain() }, "AS number 0"),
            (Peer { password_missing: Some("Secret x not found".into()), ..plain() }, "Secret x not found"),
            (Peer { bfd_missing: Some("BFDProfile y not found".into()), ..plain() }, "BFDProfile y not found"),
            (Peer { source_address: Some("fd00::1".parse().unwrap()), ..plain() }, "another family"),
        ] {
            let refusal = support(&peer).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }

    #[test]
    fn what_the_kernel_lacks_is_said() {
        let (none, all) = (Kernel { tcp_ao: false, vrf: false }, Kernel { tcp_ao: true, vrf: true });
        let key =
            TcpAoKey { send_id: 1, receive_id: 1, algorithm: TcpAoAlgorithm::HmacSha1, secret: Password("k".into()) };
        let session = SessionPolicy { tcp_ao: vec![key], ..SessionPolicy::default() };
        for (peer, words) in
            [(Peer { vrf: Some("red".into()), ..peer("a") }, "vrf \"red\""), (Peer { session, ..peer("a") }, "tcpAO")]
        {
            assert_eq!(lacking(&peer, all), Ok(()));
            let refusal = lacking(&peer, none).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
        assert_eq!(lacking(&peer("a"), none), Ok(()));
    }
}
