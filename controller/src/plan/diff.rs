//! What would change between two states.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ferrocast_bgp::{Told, resets};
use ferrocast_core::{
    alloc::PoolUsage,
    announce::Announcement,
    decide::DesiredBuilder,
    model::{IpFamily, ServiceKey},
};
use imbl::ordmap::DiffItem;
use ipnet::IpNet;

use super::{
    fleet::{Fleet, Member, other_announcers},
    json::{ReasonRow, reason},
    world::{Verdict, World},
};

/// A pool is called nearly full from this share of its addresses on, percent: time to add some before Services wait.
const NEARLY_FULL_PERCENT: u64 = 90;

/// What becomes of a Service's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceChange {
    /// It gets one or more, and loses none.
    Gains,
    /// It loses one or more, and gets none.
    Loses,
    /// It loses some and gets others.
    Changes,
    /// They stay, by another right: they become held, or are no more.
    Stays,
}

/// A Service whose addresses or reason would change.
#[derive(Clone, Debug)]
pub struct ServiceDifference<'a> {
    /// The Service.
    pub key: &'a ServiceKey,
    /// What becomes of its addresses.
    pub change: ServiceChange,
    /// Its addresses before.
    pub before: Vec<IpAddr>,
    /// Its addresses after.
    pub after: Vec<IpAddr>,
    /// Those that it holds though the right to them was taken away.
    pub held: Vec<IpAddr>,
    /// Why, before.
    pub reason_before: ReasonRow<'a>,
    /// Why, after.
    pub reason_after: ReasonRow<'a>,
}

/// What becomes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionChange {
    /// There is none yet.
    Starts,
    /// It ends and begins anew.
    Resets,
    /// It ends.
    Ends,
}

/// One session that would change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionDifference {
    /// The peer.
    pub peer: Arc<str>,
    /// What becomes of it.
    pub change: SessionChange,
    /// The node.
    pub node: Arc<str>,
}

/// A pool that would have no room, or hardly any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitDifference {
    /// The pool.
    pub pool: Arc<str>,
    /// Of which family.
    pub family: IpFamily,
    /// Addresses in use.
    pub used: u64,
    /// Addresses there are.
    pub total: u64,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteChange {
    /// The peer is sent it.
    Added,
    /// It reads otherwise.
    Changed,
    /// The peer is sent it no more.
    Withdrawn,
}

/// One route of one peer of one node.
pub struct RouteDifference<'a> {
    /// What becomes of it.
    pub change: RouteChange,
    /// The node.
    pub node: &'a Arc<str>,
    /// The peer.
    pub peer: &'a Arc<str>,
    /// The prefix.
    pub prefix: IpNet,
    /// As it is then, or was if it is withdrawn.
    pub told: &'a Arc<Told>,
    /// Where it leads.
    pub next_hop: Option<IpAddr>,
    /// For whom.
    pub services: &'a BTreeSet<ServiceKey>,
}

/// One prefix that a node announces by an announcer besides BGP.
pub struct AnnouncementDifference<'a> {
    /// What becomes of it.
    pub change: RouteChange,
    /// The announcer.
    pub announcer: &'a Arc<str>,
    /// The node.
    pub node: &'a Arc<str>,
    /// The prefix.
    pub prefix: IpNet,
    /// As it is then, or was if it is withdrawn.
    pub announcement: &'a Announcement,
}

/// Services whose addresses, or the reasons for them, differ.
#[must_use]
pub fn services<'a>(old: &'a World, new: &'a World) -> Vec<ServiceDifference<'a>> {
    let keys: BTreeSet<&ServiceKey> = old.services.keys().chain(new.services.keys()).collect();
    keys.into_iter().filter_map(|key| service(key, old, new)).collect()
}

