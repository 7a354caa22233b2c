//! Addresses to which an edit took away the right, and addresses that are not ours.
use super::{Case, World, check};

#[test]
fn address_is_held_when_an_edit_takes_the_right_away() {
    check(&[
        Case {
            name: "its pool is deleted, another is there",
            script: &[
                "pools p 10.0.0.0/30; d/a v4 at=10.0.0.1 from=p",
                "pools q 10.1.0.0/30 / former 10.0.0.1=p; d/b v4",
            ],
            want: &[
                ("d/a", "10.0.0.1 p held ~ 10.0.0.1 is held: pool \"p\" does not contain it any more"),
                ("d/b", "10.1.0.0 q allocated"),
            ],
        },
        Case {
            name: "all pools are deleted",
            script: &["pools p 10.0.0.0/30; d/a v4 at=10.0.0.1; d/b v4", "pools former 10.0.0.1=p"],
            want: &[("d/a", "10.0.0.1 p held"), ("d/b", "- - noPools")],
        },
        Case {
            name: "its pool shrinks",
            script: &["pools p 10.0.0.0/30; d/a v4 at=10.0.0.3", "pools p 10.0.0.0/31 / former 10.0.0.3=p"],
            want: &[("d/a", "10.0.0.3 p held")],
        },
        Case {
            name: "its pool excludes it, and it is not even chosen any more",
            script: &["pools p 10.0.0.0/30; d/a v4 at=10.0.0.3", "pools p 10.0.0.0/30 ns=other / q 10.1.0.0/30"],
            want: &[("d/a", "10.0.0.3 p held ~ the serviceAllocation of pool \"p\" excludes")],
        },
        Case {
            name: "from the start",
            script: &["pools q 10.1.0.0/30 / former 10.0.0.3=p; d/a v4 at=10.0.0.3"],
            want: &[("d/a", "10.0.0.3 p held")],
        },
        Case {
            name: "one family of two",
            script: &[
                "pools p 10.0.0.0/30,fc00::/126; d/a dual require at=10.0.0.1,fc00::1",
                "pools p 10.0.0.0/30 / former fc00::1=p",
            ],
            want: &[("d/a", "10.0.0.1,fc00::1 p held ~ 10.0.0.1 from pool \"p\", fc00::1 is held")],
        },
        Case {
            name: "a held address of a Service that prefers both families is not completed",
            script: &["pools q 10.1.0.0/30,fc00::/126 / former 10.0.0.3=p; d/a dual prefer at=10.0.0.3"],
            want: &[("d/a", "10.0.0.3 p held")],
        },
        Case {
            name: "while a pool object is unreadable",
            script: &["pools q ? / former 10.0.0.3=p; d/a v4 at=10.0.0.3 from=p"],
            want: &[("d/a", "10.0.0.3 p held")],
        },
        Case {
            name: "a range moves to another pool while the Service asks for its old one",
            script: &["pools p 10.0.0.0/30; d/a v4 pool=p at=10.0.0.1 from=p", "pools p 10.2.0.0/30 / q 10.0.0.0/30"],
            want: &[("d/a", "10.0.0.1 p held ~ pool \"p\", which the Service asks for, does not contain it any more")],
        },
        Case {
            name: "a pool that a Service asks for is renamed",
            script: &["pools p 10.0.0.0/30; d/a v4 pool=p at=10.0.0.1 from=p", "pools q 10.0.0.0/30"],
            want: &[("d/a", "10.0.0.1 p held")],
        },
    ]);
}

