//! What explanations have in common, whether they come from manifests or from what runs.
use std::{net::IpAddr, sync::Arc};

use ferrocast_bgp::Preview;
use ferrocast_core::{
    alloc::Considered,
    announce::Desired,
    config::{Advertisement, Config, Peer, Problem},
    decide::{AddressDecision, Reason, prefix_of},
    model::{EXCLUDE_LABEL, IpFamily, Node, Service},
};
use ipnet::IpNet;

use super::{Fact, PoolExplained};

/// A peer as it looks to a node.
pub(super) struct PeerSeen<'a> {
    /// The peer.
    pub(super) peer: &'a Peer,
    /// Its nodeSelectors match the node.
    pub(super) on_node: bool,
    /// What it is told, or why no session with it is tried.
    pub(super) preview: &'a mut Result<Preview, String>,
    /// The node.
    pub(super) node: &'a Node,
    /// What the node announces.
    pub(super) desired: &'a Desired,
}

impl PeerSeen<'_> {
    fn not_on_node() -> Fact {
        Fact::new("peerNotOnNode", "the peer's nodeSelectors do not match this Node's labels")
    }

    /// Why the peer is to be sent an announced address, with the prefix that it is sent; or why it is not.
    pub(super) fn of_address(self, ip: IpAddr, address: &AddressDecision) -> (Fact, Option<IpNet>) {
        if !self.on_node {
            return (Self::not_on_node(), None);
        }
        let preview = match self.preview {
            Ok(preview) => preview,
            Err(why) => return (Fact::new("notDialled", why.clone()), None),
        };
        let names = |a: &&Arc<Advertisement>| a.peers.is_empty() || a.peers.contains(&self.peer.name);
        let meant: Vec<_> = address.advertisements.iter().filter(names).collect();
        if meant.is_empty() {
            return (Fact::new("otherPeers", "the advertisements are for other peers"), None);
        }
        let family = IpFamily::of(ip);
        if !preview.carries(family) {
            return (Fact::new("familyNotCarried", format!("the session does not carry {family}")), None);
        }
        let mut handed_over = false;
        for prefix in meant.iter().map(|advertisement| prefix_of(ip, advertisement)) {
            let Some(announcement) = self.desired.announcements.get(&prefix) else { continue };
            handed_over = true;
            if preview.told(&prefix, announcement).is_some() {
                let fact = match preview.next_hop(family, &self.node.internal_ips) {
                    Some(hop) => Fact::new("sent", format!("{prefix}, next hop {hop}")),
                    None => Fact::new("sent", format!("{prefix}, next hop as the connection has it")),
                };
                return (fact, Some(prefix));
            }
        }
        let fact = match handed_over {
            true => Fact::new("attributesTooLarge", "the attributes leave no room for a prefix in a message"),
            false => Fact::new("notHandedOver", "the decision is new and on its way to the announcer"),
        };
        (fact, None)
    }

    /// Why there is to be a session, with the number of routes that it is to carry; or why not.
    pub(super) fn of_session(self) -> (Fact, Option<usize>) {
        match self.preview {
            _ if !self.on_node => (Self::not_on_node(), None),
            Err(why) => (Fact::new("notDialled", why.clone()), None),
            Ok(preview) => {
                let all = self.desired.announcements.iter();
                let routes = all.filter(|(prefix, a)| preview.told(prefix, a).is_some()).count();
                (Fact::new("wanted", "the peer's nodeSelectors match this Node's labels"), Some(routes))
            }
        }
    }
}

/// Where an address belongs.
pub(super) fn pool_of_address(ip: IpAddr, config: &Config) -> Fact {
    match (config.pool_of(ip), config.former.get(&ip)) {
        (Some(pool), _) => Fact::new("inPool", format!("it is of pool {:?}", pool.name)),
        (None, Some(pool)) => Fact::new("inFormerPool", format!("it was of pool {:?}, and is held", pool.name)),
        (None, None) => Fact::new("addressNotInPools", "no pool in force contains it"),
    }
}

/// Who has an address.
pub(super) fn holders_of_address(holders: &[&str]) -> Fact {
    match holders {
        [] => Fact::new("free", "no Service has it"),
        [one] => Fact::new("inUse", format!("{one} has it")),
        many => Fact::new("shared", format!("{} share it", many.join(", "))),
    }
}

/// Why a Service is none that is served.
pub(super) fn not_served(service: &Service, served: Option<&str>) -> String {
    match (service.is_load_balancer, &service.class, served) {
        (false, ..) => "it is not of type LoadBalancer".to_owned(),
        (true, Some(class), _) => format!("it is of loadBalancerClass {class:?}, which is not served"),
        (true, None, class) => format!("it has no loadBalancerClass, only {:?} is served", class.unwrap_or_default()),
    }
}

/// Why a node announces nothing, whatever the Service.
pub(super) fn faults_of_node(node: &Node, ignore_exclude_label: bool) -> Vec<Fact> {
    let mut facts = Vec::new();
    if node.network_unavailable {
        let why = "its condition NetworkUnavailable is True: it announces nothing";
        facts.push(Fact::new(Reason::NodeNetworkUnavailable.code(), why));
    }
    if node.is_excluded() && !ignore_exclude_label {
        let why = format!("it carries the label {EXCLUDE_LABEL}: it announces nothing");
        facts.push(Fact::new(Reason::NodeLabeledExcludeBalancers.code(), why));
    }
    facts
}

/// Why a node has no peers.
pub(super) fn no_peers(any_in_force: bool) -> Fact {
    let why = match any_in_force {
        false => "there is no BGPPeer in force",
        true => "no BGPPeer's nodeSelectors match its labels",
    };
    Fact::new("noPeers", why)
}

/// What a peer has of the nodes, from how many of them want a session with it (of which `nodes` there are).
pub(super) fn wanted_sessions(wanted: usize, nodes: usize) -> Fact {
    match wanted {
        0 if nodes == 0 => Fact::new("noNodes", "there is no Node"),
        0 => Fact::new("peerNotOnNode", "its nodeSelectors match no Node's labels"),
        n => Fact::new("wanted", format!("{n} nodes have a session with it")),
    }
}

/// What is wrong with an object of the configuration.
pub(super) fn problem(object: &str, problem: &Problem) -> Fact {
    let code = if problem.rule.is_empty() { "invalid" } else { problem.rule };
    let parts = [&*problem.field, &*problem.message, &*problem.suggestion];
    let words: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Fact::new(code, format!("{object}: {}", words.join(": ")))
}

/// A pool as the allocator told of it.
pub(super) fn considered(considered: Considered) -> PoolExplained {
    PoolExplained { pool: considered.pool.to_string(), reason: Fact::new(considered.code, considered.message) }
}

/// A peer that is announced nothing.
pub(super) fn no_routes() -> Fact {
    Fact::new("noRoutes", "it is sent no route")
}
