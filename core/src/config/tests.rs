//! Tests of validation: what is refused and in which words, and what stays in force.
use std::sync::Arc;

use super::*;
use crate::model::ObjectKey;

mod announcers;
mod bfd;
mod conflicts;
mod losses;
mod policies;
mod pools;
mod refused;
mod restart;
mod rules;
mod surroundings;

/// A configuration namespace under construction.
#[derive(Clone, Default)]
struct World {
    resources: Resources,
}

impl World {
    fn new() -> Self {
        Self { resources: Resources { namespace: "metallb-system".into(), ..Resources::default() } }
    }

    fn with(mut self, kind: &'static str, name: &str, created_s: i64, spec: Option<Spec>) -> Self {
        let key = ObjectKey { kind, name: name.into() };
        let labels = [("name", name)].into_iter().collect();
        let meta = Meta { key: key.clone(), created_s, labels, ..Meta::default() };
        self.resources.objects.insert(key, Arc::new(Resource { meta, spec, ..Resource::default() }));
        self
    }

    fn without(mut self, kind: &'static str, name: &str) -> Self {
        self.resources.objects.remove(&ObjectKey { kind, name: name.into() });
        self
    }

    fn pool(self, name: &str, created_s: i64, addresses: &[&str]) -> Self {
        self.with("IPAddressPool", name, created_s, Some(Spec::Pool(pool(addresses))))
    }

    fn peer(self, name: &str, created_s: i64, spec: BgpPeerSpec) -> Self {
        self.with("BGPPeer", name, created_s, Some(Spec::Peer(spec)))
    }

    fn advert(self, name: &str, created_s: i64, spec: BgpAdvertisementSpec) -> Self {
        self.with("BGPAdvertisement", name, created_s, Some(Spec::BgpAdvertisement(spec)))
    }

    fn community(self, name: &str, created_s: i64, aliases: &[(&str, &str)]) -> Self {
        let communities = aliases.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.with("Community", name, created_s, Some(Spec::Community(CommunitySpec { communities })))
    }

    fn pool_policy(self, name: &str, created_s: i64, spec: PoolPolicySpec) -> Self {
        self.with("PoolPolicy", name, created_s, Some(Spec::PoolPolicy(spec)))
    }

    fn reservation(self, name: &str, created_s: i64, spec: ReservationSpec) -> Self {
        self.with("AddressReservation", name, created_s, Some(Spec::Reservation(spec)))
    }

    fn class(self, name: &str, created_s: i64, spec: AnnouncerClassSpec) -> Self {
        self.with("AnnouncerClass", name, created_s, Some(Spec::AnnouncerClass(spec)))
    }

    fn advertisement(self, name: &str, created_s: i64, spec: AdvertisementSpec) -> Self {
        self.with("Advertisement", name, created_s, Some(Spec::Advertisement(spec)))
    }

    /// Changes the metadata of an object that is there.
    fn meta(mut self, kind: &'static str, name: &str, change: impl Fn(&mut Meta)) -> Self {
        let key = ObjectKey { kind, name: name.into() };
        let mut object = (*self.resources.objects[&key]).clone();
        change(&mut object.meta);
        self.resources.objects.insert(key, Arc::new(object));
        self
    }

    fn policy(self, name: &str, created_s: i64, spec: BgpPeerPolicySpec) -> Self {
        self.with("BGPPeerPolicy", name, created_s, Some(Spec::PeerPolicy(spec)))
    }

    fn profile(self, name: &str, spec: BfdProfileSpec) -> Self {
        self.with("BFDProfile", name, 0, Some(Spec::BfdProfile(spec)))
    }

    fn password(mut self, secret: &str, password: Result<&str, &str>) -> Self {
        let password = password.map(|p| Password(p.into())).map_err(str::to_owned);
        self.resources.passwords.insert(secret.into(), password);
        self
    }

    fn build(&self) -> Config {
        build(&self.resources)
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|s| (*s).to_owned()).collect()
}