#[test]
fn held_address_is_an_address_in_use() {
    check(&[
        Case {
            name: "nobody else gets it when it is back in a pool",
            script: &["pools former 10.0.0.0=p; d/a v4 at=10.0.0.0", "pools q 10.0.0.0/31; d/b v4"],
            want: &[("d/a", "10.0.0.0 q allocated"), ("d/b", "10.0.0.1 q allocated")],
        },
        Case {
            name: "back in a pool that excludes it, it is held by that pool",
            script: &["pools former 10.0.0.0=p; d/a v4 at=10.0.0.0", "pools q 10.0.0.0/31 ns=x"],
            want: &[("d/a", "10.0.0.0 q held")],
        },
        Case {
            name: "it is shared as before",
            script: &[
                "pools p 10.0.0.0/30; d/a v4 at=10.0.0.0 share=k ports=1; d/b v4 at=10.0.0.0 share=k ports=2",
                "pools q 10.1.0.0/30 / former 10.0.0.0=p",
            ],
            want: &[("d/a", "10.0.0.0 p held"), ("d/b", "10.0.0.0 p held")],
        },
        Case {
            name: "sharers with different backends, found in statuses, stay: by which rules they shared is not known any more",
            script: &[
                "pools q 10.1.0.0/30 / former 10.0.0.0=p; d/a v4 at=10.0.0.0 share=k ports=1 local=app=x; d/b v4 at=10.0.0.0 share=k ports=2",
            ],
            want: &[("d/a", "10.0.0.0 p held"), ("d/b", "10.0.0.0 p held")],
        },
        Case {
            name: "nobody with another backend joins it later",
            script: &[
                "pools q 10.1.0.0/30 / former 10.0.0.0=p; d/a v4 at=10.0.0.0 share=k ports=1 local=app=x",
                "d/b v4 at=10.0.0.0 share=k ports=2",
            ],
            want: &[("d/a", "10.0.0.0 p held"), ("d/b", "10.1.0.0 q allocated")],
        },
        Case {
            name: "two Services that may not share it: the older holds it",
            script: &[
                "pools q 10.1.0.0/30 / former 10.0.0.0=p; d/a v4 at=10.0.0.0 created=2; d/b v4 at=10.0.0.0 created=1",
            ],
            want: &[("d/a", "10.1.0.0 q allocated ~ is held by \"d/b\""), ("d/b", "10.0.0.0 p held")],
        },
        Case {
            name: "it counts in a quota",
            script: &[
                "pools p 10.0.0.0/30; d/a v4 at=10.0.0.0",
                "pools p 10.0.0.0/30 svcsel=app=x quota=kubernetes.io/metadata.name=d:1; d/b v4 labels=app=x",
            ],
            want: &[("d/a", "10.0.0.0 p held"), ("d/b", "- - quotaReached")],
        },
    ]);
}

#[test]
fn held_address_ends_when_its_owner_wants_or_an_edit_says_so() {
    check(&[
        Case {
            name: "moved: out of every pool",
            script: &[
                "pools p 10.0.0.0/30; d/a v4 at=10.0.0.1",
                "pools q 10.1.0.0/30 / former 10.0.0.1=p / moved d/a=10.0.0.1",
            ],
            want: &[("d/a", "10.1.0.0 q allocated ~ Normal ClearAssignment current IP for \"10.0.0.1\"")],
        },
        Case {
            name: "moved: out of a pool that excludes it",
            script: &[
                "pools p 10.0.0.0/30; d/a v4 at=10.0.0.1",
                "pools p 10.0.0.0/30 ns=x / q 10.1.0.0/30 / moved d/a=10.0.0.1",
            ],
            want: &[("d/a", "10.1.0.0 q allocated ~ ClearAssignment")],
        },
        Case {
            name: "moved: no other pool is there",
            script: &["pools p 10.0.0.0/30; d/a v4 at=10.0.0.1", "pools moved d/a=10.0.0.1"],
            want: &[("d/a", "- - noPools ~ ClearAssignment")],
        },
        Case {
            name: "moved means nothing while the address is its own by right",
            script: &["pools p 10.0.0.0/30 / moved d/a=10.0.0.1; d/a v4 at=10.0.0.1"],
            want: &[("d/a", "10.0.0.1 p allocated")],
        },
        Case {
            name: "moved concerns no other Service",
            script: &["pools q 10.1.0.0/30 / former 10.0.0.1=p / moved d/b=10.0.0.1; d/a v4 at=10.0.0.1"],
            want: &[("d/a", "10.0.0.1 p held")],
        },
        Case {
            name: "the Service itself leaves the pool's terms",
            script: &[
                "pools p 10.0.0.0/30 svcsel=app=x / q 10.1.0.0/30; d/a v4 labels=app=x at=10.0.0.1",
                "d/a v4 labels=app=y at=10.0.0.1",
            ],
            want: &[("d/a", "10.1.0.0 q allocated ~ pool p not compatible for ip assignment")],
        },
        Case {
            name: "one that is held already stays held when its labels change",
            script: &[
                "pools p 10.0.0.0/30 svcsel=app=x / q 10.1.0.0/30; d/a v4 at=10.0.0.1",
                "d/a v4 labels=app=y at=10.0.0.1",
            ],
            want: &[("d/a", "10.0.0.1 p held")],
        },
        Case {
            name: "and is its own when they match",
            script: &[
                "pools p 10.0.0.0/30 svcsel=app=x / q 10.1.0.0/30; d/a v4 at=10.0.0.1",
                "d/a v4 labels=app=x at=10.0.0.1",
            ],
            want: &[("d/a", "10.0.0.1 p allocated")],
        },
        Case {
            name: "the Service asks for another pool",
            script: &[
                "pools q 10.1.0.0/30 / r 10.2.0.0/30 / former 10.0.0.1=p; d/a v4 at=10.0.0.1 from=p",
                "d/a v4 pool=r at=10.0.0.1 from=p",
            ],
            want: &[("d/a", "10.2.0.0 r allocated")],
        },
        Case {
            name: "the Service changes its family",
            script: &["pools q fc00::/126 / former 10.0.0.1=p; d/a v4 at=10.0.0.1", "d/a v6 at=10.0.0.1"],
            want: &[("d/a", "fc00:: q allocated")],
        },
    ]);
}

