//! Validation never panics, whatever is written, and says the same twice.
use std::sync::Arc;

use ferrocast_core::{
    config::{
        AdvertisementSpec, AnnouncerClassSpec, BfdProfileSpec, BgpAdvertisementSpec, BgpPeerSpec, Builder,
        CommunitySpec, InForce, L2AdvertisementSpec, Meta, PoolPolicySpec, PoolSpec, RULES, RawSelector,
        ReservationSpec, Resource, Resources, Severity, Spec, build,
    },
    model::ObjectKey,
};
use proptest::{collection::vec, option, prelude::*};
use serde_json::Value;

/// Text that is often nearly right.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9a-f:./ -]{0,24}",
        r"10\.0\.[0-3]\.[0-9]{1,3}(/[0-9]{1,2}|-10\.0\.[0-3]\.[0-9]{1,3})?",
        "(::|fc00::|ffff::)[0-9a-f]{0,4}(/[0-9]{1,3}|-ffff::[0-9a-f]{0,4})?",
        "(0\\.0\\.0\\.0|::|255\\.255\\.255\\.255)(/[0-3])?",
        "(large:)?[0-9]{1,6}:[0-9]{1,6}(:[0-9]{1,11})?",
        "-?[0-9]{0,20}\\.?[0-9]{0,20}(ns|us|ms|s|m|h)?",
        "\\PC{0,12}",
    ]
}

fn any_selector() -> impl Strategy<Value = RawSelector> {
    let operator = prop_oneof![Just("In".to_owned()), Just("Exists".to_owned()), any_text()];
    vec((any_text(), operator, vec(any_text(), 0..2)), 0..2)
        .prop_map(|match_expressions| RawSelector { match_expressions, ..RawSelector::default() })
}

fn any_number() -> impl Strategy<Value = Option<i64>> {
    option::of(prop_oneof![0i64..200, any::<i64>()])
}

fn any_peer() -> impl Strategy<Value = Spec> {
    let text = || option::of(any_text());
    let numbers = (any_number(), any_number(), any_number(), any_number());
    let texts = (text(), text(), text(), text(), text(), text(), text());
    (numbers, texts, vec(any_selector(), 0..3), option::of(any::<bool>())).prop_map(
        |(numbers, texts, selectors, flag)| {
            Spec::Peer(BgpPeerSpec {
                my_asn: numbers.0,
                local_asn: numbers.1,
                peer_asn: numbers.2,
                peer_port: numbers.3,
                peer_address: texts.0,
                source_address: texts.1,
                hold_time: texts.2,
                keepalive_time: texts.3,
                connect_time: texts.4,
                router_id: texts.5,
                password: texts.6,
                node_selectors: selectors,
                ebgp_multi_hop: flag,
                ..BgpPeerSpec::default()
            })
        },
    )
}

fn any_advert() -> impl Strategy<Value = Spec> {
    (any_number(), any_number(), any_number(), vec(any_text(), 0..3), vec(any_selector(), 0..2)).prop_map(
        |(aggregation_length, aggregation_length_v6, local_pref, communities, service_selectors)| {
            Spec::BgpAdvertisement(BgpAdvertisementSpec {
                aggregation_length,
                aggregation_length_v6,
                local_pref,
                communities,
                service_selectors,
                ..BgpAdvertisementSpec::default()
            })
        },
    )
}

/// The name of an object of these tests.
fn any_name() -> impl Strategy<Value = String> {
    (0u8..7).prop_map(|n| n.to_string())
}

