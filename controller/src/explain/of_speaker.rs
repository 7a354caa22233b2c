//! What a speaker knows of a subject: its decisions, and what its peers have been sent.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use ferrocast_bgp::{BgpAnnouncer, Preview, SessionInfo};
use ferrocast_bgp_proto::fsm::State;
use ferrocast_core::{
    announce::{Announcer as _, Observed},
    config::{Peer, any_selector_matches},
    decide::{AddressDecision, Context, Party, Reason, message},
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
use crate::decider::{Decisions, SPEAKER_SOURCES, party};

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
}

impl Snapshot {
    fn explain(&self, subject: &Subject) -> Explanation {
        let mut explanation = Explanation { subject: subject.to_string(), ..Explanation::default() };
        match subject {
            Subject::Service(key) => explanation.services.extend(self.service(key, None)),
            Subject::Address(ip) => {
                let has = |a: &AddressDecision| a.ip == Some(*ip);
                let holders = self.decisions.by_service.iter().filter(|(_, d)| d.addresses.iter().any(has));
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
        if facts.is_empty() {
            let count = self.decisions.desired.announcements.len();
            facts.push(Fact::new("announcing", format!("it announces {count} prefixes")));
        }
        facts
    }

    fn is_meant(&self, peer: &Peer) -> bool {
        any_selector_matches(&peer.node_selectors, &self.context.node.labels)
    }

    /// The decisions on a Service; on one of its addresses only, if asked for.
    fn service(&self, key: &ServiceKey, only: Option<IpAddr>) -> Option<ServiceExplained> {
        let decision = self.decisions.by_service.get(key)?;
        let own = party(key, &self.view)?;
        let record = self.decisions.records.get(key);
        let mut addresses = own.service.ingress.clone();
        addresses.sort_unstable();
        let wanted = decision.addresses.iter().filter(|address| only.is_none() || address.ip == only);
        let nodes = wanted.map(|address| {
            let since_s = record.and_then(|record| record.since_s(address.ip));
            NodeExplained {
                node: self.context.node.name.to_string(),
                address: address.ip,
                announce: address.reason == Reason::Announced,
                reason: Fact::new(address.reason.code(), self.words(address, own)),
                since: since_s.and_then(|s| Timestamp::from_second(s).ok()).map(|at| at.to_string()),
                peers: self.peers(address),
            }
        });
        Some(ServiceExplained {
            namespace: key.namespace().to_owned(),
            name: key.name().to_owned(),
            addresses,
            nodes: nodes.collect(),
            ..ServiceExplained::default()
        })
    }

    fn words(&self, address: &AddressDecision, own: Party<'_>) -> String {
        let other = address.because_of.as_ref().and_then(|key| party(key, &self.view));
        message(address, own, other.as_slice(), &self.context)
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
        let (node, desired) = (&*self.context.node, &self.decisions.desired);
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
