//! The wire codec: any octets as a stream of messages, and as the body of an UPDATE.
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use bytes::BytesMut;
use ferrocast_bgp_proto::{
    Families, Family,
    tools::Update,
    wire::{
        AttributeBlock, Capability, Context, DecodeError, ExtendedCommunity, GracefulRestart, HEADER_LEN, Kind,
        LargeCommunity, MESSAGE_LEN_MAX, Message, NextHop, Notification, Open, PathAttributes, ReachPacker, Role,
        RouteRefresh, WithdrawPacker, end_of_rib, inspect,
    },
};
use ipnet::IpNet;

/// Runs the target.
pub fn run(octets: &[u8]) {
    stream(octets);
    body(octets);
}

/// Messages one after the other, as they come from TCP.
fn stream(mut octets: &[u8]) {
    loop {
        match Message::decode(octets) {
            Ok(Some((message, used))) => {
                assert!((HEADER_LEN..=octets.len().min(MESSAGE_LEN_MAX)).contains(&used), "{used} octets used");
                assert!(Kind::ALL.contains(&message.kind()));
                encoded_again(&message);
                if let Message::Update(update) = message {
                    assert_eq!(update.len(), used - HEADER_LEN);
                    body(update);
                }
                octets = &octets[used..];
            }
            Ok(None) => {
                assert!(octets.len() < MESSAGE_LEN_MAX, "a whole message never needs more octets");
                return;
            }
            Err(error) => return refused(error),
        }
    }
}

/// What was decoded is encoded, and decodes to the same.
fn encoded_again(message: &Message<'_>) {
    let mut again = BytesMut::new();
    message.encode(&mut again);
    assert_eq!(Message::decode(&again), Ok(Some((message.clone(), again.len()))));
}

/// A refusal can be told to the peer.
fn refused(error: DecodeError) {
    let notification = error.notification();
    assert!((1..=3).contains(&notification.code), "{error}: {notification}");
    assert_ne!(notification.name(), "unknown error code");
    assert!(!error.to_string().is_empty());
    encoded_again(&Message::Notification(notification));
}

/// The body of an UPDATE.
fn body(octets: &[u8]) {
    for as4 in [false, true] {
        for internal in [false, true] {
            if let Err(error) = inspect(octets, &Context { as4, internal }) {
                refused(error);
            }
        }
        let Ok(update) = Update::decode(octets, as4) else { continue };
        // What a tool can read keeps a speaker's session.
        assert!(inspect(octets, &Context { as4, internal: true }).is_ok());
        for family in Family::ALL {
            announced_again(&update, family, as4);
            withdrawn_again(&update, family, as4);
        }
    }
}

/// Prefixes of one family, each once.
fn of_family(prefixes: &[IpNet], family: Family) -> BTreeSet<IpNet> {
    prefixes.iter().copied().filter(|prefix| Family::of_prefix(prefix) == family).collect()
}

fn all(mut octets: &[u8], as4: bool) -> Vec<Update> {
    let mut updates = vec![];
    while let Ok(Some((Message::Update(body), used))) = Message::decode(octets) {
        updates.push(Update::decode(body, as4).expect("what we encode can be read"));
        octets = &octets[used..];
    }
    assert!(octets.is_empty());
    updates
}

fn sorted<T: Ord + Clone>(all: &[T]) -> Vec<T> {
    all.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Is it one that may stand in NEXT_HOP? MP_REACH_NLRI takes any.
fn can_be_sent(next_hop: NextHop) -> bool {
    !matches!(next_hop, NextHop::V4(ip) if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast())
}

fn announced_again(update: &Update, family: Family, as4: bool) {
    let prefixes = of_family(&update.reach, family);
    let Some(next_hop) = update.next_hops[family.index()].filter(|next_hop| can_be_sent(*next_hop)) else { return };
    if prefixes.is_empty() {
        return;
    }
    let Ok(block) = AttributeBlock::new(family, &update.attributes, next_hop, as4) else { return };
    let (mut packer, mut out) = (ReachPacker::new(Arc::new(block)), BytesMut::new());
    for prefix in &prefixes {
        packer.push(prefix, &mut out);
    }
    packer.flush(&mut out);
    let want = PathAttributes {
        communities: sorted(&update.attributes.communities),
        extended_communities: sorted(&update.attributes.extended_communities),
        large_communities: sorted(&update.attributes.large_communities),
        ..update.attributes.clone()
    };
    let mut got = BTreeSet::new();
    for again in all(&out, as4) {
        assert_eq!(again.attributes, want);
        assert_eq!(again.next_hops[family.index()], Some(next_hop));
        got.extend(again.reach);
    }
    assert_eq!(got, prefixes);
}

fn withdrawn_again(update: &Update, family: Family, as4: bool) {
    let prefixes = of_family(&update.withdrawn, family);
    for mut packer in [WithdrawPacker::new(family), WithdrawPacker::multi_protocol(family)] {
        let mut out = BytesMut::new();
        for prefix in &prefixes {
            packer.push(prefix, &mut out);
        }
        packer.flush(&mut out);
        let got: BTreeSet<_> = all(&out, as4).into_iter().flat_map(|again| again.withdrawn).collect();
        assert_eq!(got, prefixes);
    }
}

/// Every kind of message as we send it, UPDATEs without their header, and some that are broken.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = vec![];
    for (name, message) in messages() {
        let mut octets = BytesMut::new();
        message.encode(&mut octets);
        seeds.push((name.to_owned(), octets.to_vec()));
    }
    let mut stream = vec![];
    for (name, octets) in updates() {
        stream.extend_from_slice(&octets);
        seeds.push((format!("body-{name}"), octets[HEADER_LEN..].to_vec()));
        seeds.push((format!("update-{name}"), octets));
    }
    seeds.push(("stream".to_owned(), stream));
    for (name, body) in BROKEN {
        seeds.push((format!("broken-{name}"), body.to_vec()));
    }
    seeds
}

