//! Routes on their way from the desired set to a router, over loopback TCP.
mod common;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use common::*;
use ferrocast_bgp::{
    PeerSet, SessionInfo,
    router::{Rib, RouterConfig},
};
use ferrocast_bgp_proto::{
    Families, Family,
    wire::{LargeCommunity, Message, RouteRefresh},
};
use ferrocast_core::{
    announce::{AnnounceError, AnnouncementState, Announcer as _, Community, Shutdown, Terms},
    config::{Peer, PeerAs},
};

fn local() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

fn local_id(info: &SessionInfo) -> Option<Ipv4Addr> {
    info.negotiated.as_ref().map(|negotiated| negotiated.local_id)
}

#[tokio::test]
async fn routes_of_both_families_arrive_with_end_of_rib() {
    let lab = Lab::start().await;
    let node = Node::start([peer("r", lab.address())]);
    node.apply(&desired(1, [v4(1), v6(1)])).await;
    let target = node.reached("r", 1).await;
    assert_eq!((target.up, target.announced, target.refused.len()), (true, 2, 0), "{target:?}");
    let rib = lab.rib(|rib| rib.peers.values().any(|p| p.end_of_rib == Families::ALL)).await;
    let next_hops = |prefix| rib.next_hops(&prefix).collect::<Vec<_>>();
    assert_eq!(next_hops(v4(1)), [(local(), local())]);
    assert_eq!(next_hops(v6(1)), [(local(), "fd00::11".parse().unwrap())], "the Node's InternalIP");
    assert_eq!(rib.routes[&v4(1)].get(&local()).unwrap().attributes.as_path, [AS]);
    assert_eq!(rib.routes.len(), 2);
}

#[tokio::test]
async fn change_sends_only_what_differs() {
    let lab = Lab::start().await;
    let node = Node::start([peer("r", lab.address())]);
    let first = desired(1, (0..500).map(v4));
    node.apply(&first).await;
    lab.rib(|rib| rib.routes.len() == 500 && rib.peers.values().any(|p| p.end_of_rib == Families::ALL)).await;
    let before = node.updates_sent("r");

    let second = with(&first, |all| {
        let any = all[&v4(0)].clone();
        all.insert(v4(1_000), any);
        all.remove(&v4(7));
        // equal terms behind another pointer, other Services: the same to a peer
        all.insert(v4(8), announcement(&plain(), AnnouncementState::Active));
    });
    node.apply(&second).await;
    let target = node.reached("r", 2).await;
    assert_eq!(target.announced, 500);
    assert_eq!(node.updates_sent("r") - before, 2, "one withdrawal, one announcement");
    let rib = lab.rib(|rib| rib.routes.contains_key(&v4(1_000)) && !rib.routes.contains_key(&v4(7))).await;
    assert_eq!(rib.routes.len(), 500);

    node.apply(&with(&second, |_| {})).await;
    node.reached("r", 3).await;
    assert_eq!(node.updates_sent("r") - before, 2, "nothing changed, nothing sent");
}

