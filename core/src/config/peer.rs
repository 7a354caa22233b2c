//! BGPPeer: every rule of one peer.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use super::{
    BfdProfile, BgpPeerSpec, Meta, Password, Peer, PeerAs, PeerEndpoint, Resources, SessionPolicy, Spec,
    check::{Report, integer, selectors},
    duration,
};

/// TCP-MD5 and TCP-AO keys are limited to this many octets by Linux (`TCP_MD5SIG_MAXKEYLEN`, `TCP_AO_MAXKEYLEN`).
const PASSWORD_OCTETS_MAX: usize = 80;
/// The well-known BGP port.
const PORT_DEFAULT: u16 = 179;
/// MetalLB's CRD allows no higher port.
const PORT_MAX: i64 = 16_384;
/// RFC 4271 §10 suggests 90 s.
const HOLD_TIME_DEFAULT: Duration = Duration::from_secs(90);
/// RFC 4271 §4.2: zero or at least three seconds.
const HOLD_TIME_MIN: Duration = Duration::from_secs(3);
/// The OPEN message has 16 bits for it.
const HOLD_TIME_MAX: Duration = Duration::from_secs(65_535);
/// RFC 4271 §4.4: KEEPALIVEs at most once per second.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(1);
/// A keepalive every third of the hold time (RFC 4271 §4.4).
const KEEPALIVES_PER_HOLD_TIME: u32 = 3;
/// Longest `connectTime`, as in MetalLB's CRD.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(65_535);

/// BFDProfiles by name; `None`: the object is there, but no valid version of it is known.
pub(super) type Profiles = BTreeMap<Arc<str>, Option<Arc<BfdProfile>>>;

/// A valid peer, before its Secret and its BFDProfile are looked up.
#[derive(Clone, Debug)]
pub(super) struct PeerDraft {
    pub(super) peer: Peer,
    /// Name of the Secret with its password.
    pub(super) secret: Option<Arc<str>>,
    /// Name of its BFDProfile.
    pub(super) bfd_profile: Option<Arc<str>>,
    /// A password was written in the object, and is not known since a restart.
    pub(super) password_lost: bool,
}

/// Checks everything about a peer that concerns no other object.
pub(super) fn check(meta: &Meta, spec: &BgpPeerSpec, namespace: &str, report: &mut Report) -> Option<PeerDraft> {
    let my_asn = match spec.my_asn {
        None | Some(0) => {
            let suggestion = "write your own AS number, from 1 to 4294967295";
            report.error("myASNMissing", "spec.myASN", "", "missing local ASN", suggestion);
            None
        }
        asn => integer(report, "spec.myASN", asn, ASN_RANGE, "AS number"),
    };
    let local_asn = integer(report, "spec.localASN", spec.local_asn, ASN_RANGE, "AS number");
    let peer_asn = peer_as(spec, report);
    let endpoint = endpoint(spec, report);
    let source_address = source_address(spec, endpoint.as_ref(), report);
    // v1beta1 lets a 0 be written for the default.
    let port = spec.peer_port.filter(|port| *port != 0);
    let port = integer(report, "spec.peerPort", port, (1, PORT_MAX), "port").unwrap_or(PORT_DEFAULT);
    let (hold_time, keepalive_time) = timers(spec, report);
    let connect_time = connect_time(spec, report);
    let router_id = written(spec.router_id.as_ref()).and_then(|text| {
        let id = text.parse::<Ipv4Addr>().ok().filter(|id| !id.is_unspecified());
        if id.is_none() {
            let suggestion = "write it like an IPv4 address, not 0.0.0.0";
            report.error("routerIDInvalid", "spec.routerID", text, format!("invalid router ID {text:?}"), suggestion);
        }
        id
    });
    let node_selectors = selectors(report, "spec.nodeSelectors", &spec.node_selectors);
    let multi_hop = spec.ebgp_multi_hop.unwrap_or(false);
    if multi_hop && (peer_asn == Some(PeerAs::Internal) || (my_asn.is_some() && peer_asn == my_asn.map(PeerAs::Number)))
    {
        let message = "invalid ebgp-multihop parameter set for an ibgp peer";
        let suggestion = "leave it out, iBGP has no hop limit";
        report.error("multiHopInternal", "spec.ebgpMultiHop", true, message, suggestion);
    }
    let (password, secret) = password(spec, namespace, report);
    warn_about_what_does_nothing(spec, report);
    let (Some(my_asn), Some(peer_asn), Some(endpoint), false) = (my_asn, peer_asn, endpoint, report.has_error()) else {
        return None;
    };
    let peer = Peer {
        name: meta.key.name.clone(),
        my_asn,
        local_asn,
        peer_asn,
        endpoint,
        source_address,
        port,
        hold_time,
        keepalive_time,
        connect_time,
        router_id,
        node_selectors,
        password,
        password_missing: None,
        bfd: None,
        bfd_missing: None,
        graceful_restart: spec.enable_graceful_restart.unwrap_or(false),
        ebgp_multi_hop: multi_hop,
        vrf: written(spec.vrf.as_ref()).map(Into::into),
        dual_stack: spec.dual_stack_address_family.unwrap_or(false),
        session: SessionPolicy::default(),
        routes: Arc::default(),
    };
    let bfd_profile = written(spec.bfd_profile.as_ref()).map(Into::into);
    Some(PeerDraft { peer, secret, bfd_profile, password_lost: false })
}

