//! Restarts, edits, deletions, waiting.
use super::{Case, World, check};

#[test]
fn address_in_a_status_stays_what_it_is() {
    check(&[
        Case {
            name: "after a restart, whatever the order of the batch",
            script: &["d/new v4; pools p 10.0.0.0/30; d/a v4 at=10.0.0.0; d/b v4 at=10.0.0.2 created=9"],
            want: &[
                ("d/a", "10.0.0.0 p allocated"),
                ("d/b", "10.0.0.2 p allocated"),
                ("d/new", "10.0.0.1 p allocated"),
            ],
        },
        Case {
            name: "when the pool is renamed",
            script: &["pools p 10.0.0.0/30; d/a v4 ips=10.0.0.2", "pools q 10.0.0.0/30"],
            want: &[("d/a", "10.0.0.2 q allocated")],
        },
        Case {
            name: "when the pool grows downwards",
            script: &["pools p 10.0.0.8/30; d/a v4", "pools p 10.0.0.0/24"],
            want: &[("d/a", "10.0.0.8 p allocated")],
        },
        Case {
            name: "when another pool would be chosen today",
            script: &["pools p 10.0.0.8/30; d/a v4", "pools a 10.1.0.0/24 prio=1 / p 10.0.0.8/30 manual"],
            want: &[("d/a", "10.0.0.8 p allocated")],
        },
        Case {
            name: "when its status is emptied by somebody",
            script: &["pools p 10.0.0.8/30; d/a v4 at=10.0.0.9", "d/a v4"],
            want: &[("d/a", "10.0.0.9 p allocated")],
        },
        Case {
            name: "when the request turns into nonsense, which is said",
            script: &["pools p 10.0.0.8/30; d/a v4 at=10.0.0.9", "d/a v4 at=10.0.0.9 ips=oops"],
            want: &[("d/a", "10.0.0.9 p invalidRequest ~ LoadBalancerFailed")],
        },
        Case {
            name: "of the needed family when a dual-stack Service becomes single-stack",
            script: &[
                "pools p 10.0.0.8/30,fc00::/64; d/a dual require at=10.0.0.9,fc00::9",
                "d/a v6 at=10.0.0.9,fc00::9",
            ],
            want: &[("d/a", "fc00::9 p allocated")],
        },
        Case {
            name: "when a single-stack Service becomes dual-stack and its pool has both",
            script: &["pools p 10.0.0.8/30,fc00::/64; d/a v4 at=10.0.0.9", "d/a dual require at=10.0.0.9"],
            want: &[("d/a", "10.0.0.9,fc00:: p allocated")],
        },
        Case {
            name: "while a pool object is unreadable",
            script: &["pools p 10.0.0.0/30 / q ?; d/a v4 at=192.0.2.1 from=q; d/b v4"],
            want: &[("d/a", "192.0.2.1 q allocated"), ("d/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "while the only pool object is unreadable",
            script: &["pools q ?; d/a v4 at=192.0.2.1 from=q; d/b v4"],
            want: &[("d/a", "192.0.2.1 q allocated"), ("d/b", "- - poolNotForService")],
        },
        Case {
            name: "when its pool is deleted while another is unreadable",
            script: &["pools p 10.0.0.0/30; d/a v4", "pools q ?"],
            want: &[("d/a", "10.0.0.0 p allocated")],
        },
    ]);
}

#[test]
fn address_is_given_up_when_its_right_ends() {
    check(&[
        Case {
            name: "its pool is gone before anybody saw the address, and another pool is there",
            script: &["pools p 10.0.0.0/30; d/a v4", "pools q 10.1.0.0/30"],
            want: &[(
                "d/a",
                "10.1.0.0 q allocated ~ Normal ClearAssignment current IP for \"10.0.0.0\" not allowed by config, will attempt for new IP assignment: \"10.0.0.0\" is not allowed in config",
            )],
        },
        Case {
            name: "all pools are gone before anybody saw the address",
            script: &["pools p 10.0.0.0/30; d/a v4", "pools "],
            want: &[("d/a", "- - noPools")],
        },
        Case {
            name: "all pools are gone and come back",
            script: &["pools p 10.0.0.0/30; d/a v4", "pools ", "pools p 10.0.0.0/30"],
            want: &[("d/a", "10.0.0.0 p allocated")],
        },
        Case {
            name: "its pool shrinks before anybody saw the address",
            script: &["pools p 10.0.0.0/30; d/a v4", "pools p 10.0.0.2/31"],
            want: &[("d/a", "10.0.0.2 p allocated")],
        },
        Case {
            name: "the Service asks for another pool",
            script: &["pools p 10.0.0.0/30 / q 10.1.0.0/30; d/a v4", "d/a v4 pool=q at=10.0.0.0"],
            want: &[("d/a", "10.1.0.0 q allocated")],
        },
        Case {
            name: "the Service asks for another address",
            script: &["pools p 10.0.0.0/30; d/a v4", "d/a v4 ips=10.0.0.3 at=10.0.0.0"],
            want: &[("d/a", "10.0.0.3 p allocated")],
        },
        Case {
            name: "the Service asks for what it has",
            script: &["pools p 10.0.0.0/30; d/x v4; d/a v4", "- d/x", "d/a v4 ips=10.0.0.0 at=10.0.0.0"],
            want: &[("d/a", "10.0.0.0 p allocated")],
        },
        Case {
            name: "its labels no longer match",
            script: &["pools p 10.0.0.0/30 svcsel=app=x / q 10.1.0.0/30; d/a v4 labels=app=x", "d/a v4 labels=app=y"],
            want: &[("d/a", "10.1.0.0 q allocated ~ pool p not compatible for ip assignment")],
        },
        Case {
            name: "its family changes",
            script: &["pools p 10.0.0.0/30,fc00::/64; d/a v4", "d/a v6 at=10.0.0.0"],
            want: &[("d/a", "fc00:: p allocated")],
        },
        Case {
            name: "it loses its cluster IP",
            script: &["pools p 10.0.0.0/30,fc00::/64; d/a v4", "d/a none at=10.0.0.0"],
            want: &[("d/a", "- - noClusterIP")],
        },
        Case {
            name: "a dual-stack pool becomes single-stack",
            script: &[
                "pools p 10.0.0.0/30,fc00::/64 / q 10.1.0.0/30,fc01::/64; d/a dual require",
                "pools p 10.0.0.0/30 / q 10.1.0.0/30,fc01::/64",
            ],
            want: &[("d/a", "10.1.0.0,fc01:: q allocated")],
        },
        Case {
            name: "its status holds two of one family",
            script: &["pools p 10.0.0.0/30; d/a v4 at=10.0.0.2,10.0.0.3"],
            want: &[("d/a", "10.0.0.0 p allocated ~ has the same family")],
        },
    ]);
}

#[test]
fn waiting_services_are_served_in_order_of_arrival() {
    check(&[
        Case {
            name: "after a list: creation, namespace, name",
            script: &[
                "pools p 10.0.0.0/32; d/x v4 at=10.0.0.0; a/b v4 created=5; b/a v4 created=2; a/c v4 created=2",
                "- d/x",
            ],
            want: &[("a/c", "10.0.0.0 p allocated"), ("b/a", "- - poolExhausted"), ("a/b", "- - poolExhausted")],
        },
        Case {
            name: "later: as they come",
            script: &["pools p 10.0.0.0/32; d/x v4", "d/z v4 created=9", "d/y v4 created=1", "- d/x"],
            want: &[("d/z", "10.0.0.0 p allocated"), ("d/y", "- - poolExhausted")],
        },
        Case {
            name: "before one that comes in the same batch",
            script: &["pools p 10.0.0.0/32; d/x v4", "d/z v4", "d/a v4; - d/x"],
            want: &[("d/z", "10.0.0.0 p allocated"), ("d/a", "- - poolExhausted")],
        },
        Case {
            name: "only those whom it helps",
            script: &[
                "pools p 10.0.0.0/32,fc00::/128 / q 10.1.0.0/32; d/x v4 pool=p; d/y v6; d/z v4 pool=q",
                "d/a v6",
                "d/b v4 pool=q",
                "d/c v4",
                "- d/x",
            ],
            want: &[("d/a", "- - poolExhausted"), ("d/b", "- - poolExhausted"), ("d/c", "10.0.0.0 p allocated")],
        },
        Case {
            name: "required both: once both are free",
            script: &["pools p 10.0.0.0/32,fc00::/128; d/x v4; d/y v6", "d/a dual require", "- d/x", "- d/y"],
            want: &[("d/a", "10.0.0.0,fc00:: p allocated")],
        },
        Case {
            name: "a type change frees too",
            script: &["pools p 10.0.0.0/32; d/x v4", "d/a v4", "d/x v4 nodeport from=p"],
            want: &[("d/a", "10.0.0.0 p allocated"), ("d/x", "-")],
        },
        Case {
            name: "a requested address that moves away frees too",
            script: &["pools p 10.0.0.0/31; d/x v4 ips=10.0.0.0; d/y v4", "d/a v4", "- d/y; d/x v4 ips=10.0.0.1"],
            want: &[("d/a", "10.0.0.0 p allocated"), ("d/x", "10.0.0.1 p allocated")],
        },
    ]);
}

#[test]
fn services_that_are_not_ours_hold_nothing() {
    check(&[
        Case {
            name: "another class",
            script: &["pools p 10.0.0.0/30; d/a v4 class=other at=10.0.0.0 from=p; d/b v4"],
            want: &[("d/a", "-"), ("d/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "another type",
            script: &["pools p 10.0.0.0/30; d/a v4 nodeport; d/b v4"],
            want: &[("d/a", "-"), ("d/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "deleted and created again unseen",
            script: &["pools p 10.0.0.0/30; d/x v4; d/a v4", "- d/x", "d/a v4 uid=other"],
            want: &[("d/a", "10.0.0.0 p allocated")],
        },
    ]);
}

#[test]
fn loss_of_a_service_is_told_once() {
    let mut world = World::new();
    let none = |key: &str| vec![(key.parse().unwrap(), None)];
    world.run("pools p 10.0.0.0/30; d/a v4");
    world.run("d/a v4 nodeport from=p");
    assert_eq!(world.last, none("d/a"));
    world.run("d/a v4 nodeport from=p");
    assert_eq!(world.last, []);
    world.run("d/a v4 nodeport");
    assert_eq!(world.last, []);
    world.run("d/b v4 nodeport from=p");
    assert_eq!(world.last, none("d/b"), "left over from before a restart");
    world.run("d/b v4 nodeport from=p");
    assert_eq!(world.last, []);
    world.run("- d/b");
    assert_eq!(world.last, []);
    world.run("d/c v4");
    world.run("- d/c");
    assert_eq!(world.last, none("d/c"));
}

#[test]
fn nothing_is_told_when_nothing_changes() {
    let mut world = World::new();
    let batch = "pools p 10.0.0.0/31 / q fc00::/64; d/a v4 at=192.0.2.1; d/b v4; d/c v4; d/d dual prefer; ns d a=b";
    world.run(batch);
    assert_eq!(world.last.len(), 4);
    world.run(batch);
    assert_eq!(world.last, []);
    world.run("d/b v4 at=10.0.0.0 from=p; d/c v4 at=10.0.0.1 from=p; ns d c=d");
    assert_eq!(world.last, [], "what Ferrocast wrote itself changes nothing");
}

#[test]
fn rules_hold_where_random_histories_once_broke_them() {
    check(&[
        Case {
            name: "no upgrade from a pool that does not hold the address any more",
            script: &["pools q 10.0.0.0/30; d/a dual prefer", "pools q fc00::/126 svcsel=tier=gold / x ?"],
            want: &[("d/a", "10.0.0.0 q allocated")],
        },
        Case {
            name: "the reason of a refusal follows who holds the address",
            script: &["pools p 10.0.0.0/31; d/a v4 share=l", "d/c v4 share=k ips=10.0.0.0", "d/a v4"],
            want: &[("d/c", "- - addressInUse ~ existing service does not allow sharing")],
        },
    ]);
}
