//! One batch of changes: take in, keep, wake, give, report.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Allocator, Change, Effect, Entry, Note, NoteType, Outcome,
    choose::{Choice, Refusal, other_family},
    holdings::Sharing,
    keep::Verdict,
    request::{self, Need},
    space::Space,
    waiting::{Interest, Place},
};
use crate::{
    config::Config,
    model::{IpFamily, Labels, Service, ServiceAnnotations, ServiceKey},
};

/// What a batch has found so far.
#[derive(Default)]
struct Batch {
    /// Services to judge.
    dirty: BTreeSet<ServiceKey>,
    /// Addresses whose holders, or their ports or keys, changed.
    touched: BTreeSet<IpAddr>,
    /// Services that lack an address and may get one.
    seekers: BTreeSet<Place>,
    /// Pools and families where an address became free, and the last Service asked.
    open: BTreeMap<(Arc<str>, IpFamily), Option<Place>>,
    /// Services whose outcome may have changed.
    changed: BTreeSet<ServiceKey>,
    /// Services that are not ours any more.
    gone: BTreeSet<ServiceKey>,
}

pub(super) fn apply(allocator: &mut Allocator, changes: Vec<Change>) -> Vec<Effect> {
    let mut batch = Batch::default();
    allocator.take_in(changes, &mut batch);
    if allocator.configured {
        allocator.keep(&mut batch);
        allocator.wake(&mut batch);
        allocator.give(&mut batch);
    }
    allocator.report(batch)
}

impl Allocator {
    fn take_in(&mut self, changes: Vec<Change>, batch: &mut Batch) {
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
        newcomers.sort_by(|a, b| (a.created_s, &a.key).cmp(&(b.created_s, &b.key)));
        for service in newcomers {
            self.arrivals += 1;
            batch.dirty.insert(service.key.clone());
            self.entries.insert(service.key.clone(), Entry::new(service, self.arrivals));
        }
        if let Some(config) = config {
            self.take_in_config(config, batch);
        }
    }

    fn take_in_config(&mut self, config: Arc<Config>, batch: &mut Batch) {
        let same =
            self.configured && self.config.pools == config.pools && self.config.pools_unknown == config.pools_unknown;
        self.config = config;
        if same {
            return;
        }
        self.configured = true;
        self.space = Space::new(&self.config, &self.holdings);
        batch.dirty.extend(self.entries.keys().cloned());
    }

    fn take_in_namespace(&mut self, name: Arc<str>, labels: Option<Arc<Labels>>, batch: &mut Batch) {
        if self.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        let first = ServiceKey::new(&name, "");
        let services = self.entries.range(first..).map(|(key, _)| key).take_while(|key| key.namespace() == &*name);
        batch.dirty.extend(services.cloned());
        match labels {
            Some(labels) => self.namespaces.insert(name, labels),
            None => self.namespaces.remove(&name),
        };
    }

    /// Notes a Service that is ours; returns it if it is new.
    fn take_in_ours(&mut self, key: ServiceKey, service: Arc<Service>, batch: &mut Batch) -> Option<Arc<Service>> {
        self.disowned.remove(&key);
        if self.entries.get(&key).is_some_and(|entry| entry.service.uid != service.uid) {
            // Deleted and created again between two looks: the new one starts without an address.
            self.forget(&key, batch);
            batch.gone.insert(key.clone());
        }
        let Some(entry) = self.entries.get_mut(&key) else { return Some(service) };
        let old = std::mem::replace(&mut entry.service, service);
        if same_wishes(&old, &entry.service) {
            return None;
        }
        if old.ports != entry.service.ports || Sharing::of(&old) != Sharing::of(&entry.service) {
            // Its terms change: it has to ask anew, after those whose terms stay.
            for ip in entry.ips.clone() {
                self.let_go(ip, &key, batch);
            }
        }
        batch.dirty.insert(key);
        None
    }