const ASN_RANGE: (i64, i64) = (1, u32::MAX as i64);

/// An optional text; empty counts as absent, as it does in Go.
pub(super) fn written(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

fn peer_as(spec: &BgpPeerSpec, report: &mut Report) -> Option<PeerAs> {
    let dynamic = written(spec.dynamic_asn.as_ref());
    match (spec.peer_asn.filter(|asn| *asn != 0), dynamic) {
        (None, None) => {
            let suggestion = "write the peer's AS number (1 to 4294967295), or dynamicASN";
            report.error("peerASNMissing", "spec.peerASN", "", "missing peer ASN and dynamicASN", suggestion);
            None
        }
        (Some(asn), Some(_)) => {
            let message = "both peer ASN and dynamicASN specified";
            report.error("exclusive", "spec.peerASN", asn, message, "leave one of them out");
            None
        }
        (asn @ Some(_), None) => integer(report, "spec.peerASN", asn, ASN_RANGE, "AS number").map(PeerAs::Number),
        (None, Some("internal")) => Some(PeerAs::Internal),
        (None, Some("external")) => Some(PeerAs::External),
        (None, Some(other)) => {
            let message = format!("invalid dynamicASN {other}");
            report.error("dynamicASNInvalid", "spec.dynamicASN", other, message, "write internal or external");
            None
        }
    }
}

fn endpoint(spec: &BgpPeerSpec, report: &mut Report) -> Option<PeerEndpoint> {
    match (written(spec.peer_address.as_ref()), written(spec.interface.as_ref())) {
        (None, None) => {
            let message = "peer has no Address or Interface specified";
            report.error("peerAddressMissing", "spec.peerAddress", "", message, "write the router's IP address");
            None
        }
        (Some(address), Some(_)) => {
            let message = "peer has both Address and Interface specified";
            report.error("exclusive", "spec.peerAddress", address, message, "leave one of them out");
            None
        }
        (Some(text), None) => match host_address(text) {
            Ok(address) => Some(PeerEndpoint::Address(address)),
            Err(why) => {
                let message = format!("invalid BGPPeer address {text:?}");
                report.error("peerAddressInvalid", "spec.peerAddress", text, message, why);
                None
            }
        },
        (None, Some(interface)) => Some(PeerEndpoint::Interface(interface.into())),
    }
}

/// An address that a host can have.
pub(super) fn host_address(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr =
        text.parse().map_err(|_| "write an IPv4 or IPv6 address, without prefix length or zone".to_owned())?;
    if let IpAddr::V6(v6) = ip
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(format!("write it as IPv4, {v4}, not as an IPv4-mapped IPv6 address"));
    }
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err("no host can have it: write the address of one".to_owned());
    }
    Ok(ip)
}

fn source_address(spec: &BgpPeerSpec, endpoint: Option<&PeerEndpoint>, report: &mut Report) -> Option<IpAddr> {
    let field = "spec.sourceAddress";
    let text = written(spec.source_address.as_ref())?;
    let source = match host_address(text) {
        Ok(source) => source,
        Err(why) => {
            report.error("sourceAddressInvalid", field, text, format!("invalid source IP {text:?}"), why);
            return None;
        }
    };
    if let Some(PeerEndpoint::Address(peer)) = endpoint
        && peer.is_ipv4() != source.is_ipv4()
    {
        let message = format!("invalid source IP {text:?}: its family differs from that of the peer, {peer}");
        report.error("sourceAddressFamily", field, text, message, "write an address of that family, or leave it out");
    }
    Some(source)
}

/// Reads a duration; `None` if absent or wrong (then reported).
pub(super) fn read_duration(field: &str, text: Option<&String>, report: &mut Report) -> Option<Duration> {
    let text = written(text)?;
    let wrong = |why: String| {
        let suggestion = "write a number and a unit, such as 90s or 1m30s";
        let (why, suggestion) = why.split_once(": write ").map_or((&*why, suggestion), |(why, _)| (why, suggestion));
        report.error("durationInvalid", field, text, format!("{text:?} {why}"), suggestion);
    };
    duration::parse(text).map_err(wrong).ok()
}