fn service<'a>(key: &'a ServiceKey, old: &'a World, new: &'a World) -> Option<ServiceDifference<'a>> {
    let addresses = |world: &World| {
        let mut ips = world.services.get(key).map(|service| service.ingress.clone()).unwrap_or_default();
        ips.sort_unstable();
        ips
    };
    let why = |world: &'a World| match world.services.get(key) {
        Some(service) => reason(world, service),
        None => ReasonRow { code: "notLoadBalancer", message: "the Service is not served" },
    };
    let (before, after) = (addresses(old), addresses(new));
    let (reason_before, reason_after) = (why(old), why(new));
    if before == after && reason_before.code == reason_after.code {
        return None;
    }
    let gains = after.iter().any(|ip| !before.contains(ip));
    let loses = before.iter().any(|ip| !after.contains(ip));
    let change = match (gains, loses) {
        (true, true) => ServiceChange::Changes,
        (true, false) => ServiceChange::Gains,
        (false, true) => ServiceChange::Loses,
        (false, false) => ServiceChange::Stays,
    };
    let held = new.outcomes.get(key).map(|outcome| outcome.held.clone()).unwrap_or_default();
    Some(ServiceDifference { key, change, before, after, held, reason_before, reason_after })
}

/// Sessions that would begin, end, or do both; by peer.
#[must_use]
pub fn sessions(old: &Fleet, new: &Fleet) -> Vec<SessionDifference> {
    let mut found = Vec::new();
    for (node, before, after) in paired(old, new) {
        let spoken = |fleet: &Fleet, member: Option<&Member>| -> BTreeMap<Arc<str>, usize> {
            let peers = member.map(|m| &*m.peers).unwrap_or_default().iter().copied();
            let spoken = peers.filter(|peer| fleet.peers[*peer].preview.is_ok());
            spoken.map(|peer| (fleet.peers[peer].peer.name.clone(), peer)).collect()
        };
        let (was, is) = (spoken(old, before.map(|at| &old.members[at])), spoken(new, after.map(|at| &new.members[at])));
        for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
            let change = match (was.get(name), is.get(name)) {
                (None, Some(_)) => SessionChange::Starts,
                (Some(_), None) => SessionChange::Ends,
                (Some(a), Some(b)) if resets(&old.peers[*a].peer, &new.peers[*b].peer) => SessionChange::Resets,
                _ => continue,
            };
            found.push(SessionDifference { peer: name.clone(), change, node: node.clone() });
        }
    }
    found.sort_unstable();
    found
}

/// Nodes by name with their places in both fleets.
fn paired(old: &Fleet, new: &Fleet) -> Vec<(Arc<str>, Option<usize>, Option<usize>)> {
    let mut nodes: BTreeMap<Arc<str>, (Option<usize>, Option<usize>)> = BTreeMap::new();
    for (place, member) in old.members.iter().enumerate() {
        nodes.entry(member.node.name.clone()).or_default().0 = Some(place);
    }
    for (place, member) in new.members.iter().enumerate() {
        nodes.entry(member.node.name.clone()).or_default().1 = Some(place);
    }
    nodes.into_iter().map(|(name, (before, after))| (name, before, after)).collect()
}

/// Pools that would be full or nearly so and were not.
#[must_use]
pub fn limits(old: &World, new: &World) -> Vec<LimitDifference> {
    let mut found = Vec::new();
    for (pool, usage) in &new.usage {
        let was = old.usage.get(pool).copied().unwrap_or_default();
        for family in [IpFamily::V4, IpFamily::V6] {
            let (used, total) = of_family(usage, family);
            let level = level(used, total);
            let (used_before, total_before) = of_family(&was, family);
            if level > Level::Room && level > self::level(used_before, total_before) {
                found.push(LimitDifference { pool: pool.clone(), family, used, total });
            }
        }
    }
    found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Room,
    NearlyFull,
    Full,
}

fn level(used: u64, total: u64) -> Level {
    match (used, total) {
        (_, 0) => Level::Room,
        (used, total) if used >= total => Level::Full,
        (used, total) if u128::from(used) * 100 >= u128::from(total) * u128::from(NEARLY_FULL_PERCENT) => {
            Level::NearlyFull
        }
        _ => Level::Room,
    }
}

fn of_family(usage: &PoolUsage, family: IpFamily) -> (u64, u64) {
    match family {
        IpFamily::V4 => (usage.used_v4, usage.total_v4),
        IpFamily::V6 => (usage.used_v6, usage.total_v6),
    }
}

/// Objects whose problems differ, as they would be.
#[must_use]
pub fn configuration<'a>(old: &World, new: &'a World) -> Vec<&'a Verdict> {
    let before: BTreeMap<_, &Verdict> = old.verdicts.iter().map(|verdict| (&verdict.key, verdict)).collect();
    let differs = |verdict: &&Verdict| match before.get(&verdict.key) {
        Some(was) => was.problems != verdict.problems,
        None => !verdict.problems.is_empty(),
    };
    new.verdicts.iter().filter(differs).collect()
}

