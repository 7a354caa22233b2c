//! Sharing an address, and what happens where it is not allowed.
use super::{Case, World, check};

/// Who shares with whom.
const SHARING: &[Case] = &[
    Case {
        name: "same key, other ports",
        script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=80", "e/b v4 share=k ports=443"],
        want: &[("d/a", "10.0.0.0 p allocated"), ("e/b", "10.0.0.0 p allocated")],
    },
    Case {
        name: "same number, other protocol",
        script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=53", "e/b v4 share=k ports=u53"],
        want: &[("e/b", "10.0.0.0 p allocated")],
    },
    Case {
        name: "same port",
        script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=80", "e/b v4 share=k ports=80,443"],
        want: &[("e/b", "10.0.0.1 p allocated")],
    },
    Case {
        name: "another key",
        script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=80", "e/b v4 share=l ports=443"],
        want: &[("e/b", "10.0.0.1 p allocated")],
    },
    Case {
        name: "no key",
        script: &["pools p 10.0.0.0/24; d/a v4 ports=80", "e/b v4 ports=443"],
        want: &[("e/b", "10.0.0.1 p allocated")],
    },
    Case {
        name: "Cluster and Local never",
        script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=80", "e/b v4 share=k ports=443 local=app=x"],
        want: &[("e/b", "10.0.0.1 p allocated")],
    },
    Case {
        name: "Local and Local with the same selector",
        script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=80 local=app=x", "e/b v4 share=k ports=443 local=app=x"],
        want: &[("e/b", "10.0.0.0 p allocated")],
    },
    Case {
        name: "Local and Local with different selectors",
        script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=80 local=app=x", "e/b v4 share=k ports=443 local=app=y"],
        want: &[("e/b", "10.0.0.1 p allocated")],
    },
    Case {
        name: "a lower free address comes before a shared one",
        script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=80 ips=10.0.0.5", "e/b v4 share=k ports=443"],
        want: &[("e/b", "10.0.0.0 p allocated")],
    },
    Case {
        name: "in a full pool",
        script: &[
            "pools p 10.0.0.0/31; d/x v4; d/a v4 share=k ports=80",
            "e/b v4 share=k ports=443",
            "e/c v4 share=k ports=80",
        ],
        want: &[("d/a", "10.0.0.0 p allocated"), ("e/b", "10.0.0.0 p allocated"), ("e/c", "- - poolExhausted")],
    },
    Case {
        name: "both families together",
        script: &[
            "pools p 10.0.0.0/24,fc00::/64; d/a dual require share=k ports=80",
            "e/b dual require share=k ports=443",
        ],
        want: &[("e/b", "10.0.0.0,fc00:: p allocated")],
    },
];

#[test]
fn address_is_shared_only_between_services_that_agree() {
    check(SHARING);
}

#[test]
fn refusal_says_what_does_not_agree() {
    check(&[
        Case {
            name: "key",
            script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=80", "e/b v4 share=l ports=443 ips=10.0.0.0"],
            want: &[("e/b", "- - sharingKeyMismatch ~ sharing key \"l\" does not match existing sharing key \"k\"")],
        },
        Case {
            name: "no key of its own",
            script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=80", "e/b v4 ports=443 ips=10.0.0.0"],
            want: &[("e/b", "- - addressInUse ~ new service does not allow sharing")],
        },
        Case {
            name: "backend",
            script: &[
                "pools p 10.0.0.0/24; d/a v4 share=k ports=80",
                "e/b v4 share=k ports=443 ips=10.0.0.0 local=app=x",
            ],
            want: &[("e/b", "- - backendMismatch ~ backend key \"app=x\"")],
        },
        Case {
            name: "port",
            script: &["pools p 10.0.0.0/24; d/a v4 share=k ports=80", "e/b v4 share=k ports=80 ips=10.0.0.0"],
            want: &[("e/b", "- - portInUse ~ port tcp/80 is already in use on \"10.0.0.0\" by d/a")],
        },
    ]);
}

