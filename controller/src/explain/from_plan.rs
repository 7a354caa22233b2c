//! Explanations from manifests.
use std::{net::IpAddr, sync::Arc};

use ferrocast_core::{
    config::{BGP, Severity, any_selector_matches},
    decide::{AddressDecision, DesiredBuilder, Reason},
    model::{Service, ServiceKey},
};

use super::{
    Explanation, Fact, NodeExplained, PeerExplained, ServiceExplained, SessionExplained, Subject,
    told::{self, PeerSeen},
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
            let why = told::not_served(service, self.world.settings.class.as_deref());
            explanation.facts.push(Fact::new(Reason::NotLoadBalancer.code(), why));
        } else {
            explanation.facts.push(Fact::new("notFound", format!("there is no Service {key}")));
        }
        explanation
    }

    fn of_address(&mut self, ip: IpAddr) -> Explanation {
        let mut explanation = Explanation { subject: format!("address {ip}"), ..Explanation::default() };
        let config = self.world.config.clone();
        explanation.facts.push(told::pool_of_address(ip, &config));
        let has = |service: &&std::sync::Arc<Service>| service.ingress.contains(&ip);
        let holders: Vec<_> = self.world.services.values().filter(has).cloned().collect();
        let names: Vec<&str> = holders.iter().map(|service| service.key.as_str()).collect();
        explanation.facts.push(told::holders_of_address(&names));
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
        explanation.facts = told::faults_of_node(&node, self.world.settings.ignore_exclude_label);
        if self.fleet.members[place].peers.is_empty() {
            explanation.facts.push(told::no_peers(!self.fleet.peers.is_empty()));
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
            (Ok(_), n) => told::wanted_sessions(n, self.fleet.members.len()),
        });
        if wanted > 0 && explanation.sessions.iter().all(|session| session.routes == 0) {
            explanation.facts.push(told::no_routes());
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
        let mut addresses = service.ingress.clone();
        addresses.sort_unstable();
        let mut explained = ServiceExplained {
            namespace: service.key.namespace().to_owned(),
            name: service.key.name().to_owned(),
            addresses,
            held: outcome.map(|outcome| outcome.held.clone()).unwrap_or_default(),
            pool: outcome.and_then(|outcome| outcome.pool.as_ref()).map(ToString::to_string),
            reason: self.reason(service),
            pools: considered.into_iter().map(told::considered).collect(),
            nodes: Vec::new(),
        };
        for place in places {
            let of_bgp = self.fleet.explain(&self.world, service, *place).into_iter();
            let of_bgp = of_bgp.map(|(address, message)| (Arc::from(BGP), address, message));
            let others = self.fleet.of_other_announcers(&self.world, service, *place);
            for (announcer, address, message) in of_bgp.chain(others) {
                if only.is_some() && address.ip != only {
                    continue;
                }
                let peers = if *announcer == *BGP { self.peers(*place, &address) } else { Vec::new() };
                explained.nodes.push(NodeExplained {
                    node: self.fleet.members[*place].node.name.to_string(),
                    announcer: announcer.to_string(),
                    address: address.ip,
                    announce: address.reason == Reason::Announced,
                    reason: Fact::new(address.reason.code(), message),
                    since: None,
                    peers,
                });
            }
        }
        explained.nodes.sort_by(|a, b| (a.address, &a.node, &a.announcer).cmp(&(b.address, &b.node, &b.announcer)));
        explained
    }

    /// What becomes of an announced address at every peer.
    fn peers(&mut self, place: usize, address: &AddressDecision) -> Vec<PeerExplained> {
        let (Reason::Announced, Some(ip)) = (address.reason, address.ip) else { return Vec::new() };
        let mut explained = Vec::new();
        for peer in 0..self.fleet.peers.len() {
            let (reason, prefix) = self.seen(place, peer).of_address(ip, address);
            let name = self.fleet.peers[peer].peer.name.to_string();
            let desired = prefix.is_some();
            explained.push(PeerExplained { peer: name, desired, sent: None, session: None, reason });
        }
        explained
    }

    /// A peer as it looks to a node.
    fn seen(&mut self, place: usize, peer: usize) -> PeerSeen<'_> {
        let Fleet { members, peers, .. } = &mut self.fleet;
        let (member, planned) = (&members[place], &mut peers[peer]);
        PeerSeen {
            peer: &planned.peer,
            on_node: any_selector_matches(&planned.peer.node_selectors, &member.node.labels),
            preview: &mut planned.preview,
            node: &member.node,
            desired: &member.desired,
        }
    }

    /// The session of a node with a peer, or why there is none.
    fn session(&mut self, place: usize, peer: usize) -> SessionExplained {
        let (reason, routes) = self.seen(place, peer).of_session();
        SessionExplained {
            node: self.fleet.members[place].node.name.to_string(),
            peer: self.fleet.peers[peer].peer.name.to_string(),
            desired: routes.is_some(),
            routes: routes.unwrap_or_default(),
            reason,
            ..SessionExplained::default()
        }
    }

    /// Objects that are not in force as written.
    fn configuration(&self) -> Vec<Fact> {
        let invalid = self.world.verdicts.iter().filter(|verdict| !verdict.valid);
        let told = invalid.flat_map(|verdict| {
            let (kind, namespace, name) = &verdict.key;
            let errors = verdict.problems.iter().filter(|problem| problem.severity == Severity::Error);
            errors.map(move |problem| told::problem(&format!("{kind} {namespace}/{name}"), problem))
        });
        told.collect()
    }
}
