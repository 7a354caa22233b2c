//! What the router has learned.
use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ferrocast_bgp_proto::{Families, Family, tools::Update, wire::PathAttributes};
use ferrocast_core::actor::{Actor, ActorError, CancellationToken};
use imbl::OrdMap;
use ipnet::IpNet;
use tokio::sync::{mpsc, watch};

/// UPDATEs taken from the queue before a new snapshot is published.
const BATCH_LEN_MAX: usize = 256;

/// A snapshot of what the router has learned; cloning is cheap, two snapshots share what they have in common.
#[derive(Clone, Debug, Default)]
pub struct Rib {
    /// Grows with every snapshot.
    pub version: u64,
    /// By prefix: who announces it, and how. Never without a path.
    pub routes: OrdMap<IpNet, RibPaths>,
    /// Who is connected (Established).
    pub peers: OrdMap<IpAddr, RibPeer>,
    /// UPDATE messages ever received, End-of-RIB included.
    pub updates: u64,
    /// Of those, the ones that withdrew something.
    pub withdraw_updates: u64,
}

/// The routes to one prefix, by peer; small and shared, since most prefixes have a few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RibPaths(Arc<Vec<(IpAddr, RibRoute)>>);

impl RibPaths {
    /// The route from this peer.
    #[must_use]
    pub fn get(&self, peer: &IpAddr) -> Option<&RibRoute> {
        self.0.iter().find(|(from, _)| from == peer).map(|(_, route)| route)
    }

    /// All of them, in the order of the peers' addresses.
    pub fn iter(&self) -> impl Iterator<Item = &(IpAddr, RibRoute)> {
        self.0.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Was there none from this peer?
    fn insert(&mut self, peer: IpAddr, route: RibRoute) -> bool {
        let all = Arc::make_mut(&mut self.0);
        match all.binary_search_by_key(&peer, |(from, _)| *from) {
            Ok(index) => all[index].1 = route,
            Err(index) => {
                all.insert(index, (peer, route));
                return true;
            }
        }
        false
    }

    /// Was there one from this peer?
    fn remove(&mut self, peer: &IpAddr) -> bool {
        let Ok(index) = self.0.binary_search_by_key(peer, |(from, _)| *from) else { return false };
        Arc::make_mut(&mut self.0).remove(index);
        true
    }
}

/// A route from one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibRoute {
    /// Where it leads.
    pub next_hop: IpAddr,
    /// What was said about it; shared between the routes of one UPDATE.
    pub attributes: Arc<PathAttributes>,
}

/// A peer with an Established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibPeer {
    /// Its AS.
    pub asn: u32,
    /// Families that both sides sent.
    pub families: Families,
    /// Families whose End-of-RIB has come.
    pub end_of_rib: Families,
    /// UPDATE messages on this session, End-of-RIB included.
    pub updates: u64,
    /// Prefixes that it announces now.
    pub prefixes: usize,
}

impl Rib {
    /// The next hops of `prefix`, each with the peer that announces it.
    pub fn next_hops(&self, prefix: &IpNet) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        self.routes.get(prefix).into_iter().flat_map(RibPaths::iter).map(|(peer, route)| (*peer, route.next_hop))
    }

    fn forget(&mut self, peer: IpAddr) {
        let Some(gone) = self.peers.remove(&peer) else { return };
        if gone.prefixes == 0 {
            return;
        }
        let prefixes: Vec<_> =
            self.routes.iter().filter(|(_, from)| from.get(&peer).is_some()).map(|(prefix, _)| *prefix).collect();
        for prefix in prefixes {
            self.withdraw(peer, &prefix);
        }
    }

    fn withdraw(&mut self, peer: IpAddr, prefix: &IpNet) {
        let Some(from) = self.routes.get_mut(prefix) else { return };
        if !from.remove(&peer) {
            return;
        }
        if from.is_empty() {
            self.routes.remove(prefix);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.prefixes = peer.prefixes.saturating_sub(1);
        }
    }

    fn announce(&mut self, peer: IpAddr, prefix: IpNet, route: RibRoute) {
        if self.routes.entry(prefix).or_default().insert(peer, route)
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            peer.prefixes += 1;
        }
    }

    fn update(&mut self, peer: IpAddr, update: Update, keep: bool) {
        self.updates += 1;
        self.withdraw_updates += u64::from(!update.withdrawn.is_empty());
        if let Some(known) = self.peers.get_mut(&peer) {
            known.updates += 1;
            if let Some(family) = update.end_of_rib {
                known.end_of_rib.insert(family);
            }
        }
        if !keep {
            return;
        }
        update.withdrawn.iter().for_each(|prefix| self.withdraw(peer, prefix));
        let next_hop = update.next_hops.map(|hop| hop.map(|hop| hop.address()));
        let attributes = Arc::new(update.attributes);
        for prefix in update.reach {
            match next_hop[Family::of_prefix(&prefix).index()] {
                Some(next_hop) => {
                    self.announce(peer, prefix, RibRoute { next_hop, attributes: attributes.clone() });
                }
                None => self.withdraw(peer, &prefix), // RFC 7606 §3 d
            }
        }
    }
}

/// What a connection tells the keeper of the RIB.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) peer: IpAddr,
    /// Which connection; an older one of the same peer is no longer listened to.
    pub(super) connection: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Up { asn: u32, families: Families },
    Update(Box<Update>),
    Down,
}

/// Owns the RIB.
pub(super) struct Keeper {
    queue: mpsc::Receiver<Message>,
    published: watch::Sender<Arc<Rib>>,
    rib: Rib,
    /// Newest connection of each peer.
    owners: HashMap<IpAddr, u64>,
    keep: bool,
}

impl Keeper {
    pub(super) fn new(queue: mpsc::Receiver<Message>, published: watch::Sender<Arc<Rib>>, keep: bool) -> Self {
        Self { queue, published, rib: Rib::default(), owners: HashMap::new(), keep }
    }

    fn handle(&mut self, message: Message) {
        let Message { peer, connection, what } = message;
        let owner = self.owners.get(&peer).copied();
        match what {
            What::Up { asn, families } if owner.is_none_or(|owner| owner < connection) => {
                self.rib.forget(peer);
                self.owners.insert(peer, connection);
                let fresh = RibPeer { asn, families, end_of_rib: Families::NONE, updates: 0, prefixes: 0 };
                self.rib.peers.insert(peer, fresh);
            }
            What::Update(update) if owner == Some(connection) => self.rib.update(peer, *update, self.keep),
            What::Down if owner == Some(connection) => {
                self.owners.remove(&peer);
                self.rib.forget(peer);
            }
            _ => {}
        }
    }
}

impl Actor for Keeper {
    const NAME: &'static str = "bgp-router-rib";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
        loop {
            let taken = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                taken = self.queue.recv_many(&mut batch, BATCH_LEN_MAX) => taken,
            };
            if taken == 0 {
                return Ok(()); // the listener and all connections are gone
            }
            batch.drain(..).for_each(|message| self.handle(message));
            self.rib.version += 1;
            self.published.send_replace(Arc::new(self.rib.clone()));
        }
    }
}
