//! The whole state as JSON, row by row: nothing but the row at hand is held.
use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::IpAddr,
};

use ferrocast_bgp::Told;
use ferrocast_core::{
    announce::{Community, Configuration, ExtendedCommunity, PreviewRoute},
    config::{BGP, Problem, Severity},
    decide::{AddressDecision, DesiredBuilder, Reason, prefix_of},
    model::{IpFamily, Service},
};
use ipnet::IpNet;
use serde::Serialize;

use super::{
    fleet::{Fleet, Member, other_announcers},
    world::{Assumptions, Verdict, World},
};
use crate::{announcers::configure, decider::Announcers};

/// Version of the format: fields are only added within a version.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct ServiceRow<'a> {
    namespace: &'a str,
    name: &'a str,
    addresses: &'a [IpAddr],
    #[serde(rename = "addressPools")]
    address_pools: Vec<Option<&'a str>>,
    pool: Option<&'a str>,
    held: &'a [IpAddr],
    reason: ReasonRow<'a>,
}

/// A code with words.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReasonRow<'a> {
    /// Stable.
    pub code: &'a str,
    /// For people.
    pub message: &'a str,
}

#[derive(Serialize)]
struct DecisionRow<'a> {
    namespace: &'a str,
    name: &'a str,
    address: IpAddr,
    node: &'a str,
    announcer: &'a str,
    announce: bool,
    peers: &'a [&'a str],
    code: &'static str,
    message: &'a str,
}

/// What a target of an announcer besides BGP would be given, if the announcer foretells it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ForetoldRow<'a> {
    announcer: &'a str,
    node: &'a str,
    target: &'a str,
    prefix: IpNet,
    next_hop: Option<IpAddr>,
    attributes: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
pub(super) struct RouteRow<'a> {
    pub(super) node: &'a str,
    pub(super) peer: &'a str,
    pub(super) prefix: IpNet,
    #[serde(rename = "nextHop")]
    pub(super) next_hop: Option<IpAddr>,
    communities: &'a [String],
    #[serde(rename = "largeCommunities")]
    large_communities: &'a [String],
    #[serde(rename = "localPref")]
    local_pref: Option<u32>,
    attributes: &'a Attributes,
    services: Vec<&'a str>,
}

/// What goes beyond MetalLB's advertisements; absent where it is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Attributes {
    #[serde(rename = "asPathPrepend", skip_serializing_if = "Option::is_none")]
    as_path_prepend: Option<usize>,
    #[serde(rename = "extendedCommunities", skip_serializing_if = "Vec::is_empty")]
    extended_communities: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    med: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
}

/// What a peer is told, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    communities: Vec<String>,
    large_communities: Vec<String>,
    local_pref: Option<u32>,
    attributes: Attributes,
}

#[derive(Serialize)]
struct ConfigurationRow<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    valid: bool,
    problems: Vec<ProblemRow<'a>>,
}

/// One problem.
#[derive(Serialize)]
pub(super) struct ProblemRow<'a> {
    rule: &'a str,
    field: &'a str,
    value: &'a str,
    message: &'a str,
    suggestion: &'a str,
    severity: &'static str,
}

#[derive(Serialize)]
struct AssumptionsRow<'a> {
    nodes: Vec<&'a str>,
    endpoints: Vec<&'a str>,
}

impl<'a> From<&'a Problem> for ProblemRow<'a> {
    fn from(problem: &'a Problem) -> Self {
        Self {
            rule: problem.rule,
            field: &problem.field,
            value: &problem.value,
            message: &problem.message,
            suggestion: &problem.suggestion,
            severity: match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
        }
    }
}

/// Writes one array of an object, one row per line.
pub(super) struct Rows<'a, W: Write> {
    out: &'a mut W,
    first: bool,
}

impl<'a, W: Write> Rows<'a, W> {
    /// Begins the array called `name`, which is not the object's first field.
    pub(super) fn begin(out: &'a mut W, name: &str) -> io::Result<Self> {
        write!(out, ",\n\"{name}\":[")?;
        Ok(Self { out, first: true })
    }