/// What is announced of a prefix on either side.
type BeforeAndAfter = (Option<Arc<Announcement>>, Option<Arc<Announcement>>);
/// One prefix that two snapshots of a node do not have in common.
type Changed = (IpNet, Option<Arc<Announcement>>, Option<Arc<Announcement>>);

/// Calls `each` with every route that would be added, changed or withdrawn, by node, peer and prefix.
///
/// # Errors
/// What `each` returns.
pub fn routes<E>(
    old: &mut Fleet,
    new: &mut Fleet,
    mut each: impl FnMut(&RouteDifference<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut last: Option<(Option<usize>, Option<usize>, Vec<Changed>)> = None;
    let mut alike = Alike::default();
    for (node, before, after) in paired(old, new) {
        let same = last
            .as_ref()
            .is_some_and(|(was, is, _)| same_snapshot(old, *was, before) && same_snapshot(new, *is, after));
        if !same {
            last = Some((before, after, changed(old, before, new, after)));
        }
        let Some((.., changes)) = &last else { continue };
        let peers_of = |fleet: &Fleet, place: Option<usize>| -> BTreeMap<Arc<str>, usize> {
            let peers = place.map(|at| &*fleet.members[at].peers).unwrap_or_default();
            peers.iter().map(|peer| (fleet.peers[*peer].peer.name.clone(), *peer)).collect()
        };
        let (was, is) = (peers_of(old, before), peers_of(new, after));
        for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
            let sides = (Side::of(old, before, was.get(name)), Side::of(new, after, is.get(name)));
            let all;
            let relevant = if sides.0.as_ref().map(Side::terms) == sides.1.as_ref().map(Side::terms) {
                changes
            } else {
                all = everything(old, before, new, after);
                &all
            };
            let place = Place { node: &node, peer: name };
            compare(place, sides, (&mut *old, &mut *new), relevant, &mut alike, &mut each)?;
        }
    }
    Ok(())
}

/// Calls `each` with every prefix that would be announced, announced otherwise or withdrawn by an announcer besides BGP; by announcer,
/// node and prefix.
///
/// # Errors
/// What `each` returns.
pub fn announcements<E>(
    old: &World,
    new: &World,
    mut each: impl FnMut(&AnnouncementDifference<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let announcers: BTreeSet<&Arc<str>> = other_announcers(old).chain(other_announcers(new)).collect();
    for announcer in announcers {
        let mut builder = DesiredBuilder::default();
        let old = Fleet::of_announcer(old, announcer, &mut builder);
        let new = Fleet::of_announcer(new, announcer, &mut builder);
        for (node, before, after) in paired(&old, &new) {
            for (prefix, was, is) in changed(&old, before, &new, after) {
                let change = match (&was, &is) {
                    (None, _) => RouteChange::Added,
                    (_, None) => RouteChange::Withdrawn,
                    (Some(was), Some(is)) if was == is => continue,
                    _ => RouteChange::Changed,
                };
                let Some(announcement) = is.as_ref().or(was.as_ref()) else { continue };
                each(&AnnouncementDifference { change, announcer, node: &node, prefix, announcement })?;
            }
        }
    }
    Ok(())
}

/// One side's view of a peer.
struct Side {
    peer: usize,
    terms: (Arc<ferrocast_core::config::Peer>, [Option<IpAddr>; 2]),
}

impl Side {
    fn of(fleet: &Fleet, place: Option<usize>, peer: Option<&usize>) -> Option<Self> {
        let (place, peer) = (place?, *peer?);
        fleet.peers[peer].preview.as_ref().ok()?;
        let hops = [IpFamily::V4, IpFamily::V6].map(|family| fleet.next_hop(place, peer, family));
        Some(Self { peer, terms: (fleet.peers[peer].peer.clone(), hops) })
    }

    /// What its peer is told of a prefix, where that leads, and for whom it is.
    fn told<'a>(
        &self,
        fleet: &mut Fleet,
        prefix: &IpNet,
        announcement: &'a Announcement,
    ) -> Option<(Arc<Told>, Option<IpAddr>, &'a BTreeSet<ServiceKey>)> {
        let preview = fleet.peers[self.peer].preview.as_mut().ok()?;
        let hop = self.terms.1[usize::from(prefix.addr().is_ipv6())];
        preview.told(prefix, announcement).map(|told| (told, hop, &*announcement.services))
    }

    /// What its routes depend on besides what is announced.
    fn terms(&self) -> &(Arc<ferrocast_core::config::Peer>, [Option<IpAddr>; 2]) {
        &self.terms
    }
}

