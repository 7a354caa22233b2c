//! What a speaker knows of a subject: its decisions, and what its peers have been sent.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use ferrocast_bgp::{BgpAnnouncer, Preview, SessionInfo};
use ferrocast_bgp_proto::fsm::State;
use ferrocast_core::{
    announce::{Announcer as _, Desired, Observed, PreviewRoute},
    config::{BGP, Peer, any_selector_matches},
    decide::{AddressDecision, Context, Party, Reason, message, prefix_of},
    model::{Node, ServiceKey},
    view::ClusterView,
};
use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use super::{
    Explanation, Fact, NodeExplained, PeerExplained, ServiceExplained, SessionExplained, Subject,
    serve::Explainer,
    told::{self, PeerSeen},
};
use crate::{
    announcers::{Standing, Standings},
    decider::{Announcers, Decisions, SPEAKER_SOURCES, party},
};

/// Explains what one speaker does.
pub struct SpeakerExplainer {
    /// Its node.
    pub node: Arc<str>,
    /// Class served.
    pub class: Option<Arc<str>>,
    /// `--ignore-exclude-lb`.
    pub ignore_exclude_label: bool,
    /// The sessions.
    pub bgp: Arc<BgpAnnouncer>,
    /// What is decided from.
    pub view: watch::Receiver<ClusterView>,
    /// What is decided.
    pub decisions: watch::Receiver<Decisions>,
    /// Drained by command.
    pub drained: watch::Receiver<bool>,
    /// The announcers besides BGP.
    pub standings: watch::Receiver<Arc<Standings>>,
    /// All of them, for what they foretell.
    pub announcers: watch::Receiver<Arc<Announcers>>,
}

#[async_trait]
impl Explainer for SpeakerExplainer {
    async fn explain(&self, subject: &Subject) -> Result<Explanation, String> {
        let view = self.view.borrow().clone();
        if view.epoch_of(SPEAKER_SOURCES) == 0 {
            return Err("nothing has been decided yet: caches are not synced".to_owned());
        }
        let node = view.nodes.get(&self.node).cloned();
        let missing = || Arc::new(Node { name: self.node.clone(), ..Node::default() });
        let context = Context {
            class: self.class.clone(),
            announcer: BGP.into(),
            node: node.unwrap_or_else(missing),
            config: view.config.clone(),
            ignore_exclude_label: self.ignore_exclude_label,
        };
        let sessions = self.bgp.sessions().into_iter().map(|info| (info.peer.clone(), info)).collect();
        let snapshot = Snapshot {
            context,
            view,
            decisions: self.decisions.borrow().clone(),
            sessions,
            observed: self.bgp.observe().borrow().clone(),
            drained: *self.drained.borrow(),
            standings: self.standings.borrow().clone(),
            announcers: self.announcers.borrow().clone(),
        };
        Ok(snapshot.explain(subject))
    }
}

/// What a speaker knew at one moment.
struct Snapshot {
    context: Context,
    view: ClusterView,
    decisions: Decisions,
    sessions: BTreeMap<Arc<str>, SessionInfo>,
    observed: Arc<Observed>,
    drained: bool,
    standings: Arc<Standings>,
    announcers: Arc<Announcers>,
}

impl Snapshot {
    fn explain(&self, subject: &Subject) -> Explanation {
        let mut explanation = Explanation { subject: subject.to_string(), ..Explanation::default() };
        match subject {
            Subject::Service(key) => explanation.services.extend(self.service(key, None)),
            Subject::Address(ip) => {
                let has = |a: &AddressDecision| a.ip == Some(*ip);
                let holders = self.decisions.bgp.by_service.iter().filter(|(_, d)| d.addresses.iter().any(has));
                explanation.services = holders.filter_map(|(key, _)| self.service(key, Some(*ip))).collect();
            }
            Subject::Node(name) if **name == *self.context.node.name => {
                explanation.facts = self.facts();
                let peers = self.context.config.peers.values();
                explanation.sessions = peers.map(|peer| self.session(peer)).collect();
            }
            Subject::Node(_) => {}
            Subject::Peer(name) => {
                let peer = self.context.config.peers.get(&**name);
                explanation.sessions = peer.map(|peer| self.session(peer)).into_iter().collect();
            }
        }
        explanation
    }

