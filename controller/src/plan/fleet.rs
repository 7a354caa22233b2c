//! What every node announces, and what its peers are told.
//!
//! Nodes that all selectors treat alike decide alike but for the endpoints on them: each such class is decided once, and of each
//! of its nodes only the Services whose decision depends on the node. The snapshots of all nodes share what they have in common.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ferrocast_bgp::Preview;
use ferrocast_core::{
    announce::Desired,
    config::{BGP, Peer, any_selector_matches},
    decide::{
        AddressDecision, Context, Decision, DesiredBuilder, Party, Reason, Sharers, decide_among, message, served,
    },
    model::{Endpoints, IpFamily, Node, Service, TrafficPolicy},
};

use super::world::World;

/// The nodes of a [`World`] with what they announce.
pub struct Fleet {
    /// In the order of the world's nodes.
    pub members: Vec<Member>,
    /// Peers by name.
    pub peers: Vec<PlannedPeer>,
    classes: Vec<Context>,
    sharers: Sharers,
}

/// One node.
pub struct Member {
    /// The node.
    pub node: Arc<Node>,
    /// Its peers: places in [`Fleet::peers`].
    pub peers: Vec<usize>,
    /// What it announces.
    pub desired: Desired,
    class: usize,
}

/// One peer.
pub struct PlannedPeer {
    /// The peer in force.
    pub peer: Arc<Peer>,
    /// What it is told; or why no session is tried.
    pub preview: Result<Preview, String>,
}

/// What matters about a node to every decision but those about endpoints.
type Signature = (Vec<bool>, bool, bool);

impl Fleet {
    /// Decides for every node of `world` what BGP announces. `builder` may have seen another world: what is the same is shared with
    /// its snapshots.
    #[must_use]
    pub fn new(world: &World, builder: &mut DesiredBuilder) -> Self {
        let peers = world.config.peers.values();
        let peers = peers.map(|peer| PlannedPeer { peer: peer.clone(), preview: Preview::new(peer) }).collect();
        Self::of(world, &BGP.into(), peers, builder)
    }

    /// The same for another announcer; what its targets make of it is not known here.
    #[must_use]
    pub fn of_announcer(world: &World, announcer: &Arc<str>, builder: &mut DesiredBuilder) -> Self {
        Self::of(world, announcer, vec![], builder)
    }

    fn of(world: &World, announcer: &Arc<str>, peers: Vec<PlannedPeer>, builder: &mut DesiredBuilder) -> Self {
        let mut classes: BTreeMap<Signature, usize> = BTreeMap::new();
        let mut contexts: Vec<Context> = Vec::new();
        let mut members = Vec::with_capacity(world.nodes.len());
        for node in &world.nodes {
            let class = *classes.entry(signature(world, announcer, node)).or_insert_with(|| {
                contexts.push(context(world, announcer, node));
                contexts.len() - 1
            });
            let meant = |peer: &PlannedPeer| any_selector_matches(&peer.peer.node_selectors, &node.labels);
            let own = peers.iter().enumerate().filter(|(_, peer)| meant(peer)).map(|(place, _)| place).collect();
            members.push(Member { node: node.clone(), peers: own, desired: Desired::default(), class });
        }
        let mut sharers = Sharers::default();
        for (key, service) in &world.services {
            sharers.set(key, &service.ingress, &world.config);
        }
        let mut fleet = Self { members, peers, classes: contexts, sharers };
        fleet.announce(world, builder);
        fleet
    }

    /// Fills in what each member announces.
    fn announce(&mut self, world: &World, builder: &mut DesiredBuilder) {
        builder.retain(|key| world.services.contains_key(key));
        let services = Sorted::of(world, self);
        for class in 0..self.classes.len() {
            for party in &services.alike {
                let decision = decide_among(*party, &[], &self.classes[class]);
                builder.set(&party.service.key, Some(&decision));
            }
            // They may be set as another class or world had them.
            services.varying.iter().for_each(|service| builder.set(&service.key, None));
            let mut set: Vec<&Service> = Vec::new();
            for place in 0..self.members.len() {
                if self.members[place].class != class {
                    continue;
                }
                let name = self.members[place].node.name.clone();
                let now = services.on(&name);
                for service in &now {
                    builder.set(&service.key, Some(&self.decide(world, service, class, &name)));
                }
                for service in set.iter().filter(|s| now.binary_search_by(|other| other.key.cmp(&s.key)).is_err()) {
                    builder.set(&service.key, None);
                }
                set = now;
                self.members[place].desired = builder.desired();
            }
        }
    }

