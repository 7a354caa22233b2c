//! Ten thousand routes to one peer: UPDATE messages, octets and time, at a receiver that does nothing but count.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use ferrocast_bgp::{BgpAnnouncer, PeerSet, Tuning};
use ferrocast_core::actor::Supervisor;
use ferrocast_core::announce::{Announcement, AnnouncementState, Announcer as _, Desired, Shutdown, Terms};
use ferrocast_core::config::Peer;
use ferrocast_core::model::ServiceKey;
use ferrocast_tests::sink::{Counts, Sink};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::Plan;
use crate::bed::PATIENCE;
use crate::report::Report;
use crate::stats::ms;

/// Routes announced to the peer.
const ROUTES: u32 = 10_000;
/// AS of the receiver, and of the announcer.
const SINK_AS: u32 = 64_500;
const ANNOUNCER_AS: u32 = 64_600;
/// Hold time of the announcer, s.
const HOLD_TIME_S: u16 = 90;
/// How long the announcer may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What one session brought.
struct Received {
    counts: Counts,
    /// From the accepted connection to the last octet of the last route.
    took: Duration,
}

/// Everything that is to be announced: one attribute set, as with one advertisement.
fn desired() -> Desired {
    let services = Arc::new(BTreeSet::from([ServiceKey::new("bench", "any")]));
    let terms: Arc<[Terms]> = Arc::new([Terms::default()]);
    let announcement = Arc::new(Announcement { state: AnnouncementState::Active, terms, services, weight: None });
    let first = u32::from(Ipv4Addr::new(10, 32, 0, 0));
    let prefix = |number: u32| IpNet::from(IpAddr::V4(Ipv4Addr::from(first + number)));
    Desired {
        generation: 1,
        announcements: (0..ROUTES).map(|n| (prefix(n), announcement.clone())).collect(),
        ..Desired::default()
    }
}

fn peer(to: SocketAddr) -> Peer {
    let hold_time = Duration::from_secs(HOLD_TIME_S.into());
    Peer { hold_time, keepalive_time: hold_time / 3, ..Peer::new("sink", ANNOUNCER_AS, SINK_AS, to) }
}

async fn once() -> Result<Received> {
    let sink = Sink::listen(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], SINK_AS).await?;
    let mut supervisor = Supervisor::default();
    let peer = peer(sink.addresses()?[0]);
    let set = PeerSet {
        node_name: "bench".into(),
        internal_ips: vec![],
        peers: std::iter::once((peer.name.clone(), Arc::new(peer))).collect(),
    };
    let peers = watch::Sender::new(Arc::new(set));
    let announcer = BgpAnnouncer::start(&mut supervisor, peers, Tuning::default());
    announcer.apply(Arc::new(desired())).await?;
    let mut sessions = sink.accept(PATIENCE).await?;
    let done = sessions.wait_for(ROUTES as usize, 0, PATIENCE)?;
    let received = Received { counts: sessions.counts()[0], took: done.duration_since(sessions.accepted) };
    announcer.shutdown(Shutdown::Withdraw, CLOSE_MAX).await;
    supervisor.stop_token().cancel();
    supervisor.join().await?;
    Ok(received)
}

/// Ten thousand routes, `plan.runs` times, each over a new session.
///
/// # Errors
/// When they do not all arrive.
pub(crate) async fn ten_thousand_routes(plan: &Plan, report: &mut Report) -> Result<()> {
    let (mut updates, mut octets, mut took) = (vec![], vec![], vec![]);
    for _ in 0..plan.runs {
        let received = once().await?;
        updates.push(count(received.counts.updates));
        octets.push(count(received.counts.octets));
        took.push(ms(received.took));
    }
    report.values("10,000 routes to one peer: UPDATE messages", "", &updates, "≤ 15");
    report.values("10,000 routes to one peer: octets", "", &octets, "");
    report.values("10,000 routes to one peer: accepted → last octet", "ms", &took, "≤ 20 ms");
    Ok(())
}

/// A count as a value of the report.
#[expect(clippy::cast_precision_loss, reason = "nothing counted here comes near 2^53")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}
