//! PoolPolicy: quotas, withheld addresses, several addresses of a family, pairs, sharing rules.
use super::{Case, World, check};

#[test]
fn quota_limits_what_namespaces_hold_in_a_pool() {
    check(&[
        Case {
            name: "reached",
            script: &["pools p 10.0.0.0/24 quota=team=x:2; ns d team=x; d/a v4; d/b v4; d/c v4"],
            want: &[
                ("d/b", "10.0.0.1 p allocated"),
                (
                    "d/c",
                    "- - quotaReached ~ AllocationFailed ~ the quota of 2 for namespaces team=x in pool \"p\" is used up",
                ),
            ],
        },
        Case {
            name: "for all namespaces that match together, and for no other",
            script: &["pools p 10.0.0.0/24 quota=team=x:1; ns d team=x; ns e team=x; d/a v4", "e/a v4; f/a v4"],
            want: &[("e/a", "- - quotaReached"), ("f/a", "10.0.0.1 p allocated")],
        },
        Case {
            name: "an unknown namespace has its name",
            script: &["pools p 10.0.0.0/24 quota=kubernetes.io/metadata.name=d:1; d/a v4; d/b v4; e/a v4"],
            want: &[("d/b", "- - quotaReached"), ("e/a", "10.0.0.1 p allocated")],
        },
        Case {
            name: "every quota that matches must have room",
            script: &[
                "pools p 10.0.0.0/24 quota=team=x:9 quota=kubernetes.io/metadata.name=d:1; ns d team=x,kubernetes.io/metadata.name=d; d/a v4; d/b v4",
            ],
            want: &[("d/b", "- - quotaReached ~ kubernetes.io/metadata.name=d")],
        },
        Case {
            name: "per pool, and the next pool serves",
            script: &["pools p 10.0.0.0/24 quota=team=x:1 / q 10.1.0.0/24; ns d team=x; d/a v4; d/b v4"],
            want: &[("d/b", "10.1.0.0 q allocated")],
        },
        Case {
            name: "both families count",
            script: &[
                "pools p 10.0.0.0/24,fc00::/64 quota=team=x:3; ns d team=x; d/a dual require; d/b dual prefer; d/c v4",
            ],
            want: &[
                ("d/a", "10.0.0.0,fc00:: p allocated"),
                ("d/b", "10.0.0.1 p allocated ~ AdditionalAssignFailed ~ the quota of 3"),
                ("d/c", "- - quotaReached"),
            ],
        },
        Case {
            name: "a shared address counts once, and joining it is free",
            script: &[
                "pools p 10.0.0.0/24 quota=team=x:1; ns d team=x; d/a v4 share=k ports=1; d/b v4 share=k ports=2; d/c v4 share=k ports=1",
            ],
            want: &[("d/b", "10.0.0.0 p allocated"), ("d/c", "- - quotaReached")],
        },
        Case {
            name: "joining an address of namespaces that do not count costs one",
            script: &[
                "pools p 10.0.0.0/24 quota=team=x:1; ns d team=x; e/a v4 share=k ports=1; d/b v4 share=k ports=2; d/c v4",
            ],
            want: &[("d/b", "10.0.0.0 p allocated"), ("d/c", "- - quotaReached")],
        },
        Case {
            name: "when it is used up, such an address is passed over for one that is free to join",
            script: &[
                "pools p 10.0.0.0/24 quota=team=x:1; ns d team=x; e/a v4 share=k ports=1; d/b v4 ips=10.0.0.7 share=k ports=2",
                "d/c v4 share=k ports=3",
            ],
            want: &[("d/c", "10.0.0.7 p allocated")],
        },
        Case {
            name: "on request as well",
            script: &["pools p 10.0.0.0/24 quota=team=x:1; ns d team=x; d/a v4", "d/b v4 ips=10.0.0.9"],
            want: &[("d/b", "- - quotaReached")],
        },
        Case {
            name: "what becomes free helps who waits, in order",
            script: &["pools p 10.0.0.0/24 quota=team=x:1; ns d team=x; d/a v4", "d/b v4; d/c v4", "- d/a"],
            want: &[("d/b", "10.0.0.0 p allocated"), ("d/c", "- - quotaReached")],
        },
        Case {
            name: "and who asks for an address",
            script: &["pools p 10.0.0.0/24 quota=team=x:1; ns d team=x; d/a v4", "d/b v4 ips=10.0.0.9", "- d/a"],
            want: &[("d/b", "10.0.0.9 p allocated")],
        },
        Case {
            name: "a relabelled namespace is counted anew and keeps what it has",
            script: &[
                "pools p 10.0.0.0/24 quota=team=x:1; ns d team=x; ns e team=y; d/a v4; e/a v4; e/b v4",
                "ns e team=x",
                "d/b v4",
            ],
            want: &[
                ("e/a", "10.0.0.1 p allocated"),
                ("e/b", "10.0.0.2 p allocated"),
                ("d/b", "- - quotaReached ~ is used up: 3 are in use"),
            ],
        },
        Case {
            name: "a namespace that leaves makes room",
            script: &["pools p 10.0.0.0/24 quota=team=x:1; ns d team=x; ns e team=x; d/a v4; e/a v4", "ns d team=y"],
            want: &[("d/a", "10.0.0.0 p allocated"), ("e/a", "10.0.0.1 p allocated")],
        },
        Case {
            name: "a lower quota takes nothing away",
            script: &[
                "pools p 10.0.0.0/24 quota=team=x:3; ns d team=x; d/a v4; d/b v4",
                "pools p 10.0.0.0/24 quota=team=x:0; d/c v4",
            ],
            want: &[("d/b", "10.0.0.1 p allocated"), ("d/c", "- - quotaReached")],
        },
        Case {
            name: "a higher quota helps at once",
            script: &[
                "pools p 10.0.0.0/24 quota=team=x:1; ns d team=x; d/a v4; d/b v4",
                "pools p 10.0.0.0/24 quota=team=x:2",
            ],
            want: &[("d/b", "10.0.0.1 p allocated")],
        },
    ]);
}