fn any_pool_policy() -> impl Strategy<Value = Spec> {
    let strategy = prop_oneof![Just("HashedByName".to_owned()), Just("First".to_owned()), any_text()];
    let lists = (vec(any_name(), 0..3), vec(any_selector(), 0..2), vec((any_selector(), any::<i64>()), 0..3));
    (lists, option::of(strategy), vec(any_text(), 0..4), any_number(), option::of(any_name())).prop_map(
        |((pools, selectors, quotas), strategy, no_new_addresses, addresses_per_family_max, pair_with)| {
            Spec::PoolPolicy(PoolPolicySpec {
                ip_address_pools: pools,
                ip_address_pool_selectors: selectors,
                quotas,
                strategy,
                no_new_addresses,
                addresses_per_family_max,
                pair_with,
                ..PoolPolicySpec::default()
            })
        },
    )
}

fn any_reservation() -> impl Strategy<Value = Spec> {
    let family = prop_oneof![Just("IPv4".to_owned()), Just("IPv6".to_owned()), any_text()];
    let whom = (vec((any_name(), any_text()), 0..3), vec(any_name(), 0..3), option::of(any_selector()));
    (any_name(), vec(any_text(), 0..4), any_number(), option::of(family), whom, option::of(any_text())).prop_map(
        |(pool, addresses, count, family, (services, namespaces, service_selector), release_after)| {
            Spec::Reservation(ReservationSpec {
                pool,
                addresses,
                count,
                family,
                services,
                namespaces,
                service_selector,
                release_after,
            })
        },
    )
}

/// JSON that is often nearly a schema, or parameters for one.
fn any_json() -> impl Strategy<Value = Value> {
    let words = ["object", "array", "string", "integer", "a", "b"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..9).prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    let keys = [
        "type",
        "properties",
        "items",
        "required",
        "enum",
        "anyOf",
        "not",
        "additionalProperties",
        "minimum",
        "exclusiveMinimum",
        "pattern",
        "nullable",
        "x-kubernetes-int-or-string",
        "$ref",
        "a",
        "b",
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((proptest::sample::select(keys.to_vec()), inner), 0..5).prop_map(|fields| {
                fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()
            }),
        ]
    })
}

fn any_class() -> impl Strategy<Value = Spec> {
    let schema = prop_oneof![
        1 => any_json(),
        3 => any_json().prop_map(|a| serde_json::json!({"type": "object", "properties": {"a": a, "b": {"type": "string"}}})),
    ];
    (option::of(schema), option::of((0i64..3, 0i64..3)), option::of(any_json())).prop_map(
        |(parameters_schema, protocol, configuration)| {
            Spec::AnnouncerClass(AnnouncerClassSpec { parameters_schema, protocol, configuration, capabilities: None })
        },
    )
}

fn any_advertisement() -> impl Strategy<Value = Spec> {
    (any_name(), any_number(), vec(any_name(), 0..3), option::of(any_json())).prop_map(
        |(announcer, aggregation_length, targets, parameters)| {
            Spec::Advertisement(AdvertisementSpec {
                announcer,
                aggregation_length,
                targets,
                parameters,
                ..AdvertisementSpec::default()
            })
        },
    )
}

fn any_object() -> impl Strategy<Value = (&'static str, Spec)> {
    let pool = vec(any_text(), 0..5).prop_map(|addresses| Spec::Pool(PoolSpec { addresses, ..PoolSpec::default() }));
    let community = vec((any_text(), any_text()), 0..3).prop_map(|c| Spec::Community(CommunitySpec { communities: c }));
    prop_oneof![
        2 => any_pool_policy().prop_map(|spec| ("PoolPolicy", spec)),
        2 => any_reservation().prop_map(|spec| ("AddressReservation", spec)),
        1 => (any_number(), any_number(), option::of(any::<bool>())).prop_map(|(receive_interval, echo_interval, echo_mode)| {
            let spec = BfdProfileSpec { receive_interval, echo_interval, echo_mode, ..BfdProfileSpec::default() };
            ("BFDProfile", Spec::BfdProfile(spec))
        }),
        1 => vec((any::<i64>(), any_selector()), 0..3).prop_map(|preferred_node_selectors| {
            let spec = L2AdvertisementSpec { preferred_node_selectors, ..L2AdvertisementSpec::default() };
            ("L2Advertisement", Spec::L2Advertisement(spec))
        }),
        3 => pool.prop_map(|spec| ("IPAddressPool", spec)),
        2 => any_peer().prop_map(|spec| ("BGPPeer", spec)),
        2 => any_advert().prop_map(|spec| ("BGPAdvertisement", spec)),
        2 => any_class().prop_map(|spec| ("AnnouncerClass", spec)),
        2 => any_advertisement().prop_map(|spec| ("Advertisement", spec)),
        1 => community.prop_map(|spec| ("Community", spec)),
    ]
}

