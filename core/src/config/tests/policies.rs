//! BGPPeerPolicies: what is refused, whom they select, and who wins.
use super::{refused::Bad, *};
use crate::announce::ExtendedCommunity;

fn with_session(session: SessionSpec) -> BgpPeerPolicySpec {
    BgpPeerPolicySpec { session: Some(session), ..BgpPeerPolicySpec::default() }
}

fn with_routes(routes: RoutesSpec) -> BgpPeerPolicySpec {
    BgpPeerPolicySpec { routes: Some(routes), ..BgpPeerPolicySpec::default() }
}

fn weighing(spec: LinkBandwidthSpec) -> BgpPeerPolicySpec {
    with_routes(RoutesSpec { link_bandwidth: Some(spec), ..RoutesSpec::default() })
}

fn communities(list: &[&str]) -> BgpPeerPolicySpec {
    with_routes(RoutesSpec { extended_communities: strings(list), ..RoutesSpec::default() })
}

fn med(med: i64) -> BgpPeerPolicySpec {
    with_routes(RoutesSpec { med: Some(med), ..RoutesSpec::default() })
}

fn ttl(hops: i64) -> BgpPeerPolicySpec {
    with_session(SessionSpec { ttl_security_hops: Some(hops), ..SessionSpec::default() })
}

fn key(send_id: i64, receive_id: i64, secret: &str) -> TcpAoKeySpec {
    TcpAoKeySpec { send_id, receive_id, secret: secret.to_owned(), ..TcpAoKeySpec::default() }
}

fn keys(keys: Vec<TcpAoKeySpec>) -> BgpPeerPolicySpec {
    with_session(SessionSpec { tcp_ao_keys: Some(keys), ..SessionSpec::default() })
}

/// A world with the peers `r` and `s`, and the advertisements `a` and `b`.
fn world() -> World {
    let at = |address: &str| BgpPeerSpec { peer_address: some(address), ..peer() };
    let other = BgpAdvertisementSpec { communities: strings(&["1:1"]), ..advert() };
    World::new()
        .peer("r", 0, at("192.0.2.1"))
        .peer("s", 0, at("192.0.2.2"))
        .advert("a", 0, advert())
        .advert("b", 0, other)
}

fn errors(config: &Config) -> Vec<String> {
    config.problems.iter().filter(|p| p.severity == Severity::Error).map(ToString::to_string).collect()
}

fn warnings(config: &Config) -> Vec<String> {
    config.problems.iter().filter(|p| p.severity == Severity::Warning).map(ToString::to_string).collect()
}