#[test]
fn edit_that_breaks_sharing_moves_the_edited_service_and_no_other() {
    check(&[
        Case {
            name: "the only holder may change its key and ports",
            script: &[
                "pools p 10.0.0.0/24; d/a v4 share=k ports=80",
                "d/a v4 share=l ports=81",
                "e/b v4 share=l ports=80",
            ],
            want: &[("d/a", "10.0.0.0 p allocated"), ("e/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "a sharer that changes its key",
            script: &[
                "pools p 10.0.0.0/24; d/a v4 share=k ports=80; e/b v4 share=k ports=81",
                "d/a v4 share=l ports=80",
            ],
            want: &[
                (
                    "d/a",
                    "10.0.0.1 p allocated ~ ClearAssignment ~ can't change sharing key for \"d/a\", address also in use by e/b",
                ),
                ("e/b", "10.0.0.0 p allocated"),
            ],
        },
        Case {
            name: "a sharer that takes another's port",
            script: &[
                "pools p 10.0.0.0/24; d/a v4 share=k ports=80; e/b v4 share=k ports=81",
                "d/a v4 share=k ports=80,81",
            ],
            want: &[("d/a", "10.0.0.1 p allocated"), ("e/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "a sharer that becomes Local",
            script: &[
                "pools p 10.0.0.0/24; d/a v4 share=k ports=80; e/b v4 share=k ports=81",
                "d/a v4 share=k ports=80 local=app=x",
            ],
            want: &[("d/a", "10.0.0.1 p allocated"), ("e/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "two sharers that change their key together",
            script: &[
                "pools p 10.0.0.0/24; d/a v4 share=k ports=80; e/b v4 share=k ports=81",
                "d/a v4 share=l ports=80; e/b v4 share=l ports=81",
            ],
            want: &[("d/a", "10.0.0.0 p allocated"), ("e/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "a port given up helps who waits for it",
            script: &[
                "pools p 10.0.0.0/32; d/a v4 share=k ports=80,81",
                "e/b v4 share=k ports=81",
                "d/a v4 share=k ports=80",
            ],
            want: &[("e/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "a newly held address helps who can share it",
            script: &[
                "pools p 10.0.0.0/32; d/x v4; d/a v4 share=k ports=80; d/b v4 share=k ports=81; d/c v4 share=k ports=80",
                "- d/x",
            ],
            want: &[("d/a", "10.0.0.0 p allocated"), ("d/b", "10.0.0.0 p allocated"), ("d/c", "- - poolExhausted")],
        },
    ]);
}

#[test]
fn younger_of_two_that_may_not_share_is_released_at_take_over() {
    check(&[
        Case {
            name: "later creation",
            script: &["pools p 10.0.0.0/24; d/a v4 at=10.0.0.9 created=20; d/b v4 at=10.0.0.9 created=10"],
            want: &[
                ("d/a", "10.0.0.0 p allocated ~ Warning ClearAssignment current IP \"10.0.0.9\" is held by \"d/b\""),
                ("d/b", "10.0.0.9 p allocated"),
            ],
        },
        Case {
            name: "then namespace and name, whatever the uid",
            script: &["pools p 10.0.0.0/24; d-e/a v4 at=10.0.0.9 uid=a; d/b v4 at=10.0.0.9 uid=y"],
            want: &[("d-e/a", "10.0.0.0 p allocated ~ \"d/b\""), ("d/b", "10.0.0.9 p allocated")],
        },
        Case {
            name: "sharers stay together",
            script: &["pools p 10.0.0.0/24; d/a v4 at=10.0.0.9 share=k ports=1; d/b v4 at=10.0.0.9 share=k ports=2"],
            want: &[("d/a", "10.0.0.9 p allocated"), ("d/b", "10.0.0.9 p allocated")],
        },
        Case {
            name: "nothing is left for the younger",
            script: &["pools p 10.0.0.9/32; d/a v4 at=10.0.0.9 created=20; d/b v4 at=10.0.0.9 created=10"],
            want: &[("d/a", "- - poolExhausted ~ ClearAssignment ~ AllocationFailed")],
        },
    ]);
}

#[test]
fn holders_of_an_address_are_listed_in_key_order() {
    let mut world = World::new();
    world.run("pools p 10.0.0.0/24; e/b v4 share=k ports=1; d/a v4 share=k ports=2; d/c v4");
    let holders = |ip: &str| world.allocator.holders(ip.parse().unwrap());
    assert_eq!(holders("10.0.0.0"), ["d/a".parse().unwrap(), "e/b".parse().unwrap()]);
    assert_eq!(holders("10.0.0.1"), ["d/c".parse().unwrap()]);
    assert_eq!(holders("10.0.0.2"), []);
}
