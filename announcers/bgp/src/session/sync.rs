//! What a peer has from us, and how it gets from there to what is desired.
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use bytes::BytesMut;
use ferrocast_bgp_proto::{
    Families, Family,
    fsm::Negotiated,
    wire::{Kind, Message, NextHop, ReachPacker, RouteRefresh, WithdrawPacker, end_of_rib},
};
use ferrocast_core::{
    actor::CancellationToken,
    announce::{Announcement, Desired},
};
use imbl::{OrdMap, ordmap::DiffItem};
use ipnet::IpNet;
use tokio::sync::watch;

use super::live::{Flow, Live};
use crate::resolve::{Resolver, Route, Terrain};

/// Octets that may wait to be written before encoding stops until the peer has read some.
const OUTBOX_LEN_MAX: usize = 64 * 1024;
/// Messages under construction at once, one per attribute set; beyond, all are sent as they are. Bounds memory to 1 MB per
/// peer while a table with very many attribute sets is sent.
const PACKERS_LEN_MAX: usize = 256;
/// Refused prefixes that are reported by name: enough to see what is wrong.
const REFUSED_LEN_MAX: usize = 1_000;

type Announcements = OrdMap<IpNet, Arc<Announcement>>;

/// Adj-RIB-Out: the snapshot that the peer has, resolved by the same rules whenever it is compared. Source: RFC 4271 §1.1.
pub(super) struct Adj {
    resolver: Resolver,
    families: Families,
    /// Begin and end of a refresh are marked (RFC 7313).
    enhanced_refresh: bool,
    pub(super) sent: Announcements,
    /// Generation of `sent`; zero: nothing yet.
    pub(super) generation: u64,
    end_of_rib_sent: bool,
    /// Terrain that applies as soon as nothing else is under way.
    next_terrain: Option<Arc<Terrain>>,
    /// Families that the peer wants again.
    pub(super) refresh: Families,
    /// Prefixes that it has, by [`Family::ALL`].
    pub(super) announced: [usize; Family::ALL.len()],
    pub(super) refused: BTreeMap<IpNet, Cow<'static, str>>,
}

/// What is to be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// What changed.
    Changes,
    /// Everything of a family again.
    Again(Family),
    /// Every route that reads otherwise on other terrain.
    Rechart,
}

impl Adj {
    pub(super) fn new(resolver: Resolver, negotiated: &Negotiated) -> Self {
        Self {
            resolver,
            families: negotiated.families,
            enhanced_refresh: negotiated.enhanced_route_refresh,
            sent: OrdMap::new(),
            generation: 0,
            end_of_rib_sent: false,
            next_terrain: None,
            refresh: Families::NONE,
            announced: [0; Family::ALL.len()],
            refused: BTreeMap::new(),
        }
    }

    /// What there is to do. Before the first decision (generation zero) nothing is said; what was announced before a restart
    /// is not the end of the RIB.
    pub(super) fn wants(&self, desired: &watch::Receiver<Arc<Desired>>) -> Option<Work> {
        let (generation, provisional) = {
            let desired = desired.borrow();
            (desired.generation, desired.provisional)
        };
        let incomplete = self.generation == 0 || (!self.end_of_rib_sent && !provisional);
        if generation != 0 && (incomplete || desired.has_changed().unwrap_or(false)) {
            return Some(Work::Changes);
        }
        if generation != 0 && self.next_terrain.is_some() {
            return Some(Work::Rechart);
        }
        self.refresh.iter().next().map(Work::Again)
    }

    /// What the routes depend on.
    pub(super) fn terrain(&self) -> &Arc<Terrain> {
        self.resolver.terrain()
    }

    /// From now on the routes depend on this.
    pub(super) fn chart(&mut self, terrain: Terrain) {
        self.next_terrain = (terrain != **self.terrain()).then(|| Arc::new(terrain));
    }

