//! BGPPeerPolicy: every rule of one policy. What follows from several, and for which peers, is in [`apply`].
mod apply;

pub(super) use apply::{Applied, LastKeys, apply};

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use super::{
    BgpPeerPolicySpec, LinkBandwidth, LinkBandwidthSpec, Role, RoutePolicy, RoutesSpec, SessionSpec, TcpAoAlgorithm,
    TcpAoKeySpec, Weight,
    check::{Report, Selection, integer, names, selectors},
    community,
    peer::{host_address, read_duration, written},
};
use crate::model::IpFamily;

/// Hops that GTSM can tell apart: a TTL has eight bits, and the first hop needs none.
const TTL_SECURITY_HOPS: (i64, i64) = (1, 254);
/// Send hold times: the timer is kept in whole seconds, like the hold time.
const SEND_HOLD_TIME_MAX: Duration = Duration::from_secs(65_535);
/// More of our AS in front of the path than anybody needs; routers limit whole paths to as few as 50.
const AS_PATH_PREPEND: (i64, i64) = (0, 16);
/// Extended communities of one policy: 64 are 512 octets, an eighth of the smallest BGP message's limit.
const EXTENDED_COMMUNITIES_MAX: usize = 64;
/// A KeyID has one octet (RFC 5925 §3.1).
const TCP_AO_KEY_ID: (i64, i64) = (0, 255);
/// TCP-AO keys of one policy: enough to roll over several times within one edit.
const TCP_AO_KEYS_MAX: usize = 16;
/// A fixed weight: as many endpoints as a node can have, and more.
const WEIGHT_FIXED: (i64, i64) = (1, 65_535);
/// `linkBandwidth.unit` where none is given.
const UNIT_DEFAULT: &str = "100Mbps";
/// `linkBandwidth.unit` at most, bits per second: times the largest weight it is still far from the largest IEEE float.
const UNIT_MAX_BPS: u64 = 1_000_000_000_000_000;
/// `linkBandwidth.interval` where none is given.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// Shortest `linkBandwidth.interval`: every change makes routers move flows.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest `linkBandwidth.interval`.
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);

/// A valid policy, before peers, advertisements and Secrets are looked up.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PolicyDraft {
    peers: Selection,
    advertisements: Selection,
    session: SessionDraft,
    /// What it says of routes, without the advertisements; `None`: nothing.
    routes: Option<RoutePolicy>,
    /// `routes.linkBandwidth.interval`, where weights follow the endpoints.
    weight_interval: Option<Duration>,
}

/// What a policy says of a session; `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq)]
struct SessionDraft {
    passive: Option<bool>,
    families: Option<BTreeSet<IpFamily>>,
    next_hop_v4: Option<IpAddr>,
    next_hop_v6: Option<Ipv6Addr>,
    send_hold_time: Option<Duration>,
    role: Option<Role>,
    ttl_security_hops: Option<u8>,
    tcp_ao: Option<Vec<KeyDraft>>,
}

/// A TCP-AO key before its Secret is looked up.
#[derive(Clone, Debug, PartialEq)]
struct KeyDraft {
    send_id: u8,
    receive_id: u8,
    algorithm: TcpAoAlgorithm,
    secret: Arc<str>,
}

