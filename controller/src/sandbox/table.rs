//! What the sandbox shows: one row per Service and address.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ferrocast_core::{config::Severity, decide::Reason};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::cluster::Told;
use crate::{allocator::Plan, decider::Decisions};

/// What the router has learned: next hops by prefix.
pub(super) type Routes = BTreeMap<IpNet, BTreeSet<IpAddr>>;

/// One Service and one of its addresses (or none).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// `namespace/name`.
    pub(super) service: String,
    /// The address, if it has one.
    pub(super) address: Option<IpAddr>,
    /// The pool it comes from.
    pub(super) pool: Option<String>,
    /// Nodes that announce it.
    pub(super) announced_from: Vec<String>,
    /// Next hops the router has for it.
    pub(super) next_hops: Vec<IpAddr>,
    /// Why, in codes.
    pub(super) reason: String,
    /// Its endpoints are assumed, not from a manifest.
    pub(super) assumed: bool,
}

/// Everything shown at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Picture {
    /// Per Service and address.
    pub(super) rows: Vec<Row>,
    /// Sessions with routers other than the built-in one, in words.
    pub(super) sessions: Vec<String>,
    /// What is wrong with the configuration, in words.
    pub(super) problems: Vec<String>,
    /// Announced by somebody, so that the router should know it, but it does not.
    pub(super) missing: bool,
}

/// Next hops of the longest prefix that contains `ip`.
fn next_hops(routes: &Routes, ip: IpAddr) -> Vec<IpAddr> {
    let covering = routes.iter().filter(|(prefix, _)| prefix.contains(&ip));
    let longest = covering.max_by_key(|(prefix, _)| prefix.prefix_len());
    longest.map(|(_, hops)| hops.iter().copied().collect()).unwrap_or_default()
}

/// Which nodes announce, and the reasons of those that do not.
fn decided(
    nodes: &[(Arc<str>, Decisions)],
    key: &ferrocast_core::model::ServiceKey,
    ip: IpAddr,
) -> (Vec<String>, String) {
    let mut from = Vec::new();
    let mut not: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
    for (node, decisions) in nodes {
        let decision = decisions.bgp.by_service.get(key);
        match decision.and_then(|d| d.addresses.iter().find(|a| a.ip == Some(ip))).map(|a| a.reason) {
            Some(Reason::Announced) => from.push(node.to_string()),
            Some(reason) => not.entry(reason.code()).or_default().push(node),
            None => not.entry(Reason::NoIpAllocated.code()).or_default().push(node),
        }
    }
    let mut reasons: Vec<String> = Vec::new();
    if !from.is_empty() {
        reasons.push(Reason::Announced.code().to_owned());
    }
    for (code, on) in not {
        let all = on.len() == nodes.len();
        reasons.push(if all { code.to_owned() } else { format!("{code} ({})", on.join(", ")) });
    }
    (from, reasons.join("; "))
}

impl Picture {
    /// Puts together what the parts know.
    #[must_use]
    pub(super) fn new(plan: &Plan, nodes: &[(Arc<str>, Decisions)], routes: &Routes, told: &Told) -> Self {
        let mut picture = Self::default();
        for (key, entry) in &plan.entries {
            let Some(outcome) = &entry.outcome else { continue };
            let assumed = told.assumed.contains(key);
            let mut row = Row {
                service: key.to_string(),
                address: None,
                pool: outcome.pool.as_deref().map(str::to_owned),
                announced_from: Vec::new(),
                next_hops: Vec::new(),
                reason: outcome.code.to_owned(),
                assumed,
            };
            if outcome.ips.is_empty() {
                if let Some(note) = outcome.notes.last() {
                    row.reason = format!("{}: {}", row.reason, note.message);
                }
                picture.rows.push(row.clone());
            }
            for ip in &outcome.ips {
                let (from, reason) = decided(nodes, key, *ip);
                row.address = Some(*ip);
                row.next_hops = next_hops(routes, *ip);
                picture.missing |= row.next_hops.is_empty() != from.is_empty();
                (row.announced_from, row.reason) = (from, reason);
                picture.rows.push(row.clone());
            }
        }
        picture.problems.extend(told.unreadable.iter().map(|u| format!("unreadable: {u}")));
        for problem in &told.problems {
            let severity = if problem.severity == Severity::Error { "error" } else { "warning" };
            picture.problems.push(format!("{severity}: {problem}"));
        }
        picture
    }

    /// Every LoadBalancer Service has an address and a route.
    #[must_use]
    pub(super) fn complete(&self) -> bool {
        self.rows.iter().all(|row| row.address.is_some() && !row.next_hops.is_empty())
    }

    /// For machines.
    #[must_use]
    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|r| {
                json!({"service": r.service, "address": r.address, "pool": r.pool, "announcedFrom": r.announced_from,
                    "nextHops": r.next_hops, "reason": r.reason, "endpointsAssumed": r.assumed})
            })
            .collect();
        json!({"services": rows, "sessions": self.sessions, "problems": self.problems, "complete": self.complete()})
    }

    /// For people.
    #[must_use]
    pub(super) fn table(&self) -> String {
        let head = ["SERVICE", "ADDRESS", "POOL", "ANNOUNCED FROM", "NEXT HOPS AT THE ROUTER", "REASON"];
        let mut lines = vec![head.map(str::to_owned)];
        let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        for row in &self.rows {
            let hops: Vec<String> = row.next_hops.iter().map(ToString::to_string).collect();
            let assumed = if row.assumed { " (endpoints assumed)" } else { "" };
            lines.push([
                row.service.clone(),
                dash(row.address.map(|a| a.to_string()).unwrap_or_default()),
                dash(row.pool.clone().unwrap_or_default()),
                dash(row.announced_from.join(", ")),
                dash(hops.join(", ")),
                format!("{}{assumed}", row.reason),
            ]);
        }
        let widths: Vec<usize> =
            (0..head.len()).map(|c| lines.iter().map(|l| l[c].chars().count()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for line in &lines {
            let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        for line in self.sessions.iter().chain(&self.problems) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}
