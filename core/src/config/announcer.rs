//! AnnouncerClass: every rule of one class.
use std::sync::Arc;

use super::{
    AnnouncerClass, AnnouncerClassSpec, BGP, Meta, RESERVED_ANNOUNCERS,
    check::{Report, integer},
    json,
    schema::Schema,
};
use crate::announce::{Capabilities, Election, PROTOCOL_MAX, PROTOCOL_MIN};

/// Largest `configuration`, octets of JSON: every node sends it to its plugin whole with each change of it.
const CONFIGURATION_LEN_MAX: usize = 64 * 1024;
/// Numbers of the protocol that a class may name, as in the CRD.
const PROTOCOL_RANGE: (i64, i64) = (1, 65_535);
/// Longest DNS label. Source: RFC 1123 §2.1, RFC 1035 §2.3.4.
const DNS_LABEL_LEN_MAX: usize = 63;

/// A valid class, with its schema ready to be asked.
#[derive(Clone, Debug)]
pub(super) struct ClassDraft {
    /// Without Advertisements.
    pub(super) class: AnnouncerClass,
    pub(super) schema: Option<Arc<Schema>>,
}

/// Checks everything about a class; it concerns no other object. `known`: the schema that this class had last, which is not compiled
/// anew if it is the same.
pub(super) fn check(
    meta: &Meta,
    spec: &AnnouncerClassSpec,
    known: Option<Arc<Schema>>,
    report: &mut Report,
) -> Option<ClassDraft> {
    let name = &meta.key.name;
    if RESERVED_ANNOUNCERS.contains(&&**name) {
        let message = format!("{name:?} is the name of an announcer of Ferrocast's own");
        let suggestion = "choose another name for the class and the plugin's socket";
        report.error("announcerReserved", "metadata.name", name, message, suggestion);
    } else {
        check_name(report, "metadata.name", name);
    }
    let schema = Schema::read(spec.parameters_schema.as_ref(), known, report);
    let configuration =
        json::canonical_object(report, "spec.configuration", spec.configuration.as_ref(), CONFIGURATION_LEN_MAX);
    if let Some(capabilities) = &spec.capabilities {
        check_capabilities(capabilities, report);
    }
    let class = AnnouncerClass {
        name: name.clone(),
        capabilities: spec.capabilities,
        protocol: spec.protocol.and_then(|range| protocol(range, report)),
        configuration: configuration.map(Into::into),
        parameters_schema: schema.as_ref().map(|schema| schema.text.clone()),
        advertisements: [].into(),
    };
    (!report.has_error()).then_some(ClassDraft { class, schema })
}

/// Reports a name that no announcer can have.
pub(super) fn check_name(report: &mut Report, field: &str, name: &str) {
    let (first, last) = (name.bytes().next(), name.bytes().next_back());
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ends = [first, last].iter().all(|end| end.is_some_and(|b| b != b'-'));
    if !ends || name.len() > DNS_LABEL_LEN_MAX || !name.bytes().all(inner) {
        let message = format!("{:?} is not the name of an announcer", json::cut(name));
        let suggestion = format!(
            "write lower-case letters, digits and '-', at most {DNS_LABEL_LEN_MAX}, the first and the last a letter or digit"
        );
        report.error("announcerNameInvalid", field, json::cut(name), message, suggestion);
    }
}

fn check_capabilities(capabilities: &Capabilities, report: &mut Report) {
    let at = "spec.capabilities.election";
    let asked = match capabilities.election {
        Election::None => None,
        Election::PerAddress => Some("perAddress"),
        Election::PerCluster => Some("perCluster"),
    };
    if let Some(asked) = asked {
        let message = "announcers that need a node elected are not served yet: they come with layer 2";
        report.error("electionNotServed", at, asked, message, "write none, or leave it out");
    }
    if !capabilities.ipv4 && !capabilities.ipv6 {
        let message = "an announcer of neither family announces nothing";
        let suggestion = "set ipv4 or ipv6 to true, or leave capabilities out";
        report.warning("noEffect", "spec.capabilities", "", message, suggestion);
    }
}

fn protocol((min, max): (i64, i64), report: &mut Report) -> Option<(u32, u32)> {
    let what = "number of the protocol";
    let low: Option<u32> = integer(report, "spec.protocol.min", Some(min), PROTOCOL_RANGE, what);
    let high: Option<u32> = integer(report, "spec.protocol.max", Some(max), PROTOCOL_RANGE, what);
    let (low, high) = (low?, high?);
    let ours = match (PROTOCOL_MIN, PROTOCOL_MAX) {
        (a, b) if a == b => a.to_string(),
        (a, b) => format!("{a} to {b}"),
    };
    let message = if low > high {
        format!("the highest number {high} lies below the lowest, {low}")
    } else if low > PROTOCOL_MAX || high < PROTOCOL_MIN {
        format!("this version of Ferrocast speaks {ours}")
    } else {
        return Some((low, high));
    };
    let suggestion = format!("write a range with {ours} in it, and use a version of the plugin that speaks it");
    report.error("protocolUnsupported", "spec.protocol", format!("{low}-{high}"), message, suggestion);
    None
}

/// Says of an announcer's name in an Advertisement what stands against it.
pub(super) fn check_named(report: &mut Report, field: &str, name: &str) {
    if name.is_empty() {
        let suggestion = "write the name of an AnnouncerClass";
        report.error("missing", field, "", "an Advertisement is for an announcer", suggestion);
    } else if name == BGP {
        let message = "bgp is the announcer of BGPAdvertisements";
        report.error("announcerReserved", field, name, message, "write a BGPAdvertisement instead");
    } else if RESERVED_ANNOUNCERS.contains(&name) {
        let message = format!("{name:?} is reserved for an announcer of Ferrocast's own, which is not served yet");
        report.error("announcerReserved", field, name, message, "name an AnnouncerClass");
    } else {
        check_name(report, field, name);
    }
}
