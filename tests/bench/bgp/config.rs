//! The daemons' configurations: originators of host routes from 10.64.0.0 upward, all with one community, to so many peers.
//!
//! The community is set where the routes come into being, never by a policy of the session: nobody pays for it per peer. No
//! daemon writes routes into a kernel. All dial, as fast as they can be told to.

use std::net::{Ipv4Addr, SocketAddr};

use crate::{FEEDER, SENDER, SENDER_AS, SINK_AS};

/// The first route; the same as `lab-speaker` with `bulk`.
const FIRST_ROUTE: u32 = u32::from_be_bytes([10, 64, 0, 0]);

fn routes(number: u32) -> impl Iterator<Item = Ipv4Addr> {
    (FIRST_ROUTE..FIRST_ROUTE + number).map(Ipv4Addr::from)
}

/// BIRD 2: static routes, the community by the import filter.
pub(crate) fn bird(number: u32, peers: &[SocketAddr]) -> String {
    let mut text = format!(
        "log stderr all;\nrouter id {SENDER};\nprotocol device {{}}\nprotocol static origin {{\n\
         ipv4 {{ import filter {{ bgp_community.add((64600,100)); accept; }}; }};\n"
    );
    for route in routes(number) {
        text += &format!("route {route}/32 blackhole;\n");
    }
    text.push_str("}\n");
    for (index, peer) in peers.iter().enumerate() {
        text += &format!(
            "protocol bgp p{index} {{ local {SENDER} as {SENDER_AS}; neighbor {} as {SINK_AS}; hold time 240;\n\
             connect delay time 1; connect retry time 1; error wait time 1,2;\n\
             ipv4 {{ import none; export all; next hop self; }}; }}\n",
            peer.ip()
        );
    }
    text
}

/// FRR's bgpd: `network` lines with a route-map, and `coalesce-time 0`, without which it waits a second before it sends.
pub(crate) fn frr(number: u32, peers: &[SocketAddr]) -> String {
    let mut text = format!(
        "frr version 8.4\nfrr defaults datacenter\nhostname frr\nlog stdout informational\n!\n\
         route-map ORIGIN permit 10\n set community 64600:100\n!\nrouter bgp {SENDER_AS}\n bgp router-id {SENDER}\n \
         no bgp ebgp-requires-policy\n no bgp network import-check\n coalesce-time 0\n"
    );
    for peer in peers {
        let ip = peer.ip();
        text += &format!(
            " neighbor {ip} remote-as {SINK_AS}\n neighbor {ip} timers 80 240\n neighbor {ip} timers connect 1\n"
        );
    }
    text.push_str(" address-family ipv4 unicast\n");
    for route in routes(number) {
        text += &format!("  network {route}/32 route-map ORIGIN\n");
    }
    for peer in peers {
        text += &format!("  neighbor {} activate\n", peer.ip());
    }
    text.push_str(" exit-address-family\n!\n");
    text
}

/// GoBGP: no routes in the file. An internal peer feeds it, so that its routes leave with the attributes of the others'.
pub(crate) fn gobgp(peers: &[SocketAddr]) -> String {
    let mut text = format!(
        "[global.config]\n  as = {SENDER_AS}\n  router-id = \"{SENDER}\"\n  port = 179\n  local-address-list = [\"{SENDER}\"]\n"
    );
    let feeder = SocketAddr::from((FEEDER, 0));
    for peer in std::iter::once(&feeder).chain(peers) {
        let (asn, passive) = if *peer == feeder { (SENDER_AS, true) } else { (SINK_AS, false) };
        text += &format!(
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{}\"\n    peer-as = {asn}\n  \
             [neighbors.transport.config]\n    passive-mode = {passive}\n    local-address = \"{SENDER}\"\n  \
             [neighbors.timers.config]\n    connect-retry = 1\n    hold-time = 240\n    keepalive-interval = 80\n  \
             [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"ipv4-unicast\"\n",
            peer.ip()
        );
    }
    text
}

/// OpenBGPD: `network` lines.
pub(crate) fn openbgpd(number: u32, peers: &[SocketAddr]) -> String {
    let mut text = format!(
        "AS {SENDER_AS}\nrouter-id {SENDER}\nfib-update no\nholdtime 240\nconnect-retry 1\nlisten on {SENDER}\n\
         socket \"/run/openbgpd.sock\"\n"
    );
    for route in routes(number) {
        text += &format!("network {route}/32 set community 64600:100\n");
    }
    for peer in peers {
        text += &format!("neighbor {} {{\n\tremote-as {SINK_AS}\n\tannounce IPv4 unicast\n}}\n", peer.ip());
    }
    text.push_str("deny from any\nallow to any\n");
    text
}
