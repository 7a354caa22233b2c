//! The pools as the allocator sees them: what is free in each, and in which order they are tried.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{PoolUsage, holdings::Holdings, intervals::IntervalSet};
use crate::{
    config::{Config, IpRange, Pool},
    model::IpFamily,
};

/// One pool with what is free in it.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) pool: Arc<Pool>,
    v4: FamilyState,
    v6: FamilyState,
}

/// The addresses of one family of a pool.
#[derive(Debug, Default)]
struct FamilyState {
    /// The pool has addresses of this family at all.
    present: bool,
    /// What automatic allocation may give out: never an address that somebody holds or that the pool avoids.
    free: IntervalSet,
    total: u64,
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
    /// The space of a configuration, less what is held.
    pub(super) fn new(config: &Config, holdings: &Holdings) -> Self {
        let pools: BTreeMap<_, _> =
            config.pools.values().map(|p| (p.name.clone(), PoolState::new(p.clone(), holdings))).collect();
        let mut automatic: Vec<&Arc<Pool>> = config.pools.values().filter(|p| p.auto_assign).collect();
        automatic.sort_by_key(|p| (order(p), p.name.clone()));
        Self { automatic: automatic.into_iter().map(|p| p.name.clone()).collect(), pools }
    }

    /// Somebody holds `ip` now, nobody did before.
    pub(super) fn take(&mut self, pool: &str, ip: IpAddr) {
        if let Some(family) = self.pools.get_mut(pool).map(|p| p.family_mut(IpFamily::of(ip))) {
            family.used += 1;
            family.free.remove(to_bits(ip));
        }
        self.trim(pool, IpFamily::of(ip));
    }

    /// Nobody holds `ip` any more.
    pub(super) fn give_back(&mut self, pool: &str, ip: IpAddr) {
        let Some(state) = self.pools.get_mut(pool) else { return };
        let avoided = state.avoids(ip);
        let family = state.family_mut(IpFamily::of(ip));
        family.used = family.used.saturating_sub(1);
        if !avoided {
            family.free.insert(to_bits(ip));
        }
    }

    fn trim(&mut self, pool: &str, family: IpFamily) {
        if let Some(state) = self.pools.get_mut(pool) {
            state.trim(family);
        }
    }

    pub(super) fn usage(&self) -> BTreeMap<Arc<str>, PoolUsage> {
        let usage = |p: &PoolState| PoolUsage {
            total_v4: p.v4.total,
            total_v6: p.v6.total,
            used_v4: p.v4.used,
            used_v6: p.v6.used,
        };
        self.pools.iter().map(|(name, p)| (name.clone(), usage(p))).collect()
    }
}

/// Pools that are meant for some come before pools for everybody, and among them the lower priority value, unset last.
fn order(pool: &Pool) -> (bool, bool, i64) {
    let priority = pool.allocation.as_ref().and_then(|a| a.priority);
    (pool.allocation.is_none(), priority.is_none(), priority.unwrap_or(0))
}

impl PoolState {
    fn new(pool: Arc<Pool>, holdings: &Holdings) -> Self {
        let mut state = Self { v4: FamilyState::default(), v6: FamilyState::default(), pool };
        for range in &state.pool.clone().ranges {
            state.add(*range, holdings);
        }
        state.trim(IpFamily::V4);
        state.trim(IpFamily::V6);
        state
    }

    fn add(&mut self, range: IpRange, holdings: &Holdings) {
        let (first, last) = (to_bits(range.first), to_bits(range.last));
        let avoided = if self.pool.avoid_buggy_ips && range.first.is_ipv4() { count_buggy(first, last) } else { 0 };
        let family = self.family_mut(IpFamily::of(range.first));
        family.present = true;
        let size = (last - first).saturating_add(1) - avoided;
        family.total = family.total.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
        let mut next = Some(first);
        for held in holdings.held_in(range).map(to_bits) {
            family.used += 1;
            if let Some(first) = next.filter(|first| *first < held) {
                family.free.insert_range(first, held - 1);
            }
            next = held.checked_add(1);
        }
        if let Some(first) = next.filter(|first| *first <= last) {
            family.free.insert_range(first, last);
        }
    }

    /// Drops avoided addresses from the low end of what is free, so that the lowest free address may be given out.
    fn trim(&mut self, family: IpFamily) {
        if !self.pool.avoid_buggy_ips {
            return;
        }
        while let Some(ip) = self.lowest_free(family).filter(|ip| self.avoids(*ip)) {
            self.family_mut(family).free.remove(to_bits(ip));
        }
    }

    /// Does the pool never hand out this address?
    pub(super) fn avoids(&self, ip: IpAddr) -> bool {
        self.pool.avoid_buggy_ips && matches!(ip, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255))
    }

    /// Has the pool addresses of this family, free or not?
    pub(super) fn has(&self, family: IpFamily) -> bool {
        self.family(family).present
    }

    /// The lowest free address of the family.
    pub(super) fn lowest_free(&self, family: IpFamily) -> Option<IpAddr> {
        self.family(family).free.first().map(|bits| from_bits(bits, family))
    }

    fn family(&self, family: IpFamily) -> &FamilyState {
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

fn to_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn from_bits(bits: u128, family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX))),
        IpFamily::V6 => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

/// How many IPv4 addresses from `first` to `last` end in .0 or .255.
fn count_buggy(first: u128, last: u128) -> u128 {
    // Of the numbers below n, those that end in 0, and those that end in 255.
    let below = |n: u128| n.div_ceil(256) + n / 256;
    below(last + 1) - below(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buggy_addresses_are_counted_without_looking_at_each() {
        for (first, last, want) in [(0, 255, 2), (1, 254, 0), (255, 256, 2), (0, 0, 1), (255, 255, 1), (0, 65535, 512)]
        {
            assert_eq!(count_buggy(first, last), want, "{first}-{last}");
            assert_eq!((first..=last).filter(|n| matches!(n % 256, 0 | 255)).count() as u128, want);
        }
    }
}
