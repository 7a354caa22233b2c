//! Taking changes in: what they mean for who is to be judged anew.
use std::{collections::BTreeMap, sync::Arc};

use super::{Allocator, Change, Entry, holdings::Sharing, step::Batch};
use crate::{
    config::{Config, Pool, PoolPolicy, Reservation},
    model::{Labels, Service, ServiceAnnotations, ServiceKey},
};

impl Allocator {
    /// Notes what changed, and whom that concerns.
    pub(super) fn take_in(&mut self, changes: Vec<Change>, now_s: i64, batch: &mut Batch) {
        let mut services: BTreeMap<ServiceKey, Option<Arc<Service>>> = BTreeMap::new();
        let mut config = None;
        for change in changes {
            match change {
                Change::Service(key, service) => drop(services.insert(key, service)),
                Change::Config(new) => config = Some(new),
                Change::Namespace(name, labels) => self.take_in_namespace(name, labels, batch),
            }
        }
        let mut newcomers = Vec::new();
        for (key, service) in services {
            match service {
                Some(service) if service.is_ours(self.class.as_deref()) => {
                    newcomers.extend(self.take_in_ours(key, service, batch));
                }
                other => self.take_in_foreign(key, other.as_deref(), batch),
            }
        }
        newcomers.sort_by(|a, b| age(a).cmp(&age(b)));
        for service in newcomers {
            self.take_in_newcomer(service, batch);
        }
        if let Some(config) = config {
            self.take_in_config(config, now_s, batch);
        }
    }

    fn take_in_newcomer(&mut self, service: Arc<Service>, batch: &mut Batch) {
        self.arrivals += 1;
        self.claims.set(&service);
        let namespace = service.key.namespace();
        self.ledger.learn(namespace, &self.namespaces, false);
        if !self.by_namespace.contains_key(namespace) {
            self.by_namespace.insert(namespace.into(), super::QuickSet::default());
        }
        if let Some(keys) = self.by_namespace.get_mut(namespace) {
            keys.insert(service.key.clone());
        }
        batch.dirty.push(service.key.clone());
        self.entries.insert(service.key.clone(), Box::new(Entry::new(service, self.arrivals)));
    }

    fn take_in_config(&mut self, config: Arc<Config>, now_s: i64, batch: &mut Batch) {
        if self.configured && same_terms(&self.config, &config) {
            self.config = config;
            return;
        }
        self.configured = true;
        self.configure(config, now_s);
        batch.dirty.extend(self.entries.keys().cloned());
    }

