//! What would differ from MetalLB: addresses, as the Services' statuses show what MetalLB gave, and objects.
use std::net::IpAddr;

use ferrocast_core::{
    config::{Problem, Severity, Spec},
    model::ServiceKey,
};

use crate::{
    manifests::ConfigObject,
    plan::{
        json::reason,
        objects::{ConfigKey, Objects},
        world::{Verdict, World},
    },
};

/// What becomes of an address, or of a Service without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressChange {
    /// It stays.
    Keeps,
    /// It would be another.
    Changes(IpAddr),
    /// It would be taken away.
    Loses,
    /// It stays in the status, and is neither announced nor removed: no pool has it.
    NotOurs,
    /// MetalLB has given none; Ferrocast would.
    Gains(IpAddr),
    /// Neither gives one.
    Waits,
}

impl AddressChange {
    /// Does nothing differ?
    #[must_use]
    pub fn keeps(self) -> bool {
        matches!(self, Self::Keeps | Self::Waits)
    }

    /// Stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Keeps => "keeps",
            Self::Changes(_) => "changes",
            Self::Loses => "loses",
            Self::NotOurs => "notOurs",
            Self::Gains(_) => "gains",
            Self::Waits => "waits",
        }
    }

    /// The address afterwards, where that is another.
    #[must_use]
    pub fn to(self) -> Option<IpAddr> {
        match self {
            Self::Changes(ip) | Self::Gains(ip) => Some(ip),
            _ => None,
        }
    }
}

/// One address of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRow {
    /// The Service.
    pub service: ServiceKey,
    /// The address in its status; `None`: it has none.
    pub address: Option<IpAddr>,
    /// What becomes of it.
    pub change: AddressChange,
    /// Why, as a stable code.
    pub code: String,
    /// Why, in words.
    pub message: String,
}

/// Every address of every Service of ours, in the order of the Services and of their statuses.
#[must_use]
pub fn addresses(objects: &Objects, world: &World) -> Vec<AddressRow> {
    let mut rows = Vec::new();
    for (key, after) in &world.services {
        let before = objects.services.get(key).map(|service| &*service.ingress).unwrap_or_default();
        let why = reason(world, after);
        let row = |address, change| AddressRow {
            service: key.clone(),
            address,
            change,
            code: why.code.to_string(),
            message: why.message.to_string(),
        };
        let mut new = after.ingress.iter().copied().filter(|ip| !before.contains(ip));
        for ip in before {
            let change = match (after.ingress.contains(ip), new.next()) {
                (true, _) if why.code == "addressNotOurs" => AddressChange::NotOurs,
                (true, _) => AddressChange::Keeps,
                (false, Some(other)) => AddressChange::Changes(other),
                (false, None) => AddressChange::Loses,
            };
            rows.push(row(Some(*ip), change));
        }
        rows.extend(new.map(|ip| row(None, AddressChange::Gains(ip))));
        if before.is_empty() && after.ingress.is_empty() {
            rows.push(row(None, AddressChange::Waits));
        }
    }
    rows
}

/// One difference that applies to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRow {
    /// Kind, namespace, name.
    pub key: ConfigKey,
    /// Field path; empty if it concerns the whole object.
    pub field: String,
    /// Stable code: the rule of validation, or one of this command.
    pub code: &'static str,
    /// What MetalLB does.
    pub metallb: &'static str,
    /// What happens here.
    pub here: String,
}

/// Rules whose breach MetalLB does not notice.
const UNNOTICED: [&str; 4] = ["rangeMixedFamilies", "rangeOverlap", "addressMapped", "peerTwice"];
/// Warnings behind which there is a difference in what is done.
const TELLING: [&str; 2] = ["layer2NotAnnounced", "unsupported"];

/// The differences that apply to the objects, in their order.
#[must_use]
pub fn objects(objects: &Objects, world: &World) -> Vec<ObjectRow> {
    let mut rows = Vec::new();
    for verdict in &world.verdicts {
        if is_own(&verdict.key) {
            continue; // MetalLB knows nothing of it
        }
        rows.extend(verdict.problems.iter().filter_map(|problem| of_problem(verdict, problem)));
        if let Some(ConfigObject::Read(resource)) = objects.config.get(&verdict.key) {
            rows.extend(of_spec(&verdict.key, resource.spec.as_ref()));
        }
    }
    rows
}

fn is_own((kind, ..): &ConfigKey) -> bool {
    matches!(
        &**kind,
        "BGPPeerPolicy" | "PoolPolicy" | "AddressReservation" | "Advertisement" | "AnnouncerClass" | "SpeakerStatus"
    )
}

/// The difference behind something that validation found.
fn of_problem(verdict: &Verdict, problem: &Problem) -> Option<ObjectRow> {
    let metallb = match (problem.severity, problem.rule) {
        (_, "layer2NotAnnounced") => "announces the addresses by ARP and NDP",
        (Severity::Warning, rule) if TELLING.contains(&rule) => "may do it, depending on its mode",
        (Severity::Warning, "selectsNothing") if problem.field.contains("namespaceSelectors") => {
            "takes selectors that match no namespace for none: any namespace may ask for the pool"
        }
        (Severity::Warning, _) => return None,
        (Severity::Error, "wrongNamespace") => "reads its own namespace only, too",
        (Severity::Error, rule) if UNNOTICED.contains(&rule) => "does not notice it",
        (Severity::Error, _) => "refuses the whole configuration and stays with its last",
    };
    let here = match problem.severity {
        Severity::Error => format!("this object is not in force: {}", problem.message),
        Severity::Warning => problem.message.clone(),
    };
    let field = problem.field.clone();
    Some(ObjectRow { key: verdict.key.clone(), field, code: problem.rule, metallb, here })
}

/// Valid fields that mean something else, or something at all, here.
fn of_spec(key: &ConfigKey, spec: Option<&Spec>) -> Vec<ObjectRow> {
    let Some(Spec::Peer(peer)) = spec else { return Vec::new() };
    let mut rows = Vec::new();
    let mut row = |field: &str, metallb: &'static str, here: String| {
        rows.push(ObjectRow { key: key.clone(), field: field.to_owned(), code: "fieldIsUsed", metallb, here });
    };
    const IGNORED: &str = "ignores it in its default mode";
    if let Some(source) = &peer.source_address {
        row("spec.sourceAddress", IGNORED, format!("sessions come from {source}, on every node that the peer selects"));
    }
    if let Some(asn) = peer.local_asn {
        row("spec.localASN", IGNORED, format!("the peer sees AS {asn}"));
    }
    rows
}
