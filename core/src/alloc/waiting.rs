//! Who waits for what, so that a freed address reaches those whom it helps without asking all others.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
};

use super::{entries::Id, holdings::remove_from, ledger::AccountId};
use crate::model::IpFamily;

/// A Service by the order of arrival, in which Services are served.
pub(super) type Place = (u64, Id);

/// Something that can become available, for which Services wait in line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Queue {
    /// A free address of this family in this pool, for everybody.
    Pool(Arc<str>, IpFamily),
    /// Room in a quota.
    Account(AccountId),
    /// A free address of this reservation.
    Reservation(usize),
}

/// What would help a Service that lacks an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Any of these.
    pub(super) queues: Vec<Queue>,
    /// One of these addresses, or a change of who holds it.
    pub(super) ips: Vec<IpAddr>,
    /// A change on an address that is shared by this key.
    pub(super) sharing: Option<Box<str>>,
}

/// All interests, by what they are about.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_queue: BTreeMap<Queue, BTreeSet<Place>>,
    by_ip: BTreeMap<IpAddr, BTreeSet<Place>>,
    by_sharing: BTreeMap<Box<str>, BTreeSet<Place>>,
}

/// Services that are to be served next, in order. Most come in order.
#[derive(Debug, Default)]
pub(super) struct Seekers {
    in_order: VecDeque<Place>,
    others: BTreeSet<Place>,
}

impl Seekers {
    /// Adds one; nothing happens if it is in already.
    pub(super) fn insert(&mut self, place: Place) {
        match self.in_order.back() {
            Some(last) if *last > place => drop(self.others.insert(place)),
            Some(last) if *last == place => {}
            _ => self.in_order.push_back(place),
        }
    }

    /// The first.
    pub(super) fn first(&self) -> Option<Place> {
        self.in_order.front().into_iter().chain(self.others.first()).min().copied()
    }

    /// Takes out the first.
    pub(super) fn remove(&mut self, first: Place) {
        self.in_order.pop_front_if(|place| *place == first);
        self.others.remove(&first);
    }
}

impl Waiting {
    /// Notes an interest.
    pub(super) fn add(&mut self, place: Place, interest: &Interest) {
        for queue in &interest.queues {
            self.by_queue.entry(queue.clone()).or_default().insert(place);
        }
        for ip in &interest.ips {
            self.by_ip.entry(*ip).or_default().insert(place);
        }
        if let Some(sharing) = &interest.sharing {
            self.by_sharing.entry(sharing.clone()).or_default().insert(place);
        }
    }

    /// Forgets an interest.
    pub(super) fn remove(&mut self, place: Place, interest: &Interest) {
        for queue in &interest.queues {
            remove_from(&mut self.by_queue, queue, &place);
        }
        for ip in &interest.ips {
            remove_from(&mut self.by_ip, ip, &place);
        }
        if let Some(sharing) = &interest.sharing {
            remove_from(&mut self.by_sharing, sharing, &place);
        }
    }

    /// The first in a queue after `after`.
    pub(super) fn next(&self, queue: &Queue, after: Option<Place>) -> Option<Place> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_queue.get(queue)?.range((after, Bound::Unbounded)).next().copied()
    }

    /// Does anybody wait for a certain address, or for one that is shared?
    pub(super) fn for_addresses(&self) -> bool {
        !(self.by_ip.is_empty() && self.by_sharing.is_empty())
    }

    /// Those that wait for this very address.
    pub(super) fn for_ip(&self, ip: IpAddr) -> impl Iterator<Item = Place> {
        self.by_ip.get(&ip).into_iter().flatten().copied()
    }

    /// Those that wait for an address shared by this key.
    pub(super) fn for_sharing(&self, key: &str) -> impl Iterator<Item = Place> {
        self.by_sharing.get(key).into_iter().flatten().copied()
    }
}
