//! Sets of disjoint ranges of addresses.
use std::{collections::BTreeMap, net::IpAddr};

use super::IpRange;

/// Disjoint ranges with what they belong to.
#[derive(Debug)]
pub(super) struct RangeMap<T>(BTreeMap<IpAddr, (IpAddr, T)>);

impl<T> Default for RangeMap<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Clone> RangeMap<T> {
    pub(super) fn insert(&mut self, range: IpRange, value: T) {
        self.0.insert(range.first, (range.last, value));
    }

    /// Those that overlap `range`, in order.
    pub(super) fn overlaps(&self, range: IpRange) -> impl Iterator<Item = (IpRange, &T)> {
        let before = self.0.range(..range.first).next_back().filter(|(_, (last, _))| *last >= range.first);
        let inside = self.0.range(range.first..=range.last);
        before.into_iter().chain(inside).map(|(first, (last, value))| (IpRange { first: *first, last: *last }, value))
    }

    pub(super) fn first_overlap(&self, range: IpRange) -> Option<(IpRange, T)> {
        self.overlaps(range).next().map(|(r, value)| (r, value.clone()))
    }

    /// What of `range` is in none of them.
    pub(super) fn subtract(&self, range: IpRange) -> Vec<IpRange> {
        let mut left = Vec::new();
        let mut next = Some(range.first);
        for (other, _) in self.overlaps(range) {
            let Some(first) = next else { break };
            if let Some(last) = predecessor(other.first).filter(|last| first <= *last && other.first > first) {
                left.push(IpRange { first, last });
            }
            next = successor(other.last);
        }
        left.extend(next.filter(|first| *first <= range.last).map(|first| IpRange { first, last: range.last }));
        left
    }
}

/// The next address of the same family.
pub(super) fn successor(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

/// The address before, of the same family.
fn predecessor(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_sub(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_sub(1).map(|n| IpAddr::V6(n.into())),
    }
}