    pub(super) fn push(&mut self, row: &impl Serialize) -> io::Result<()> {
        self.out.write_all(if std::mem::take(&mut self.first) { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *self.out, row).map_err(io::Error::from)
    }

    pub(super) fn end(self) -> io::Result<()> {
        self.out.write_all(if self.first { b"]" } else { b"\n]" })
    }
}

/// Writes the state; `announcers` besides BGP are asked what they would give their targets.
///
/// # Errors
/// What writing returns.
pub fn write(world: &World, fleet: &mut Fleet, announcers: &Announcers, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{{\"version\":{VERSION}")?;
    let mut rows = Rows::begin(out, "services")?;
    for service in world.services.values() {
        rows.push(&service_row(world, service, &mut Vec::new()))?;
    }
    rows.end()?;
    let rows = Rows::begin(out, "decisions")?;
    write_decisions(world, fleet, rows)?;
    let rows = Rows::begin(out, "routes")?;
    write_routes(fleet, rows)?;
    let rows = Rows::begin(out, "foretold")?;
    write_foretold(world, announcers, rows)?;
    let mut rows = Rows::begin(out, "configuration")?;
    for verdict in &world.verdicts {
        rows.push(&configuration_row(verdict))?;
    }
    rows.end()?;
    write_assumptions(&world.assumptions, out)?;
    out.write_all(b"}\n")
}

/// Says what was made up, if anything was.
fn write_assumptions(assumptions: &Assumptions, out: &mut impl Write) -> io::Result<()> {
    if *assumptions == Assumptions::default() {
        return Ok(());
    }
    let row = AssumptionsRow {
        nodes: assumptions.nodes.iter().map(|name| &**name).collect(),
        endpoints: assumptions.endpoints.iter().map(|key| key.as_str()).collect(),
    };
    out.write_all(b",\n\"assumptions\":")?;
    serde_json::to_writer(out, &row).map_err(io::Error::from)
}

/// `sorted` is room for the addresses in their order.
fn service_row<'a>(world: &'a World, service: &'a Service, sorted: &'a mut Vec<IpAddr>) -> ServiceRow<'a> {
    let outcome = world.outcomes.get(&service.key);
    sorted.clone_from(&service.ingress);
    sorted.sort_unstable();
    let pool_of = |ip: &IpAddr| {
        let outcome = outcome?;
        let place = outcome.ips.iter().position(|own| own == ip)?;
        outcome.pools.get(place).map(|pool| &**pool).filter(|pool| !pool.is_empty())
    };
    let mut address_pools: Vec<Option<&str>> = sorted.iter().map(pool_of).collect();
    if address_pools.iter().all(Option::is_none) {
        address_pools.clear();
    }
    ServiceRow {
        namespace: service.key.namespace(),
        name: service.key.name(),
        pool: address_pools.first().copied().flatten(),
        address_pools,
        addresses: sorted,
        held: outcome.map(|outcome| &*outcome.held).unwrap_or_default(),
        reason: reason(world, service),
    }
}

/// Why a Service has what it has.
#[must_use]
pub fn reason<'a>(world: &'a World, service: &Service) -> ReasonRow<'a> {
    let Some(outcome) = world.outcomes.get(&service.key) else {
        return ReasonRow { code: "waiting", message: "nothing has been decided yet" };
    };
    let noted = || outcome.notes.last().map(|note| note.message.as_str()).unwrap_or_default();
    let message = if outcome.message.is_empty() { noted() } else { &outcome.message };
    ReasonRow { code: outcome.code, message }
}