#[test]
fn withheld_addresses_stay_with_those_who_have_them() {
    check(&[
        Case {
            name: "never chosen",
            script: &["pools p 10.0.0.0/30 nonew=10.0.0.0-10.0.0.1; d/a v4; d/b v4; d/c v4"],
            want: &[("d/a", "10.0.0.2 p allocated"), ("d/c", "- - poolExhausted")],
        },
        Case {
            name: "not on request",
            script: &["pools p 10.0.0.0/30 nonew=10.0.0.0-10.0.0.1; d/a v4 ips=10.0.0.1"],
            want: &[("d/a", "- - addressWithheld ~ noNewAddresses")],
        },
        Case {
            name: "not by sharing",
            script: &[
                "pools p 10.0.0.0/30; d/a v4 at=10.0.0.0 share=k ports=1",
                "pools p 10.0.0.0/30 nonew=10.0.0.0; d/b v4 share=k ports=2",
            ],
            want: &[("d/a", "10.0.0.0 p allocated"), ("d/b", "10.0.0.1 p allocated")],
        },
        Case {
            name: "kept, and not given again",
            script: &[
                "pools p 10.0.0.0/30; d/a v4; d/b v4",
                "pools p 10.0.0.0/30 nonew=10.0.0.0-10.0.0.1",
                "- d/a",
                "d/c v4",
            ],
            want: &[("d/b", "10.0.0.1 p allocated"), ("d/c", "10.0.0.2 p allocated")],
        },
        Case {
            name: "given again when the policy ends",
            script: &["pools p 10.0.0.0/32 nonew=10.0.0.0; d/c v4", "pools p 10.0.0.0/32"],
            want: &[("d/c", "10.0.0.0 p allocated")],
        },
    ]);
    let mut world = World::new();
    world.run("pools p 10.0.0.0/24; d/a v4");
    world.run("pools p 10.0.0.0/24 nonew=10.0.0.0-10.0.0.9");
    let usage = world.allocator.usage()["p"];
    assert_eq!((usage.total_v4, usage.used_v4, usage.withheld_v4), (256, 1, 9));
}

