//! Objects that do not go together, and what stays in force after an edit.
use super::*;

/// The texts of all problems of one severity.
fn texts(config: &Config, severity: Severity) -> Vec<String> {
    config.problems.iter().filter(|p| p.severity == severity).map(ToString::to_string).collect()
}

#[test]
fn younger_pool_is_out_of_force_when_it_overlaps_an_older_one() {
    let world =
        World::new().pool("old", 1, &["10.0.0.64-10.0.0.127", "10.0.1.0/24"]).pool("young", 2, &["10.0.0.0/24"]);
    let config = world.build();
    assert_eq!(ranges(&config, "old"), ["10.0.0.64-10.0.0.127", "10.0.1.0-10.0.1.255"]);
    assert!(!config.pools.contains_key("young") && config.pools_unknown.contains_key("young") && config.stale);
    assert_eq!(
        texts(&config, Severity::Error),
        [
            "IPAddressPool young: spec.addresses[0]: \"10.0.0.0/24\": CIDR \"10.0.0.0/24\" in pool \"young\" overlaps with already defined CIDR \"10.0.0.64-10.0.0.127\" of pool \"old\", which is older and stays: leave out what the older pool has"
        ]
    );
    assert_eq!(config.pool_of("10.0.0.63".parse().unwrap()), None);
}