#[tokio::test]
async fn every_peer_gets_what_is_meant_for_it() {
    let (external, internal) = (Lab::start().await, Lab::start().await);
    let node = Node::start([
        peer("e", external.address()),
        Peer { my_asn: ROUTER_AS, peer_asn: PeerAs::Number(ROUTER_AS), ..peer("i", internal.address()) },
    ]);
    let only = |name: &str| Some(BTreeSet::from([Arc::from(name)]));
    let terms: Arc<[Terms]> = Arc::new([
        Terms { targets: only("i"), communities: BTreeSet::from([Community::Standard(1, 2)]), ..Terms::default() },
        Terms { local_pref: Some(250), communities: BTreeSet::from([Community::Large(1, 2, 3)]), ..Terms::default() },
        Terms {
            targets: only("i"),
            local_pref: Some(300),
            communities: BTreeSet::from([Community::Standard(1, 2)]),
            ..Terms::default()
        },
    ]);
    let for_i: Arc<[Terms]> = Arc::new([Terms { targets: only("i"), ..Terms::default() }]);
    let first = with(&desired(0, []), |all| {
        all.insert(v4(1), announcement(&terms, AnnouncementState::Active));
        all.insert(v4(2), announcement(&for_i, AnnouncementState::Active));
        all.insert(v4(3), announcement(&terms, AnnouncementState::Withdrawn));
    });
    node.apply(&first).await;
    let rib = internal.rib(|rib| rib.routes.len() == 2).await;
    let route = &rib.routes[&v4(1)].get(&local()).unwrap().attributes;
    assert_eq!((route.local_pref, &route.communities[..], &route.as_path[..]), (Some(250), &[0x1_0002][..], &[][..]));
    assert_eq!(route.large_communities, [LargeCommunity { global: 1, local1: 2, local2: 3 }]);
    assert_eq!(rib.routes[&v4(2)].get(&local()).unwrap().attributes.local_pref, Some(100), "the default");
    let rib = external.rib(|rib| rib.routes.len() == 1).await;
    let route = &rib.routes[&v4(1)].get(&local()).unwrap().attributes;
    assert_eq!((route.local_pref, &route.communities[..], &route.as_path[..]), (None, &[][..], &[AS][..]));

    let draining = with(&first, |all| {
        all.insert(v4(1), announcement(&terms, AnnouncementState::Draining));
    });
    node.apply(&draining).await;
    let drains = |rib: &Rib| {
        rib.routes.get(&v4(1)).is_some_and(|r| r.get(&local()).unwrap().attributes.communities.contains(&0xffff_0000))
    };
    let rib = internal.rib(drains).await;
    assert_eq!(rib.routes[&v4(1)].get(&local()).unwrap().attributes.local_pref, Some(0));
    let rib = external.rib(drains).await;
    assert_eq!(rib.routes[&v4(1)].get(&local()).unwrap().attributes.local_pref, None);
}

#[tokio::test]
async fn ten_thousand_routes_come_and_go_in_few_messages() {
    let lab = Lab::start().await;
    let node = Node::start([peer("r", lab.address())]);
    node.apply(&desired(1, (0..10_000).map(v4))).await;
    lab.rib(|rib| rib.routes.len() == 10_000).await;
    let target = node.reached("r", 1).await;
    assert_eq!(target.announced, 10_000);
    assert!(node.updates_sent("r") <= 15, "{} with both End-of-RIBs", node.updates_sent("r"));
    let before = node.updates_sent("r");
    node.apply(&desired(2, [])).await;
    lab.rib(|rib| rib.routes.is_empty()).await;
    let target = node.reached("r", 2).await;
    assert_eq!((target.up, target.announced), (true, 0));
    assert_eq!(node.updates_sent("r") - before, 13);
    assert_eq!(node.announcer.session(&"r".into()).unwrap().counts().flaps, 0);
}

#[tokio::test]
async fn restarted_router_gets_everything_again() {
    let lab = Lab::start().await;
    let address = lab.address();
    let node = Node::start([peer("r", address)]);
    node.apply(&desired(1, (0..100).map(v4).chain([v6(1)]))).await;
    lab.rib(|rib| rib.routes.len() == 101).await;
    lab.router.stop().await;
    let target = node.observed("r", |o| !o.up).await;
    assert!(target.reason.contains("6/2 Administrative Shutdown"), "{}", target.reason);
    assert_eq!((target.generation, target.announced), (0, 0), "none on this connection");

    let again = RouterConfig { listen: address, ..config() };
    let lab = Lab::start_with(again).await.unwrap();
    let complete = |rib: &Rib| rib.peers.values().any(|p| p.end_of_rib == Families::ALL);
    let rib = lab.rib(complete).await;
    assert_eq!(rib.routes.len(), 101);
    assert_eq!(node.announcer.session(&"r".into()).unwrap().counts().flaps, 1);
}