    /// A Service, and those that it shares an address with, seen from a node.
    fn parties<'a>(&self, world: &'a World, service: &'a Service, node: &str) -> (Party<'a>, Vec<Party<'a>>) {
        let seen = |service: &'a Service| party(world, service, Some(node));
        let sharers = self.sharers.of(&service.key);
        let others = sharers.iter().filter_map(|key| world.services.get(key)).map(|other| seen(other));
        (seen(service), others.collect())
    }

    /// The decision of a class on a Service, seen from one of its nodes.
    fn decide(&self, world: &World, service: &Service, class: usize, node: &str) -> Decision {
        let (own, others) = self.parties(world, service, node);
        decide_among(own, &others, &self.classes[class])
    }

    /// Is the decision on the Service's addresses not only its own matter?
    fn is_shared(&self, service: &Service) -> bool {
        !self.sharers.is_empty() && !self.sharers.of(&service.key).is_empty()
    }

    /// What a member decides about a Service, with words.
    #[must_use]
    pub fn explain(&self, world: &World, service: &Service, place: usize) -> Vec<(AddressDecision, String)> {
        let member = &self.members[place];
        let (own, others) = self.parties(world, service, &member.node.name);
        let decision = decide_among(own, &others, &self.classes[member.class]);
        let mut context = self.classes[member.class].clone();
        context.node = member.node.clone();
        let words = |address: AddressDecision| {
            let text = message(&address, own, &others, &context);
            (address, text)
        };
        decision.addresses.into_iter().map(words).collect()
    }

    /// What a member decides about a Service for each announcer besides BGP that has an Advertisement, with words.
    #[must_use]
    pub fn of_other_announcers(
        &self,
        world: &World,
        service: &Service,
        place: usize,
    ) -> Vec<(Arc<str>, AddressDecision, String)> {
        let member = &self.members[place];
        let (own, sharers) = self.parties(world, service, &member.node.name);
        let mut all = Vec::new();
        for announcer in other_announcers(world) {
            let context = context(world, announcer, &member.node);
            for address in decide_among(own, &sharers, &context).addresses {
                let text = message(&address, own, &sharers, &context);
                all.push((announcer.clone(), address, text));
            }
        }
        all
    }

    /// Calls `each` with every member's decision on each address of a Service: addresses in order, then nodes.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn decisions<E>(
        &self,
        world: &World,
        service: &Service,
        mut each: impl FnMut(usize, IpAddr, &AddressDecision, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut order: Vec<(IpAddr, usize)> = service.ingress.iter().copied().zip(0..).collect();
        order.sort_unstable();
        order.dedup_by_key(|(ip, _)| *ip);
        let shared = self.is_shared(service);
        // As if there were endpoints: what the nodes of a class have in common.
        let served_everywhere = Endpoints { here: 1, anywhere: 1 };
        let common: Vec<Decision> = self
            .classes
            .iter()
            .map(|context| decide_among(Party { service, endpoints: served_everywhere, nodes: &[] }, &[], context))
            .collect();
        for (ip, index) in order {
            let mut told: Vec<(usize, Endpoints, AddressDecision, String)> = Vec::new();
            for (place, member) in self.members.iter().enumerate() {
                if shared {
                    for (address, text) in
                        self.explain(world, service, place).into_iter().filter(|(a, _)| a.ip == Some(ip))
                    {
                        each(place, ip, &address, &text)?;
                    }
                    continue;
                }
                let endpoints = world.endpoints.seen_from(&service.key, &member.node.name);
                let same = told.iter().find(|(class, seen, ..)| (*class, *seen) == (member.class, endpoints));
                if let Some((.., address, text)) = same {
                    each(place, ip, address, text)?;
                    continue;
                }
                let mut address = common[member.class].addresses[index].clone();
                if address.reason == Reason::Announced
                    && let Err(reason) = served(service.traffic_policy, endpoints)
                {
                    address = AddressDecision { reason, advertisements: Vec::new(), ..address };
                }
                let own = Party { service, endpoints, nodes: &[] };
                let text = message(&address, own, &[], &self.classes[member.class]);
                each(place, ip, &address, &text)?;
                told.push((member.class, endpoints, address, text));
            }
        }
        Ok(())
    }

    /// Where routes of a family that a member sends to a peer lead.
    #[must_use]
    pub fn next_hop(&self, place: usize, peer: usize, family: IpFamily) -> Option<IpAddr> {
        let preview = self.peers[peer].preview.as_ref().ok()?;
        preview.next_hop(family, &self.members[place].node.internal_ips)
    }
}

