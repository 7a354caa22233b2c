//! What a peer would be sent if its session were up: for those who plan, without any session. Pure.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
};

use ferrocast_bgp_proto::{
    Families, Family,
    wire::{AttributeBlock, NextHop, PathAttributes},
};
use ferrocast_core::{
    announce::{self, Announcement, AnnouncementState, Community, Desired, ExtendedCommunity, PreviewRoute, Terms},
    config::{Peer, PeerAs, PeerEndpoint},
    model::IpFamily,
};
use ipnet::IpNet;

use crate::{
    announcer::PeerSet,
    resolve::Terrain,
    session::{families, local_as, needs_new_session},
    support::support,
};

/// Routes to one peer, from whichever node.
///
/// The peer is taken for one that agrees to all that is offered: every family, four-octet AS numbers, IPv6 next hops of IPv4 routes.
#[derive(Debug)]
pub struct Preview {
    peer: Arc<Peer>,
    terrain: Terrain,
    /// By the terms of an announcement, which are shared and therefore few: what was made of them.
    memo: BTreeMap<usize, Vec<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    terms: Arc<[Terms]>,
    state: AnnouncementState,
    weight: Option<NonZeroU32>,
    family: Family,
    told: Option<Arc<Told>>,
}

/// What a peer is told of a prefix, but for the next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Communities.
    pub communities: BTreeSet<Community>,
    /// Extended communities, those for the link bandwidth included.
    pub extended_communities: BTreeSet<ExtendedCommunity>,
    /// LOCAL_PREF as an advertisement sets it; `None` if none does, or the peer is external.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How many times more than usual our AS stands in the path.
    pub as_path_prepend: usize,
    /// The node's share of the traffic that the link bandwidth expresses.
    pub weight: Option<NonZeroU32>,
}

