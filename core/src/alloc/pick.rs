//! Picking addresses in one pool: reserved ones first, then by the pool's strategy, within quotas and reservations.
use std::{net::IpAddr, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::{
    Allocator,
    holdings::Sharing,
    ledger::{About, AccountId},
    request::{Need, Request},
    space::{FamilyState, Lot, PoolState},
};
use crate::{
    config::{Reserved, Strategy},
    model::{IpFamily, Service, ServiceKey},
};

/// Octets of a name's hash that count.
const HASH_LEN: usize = 16;

/// A Service that looks for addresses.
#[derive(Debug)]
pub(super) struct Seeker<'a> {
    pub(super) service: &'a Service,
    pub(super) need: Need,
    pub(super) request: &'a Request,
    pub(super) sharing: Option<Arc<Sharing>>,
}

/// Why a pool gives too few addresses of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// It has none of the family.
    Missing,
    /// None is free and none can be joined.
    Full,
    /// What is free is reserved for others.
    Reserved,
    /// A quota is used up.
    Quota(AccountId),
    /// It gives one Service no more than so many.
    TooMany(usize),
}

/// What an attempt has found so far.
#[derive(Debug, Default)]
pub(super) struct Picked {
    /// With their pools.
    pub(super) ips: Vec<(IpAddr, Arc<str>)>,
    /// How many of them came by a reservation.
    pub(super) reserved: usize,
}

impl Picked {
    fn has_of(&self, state: &PoolState) -> bool {
        self.ips.iter().any(|(_, pool)| *pool == state.pool.name)
    }
}

/// How many more addresses each quota has room for.
#[derive(Debug)]
struct Budget(Vec<(AccountId, u64)>);

impl Budget {
    /// Is there room for an address that these accounts count already?
    fn affords(&self, counted: &[AccountId]) -> bool {
        self.0.iter().all(|(id, room)| *room > 0 || counted.binary_search(id).is_ok())
    }

    fn spend(&mut self, counted: &[AccountId]) {
        let costs = self.0.iter_mut().filter(|(id, _)| counted.binary_search(id).is_err());
        costs.for_each(|(_, room)| *room = room.saturating_sub(1));
    }
}

/// Where addresses are picked from.
struct Source<'a> {
    lot: &'a Lot,
    /// Positions from and to, in the order of search.
    spans: [Option<(u128, u128)>; 2],
    /// Then those that somebody had.
    aged: bool,
    /// How many free ones may be taken.
    free_left: u128,
}

/// One search in one family of one pool.
struct Search<'a, 'b> {
    seeker: &'a Seeker<'a>,
    state: &'a PoolState,
    family: IpFamily,
    want: usize,
    budget: Budget,
    picked: &'b mut Picked,
}

impl Search<'_, '_> {
    fn key(&self) -> &ServiceKey {
        &self.seeker.service.key
    }

    fn has(&self, ip: IpAddr) -> bool {
        self.picked.ips.iter().any(|(other, _)| *other == ip)
    }

    fn push(&mut self, ip: IpAddr, counted: &[AccountId]) {
        self.budget.spend(counted);
        self.picked.ips.push((ip, self.state.pool.name.clone()));
        self.want -= 1;
    }
}

impl Allocator {
    /// Addresses of all `families` from a pool and the one it is paired with, besides those in `seed`, which the Service keeps.
    pub(super) fn attempt(
        &self,
        seeker: &Seeker<'_>,
        state: &PoolState,
        families: &[IpFamily],
        seed: &[(IpAddr, Arc<str>)],
    ) -> Option<Picked> {
        let (picked, lacks) = self.complete(seeker, state, families, seed);
        (lacks.is_empty() && picked.has_of(state)).then_some(picked)
    }

    /// As many of `families` as a pool can give and, if it gives one, the pool that it is paired with; and what is lacking.
    pub(super) fn complete(
        &self,
        seeker: &Seeker<'_>,
        state: &PoolState,
        families: &[IpFamily],
        seed: &[(IpAddr, Arc<str>)],
    ) -> (Picked, Vec<(IpFamily, Lack)>) {
        let mut picked = Picked { ips: Vec::with_capacity(seed.len() + families.len()), reserved: 0 };
        picked.ips.extend_from_slice(seed);
        let want = |family: IpFamily| {
            let has = seed.iter().filter(|(ip, _)| IpFamily::of(*ip) == family).count();
            seeker.request.per_family.saturating_sub(has)
        };
        let mut lacks = Vec::new();
        for family in families {
            if let Err(lack) = self.pick_all(seeker, state, *family, want(*family), &mut picked) {
                lacks.push((*family, lack));
            }
        }
        let pair = if lacks.is_empty() { None } else { self.pair_of(state, seeker.service) };
        if let Some(pair) = pair.filter(|_| picked.has_of(state)) {
            lacks.retain_mut(|(family, lack)| {
                let found = self.pick_all(seeker, pair, *family, want(*family), &mut picked);
                if let (Err(of_pair), Lack::Missing) = (found, *lack) {
                    *lack = of_pair;
                }
                found.is_err()
            });
        }
        // A quota may have room for either family of this pool, but not for both.
        if let Some(pair) = pair.filter(|_| !lacks.is_empty()) {
            for from_pair in families {
                let mut other = Picked { ips: seed.to_vec(), reserved: 0 };
                let all = families.iter().all(|family| {
                    let source = if family == from_pair { pair } else { state };
                    self.pick_all(seeker, source, *family, want(*family), &mut other).is_ok()
                });
                if all && other.has_of(state) {
                    return (other, Vec::new());
                }
            }
        }
        (picked, lacks)
    }

