//! The automatic choice: which pool, which address, which family.
use super::{Case, World, check};

/// Which pool and which address.
const CHOICE: &[Case] = &[
    Case {
        name: "the lowest address of the only pool",
        script: &["pools p 10.0.0.8/30; d/a v4"],
        want: &[("d/a", "10.0.0.8 p allocated")],
    },
    Case {
        name: "lowest address, whatever the order of the ranges",
        script: &["pools p 10.0.9.0/30,10.0.1.5-10.0.1.6; d/a v4; d/b v4; d/c v4"],
        want: &[("d/a", "10.0.1.5 p allocated"), ("d/b", "10.0.1.6 p allocated"), ("d/c", "10.0.9.0 p allocated")],
    },
    Case {
        name: "pools by name without serviceAllocation",
        script: &["pools z 10.0.0.0/30 / a 10.1.0.0/30; d/a v4"],
        want: &[("d/a", "10.1.0.0 a allocated")],
    },
    Case {
        name: "pools with a matching serviceAllocation come first",
        script: &["pools a 10.0.0.0/30 / z 10.1.0.0/30 ns=d; d/a v4"],
        want: &[("d/a", "10.1.0.0 z allocated")],
    },
    Case {
        name: "lower priority value first, unset and 0 last, then name",
        script: &[
            "pools p 10.0.0.0/32 prio=0 / q 10.0.1.0/32 prio=9 / r 10.0.2.0/32 prio=2 / o 10.0.3.0/32 for",
            "d/a v4",
            "d/b v4",
            "d/c v4",
            "d/e v4",
        ],
        want: &[
            ("d/a", "10.0.2.0 r allocated"),
            ("d/b", "10.0.1.0 q allocated"),
            ("d/c", "10.0.3.0 o allocated"),
            ("d/e", "10.0.0.0 p allocated"),
        ],
    },
    Case {
        name: "equal priority: by name",
        script: &["pools z 10.0.0.0/32 prio=5 / y 10.0.1.0/32 prio=5; d/a v4"],
        want: &[("d/a", "10.0.1.0 y allocated")],
    },
    Case {
        name: "the next pool when one is full",
        script: &["pools a 10.0.0.0/32 / b 10.0.1.0/32; d/a v4", "d/b v4"],
        want: &[("d/b", "10.0.1.0 b allocated")],
    },
    Case {
        name: "autoAssign false is never chosen",
        script: &["pools a 10.0.0.0/32 manual; d/a v4"],
        want: &[("d/a", "- - poolNotForService ~ AllocationFailed ~ \"d/a\" ~ pool \"a\" serves only requests")],
    },
    Case {
        name: "buggy addresses are skipped",
        script: &["pools a 10.0.0.254-10.0.1.1 buggy; d/a v4; d/b v4; d/c v4"],
        want: &[("d/a", "10.0.0.254 a allocated"), ("d/b", "10.0.1.1 a allocated"), ("d/c", "- - poolExhausted")],
    },
    Case {
        name: "buggy addresses are skipped after a release as well",
        script: &["pools a 10.0.0.253-10.0.1.1 buggy; d/a v4; d/b v4; d/c v4", "- d/b", "d/d v4"],
        want: &[("d/a", "10.0.0.253 a allocated"), ("d/c", "10.0.1.1 a allocated"), ("d/d", "10.0.0.254 a allocated")],
    },
    Case {
        name: "a freed address is the lowest again",
        script: &["pools a 10.0.0.0/30; d/a v4; d/b v4; d/c v4", "- d/b", "d/d v4"],
        want: &[("d/d", "10.0.0.1 a allocated")],
    },
    Case {
        name: "first and last address of a family can be given",
        script: &["pools a 255.255.255.255/32,ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128; d/a dual require"],
        want: &[("d/a", "255.255.255.255,ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff a allocated")],
    },
];

#[test]
fn automatic_choice_follows_priority_then_name_then_lowest_address() {
    check(CHOICE);
}

