//! Is MetalLB still at work? Its Pods tell: while its controller runs, ours only reads; while its speaker runs on a node, ours
//! dials nobody from the address that the routers know the old speaker by.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ferrocast_core::{
    config::{Config, Peer, PeerEndpoint, any_selector_matches},
    model::Node,
};
use kube::Resource as _;
use tokio::sync::watch;

use super::{lean::LeanPod, watch::Feed};

/// Pods that run or are about to: after a node's start the old speaker is there as soon as ours. What was evicted or has ended
/// stays in the API for a while.
pub const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// How a SpeakerStatus words that the speaker dials nobody yet; the Pod's name follows. `migrate run` looks for it.
pub const WAITS_FOR_SPEAKER: &str = "waits for the end of MetalLB's speaker on this node";

/// A part of MetalLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What allocates addresses.
    Controller,
    /// What announces them: the speaker, or frr-k8s, which has the sessions in that mode.
    Speaker,
}

impl Part {
    /// Is a Pod with these labels this part? As MetalLB's manifests label it, or its Helm chart.
    #[must_use]
    pub fn has(self, labels: &BTreeMap<String, String>) -> bool {
        let label = |keys: [&str; 2]| keys.into_iter().find_map(|key| labels.get(key)).map(String::as_str);
        let name = label(["app.kubernetes.io/name", "app"]);
        let component = label(["app.kubernetes.io/component", "component"]);
        match self {
            Self::Controller => (name, component) == (Some("metallb"), Some("controller")),
            Self::Speaker => {
                matches!((name, component), (Some("metallb"), Some("speaker")) | (Some("frr-k8s"), Some("frr-k8s")))
            }
        }
    }
}

/// Names of the Pods of one part that have not ended and are not told to; `None`: not known yet.
pub type Living = Option<Arc<BTreeSet<String>>>;

/// Whom we must wait for: Pods that live, or what is not known yet.
#[must_use]
pub fn must_wait(living: &Living) -> bool {
    living.as_ref().is_none_or(|pods| !pods.is_empty())
}

/// Keeps [`Living`] of one part.
pub struct PodFeed {
    part: Part,
    living: watch::Sender<Living>,
}

impl PodFeed {
    /// A feed, and what it publishes.
    #[must_use]
    pub fn new(part: Part) -> (Self, watch::Receiver<Living>) {
        let (living, reader) = watch::channel(None);
        (Self { part, living }, reader)
    }

    fn publish(&self, next: BTreeSet<String>) {
        self.living.send_if_modified(|now| {
            let new = now.as_deref() != Some(&next);
            if new {
                *now = Some(Arc::new(next));
            }
            new
        });
    }

    fn now(&self) -> BTreeSet<String> {
        self.living.borrow().as_deref().cloned().unwrap_or_default()
    }
}

impl Feed for PodFeed {
    type Object = LeanPod;
    type Item = (String, bool);

    fn digest(&mut self, object: LeanPod) -> Self::Item {
        let meta = object.meta();
        let labels = meta.labels.as_ref();
        let lives = meta.deletion_timestamp.is_none() && labels.is_some_and(|labels| self.part.has(labels));
        (meta.name.clone().unwrap_or_default(), lives)
    }

    fn replace(&mut self, items: Vec<Self::Item>, _: u64) {
        self.publish(items.into_iter().filter(|(_, lives)| *lives).map(|(name, _)| name).collect());
    }

    fn apply(&mut self, (name, lives): Self::Item) {
        let mut pods = self.now();
        if lives {
            pods.insert(name)
        } else {
            pods.remove(&name)
        };
        self.publish(pods);
    }

    fn remove(&mut self, (name, _): Self::Item) {
        let mut pods = self.now();
        pods.remove(&name);
        self.publish(pods);
    }
}

/// The peers that a node talks to.
///
/// From an address that the Node's annotation names (see [`Node::bgp_sources`]) a peer can be dialled beside the old speaker;
/// the next hop stays the Node's own address, so that the routers' paths are the old ones. All others wait for its end.
#[must_use]
pub fn peers_of(config: &Config, node: &Node, waits: bool) -> BTreeMap<Arc<str>, Arc<Peer>> {
    let selected = config.peers.iter().filter(|(_, peer)| any_selector_matches(&peer.node_selectors, &node.labels));
    let mut peers = BTreeMap::new();
    for (name, peer) in selected {
        match beside(peer, node) {
            Some(beside) => peers.insert(name.clone(), Arc::new(beside)),
            None if waits => None,
            None => peers.insert(name.clone(), peer.clone()),
        };
    }
    peers
}