    /// What is to be known of the node itself.
    fn facts(&self) -> Vec<Fact> {
        let Context { node, config, ignore_exclude_label, .. } = &self.context;
        let mut facts = told::faults_of_node(node, *ignore_exclude_label);
        if !config.peers.values().any(|peer| self.is_meant(peer)) {
            facts.push(told::no_peers(!config.peers.is_empty()));
        }
        if self.drained {
            let why = "it was drained by command: everything is announced as about to go away";
            facts.push(Fact::new("drained", why));
        }
        for (name, standing) in self.standings.iter().filter(|(_, standing)| !standing.works()) {
            let why = format!("announcer {name}: {}: {}", standing.state, standing.problem);
            facts.push(Fact::new("announcerDown", why));
        }
        for (name, standing) in self.standings.iter().filter(|(_, standing)| !standing.excess.is_empty()) {
            let why = format!(
                "announcer {name}: its plugin sends more than the protocol allows, and the rest is dropped: {}",
                standing.excess
            );
            facts.push(Fact::new("announcerExcess", why));
        }
        if facts.is_empty() {
            let count = self.decisions.bgp.desired.announcements.len();
            facts.push(Fact::new("announcing", format!("it announces {count} prefixes")));
        }
        facts
    }

    fn is_meant(&self, peer: &Peer) -> bool {
        any_selector_matches(&peer.node_selectors, &self.context.node.labels)
    }

    /// The decisions on a Service; on one of its addresses only, if asked for.
    fn service(&self, key: &ServiceKey, only: Option<IpAddr>) -> Option<ServiceExplained> {
        let own = party(key, &self.view)?;
        self.decisions.bgp.by_service.get(key)?;
        let mut addresses = own.service.ingress.clone();
        addresses.sort_unstable();
        let mut nodes = Vec::new();
        for (announcer, decided) in self.decisions.all() {
            let class = self.context.config.announcers.get(announcer);
            if announcer != BGP && class.is_none_or(|class| class.advertisements.is_empty()) {
                continue;
            }
            let addresses = decided.by_service.get(key).map(|decision| &*decision.addresses).unwrap_or_default();
            for address in addresses.iter().filter(|address| only.is_none() || address.ip == only) {
                let since_s = decided.records.get(key).and_then(|record| record.since_s(address.ip));
                nodes.push(NodeExplained {
                    node: self.context.node.name.to_string(),
                    announcer: announcer.to_owned(),
                    address: address.ip,
                    announce: address.reason == Reason::Announced,
                    reason: Fact::new(address.reason.code(), self.words(announcer, address, own)),
                    since: since_s.and_then(|s| Timestamp::from_second(s).ok()).map(|at| at.to_string()),
                    peers: match announcer {
                        BGP => self.peers(address),
                        _ => self.targets(announcer, address, &decided.desired),
                    },
                });
            }
        }
        Some(ServiceExplained {
            namespace: key.namespace().to_owned(),
            name: key.name().to_owned(),
            addresses,
            nodes,
            ..ServiceExplained::default()
        })
    }

    fn words(&self, announcer: &str, address: &AddressDecision, own: Party<'_>) -> String {
        let other = address.because_of.as_ref().and_then(|key| party(key, &self.view));
        let context = Context { announcer: announcer.into(), ..self.context.clone() };
        message(address, own, other.as_slice(), &context)
    }

    /// What becomes of an announced address at every target of an announcer besides BGP.
    fn targets(&self, announcer: &str, address: &AddressDecision, desired: &Desired) -> Vec<PeerExplained> {
        let (Reason::Announced, Some(ip)) = (address.reason, address.ip) else { return Vec::new() };
        let standing = self.standings.get(announcer).cloned().unwrap_or_else(Standing::unknown);
        let prefixes: Vec<IpNet> = address.advertisements.iter().map(|a| prefix_of(ip, a)).collect();
        let nowhere = PeerExplained {
            peer: announcer.to_owned(),
            desired: true,
            sent: Some(false),
            session: Some(standing.state.to_owned()),
            reason: Fact::new(standing.state, standing.problem.clone()),
        };
        let foretold = self.foretold(announcer, &prefixes, desired);
        let names = |name: &str| address.advertisements.iter().any(|a| a.peers.is_empty() || a.peers.contains(name));
        let all = standing.observed.targets.iter();
        let told: Vec<PeerExplained> = all
            .map(|(name, target)| {
                let refused = prefixes.iter().find_map(|prefix| target.refused.get(prefix));
                let reached = target.up && target.generation >= desired.generation;
                let reason = match refused {
                    _ if !names(name) => Fact::new("otherTargets", "the Advertisements are for other targets"),
                    Some(why) => Fact::new("refused", why.to_string()),
                    None if reached => Fact::new("reached", with_route(&target.reason, foretold.get(name))),
                    None if target.up => Fact::new("notReachedYet", with_route(&target.reason, foretold.get(name))),
                    // Why the last conversation ended is not why there is none now.
                    None if !standing.works() => Fact::new(standing.state, standing.problem.clone()),
                    None => Fact::new("targetDown", target.reason.clone()),
                };
                PeerExplained {
                    peer: name.to_string(),
                    desired: names(name),
                    sent: Some(reached && refused.is_none() && names(name)),
                    session: Some(if target.up { "up" } else { "down" }.to_owned()),
                    reason,
                }
            })
            .collect();
        if told.is_empty() { vec![nowhere] } else { told }
    }

