//! AddressReservation: addresses and numbers of addresses that are for some Services.
use super::{Case, World, check};

#[test]
fn reserved_address_is_for_whom_it_is_reserved() {
    check(&[
        Case {
            name: "first, and nobody else gets it",
            script: &["pools p 10.0.0.0/29 / res r p 10.0.0.0-10.0.0.1,10.0.0.5 svc=d/z; d/a v4; d/z v4; d/b v4"],
            want: &[("d/a", "10.0.0.2 p allocated"), ("d/z", "10.0.0.0 p allocated"), ("d/b", "10.0.0.3 p allocated")],
        },
        Case {
            name: "not by request",
            script: &["pools p 10.0.0.0/29 / res r p 10.0.0.5 svc=d/z; d/a v4 ips=10.0.0.5"],
            want: &[("d/a", "- - addressReserved ~ \"10.0.0.5\" is reserved by AddressReservation \"r\"")],
        },
        Case {
            name: "by namespace",
            script: &["pools p 10.0.0.0/29 / res r p 10.0.0.5-10.0.0.6 ns=e; e/a v4; d/a v4; e/b v4; e/c v4"],
            want: &[("e/a", "10.0.0.5 p allocated"), ("e/b", "10.0.0.6 p allocated"), ("e/c", "10.0.0.1 p allocated")],
        },
        Case {
            name: "by label, and by label within namespaces",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.5 svcsel=app=x / res s p 10.0.0.6-10.0.0.7 svcsel=app=y ns=e; d/a v4 labels=app=x; d/b v4 labels=app=y; e/b v4 labels=app=y",
            ],
            want: &[("d/a", "10.0.0.5 p allocated"), ("d/b", "10.0.0.0 p allocated"), ("e/b", "10.0.0.6 p allocated")],
        },
        Case {
            name: "on its own request",
            script: &["pools p 10.0.0.0/29 / res r p 10.0.0.5-10.0.0.6 svc=d/z; d/z v4 ips=10.0.0.6"],
            want: &[("d/z", "10.0.0.6 p allocated")],
        },
        Case {
            name: "also from a pool that serves only requests",
            script: &["pools a 10.1.0.0/29 / p 10.0.0.0/29 manual / res r p 10.0.0.5 svc=d/z; d/z v4"],
            want: &[("d/z", "10.0.0.5 p allocated")],
        },
        Case {
            name: "but not from one that excludes it",
            script: &["pools a 10.1.0.0/29 / p 10.0.0.0/29 ns=x / res r p 10.0.0.5 svc=d/z; d/z v4"],
            want: &[("d/z", "10.1.0.0 a allocated")],
        },
        Case {
            name: "nor from one that it does not ask for",
            script: &["pools a 10.1.0.0/29 / p 10.0.0.0/29 / res r p 10.0.0.5 svc=d/z; d/z v4 pool=a"],
            want: &[("d/z", "10.1.0.0 a allocated")],
        },
        Case {
            name: "before a pool of lower priority value",
            script: &["pools a 10.1.0.0/29 prio=1 / p 10.0.0.0/29 / res r p 10.0.0.5 svc=d/z; d/z v4"],
            want: &[("d/z", "10.0.0.5 p allocated")],
        },
        Case {
            name: "completed by the pool where both families are needed",
            script: &[
                "pools a 10.1.0.0/29,fc01::/126 / p 10.0.0.0/29,fc00::/126 / res r p 10.0.0.5 svc=d/z; d/z dual require",
            ],
            want: &[("d/z", "10.0.0.5,fc00:: p allocated")],
        },
        Case {
            name: "others share with those who have it only if it is for them",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.5 ns=e; e/a v4 share=k ports=1; e/b v4 share=k ports=2; d/a v4 share=k ports=3",
            ],
            want: &[("e/b", "10.0.0.5 p allocated"), ("d/a", "10.0.0.0 p allocated")],
        },
        Case {
            name: "nor by request",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.5 ns=e; e/a v4 share=k ports=1",
                "d/a v4 share=k ports=3 ips=10.0.0.5",
            ],
            want: &[("d/a", "- - addressReserved")],
        },
        Case {
            name: "an address that somebody has stays with him",
            script: &["pools p 10.0.0.0/30; d/a v4; d/b v4", "pools p 10.0.0.0/30 / res r p 10.0.0.0 svc=d/z; d/z v4"],
            want: &[("d/a", "10.0.0.0 p allocated"), ("d/z", "10.0.0.2 p allocated")],
        },
        Case {
            name: "and is reserved after him",
            script: &[
                "pools p 10.0.0.0/30; d/a v4",
                "pools p 10.0.0.0/30 / res r p 10.0.0.0 svc=d/z",
                "- d/a",
                "d/b v4; d/z v4",
            ],
            want: &[("d/b", "10.0.0.1 p allocated"), ("d/z", "10.0.0.0 p allocated")],
        },
        Case {
            name: "one who waits gets it when it is given back",
            script: &["pools p 10.0.0.0/31 / res r p 10.0.0.0 ns=e; d/x v4; e/a v4", "e/b v4; d/y v4", "- e/a"],
            want: &[("e/b", "10.0.0.0 p allocated"), ("d/y", "- - poolExhausted")],
        },
        Case {
            name: "a free one does not help others",
            script: &["pools p 10.0.0.0/32 / res r p 10.0.0.0 svc=d/z; d/a v4"],
            want: &[("d/a", "- - poolExhausted")],
        },
        Case {
            name: "until the reservation ends",
            script: &["pools p 10.0.0.0/32 / res r p 10.0.0.0 svc=d/z; d/a v4", "pools p 10.0.0.0/32"],
            want: &[("d/a", "10.0.0.0 p allocated")],
        },
        Case {
            name: "its labels no longer match: its own wish",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.5 svcsel=app=x; d/a v4 labels=app=x",
                "d/a v4 labels=app=y",
            ],
            want: &[("d/a", "10.0.0.0 p allocated ~ AddressReservation \"r\" is not for this Service any more")],
        },
        Case {
            name: "the reservation no longer matches: an edit",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.5 svc=d/a; d/a v4",
                "pools p 10.0.0.0/29 / res r p 10.0.0.5 svc=d/b; d/b v4",
            ],
            want: &[("d/a", "10.0.0.5 p allocated"), ("d/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "avoided and withheld addresses are not given",
            script: &["pools p 10.0.0.0/29 buggy nonew=10.0.0.1 / res r p 10.0.0.0-10.0.0.2 svc=d/z; d/z v4"],
            want: &[("d/z", "10.0.0.2 p allocated")],
        },
        Case {
            name: "two reservations of one address: that of the first name",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.5 svc=d/a / res s p 10.0.0.5-10.0.0.6 svc=d/b; d/b v4; d/a v4",
            ],
            want: &[("d/a", "10.0.0.5 p allocated"), ("d/b", "10.0.0.6 p allocated")],
        },
        Case {
            name: "a reservation within a pool that does not exist",
            script: &["pools a 10.1.0.0/29 / res r p 10.0.0.5 svc=d/z; d/z v4"],
            want: &[("d/z", "10.1.0.0 a allocated")],
        },
    ]);
}

