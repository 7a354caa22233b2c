//! What a speaker shows over HTTP.
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
    for (announcer, decided) in decisions.all() {
        for (key, decision) in &decided.by_service {
            for ip in decision.addresses.iter().filter(|a| !a.advertisements.is_empty()).filter_map(|a| a.ip) {
                text.push_str(&format!(
                    "metallb_speaker_announced{{service=\"{key}\",protocol=\"{announcer}\",node=\"{node}\",ip=\"{ip}\"}} 1\n"
                ));
            }
        }
    }
    text
}

/// The decisions as JSON.
pub(super) fn decisions_document(node: &str, decisions: &Decisions) -> Value {
    let mut rows = Vec::new();
    for (announcer, decided) in decisions.all() {
        for (key, decision) in &decided.by_service {
            for address in &decision.addresses {
                let by: Vec<&str> = address.advertisements.iter().map(|a| &*a.name).collect();
                let since = decided.records.get(key).and_then(|record| record.since_s(address.ip));
                rows.push(json!({
                    "service": key.as_str(), "ip": address.ip, "announcer": announcer, "reason": address.reason.code(),
                    "advertisements": by, "since": since.map(time),
                }));
            }
        }
    }
    json!({"node": node, "generation": decisions.bgp.desired.generation, "decisions": rows})
}

/// The last changes of the decisions on each Service, the newest last.
pub(super) fn changes_document(node: &str, decisions: &Decisions) -> Value {
    let change =
        |change: &Change| json!({"at": time(change.at_s), "ip": change.ip, "reason": change.reason.map(Reason::code)});
    let of = |announcer: &str, key: &ServiceKey, record: &Record| {
        let changes: Vec<Value> = record.changes.iter().map(change).collect();
        json!({"service": key.as_str(), "announcer": announcer, "changes": changes})
    };
    let all = decisions.all().flat_map(|(name, decided)| decided.records.iter().map(move |(k, r)| (name, k, r)));
    json!({"node": node, "services": all.map(|(name, key, record)| of(name, key, record)).collect::<Vec<_>>()})
}

/// Seconds since the Unix epoch as RFC 3339.
fn time(at_s: i64) -> Option<String> {
    Timestamp::from_second(at_s).map(|at| at.to_string()).ok()
}
