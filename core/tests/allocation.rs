//! Random histories of Services, pools, namespaces, restarts and leader changes.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ferrocast_core::{
    alloc::{Allocator, Change, Memory, Outcome},
    config::{
        Config, FormerPool, IpRange, OnAddressLoss, Pool, PoolPolicy, Quota, Release, Reservation, Reserved,
        ReservedFor, ServiceAllocation, SharingRules, Strategy as PoolStrategy,
    },
    model::{
        AnnotationText, FamilyPolicy, IpFamily, LabelSelector, Labels, Port, Protocol, Service, ServiceKey,
        TrafficPolicy,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Every history has at most this many batches; longer ones find nothing more, but take longer.
const BATCHES_MAX: usize = 24;
/// Service names; few, so that edits, deletions and conflicts are frequent.
const NAMES: [&str; 8] = ["d/a", "d/b", "d/c", "d/e", "t/a", "t/b", "t/c", "t/e"];

/// Ranges that pools are made of; disjoint, so that any choice of pools is valid.
const RANGES: [(&str, &str); 6] = [
    ("10.0.0.0", "10.0.0.1"),
    ("10.0.0.2", "10.0.0.4"),
    ("10.0.1.254", "10.0.2.1"),
    ("fc00::", "fc00::1"),
    ("fc00::2", "fc00::4"),
    ("10.0.9.9", "10.0.9.9"),
];

#[derive(Clone, Debug)]
enum Step {
    Service(usize, Wish),
    Delete(usize),
    /// Seconds pass.
    Wait(i64),
    Pools(Pools, OnAddressLoss),
    Namespace(bool),
    /// The status writer catches up.
    Write,
    /// A new leader sees the statuses as they are: some may not have been written.
    NewLeader,
}

/// Which pool each range belongs to, and a pool's properties. `None`: the range is in no pool.
#[derive(Clone, Debug)]
struct Pools {
    owner: Vec<Option<usize>>,
    manual: Vec<bool>,
    buggy: Vec<bool>,
    allocation: Vec<Option<(Option<i64>, bool, bool)>>,
    policies: Vec<Option<Terms>>,
    reservations: Vec<Kept>,
    /// The same for every pool and throughout a history: so it is known by which rules Services came to share.
    sharing: SharingRules,
    unknown: bool,
}

/// What a PoolPolicy says.
#[derive(Clone, Debug)]
struct Terms {
    strategy: PoolStrategy,
    quota: Option<u64>,
    withheld: Option<usize>,
    several: bool,
    pair: Option<usize>,
}

/// A reservation: of a range or a number, in a pool, for whom.
#[derive(Clone, Debug)]
struct Kept {
    pool: usize,
    range: Option<usize>,
    count: u64,
    v4: bool,
    gold: bool,
    name: usize,
    release_after_s: Option<u64>,
}

#[derive(Clone, Debug)]
struct Wish {
    ours: bool,
    families: (bool, bool),
    policy: Option<FamilyPolicy>,
    ports: BTreeSet<u16>,
    key: Option<&'static str>,
    local: Option<&'static str>,
    pool: Option<&'static str>,
    ips: Option<&'static str>,
    several: bool,
    gold: bool,
    created_s: i64,
}

const POOLS: [&str; 3] = ["p", "q", "r"];

fn any_terms() -> impl Strategy<Value = Terms> {
    let strategy = select(vec![PoolStrategy::First, PoolStrategy::LeastRecentlyUsed, PoolStrategy::HashedByName]);
    let quota = option::weighted(0.4, 0u64..4);
    (strategy, quota, option::weighted(0.2, 0..RANGES.len()), any::<bool>(), option::of(0..POOLS.len()))
        .prop_map(|(strategy, quota, withheld, several, pair)| Terms { strategy, quota, withheld, several, pair })
}

fn any_kept() -> impl Strategy<Value = Kept> {
    let what = (option::weighted(0.6, 0..RANGES.len()), 1u64..3, any::<bool>());
    (0..POOLS.len(), what, (any::<bool>(), 0..NAMES.len()), option::weighted(0.4, 1u64..4)).prop_map(
        |(pool, (range, count, v4), (gold, name), release_after_s)| Kept {
            pool,
            range,
            count,
            v4,
            gold,
            name,
            release_after_s,
        },
    )
}

fn any_sharing() -> impl Strategy<Value = SharingRules> {
    (proptest::bool::weighted(0.2), proptest::bool::weighted(0.3))
        .prop_map(|(same_namespace, mixed)| SharingRules { same_namespace, mixed })
}

fn any_pools() -> impl Strategy<Value = Pools> {
    let allocation = option::weighted(0.3, (option::of(1i64..3), any::<bool>(), any::<bool>()));
    (
        vec(option::weighted(0.8, 0usize..POOLS.len()), RANGES.len()),
        vec(proptest::bool::weighted(0.2), POOLS.len()),
        vec(any::<bool>(), POOLS.len()),
        vec(allocation, POOLS.len()),
        vec(option::of(any_terms()), POOLS.len()),
        vec(any_kept(), 0..3),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(owner, manual, buggy, allocation, policies, reservations, unknown)| Pools {
            owner,
            manual,
            buggy,
            allocation,
            policies,
            reservations,
            sharing: SharingRules::default(),
            unknown,
        })
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let policy = select(vec![
        None,
        Some(FamilyPolicy::PreferDualStack),
        Some(FamilyPolicy::RequireDualStack),
        Some(FamilyPolicy::SingleStack),
    ]);
    let ips = select(vec![
        "10.0.0.1",
        "fc00::2",
        "10.0.0.3,fc00::3",
        "10.0.1.255",
        "nonsense",
        "192.0.2.1",
        "10.0.0.0,10.0.0.1",
    ]);
    (
        proptest::bool::weighted(0.9),
        select(vec![(true, false), (true, false), (false, true), (true, true), (true, true), (false, false)]),
        policy,
        proptest::collection::btree_set(1u16..5, 0..3),
        option::weighted(0.5, select(vec!["k", "l"])),
        option::weighted(0.2, select(vec!["app=x", "app=y"])),
        option::weighted(0.2, select(vec!["p", "q", "x"])),
        option::weighted(0.2, ips),
        (any::<bool>(), 0i64..3, proptest::bool::weighted(0.2)),
    )
        .prop_map(|(ours, families, policy, ports, key, local, pool, ips, (gold, created_s, several))| Wish {
            ours,
            families,
            policy,
            ports,
            key,
            local,
            pool,
            ips,
            several,
            gold,
            created_s,
        })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..NAMES.len(), any_wish()).prop_map(|(name, wish)| Step::Service(name, wish)),
        3 => (0..NAMES.len()).prop_map(Step::Delete),
        2 => (any_pools(), select(vec![OnAddressLoss::Hold, OnAddressLoss::Hold, OnAddressLoss::Move]))
            .prop_map(|(pools, loss)| Step::Pools(pools, loss)),
        1 => (1i64..4).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Namespace),
        3 => Just(Step::Write),
        1 => Just(Step::NewLeader),
    ]
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn range(index: usize) -> IpRange {
    IpRange { first: ip(RANGES[index].0), last: ip(RANGES[index].1) }
}

