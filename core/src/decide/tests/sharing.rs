//! Tests of addresses that Services of different traffic policies share.
use super::*;
use crate::{
    config::{PoolPolicy, SharingRules, Strategy},
    model::NodeId,
};

/// One of those who share an address: traffic policy, age in seconds, nodes with endpoints, label `app`.
type SharerCase = (&'static str, TrafficPolicy, i64, &'static [&'static str], &'static str);
/// The name of a case, the sharers, whether the policy is mixed, how the situation is edited, and the first sharer's decision on n1 and
/// n2: reason, and on whose account.
type SharingCase = (&'static str, &'static [SharerCase], bool, fn(&mut Situation), [(Reason, Option<&'static str>); 2]);

const CLUSTER: TrafficPolicy = TrafficPolicy::Cluster;
const LOCAL: TrafficPolicy = TrafficPolicy::Local;
const YES: (Reason, Option<&str>) = (Reason::Announced, None);

const SHARING: &[SharingCase] = &[
    ("nobody else", &[("d/a", CLUSTER, 1, &["n1"], "")], true, |_| {}, [YES, YES]),
    ("two Cluster", &[("d/a", CLUSTER, 1, &["n1"], ""), ("d/b", CLUSTER, 2, &["n2"], "")], true, |_| {}, [YES, YES]),
    (
        "Cluster beside Local goes where the Local one is",
        &[("d/a", CLUSTER, 1, &["n1", "n2"], ""), ("d/b", LOCAL, 2, &["n1"], "")],
        true,
        |_| {},
        [YES, (Reason::NoLocalEndpoints, Some("d/b"))],
    ),
    (
        "not where the policy says Same",
        &[("d/a", CLUSTER, 1, &["n1", "n2"], ""), ("d/b", LOCAL, 2, &["n1"], "")],
        false,
        |_| {},
        [YES, YES],
    ),
    (
        "Local beside Cluster is its own matter",
        &[("d/a", LOCAL, 1, &["n1"], ""), ("d/b", CLUSTER, 2, &["n2"], "")],
        true,
        |_| {},
        [YES, (Reason::NoLocalEndpoints, None)],
    ),
    (
        "two Local with a common node",
        &[("d/a", LOCAL, 1, &["n1", "n2"], ""), ("d/b", LOCAL, 2, &["n2", "n3"], "")],
        true,
        |_| {},
        [(Reason::NoLocalEndpoints, Some("d/b")), YES],
    ),
    (
        "two Local without a common node: the older decides",
        &[("d/a", LOCAL, 1, &["n1"], ""), ("d/b", LOCAL, 2, &["n2"], "")],
        true,
        |_| {},
        [YES, (Reason::NoLocalEndpoints, None)],
    ),
    (
        "two Local without a common node: the younger does not",
        &[("d/a", LOCAL, 2, &["n1"], ""), ("d/b", LOCAL, 1, &["n2"], "")],
        true,
        |_| {},
        [(Reason::SharedNoCommonNode, Some("d/b")), (Reason::NoLocalEndpoints, None)],
    ),
    (
        "of equal age the name decides",
        &[("d/b", LOCAL, 1, &["n1"], ""), ("d/a", LOCAL, 1, &["n2"], "")],
        true,
        |_| {},
        [(Reason::SharedNoCommonNode, Some("d/a")), (Reason::NoLocalEndpoints, None)],
    ),
    (
        "Cluster beside two Local without a common node, the Cluster one the oldest",
        &[("d/a", CLUSTER, 1, &["n3"], ""), ("d/b", LOCAL, 2, &["n1"], ""), ("d/c", LOCAL, 3, &["n2"], "")],
        true,
        |_| {},
        [YES, YES],
    ),
    (
        "Cluster beside two Local without a common node, the Cluster one the youngest",
        &[("d/a", CLUSTER, 9, &["n3"], ""), ("d/b", LOCAL, 2, &["n1"], ""), ("d/c", LOCAL, 3, &["n2"], "")],
        true,
        |_| {},
        [(Reason::SharedNoCommonNode, Some("d/b")); 2],
    ),
    (
        "a sharer without endpoints does not count",
        &[("d/a", CLUSTER, 2, &["n1"], ""), ("d/b", LOCAL, 1, &[], "")],
        true,
        |_| {},
        [YES, YES],
    ),
    (
        "a sharer whose endpoints are on no node decides nothing away from it",
        &[("d/a", CLUSTER, 1, &["n1"], ""), ("d/b", LOCAL, 2, &["n3"], "")],
        true,
        |_| {},
        [(Reason::NoLocalEndpoints, Some("d/b")); 2],
    ),
    (
        "an own reason comes first",
        &[("d/a", CLUSTER, 2, &[], ""), ("d/b", LOCAL, 1, &["n1"], "")],
        true,
        |_| {},
        [(Reason::NoEndpoints, None); 2],
    ),
    (
        "a sharer that nobody advertises has no node in common: the older decides",
        &[("d/a", CLUSTER, 1, &["n1"], "x"), ("d/b", CLUSTER, 2, &["n1"], "y")],
        true,
        |s| s.adverts([Advertisement { service_selectors: vec![selector("app", "x")], ..advert("a") }]),
        [YES, YES],
    ),
    (
        "a sharer that nobody advertises, and is older",
        &[("d/a", CLUSTER, 3, &["n1"], "x"), ("d/b", CLUSTER, 2, &["n1"], "y")],
        true,
        |s| s.adverts([Advertisement { service_selectors: vec![selector("app", "x")], ..advert("a") }]),
        [(Reason::SharedNoCommonNode, Some("d/b")); 2],
    ),
    (
        "what keeps a sharer off this node keeps the others too",
        &[("d/a", CLUSTER, 1, &["n1"], "x"), ("d/b", CLUSTER, 2, &["n1"], "y")],
        true,
        |s| {
            let (app, rack) = (|v| vec![selector("app", v)], |v| vec![selector("rack", v)]);
            let one = Advertisement { service_selectors: app("x"), ..advert("a") };
            let other = Advertisement { service_selectors: app("y"), node_selectors: rack("z"), ..advert("b") };
            s.adverts([one, other]);
        },
        [(Reason::NoMatchingAdvertisement, Some("d/b")); 2],
    ),
];

/// Lets Services of different traffic policies share the pool's addresses.
fn mix(s: &mut Situation) {
    let policy = PoolPolicy {
        name: "mix".into(),
        strategy: Strategy::First,
        quotas: Vec::new(),
        no_new_addresses: Vec::new(),
        addresses_per_family_max: 1,
        pair_with: None,
        sharing: SharingRules { same_namespace: false, mixed: true },
        releases: Arc::default(),
    };
    let pool = s.config().pools.get_mut("p").map(Arc::make_mut).unwrap();
    pool.policy = Some(Arc::new(policy));
}

#[test]
fn shared_address_is_announced_where_every_sharer_may_be() {
    for (name, sharers, mixed, edit, want) in SHARING {
        let mut s = Situation::new();
        if *mixed {
            mix(&mut s);
        }
        edit(&mut s);
        let services: Vec<(Service, Vec<NodeId>, &[&str])> = sharers
            .iter()
            .map(|(key, traffic_policy, created_s, nodes, app)| {
                let mut service = Service { key: key.parse().unwrap(), ..s.service.clone() };
                (service.traffic_policy, service.created_s) = (*traffic_policy, *created_s);
                service.labels = [("app", *app)].into_iter().collect();
                let mut ids: Vec<_> = nodes.iter().map(|node| NodeId::of(node)).collect();
                ids.sort_unstable();
                (service, ids, *nodes)
            })
            .collect();
        for (node, (reason, because_of)) in ["n1", "n2"].iter().zip(want) {
            let parties: Vec<Party<'_>> = services
                .iter()
                .map(|(service, ids, nodes)| {
                    let here = u32::from(nodes.contains(node));
                    let endpoints = Endpoints { here, anywhere: u32::try_from(nodes.len()).unwrap() };
                    Party { service, endpoints, nodes: ids }
                })
                .collect();
            let decision = decide_among(parties[0], &parties[1..], &s.context);
            let address = &decision.addresses[0];
            let because = address.because_of.as_ref().map(ServiceKey::as_str);
            assert_eq!((address.reason, because), (*reason, *because_of), "{name}, {node}");
            let words = message(address, parties[0], &parties[1..], &s.context);
            assert!(because.is_none_or(|key| words.contains(key)), "{name}, {node}: {words}");
        }
    }
}

#[test]
fn sharers_are_known_while_a_policy_mixes() {
    let mut s = Situation::new();
    let ips = |octets: &[u8]| octets.iter().map(|o| IpAddr::from([10, 0, 0, *o])).collect::<Vec<_>>();
    let [a, b, c] = ["d/a", "d/b", "d/c"].map(|key| key.parse::<ServiceKey>().unwrap());
    let mut sharers = Sharers::default();
    sharers.set(&a, &ips(&[1]), &s.context.config);
    assert!(sharers.is_empty(), "no policy mixes");
    mix(&mut s);
    let config = &s.context.config;
    assert_eq!(sharers.set(&a, &ips(&[1, 2]), config), [].into());
    assert_eq!(sharers.set(&b, &ips(&[2]), config), [a.clone()].into());
    assert_eq!(sharers.set(&c, &ips(&[1]), config), [a.clone()].into());
    assert_eq!((sharers.of(&a), sharers.of(&b)), ([b.clone(), c.clone()].into(), [a.clone()].into()));
    assert_eq!(sharers.set(&a, &ips(&[2]), config), [b.clone(), c.clone()].into(), "before and now");
    assert_eq!(sharers.of(&c), [].into());
    for key in [&a, &b, &c] {
        sharers.set(key, &[], config);
    }
    assert!(sharers.is_empty());
}
