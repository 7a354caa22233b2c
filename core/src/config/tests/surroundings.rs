//! What is legal but surely a mistake, beside Nodes, Namespaces and Services.
use imbl::OrdMap;

use super::*;
use crate::model::{Node, Service};

/// What the configuration is for.
#[derive(Clone, Default)]
struct Around {
    nodes: OrdMap<Arc<str>, Arc<Node>>,
    namespaces: OrdMap<Arc<str>, Arc<Labels>>,
    services: OrdMap<ServiceKey, Arc<Service>>,
    networks: Networks,
}

impl Around {
    fn node(mut self, name: &str, rack: &str, ips: &[&str], pods: &[&str]) -> Self {
        let node = Node {
            name: name.into(),
            labels: [("rack", rack)].into_iter().collect(),
            internal_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            pod_cidrs: pods.iter().map(|net| net.parse().unwrap()).collect(),
            ..Node::default()
        };
        self.nodes.insert(name.into(), Arc::new(node));
        self
    }

    fn service(mut self, key: &str, label: &str, cluster_ip: &str) -> Self {
        let key: ServiceKey = key.parse().unwrap();
        let mut service = Service::load_balancer(key.namespace(), key.name());
        service.labels = [("app", label)].into_iter().collect();
        service.cluster_ips = vec![cluster_ip.parse().unwrap()];
        self.services.insert(key, Arc::new(service));
        self
    }

    fn told(&self, world: &World) -> Vec<Problem> {
        let networks = self.networks.clone();
        let (nodes, namespaces, services) = (&self.nodes, &self.namespaces, &self.services);
        check_surroundings(&world.resources, &world.build(), &Surroundings { nodes, namespaces, services, networks })
    }
}

/// Nodes `n1` in rack `a` and `n2` in rack `b`, a Namespace, a Service.
fn around() -> Around {
    let mut around = Around::default()
        .node("n1", "a", &["192.0.2.11"], &["10.244.0.0/24"])
        .node("n2", "b", &["192.0.2.12"], &["10.244.1.0/24"])
        .service("shop/web", "web", "10.96.0.10");
    around.namespaces.insert("team".into(), Arc::new([("team", "red")].into_iter().collect()));
    around
}

fn on(rack: &str) -> BgpPeerSpec {
    BgpPeerSpec { node_selectors: vec![selector("rack", rack)], ..peer() }
}

fn adverts_on(rack: &str) -> BgpAdvertisementSpec {
    BgpAdvertisementSpec { node_selectors: vec![selector("rack", rack)], ..advert() }
}

fn allocation(change: impl Fn(&mut ServiceAllocationSpec)) -> Option<Spec> {
    let mut allocation = ServiceAllocationSpec::default();
    change(&mut allocation);
    Some(Spec::Pool(PoolSpec { service_allocation: Some(allocation), ..pool(&["198.51.100.0/24"]) }))
}