#[test]
fn policy_is_read_field_by_field() {
    let session = SessionSpec {
        passive: Some(true),
        families: Some(strings(&["IPv6", "IPv4"])),
        next_hop_v4: some("2001:db8::7"),
        next_hop_v6: some("2001:db8::8"),
        send_hold_time: some("2m"),
        role: some("Customer"),
        ttl_security_hops: Some(254),
        tcp_ao_keys: Some(vec![
            key(0, 255, "k"),
            TcpAoKeySpec { algorithm: some("AES-128-CMAC-96"), ..key(1, 1, "k") },
        ]),
    };
    let routes = RoutesSpec {
        med: Some(0),
        as_path_prepend: Some(16),
        extended_communities: strings(&["rt:64512:100", "soo:4200000000:7", "rt:192.0.2.1:9", "0x030C00000000abcd"]),
        link_bandwidth: Some(LinkBandwidthSpec { interval: some("1h"), transitive: Some(true), ..Default::default() }),
    };
    let spec = BgpPeerPolicySpec { session: Some(session), routes: Some(routes), ..BgpPeerPolicySpec::default() };
    let config = world().password("k", Ok("hunter2")).policy("p", 0, spec).build();
    assert_eq!(config.problems, []);
    let secret = Password("hunter2".into());
    let want = SessionPolicy {
        passive: true,
        families: Some([IpFamily::V4, IpFamily::V6].into()),
        next_hop_v4: Some("2001:db8::7".parse().unwrap()),
        next_hop_v6: Some("2001:db8::8".parse().unwrap()),
        send_hold_time: Some(Duration::from_secs(120)),
        role: Some(Role::Customer),
        ttl_security_hops: Some(254),
        tcp_ao: vec![
            TcpAoKey { send_id: 0, receive_id: 255, algorithm: TcpAoAlgorithm::HmacSha1, secret: secret.clone() },
            TcpAoKey { send_id: 1, receive_id: 1, algorithm: TcpAoAlgorithm::AesCmac, secret },
        ],
        tcp_ao_missing: None,
    };
    let communities = [
        [0, 2, 0xfc, 0, 0, 0, 0, 100],
        [2, 3, 0xfa, 0x56, 0xea, 0, 0, 7],
        [1, 2, 192, 0, 2, 1, 0, 9],
        [3, 0x0c, 0, 0, 0, 0, 0xab, 0xcd],
    ];
    let want_routes = RoutePolicy {
        advertisements: None,
        med: Some(0),
        as_path_prepend: 16,
        extended_communities: communities.map(ExtendedCommunity).into(),
        link_bandwidth: Some(LinkBandwidth { unit_octets_s: 12_500_000, weight: Weight::Endpoints, transitive: true }),
    };
    for peer in config.peers.values() {
        assert_eq!((&peer.session, &*peer.routes), (&want, &[want_routes.clone()][..]));
    }
    assert_eq!(config.weight_interval, Some(Duration::from_secs(3_600)));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn unit_is_read_as_bits_per_second() {
    for (unit, want) in [("8bps", 1), ("64kbps", 8_000), ("100Mbps", 12_500_000), ("1000Tbps", 125_000_000_000_000)] {
        let spec = LinkBandwidthSpec {
            unit: some(unit),
            weight: some("Fixed"),
            value: Some(3),
            ..LinkBandwidthSpec::default()
        };
        let config = world().policy("p", 0, weighing(spec)).build();
        let got = config.peers["r"].routes[0].link_bandwidth.unwrap();
        assert_eq!((got.unit_octets_s, got.weight, config.weight_interval), (want, Weight::Fixed(3), None), "{unit}");
    }
}

#[test]
fn session_is_refused_with_field_and_value() {
    let s = SessionSpec::default;
    let families =
        |list: &[&str]| with_session(SessionSpec { families: Some(strings(list)), ..SessionSpec::default() });
    let v4 = |text: &str| with_session(SessionSpec { next_hop_v4: some(text), ..SessionSpec::default() });
    let v6 = |text: &str| with_session(SessionSpec { next_hop_v6: some(text), ..SessionSpec::default() });
    let hold = |text: &str| with_session(SessionSpec { send_hold_time: some(text), ..SessionSpec::default() });
    let (hop4, hop6, list) = ("spec.session.nextHopIPv4", "spec.session.nextHopIPv6", "spec.session.tcpAO.keys");
    let cases: Vec<(BgpPeerPolicySpec, Bad)> = vec![
        (families(&[]), Bad("none", "familiesEmpty", "spec.session.families", "", &["IPv4, IPv6 or both"])),
        (
            families(&["ipv4"]),
            Bad("case", "familyInvalid", "spec.session.families[0]", "ipv4", &["write IPv4 or IPv6"]),
        ),
        (families(&["IPv4", "IPv4"]), Bad("twice", "duplicate", "spec.session.families[1]", "IPv4", &["duplicate"])),
        (
            v4("here"),
            Bad("word", "nextHopInvalid", hop4, "here", &["invalid next hop", "write an IPv4 or IPv6 address"]),
        ),
        (v4("127.0.0.1"), Bad("loopback", "nextHopInvalid", hop4, "127.0.0.1", &["loopback"])),
        (v4("224.0.0.5"), Bad("multicast", "nextHopInvalid", hop4, "224.0.0.5", &["no host can have it"])),
        (v4("0.0.0.0"), Bad("unspecified", "nextHopInvalid", hop4, "0.0.0.0", &["no host can have it"])),
        (v4("fe80::1"), Bad("link-local", "nextHopInvalid", hop4, "fe80::1", &["link-local"])),
        (v6("192.0.2.1"), Bad("v4 for v6", "nextHopInvalid", hop6, "192.0.2.1", &["write an IPv6 address"])),
        (v6("::1"), Bad("loopback", "nextHopInvalid", hop6, "::1", &["loopback"])),
        (hold("0s"), Bad("0 s", "sendHoldTimeInvalid", "spec.session.sendHoldTime", "0s", &["from 1s to 65535s"])),
        (hold("90"), Bad("no unit", "durationInvalid", "spec.session.sendHoldTime", "90", &["unit missing"])),
        (
            with_session(SessionSpec { role: some("Uncle"), ..s() }),
            Bad("role", "roleInvalid", "spec.session.role", "Uncle", &["Customer, Provider"]),
        ),
        (ttl(0), Bad("ttl 0", "outOfRange", "spec.session.ttlSecurityHops", "0", &["from 1 to 254"])),
        (ttl(255), Bad("ttl 255", "outOfRange", "spec.session.ttlSecurityHops", "255", &["from 1 to 254"])),
        (keys(vec![]), Bad("no keys", "tcpAOKeys", list, "0", &["from 1 to 16"])),
        (
            keys(vec![key(256, 1, "k")]),
            Bad("id", "outOfRange", "spec.session.tcpAO.keys[0].sendID", "256", &["from 0 to 255"]),
        ),
        (
            keys(vec![key(1, 1, "")]),
            Bad("secret", "secretNameMissing", "spec.session.tcpAO.keys[0].secret.name", "", &["names no Secret"]),
        ),
        (
            keys(vec![key(1, 1, "k"), key(1, 2, "k")]),
            Bad("same id", "duplicate", "spec.session.tcpAO.keys[1].sendID", "1", &["duplicate"]),
        ),
        (
            keys(vec![TcpAoKeySpec { algorithm: some("MD5"), ..key(1, 1, "k") }]),
            Bad(
                "algorithm",
                "algorithmInvalid",
                "spec.session.tcpAO.keys[0].algorithm",
                "MD5",
                &["HMAC-SHA-1-96 or AES-128-CMAC-96"],
            ),
        ),
        (
            BgpPeerPolicySpec { advertisements: strings(&["a"]), ..ttl(1) },
            Bad("both", "sessionWithAdvertisements", "spec.session", "", &["a session carries every advertisement"]),
        ),
    ];
    refuse(cases);
}

#[test]
fn routes_are_refused_with_field_and_value() {
    let weight = |weight: &str, value: Option<i64>| {
        weighing(LinkBandwidthSpec { weight: some(weight), value, ..LinkBandwidthSpec::default() })
    };
    let unit = |text: &str| weighing(LinkBandwidthSpec { unit: some(text), ..LinkBandwidthSpec::default() });
    let interval = |text: &str| weighing(LinkBandwidthSpec { interval: some(text), ..LinkBandwidthSpec::default() });
    let (at, first) = ("spec.routes.linkBandwidth", "spec.routes.extendedCommunities[0]");
    let (unit_at, value_at) = ("spec.routes.linkBandwidth.unit", "spec.routes.linkBandwidth.value");
    let prepend = RoutesSpec { as_path_prepend: Some(17), ..RoutesSpec::default() };
    let interval_at = "spec.routes.linkBandwidth.interval";
    assert!(unit_at.starts_with(at));
    let cases: Vec<(BgpPeerPolicySpec, Bad)> = vec![
        (med(-1), Bad("med", "outOfRange", "spec.routes.med", "-1", &["from 0 to 4294967295"])),
        (with_routes(prepend), Bad("prepend", "outOfRange", "spec.routes.asPathPrepend", "17", &["from 0 to 16"])),
        (communities(&["gold"]), Bad("word", "extendedCommunityInvalid", first, "gold", &["write rt:64512:100"])),
        (communities(&["rt:0:1"]), Bad("AS 0", "extendedCommunityInvalid", first, "rt:0:1", &["AS 0 is reserved"])),
        (
            communities(&["rt:64512:4294967296"]),
            Bad("local", "extendedCommunityInvalid", first, "rt:64512:4294967296", &["0 to 4294967295"]),
        ),
        (
            communities(&["soo:65536:65536"]),
            Bad("four octets", "extendedCommunityInvalid", first, "soo:65536:65536", &["0 to 65535"]),
        ),
        (
            communities(&["rt:fd00:1"]),
            Bad("v6", "extendedCommunityInvalid", first, "rt:fd00:1", &["neither an AS number nor an IPv4"]),
        ),
        (communities(&["0x12"]), Bad("short", "extendedCommunityInvalid", first, "0x12", &["16 hexadecimal digits"])),
        (
            communities(&["rt:1:1", "rt:1:1"]),
            Bad("twice", "duplicate", "spec.routes.extendedCommunities[1]", "rt:1:1", &["duplicate"]),
        ),
        (unit("100"), Bad("no unit", "unitInvalid", unit_at, "100", &["such as 100Mbps"])),
        (unit("1.5Gbps"), Bad("fraction", "unitInvalid", unit_at, "1.5Gbps", &["whole number"])),
        (unit("7bps"), Bad("small", "unitInvalid", unit_at, "7bps", &["at least 8bps"])),
        (unit("1001Tbps"), Bad("great", "unitInvalid", unit_at, "1001Tbps", &["at most 1000Tbps"])),
        (weight("Fixed", None), Bad("no value", "weightInvalid", value_at, "", &["needs one, from 1 to 65535"])),
        (weight("Fixed", Some(0)), Bad("value 0", "outOfRange", value_at, "0", &["from 1 to 65535"])),
        (weight("Endpoints", Some(1)), Bad("value", "weightInvalid", value_at, "1", &["weight: Fixed only"])),
        (
            weight("Nodes", None),
            Bad("weight", "weightInvalid", "spec.routes.linkBandwidth.weight", "Nodes", &["write Endpoints or Fixed"]),
        ),
        (interval("500ms"), Bad("short", "intervalInvalid", interval_at, "500ms", &["from 1s to 1h"])),
        (interval("2h"), Bad("long", "intervalInvalid", interval_at, "2h", &["from 1s to 1h"])),
    ];
    refuse(cases);
}

/// Builds the policy in a world of peers and expects exactly one error, about that, and nothing in force.
fn refuse(cases: Vec<(BgpPeerPolicySpec, Bad)>) {
    let without = world().build();
    for (spec, Bad(name, rule, field, value, parts)) in cases {
        let config = world().policy("x", 0, spec).build();
        let errors: Vec<_> = config.problems.iter().filter(|p| p.severity == Severity::Error).collect();
        let [problem] = errors[..] else { panic!("{name}: {:#?}", config.problems) };
        assert_eq!((problem.rule, &*problem.field, &*problem.value), (rule, field, value), "{name}: {problem}");
        for part in parts {
            assert!(problem.to_string().contains(part), "{name}: {part:?} is missing in: {problem}");
        }
        assert_eq!((&config.peers, config.weight_interval), (&without.peers, None), "{name}");
    }
}

#[test]
fn policy_selects_peers_and_advertisements_by_name_or_labels() {
    let none = || (vec![], vec![]);
    let named = |name: &str| (strings(&[name]), vec![]);
    let labelled = |name: &str| (vec![], vec![selector("name", name)]);
    for (peers, advertisements, want_r, want_s) in [
        (none(), none(), Some(None), Some(None)),
        (named("r"), none(), Some(None), None),
        (labelled("s"), none(), None, Some(None)),
        ((strings(&["r"]), vec![selector("name", "s")]), named("a"), Some(Some("a")), Some(Some("a"))),
        (named("r"), labelled("b"), Some(Some("b")), None),
        (named("r"), (strings(&["a"]), vec![selector("name", "b")]), Some(Some("a b")), None),
        (named("r"), named("ghost"), Some(Some("")), None),
    ] {
        let spec = BgpPeerPolicySpec {
            peers: peers.0,
            peer_selectors: peers.1,
            advertisements: advertisements.0,
            advertisement_selectors: advertisements.1,
            ..med(7)
        };
        let config = world().policy("p", 0, spec.clone()).build();
        let got = |peer: &str| {
            let names = |names: &BTreeSet<Arc<str>>| names.iter().map(|n| &**n).collect::<Vec<_>>().join(" ");
            config.peers[peer].routes.first().map(|r| r.advertisements.as_ref().map(names))
        };
        let owned = |want: Option<Option<&str>>| want.map(|w| w.map(str::to_owned));
        assert_eq!((got("r"), got("s")), (owned(want_r), owned(want_s)), "{spec:?}");
    }
}

#[test]
fn policy_that_does_nothing_is_warned_about() {
    let of = |peers: &[&str], selectors: Vec<RawSelector>| BgpPeerPolicySpec {
        peers: strings(peers),
        peer_selectors: selectors,
        ..med(7)
    };
    let fixed = LinkBandwidthSpec { weight: some("Fixed"), value: Some(1), interval: some("5s"), ..Default::default() };
    for (spec, part) in [
        (of(&["ghost"], vec![]), "spec.peers[0]: \"ghost\": there is no BGPPeer"),
        (of(&[], vec![selector("name", "ghost")]), "spec.peerSelectors: selects no BGPPeer"),
        (BgpPeerPolicySpec { advertisements: strings(&["ghost"]), ..med(7) }, "there is no BGPAdvertisement \"ghost\""),
        (BgpPeerPolicySpec::default(), "spec: says nothing"),
        (weighing(fixed), "spec.routes.linkBandwidth.interval: \"5s\": has no effect"),
    ] {
        let config = world().policy("p", 0, spec).build();
        let [warning] = &warnings(&config)[..] else { panic!("{part}: {:?}", config.problems) };
        assert!(warning.contains(part) && !config.stale, "{warning}");
    }
}

#[test]
fn older_policy_wins_field_by_field_and_the_younger_is_told() {
    let role = |role: &str| SessionSpec { role: some(role), ..SessionSpec::default() };
    let older = with_session(SessionSpec { ttl_security_hops: Some(1), ..role("Customer") });
    let younger = with_session(SessionSpec { passive: Some(true), ttl_security_hops: Some(1), ..role("Peer") });
    // Age decides, then the name.
    for (old, old_created_s, young, young_created_s) in [("z", 1, "a", 2), ("a", 1, "z", 1)] {
        let config =
            world().policy(old, old_created_s, older.clone()).policy(young, young_created_s, younger.clone()).build();
        let session = &config.peers["r"].session;
        assert_eq!((session.role, session.passive), (Some(Role::Customer), true), "fields of the younger still count");
        let told = errors(&config);
        assert_eq!(told.len(), 2, "one per peer: {told:?}");
        let want = format!(
            "BGPPeerPolicy {young}: spec.session.role: the older BGPPeerPolicy {old:?} sets session.role of the BGPPeer \"r\" to something else and stays: say it in one of the two"
        );
        assert_eq!(told[0], want);
    }
}

#[test]
fn routes_of_several_policies_apply_in_order_and_conflicts_are_told() {
    let on = |advertisements: &[&str], routes: RoutesSpec| BgpPeerPolicySpec {
        peers: strings(&["r"]),
        advertisements: strings(advertisements),
        ..with_routes(routes)
    };
    let med = |med: i64| RoutesSpec { med: Some(med), ..RoutesSpec::default() };
    let community = |text: &str| RoutesSpec { extended_communities: strings(&[text]), ..RoutesSpec::default() };
    for (older, younger, told) in [
        (on(&[], med(1)), on(&[], med(2)), true),
        (on(&["a"], med(1)), on(&[], med(2)), true),
        (on(&["a"], med(1)), on(&["b"], med(2)), false),
        (on(&[], med(1)), on(&[], med(1)), false),
        (on(&[], community("rt:1:1")), on(&[], community("rt:1:2")), false),
        (
            on(&[], RoutesSpec { as_path_prepend: Some(1), ..med(1) }),
            on(&[], RoutesSpec { as_path_prepend: Some(2), ..community("rt:1:1") }),
            true,
        ),
    ] {
        let config = world().policy("z", 1, older.clone()).policy("a", 2, younger.clone()).build();
        assert_eq!(!errors(&config).is_empty(), told, "{older:?} {younger:?}: {:?}", config.problems);
        let routes = &config.peers["r"].routes;
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[0].med.map(i64::from), older.routes.unwrap().med, "the older first");
    }
}