fn selector(key: &str, value: &str) -> LabelSelector {
    LabelSelector::new([(key.to_owned(), value.to_owned())], []).expect("a selector")
}

fn policy(pools: &Pools, index: usize) -> PoolPolicy {
    let terms = pools.policies[index].as_ref();
    PoolPolicy {
        name: format!("of-{}", POOLS[index]).into(),
        strategy: terms.map(|t| t.strategy).unwrap_or_default(),
        quotas: terms
            .and_then(|t| t.quota)
            .map(|max| Quota { namespaces: selector("team", "x"), addresses_max: max })
            .into_iter()
            .collect(),
        no_new_addresses: terms.and_then(|t| t.withheld).map(range).into_iter().collect(),
        addresses_per_family_max: if terms.is_some_and(|t| t.several) { 2 } else { 1 },
        pair_with: terms.and_then(|t| t.pair).map(|pair| POOLS[pair].into()),
        sharing: pools.sharing,
        releases: Arc::default(),
    }
}

fn reservation(index: usize, kept: &Kept) -> Reservation {
    let family = if kept.v4 { IpFamily::V4 } else { IpFamily::V6 };
    let mut whom = ReservedFor::default();
    if kept.gold {
        whom.service_selector = Some(selector("tier", "gold"));
    } else {
        whom.services.insert(NAMES[kept.name].parse().expect("a key"));
    }
    Reservation {
        name: format!("r{index}").into(),
        pool: POOLS[kept.pool].into(),
        reserved: kept.range.map_or(Reserved::Count(kept.count, family), |at| Reserved::Addresses(vec![range(at)])),
        for_whom: whom,
        release_after: kept.release_after_s.map(std::time::Duration::from_secs),
        releases: Arc::default(),
    }
}

