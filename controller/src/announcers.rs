//! Which announcers there are: the one place where they are registered.
use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use ferrocast_bgp::PeerSet;
use ferrocast_core::{
    announce::{Entry, Observed},
    config::{BGP, Config},
    model::Node,
};
use serde_json::json;

use crate::{cluster::metallb::peers_of, decider::Configure};

/// An announcer besides BGP, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// A stable code: `connected`, `inProcess`, or what keeps it from working.
    pub state: &'static str,
    /// Since when.
    pub since: SystemTime,
    /// What keeps it from working, in words; empty: nothing.
    pub problem: String,
    /// What its plugin calls its version; empty: not known.
    pub version: String,
    /// The number of the protocol that is spoken with its plugin.
    pub protocol: Option<u32>,
    /// What it has reached.
    pub observed: Arc<Observed>,
}

/// By name.
pub type Standings = BTreeMap<Arc<str>, Standing>;

impl Standing {
    /// Of one about which nothing is known yet.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            state: "unknown",
            since: SystemTime::UNIX_EPOCH,
            problem: "nothing is known of it yet".to_owned(),
            version: String::new(),
            protocol: None,
            observed: Arc::default(),
        }
    }

    /// Can it announce?
    #[must_use]
    pub fn works(&self) -> bool {
        self.problem.is_empty()
    }
}

/// The entry of a class's own `configuration`.
const CONFIGURATION: &str = "configuration";

/// What each announcer has to know. BGP: the node, and the peers that it talks to. All others: the node, and what their
/// AnnouncerClass says in `configuration`.
#[must_use]
pub fn configure() -> Configure {
    Box::new(|announcer: &str, config: &Config, node: &Node, took_over: bool| {
        if announcer == BGP {
            let peers = peers_of(config, node, !took_over);
            return PeerSet { node_name: node.name.clone(), internal_ips: node.internal_ips.clone(), peers }.entries();
        }
        let about_node = json!({"name": &*node.name, "internalIps": node.internal_ips});
        let plain = |value: Arc<str>| Entry { value, secret: false };
        let mut entries: BTreeMap<Arc<str>, Entry> = BTreeMap::new();
        entries.insert(PeerSet::NODE.into(), plain(about_node.to_string().into()));
        let own = config.announcers.get(announcer).and_then(|class| class.configuration.clone());
        entries.extend(own.map(|own| (CONFIGURATION.into(), plain(own))));
        entries
    })
}
