//! The pools as the allocator sees them: what is free in each and for whom, and in which order they are tried.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    PoolUsage,
    claims::Claims,
    holdings::{Holdings, SharedIndex, Signature},
    intervals::IntervalSet,
    ledger::Ledger,
    line::{Line, from_bits},
    remember::Remembered,
};
use crate::{
    config::{Config, IpRange, Pool, Reserved, SharingRules, Strategy},
    model::IpFamily,
};

/// One pool with what is free in it.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) pool: Arc<Pool>,
    v4: FamilyState,
    v6: FamilyState,
}

/// Addresses that are for the same Services.
#[derive(Debug, Default)]
pub(super) struct Lot {
    /// Nobody holds them, nothing keeps them from being given out.
    pub(super) free: IntervalSet,
    /// Somebody holds them who shares.
    pub(super) shared: SharedIndex,
}

/// Free addresses that somebody had, by when they were given back.
#[derive(Debug, Default)]
pub(super) struct Aged {
    by_order: BTreeMap<u64, u128>,
    by_position: BTreeMap<u128, u64>,
}

/// The addresses of one family of a pool, as positions on a line.
#[derive(Debug, Default)]
pub(super) struct FamilyState {
    /// The pool has addresses of this family at all.
    present: bool,
    pub(super) line: Line,
    /// What is for everybody. Never an address that is withheld, reserved or cooling down.
    pub(super) general: Lot,
    /// The rest of what is free for everybody, where the oldest is to be used first.
    pub(super) aged: Aged,
    /// Reserved addresses: first and last position, and whose.
    reserved: BTreeMap<u128, (u128, usize)>,
    /// By reservation: its addresses.
    reserves: BTreeMap<usize, Lot>,
    /// What nobody gets who does not have it.
    withheld: IntervalSet,
    withheld_used: u64,
    /// Addresses that cool down.
    cooling: u64,
    used: u64,
}

/// All pools in force.
#[derive(Debug, Default)]
pub(super) struct Space {
    pub(super) pools: BTreeMap<Arc<str>, PoolState>,
    /// Names in the order of automatic choice, without those that do not take part in it.
    pub(super) automatic: Vec<Arc<str>>,
}

impl Space {
    /// The space of a configuration, less what is held and what cools down. What is shared is yet to be added.
    pub(super) fn new(config: &Config, claims: &Claims, holdings: &Holdings, remembered: &Remembered) -> Self {
        let mut pools: BTreeMap<_, _> =
            config.pools.values().map(|p| (p.name.clone(), PoolState::new(p.clone(), claims))).collect();
        let mut automatic: Vec<&Arc<Pool>> = config.pools.values().filter(|p| p.auto_assign).collect();
        automatic.sort_by_key(|p| (order(p), p.name.clone()));
        let automatic = automatic.into_iter().map(|p| p.name.clone()).collect();
        for ip in holdings.ips() {
            let state = config.pool_of(ip).and_then(|pool| pools.get_mut(&pool.name));
            if let Some(state) = state {
                state.family_mut(IpFamily::of(ip)).take(ip, false);
            }
        }
        for (ip, _) in remembered.all_cooling() {
            let state = config.pool_of(ip).and_then(|pool| pools.get_mut(&pool.name));
            if let Some(state) = state {
                state.family_mut(IpFamily::of(ip)).freeze(ip);
            }
        }
        let mut space = Self { pools, automatic };
        for (pool, policy) in config.pools.values().filter_map(|pool| Some((pool, pool.policy.as_ref()?))) {
            let Some(state) = space.pools.get_mut(&pool.name) else { continue };
            for (order, ip) in remembered.releases(&policy.name) {
                state.family_mut(IpFamily::of(ip)).age(ip, Some(order));
            }
        }
        space
    }

    /// The addresses of `ip`'s family in a pool.
    pub(super) fn family_mut(&mut self, pool: &str, ip: IpAddr) -> Option<&mut FamilyState> {
        self.pools.get_mut(pool).map(|p| p.family_mut(IpFamily::of(ip)))
    }

    /// The addresses of `ip`'s family in a pool.
    pub(super) fn family(&self, pool: &str, ip: IpAddr) -> Option<&FamilyState> {
        self.pools.get(pool).map(|p| p.family(IpFamily::of(ip)))
    }

