//! What a speaker shows over HTTP.
use std::sync::Arc;

use ferrocast_core::{decide::Reason, model::ServiceKey};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    decider::Decisions,
    records::{Change, Record},
};

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
            let since = decisions.records.get(key).and_then(|record| record.since_s(address.ip));
            rows.push(json!({
                "service": key.as_str(), "ip": address.ip, "reason": address.reason.code(), "advertisements": by,
                "since": since.map(time),
            }));
        }
    }
    json!({"node": node, "generation": decisions.desired.generation, "decisions": rows})
}

/// The last changes of the decisions on each Service, the newest last.
pub(super) fn changes_document(node: &str, decisions: &Decisions) -> Value {
    let change =
        |change: &Change| json!({"at": time(change.at_s), "ip": change.ip, "reason": change.reason.map(Reason::code)});
    let of = |(key, record): (&ServiceKey, &Arc<Record>)| json!({"service": key.as_str(), "changes": record.changes.iter().map(change).collect::<Vec<_>>()});
    json!({"node": node, "services": decisions.records.iter().map(of).collect::<Vec<_>>()})
}

/// Seconds since the Unix epoch as RFC 3339.
fn time(at_s: i64) -> Option<String> {
    Timestamp::from_second(at_s).map(|at| at.to_string()).ok()
}
