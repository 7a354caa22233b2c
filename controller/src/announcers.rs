//! Which announcers there are: the one place where they are registered.
use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use anyhow::ensure;
use ferrocast_bgp::PeerSet;
use ferrocast_core::{
    actor::Supervisor,
    announce::{Announcer, Election, Entry, Observed},
    config::{BGP, Config, RESERVED_ANNOUNCERS},
    model::Node,
};

use crate::{
    cluster::metallb::peers_of,
    decider::{Announcers, Configure},
};

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
    /// Of what its plugin sends too much, or too long: the rest is dropped. Empty: nothing.
    pub excess: String,
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
            excess: String::new(),
            observed: Arc::default(),
        }
    }

    /// Can it announce?
    #[must_use]
    pub fn works(&self) -> bool {
        self.problem.is_empty()
    }
}

/// Makes an announcer that is part of this process; what it runs, it spawns there.
pub type MakeAnnouncer = Box<dyn FnOnce(&mut Supervisor) -> Arc<dyn Announcer> + Send>;

/// Announcers that a custom binary brings, besides BGP.
#[derive(Default)]
pub struct OwnAnnouncers(Vec<MakeAnnouncer>);

impl OwnAnnouncers {
    /// With another one. It serves the Advertisements of the AnnouncerClass that has its name.
    #[must_use]
    pub fn with(mut self, make: impl FnOnce(&mut Supervisor) -> Arc<dyn Announcer> + Send + 'static) -> Self {
        self.0.push(Box::new(make));
        self
    }

    /// Makes them.
    ///
    /// # Errors
    /// A name is reserved or given twice, or an announcer needs an election, which is not served yet.
    pub(crate) fn make(self, supervisor: &mut Supervisor) -> anyhow::Result<Announcers> {
        let mut all = Announcers::new();
        for make in self.0 {
            let announcer = make(supervisor);
            let name: Arc<str> = announcer.name().into();
            ensure!(!RESERVED_ANNOUNCERS.contains(&&*name), "announcer {name:?}: this name is reserved");
            let election = announcer.capabilities().election;
            ensure!(
                election == Election::None,
                "announcer {name:?} needs an election ({election:?}), which is not served yet: it comes with layer 2"
            );
            ensure!(all.insert(name.clone(), announcer).is_none(), "two announcers have the name {name:?}");
        }
        Ok(all)
    }
}

/// The entry of a class's own `configuration`.
const CONFIGURATION: &str = "configuration";

/// What each announcer has to know. BGP: the node, and the peers that it talks to. All others: the node, and what their
/// AnnouncerClass says in `configuration`.
#[must_use]
pub fn configure() -> Configure {
    Box::new(|announcer: &str, config: &Config, node: &Node, took_over: bool| {
        let (node_name, internal_ips) = (node.name.clone(), node.internal_ips.clone());
        if announcer == BGP {
            let peers = peers_of(config, node, !took_over);
            return PeerSet { node_name, internal_ips, peers }.entries();
        }
        let mut entries = PeerSet { node_name, internal_ips, peers: BTreeMap::new() }.entries();
        entries.retain(|name, _| **name == *PeerSet::NODE);
        let plain = |value: Arc<str>| Entry { value, secret: false };
        let own = config.announcers.get(announcer).and_then(|class| class.configuration.clone());
        entries.extend(own.map(|own| (CONFIGURATION.into(), plain(own))));
        entries
    })
}
