//! Random histories of Services, pools, namespaces, restarts and leader changes.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ferrocast_core::{
    alloc::{Allocator, Change, Outcome},
    config::{Config, IpRange, Pool, ServiceAllocation},
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
    Pools(Pools),
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
    unknown: bool,
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
    gold: bool,
    created_s: i64,
}

const POOLS: [&str; 3] = ["p", "q", "r"];

fn any_pools() -> impl Strategy<Value = Pools> {
    let allocation = option::weighted(0.3, (option::of(1i64..3), any::<bool>(), any::<bool>()));
    (
        vec(option::weighted(0.8, 0usize..POOLS.len()), RANGES.len()),
        vec(proptest::bool::weighted(0.2), POOLS.len()),
        vec(any::<bool>(), POOLS.len()),
        vec(allocation, POOLS.len()),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(owner, manual, buggy, allocation, unknown)| Pools {
            owner,
            manual,
            buggy,
            allocation,
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
    let ips = select(vec!["10.0.0.1", "fc00::2", "10.0.0.3,fc00::3", "10.0.1.255", "nonsense", "192.0.2.1"]);
    (
        proptest::bool::weighted(0.9),
        select(vec![(true, false), (true, false), (false, true), (true, true), (true, true), (false, false)]),
        policy,
        proptest::collection::btree_set(1u16..5, 0..3),
        option::weighted(0.5, select(vec!["k", "l"])),
        option::weighted(0.2, select(vec!["app=x", "app=y"])),
        option::weighted(0.2, select(vec!["p", "q", "x"])),
        option::weighted(0.2, ips),
        (any::<bool>(), 0i64..3),
    )
        .prop_map(|(ours, families, policy, ports, key, local, pool, ips, (gold, created_s))| Wish {
            ours,
            families,
            policy,
            ports,
            key,
            local,
            pool,
            ips,
            gold,
            created_s,
        })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..NAMES.len(), any_wish()).prop_map(|(name, wish)| Step::Service(name, wish)),
        3 => (0..NAMES.len()).prop_map(Step::Delete),
        2 => any_pools().prop_map(Step::Pools),
        1 => any::<bool>().prop_map(Step::Namespace),
        3 => Just(Step::Write),
        1 => Just(Step::NewLeader),
    ]
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn config(pools: &Pools) -> Config {
    let mut config = Config::default();
    for (index, name) in POOLS.iter().enumerate() {
        let owned = RANGES.iter().zip(&pools.owner).filter(|(_, owner)| **owner == Some(index));
        let ranges: Vec<IpRange> = owned.map(|((a, b), _)| IpRange { first: ip(a), last: ip(b) }).collect();
        if ranges.is_empty() {
            continue;
        }
        let selector = |key: &str, value: &str| {
            vec![LabelSelector::new([(key.to_owned(), value.to_owned())], []).expect("a selector")]
        };
        let pool = Pool {
            name: (*name).into(),
            labels: Labels::default(),
            written: ranges.clone(),
            ranges,
            auto_assign: !pools.manual[index],
            avoid_buggy_ips: pools.buggy[index],
            allocation: pools.allocation[index].map(|(priority, by_namespace, by_service)| ServiceAllocation {
                priority,
                namespace_selectors: if by_namespace { selector("team", "x") } else { Vec::new() },
                service_selectors: if by_service { selector("tier", "gold") } else { Vec::new() },
                ..ServiceAllocation::default()
            }),
            policy: None,
        };
        config.pools.insert((*name).into(), Arc::new(pool));
    }
    if pools.unknown {
        config.pools_unknown.insert("x".into(), Labels::default());
    }
    config.index();
    config
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
        let effects = self.allocator.apply(changes.clone(), 0);
        assert_eq!(effects, self.twin.apply(changes, 0), "deterministic");
        assert!(effects.is_sorted_by(|a, b| a.0 < b.0), "each Service once, in key order");
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
                Step::Pools(pools) => {
                    self.config = Arc::new(config(pools));
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
        (self.allocator, self.twin) = (Allocator::new(None), Allocator::new(None));
        self.told.clear();
        self.apply(self.everything());
    }

    /// Addresses, pool and code of every Service.
    fn facts(&self) -> BTreeMap<ServiceKey, Facts> {
        self.told.iter().map(|(k, o)| (k.clone(), (o.ips.clone(), o.pool.clone(), o.code))).collect()
    }

    /// Invariant 1 of the design, and that the families are right.
    fn check_holders(&self) {
        let mut holders: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
        for (key, outcome) in &self.told {
            let service = &self.services[key];
            assert!(service.is_ours(None), "{key} is not ours");
            for ip in &outcome.ips {
                holders.entry(*ip).or_default().push(service);
                let pool = self.config.pool_of(*ip);
                assert!(pool.is_some() || !self.config.pools_unknown.is_empty(), "{key}: {ip} is in no pool");
            }
            if self.config.pools_unknown.is_empty() && !outcome.ips.is_empty() {
                let pools: BTreeSet<_> =
                    outcome.ips.iter().map(|ip| self.config.pool_of(*ip).map(|p| &p.name)).collect();
                assert_eq!(pools, [outcome.pool.as_ref()].into(), "{key}");
            }
            let v4 = outcome.ips.iter().filter(|ip| ip.is_ipv4()).count();
            assert!(v4 <= 1 && outcome.ips.len() - v4 <= 1 && outcome.ips.is_sorted(), "{key}: {:?}", outcome.ips);
            let both = service.cluster_ips.len() == 2 && service.family_policy != Some(FamilyPolicy::PreferDualStack);
            assert!(!both || outcome.ips.len() != 1, "{key}: {:?}", outcome.ips);
        }
        for (ip, services) in holders {
            let keys: Vec<ServiceKey> = services.iter().map(|s| s.key.clone()).collect();
            assert_eq!(self.allocator.holders(ip), keys, "{ip}");
            for (i, a) in services.iter().enumerate() {
                assert!(services[..i].iter().all(|b| may_share(a, b)), "{ip}: {keys:?}");
            }
        }
    }

    /// The counts equal a count by hand.
    fn check_usage(&self) {
        let held: BTreeSet<IpAddr> = self.told.values().flat_map(|o| o.ips.iter().copied()).collect();
        for (name, usage) in self.allocator.usage() {
            let used = |v4: bool| {
                let in_pool = |ip: &&IpAddr| self.config.pool_of(**ip).is_some_and(|p| p.name == name);
                held.iter().filter(|ip| ip.is_ipv4() == v4).filter(in_pool).count() as u64
            };
            assert_eq!((usage.used_v4, usage.used_v6), (used(true), used(false)), "{name}");
        }
    }
}

/// The sharing rule, written once more.
fn may_share(a: &Service, b: &Service) -> bool {
    let key = |s: &Service| s.annotations.allow_shared_ip.as_ref().map(|k| k.value.clone());
    let backend = |s: &Service| if s.traffic_policy == TrafficPolicy::Local { s.selector.clone() } else { "".into() };
    key(a).is_some() && key(a) == key(b) && backend(a) == backend(b) && a.ports.iter().all(|p| !b.ports.contains(p))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn addresses_are_exclusive_stable_and_given_whenever_they_can_be(
        pools in any_pools(),
        history in vec(vec(any_step(), 1..4), 1..BATCHES_MAX),
    ) {
        let mut world = World::new(&pools);
        for steps in &history {
            world.step(steps);
            world.check_holders();
            world.check_usage();
            let again = world.everything();
            prop_assert_eq!(world.allocator.apply(again.clone(), 0), vec![], "applying the same again");
            prop_assert_eq!(world.twin.apply(again, 0), vec![]);
        }
        // A restart moves nothing, and finds nobody waiting for what was free all the time.
        let before = world.facts();
        let written = world.write();
        world.apply(written);
        prop_assert_eq!(&world.facts(), &before, "what Ferrocast wrote itself changes nothing");
        world.restart();
        prop_assert_eq!(&world.facts(), &before, "restart");
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
        world.step(&[Step::Pools(changed)]);
        for (key, (ips, ..)) in before {
            let after = &world.told[&key].ips;
            prop_assert!(ips.iter().all(|ip| after.contains(ip)), "{}: {:?} became {:?}", key, ips, after);
        }
    }
}