    fn take_in_namespace(&mut self, name: Arc<str>, labels: Option<Arc<Labels>>, batch: &mut Batch) {
        if self.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        let keys: Vec<ServiceKey> = self.by_namespace.get(&*name).into_iter().flatten().cloned().collect();
        let mut ips: Vec<_> = keys.iter().filter_map(|key| self.entries.get(key)).flat_map(|e| &e.ips).collect();
        ips.sort_unstable();
        ips.dedup();
        let ips: Vec<_> = ips.into_iter().copied().collect();
        for ip in &ips {
            self.detach(*ip);
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.clone(), labels),
            None => self.namespaces.remove(&name),
        };
        self.ledger.learn(&name, &self.namespaces, true);
        for ip in &ips {
            self.attach(*ip);
        }
        batch.dirty.extend(keys);
    }

    /// Notes a Service that is ours; returns it if it is new.
    fn take_in_ours(&mut self, key: ServiceKey, service: Arc<Service>, batch: &mut Batch) -> Option<Arc<Service>> {
        self.disowned.remove(&key);
        if self.entries.get(&key).is_some_and(|entry| entry.service.uid != service.uid) {
            // Deleted and created again between two looks: the new one starts without an address.
            self.forget(&key, batch);
            batch.gone.push(key.clone());
        }
        let Some(entry) = self.entries.get_mut(&key) else { return Some(service) };
        let old = std::mem::replace(&mut entry.service, service.clone());
        if same_wishes(&old, &service) {
            // While the status holds what is not ours, whatever it says counts.
            if entry.foreign.as_ref().is_some_and(|foreign| !foreign.is_of(&service)) {
                batch.dirty.push(key);
            }
            return None;
        }
        let ips = entry.ips.clone();
        entry.changed_from.get_or_insert_with(|| old.clone());
        if old.labels != service.labels {
            ips.iter().for_each(|ip| self.detach(*ip));
            self.claims.set(&service);
            ips.iter().for_each(|ip| self.attach(*ip));
        }
        if old.ports != service.ports || Sharing::of(&old) != Sharing::of(&service) {
            // Its terms change: it has to ask anew, after those whose terms stay.
            for ip in ips {
                self.let_go(ip, &key, batch);
            }
        }
        batch.dirty.push(key);
        None
    }

    fn take_in_foreign(&mut self, key: ServiceKey, service: Option<&Service>, batch: &mut Batch) {
        let annotated = service.is_some_and(|s| !s.is_load_balancer && s.annotations.allocated_from_pool.is_some());
        let known = self.forget(&key, batch);
        if known || (annotated && !self.disowned.contains(&key)) {
            batch.gone.push(key.clone());
        }
        if annotated {
            self.disowned.insert(key)
        } else {
            self.disowned.remove(&key)
        };
    }

    /// Forgets a Service and frees what it holds; had there been an outcome?
    fn forget(&mut self, key: &ServiceKey, batch: &mut Batch) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        for ip in &entry.ips {
            self.let_go(*ip, key, batch);
        }
        if let Some(interest) = &entry.interest {
            self.waiting.remove(&entry.place(), interest);
        }
        self.claims.forget(key);
        if let Some(keys) = self.by_namespace.get_mut(key.namespace()) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_namespace.remove(key.namespace());
            }
        }
        self.count_held(entry.outcome.as_deref(), None);
        entry.outcome.is_some()
    }
}

/// Order of service: age, then namespace, then name.
pub(super) fn age(service: &Service) -> (i64, &ServiceKey) {
    (service.created_s, &service.key)
}

/// Is all the same that allocation reads, other than what Ferrocast itself writes?
fn same_wishes(a: &Service, b: &Service) -> bool {
    let annotations = |s: &Service| ServiceAnnotations { allocated_from_pool: None, ..s.annotations.clone() };
    a.labels == b.labels
        && a.traffic_policy == b.traffic_policy
        && a.cluster_ips == b.cluster_ips
        && a.family_policy == b.family_policy
        && a.families == b.families
        && a.ports == b.ports
        && a.selector == b.selector
        && a.load_balancer_ip == b.load_balancer_ip
        && a.created_s == b.created_s
        && annotations(a) == annotations(b)
}

/// Is all of two configurations the same that allocation reads, other than what Ferrocast itself writes into statuses?
fn same_terms(a: &Config, b: &Config) -> bool {
    a.pools_unknown == b.pools_unknown
        && a.former == b.former
        && a.moved == b.moved
        && a.pools.len() == b.pools.len()
        && a.pools.iter().zip(&b.pools).all(|((_, a), (_, b))| same_pool(a, b))
        && a.reservations.len() == b.reservations.len()
        && a.reservations.iter().zip(&b.reservations).all(|((_, a), (_, b))| same_reservation(a, b))
}

fn same_pool(a: &Arc<Pool>, b: &Arc<Pool>) -> bool {
    let policy = |pool: &Pool| pool.policy.as_ref().map(|p| PoolPolicy { releases: Arc::default(), ..(**p).clone() });
    let rest = |pool: &Pool| Pool { policy: None, ..pool.clone() };
    Arc::ptr_eq(a, b) || (policy(a) == policy(b) && rest(a) == rest(b))
}

fn same_reservation(a: &Arc<Reservation>, b: &Arc<Reservation>) -> bool {
    let rest = |r: &Reservation| Reservation { releases: Arc::default(), ..r.clone() };
    Arc::ptr_eq(a, b) || rest(a) == rest(b)
}
