//! What peers see of a speaker that ends, restarts or drains, and of changes that need no new session.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod common;

use std::sync::Arc;

use common::*;
use ferrocast_bgp_proto::{
    Families, Family,
    wire::{Capability, GracefulRestart, Message, Notification, Open, RouteRefresh},
};
use ferrocast_core::{
    announce::{AnnouncementState, Announcer as _, Desired, ExtendedCommunity, Shutdown, Terms},
    config::{LinkBandwidth, Peer, RoutePolicy, Weight},
};
use tokio::io::DuplexStream;

/// An OPEN of a router that helps others to restart; `notification`: also over a NOTIFICATION (RFC 8538).
fn helper(notification: bool) -> Open {
    let mut open = open(90, Families::ALL);
    let restart = GracefulRestart { notification, ..GracefulRestart::default() };
    open.capabilities.push(Capability::GracefulRestart(restart));
    open
}

fn graceful() -> Peer {
    Peer { graceful_restart: true, ..peer("p", PIPE) }
}

/// A node with one peer at a puppet that has sent `open`, and `count` routes announced to it.
async fn established(peer: Peer, open: Open, count: u32) -> (Node, Puppet<DuplexStream>) {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([peer], quick(), Arc::new(pipes));
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(open).await;
    node.apply(&desired(1, (0..count).map(v4))).await;
    for _ in 0..Family::ALL.len() + usize::from(count > 0) {
        puppet.update().await;
    }
    node.reached("p", 1).await;
    (node, puppet)
}

/// Everything that comes until the connection ends: withdrawn prefixes, and the NOTIFICATION if there is one.
async fn last_words(puppet: &mut Puppet<DuplexStream>) -> (usize, Option<Notification>) {
    let (mut withdrawn, mut notification) = (0, None);
    while let Some(octets) = puppet.next().await {
        match Message::decode(&octets).unwrap().unwrap().0 {
            Message::Update(body) => {
                withdrawn += ferrocast_bgp_proto::tools::Update::decode(body, true).unwrap().withdrawn.len();
            }
            Message::Notification(n) => notification = Some(n),
            _ => {}
        }
    }
    (withdrawn, notification)
}

async fn ending(peer: Peer, open: Open, how: Shutdown) -> (usize, Option<String>) {
    let (node, mut puppet) = established(peer, open, 3).await;
    let shutdown = node.announcer.shutdown(how, PATIENCE);
    let (words, ()) = tokio::join!(last_words(&mut puppet), shutdown);
    (
        words.0,
        words.1.map(|n| {
            format!("{}/{}", n.code, n.subcode)
                + &n.wrapped().map_or(String::new(), |w| format!(" of {}/{}", w.code, w.subcode))
        }),
    )
}

#[tokio::test]
async fn shutdown_keeps_the_routes_only_where_both_sides_agreed_to() {
    let plain = || open(90, Families::ALL);
    for (name, peer, open, how, want) in [
        ("a planned restart", graceful(), helper(false), Shutdown::Keep, (0, None)),
        ("a planned restart, N bit", graceful(), helper(true), Shutdown::Keep, (0, None)),
        ("not asked for", peer("p", PIPE), helper(true), Shutdown::Keep, (3, Some("6/2"))),
        ("the router cannot", graceful(), plain(), Shutdown::Keep, (3, Some("6/2"))),
        ("a drain", graceful(), helper(false), Shutdown::Withdraw, (3, Some("6/2"))),
        ("a drain, N bit", graceful(), helper(true), Shutdown::Withdraw, (3, Some("6/9 of 6/2"))),
    ] {
        assert_eq!(ending(peer, open, how).await, (want.0, want.1.map(str::to_owned)), "{name}");
    }
}

#[tokio::test]
async fn removed_peer_drops_the_routes_even_where_a_notification_keeps_them() {
    let (node, mut puppet) = established(graceful(), helper(true), 1).await;
    node.peers.send_replace(peer_set([]));
    let (withdrawn, notification) = last_words(&mut puppet).await;
    let wrapped = notification.unwrap().wrapped().unwrap();
    assert_eq!((withdrawn, wrapped.code, wrapped.subcode), (1, 6, 3));
}