/// Hold time and keepalive time, whole seconds, with their defaults.
fn timers(spec: &BgpPeerSpec, report: &mut Report) -> (Duration, Duration) {
    let (hold_at, keepalive_at) = ("spec.holdTime", "spec.keepaliveTime");
    let hold = read_duration(hold_at, spec.hold_time.as_ref(), report);
    let keepalive = read_duration(keepalive_at, spec.keepalive_time.as_ref(), report);
    let hold_text = spec.hold_time.as_deref().unwrap_or_default();
    let keepalive_text = spec.keepalive_time.as_deref().unwrap_or_default();
    let (hold, keepalive) = match (hold.map(whole_seconds), keepalive.map(whole_seconds)) {
        (None, None) => (HOLD_TIME_DEFAULT, HOLD_TIME_DEFAULT / KEEPALIVES_PER_HOLD_TIME),
        (Some(hold), None) => (hold, hold / KEEPALIVES_PER_HOLD_TIME),
        (None, Some(keepalive)) => (keepalive.saturating_mul(KEEPALIVES_PER_HOLD_TIME), keepalive),
        (Some(hold), Some(keepalive)) => (hold, keepalive),
    };
    let asked = spec.hold_time.is_some() || spec.keepalive_time.is_some();
    let (at, text) = if spec.hold_time.is_some() { (hold_at, hold_text) } else { (keepalive_at, keepalive_text) };
    if asked && ((!hold.is_zero() && hold < HOLD_TIME_MIN) || hold > HOLD_TIME_MAX) {
        let message = format!("invalid hold time {}s", hold.as_secs());
        report.error("holdTimeInvalid", at, text, message, "must be 0 or from 3s to 65535s");
    } else if keepalive > hold {
        let message = format!("invalid keepaliveTime {keepalive_text:?}");
        let suggestion = format!("must not be above the hold time {}s", hold.as_secs());
        report.error("keepaliveTimeInvalid", keepalive_at, keepalive_text, message, suggestion);
    } else if !hold.is_zero() && keepalive < KEEPALIVE_TIME_MIN {
        let message = format!("no keepalives would let the session end after {}s", hold.as_secs());
        let suggestion = "must be at least 1s, or the hold time 0";
        report.error("keepaliveTimeInvalid", keepalive_at, keepalive_text, message, suggestion);
    }
    (hold, keepalive)
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

fn connect_time(spec: &BgpPeerSpec, report: &mut Report) -> Option<Duration> {
    let field = "spec.connectTime";
    let time = read_duration(field, spec.connect_time.as_ref(), report)?;
    if time.subsec_nanos() != 0 || time.is_zero() || time > CONNECT_TIME_MAX {
        let text = spec.connect_time.as_deref().unwrap_or_default();
        let suggestion = "must be whole seconds from 1s to 65535s";
        report.error("connectTimeInvalid", field, text, format!("invalid connect time {text:?}"), suggestion);
    }
    Some(time)
}

/// The password written in the peer, or the Secret to look it up in.
fn password(spec: &BgpPeerSpec, namespace: &str, report: &mut Report) -> (Option<Password>, Option<Arc<str>>) {
    let secret = spec.password_secret.as_ref().filter(|s| !s.name.is_empty() || !s.namespace.is_empty());
    let password = written(spec.password.as_ref());
    if let Some(why) = password.and_then(|p| too_long(p.len(), "the password")) {
        report.error("passwordTooLong", "spec.password", "", why, "choose a shorter one");
    }
    if let Some(secret) = secret {
        if password.is_some() {
            let message = "can not have both password and passwordSecret";
            report.error("exclusive", "spec.passwordSecret", &secret.name, message, "leave one of them out");
        }
        if secret.name.is_empty() {
            let suggestion = "write the name of one of type kubernetes.io/basic-auth";
            report.error("secretNameMissing", "spec.passwordSecret.name", "", "names no Secret", suggestion);
        }
        if !secret.namespace.is_empty() && secret.namespace != namespace {
            let message = format!("the Secret must be in the configuration namespace {namespace:?}");
            let (rule, field) = ("secretNamespace", "spec.passwordSecret.namespace");
            report.error(rule, field, &secret.namespace, message, "leave the namespace out");
        }
    }
    (password.map(|p| Password(p.into())), secret.map(|s| s.name.as_str().into()))
}

/// What is wrong with a key of this many octets.
pub(super) fn too_long(octets: usize, what: &str) -> Option<String> {
    (octets > PASSWORD_OCTETS_MAX)
        .then(|| format!("{what} has {octets} octets: TCP allows at most {PASSWORD_OCTETS_MAX}"))
}

/// Why a peer whose last valid version had a password of its own is not dialled.
const PASSWORD_LOST: &str = "the last valid version had a password that is not kept over a restart: mend the object";

/// How a Secret must be.
pub(super) const SECRET_HOW: &str =
    "create a Secret of type kubernetes.io/basic-auth in this namespace, with the key password";

/// The password in a Secret, or in words why there is none.
pub(super) fn look_up_secret(name: &Arc<str>, resources: &Resources) -> Result<Password, String> {
    match resources.passwords.get(name) {
        None => Err(format!(
            "Secret {name:?} of type kubernetes.io/basic-auth does not exist in the namespace {:?}",
            resources.namespace
        )),
        Some(Err(why)) => Err(why.clone()),
        Some(Ok(password)) if password.0.is_empty() => Err(format!("Secret {name:?} holds an empty password")),
        Some(Ok(password)) => match too_long(password.0.len(), "the password") {
            Some(why) => Err(format!("Secret {name:?}: {why}")),
            None => Ok(password.clone()),
        },
    }
}

/// Legal, but not what it seems.
fn warn_about_what_does_nothing(spec: &BgpPeerSpec, report: &mut Report) {
    if spec.disable_mp == Some(true) {
        report.warning("deprecatedField", "spec.disableMP", true, "is deprecated and has no effect", "leave it out");
    }
}

impl PeerDraft {
    /// Gives a peer that a restart left without the password that was written in it the one written there now, whatever else is wrong
    /// there; without one the peer is in force but not dialled.
    pub(super) fn resolve_lost_password(&self, peer: &mut Peer, now: Option<&Spec>) {
        if !self.password_lost {
            return;
        }
        let Some(Spec::Peer(spec)) = now else { return peer.password_missing = Some(PASSWORD_LOST.to_owned()) };
        match written(spec.password.as_ref()).filter(|p| too_long(p.len(), "").is_none()) {
            Some(password) => peer.password = Some(Password(password.into())),
            None => peer.password_missing = Some(PASSWORD_LOST.to_owned()),
        }
    }

    /// The peer with its password looked up. A Secret that is missing or invalid leaves the last password that was read from
    /// it in use, so that its session goes on; without one the peer is in force but not dialled.
    pub(super) fn resolve(&self, resources: &Resources, last: Option<Password>, report: &mut Report) -> Peer {
        let mut peer = self.peer.clone();
        let Some(name) = &self.secret else { return peer };
        match (look_up_secret(name, resources), last) {
            (Ok(password), _) => peer.password = Some(password),
            (Err(why), Some(last)) => {
                let message = format!("{why}: the last password read stays in use");
                report.error("secretUnusable", "spec.passwordSecret.name", name, message, SECRET_HOW);
                peer.password = Some(last);
            }
            (Err(why), None) => {
                let message = format!("{why}: the peer is not dialled until there is a password");
                report.error("secretUnusable", "spec.passwordSecret.name", name, message, SECRET_HOW);
                peer.password_missing = Some(why);
            }
        }
        peer
    }

    /// Gives the peer the BFDProfile that it names. One that does not exist, or never was valid, leaves the last one of this name
    /// in use; without one the peer is in force but not dialled, since a session that BFD does not watch was not asked for.
    pub(super) fn resolve_bfd(
        &self,
        peer: &mut Peer,
        profiles: &Profiles,
        last: Option<Arc<BfdProfile>>,
        report: &mut Report,
    ) {
        let (Some(name), at) = (&self.bfd_profile, "spec.bfdProfile") else { return };
        let (why, how) = match profiles.get(name) {
            Some(Some(profile)) => return peer.bfd = Some(profile.clone()),
            Some(None) => (
                format!("peer {} referencing bfd profile {name}, which is not valid", peer.name),
                "mend the BFDProfile, or leave bfdProfile out",
            ),
            None => (
                format!("peer {} referencing non existing bfd profile {name}", peer.name),
                "create the BFDProfile, or leave bfdProfile out",
            ),
        };
        if let Some(last) = last.filter(|last| last.name == *name) {
            let message = format!("{why}; the last profile of this name stays in use");
            report.error("bfdProfileMissing", at, name, message, how);
            peer.bfd = Some(last);
        } else {
            let message = format!("{why}; the peer is not dialled until then");
            report.error("bfdProfileMissing", at, name, message, how);
            peer.bfd_missing = Some(format!("{why}: {how}"));
        }
    }
}

/// Would a node that both select dial the same router twice from the same address? Says so only where it is certain.
pub(super) fn dial_the_same(a: &Peer, b: &Peer) -> bool {
    let nodes_overlap = a.node_selectors.is_empty()
        || b.node_selectors.is_empty()
        || a.node_selectors.iter().any(|s| b.node_selectors.contains(s));
    (&a.endpoint, a.port, &a.vrf, a.source_address) == (&b.endpoint, b.port, &b.vrf, b.source_address) && nodes_overlap
}
