//! What a speaker shows over HTTP.
use std::{collections::BTreeMap, time::SystemTime};

use ferrocast_bgp::BgpAnnouncer;
use ferrocast_bgp_proto::wire::Kind;
use ferrocast_core::announce::Announcer as _;
use serde_json::{Value, json};

use crate::decider::Decisions;

/// MetalLB's `metallb_speaker_announced`, from the decisions when asked for: it costs no memory at rest.
pub(super) fn announced_lines(node: &str, decisions: &Decisions) -> String {
    let mut text = String::from("# TYPE metallb_speaker_announced gauge\n");
    for (key, decision) in &decisions.by_service {
        for ip in decision.addresses.iter().filter(|a| !a.advertisements.is_empty()).filter_map(|a| a.ip) {
            text.push_str(&format!(
                "metallb_speaker_announced{{service=\"{key}\",protocol=\"bgp\",node=\"{node}\",ip=\"{ip}\"}} 1\n"
            ));
        }
    }
    text
}

/// The decisions as JSON.
pub(super) fn decisions_document(node: &str, decisions: &Decisions) -> Value {
    let mut rows = Vec::new();
    for (key, decision) in &decisions.by_service {
        for address in &decision.addresses {
            let by: Vec<&str> = address.advertisements.iter().map(|a| &*a.name).collect();
            rows.push(json!({"service": key.as_str(), "ip": address.ip, "reason": address.reason.code(), "advertisements": by}));
        }
    }
    json!({"node": node, "generation": decisions.desired.generation, "decisions": rows})
}

/// Every session with what is known of it, and what its peer could not be given.
pub(super) fn sessions_document(bgp: &BgpAnnouncer) -> Value {
    let observed = bgp.observe().borrow().clone();
    let since = |at: SystemTime| jiff::Timestamp::try_from(at).map(|t| t.to_string()).ok();
    let peers: Vec<Value> = bgp
        .sessions()
        .iter()
        .map(|info| {
            let target = observed.targets.get(&info.peer);
            let refused: BTreeMap<String, &str> =
                target.iter().flat_map(|t| &t.refused).map(|(prefix, why)| (prefix.to_string(), *why)).collect();
            let counts = info.counts();
            let by_kind = |counts: &[u64]| -> BTreeMap<String, u64> {
                Kind::ALL.iter().zip(counts).map(|(kind, n)| (format!("{kind:?}"), *n)).collect()
            };
            json!({
                "peer": &*info.peer, "address": info.address, "port": info.port, "peerAS": info.peer_as,
                "state": info.state.to_string(), "since": since(info.since),
                "lastError": info.last_error, "lastErrorAt": info.last_error_at.and_then(since),
                "localAddress": info.local_address, "localID": info.local_id, "peerID": info.peer_id,
                "holdTimeS": info.hold_time.map(|t| t.as_secs()), "keepaliveTimeS": info.keepalive_time.map(|t| t.as_secs()),
                "families": info.families.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>(),
                "announced": info.announced.iter().sum::<usize>(), "generation": target.map(|t| t.generation), "reason": target.map(|t| t.reason.as_str()),
                "refused": refused, "received": by_kind(&counts.received), "sent": by_kind(&counts.sent),
                "flaps": counts.flaps, "warnings": info.warnings,
            })
        })
        .collect();
    json!({ "peers": peers })
}
