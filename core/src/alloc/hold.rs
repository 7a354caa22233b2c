//! Who holds what changes here and nowhere else: every index over held addresses is brought in step.
use std::{net::IpAddr, sync::Arc};

use super::{
    Allocator,
    claims::covers,
    holdings::Sharing,
    space::rules,
    step::{Batch, Freed},
    waiting::Queue,
};
use crate::{
    config::{Config, Release, Reservation, Reserved, Strategy},
    model::{IpFamily, Service, ServiceKey},
};

impl Allocator {
    /// The Service, which may, holds `ip` from now on.
    pub(super) fn hold(&mut self, ip: IpAddr, service: &Service, batch: &mut Batch) {
        match self.holdings.get(ip) {
            Some(held) if held.is_of(&service.key) => return,
            Some(_) => self.detach(ip),
            None => {}
        }
        if !batch.woken {
            batch.touched.insert(ip);
        }
        if self.holdings.add(ip, service, Sharing::of(service)) {
            batch.freed.remove(&ip);
            let cooling = self.thaw(ip);
            self.remembered.taken(ip);
            if let Some(pool) = self.config.pool_of(ip)
                && let Some(family) = self.space.family_mut(&pool.name, ip)
            {
                family.take(ip, cooling);
            }
        }
        self.attach(ip);
    }

    /// The Service does not hold `ip` any more.
    pub(super) fn let_go(&mut self, ip: IpAddr, key: &ServiceKey, batch: &mut Batch) {
        if !self.holdings.is_held_by(ip, key) {
            return;
        }
        batch.touched.insert(ip);
        let reservation = self.reservation_held(ip, key).map(|index| self.claims.reservations[index].clone());
        self.detach(ip);
        if self.holdings.remove(ip, key) {
            batch.freed.insert(ip, Freed { service: key.clone(), reservation });
            if let Some(pool) = self.config.pool_of(ip)
                && let Some(family) = self.space.family_mut(&pool.name, ip)
            {
                family.give_back(ip);
            }
        }
        self.attach(ip);
    }

    /// The reservation of which an address is one while this Service has it.
    pub(super) fn reservation_held(&self, ip: IpAddr, key: &ServiceKey) -> Option<usize> {
        let claims = self.claims.of(key);
        let pool = if claims.is_empty() { None } else { self.config.pool_of(ip) }?;
        let listed = self.space.family(&pool.name, ip).and_then(|family| family.reservation_of(ip));
        listed.filter(|index| claims.contains(index)).or_else(|| {
            claims.iter().copied().find(|index| {
                let reservation = &self.claims.reservations[*index];
                reservation.pool == pool.name
                    && matches!(reservation.reserved, Reserved::Count(_, family) if family == IpFamily::of(ip))
            })
        })
    }

    /// Takes a held address out of every index, before anything about those who hold it changes.
    pub(super) fn detach(&mut self, ip: IpAddr) {
        self.index(ip, false);
    }

    /// Puts a held address back into every index.
    pub(super) fn attach(&mut self, ip: IpAddr) {
        self.index(ip, true);
    }

    fn index(&mut self, ip: IpAddr, add: bool) {
        let Some(held) = self.holdings.get(ip) else { return };
        if held.shared().is_none() && self.ledger.is_empty() && self.claims.are_nobodys() {
            return;
        }
        let Some(pool) = self.config.pool_of(ip) else { return };
        let accounts = self.ledger.accounts_of(&pool.name, ip, held.tenants(), &self.claims);
        self.ledger.count(&accounts, if add { 1 } else { -1 });
        if let Some((key, shared)) = held.key().zip(held.shared())
            && let Some(family) = self.space.family_mut(&pool.name, ip)
        {
            let signature = shared.signature(rules(pool), accounts);
            if add { family.share(ip, key, signature) } else { family.unshare(ip, key, &signature) }
        }
        for tenant in held.tenants() {
            if let Some(index) = self.reservation_held(ip, &tenant.key) {
                let name = &self.claims.reservations[index].name;
                self.remembered.note_held(name, &tenant.key, ip, add);
            }
        }
    }

    /// Notes for how long, or in which order, the addresses that were given back in this batch are kept back.
    pub(super) fn settle(&mut self, batch: &mut Batch, now_s: i64) {
        for (ip, freed) in std::mem::take(&mut batch.freed) {
            let Some(pool) = self.config.pool_of(ip).cloned() else { continue };
            let release = Release { at_s: now_s, ip, service: freed.service };
            let reservation = freed.reservation.and_then(|old| self.config.reservations.get(&old.name).cloned());
            if let Some(reservation) = reservation.filter(|r| r.pool == pool.name && covers(r, ip)) {
                self.settle_reserved(&reservation, &release, now_s, batch);
            }
            let policy = pool.policy.as_ref().filter(|policy| policy.strategy == Strategy::LeastRecentlyUsed);
            if let Some(policy) = policy {
                let (order, forgotten) = self.remembered.released(&policy.name, release);
                self.age(ip, Some(order));
                if let Some(forgotten) = forgotten {
                    self.age(forgotten, None);
                }
            }
        }
    }

