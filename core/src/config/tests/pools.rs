//! PoolPolicies and AddressReservations: what is refused, what is in force, and who wins.
use super::{
    refused::{Bad, refuse},
    *,
};

fn policy() -> PoolPolicySpec {
    PoolPolicySpec::default()
}

/// Reserves these addresses of the pool `p` for the namespace `a`.
fn reserving(addresses: &[&str]) -> ReservationSpec {
    ReservationSpec {
        pool: "p".to_owned(),
        addresses: strings(addresses),
        namespaces: strings(&["a"]),
        ..ReservationSpec::default()
    }
}

/// A world with the pools `p` (IPv4 and IPv6) and `q`.
fn world() -> World {
    World::new().pool("p", 0, &["10.0.0.0/24", "fc00::/120"]).pool("q", 0, &["10.0.1.0/24"])
}

fn told(config: &Config) -> Vec<(&'static str, &str, &str, Severity)> {
    config.problems.iter().map(|p| (p.rule, &*p.field, &*p.value, p.severity)).collect()
}

#[test]
fn pool_policy_is_read_field_by_field() {
    let spec = PoolPolicySpec {
        ip_address_pools: strings(&["p"]),
        ip_address_pool_selectors: vec![selector("name", "q")],
        strategy: some("HashedByName"),
        quotas: vec![(selector("team", "a"), 5), (RawSelector::default(), 0)],
        no_new_addresses: strings(&["10.0.0.0/28", "10.0.0.20-10.0.0.22", "10.0.1.9"]),
        addresses_per_family_max: Some(2),
        pair_with: some("q"),
        sharing_namespaces: some("Same"),
        sharing_traffic_policies: some("Mixed"),
    };
    let config = world().pool_policy("x", 0, spec).build();
    assert_eq!(config.problems, []);
    let policy = config.pools["p"].policy.clone().unwrap();
    assert_eq!(config.pools["q"].policy, Some(policy.clone()));
    assert_eq!(
        config.pool_of("10.0.1.1".parse().unwrap()).unwrap().policy,
        Some(policy.clone()),
        "in the index as well"
    );
    assert_eq!((&*policy.name, policy.strategy, policy.addresses_per_family_max), ("x", Strategy::HashedByName, 2));
    assert_eq!(policy.quotas.iter().map(|q| q.addresses_max).collect::<Vec<_>>(), [5, 0]);
    assert_eq!(
        (policy.pair_with.as_deref(), policy.sharing.same_namespace, policy.sharing.mixed),
        (Some("q"), true, true)
    );
    for (ip, want) in [("10.0.0.15", true), ("10.0.0.16", false), ("10.0.0.21", true), ("10.0.1.9", true)] {
        assert_eq!(policy.withholds(ip.parse().unwrap()), want, "{ip}");
    }
    let config = world().pool_policy("x", 0, policy_of_all()).build();
    assert_eq!(config.pools["q"].policy.as_ref().unwrap().strategy, Strategy::First);
}

fn policy_of_all() -> PoolPolicySpec {
    policy()
}

