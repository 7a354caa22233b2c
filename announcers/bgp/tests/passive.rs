//! Peers that dial us, and connections that meet half way, over loopback TCP.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod common;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use common::*;
use ferrocast_bgp::{TcpDial, Tuning};
use ferrocast_bgp_proto::{
    Families,
    wire::{Capability, GracefulRestart, Kind, Message, Open},
};
use ferrocast_core::config::{Password, Peer, SessionPolicy};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A port that nothing listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn listening(port: u16) -> Tuning {
    Tuning { listen_port: port, ..quick() }
}

/// A peer at `address` that is expected to dial.
fn passive(address: [u8; 4]) -> Peer {
    let session = SessionPolicy { passive: true, ..SessionPolicy::default() };
    Peer { session, ..peer("p", (address, 179).into()) }
}

/// Dials the announcer from an address of ours, once it listens.
async fn dial(from: [u8; 4], port: u16) -> TcpStream {
    let to: SocketAddr = ([127, 0, 0, 1], port).into();
    for _ in 0..500 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((from, 0).into()).unwrap();
        if let Ok(stream) = socket.connect(to).await {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody listens on {to}");
}

fn with_id(id: [u8; 4]) -> Open {
    Open { id: Ipv4Addr::from(id), ..open(90, Families::ALL) }
}

#[tokio::test]
async fn passive_peer_is_awaited_and_strangers_are_turned_away() {
    let port = free_port();
    let node = Node::start_with([passive([127, 0, 0, 2])], listening(port), Arc::new(TcpDial));
    node.apply(&desired(1, [v4(1)])).await;
    let mut stranger = Puppet::new(dial([127, 0, 0, 3], port).await);
    assert_eq!(stranger.next().await, None, "not a word");
    for _ in 0..2 {
        let mut puppet = Puppet::new(dial([127, 0, 0, 2], port).await);
        puppet.establish(with_id([192, 0, 2, 1])).await;
        assert_eq!(puppet.update().await.reach, [v4(1)]);
        drop(puppet);
        node.observed("p", |o| !o.up).await;
        tokio::time::sleep(quick().retry.delay_max).await; // nobody is let in during the pause after a failure
    }
}

#[tokio::test]
async fn ten_thousand_connections_of_strangers_and_of_the_peer_cost_nothing() {
    let port = free_port();
    let node = Node::start_with([passive([127, 0, 0, 2])], listening(port), Arc::new(TcpDial));
    node.apply(&desired(1, [v4(1)])).await;
    let mut puppet = Puppet::new(dial([127, 0, 0, 2], port).await);
    puppet.establish(with_id([192, 0, 2, 1])).await;
    node.observed("p", |o| o.up).await;
    for i in 0..10_000_u32 {
        let from = if i % 2 == 0 { [127, 0, 0, 2] } else { [127, 0, 0, 3] };
        drop(dial(from, port).await);
    }
    node.apply(&desired(2, [v4(1), v4(2)])).await;
    while puppet.update().await.reach != [v4(2)] {}
    assert_eq!(node.announcer.session(&"p".into()).unwrap().counts().flaps, 0);
}

/// Both sides dial: which connection stays?
async fn collide(router_id: [u8; 4]) -> &'static str {
    let port = free_port();
    let router = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let active = Peer { router_id: Some(Ipv4Addr::new(10, 0, 0, 5)), ..peer("p", router.local_addr().unwrap()) };
    // a passive one beside it has the announcer listen at all
    let other = Peer { name: "q".into(), ..passive([127, 0, 0, 9]) };
    let node = Node::start_with([active, other], listening(port), Arc::new(TcpDial));
    node.apply(&desired(1, [v4(1)])).await;
    let mut ours = Puppet::new(router.accept().await.unwrap().0);
    let octets = ours.next().await.unwrap();
    assert!(matches!(Message::decode(&octets), Ok(Some((Message::Open(_), _)))));
    let mut theirs = Puppet::new(dial([127, 0, 0, 2], port).await);
    for puppet in [&mut ours, &mut theirs] {
        puppet.send(&Message::Open(with_id(router_id))).await;
    }
    for puppet in [&mut ours, &mut theirs] {
        use tokio::io::AsyncWriteExt as _;
        let mut octets = bytes::BytesMut::new();
        Message::Keepalive.encode(&mut octets);
        puppet.stream.write_all(&octets).await.ok(); // the loser may be closed already
    }
    node.observed("p", |o| o.up).await;
    assert_eq!(node.announcer.session(&"p".into()).unwrap().counts().flaps, 0);
    let (loser, name) = if router_id > [10, 0, 0, 5] { (&mut ours, "theirs") } else { (&mut theirs, "ours") };
    let notification = loser.notification().await.expect("told why");
    assert_eq!((notification.code, notification.subcode), (6, 7), "{notification}");
    name
}

