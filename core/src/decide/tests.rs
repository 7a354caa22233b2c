//! Tests of decisions: every reason, and which of two comes first.
mod sharing;

use std::collections::BTreeSet;

use super::*;
use crate::{
    config::{BGP, FormerPool, IpRange, Pool},
    model::{AnnotationText, EXCLUDE_LABEL, LabelSelector},
};

/// What a case changes in a situation where the address is announced.
struct Situation {
    service: Service,
    endpoints: Endpoints,
    context: Context,
}

pub(super) fn selector(key: &str, value: &str) -> LabelSelector {
    LabelSelector::new([(key.to_owned(), value.to_owned())], []).unwrap()
}

pub(super) fn advert(name: &str) -> Advertisement {
    Advertisement {
        name: name.into(),
        aggregation_length_v4: 32,
        aggregation_length_v6: 128,
        local_pref: None,
        communities: BTreeSet::new(),
        pools: BTreeSet::new(),
        pool_selectors: Vec::new(),
        node_selectors: Vec::new(),
        peers: BTreeSet::new(),
        service_selectors: Vec::new(),
        parameters: None,
    }
}

impl Situation {
    fn new() -> Self {
        let range = IpRange { first: "10.0.0.0".parse().unwrap(), last: "10.0.0.255".parse().unwrap() };
        let pool = Pool {
            name: "p".into(),
            labels: [("tier", "gold")].into_iter().collect(),
            ranges: vec![range],
            written: vec![range],
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: None,
            policy: None,
        };
        let config = Config { pools: [("p".into(), Arc::new(pool))].into(), ..Config::default() };
        let node = Node { name: "n".into(), labels: [("rack", "a")].into_iter().collect(), ..Node::default() };
        let service = Service { ingress: vec!["10.0.0.7".parse().unwrap()], ..Service::load_balancer("d", "web") };
        let context = Context {
            class: None,
            announcer: BGP.into(),
            node: Arc::new(node),
            config: Arc::new(config),
            ignore_exclude_label: false,
        };
        let mut situation = Self { service, endpoints: Endpoints { here: 1, anywhere: 2 }, context };
        situation.adverts([advert("a")]);
        situation
    }

    fn adverts(&mut self, adverts: impl IntoIterator<Item = Advertisement>) {
        let adverts = adverts.into_iter().map(|a| (a.name.clone(), Arc::new(a))).collect();
        Arc::make_mut(&mut self.context.config).advertisements = adverts;
    }

    fn node(&mut self) -> &mut Node {
        Arc::make_mut(&mut self.context.node)
    }

    fn config(&mut self) -> &mut Config {
        Arc::make_mut(&mut self.context.config)
    }

    fn decide(&self) -> Decision {
        decide(&self.service, self.endpoints, &self.context)
    }
}