    pub(super) fn usage(&self, ledger: &Ledger) -> BTreeMap<Arc<str>, PoolUsage> {
        let usage = |p: &PoolState| {
            let reserved = |f: &FamilyState, family| f.reserved_free(ledger.outstanding(&p.pool.name, family));
            PoolUsage {
                total_v4: p.v4.total(),
                total_v6: p.v6.total(),
                used_v4: p.v4.used,
                used_v6: p.v6.used,
                reserved_v4: reserved(&p.v4, IpFamily::V4),
                reserved_v6: reserved(&p.v6, IpFamily::V6),
                withheld_v4: p.v4.withheld_free(),
                withheld_v6: p.v6.withheld_free(),
            }
        };
        self.pools.iter().map(|(name, p)| (name.clone(), usage(p))).collect()
    }
}

/// Pools that are meant for some come before pools for everybody, and among them the lower priority value, unset last.
pub(super) fn order(pool: &Pool) -> (bool, bool, i64) {
    let priority = pool.allocation.as_ref().and_then(|a| a.priority);
    (pool.allocation.is_none(), priority.is_none(), priority.unwrap_or(0))
}

impl PoolState {
    fn new(pool: Arc<Pool>, claims: &Claims) -> Self {
        let (v4, v6) = (FamilyState::new(&pool, IpFamily::V4, claims), FamilyState::new(&pool, IpFamily::V6, claims));
        Self { pool, v4, v6 }
    }

    /// Does the pool never hand out this address, which it contains?
    pub(super) fn avoids(&self, ip: IpAddr) -> bool {
        self.family(IpFamily::of(ip)).line.position(ip).is_none()
    }

    /// Has the pool addresses of this family, free or not?
    pub(super) fn has(&self, family: IpFamily) -> bool {
        self.family(family).present
    }

    /// How a free address is chosen.
    pub(super) fn strategy(&self) -> Strategy {
        self.pool.policy.as_ref().map(|policy| policy.strategy).unwrap_or_default()
    }

    /// Who may share.
    pub(super) fn rules(&self) -> SharingRules {
        rules(&self.pool)
    }

    /// How many addresses of one family a Service may have.
    pub(super) fn per_family_max(&self) -> usize {
        per_family_max(&self.pool)
    }

    pub(super) fn family(&self, family: IpFamily) -> &FamilyState {
        match family {
            IpFamily::V4 => &self.v4,
            IpFamily::V6 => &self.v6,
        }
    }

    fn family_mut(&mut self, family: IpFamily) -> &mut FamilyState {
        match family {
            IpFamily::V4 => &mut self.v4,
            IpFamily::V6 => &mut self.v6,
        }
    }
}

/// Who may share addresses of a pool.
pub(super) fn rules(pool: &Pool) -> SharingRules {
    pool.policy.as_ref().map(|policy| policy.sharing).unwrap_or_default()
}

/// How many addresses of one family of a pool a Service may have.
pub(super) fn per_family_max(pool: &Pool) -> usize {
    let max = pool.policy.as_ref().map_or(1, |policy| policy.addresses_per_family_max.max(1));
    usize::try_from(max).unwrap_or(usize::MAX)
}

impl FamilyState {
    fn new(pool: &Pool, family: IpFamily, claims: &Claims) -> Self {
        let of_family = |range: &&IpRange| IpFamily::of(range.first) == family;
        let ranges = || pool.ranges.iter().filter(of_family).copied();
        let policy = pool.policy.as_deref();
        let sparse = pool.avoid_buggy_ips && family == IpFamily::V4;
        let as_written = policy.is_some_and(|policy| policy.strategy == Strategy::HashedByName);
        let line = Line::new(ranges(), sparse, as_written);
        let mut state = Self { present: ranges().next().is_some(), line, ..Self::default() };
        let Some(last) = state.line.last() else { return state };
        let mut unreserved = IntervalSet::default();
        unreserved.insert_range(0, last);
        state.general.free.insert_range(0, last);
        for range in policy.iter().flat_map(|p| &p.no_new_addresses).filter(of_family) {
            for (first, last) in state.line.spans(*range) {
                state.withheld.remove_range(first, last);
                state.withheld.insert_range(first, last);
                state.general.free.remove_range(first, last);
            }
        }
        for (index, reservation) in claims.reservations.iter().enumerate() {
            let Reserved::Addresses(ranges) = &reservation.reserved else { continue };
            if reservation.pool != pool.name {
                continue;
            }
            for range in ranges.iter().filter(of_family) {
                for (first, last) in state.line.spans(*range) {
                    state.reserve(index, &mut unreserved, (first, last));
                }
            }
        }
        state
    }

