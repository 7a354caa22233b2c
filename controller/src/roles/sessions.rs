//! What a speaker shows of its BGP sessions over HTTP.
use std::{collections::BTreeMap, time::SystemTime};

use ferrocast_bgp::{BfdInfo, BgpAnnouncer, SentRoute, SessionInfo};
use ferrocast_bgp_proto::{
    Family,
    fsm::Negotiated,
    wire::{Capability, Kind, LargeCommunity, NextHop},
};
use ferrocast_core::announce::{Announcer as _, TargetObserved};
use serde_json::{Value, json};

/// Every session with what is known of it, and what its peer could not be given.
pub(super) fn sessions_document(bgp: &BgpAnnouncer) -> Value {
    let observed = bgp.observe().borrow().clone();
    let peers = bgp.sessions().iter().map(|info| session(info, observed.targets.get(&info.peer))).collect();
    json!({ "peers": Value::Array(peers) })
}

/// Every route that each peer has from us.
pub(super) fn routes_document(bgp: &BgpAnnouncer) -> Value {
    let of_peer = |info: &SessionInfo| json!({"peer": &*info.peer, "routes": info.routes().map(|r| route(&r)).collect::<Vec<_>>()});
    json!({ "peers": bgp.sessions().iter().map(of_peer).collect::<Vec<_>>() })
}

fn time(at: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(at).map(|t| t.to_string()).ok()
}

fn session(info: &SessionInfo, target: Option<&TargetObserved>) -> Value {
    let refused: BTreeMap<String, &str> =
        target.iter().flat_map(|t| &t.refused).map(|(prefix, why)| (prefix.to_string(), &**why)).collect();
    let announced: BTreeMap<String, usize> =
        Family::ALL.iter().zip(info.announced).map(|(family, n)| (family.to_string(), n)).collect();
    let mut document = json!({
        "peer": &*info.peer, "address": info.address, "interface": info.interface.as_deref(), "port": info.port,
        "vrf": info.vrf.as_deref(), "peerAS": info.peer_as, "passive": info.passive,
        "state": info.state.to_string(), "since": time(info.since),
        "lastError": info.last_error, "lastErrorAt": info.last_error_at.and_then(time),
        "localAddress": info.local_address, "negotiated": info.negotiated.as_deref().map(negotiated),
        "announced": info.announced.iter().sum::<usize>(), "announcedByFamily": announced,
        "endOfRIBSentAt": info.end_of_rib_at.and_then(time),
        "generation": target.map(|t| t.generation), "reason": target.map(|t| t.reason.as_str()), "refused": refused,
    });
    if let (Some(document), Value::Object(counts)) = (document.as_object_mut(), counts(info)) {
        document.extend(counts);
        document.insert("bfd".into(), info.bfd.as_ref().map(bfd).into());
    }
    document
}

fn counts(info: &SessionInfo) -> Value {
    let counts = info.counts();
    let by_kind = |counts: &[u64]| -> BTreeMap<String, u64> {
        Kind::ALL.iter().zip(counts).map(|(kind, n)| (format!("{kind:?}"), *n)).collect()
    };
    let [received, sent] = counts.octets;
    let [attribute_discard, treat_as_withdraw] = counts.malformed;
    json!({
        "received": by_kind(&counts.received), "sent": by_kind(&counts.sent), "flaps": counts.flaps,
        "octetsReceived": received, "octetsSent": sent,
        "malformedUpdates": {"attributeDiscard": attribute_discard, "treatAsWithdraw": treat_as_withdraw},
    })
}

fn negotiated(agreed: &Negotiated) -> Value {
    let restart = agreed.graceful_restart.as_ref().map(|restart| {
        let families: Vec<String> = restart
            .families
            .iter()
            .map(|(afi, safi, _)| Family::from_wire(*afi, *safi).map_or(format!("{afi}/{safi}"), |f| f.to_string()))
            .collect();
        json!({"restartTimeS": restart.restart_time_s, "notification": restart.notification,
            "peerRestarting": restart.restarting, "peerFamilies": families})
    });
    json!({
        "peerAS": agreed.peer_as, "peerID": agreed.peer_id, "localID": agreed.local_id, "internal": agreed.internal,
        "holdTimeS": agreed.hold_time.as_secs(), "keepaliveTimeS": agreed.keepalive_time.as_secs(),
        "families": agreed.families.iter().map(|f| f.to_string()).collect::<Vec<_>>(),
        "fourOctetAS": agreed.as4, "routeRefresh": agreed.route_refresh,
        "enhancedRouteRefresh": agreed.enhanced_route_refresh, "extendedNextHop": agreed.extended_next_hop,
        "gracefulRestart": restart, "peerRole": agreed.role.map(|role| format!("{role:?}")),
        "peerCapabilities": agreed.capabilities.iter().map(Capability::to_string).collect::<Vec<_>>(),
    })
}

fn bfd(info: &BfdInfo) -> Value {
    json!({
        "state": format!("{:?}", info.state), "remoteState": format!("{:?}", info.remote_state),
        "since": time(info.since), "diagnostic": format!("{:?}", info.diagnostic),
        "remoteDiagnostic": format!("{:?}", info.remote_diagnostic), "error": info.error,
        "transmitIntervalMs": info.transmit_interval.as_millis(), "detectionTimeMs": info.detection_time.as_millis(),
    })
}

fn route(route: &SentRoute) -> Value {
    let attributes = &route.attributes;
    let (next_hop, link_local) = match route.next_hop {
        NextHop::V6 { address, link_local } => (address.into(), link_local),
        NextHop::V4(_) => (route.next_hop.address(), None),
    };
    let standard = |c: &u32| format!("{}:{}", c >> 16, c & 0xffff);
    let large = |c: &LargeCommunity| format!("{}:{}:{}", c.global, c.local1, c.local2);
    let octets = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    json!({
        "prefix": route.prefix, "nextHop": next_hop, "linkLocalNextHop": link_local, "asPath": attributes.as_path,
        "med": attributes.med, "localPref": attributes.local_pref,
        "communities": attributes.communities.iter().map(standard).collect::<Vec<_>>(),
        "largeCommunities": attributes.large_communities.iter().map(large).collect::<Vec<_>>(),
        "extendedCommunities": attributes.extended_communities.iter().map(|c| octets(&c.0)).collect::<Vec<_>>(),
    })
}