fn write_decisions(world: &World, fleet: &mut Fleet, mut rows: Rows<'_, impl Write>) -> io::Result<()> {
    let any_others = world.config.announcers.values().any(|class| !class.advertisements.is_empty());
    if !world.has_advertisements && !any_others {
        return rows.end();
    }
    let mut reached = Reached::default();
    for service in world.services.values() {
        let mut decided: Vec<(usize, IpAddr, AddressDecision, String)> = Vec::new();
        fleet.decisions(world, service, |place, ip, address, message| {
            decided.push((place, ip, address.clone(), message.to_owned()));
            Ok::<(), io::Error>(())
        })?;
        let places = if any_others { fleet.members.len() } else { 0 };
        let others: Vec<_> = (0..places).map(|place| fleet.of_other_announcers(world, service, place)).collect();
        for (place, ip, address, message) in &decided {
            let peers = reached.of(fleet, *place, *ip, address);
            let peers: Vec<&str> = peers.iter().map(|peer| &*fleet.peers[*peer].peer.name).collect();
            let node = &*fleet.members[*place].node.name;
            let of_bgp = world.has_advertisements.then_some((BGP, address, message.as_str(), peers));
            let others = others.get(*place).into_iter().flatten().filter(|(_, other, _)| other.ip == Some(*ip));
            let mut all: Vec<(&str, &AddressDecision, &str, Vec<&str>)> = of_bgp.into_iter().collect();
            all.extend(others.map(|(name, address, text)| (&**name, address, text.as_str(), targets(address))));
            all.sort_by_key(|(announcer, ..)| *announcer);
            for (announcer, address, message, peers) in &all {
                rows.push(&DecisionRow {
                    namespace: service.key.namespace(),
                    name: service.key.name(),
                    address: *ip,
                    node,
                    announcer,
                    announce: address.reason == Reason::Announced,
                    peers,
                    code: address.reason.code(),
                    message,
                })?;
            }
        }
    }
    rows.end()
}