/// Checks everything about a policy that concerns no other object.
pub(super) fn check(spec: &BgpPeerPolicySpec, report: &mut Report) -> Option<PolicyDraft> {
    let peers = Selection {
        names: names(report, "spec.peers", "peer", &spec.peers),
        selectors: selectors(report, "spec.peerSelectors", &spec.peer_selectors),
    };
    let advertisements = Selection {
        names: names(report, "spec.advertisements", "BGPAdvertisement", &spec.advertisements),
        selectors: selectors(report, "spec.advertisementSelectors", &spec.advertisement_selectors),
    };
    if spec.session.is_some() && !advertisements.is_all() {
        let message = "a session carries every advertisement";
        let suggestion = "put session and routes of single advertisements into two policies";
        report.error("sessionWithAdvertisements", "spec.session", "", message, suggestion);
    }
    if spec.session.is_none() && spec.routes.is_none() {
        report.warning("saysNothing", "spec", "", "says nothing", "write session, routes, or both");
    }
    let session = spec.session.as_ref().map(|s| session(s, report)).unwrap_or_default();
    let routes = spec.routes.as_ref().map(|r| routes(r, report));
    let weighted = spec.routes.as_ref().and_then(|r| r.link_bandwidth.as_ref());
    let weight_interval = weighted.and_then(|l| interval(l, report));
    let draft = PolicyDraft { peers, advertisements, session, routes, weight_interval };
    (!report.has_error()).then_some(draft)
}

fn session(spec: &SessionSpec, report: &mut Report) -> SessionDraft {
    let next_hop_v4 = next_hop("spec.session.nextHopIPv4", spec.next_hop_v4.as_ref(), report);
    let next_hop_v6 = match next_hop("spec.session.nextHopIPv6", spec.next_hop_v6.as_ref(), report) {
        Some(IpAddr::V4(v4)) => {
            let message = format!("IPv6 routes cannot have the IPv4 next hop {v4}");
            report.error("nextHopInvalid", "spec.session.nextHopIPv6", v4, message, "write an IPv6 address");
            None
        }
        Some(IpAddr::V6(v6)) => Some(v6),
        None => None,
    };
    SessionDraft {
        passive: spec.passive,
        families: spec.families.as_ref().map(|written| families(written, report)),
        next_hop_v4,
        next_hop_v6,
        send_hold_time: send_hold_time(spec, report),
        role: role(spec, report),
        ttl_security_hops: integer(
            report,
            "spec.session.ttlSecurityHops",
            spec.ttl_security_hops,
            TTL_SECURITY_HOPS,
            "number of hops",
        ),
        tcp_ao: spec.tcp_ao_keys.as_ref().map(|keys| tcp_ao(keys, report)),
    }
}

fn families(written: &[String], report: &mut Report) -> BTreeSet<IpFamily> {
    let field = "spec.session.families";
    if written.is_empty() {
        let message = "no family would be left to announce";
        report.error("familiesEmpty", field, "", message, "write IPv4, IPv6 or both, or leave it out");
    }
    let mut read = BTreeSet::new();
    for (i, text) in written.iter().enumerate() {
        let family = match text.as_str() {
            "IPv4" => IpFamily::V4,
            "IPv6" => IpFamily::V6,
            _ => {
                let message = format!("invalid family {text:?}");
                report.error("familyInvalid", format!("{field}[{i}]"), text, message, "write IPv4 or IPv6");
                continue;
            }
        };
        if !read.insert(family) {
            let message = format!("duplicate definition of family {text}");
            report.error("duplicate", format!("{field}[{i}]"), text, message, "name it once");
        }
    }
    read
}

fn next_hop(field: &str, text: Option<&String>, report: &mut Report) -> Option<IpAddr> {
    let text = written(text)?;
    let hop = host_address(text).and_then(|ip| match ip {
        _ if ip.is_loopback() => {
            Err("a loopback address leads nowhere: write one that the router can reach".to_owned())
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Err("a link-local address alone is no next hop: write a global one".to_owned())
        }
        _ => Ok(ip),
    });
    match hop {
        Ok(ip) => Some(ip),
        Err(why) => {
            report.error("nextHopInvalid", field, text, format!("invalid next hop {text:?}"), why);
            None
        }
    }
}

fn send_hold_time(spec: &SessionSpec, report: &mut Report) -> Option<Duration> {
    let field = "spec.session.sendHoldTime";
    let time = read_duration(field, spec.send_hold_time.as_ref(), report)?;
    if time.subsec_nanos() != 0 || time.is_zero() || time > SEND_HOLD_TIME_MAX {
        let text = spec.send_hold_time.as_deref().unwrap_or_default();
        let suggestion = "must be whole seconds from 1s to 65535s";
        report.error("sendHoldTimeInvalid", field, text, format!("invalid send hold time {text:?}"), suggestion);
    }
    Some(time)
}