    /// Reserves what of a span is not reserved yet.
    fn reserve(&mut self, index: usize, unreserved: &mut IntervalSet, (first, last): (u128, u128)) {
        for (first, last) in unreserved.within(first, last) {
            self.reserved.insert(first, (last, index));
            let lot = self.reserves.entry(index).or_default();
            for (a, b) in self.general.free.within(first, last) {
                lot.free.insert_range(a, b);
            }
            self.general.free.remove_range(first, last);
            unreserved.remove_range(first, last);
        }
    }

    /// The reservation whose address is at a position.
    pub(super) fn reserved_at(&self, position: u128) -> Option<usize> {
        let (_, (last, index)) = self.reserved.range(..=position).next_back()?;
        (position <= *last).then_some(*index)
    }

    /// The reservation whose address `ip` is.
    pub(super) fn reservation_of(&self, ip: IpAddr) -> Option<usize> {
        self.reserved_at(self.line.position(ip)?)
    }

    /// The reserved addresses of a reservation.
    pub(super) fn reserve_of(&self, reservation: usize) -> Option<&Lot> {
        self.reserves.get(&reservation)
    }

    /// Is the address kept from everybody who does not have it?
    pub(super) fn withholds(&self, ip: IpAddr) -> bool {
        self.line.position(ip).is_some_and(|at| self.withheld.contains(at))
    }

    /// Somebody holds `ip` now, nobody did before. `cooling`: it was cooling down.
    pub(super) fn take(&mut self, ip: IpAddr, cooling: bool) {
        self.used += 1;
        let Some(at) = self.line.position(ip) else { return };
        if self.withheld.contains(at) {
            self.withheld_used += 1;
        } else if cooling {
            self.cooling = self.cooling.saturating_sub(1);
        } else {
            self.take_from_lot(at);
        }
    }

    fn take_from_lot(&mut self, at: u128) -> bool {
        match self.reserved_at(at) {
            Some(index) => self.reserves.get_mut(&index).is_some_and(|lot| lot.free.remove(at)),
            None => self.general.free.remove(at) || self.aged.remove(at),
        }
    }

    /// Nobody holds `ip` any more.
    pub(super) fn give_back(&mut self, ip: IpAddr) {
        self.used = self.used.saturating_sub(1);
        let Some(at) = self.line.position(ip) else { return };
        if self.withheld.contains(at) {
            self.withheld_used = self.withheld_used.saturating_sub(1);
        } else {
            self.put(at);
        }
    }

    fn put(&mut self, at: u128) {
        match self.reserved_at(at) {
            Some(index) => self.reserves.entry(index).or_default().free.insert(at),
            None => self.general.free.insert(at),
        }
    }

    /// A free address begins to cool down.
    pub(super) fn freeze(&mut self, ip: IpAddr) {
        if let Some(at) = self.line.position(ip)
            && self.take_from_lot(at)
        {
            self.cooling += 1;
        }
    }

    /// A cool-down ends, with nobody holding the address.
    pub(super) fn thaw(&mut self, ip: IpAddr) {
        if let Some(at) = self.line.position(ip).filter(|at| !self.withheld.contains(*at)) {
            self.cooling = self.cooling.saturating_sub(1);
            self.put(at);
        }
    }

    /// Says when a free address for everybody was given back; `None`: nobody knows.
    pub(super) fn age(&mut self, ip: IpAddr, order: Option<u64>) {
        let Some(at) = self.line.position(ip).filter(|at| self.reserved_at(*at).is_none()) else { return };
        match order {
            Some(order) if self.general.free.remove(at) => {
                self.aged.by_order.insert(order, at);
                self.aged.by_position.insert(at, order);
            }
            None if self.aged.remove(at) => self.general.free.insert(at),
            _ => {}
        }
    }

