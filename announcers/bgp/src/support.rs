//! What of a peer's configuration is spoken today.
use ferrocast_core::config::{Peer, PeerAs, PeerEndpoint};

/// What a peer's configuration asks for, and how far it can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// Whether the peer is dialled; if not, why, in words for its user.
    pub dial: Result<(), String>,
    /// What is ignored although it is configured, in words for its user.
    pub warnings: Vec<String>,
}

/// Says which of the fields of `peer` are not implemented yet, so that none is ignored in silence. Pure.
#[must_use]
pub fn support(peer: &Peer) -> Support {
    let mut warnings = vec![];
    if let Some(profile) = &peer.bfd {
        warnings.push(format!("bfdProfile {:?} is not supported yet: the peer is dialled without BFD", profile.name));
    }
    if peer.graceful_restart {
        warnings.push(
            "enableGracefulRestart is not supported yet: a restart of the speaker withdraws its routes".to_owned(),
        );
    }
    if peer.connect_time.is_some() {
        warnings.push("connectTime is not supported yet: attempts to connect have a wait of their own".to_owned());
    }
    Support { dial: refusal(peer).map_or(Ok(()), Err), warnings }
}

fn refusal(peer: &Peer) -> Option<String> {
    if let Some(why) = &peer.password_missing {
        return Some(why.clone());
    }
    if let PeerEndpoint::Interface(name) = &peer.endpoint {
        return Some(format!("interface {name:?} is not supported yet: give peerAddress"));
    }
    if let Some(vrf) = &peer.vrf {
        return Some(format!("vrf {vrf:?} is not supported yet"));
    }
    if let Some(asn) = peer.local_asn {
        return Some(format!("localASN {asn} is not supported yet: set myASN"));
    }
    match peer.peer_asn {
        PeerAs::Internal => return Some("dynamicASN internal is not supported yet: give peerASN".to_owned()),
        PeerAs::External => return Some("dynamicASN external is not supported yet: give peerASN".to_owned()),
        PeerAs::Number(0) => return Some("peerASN 0 is reserved: give 1 to 4294967295".to_owned()),
        PeerAs::Number(_) => {}
    }
    if peer.my_asn == 0 {
        return Some("myASN 0 is reserved: give 1 to 4294967295".to_owned());
    }
    match (&peer.endpoint, peer.source_address) {
        (PeerEndpoint::Address(to), Some(from)) if to.is_ipv4() != from.is_ipv4() => {
            Some(format!("sourceAddress {from} is of another family than peerAddress {to}"))
        }
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ferrocast_core::config::BfdProfile;
    use std::time::Duration;

    /// An external peer with nothing unusual about it.
    pub(crate) fn peer(name: &str) -> Peer {
        Peer::new(name, 64_512, 64_513, ([192, 0, 2, 1], 179).into())
    }

    #[test]
    fn nothing_configured_is_ignored_in_silence() {
        let plain = || peer("a");
        assert_eq!(support(&plain()), Support { dial: Ok(()), warnings: vec![] });
        for (peer, words) in [
            (Peer { bfd: Some(BfdProfile::new("fast").into()), ..plain() }, "bfdProfile \"fast\""),
            (Peer { graceful_restart: true, ..plain() }, "enableGracefulRestart"),
            (Peer { connect_time: Some(Duration::from_secs(1)), ..plain() }, "connectTime"),
        ] {
            let support = support(&peer);
            assert!(support.dial.is_ok() && support.warnings.len() == 1, "{words}");
            assert!(support.warnings[0].contains(words), "{:?}", support.warnings);
        }
        for (peer, words) in [
            (Peer { vrf: Some("red".into()), ..plain() }, "vrf \"red\""),
            (Peer { endpoint: PeerEndpoint::Interface("eth1".into()), ..plain() }, "interface \"eth1\""),
            (Peer { peer_asn: PeerAs::Internal, ..plain() }, "dynamicASN internal"),
            (Peer { peer_asn: PeerAs::External, ..plain() }, "dynamicASN external"),
            (Peer { peer_asn: PeerAs::Number(0), ..plain() }, "peerASN 0"),
            (Peer { my_asn: 0, ..plain() }, "myASN 0"),
            (Peer { local_asn: Some(7), ..plain() }, "localASN 7"),
            (Peer { password_missing: Some("Secret x not found".into()), ..plain() }, "Secret x not found"),
            (Peer { source_address: Some("fd00::1".parse().unwrap()), ..plain() }, "another family"),
        ] {
            let refusal = support(&peer).dial.unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }
}