fn config(pools: &Pools) -> Config {
    let mut config = Config::default();
    for (index, name) in POOLS.iter().enumerate() {
        let owned = (0..RANGES.len()).filter(|at| pools.owner[*at] == Some(index));
        let ranges: Vec<IpRange> = owned.map(range).collect();
        if ranges.is_empty() {
            continue;
        }
        let pool = Pool {
            name: (*name).into(),
            labels: Labels::default(),
            written: ranges.clone(),
            ranges,
            auto_assign: !pools.manual[index],
            avoid_buggy_ips: pools.buggy[index],
            allocation: pools.allocation[index].map(|(priority, by_namespace, by_service)| ServiceAllocation {
                priority,
                namespace_selectors: if by_namespace { vec![selector("team", "x")] } else { Vec::new() },
                service_selectors: if by_service { vec![selector("tier", "gold")] } else { Vec::new() },
                ..ServiceAllocation::default()
            }),
            policy: Some(Arc::new(policy(pools, index))),
        };
        config.pools.insert((*name).into(), Arc::new(pool));
    }
    for (index, kept) in pools.reservations.iter().enumerate() {
        let reservation = reservation(index, kept);
        config.reservations.insert(reservation.name.clone(), Arc::new(reservation));
    }
    if pools.unknown {
        config.pools_unknown.insert("x".into(), Labels::default());
    }
    config.index();
    config
}

/// The configuration as it is read back with what the statuses remember.
fn remember(config: &mut Config, memory: &Memory) {
    for pool in config.pools.values_mut() {
        let Some(policy) = &pool.policy else { continue };
        let releases = memory.releases.get(&policy.name).cloned().unwrap_or_default();
        let policy = PoolPolicy { releases: releases.into(), ..(**policy).clone() };
        *pool = Arc::new(Pool { policy: Some(Arc::new(policy)), ..(**pool).clone() });
    }
    for (name, reservation) in &mut config.reservations {
        let holders = memory.holders.get(name).cloned().unwrap_or_default();
        let gone = holders.iter().filter_map(|h| Some((h, h.released_s?)));
        let releases = gone
            .flat_map(|(h, at_s)| h.ips.iter().map(move |ip| Release { at_s, ip: *ip, service: h.service.clone() }));
        *reservation = Arc::new(Reservation { releases: releases.collect(), ..(**reservation).clone() });
    }
    config.index();
}

fn service(name: &str, uid: u64, wish: &Wish) -> Service {
    let key: ServiceKey = name.parse().expect("a key");
    let mut service = Service::load_balancer(key.namespace(), key.name());
    let text = |value: Option<&str>| value.map(|v| AnnotationText { value: v.into(), deprecated: false });
    service.uid = format!("{uid}").into();
    service.created_s = wish.created_s;
    service.is_load_balancer = wish.ours;
    service.cluster_ips.extend(wish.families.0.then(|| ip("10.96.0.1")));
    service.cluster_ips.extend(wish.families.1.then(|| ip("fd00::1")));
    service.families = service.cluster_ips.iter().map(|ip| IpFamily::of(*ip)).collect();
    service.family_policy = wish.policy;
    service.ports = wish.ports.iter().map(|number| Port { protocol: Protocol::Tcp, number: *number }).collect();
    service.annotations.allow_shared_ip = text(wish.key);
    service.annotations.address_pool = text(wish.pool);
    service.annotations.load_balancer_ips = text(wish.ips);
    service.annotations.addresses_per_family = text(wish.several.then_some("2"));
    if let Some(selector) = wish.local {
        (service.traffic_policy, service.selector) = (TrafficPolicy::Local, selector.into());
    }
    if wish.gold {
        service.labels = [("tier", "gold")].into_iter().collect();
    }
    service
}

