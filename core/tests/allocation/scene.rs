//! What random histories are made of.
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ferrocast_core::{
    alloc::Memory,
    config::{
        Config, IpRange, OnAddressLoss, Pool, PoolPolicy, Quota, Release, Reservation, Reserved, ReservedFor,
        ServiceAllocation, SharingRules, Strategy as PoolStrategy,
    },
    model::{
        AnnotationText, FamilyPolicy, IpFamily, LabelSelector, Labels, Port, Protocol, Service, ServiceKey,
        TrafficPolicy,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Service names; few, so that edits, deletions and conflicts are frequent.
pub(crate) const NAMES: [&str; 8] = ["d/a", "d/b", "d/c", "d/e", "t/a", "t/b", "t/c", "t/e"];

/// Ranges that pools are made of; disjoint, so that any choice of pools is valid.
pub(crate) const RANGES: [(&str, &str); 6] = [
    ("10.0.0.0", "10.0.0.1"),
    ("10.0.0.2", "10.0.0.4"),
    ("10.0.1.254", "10.0.2.1"),
    ("fc00::", "fc00::1"),
    ("fc00::2", "fc00::4"),
    ("10.0.9.9", "10.0.9.9"),
];

#[derive(Clone, Debug)]
pub(crate) enum Step {
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
pub(crate) struct Pools {
    pub(crate) owner: Vec<Option<usize>>,
    pub(crate) manual: Vec<bool>,
    pub(crate) buggy: Vec<bool>,
    pub(crate) allocation: Vec<Option<(Option<i64>, bool, bool)>>,
    pub(crate) policies: Vec<Option<Terms>>,
    pub(crate) reservations: Vec<Kept>,
    /// The same for every pool and throughout a history: so it is known by which rules Services came to share.
    pub(crate) sharing: SharingRules,
    pub(crate) unknown: bool,
}

/// What a PoolPolicy says.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) strategy: PoolStrategy,
    pub(crate) quota: Option<u64>,
    pub(crate) withheld: Option<usize>,
    pub(crate) several: bool,
    pub(crate) pair: Option<usize>,
}

/// A reservation: of a range or a number, in a pool, for whom.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) pool: usize,
    pub(crate) range: Option<usize>,
    pub(crate) count: u64,
    pub(crate) v4: bool,
    pub(crate) gold: bool,
    pub(crate) name: usize,
    pub(crate) release_after_s: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) ours: bool,
    pub(crate) families: (bool, bool),
    pub(crate) policy: Option<FamilyPolicy>,
    pub(crate) ports: BTreeSet<u16>,
    pub(crate) key: Option<&'static str>,
    pub(crate) local: Option<&'static str>,
    pub(crate) pool: Option<&'static str>,
    pub(crate) ips: Option<&'static str>,
    pub(crate) several: bool,
    pub(crate) gold: bool,
    pub(crate) created_s: i64,
}

pub(crate) const POOLS: [&str; 3] = ["p", "q", "r"];

pub(crate) fn any_terms() -> impl Strategy<Value = Terms> {
    let strategy = select(vec![PoolStrategy::First, PoolStrategy::LeastRecentlyUsed, PoolStrategy::HashedByName]);
    let quota = option::weighted(0.4, 0u64..4);
    (strategy, quota, option::weighted(0.2, 0..RANGES.len()), any::<bool>(), option::of(0..POOLS.len()))
        .prop_map(|(strategy, quota, withheld, several, pair)| Terms { strategy, quota, withheld, several, pair })
}

pub(crate) fn any_kept() -> impl Strategy<Value = Kept> {
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

pub(crate) fn any_sharing() -> impl Strategy<Value = SharingRules> {
    (proptest::bool::weighted(0.2), proptest::bool::weighted(0.3))
        .prop_map(|(same_namespace, mixed)| SharingRules { same_namespace, mixed })
}

pub(crate) fn any_pools() -> impl Strategy<Value = Pools> {
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

pub(crate) fn any_wish() -> impl Strategy<Value = Wish> {
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

pub(crate) fn any_step() -> impl Strategy<Value = Step> {
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

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn range(index: usize) -> IpRange {
    IpRange { first: ip(RANGES[index].0), last: ip(RANGES[index].1) }
}

pub(crate) fn selector(key: &str, value: &str) -> LabelSelector {
    LabelSelector::new([(key.to_owned(), value.to_owned())], []).expect("a selector")
}

pub(crate) fn policy(pools: &Pools, index: usize) -> PoolPolicy {
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

pub(crate) fn reservation(index: usize, kept: &Kept) -> Reservation {
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

pub(crate) fn config(pools: &Pools) -> Config {
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
pub(crate) fn remember(config: &mut Config, memory: &Memory) {
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

pub(crate) fn service(name: &str, uid: u64, wish: &Wish) -> Service {
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
