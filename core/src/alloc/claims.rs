//! Which reservations are for which Service.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::hash::QuickMap;
use crate::{
    config::{Config, Reservation, Reserved},
    model::{IpFamily, Service, ServiceKey},
};

/// The reservations in force and who may use them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// In order of name; elsewhere a reservation is its place in this list.
    pub(super) reservations: Vec<Arc<Reservation>>,
    named: QuickMap<ServiceKey, Vec<usize>>,
    by_namespace: QuickMap<Arc<str>, Vec<usize>>,
    /// Those that look at labels only.
    by_labels: Vec<usize>,
    /// What each Service may use, of those that may use any.
    of: QuickMap<ServiceKey, Box<[usize]>>,
}

impl Claims {
    /// The reservations of a configuration, before any Service is known.
    pub(super) fn new(config: &Config) -> Self {
        let mut claims = Self { reservations: config.reservations.values().cloned().collect(), ..Self::default() };
        for (index, reservation) in claims.reservations.iter().enumerate() {
            let whom = &reservation.for_whom;
            for service in &whom.services {
                claims.named.entry(service.clone()).or_default().push(index);
            }
            for namespace in &whom.namespaces {
                claims.by_namespace.entry(namespace.clone()).or_default().push(index);
            }
            if whom.namespaces.is_empty() && whom.service_selector.is_some() {
                claims.by_labels.push(index);
            }
        }
        claims
    }

    /// The reservations that are for such a Service, in order of name.
    pub(super) fn matching(&self, service: &Service) -> Vec<usize> {
        let lists = [
            self.named.get(&service.key).map_or(&[][..], Vec::as_slice),
            self.by_namespace.get(service.key.namespace()).map_or(&[][..], Vec::as_slice),
            &self.by_labels,
        ];
        let mut found: Vec<usize> = lists.into_iter().flatten().copied().collect();
        found.retain(|index| self.reservations[*index].for_whom.matches(&service.key, &service.labels));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Notes what a Service may use.
    pub(super) fn set(&mut self, service: &Service) {
        if self.reservations.is_empty() {
            return;
        }
        let found = self.matching(service);
        if found.is_empty() {
            self.of.remove(&service.key);
        } else {
            self.of.insert(service.key.clone(), found.into());
        }
    }

    /// Forgets a Service.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        self.of.remove(service);
    }

    /// May no Service use any reservation?
    pub(super) fn are_nobodys(&self) -> bool {
        self.of.is_empty()
    }

    /// What a Service may use, in order of name.
    pub(super) fn of(&self, service: &ServiceKey) -> &[usize] {
        if self.of.is_empty() {
            return &[];
        }
        self.of.get(service).map_or(&[], |list| list)
    }
}

/// Of each reservation: who has which of its addresses.
pub(super) type HeldOf = BTreeMap<ServiceKey, BTreeSet<IpAddr>>;

/// Is `ip`, of the reservation's pool, one of those that it may stand for?
pub(super) fn covers(reservation: &Reservation, ip: IpAddr) -> bool {
    match &reservation.reserved {
        Reserved::Addresses(ranges) => ranges.iter().any(|range| range.contains(ip)),
        Reserved::Count(_, family) => *family == IpFamily::of(ip),
    }
}
