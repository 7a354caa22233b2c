//! How the session of each peer and node can change from the old speaker to ours.
use std::sync::Arc;

use ferrocast_core::{
    config::{Peer, any_selector_matches},
    model::{BGP_SOURCES_ANNOTATION, Node},
};

use crate::{cluster::metallb::second_address, plan::world::World};

/// A way to change over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Ours is opened from a second address, then the old one ends.
    Beside,
    /// The old one ends without a NOTIFICATION, ours is opened, the router keeps the routes in between.
    TakeOver,
    /// The old one ends, ours is opened; in between the router has no route by this node.
    Gap,
}

impl Way {
    /// As the documentation calls it.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Beside => 'a',
            Self::TakeOver => 'b',
            Self::Gap => 'c',
        }
    }

    /// What happens, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Beside => "beside: no route leaves",
            Self::TakeOver => "take-over: no route leaves",
            Self::Gap => "gap: the node's next hop is absent for up to 2 s, the prefix stays by the other nodes",
        }
    }
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The BGPPeer.
    pub peer: Arc<str>,
    /// The node.
    pub node: Arc<str>,
    /// The best way that is open.
    pub way: Way,
    /// What the router needs for it.
    pub needs: String,
}

/// Every peer on every node that it selects, by peer and node.
#[must_use]
pub fn sessions(world: &World) -> Vec<SessionRow> {
    let mut rows = Vec::new();
    for (name, peer) in &world.config.peers {
        for node in world.nodes.iter().filter(|node| any_selector_matches(&peer.node_selectors, &node.labels)) {
            let (way, needs) = way(peer, node);
            rows.push(SessionRow { peer: name.clone(), node: node.name.clone(), way, needs });
        }
    }
    rows
}

/// The way that is open to a peer on a node, and what the router needs.
fn way(peer: &Peer, node: &Node) -> (Way, String) {
    if let Some(source) = second_address(peer, node) {
        return (
            Way::Beside,
            format!("a neighbour {source} with the same settings as that of this node's own address"),
        );
    }
    if peer.graceful_restart {
        let words = "it helps neighbours to restart (RFC 4724; the default of FRR and BIRD), which it has learned from MetalLB's \
                     FRR; not from its native mode";
        return (Way::TakeOver, words.to_owned());
    }
    let words = format!(
        "nothing. For (a) a second neighbour, and its address in the Node's annotation {BGP_SOURCES_ANNOTATION}; for (b) \
         enableGracefulRestart in a BGPPeer made anew"
    );
    (Way::Gap, words)
}
