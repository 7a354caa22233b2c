//! How a report is printed.
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde_json::{Value, json};

use super::{
    Report,
    differences::{AddressChange, AddressRow, ObjectRow},
    pods::OldPod,
    ways::SessionRow,
};
use crate::cluster::metallb::Part;

/// For people: what differs, line by line; what does not, in numbers.
///
/// # Errors
/// Those of `out`.
pub fn text(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "MetalLB:")?;
    for pod in &report.metallb {
        let why =
            if pod.part == Part::Controller { "Ferrocast's controller only reads" } else { "its speaker there waits" };
        writeln!(out, "  Pod {} runs on {}: {why}", pod.name, pod.node)?;
    }
    if report.metallb.is_empty() {
        writeln!(out, "  no Pod of it is known to run")?;
    }
    let kept = report.addresses.iter().filter(|row| row.change == AddressChange::Keeps).count();
    writeln!(out, "Addresses: {kept} stay as they are")?;
    for row in report.addresses.iter().filter(|row| !row.change.keeps()) {
        writeln!(out, "  {}", address_line(row))?;
    }
    writeln!(out, "Objects: {} differences", report.objects.len())?;
    for ObjectRow { key: (kind, _, name), field, code, metallb, here } in &report.objects {
        let field = if field.is_empty() { String::new() } else { format!(" {field}") };
        writeln!(out, "  {kind} {name}{field} ({code}): MetalLB {metallb}; here {here}")?;
    }
    writeln!(out, "Sessions:")?;
    let mut groups: BTreeMap<(&str, _, &str), Vec<&str>> = BTreeMap::new();
    for SessionRow { peer, node, way, needs } in &report.sessions {
        groups.entry((peer, *way, needs)).or_default().push(node);
    }
    for ((peer, way, needs), nodes) in groups {
        writeln!(out, "  {peer} on {}: ({}) {}", nodes.join(", "), way.letter(), way.words())?;
        writeln!(out, "    the router needs: {needs}")?;
    }
    Ok(())
}

/// One line on an address that does not stay.
#[must_use]
pub fn address_line(row: &AddressRow) -> String {
    let AddressRow { service, address, change, code, message } = row;
    let address = address.map(|ip| ip.to_string()).unwrap_or_default();
    let what = match change {
        AddressChange::Changes(to) => format!("would change from {address} to {to}"),
        AddressChange::Loses => format!("would lose {address}"),
        AddressChange::NotOurs => format!("{address} would be neither announced nor removed"),
        AddressChange::Gains(ip) => format!("would get {ip}; MetalLB has given none"),
        AddressChange::Keeps => format!("keeps {address}"),
        AddressChange::Waits => "has no address".to_owned(),
    };
    format!("{service} {what} ({code}: {message})")
}

/// For machines: one document.
///
/// # Errors
/// Those of `out`.
pub fn json(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let pod = |OldPod { part, name, node, .. }: &OldPod| {
        let part = if *part == Part::Controller { "controller" } else { "speaker" };
        json!({"part": part, "name": name, "node": node})
    };
    let address = |AddressRow { service, address, change, code, message }: &AddressRow| {
        json!({
            "namespace": service.namespace(), "name": service.name(), "address": address, "change": change.code(),
            "to": change.to(), "reason": {"code": code, "message": message},
        })
    };
    let object = |ObjectRow { key: (kind, namespace, name), field, code, metallb, here }: &ObjectRow| {
        json!({
            "kind": &**kind, "namespace": &**namespace, "name": &**name, "field": field, "code": code, "metallb": metallb,
            "ferrocast": here,
        })
    };
    let session = |SessionRow { peer, node, way, needs }: &SessionRow| json!({"peer": &**peer, "node": &**node, "way": way.letter().to_string(), "routerNeeds": needs});
    let document = json!({
        "version": 1,
        "metallb": report.metallb.iter().map(pod).collect::<Vec<Value>>(),
        "addresses": report.addresses.iter().map(address).collect::<Vec<Value>>(),
        "objects": report.objects.iter().map(object).collect::<Vec<Value>>(),
        "sessions": report.sessions.iter().map(session).collect::<Vec<Value>>(),
    });
    writeln!(out, "{document:#}")
}