    /// `want` addresses of a family of one pool, or none and why.
    pub(super) fn pick_all(
        &self,
        seeker: &Seeker<'_>,
        state: &PoolState,
        family: IpFamily,
        want: usize,
        picked: &mut Picked,
    ) -> Result<(), Lack> {
        let (before, reserved) = (picked.ips.len(), picked.reserved);
        let found = self.pick(seeker, state, family, want, picked);
        if found.is_err() {
            picked.ips.truncate(before);
            picked.reserved = reserved;
        }
        found
    }

    /// The pool that may give the family that this one lacks.
    pub(super) fn pair_of(&self, state: &PoolState, service: &Service) -> Option<&PoolState> {
        let pair = state.pool.policy.as_ref()?.pair_with.as_ref().filter(|pair| **pair != state.pool.name)?;
        self.space.pools.get(pair).filter(|pair| self.allows(&pair.pool, service))
    }

    /// Up to `want` addresses of a family of one pool; `Err`: why there are fewer.
    fn pick(
        &self,
        seeker: &Seeker<'_>,
        state: &PoolState,
        family: IpFamily,
        want: usize,
        picked: &mut Picked,
    ) -> Result<(), Lack> {
        if !state.has(family) {
            return if want == 0 { Ok(()) } else { Err(Lack::Missing) };
        }
        if want > 0 && seeker.request.per_family > state.per_family_max() {
            return Err(Lack::TooMany(state.per_family_max()));
        }
        let quotas = self.ledger.quotas_of(&state.pool.name, seeker.service.key.namespace());
        let room = |id: &AccountId| {
            let account = self.ledger.get(*id);
            (*id, account.max.saturating_sub(account.used))
        };
        let mut budget = Budget(quotas.iter().map(room).collect());
        if !quotas.is_empty() {
            for (ip, _) in picked.ips.iter().filter(|(_, pool)| *pool == state.pool.name) {
                let tenants = self.holdings.tenants(*ip);
                budget.spend(&self.ledger.accounts_of(&state.pool.name, *ip, tenants, &self.claims));
            }
        }
        let mut search = Search { seeker, state, family, want, budget, picked };
        let of_general = self.pick_reserved(&mut search);
        let source = self.general(&search, of_general);
        let (mine, free_left) = (source.0, source.1.free_left);
        let before = search.picked.ips.len();
        self.gather(&mut search, source.1);
        let taken = search.picked.ips.len() - before;
        search.picked.reserved += taken.min(usize::try_from(mine).unwrap_or(usize::MAX));
        if search.want == 0 {
            return Ok(());
        }
        let used_up = search.budget.0.iter().find(|(_, room)| *room == 0).map(|(id, _)| *id);
        Err(match used_up {
            Some(id) => Lack::Quota(id),
            None if free_left == 0 && state.family(family).general_free() > 0 => Lack::Reserved,
            None => Lack::Full,
        })
    }

    /// Picks from the reservations that are for the Service: what it had before, then what is lowest. Returns how many of
    /// them count as taken from what is for everybody.
    fn pick_reserved(&self, search: &mut Search<'_, '_>) -> u128 {
        let mut of_general = 0;
        let key = &search.seeker.service.key;
        for index in self.claims.of(key).iter().copied() {
            let reservation = &self.claims.reservations[index];
            if reservation.pool != search.state.pool.name {
                continue;
            }
            let family = search.state.family(search.family);
            for ip in self.remembered.formers(&reservation.name, key) {
                if search.want == 0 {
                    return of_general;
                }
                if self.is_former_free(search, index, ip) {
                    let counted = self.remembered.cooling(ip).is_some() || family.reservation_of(ip).is_some();
                    of_general += u128::from(!counted);
                    search.push(ip, &[]);
                    search.picked.reserved += 1;
                }
            }
            let before = search.picked.ips.len();
            if let Some(lot) = family.reserve_of(index) {
                let spans = [Some((0, u128::MAX)), None];
                self.gather(search, Source { lot, spans, aged: false, free_left: u128::MAX });
            }
            search.picked.reserved += search.picked.ips.len() - before;
        }
        of_general
    }

