//! Peers that are slow, dead, broken or hostile: what they do costs their own session and nothing else.
mod common;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use common::*;
use ferrocast_bgp::{Tuning, router::RouterConfig};
use ferrocast_bgp_proto::{
    Families,
    fsm::State,
    wire::{Kind, Message, Notification},
};
use ferrocast_core::{
    announce::Announcer as _,
    config::{Password, Peer},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpListener,
    time::{Instant, timeout},
};

#[tokio::test(start_paused = true)]
async fn silent_peer_is_dropped_after_the_hold_time() {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([peer("p", PIPE)], Tuning::default(), Arc::new(pipes));
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(open(9, Families::ALL)).await;
    node.observed("p", |o| o.up).await;
    let began = Instant::now();
    let notification = puppet.notification().await.unwrap();
    assert_eq!(notification, Notification::hold_timer_expired());
    let waited = began.elapsed(); // of paused time
    assert!(waited >= Duration::from_secs(8) && waited <= Duration::from_secs(10), "{waited:?}");
    let target = node.observed("p", |o| !o.up).await;
    assert!(target.reason.contains("4/0 Hold Timer Expired"), "{}", target.reason);
    // and it is dialled again
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(open(9, Families::ALL)).await;
}

#[tokio::test(start_paused = true)]
async fn keepalives_keep_a_quiet_session_up() {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([peer("p", PIPE)], Tuning::default(), Arc::new(pipes));
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(open(9, Families::ALL)).await;
    for _ in 0..100 {
        let octets = puppet.next().await.expect("the session has ended");
        assert_eq!(Message::decode(&octets), Ok(Some((Message::Keepalive, 19))));
        puppet.send(&Message::Keepalive).await;
    }
    assert_eq!(node.announcer.session(&"p".into()).unwrap().counts().flaps, 0);
}

#[tokio::test(start_paused = true)]
async fn half_open_peer_is_given_up_after_the_open_hold_time() {
    let (pipes, mut accepted) = Pipes::new();
    let _node = Node::start_with([peer("p", PIPE)], Tuning::default(), Arc::new(pipes));
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    let began = Instant::now();
    assert_eq!(puppet.notification().await, Some(Notification::hold_timer_expired()));
    assert!(began.elapsed() >= Duration::from_secs(239));
    assert!(accepted.recv().await.is_some(), "and dialled again");
}

#[tokio::test(start_paused = true)]
async fn refused_open_backs_off() {
    let (pipes, mut accepted) = Pipes::new();
    let dials = pipes.dials.clone();
    let node = Node::start_with([peer("p", PIPE)], Tuning::default(), Arc::new(pipes));
    let hour = async {
        loop {
            let mut puppet = Puppet::new(accepted.recv().await.unwrap());
            puppet.next().await;
            puppet.send(&Message::Notification(Notification::bad_peer_as())).await;
        }
    };
    assert!(timeout(Duration::from_secs(3_600), hour).await.is_err());
    let dials = dials.load(Ordering::Relaxed);
    assert!((100..200).contains(&dials), "{dials} attempts in an hour");
    let target = node.announcer.observe().borrow().targets["p"].clone();
    assert!(target.reason.contains("received NOTIFICATION 2/2 Bad Peer AS"), "{}", target.reason);
}

#[tokio::test(start_paused = true)]
async fn session_that_comes_up_and_falls_at_once_backs_off_too() {
    let (pipes, mut accepted) = Pipes::new();
    let dials = pipes.dials.clone();
    let _node = Node::start_with([peer("p", PIPE)], Tuning::default(), Arc::new(pipes));
    let hour = async {
        loop {
            let mut puppet = Puppet::new(accepted.recv().await.unwrap());
            puppet.establish(open(90, Families::ALL)).await;
        }
    };
    assert!(timeout(Duration::from_secs(3_600), hour).await.is_err());
    let dials = dials.load(Ordering::Relaxed);
    assert!((100..200).contains(&dials), "{dials} attempts in an hour");
}

