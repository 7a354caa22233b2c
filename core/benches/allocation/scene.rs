//! Pools and Services to measure with.
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ferrocast_core::{
    alloc::Change,
    config::{
        Config, FormerPool, IpRange, Pool, PoolPolicy, Quota, Reservation, Reserved, ReservedFor, SharingRules,
        Strategy,
    },
    model::{AnnotationText, LabelSelector, Labels, Port, Protocol, Service, ServiceKey},
};

/// Namespaces that the Services are spread over.
const NAMESPACES: u32 = 1_000;
/// Ranges of the scene with many.
const RANGES: u32 = 500;

/// A pool and what its Services are like.
#[derive(Clone)]
pub(crate) struct Scene {
    strategy: Strategy,
    ranges: Vec<IpRange>,
    avoid_buggy_ips: bool,
    v6: bool,
    /// So many Services share an address, in rows.
    pub(crate) sharers: u32,
    one_key: bool,
    reservations: u32,
}

impl Scene {
    fn new(strategy: Strategy, ranges: Vec<IpRange>) -> Self {
        let v6 = ranges[0].first.is_ipv6();
        Self { strategy, ranges, avoid_buggy_ips: !v6, v6, sharers: 1, one_key: false, reservations: 0 }
    }

    pub(crate) fn of_slash_8(strategy: Strategy) -> Self {
        Self::new(strategy, vec![v4(0x0a00_0000, 0x0aff_ffff)])
    }

    pub(crate) fn of_slash_64(strategy: Strategy) -> Self {
        let (first, last) = (0xfd00_u128 << 112, (0xfd00_u128 << 112) + u128::from(u64::MAX));
        Self::new(strategy, vec![IpRange { first: Ipv6Addr::from(first).into(), last: Ipv6Addr::from(last).into() }])
    }

    /// Ranges with gaps, twice as many addresses as are used.
    pub(crate) fn of_ranges(strategy: Strategy, used: u32) -> Self {
        let size = used * 2 / RANGES;
        let first = |n: u32| 0x0a00_0000 + n * (size + 1_000);
        Self::new(strategy, (0..RANGES).rev().map(|n| v4(first(n), first(n) + size - 1)).collect())
    }

    /// Exactly as many addresses as are used: each one that is given back is the only one.
    pub(crate) fn full(strategy: Strategy, used: u32) -> Self {
        let mut scene = Self::new(strategy, vec![v4(0x0a00_0000, 0x0a00_0000 + used - 1)]);
        scene.avoid_buggy_ips = false;
        scene
    }

    pub(crate) fn shared_by(self, sharers: u32) -> Self {
        Self { sharers, ..self }
    }

    pub(crate) fn one_key(self) -> Self {
        Self { one_key: true, ..self }
    }

    pub(crate) fn reserved(self, reservations: u32) -> Self {
        Self { reservations, ..self }
    }

    pub(crate) fn change(&self) -> Change {
        Change::Config(Arc::new(self.config()))
    }

    /// The pool is gone; IPv4 addresses that it gave out are held, IPv6 addresses are nobody's.
    pub(crate) fn held(&self) -> Change {
        let mut config = self.config();
        let former = Arc::new(FormerPool { name: "p".into(), labels: Labels::default() });
        config.pools.clear();
        config.reservations.clear();
        config.index();
        if !self.v6 {
            let first = self.ranges.iter().map(|range| range.first).min();
            if let Some(IpAddr::V4(first)) = first {
                let ips = (0..1_000_000).map(|n| IpAddr::from(Ipv4Addr::from_bits(first.to_bits().saturating_add(n))));
                config.former = ips.map(|ip| (ip, former.clone())).collect();
            }
        }
        Change::Config(Arc::new(config))
    }

    fn config(&self) -> Config {
        let quotas = (0..self.reservations).map(|n| Quota {
            namespaces: LabelSelector::new([("kubernetes.io/metadata.name".to_owned(), format!("n{n}"))], [])
                .expect("a selector"),
            addresses_max: u64::MAX,
        });
        let policy = PoolPolicy {
            name: "p".into(),
            strategy: self.strategy,
            quotas: quotas.collect(),
            no_new_addresses: Vec::new(),
            addresses_per_family_max: 1,
            pair_with: None,
            sharing: SharingRules::default(),
            releases: Arc::default(),
        };
        let pool = Pool {
            name: "p".into(),
            labels: Labels::default(),
            ranges: self.ranges.clone(),
            written: self.ranges.clone(),
            auto_assign: true,
            avoid_buggy_ips: self.avoid_buggy_ips,
            allocation: None,
            policy: Some(Arc::new(policy)),
        };
        let mut config = Config::default();
        config.pools.insert("p".into(), Arc::new(pool));
        for n in 0..self.reservations {
            let first = 0x0a00_0000 + n * 3_000;
            let reservation = Reservation {
                name: format!("r{n:05}").into(),
                pool: "p".into(),
                reserved: Reserved::Addresses(vec![v4(first, first + 500)]),
                for_whom: ReservedFor { namespaces: [format!("n{n}").into()].into(), ..ReservedFor::default() },
                release_after: None,
                releases: Arc::default(),
            };
            config.reservations.insert(reservation.name.clone(), Arc::new(reservation));
        }
        config.index();
        config
    }
}

fn v4(first: u32, last: u32) -> IpRange {
    IpRange { first: Ipv4Addr::from_bits(first).into(), last: Ipv4Addr::from_bits(last).into() }
}

fn key(n: u32) -> ServiceKey {
    ServiceKey::new(&format!("n{}", n % NAMESPACES), &format!("service-{n}"))
}

/// A Service that comes.
pub(crate) fn service(scene: &Scene, n: u32) -> Change {
    let key = key(n);
    let mut service = Service::load_balancer(key.namespace(), key.name());
    service.uid = format!("uid-{n}").into();
    service.cluster_ips = vec![if scene.v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }];
    let text = |value: String| Some(AnnotationText { value: value.into(), deprecated: false });
    let number = if scene.sharers > 1 { u16::try_from(n % scene.sharers).unwrap_or(0) + 80 } else { 80 };
    service.ports = vec![Port { protocol: Protocol::Tcp, number }];
    if scene.one_key {
        service.annotations.allow_shared_ip = text("everybody".to_owned());
    } else if scene.sharers > 1 {
        service.annotations.allow_shared_ip = text(format!("key-{}", n / scene.sharers));
    }
    Change::Service(service.key.clone(), Some(Arc::new(service)))
}

/// The first `count` Services that come, `batch_len` at a time. Each batch is just made when it is asked for, as by a watch: it is warm.
pub(crate) fn batches(scene: &Scene, count: u32, batch_len: usize) -> impl Iterator<Item = Vec<Change>> {
    let mut coming = (0..count).map(|n| service(scene, n));
    std::iter::from_fn(move || {
        Some(coming.by_ref().take(batch_len).collect()).filter(|batch: &Vec<_>| !batch.is_empty())
    })
}

/// A Service that goes.
pub(crate) fn removed(n: u32) -> Change {
    Change::Service(key(n), None)
}