fn role(spec: &SessionSpec, report: &mut Report) -> Option<Role> {
    match written(spec.role.as_ref())? {
        "Provider" => Some(Role::Provider),
        "RouteServer" => Some(Role::RouteServer),
        "RouteServerClient" => Some(Role::RouteServerClient),
        "Customer" => Some(Role::Customer),
        "Peer" => Some(Role::Peer),
        other => {
            let suggestion =
                "write what we are to the peer: Customer, Provider, Peer, RouteServer or RouteServerClient";
            report.error("roleInvalid", "spec.session.role", other, format!("invalid role {other:?}"), suggestion);
            None
        }
    }
}

fn tcp_ao(written: &[TcpAoKeySpec], report: &mut Report) -> Vec<KeyDraft> {
    let list = "spec.session.tcpAO.keys";
    if written.is_empty() || written.len() > TCP_AO_KEYS_MAX {
        let message = format!("needs from 1 to {TCP_AO_KEYS_MAX} keys");
        report.error("tcpAOKeys", list, written.len(), message, "leave tcpAO out for none");
    }
    let mut read: Vec<KeyDraft> = Vec::with_capacity(written.len());
    for (i, key) in written.iter().enumerate() {
        let at = format!("{list}[{i}]");
        let send_id = integer(report, &format!("{at}.sendID"), Some(key.send_id), TCP_AO_KEY_ID, "KeyID");
        let receive_id = integer(report, &format!("{at}.receiveID"), Some(key.receive_id), TCP_AO_KEY_ID, "KeyID");
        let algorithm = match key.algorithm.as_deref().unwrap_or("HMAC-SHA-1-96") {
            "HMAC-SHA-1-96" => Some(TcpAoAlgorithm::HmacSha1),
            "AES-128-CMAC-96" => Some(TcpAoAlgorithm::AesCmac),
            other => {
                let message = format!("invalid algorithm {other:?}");
                let suggestion = "write HMAC-SHA-1-96 or AES-128-CMAC-96";
                report.error("algorithmInvalid", format!("{at}.algorithm"), other, message, suggestion);
                None
            }
        };
        if key.secret.is_empty() {
            let suggestion = "write the name of one of type kubernetes.io/basic-auth";
            report.error("secretNameMissing", format!("{at}.secret.name"), "", "names no Secret", suggestion);
        }
        let (Some(send_id), Some(receive_id), Some(algorithm)) = (send_id, receive_id, algorithm) else { continue };
        if read.iter().any(|k| k.send_id == send_id) {
            let message = format!("duplicate definition of sendID {send_id}");
            report.error("duplicate", format!("{at}.sendID"), send_id, message, "give each key another");
        }
        if read.iter().any(|k| k.receive_id == receive_id) {
            let message = format!("duplicate definition of receiveID {receive_id}");
            report.error("duplicate", format!("{at}.receiveID"), receive_id, message, "give each key another");
        }
        read.push(KeyDraft { send_id, receive_id, algorithm, secret: key.secret.as_str().into() });
    }
    read
}

fn routes(spec: &RoutesSpec, report: &mut Report) -> RoutePolicy {
    let at = "spec.routes.extendedCommunities";
    let mut extended_communities = BTreeSet::new();
    if spec.extended_communities.len() > EXTENDED_COMMUNITIES_MAX {
        let message = format!("at most {EXTENDED_COMMUNITIES_MAX} extended communities are allowed");
        report.error("listTooLong", at, spec.extended_communities.len(), message, "leave some out");
    }
    let texts = names(report, at, "extended community", &spec.extended_communities);
    for (i, text) in spec.extended_communities.iter().enumerate().filter(|(_, t)| texts.contains(t.as_str())) {
        match community::parse_extended(text) {
            Ok(community) => drop(extended_communities.insert(community)),
            Err(wrong) => report.wrong(format!("{at}[{i}]"), text, wrong),
        }
    }
    RoutePolicy {
        advertisements: None,
        med: integer(report, "spec.routes.med", spec.med, (0, u32::MAX.into()), "MED"),
        as_path_prepend: integer(
            report,
            "spec.routes.asPathPrepend",
            spec.as_path_prepend,
            AS_PATH_PREPEND,
            "number of prepended AS numbers",
        )
        .unwrap_or(0),
        extended_communities,
        link_bandwidth: spec.link_bandwidth.as_ref().and_then(|l| link_bandwidth(l, report)),
    }
}