fn resources(objects: &[((&'static str, Spec), u8, i64)]) -> Resources {
    let mut resources = Resources { namespace: "metallb-system".into(), ..Resources::default() };
    for ((kind, spec), name, created_s) in objects {
        let key = ObjectKey { kind, name: name.to_string().into() };
        let meta = Meta { key: key.clone(), created_s: *created_s, ..Meta::default() };
        let resource = Resource { meta, spec: Some(spec.clone()), ..Resource::default() };
        resources.objects.insert(key, Arc::new(resource));
    }
    resources
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn validation_never_panics_and_keeps_pools_apart(
        first in vec((any_object(), 0u8..6, 0i64..3), 0..8),
        second in vec((any_object(), 0u8..6, 0i64..3), 0..8),
    ) {
        let mut builder = Builder::default();
        prop_assert_eq!(builder.build(&resources(&first)), build(&resources(&first)), "without a past");
        let resources = resources(&second);
        let config = builder.build(&resources);
        prop_assert_eq!(&builder.build(&resources), &config, "the same again");
        prop_assert_eq!(config.stale, config.problems.iter().any(|p| p.severity == Severity::Error));
        let pools = resources.objects.keys().filter(|k| k.kind == "IPAddressPool").count();
        prop_assert_eq!(config.pools.len() + config.pools_unknown.len(), pools, "an invalid pool is not absent");
        let mut ranges: Vec<_> = config.pools.values().flat_map(|p| p.ranges.iter().copied()).collect();
        ranges.sort();
        prop_assert!(ranges.iter().all(|r| r.first <= r.last && r.first.is_ipv4() == r.last.is_ipv4()));
        prop_assert!(ranges.array_windows().all(|[a, b]| a.last < b.first), "{:?}", ranges);
        for pool in config.pools.values() {
            for range in &pool.ranges {
                prop_assert_eq!(config.pool_of(range.first), Some(pool));
                prop_assert_eq!(config.pool_of(range.last), Some(pool));
            }
        }
        for reservation in config.reservations.values() {
            if let ferrocast_core::config::Reserved::Addresses(ranges) = &reservation.reserved {
                prop_assert!(ranges.iter().all(|range| config.pools[&reservation.pool].covers(*range)));
            }
        }
        let problems = build(&resources).problems;
        prop_assert!(!problems.iter().any(|p| p.message.is_empty() || !RULES.iter().any(|(code, _)| *code == p.rule)));
    }

    #[test]
    fn builder_that_was_restarted_says_the_same_as_one_that_was_not(
        rounds in vec(vec((any_object(), 0u8..4, 0i64..3), 0..8), 1..4),
    ) {
        let (mut steady, mut restarted) = (Builder::default(), Builder::default());
        for mut round in rounds {
            // Passwords written in objects are not kept, which has its own test.
            for ((_, spec), _, _) in &mut round {
                if let Spec::Peer(spec) = spec {
                    spec.password = None;
                }
            }
            let resources = resources(&round);
            let (want, got) = (steady.build(&resources), restarted.build(&resources));
            prop_assert_eq!(&got, &want);
            let kept = serde_json::to_string(&restarted.in_force(&got)).unwrap();
            restarted = Builder::default();
            restarted.restore(&serde_json::from_str::<InForce>(&kept).unwrap());
        }
    }
}