fn pool(addresses: &[&str]) -> PoolSpec {
    PoolSpec { addresses: strings(addresses), ..PoolSpec::default() }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A valid external peer.
fn peer() -> BgpPeerSpec {
    let (my_asn, peer_asn, peer_address) = (Some(64_512), Some(64_513), some("192.0.2.1"));
    BgpPeerSpec { my_asn, peer_asn, peer_address, ..BgpPeerSpec::default() }
}

fn advert() -> BgpAdvertisementSpec {
    BgpAdvertisementSpec::default()
}

fn selector(key: &str, value: &str) -> RawSelector {
    RawSelector { match_labels: [(key.to_owned(), value.to_owned())].into(), ..RawSelector::default() }
}

fn expression(key: &str, operator: &str, values: &[&str]) -> RawSelector {
    RawSelector {
        match_expressions: vec![(key.to_owned(), operator.to_owned(), strings(values))],
        ..RawSelector::default()
    }
}

fn ranges(config: &Config, pool: &str) -> Vec<String> {
    config.pools[pool].ranges.iter().map(ToString::to_string).collect()
}

#[test]
fn pool_entries_become_ranges_with_host_bits_masked_and_spaces_allowed() {
    let entries = ["192.0.2.77/24", " 10.0.0.5 - 10.0.0.9 ", "fc00::1/126", "10.0.0.1-10.0.0.1", "0.0.0.0/8"];
    let config = World::new().pool("p", 0, &entries).build();
    assert_eq!(config.problems, []);
    assert!(!config.stale);
    let want =
        ["192.0.2.0-192.0.2.255", "10.0.0.5-10.0.0.9", "fc00::-fc00::3", "10.0.0.1-10.0.0.1", "0.0.0.0-0.255.255.255"];
    assert_eq!(ranges(&config, "p"), want);
    let pool = &config.pools["p"];
    assert!(pool.auto_assign && !pool.avoid_buggy_ips && pool.allocation.is_none());
    assert_eq!(config.pool_of("10.0.0.9".parse().unwrap()), Some(pool));
    for outside in ["10.0.0.10", "10.0.0.4", "192.0.3.0", "fc00::4", "::ffff:10.0.0.9"] {
        assert_eq!(config.pool_of(outside.parse().unwrap()), None, "{outside}");
    }
    let by_hand = Config { pools: config.pools.clone(), ..Config::default() };
    assert_eq!(by_hand.pool_of("10.0.0.9".parse().unwrap()), Some(pool), "without index as well");
}

#[test]
fn peer_timers_get_their_defaults() {
    for (hold, keepalive, want) in [
        (None, None, (90, 30)),
        (Some("30s"), None, (30, 10)),
        (None, Some("20s"), (60, 20)),
        (Some("9s"), Some("9s"), (9, 9)),
        (Some("1m30.9s"), Some("5.5s"), (90, 5)),
        (Some("0"), None, (0, 0)),
        (Some("0s"), Some("0s"), (0, 0)),
        (None, Some("0s"), (0, 0)),
        (Some("65535s"), None, (65535, 21845)),
    ] {
        let spec =
            BgpPeerSpec { hold_time: hold.map(str::to_owned), keepalive_time: keepalive.map(str::to_owned), ..peer() };
        let config = World::new().peer("r", 0, spec).build();
        assert_eq!(config.problems, [], "{hold:?} {keepalive:?}");
        let peer = &config.peers["r"];
        let keepalive_ms = u64::try_from(peer.keepalive_time.as_millis()).unwrap();
        assert_eq!((peer.hold_time.as_secs(), keepalive_ms / 1000), want, "{hold:?} {keepalive:?}");
    }
}

#[test]
fn peer_is_read_field_by_field() {
    let spec = BgpPeerSpec {
        my_asn: Some(4_294_967_295),
        local_asn: Some(65_000),
        dynamic_asn: some("external"),
        peer_asn: None,
        source_address: some("192.0.2.9"),
        peer_port: Some(1790),
        connect_time: some("10s"),
        router_id: some("10.0.0.1"),
        node_selectors: vec![selector("rack", "a")],
        password: some("secret"),
        bfd_profile: some("fast"),
        enable_graceful_restart: Some(true),
        ebgp_multi_hop: Some(true),
        vrf: some("red"),
        dual_stack_address_family: Some(true),
        ..peer()
    };
    let config = World::new().peer("r", 0, spec).profile("fast", BfdProfileSpec::default()).build();
    assert_eq!(config.problems, []);
    let peer = &config.peers["r"];
    assert_eq!((peer.my_asn, peer.local_asn, peer.peer_asn), (u32::MAX, Some(65_000), PeerAs::External));
    assert_eq!(peer.endpoint, PeerEndpoint::Address("192.0.2.1".parse().unwrap()));
    assert_eq!((peer.source_address, peer.port), (Some("192.0.2.9".parse().unwrap()), 1790));
    assert_eq!(peer.connect_time, Some(Duration::from_secs(10)));
    assert_eq!(peer.router_id, Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(peer.password, Some(Password("secret".into())));
    assert_eq!((peer.bfd.as_ref().map(|b| &*b.name), peer.vrf.as_deref()), (Some("fast"), Some("red")));
    assert!(peer.graceful_restart && peer.ebgp_multi_hop && peer.dual_stack);
    assert_eq!(peer.node_selectors.len(), 1);
}

#[test]
fn port_0_of_the_old_version_is_the_default() {
    let config = World::new().peer("r", 0, BgpPeerSpec { peer_port: Some(0), ..peer() }).build();
    assert_eq!((config.peers["r"].port, config.problems.len()), (179, 0));
}

#[test]
fn communities_are_read_as_values_aliases_and_well_known_names() {
    let spec = BgpAdvertisementSpec {
        communities: strings(&["65000:1", "large:1:2:4294967295", "mine", "no-export", "blackhole", "big"]),
        ..advert()
    };
    let world = World::new()
        .community("c", 0, &[("mine", "64512:7"), ("blackhole", "64512:666"), ("big", "large:9:9:9")])
        .advert("a", 0, spec);
    let config = world.build();
    assert_eq!(config.problems, []);
    let want = [
        Community::Standard(65000, 1),
        Community::Large(1, 2, u32::MAX),
        Community::Standard(64512, 7),
        Community::Standard(65535, 65281),
        Community::Standard(64512, 666),
        Community::Large(9, 9, 9),
    ];
    assert_eq!(config.advertisements["a"].communities, want.into());
}

#[test]
fn secrets_never_show_in_problems() {
    let long = "hunter2".repeat(20);
    let spec = BgpPeerSpec { password: Some(long.clone()), ..peer() };
    let secret = SecretRef { name: "s".to_owned(), ..SecretRef::default() };
    let by_secret = BgpPeerSpec { password_secret: Some(secret), ..peer() };
    let config = World::new().peer("r", 0, spec).peer("s", 0, by_secret).password("s", Ok(&long)).build();
    assert_eq!(config.problems.iter().filter(|p| p.message.contains("140 octets")).count(), 2);
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn peer_stays_in_force_undialled_when_its_secret_is_missing() {
    let secret = SecretRef { name: "s".to_owned(), namespace: "metallb-system".to_owned() };
    let world = World::new().peer("r", 0, BgpPeerSpec { password_secret: Some(secret), ..peer() });
    for (world, want) in [
        (world.clone(), "does not exist"),
        (world.clone().password("s", Err("Secret \"s\" is not of type kubernetes.io/basic-auth")), "basic-auth"),
        (world.clone().password("s", Ok("")), "empty"),
    ] {
        let config = world.build();
        assert!(config.peers["r"].password_missing.as_ref().unwrap().contains(want), "{config:?}");
        assert_eq!(config.problems[0].field, "spec.passwordSecret.name");
        assert!(config.problems[0].message.contains(want) && config.stale);
    }
    let config = world.password("s", Ok("x")).build();
    assert_eq!((config.problems.len(), config.peers["r"].password.is_some()), (0, true));
    assert_eq!(config.peers["r"].password_missing, None);
}

#[test]
fn password_stays_in_use_when_its_secret_vanishes_or_breaks() {
    let named = |name: &str| {
        let secret = SecretRef { name: name.to_owned(), namespace: String::new() };
        World::new().peer("r", 0, BgpPeerSpec { password_secret: Some(secret), ..peer() })
    };
    let mut builder = Builder::default();
    let mut password = |world: World| {
        let config = builder.build(&world.resources);
        (config.peers["r"].password.as_ref().map(|p| p.0.to_string()), config.stale)
    };
    assert_eq!(password(named("s")), (None, true));
    assert_eq!(password(named("s").password("s", Ok("x"))), (some("x"), false));
    assert_eq!(password(named("s")), (some("x"), true));
    assert_eq!(password(named("s").password("s", Ok(""))), (some("x"), true));
    assert_eq!(password(named("s").password("s", Ok("y"))), (some("y"), false));
    assert_eq!(password(named("other")), (None, true)); // another Secret's password is another's
    assert_eq!(password(named("s")), (None, true));
}

#[test]
fn largest_block_of_a_range_decides_about_aggregation() {
    for (first, last, want) in [
        ("10.0.0.0", "10.0.0.255", 24),
        ("10.0.0.0", "10.0.0.199", 25),
        ("10.0.0.1", "10.0.0.254", 26),
        ("10.0.0.7", "10.0.0.7", 32),
        ("10.0.0.7", "10.0.0.8", 32),
        ("0.0.0.0", "255.255.255.255", 0),
        ("0.0.0.1", "255.255.255.255", 1),
        ("255.255.255.254", "255.255.255.255", 31),
        ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0),
        ("fc00::", "fc00::ffff", 112),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 128),
    ] {
        let range = IpRange { first: first.parse().unwrap(), last: last.parse().unwrap() };
        assert_eq!(super::advert::shortest_prefix(range), want, "{range}");
    }
}