#[tokio::test]
async fn first_open_of_a_process_says_that_it_restarts_and_forwards() {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([graceful()], quick(), Arc::new(pipes));
    node.apply(&desired(1, [v4(1)])).await;
    for restarting in [true, false] {
        let mut puppet = Puppet::new(accepted.recv().await.unwrap());
        let octets = puppet.next().await.unwrap();
        let Some((Message::Open(ours), _)) = Message::decode(&octets).unwrap() else { panic!("{octets:?}") };
        let families = vec![(1, 1, true), (2, 1, true)];
        let want = GracefulRestart { restarting, notification: true, restart_time_s: 120, families };
        assert_eq!(ours.graceful_restart(), Some(&want));
        puppet.send(&Message::Open(helper(false))).await;
        puppet.send(&Message::Keepalive).await;
        while puppet.update().await.end_of_rib.is_none() {}
    }
}

#[tokio::test]
async fn end_of_rib_waits_for_the_first_decision_of_this_process() {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([graceful()], quick(), Arc::new(pipes));
    let saved = Desired { provisional: true, ..(*desired(1, [v4(1), v4(2)])).clone() };
    node.apply(&Arc::new(saved)).await;
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(helper(false)).await;
    assert_eq!(puppet.update().await.reach, [v4(1), v4(2)]);
    node.reached("p", 1).await;
    assert_eq!(node.updates_sent("p"), 1, "routes of before the restart, without End-of-RIB");
    node.apply(&desired(2, [v4(2), v4(3)])).await;
    assert_eq!(puppet.update().await.withdrawn, [v4(1)]);
    assert_eq!(puppet.update().await.reach, [v4(3)]);
    assert_eq!(puppet.update().await.end_of_rib, Some(Family::Ipv4Unicast));
    assert_eq!(puppet.update().await.end_of_rib, Some(Family::Ipv6Unicast));
}

#[tokio::test]
async fn decision_equal_to_what_was_saved_sends_nothing_but_end_of_rib() {
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([graceful()], quick(), Arc::new(pipes));
    let decided = desired(1, [v4(1)]);
    node.apply(&Arc::new(Desired { provisional: true, ..(*decided).clone() })).await;
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.establish(helper(false)).await;
    assert_eq!(puppet.update().await.reach, [v4(1)]);
    node.apply(&decided).await;
    assert_eq!(puppet.update().await.end_of_rib, Some(Family::Ipv4Unicast));
}

#[tokio::test]
async fn draining_says_graceful_shutdown_and_comes_back() {
    let (node, mut puppet) = established(peer("p", PIPE), open(90, Families::ALL), 2).await;
    let state = |generation, state| {
        let drained = announcement(&plain(), state);
        Arc::new(Desired {
            generation,
            announcements: (0..2).map(|i| (v4(i), drained.clone())).collect(),
            ..Desired::default()
        })
    };
    node.apply(&state(2, AnnouncementState::Draining)).await;
    let update = puppet.update().await;
    assert_eq!((update.reach.len(), &update.attributes.communities[..]), (2, &[0xffff_0000][..]));
    node.apply(&state(3, AnnouncementState::Active)).await;
    let update = puppet.update().await;
    assert_eq!((update.reach.len(), update.attributes.communities.len()), (2, 0));
}

fn policy(policy: RoutePolicy) -> Peer {
    Peer { routes: Arc::new([policy]), ..peer("p", PIPE) }
}