#[test]
fn pool_policy_is_refused_with_field_and_value() {
    let quota = |key: &str, max| PoolPolicySpec { quotas: vec![(selector(key, "x"), max)], ..policy() };
    let no_new = |list: &[&str]| PoolPolicySpec { no_new_addresses: strings(list), ..policy() };
    let per_family = |n| PoolPolicySpec { addresses_per_family_max: Some(n), ..policy() };
    let cases: Vec<(PoolPolicySpec, Bad)> = vec![
        (
            PoolPolicySpec { strategy: some("Random"), ..policy() },
            Bad(
                "strategy",
                "strategyInvalid",
                "spec.strategy",
                "Random",
                &["First, LeastRecentlyUsed or HashedByName"],
            ),
        ),
        (quota("team", -1), Bad("quota", "outOfRange", "spec.quotas[0].addressesMax", "-1", &["from 0"])),
        (
            quota("a b", 1),
            Bad("selector", "selectorInvalid", "spec.quotas[0].namespaceSelector", "a b", &["is not the key"]),
        ),
        (
            PoolPolicySpec { quotas: vec![(selector("a", "b"), 1), (selector("a", "b"), 2)], ..policy() },
            Bad(
                "twice",
                "duplicate",
                "spec.quotas[1].namespaceSelector",
                "a=b",
                &["duplicate definition of the quota"],
            ),
        ),
        (
            PoolPolicySpec { quotas: (0..101).map(|i| (selector("a", &i.to_string()), 1)).collect(), ..policy() },
            Bad("many", "listTooLong", "spec.quotas", "101", &["at most 100"]),
        ),
        (no_new(&["x"]), Bad("word", "rangeInvalid", "spec.noNewAddresses[0]", "x", &["write a CIDR"])),
        (
            no_new(&["10.0.0.9-10.0.0.1"]),
            Bad("backwards", "rangeBackwards", "spec.noNewAddresses[0]", "10.0.0.9-10.0.0.1", &["lies below"]),
        ),
        (
            no_new(&["10.0.0.0/24", "10.0.0.7"]),
            Bad("overlap", "duplicate", "spec.noNewAddresses[1]", "10.0.0.7", &["overlaps with \"10.0.0.0/24\""]),
        ),
        (per_family(0), Bad("none", "outOfRange", "spec.addressesPerFamilyMax", "0", &["from 1 to 16"])),
        (per_family(17), Bad("many", "outOfRange", "spec.addressesPerFamilyMax", "17", &["from 1 to 16"])),
        (
            PoolPolicySpec { sharing_namespaces: some("None"), ..policy() },
            Bad("namespaces", "sharingInvalid", "spec.sharing.namespaces", "None", &["Any or Same"]),
        ),
        (
            PoolPolicySpec { sharing_traffic_policies: some("Any"), ..policy() },
            Bad("policies", "sharingInvalid", "spec.sharing.trafficPolicies", "Any", &["Same or Mixed"]),
        ),
        (
            PoolPolicySpec { ip_address_pools: strings(&["p", "p"]), ..policy() },
            Bad("pools", "duplicate", "spec.ipAddressPools[1]", "p", &["name it once"]),
        ),
        (
            PoolPolicySpec { ip_address_pool_selectors: vec![expression("", "Exists", &[])], ..policy() },
            Bad("selectors", "selectorInvalid", "spec.ipAddressPoolSelectors[0]", "", &["needs a key"]),
        ),
    ];
    refuse("PoolPolicy", cases.into_iter().map(|(spec, bad)| (Spec::PoolPolicy(spec), bad)).collect());
}

#[test]
fn pool_policy_that_does_nothing_is_warned_about() {
    let on_p = |spec: PoolPolicySpec| PoolPolicySpec { ip_address_pools: strings(&["p"]), ..spec };
    for (spec, want) in [
        (
            PoolPolicySpec { ip_address_pools: strings(&["ghost"]), ..policy() },
            ("unknownName", "spec.ipAddressPools[0]", "ghost"),
        ),
        (
            PoolPolicySpec { ip_address_pool_selectors: vec![selector("name", "ghost")], ..policy() },
            ("selectsNothing", "spec.ipAddressPoolSelectors", ""),
        ),
        (on_p(PoolPolicySpec { pair_with: some("ghost"), ..policy() }), ("unknownName", "spec.pairWith", "ghost")),
        (on_p(PoolPolicySpec { pair_with: some("p"), ..policy() }), ("pairWithSelf", "spec.pairWith", "p")),
        (
            on_p(PoolPolicySpec { no_new_addresses: strings(&["10.0.1.0/24"]), ..policy() }),
            ("outsidePool", "spec.noNewAddresses[0]", "10.0.1.0-10.0.1.255"),
        ),
    ] {
        let config = world().pool_policy("x", 0, spec).build();
        let (rule, field, value) = want;
        assert_eq!(told(&config), [(rule, field, value, Severity::Warning)]);
        assert!(!config.stale);
    }
}

#[test]
fn younger_of_two_policies_of_one_pool_is_invalid_as_a_whole() {
    let on = |pools: &[&str], strategy: &str| PoolPolicySpec {
        ip_address_pools: strings(pools),
        strategy: some(strategy),
        ..policy()
    };
    // Age decides, then the name.
    for (old, old_s, young, young_s) in [("z", 1, "a", 2), ("a", 1, "z", 1)] {
        let world = world().pool_policy(old, old_s, on(&["p"], "HashedByName")).pool_policy(
            young,
            young_s,
            on(&["p", "q"], "LeastRecentlyUsed"),
        );
        let config = world.build();
        assert_eq!(config.pools["p"].policy.as_ref().unwrap().strategy, Strategy::HashedByName);
        assert_eq!(config.pools["q"].policy, None, "nor has it the pool that is free");
        let [problem] = &config.problems[..] else { panic!("{:?}", config.problems) };
        assert_eq!((&*problem.object.name, problem.rule, &*problem.value), (young, "poolPolicyConflict", "p"));
        assert!(problem.message.contains(&format!("the older PoolPolicy {old:?} is for the IPAddressPool \"p\"")));
        let alone = world.without("PoolPolicy", old).build();
        assert!(alone.problems.is_empty() && alone.pools["q"].policy.is_some());
    }
}