#[test]
fn reserved_number_of_addresses_stays_free_for_whom_it_is_reserved() {
    check(&[
        Case {
            name: "others leave so many",
            script: &["pools p 10.0.0.0/30 / res r p 2:v4 ns=e; d/a v4; d/b v4; d/c v4"],
            want: &[
                ("d/b", "10.0.0.1 p allocated"),
                ("d/c", "- - poolExhausted ~ in pool \"p\" for IPv4 IPFamily: what is free is reserved"),
            ],
        },
        Case {
            name: "not by a request for several",
            script: &[
                "pools p 10.0.0.0/30 perfam=2 / res r p 3:v4 ns=e; d/a v4 ips=10.0.0.0,10.0.0.1; d/b v4 ips=10.0.0.3",
            ],
            want: &[("d/a", "- - addressReserved"), ("d/b", "10.0.0.3 p allocated")],
        },
        Case {
            name: "not by request either",
            script: &["pools p 10.0.0.0/30 / res r p 2:v4 ns=e; d/a v4; d/b v4", "d/c v4 ips=10.0.0.3"],
            want: &[("d/c", "- - addressReserved ~ all that is free in pool \"p\" is reserved")],
        },
        Case {
            name: "those it is for get them",
            script: &[
                "pools p 10.0.0.0/30 / res r p 2:v4 ns=e; d/a v4; d/b v4; d/c v4",
                "e/a v4; e/b v4 ips=10.0.0.3; e/c v4",
            ],
            want: &[("e/a", "10.0.0.2 p allocated"), ("e/b", "10.0.0.3 p allocated"), ("e/c", "- - poolExhausted")],
        },
        Case {
            name: "what they have counts",
            script: &["pools p 10.0.0.0/30 / res r p 2:v4 ns=e; e/a v4; e/b v4", "d/a v4; d/b v4; d/c v4"],
            want: &[("d/b", "10.0.0.3 p allocated"), ("d/c", "- - poolExhausted")],
        },
        Case {
            name: "beyond the number they are like everybody",
            script: &["pools p 10.0.0.0/30 / res r p 1:v4 ns=e / res s p 1:v4 ns=f; e/a v4; e/b v4; d/a v4; d/b v4"],
            want: &[
                ("d/a", "10.0.0.0 p allocated"),
                ("d/b", "10.0.0.1 p allocated"),
                ("e/a", "10.0.0.2 p allocated"),
                ("e/b", "- - poolExhausted"),
            ],
        },
        Case {
            name: "only of the family",
            script: &["pools p 10.0.0.0/32,fc00::/128 / res r p 1:v6 ns=e; d/a v4; d/b v6"],
            want: &[("d/a", "10.0.0.0 p allocated"), ("d/b", "- - poolExhausted")],
        },
        Case {
            name: "by the strategy of the pool",
            script: &["pools p 10.0.0.0/31 lru gave=d/x@10.0.0.0@1 / res r p 1:v4 ns=e; e/a v4"],
            want: &[("e/a", "10.0.0.1 p allocated")],
        },
        Case {
            name: "one who shares an address of theirs leaves one more to others",
            script: &[
                "pools p 10.0.0.0/30 / res r p 2:v4 ns=e; e/a v4 share=k ports=1",
                "d/a v4; d/b v4; d/c v4",
                "pools p 10.0.0.0/30 / res r p 1:v4 ns=e",
            ],
            want: &[("d/c", "10.0.0.3 p allocated")],
        },
        Case {
            name: "relabelled Services are counted anew",
            script: &["pools p 10.0.0.0/31 / res r p 1:v4 svcsel=app=x; d/a v4; d/b v4", "d/a v4 labels=app=x"],
            want: &[("d/a", "10.0.0.0 p allocated"), ("d/b", "10.0.0.1 p allocated")],
        },
        Case {
            name: "a Service that joins one of theirs lets another go",
            script: &[
                "pools p 10.0.0.0/31 / res r p 1:v4 ns=e; d/a v4 share=k ports=1",
                "d/b v4",
                "e/a v4 share=k ports=2 ips=10.0.0.0",
            ],
            want: &[("e/a", "10.0.0.0 p allocated"), ("d/b", "10.0.0.1 p allocated")],
        },
    ]);
}

