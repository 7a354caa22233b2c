//! BFDProfiles, and the peers that name them.
use super::*;

/// A world with a peer that names the profile `fast`.
fn world() -> World {
    World::new().peer("r", 0, BgpPeerSpec { bfd_profile: some("fast"), ..peer() })
}

fn transmitting(interval_ms: i64) -> BfdProfileSpec {
    BfdProfileSpec { transmit_interval: Some(interval_ms), ..BfdProfileSpec::default() }
}

#[test]
fn profile_is_read_field_by_field_with_metallbs_defaults() {
    let config = world().profile("fast", BfdProfileSpec::default()).build();
    assert_eq!(config.problems, []);
    assert_eq!(config.peers["r"].bfd.as_deref(), Some(&BfdProfile::new("fast")));
    let spec = BfdProfileSpec {
        receive_interval: Some(10),
        transmit_interval: Some(60_000),
        detect_multiplier: Some(255),
        echo_interval: Some(38),
        echo_mode: Some(true),
        passive_mode: Some(true),
        minimum_ttl: Some(1),
    };
    let config = world().profile("fast", spec.clone()).build();
    let want = BfdProfile {
        name: "fast".into(),
        receive_interval: Duration::from_millis(10),
        transmit_interval: Duration::from_secs(60),
        detect_multiplier: 255,
        echo_interval: Some(Duration::from_millis(38)),
        passive: true,
        minimum_ttl: 1,
    };
    assert_eq!(config.peers["r"].bfd.as_deref(), Some(&want));
    for (echo_mode, echo_interval, want) in
        [(Some(true), None, Some(Duration::from_millis(50))), (Some(false), Some(38), None), (None, Some(38), None)]
    {
        let spec = BfdProfileSpec { echo_mode, echo_interval, ..spec.clone() };
        let config = world().profile("fast", spec).build();
        assert_eq!(config.peers["r"].bfd.as_ref().unwrap().echo_interval, want, "{echo_mode:?} {echo_interval:?}");
    }
}

#[test]
fn profile_may_come_before_or_after_its_peer_and_an_edit_reaches_it() {
    let mut builder = Builder::default();
    let mut interval = |world: World| {
        let config = builder.build(&world.resources);
        let peer = &config.peers["r"];
        (peer.bfd.as_ref().map(|b| b.transmit_interval.as_millis()), peer.bfd_missing.clone(), config.stale)
    };
    let missing = "peer r referencing non existing bfd profile fast: create the BFDProfile, or leave bfdProfile out";
    let invalid =
        "peer r referencing bfd profile fast, which is not valid: mend the BFDProfile, or leave bfdProfile out";
    assert_eq!(interval(world()), (None, some(missing), true));
    assert_eq!(interval(world().profile("fast", transmitting(5))), (None, some(invalid), true));
    assert_eq!(interval(world().profile("fast", transmitting(50))), (Some(50), None, false));
    assert_eq!(interval(world().profile("fast", transmitting(60))), (Some(60), None, false));
    assert_eq!(interval(world().profile("fast", transmitting(5))), (Some(60), None, true), "the last valid version");
    assert_eq!(interval(world()), (Some(60), None, true), "deleted: the last one seen");
    let other = World::new().peer("r", 0, BgpPeerSpec { bfd_profile: some("slow"), ..peer() });
    assert!(interval(other).1.is_some(), "another profile is another's");
    assert_eq!(interval(world()).1, some(missing), "and what it was is forgotten");
}

#[test]
fn problem_of_a_missing_profile_names_object_field_and_value() {
    let config = world().build();
    assert_eq!(
        config.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "BGPPeer r: spec.bfdProfile: \"fast\": peer r referencing non existing bfd profile fast; the peer is not dialled until then: create the BFDProfile, or leave bfdProfile out"
        ]
    );
}