/// How a case differs, and the reason that follows.
type Cause = (fn(&mut Situation), Reason);
/// The name of a case, how it differs, and the reason.
type Case = (&'static str, fn(&mut Situation), Reason);

const CASES: &[Case] = &[
    ("nothing special", |_| {}, Reason::Announced),
    ("not a load balancer", |s| s.service.is_load_balancer = false, Reason::NotLoadBalancer),
    ("another class", |s| s.service.class = Some("x".into()), Reason::NotLoadBalancer),
    ("no class where one is served", |s| s.context.class = Some("x".into()), Reason::NotLoadBalancer),
    ("no address", |s| s.service.ingress.clear(), Reason::NoIpAllocated),
    ("loopback", |s| s.service.ingress = vec!["127.0.0.1".parse().unwrap()], Reason::InvalidIp),
    ("link-local", |s| s.service.ingress = vec!["fe80::1".parse().unwrap()], Reason::InvalidIp),
    ("hostname only", |s| (s.service.ingress.clear(), s.service.ingress_foreign = true).1, Reason::InvalidIp),
    ("outside the pools", |s| s.service.ingress = vec!["10.0.1.0".parse().unwrap()], Reason::IpNotAllowed),
    ("no pool", |s| s.config().pools.clear(), Reason::IpNotAllowed),
    ("no advertisement", |s| s.adverts([]), Reason::NotOwner),
    (
        "advertisement of another pool",
        |s| s.adverts([Advertisement { pools: ["q".into()].into(), ..advert("a") }]),
        Reason::NotOwner,
    ),
    (
        "advertisement of the pool by name",
        |s| s.adverts([Advertisement { pools: ["p".into()].into(), ..advert("a") }]),
        Reason::Announced,
    ),
    (
        "advertisement of the pool by label",
        |s| s.adverts([Advertisement { pool_selectors: vec![selector("tier", "gold")], ..advert("a") }]),
        Reason::Announced,
    ),
    (
        "advertisement of another label",
        |s| s.adverts([Advertisement { pool_selectors: vec![selector("tier", "tin")], ..advert("a") }]),
        Reason::NotOwner,
    ),
    (
        "advertisement of other nodes",
        |s| s.adverts([Advertisement { node_selectors: vec![selector("rack", "b")], ..advert("a") }]),
        Reason::NotOwner,
    ),
    (
        "advertisement of this and other nodes",
        |s| {
            let node_selectors = vec![selector("rack", "b"), selector("rack", "a")];
            s.adverts([Advertisement { node_selectors, ..advert("a") }]);
        },
        Reason::Announced,
    ),
    (
        "advertisement of other Services",
        |s| s.adverts([Advertisement { service_selectors: vec![selector("app", "x")], ..advert("a") }]),
        Reason::NoMatchingAdvertisement,
    ),
    (
        "advertisement of this Service",
        |s| {
            s.service.labels = [("app", "x")].into_iter().collect();
            s.adverts([Advertisement { service_selectors: vec![selector("app", "x")], ..advert("a") }]);
        },
        Reason::Announced,
    ),
    ("conflict", conflict, Reason::ConflictingAdvertisements),
    (
        "no conflict for other peers",
        |s| {
            conflict(s);
            apart(s, |a| a.peers = [a.name.clone()].into());
        },
        Reason::Announced,
    ),
    (
        "no conflict of equal preferences",
        |s| {
            conflict(s);
            apart(s, |a| a.local_pref = Some(7));
        },
        Reason::Announced,
    ),
    (
        "no conflict for other prefixes",
        |s| {
            conflict(s);
            apart(s, |a| a.aggregation_length_v4 = if &*a.name == "a" { 24 } else { 32 });
        },
        Reason::Announced,
    ),
    (
        "no conflict without service selectors: validation has looked",
        |s| {
            conflict(s);
            apart(s, |a| a.service_selectors.clear());
        },
        Reason::Announced,
    ),
    ("network unavailable", |s| s.node().network_unavailable = true, Reason::NodeNetworkUnavailable),
    ("excluded node", exclude, Reason::NodeLabeledExcludeBalancers),
    (
        "excluded node, label ignored",
        |s| {
            exclude(s);
            s.context.ignore_exclude_label = true;
        },
        Reason::Announced,
    ),
    (
        "Local without endpoint here",
        |s| {
            s.service.traffic_policy = TrafficPolicy::Local;
            s.endpoints.here = 0;
        },
        Reason::NoLocalEndpoints,
    ),
    ("Cluster without endpoint here", |s| s.endpoints.here = 0, Reason::Announced),
    ("Cluster without endpoint", |s| s.endpoints = Endpoints::default(), Reason::NoEndpoints),
    (
        "Local without endpoint",
        |s| {
            s.service.traffic_policy = TrafficPolicy::Local;
            s.endpoints = Endpoints::default();
        },
        Reason::NoLocalEndpoints,
    ),
    ("unreadable pool in the annotation", unreadable_pool, Reason::Announced),
    (
        "unreadable pool, another in the annotation",
        |s| {
            unreadable_pool(s);
            s.service.annotations.allocated_from_pool = Some(AnnotationText { value: "r".into(), deprecated: false });
        },
        Reason::IpNotAllowed,
    ),
    (
        "unreadable pool that no advertisement selects",
        |s| {
            unreadable_pool(s);
            s.adverts([Advertisement { pools: ["p".into()].into(), ..advert("a") }]);
        },
        Reason::NotOwner,
    ),
];

/// Two advertisements, one for this Service, with different local preferences.
fn conflict(s: &mut Situation) {
    s.service.labels = [("app", "x")].into_iter().collect();
    let one = Advertisement { service_selectors: vec![selector("app", "x")], local_pref: Some(1), ..advert("a") };
    s.adverts([one, Advertisement { local_pref: Some(2), ..advert("b") }]);
}

fn apart(s: &mut Situation, edit: impl Fn(&mut Advertisement)) {
    s.config().advertisements.values_mut().for_each(|a| edit(Arc::make_mut(a)));
}

fn exclude(s: &mut Situation) {
    s.node().labels = [(EXCLUDE_LABEL, ""), ("rack", "a")].into_iter().collect();
}

fn unreadable_pool(s: &mut Situation) {
    s.service.ingress = vec!["192.0.2.1".parse().unwrap()];
    s.service.annotations.allocated_from_pool = Some(AnnotationText { value: "q".into(), deprecated: false });
    s.config().pools_unknown = [("q".into(), Labels::default())].into();
}

#[test]
fn address_is_announced_or_not_with_its_reason() {
    for (name, edit, want) in CASES {
        let mut situation = Situation::new();
        edit(&mut situation);
        let decision = situation.decide();
        let [address] = &decision.addresses[..] else { panic!("{name}: {decision:?}") };
        assert_eq!(address.reason, *want, "{name}");
        assert_eq!(address.advertisements.is_empty(), *want != Reason::Announced, "{name}");
        assert_eq!(address.ip, situation.service.ingress.first().copied().filter(|_| *want != Reason::NotLoadBalancer));
    }
}

#[test]
fn first_reason_in_order_wins_when_several_apply() {
    let causes: &[Cause] = &[
        (|s| s.endpoints = Endpoints::default(), Reason::NoEndpoints),
        (|s| s.service.traffic_policy = TrafficPolicy::Local, Reason::NoLocalEndpoints),
        (exclude, Reason::NodeLabeledExcludeBalancers),
        (|s| s.node().network_unavailable = true, Reason::NodeNetworkUnavailable),
        (conflict, Reason::ConflictingAdvertisements),
        (|s| apart(s, |a| a.service_selectors = vec![selector("app", "y")]), Reason::NoMatchingAdvertisement),
        (|s| apart(s, |a| a.node_selectors = vec![selector("rack", "z")]), Reason::NotOwner),
        (|s| s.service.ingress = vec!["192.0.2.1".parse().unwrap()], Reason::IpNotAllowed),
        (|s| s.service.ingress = vec!["0.0.0.0".parse().unwrap()], Reason::InvalidIp),
        (|s| s.service.ingress.clear(), Reason::NoIpAllocated),
        (|s| s.service.is_load_balancer = false, Reason::NotLoadBalancer),
    ];
    let mut situation = Situation::new();
    let mut above = Reason::Announced;
    for (cause, want) in causes {
        cause(&mut situation);
        assert_eq!(situation.decide().addresses[0].reason, *want);
        assert!(*want < above, "the enum lists the reasons in their order");
        above = *want;
    }
}

#[test]
fn addresses_are_decided_one_by_one() {
    let mut s = Situation::new();
    s.service.ingress = ["192.0.2.1", "10.0.0.1"].map(|ip| ip.parse().unwrap()).into();
    s.service.ingress_foreign = true;
    let reasons: Vec<Reason> = s.decide().addresses.iter().map(|a| a.reason).collect();
    assert_eq!(reasons, [Reason::IpNotAllowed, Reason::Announced, Reason::InvalidIp]);
}

#[test]
fn only_local_endpoints_weigh_and_only_where_somebody_weighs() {
    for (policy, interval_s, want) in [
        (TrafficPolicy::Local, Some(10), Some(1)),
        (TrafficPolicy::Local, None, None),
        (TrafficPolicy::Cluster, Some(10), None),
    ] {
        let mut s = Situation::new();
        s.service.traffic_policy = policy;
        Arc::make_mut(&mut s.context.config).weight_interval = interval_s.map(std::time::Duration::from_secs);
        assert_eq!(s.decide().weight, want, "{policy:?} {interval_s:?}");
    }
}

#[test]
fn held_address_is_announced_by_the_right_of_its_former_pool() {
    let former = |name: &str, tier: &str| {
        let labels = [("tier", tier)].into_iter().collect();
        Arc::new(FormerPool { name: name.into(), labels })
    };
    let named = || Advertisement { pools: ["old".into()].into(), ..advert("a") };
    let labelled = || Advertisement { pool_selectors: vec![selector("tier", "gold")], ..advert("a") };
    for (name, advert, pool, want) in [
        ("of every pool", advert("a"), Some(former("old", "tin")), Reason::Announced),
        ("by the former name", named(), Some(former("old", "tin")), Reason::Announced),
        ("by the former labels", labelled(), Some(former("old", "gold")), Reason::Announced),
        ("of another pool", named(), Some(former("other", "tin")), Reason::NotOwner),
        ("never ours", advert("a"), None, Reason::IpNotAllowed),
    ] {
        let mut s = Situation::new();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        s.service.ingress = vec![ip];
        s.adverts([advert]);
        s.config().former = pool.into_iter().map(|pool| (ip, pool)).collect();
        let decision = s.decide();
        assert_eq!(decision.addresses[0].reason, want, "{name}");
        let own = Party { service: &s.service, endpoints: s.endpoints, nodes: &[] };
        let words = message(&decision.addresses[0], own, &[], &s.context);
        assert_eq!(words.contains("the former pool"), want != Reason::IpNotAllowed, "{name}: {words}");
    }
    let mut s = Situation::new();
    s.config().former = [("10.0.0.7".parse().unwrap(), former("old", "tin"))].into();
    s.adverts([named()]);
    assert_eq!(s.decide().addresses[0].reason, Reason::NotOwner, "the pool that contains it counts");
}

#[test]
fn every_reason_is_told_with_what_mattered() {
    for (edit, want) in [
        ((|_| {}) as fn(&mut Situation), "by BGPAdvertisement \"a\" of pool \"p\"; 2 serving endpoints"),
        (|s| s.service.is_load_balancer = false, "the Service is not of type LoadBalancer"),
        (|s| s.service.class = Some("x".into()), "the Service is of the class \"x\", which is not served here"),
        (|s| s.context.class = Some("x".into()), "the Service has no class, only \"x\" is served here"),
        (|s| s.service.ingress.clear(), "the Service's status has no address"),
        (|s| s.service.ingress = vec!["fe80::1".parse().unwrap()], "fe80::1 is no address that can be announced"),
        (|s| s.service.ingress = vec!["10.9.0.1".parse().unwrap()], "10.9.0.1 is in no pool"),
        (|s| s.adverts([]), "there is no BGPAdvertisement"),
        (
            |s| s.adverts([Advertisement { pools: ["q".into()].into(), ..advert("a") }]),
            "no BGPAdvertisement selects pool \"p\"",
        ),
        (
            |s| s.adverts([Advertisement { node_selectors: vec![selector("rack", "b")], ..advert("a") }]),
            "BGPAdvertisement \"a\" of pool \"p\" is for other nodes: no nodeSelectors match this Node's labels",
        ),
        (
            |s| s.adverts([Advertisement { service_selectors: vec![selector("app", "x")], ..advert("a") }]),
            "BGPAdvertisement \"a\" of pool \"p\" is for other Services: no serviceSelectors match a Service without labels",
        ),
        (
            conflict,
            "BGPAdvertisements \"a\" (localPref 1) and \"b\" (localPref 2) contradict each other for the same prefix and peer",
        ),
        (|s| s.node().network_unavailable = true, "the Node's condition NetworkUnavailable is True"),
        (exclude, "the Node carries the label node.kubernetes.io/exclude-from-external-load-balancers"),
        (
            |s| {
                s.service.traffic_policy = TrafficPolicy::Local;
                s.endpoints.here = 0;
            },
            "externalTrafficPolicy is Local, and no endpoint serves on this node (2 elsewhere)",
        ),
        (
            |s| s.service.traffic_policy = TrafficPolicy::Local,
            "by BGPAdvertisement \"a\" of pool \"p\"; 2 serving endpoints, 1 on this node",
        ),
        (|s| s.endpoints = Endpoints::default(), "no endpoint of the Service serves on any node"),
    ] {
        let mut s = Situation::new();
        edit(&mut s);
        let own = Party { service: &s.service, endpoints: s.endpoints, nodes: &[] };
        assert_eq!(message(&s.decide().addresses[0], own, &[], &s.context), want);
    }
}

#[test]
fn announcers_decide_independently_by_their_own_advertisements() {
    let here =
        Advertisement { peers: ["core".into()].into(), parameters: Some(r#"{"area":"0"}"#.into()), ..advert("own") };
    let elsewhere = Advertisement { node_selectors: vec![selector("rack", "b")], ..advert("own") };
    let yes = Reason::Announced;
    for (bgp, bird, want) in [
        (Some(&here), None, [yes, Reason::NotOwner]),
        (None, Some(&here), [Reason::NotOwner, yes]),
        (Some(&here), Some(&elsewhere), [yes, Reason::NotOwner]),
        (Some(&here), Some(&here), [yes, yes]),
        (None, None, [Reason::NotOwner, Reason::NotOwner]),
    ] {
        let by_name =
            |of: Option<&Advertisement>| of.into_iter().map(|a| (a.name.clone(), Arc::new(a.clone()))).collect();
        let mut situation = Situation::new();
        let class = crate::config::AnnouncerClass {
            name: "bird".into(),
            advertisements: by_name(bird),
            ..crate::config::AnnouncerClass::default()
        };
        situation.config().advertisements = by_name(bgp);
        situation.config().announcers = [("bird".into(), Arc::new(class))].into();
        for (announcer, want) in [BGP, "bird"].into_iter().zip(want) {
            situation.context.announcer = announcer.into();
            let decision = situation.decide();
            assert_eq!(decision.addresses[0].reason, want, "{announcer}");
            let own = Party { service: &situation.service, endpoints: situation.endpoints, nodes: &[] };
            let words = message(&decision.addresses[0], own, &[], &situation.context);
            let advertisements = if announcer == BGP { bgp } else { bird };
            let kind = if announcer == BGP { "BGPAdvertisement" } else { "Advertisement" };
            let said = match (want, advertisements) {
                (Reason::Announced, _) => format!("by {kind} \"own\" of pool \"p\"; 2 serving endpoints"),
                (_, Some(_)) => format!(
                    "{kind} \"own\" of pool \"p\" is for other nodes: no nodeSelectors match this Node's labels"
                ),
                (_, None) => format!("there is no {kind}"),
            };
            assert_eq!(words, said);
            let mut builder = DesiredBuilder::default();
            builder.set(&situation.service.key, Some(&decision));
            let desired = builder.desired();
            assert_eq!(desired.announcements.len(), usize::from(want == yes), "{announcer}");
            for announcement in desired.announcements.values() {
                let terms = &announcement.terms[0];
                assert_eq!((&terms.targets, &terms.parameters), (&Some(here.peers.clone()), &here.parameters));
            }
        }
        situation.context.announcer = "unknown".into();
        assert_eq!(situation.decide().addresses[0].reason, Reason::NotOwner);
    }
}