    /// Adds a held address that can be joined.
    pub(super) fn share(&mut self, ip: IpAddr, key: &str, signature: Signature) {
        if let Some((lot, at)) = self.lot_of(ip) {
            lot.shared.insert(key, signature, at);
        }
    }

    /// Takes one out again.
    pub(super) fn unshare(&mut self, ip: IpAddr, key: &str, signature: &Signature) {
        if let Some((lot, at)) = self.lot_of(ip) {
            lot.shared.remove(key, signature, at);
        }
    }

    /// The lot and position of an address that somebody may get or join.
    fn lot_of(&mut self, ip: IpAddr) -> Option<(&mut Lot, u128)> {
        let at = self.line.position(ip).filter(|at| !self.withheld.contains(*at))?;
        let lot = match self.reserved_at(at) {
            Some(index) => self.reserves.entry(index).or_default(),
            None => &mut self.general,
        };
        Some((lot, at))
    }

    /// How many free addresses are for everybody.
    pub(super) fn general_free(&self) -> u128 {
        self.general.free.len().saturating_add(self.aged.by_order.len() as u128)
    }

    /// The address at a position.
    pub(super) fn ip_at(&self, position: u128, family: IpFamily) -> IpAddr {
        from_bits(self.line.bits_at(position), family == IpFamily::V4)
    }

    fn total(&self) -> u64 {
        self.line.last().map_or(0, |last| clamp(last.saturating_add(1)))
    }

    fn reserved_free(&self, outstanding: u64) -> u64 {
        let listed = self.reserves.values().map(|lot| clamp(lot.free.len())).fold(0, u64::saturating_add);
        let counted = clamp(self.general_free()).min(outstanding);
        listed.saturating_add(counted).saturating_add(self.cooling)
    }

    fn withheld_free(&self) -> u64 {
        clamp(self.withheld.len()).saturating_sub(self.withheld_used)
    }
}

impl Aged {
    fn remove(&mut self, position: u128) -> bool {
        let order = self.by_position.remove(&position);
        order.is_some_and(|order| self.by_order.remove(&order).is_some())
    }

    /// Positions, the one given back longest ago first.
    pub(super) fn iter(&self) -> impl Iterator<Item = u128> {
        self.by_order.values().copied()
    }
}

fn clamp(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_and_withheld_addresses_are_not_for_everybody() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let range = |a: &str, b: &str| IpRange { first: ip(a), last: ip(b) };
        let policy = crate::config::PoolPolicy {
            name: "p".into(),
            strategy: Strategy::First,
            quotas: Vec::new(),
            no_new_addresses: vec![range("10.0.0.2", "10.0.0.4"), range("10.0.0.4", "10.0.0.5")],
            addresses_per_family_max: 1,
            pair_with: None,
            sharing: SharingRules::default(),
            releases: Arc::default(),
        };
        let all = vec![range("10.0.0.0", "10.0.0.15")];
        let pool = Pool {
            name: "p".into(),
            labels: crate::model::Labels::default(),
            ranges: all.clone(),
            written: all,
            auto_assign: true,
            avoid_buggy_ips: true,
            allocation: None,
            policy: Some(Arc::new(policy)),
        };
        let mut config = Config::default();
        for (name, first, last) in [("a", "10.0.0.5", "10.0.0.8"), ("b", "10.0.0.8", "10.0.0.9")] {
            let reservation = crate::config::Reservation {
                name: name.into(),
                pool: "p".into(),
                reserved: Reserved::Addresses(vec![range(first, last)]),
                for_whom: crate::config::ReservedFor::default(),
                release_after: None,
                releases: Arc::default(),
            };
            config.reservations.insert(name.into(), Arc::new(reservation));
        }
        let state = FamilyState::new(&pool, IpFamily::V4, &Claims::new(&config));
        let free = |lot: &Lot| {
            (0..16)
                .filter(|at| lot.free.contains(*at))
                .map(|at| state.ip_at(at, IpFamily::V4).to_string())
                .map(|ip| ip["10.0.0.".len()..].to_owned())
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(free(&state.general), "1,10,11,12,13,14,15");
        assert_eq!(free(state.reserve_of(0).unwrap()), "6,7,8");
        assert_eq!(free(state.reserve_of(1).unwrap()), "9");
        assert_eq!((state.total(), state.withheld_free(), state.reserved_free(3)), (15, 4, 7));
    }
}
