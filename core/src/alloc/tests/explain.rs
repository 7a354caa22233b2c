//! Every pool as it looked to a Service.
use super::World;

/// Runs the script and says what was considered for `d/a`: `POOL[/RESERVATION] CODE`.
fn considered(script: &[&str]) -> Vec<String> {
    let mut world = World::new();
    script.iter().for_each(|batch| world.run(batch));
    let list = world.allocator.considered(&"d/a".parse().unwrap());
    assert!(list.iter().all(|c| !c.message.is_empty()), "{list:?}");
    let name = |c: &crate::alloc::Considered| match &c.reservation {
        Some(reservation) => format!("{}/{reservation}", c.pool),
        None => c.pool.to_string(),
    };
    list.iter().map(|c| format!("{} {}", name(c), c.code)).collect()
}

#[test]
fn every_pool_is_explained_in_the_order_of_trial() {
    for (name, script, want) in [
        (
            "automatic choice",
            &[
                "pools a 10.0.0.0/32 / b 10.1.0.0/24 / c 10.2.0.0/24 / m 10.3.0.0/24 manual / s fc00::/64 prio=1 / x 10.4.0.0/24 ns=x; d/z v4; d/a v4",
                "ns d a=b",
            ][..],
            &[
                "s poolFamilyMissing",
                "x poolNotForService",
                "a allocated",
                "b notNeeded",
                "c notNeeded",
                "m poolNotForService",
            ][..],
        ),
        (
            "used up",
            &[
                "pools a 10.0.0.0/32 / b 10.1.0.0/24 quota=team=x:0 / c 10.2.0.0/32; ns d team=x; z/x v4; z/y v4 pool=c",
                "d/a v4",
            ],
            &["a poolExhausted", "b quotaReached", "c poolExhausted"],
        ),
        (
            "a pool by name",
            &["pools a 10.0.0.0/24 / b 10.1.0.0/24; d/a v4 pool=b"],
            &["a requestPoolMismatch", "b allocated"],
        ),
        (
            "an address that somebody has",
            &["pools a 10.0.0.0/24 / b 10.1.0.0/24; z/z v4 ips=10.1.0.4", "d/a v4 ips=10.1.0.4"],
            &["a requestPoolMismatch", "b addressInUse"],
        ),
        ("nonsense", &["pools a 10.0.0.0/24 / b ?; d/a v4 ips=x"], &["a invalidRequest", "b unknownPool"]),
        ("headless", &["pools a 10.0.0.0/24; d/a none"], &["a noClusterIP"]),
        (
            "reservations",
            &["pools a 10.0.0.0/24 / b 10.1.0.0/24 / res r b 10.1.0.7 svc=d/a / res s a 1:v4 ns=d; d/a v4"],
            &["b/r allocated", "a/s notNeeded", "a notNeeded", "b allocated"],
        ),
        ("held", &["pools a 10.0.0.0/24 ns=x / b 10.1.0.0/24; d/a v4 at=10.0.0.1"], &["a held", "b notNeeded"]),
        (
            "too many",
            &["pools a 10.0.0.0/24 / b 10.1.0.0/31 perfam=3; d/a v4 perfamily=3"],
            &["a tooManyAddresses", "b poolExhausted"],
        ),
    ] {
        assert_eq!(considered(script), want, "{name}");
    }
    assert!(considered(&["pools a 10.0.0.0/24"]).is_empty(), "nobody");
}
