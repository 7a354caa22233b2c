//! Explanations from manifests.
use std::net::IpAddr;

use ferrocast_core::{
    config::{Severity, any_selector_matches},
    decide::{AddressDecision, DesiredBuilder, Reason, prefix_of},
    model::{EXCLUDE_LABEL, IpFamily, Service, ServiceKey},
};

use super::{
    Explanation, Fact, NodeExplained, PeerExplained, PoolExplained, ServiceExplained, SessionExplained, Subject,
};
use crate::plan::{
    fleet::Fleet,
    objects::Objects,
    world::{Planner, Settings, World},
};

/// What explanations are made from.
struct Source {
    planner: Planner,
    world: World,
    fleet: Fleet,
}

/// Explains `subject` by the state that the objects lead to.
#[must_use]
pub fn explain(subject: &Subject, objects: &Objects, settings: Settings) -> Explanation {
    let mut planner = Planner::new(settings);
    let world = planner.advance(objects);
    let fleet = Fleet::new(&world, &mut DesiredBuilder::default());
    let mut source = Source { planner, world, fleet };
    let mut explanation = match subject {
        Subject::Service(key) => source.of_service(key),
        Subject::Address(ip) => source.of_address(*ip),
        Subject::Node(name) => source.of_node(name),
        Subject::Peer(name) => source.of_peer(name, objects),
    };
    explanation.configuration = source.configuration();
    explanation
}

impl Source {
    fn of_service(&mut self, key: &ServiceKey) -> Explanation {
        let mut explanation = Explanation { subject: format!("service {key}"), ..Explanation::default() };
        if let Some(service) = self.world.services.get(key).cloned() {
            explanation.facts.push(self.reason(&service));
            explanation.services.push(self.service(&service, None));
        } else if let Some(service) = self.world.others.get(key) {
            let served = self.world.settings.class.as_deref();
            let why = match (service.is_load_balancer, &service.class, served) {
                (false, ..) => "it is not of type LoadBalancer".to_owned(),
                (true, Some(class), _) => format!("it is of loadBalancerClass {class:?}, which is not served"),
                (true, None, class) => {
                    format!("it has no loadBalancerClass, only {:?} is served", class.unwrap_or_default())
                }
            };
            explanation.facts.push(Fact::new(Reason::NotLoadBalancer.code(), why));
        } else {
            explanation.facts.push(Fact::new("notFound", format!("there is no Service {key}")));
        }
        explanation
    }

    fn of_address(&mut self, ip: IpAddr) -> Explanation {
        let mut explanation = Explanation { subject: format!("address {ip}"), ..Explanation::default() };
        let config = self.world.config.clone();
        let pool = match (config.pool_of(ip), config.former.get(&ip)) {
            (Some(pool), _) => Fact::new("inPool", format!("it is of pool {:?}", pool.name)),
            (None, Some(pool)) => Fact::new("inFormerPool", format!("it was of pool {:?}, and is held", pool.name)),
            (None, None) => Fact::new("addressNotInPools", "no pool in force contains it"),
        };
        explanation.facts.push(pool);
        let has = |service: &&std::sync::Arc<Service>| service.ingress.contains(&ip);
        let holders: Vec<_> = self.world.services.values().filter(has).cloned().collect();
        match &*holders {
            [] => explanation.facts.push(Fact::new("free", "no Service has it")),
            [one] => explanation.facts.push(Fact::new("inUse", format!("{} has it", one.key))),
            many => {
                let names: Vec<&str> = many.iter().map(|service| service.key.as_str()).collect();
                explanation.facts.push(Fact::new("shared", format!("{} share it", names.join(", "))));
            }
        }
        explanation.services = holders.iter().map(|service| self.service(service, Some(ip))).collect();
        explanation
    }