#[test]
fn ttl_security_does_not_go_with_multihop() {
    let far = BgpPeerSpec { ebgp_multi_hop: Some(true), peer_address: some("192.0.2.1"), ..peer() };
    let config = world().peer("r", 0, far).policy("p", 0, ttl(2)).build();
    let told = errors(&config);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("spec.session.ttlSecurityHops: \"2\": the BGPPeer \"r\" has ebgpMultiHop"), "{told:?}");
    let hops = |peer: &str| config.peers[peer].session.ttl_security_hops;
    assert_eq!((hops("r"), hops("s")), (None, Some(2)));
}

#[test]
fn smallest_interval_of_the_policies_in_force_counts() {
    let every = |peers: &[&str], interval: Option<&str>| BgpPeerPolicySpec {
        peers: strings(peers),
        ..weighing(LinkBandwidthSpec { interval: interval.map(str::to_owned), ..LinkBandwidthSpec::default() })
    };
    let seconds = |world: World| world.build().weight_interval.map(|i| i.as_secs());
    let default = world().policy("p", 0, every(&["r"], None));
    assert_eq!(seconds(default.clone()), Some(10));
    assert_eq!(seconds(default.clone().policy("q", 1, every(&["s"], Some("5s")))), Some(5));
    assert_eq!(seconds(default.policy("q", 1, every(&["ghost"], Some("5s")))), Some(10), "it selects nobody");
}