#[test]
fn edited_pool_policy_keeps_its_last_valid_version() {
    let mut builder = Builder::default();
    let mut now = |strategy: &str| {
        let spec = PoolPolicySpec { strategy: some(strategy), ..policy() };
        let config = builder.build(&world().pool_policy("x", 0, spec).resources);
        (config.pools["p"].policy.as_ref().map(|p| p.strategy), config.stale)
    };
    assert_eq!(now("Random"), (None, true));
    assert_eq!(now("HashedByName"), (Some(Strategy::HashedByName), false));
    assert_eq!(now("Random"), (Some(Strategy::HashedByName), true));
}

#[test]
fn reservation_is_read_field_by_field() {
    let spec = ReservationSpec {
        addresses: strings(&["10.0.0.7", "10.0.0.16/28", "fc00::5-fc00::9"]),
        services: vec![("a".to_owned(), "web".to_owned())],
        namespaces: strings(&["b"]),
        service_selector: Some(selector("app", "x")),
        release_after: some("24h"),
        ..reserving(&[])
    };
    let config = world().reservation("x", 0, spec).build();
    assert_eq!(config.problems, []);
    let reservation = &config.reservations["x"];
    let Reserved::Addresses(ranges) = &reservation.reserved else { panic!("{reservation:?}") };
    let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.0.0.7-10.0.0.7", "10.0.0.16-10.0.0.31", "fc00::5-fc00::9"]);
    assert_eq!(reservation.release_after, Some(Duration::from_secs(86_400)));
    let key = |text: &str| text.parse::<ServiceKey>().unwrap();
    let labelled: Labels = [("app", "x")].into_iter().collect();
    for (service, labels, want) in [
        ("a/web", Labels::default(), true),
        ("a/other", labelled.clone(), false),
        ("b/other", labelled, true),
        ("b/other", Labels::default(), false),
    ] {
        assert_eq!(reservation.for_whom.matches(&key(service), &labels), want, "{service}");
    }
    let count = ReservationSpec { count: Some(3), family: some("IPv6"), ..reserving(&[]) };
    let config = world().reservation("x", 0, count).build();
    assert_eq!(config.reservations["x"].reserved, Reserved::Count(3, IpFamily::V6));
    assert_eq!(config.reservations["x"].release_after, None);
}

#[test]
fn reservation_is_refused_with_field_and_value() {
    let ten = || reserving(&["10.0.0.7"]);
    let services = |list: &[(&str, &str)]| ReservationSpec {
        services: list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        ..ten()
    };
    let cases: Vec<(ReservationSpec, Bad)> = vec![
        (
            ReservationSpec { pool: String::new(), ..ten() },
            Bad("pool", "missing", "spec.pool", "", &["names no IPAddressPool"]),
        ),
        (reserving(&[]), Bad("nothing", "missing", "spec.addresses", "", &["reserves nothing", "count and family"])),
        (
            ReservationSpec { count: Some(1), family: some("IPv4"), ..ten() },
            Bad("both", "exclusive", "spec.count", "1", &["both addresses and count"]),
        ),
        (
            ReservationSpec { count: Some(1), ..reserving(&[]) },
            Bad("no family", "missing", "spec.family", "", &["write IPv4 or IPv6"]),
        ),
        (
            ReservationSpec { family: some("IPv4"), ..ten() },
            Bad("family", "exclusive", "spec.family", "IPv4", &["goes with count only"]),
        ),
        (
            ReservationSpec { count: Some(1), family: some("ipv4"), ..reserving(&[]) },
            Bad("family case", "familyInvalid", "spec.family", "ipv4", &["write IPv4 or IPv6"]),
        ),
        (
            ReservationSpec { count: Some(0), family: some("IPv4"), ..reserving(&[]) },
            Bad("count", "outOfRange", "spec.count", "0", &["from 1"]),
        ),
        (
            ReservationSpec { namespaces: vec![], ..ten() },
            Bad("nobody", "missing", "spec.for", "", &["is for nobody", "services, namespaces or a serviceSelector"]),
        ),
        (services(&[("a", "")]), Bad("name", "nameInvalid", "spec.for.services[0].name", "", &["write its name"])),
        (
            services(&[("a/b", "c")]),
            Bad("namespace", "nameInvalid", "spec.for.services[0].namespace", "a/b", &["write its namespace"]),
        ),
        (
            services(&[("a", "b"), ("a", "b")]),
            Bad("service twice", "duplicate", "spec.for.services[1]", "a/b", &["name it once"]),
        ),
        (
            ReservationSpec { namespaces: strings(&["a", "a"]), ..ten() },
            Bad("namespace twice", "duplicate", "spec.for.namespaces[1]", "a", &["name it once"]),
        ),
        (
            ReservationSpec { service_selector: Some(expression("a", "Like", &["b"])), ..ten() },
            Bad("selector", "selectorInvalid", "spec.for.serviceSelector", "", &["\"Like\""]),
        ),
        (
            ReservationSpec { release_after: some("1d"), ..ten() },
            Bad("duration", "durationInvalid", "spec.releaseAfter", "1d", &["is not a duration"]),
        ),
        (
            ReservationSpec { release_after: some("-1h"), ..ten() },
            Bad("negative", "durationInvalid", "spec.releaseAfter", "-1h", &["must not be negative"]),
        ),
        (reserving(&["10.0.0"]), Bad("entry", "rangeInvalid", "spec.addresses[0]", "10.0.0", &["write a CIDR"])),
        (
            reserving(&["10.0.0.7", "10.0.0.7"]),
            Bad("twice", "duplicate", "spec.addresses[1]", "10.0.0.7", &["write every address once"]),
        ),
    ];
    refuse("AddressReservation", cases.into_iter().map(|(spec, bad)| (Spec::Reservation(spec), bad)).collect());
}