    fn of_node(&mut self, name: &str) -> Explanation {
        let mut explanation = Explanation { subject: format!("node {name}"), ..Explanation::default() };
        let Some(place) = self.fleet.members.iter().position(|member| &*member.node.name == name) else {
            explanation.facts.push(Fact::new("notFound", format!("there is no Node {name}")));
            return explanation;
        };
        let node = self.fleet.members[place].node.clone();
        if node.network_unavailable {
            let why = "its condition NetworkUnavailable is True: it announces nothing";
            explanation.facts.push(Fact::new(Reason::NodeNetworkUnavailable.code(), why));
        }
        if node.is_excluded() && !self.world.settings.ignore_exclude_label {
            let why = format!("it carries the label {EXCLUDE_LABEL}: it announces nothing");
            explanation.facts.push(Fact::new(Reason::NodeLabeledExcludeBalancers.code(), why));
        }
        if self.fleet.members[place].peers.is_empty() {
            let why = if self.fleet.peers.is_empty() {
                "there is no BGPPeer in force".to_owned()
            } else {
                "no BGPPeer's nodeSelectors match its labels".to_owned()
            };
            explanation.facts.push(Fact::new("noPeers", why));
        }
        if explanation.facts.is_empty() {
            let count = self.fleet.members[place].desired.announcements.len();
            explanation.facts.push(Fact::new("announcing", format!("it announces {count} prefixes")));
        }
        explanation.sessions = (0..self.fleet.peers.len()).map(|peer| self.session(place, peer)).collect();
        let services: Vec<_> = self.world.services.values().cloned().collect();
        for service in services {
            let mut explained = self.service_at(&service, None, &[place]);
            explained.pools.clear();
            explanation.services.push(explained);
        }
        explanation
    }

    fn of_peer(&mut self, name: &str, objects: &Objects) -> Explanation {
        let mut explanation = Explanation { subject: format!("peer {name}"), ..Explanation::default() };
        let Some(peer) = self.fleet.peers.iter().position(|planned| &*planned.peer.name == name) else {
            let written = objects.config.keys().find(|(kind, _, own)| &**kind == "BGPPeer" && &**own == name);
            explanation.facts.push(match written {
                Some((_, namespace, _)) if *namespace != objects.namespace => {
                    let wanted = &objects.namespace;
                    Fact::new("wrongNamespace", format!("it is in namespace {namespace}, only {wanted} is read"))
                }
                Some(_) => Fact::new("notInForce", "it is invalid: see the configuration below"),
                None => Fact::new("notFound", format!("there is no BGPPeer {name}")),
            });
            return explanation;
        };
        explanation.sessions = (0..self.fleet.members.len()).map(|place| self.session(place, peer)).collect();
        let wanted = explanation.sessions.iter().filter(|session| session.desired).count();
        explanation.facts.push(match (&self.fleet.peers[peer].preview, wanted) {
            (Err(why), _) => Fact::new("notDialled", why.clone()),
            (Ok(_), 0) if self.fleet.members.is_empty() => Fact::new("noNodes", "there is no Node"),
            (Ok(_), 0) => Fact::new("peerNotOnNode", "its nodeSelectors match no Node's labels"),
            (Ok(_), n) => Fact::new("wanted", format!("{n} nodes have a session with it")),
        });
        if wanted > 0 && explanation.sessions.iter().all(|session| session.routes == 0) {
            explanation.facts.push(Fact::new("noRoutes", "it is sent no route"));
        }
        let services: Vec<_> = self.world.services.values().cloned().collect();
        for service in services {
            let mut explained = self.service(&service, None);
            explained.pools.clear();
            for node in &mut explained.nodes {
                node.peers.retain(|told| told.peer == name);
            }
            explanation.services.push(explained);
        }
        explanation
    }

    /// Why the Service has the addresses that it has.
    fn reason(&self, service: &Service) -> Fact {
        let reason = crate::plan::json::reason(&self.world, service);
        Fact::new(reason.code, reason.message)
    }

    fn service(&mut self, service: &Service, only: Option<IpAddr>) -> ServiceExplained {
        let everywhere: Vec<usize> = (0..self.fleet.members.len()).collect();
        self.service_at(service, only, &everywhere)
    }

    fn service_at(&mut self, service: &Service, only: Option<IpAddr>, places: &[usize]) -> ServiceExplained {
        let outcome = self.world.outcomes.get(&service.key);
        let considered = self.planner.considered(&service.key);
        let pools = considered.into_iter().map(|considered| PoolExplained {
            pool: considered.pool.to_string(),
            reason: Fact::new(considered.code, considered.message),
        });
        let mut addresses = service.ingress.clone();
        addresses.sort_unstable();
        let mut explained = ServiceExplained {
            namespace: service.key.namespace().to_owned(),
            name: service.key.name().to_owned(),
            addresses,
            held: outcome.map(|outcome| outcome.held.clone()).unwrap_or_default(),
            pool: outcome.and_then(|outcome| outcome.pool.as_ref()).map(ToString::to_string),
            reason: self.reason(service),
            pools: pools.collect(),
            nodes: Vec::new(),
        };
        for place in places {
            for (address, message) in self.fleet.explain(&self.world, service, *place) {
                if only.is_some() && address.ip != only {
                    continue;
                }
                let peers = self.peers(*place, &address);
                explained.nodes.push(NodeExplained {
                    node: self.fleet.members[*place].node.name.to_string(),
                    address: address.ip,
                    announce: address.reason == Reason::Announced,
                    reason: Fact::new(address.reason.code(), message),
                    since: None,
                    peers,
                });
            }
        }
        explained.nodes.sort_by(|a, b| (a.address, &a.node).cmp(&(b.address, &b.node)));
        explained
    }