    fn take_in_foreign(&mut self, key: ServiceKey, service: Option<&Service>, batch: &mut Batch) {
        let annotated = service.is_some_and(|s| !s.is_load_balancer && s.annotations.allocated_from_pool.is_some());
        let known = self.forget(&key, batch);
        if known || (annotated && !self.disowned.contains(&key)) {
            batch.gone.insert(key.clone());
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
        entry.outcome.is_some()
    }

    /// Judges the dirty Services: those that hold an address already before those whose status says so, then by age.
    fn keep(&mut self, batch: &mut Batch) {
        let mut order: Vec<_> = std::mem::take(&mut batch.dirty)
            .into_iter()
            .filter_map(|key| self.entries.get(&key))
            .map(|e| (e.ips.is_empty(), e.service.created_s, e.service.uid.clone(), e.service.key.clone()))
            .collect();
        order.sort_unstable();
        for (.., key) in order {
            let Some(mut entry) = self.entries.remove(&key) else { continue };
            self.keep_one(&mut entry, batch);
            self.entries.insert(key.clone(), entry);
            batch.changed.insert(key);
        }
    }

    fn keep_one(&mut self, entry: &mut Entry, batch: &mut Batch) {
        self.stop_waiting(entry);
        let verdict = self.judge(entry);
        let key = entry.service.key.clone();
        let kept: &[IpAddr] = if let Verdict::Keep { ips, .. } = &verdict { ips } else { &[] };
        for ip in entry.ips.iter().filter(|ip| !kept.contains(ip)) {
            self.let_go(*ip, &key, batch);
        }
        entry.ips.clear();
        entry.near = None;
        match verdict {
            Verdict::Nothing { code, note } => {
                (entry.pool, entry.code, entry.failure) = (None, code, note);
            }
            Verdict::Keep { ips, pool, code, note } => {
                for ip in &ips {
                    self.hold(*ip, &entry.service, batch);
                }
                let alone = ips.len() == 1;
                (entry.ips, entry.pool, entry.code, entry.failure) = (ips, pool, code, note);
                if alone && code == "allocated" && wants_another(&entry.service) {
                    self.seek_later(entry, batch);
                }
            }
            Verdict::Seek { note, near } => {
                (entry.pool, entry.code, entry.failure, entry.near) = (None, "waiting", None, near);
                if note.is_some() {
                    (entry.cleared, entry.cleared_now) = (note, true);
                }
                self.seek_later(entry, batch);
            }
        }
    }

    fn seek_later(&mut self, entry: &mut Entry, batch: &mut Batch) {
        entry.interest = Some(Interest::default());
        batch.seekers.insert(entry.place());
    }

    fn stop_waiting(&mut self, entry: &mut Entry) {
        if let Some(interest) = entry.interest.take() {
            self.waiting.remove(&entry.place(), &interest);
        }
    }

    /// Finds whom the changed addresses could help.
    fn wake(&mut self, batch: &mut Batch) {
        for ip in std::mem::take(&mut batch.touched) {
            if self.holdings.holders(ip).is_empty()
                && let Some(pool) = self.config.pool_of(ip)
            {
                batch.open.insert((pool.name.clone(), IpFamily::of(ip)), None);
            }
            self.wake_for(ip, batch);
        }
    }

    /// Wakes those who wait for this very address, if only to say anew why they may not have it, and those who wait for
    /// one that is shared like it and could join now.
    fn wake_for(&self, ip: IpAddr, batch: &mut Batch) {
        let sharers = self.holdings.sharing(ip).into_iter().flat_map(|sharing| self.waiting.for_sharing(sharing));
        let could = sharers.filter(|(_, key)| {
            let service = self.entries.get(key).map(|e| &*e.service);
            service.is_some_and(|s| self.holdings.check(ip, s, Sharing::of(s).as_ref()).is_ok())
        });
        batch.seekers.extend(could.chain(self.waiting.for_ip(ip)).cloned());
    }

    /// Serves those who lack an address, in order of arrival, as long as there is something to give.
    fn give(&mut self, batch: &mut Batch) {
        while let Some(place) = self.next_seeker(batch) {
            let Some(mut entry) = self.entries.remove(&place.1) else { continue };
            if entry.interest.is_some() {
                self.stop_waiting(&mut entry);
                self.seek(&mut entry, batch);
                batch.changed.insert(place.1.clone());
            }
            self.entries.insert(place.1, entry);
        }
    }

    fn next_seeker(&self, batch: &mut Batch) -> Option<Place> {
        let queued = batch.open.iter().filter_map(|(queue, last)| {
            self.space.pools.get(&queue.0)?.lowest_free(queue.1)?;
            self.waiting.next(queue, last.as_ref()).map(|place| (place.clone(), queue.clone()))
        });
        let queued = queued.min();
        match (batch.seekers.first().cloned(), queued) {
            (Some(seeker), queued) if queued.as_ref().is_none_or(|(place, _)| seeker <= *place) => {
                batch.seekers.remove(&seeker);
                Some(seeker)
            }
            (_, Some((place, queue))) => {
                batch.open.insert(queue, Some(place.clone()));
                Some(place)
            }
            (seeker, None) => seeker,
        }
    }

    fn seek(&mut self, entry: &mut Entry, batch: &mut Batch) {
        let service = entry.service.clone();
        let Ok(need) = request::need(&service) else { return };
        let found = if entry.ips.is_empty() {
            let request = request::request(&service).unwrap_or_default();
            self.choose(&service, need, &request, entry.near)
        } else {
            self.choose_additional(entry)
        };
        match found {
            Ok((ips, pool)) => {
                for ip in ips.iter().filter(|ip| !entry.ips.contains(ip)) {
                    self.hold(*ip, &service, batch);
                    self.wake_for(*ip, batch);
                }
                let alone = ips.len() == 1;
                (entry.ips, entry.pool, entry.code, entry.failure) = (ips, Some(pool), "allocated", None);
                if alone && matches!(need, Need::Prefer(_)) {
                    self.seek_later(entry, batch);
                }
            }
            Err(refusal) => self.wait(entry, refusal),
        }
    }

    /// The missing family from the pool of the address that the Service has.
    fn choose_additional(&self, entry: &Entry) -> Result<Choice, Refusal> {
        let nothing = || Refusal::new("allocated", String::new());
        let ip = entry.ips.first().ok_or_else(nothing)?;
        let pool = self.config.pool_of(*ip).filter(|pool| self.allows(pool, &entry.service)).ok_or_else(nothing)?;
        let state = self.space.pools.get(&pool.name).ok_or_else(nothing)?;
        let family = other_family(IpFamily::of(*ip));
        if !state.has(family) {
            return Err(nothing());
        }
        let sharing = Sharing::of(&entry.service);
        if let Some(other) = self.lowest_usable(state, &entry.service, sharing.as_ref(), family) {
            let mut ips = vec![*ip, other];
            ips.sort_unstable();
            return Ok((ips, state.pool.name.clone()));
        }
        let message = format!("no available IPs in pool {:?} for {family} IPFamily", state.pool.name);
        let interest = Interest { pools: vec![(state.pool.name.clone(), family)], ips: Vec::new(), sharing };
        Err(Refusal { code: "allocated", message, interest })
    }

    fn wait(&mut self, entry: &mut Entry, refusal: Refusal) {
        let key = entry.service.key.as_str();
        let (reason, what) = match entry.ips.is_empty() {
            true => ("AllocationFailed", "Failed to allocate IP for"),
            false => ("AdditionalAssignFailed", "Failed to allocate additional IP for"),
        };
        let message = format!("{what} {key:?}: {}", refusal.message);
        entry.failure = (!refusal.message.is_empty()).then_some(Note { kind: NoteType::Warning, reason, message });
        entry.code = refusal.code;
        self.waiting.add(&entry.place(), &refusal.interest);
        entry.interest = Some(refusal.interest);
    }

    fn hold(&mut self, ip: IpAddr, service: &Service, batch: &mut Batch) {
        if self.holdings.holders(ip).binary_search(&service.key).is_ok() {
            return;
        }
        batch.touched.insert(ip);
        if self.holdings.add(ip, service, Sharing::of(service).as_ref())
            && let Some(pool) = self.config.pool_of(ip)
        {
            self.space.take(&pool.name, ip);
        }
    }

    fn let_go(&mut self, ip: IpAddr, key: &ServiceKey, batch: &mut Batch) {
        batch.touched.insert(ip);
        if self.holdings.remove(ip, key)
            && let Some(pool) = self.config.pool_of(ip)
        {
            self.space.give_back(&pool.name, ip);
        }
    }

    fn report(&mut self, batch: Batch) -> Vec<Effect> {
        let mut effects: BTreeMap<ServiceKey, Option<Arc<Outcome>>> = BTreeMap::new();
        effects.extend(batch.gone.into_iter().map(|key| (key, None)));
        for key in batch.changed {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.report() {
                effects.insert(key, entry.outcome.clone());
            }
        }
        effects.into_iter().collect()
    }
}

impl Entry {
    fn new(service: Arc<Service>, arrival: u64) -> Self {
        Self {
            service,
            arrival,
            ips: Vec::new(),
            pool: None,
            code: "waiting",
            failure: None,
            cleared: None,
            cleared_now: false,
            near: None,
            interest: None,
            outcome: None,
        }
    }

    /// Makes the outcome; does it differ from the last one?
    fn report(&mut self) -> bool {
        let moved = self.outcome.as_ref().is_some_and(|old| old.ips != self.ips);
        if moved && !std::mem::take(&mut self.cleared_now) {
            self.cleared = None;
        }
        self.cleared_now = false;
        let notes = self.cleared.iter().chain(&self.failure).cloned().chain(request::deprecations(&self.service));
        let new = Outcome {
            ips: self.ips.clone(),
            pool: self.pool.clone(),
            pools: self.pool.iter().flat_map(|pool| vec![pool.clone(); self.ips.len()]).collect(),
            held: Vec::new(),
            code: self.code,
            message: String::new(),
            notes: notes.collect(),
        };
        if self.outcome.as_deref() == Some(&new) {
            return false;
        }
        self.outcome = Some(Arc::new(new));
        true
    }
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

/// Has the Service room for an address of another family, which it did not choose itself?
fn wants_another(service: &Service) -> bool {
    matches!(request::need(service), Ok(Need::Prefer(_)))
        && request::request(service).is_ok_and(|request| request.ips.is_empty())
}