#[test]
fn name_decides_when_pools_are_of_one_age() {
    let config = World::new().pool("b", 1, &["10.0.0.0/24"]).pool("a", 1, &["10.0.0.0/25"]).build();
    assert_eq!(config.pools.keys().map(|n| &**n).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn pool_in_force_keeps_what_is_left_when_an_older_one_grows_into_it() {
    let mut builder = Builder::default();
    let before = World::new().pool("old", 1, &["10.0.0.0/26"]).pool("young", 2, &["10.0.0.128/25", "10.0.1.0/24"]);
    assert_eq!(builder.build(&before.resources).problems, []);
    let config = builder.build(&before.clone().pool("old", 1, &["10.0.0.0/24"]).resources);
    assert_eq!(ranges(&config, "young"), ["10.0.1.0-10.0.1.255"]);
    assert!(texts(&config, Severity::Error)[0].contains("of pool \"old\", which is older and stays; the last valid"));
    let config = builder.build(&before.pool("old", 1, &["10.0.0.0/23"]).resources);
    assert!(config.pools_unknown.contains_key("young"), "nothing is left");
}

#[test]
fn edited_object_keeps_its_last_valid_version_until_it_is_deleted() {
    let mut builder = Builder::default();
    let good = World::new().pool("p", 1, &["10.0.0.0/24"]).peer("r", 1, peer()).advert("a", 1, advert());
    let first = builder.build(&good.resources);
    assert_eq!(first.problems, []);
    let bad = good
        .clone()
        .pool("p", 1, &["10.0.0.9-10.0.0.1"])
        .peer("r", 1, BgpPeerSpec { my_asn: Some(0), ..peer() })
        .with("BGPAdvertisement", "a", 1, None);
    let second = builder.build(&bad.resources);
    assert_eq!((&second.pools, &second.peers), (&first.pools, &first.peers));
    assert_eq!(second.advertisements, first.advertisements);
    assert!(second.stale && second.pools_unknown.is_empty());
    let errors = texts(&second, Severity::Error);
    assert_eq!(errors.len(), 3);
    assert!(errors.iter().all(|e| e.contains("the last valid version stays in force")), "{errors:?}");
    let fresh = build(&bad.resources);
    assert!(fresh.pools.is_empty() && fresh.peers.is_empty() && fresh.pools_unknown.contains_key("p"));
    assert_eq!(builder.build(&World::new().resources), Config::default());
    assert!(builder.build(&bad.resources).pools.is_empty(), "a deleted object is forgotten");
    assert!(!builder.build(&good.resources).stale, "and mending it mends everything");
}

#[test]
fn advertisement_keeps_its_meaning_when_its_alias_is_deleted() {
    let mut builder = Builder::default();
    let spec = BgpAdvertisementSpec { communities: strings(&["gold"]), ..advert() };
    let world = World::new().community("c", 0, &[("gold", "1:2")]).advert("a", 0, spec);
    let before = builder.build(&world.resources);
    let after = builder.build(&world.clone().without("Community", "c").resources);
    assert_eq!(after.advertisements, before.advertisements);
    assert!(texts(&after, Severity::Error)[0].contains("unknown community \"gold\""));
    let changed = builder.build(&world.community("c", 0, &[("gold", "3:4")]).resources);
    assert_eq!(changed.advertisements["a"].communities, [Community::Standard(3, 4)].into());
}

#[test]
fn younger_community_is_refused_when_an_older_has_its_alias() {
    let world = World::new()
        .community("b-old", 1, &[("gold", "1:1")])
        .community("a-young", 2, &[("silver", "2:2"), ("gold", "3:3")])
        .advert("x", 0, BgpAdvertisementSpec { communities: strings(&["gold"]), ..advert() })
        .advert("y", 0, BgpAdvertisementSpec { communities: strings(&["silver"]), ..advert() });
    let config = world.build();
    assert_eq!(config.advertisements["x"].communities, [Community::Standard(1, 1)].into());
    let errors = texts(&config, Severity::Error);
    assert!(
        errors.iter().any(|e| e.contains("duplicate definition of community \"gold\": the older Community \"b-old\""))
    );
    assert!(errors.iter().any(|e| e.contains("unknown community \"silver\"")), "the whole object is out: {errors:?}");
}

#[test]
fn aggregation_is_refused_when_it_would_announce_more_than_an_entry() {
    let lengths = |v4, v6| BgpAdvertisementSpec { aggregation_length: v4, aggregation_length_v6: v6, ..advert() };
    let world = World::new().pool("p", 0, &["10.0.0.0/26", "10.0.1.0-10.0.1.199", "fc00::/120"]);
    for (spec, want) in [
        (lengths(Some(26), None), None),
        (lengths(Some(32), Some(120)), None),
        (lengths(Some(25), None), Some("invalid aggregation length 25: prefix 26 in pool \"p\" is more specific")),
        (lengths(Some(24), None), Some("addresses 10.0.1.0-10.0.1.199")),
        (lengths(None, Some(64)), Some("invalid aggregation length 64: prefix 120 in pool \"p\"")),
        (BgpAdvertisementSpec { ip_address_pools: strings(&["q"]), ..lengths(Some(8), None) }, None),
        (
            BgpAdvertisementSpec { ip_address_pool_selectors: vec![selector("name", "p")], ..lengths(Some(8), None) },
            Some("more specific than the aggregation length"),
        ),
    ] {
        let errors = texts(&world.clone().advert("a", 0, spec.clone()).build(), Severity::Error);
        match want {
            None => assert_eq!(errors, [""; 0], "{spec:?}"),
            Some(part) => assert!(errors.iter().any(|e| e.contains(part)), "{spec:?}: {errors:?}"),
        }
    }
}

#[test]
fn younger_of_two_equal_advertisements_is_refused() {
    let config = World::new().advert("b", 1, advert()).advert("a", 2, advert()).build();
    assert_eq!(config.advertisements.keys().map(|n| &**n).collect::<Vec<_>>(), ["b"]);
    assert!(texts(&config, Severity::Error)[0].contains("advertisements \"a\" and \"b\" are equal"));
}

#[test]
fn younger_advertisement_is_refused_when_local_preferences_contradict() {
    let pref = |local_pref| BgpAdvertisementSpec { local_pref: Some(local_pref), ..advert() };
    let rack = |rack| vec![selector("rack", rack)];
    let world = World::new().pool("p", 0, &["10.0.0.0/24"]).pool("q", 0, &["10.1.0.0/24"]);
    for (older, younger, refused) in [
        (pref(100), pref(200), true),
        (pref(100), advert(), true),
        (pref(100), BgpAdvertisementSpec { aggregation_length: Some(24), ..pref(200) }, false),
        (pref(100), BgpAdvertisementSpec { aggregation_length_v6: Some(64), ..pref(200) }, true),
        (pref(100), BgpAdvertisementSpec { peers: strings(&["x"]), ..pref(200) }, true),
        (
            BgpAdvertisementSpec { peers: strings(&["y"]), ..pref(100) },
            BgpAdvertisementSpec { peers: strings(&["x"]), ..pref(200) },
            false,
        ),
        (
            BgpAdvertisementSpec { ip_address_pools: strings(&["p"]), ..pref(100) },
            BgpAdvertisementSpec { ip_address_pools: strings(&["q"]), ..pref(200) },
            false,
        ),
        (
            BgpAdvertisementSpec { node_selectors: rack("a"), ..pref(100) },
            BgpAdvertisementSpec { node_selectors: rack("b"), ..pref(200) },
            false,
        ),
        (
            BgpAdvertisementSpec { node_selectors: rack("a"), ..pref(100) },
            BgpAdvertisementSpec { node_selectors: rack("a"), ..pref(200) },
            true,
        ),
        (pref(100), BgpAdvertisementSpec { service_selectors: vec![selector("app", "x")], ..pref(200) }, false),
        (pref(100), BgpAdvertisementSpec { communities: strings(&["1:1"]), ..pref(100) }, false),
    ] {
        let config = world.clone().advert("z", 1, older.clone()).advert("a", 2, younger.clone()).build();
        assert!(config.advertisements.contains_key("z"));
        assert_eq!(!config.advertisements.contains_key("a"), refused, "{older:?} {younger:?}");
        if refused {
            assert!(texts(&config, Severity::Error)[0].contains("invalid local preference"), "{config:?}");
        }
    }
}

#[test]
fn dangling_names_are_warned_about_and_allowed() {
    let spec =
        BgpAdvertisementSpec { ip_address_pools: strings(&["p", "none"]), peers: strings(&["ghost"]), ..advert() };
    let old = BgpPeerSpec { disable_mp: Some(true), ..peer() };
    let config = World::new().pool("p", 0, &["10.0.0.0/24"]).advert("a", 0, spec).peer("r", 0, old).build();
    assert!(!config.stale && config.advertisements.contains_key("a") && config.peers.contains_key("r"));
    let warnings = texts(&config, Severity::Warning);
    for part in [
        "spec.ipAddressPools[1]: \"none\": there is no IPAddressPool",
        "spec.peers[0]: \"ghost\": there is no BGPPeer",
        "spec.disableMP",
    ] {
        assert!(warnings.iter().any(|w| w.contains(part)), "{part}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 3);
}

#[test]
fn peers_that_dial_the_same_are_warned_about_only_where_nodes_overlap() {
    let on = |rack: &str| BgpPeerSpec { node_selectors: vec![selector("rack", rack)], ..peer() };
    for (a, b, warned) in [
        (peer(), peer(), true),
        (peer(), on("a"), true),
        (on("a"), on("a"), true),
        (on("a"), on("b"), false),
        (peer(), BgpPeerSpec { peer_port: Some(1790), ..peer() }, false),
        (peer(), BgpPeerSpec { source_address: some("192.0.2.7"), ..peer() }, false),
    ] {
        let config = World::new().peer("a", 0, a).peer("b", 0, b).build();
        assert_eq!(config.peers.len(), 2);
        assert_eq!(!config.problems.is_empty(), warned, "{:?}", config.problems);
    }
}