/// Bodies with a fault that RFC 7606 names.
const BROKEN: [(&str, &[u8]); 8] = [
    ("sections", &[0, 9, 0, 0]),
    ("prefix", &[0, 0, 0, 14, 0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 1, 2, 3, 4, 33, 1, 2, 3, 4, 5]),
    ("origin", &[0, 0, 0, 14, 0x40, 1, 1, 7, 0x40, 2, 0, 0x40, 3, 4, 1, 2, 3, 4, 8, 10]),
    ("twice", &[0, 0, 0, 18, 0x40, 1, 1, 0, 0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 1, 2, 3, 4, 8, 10]),
    ("overrun", &[0, 0, 0, 14, 0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 9, 1, 2, 3, 4, 8, 10]),
    ("segment", &[0, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 9, 1, 0, 0, 0, 1, 0x40, 3, 4, 1, 2, 3, 4, 8, 10]),
    ("mp-reach", &[0, 0, 0, 8, 0x80, 14, 5, 0, 2, 1, 16, 0]),
    ("mp-unreach-twice", &[0, 0, 0, 12, 0x80, 15, 3, 0, 2, 1, 0x80, 15, 3, 0, 2, 1]),
];

fn messages() -> Vec<(&'static str, Message<'static>)> {
    let id = Ipv4Addr::new(192, 0, 2, 1);
    let open = |capabilities| Message::Open(Open::with(70_000, 90, id, capabilities));
    let restart = GracefulRestart {
        restarting: true,
        notification: true,
        restart_time_s: 120,
        families: vec![(1, 1, true), (2, 1, true)],
    };
    let everything = vec![
        Capability::family(Family::Ipv4Unicast),
        Capability::family(Family::Ipv6Unicast),
        Capability::RouteRefresh,
        Capability::ipv4_over_ipv6(),
        Capability::Role(Role::Customer),
        Capability::GracefulRestart(restart),
        Capability::FourOctetAs(70_000),
        Capability::EnhancedRouteRefresh,
        Capability::Unknown { code: 73, value: b"node".to_vec() },
    ];
    let long = vec![Capability::Unknown { code: 239, value: vec![1; 200] }; 2];
    vec![
        ("open", Message::Open(Open::new(64_512, 90, id, Families::ALL))),
        ("open-bare", open(vec![])),
        ("open-everything", open(everything)),
        ("open-extended", open(long)),
        ("keepalive", Message::Keepalive),
        ("notification", Message::Notification(Notification::bad_peer_as())),
        ("notification-text", Message::Notification(Notification::shutdown("node drained"))),
        ("refresh", Message::RouteRefresh(RouteRefresh::new(Family::Ipv6Unicast, 0))),
        ("refresh-begin", Message::RouteRefresh(RouteRefresh::new(Family::Ipv4Unicast, RouteRefresh::BEGIN))),
        ("refresh-filter", {
            let filter = vec![1, 64, 0, 1, 0];
            Message::RouteRefresh(RouteRefresh { rest: filter, ..RouteRefresh::new(Family::Ipv4Unicast, 0) })
        }),
    ]
}

fn updates() -> Vec<(String, Vec<u8>)> {
    let v4: IpNet = "198.51.100.7/32".parse().expect("a prefix");
    let v6: IpNet = "2001:db8:5::/64".parse().expect("a prefix");
    let address: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let link = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let v4_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let v6_hop = NextHop::V6 { address, link_local: None };
    let two_hops = NextHop::V6 { address, link_local: Some(link) };
    let plain = PathAttributes { as_path: vec![64_512], ..PathAttributes::default() };
    let rich = PathAttributes {
        as_path: vec![70_000, 64_512],
        med: Some(5),
        local_pref: Some(100),
        communities: vec![64_512 << 16 | 100, 0xffff_0000],
        extended_communities: vec![ExtendedCommunity::link_bandwidth(64_512, 1e9, false)],
        large_communities: vec![LargeCommunity { global: 70_000, local1: 1, local2: 2 }],
        ..PathAttributes::default()
    };
    let mut updates = vec![];
    for (name, prefix, next_hop, attributes, as4) in [
        ("v4", v4, v4_hop, &plain, true),
        ("v4-rich", v4, v4_hop, &rich, true),
        ("v4-old", v4, v4_hop, &rich, false),
        ("v4-over-v6", v4, v6_hop, &plain, true),
        ("v4-two-hops", v4, two_hops, &rich, true),
        ("v6", v6, v6_hop, &plain, true),
        ("v6-two-hops", v6, two_hops, &rich, true),
    ] {
        let family = Family::of_prefix(&prefix);
        let block = AttributeBlock::new(family, attributes, next_hop, as4).expect("small");
        let (mut packer, mut out) = (ReachPacker::new(Arc::new(block)), BytesMut::new());
        packer.push(&prefix, &mut out);
        packer.flush(&mut out);
        updates.push((name.to_owned(), out.to_vec()));
    }
    for (name, prefix) in [("v4", v4), ("v6", v6)] {
        let family = Family::of_prefix(&prefix);
        let mut out = BytesMut::new();
        end_of_rib(family, &mut out);
        updates.push((format!("end-of-rib-{name}"), out.split().to_vec()));
        for (kind, mut packer) in [("own", WithdrawPacker::new(family)), ("mp", WithdrawPacker::multi_protocol(family))]
        {
            packer.push(&prefix, &mut out);
            packer.flush(&mut out);
            updates.push((format!("withdraw-{kind}-{name}"), out.split().to_vec()));
        }
    }
    updates
}
