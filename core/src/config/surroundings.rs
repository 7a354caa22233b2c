//! What is legal but surely a mistake, seen beside the Nodes, Namespaces and Services that there are.
use std::{net::IpAddr, sync::Arc};

use imbl::OrdMap;
use ipnet::{IpNet, Ipv4Net};

use super::{
    Advertisement, Config, IpRange, Peer, Pool, Problem, RawSelector, Resource, Resources, ServiceAllocationSpec, Spec,
    advert, any_selector_matches, check::Report, namespace_by_name,
};
use crate::model::{LabelSelector, Labels, Node, Service, ServiceKey};

/// How long the network of the segment of a Node is taken to be: the API does not say, and most are so long.
const SEGMENT_LEN: u8 = 24;

/// Networks that no pool should have addresses of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Networks of pods, beside those that the Nodes name.
    pub pod: Vec<IpNet>,
    /// Networks of the Services' cluster addresses.
    pub service: Vec<IpNet>,
}

/// What the configuration is for.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// Nodes by name.
    pub nodes: &'a OrdMap<Arc<str>, Arc<Node>>,
    /// Labels of Namespaces by name.
    pub namespaces: &'a OrdMap<Arc<str>, Arc<Labels>>,
    /// Services.
    pub services: &'a OrdMap<ServiceKey, Arc<Service>>,
    /// Networks.
    pub networks: Networks,
}

/// Warnings about the objects of `resources`, and `config` which was built from them, in order of object and field.
///
/// Where there is no Node, no Namespace or no Service at all, nothing is said of selectors for them: they are not known, rather than
/// absent.
#[must_use]
pub fn check_surroundings(resources: &Resources, config: &Config, around: &Surroundings<'_>) -> Vec<Problem> {
    let seen = Seen::new(around);
    let mut problems = Vec::new();
    for object in resources.objects.values() {
        let mut report = Report::new(&object.meta.key);
        seen.check(object, config, &mut report);
        problems.append(&mut report.problems);
    }
    problems.sort();
    problems.dedup();
    problems
}

/// The surroundings, ready to be asked.
struct Seen<'a> {
    nodes: Vec<&'a Node>,
    /// Labels of Namespaces, also of those that only Services name.
    namespaces: Vec<(Arc<str>, Labels)>,
    /// Those of type LoadBalancer.
    services: Vec<&'a Service>,
    /// What to keep out of pools: rule, network, and what it is.
    networks: Vec<(&'static str, IpRange, String)>,
}

impl<'a> Seen<'a> {
    fn new(around: &Surroundings<'a>) -> Self {
        let nodes: Vec<&Node> = around.nodes.values().map(|node| &**node).collect();
        let mut namespaces: OrdMap<Arc<str>, Labels> =
            around.namespaces.iter().map(|(name, labels)| (name.clone(), (**labels).clone())).collect();
        for key in around.services.keys().filter(|key| !around.namespaces.contains_key(key.namespace())) {
            namespaces.insert(key.namespace().into(), namespace_by_name(key.namespace()));
        }
        let range = |net: &IpNet| IpRange { first: net.network(), last: net.broadcast() };
        let mut networks = Vec::new();
        for net in &around.networks.pod {
            networks.push(("podNetworkInPool", range(net), format!("{net} is a network of pods")));
        }
        for net in &around.networks.service {
            networks.push((
                "serviceNetworkInPool",
                range(net),
                format!("{net} is a network of Services' cluster addresses"),
            ));
        }
        for node in &nodes {
            for net in &node.pod_cidrs {
                let words = format!("{net} is the network of the pods of Node {}", node.name);
                networks.push(("podNetworkInPool", range(net), words));
            }
            for ip in &node.internal_ips {
                let words = format!("{ip} is an address of Node {}", node.name);
                networks.push(("nodeAddressInPool", IpRange { first: *ip, last: *ip }, words));
            }
        }
        for service in around.services.values() {
            for ip in &service.cluster_ips {
                let words = format!("{ip} is the cluster address of Service {}", service.key);
                networks.push(("serviceNetworkInPool", IpRange { first: *ip, last: *ip }, words));
            }
        }
        let services = around.services.values().map(|s| &**s).filter(|s| s.is_load_balancer).collect();
        Self { nodes, namespaces: namespaces.into_iter().collect(), services, networks }
    }