#[test]
fn service_allocation_allows_only_whom_it_names() {
    check(&[
        Case {
            name: "another namespace",
            script: &["pools p 10.0.0.0/30 ns=team; d/a v4"],
            want: &[("d/a", "- - poolNotForService ~ pool \"p\" is for other namespaces or Services")],
        },
        Case {
            name: "a namespace selector that matches",
            script: &["pools p 10.0.0.0/30 nssel=team=x; ns d team=x; d/a v4"],
            want: &[("d/a", "10.0.0.0 p allocated")],
        },
        Case {
            name: "a namespace selector that matches nothing allows nobody, not even by name",
            script: &["pools p 10.0.0.0/30 nssel=team=nobody svcsel=app=a; ns d team=x; d/a v4 pool=p labels=app=a"],
            want: &[("d/a", "- - poolNotForService ~ pool p not compatible for ip assignment")],
        },
        Case {
            name: "nor by address",
            script: &["pools p 10.0.0.0/30 nssel=team=nobody; ns d team=x; d/a v4 ips=10.0.0.1"],
            want: &[("d/a", "- - poolNotForService ~ pool p not compatible for ip assignment")],
        },
        Case {
            name: "the label that every namespace has",
            script: &["pools p 10.0.0.0/30 nssel=kubernetes.io/metadata.name=d; d/a v4"],
            want: &[("d/a", "10.0.0.0 p allocated")],
        },
        Case {
            name: "named namespace or selector, either will do",
            script: &["pools p 10.0.0.0/30 ns=d nssel=team=x; ns e team=x; d/a v4; e/a v4; f/a v4"],
            want: &[("d/a", "10.0.0.0 p allocated"), ("e/a", "10.0.0.1 p allocated"), ("f/a", "- - poolNotForService")],
        },
        Case {
            name: "namespace and service selectors must both match",
            script: &[
                "pools p 10.0.0.0/30 ns=d svcsel=app=x svcsel=app=y; d/a v4 labels=app=y; d/b v4; e/a v4 labels=app=x",
            ],
            want: &[
                ("d/a", "10.0.0.0 p allocated"),
                ("d/b", "- - poolNotForService"),
                ("e/a", "- - poolNotForService"),
            ],
        },
        Case {
            name: "a namespace relabelled into the pool helps at once",
            script: &["pools p 10.0.0.0/30 nssel=team=x; d/a v4", "ns d team=x"],
            want: &[("d/a", "10.0.0.0 p allocated")],
        },
        Case {
            name: "a namespace relabelled out of the pool keeps its address, and the next Service gets none",
            script: &["pools p 10.0.0.0/30 nssel=team=x; ns d team=x; d/a v4", "ns d team=y; d/b v4"],
            want: &[
                (
                    "d/a",
                    "10.0.0.0 p held ~ 10.0.0.0 is held: the serviceAllocation of pool \"p\" excludes this Service now",
                ),
                ("d/b", "- - poolNotForService"),
            ],
        },
    ]);
}

