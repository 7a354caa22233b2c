//! Routes on their way from the desired set to a router, over loopback TCP.
mod common;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use common::*;
use ferrocast_bgp_proto::{Families, Family, wire::LargeCommunity};
use ferrocast_core::{
    announce::{AnnouncementState, Announcer as _, Community, Shutdown, Terms},
    config::{Peer, PeerAs},
};

#[tokio::test]
async fn routes_of_both_families_arrive_with_end_of_rib() {
    let lab = Lab::start().await;
    let node = Node::start([peer("r", lab.address())]);
    node.apply(&desired(1, [v4(1), v6(1)])).await;
    let target = node.reached("r", 1).await;
    assert_eq!((target.up, target.announced, target.refused.len()), (true, 2, 0), "{target:?}");
    let rib = lab.rib(|rib| rib.peers.values().any(|p| p.end_of_rib == Families::ALL)).await;
    let peer: IpAddr = "127.0.0.1".parse().unwrap();
    let next_hops = |prefix| rib.next_hops(&prefix).collect::<Vec<_>>();
    assert_eq!(next_hops(v4(1)), [(peer, peer)]);
    assert_eq!(next_hops(v6(1)), [(peer, "fd00::11".parse().unwrap())], "the Node's InternalIP");
    assert_eq!(rib.routes[&v4(1)][&peer].attributes.as_path, [AS]);
    assert_eq!(rib.routes.len(), 2);
}