    fn check(&self, object: &Resource, config: &Config, report: &mut Report) {
        let name = &object.meta.key.name;
        match &object.spec {
            Some(Spec::Pool(spec)) => {
                if let Some(allocation) = &spec.service_allocation {
                    self.allocation(allocation, report);
                }
                if let Some(pool) = config.pools.get(name) {
                    self.pool(pool, &spec.addresses, report);
                }
            }
            Some(Spec::Peer(spec)) => self.peer(config.peers.get(name), &spec.node_selectors, report),
            Some(Spec::BgpAdvertisement(spec)) => {
                self.node_selectors("spec.nodeSelectors", &spec.node_selectors, report);
                self.service_selectors("spec.serviceSelectors", &spec.service_selectors, report);
                if let Some(advertisement) = config.advertisements.get(name) {
                    self.peers_elsewhere(advertisement, config, report);
                    self.local_preferences(advertisement, config, report);
                }
            }
            Some(Spec::Advertisement(spec)) => {
                self.node_selectors("spec.nodeSelectors", &spec.node_selectors, report);
                self.service_selectors("spec.serviceSelectors", &spec.service_selectors, report);
            }
            Some(Spec::L2Advertisement(spec)) => {
                self.node_selectors("spec.nodeSelectors", &spec.node_selectors, report);
                self.service_selectors("spec.serviceSelectors", &spec.service_selectors, report);
                for (i, (_, preference)) in spec.preferred_node_selectors.iter().enumerate() {
                    let field = format!("spec.preferredNodeSelectors[{i}].preference");
                    nothing_matches(&field, preference, "Node", self.nodes.iter().map(|n| &n.labels), report);
                }
            }
            Some(Spec::PoolPolicy(spec)) => {
                for (i, (raw, _)) in spec.quotas.iter().enumerate() {
                    let field = format!("spec.quotas[{i}].namespaceSelector");
                    nothing_matches(&field, raw, "Namespace", self.namespace_labels(), report);
                }
            }
            Some(Spec::Reservation(spec)) => self.namespace_names("spec.for.namespaces", &spec.namespaces, report),
            _ => {}
        }
    }

    fn namespace_labels(&self) -> impl Iterator<Item = &Labels> {
        self.namespaces.iter().map(|(_, labels)| labels)
    }

    fn allocation(&self, spec: &ServiceAllocationSpec, report: &mut Report) {
        let at = "spec.serviceAllocation";
        self.namespace_names(&format!("{at}.namespaces"), &spec.namespaces, report);
        for (i, raw) in spec.namespace_selectors.iter().enumerate() {
            let field = format!("{at}.namespaceSelectors[{i}]");
            nothing_matches(&field, raw, "Namespace", self.namespace_labels(), report);
        }
        self.service_selectors(&format!("{at}.serviceSelectors"), &spec.service_selectors, report);
    }

    fn namespace_names(&self, field: &str, written: &[String], report: &mut Report) {
        if self.namespaces.is_empty() {
            return;
        }
        let exists = |name: &str| self.namespaces.iter().any(|(known, _)| **known == *name);
        advert::warn_unknown(field, "Namespace", written.iter().map(String::as_str), exists, report);
    }

    fn service_selectors(&self, field: &str, written: &[RawSelector], report: &mut Report) {
        for (i, raw) in written.iter().enumerate() {
            let labels = self.services.iter().map(|service| &service.labels);
            nothing_matches(&format!("{field}[{i}]"), raw, "Service of type LoadBalancer", labels, report);
        }
    }

    fn node_selectors(&self, field: &str, written: &[RawSelector], report: &mut Report) {
        for (i, raw) in written.iter().enumerate() {
            nothing_matches(&format!("{field}[{i}]"), raw, "Node", self.nodes.iter().map(|n| &n.labels), report);
        }
    }

    fn reaches(&self, selectors: &[LabelSelector], node: &Node) -> bool {
        any_selector_matches(selectors, &node.labels)
    }

    fn peer(&self, peer: Option<&Arc<Peer>>, written: &[RawSelector], report: &mut Report) {
        let nobody = |peer: &Arc<Peer>| !self.nodes.iter().any(|node| self.reaches(&peer.node_selectors, node));
        if !self.nodes.is_empty() && peer.is_some_and(nobody) {
            let message = "the selectors match no Node: nobody holds a session with this peer";
            let suggestion = "write labels that Nodes have, or leave nodeSelectors out for all";
            report.warning("peerUnreachable", "spec.nodeSelectors", "", message, suggestion);
        } else {
            self.node_selectors("spec.nodeSelectors", written, report);
        }
    }