#[test]
fn former_address_comes_back_and_is_kept_for_a_while() {
    check(&[
        Case {
            name: "deleted and created again",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.4-10.0.0.6 ns=e; e/a v4; e/b v4",
                "- e/b",
                "- e/a",
                "e/b v4",
            ],
            want: &[("e/b", "10.0.0.5 p allocated")],
        },
        Case {
            name: "after a restart, too",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.4-10.0.0.6 ns=e; e/a v4; e/b v4",
                "- e/b; - e/a",
                "restart",
                "e/b v4",
            ],
            want: &[("e/b", "10.0.0.5 p allocated")],
        },
        Case {
            name: "created again unseen",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.4-10.0.0.6 ns=e; e/a v4; e/b v4",
                "- e/a",
                "e/b v4 uid=new",
            ],
            want: &[("e/b", "10.0.0.5 p allocated")],
        },
        Case {
            name: "unless somebody has it",
            script: &["pools p 10.0.0.0/29 / res r p 10.0.0.4-10.0.0.6 ns=e; e/a v4", "- e/a", "e/c v4", "e/a v4"],
            want: &[("e/c", "10.0.0.4 p allocated"), ("e/a", "10.0.0.5 p allocated")],
        },
        Case {
            name: "of a number",
            script: &["pools p 10.0.0.0/29 / res r p 2:v4 ns=e; d/x v4; e/a v4; e/b v4", "- e/b; - d/x", "e/b v4"],
            want: &[("e/b", "10.0.0.2 p allocated")],
        },
        Case {
            name: "a waiting holder takes it when the other family of its pool is free again",
            script: &[
                "pools r 10.0.0.2/32,fc00::/128 manual / res x r 10.0.0.2 ns=e; d/x v6 pool=r",
                "e/a dual require",
                "- d/x",
            ],
            want: &[("e/a", "10.0.0.2,fc00:: r allocated")],
        },
        Case {
            name: "kept from everybody else for its time",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.4 ns=e after=10; e/a v4",
                "now 5; - e/a",
                "now 14; e/b v4; e/c v4 ips=10.0.0.4",
            ],
            want: &[
                ("e/b", "10.0.0.0 p allocated"),
                ("e/c", "- - addressReserved ~ kept for e/a by releaseAfter of AddressReservation \"r\""),
            ],
        },
        Case {
            name: "not from itself",
            script: &["pools p 10.0.0.0/29 / res r p 10.0.0.4 ns=e after=10; e/a v4", "now 5; - e/a", "now 14; e/a v4"],
            want: &[("e/a", "10.0.0.4 p allocated")],
        },
        Case {
            name: "and not after its time",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.4 ns=e after=10; e/a v4",
                "now 5; - e/a",
                "now 14; d/x v4; e/c v4 ips=10.0.0.4",
                "now 15",
            ],
            want: &[("e/c", "10.0.0.4 p allocated")],
        },
        Case {
            name: "of a number, kept for its time, but only once",
            script: &[
                "pools p 10.0.0.0/30 / res r p 1:v4 ns=e after=10; e/a v4",
                "now 5; - e/a",
                "now 6; d/a v4; d/b v4; d/c v4; d/d v4",
            ],
            want: &[("d/a", "10.0.0.1 p allocated"), ("d/c", "10.0.0.3 p allocated"), ("d/d", "- - poolExhausted")],
        },
        Case {
            name: "then free for those of the reservation",
            script: &[
                "pools p 10.0.0.0/30 / res r p 1:v4 ns=e after=10; e/a v4",
                "now 5; - e/a",
                "now 6; d/a v4; d/b v4; d/c v4; d/d v4; e/b v4",
                "now 15",
            ],
            want: &[("d/d", "- - poolExhausted"), ("e/b", "10.0.0.0 p allocated")],
        },
        Case {
            name: "across a restart",
            script: &[
                "pools p 10.0.0.0/29 / res r p 10.0.0.4 ns=e after=10; e/a v4",
                "now 5; - e/a",
                "restart",
                "now 14; e/b v4",
            ],
            want: &[("e/b", "10.0.0.0 p allocated")],
        },
    ]);
    let mut world = World::new();
    world.run("pools p 10.0.0.0/29 / res r p 10.0.0.4 ns=e after=10; e/a v4");
    assert_eq!(world.allocator.due_s(), None);
    world.run("now 5; - e/a");
    assert_eq!(world.allocator.due_s(), Some(15));
    world.run("now 15");
    assert_eq!(world.allocator.due_s(), None);
}

