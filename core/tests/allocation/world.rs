//! A cluster with its current leader, and what must hold in it.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ferrocast_core::{
    alloc::{Allocator, Change, Outcome},
    config::{Config, FormerPool, OnAddressLoss, Pool, Reservation, Reserved, SharingRules},
    model::{AnnotationText, FamilyPolicy, IpFamily, Labels, Service, ServiceKey, TrafficPolicy},
};

use crate::scene::{NAMES, Pools, RANGES, Step, Wish, config, ip, remember, service};

/// Addresses, pool, code.
pub(crate) type Facts = (Vec<IpAddr>, Option<Arc<str>>, &'static str);

/// A cluster with its current leader.
pub(crate) struct World {
    pub(crate) config: Arc<Config>,
    pub(crate) namespaces: BTreeMap<Arc<str>, Arc<Labels>>,
    pub(crate) services: BTreeMap<ServiceKey, Arc<Service>>,
    pub(crate) told: BTreeMap<ServiceKey, Arc<Outcome>>,
    pub(crate) told_uids: BTreeMap<ServiceKey, Arc<str>>,
    pub(crate) allocator: Allocator,
    /// Fed with the same; must say the same.
    pub(crate) twin: Allocator,
    pub(crate) uids: u64,
    pub(crate) now_s: i64,
    pub(crate) sharing: SharingRules,
    /// Addresses that were in no pool at a restart: by which rules they are shared, nobody knows.
    pub(crate) forgotten: BTreeSet<IpAddr>,
}

impl World {
    pub(crate) fn new(pools: &Pools) -> Self {
        let mut world = Self {
            config: Arc::new(config(pools)),
            namespaces: BTreeMap::new(),
            services: BTreeMap::new(),
            told: BTreeMap::new(),
            told_uids: BTreeMap::new(),
            allocator: Allocator::new(None),
            twin: Allocator::new(None),
            uids: 0,
            now_s: 0,
            sharing: pools.sharing,
            forgotten: BTreeSet::new(),
        };
        world.apply(world.everything());
        world
    }

    /// What a list returns.
    pub(crate) fn everything(&self) -> Vec<Change> {
        let services = self.services.iter().map(|(k, s)| Change::Service(k.clone(), Some(s.clone())));
        let namespaces = self.namespaces.iter().map(|(n, l)| Change::Namespace(n.clone(), Some(l.clone())));
        services.chain(namespaces).chain([Change::Config(self.config.clone())]).collect()
    }

    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        let effects = self.allocator.apply(changes.clone(), self.now_s);
        assert_eq!(effects, self.twin.apply(changes, self.now_s), "deterministic");
        assert!(effects.is_sorted_by(|a, b| a.0 < b.0), "each Service once, in key order");
        assert!(self.allocator.due_s().is_none_or(|at| at > self.now_s), "what was due has been done");
        let had = self.told.clone();
        for (key, outcome) in effects {
            match outcome {
                Some(outcome) => {
                    let uid = self.services[&key].uid.clone();
                    let same_object = self.told_uids.insert(key.clone(), uid.clone()) == Some(uid);
                    let before = self.told.insert(key, outcome.clone());
                    assert!(!same_object || before != Some(outcome), "an effect differs from the last one");
                }
                None => drop(self.told.remove(&key)),
            }
        }
        self.check_gains(&had);
    }

    pub(crate) fn step(&mut self, steps: &[Step]) {
        let mut changes = Vec::new();
        for step in steps {
            match step {
                Step::Service(name, wish) => changes.push(self.upsert(NAMES[*name], wish)),
                Step::Delete(name) => {
                    let key: ServiceKey = NAMES[*name].parse().expect("a key");
                    self.services.remove(&key);
                    changes.push(Change::Service(key, None));
                }
                Step::Wait(seconds) => self.now_s += seconds,
                Step::Pools(pools, loss) => {
                    self.reconfigure(&Pools { sharing: self.sharing, ..pools.clone() }, *loss);
                    changes.push(Change::Config(self.config.clone()));
                }
                Step::Namespace(member) => {
                    let labels: Labels = member.then_some(("team", "x")).into_iter().collect();
                    self.namespaces.insert("t".into(), Arc::new(labels.clone()));
                    changes.push(Change::Namespace("t".into(), Some(Arc::new(labels))));
                }
                Step::Write => changes.extend(self.write()),
                Step::NewLeader => {}
            }
        }
        self.apply(changes);
        if steps.iter().any(|s| matches!(s, Step::NewLeader)) {
            self.restart();
        }
    }

    /// A new configuration; what statuses have that it takes out of every pool is held, or moved.
    pub(crate) fn reconfigure(&mut self, pools: &Pools, loss: OnAddressLoss) {
        let mut new = config(pools);
        for service in self.services.values().filter(|s| s.is_ours(None)) {
            for ip in &service.ingress {
                if new.pool_of(*ip).is_some() {
                    continue;
                }
                let former = self.config.former.get(ip).cloned();
                let left = || {
                    let pool = self.config.pool_of(*ip)?;
                    Some(Arc::new(FormerPool { name: pool.name.clone(), labels: Labels::default() }))
                };
                let Some(former) = former.or_else(left) else { continue };
                if loss == OnAddressLoss::Move {
                    new.moved.insert((service.key.clone(), *ip));
                } else {
                    new.former.insert(*ip, former);
                }
            }
        }
        self.config = Arc::new(new);
    }

    pub(crate) fn upsert(&mut self, name: &str, wish: &Wish) -> Change {
        self.uids += 1;
        let mut new = service(name, self.uids, wish);
        if let Some(old) = self.services.get(&new.key) {
            (new.uid, new.created_s) = (old.uid.clone(), old.created_s);
            if new.is_load_balancer {
                new.ingress.clone_from(&old.ingress);
            }
            new.annotations.allocated_from_pool.clone_from(&old.annotations.allocated_from_pool);
        }
        let new = Arc::new(new);
        self.services.insert(new.key.clone(), new.clone());
        Change::Service(new.key.clone(), Some(new))
    }

    /// Writes every outcome to its Service's status, and returns what a watch then says.
    pub(crate) fn write(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, service) in &mut self.services {
            let outcome = self.told.get(key);
            let written = Arc::make_mut(service);
            written.ingress = outcome.map(|o| o.ips.clone()).unwrap_or_default();
            let pool = outcome.and_then(|o| o.pool.clone());
            written.annotations.allocated_from_pool =
                pool.map(|p| AnnotationText { value: (*p).into(), deprecated: false });
            changes.push(Change::Service(key.clone(), Some(service.clone())));
        }
        changes
    }

    pub(crate) fn restart(&mut self) {
        let memory = self.allocator.memory();
        assert_eq!(memory, self.twin.memory());
        remember(Arc::make_mut(&mut self.config), &memory);
        let ingress = self.services.values().flat_map(|service| &service.ingress);
        self.forgotten.extend(ingress.filter(|ip| self.config.pool_of(**ip).is_none()));
        (self.allocator, self.twin) = (Allocator::new(None), Allocator::new(None));
        self.told.clear();
        self.apply(self.everything());
    }

    /// Addresses, pool and code of every Service.
    pub(crate) fn facts(&self) -> BTreeMap<ServiceKey, Facts> {
        // Why a pool gives nothing is said as of the last attempt: since then others may have taken what was lacking least.
        let code = |code| match code {
            "quotaReached" | "tooManyAddresses" | "poolFamilyMissing" => "poolExhausted",
            other => other,
        };
        self.told.iter().map(|(k, o)| (k.clone(), (o.ips.clone(), o.pool.clone(), code(o.code)))).collect()
    }

    /// Invariant 1 of the design, and that the families are right.
    pub(crate) fn check_holders(&self) {
        let mut holders: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
        for (key, outcome) in &self.told {
            let service = &self.services[key];
            assert!(service.is_ours(None), "{key} is not ours");
            assert!(!outcome.message.is_empty(), "{key}: {}", outcome.code);
            let ours = outcome.ips.iter().filter(|ip| self.is_ours(**ip));
            ours.for_each(|ip| holders.entry(*ip).or_default().push(service));
            if outcome.code == "addressNotOurs" {
                let moved = |ip: IpAddr| self.config.moved.contains(&(key.clone(), ip));
                let foreign = |ip: &&IpAddr| !self.is_ours(**ip) && !moved(**ip);
                let left = |ips: &[IpAddr]| ips.iter().filter(foreign).copied().collect::<Vec<_>>();
                assert_eq!(left(&outcome.ips), left(&service.ingress), "{key}: what is not ours stays as it is");
                assert!(!left(&outcome.ips).is_empty(), "{key}");
                continue;
            }
            self.check_pools(key, outcome);
            let v4 = outcome.ips.iter().filter(|ip| ip.is_ipv4()).count();
            assert!(outcome.ips.is_sorted(), "{key}: {:?}", outcome.ips);
            assert!(v4 <= 2 && outcome.ips.len() - v4 <= 2, "{key}: {:?}", outcome.ips);
            let both = service.cluster_ips.len() == 2 && service.family_policy != Some(FamilyPolicy::PreferDualStack);
            assert!(!both || outcome.ips.is_empty() || (v4 > 0 && outcome.ips.len() > v4), "{key}: {:?}", outcome.ips);
        }
        for (ip, services) in holders {
            let keys: Vec<ServiceKey> = services.iter().map(|s| s.key.clone()).collect();
            assert_eq!(self.allocator.holders(ip), keys, "{ip}");
            let rules = if self.forgotten.contains(&ip) { LENIENT } else { self.sharing };
            for (i, a) in services.iter().enumerate() {
                assert!(services[..i].iter().all(|b| may_share(a, b, rules)), "{ip}: {keys:?}");
            }
        }
    }

    /// Is or was the address in a pool, or may it be in one that nobody can read?
    pub(crate) fn is_ours(&self, ip: IpAddr) -> bool {
        let known = self.config.pool_of(ip).is_some() || self.config.former.contains_key(&ip);
        known || !self.config.pools_unknown.is_empty()
    }

    /// Nothing is in an outcome that is not in a pool, or held.
    pub(crate) fn check_pools(&self, key: &ServiceKey, outcome: &Outcome) {
        assert_eq!(outcome.ips.len(), outcome.pools.len(), "{key}");
        assert_eq!(outcome.code == "held", !outcome.held.is_empty() && outcome.code != "invalidRequest", "{key}");
        for (ip, name) in outcome.ips.iter().zip(&outcome.pools) {
            let pool = self.config.pool_of(*ip).map(|p| &p.name);
            let former = self.config.former.get(ip).map(|f| &f.name);
            let held = outcome.held.contains(ip);
            assert!(pool.is_some() || former.is_some() || !self.config.pools_unknown.is_empty(), "{key}: {ip}");
            assert!(former.is_none() || held, "{key}: {ip} is in no pool");
            assert!(held || pool.is_none() || pool == Some(name), "{key}: {ip} is said to be of {name}");
        }
    }

    /// Who got an address that his status did not have: might he?
    pub(crate) fn check_gains(&self, had: &BTreeMap<ServiceKey, Arc<Outcome>>) {
        for (key, outcome) in &self.told {
            let service = &self.services[key];
            let before = had.get(key).map_or(&[][..], |o| &o.ips);
            let gained = outcome.ips.iter().filter(|ip| !before.contains(ip) && !service.ingress.contains(ip));
            for ip in gained {
                self.check_gain(service, *ip);
            }
        }
    }

    pub(crate) fn check_gain(&self, service: &Service, ip: IpAddr) {
        let key = &service.key;
        let pool = self.config.pool_of(ip).unwrap_or_else(|| panic!("{key}: {ip} is in no pool"));
        let policy = pool.policy.as_ref().expect("every pool has one");
        assert!(!policy.withholds(ip), "{key}: {ip} is withheld");
        assert!(!self.avoided(ip), "{key}: {ip} is avoided");
        if let Some(reservation) = self.reserved_by(ip) {
            assert!(reservation.for_whom.matches(key, &service.labels), "{key}: {ip} is reserved");
        }
        for quota in policy.quotas.iter().filter(|q| q.namespaces.matches(&self.labels(key.namespace()))) {
            let matches = |key: &ServiceKey| quota.namespaces.matches(&self.labels(key.namespace()));
            let counted = self.held().filter(|(ip, holder)| self.in_pool(*ip, &pool.name) && matches(holder));
            let used = counted.map(|(ip, _)| ip).collect::<BTreeSet<_>>().len() as u64;
            // To join an address that counts already costs nothing.
            let joined = self.allocator.holders(ip).iter().any(|other| other != key && matches(other));
            assert!(joined || used <= quota.addresses_max, "{key}: {ip} is beyond the quota");
        }
        self.check_numbers(service, ip, pool);
    }

    /// One who is not meant by a reservation of a number leaves so many free.
    pub(crate) fn check_numbers(&self, service: &Service, ip: IpAddr, pool: &Pool) {
        let family = IpFamily::of(ip);
        let shared = self.allocator.holders(ip).len() > 1;
        let (mut outstanding, mut mine, mut cooling) = (0, false, false);
        for reservation in self.config.reservations.values().filter(|r| r.pool == pool.name) {
            let Reserved::Count(count, of) = reservation.reserved else { continue };
            if of != family {
                continue;
            }
            cooling |= reservation.release_after.is_some();
            mine |= reservation.for_whom.matches(&service.key, &service.labels);
            let counted = self.held().filter(|(ip, holder)| {
                let labels = &self.services[*holder].labels;
                IpFamily::of(*ip) == family
                    && self.in_pool(*ip, &pool.name)
                    && reservation.for_whom.matches(holder, labels)
            });
            let used = counted.map(|(ip, _)| ip).collect::<BTreeSet<_>>().len() as u64;
            outstanding += count.saturating_sub(used);
        }
        if mine || shared || cooling || self.reserved_by(ip).is_some() {
            return;
        }
        let held: BTreeSet<IpAddr> = self.held().map(|(ip, _)| ip).collect();
        let withheld = |ip: IpAddr| pool.policy.as_ref().is_some_and(|policy| policy.withholds(ip));
        let free = addresses(pool).into_iter().filter(|ip| {
            IpFamily::of(*ip) == family
                && !held.contains(ip)
                && !self.avoided(*ip)
                && !withheld(*ip)
                && self.reserved_by(*ip).is_none()
        });
        assert!(free.count() as u64 >= outstanding, "{}: {ip} was reserved by number", service.key);
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = (IpAddr, &ServiceKey)> {
        let of = |key: &ServiceKey, ip: &IpAddr| self.allocator.holders(*ip).contains(key);
        self.told.iter().flat_map(move |(key, o)| o.ips.iter().filter(move |ip| of(key, ip)).map(move |ip| (*ip, key)))
    }

    pub(crate) fn in_pool(&self, ip: IpAddr, pool: &str) -> bool {
        self.config.pool_of(ip).is_some_and(|p| *p.name == *pool)
    }

    pub(crate) fn avoided(&self, ip: IpAddr) -> bool {
        let last = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255));
        last(ip) && self.config.pool_of(ip).is_some_and(|p| p.avoid_buggy_ips)
    }

    pub(crate) fn reserved_by(&self, ip: IpAddr) -> Option<&Arc<Reservation>> {
        self.config.reservations.values().find(|r| {
            let listed =
                matches!(&r.reserved, Reserved::Addresses(list) if list.iter().any(|range| range.contains(ip)));
            listed && self.in_pool(ip, &r.pool)
        })
    }

    pub(crate) fn labels(&self, namespace: &str) -> Labels {
        self.namespaces.get(namespace).map(|labels| (**labels).clone()).unwrap_or_default()
    }

    /// The counts equal a count by hand.
    pub(crate) fn check_usage(&self) {
        let held: BTreeSet<IpAddr> = self.held().map(|(ip, _)| ip).collect();
        for (name, usage) in self.allocator.usage() {
            let used = |v4: bool| {
                held.iter().filter(|ip| ip.is_ipv4() == v4).filter(|ip| self.in_pool(**ip, &name)).count() as u64
            };
            assert_eq!((usage.used_v4, usage.used_v6), (used(true), used(false)), "{name}");
            let avoided_held = held.iter().filter(|ip| self.in_pool(**ip, &name) && self.avoided(**ip)).count() as u64;
            let rest = usage.reserved_v4 + usage.withheld_v4;
            assert!(usage.used_v4 - avoided_held + rest <= usage.total_v4, "{name}: {usage:?}");
            assert!(usage.used_v6 + usage.reserved_v6 + usage.withheld_v6 <= usage.total_v6, "{name}: {usage:?}");
        }
        let held: u64 = self.told.values().map(|o| o.held.len() as u64).sum();
        assert_eq!(self.allocator.held().values().sum::<u64>(), held);
    }
}