    /// An empty packer for withdrawals of a family; IPv4 routes that were announced with an IPv6 next hop are withdrawn in the
    /// same way (RFC 8950).
    fn withdraw_packer(&self, family: Family) -> WithdrawPacker {
        match self.terrain().next_hops[family.index()] {
            Some(NextHop::V6 { .. }) => WithdrawPacker::multi_protocol(family),
            _ => WithdrawPacker::new(family),
        }
    }

    /// Old and new route of one change.
    fn compare(&mut self, change: &Change<'_>) -> (Route, Route) {
        let mut resolve = |side: Option<&Arc<Announcement>>| {
            side.map_or(Route::No, |announcement| self.resolver.resolve(change.prefix, announcement))
        };
        (resolve(change.old), resolve(change.new))
    }

    fn refuse(&mut self, prefix: &IpNet, route: Route) {
        match route {
            Route::Refused(code) if self.refused.len() < REFUSED_LEN_MAX => {
                self.refused.insert(*prefix, Cow::Borrowed(code));
            }
            _ => drop(self.refused.remove(prefix)),
        }
    }
}

/// One difference between two snapshots.
struct Change<'a> {
    prefix: &'a IpNet,
    old: Option<&'a Arc<Announcement>>,
    new: Option<&'a Arc<Announcement>>,
}

impl<'a> From<DiffItem<'a, 'a, IpNet, Arc<Announcement>>> for Change<'a> {
    fn from(item: DiffItem<'a, 'a, IpNet, Arc<Announcement>>) -> Self {
        match item {
            DiffItem::Add(prefix, new) => Self { prefix, old: None, new: Some(new) },
            DiffItem::Update { old: (_, old), new: (prefix, new) } => Self { prefix, old: Some(old), new: Some(new) },
            DiffItem::Remove(prefix, old) => Self { prefix, old: Some(old), new: None },
        }
    }
}

/// Messages under construction, by attribute set.
#[derive(Default)]
struct Packers(HashMap<usize, ReachPacker>);

impl Packers {
    /// Adds a prefix; returns the messages written to `out`.
    fn push(&mut self, prefix: &IpNet, number: usize, resolver: &Resolver, out: &mut BytesMut) -> u64 {
        let mut wrote = 0;
        if self.0.len() >= PACKERS_LEN_MAX && !self.0.contains_key(&number) {
            wrote = self.flush(out);
        }
        let packer = self.0.entry(number).or_insert_with(|| ReachPacker::new(resolver.block(number).clone()));
        wrote + u64::from(packer.push(prefix, out))
    }

    fn flush(&mut self, out: &mut BytesMut) -> u64 {
        self.0.drain().map(|(_, mut packer)| u64::from(packer.flush(out))).sum()
    }
}