#[test]
fn several_addresses_of_a_family_are_given_if_the_pool_allows() {
    check(&[
        Case {
            name: "by number",
            script: &["pools p 10.0.0.0/30 perfam=2; d/a v4 perfamily=2"],
            want: &[("d/a", "10.0.0.0,10.0.0.1 p allocated ~ 10.0.0.0 from pool \"p\", 10.0.0.1 from pool \"p\"")],
        },
        Case {
            name: "of each family",
            script: &["pools p 10.0.0.0/30,fc00::/126 perfam=2; d/a dual require perfamily=2"],
            want: &[("d/a", "10.0.0.0,10.0.0.1,fc00::,fc00::1 p allocated")],
        },
        Case {
            name: "all or none",
            script: &["pools p 10.0.0.0/31 perfam=2; d/x v4", "d/a v4 perfamily=2", "- d/x"],
            want: &[("d/a", "10.0.0.0,10.0.0.1 p allocated")],
        },
        Case {
            name: "not where the pool allows one",
            script: &["pools p 10.0.0.0/30; d/a v4 perfamily=2"],
            want: &[("d/a", "- - tooManyAddresses ~ pool \"p\" gives a Service 1 address per family and no more")],
        },
        Case {
            name: "from the pool that allows it",
            script: &["pools p 10.0.0.0/30 / q 10.1.0.0/30 perfam=3; d/a v4 perfamily=3"],
            want: &[("d/a", "10.1.0.0,10.1.0.1,10.1.0.2 q allocated")],
        },
        Case {
            name: "by list",
            script: &["pools p 10.0.0.0/30 perfam=2; d/a v4 ips=10.0.0.3,10.0.0.1"],
            want: &[("d/a", "10.0.0.1,10.0.0.3 p allocated")],
        },
        Case {
            name: "by a list that is too long",
            script: &[
                "pools p 10.0.0.0/29 perfam=2; d/a v4 ips=10.0.0.3,10.0.0.1,10.0.0.2; d/b v4 ips=10.0.0.4,10.0.0.4",
            ],
            want: &[
                ("d/a", "- - invalidRequest ~ more than 2 addresses of one family"),
                ("d/b", "- - invalidRequest ~ [\"10.0.0.4\"] is listed twice"),
            ],
        },
        Case {
            name: "a number that is none",
            script: &["pools p 10.0.0.0/30 perfam=2; d/a v4 perfamily=two; d/b v4 perfamily=0"],
            want: &[
                ("d/a", "- - invalidRequest ~ invalid ferrocast.io/addresses-per-family \"two\": write a whole number"),
                ("d/b", "- - invalidRequest"),
            ],
        },
        Case {
            name: "more, once it wants more",
            script: &["pools p 10.0.0.0/30 perfam=2; d/a v4; d/b v4", "d/a v4 perfamily=2"],
            want: &[("d/a", "10.0.0.0,10.0.0.2 p allocated")],
        },
        Case {
            name: "more, once there are more, and until then what it has",
            script: &["pools p 10.0.0.0/31 perfam=2; d/a v4; d/x v4", "d/a v4 perfamily=2", "- d/x"],
            want: &[("d/a", "10.0.0.0,10.0.0.1 p allocated")],
        },
        Case {
            name: "what it has stays while there are no more",
            script: &["pools p 10.0.0.0/31 perfam=2; d/a v4; d/x v4", "d/a v4 perfamily=2"],
            want: &[("d/a", "10.0.0.0 p allocated ~ AdditionalAssignFailed")],
        },
        Case {
            name: "fewer, once it wants fewer",
            script: &["pools p 10.0.0.0/30 perfam=2; d/a v4 perfamily=2", "d/a v4; d/b v4"],
            want: &[("d/a", "10.0.0.0 p allocated"), ("d/b", "10.0.0.1 p allocated")],
        },
        Case {
            name: "a policy that allows fewer takes nothing away",
            script: &[
                "pools p 10.0.0.0/30 perfam=2; d/a v4 perfamily=2; d/b v4 ips=10.0.0.2,10.0.0.3",
                "pools p 10.0.0.0/30",
            ],
            want: &[
                ("d/a", "10.0.0.0,10.0.0.1 p allocated"),
                ("d/b", "10.0.0.2,10.0.0.3 p invalidRequest ~ has the same family"),
            ],
        },
        Case {
            name: "none of which two Services that share get twice",
            script: &["pools p 10.0.0.0/30 perfam=2; d/a v4 share=k perfamily=2", "d/b v4 share=k perfamily=2"],
            want: &[("d/a", "10.0.0.0,10.0.0.1 p allocated"), ("d/b", "10.0.0.0,10.0.0.1 p allocated")],
        },
        Case {
            name: "from the place of the name on",
            script: &["pools p 10.0.0.0/31 hash perfam=2; d/a v4 perfamily=2"],
            want: &[("d/a", "10.0.0.0,10.0.0.1 p allocated")],
        },
    ]);
}