/// Rules under which only the key and the ports count.
pub(crate) const LENIENT: SharingRules = SharingRules { same_namespace: false, mixed: true };

/// The addresses of a small pool.
pub(crate) fn addresses(pool: &Pool) -> Vec<IpAddr> {
    let all = RANGES.iter().flat_map(|(first, last)| match (ip(first), ip(last)) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits()..=b.to_bits()).map(|n| IpAddr::V4(n.into())).collect::<Vec<_>>(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits()..=b.to_bits()).map(|n| IpAddr::V6(n.into())).collect(),
        _ => unreachable!("one family per range"),
    });
    all.filter(|ip| pool.ranges.iter().any(|range| range.contains(*ip))).collect()
}

/// The sharing rule, written once more.
pub(crate) fn may_share(a: &Service, b: &Service, rules: SharingRules) -> bool {
    let key = |s: &Service| s.annotations.allow_shared_ip.as_ref().map(|k| k.value.clone());
    let backend = |s: &Service| if s.traffic_policy == TrafficPolicy::Local { s.selector.clone() } else { "".into() };
    key(a).is_some()
        && key(a) == key(b)
        && (rules.mixed || backend(a) == backend(b))
        && (!rules.same_namespace || a.key.namespace() == b.key.namespace())
        && a.ports.iter().all(|p| !b.ports.contains(p))
}