/// The Node's second address, if it is what a peer is dialled from.
#[must_use]
pub fn second_address(peer: &Peer, node: &Node) -> Option<IpAddr> {
    let PeerEndpoint::Address(address) = &peer.endpoint else { return None };
    if peer.source_address.is_some() {
        return None;
    }
    node.bgp_sources.iter().copied().find(|source| source.is_ipv4() == address.is_ipv4())
}

/// The peer as it is dialled from the Node's second address; `None`: it is not.
fn beside(peer: &Peer, node: &Node) -> Option<Peer> {
    let mut peer = Peer { source_address: Some(second_address(peer, node)?), ..peer.clone() };
    let v4 = node.internal_ips.iter().copied().find(IpAddr::is_ipv4);
    let v6 = node.internal_ips.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
    peer.session.next_hop_v4 = peer.session.next_hop_v4.or(v4);
    peer.session.next_hop_v6 = peer.session.next_hop_v6.or(v6);
    Some(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_the_labels_of_manifests_and_chart() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (name, component) = ("app.kubernetes.io/name", "app.kubernetes.io/component");
        for (pairs, controller, speaker) in [
            (&[("app", "metallb"), ("component", "controller")][..], true, false),
            (&[("app", "metallb"), ("component", "speaker")], false, true),
            (&[(name, "metallb"), (component, "controller")], true, false),
            (&[(name, "metallb"), (component, "speaker")], false, true),
            (&[(name, "frr-k8s"), (component, "frr-k8s")], false, true),
            (&[(name, "ferrocast"), (component, "controller")], false, false),
            (&[(name, "metallb")], false, false),
            (&[], false, false),
        ] {
            let labels = labels(pairs);
            assert_eq!((Part::Controller.has(&labels), Part::Speaker.has(&labels)), (controller, speaker), "{pairs:?}");
        }
    }

    #[test]
    fn pods_that_end_or_are_gone_are_waited_for_no_more() {
        let pod = |name: &str, deleting: bool| -> LeanPod {
            let mut meta = serde_json::json!({"name": name, "labels": {"app": "metallb", "component": "controller"}});
            if deleting {
                meta["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            serde_json::from_value(serde_json::json!({"metadata": meta})).unwrap()
        };
        let (mut feed, living) = PodFeed::new(Part::Controller);
        assert!(must_wait(&living.borrow()), "not known yet");
        let (one, two) = (feed.digest(pod("one", false)), feed.digest(pod("two", false)));
        feed.replace(vec![one, two.clone()], 1);
        assert!(must_wait(&living.borrow()));
        let ending = feed.digest(pod("one", true));
        feed.apply(ending);
        assert!(must_wait(&living.borrow()), "the other lives");
        feed.remove(two);
        assert!(!must_wait(&living.borrow()));
    }

    #[test]
    fn peer_is_dialled_beside_the_old_speaker_with_the_nodes_own_next_hop() {
        let peer = |name: &str, address: &str| {
            let peer = Peer::new(name, 64_600, 64_500, address.parse().unwrap());
            (Arc::<str>::from(name), Arc::new(peer))
        };
        let config = Config {
            peers: [peer("four", "192.0.2.1:179"), peer("six", "[2001:db8::1]:179")].into(),
            ..Config::default()
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let node = Node {
            internal_ips: vec![ip("192.0.2.10"), ip("2001:db8::10")],
            bgp_sources: vec![ip("192.0.2.20")],
            ..Node::default()
        };
        let waiting = peers_of(&config, &node, true);
        assert_eq!(waiting.keys().map(|name| &**name).collect::<Vec<_>>(), ["four"]);
        assert_eq!(waiting["four"].source_address, Some(ip("192.0.2.20")));
        assert_eq!(waiting["four"].session.next_hop_v4, Some(ip("192.0.2.10")));
        let after = peers_of(&config, &node, false);
        assert_eq!((&after["four"], &after["six"]), (&waiting["four"], &config.peers["six"]));
        assert!(peers_of(&config, &Node::default(), true).is_empty());
        assert_eq!(peers_of(&config, &Node::default(), false).len(), 2);
    }
}