#[test]
fn reservation_lies_in_its_pool_and_apart_from_older_ones() {
    let addresses = |entry: &str| reserving(&[entry]);
    for (spec, want) in [
        (addresses("10.0.0.0/24"), Some(("reservationOverlap", "spec.addresses[0]", "10.0.0.0-10.0.0.255"))),
        (addresses("10.0.0.8"), Some(("reservationOverlap", "spec.addresses[0]", "10.0.0.8-10.0.0.8"))),
        (addresses("10.0.1.1"), Some(("outsidePool", "spec.addresses[0]", "10.0.1.1-10.0.1.1"))),
        (addresses("10.0.0.200-10.0.1.3"), Some(("outsidePool", "spec.addresses[0]", "10.0.0.200-10.0.1.3"))),
        (addresses("fc00::/119"), Some(("outsidePool", "spec.addresses[0]", "fc00::-fc00::1ff"))),
        (addresses("10.0.0.9"), None),
    ] {
        let config = world().reservation("z", 1, addresses("10.0.0.8")).reservation("a", 2, spec).build();
        assert!(config.reservations.contains_key("z"));
        assert_eq!(config.reservations.contains_key("a"), want.is_none());
        let want: Vec<_> = want.into_iter().map(|(rule, field, value)| (rule, field, value, Severity::Error)).collect();
        assert_eq!(told(&config), want);
    }
}

#[test]
fn reservation_of_a_pool_that_is_not_there_waits_for_it() {
    let spec = ReservationSpec { pool: "ghost".to_owned(), ..reserving(&["10.9.0.1"]) };
    let world = world().reservation("x", 0, spec);
    let config = world.build();
    assert!(config.reservations.is_empty() && !config.stale);
    assert_eq!(told(&config), [("unknownName", "spec.pool", "ghost", Severity::Warning)]);
    let invalid = world.clone().with("IPAddressPool", "ghost", 0, None).build();
    assert!(invalid.problems.iter().any(|p| p.message.contains("is not valid: nothing is reserved")));
    assert!(world.pool("ghost", 0, &["10.9.0.0/24"]).build().reservations.contains_key("x"));
    let count = ReservationSpec { count: Some(257), family: some("IPv4"), ..reserving(&[]) };
    let config = super::pools::world().reservation("x", 0, count).build();
    assert_eq!(told(&config), [("countBeyondPool", "spec.count", "257", Severity::Warning)]);
}

#[test]
fn reservation_keeps_what_its_pool_still_has() {
    let mut builder = Builder::default();
    let spec = || reserving(&["10.0.0.0/30", "10.0.0.250"]);
    let first = builder.build(&world().reservation("x", 0, spec()).resources);
    assert_eq!(first.problems, []);
    let shrunk = World::new().pool("p", 0, &["10.0.0.2-10.0.0.200"]).reservation("x", 0, spec());
    let config = builder.build(&shrunk.resources);
    let Reserved::Addresses(left) = &config.reservations["x"].reserved else { panic!() };
    assert_eq!(left.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.2-10.0.0.3"]);
    assert!(config.stale);
    assert!(build(&shrunk.resources).reservations.is_empty(), "without a past it is refused as a whole");
}