    fn settle_reserved(&mut self, reservation: &Reservation, release: &Release, now_s: i64, batch: &mut Batch) {
        let (cools, forgotten) = self.remembered.released_reserved(reservation, release, now_s);
        if let Some(forgotten) = forgotten {
            // What is not remembered cannot be kept for anybody after a restart either.
            self.end_cooling(forgotten, batch);
        }
        if cools {
            if let Some(family) = self.space.family_mut(&reservation.pool, release.ip) {
                family.freeze(release.ip);
            }
            self.count_cooling(&reservation.name, 1);
        }
    }

    fn age(&mut self, ip: IpAddr, order: Option<u64>) {
        if let Some(pool) = self.config.pool_of(ip)
            && let Some(family) = self.space.family_mut(&pool.name, ip)
        {
            family.age(ip, order);
        }
    }

    /// Ends the cool-downs whose time is over.
    pub(super) fn thaw_due(&mut self, batch: &mut Batch, now_s: i64) {
        while let Some(ip) = self.remembered.over(now_s) {
            self.end_cooling(ip, batch);
        }
    }

    /// Ends the cool-down of an address that nobody holds.
    fn end_cooling(&mut self, ip: IpAddr, batch: &mut Batch) {
        if !self.thaw(ip) {
            return;
        }
        batch.touched.insert(ip);
        let Some(pool) = self.config.pool_of(ip).cloned() else { return };
        if let Some(family) = self.space.family_mut(&pool.name, ip) {
            family.thaw(ip);
        }
        let order = pool.policy.as_ref().and_then(|policy| self.remembered.order_of(&policy.name, ip));
        if order.is_some() {
            self.age(ip, order);
        }
    }

    /// Forgets a cool-down; was there one?
    fn thaw(&mut self, ip: IpAddr) -> bool {
        let Some(cooling) = self.remembered.thaw(ip) else { return false };
        self.count_cooling(&cooling.reservation, -1);
        true
    }

    /// An address that cools down counts as one that the reservation has given.
    fn count_cooling(&mut self, reservation: &Arc<str>, by: i64) {
        let index = self.claims.reservations.binary_search_by(|r| r.name.cmp(reservation));
        if let Some(id) = index.ok().and_then(|index| self.ledger.of_reservation(index)) {
            self.ledger.count(&[id], by);
        }
    }

    /// Makes every index anew for a configuration.
    pub(super) fn configure(&mut self, config: Arc<Config>, now_s: i64) {
        self.config = config;
        self.claims = super::Claims::new(&self.config);
        self.ledger = super::Ledger::new(&self.config, &self.claims);
        for (_, entry) in self.entries.iter() {
            self.claims.set(&entry.service);
            self.ledger.learn(entry.service.key.namespace(), &self.namespaces, false);
        }
        self.remembered.configure(&self.config);
        for reservation in &self.claims.reservations {
            let (config, holdings) = (&self.config, &self.holdings);
            let free =
                |ip| !holdings.is_held(ip) && config.pool_of(ip).is_some_and(|pool| pool.name == reservation.pool);
            self.remembered.cool_all(reservation, now_s, free);
        }
        self.space = super::Space::new(&self.config, &self.claims, &self.holdings, &self.remembered);
        for ip in self.holdings.ips() {
            self.attach(ip);
        }
        let cooling: Vec<Arc<str>> = self.remembered.all_cooling().map(|(_, c)| c.reservation.clone()).collect();
        for reservation in cooling {
            self.count_cooling(&reservation, 1);
        }
    }

    /// What those wait for whom a free address could help.
    pub(super) fn queues_of(&self, ip: IpAddr) -> Vec<Queue> {
        let Some(pool) = self.config.pool_of(ip) else { return Vec::new() };
        let listed = self.space.family(&pool.name, ip).and_then(|family| family.reservation_of(ip));
        if let Some(index) = listed {
            return vec![Queue::Reservation(index)];
        }
        let mut queues = vec![Queue::Pool(pool.name.clone(), IpFamily::of(ip))];
        queues.extend(self.ledger.reservations_in(&pool.name, IpFamily::of(ip)).map(Queue::Reservation));
        queues
    }
}
