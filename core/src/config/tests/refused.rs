//! Objects that are refused by themselves, one rule each.
use super::*;

/// A refused object: name of the case, rule, field, value, and parts of the text.
pub(super) struct Bad(
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static [&'static str],
);

/// Builds the object alone and expects exactly one error, about that.
pub(super) fn refuse(kind: &'static str, cases: Vec<(Spec, Bad)>) {
    for (spec, Bad(name, rule, field, value, parts)) in cases {
        let config = World::new().with(kind, "x", 0, Some(spec)).build();
        let errors: Vec<_> = config.problems.iter().filter(|p| p.severity == Severity::Error).collect();
        let [problem] = errors[..] else { panic!("{name}: {:#?}", config.problems) };
        assert_eq!((problem.object.kind, &*problem.object.name), (kind, "x"), "{name}");
        assert_eq!((problem.rule, &*problem.field, &*problem.value), (rule, field, value), "{name}: {problem}");
        for part in parts {
            assert!(problem.to_string().contains(part), "{name}: {part:?} is missing in: {problem}");
        }
        assert!(config.stale, "{name}");
        let in_force =
            config.pools.len() + config.peers.len() + config.advertisements.len() + config.reservations.len();
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
            (Spec::Pool(pool(&[])), Bad("none", "poolEmpty", "spec.addresses", "", &["pool has no prefixes defined"])),
            (entry(""), Bad("empty", "rangeInvalid", at, "", &["must not be empty", "192.0.2.0/24"])),
            (entry("  "), Bad("blank", "rangeInvalid", at, "  ", &["must not be empty"])),
            (entry("web"), Bad("word", "rangeInvalid", at, "web", &["invalid CIDR \"web\"", "192.0.2.10-192.0.2.20"])),
            (entry("10.0.0.1"), Bad("bare", "rangeInvalid", at, "10.0.0.1", &["invalid CIDR", "10.0.0.1/32"])),
            (entry("fc00::1"), Bad("bare v6", "rangeInvalid", at, "fc00::1", &["fc00::1/128"])),
            (entry("10.0.0.0/33"), Bad("length", "rangeInvalid", at, "10.0.0.0/33", &["invalid CIDR"])),
            (entry("fc00::/129"), Bad("length v6", "rangeInvalid", at, "fc00::/129", &["invalid CIDR"])),
            (entry("10.0.0.0/"), Bad("no length", "rangeInvalid", at, "10.0.0.0/", &["invalid CIDR"])),
            (entry("10.0.0.256/24"), Bad("octet", "rangeInvalid", at, "10.0.0.256/24", &["invalid CIDR"])),
            (
                entry("10.0.0.9-10.0.0.1"),
                Bad(
                    "backwards",
                    "rangeBackwards",
                    at,
                    "10.0.0.9-10.0.0.1",
                    &["range end 10.0.0.1 lies below its start 10.0.0.9", "write start-end"],
                ),
            ),
            (
                entry("1.2.3.4-fc00::1"),
                Bad(
                    "mixed",
                    "rangeMixedFamilies",
                    at,
                    "1.2.3.4-fc00::1",
                    &["different families", "one range per family"],
                ),
            ),
            (
                entry("10.0.0.1-"),
                Bad(
                    "open end",
                    "rangeInvalid",
                    at,
                    "10.0.0.1-",
                    &["invalid IP range", "end \"\" is not an IP address"],
                ),
            ),
            (
                entry("-10.0.0.1"),
                Bad("open start", "rangeInvalid", at, "-10.0.0.1", &["start \"\" is not an IP address"]),
            ),
            (
                entry("10.0.0.1-9"),
                Bad("short end", "rangeInvalid", at, "10.0.0.1-9", &["end \"9\" is not an IP address"]),
            ),
            (entry("10.0.0.1-2-3"), Bad("two ends", "rangeInvalid", at, "10.0.0.1-2-3", &["invalid IP range"])),
            (
                entry("::ffff:10.0.0.0/120"),
                Bad("mapped", "addressMapped", at, "::ffff:10.0.0.0/120", &["IPv4-mapped", "10.0.0.0"]),
            ),
            (
                entry("::ffff:10.0.0.1-::ffff:10.0.0.2"),
                Bad("mapped range", "addressMapped", at, "::ffff:10.0.0.1-::ffff:10.0.0.2", &["IPv4-mapped"]),
            ),
            (entry("198.51.100.0/24"), Bad("twice", "duplicate", at, "198.51.100.0/24", &["duplicate definition"])),
            (
                entry("198.51.100.7/24"),
                Bad("twice, other host bits", "duplicate", at, "198.51.100.7/24", &["duplicate definition"]),
            ),
            (
                entry("198.51.100.9-198.51.101.9"),
                Bad(
                    "overlap",
                    "rangeOverlap",
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
        (
            BgpPeerSpec { my_asn: None, ..peer() },
            Bad("no AS", "myASNMissing", "spec.myASN", "", &["missing local ASN"]),
        ),
        (
            BgpPeerSpec { my_asn: Some(0), ..peer() },
            Bad("AS 0", "myASNMissing", "spec.myASN", "", &["missing local ASN", "from 1 to 4294967295"]),
        ),
        (
            BgpPeerSpec { my_asn: Some(-1), ..peer() },
            Bad("AS -1", "outOfRange", "spec.myASN", "-1", &["must be from 1 to 4294967295"]),
        ),
        (
            BgpPeerSpec { my_asn: Some(4_294_967_296), ..peer() },
            Bad("AS 2^32", "outOfRange", "spec.myASN", "4294967296", &["must be from 1 to 4294967295"]),
        ),
        (
            BgpPeerSpec { local_asn: Some(0), ..peer() },
            Bad("local AS 0", "outOfRange", "spec.localASN", "0", &["must be from 1"]),
        ),
        (
            BgpPeerSpec { peer_asn: None, ..peer() },
            Bad("no peer AS", "peerASNMissing", "spec.peerASN", "", &["missing peer ASN and dynamicASN"]),
        ),
        (
            BgpPeerSpec { peer_asn: Some(0), ..peer() },
            Bad("peer AS 0", "peerASNMissing", "spec.peerASN", "", &["missing peer ASN and dynamicASN"]),
        ),
        (
            BgpPeerSpec { peer_asn: Some(-7), ..peer() },
            Bad("peer AS -7", "outOfRange", "spec.peerASN", "-7", &["must be from 1"]),
        ),
        (
            BgpPeerSpec { dynamic_asn: some("external"), ..peer() },
            Bad("both AS", "exclusive", "spec.peerASN", "64513", &["both peer ASN and dynamicASN specified"]),
        ),
        (
            BgpPeerSpec { peer_asn: None, dynamic_asn: some("any"), ..peer() },
            Bad(
                "dynamic",
                "dynamicASNInvalid",
                "spec.dynamicASN",
                "any",
                &["invalid dynamicASN any", "internal or external"],
            ),
        ),
        (
            BgpPeerSpec { peer_address: None, ..peer() },
            Bad(
                "no address",
                "peerAddressMissing",
                "spec.peerAddress",
                "",
                &["peer has no Address or Interface specified"],
            ),
        ),
        (
            BgpPeerSpec { interface: some("eth0"), ..peer() },
            Bad(
                "both ends",
                "exclusive",
                "spec.peerAddress",
                "192.0.2.1",
                &["peer has both Address and Interface specified"],
            ),
        ),
        (
            BgpPeerSpec { peer_address: some("router"), ..peer() },
            Bad("name", "peerAddressInvalid", "spec.peerAddress", "router", &["invalid BGPPeer address \"router\""]),
        ),
        (
            BgpPeerSpec { peer_address: some("192.0.2.1/32"), ..peer() },
            Bad("CIDR", "peerAddressInvalid", "spec.peerAddress", "192.0.2.1/32", &["without prefix length"]),
        ),
        (
            BgpPeerSpec { peer_address: some("fe80::1%eth0"), ..peer() },
            Bad("zone", "peerAddressInvalid", "spec.peerAddress", "fe80::1%eth0", &["without prefix length or zone"]),
        ),
        (
            BgpPeerSpec { peer_address: some("0.0.0.0"), ..peer() },
            Bad("unspecified", "peerAddressInvalid", "spec.peerAddress", "0.0.0.0", &["no host can have it"]),
        ),
        (
            BgpPeerSpec { peer_address: some("::ffff:192.0.2.1"), ..peer() },
            Bad("mapped", "peerAddressInvalid", "spec.peerAddress", "::ffff:192.0.2.1", &["IPv4-mapped"]),
        ),
    ];
    refuse("BGPPeer", cases.into_iter().map(|(spec, bad)| (Spec::Peer(spec), bad)).collect());
}

#[test]
fn peer_is_refused_with_field_and_value_when_how_to_reach_it_is_wrong() {
    let cases: Vec<(BgpPeerSpec, Bad)> = vec![
        (
            BgpPeerSpec { source_address: some("me"), ..peer() },
            Bad("source", "sourceAddressInvalid", "spec.sourceAddress", "me", &["invalid source IP \"me\""]),
        ),
        (
            BgpPeerSpec { source_address: some("fc00::1"), ..peer() },
            Bad(
                "source family",
                "sourceAddressFamily",
                "spec.sourceAddress",
                "fc00::1",
                &["its family differs from that of the peer, 192.0.2.1"],
            ),
        ),
        (
            BgpPeerSpec { router_id: some("::1"), ..peer() },
            Bad("id", "routerIDInvalid", "spec.routerID", "::1", &["invalid router ID \"::1\""]),
        ),
        (
            BgpPeerSpec { router_id: some("0.0.0.0"), ..peer() },
            Bad("id 0", "routerIDInvalid", "spec.routerID", "0.0.0.0", &["invalid router ID"]),
        ),
        (
            BgpPeerSpec { peer_port: Some(-1), ..peer() },
            Bad("port -1", "outOfRange", "spec.peerPort", "-1", &["from 1 to 16384"]),
        ),
        (
            BgpPeerSpec { peer_port: Some(16385), ..peer() },
            Bad("port", "outOfRange", "spec.peerPort", "16385", &["from 1 to 16384"]),
        ),
        (
            BgpPeerSpec { ebgp_multi_hop: Some(true), peer_asn: Some(64512), ..peer() },
            Bad(
                "multihop",
                "multiHopInternal",
                "spec.ebgpMultiHop",
                "true",
                &["invalid ebgp-multihop parameter set for an ibgp peer"],
            ),
        ),
        (
            BgpPeerSpec { ebgp_multi_hop: Some(true), peer_asn: None, dynamic_asn: some("internal"), ..peer() },
            Bad("multihop internal", "multiHopInternal", "spec.ebgpMultiHop", "true", &["invalid ebgp-multihop"]),
        ),
        (
            BgpPeerSpec { node_selectors: vec![expression("a", "Exists", &["b"])], ..peer() },
            Bad(
                "selector",
                "selectorInvalid",
                "spec.nodeSelectors[0]",
                "",
                &["operator Exists on key \"a\" takes no values"],
            ),
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
        (timers("90", ""), Bad("no unit", "durationInvalid", hold, "90", &["unit missing", "90s"])),
        (timers("soon", ""), Bad("word", "durationInvalid", hold, "soon", &["is not a duration", "90s or 1m30s"])),
        (timers("2s", ""), Bad("2 s", "holdTimeInvalid", hold, "2s", &["must be 0 or from 3s to 65535s"])),
        (timers("2999ms", ""), Bad("2.999 s", "holdTimeInvalid", hold, "2999ms", &["must be 0 or from 3s"])),
        (timers("65536s", ""), Bad("too long", "holdTimeInvalid", hold, "65536s", &["65535s"])),
        (timers("-90s", ""), Bad("negative", "durationInvalid", hold, "-90s", &["must not be negative"])),
        (
            timers("9999999999h", ""),
            Bad("eternity", "durationInvalid", hold, "9999999999h", &["longer than any duration"]),
        ),
        (
            timers("30s", "31s"),
            Bad("above", "keepaliveTimeInvalid", keep, "31s", &["invalid keepaliveTime \"31s\"", "hold time 30s"]),
        ),
        (timers("0", "1s"), Bad("above 0", "keepaliveTimeInvalid", keep, "1s", &["hold time 0s"])),
        (timers("30s", "0"), Bad("none", "keepaliveTimeInvalid", keep, "0", &["at least 1s"])),
        (
            BgpPeerSpec { keepalive_time: some("30000s"), ..peer() },
            Bad("3 times", "holdTimeInvalid", keep, "30000s", &["90000s", "65535s"]),
        ),
        (
            BgpPeerSpec { connect_time: some("0s"), ..peer() },
            Bad("connect 0", "connectTimeInvalid", "spec.connectTime", "0s", &["1s to 65535s"]),
        ),
        (
            BgpPeerSpec { connect_time: some("1500ms"), ..peer() },
            Bad("connect part", "connectTimeInvalid", "spec.connectTime", "1500ms", &["whole seconds"]),
        ),
        (
            BgpPeerSpec { connect_time: some("65536s"), ..peer() },
            Bad("connect long", "connectTimeInvalid", "spec.connectTime", "65536s", &["65535s"]),
        ),
        (
            BgpPeerSpec { password: Some("x".repeat(81)), ..peer() },
            Bad("password", "passwordTooLong", "spec.password", "", &["81 octets", "at most 80"]),
        ),
        (
            BgpPeerSpec { password: some("x"), password_secret: secret("s", ""), ..peer() },
            Bad("two passwords", "exclusive", "spec.passwordSecret", "s", &["can not have both"]),
        ),
        (
            BgpPeerSpec { password_secret: secret("s", "other"), ..peer() },
            Bad("namespace", "secretNamespace", "spec.passwordSecret.namespace", "other", &["\"metallb-system\""]),
        ),
        (
            BgpPeerSpec { password_secret: secret("", "metallb-system"), ..peer() },
            Bad("no name", "secretNameMissing", "spec.passwordSecret.name", "", &["names no Secret"]),
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
        (v4(0), Bad("length 0", "outOfRange", "spec.aggregationLength", "0", &["from 1 to 32"])),
        (v4(33), Bad("length 33", "outOfRange", "spec.aggregationLength", "33", &["from 1 to 32"])),
        (v6(129), Bad("length 129", "outOfRange", "spec.aggregationLengthV6", "129", &["to 128"])),
        (v6(-1), Bad("length -1", "outOfRange", "spec.aggregationLengthV6", "-1", &["to 128"])),
        (
            BgpAdvertisementSpec { local_pref: Some(-1), ..advert() },
            Bad("pref", "outOfRange", "spec.localPref", "-1", &["from 0 to 4294967295"]),
        ),
        (
            BgpAdvertisementSpec { local_pref: Some(1 << 32), ..advert() },
            Bad("pref", "outOfRange", "spec.localPref", "4294967296", &["invalid local preference"]),
        ),
        (
            communities(&["gold"]),
            Bad(
                "alias",
                "communityUnknown",
                at,
                "gold",
                &["unknown community \"gold\"", "no Community object defines"],
            ),
        ),
        (
            communities(&["65536:1"]),
            Bad("half", "communityInvalid", at, "65536:1", &["\"65536\" is not a number from 0 to 65535"]),
        ),
        (communities(&["1:2:3"]), Bad("three", "communityInvalid", at, "1:2:3", &["write a:b or large:a:b:c"])),
        (communities(&["large:1:2"]), Bad("short", "communityInvalid", at, "large:1:2", &["write a:b or large:a:b:c"])),
        (
            communities(&["large:1:2:x"]),
            Bad("letter", "communityInvalid", at, "large:1:2:x", &["from 0 to 4294967295"]),
        ),
        (communities(&["+1:2"]), Bad("sign", "communityInvalid", at, "+1:2", &["\"+1\" is not a number"])),
        (communities(&[""]), Bad("empty", "nameEmpty", at, "", &["must not be empty"])),
        (
            communities(&["1:2", "1:2"]),
            Bad("twice", "duplicate", "spec.communities[1]", "1:2", &["duplicate definition of community"]),
        ),
        (
            BgpAdvertisementSpec { ip_address_pools: strings(&["a", "a"]), ..advert() },
            Bad("pools", "duplicate", "spec.ipAddressPools[1]", "a", &["duplicate definition of pool \"a\""]),
        ),
        (
            BgpAdvertisementSpec { peers: strings(&["a", "b", "a"]), ..advert() },
            Bad("peers", "duplicate", "spec.peers[2]", "a", &["duplicate definition of peer \"a\""]),
        ),
        (
            BgpAdvertisementSpec { node_selectors: vec![selector("a", "b"); 2], ..advert() },
            Bad("nodes", "duplicate", "spec.nodeSelectors[1]", "a=b", &["duplicate definition of selector"]),
        ),
        (
            BgpAdvertisementSpec { ip_address_pool_selectors: vec![expression("", "Exists", &[])], ..advert() },
            Bad("key", "selectorInvalid", "spec.ipAddressPoolSelectors[0]", "", &["needs a key"]),
        ),
        (
            BgpAdvertisementSpec { service_selectors: some_service.clone(), ..v4(24) },
            Bad(
                "both",
                "aggregationWithServiceSelectors",
                "spec.aggregationLength",
                "24",
                &["cannot be used together with serviceSelectors"],
            ),
        ),
        (
            BgpAdvertisementSpec { service_selectors: some_service, ..v6(64) },
            Bad(
                "both v6",
                "aggregationWithServiceSelectors",
                "spec.aggregationLengthV6",
                "64",
                &["serviceSelectors", "128"],
            ),
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
            (
                with(&[("a", "1")]),
                Bad("value", "communityInvalid", "spec.communities[0].value", "1", &["invalid community value \"1\""]),
            ),
            (
                with(&[("a", "1:99999")]),
                Bad("half", "communityInvalid", "spec.communities[0].value", "1:99999", &["from 0 to 65535"]),
            ),
            (with(&[("", "1:1")]), Bad("name", "nameEmpty", "spec.communities[0].name", "", &["must have a name"])),
            (
                with(&[("a", "1:1"), ("a", "1:2")]),
                Bad(
                    "twice",
                    "duplicate",
                    "spec.communities[1].name",
                    "a",
                    &["duplicate definition of community \"a\""],
                ),
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
            (with(|s| s.receive_interval = Some(9)), Bad("receive", "outOfRange", "spec.receiveInterval", "9", ms)),
            (
                with(|s| s.transmit_interval = Some(60_001)),
                Bad("transmit", "outOfRange", "spec.transmitInterval", "60001", ms),
            ),
            (with(|s| s.echo_interval = Some(-1)), Bad("echo", "outOfRange", "spec.echoInterval", "-1", ms)),
            (
                with(|s| s.detect_multiplier = Some(1)),
                Bad("multiplier", "outOfRange", "spec.detectMultiplier", "1", &["from 2 to 255"]),
            ),
            (
                with(|s| s.minimum_ttl = Some(255)),
                Bad("ttl", "outOfRange", "spec.minimumTtl", "255", &["from 1 to 254"]),
            ),
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
    let bad =
        BgpPeerSpec { peer_port: Some(-1), hold_time: some("1s"), router_id: some("x"), ..BgpPeerSpec::default() };
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

#[test]
fn selector_is_refused_when_no_label_can_be_like_that() {
    let nodes = |raw: RawSelector| Spec::Peer(BgpPeerSpec { node_selectors: vec![raw], ..peer() });
    let at = "spec.nodeSelectors[0]";
    let rule = "selectorInvalid";
    refuse(
        "BGPPeer",
        vec![
            (nodes(selector("a b", "x")), Bad("space", rule, at, "a b", &["\"a b\" is not the key of a label"])),
            (nodes(selector("/a", "x")), Bad("no prefix", rule, at, "/a", &["is not the key"])),
            (nodes(selector("a/", "x")), Bad("no name", rule, at, "a/", &["is not the key"])),
            (nodes(selector("a", "-x")), Bad("dash", rule, at, "-x", &["\"-x\" is not the value of a label"])),
            (nodes(expression("a", "In", &["ok", "x y"])), Bad("listed", rule, at, "x y", &["is not the value"])),
            (
                nodes(expression("a", "Within", &["x"])),
                Bad("operator", rule, at, "", &["\"Within\"", "write In, NotIn"]),
            ),
            (nodes(expression("a", "NotIn", &[])), Bad("no value", rule, at, "", &["needs at least one value"])),
        ],
    );
    let long = "x".repeat(64);
    refuse("BGPPeer", vec![(nodes(selector("a", &long)), Bad("long", rule, at, long.clone().leak(), &["at most 63"]))]);
    for (key, value) in [("a", ""), ("a.b/c_d", "x.y-z"), ("A1", "0")] {
        let spec = BgpPeerSpec { node_selectors: vec![selector(key, value)], ..peer() };
        assert_eq!(World::new().peer("x", 0, spec).build().problems, [], "{key}={value}");
    }
}

#[test]
fn layer2_advertisement_is_refused_with_field_and_value() {
    let preferring = |weight, raw: RawSelector| L2AdvertisementSpec {
        preferred_node_selectors: vec![(weight, raw)],
        ..L2AdvertisementSpec::default()
    };
    let (at, some_node) = ("spec.preferredNodeSelectors[0]", || selector("rack", "a"));
    assert_eq!(at, "spec.preferredNodeSelectors[0]");
    let weight = "spec.preferredNodeSelectors[0].weight";
    let all = L2AdvertisementSpec::default;
    let cases = vec![
        (preferring(0, some_node()), Bad("weight 0", "outOfRange", weight, "0", &["from 1 to 100"])),
        (preferring(101, some_node()), Bad("weight 101", "outOfRange", weight, "101", &["from 1 to 100"])),
        (
            preferring(1, expression("", "Exists", &[])),
            Bad("preference", "selectorInvalid", "spec.preferredNodeSelectors[0].preference", "", &["needs a key"]),
        ),
        (
            L2AdvertisementSpec { ip_address_pools: strings(&["p", "p"]), ..all() },
            Bad("pools", "duplicate", "spec.ipAddressPools[1]", "p", &["pool \"p\""]),
        ),
        (
            L2AdvertisementSpec { node_selectors: vec![some_node(), some_node()], ..all() },
            Bad("nodes", "duplicate", "spec.nodeSelectors[1]", "rack=a", &["duplicate definition of selector"]),
        ),
        (
            L2AdvertisementSpec { interfaces: strings(&[""]), ..all() },
            Bad("interface", "nameEmpty", "spec.interfaces[0]", "", &["must not be empty"]),
        ),
    ];
    refuse("L2Advertisement", cases.into_iter().map(|(spec, bad)| (Spec::L2Advertisement(spec), bad)).collect());
}

#[test]
fn annotation_without_a_meaning_is_warned_about() {
    for (text, warned) in [("hold", false), ("move-0123456789ab", false), ("move", true), ("move-1", true), ("", true)]
    {
        let world = World::new().pool("p", 0, &["10.0.0.0/24"]);
        let config = world.meta("IPAddressPool", "p", |meta| meta.on_address_loss = Some(text.into())).build();
        let rules: Vec<_> = config.problems.iter().map(|p| p.rule).collect();
        assert_eq!(rules, if warned { vec!["onAddressLossInvalid"] } else { vec![] }, "{text}");
        assert!(config.pools.contains_key("p"));
    }
}

#[test]
fn echo_with_a_peer_of_many_hops_is_warned_about() {
    let echo = BfdProfileSpec { echo_mode: Some(true), ..BfdProfileSpec::default() };
    for (multi_hop, warned) in [(true, true), (false, false)] {
        let spec = BgpPeerSpec { bfd_profile: some("fast"), ebgp_multi_hop: Some(multi_hop), ..peer() };
        let config = World::new().profile("fast", echo.clone()).peer("r", 0, spec).build();
        assert_eq!(
            config.problems.iter().map(|p| (p.rule, &*p.field)).next(),
            warned.then_some(("noEffect", "spec.bfdProfile"))
        );
        assert!(!config.stale);
    }
}