#[test]
fn paired_pool_gives_the_family_that_is_lacking() {
    check(&[
        Case {
            name: "none of the family",
            script: &["pools p 10.0.0.0/30 pair=q / q fc00::/126; d/a dual require"],
            want: &[("d/a", "10.0.0.0,fc00:: p allocated ~ 10.0.0.0 from pool \"p\", fc00:: from pool \"q\"")],
        },
        Case {
            name: "the annotation names the pool of the first address",
            script: &["pools p fc00::/126 pair=q / q 10.0.0.0/30 manual; d/a dual require"],
            want: &[("d/a", "10.0.0.0,fc00:: q allocated")],
        },
        Case {
            name: "the family is used up",
            script: &["pools p 10.0.0.0/30,fc00::/128 pair=q / q fc01::/126; d/x v6 pool=p", "d/a dual require"],
            want: &[("d/a", "10.0.0.0,fc01:: p allocated")],
        },
        Case {
            name: "not a pool that excludes the Service",
            script: &["pools p 10.0.0.0/30 pair=q / q fc00::/126 ns=x; d/a dual require"],
            want: &[("d/a", "- - poolFamilyMissing")],
        },
        Case {
            name: "not for what the pool has",
            script: &["pools p 10.0.0.0/30,fc00::/126 pair=q / q fc01::/126; d/a dual require"],
            want: &[("d/a", "10.0.0.0,fc00:: p allocated")],
        },
        Case {
            name: "preferred both",
            script: &["pools p 10.0.0.0/30 pair=q / q fc00::/126; d/a dual prefer"],
            want: &[("d/a", "10.0.0.0,fc00:: p allocated")],
        },
        Case {
            name: "preferred both, later",
            script: &["pools p 10.0.0.0/30; d/a dual prefer", "pools p 10.0.0.0/30 pair=q / q fc00::/126"],
            want: &[("d/a", "10.0.0.0,fc00:: p allocated")],
        },
        Case {
            name: "once an address of the pair is free",
            script: &[
                "pools p 10.0.0.0/30 pair=q / q fc00::/128; d/x v6",
                "d/a dual require; d/b dual prefer",
                "- d/x",
            ],
            want: &[("d/a", "10.0.0.1,fc00:: p allocated"), ("d/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "on request",
            script: &[
                "pools p 10.0.0.0/30 pair=q / q fc00::/126; d/a dual require ips=10.0.0.1,fc00::1; d/b dual require pool=p",
            ],
            want: &[("d/a", "10.0.0.1,fc00::1 p allocated"), ("d/b", "10.0.0.0,fc00:: p allocated")],
        },
        Case {
            name: "once the family that a quota leaves to the pair is free there",
            script: &[
                "pools q 10.9.0.9/32,fc00::/128 quota=team=x:1 pair=p manual / p 10.0.0.0/32; ns d team=x; e/x v4 pool=p",
                "d/a dual require pool=q",
                "- e/x",
            ],
            want: &[("d/a", "10.0.0.0,fc00:: p allocated")],
        },
        Case {
            name: "a pair is kept when the policy ends",
            script: &[
                "pools p 10.0.0.0/30 pair=q / q fc00::/126; d/a dual require",
                "pools p 10.0.0.0/30 / q fc00::/126",
            ],
            want: &[("d/a", "10.0.0.0,fc00:: p allocated")],
        },
        Case {
            name: "also by a Service that asks for one of them",
            script: &[
                "pools p 10.0.0.0/30 pair=q / q fc00::/126; d/a dual require pool=p",
                "pools p 10.0.0.0/30 / q fc00::/126",
            ],
            want: &[("d/a", "10.0.0.0,fc00:: p allocated")],
        },
        Case {
            name: "a range that moves to another pool leaves a Service with both",
            script: &["pools p 10.0.0.0/30,fc00::/126; d/a dual require", "pools p 10.0.0.0/30 / q fc00::/126"],
            want: &[("d/a", "10.0.0.0,fc00:: p allocated ~ fc00:: from pool \"q\"")],
        },
    ]);
}

#[test]
fn sharing_follows_the_rules_of_the_policy() {
    check(&[
        Case {
            name: "same namespace only",
            script: &[
                "pools p 10.0.0.0/24 samens; d/a v4 share=k ports=1; d/b v4 share=k ports=2; e/a v4 share=k ports=3",
            ],
            want: &[("d/b", "10.0.0.0 p allocated"), ("e/a", "10.0.0.1 p allocated")],
        },
        Case {
            name: "same namespace only, on request",
            script: &["pools p 10.0.0.0/24 samens; d/a v4 share=k ports=1", "e/a v4 share=k ports=3 ips=10.0.0.0"],
            want: &[("e/a", "- - sharingNamespaceMismatch ~ only Services of one namespace")],
        },
        Case {
            name: "mixed traffic policies",
            script: &[
                "pools p 10.0.0.0/24 mixed; d/a v4 share=k ports=1; d/b v4 share=k ports=2 local=app=x; d/c v4 share=k ports=3 local=app=y",
            ],
            want: &[("d/b", "10.0.0.0 p allocated"), ("d/c", "10.0.0.0 p allocated")],
        },
        Case {
            name: "mixed still means other ports",
            script: &["pools p 10.0.0.0/24 mixed; d/a v4 share=k ports=1; d/b v4 share=k ports=1 local=app=x"],
            want: &[("d/b", "10.0.0.1 p allocated")],
        },
        Case {
            name: "a Service on a mixed address becomes Local and stays",
            script: &[
                "pools p 10.0.0.0/24 mixed; d/a v4 share=k ports=1; d/b v4 share=k ports=2",
                "d/b v4 share=k ports=2 local=app=x",
            ],
            want: &[("d/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "nobody joins a namespace mix under a rule that forbids it",
            script: &[
                "pools p 10.0.0.0/24; d/a v4 share=k ports=1; e/a v4 share=k ports=2",
                "pools p 10.0.0.0/24 samens; d/b v4 share=k ports=3",
            ],
            want: &[("d/a", "10.0.0.0 p allocated"), ("d/b", "10.0.0.1 p allocated")],
        },
        Case {
            name: "when the other namespace is gone, its own may join again",
            script: &[
                "pools p 10.0.0.0/24; d/a v4 share=k ports=1; e/a v4 share=k ports=2",
                "- e/a",
                "pools p 10.0.0.0/24 samens; d/b v4 share=k ports=3",
            ],
            want: &[("d/b", "10.0.0.0 p allocated")],
        },
    ]);
}

#[test]
fn stricter_sharing_rules_part_nobody_who_shares() {
    let mut world = World::new();
    world.run(
        "pools p 10.0.0.0/24 mixed; d/a v4 share=k ports=1; d/b v4 share=k ports=2 local=app=x; e/c v4 share=k ports=3",
    );
    world.run("pools p 10.0.0.0/24 samens");
    world.check_want(
        "a stricter policy",
        &[("d/a", "10.0.0.0 p allocated"), ("d/b", "10.0.0.0 p allocated"), ("e/c", "10.0.0.0 p allocated")],
    );
    world.run("pools q 10.1.0.0/24");
    world.run("d/d v4 share=k ports=4");
    world.check_want("never seen in a status", &[("d/d", "10.1.0.0 q allocated")]);
}