#[tokio::test]
async fn policies_of_routes_change_under_a_live_session_and_touch_only_what_reads_otherwise() {
    let (node, mut puppet) = established(peer("p", PIPE), open(90, Families::ALL), 0).await;
    let named = |name: &str| -> Arc<[Terms]> { Arc::new([Terms { advertisement: name.into(), ..Terms::default() }]) };
    let routes = with(&desired(1, []), |all| {
        all.insert(v4(1), announcement(&named("a"), AnnouncementState::Active));
        all.insert(v4(2), announcement(&named("b"), AnnouncementState::Active));
    });
    node.apply(&routes).await;
    assert_eq!(puppet.update().await.reach.len(), 2, "one attribute set, one message");
    let changed = RoutePolicy {
        advertisements: Some(["a".into()].into()),
        med: Some(7),
        as_path_prepend: 2,
        extended_communities: [ExtendedCommunity([0, 2, 0, 1, 0, 0, 0, 9])].into(),
        ..RoutePolicy::default()
    };
    node.peers.send_replace(peer_set([policy(changed)]));
    let update = puppet.update().await;
    assert_eq!((&update.reach[..], update.attributes.med), (&[v4(1)][..], Some(7)));
    assert_eq!(update.attributes.as_path, [AS, AS, AS]);
    assert_eq!(update.attributes.extended_communities.len(), 1);
    let shown: Vec<_> = node.announcer.session(&"p".into()).unwrap().routes().collect();
    assert_eq!(
        shown.iter().map(|r| (r.prefix, r.attributes.med)).collect::<Vec<_>>(),
        [(v4(1), Some(7)), (v4(2), None)]
    );
    assert_eq!(node.announcer.session(&"p".into()).unwrap().counts().flaps, 0);
}

#[tokio::test]
async fn link_bandwidth_weighs_by_endpoints() {
    let bandwidth = LinkBandwidth { unit_octets_s: 1_000, weight: Weight::Endpoints, transitive: true };
    let peer = policy(RoutePolicy { link_bandwidth: Some(bandwidth), ..RoutePolicy::default() });
    let (node, mut puppet) = established(peer, open(90, Families::ALL), 0).await;
    let weighs = |generation, weight: Option<u32>| {
        let mut of = (*announcement(&plain(), AnnouncementState::Active)).clone();
        of.weight = weight.and_then(std::num::NonZeroU32::new);
        Arc::new(Desired {
            generation,
            announcements: [(v4(1), Arc::new(of))].into_iter().collect(),
            ..Desired::default()
        })
    };
    for (generation, weight, want) in [(2, Some(3), Some(3_000.0)), (3, Some(4), Some(4_000.0)), (4, None, None)] {
        node.apply(&weighs(generation, weight)).await;
        let communities = puppet.update().await.attributes.extended_communities;
        let got = communities.first().and_then(|c| c.as_link_bandwidth()).map(|b| b.octets_per_s);
        assert_eq!(got, want, "{weight:?}");
    }
}

#[tokio::test]
async fn refresh_is_marked_where_the_peer_wants_to_know() {
    let mut router = open(90, Families::ALL);
    router.capabilities.push(Capability::EnhancedRouteRefresh);
    let (_node, mut puppet) = established(peer("p", PIPE), router, 1).await;
    puppet.send(&Message::RouteRefresh(RouteRefresh::new(Family::Ipv4Unicast, 0))).await;
    for want in [Some(RouteRefresh::BEGIN), None, Some(RouteRefresh::END)] {
        let octets = puppet.next().await.unwrap();
        let subtype = match Message::decode(&octets).unwrap().unwrap().0 {
            Message::RouteRefresh(refresh) => Some(refresh.subtype),
            Message::Update(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(subtype, want);
    }
}

#[tokio::test]
async fn local_as_stands_in_everywhere() {
    let asked = Peer { local_asn: Some(65_000), ..peer("p", PIPE) };
    let (pipes, mut accepted) = Pipes::new();
    let node = Node::start_with([asked], quick(), Arc::new(pipes));
    node.apply(&desired(1, [v4(1)])).await;
    let mut puppet = Puppet::new(accepted.recv().await.unwrap());
    puppet.send(&Message::Open(open(90, Families::ALL))).await;
    puppet.send(&Message::Keepalive).await;
    let octets = puppet.next().await.unwrap();
    let Some((Message::Open(ours), _)) = Message::decode(&octets).unwrap() else { panic!("{octets:?}") };
    assert_eq!(ours.asn(), 65_000);
    assert_eq!(puppet.update().await.attributes.as_path, [65_000]);
}