/// Which families.
const FAMILIES: &[Case] = &[
    Case {
        name: "IPv6 only",
        script: &["pools p 10.0.0.0/30,fc00::/126; d/a v6"],
        want: &[("d/a", "fc00:: p allocated")],
    },
    Case {
        name: "no pool of the family",
        script: &["pools p 10.0.0.0/30; d/a v6"],
        want: &[("d/a", "- - poolFamilyMissing ~ no suitable pool for IPv6 IPFamily: pool \"p\"")],
    },
    Case { name: "no cluster IP", script: &["pools p 10.0.0.0/30; d/a none"], want: &[("d/a", "- - noClusterIP")] },
    Case {
        name: "both from one pool",
        script: &["pools a 10.0.0.0/30 / b fc00::/126 / c 10.1.0.0/30,fc01::/126; d/a dual require"],
        want: &[("d/a", "10.1.0.0,fc01:: c allocated")],
    },
    Case {
        name: "required both, but no pool has both",
        script: &["pools a 10.0.0.0/30 / b fc00::/126; d/a dual require"],
        want: &[("d/a", "- - poolFamilyMissing ~ dual-stack")],
    },
    Case {
        name: "required both, one family used up",
        script: &["pools a 10.0.0.0/30,fc00::/128; d/a v6", "d/b dual require"],
        want: &[("d/b", "- - poolExhausted ~ no available IPs in pool \"a\" for IPv6 IPFamily")],
    },
    Case {
        name: "required both with a single cluster IP",
        script: &["pools a 10.0.0.0/30,fc00::/126; d/b v4 require"],
        want: &[("d/b", "- - notEnoughClusterIPs ~ Warning not enough clusterips")],
    },
    Case {
        name: "preferred both: a pool with both before the first pool",
        script: &["pools a 10.0.0.0/30 / c 10.1.0.0/30,fc01::/126; d/a dual prefer"],
        want: &[("d/a", "10.1.0.0,fc01:: c allocated")],
    },
    Case {
        name: "preferred both: else the primary family",
        script: &["pools a 10.0.0.0/30 / b fc00::/126; d/a dual prefer primary6; d/b dual prefer"],
        want: &[("d/a", "fc00:: b allocated"), ("d/b", "10.0.0.0 a allocated")],
    },
    Case {
        name: "preferred both: else the secondary family",
        script: &["pools b fc00::/126; d/a dual prefer"],
        want: &[("d/a", "fc00:: b allocated")],
    },
    Case {
        name: "preferred both on a cluster with one family",
        script: &["pools a 10.0.0.0/30,fc00::/126; d/a v4 prefer"],
        want: &[("d/a", "10.0.0.0 a allocated")],
    },
    Case {
        name: "an upgrade when the pool gains the family",
        script: &["pools a 10.0.0.0/30; d/a dual prefer", "pools a 10.0.0.0/30,fc00::/126"],
        want: &[("d/a", "10.0.0.0,fc00:: a allocated")],
    },
    Case {
        name: "no upgrade from another pool",
        script: &["pools a 10.0.0.0/30; d/a dual prefer", "pools a 10.0.0.0/30 / b 10.1.0.0/30,fc00::/126"],
        want: &[("d/a", "10.0.0.0 a allocated")],
    },
    Case {
        name: "an upgrade when an address of the family becomes free",
        script: &["pools a 10.0.0.0/30,fc00::/128; d/x v6; d/a dual prefer", "- d/x"],
        want: &[("d/a", "10.0.0.0,fc00:: a allocated")],
    },
    Case {
        name: "until then it says so",
        script: &["pools a 10.0.0.0/30,fc00::/128; d/x v6", "d/a dual prefer"],
        want: &[("d/a", "10.0.0.0 a allocated ~ AdditionalAssignFailed ~ pool \"a\" for IPv6 IPFamily")],
    },
];

#[test]
fn families_are_given_as_the_service_needs_them() {
    check(FAMILIES);
}

#[test]
fn exhaustion_names_pool_and_family() {
    check(&[
        Case {
            name: "one pool",
            script: &["pools prod 10.0.0.0/32; d/a v4", "default/web v4"],
            want: &[(
                "default/web",
                "- - poolExhausted ~ Warning AllocationFailed Failed to allocate IP for \"default/web\": no available IPs in pool \"prod\" for IPv4 IPFamily",
            )],
        },
        Case {
            name: "several pools",
            script: &["pools p 10.0.0.0/32 / q 10.0.1.0/32 / r fc00::/126; d/a v4; d/b v4", "d/c v4"],
            want: &[("d/c", "- - poolExhausted ~ no available IPs in pools \"p\", \"q\" for IPv4 IPFamily")],
        },
        Case {
            name: "no pool object at all",
            script: &["pools ; d/a v4"],
            want: &[("d/a", "- - noPools ~ there is no pool")],
        },
    ]);
}

#[test]
fn nothing_is_decided_before_the_configuration_has_been_seen() {
    let mut world = World::new();
    world.run("d/a v4 at=10.0.0.3");
    assert_eq!(world.last, []);
    world.run("pools p 10.0.0.0/30");
    assert_eq!(world.say("d/a"), "10.0.0.3 p allocated | 10.0.0.3 from pool \"p\"");
}

#[test]
fn usage_counts_addresses_and_a_shared_one_once() {
    let mut world = World::new();
    world.run(
        "pools p 10.0.0.0/24,fc00::/64 buggy / q fd00::/8; d/a v4 share=k ports=1; d/b v4 share=k ports=2; d/c v6",
    );
    let usage = world.allocator.usage();
    let p = super::PoolUsage { total_v4: 254, total_v6: u64::MAX, used_v4: 1, used_v6: 1, ..Default::default() };
    assert_eq!(usage["p"], p);
    assert_eq!(usage["q"], super::PoolUsage { total_v6: u64::MAX, ..Default::default() });
    world.run("- d/a; pools p 10.0.0.0/24,fc00::/64");
    assert_eq!(world.allocator.usage()["p"], super::PoolUsage { total_v4: 256, ..p });
    world.run("- d/b; - d/c");
    assert_eq!(world.allocator.usage()["p"], super::PoolUsage { total_v4: 256, used_v4: 0, used_v6: 0, ..p });
}
