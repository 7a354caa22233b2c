//! Ferrocast as it is measured: the announcer with a table of the product's shape, in this process or in one of its own.
//!
//! As `core::decide` makes it, every prefix has an announcement and a set of Services of its own, and all share the terms of one
//! advertisement. (`lab-speaker` with `bulk` shares one announcement among all routes: that takes much less memory.)

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use ferrocast_bgp::{BgpAnnouncer, PeerSet, Tuning};
use ferrocast_core::actor::Supervisor;
use ferrocast_core::announce::{Announcement, AnnouncementState, Announcer as _, Community, Desired, Shutdown, Terms};
use ferrocast_core::config::Peer;
use ferrocast_core::model::ServiceKey;
use ipnet::IpNet;
use tokio::sync::watch;

use crate::{BGP_PORT, SENDER_AS, SINK_AS};

/// Hold time, s: no measurement takes as long.
const HOLD_TIME_S: u64 = 240;
/// How long the announcer may take to close.
pub(crate) const CLOSE_MAX: Duration = Duration::from_secs(2);

/// The terms of the only advertisement.
pub(crate) fn terms() -> Arc<[Terms]> {
    Arc::new([Terms { communities: [Community::Standard(64_600, 100)].into(), ..Terms::default() }])
}

/// One entry of the table.
pub(crate) fn entry(number: u32, terms: &Arc<[Terms]>) -> (IpNet, Arc<Announcement>) {
    let ip = Ipv4Addr::from(u32::from_be_bytes([10, 64, 0, 0]) + number);
    let services = BTreeSet::from([ServiceKey::new("bench", &format!("service-{number}"))]);
    let (terms, services) = (terms.clone(), Arc::new(services));
    let announcement = Announcement { state: AnnouncementState::Active, terms, services, weight: None };
    (IpNet::from(IpAddr::V4(ip)), Arc::new(announcement))
}

/// The table.
pub(crate) fn desired(routes: u32) -> Desired {
    let terms = terms();
    let announcements = (0..routes).map(|number| entry(number, &terms)).collect();
    Desired { generation: 1, announcements, ..Desired::default() }
}

/// The peers at these addresses.
pub(crate) fn peers(addresses: &[SocketAddr]) -> Arc<PeerSet> {
    let hold_time = Duration::from_secs(HOLD_TIME_S);
    let peer = |(number, to): (usize, &SocketAddr)| {
        let peer = Peer::new(&format!("p{number}"), SENDER_AS, SINK_AS, *to);
        Arc::new(Peer { hold_time, keepalive_time: hold_time / 3, ..peer })
    };
    let peers = addresses.iter().enumerate().map(peer).map(|peer| (peer.name.clone(), peer)).collect();
    Arc::new(PeerSet { node_name: "bench".into(), internal_ips: vec![], peers })
}

/// The announcer as a process: `routes N` and `peers ADDRESS…` as lines on standard input, until its end.
pub(crate) fn speak() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let mut supervisor = Supervisor::default();
    let set = watch::Sender::new(Arc::<PeerSet>::default());
    let announcer = BgpAnnouncer::start(&mut supervisor, set.clone(), Tuning::default());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("routes", number)) => runtime.block_on(announcer.apply(Arc::new(desired(number.parse()?))))?,
            Some(("peers", addresses)) => {
                let address = |word: &str| Ok(SocketAddr::new(word.parse()?, BGP_PORT));
                let addresses = addresses.split(' ').map(address).collect::<Result<Vec<_>>>()?;
                set.send_replace(peers(&addresses));
            }
            _ => bail!("not understood: {line}"),
        }
    }
    runtime.block_on(announcer.shutdown(Shutdown::Withdraw, CLOSE_MAX));
    Ok(())
}