/// The targets that an announced address is for, as its Advertisements name them; none: whatever the announcer has.
fn targets(address: &AddressDecision) -> Vec<&str> {
    let all = address.advertisements.iter().any(|advertisement| advertisement.peers.is_empty());
    let named = address.advertisements.iter().filter(|_| !all).flat_map(|a| a.peers.iter().map(|name| &**name));
    let mut names: Vec<&str> = named.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Which peers get the route of an address.
#[derive(Default)]
struct Reached {
    peers: Vec<usize>,
}

impl Reached {
    fn of(&mut self, fleet: &mut Fleet, place: usize, ip: IpAddr, address: &AddressDecision) -> &[usize] {
        self.peers.clear();
        let mut prefixes: Vec<IpNet> = address.advertisements.iter().map(|a| prefix_of(ip, a)).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let Fleet { members, peers, .. } = fleet;
        let announcements = &members[place].desired.announcements;
        let found: Vec<_> = prefixes.iter().filter_map(|prefix| announcements.get_key_value(prefix)).collect();
        for peer in &members[place].peers {
            let Ok(preview) = &mut peers[*peer].preview else { continue };
            if found.iter().any(|(prefix, announcement)| preview.told(prefix, announcement).is_some()) {
                self.peers.push(*peer);
            }
        }
        &self.peers
    }
}

fn write_routes(fleet: &mut Fleet, mut rows: Rows<'_, impl Write>) -> io::Result<()> {
    let mut shown = ShownCache::default();
    let Fleet { members, peers, .. } = fleet;
    for member in members.iter() {
        for peer in &member.peers {
            let planned = &mut peers[*peer];
            let name = &planned.peer.name;
            let Ok(preview) = &mut planned.preview else { continue };
            let hops = [IpFamily::V4, IpFamily::V6].map(|family| preview.next_hop(family, &member.node.internal_ips));
            for (prefix, announcement) in &member.desired.announcements {
                let Some(told) = preview.told(prefix, announcement) else { continue };
                let shown = shown.get(&told);
                let services = announcement.services.iter().map(|key| key.as_str()).collect();
                let next_hop = hops[usize::from(prefix.addr().is_ipv6())];
                rows.push(&shown.row(&member.node.name, name, *prefix, next_hop, services))?;
            }
        }
    }
    rows.end()
}

fn write_foretold(world: &World, announcers: &Announcers, mut rows: Rows<'_, impl Write>) -> io::Result<()> {
    let configure = configure();
    for (name, announcer) in other_announcers(world).filter_map(|name| Some((name, announcers.get(name)?))) {
        let fleet = Fleet::of_announcer(world, name, &mut DesiredBuilder::default());
        for Member { node, desired, .. } in &fleet.members {
            let configuration = Configuration { generation: 1, entries: configure(name, &world.config, node, false) };
            for (target, routes) in announcer.preview(desired, &configuration).unwrap_or_default() {
                for (prefix, PreviewRoute { next_hop, attributes }) in routes {
                    let (announcer, node, target) = (&**name, &*node.name, &*target);
                    rows.push(&ForetoldRow { announcer, node, target, prefix, next_hop, attributes })?;
                }
            }
        }
    }
    rows.end()
}

/// What was made of what peers are told: few different things, many routes.
#[derive(Default)]
pub(super) struct ShownCache {
    by_told: BTreeMap<usize, (std::sync::Arc<Told>, Shown)>,
}

impl ShownCache {
    pub(super) fn get(&mut self, told: &std::sync::Arc<Told>) -> &Shown {
        let key = std::sync::Arc::as_ptr(told) as usize;
        let (_, shown) = self.by_told.entry(key).or_insert_with(|| (told.clone(), Shown::of(told)));
        shown
    }
}

impl Shown {
    fn of(told: &Told) -> Self {
        let (mut communities, mut large_communities) = (Vec::new(), Vec::new());
        for community in &told.communities {
            match community {
                Community::Standard(a, b) => communities.push(format!("{a}:{b}")),
                Community::Large(a, b, c) => large_communities.push(format!("{a}:{b}:{c}")),
            }
        }
        communities.sort_unstable();
        large_communities.sort_unstable();
        let mut extended_communities: Vec<String> = told.extended_communities.iter().map(extended).collect();
        extended_communities.sort_unstable();
        let attributes = Attributes {
            as_path_prepend: Some(told.as_path_prepend).filter(|times| *times > 0),
            extended_communities,
            med: told.med,
            weight: told.weight.map(std::num::NonZeroU32::get),
        };
        Self { communities, large_communities, local_pref: told.local_pref, attributes }
    }

    pub(super) fn row<'a>(
        &'a self,
        node: &'a str,
        peer: &'a str,
        prefix: IpNet,
        next_hop: Option<IpAddr>,
        services: Vec<&'a str>,
    ) -> RouteRow<'a> {
        RouteRow {
            node,
            peer,
            prefix,
            next_hop,
            communities: &self.communities,
            large_communities: &self.large_communities,
            local_pref: self.local_pref,
            attributes: &self.attributes,
            services,
        }
    }
}

/// As it may be written in a BGPPeerPolicy. Source: RFC 4360 §3.1, §3.2, RFC 5668 §2.
fn extended(community: &ExtendedCommunity) -> String {
    let ExtendedCommunity([kind, subtype, octets @ ..]) = community;
    let [a, b, c, d, e, f] = *octets;
    let name = match subtype {
        0x02 => "rt",
        0x03 => "soo",
        _ => "",
    };
    match (kind, name) {
        (0x00, "rt" | "soo") => {
            format!("{name}:{}:{}", u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]))
        }
        (0x01, "rt" | "soo") => format!("{name}:{a}.{b}.{c}.{d}:{}", u16::from_be_bytes([e, f])),
        (0x02, "rt" | "soo") => {
            format!("{name}:{}:{}", u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]))
        }
        _ => format!("0x{:016x}", u64::from_be_bytes(community.0)),
    }
}

fn configuration_row(verdict: &Verdict) -> ConfigurationRow<'_> {
    let (kind, namespace, name) = &verdict.key;
    ConfigurationRow {
        kind,
        namespace,
        name,
        valid: verdict.valid,
        problems: verdict.problems.iter().map(ProblemRow::from).collect(),
    }
}