/// The world, and what is told of it: rule, field, value and a part of the text. `None`: nothing.
type Case = (&'static str, World, Option<(&'static str, &'static str, &'static str, &'static str)>);

fn check(cases: Vec<Case>) {
    for (name, world, want) in cases {
        let told = around().told(&world);
        match want {
            None => assert_eq!(told, [], "{name}"),
            Some((rule, field, value, part)) => {
                let [problem] = &told[..] else { panic!("{name}: {told:#?}") };
                assert_eq!((problem.rule, &*problem.field, &*problem.value), (rule, field, value), "{name}");
                assert!(problem.to_string().contains(part), "{name}: {problem}");
                assert_eq!(problem.severity, Severity::Warning, "{name}");
            }
        }
        assert_eq!(Around::default().told(&world), [], "{name}: nothing is known of an empty cluster");
    }
}

#[test]
fn selectors_that_match_nothing_are_told() {
    let nodes = "spec.nodeSelectors[1]";
    let two = |mut spec: BgpPeerSpec| {
        spec.node_selectors.push(selector("rack", "z"));
        spec
    };
    let pool_with = |spec| World::new().with("IPAddressPool", "p", 0, spec);
    let at = |field: &'static str| field;
    let layer2 = |spec| World::new().with("L2Advertisement", "l", 0, Some(Spec::L2Advertisement(spec)));
    let quota = PoolPolicySpec { quotas: vec![(selector("team", "blue"), 1)], ..PoolPolicySpec::default() };
    let services = BgpAdvertisementSpec { service_selectors: vec![selector("app", "db")], ..advert() };
    check(vec![
        ("peer of a rack", World::new().peer("r", 0, on("a")), None),
        (
            "peer nobody reaches",
            World::new().peer("r", 0, on("z")),
            Some(("peerUnreachable", "spec.nodeSelectors", "", "the selectors match no Node")),
        ),
        (
            "one of two",
            World::new().peer("r", 0, two(on("a"))),
            Some(("selectsNothing", nodes, "rack=z", "matches no Node")),
        ),
        (
            "advertisement",
            World::new().advert("a", 0, adverts_on("z")),
            Some(("selectsNothing", "spec.nodeSelectors[0]", "rack=z", "matches no Node")),
        ),
        (
            "services of an advertisement",
            World::new().advert("a", 0, services),
            Some(("selectsNothing", "spec.serviceSelectors[0]", "app=db", "matches no Service of type LoadBalancer")),
        ),
        (
            "layer 2",
            layer2(L2AdvertisementSpec { node_selectors: vec![selector("rack", "z")], ..Default::default() }),
            Some(("selectsNothing", "spec.nodeSelectors[0]", "rack=z", "matches no Node")),
        ),
        (
            "preferred nodes",
            layer2(L2AdvertisementSpec {
                preferred_node_selectors: vec![(1, selector("rack", "z"))],
                ..Default::default()
            }),
            Some(("selectsNothing", "spec.preferredNodeSelectors[0].preference", "rack=z", "matches no Node")),
        ),
        (
            "namespaces of a pool",
            pool_with(allocation(|a| a.namespace_selectors = vec![selector("team", "blue")])),
            Some(("selectsNothing", at("spec.serviceAllocation.namespaceSelectors[0]"), "team=blue", "no Namespace")),
        ),
        (
            "a namespace of a pool",
            pool_with(allocation(|a| a.namespace_selectors = vec![selector("team", "red")])),
            None,
        ),
        (
            "a namespace by its name",
            pool_with(allocation(|a| a.namespace_selectors = vec![selector("kubernetes.io/metadata.name", "shop")])),
            None,
        ),
        (
            "name of a namespace",
            pool_with(allocation(|a| a.namespaces = strings(&["team", "shop", "ghost"]))),
            Some((
                "unknownName",
                at("spec.serviceAllocation.namespaces[2]"),
                "ghost",
                "there is no Namespace \"ghost\"",
            )),
        ),
        (
            "services of a pool",
            pool_with(allocation(|a| a.service_selectors = vec![selector("app", "db")])),
            Some(("selectsNothing", at("spec.serviceAllocation.serviceSelectors[0]"), "app=db", "no Service")),
        ),
        (
            "quota",
            World::new().pool("p", 0, &["198.51.100.0/24"]).pool_policy("x", 0, quota),
            Some(("selectsNothing", "spec.quotas[0].namespaceSelector", "team=blue", "no Namespace")),
        ),
    ]);
}

#[test]
fn advertisements_are_told_when_their_peers_are_on_other_nodes() {
    let named = |peers: &[&str], rack: &str| BgpAdvertisementSpec { peers: strings(peers), ..adverts_on(rack) };
    let other = BgpPeerSpec { peer_address: some("192.0.2.2"), ..on("b") };
    let world = || World::new().peer("r", 0, on("a")).peer("s", 0, other.clone());
    let elsewhere = Some(("peersElsewhere", "spec.nodeSelectors", "", "none of the peers is on a node"));
    check(vec![
        ("all peers", world().advert("x", 0, adverts_on("a")), None),
        ("its peer is here", world().advert("x", 0, named(&["r"], "a")), None),
        ("its peer is elsewhere", world().advert("x", 0, named(&["s"], "a")), elsewhere),
        ("one of its peers is here", world().advert("x", 0, named(&["r", "s"], "a")), None),
        ("no peers at all", World::new().advert("x", 0, adverts_on("a")), None),
    ]);
}

#[test]
fn local_preferences_that_contradict_on_a_node_are_told() {
    let pref = |rack: RawSelector, local_pref| BgpAdvertisementSpec {
        node_selectors: vec![rack],
        local_pref: Some(local_pref),
        ..advert()
    };
    let world = |first: RawSelector, second: RawSelector| {
        World::new().pool("p", 0, &["198.51.100.0/24"]).advert("x", 0, pref(first, 100)).advert(
            "y",
            0,
            pref(second, 200),
        )
    };
    let any = || expression("rack", "Exists", &[]);
    check(vec![
        ("apart", world(selector("rack", "a"), selector("rack", "b")), None),
        (
            "together on n1",
            world(selector("rack", "a"), any()),
            Some(("localPrefConflict", "spec.localPref", "200", "both select Node n1")),
        ),
    ]);
}

#[test]
fn pools_are_told_when_they_contain_what_is_in_use() {
    let at = "spec.addresses[0]";
    let pool = |entry: &str| World::new().pool("p", 0, &[entry]);
    let buggy = PoolSpec { avoid_buggy_ips: Some(true), ..super::pool(&["192.0.2.128/25"]) };
    check(vec![
        ("apart", pool("198.51.100.0/24"), None),
        (
            "a node",
            pool("192.0.2.12-192.0.2.20"),
            Some(("nodeAddressInPool", at, "192.0.2.12-192.0.2.20", "192.0.2.12 is an address of Node n2")),
        ),
        (
            "two nodes",
            pool("192.0.2.1-192.0.2.20"),
            Some(("nodeAddressInPool", at, "192.0.2.1-192.0.2.20", "Node n1, and 1 more like it")),
        ),
        (
            "pods",
            pool("10.244.1.128/25"),
            Some(("podNetworkInPool", at, "10.244.1.128/25", "10.244.1.0/24 is the network of the pods of Node n2")),
        ),
        (
            "cluster address",
            pool("10.96.0.0/28"),
            Some(("serviceNetworkInPool", at, "10.96.0.0/28", "10.96.0.10 is the cluster address of Service shop/web")),
        ),
        (
            "broadcast address of the nodes' segment",
            pool("192.0.2.128/25"),
            Some(("networkAddressInPool", at, "192.0.2.128/25", "192.0.2.255 may be the network or broadcast address")),
        ),
        (
            "the same as a range",
            pool("192.0.2.200-192.0.3.7"),
            Some(("networkAddressInPool", at, "192.0.2.200-192.0.3.7", "segment of Node n1")),
        ),
        ("in the middle of it", pool("192.0.2.64/26"), None),
        ("asked for by itself", pool("192.0.2.255/32"), None),
        ("without .0 and .255", World::new().with("IPAddressPool", "p", 0, Some(Spec::Pool(buggy))), None),
        ("one address", pool("192.0.2.128/32"), None),
        ("a range without them", pool("192.0.2.129-192.0.2.254"), None),
    ]);
    let mut known = around();
    known.networks =
        Networks { pod: vec!["10.0.0.0/16".parse().unwrap()], service: vec!["10.1.0.0/16".parse().unwrap()] };
    for (entry, rule) in [("10.0.5.0/24", "podNetworkInPool"), ("10.1.5.0/24", "serviceNetworkInPool")] {
        assert_eq!(known.told(&pool(entry)).iter().map(|p| p.rule).collect::<Vec<_>>(), [rule]);
    }
}