    /// Can the Service get an address back that it had by a reservation?
    fn is_former_free(&self, search: &Search<'_, '_>, reservation: usize, ip: IpAddr) -> bool {
        let family = search.state.family(search.family);
        if IpFamily::of(ip) != search.family || self.holdings.is_held(ip) || search.has(ip) {
            return false;
        }
        let Some(at) = family.line.position(ip).filter(|_| !family.withholds(ip)) else { return false };
        let of_reservation = match (family.reserved_at(at), &self.claims.reservations[reservation].reserved) {
            (Some(index), _) => index == reservation,
            (None, Reserved::Count(_, family)) => *family == search.family,
            (None, Reserved::Addresses(_)) => false,
        };
        let cooling = self.remembered.cooling(ip);
        let spare = || {
            let (mine, all) = self.outstanding(search);
            mine > 0 || family.general_free() > u128::from(all)
        };
        let free = match cooling {
            Some(cooling) => cooling.service == *search.key(),
            None => family.reserved_at(at).is_some() || spare(),
        };
        of_reservation && free && search.budget.affords(&[])
    }

    /// How many addresses that are reserved by number and not given yet are the Service's to take, and how many there are.
    fn outstanding(&self, search: &Search<'_, '_>) -> (u64, u64) {
        let all = self.ledger.outstanding(&search.state.pool.name, search.family);
        if all == 0 {
            return (0, 0);
        }
        let accounts = self.claims.of(search.key()).iter().filter_map(|r| self.ledger.of_reservation(*r));
        let accounts = accounts.map(|id| self.ledger.get(id)).filter(|account| {
            account.pool == search.state.pool.name
                && matches!(account.about, About::Reservation(_, family) if family == search.family)
        });
        (accounts.map(|account| account.max.saturating_sub(account.used)).sum(), all)
    }

    /// What is for everybody, in the order of the pool's strategy, and how many of it are reserved for the Service by number.
    fn general<'a>(&self, search: &Search<'a, '_>, taken: u128) -> (u64, Source<'a>) {
        let family: &'a FamilyState = search.state.family(search.family);
        let (mine, all) = self.outstanding(search);
        let free = family.general_free();
        let spare = free.saturating_sub(u128::from(all)).saturating_add(u128::from(mine)).min(free);
        let start = match search.state.strategy() {
            Strategy::HashedByName => family.line.position_of_index(hash(search.key())).unwrap_or(0),
            Strategy::First | Strategy::LeastRecentlyUsed => 0,
        };
        let spans = [Some((start, u128::MAX)), start.checked_sub(1).map(|last| (0, last))];
        (mine, Source { lot: &family.general, spans, aged: true, free_left: spare.saturating_sub(taken) })
    }

    /// Picks what is free or can be joined, in the order of the source.
    fn gather(&self, search: &mut Search<'_, '_>, mut source: Source<'_>) {
        for (first, last) in source.spans.into_iter().flatten() {
            let mut from = Some(first);
            while search.want > 0
                && let Some(at) = from.and_then(|from| next_usable(search, &source, from)).filter(|at| *at <= last)
            {
                from = at.checked_add(1);
                let ip = search.state.family(search.family).ip_at(at, search.family);
                let tenants = self.holdings.tenants(ip);
                if search.has(ip)
                    || self.undecided.contains(&ip)
                    || tenants.iter().any(|tenant| tenant.key == search.seeker.service.key)
                {
                    continue;
                }
                let counted = self.ledger.accounts_of(&search.state.pool.name, ip, tenants, &self.claims);
                source.free_left -= u128::from(tenants.is_empty());
                search.push(ip, &counted);
            }
        }
        for at in search.state.family(search.family).aged.iter().take_while(|_| source.aged) {
            if search.want == 0 || source.free_left == 0 || !search.budget.affords(&[]) {
                return;
            }
            let ip = search.state.family(search.family).ip_at(at, search.family);
            if !search.has(ip) {
                source.free_left -= 1;
                search.push(ip, &[]);
            }
        }
    }
}

/// The first address from a position on that is free or can be joined.
fn next_usable(search: &Search<'_, '_>, source: &Source<'_>, from: u128) -> Option<u128> {
    let free = (source.free_left > 0 && search.budget.affords(&[])).then(|| source.lot.free.next_from(from)).flatten();
    let shared = search.seeker.sharing.as_ref().and_then(|sharing| {
        source.lot.shared.next_from(&sharing.key, from, |signature| {
            search.budget.affords(&signature.accounts)
                && signature.fits(search.seeker.service, sharing, search.state.rules())
        })
    });
    free.into_iter().chain(shared).min()
}

/// The number that a Service's name stands for.
pub(super) fn hash(key: &ServiceKey) -> u128 {
    let digest = Sha256::digest(key.as_str().as_bytes());
    let mut octets = [0; HASH_LEN];
    octets.copy_from_slice(&digest[..HASH_LEN]);
    u128::from_be_bytes(octets)
}
