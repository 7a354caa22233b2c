//! Whatever comes, the codec reads back what it wrote and the state machine keeps its promises.
#![expect(clippy::disallowed_methods, reason = "tests own the clock")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use ferrocast_bgp_proto::{
    Families, Family,
    fsm::{Action, Config, Event, Mode, Moment, PeerAs, Session, State},
    tools,
    wire::{
        AttributeBlock, Capability, Context, DecodeError, Disposition, ExtendedCommunity, Kind, LargeCommunity,
        MESSAGE_LEN_MAX, Message, Notification, Open, Origin, PathAttributes, ReachPacker, RouteRefresh,
        WithdrawPacker, inspect,
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::{collection::vec, option, prelude::*};

fn any_capability() -> impl Strategy<Value = Capability> {
    prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| Capability::MultiProtocol(afi, safi)),
        Just(Capability::RouteRefresh),
        (1..=u32::MAX).prop_map(Capability::FourOctetAs),
        (128..=255_u8, vec(any::<u8>(), 0..80)).prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
}

fn any_open() -> impl Strategy<Value = Open> {
    let hold_time = prop_oneof![Just(0), 3..=u16::MAX];
    (1..=u16::MAX, hold_time, 1..=u32::MAX, vec(any_capability(), 0..12)).prop_map(
        |(as2, hold_time_s, id, capabilities)| Open { as2, hold_time_s, id: Ipv4Addr::from_bits(id), capabilities },
    )
}

fn any_message() -> impl Strategy<Value = Message<'static>> {
    prop_oneof![
        any_open().prop_map(Message::Open),
        Just(Message::Keepalive),
        (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..300))
            .prop_map(|(code, subcode, data)| Message::Notification(Notification { code, subcode, data })),
        (any::<u16>(), any::<u8>(), any::<u8>()).prop_map(|(afi, subtype, safi)| Message::RouteRefresh(RouteRefresh {
            afi,
            subtype,
            safi,
            rest: vec![]
        })),
        Just(Message::Update(&[0, 0, 0, 0])),
    ]
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, len)| IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(bits), len).unwrap()).trunc()),
        (any::<u128>(), 0..=128_u8)
            .prop_map(|(bits, len)| IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(bits), len).unwrap()).trunc()),
    ]
}

fn any_attributes() -> impl Strategy<Value = PathAttributes> {
    let large = (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(global, local1, local2)| LargeCommunity {
        global,
        local1,
        local2,
    });
    (
        prop_oneof![9 => vec(1..=u32::MAX, 0..6), 1 => vec(1..=u32::MAX, 250..300)],
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        vec(any::<u32>(), 0..100),
        vec(any::<[u8; 8]>().prop_map(ExtendedCommunity), 0..30),
        vec(large, 0..30),
    )
        .prop_map(|(as_path, med, local_pref, communities, extended_communities, large_communities)| {
            PathAttributes {
                origin: Origin::Igp,
                as_path,
                med,
                local_pref,
                communities,
                extended_communities,
                large_communities,
            }
        })
}