#[tokio::test]
async fn changed_peer_is_reset_and_the_others_are_not_touched() {
    let (a, b) = (Lab::start().await, Lab::start().await);
    let (peer_a, peer_b) = (peer("a", a.address()), peer("b", b.address()));
    let node = Node::start([peer_a.clone(), peer_b.clone()]);
    node.apply(&desired(1, [v4(1)])).await;
    a.rib(|rib| rib.routes.len() == 1).await;
    b.rib(|rib| rib.routes.len() == 1).await;
    let since = node.announcer.session(&"a".into()).unwrap().since;

    let changed = Peer { dual_stack: false, ..peer_b.clone() };
    node.peers.send_replace(peer_set([peer_a.clone(), changed]));
    b.rib(|rib| rib.peers.values().any(|p| p.families == Families::only(Family::Ipv4Unicast))).await;
    b.rib(|rib| rib.routes.len() == 1).await;

    node.peers.send_replace(peer_set([peer_a]));
    b.rib(|rib| rib.peers.is_empty()).await;
    let mut observed = node.announcer.observe();
    observed.wait_for(|o| o.targets.len() == 1).await.unwrap();
    let info = node.announcer.session(&"a".into()).unwrap();
    assert_eq!((info.since, info.counts().flaps), (since, 0));
}

#[tokio::test]
async fn removed_peer_can_come_back_under_its_name() {
    let lab = Lab::start().await;
    let node = Node::start([peer("r", lab.address())]);
    node.apply(&desired(1, [v4(1)])).await;
    for _ in 0..5 {
        lab.rib(|rib| rib.routes.len() == 1).await;
        node.peers.send_replace(peer_set([]));
        // at once or after the old session has closed: it comes back
        node.peers.send_replace(peer_set([peer("r", lab.address())]));
        node.reached("r", 1).await;
        node.peers.send_replace(peer_set([]));
        lab.rib(|rib| rib.peers.is_empty()).await;
        node.peers.send_replace(peer_set([peer("r", lab.address())]));
    }
    lab.rib(|rib| rib.routes.len() == 1).await;
}

#[tokio::test]
async fn session_is_dialled_from_the_source_address() {
    let lab = Lab::start().await;
    let from: IpAddr = Ipv4Addr::new(127, 0, 0, 12).into();
    let node = Node::start([Peer { source_address: Some(from), ..peer("r", lab.address()) }]);
    node.apply(&desired(1, [v4(1)])).await;
    let rib = lab.rib(|rib| rib.routes.len() == 1).await;
    assert_eq!(rib.next_hops(&v4(1)).collect::<Vec<_>>(), [(from, from)]);
    let info = node.announcer.session(&"r".into()).unwrap();
    assert_eq!((info.local_address, local_id(&info)), (Some(from), Some(Ipv4Addr::new(127, 0, 0, 12))));
}

#[tokio::test]
async fn session_over_ipv6_carries_both_families() {
    let on_v6 = RouterConfig { listen: "[::1]:0".parse().unwrap(), ..config() };
    let lab = match Lab::start_with(on_v6).await {
        Ok(lab) => lab,
        Err(error) => {
            eprintln!("SKIPPED: no IPv6 on loopback: {error}");
            return;
        }
    };
    let node = Node::start([peer("r", lab.address())]);
    node.apply(&desired(1, [v4(1), v6(1)])).await;
    let rib = lab.rib(|rib| rib.routes.len() == 2).await;
    let local: IpAddr = "::1".parse().unwrap();
    assert_eq!(rib.next_hops(&v6(1)).collect::<Vec<_>>(), [(local, local)]);
    // whatever loopback has beside 127.0.0.1, else the Node's InternalIP
    assert!(rib.next_hops(&v4(1)).all(|(_, next_hop)| next_hop.is_ipv4() && !next_hop.is_loopback()));
    let info = node.announcer.session(&"r".into()).unwrap();
    assert_eq!(local_id(&info), Some(Ipv4Addr::new(192, 0, 2, 11)), "the Node's InternalIP");
}