fn same_snapshot(fleet: &Fleet, a: Option<usize>, b: Option<usize>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            let of = |place: usize| &fleet.members[place].desired.announcements;
            of(a).ptr_eq(of(b))
        }
        (None, None) => true,
        _ => false,
    }
}

fn changed(old: &Fleet, before: Option<usize>, new: &Fleet, after: Option<usize>) -> Vec<Changed> {
    let (Some(before), Some(after)) = (before, after) else { return everything(old, before, new, after) };
    let (was, is) = (&old.members[before].desired.announcements, &new.members[after].desired.announcements);
    if was.ptr_eq(is) {
        return Vec::new();
    }
    let change = |item: DiffItem<'_, '_, IpNet, Arc<Announcement>>| match item {
        DiffItem::Add(prefix, new) => (*prefix, None, Some(new.clone())),
        DiffItem::Update { old: (_, old), new: (prefix, new) } => (*prefix, Some(old.clone()), Some(new.clone())),
        DiffItem::Remove(prefix, old) => (*prefix, Some(old.clone()), None),
    };
    was.diff(is).map(change).collect()
}

/// Every prefix of either side.
fn everything(old: &Fleet, before: Option<usize>, new: &Fleet, after: Option<usize>) -> Vec<Changed> {
    let mut all: BTreeMap<IpNet, BeforeAndAfter> = BTreeMap::new();
    for (prefix, announcement) in before.iter().flat_map(|at| &old.members[*at].desired.announcements) {
        all.entry(*prefix).or_default().0 = Some(announcement.clone());
    }
    for (prefix, announcement) in after.iter().flat_map(|at| &new.members[*at].desired.announcements) {
        all.entry(*prefix).or_default().1 = Some(announcement.clone());
    }
    all.into_iter().map(|(prefix, (old, new))| (prefix, old, new)).collect()
}

/// Whose session with whom.
#[derive(Clone, Copy)]
struct Place<'a> {
    node: &'a Arc<str>,
    peer: &'a Arc<str>,
}

/// Whether two peers are told the same. Prefixes that follow each other are mostly told alike, so the last answer is kept.
#[derive(Default)]
struct Alike(Option<(Arc<Told>, Arc<Told>, bool)>);

impl Alike {
    fn are(&mut self, a: &Arc<Told>, b: &Arc<Told>) -> bool {
        match &self.0 {
            Some((x, y, alike)) if Arc::ptr_eq(x, a) && Arc::ptr_eq(y, b) => *alike,
            _ => {
                let alike = a == b;
                self.0 = Some((a.clone(), b.clone(), alike));
                alike
            }
        }
    }
}

fn compare<E>(
    Place { node, peer }: Place<'_>,
    (before, after): (Option<Side>, Option<Side>),
    (old, new): (&mut Fleet, &mut Fleet),
    changes: &[Changed],
    alike: &mut Alike,
    each: &mut impl FnMut(&RouteDifference<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for (prefix, was, is) in changes {
        let was = before.as_ref().zip(was.as_ref()).and_then(|(side, was)| side.told(old, prefix, was));
        let is = after.as_ref().zip(is.as_ref()).and_then(|(side, is)| side.told(new, prefix, is));
        let change = match (&was, &is) {
            (None, Some(_)) => RouteChange::Added,
            (Some(_), None) => RouteChange::Withdrawn,
            (Some((a, hop_a, _)), Some((b, hop_b, _))) if hop_a != hop_b || !alike.are(a, b) => RouteChange::Changed,
            _ => continue,
        };
        let Some((told, next_hop, services)) = is.as_ref().or(was.as_ref()) else { continue };
        each(&RouteDifference { change, node, peer, prefix: *prefix, told, next_hop: *next_hop, services })?;
    }
    Ok(())
}
