//! Random histories of what is announced: kept in step equals made from scratch, and nothing is announced without a right.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ferrocast_core::{
    announce::{Community, Desired},
    config::{Advertisement, AnnouncerClass, BGP, Config, IpRange, Pool},
    decide::{Context, DesiredBuilder, decide},
    model::{Endpoints, Labels, Node, Service, ServiceKey, TrafficPolicy},
};
use proptest::{collection::vec, option, prelude::*};

#[derive(Clone, Debug)]
enum Step {
    /// Service, addresses (last octet), endpoints; `None`: it is gone.
    Service(u8, Option<(Vec<u8>, bool)>),
    /// Advertisements: length, local preference, community, restricted to a peer.
    Adverts(Vec<(u8, Option<u32>, u16, bool)>),
    /// The last octet up to which the pool reaches.
    Pool(u8),
    Look,
}

fn any_step() -> impl Strategy<Value = Step> {
    let service = option::weighted(0.8, (vec(0u8..20, 0..3), any::<bool>()));
    let advert = (prop_oneof![Just(32u8), Just(30), Just(28)], option::of(1u32..3), 0u16..2, any::<bool>());
    prop_oneof![
        6 => (0u8..6, service).prop_map(|(n, s)| Step::Service(n, s)),
        1 => vec(advert, 0..4).prop_map(Step::Adverts),
        1 => (0u8..20).prop_map(Step::Pool),
        3 => Just(Step::Look),
    ]
}

fn address(octet: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, octet])
}

fn pool(last: u8) -> Arc<Pool> {
    let range = IpRange { first: address(0), last: address(last) };
    Arc::new(Pool {
        name: "p".into(),
        labels: Labels::default(),
        ranges: vec![range],
        written: vec![range],
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
        policy: None,
    })
}

fn adverts(list: &[(u8, Option<u32>, u16, bool)]) -> BTreeMap<Arc<str>, Arc<Advertisement>> {
    let all = list.iter().enumerate().map(|(i, (length, local_pref, community, restricted))| Advertisement {
        name: format!("a{i}").into(),
        aggregation_length_v4: *length,
        aggregation_length_v6: 128,
        local_pref: *local_pref,
        communities: [Community::Standard(1, *community)].into(),
        pools: [].into(),
        pool_selectors: Vec::new(),
        node_selectors: Vec::new(),
        peers: restricted.then(|| "r".into()).into_iter().collect(),
        service_selectors: Vec::new(),
        parameters: None,
    });
    all.map(|a| (a.name.clone(), Arc::new(a))).collect()
}

/// The other announcer than BGP.
const OTHER: &str = "other";

/// Advertisements of one announcer; the other one has some of its own, which are nothing to this.
fn advertise(config: &mut Config, announcer: &str, own: BTreeMap<Arc<str>, Arc<Advertisement>>) {
    let foreign = Advertisement {
        name: "foreign".into(),
        aggregation_length_v4: 24,
        ..(*adverts(&[(32, None, 0, false)])["a0"]).clone()
    };
    let foreign = BTreeMap::from([(foreign.name.clone(), Arc::new(foreign))]);
    let (bgp, other) = if announcer == BGP { (own, foreign) } else { (foreign, own) };
    config.advertisements = bgp;
    let class = AnnouncerClass { name: OTHER.into(), advertisements: other, ..AnnouncerClass::default() };
    config.announcers = [(OTHER.into(), Arc::new(class))].into();
}

fn set_all(builder: &mut DesiredBuilder, services: &BTreeMap<ServiceKey, (Service, Endpoints)>, context: &Context) {
    for (key, (service, endpoints)) in services {
        builder.set(key, Some(&decide(service, *endpoints, context)));
    }
}

/// Invariant 3: whatever is announced covers an address that is in a status and in a pool; and an Advertisement of this announcer's,
/// no other's, asks for it.
fn check_right(desired: &Desired, services: &BTreeMap<ServiceKey, (Service, Endpoints)>, context: &Context) {
    let config = &context.config;
    let own = config.advertisements_of(&context.announcer).expect("it has some");
    for (prefix, announcement) in &desired.announcements {
        assert!(!announcement.services.is_empty() && !announcement.terms.is_empty(), "{prefix}");
        for terms in &*announcement.terms {
            let asks = own.get(&terms.advertisement).is_some_and(|a| a.aggregation_length_v4 == prefix.prefix_len());
            assert!(asks, "{prefix}: {:?} does not ask for it", terms.advertisement);
        }
        for key in &*announcement.services {
            let (service, endpoints) = services.get(key).expect("the Service exists");
            assert!(endpoints.anywhere > 0, "{prefix}: {key}");
            let right = |ip: &IpAddr| prefix.contains(ip) && config.pool_of(*ip).is_some();
            assert!(service.ingress.iter().any(right), "{prefix}: {key} has no right to it");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn desired_set_kept_in_step_equals_one_from_scratch(history in vec(any_step(), 1..40), announcer in prop_oneof![Just(BGP), Just(OTHER)]) {
        let mut config = Config { weight_interval: Some(Duration::from_secs(10)), pools: [("p".into(), pool(9))].into(), ..Config::default() };
        advertise(&mut config, announcer, adverts(&[(32, None, 0, false)]));
        let mut context = Context { class: None, announcer: announcer.into(), node: Arc::new(Node::default()), config: Arc::new(config), ignore_exclude_label: false };
        let mut services: BTreeMap<ServiceKey, (Service, Endpoints)> = BTreeMap::new();
        let mut builder = DesiredBuilder::default();
        let mut last = Desired::default();
        for step in history {
            match step {
                Step::Service(number, None) => {
                    let key = ServiceKey::new("d", &number.to_string());
                    services.remove(&key);
                    builder.set(&key, None);
                }
                Step::Service(number, Some((octets, serves))) => {
                    let mut service = Service::load_balancer("d", &number.to_string());
                    service.ingress = octets.into_iter().map(address).collect();
                    let here = if serves { u32::from(number) + 1 } else { 0 };
                    let endpoints = Endpoints { here, anywhere: here };
                    if number % 2 == 0 {
                        service.traffic_policy = TrafficPolicy::Local;
                    }
                    builder.set(&service.key.clone(), Some(&decide(&service, endpoints, &context)));
                    services.insert(service.key.clone(), (service, endpoints));
                }
                Step::Adverts(list) => {
                    advertise(Arc::make_mut(&mut context.config), announcer, adverts(&list));
                    set_all(&mut builder, &services, &context);
                }
                Step::Pool(octet) => {
                    Arc::make_mut(&mut context.config).pools = [("p".into(), pool(octet))].into();
                    set_all(&mut builder, &services, &context);
                }
                Step::Look => {
                    let desired = builder.desired();
                    check_right(&desired, &services, &context);
                    let mut fresh = DesiredBuilder::default();
                    set_all(&mut fresh, &services, &context);
                    prop_assert_eq!(&desired.announcements, &fresh.desired().announcements);
                    let changed = desired.announcements != last.announcements;
                    prop_assert_eq!(desired.generation, last.generation + u64::from(changed));
                    last = desired;
                }
            }
        }
    }
}
