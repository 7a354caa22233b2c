//! What a speaker shows over HTTP.
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