#[test]
fn address_that_never_was_in_a_pool_is_left_alone() {
    check(&[
        Case {
            name: "and the Service gets no other",
            script: &["pools p 10.0.0.0/30; d/a v4 at=192.0.2.1"],
            want: &[(
                "d/a",
                "192.0.2.1 - addressNotOurs ~ Warning AddressNotOurs \"192.0.2.1\" in the status never was in a pool",
            )],
        },
        Case {
            name: "with the annotation as it is",
            script: &["pools p 10.0.0.0/30; d/a v4 at=192.0.2.1 from=gone"],
            want: &[("d/a", "192.0.2.1 gone addressNotOurs")],
        },
        Case {
            name: "in the order of the status, with what is ours beside it",
            script: &["pools p 10.0.0.0/30; d/a dual require at=fc00::1,10.0.0.0 from=p", "d/b v4"],
            want: &[("d/a", "fc00::1,10.0.0.0 p addressNotOurs"), ("d/b", "10.0.0.1 p allocated")],
        },
        Case {
            name: "but what is ours beside it is given up with the right to it",
            script: &[
                "pools p 10.0.0.0/30; d/a dual require at=10.0.0.0,fc00::1 share=k ports=1; d/b v4 at=10.0.0.0 share=k ports=2",
                "d/a dual require at=10.0.0.0,fc00::1 ports=1",
                "ns d a=b; d/a dual require at=10.0.0.0,fc00::1 from=p ports=1",
            ],
            want: &[("d/a", "fc00::1 p addressNotOurs"), ("d/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "even if the Service is headless, asks for nonsense, or there is no pool",
            script: &["pools ; d/a none at=192.0.2.1; d/b v4 ips=oops at=192.0.2.1; d/c v4 at=192.0.2.1"],
            want: &[
                ("d/a", "192.0.2.1 - addressNotOurs"),
                ("d/b", "192.0.2.1 - addressNotOurs"),
                ("d/c", "192.0.2.1 - addressNotOurs"),
            ],
        },
        Case {
            name: "until it is taken out of the status",
            script: &["pools p 10.0.0.0/30; d/a v4 at=192.0.2.1", "d/a v4"],
            want: &[("d/a", "10.0.0.0 p allocated")],
        },
        Case {
            name: "or another is written into it",
            script: &["pools p 10.0.0.0/30; d/a v4 at=192.0.2.1", "d/a v4 at=10.0.0.2"],
            want: &[("d/a", "10.0.0.2 p allocated")],
        },
        Case {
            name: "or a pool contains it",
            script: &["pools p 10.0.0.0/30; d/a v4 at=192.0.2.1", "pools p 10.0.0.0/30,192.0.2.0/24"],
            want: &[("d/a", "192.0.2.1 p allocated")],
        },
        Case {
            name: "unless a pool object that cannot be read may explain it",
            script: &["pools p ?; d/a v4 at=192.0.2.1"],
            want: &[("d/a", "192.0.2.1 - allocated")],
        },
    ]);
}

#[test]
fn held_addresses_are_counted_by_pool() {
    let mut world = World::new();
    world.run("pools p 10.0.0.0/24 ns=x / former 10.1.0.0=q; d/a v4 at=10.0.0.1; d/b v4 at=10.1.0.0; x/c v4");
    let held = |world: &World| world.allocator.held().iter().map(|(k, v)| (k.to_string(), *v)).collect::<Vec<_>>();
    assert_eq!(held(&world), [("p".to_owned(), 1), ("q".to_owned(), 1)]);
    world.run("- d/a");
    assert_eq!(held(&world), [("q".to_owned(), 1)]);
    world.run("pools p 10.0.0.0/24 / q 10.1.0.0/24");
    assert_eq!(held(&world), []);
}