fn sorted<T: Ord + Clone>(all: &[T]) -> Vec<T> {
    all.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Splits octets into UPDATE bodies and checks that a speaker would find no fault with them.
fn updates(mut octets: &[u8], as4: bool) -> Vec<tools::Update> {
    let mut all = vec![];
    while let Some((message, len)) = Message::decode(octets).unwrap() {
        assert!(len <= MESSAGE_LEN_MAX);
        let Message::Update(body) = message else { panic!("{message:?}") };
        assert_eq!(inspect(body, &Context { as4, internal: true }), Ok(Disposition::Valid));
        all.push(tools::Update::decode(body, as4).unwrap());
        octets = &octets[len..];
    }
    assert!(octets.is_empty());
    all
}

proptest! {
    #[test]
    fn decode_inverts_encode(message in any_message(), tail in vec(Just(0xff_u8), 0..16)) {
        let mut octets = BytesMut::new();
        message.encode(&mut octets);
        let len = octets.len();
        octets.extend_from_slice(&tail);
        prop_assert_eq!(Message::decode(&octets), Ok(Some((message, len))));
    }

    #[test]
    fn packed_routes_are_read_back(
        attributes in any_attributes(), prefixes in vec(any_prefix(), 0..1_500), as4: bool, v4 in 1..0xe000_0000_u32, v6: u128,
    ) {
        for family in Family::ALL {
            let next_hop = match family {
                Family::Ipv4Unicast => IpAddr::V4(Ipv4Addr::from_bits(v4)),
                Family::Ipv6Unicast => IpAddr::V6(Ipv6Addr::from_bits(v6)),
            };
            let of_family: Vec<_> = prefixes.iter().copied().filter(|p| Family::of_prefix(p) == family).collect();
            let block = Arc::new(AttributeBlock::new(family, &attributes, next_hop.into(), as4).unwrap());
            let (mut reach, mut withdraw) = (ReachPacker::new(block), WithdrawPacker::new(family));
            let (mut announced, mut withdrawn) = (BytesMut::new(), BytesMut::new());
            for prefix in &of_family {
                reach.push(prefix, &mut announced);
                withdraw.push(prefix, &mut withdrawn);
            }
            reach.flush(&mut announced);
            withdraw.flush(&mut withdrawn);

            let announced = updates(&announced, as4);
            prop_assert_eq!(announced.iter().flat_map(|u| u.reach.clone()).collect::<Vec<_>>(), of_family.clone());
            for update in &announced {
                prop_assert_eq!(update.next_hop(&update.reach[0]), Some(next_hop));
                let got = &update.attributes;
                prop_assert_eq!(&got.as_path, &attributes.as_path);
                prop_assert_eq!((got.origin, got.med, got.local_pref), (Origin::Igp, attributes.med, attributes.local_pref));
                prop_assert_eq!(&got.communities, &sorted(&attributes.communities));
                prop_assert_eq!(&got.extended_communities, &sorted(&attributes.extended_communities));
                prop_assert_eq!(&got.large_communities, &sorted(&attributes.large_communities));
            }
            let withdrawn = updates(&withdrawn, as4);
            prop_assert_eq!(withdrawn.iter().flat_map(|u| u.withdrawn.clone()).collect::<Vec<_>>(), of_family);
        }
    }

    #[test]
    fn arbitrary_octets_never_panic(octets in vec(any::<u8>(), 0..200), as4: bool) {
        for internal in [false, true] {
            let disposition = inspect(&octets, &Context { as4, internal });
            prop_assert!(disposition.is_err() || disposition.is_ok_and(|d| !d.label().is_empty()));
        }
        drop(tools::Update::decode(&octets, as4));
        if let Ok(Some((_, len))) = Message::decode(&octets) {
            prop_assert!(len <= octets.len());
        }
    }

    #[test]
    fn arbitrary_bodies_never_panic(kind in 0..7_u8, body in vec(any::<u8>(), 0..300)) {
        let mut octets = vec![0xff; 16];
        octets.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
        octets.push(kind);
        octets.extend(&body);
        match Message::decode(&octets) {
            Ok(Some((message, len))) => {
                prop_assert_eq!(len, octets.len());
                prop_assert!(!message.kind().eq(&Kind::Keepalive) || body.is_empty());
            }
            Ok(None) => prop_assert!(false, "a whole message was there"),
            Err(error) => prop_assert!(error.notification().code <= 3),
        }
    }

    /// What a speaker makes of an UPDATE is never stricter than what a tool makes of it.
    #[test]
    fn what_a_tool_can_read_keeps_the_session(octets in vec(0..40_u8, 4..60), as4: bool) {
        if tools::Update::decode(&octets, as4).is_ok() {
            let disposition = inspect(&octets, &Context { as4, internal: true });
            prop_assert!(matches!(disposition, Ok(Disposition::Valid | Disposition::AttributeDiscard)));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Start,
    Stop,
    Connected,
    ConnectFailed,
    Closed,
    SendHold,
    Malformed,
    Receive(Message<'static>),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    // Messages of a well-behaved peer are frequent, so that deep states are reached.
    let good = Open::new(2, 90, Ipv4Addr::new(2, 2, 2, 2), Families::ALL);
    prop_oneof![
        2 => Just(Step::Start),
        1 => Just(Step::Stop),
        6 => Just(Step::Connected),
        1 => Just(Step::ConnectFailed),
        1 => Just(Step::Closed),
        1 => Just(Step::SendHold),
        1 => Just(Step::Malformed),
        6 => Just(Step::Receive(Message::Open(good))),
        8 => Just(Step::Receive(Message::Keepalive)),
        4 => any_message().prop_map(Step::Receive),
        6 => (0..40_000_u64).prop_map(Step::Wait),
    ]
}

/// Follows the actions as a driver would and checks the machine's promises.
#[derive(Default)]
struct Driver {
    up: bool,
    dialling: bool,
}

impl Driver {
    fn follow(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Dial => {
                    assert!(!self.up && !self.dialling, "one connection at a time");
                    self.dialling = true;
                }
                Action::Send(message) => assert_ne!(message.kind(), Kind::Update, "UPDATEs are the driver's"),
                Action::Close | Action::Abort => self.dialling = false,
                Action::Up(_) => assert!(!std::mem::replace(&mut self.up, true), "up twice"),
                Action::Down(_) => self.up = false,
                Action::Resend(_) => assert!(self.up, "routes outside Established"),
            }
        }
    }
}

proptest! {
    #[test]
    fn state_machine_keeps_its_promises(
        steps in vec(any_step(), 0..200), random: u32, passive: bool, hold_time in prop_oneof![Just(0_u64), 3..200_u64],
    ) {
        let mut session = Session::new(Config {
            hold_time: Duration::from_secs(hold_time),
            keepalive_time: Duration::from_secs(hold_time / 3),
            ..Config::new(if passive { Mode::Passive } else { Mode::Active }, 1, PeerAs::Exactly(2))
        });
        let mut at = Moment { now: Instant::now(), random };
        let mut driver = Driver::default();
        for step in steps {
            let event = match step {
                Step::Start => Event::Start,
                Step::Stop => Event::Stop(Notification::deconfigured()),
                Step::Connected => Event::Connected { id: Ipv4Addr::new(1, 1, 1, 1) },
                Step::ConnectFailed => Event::ConnectFailed,
                Step::Closed => Event::Closed,
                Step::SendHold => Event::SendHoldExpired,
                Step::Malformed => Event::Malformed(DecodeError::NotSynchronized),
                Step::Receive(message) => Event::Received(message),
                Step::Wait(ms) => {
                    at.now += Duration::from_millis(ms);
                    Event::Tick
                }
            };
            if matches!(event, Event::Connected { .. }) {
                driver.dialling = false;
            }
            let mut actions = vec![];
            session.handle(event, at, &mut actions);
            driver.follow(&actions);
            prop_assert_eq!(driver.up, session.state() == State::Established);
            // time stands still: a tick at the deadline moves the deadline, or there is none
            actions.clear();
            session.handle(Event::Tick, at, &mut actions);
            driver.follow(&actions);
            prop_assert!(session.next_deadline().is_none_or(|deadline| deadline > at.now));
        }
    }
}