    /// The peers of an advertisement are on none of its nodes.
    fn peers_elsewhere(&self, advertisement: &Advertisement, config: &Config, report: &mut Report) {
        let mut own = self.nodes.iter().filter(|node| self.reaches(&advertisement.node_selectors, node)).peekable();
        let peers = config.peers.values();
        let mut named = peers
            .filter(|peer| advertisement.peers.is_empty() || advertisement.peers.contains(&peer.name))
            .filter(|peer| self.nodes.iter().any(|node| self.reaches(&peer.node_selectors, node)))
            .peekable();
        if own.peek().is_none() || named.peek().is_none() {
            return;
        }
        let own: Vec<&&Node> = own.collect();
        if !named.any(|peer| own.iter().any(|node| self.reaches(&peer.node_selectors, node))) {
            let message = "none of the peers is on a node that these selectors match: nothing is announced";
            let suggestion = "name peers of these nodes, or select nodes of the peers";
            report.warning("peersElsewhere", "spec.nodeSelectors", "", message, suggestion);
        }
    }

    /// An older advertisement gives the same prefix another local preference on a node of both.
    fn local_preferences(&self, advertisement: &Advertisement, config: &Config, report: &mut Report) {
        let both = |other: &Advertisement| {
            self.nodes.iter().find(|node| {
                self.reaches(&advertisement.node_selectors, node) && self.reaches(&other.node_selectors, node)
            })
        };
        for other in config.advertisements.values().filter(|other| other.name < advertisement.name) {
            if let (Some(pool), Some(node)) = (advert::disagree(advertisement, other, config), both(other)) {
                let message = format!(
                    "local preference {} was already set by the BGPAdvertisement {:?} for the same pool {:?}, and both select Node {}: \
                     what both apply to is not announced there",
                    other.local_pref.unwrap_or(0),
                    other.name,
                    pool.name,
                    node.name
                );
                let suggestion = "use the same value, or other peers, nodes or lengths";
                let value = advertisement.local_pref.unwrap_or(0);
                report.warning("localPrefConflict", "spec.localPref", value, message, suggestion);
            }
        }
    }

    fn pool(&self, pool: &Pool, entries: &[String], report: &mut Report) {
        for (i, (range, entry)) in pool.written.iter().zip(entries).enumerate() {
            let field = format!("spec.addresses[{i}]");
            for rule in ["nodeAddressInPool", "podNetworkInPool", "serviceNetworkInPool"] {
                let mut inside = self.networks.iter().filter(|(of, net, _)| *of == rule && net.overlaps(*range));
                let Some((_, _, words)) = inside.next() else { continue };
                let others = match inside.count() {
                    0 => String::new(),
                    n => format!(", and {n} more like it"),
                };
                let message = format!("{entry:?} has addresses that are in use: {words}{others}");
                report.warning(rule, field.as_str(), entry, message, "leave them out of the pool");
            }
            self.network_addresses(pool, &field, *range, entry, report);
        }
    }

    /// A pool on the nodes' own segment would give out the addresses that no host can have there.
    fn network_addresses(&self, pool: &Pool, field: &str, range: IpRange, entry: &str, report: &mut Report) {
        if !pool.auto_assign || pool.avoid_buggy_ips {
            return;
        }
        let found = self.nodes.iter().find_map(|node| {
            let segments = node.internal_ips.iter().filter_map(|ip| match ip {
                IpAddr::V4(ip) => Ipv4Net::new(*ip, SEGMENT_LEN).ok(),
                IpAddr::V6(_) => None,
            });
            let mut edges = segments.flat_map(|segment| [segment.network(), segment.broadcast()]);
            edges.find(|ip| range.size() > 1 && range.contains(IpAddr::V4(*ip))).map(|ip| (ip, node))
        });
        if let Some((ip, node)) = found {
            let message = format!(
                "{ip} may be the network or broadcast address of the segment of Node {}, which no host can have there",
                node.name
            );
            let suggestion = "set avoidBuggyIPs, or write a range without it";
            report.warning("networkAddressInPool", field, entry, message, suggestion);
        }
    }
}

/// Warns if there is something that the selector could match, and it does not.
fn nothing_matches<'a>(
    field: &str,
    raw: &RawSelector,
    what: &str,
    mut labels: impl Iterator<Item = &'a Labels>,
    report: &mut Report,
) {
    // A selector that is none is an error, which is told elsewhere.
    let Ok(selector) = LabelSelector::new(raw.match_labels.clone(), raw.match_expressions.iter().cloned()) else {
        return;
    };
    let Some(first) = labels.next() else { return };
    if !selector.matches(first) && !labels.any(|labels| selector.matches(labels)) {
        let message = format!("matches no {what}");
        report.warning(
            "selectsNothing",
            field,
            &selector,
            message,
            "check keys and values against the labels there are",
        );
    }
}