/// Addresses, pool, code.
type Facts = (Vec<IpAddr>, Option<Arc<str>>, &'static str);

/// A cluster with its current leader.
struct World {
    config: Arc<Config>,
    namespaces: BTreeMap<Arc<str>, Arc<Labels>>,
    services: BTreeMap<ServiceKey, Arc<Service>>,
    told: BTreeMap<ServiceKey, Arc<Outcome>>,
    told_uids: BTreeMap<ServiceKey, Arc<str>>,
    allocator: Allocator,
    /// Fed with the same; must say the same.
    twin: Allocator,
    uids: u64,
    now_s: i64,
    sharing: SharingRules,
    /// Addresses that were in no pool at a restart: by which rules they are shared, nobody knows.
    forgotten: BTreeSet<IpAddr>,
}

impl World {
    fn new(pools: &Pools) -> Self {
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
    fn everything(&self) -> Vec<Change> {
        let services = self.services.iter().map(|(k, s)| Change::Service(k.clone(), Some(s.clone())));
        let namespaces = self.namespaces.iter().map(|(n, l)| Change::Namespace(n.clone(), Some(l.clone())));
        services.chain(namespaces).chain([Change::Config(self.config.clone())]).collect()
    }

    fn apply(&mut self, changes: Vec<Change>) {
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

    fn step(&mut self, steps: &[Step]) {
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
    fn reconfigure(&mut self, pools: &Pools, loss: OnAddressLoss) {
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

    fn upsert(&mut self, name: &str, wish: &Wish) -> Change {
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
    fn write(&mut self) -> Vec<Change> {
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

    fn restart(&mut self) {
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
    fn facts(&self) -> BTreeMap<ServiceKey, Facts> {
        // Why a pool gives nothing is said as of the last attempt: since then others may have taken what was lacking least.
        let code = |code| match code {
            "quotaReached" | "tooManyAddresses" | "poolFamilyMissing" => "poolExhausted",
            other => other,
        };
        self.told.iter().map(|(k, o)| (k.clone(), (o.ips.clone(), o.pool.clone(), code(o.code)))).collect()
    }

    /// Invariant 1 of the design, and that the families are right.
    fn check_holders(&self) {
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
    fn is_ours(&self, ip: IpAddr) -> bool {
        let known = self.config.pool_of(ip).is_some() || self.config.former.contains_key(&ip);
        known || !self.config.pools_unknown.is_empty()
    }

    /// Nothing is in an outcome that is not in a pool, or held.
    fn check_pools(&self, key: &ServiceKey, outcome: &Outcome) {
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
    fn check_gains(&self, had: &BTreeMap<ServiceKey, Arc<Outcome>>) {
        for (key, outcome) in &self.told {
            let service = &self.services[key];
            let before = had.get(key).map_or(&[][..], |o| &o.ips);
            let gained = outcome.ips.iter().filter(|ip| !before.contains(ip) && !service.ingress.contains(ip));
            for ip in gained {
                self.check_gain(service, *ip);
            }
        }
    }

    fn check_gain(&self, service: &Service, ip: IpAddr) {
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
    fn check_numbers(&self, service: &Service, ip: IpAddr, pool: &Pool) {
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

    fn held(&self) -> impl Iterator<Item = (IpAddr, &ServiceKey)> {
        let of = |key: &ServiceKey, ip: &IpAddr| self.allocator.holders(*ip).contains(key);
        self.told.iter().flat_map(move |(key, o)| o.ips.iter().filter(move |ip| of(key, ip)).map(move |ip| (*ip, key)))
    }

    fn in_pool(&self, ip: IpAddr, pool: &str) -> bool {
        self.config.pool_of(ip).is_some_and(|p| *p.name == *pool)
    }

    fn avoided(&self, ip: IpAddr) -> bool {
        let last = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255));
        last(ip) && self.config.pool_of(ip).is_some_and(|p| p.avoid_buggy_ips)
    }

    fn reserved_by(&self, ip: IpAddr) -> Option<&Arc<Reservation>> {
        self.config.reservations.values().find(|r| {
            let listed =
                matches!(&r.reserved, Reserved::Addresses(list) if list.iter().any(|range| range.contains(ip)));
            listed && self.in_pool(ip, &r.pool)
        })
    }

    fn labels(&self, namespace: &str) -> Labels {
        self.namespaces.get(namespace).map(|labels| (**labels).clone()).unwrap_or_default()
    }

    /// The counts equal a count by hand.
    fn check_usage(&self) {
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
const LENIENT: SharingRules = SharingRules { same_namespace: false, mixed: true };

/// The addresses of a small pool.
fn addresses(pool: &Pool) -> Vec<IpAddr> {
    let all = RANGES.iter().flat_map(|(first, last)| match (ip(first), ip(last)) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits()..=b.to_bits()).map(|n| IpAddr::V4(n.into())).collect::<Vec<_>>(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits()..=b.to_bits()).map(|n| IpAddr::V6(n.into())).collect(),
        _ => unreachable!("one family per range"),
    });
    all.filter(|ip| pool.ranges.iter().any(|range| range.contains(*ip))).collect()
}

/// The sharing rule, written once more.
fn may_share(a: &Service, b: &Service, rules: SharingRules) -> bool {
    let key = |s: &Service| s.annotations.allow_shared_ip.as_ref().map(|k| k.value.clone());
    let backend = |s: &Service| if s.traffic_policy == TrafficPolicy::Local { s.selector.clone() } else { "".into() };
    key(a).is_some()
        && key(a) == key(b)
        && (rules.mixed || backend(a) == backend(b))
        && (!rules.same_namespace || a.key.namespace() == b.key.namespace())
        && a.ports.iter().all(|p| !b.ports.contains(p))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn addresses_are_exclusive_stable_and_given_whenever_they_can_be(
        pools in any_pools(),
        sharing in any_sharing(),
        history in vec(vec(any_step(), 1..4), 1..BATCHES_MAX),
    ) {
        let mut world = World::new(&Pools { sharing, ..pools });
        for steps in &history {
            world.step(steps);
            world.check_holders();
            world.check_usage();
            let again = world.everything();
            prop_assert_eq!(world.allocator.apply(again.clone(), world.now_s), vec![], "applying the same again");
            prop_assert_eq!(world.twin.apply(again, world.now_s), vec![]);
        }
        // A restart moves nothing, and finds nobody waiting for what was free all the time.
        let before = world.facts();
        let written = world.write();
        world.apply(written);
        prop_assert_eq!(&world.facts(), &before, "what Ferrocast wrote itself changes nothing");
        let memory = world.allocator.memory();
        world.restart();
        prop_assert_eq!(&world.facts(), &before, "restart");
        prop_assert_eq!(world.allocator.memory(), memory, "memory");
        prop_assert_eq!(world.allocator.due_s(), world.twin.due_s());
    }

    #[test]
    fn growth_and_renaming_of_pools_move_no_address(
        pools in any_pools(),
        wishes in vec((0..NAMES.len(), any_wish()), 1..NAMES.len()),
        rename in any::<bool>(),
    ) {
        let everybody = Pools { allocation: vec![None; POOLS.len()], unknown: false, ..pools };
        let mut world = World::new(&everybody);
        let wishes = wishes.into_iter().map(|(name, wish)| (name, Wish { pool: None, ..wish }));
        world.step(&wishes.map(|(name, wish)| Step::Service(name, wish)).collect::<Vec<_>>());
        let before = world.facts();
        let mut changed = everybody;
        if rename {
            changed.owner.iter_mut().flatten().for_each(|owner| *owner = (*owner + 1) % POOLS.len());
            changed.manual.rotate_right(1);
            changed.buggy.rotate_right(1);
        } else {
            changed.owner.iter_mut().for_each(|owner| *owner = owner.or(Some(0)));
        }
        world.step(&[Step::Pools(changed, OnAddressLoss::Hold)]);
        for (key, (ips, ..)) in before {
            let after = &world.told[&key].ips;
            prop_assert!(ips.iter().all(|ip| after.contains(ip)), "{}: {:?} became {:?}", key, ips, after);
        }
    }

    #[test]
    fn strategy_gives_what_a_search_through_all_addresses_gives(
        strategy in select(vec![PoolStrategy::First, PoolStrategy::LeastRecentlyUsed, PoolStrategy::HashedByName]),
        owner in vec(option::weighted(0.8, Just(0usize)), RANGES.len()).prop_shuffle(),
        buggy in any::<bool>(),
        withheld in option::weighted(0.3, 0..RANGES.len()),
        events in vec((0..NAMES.len(), any::<bool>(), any::<bool>()), 0..40),
    ) {
        let terms = Terms { strategy, quota: None, withheld, several: false, pair: None };
        let pools = Pools {
            owner,
            manual: vec![false; POOLS.len()],
            buggy: vec![buggy; POOLS.len()],
            allocation: vec![None; POOLS.len()],
            policies: vec![Some(terms); POOLS.len()],
            reservations: Vec::new(),
            sharing: SharingRules::default(),
            unknown: false,
        };
        let config = config(&pools);
        prop_assume!(config.pools.contains_key("p"));
        let pool = config.pools["p"].clone();
        let mut allocator = Allocator::new(None);
        drop(allocator.apply(vec![Change::Config(Arc::new(config))], 0));
        let mut held: BTreeMap<ServiceKey, Option<IpAddr>> = BTreeMap::new();
        let mut releases: Vec<IpAddr> = Vec::new();
        for (name, present, v4) in events {
            let key: ServiceKey = NAMES[name].parse().expect("a key");
            if let Some(Some(ip)) = held.remove(&key) { releases.retain(|r| *r != ip); releases.push(ip); }
            drop(allocator.apply(vec![Change::Service(key.clone(), None)], 0));
            // Who waits takes what was given back at once; that is another test's matter.
            held.retain(|_, ip| ip.is_some());
            let waiting: Vec<ServiceKey> = NAMES.iter().map(|n| n.parse().expect("a key"))
                .filter(|k| allocator.outcome(k).is_some() && !held.contains_key(k)).collect();
            for key in waiting { drop(allocator.apply(vec![Change::Service(key, None)], 0)); }
            releases.retain(|ip| allocator.holders(*ip).is_empty());
            if !present { continue }
            let mut service = Service::load_balancer(key.namespace(), key.name());
            service.cluster_ips = vec![if v4 { ip("10.96.0.1") } else { ip("fd00::1") }];
            let taken: BTreeSet<IpAddr> = held.values().flatten().copied().collect();
            let want = search(&pool, &key, v4, &taken, &releases);
            drop(allocator.apply(vec![Change::Service(key.clone(), Some(Arc::new(service)))], 0));
            let got = allocator.outcome(&key).and_then(|o| o.ips.first().copied());
            prop_assert_eq!(got, want, "{}", key);
            if let Some(ip) = got { releases.retain(|r| *r != ip); }
            held.insert(key, got);
        }
    }
}

/// The address that a strategy gives, found by looking at each.
fn search(pool: &Pool, key: &ServiceKey, v4: bool, taken: &BTreeSet<IpAddr>, releases: &[IpAddr]) -> Option<IpAddr> {
    let policy = pool.policy.as_ref()?;
    let all: Vec<IpAddr> = addresses(pool).into_iter().filter(|ip| ip.is_ipv4() == v4).collect();
    let last = |ip: &IpAddr| matches!(ip, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255));
    let usable = |ip: &&IpAddr| !(taken.contains(ip) || policy.withholds(**ip) || pool.avoid_buggy_ips && last(ip));
    let mut sorted = all.clone();
    sorted.sort_unstable();
    match policy.strategy {
        PoolStrategy::First => sorted.iter().find(usable).copied(),
        PoolStrategy::LeastRecentlyUsed => {
            let fresh = sorted.iter().filter(usable).find(|ip| !releases.contains(ip));
            fresh.or_else(|| releases.iter().filter(|ip| ip.is_ipv4() == v4).find(usable)).copied()
        }
        PoolStrategy::HashedByName => {
            use sha2::Digest as _;
            let written: Vec<IpAddr> = pool
                .ranges
                .iter()
                .flat_map(|range| all.iter().copied().filter(|ip| range.contains(*ip)).collect::<Vec<_>>())
                .collect();
            let digest = sha2::Sha256::digest(key.as_str());
            let number = u128::from_be_bytes(digest[..16].try_into().expect("16 octets"));
            let start = usize::try_from(number % (written.len().max(1) as u128)).expect("small");
            written[start..].iter().chain(&written[..start]).find(usable).copied()
        }
    }
}