#[test]
fn edited_policy_keeps_its_last_valid_version() {
    let mut builder = Builder::default();
    let mut now = |spec: Option<BgpPeerPolicySpec>| {
        let world = spec.map_or_else(world, |spec| world().policy("p", 0, spec));
        let config = builder.build(&world.resources);
        (config.peers["r"].session.ttl_security_hops, config.stale)
    };
    assert_eq!(now(Some(ttl(3))), (Some(3), false));
    assert_eq!(now(Some(ttl(300))), (Some(3), true));
    assert_eq!(now(None), (None, false));
    assert_eq!(now(Some(ttl(300))), (None, true));
}

#[test]
fn key_stays_in_use_when_its_secret_vanishes_and_without_one_peers_are_not_dialled() {
    let mut builder = Builder::default();
    let mut now = |secret: Option<&str>| {
        let world = world().policy("p", 0, keys(vec![key(1, 2, "k")]));
        let world = secret.iter().fold(world, |world, secret| world.password("k", Ok(secret)));
        let config = builder.build(&world.resources);
        let session = &config.peers["s"].session;
        let told = errors(&config).pop();
        (session.tcp_ao.first().map(|k| k.secret.0.to_string()), session.tcp_ao_missing.is_some(), told)
    };
    let at = "BGPPeerPolicy p: spec.session.tcpAO.keys[0].secret.name: \"k\": Secret \"k\" of type kubernetes.io/basic-auth does not exist in the namespace \"metallb-system\"";
    let how = super::super::peer::SECRET_HOW;
    let undialled = format!("{at}: the peers of this policy are not dialled until there is a key: {how}");
    assert_eq!(now(None), (None, true, Some(undialled)));
    assert_eq!(now(Some("x")), (some("x"), false, None));
    assert_eq!(now(None), (some("x"), false, Some(format!("{at}: the last key read stays in use: {how}"))));
    assert_eq!(now(Some("y")), (some("y"), false, None));
}