impl Told {
    /// What is set of it, by the name that the route's attribute has in BGP.
    fn in_words(&self) -> BTreeMap<&'static str, String> {
        let list = |communities: &mut dyn Iterator<Item = String>| {
            let all: Vec<String> = communities.collect();
            (!all.is_empty()).then(|| all.join(" "))
        };
        let standard = &mut self.communities.iter().filter_map(|c| match c {
            Community::Standard(a, b) => Some(format!("{a}:{b}")),
            Community::Large(..) => None,
        });
        let large = &mut self.communities.iter().filter_map(|c| match c {
            Community::Large(a, b, c) => Some(format!("{a}:{b}:{c}")),
            Community::Standard(..) => None,
        });
        let extended = &mut self.extended_communities.iter().map(|c| c.0.iter().map(|o| format!("{o:02x}")).collect());
        let all = [
            ("communities", list(standard)),
            ("largeCommunities", list(large)),
            ("extendedCommunities", list(extended)),
            ("localPref", self.local_pref.map(|v| v.to_string())),
            ("med", self.med.map(|v| v.to_string())),
            ("asPathPrepend", (self.as_path_prepend > 0).then(|| self.as_path_prepend.to_string())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl Preview {
    /// Routes to `peer`.
    ///
    /// # Errors
    /// In words, why no session with the peer is tried, so that it gets none.
    pub fn new(peer: &Arc<Peer>) -> Result<Self, String> {
        support(peer)?;
        let offered = match &peer.endpoint {
            PeerEndpoint::Address(address) => families(peer, *address),
            PeerEndpoint::Interface(_) => families(peer, IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1])),
        };
        let internal = match peer.peer_asn {
            PeerAs::Number(asn) => asn == local_as(peer),
            PeerAs::Internal => true,
            PeerAs::External => false,
        };
        let terrain = Terrain {
            peer: peer.name.clone(),
            local_as: local_as(peer),
            internal,
            as4: true,
            offered,
            shared: offered,
            next_hops: [None; Family::ALL.len()],
            policies: peer.routes.clone(),
        };
        Ok(Self { peer: peer.clone(), terrain, memo: BTreeMap::new() })
    }

    /// The peer.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Does the session carry the family?
    #[must_use]
    pub fn carries(&self, family: IpFamily) -> bool {
        self.families().contains(wire(family))
    }

    fn families(&self) -> Families {
        self.terrain.offered
    }

    /// What the peer is told of `prefix`; `None`: it is not sent the route.
    pub fn told(&mut self, prefix: &IpNet, announcement: &Announcement) -> Option<Arc<Told>> {
        let family = Family::of_prefix(prefix);
        if announcement.state == AnnouncementState::Withdrawn || !self.families().contains(family) {
            return None;
        }
        let key = announcement.terms.as_ptr() as usize;
        let known = self.memo.get(&key).and_then(|all| {
            all.iter().find(|r| {
                Arc::ptr_eq(&r.terms, &announcement.terms)
                    && (r.state, r.weight, r.family) == (announcement.state, announcement.weight, family)
            })
        });
        if let Some(known) = known {
            return known.told.clone();
        }
        let told = self.work_out(family, announcement).map(Arc::new);
        self.memo.entry(key).or_default().push(Remembered {
            terms: announcement.terms.clone(),
            state: announcement.state,
            weight: announcement.weight,
            family,
            told: told.clone(),
        });
        told
    }

    fn work_out(&self, family: Family, announcement: &Announcement) -> Option<Told> {
        let attributes = self.terrain.attributes(announcement)?;
        let longest = NextHop::V6 {
            address: std::net::Ipv6Addr::LOCALHOST,
            link_local: (family == Family::Ipv6Unicast).then_some(std::net::Ipv6Addr::LOCALHOST),
        };
        AttributeBlock::new(family, &attributes, longest, self.terrain.as4).ok()?;
        let PathAttributes { as_path, med, communities, extended_communities, large_communities, .. } = attributes;
        let standard = communities.iter().map(|c| {
            let [a, b, c, d] = c.to_be_bytes();
            Community::Standard(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
        });
        let large = large_communities.iter().map(|c| Community::Large(c.global, c.local1, c.local2));
        let names_us = |t: &&Terms| t.targets.as_ref().is_none_or(|targets| targets.contains(&self.peer.name));
        let set = announcement.terms.iter().filter(names_us).find_map(|terms| terms.local_pref);
        Some(Told {
            communities: standard.chain(large).collect(),
            extended_communities: extended_communities.iter().map(|c| ExtendedCommunity(c.0)).collect(),
            local_pref: set.filter(|_| self.terrain.internal),
            med,
            as_path_prepend: as_path.len().saturating_sub(usize::from(!self.terrain.internal)),
            weight: announcement.weight.filter(|_| self.peer.routes.iter().any(|p| p.link_bandwidth.is_some())),
        })
    }

    /// Where routes of a family lead, as far as the configuration says: the next hop of a BGPPeerPolicy, else `sourceAddress` if it is
    /// of the family, else the first of the Node's addresses that is; `None`: only the connection will tell.
    #[must_use]
    pub fn next_hop(&self, family: IpFamily, internal_ips: &[IpAddr]) -> Option<IpAddr> {
        let session = &self.peer.session;
        let configured = match family {
            IpFamily::V4 => session.next_hop_v4,
            IpFamily::V6 => session.next_hop_v6.map(IpAddr::V6),
        };
        let is_of = |ip: &IpAddr| IpFamily::of(*ip) == family;
        configured
            .or_else(|| self.peer.source_address.filter(is_of))
            .or_else(|| internal_ips.iter().copied().find(is_of))
    }
}

fn wire(family: IpFamily) -> Family {
    match family {
        IpFamily::V4 => Family::Ipv4Unicast,
        IpFamily::V6 => Family::Ipv6Unicast,
    }
}

/// What every peer of the set would be sent: what [`Announcer::preview`](ferrocast_core::announce::Announcer::preview) answers.
/// A peer with which no session is tried has no routes.
pub(crate) fn of_set(desired: &Desired, set: &PeerSet) -> announce::Preview {
    let mut all = announce::Preview::new();
    for (name, peer) in &set.peers {
        let mut routes = BTreeMap::new();
        if let Ok(mut preview) = Preview::new(peer) {
            for (prefix, announcement) in &desired.announcements {
                let Some(told) = preview.told(prefix, announcement) else { continue };
                let next_hop = preview.next_hop(IpFamily::of(prefix.addr()), &set.internal_ips);
                routes.insert(*prefix, PreviewRoute { next_hop, attributes: told.in_words() });
            }
        }
        all.insert(name.clone(), routes);
    }
    all
}

/// Would a live session with the peer end and begin anew if its configuration changed like this?
#[must_use]
pub fn resets(old: &Peer, new: &Peer) -> bool {
    support(old).is_ok() && (support(new).is_err() || needs_new_session(old, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::tests::peer;
    use ferrocast_core::config::{Password, RoutePolicy, SessionPolicy};

    fn announcement(terms: Terms) -> Announcement {
        Announcement {
            state: AnnouncementState::Active,
            terms: [terms].into(),
            services: Arc::default(),
            weight: NonZeroU32::new(4),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn peer_is_told_what_the_session_would_send() {
        let policy = RoutePolicy { med: Some(5), as_path_prepend: 2, ..RoutePolicy::default() };
        let external = Arc::new(Peer { routes: [policy].into(), ..peer("r") });
        let terms = Terms {
            local_pref: Some(7),
            communities: [Community::Large(1, 2, 3), Community::Standard(64_512, 1)].into(),
            ..Terms::default()
        };
        let announcement = announcement(terms.clone());
        let prefix = "10.0.0.1/32".parse().unwrap();
        let mut preview = Preview::new(&external).unwrap();
        let want = Told { communities: terms.communities.clone(), med: Some(5), as_path_prepend: 2, ..Told::default() };
        assert_eq!(preview.told(&prefix, &announcement).as_deref(), Some(&want));
        assert_eq!(preview.told(&prefix, &announcement).as_deref(), Some(&want), "remembered");
        assert_eq!(preview.told(&"fd00::1/128".parse().unwrap(), &announcement), None, "an IPv4 session");
        let internal = Arc::new(Peer { peer_asn: PeerAs::Number(64_512), ..peer("r") });
        let told = Preview::new(&internal).unwrap().told(&prefix, &announcement).unwrap();
        assert_eq!((told.local_pref, told.as_path_prepend), (Some(7), 0));
        let others = Announcement {
            terms: [Terms { targets: Some(["x".into()].into()), ..Terms::default() }].into(),
            ..announcement
        };
        assert_eq!(Preview::new(&internal).unwrap().told(&prefix, &others), None);
    }

    #[test]
    fn next_hop_is_the_policys_then_the_source_then_the_nodes() {
        let node = [ip("fd00::9"), ip("10.0.0.9"), ip("10.0.0.10")];
        let hops = |peer: Peer| {
            let preview = Preview::new(&Arc::new(peer)).unwrap();
            [IpFamily::V4, IpFamily::V6]
                .map(|f| preview.next_hop(f, &node).map(|ip| ip.to_string()).unwrap_or_default())
        };
        assert_eq!(hops(peer("r")), ["10.0.0.9", "fd00::9"]);
        let source = Peer { source_address: Some(ip("192.0.2.5")), ..peer("r") };
        assert_eq!(hops(source.clone()), ["192.0.2.5", "fd00::9"]);
        let session = SessionPolicy { next_hop_v4: Some(ip("203.0.113.1")), ..SessionPolicy::default() };
        assert_eq!(hops(Peer { session, ..source }), ["203.0.113.1", "fd00::9"]);
        assert_eq!(Preview::new(&Arc::new(peer("r"))).unwrap().next_hop(IpFamily::V6, &node[1..]), None);
    }

    #[test]
    fn session_is_reset_by_what_a_live_one_cannot_take_in() {
        let old = peer("r");
        let soft = Peer { routes: [RoutePolicy::default()].into(), ..peer("r") };
        assert!(!resets(&old, &old) && !resets(&old, &soft));
        assert!(resets(&old, &Peer { my_asn: 64_999, ..peer("r") }));
        let secret = |text: &str| Peer { password: Some(Password(text.into())), ..peer("r") };
        assert!(resets(&old, &secret("a")) && !resets(&secret("a"), &secret("b")));
        let lost = Peer { password_missing: Some("no Secret".into()), ..peer("r") };
        assert!(resets(&old, &lost) && !resets(&lost, &lost));
        assert!(Preview::new(&Arc::new(lost)).is_err());
    }
}