fn link_bandwidth(spec: &LinkBandwidthSpec, report: &mut Report) -> Option<LinkBandwidth> {
    let at = "spec.routes.linkBandwidth";
    let unit = written(spec.unit.as_ref()).unwrap_or(UNIT_DEFAULT);
    let unit_octets_s = parse_unit(unit)
        .map_err(|why| report.error("unitInvalid", format!("{at}.unit"), unit, format!("invalid unit {unit:?}"), why))
        .ok();
    let value = integer(report, &format!("{at}.value"), spec.value, WEIGHT_FIXED, "weight");
    let weight = match (written(spec.weight.as_ref()).unwrap_or("Endpoints"), spec.value) {
        ("Endpoints", None) => Some(Weight::Endpoints),
        ("Endpoints", Some(value)) => {
            let suggestion = "write that too, or leave value out";
            report.error("weightInvalid", format!("{at}.value"), value, "is for weight: Fixed only", suggestion);
            None
        }
        ("Fixed", Some(_)) => value.map(Weight::Fixed),
        ("Fixed", None) => {
            let suggestion = "weight: Fixed needs one, from 1 to 65535";
            report.error("weightInvalid", format!("{at}.value"), "", "missing value", suggestion);
            None
        }
        (other, _) => {
            let message = format!("invalid weight {other:?}");
            report.error("weightInvalid", format!("{at}.weight"), other, message, "write Endpoints or Fixed");
            None
        }
    };
    Some(LinkBandwidth { unit_octets_s: unit_octets_s?, weight: weight?, transitive: spec.transitive.unwrap_or(false) })
}

/// Bits per second such as `100Mbps`, in octets per second.
fn parse_unit(text: &str) -> Result<u64, String> {
    let wrong =
        || "write bits per second as a whole number with bps, kbps, Mbps, Gbps or Tbps, such as 100Mbps".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let factor: u64 = match &text[digits..] {
        "bps" => 1,
        "kbps" => 1_000,
        "Mbps" => 1_000_000,
        "Gbps" => 1_000_000_000,
        "Tbps" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let bits = number.checked_mul(factor).filter(|bits| *bits <= UNIT_MAX_BPS);
    match bits.ok_or_else(|| "write at most 1000Tbps".to_owned())? / 8 {
        0 => Err("write at least 8bps".to_owned()),
        octets => Ok(octets),
    }
}

/// How often weights may change; `None` where they do not.
fn interval(spec: &LinkBandwidthSpec, report: &mut Report) -> Option<Duration> {
    let field = "spec.routes.linkBandwidth.interval";
    let text = written(spec.interval.as_ref());
    let time = read_duration(field, spec.interval.as_ref(), report);
    if let (Some(text), Some(time)) = (text, time)
        && !(INTERVAL_MIN..=INTERVAL_MAX).contains(&time)
    {
        report.error("intervalInvalid", field, text, format!("invalid interval {text:?}"), "must be from 1s to 1h");
    }
    if spec.weight.as_deref() == Some("Fixed") {
        if let Some(text) = text {
            let message = "has no effect: a fixed weight never changes";
            report.warning("noEffect", field, text, message, "leave it out");
        }
        return None;
    }
    Some(time.unwrap_or(INTERVAL_DEFAULT))
}
