//! Taking changes in: what they mean for who is to be judged anew.
use std::sync::Arc;

use super::{Allocator, Change, Entry, holdings::Sharing, step::Batch};
use crate::{
    config::{Config, Pool, PoolPolicy, Reservation},
    model::{Labels, Service, ServiceAnnotations, ServiceKey},
};

impl Allocator {
    /// Notes what changed, and whom that concerns.
    pub(super) fn take_in(&mut self, changes: Vec<Change>, now_s: i64, batch: &mut Batch) {
        let mut services: Vec<(ServiceKey, Option<Arc<Service>>)> = Vec::with_capacity(changes.len());
        let mut config = None;
        for change in changes {
            match change {
                Change::Service(key, service) => services.push((key, service)),
                Change::Config(new) => config = Some(new),
                Change::Namespace(name, labels) => self.take_in_namespace(name, labels, batch),
            }
        }
        // The newest of each Service comes first and counts.
        services.reverse();
        services.sort_by(|(a, _), (b, _)| a.cmp(b));
        services.dedup_by(|(later, _), (first, _)| later == first);
        let mut newcomers = Vec::new();
        for (key, service) in services {
            match service {
                Some(service) if service.is_ours(self.class.as_deref()) => {
                    newcomers.extend(self.take_in_ours(key, service, batch));
                }
                other => self.take_in_foreign(key, other.as_deref(), batch),
            }
        }
        newcomers.sort_by(|(_, a), (_, b)| age(a).cmp(&age(b)));
        batch.dirty.reserve(newcomers.len());
        for (hash, service) in newcomers {
            self.take_in_newcomer(hash, service, batch);
        }
        if let Some(config) = config {
            self.take_in_config(config, now_s, batch);
        }
    }

    fn take_in_newcomer(&mut self, hash: u64, service: Arc<Service>, batch: &mut Batch) {
        self.arrivals += 1;
        self.claims.set(&service);
        self.ledger.learn(service.key.namespace(), &self.namespaces, false);
        batch.dirty.push(self.entries.insert(hash, Entry::new(service, self.arrivals)));
    }

    fn take_in_config(&mut self, config: Arc<Config>, now_s: i64, batch: &mut Batch) {
        if self.configured && same_terms(&self.config, &config) {
            self.config = config;
            return;
        }
        self.configured = true;
        self.configure(config, now_s);
        batch.dirty.extend(self.entries.iter().map(|(id, _)| id));
    }

    fn take_in_namespace(&mut self, name: Arc<str>, labels: Option<Arc<Labels>>, batch: &mut Batch) {
        if self.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        let ids = self.entries.of_namespace(&name).to_vec();
        let mut ips: Vec<_> =
            ids.iter().filter_map(|id| self.entries.get(*id)).flat_map(|e| &*e.ips).copied().collect();
        ips.sort_unstable();
        ips.dedup();
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
        batch.dirty.extend(ids);
    }

    /// Notes a Service that is ours; returns it with its name's hash if it is new.
    fn take_in_ours(
        &mut self,
        key: ServiceKey,
        service: Arc<Service>,
        batch: &mut Batch,
    ) -> Option<(u64, Arc<Service>)> {
        self.disowned.remove(&key);
        let hash = self.entries.hash(&key);
        let known = self.entries.find(hash, &key).and_then(|id| Some((id, self.entries.get_mut(id)?)));
        let Some((id, entry)) = known else { return Some((hash, service)) };
        if entry.service.uid != service.uid {
            // Deleted and created again between two looks: the new one starts without an address.
            self.forget(&key, batch);
            batch.gone.push(key);
            return Some((hash, service));
        }
        let old = std::mem::replace(&mut entry.service, service.clone());
        if same_wishes(&old, &service) {
            // While the status holds what is not ours, whatever it says counts.
            if entry.rare().foreign.as_ref().is_some_and(|foreign| !foreign.is_of(&service)) {
                batch.dirty.push(id);
            }
            return None;
        }
        let ips = entry.ips.to_vec();
        entry.rare_mut().changed_from.get_or_insert_with(|| old.clone());
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
        batch.dirty.push(id);
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
        let hash = self.entries.hash(key);
        let Some(id) = self.entries.find(hash, key) else { return false };
        let Some(entry) = self.entries.remove(hash, id) else { return false };
        for ip in &*entry.ips {
            self.let_go(*ip, key, batch);
        }
        if entry.lacks {
            self.waiting.remove(entry.place(id), &entry.rare().interest);
        }
        self.claims.forget(key);
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
