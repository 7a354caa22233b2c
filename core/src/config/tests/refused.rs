//! Objects that are refused by themselves, one rule each.
use super::*;

/// A refused object: field, value, and parts of the message.
pub(super) struct Bad(
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static [&'static str],
);

/// Builds the object alone and expects exactly one error, about that.
fn refuse(kind: &'static str, cases: Vec<(Spec, Bad)>) {
    for (spec, Bad(name, field, value, parts)) in cases {
        let config = World::new().with(kind, "x", 0, Some(spec)).build();
        let errors: Vec<_> = config.problems.iter().filter(|p| p.severity == Severity::Error).collect();
        let [problem] = errors[..] else { panic!("{name}: {:#?}", config.problems) };
        assert_eq!((problem.object.kind, &*problem.object.name), (kind, "x"), "{name}");
        assert_eq!((&*problem.field, &*problem.value), (field, value), "{name}: {problem}");
        for part in parts {
            assert!(problem.to_string().contains(part), "{name}: {part:?} is missing in: {problem}");
        }
        assert!(config.stale, "{name}");
        let in_force = config.pools.len() + config.peers.len() + config.advertisements.len();
        assert_eq!(in_force, 0, "{name}");
        assert_eq!(config.pools_unknown.contains_key("x"), kind == "IPAddressPool", "{name}");
    }
}

#[test]
fn pool_is_refused_with_field_and_value_when_an_entry_is_wrong() {
    let entry = |text: &str| Spec::Pool(pool(&["198.51.100.0/24", text]));
    let at = "spec.addresses[1]";
    refuse(
        "IPAddressPool",
        vec![
            (Spec::Pool(pool(&[])), Bad("none", "spec.addresses", "", &["pool has no prefixes defined"])),
            (entry(""), Bad("empty", at, "", &["must not be empty", "192.0.2.0/24"])),
            (entry("  "), Bad("blank", at, "  ", &["must not be empty"])),
            (entry("web"), Bad("word", at, "web", &["invalid CIDR \"web\"", "192.0.2.10-192.0.2.20"])),
            (entry("10.0.0.1"), Bad("bare", at, "10.0.0.1", &["invalid CIDR", "10.0.0.1/32"])),
            (entry("fc00::1"), Bad("bare v6", at, "fc00::1", &["fc00::1/128"])),
            (entry("10.0.0.0/33"), Bad("length", at, "10.0.0.0/33", &["invalid CIDR"])),
            (entry("fc00::/129"), Bad("length v6", at, "fc00::/129", &["invalid CIDR"])),
            (entry("10.0.0.0/"), Bad("no length", at, "10.0.0.0/", &["invalid CIDR"])),
            (entry("10.0.0.256/24"), Bad("octet", at, "10.0.0.256/24", &["invalid CIDR"])),
            (
                entry("10.0.0.9-10.0.0.1"),
                Bad(
                    "backwards",
                    at,
                    "10.0.0.9-10.0.0.1",
                    &["range end 10.0.0.1 lies below its start 10.0.0.9", "write start-end"],
                ),
            ),
            (
                entry("1.2.3.4-fc00::1"),
                Bad("mixed", at, "1.2.3.4-fc00::1", &["different families", "one range per family"]),
            ),
            (
                entry("10.0.0.1-"),
                Bad("open end", at, "10.0.0.1-", &["invalid IP range", "end \"\" is not an IP address"]),
            ),
            (entry("-10.0.0.1"), Bad("open start", at, "-10.0.0.1", &["start \"\" is not an IP address"])),
            (entry("10.0.0.1-9"), Bad("short end", at, "10.0.0.1-9", &["end \"9\" is not an IP address"])),
            (entry("10.0.0.1-2-3"), Bad("two ends", at, "10.0.0.1-2-3", &["invalid IP range"])),
            (entry("::ffff:10.0.0.0/120"), Bad("mapped", at, "::ffff:10.0.0.0/120", &["IPv4-mapped", "10.0.0.0"])),
            (
                entry("::ffff:10.0.0.1-::ffff:10.0.0.2"),
                Bad("mapped range", at, "::ffff:10.0.0.1-::ffff:10.0.0.2", &["IPv4-mapped"]),
            ),
            (entry("198.51.100.0/24"), Bad("twice", at, "198.51.100.0/24", &["duplicate definition"])),
            (entry("198.51.100.7/24"), Bad("twice, other host bits", at, "198.51.100.7/24", &["duplicate definition"])),
            (
                entry("198.51.100.9-198.51.101.9"),
                Bad(
                    "overlap",
                    at,
                    "198.51.100.9-198.51.101.9",
                    &["overlaps with already defined CIDR \"198.51.100.0/24\" of this pool"],
                ),
            ),
        ],
    );
}

#[test]
fn pool_is_refused_with_field_and_value_when_its_allocation_is_wrong() {
    let with = |allocation: ServiceAllocationSpec| {
        Spec::Pool(PoolSpec { service_allocation: Some(allocation), ..pool(&["10.0.0.0/24"]) })
    };
    let none = ServiceAllocationSpec::default;
    let at = "spec.serviceAllocation";
    let namespace_selectors = vec![expression("a", "Equals", &["b"])];
    let twice = vec![selector("a", "b"), expression("a", "In", &["b"])];
    let cases = vec![
        (
            with(ServiceAllocationSpec { namespaces: strings(&["d", "d"]), ..none() }),
            ("spec.serviceAllocation.namespaces[1]", "d", "duplicate definition of namespace \"d\""),
        ),
        (
            with(ServiceAllocationSpec { namespaces: strings(&[""]), ..none() }),
            ("spec.serviceAllocation.namespaces[0]", "", "must not be empty"),
        ),
        (
            with(ServiceAllocationSpec { namespace_selectors, ..none() }),
            ("spec.serviceAllocation.namespaceSelectors[0]", "", "\"Equals\" is not a label selector operator"),
        ),
        (
            with(ServiceAllocationSpec { service_selectors: vec![expression("a", "In", &[])], ..none() }),
            ("spec.serviceAllocation.serviceSelectors[0]", "", "needs at least one value"),
        ),
        (
            with(ServiceAllocationSpec { service_selectors: twice, ..none() }),
            ("spec.serviceAllocation.serviceSelectors[1]", "a=b", "duplicate definition of selector"),
        ),
    ];
    for (spec, (field, value, part)) in cases {
        assert!(field.starts_with(at));
        let config = World::new().with("IPAddressPool", "x", 0, Some(spec)).build();
        let [problem] = &config.problems[..] else { panic!("{field}: {:#?}", config.problems) };
        assert_eq!((&*problem.field, &*problem.value), (field, value));
        assert!(problem.to_string().contains(part), "{problem}");
    }
}

#[test]
fn peer_is_refused_with_field_and_value_when_who_it_is_is_wrong() {
    let cases: Vec<(BgpPeerSpec, Bad)> = vec![
        (BgpPeerSpec { my_asn: None, ..peer() }, Bad("no AS", "spec.myASN", "", &["missing local ASN"])),
        (
            BgpPeerSpec { my_asn: Some(0), ..peer() },
            Bad("AS 0", "spec.myASN", "", &["missing local ASN", "from 1 to 4294967295"]),
        ),
        (
            BgpPeerSpec { my_asn: Some(-1), ..peer() },
            Bad("AS -1", "spec.myASN", "-1", &["must be from 1 to 4294967295"]),
        ),
        (
            BgpPeerSpec { my_asn: Some(4_294_967_296), ..peer() },
            Bad("AS 2^32", "spec.myASN", "4294967296", &["must be from 1 to 4294967295"]),
        ),
        (BgpPeerSpec { local_asn: Some(0), ..peer() }, Bad("local AS 0", "spec.localASN", "0", &["must be from 1"])),
        (
            BgpPeerSpec { peer_asn: None, ..peer() },
            Bad("no peer AS", "spec.peerASN", "", &["missing peer ASN and dynamicASN"]),
        ),
        (
            BgpPeerSpec { peer_asn: Some(0), ..peer() },
            Bad("peer AS 0", "spec.peerASN", "", &["missing peer ASN and dynamicASN"]),
        ),
        (BgpPeerSpec { peer_asn: Some(-7), ..peer() }, Bad("peer AS -7", "spec.peerASN", "-7", &["must be from 1"])),
        (
            BgpPeerSpec { dynamic_asn: some("external"), ..peer() },
            Bad("both AS", "spec.peerASN", "64513", &["both peer ASN and dynamicASN specified"]),
        ),
        (
            BgpPeerSpec { peer_asn: None, dynamic_asn: some("any"), ..peer() },
            Bad("dynamic", "spec.dynamicASN", "any", &["invalid dynamicASN any", "internal or external"]),
        ),
        (
            BgpPeerSpec { peer_address: None, ..peer() },
            Bad("no address", "spec.peerAddress", "", &["peer has no Address or Interface specified"]),
        ),
        (
            BgpPeerSpec { interface: some("eth0"), ..peer() },
            Bad("both ends", "spec.peerAddress", "192.0.2.1", &["peer has both Address and Interface specified"]),
        ),
        (
            BgpPeerSpec { peer_address: some("router"), ..peer() },
            Bad("name", "spec.peerAddress", "router", &["invalid BGPPeer address \"router\""]),
        ),
        (
            BgpPeerSpec { peer_address: some("192.0.2.1/32"), ..peer() },
            Bad("CIDR", "spec.peerAddress", "192.0.2.1/32", &["without prefix length"]),
        ),
        (
            BgpPeerSpec { peer_address: some("fe80::1%eth0"), ..peer() },
            Bad("zone", "spec.peerAddress", "fe80::1%eth0", &["without prefix length or zone"]),
        ),
        (
            BgpPeerSpec { peer_address: some("0.0.0.0"), ..peer() },
            Bad("unspecified", "spec.peerAddress", "0.0.0.0", &["no host can have it"]),
        ),
        (
            BgpPeerSpec { peer_address: some("::ffff:192.0.2.1"), ..peer() },
            Bad("mapped", "spec.peerAddress", "::ffff:192.0.2.1", &["IPv4-mapped"]),
        ),
    ];
    refuse("BGPPeer", cases.into_iter().map(|(spec, bad)| (Spec::Peer(spec), bad)).collect());
}

#[test]
fn peer_is_refused_with_field_and_value_when_how_to_reach_it_is_wrong() {
    let cases: Vec<(BgpPeerSpec, Bad)> = vec![
        (
            BgpPeerSpec { source_address: some("me"), ..peer() },
            Bad("source", "spec.sourceAddress", "me", &["invalid source IP \"me\""]),
        ),
        (
            BgpPeerSpec { source_address: some("fc00::1"), ..peer() },
            Bad(
                "source family",
                "spec.sourceAddress",
                "fc00::1",
                &["its family differs from that of the peer, 192.0.2.1"],
            ),
        ),
        (
            BgpPeerSpec { router_id: some("::1"), ..peer() },
            Bad("id", "spec.routerID", "::1", &["invalid router ID \"::1\""]),
        ),
        (
            BgpPeerSpec { router_id: some("0.0.0.0"), ..peer() },
            Bad("id 0", "spec.routerID", "0.0.0.0", &["invalid router ID"]),
        ),
        (BgpPeerSpec { peer_port: Some(0), ..peer() }, Bad("port 0", "spec.peerPort", "0", &["from 1 to 16384"])),
        (BgpPeerSpec { peer_port: Some(16385), ..peer() }, Bad("port", "spec.peerPort", "16385", &["from 1 to 16384"])),
        (
            BgpPeerSpec { ebgp_multi_hop: Some(true), peer_asn: Some(64512), ..peer() },
            Bad("multihop", "spec.ebgpMultiHop", "true", &["invalid ebgp-multihop parameter set for an ibgp peer"]),
        ),
        (
            BgpPeerSpec { ebgp_multi_hop: Some(true), peer_asn: None, dynamic_asn: some("internal"), ..peer() },
            Bad("multihop internal", "spec.ebgpMultiHop", "true", &["invalid ebgp-multihop"]),
        ),
        (
            BgpPeerSpec { node_selectors: vec![expression("a", "Exists", &["b"])], ..peer() },
            Bad("selector", "spec.nodeSelectors[0]", "", &["operator Exists on key \"a\" takes no values"]),
        ),
    ];
    refuse("BGPPeer", cases.into_iter().map(|(spec, bad)| (Spec::Peer(spec), bad)).collect());
}

#[test]
fn peer_is_refused_with_field_and_value_when_timers_or_password_are_wrong() {
    let (hold, keep) = ("spec.holdTime", "spec.keepaliveTime");
    let timers =
        |hold: &str, keepalive: &str| BgpPeerSpec { hold_time: some(hold), keepalive_time: some(keepalive), ..peer() };
    let secret =
        |name: &str, namespace: &str| Some(SecretRef { name: name.to_owned(), namespace: namespace.to_owned() });
    let cases: Vec<(BgpPeerSpec, Bad)> = vec![
        (timers("90", ""), Bad("no unit", hold, "90", &["unit missing", "90s"])),
        (timers("soon", ""), Bad("word", hold, "soon", &["is not a duration", "90s or 1m30s"])),
        (timers("2s", ""), Bad("2 s", hold, "2s", &["must be 0 or from 3s to 65535s"])),
        (timers("2999ms", ""), Bad("2.999 s", hold, "2999ms", &["must be 0 or from 3s"])),
        (timers("65536s", ""), Bad("too long", hold, "65536s", &["65535s"])),
        (timers("-90s", ""), Bad("negative", hold, "-90s", &["must not be negative"])),
        (timers("9999999999h", ""), Bad("eternity", hold, "9999999999h", &["longer than any duration"])),
        (timers("30s", "31s"), Bad("above", keep, "31s", &["invalid keepaliveTime \"31s\"", "hold time 30s"])),
        (timers("0", "1s"), Bad("above 0", keep, "1s", &["hold time 0s"])),
        (timers("30s", "0"), Bad("none", keep, "0", &["at least 1s"])),
        (
            BgpPeerSpec { keepalive_time: some("30000s"), ..peer() },
            Bad("3 times", keep, "30000s", &["90000s", "65535s"]),
        ),
        (
            BgpPeerSpec { connect_time: some("0s"), ..peer() },
            Bad("connect 0", "spec.connectTime", "0s", &["1s to 65535s"]),
        ),
        (
            BgpPeerSpec { connect_time: some("1500ms"), ..peer() },
            Bad("connect part", "spec.connectTime", "1500ms", &["whole seconds"]),
        ),
        (
            BgpPeerSpec { connect_time: some("65536s"), ..peer() },
            Bad("connect long", "spec.connectTime", "65536s", &["65535s"]),
        ),
        (
            BgpPeerSpec { password: Some("x".repeat(81)), ..peer() },
            Bad("password", "spec.password", "", &["81 octets", "at most 80"]),
        ),
        (
            BgpPeerSpec { password: some("x"), password_secret: secret("s", ""), ..peer() },
            Bad("two passwords", "spec.passwordSecret", "s", &["can not have both"]),
        ),
        (
            BgpPeerSpec { password_secret: secret("s", "other"), ..peer() },
            Bad("namespace", "spec.passwordSecret.namespace", "other", &["\"metallb-system\""]),
        ),
        (
            BgpPeerSpec { password_secret: secret("", "metallb-system"), ..peer() },
            Bad("no name", "spec.passwordSecret.name", "", &["names no Secret"]),
        ),
    ];
    refuse("BGPPeer", cases.into_iter().map(|(spec, bad)| (Spec::Peer(spec), bad)).collect());
}

#[test]
fn advertisement_is_refused_with_field_and_value() {
    let v4 = |length| BgpAdvertisementSpec { aggregation_length: Some(length), ..advert() };
    let v6 = |length| BgpAdvertisementSpec { aggregation_length_v6: Some(length), ..advert() };
    let communities = |list: &[&str]| BgpAdvertisementSpec { communities: strings(list), ..advert() };
    let at = "spec.communities[0]";
    let some_service = vec![selector("app", "web")];
    let cases: Vec<(BgpAdvertisementSpec, Bad)> = vec![
        (v4(0), Bad("length 0", "spec.aggregationLength", "0", &["from 1 to 32"])),
        (v4(33), Bad("length 33", "spec.aggregationLength", "33", &["from 1 to 32"])),
        (v6(129), Bad("length 129", "spec.aggregationLengthV6", "129", &["to 128"])),
        (v6(-1), Bad("length -1", "spec.aggregationLengthV6", "-1", &["to 128"])),
        (
            BgpAdvertisementSpec { local_pref: Some(-1), ..advert() },
            Bad("pref", "spec.localPref", "-1", &["from 0 to 4294967295"]),
        ),
        (
            BgpAdvertisementSpec { local_pref: Some(1 << 32), ..advert() },
            Bad("pref", "spec.localPref", "4294967296", &["invalid local preference"]),
        ),
        (
            communities(&["gold"]),
            Bad("alias", at, "gold", &["unknown community \"gold\"", "no Community object defines"]),
        ),
        (communities(&["65536:1"]), Bad("half", at, "65536:1", &["\"65536\" is not a number from 0 to 65535"])),
        (communities(&["1:2:3"]), Bad("three", at, "1:2:3", &["write a:b or large:a:b:c"])),
        (communities(&["large:1:2"]), Bad("short", at, "large:1:2", &["write a:b or large:a:b:c"])),
        (communities(&["large:1:2:x"]), Bad("letter", at, "large:1:2:x", &["from 0 to 4294967295"])),
        (communities(&["+1:2"]), Bad("sign", at, "+1:2", &["\"+1\" is not a number"])),
        (communities(&[""]), Bad("empty", at, "", &["must not be empty"])),
        (
            communities(&["1:2", "1:2"]),
            Bad("twice", "spec.communities[1]", "1:2", &["duplicate definition of community"]),
        ),
        (
            BgpAdvertisementSpec { ip_address_pools: strings(&["a", "a"]), ..advert() },
            Bad("pools", "spec.ipAddressPools[1]", "a", &["duplicate definition of pool \"a\""]),
        ),
        (
            BgpAdvertisementSpec { peers: strings(&["a", "b", "a"]), ..advert() },
            Bad("peers", "spec.peers[2]", "a", &["duplicate definition of peer \"a\""]),
        ),
        (
            BgpAdvertisementSpec { node_selectors: vec![selector("a", "b"); 2], ..advert() },
            Bad("nodes", "spec.nodeSelectors[1]", "a=b", &["duplicate definition of selector"]),
        ),
        (
            BgpAdvertisementSpec { ip_address_pool_selectors: vec![expression("", "Exists", &[])], ..advert() },
            Bad("key", "spec.ipAddressPoolSelectors[0]", "", &["needs a key"]),
        ),
        (
            BgpAdvertisementSpec { service_selectors: some_service.clone(), ..v4(24) },
            Bad("both", "spec.aggregationLength", "24", &["cannot be used together with serviceSelectors"]),
        ),
        (
            BgpAdvertisementSpec { service_selectors: some_service, ..v6(64) },
            Bad("both v6", "spec.aggregationLengthV6", "64", &["serviceSelectors", "128"]),
        ),
    ];
    refuse("BGPAdvertisement", cases.into_iter().map(|(spec, bad)| (Spec::BgpAdvertisement(spec), bad)).collect());
}

#[test]
fn community_is_refused_with_field_and_value() {
    let with = |list: &[(&str, &str)]| {
        let communities = list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Spec::Community(CommunitySpec { communities })
    };
    refuse(
        "Community",
        vec![
            (with(&[("a", "1")]), Bad("value", "spec.communities[0].value", "1", &["invalid community value \"1\""])),
            (with(&[("a", "1:99999")]), Bad("half", "spec.communities[0].value", "1:99999", &["from 0 to 65535"])),
            (with(&[("", "1:1")]), Bad("name", "spec.communities[0].name", "", &["must have a name"])),
            (
                with(&[("a", "1:1"), ("a", "1:2")]),
                Bad("twice", "spec.communities[1].name", "a", &["duplicate definition of community \"a\""]),
            ),
        ],
    );
}

#[test]
fn bfd_profile_is_refused_with_field_and_value() {
    let with = |change: fn(&mut BfdProfileSpec)| {
        let mut spec = BfdProfileSpec::default();
        change(&mut spec);
        Spec::BfdProfile(spec)
    };
    let ms = &["invalid interval in milliseconds", "from 10 to 60000"];
    refuse(
        "BFDProfile",
        vec![
            (with(|s| s.receive_interval = Some(9)), Bad("receive", "spec.receiveInterval", "9", ms)),
            (with(|s| s.transmit_interval = Some(60_001)), Bad("transmit", "spec.transmitInterval", "60001", ms)),
            (with(|s| s.echo_interval = Some(-1)), Bad("echo", "spec.echoInterval", "-1", ms)),
            (
                with(|s| s.detect_multiplier = Some(1)),
                Bad("multiplier", "spec.detectMultiplier", "1", &["from 2 to 255"]),
            ),
            (with(|s| s.minimum_ttl = Some(255)), Bad("ttl", "spec.minimumTtl", "255", &["from 1 to 254"])),
        ],
    );
}

#[test]
fn layer2_advertisement_is_checked_and_says_that_it_does_nothing_yet() {
    let with = |spec| World::new().with("L2Advertisement", "x", 0, Some(Spec::L2Advertisement(spec))).build();
    let config = with(L2AdvertisementSpec::default());
    assert_eq!(config.problems.len(), 1);
    assert!(config.problems[0].message.contains("layer 2 is not announced yet") && !config.stale);
    let config = with(L2AdvertisementSpec { interfaces: strings(&["e", "e"]), ..L2AdvertisementSpec::default() });
    let error = config.problems.iter().find(|p| p.severity == Severity::Error).unwrap();
    assert_eq!((&*error.field, &*error.value), ("spec.interfaces[1]", "e"));
}

#[test]
fn all_problems_of_an_object_are_told_at_once() {
    let bad = BgpPeerSpec { peer_port: Some(0), hold_time: some("1s"), router_id: some("x"), ..BgpPeerSpec::default() };
    let config = World::new().peer("r", 0, bad).build();
    let fields: Vec<&str> = config.problems.iter().map(|p| &*p.field).collect();
    let want = ["spec.holdTime", "spec.myASN", "spec.peerASN", "spec.peerAddress", "spec.peerPort", "spec.routerID"];
    assert_eq!(fields, want);
}

#[test]
fn object_without_the_right_shape_carries_its_own_problems() {
    let mut world = World::new().with("IPAddressPool", "x", 0, None).with("BFDProfile", "y", 0, None);
    let key = ObjectKey { kind: "IPAddressPool", name: "x".into() };
    let found = Problem {
        object: key.clone(),
        field: "spec.addresses".to_owned(),
        value: "7".to_owned(),
        rule: "wrongType",
        message: "must be a list".to_owned(),
        suggestion: String::new(),
        severity: Severity::Error,
    };
    let old = world.resources.objects[&key].clone();
    world.resources.objects.insert(key, Arc::new(Resource { problems: vec![found.clone()], ..(*old).clone() }));
    let config = world.build();
    assert!(config.problems.contains(&found));
    assert_eq!(config.problems.len(), 2, "{:?}", config.problems);
    assert!(config.pools_unknown.contains_key("x"));
}
