//! What the speakers say of themselves, as far as conditions depend on it.
use std::sync::Arc;

use ferrocast_api::SpeakerStatus;
use ferrocast_core::config::BGP;
use imbl::OrdMap;
use tokio::sync::watch;

use crate::cluster::watch::Feed;

/// One speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerBrief {
    /// It has an established BGP session.
    pub connected: bool,
    /// The announcers of AnnouncerClasses that reach a target, in order of name.
    pub announcers_up: Arc<[Arc<str>]>,
    /// It was drained by command.
    pub drained: bool,
}

impl SpeakerBrief {
    /// Does what the announcer is handed reach anybody?
    #[must_use]
    pub fn reaches(&self, announcer: &str) -> bool {
        if announcer == BGP { self.connected } else { self.announcers_up.iter().any(|up| **up == *announcer) }
    }
}

/// Every speaker, by node.
#[derive(Clone, Debug, Default)]
pub struct Speakers {
    /// The epoch of the last list; zero: not seen yet.
    pub epoch: u64,
    /// By node.
    pub by_node: OrdMap<Arc<str>, SpeakerBrief>,
}

/// Sees the SpeakerStatuses.
pub struct SpeakerFeed {
    /// Where they are seen.
    pub speakers: watch::Sender<Speakers>,
}

impl Feed for SpeakerFeed {
    type Object = SpeakerStatus;
    type Item = (Arc<str>, SpeakerBrief);

    fn digest(&mut self, object: SpeakerStatus) -> Self::Item {
        let name = object.metadata.name.as_deref().unwrap_or_default().into();
        let status = object.status.unwrap_or_default();
        let connected = status.peers.iter().any(|peer| peer.state == "Established");
        let up = status.announcers.iter().filter(|announcer| announcer.targets_up > 0);
        let announcers_up = up.map(|announcer| announcer.name.as_str().into()).collect();
        (name, SpeakerBrief { connected, announcers_up, drained: status.drained })
    }

    fn replace(&mut self, items: Vec<Self::Item>, epoch: u64) {
        self.speakers.send_replace(Speakers { epoch, by_node: items.into_iter().collect() });
    }

    fn apply(&mut self, (node, brief): Self::Item) {
        self.speakers.send_if_modified(|speakers| {
            let same = speakers.by_node.get(&node) == Some(&brief);
            speakers.by_node.insert(node, brief);
            !same
        });
    }

    fn remove(&mut self, (node, _): Self::Item) {
        self.speakers.send_if_modified(|speakers| speakers.by_node.remove(&node).is_some());
    }
}