/// The Services, by whether their decision is the same on all nodes of a class.
#[derive(Default)]
struct Sorted<'a> {
    /// Those whose decision is.
    alike: Vec<Party<'a>>,
    /// The others.
    varying: Vec<&'a Service>,
    /// Of these, those with endpoints on a node that have to be looked at there, by key.
    on: BTreeMap<&'a str, Vec<&'a Service>>,
    /// Of these, those that have to be looked at on every node, by key.
    everywhere: Vec<&'a Service>,
}

impl<'a> Sorted<'a> {
    fn of(world: &'a World, fleet: &Fleet) -> Self {
        let mut sorted = Self::default();
        for service in world.services.values() {
            if fleet.is_shared(service) {
                sorted.varying.push(service);
                sorted.everywhere.push(service);
            } else if service.traffic_policy == TrafficPolicy::Local {
                sorted.varying.push(service);
                for (node, _) in world.endpoints.get(&service.key).iter().flat_map(|endpoints| &endpoints.on) {
                    sorted.on.entry(&**node).or_default().push(service);
                }
            } else {
                sorted.alike.push(party(world, service, None));
            }
        }
        sorted
    }

    /// What has to be looked at on a node, by key.
    fn on(&self, node: &str) -> Vec<&'a Service> {
        let mut services: Vec<&Service> = self.on.get(node).into_iter().flatten().copied().collect();
        if !self.everywhere.is_empty() {
            services.extend(&self.everywhere);
            services.sort_unstable_by_key(|service| &service.key);
        }
        services
    }
}

/// The announcers besides BGP that have an Advertisement.
pub fn other_announcers(world: &World) -> impl Iterator<Item = &Arc<str>> {
    world.config.announcers.iter().filter(|(_, class)| !class.advertisements.is_empty()).map(|(name, _)| name)
}

fn signature(world: &World, announcer: &str, node: &Node) -> Signature {
    let all = world.config.advertisements_of(announcer).into_iter().flat_map(BTreeMap::values);
    let selects = all.map(|a| any_selector_matches(&a.node_selectors, &node.labels));
    let excluded = node.is_excluded() && !world.settings.ignore_exclude_label;
    (selects.collect(), node.network_unavailable, excluded)
}

fn context(world: &World, announcer: &Arc<str>, node: &Arc<Node>) -> Context {
    Context {
        class: world.settings.class.clone(),
        announcer: announcer.clone(),
        node: node.clone(),
        config: world.config.clone(),
        ignore_exclude_label: world.settings.ignore_exclude_label,
    }
}

/// A Service as a node sees it; `None`: a node without endpoints.
fn party<'a>(world: &'a World, service: &'a Service, node: Option<&str>) -> Party<'a> {
    let found = world.endpoints.get(&service.key);
    let endpoints = found.map_or_else(Endpoints::default, |endpoints| match node {
        Some(node) => endpoints.seen_from(node),
        None => Endpoints { here: 0, anywhere: endpoints.anywhere },
    });
    Party { service, endpoints, nodes: found.map(|endpoints| &*endpoints.ids).unwrap_or_default() }
}
