//! What survives a restart.
use super::*;

/// A builder that was told what another kept, through the text that is kept.
fn restarted(builder: &Builder, config: &Config) -> Builder {
    let text = serde_json::to_string(&builder.in_force(config)).unwrap();
    assert!(!text.contains("hunter2"), "no password is written: {text}");
    let mut fresh = Builder::default();
    fresh.restore(&serde_json::from_str(&text).unwrap());
    fresh
}

/// One object of every kind, valid and in force.
fn good() -> World {
    let policy = PoolPolicySpec { strategy: some("HashedByName"), ..PoolPolicySpec::default() };
    let reservation = ReservationSpec {
        pool: "p".to_owned(),
        addresses: strings(&["10.0.0.7"]),
        namespaces: strings(&["a"]),
        ..ReservationSpec::default()
    };
    let route = RoutesSpec { med: Some(7), ..RoutesSpec::default() };
    let peer_policy = BgpPeerPolicySpec { routes: Some(route), ..BgpPeerPolicySpec::default() };
    World::new()
        .pool("p", 1, &["10.0.0.0/24"])
        .profile("fast", BfdProfileSpec { transmit_interval: Some(50), ..BfdProfileSpec::default() })
        .peer("r", 1, BgpPeerSpec { bfd_profile: some("fast"), password: some("hunter2"), ..peer() })
        .community("c", 1, &[("gold", "1:2")])
        .advert("a", 1, BgpAdvertisementSpec { communities: strings(&["gold", "3:4"]), ..advert() })
        .policy("pp", 1, peer_policy)
        .pool_policy("x", 1, policy)
        .reservation("y", 1, reservation)
}

#[test]
fn objects_that_are_invalid_keep_their_last_valid_version_over_a_restart() {
    let mut builder = Builder::default();
    let first = builder.build(&good().resources);
    assert_eq!(first.problems, []);
    let mut bad = good();
    for (kind, name) in [
        ("IPAddressPool", "p"),
        ("BGPPeerPolicy", "pp"),
        ("PoolPolicy", "x"),
        ("AddressReservation", "y"),
        ("Community", "c"),
        ("BFDProfile", "fast"),
    ] {
        bad = bad.with(kind, name, 1, None);
    }
    // The password is in the object still, whatever else is wrong there.
    let bad = bad.peer(
        "r",
        1,
        BgpPeerSpec { my_asn: Some(0), bfd_profile: some("fast"), password: some("hunter2"), ..peer() },
    );
    let bad = bad.advert("a", 1, BgpAdvertisementSpec { local_pref: Some(-1), ..advert() });
    let mut fresh = restarted(&builder, &first);
    let (want, got) = (builder.build(&bad.resources), fresh.build(&bad.resources));
    assert_eq!(got, want);
    assert_eq!((&got.pools, &got.peers, &got.advertisements), (&first.pools, &first.peers, &first.advertisements));
    assert_eq!(got.reservations, first.reservations);
    let mut again = restarted(&fresh, &got);
    assert_eq!(again.build(&bad.resources), want, "and over another");
}

#[test]
fn alias_and_profile_that_are_gone_keep_their_meaning_over_a_restart() {
    let mut builder = Builder::default();
    let first = builder.build(&good().resources);
    let gone = good().without("Community", "c").without("BFDProfile", "fast");
    let mut fresh = restarted(&builder, &first);
    let config = fresh.build(&gone.resources);
    assert_eq!(config, builder.build(&gone.resources));
    assert!(config.advertisements["a"].communities.contains(&Community::Standard(1, 2)));
    assert_eq!(config.peers["r"].bfd.as_ref().unwrap().transmit_interval, Duration::from_millis(50));
}

#[test]
fn peer_without_a_password_that_is_known_is_not_dialled() {
    let mut builder = Builder::default();
    let first = builder.build(&good().resources);
    let broken = good().with("BGPPeer", "r", 1, None);
    let config = restarted(&builder, &first).build(&broken.resources);
    let missing = config.peers["r"].password_missing.as_deref().unwrap();
    assert!(missing.contains("not kept over a restart"), "{missing}");
    let mended = restarted(&builder, &first).build(&good().resources);
    assert_eq!(mended.peers["r"].password, Some(Password("hunter2".into())));
}

#[test]
fn object_deleted_and_created_anew_has_no_past() {
    let with_uid = |world: World, uid: &'static str| world.meta("IPAddressPool", "p", |meta| meta.uid = uid.into());
    let mut builder = Builder::default();
    let first = builder.build(&with_uid(good(), "1").resources);
    let broken = |uid| with_uid(good().with("IPAddressPool", "p", 1, None), uid);
    for (uid, want) in [("1", true), ("2", false)] {
        let mut fresh = restarted(&builder, &first);
        assert_eq!(fresh.build(&broken(uid).resources).pools.contains_key("p"), want, "{uid}");
    }
    assert!(!builder.build(&broken("2").resources).pools.contains_key("p"), "without a restart as well");
}

#[test]
fn configuration_in_force_is_read_back_with_what_is_held_and_moved() {
    let mut builder = Builder::default();
    let mut first = builder.build(&good().resources);
    let labels: Labels = [("a", "b")].into_iter().collect();
    first.former.insert("10.9.0.1".parse().unwrap(), Arc::new(FormerPool { name: "gone".into(), labels }));
    first.moved.insert(("a/x".parse().unwrap(), "fc00::1".parse().unwrap()));
    let kept = builder.in_force(&first);
    let read = kept.config("metallb-system");
    assert_eq!((&read.former, &read.moved), (&first.former, &first.moved));
    assert_eq!((&read.pools, &read.advertisements), (&first.pools, &first.advertisements));
    assert_eq!(kept.version, IN_FORCE_VERSION);
    let newer = InForce { version: IN_FORCE_VERSION + 1, ..kept };
    assert_eq!(newer.config("metallb-system").former, [].into(), "another version says nothing");
    let mut fresh = Builder::default();
    fresh.restore(&newer);
    assert!(fresh.build(&good().with("IPAddressPool", "p", 1, None).resources).pools.is_empty());
}

#[test]
fn kept_objects_are_read_when_fields_are_unknown_or_missing() {
    let text = r#"{"version":1,"later":7,"objects":[{"name":"p","spec":{"IPAddressPool":{"addresses":["10.0.0.0/24"],"new":1}}}]}"#;
    let kept: InForce = serde_json::from_str(text).unwrap();
    assert_eq!(ranges(&kept.config("metallb-system"), "p"), ["10.0.0.0-10.0.0.255"]);
}