#[test]
fn memory_says_who_has_what_and_who_had_it() {
    let mut world = World::new();
    world.run("pools p 10.0.0.0/29,fc00::/126 lru policy=x / res r p 10.0.0.4-10.0.0.6,fc00::1 ns=e; e/a dual require; e/b v4; d/a v4");
    let said = |world: &World| {
        let memory = world.allocator.memory();
        let holders = memory.holders["r"].iter().map(|h| format!("{} {:?} {:?}", h.service, h.ips, h.released_s));
        let releases = memory.releases["x"].iter().map(|r| format!("{} {} {}", r.service, r.ip, r.at_s));
        holders.chain(releases).collect::<Vec<_>>()
    };
    assert_eq!(said(&world), ["e/a [10.0.0.4, fc00::1] None", "e/b [10.0.0.5] None"]);
    let before = world.allocator.memory_generation();
    world.run("now 7; - d/a; - e/a");
    assert_ne!(world.allocator.memory_generation(), before);
    assert_eq!(
        said(&world),
        ["e/b [10.0.0.5] None", "e/a [10.0.0.4, fc00::1] Some(7)", "d/a 10.0.0.0 7", "e/a 10.0.0.4 7", "e/a fc00::1 7",]
    );
    let before = world.allocator.memory_generation();
    world.run("ns d a=b");
    assert_eq!(world.allocator.memory_generation(), before, "nothing changed");
}

#[test]
fn memory_is_limited_and_forgets_the_oldest() {
    let mut world = World::new();
    world.run("pools p 10.0.0.0/16 lru");
    let all = crate::alloc::RELEASES_MAX + 2;
    let services: Vec<String> = (0..all).map(|n| format!("d/s{n:05} v4")).collect();
    world.run(&services.join("; "));
    let gone: Vec<String> = (0..all).map(|n| format!("- d/s{n:05}")).collect();
    world.run(&gone.join("; "));
    let memory = world.allocator.memory();
    assert_eq!(memory.releases["policy-of-p"].len(), crate::alloc::RELEASES_MAX);
    assert_eq!(memory.releases["policy-of-p"][0].ip.to_string(), "10.0.0.2");
    world.run("d/x v4");
    world.check_want("what is forgotten is as if nobody had had it", &[("d/x", "10.0.0.0 p allocated")]);
}

#[test]
fn usage_tells_reserved_addresses_apart() {
    let mut world = World::new();
    world.run("pools p 10.0.0.0/28,fc00::/126 / res r p 10.0.0.4-10.0.0.6 ns=e after=10 / res s p 2:v6 ns=e; e/a v4; e/b v6; d/a v4");
    let usage = world.allocator.usage()["p"];
    assert_eq!((usage.total_v4, usage.used_v4, usage.reserved_v4), (16, 2, 2));
    assert_eq!((usage.total_v6, usage.used_v6, usage.reserved_v6), (4, 1, 1));
    world.run("- e/a");
    assert_eq!(world.allocator.usage()["p"].reserved_v4, 3, "free for its former holder");
}