    /// What becomes of an announced address at every peer.
    fn peers(&mut self, place: usize, address: &AddressDecision) -> Vec<PeerExplained> {
        let (Reason::Announced, Some(ip)) = (address.reason, address.ip) else { return Vec::new() };
        let mut explained = Vec::new();
        for peer in 0..self.fleet.peers.len() {
            let reason = self.peer_reason(place, peer, ip, address);
            let desired = reason.code == "sent";
            let name = self.fleet.peers[peer].peer.name.to_string();
            explained.push(PeerExplained { peer: name, desired, sent: None, session: None, reason });
        }
        explained
    }

    fn peer_reason(&mut self, place: usize, peer: usize, ip: IpAddr, address: &AddressDecision) -> Fact {
        let Fleet { members, peers, .. } = &mut self.fleet;
        let (member, planned) = (&members[place], &mut peers[peer]);
        if !member.peers.contains(&peer) {
            return Fact::new("peerNotOnNode", "the peer's nodeSelectors do not match this Node's labels");
        }
        let preview = match &mut planned.preview {
            Ok(preview) => preview,
            Err(why) => return Fact::new("notDialled", why.clone()),
        };
        let names = |a: &&std::sync::Arc<ferrocast_core::config::BgpAdvertisement>| {
            a.peers.is_empty() || a.peers.contains(&planned.peer.name)
        };
        let meant: Vec<_> = address.advertisements.iter().filter(names).collect();
        if meant.is_empty() {
            return Fact::new("otherPeers", "the advertisements are for other peers");
        }
        let family = IpFamily::of(ip);
        if !preview.carries(family) {
            return Fact::new("familyNotCarried", format!("the session does not carry {family}"));
        }
        let prefixes = meant.iter().map(|advertisement| prefix_of(ip, advertisement));
        for prefix in prefixes {
            let announced = member.desired.announcements.get(&prefix);
            if announced.is_some_and(|announcement| preview.told(&prefix, announcement).is_some()) {
                return match preview.next_hop(family, &member.node.internal_ips) {
                    Some(hop) => Fact::new("sent", format!("{prefix}, next hop {hop}")),
                    None => Fact::new("sent", format!("{prefix}, next hop as the connection has it")),
                };
            }
        }
        Fact::new("attributesTooLarge", "the attributes leave no room for a prefix in a message")
    }

    /// The session of a node with a peer, or why there is none.
    fn session(&mut self, place: usize, peer: usize) -> SessionExplained {
        let Fleet { members, peers, .. } = &mut self.fleet;
        let (member, planned) = (&members[place], &mut peers[peer]);
        let meant = any_selector_matches(&planned.peer.node_selectors, &member.node.labels);
        let mut explained = SessionExplained {
            node: member.node.name.to_string(),
            peer: planned.peer.name.to_string(),
            ..SessionExplained::default()
        };
        explained.reason = match &mut planned.preview {
            _ if !meant => Fact::new("peerNotOnNode", "the peer's nodeSelectors do not match this Node's labels"),
            Err(why) => Fact::new("notDialled", why.clone()),
            Ok(preview) => {
                explained.desired = true;
                let all = member.desired.announcements.iter();
                explained.routes = all.filter(|(prefix, a)| preview.told(prefix, a).is_some()).count();
                Fact::new("wanted", "the peer's nodeSelectors match this Node's labels")
            }
        };
        explained
    }

    /// Objects that are not in force as written.
    fn configuration(&self) -> Vec<Fact> {
        let invalid = self.world.verdicts.iter().filter(|verdict| !verdict.valid);
        let told = invalid.flat_map(|verdict| {
            let (kind, namespace, name) = &verdict.key;
            let errors = verdict.problems.iter().filter(|problem| problem.severity == Severity::Error);
            errors.map(move |problem| {
                let code = if problem.rule.is_empty() { "invalid" } else { problem.rule };
                let parts = [&*problem.field, &*problem.message, &*problem.suggestion];
                let words: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                Fact::new(code, format!("{kind} {namespace}/{name}: {}", words.join(": ")))
            })
        });
        told.collect()
    }
}