#[tokio::test]
async fn of_two_connections_that_of_the_higher_identifier_stays() {
    assert_eq!(collide([10, 0, 0, 4]).await, "ours");
    assert_eq!(collide([10, 0, 0, 6]).await, "theirs");
}

#[tokio::test]
async fn second_connection_ends_the_first_only_if_the_peer_restarts_gracefully() {
    for graceful in [false, true] {
        let port = free_port();
        let asked = Peer { graceful_restart: true, ..passive([127, 0, 0, 2]) };
        let node = Node::start_with([asked], listening(port), Arc::new(TcpDial));
        node.apply(&desired(1, [v4(1)])).await;
        let mut router = with_id([192, 0, 2, 1]);
        router.capabilities.extend(graceful.then(|| Capability::GracefulRestart(GracefulRestart::default())));
        let mut first = Puppet::new(dial([127, 0, 0, 2], port).await);
        first.establish(router.clone()).await;
        node.observed("p", |o| o.up).await;
        let mut second = Puppet::new(dial([127, 0, 0, 2], port).await);
        if graceful {
            second.establish(router).await;
            assert_eq!(second.update().await.reach, [v4(1)]);
            assert_eq!(first.notification().await, None, "it is dead: nothing is said to it");
        } else {
            let notification = second.notification().await.expect("told why");
            assert_eq!((notification.code, notification.subcode), (6, 7));
        }
    }
}

#[tokio::test]
async fn password_changes_on_both_sides_without_losing_the_session() {
    let port = free_port();
    let with_key = |mut peer: Peer, key: &str| {
        peer.password = Some(Password(key.into()));
        (peer.hold_time, peer.keepalive_time) = (Duration::from_secs(6), Duration::from_secs(1));
        peer
    };
    let listens = |key: &str| {
        peer_set([with_key(
            Peer { my_asn: ROUTER_AS, peer_asn: ferrocast_core::config::PeerAs::Number(AS), ..passive([127, 0, 0, 1]) },
            key,
        )])
    };
    let dials = |key: &str| peer_set([with_key(peer("p", ([127, 0, 0, 1], port).into()), key)]);
    let router = Node::start_with([], listening(port), Arc::new(TcpDial));
    router.peers.send_replace(listens("one"));
    router.apply(&desired(1, [])).await;
    let node = Node::start([]);
    node.peers.send_replace(dials("one"));
    node.apply(&desired(1, [v4(1)])).await;
    node.observed("p", |o| o.up).await;
    for key in ["two", "three"] {
        router.peers.send_replace(listens(key));
        node.peers.send_replace(dials(key));
        let heard = || node.announcer.session(&"p".into()).unwrap().counts().received[Kind::Keepalive.index()];
        let before = heard();
        while heard() < before + 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let counts = node.announcer.session(&"p".into()).unwrap().counts();
    assert_eq!((counts.flaps, counts.sent[0]), (0, 1), "one session all along");
    assert!(node.observed("p", |o| o.up).await.up);
}

#[tokio::test]
async fn port_that_is_taken_is_said_and_tried_again() {
    let taken = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let node = Node::start_with([passive([127, 0, 0, 2])], listening(port), Arc::new(TcpDial));
    let target = node.observed("p", |o| o.reason.contains("cannot listen")).await;
    assert!(target.reason.contains(&format!("port {port}: another process of this node has it")), "{}", target.reason);
    drop(taken);
    let mut puppet = Puppet::new(dial([127, 0, 0, 2], port).await);
    puppet.establish(with_id([192, 0, 2, 1])).await;
}