impl Live<'_> {
    /// Does one piece of work, as fast as the peer reads. Ends early when the session does.
    pub(super) async fn sync(&mut self, work: Work, stop: &CancellationToken) -> Flow {
        let done = match work {
            Work::Changes => {
                let desired = self.desired.borrow_and_update().clone();
                self.send_changes(&desired, stop).await
            }
            Work::Again(family) => self.send_again(family, stop).await,
            Work::Rechart => self.send_recharted(stop).await,
        };
        self.publish();
        done.err().unwrap_or(Flow::Go)
    }

    /// Sends the differences between what the peer has and `desired`: withdrawals first, then the rest.
    async fn send_changes(&mut self, desired: &Desired, stop: &CancellationToken) -> Result<(), Flow> {
        let Some(adj) = &self.adj else { return Ok(()) };
        let sent = adj.sent.clone();
        let epoch = self.epoch;
        if !sent.is_empty() {
            let mut packers = Family::ALL.map(|family| adj.withdraw_packer(family));
            for item in sent.diff(&desired.announcements) {
                self.withdraw(&item.into(), &mut packers);
                self.make_room(epoch, stop).await?;
            }
            for packer in &mut packers {
                self.write(|out| packer.flush(out).into());
            }
        }
        let mut packers = Packers::default();
        for item in sent.diff(&desired.announcements) {
            self.reach(&item.into(), &mut packers);
            self.make_room(epoch, stop).await?;
        }
        self.write(|out| packers.flush(out));
        self.finish(desired);
        Ok(())
    }

    /// Everything was handed over; the first time End-of-RIB says so, unless it is only what was announced before a restart.
    /// Source: RFC 4724 §2, §4.1.
    fn finish(&mut self, desired: &Desired) {
        let Some(adj) = &mut self.adj else { return };
        adj.sent = desired.announcements.clone();
        adj.generation = desired.generation;
        if adj.end_of_rib_sent || desired.provisional {
            return;
        }
        adj.end_of_rib_sent = true;
        let families = adj.families;
        self.write(|out| families.iter().map(|family| end_of_rib(family, out)).count() as u64);
        self.info.end_of_rib_at = Some(SystemTime::now());
    }

    /// First pass over the differences: what the peer has and shall not have any more.
    fn withdraw(&mut self, change: &Change<'_>, packers: &mut [WithdrawPacker; Family::ALL.len()]) {
        let Some(adj) = &mut self.adj else { return };
        if adj.resolver.is_full() {
            adj.resolver.forget();
        }
        if let (Route::Send(_), Route::No | Route::Refused(_)) = adj.compare(change) {
            let index = Family::of_prefix(change.prefix).index();
            adj.announced[index] = adj.announced[index].saturating_sub(1);
            self.write(|out| packers[index].push(change.prefix, out).into());
        }
    }

    /// Second pass: what is new, or is said differently.
    fn reach(&mut self, change: &Change<'_>, packers: &mut Packers) {
        let Some(adj) = &mut self.adj else { return };
        if adj.resolver.is_full() {
            // numbers of attribute sets lose their meaning
            self.write(|out| packers.flush(out));
        }
        let (Some(adj), Some(wire)) = (&mut self.adj, &mut self.wire) else { return };
        if adj.resolver.is_full() {
            adj.resolver.forget();
        }
        let (old, new) = adj.compare(change);
        adj.refuse(change.prefix, new);
        let Route::Send(number) = new else { return };
        if old == new {
            return;
        }
        if !matches!(old, Route::Send(_)) {
            adj.announced[Family::of_prefix(change.prefix).index()] += 1;
        }
        let wrote = packers.push(change.prefix, number, &adj.resolver, &mut wire.outbox);
        self.counters.sent(Kind::Update, wrote);
    }

    /// Sends the routes that read otherwise on the next terrain; withdraws those that cannot be told there.
    async fn send_recharted(&mut self, stop: &CancellationToken) -> Result<(), Flow> {
        let epoch = self.epoch;
        let Some(adj) = &mut self.adj else { return Ok(()) };
        let Some(terrain) = adj.next_terrain.take() else { return Ok(()) };
        let mut withdrawn = Family::ALL.map(|family| adj.withdraw_packer(family));
        let mut old = std::mem::replace(&mut adj.resolver, Resolver::new(terrain));
        let sent = adj.sent.clone();
        let mut packers = Packers::default();
        for (prefix, announcement) in &sent {
            self.recast(prefix, announcement, &mut old, &mut packers, &mut withdrawn);
            self.make_room(epoch, stop).await?;
        }
        for packer in &mut withdrawn {
            self.write(|out| packer.flush(out).into());
        }
        self.write(|out| packers.flush(out));
        Ok(())
    }

    /// One route of [`Live::send_recharted`]: what `old` made of it is what the peer has.
    fn recast(
        &mut self,
        prefix: &IpNet,
        announcement: &Arc<Announcement>,
        old: &mut Resolver,
        packers: &mut Packers,
        withdrawn: &mut [WithdrawPacker; Family::ALL.len()],
    ) {
        if self.adj.as_ref().is_some_and(|adj| adj.resolver.is_full()) {
            self.write(|out| packers.flush(out)); // numbers of attribute sets lose their meaning
        }
        let (Some(adj), Some(wire)) = (&mut self.adj, &mut self.wire) else { return };
        for resolver in [&mut *old, &mut adj.resolver] {
            if resolver.is_full() {
                resolver.forget();
            }
        }
        let before = old.resolve(prefix, announcement);
        let now = adj.resolver.resolve(prefix, announcement);
        adj.refuse(prefix, now);
        let announced = &mut adj.announced[Family::of_prefix(prefix).index()];
        let wrote = match (before, now) {
            (Route::Send(a), Route::Send(b)) if old.block(a) == adj.resolver.block(b) => 0,
            (_, Route::Send(number)) => {
                *announced += usize::from(!matches!(before, Route::Send(_)));
                packers.push(prefix, number, &adj.resolver, &mut wire.outbox)
            }
            (Route::Send(_), _) => {
                *announced = announced.saturating_sub(1);
                withdrawn[Family::of_prefix(prefix).index()].push(prefix, &mut wire.outbox).into()
            }
            _ => 0,
        };
        self.counters.sent(Kind::Update, wrote);
    }

    /// Withdraws every route, without waiting for the peer to read: the session is about to end.
    pub(super) fn withdraw_everything(&mut self) {
        let Some(adj) = &mut self.adj else { return };
        let sent = std::mem::take(&mut adj.sent);
        let mut packers = Family::ALL.map(|family| adj.withdraw_packer(family));
        for (prefix, old) in &sent {
            self.withdraw(&Change { prefix, old: Some(old), new: None }, &mut packers);
        }
        for packer in &mut packers {
            self.write(|out| packer.flush(out).into());
        }
    }

    /// Sends everything of `family` once more. Source: RFC 2918 §4.
    async fn send_again(&mut self, family: Family, stop: &CancellationToken) -> Result<(), Flow> {
        let epoch = self.epoch;
        let Some(adj) = &mut self.adj else { return Ok(()) };
        adj.refresh.remove(family);
        let sent = adj.sent.clone();
        self.mark_refresh(family, RouteRefresh::BEGIN);
        let mut packers = Packers::default();
        for (prefix, announcement) in sent.iter().filter(|(prefix, _)| Family::of_prefix(prefix) == family) {
            if self.adj.as_ref().is_some_and(|adj| adj.resolver.is_full()) {
                self.write(|out| packers.flush(out));
            }
            if let (Some(adj), Some(wire)) = (&mut self.adj, &mut self.wire) {
                if adj.resolver.is_full() {
                    adj.resolver.forget();
                }
                if let Route::Send(number) = adj.resolver.resolve(prefix, announcement) {
                    let wrote = packers.push(prefix, number, &adj.resolver, &mut wire.outbox);
                    self.counters.sent(Kind::Update, wrote);
                }
            }
            self.make_room(epoch, stop).await?;
        }
        self.write(|out| packers.flush(out));
        self.mark_refresh(family, RouteRefresh::END);
        Ok(())
    }

    /// Says where a refresh begins or ends, if the peer wants to know. Source: RFC 7313 §4.
    fn mark_refresh(&mut self, family: Family, subtype: u8) {
        if let (Some(Adj { enhanced_refresh: true, .. }), Some(wire)) = (&self.adj, &mut self.wire) {
            wire.queue(&Message::RouteRefresh(RouteRefresh::new(family, subtype)));
            self.counters.sent(Kind::RouteRefresh, 1);
        }
    }

    /// Writes into the outbox; `write` returns the number of UPDATEs.
    fn write(&mut self, write: impl FnOnce(&mut BytesMut) -> u64) {
        if let (Some(_), Some(wire)) = (&self.adj, &mut self.wire) {
            let wrote = write(&mut wire.outbox);
            self.counters.sent(Kind::Update, wrote);
        }
    }

    fn is_full(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.outbox.len() >= OUTBOX_LEN_MAX)
    }

    /// Waits until the peer has read enough for more, while everything else goes on.
    ///
    /// # Errors
    /// The session of `epoch` has ended, so that there is nobody to send the rest to; and whether the next may begin.
    async fn make_room(&mut self, epoch: u64, stop: &CancellationToken) -> Result<(), Flow> {
        while self.is_full() {
            if self.advance(stop, false).await == Flow::Quit {
                return Err(Flow::Quit);
            }
            if self.epoch != epoch {
                return Err(Flow::Go);
            }
        }
        Ok(())
    }
}