#[tokio::test]
async fn routes_with_very_many_attribute_sets_arrive() {
    let lab = Lab::start().await;
    let node = Node::start([peer("r", lab.address())]);
    let terms = |i: u32| -> Arc<[Terms]> {
        Arc::new([Terms { communities: BTreeSet::from([Community::Large(i, 0, 0)]), ..Terms::default() }])
    };
    let first = with(&desired(0, []), |all| {
        for i in 0..3_000 {
            all.insert(v4(i), announcement(&terms(i % 1_500), AnnouncementState::Active));
        }
    });
    node.apply(&first).await;
    let rib = lab.rib(|rib| rib.routes.len() == 3_000).await;
    for i in 0..3_000 {
        let route = rib.routes[&v4(i)].get(&local()).unwrap();
        assert_eq!(route.attributes.large_communities[0].global, i % 1_500);
    }
    let second = with(&first, |all| (0..2_999).for_each(|i| drop(all.remove(&v4(i)))));
    node.apply(&second).await;
    lab.rib(|rib| rib.routes.len() == 1).await;
    assert_eq!(node.reached("r", 2).await.announced, 1);
}

#[tokio::test]
async fn shutdown_tells_every_peer_and_ends() {
    let lab = Lab::start().await;
    let node = Node::start([peer("r", lab.address())]);
    node.apply(&desired(1, [v4(1)])).await;
    lab.rib(|rib| rib.routes.len() == 1).await;
    node.announcer.shutdown(Shutdown::Withdraw, PATIENCE).await;
    lab.rib(|rib| rib.routes.is_empty() && rib.peers.is_empty()).await;
    assert!(matches!(node.announcer.apply(desired(2, [])).await, Err(AnnounceError::Stopped)));
}

#[tokio::test]
async fn goodbye_says_why() {
    for (how, want) in [("removed", (6, 3)), ("changed", (6, 4)), ("shutdown", (6, 2))] {
        let (pipes, mut accepted) = Pipes::new();
        let node = Node::start_with([peer("p", PIPE)], quick(), Arc::new(pipes));
        let mut puppet = Puppet::new(accepted.recv().await.unwrap());
        puppet.establish(open(90, Families::ALL)).await;
        node.observed("p", |o| o.up).await;
        match how {
            "removed" => drop(node.peers.send_replace(peer_set([]))),
            "changed" => {
                let changed = Peer { hold_time: Duration::from_secs(30), ..peer("p", PIPE) };
                node.peers.send_replace(peer_set([changed]));
            }
            _ => drop(tokio::join!(node.announcer.shutdown(Shutdown::Keep, Duration::ZERO))),
        }
        let notification = puppet.notification().await.unwrap();
        assert_eq!((notification.code, notification.subcode), want, "{how}");
    }
}

#[tokio::test]
async fn routes_that_cannot_be_given_are_refused_with_a_reason() {
    // no address of the other family anywhere
    let lab = Lab::start().await;
    let node = Node::start([peer("r", lab.address())]);
    let mut set = (*peer_set([peer("r", lab.address())])).clone();
    set.internal_ips.clear();
    node.peers.send_replace(Arc::new(set));
    node.apply(&desired(1, [v4(1), v6(1)])).await;
    let target = node.observed("r", |o| o.generation == 1 && !o.refused.is_empty()).await;
    assert_eq!((target.refused.get(&v6(1)).map(|why| &**why), target.announced), (Some("noNextHop"), 1));

    // the peer speaks IPv4 alone
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([peer("p", PIPE)], quick(), Arc::new(pipes));
    node.apply(&desired(1, [v4(1), v6(1)])).await;
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    let mut without = open(90, Families::NONE);
    without.capabilities.retain(|c| c.code() != 1);
    puppet.establish(without).await;
    let target = node.reached("p", 1).await;
    assert_eq!((target.refused.get(&v6(1)).map(|why| &**why), target.announced), (Some("familyNotNegotiated"), 1));
    assert_eq!(puppet.update().await.reach, [v4(1)]);
    assert_eq!(puppet.update().await.end_of_rib, Some(Family::Ipv4Unicast));
}