#[tokio::test(start_paused = true)]
async fn peer_that_never_reads_is_dropped_after_the_send_hold_time() {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([peer("p", PIPE)], Tuning::default(), Arc::new(pipes));
    node.apply(&desired(1, (0..10_000).map(v6))).await;
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(open(9, Families::ALL)).await;
    let mut down = node.announcer.observe();
    let dead = async {
        loop {
            puppet.send(&Message::Keepalive).await; // alive, but deaf
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = dead => unreachable!(),
        down = down.wait_for(|o| o.targets["p"].reason.contains("8/0 Send Hold Timer Expired")) => drop(down.unwrap()),
    }
}

#[tokio::test]
async fn peer_that_never_reads_delays_nobody_else() {
    let (pipes, mut accepted) = Pipes::new();
    let lab = Lab::start().await;
    let node = Node::start_with([peer("deaf", PIPE), peer("r", lab.address())], quick(), Arc::new(pipes));
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(open(90, Families::ALL)).await;
    node.observed("deaf", |o| o.up).await;
    let mut next = desired(1, (0..20_000).map(v6));
    for round in 0..5 {
        node.apply(&next).await;
        lab.rib(|rib| rib.routes.len() == 20_000 + round as usize).await;
        next = with(&next, |all| {
            let any = all[&v6(0)].clone();
            all.insert(v4(round), any);
        });
    }
    let deaf = node.announcer.observe().borrow().targets["deaf"].clone();
    assert_eq!((deaf.up, deaf.generation), (true, 0), "stalled, but not lost");
    // it reads at last: it gets what is desired now
    node.apply(&next).await;
    let mut learned = std::collections::BTreeSet::new();
    while learned.len() < 20_005 {
        learned.extend(puppet.update().await.reach);
    }
    node.reached("deaf", 6).await;
}

#[tokio::test]
async fn stalled_peer_can_be_removed() {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([peer("deaf", PIPE)], quick(), Arc::new(pipes));
    node.apply(&desired(1, (0..20_000).map(v6))).await;
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(open(90, Families::ALL)).await;
    node.observed("deaf", |o| o.up).await;
    node.peers.send_replace(peer_set([]));
    let mut observed = node.announcer.observe();
    timeout(PATIENCE, observed.wait_for(|o| o.targets.is_empty())).await.unwrap().unwrap();
}

#[tokio::test]
async fn broken_peers_affect_only_themselves() {
    let lab = Lab::start().await;
    let (garbage, mute, slammer) = (bind().await, bind().await, bind().await);
    let node = Node::start([
        peer("garbage", garbage.local_addr().unwrap()),
        peer("mute", mute.local_addr().unwrap()),
        peer("slammer", slammer.local_addr().unwrap()),
        peer("r", lab.address()),
    ]);
    let first = desired(1, (0..100).map(v4));
    node.apply(&first).await;
    let trouble = async {
        let mut held = vec![];
        loop {
            tokio::select! {
                Ok((mut stream, _)) = garbage.accept() => {
                    if stream.write_all(&[0x55; 5_000]).await.is_ok() {
                        let mut puppet = Puppet::new(stream);
                        if let Some(notification) = puppet.notification().await {
                            assert_eq!((notification.code, notification.subcode), (1, 1));
                        }
                    }
                }
                Ok(accepted) = mute.accept() => held.push(accepted),
                Ok(accepted) = slammer.accept() => drop(accepted),
            }
        }
    };
    let work = async {
        let mut next = first;
        for round in 0..50 {
            lab.rib(|rib| rib.routes.len() == 100 + round as usize).await;
            next = with(&next, |all| {
                let any = all[&v4(0)].clone();
                all.insert(v4(1_000 + round), any);
            });
            node.apply(&next).await;
        }
        node.observed("garbage", |o| o.reason.contains("1/1 Connection Not Synchronized")).await;
        node.observed("slammer", |o| !o.reason.is_empty() && !o.up).await;
    };
    tokio::select! {
        () = trouble => unreachable!(),
        () = work => {}
    }
    assert_eq!(node.announcer.session(&"r".into()).unwrap().counts().flaps, 0);
    assert_eq!(node.announcer.session(&"mute".into()).unwrap().state, State::OpenSent);
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports")
}

#[tokio::test]
async fn received_updates_are_checked_counted_and_dropped() {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([peer("p", PIPE)], quick(), Arc::new(pipes));
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(open(90, Families::ALL)).await;
    let good: &[u8] = &[0, 0, 0, 14, 0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 1, 2, 3, 4, 8, 10];
    let no_next_hop: &[u8] = &[0, 0, 0, 7, 0x40, 1, 1, 0, 0x40, 2, 0, 8, 10];
    let origin_twice: &[u8] = &[0, 0, 0, 8, 0x40, 1, 1, 0, 0x40, 1, 1, 0];
    for body in [good, no_next_hop, origin_twice, good] {
        puppet.send(&Message::Update(body)).await;
    }
    for _ in 0..1_000 {
        puppet.send(&Message::Update(good)).await;
    }
    puppet.send(&Message::Update(&[0, 9, 0, 0])).await; // the sections do not fit
    let notification = puppet.notification().await.unwrap();
    assert_eq!((notification.code, notification.subcode), (3, 1));
    let target = node.observed("p", |o| !o.up).await;
    assert!(target.reason.contains("3/1 Malformed Attribute List"), "{}", target.reason);
    let counts = node.announcer.session(&"p".into()).unwrap().counts();
    assert_eq!((counts.malformed, counts.received[Kind::Update.index()]), ([1, 1], 1_005));
}

#[tokio::test]
async fn md5_session_needs_the_same_key_on_both_sides() {
    let key = |text: &str| Some(Password(text.into()));
    let ours: IpAddr = "127.0.0.1".parse().unwrap();
    let config = RouterConfig { passwords: vec![(ours, key("s3cret").unwrap())], ..config() };
    let lab = match Lab::start_with(config).await {
        Ok(lab) => lab,
        Err(error) => {
            eprintln!("SKIPPED: this kernel refuses TCP-MD5 keys: {error}");
            return;
        }
    };
    let second = Duration::from_secs(1);
    let with_key =
        |text| Peer { password: key(text), hold_time: 3 * second, keepalive_time: second, ..peer("r", lab.address()) };
    let node = Node::start([with_key("s3cret")]);
    node.apply(&desired(1, [v4(1)])).await;
    lab.rib(|rib| rib.routes.len() == 1).await;

    // another key, which the router does not follow: the session ends with the hold time
    node.peers.send_replace(peer_set([with_key("wrong")]));
    lab.rib(|rib| rib.peers.is_empty()).await;
    node.observed("r", |o| o.reason.contains("could not connect in time")).await;
    assert!(lab.router.rib().borrow().peers.is_empty());
    node.peers.send_replace(peer_set([with_key("s3cret")]));
    lab.rib(|rib| rib.routes.len() == 1).await;
}
