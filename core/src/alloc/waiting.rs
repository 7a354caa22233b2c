//! Who waits for what, so that a freed address reaches those whom it helps without asking all others.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
};

use super::holdings::Sharing;
use crate::model::{IpFamily, ServiceKey};

/// Order of arrival and key: the order in which Services are served.
pub(super) type Place = (u64, ServiceKey);

/// What would help a Service that lacks an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// A free address of this family in this pool.
    pub(super) pools: Vec<(Arc<str>, IpFamily)>,
    /// One of these addresses, or a change of who holds it.
    pub(super) ips: Vec<IpAddr>,
    /// A change on an address that is shared in this way.
    pub(super) sharing: Option<Arc<Sharing>>,
}

/// All interests, by what they are about.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_pool: BTreeMap<(Arc<str>, IpFamily), BTreeSet<Place>>,
    by_ip: BTreeMap<IpAddr, BTreeSet<Place>>,
    by_sharing: BTreeMap<Arc<Sharing>, BTreeSet<Place>>,
}

impl Waiting {
    /// Notes an interest.
    pub(super) fn add(&mut self, place: &Place, interest: &Interest) {
        for pool in &interest.pools {
            self.by_pool.entry(pool.clone()).or_default().insert(place.clone());
        }
        for ip in &interest.ips {
            self.by_ip.entry(*ip).or_default().insert(place.clone());
        }
        if let Some(sharing) = &interest.sharing {
            self.by_sharing.entry(sharing.clone()).or_default().insert(place.clone());
        }
    }

    /// Forgets an interest.
    pub(super) fn remove(&mut self, place: &Place, interest: &Interest) {
        for pool in &interest.pools {
            remove_from(&mut self.by_pool, pool, place);
        }
        for ip in &interest.ips {
            remove_from(&mut self.by_ip, ip, place);
        }
        if let Some(sharing) = &interest.sharing {
            remove_from(&mut self.by_sharing, sharing, place);
        }
    }

    /// The first that waits for the pool and family, after `after`.
    pub(super) fn next(&self, pool: &(Arc<str>, IpFamily), after: Option<&Place>) -> Option<&Place> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_pool.get(pool)?.range((after, Bound::Unbounded)).next()
    }

    /// Those that wait for this very address.
    pub(super) fn for_ip(&self, ip: IpAddr) -> impl Iterator<Item = &Place> {
        self.by_ip.get(&ip).into_iter().flatten()
    }

    /// Those that wait for an address shared in this way.
    pub(super) fn for_sharing(&self, sharing: &Arc<Sharing>) -> impl Iterator<Item = &Place> {
        self.by_sharing.get(sharing).into_iter().flatten()
    }
}

fn remove_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Place>>, key: &K, place: &Place) {
    if let Some(places) = index.get_mut(key) {
        places.remove(place);
        if places.is_empty() {
            index.remove(key);
        }
    }
}
