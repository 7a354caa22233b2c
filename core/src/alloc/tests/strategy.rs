//! Which free address of a pool is given out.
use super::{Case, World, check};
use crate::alloc::pick;

/// The first half of SHA-256 of "d/a", from another implementation.
const HASH_OF_DA: &str = "4d614069df6bdda31262d2ebfec68cc5";

#[test]
fn least_recently_used_gives_what_nobody_had_and_then_what_was_given_back_longest_ago() {
    check(&[
        Case {
            name: "nobody had: the lowest",
            script: &["pools p 10.0.0.0/30 lru; d/a v4", "- d/a", "d/b v4"],
            want: &[("d/b", "10.0.0.1 p allocated")],
        },
        Case {
            name: "all had: the oldest",
            script: &["pools p 10.0.0.0/31 lru; d/a v4; d/b v4", "now 5; - d/b", "now 6; - d/a", "d/c v4"],
            want: &[("d/c", "10.0.0.1 p allocated")],
        },
        Case {
            name: "of one batch: by address",
            script: &["pools p 10.0.0.0/31 lru; d/a v4; d/b v4", "- d/b; - d/a", "d/c v4"],
            want: &[("d/c", "10.0.0.0 p allocated")],
        },
        Case {
            name: "what the status remembers",
            script: &["pools p 10.0.0.0/31 lru gave=d/x@10.0.0.1@3 gave=d/y@10.0.0.0@4; d/c v4"],
            want: &[("d/c", "10.0.0.1 p allocated")],
        },
        Case {
            name: "after a restart",
            script: &["pools p 10.0.0.0/31 lru; d/a v4; d/b v4", "now 1; - d/b", "now 2; - d/a", "restart", "d/c v4"],
            want: &[("d/c", "10.0.0.1 p allocated")],
        },
        Case {
            name: "a release counts for all pools of a policy",
            script: &[
                "pools p 10.0.0.0/32 lru policy=x / q 10.1.0.0/32 lru policy=x; d/a v4; d/b v4",
                "- d/b",
                "- d/a",
                "d/c v4 pool=p",
            ],
            want: &[("d/c", "10.0.0.0 p allocated")],
        },
        Case {
            name: "what is changed for other ports at once was not given back",
            script: &["pools p 10.0.0.0/31 lru; d/a v4 ports=1", "d/a v4 ports=2", "d/b v4", "- d/b", "d/c v4"],
            want: &[("d/a", "10.0.0.0 p allocated"), ("d/c", "10.0.0.1 p allocated")],
        },
        Case {
            name: "an address that can be shared comes before one that somebody had",
            script: &["pools p 10.0.0.0/31 lru; d/a v4; d/x v4 share=k ports=1", "- d/a", "d/b v4 share=k ports=2"],
            want: &[("d/b", "10.0.0.1 p allocated")],
        },
    ]);
}

#[test]
fn hashed_by_name_gives_the_address_of_the_name_or_the_next_one() {
    let index = |key: &str, count: u128| u8::try_from(pick::hash(&key.parse().unwrap()) % count).unwrap();
    assert_eq!(format!("{:032x}", pick::hash(&"d/a".parse().unwrap())), HASH_OF_DA);
    for key in ["d/a", "d/b", "shop/web", "x/y"] {
        let at = index(key, 16);
        let key_4 = format!("{key} v4");
        let want = |n: u8| format!("10.0.0.{n} p allocated");
        let run = |script: &[&str]| {
            let mut world = World::new();
            script.iter().for_each(|batch| world.run(batch));
            world.say(key).split(" | ").next().unwrap().to_owned()
        };
        assert_eq!(run(&["pools p 10.0.0.0/28 hash", &key_4]), want(at));
        let holder = format!("z/z v4 at=10.0.0.{at}");
        assert_eq!(run(&["pools p 10.0.0.0/28 hash", &holder, &key_4]), want((at + 1) % 16), "the next, wrapping");
        // The upper half is written first: positions count as written, and so does "the next".
        let written = (at + 8) % 16;
        assert_eq!(run(&["pools p 10.0.0.8/29,10.0.0.0/29 hash", &key_4]), want(written));
        let holder = format!("z/z v4 at=10.0.0.{written}");
        let next = (at + 9) % 16;
        assert_eq!(run(&["pools p 10.0.0.8/29,10.0.0.0/29 hash", &holder, &key_4]), want(next));
        let withheld = format!("pools p 10.0.0.0/28 hash nonew=10.0.0.{at}");
        assert_eq!(run(&[&withheld, &key_4]), want((at + 1) % 16));
        let reserved = format!("pools p 10.0.0.0/28 hash / res r p 10.0.0.{at} svc=o/o");
        assert_eq!(run(&[&reserved, &key_4]), want((at + 1) % 16));
        let shared = format!("z/z v4 at=10.0.0.{at} share=k ports=1");
        assert_eq!(run(&["pools p 10.0.0.0/28 hash", &shared, &format!("{key} v4 share=k ports=2")]), want(at));
        // Avoided addresses are counted but not given.
        let at = index(key, 4);
        let want = ["10.0.0.254", "10.0.1.1", "10.0.1.1", "10.0.1.1"][usize::from(at)];
        assert!(run(&["pools p 10.0.0.254-10.0.1.1 hash buggy", &key_4]).starts_with(want), "{key}");
    }
}

#[test]
fn every_strategy_serves_pools_of_any_size() {
    for strategy in ["", " hash", " lru"] {
        let mut world = World::new();
        world.run(&format!("pools p 0.0.0.0/0,::/0 buggy{strategy}; d/a dual require; d/b dual require"));
        for key in ["d/a", "d/b"] {
            assert!(world.say(key).contains("p allocated"), "{strategy}: {}", world.say(key));
        }
        let usage = world.allocator.usage()["p"];
        assert_eq!((usage.total_v4, usage.used_v4), ((1 << 32) - (1 << 25), 2));
        assert_eq!((usage.total_v6, usage.used_v6), (u64::MAX, 2));
    }
}

#[test]
fn last_address_of_a_full_pool_is_found() {
    for strategy in ["", " hash", " lru"] {
        let mut world = World::new();
        let holders: Vec<String> =
            (0..64).filter(|n| *n != 41).map(|n| format!("z/s{n} v4 at=10.0.0.{}", 192 + n)).collect();
        world.run(&format!("pools p 10.0.0.192/26 buggy{strategy}; {}", holders.join("; ")));
        world.run("d/a v4");
        assert!(world.say("d/a").starts_with("10.0.0.233 p allocated"), "{strategy}: {}", world.say("d/a"));
        world.run("d/b v4");
        assert!(world.say("d/b").starts_with("- - poolExhausted"), "{strategy}: {}", world.say("d/b"));
    }
}