    /// What the announcer says that each target is given for these prefixes, in words.
    fn foretold(&self, announcer: &str, prefixes: &[IpNet], desired: &Desired) -> BTreeMap<Arc<str>, String> {
        let own = |prefix: &IpNet| Some((*prefix, desired.announcements.get(prefix)?.clone()));
        let announcements = prefixes.iter().filter_map(own).collect();
        let asked = Desired { announcements, ..desired.clone() };
        let preview = self.announcers.get(announcer).and_then(|a| a.preview(&asked, &desired.configuration));
        let words = |(target, routes): (Arc<str>, BTreeMap<IpNet, PreviewRoute>)| {
            let routes: Vec<String> = routes.iter().map(|(prefix, route)| route_words(prefix, route)).collect();
            (target, routes.join("; "))
        };
        preview.into_iter().flatten().map(words).collect()
    }

    /// What becomes of an announced address at every peer.
    fn peers(&self, address: &AddressDecision) -> Vec<PeerExplained> {
        let (Reason::Announced, Some(ip)) = (address.reason, address.ip) else { return Vec::new() };
        let peers = self.context.config.peers.values();
        peers
            .map(|peer| {
                let mut preview = Preview::new(peer);
                let (planned, prefix) = self.seen(peer, &mut preview).of_address(ip, address);
                let info = self.sessions.get(&peer.name).filter(|_| self.is_meant(peer));
                let sent = prefix.is_some_and(|prefix| info.and_then(|info| info.route(&prefix)).is_some());
                PeerExplained {
                    peer: peer.name.to_string(),
                    desired: prefix.is_some(),
                    sent: Some(sent),
                    session: self.is_meant(peer).then(|| state(info)),
                    reason: prefix.map_or(planned, |prefix| self.reached(peer, info, &prefix)),
                }
            })
            .collect()
    }

    fn seen<'a>(&'a self, peer: &'a Peer, preview: &'a mut Result<Preview, String>) -> PeerSeen<'a> {
        let (node, desired) = (&*self.context.node, &self.decisions.bgp.desired);
        PeerSeen { peer, on_node: self.is_meant(peer), preview, node, desired }
    }

    /// How far a prefix that a peer is to be sent has come.
    fn reached(&self, peer: &Peer, info: Option<&SessionInfo>, prefix: &IpNet) -> Fact {
        let Some(info) = info.filter(|info| info.state == State::Established) else {
            return not_established(info);
        };
        if let Some(route) = info.route(prefix) {
            return Fact::new("sent", format!("{prefix}, next hop {}", route.next_hop.address()));
        }
        let refused = self.observed.targets.get(&peer.name).and_then(|target| target.refused.get(prefix));
        match refused {
            Some(code) => Fact::new(code, format!("the session cannot carry {prefix}")),
            None => Fact::new("notSentYet", format!("{prefix} waits to be sent")),
        }
    }

    fn session(&self, peer: &Arc<Peer>) -> SessionExplained {
        let mut preview = Preview::new(peer);
        let (planned, routes) = self.seen(peer, &mut preview).of_session();
        let info = self.sessions.get(&peer.name).filter(|_| routes.is_some());
        let reason = match (routes, info) {
            (None, _) => planned,
            (Some(_), Some(info)) if info.state == State::Established => {
                let since = Timestamp::try_from(info.since).map(|at| format!("since {at:.0}")).unwrap_or_default();
                Fact::new("established", since)
            }
            (Some(_), info) => not_established(info),
        };
        SessionExplained {
            node: self.context.node.name.to_string(),
            peer: peer.name.to_string(),
            desired: routes.is_some(),
            session: routes.map(|_| state(info)),
            routes: routes.unwrap_or_default(),
            sent: routes.map(|_| info.map_or(0, |info| info.announced.iter().sum())),
            reason,
        }
    }
}

/// State of a session; one that nobody has begun is idle.
fn state(info: Option<&SessionInfo>) -> String {
    info.map_or(State::Idle, |info| info.state).to_string()
}

fn not_established(info: Option<&SessionInfo>) -> Fact {
    let why = info.and_then(|info| info.last_error.clone());
    Fact::new("notEstablished", why.unwrap_or_else(|| "no session has been there yet".to_owned()))
}

/// A target's own words, and what it is given.
fn with_route(reason: &str, route: Option<&String>) -> String {
    let parts = [Some(reason), route.map(String::as_str)];
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

/// `10.0.0.1/32, next hop 10.0.0.9, metric 7`
fn route_words(prefix: &IpNet, route: &PreviewRoute) -> String {
    let mut words = vec![prefix.to_string()];
    words.extend(route.next_hop.map(|hop| format!("next hop {hop}")));
    words.extend(route.attributes.iter().map(|(name, value)| format!("{name} {value}")));
    words.join(", ")
}
