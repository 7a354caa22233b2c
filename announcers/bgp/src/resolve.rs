//! What one peer is told about one announcement. Pure.
use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroU32,
    sync::Arc,
};

use ferrocast_bgp_proto::{
    Families, Family,
    wire::{AttributeBlock, ExtendedCommunity, LargeCommunity, NextHop, PathAttributes},
};
use ferrocast_core::{
    announce::{Announcement, AnnouncementState, Community, Terms},
    config::{LinkBandwidth, RoutePolicy, Weight},
};
use ipnet::IpNet;

use crate::info::SentRoute;

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub(crate) next_hops: [Option<NextHop>; Family::ALL.len()],
    /// What the peer's policies say of its routes.
    pub(crate) policies: Arc<[RoutePolicy]>,
}

/// Resolves announcements for one session and remembers what came out.
#[derive(Debug)]
pub(crate) struct Resolver {
    terrain: Arc<Terrain>,
    memo: HashMap<usize, Vec<Remembered>>,
    memo_len: usize,
    blocks: Vec<Arc<AttributeBlock>>,
    numbers: HashMap<Arc<AttributeBlock>, usize>,
}

#[derive(Debug)]
struct Remembered {
    terms: Arc<[Terms]>,
    state: AnnouncementState,
    weight: Option<NonZeroU32>,
    family: Family,
    route: Route,
}

impl Resolver {
    pub(crate) fn new(terrain: Arc<Terrain>) -> Self {
        Self { terrain, memo: HashMap::new(), memo_len: 0, blocks: vec![], numbers: HashMap::new() }
    }

    /// What the resolutions depend on.
    pub(crate) fn terrain(&self) -> &Arc<Terrain> {
        &self.terrain
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
                Arc::ptr_eq(&r.terms, &announcement.terms)
                    && (r.state, r.weight, r.family) == (announcement.state, announcement.weight, family)
            })
        }) {
            return known.route;
        }
        let route = self.work_out(family, announcement);
        self.memo.entry(key).or_default().push(Remembered {
            terms: announcement.terms.clone(),
            state: announcement.state,
            weight: announcement.weight,
            family,
            route,
        });
        self.memo_len += 1;
        route
    }

    fn work_out(&mut self, family: Family, announcement: &Announcement) -> Route {
        let Some(attributes) = self.terrain.attributes(announcement) else { return Route::No };
        if !self.terrain.shared.contains(family) {
            return Route::Refused(FAMILY_NOT_NEGOTIATED);
        }
        let Some(next_hop) = self.terrain.next_hops[family.index()] else { return Route::Refused(NO_NEXT_HOP) };
        let Ok(block) = AttributeBlock::new(family, &attributes, next_hop, self.terrain.as4) else {
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

impl Terrain {
    /// The route to `prefix` that the peer is told; `None`: none.
    pub(crate) fn route(&self, prefix: &IpNet, announcement: &Announcement) -> Option<SentRoute> {
        let mut resolver = Resolver::new(Arc::new(self.clone()));
        let Route::Send(_) = resolver.resolve(prefix, announcement) else { return None };
        let next_hop = self.next_hops[Family::of_prefix(prefix).index()]?;
        Some(SentRoute { prefix: *prefix, next_hop, attributes: self.attributes(announcement)? })
    }

    /// The attributes of an announcement at this peer; `None` if no advertisement names the peer.
    pub(crate) fn attributes(&self, announcement: &Announcement) -> Option<PathAttributes> {
        let names_peer = |terms: &&Terms| terms.targets.as_ref().is_none_or(|targets| targets.contains(&self.peer));
        let named: Vec<&Terms> = announcement.terms.iter().filter(names_peer).collect();
        if named.is_empty() {
            return None;
        }
        let local_pref = named.iter().find_map(|terms| terms.local_pref).unwrap_or(LOCAL_PREF_DEFAULT);
        let mut attributes = PathAttributes {
            as_path: if self.internal { vec![] } else { vec![self.local_as] },
            local_pref: self.internal.then_some(local_pref),
            ..PathAttributes::default()
        };
        let communities: BTreeSet<&Community> = named.iter().flat_map(|terms| &terms.communities).collect();
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
        self.apply_policies(&named, announcement.weight, &mut attributes);
        if announcement.state == AnnouncementState::Draining {
            attributes.communities.push(GRACEFUL_SHUTDOWN);
            attributes.local_pref = self.internal.then_some(0); // RFC 8326 §4.2
        }
        Some(attributes)
    }

    /// Of each single value the first policy that sets it decides; communities add up.
    fn apply_policies(&self, named: &[&Terms], weight: Option<NonZeroU32>, attributes: &mut PathAttributes) {
        let applies = |policy: &&RoutePolicy| {
            let advertisements = policy.advertisements.as_ref();
            advertisements.is_none_or(|names| named.iter().any(|terms| names.contains(&terms.advertisement)))
        };
        let policies: Vec<&RoutePolicy> = self.policies.iter().filter(applies).collect();
        attributes.med = policies.iter().find_map(|policy| policy.med);
        let prepend = policies.iter().map(|policy| policy.as_path_prepend).find(|times| *times > 0);
        if let (Some(times), false) = (prepend, self.internal) {
            attributes.as_path.extend(std::iter::repeat_n(self.local_as, times.into()));
        }
        let communities = policies.iter().flat_map(|policy| &policy.extended_communities);
        attributes.extended_communities.extend(communities.map(|community| ExtendedCommunity(community.0)));
        if let Some(bandwidth) = policies.iter().find_map(|policy| policy.link_bandwidth) {
            attributes.extended_communities.extend(self.link_bandwidth(&bandwidth, weight));
        }
    }

    fn link_bandwidth(&self, bandwidth: &LinkBandwidth, weight: Option<NonZeroU32>) -> Option<ExtendedCommunity> {
        let weight = match bandwidth.weight {
            Weight::Endpoints => weight?.get(),
            Weight::Fixed(weight) => weight,
        };
        #[expect(clippy::cast_possible_truncation, reason = "the wire has 32 bits for it; the nearest is meant")]
        let octets_s = (bandwidth.unit_octets_s as f64 * f64::from(weight)) as f32;
        Some(ExtendedCommunity::link_bandwidth(self.local_as, octets_s, bandwidth.transitive))
    }
}
