//! What one peer is told about one announcement. Pure.
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ferrocast_bgp_proto::{
    Families, Family,
    wire::{AttributeBlock, LargeCommunity, PathAttributes},
};
use ferrocast_core::announce::{Announcement, AnnouncementState, Community, Terms};
use ipnet::IpNet;

/// LOCAL_PREF to internal peers where no advertisement sets one: the usual default of routers.
const LOCAL_PREF_DEFAULT: u32 = 100;
/// GRACEFUL_SHUTDOWN. Source: RFC 8326 §4.
const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;
/// Resolutions remembered per session; beyond, they are forgotten and made again. Real clusters have a few.
const MEMO_LEN_MAX: usize = 1024;

/// No address of this node can be the next hop for the route's family on this session.
pub(crate) const NO_NEXT_HOP: &str = "noNextHop";
/// The peer did not say in its OPEN that it takes the route's family.
pub(crate) const FAMILY_NOT_NEGOTIATED: &str = "familyNotNegotiated";
/// The attributes leave no room for a prefix in a message.
pub(crate) const ATTRIBUTES_TOO_LARGE: &str = "attributesTooLarge";

/// What happens with one prefix at one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// It is announced with the attribute set of this number (see [`Resolver::block`]).
    Send(usize),
    /// It is meant for this peer, but cannot be given to it.
    Refused(&'static str),
    /// It is not meant for this peer.
    No,
}

/// What one session's resolutions depend on.
#[derive(Clone, Debug)]
pub(crate) struct Terrain {
    /// The peer's name.
    pub(crate) peer: Arc<str>,
    /// Our AS.
    pub(crate) local_as: u32,
    /// Both in one AS.
    pub(crate) internal: bool,
    /// The peer understands four-octet AS numbers.
    pub(crate) as4: bool,
    /// Families that we offered.
    pub(crate) offered: Families,
    /// Families that both sides sent.
    pub(crate) shared: Families,
    /// Next hops by family.
    pub(crate) next_hops: [Option<IpAddr>; Family::ALL.len()],
}

/// Resolves announcements for one session and remembers what came out.
#[derive(Debug)]
pub(crate) struct Resolver {
    terrain: Terrain,
    memo: HashMap<usize, Vec<Remembered>>,
    memo_len: usize,
    blocks: Vec<Arc<AttributeBlock>>,
    numbers: HashMap<Arc<AttributeBlock>, usize>,
}

#[derive(Debug)]
struct Remembered {
    terms: Arc<[Terms]>,
    state: AnnouncementState,
    family: Family,
    route: Route,
}

impl Resolver {
    pub(crate) fn new(terrain: Terrain) -> Self {
        Self { terrain, memo: HashMap::new(), memo_len: 0, blocks: vec![], numbers: HashMap::new() }
    }

    /// Next hops by family.
    pub(crate) fn next_hops(&self) -> [Option<IpAddr>; Family::ALL.len()] {
        self.terrain.next_hops
    }

    /// Resolves with these next hops from now on, and forgets what was resolved with others.
    pub(crate) fn set_next_hops(&mut self, next_hops: [Option<IpAddr>; Family::ALL.len()]) {
        self.terrain.next_hops = next_hops;
        self.forget();
    }

    /// The encoded attribute set of a [`Route::Send`].
    pub(crate) fn block(&self, number: usize) -> &Arc<AttributeBlock> {
        &self.blocks[number]
    }

    /// Is it time to [`Resolver::forget`]?
    pub(crate) fn is_full(&self) -> bool {
        self.memo_len >= MEMO_LEN_MAX
    }

    /// Forgets everything; numbers handed out before mean nothing any more.
    pub(crate) fn forget(&mut self) {
        self.memo.clear();
        self.memo_len = 0;
        self.blocks.clear();
        self.numbers.clear();
    }

    /// What happens with `prefix` at this peer.
    pub(crate) fn resolve(&mut self, prefix: &IpNet, announcement: &Announcement) -> Route {
        let family = Family::of_prefix(prefix);
        if announcement.state == AnnouncementState::Withdrawn || !self.terrain.offered.contains(family) {
            return Route::No;
        }
        let key = announcement.terms.as_ptr() as usize;
        if let Some(known) = self.memo.get(&key).and_then(|all| {
            all.iter().find(|r| {
                Arc::ptr_eq(&r.terms, &announcement.terms) && r.state == announcement.state && r.family == family
            })
        }) {
            return known.route;
        }
        let route = self.work_out(family, announcement);
        self.memo.entry(key).or_default().push(Remembered {
            terms: announcement.terms.clone(),
            state: announcement.state,
            family,
            route,
        });
        self.memo_len += 1;
        route
    }

    fn work_out(&mut self, family: Family, announcement: &Announcement) -> Route {
        let Some(attributes) = attributes(&self.terrain, announcement) else { return Route::No };
        if !self.terrain.shared.contains(family) {
            return Route::Refused(FAMILY_NOT_NEGOTIATED);
        }
        let Some(next_hop) = self.terrain.next_hops[family.index()] else { return Route::Refused(NO_NEXT_HOP) };
        let Ok(block) = AttributeBlock::new(family, &attributes, next_hop.into(), self.terrain.as4) else {
            return Route::Refused(ATTRIBUTES_TOO_LARGE);
        };
        if let Some(number) = self.numbers.get(&block) {
            return Route::Send(*number);
        }
        let (block, number) = (Arc::new(block), self.blocks.len());
        self.blocks.push(block.clone());
        self.numbers.insert(block, number);
        Route::Send(number)
    }
}

/// The attributes of an announcement at a peer; `None` if no advertisement names the peer.
fn attributes(terrain: &Terrain, announcement: &Announcement) -> Option<PathAttributes> {
    let mut named = false;
    let mut local_pref = None;
    let mut communities: BTreeSet<&Community> = BTreeSet::new();
    for terms in announcement.terms.iter() {
        if terms.targets.as_ref().is_none_or(|targets| targets.contains(&terrain.peer)) {
            named = true;
            local_pref = local_pref.or(terms.local_pref);
            communities.extend(&terms.communities);
        }
    }
    if !named {
        return None;
    }
    let mut attributes = PathAttributes {
        as_path: if terrain.internal { vec![] } else { vec![terrain.local_as] },
        local_pref: terrain.internal.then(|| local_pref.unwrap_or(LOCAL_PREF_DEFAULT)),
        ..PathAttributes::default()
    };
    for community in communities {
        match *community {
            Community::Standard(high, low) => {
                attributes.communities.push(u32::from(high) << 16 | u32::from(low));
            }
            Community::Large(global, local1, local2) => {
                attributes.large_communities.push(LargeCommunity { global, local1, local2 });
            }
        }
    }
    if announcement.state == AnnouncementState::Draining {
        attributes.communities.push(GRACEFUL_SHUTDOWN);
        attributes.local_pref = terrain.internal.then_some(0); // RFC 8326 §4.2
    }
    Some(attributes)
}
