//! Random histories of Services, pools, namespaces, restarts and leader changes.
mod scene;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ferrocast_core::{
    alloc::{Allocator, Change},
    config::{OnAddressLoss, Pool, SharingRules, Strategy as PoolStrategy},
    model::{Service, ServiceKey},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    scene::{NAMES, POOLS, Pools, RANGES, Step, Terms, Wish, any_pools, any_sharing, any_step, any_wish, config, ip},
    world::{World, addresses},
};

/// Every history has at most this many batches; longer ones find nothing more, but take longer.
const BATCHES_MAX: usize = 24;

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