#[tokio::test]
async fn next_hop_follows_the_nodes_addresses() {
    let lab = Lab::start().await;
    let node = Node::start([peer("r", lab.address())]);
    node.apply(&desired(1, [v4(1), v6(1), v6(2)])).await;
    lab.rib(|rib| rib.routes.len() == 3).await;
    let set = |ips: &[&str]| {
        let internal_ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Arc::new(PeerSet { internal_ips, ..(*peer_set([peer("r", lab.address())])).clone() })
    };
    node.peers.send_replace(set(&[]));
    let target = node.observed("r", |o| o.announced == 1).await;
    assert_eq!((target.refused.len(), target.generation), (2, 1));
    lab.rib(|rib| rib.routes.len() == 1).await;
    for ip in ["fd00::22", "fd00::33"] {
        node.peers.send_replace(set(&[ip]));
        let moved = |rib: &Rib| rib.next_hops(&v6(2)).any(|(_, next_hop)| next_hop.to_string() == ip);
        lab.rib(|rib| rib.routes.len() == 3 && moved(rib)).await;
        let target = node.observed("r", |o| o.announced == 3).await;
        assert_eq!((target.refused.len(), target.generation), (0, 1));
    }
    node.apply(&desired(2, [v4(1)])).await;
    lab.rib(|rib| rib.routes.len() == 1).await;
    assert_eq!(node.announcer.session(&"r".into()).unwrap().counts().flaps, 0);
}

#[tokio::test]
async fn session_carries_its_transports_family_alone_without_dual_stack() {
    let lab = Lab::start().await;
    let node = Node::start([Peer { dual_stack: false, ..peer("r", lab.address()) }]);
    node.apply(&desired(1, [v4(1), v6(1)])).await;
    let target = node.reached("r", 1).await;
    assert_eq!((target.announced, target.refused.len()), (1, 0));
    let rib = lab.rib(|rib| rib.peers.values().any(|p| !p.end_of_rib.is_empty())).await;
    assert_eq!((rib.routes.len(), rib.peers[&local()].families), (1, Families::only(Family::Ipv4Unicast)));
}

#[tokio::test]
async fn route_refresh_is_answered_with_everything_of_the_family() {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([peer("p", PIPE)], quick(), Arc::new(pipes));
    node.apply(&desired(1, [v4(1), v6(1)])).await;
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(open(90, Families::ALL)).await;
    for _ in 0..4 {
        puppet.update().await;
    }
    puppet.send(&Message::RouteRefresh(RouteRefresh::new(Family::Ipv6Unicast, 0))).await;
    assert_eq!(puppet.update().await.reach, [v6(1)]);
}

#[tokio::test]
async fn nothing_is_said_before_the_first_decision() {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([peer("p", PIPE)], quick(), Arc::new(pipes));
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(open(90, Families::ALL)).await;
    node.observed("p", |o| o.up).await;
    assert_eq!(node.updates_sent("p"), 0, "not even End-of-RIB");
    node.apply(&desired(1, [])).await;
    assert!(puppet.update().await.end_of_rib.is_some());
}

#[tokio::test]
async fn peer_that_cannot_be_had_is_reported_and_not_dialled() {
    let (pipes, _accepted) = Pipes::new();
    let dials = pipes.dials.clone();
    let asked = Peer { password_missing: Some("Secret x not found".into()), ..peer("p", PIPE) };
    let node = Node::start_with([asked], quick(), Arc::new(pipes));
    let target = node.observed("p", |o| !o.reason.is_empty()).await;
    assert!(target.reason.contains("Secret x not found"), "{}", target.reason);
    assert_eq!(dials.load(std::sync::atomic::Ordering::Relaxed), 0);
}
