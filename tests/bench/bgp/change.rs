//! One change while many routes stand: from the new desired set until its octets are with every receiver.
//!
//! The announcer runs in this process and its peers are on loopback, so that one clock sees both ends. Announcing and
//! withdrawing take turns. The time contains the kernel's way through loopback and the wake-up of the receiver's thread, and
//! with eight peers the eight receivers take their turns on the same cores: the speaker alone takes less.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use ferrocast_bgp::{BgpAnnouncer, PeerSet, Tuning};
use ferrocast_core::actor::Supervisor;
use ferrocast_core::announce::{Announcement, AnnouncementState, Announcer as _, Community, Desired, Shutdown, Terms};
use ferrocast_core::config::Peer;
use ferrocast_core::model::ServiceKey;
use ferrocast_tests::sink::Sink;
use ferrocast_tests::wait::pause;
use ipnet::IpNet;
use tokio::sync::watch;

use crate::report::Report;
use crate::stats::{median, ms, percentile};
use crate::{PATIENCE, SENDER_AS, SINK_AS};

/// Changes in each run.
const CHANGES: usize = 200;
/// Pause between two changes: everybody has gone to sleep, as between two changes of a cluster.
const PAUSE: Duration = Duration::from_millis(5);
/// Hold time, s.
const HOLD_TIME_S: u64 = 240;
/// How long the announcer may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Routes and peers.
const SIZES: [(u32, u32); 4] = [(10_000, 1), (10_000, 8), (100_000, 1), (100_000, 8)];

fn prefix(number: u32) -> IpNet {
    IpNet::from(IpAddr::V4(Ipv4Addr::from(u32::from_be_bytes([10, 64, 0, 0]) + number)))
}

fn peer(number: usize, to: SocketAddr) -> Arc<Peer> {
    let hold_time = Duration::from_secs(HOLD_TIME_S);
    Arc::new(Peer {
        hold_time,
        keepalive_time: hold_time / 3,
        ..Peer::new(&format!("p{number}"), SENDER_AS, SINK_AS, to)
    })
}

/// All sizes, each so many runs.
///
/// # Errors
/// When something does not arrive.
pub(crate) async fn changes(runs: usize, report: &mut Report) -> Result<()> {
    for (routes, peers) in SIZES {
        let (mut p50, mut p99) = (vec![], vec![]);
        for _ in 0..runs {
            let took = once(routes, peers).await?;
            p50.push(median(&took));
            p99.push(percentile(&took, 99));
        }
        eprintln!("  one change, {routes} routes × {peers}: p50 {:.3} ms, p99 {:.3} ms", median(&p50), median(&p99));
        report.changes.push((routes, peers, p50, p99));
    }
    Ok(())
}

/// Milliseconds of each change in one run.
async fn once(routes: u32, peers: u32) -> Result<Vec<f64>> {
    let addresses: Vec<SocketAddr> = (1..=peers).map(|n| (Ipv4Addr::from(0x7f01_0000 + n), 0).into()).collect();
    let sink = Sink::listen(&addresses, SINK_AS).await?;
    let peers = sink.addresses()?.into_iter().enumerate().map(|(number, to)| peer(number, to));
    let set = PeerSet {
        node_name: "bench".into(),
        internal_ips: vec![],
        peers: peers.map(|peer| (peer.name.clone(), peer)).collect(),
    };
    let mut supervisor = Supervisor::default();
    let (_peers, reader) = watch::channel(Arc::new(set));
    let announcer = BgpAnnouncer::start(&mut supervisor, reader, Tuning::default());
    let announcement = Arc::new(Announcement {
        state: AnnouncementState::Active,
        terms: Arc::new([Terms { communities: [Community::Standard(64_600, 100)].into(), ..Terms::default() }]),
        services: Arc::new(BTreeSet::from([ServiceKey::new("bench", "any")])),
        weight: None,
    });
    let announcements = (0..routes).map(|number| (prefix(number), announcement.clone())).collect();
    let mut desired = Desired { generation: 1, provisional: false, announcements };
    announcer.apply(Arc::new(desired.clone())).await?;
    let mut sessions = sink.accept(PATIENCE).await?;
    let (mut announced, mut withdrawn) = (routes as usize, 0);
    sessions.wait_for(announced, withdrawn, PATIENCE)?;
    let mut took = Vec::with_capacity(CHANGES);
    for number in 0..CHANGES {
        pause(PAUSE).await;
        desired.generation += 1;
        if number % 2 == 0 {
            desired.announcements.insert(prefix(routes), announcement.clone());
            announced += 1;
        } else {
            desired.announcements.remove(&prefix(routes));
            withdrawn += 1;
        }
        let next = Arc::new(desired.clone());
        let began = Instant::now();
        announcer.apply(next).await?;
        let done = sessions.wait_for(announced, withdrawn, PATIENCE)?;
        took.push(ms(done.duration_since(began)));
    }
    announcer.shutdown(Shutdown::Withdraw, CLOSE_MAX).await;
    supervisor.stop_token().cancel();
    supervisor.join().await?;
    Ok(took)
}
