//! One change while many routes stand: from the new desired set until its octets are with every receiver.
//!
//! The announcer runs in this process and its peers are on loopback, so that one clock sees both ends. Announcing and
//! withdrawing take turns. The time contains the kernel's way through loopback and the wake-up of the receiver's thread, and
//! with eight peers the eight receivers take their turns on the same cores: the speaker alone takes less.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use ferrocast_bgp::{BgpAnnouncer, Tuning};
use ferrocast_core::actor::Supervisor;
use ferrocast_core::announce::{Announcer as _, Shutdown};
use ferrocast_tests::sink::Sink;
use ferrocast_tests::wait::pause;
use tokio::sync::watch;

use crate::report::Report;
use crate::speaker::{self, CLOSE_MAX};
use crate::stats::{median, ms, percentile};
use crate::{PATIENCE, SINK_AS};

/// Changes in each run.
const CHANGES: usize = 200;
/// Pause between two changes: everybody has gone to sleep, as between two changes of a cluster.
const PAUSE: Duration = Duration::from_millis(5);
/// Routes and peers.
const SIZES: [(u32, u32); 4] = [(10_000, 1), (10_000, 8), (100_000, 1), (100_000, 8)];

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
    let mut supervisor = Supervisor::default();
    let peers = watch::Sender::new(speaker::peers(&sink.addresses()?));
    let announcer = BgpAnnouncer::start(&mut supervisor, peers, Tuning::default());
    let mut desired = speaker::desired(routes);
    // the terms of all the others, as an advertisement's are shared
    let terms = desired.announcements.values().next().map_or_else(speaker::terms, |other| other.terms.clone());
    let (prefix, announcement) = speaker::entry(routes, &terms);
    announcer.apply(Arc::new(desired.clone())).await?;
    let mut sessions = sink.accept(PATIENCE).await?;
    let (mut announced, mut withdrawn) = (routes as usize, 0);
    sessions.wait_for(announced, withdrawn, PATIENCE)?;
    let mut took = Vec::with_capacity(CHANGES);
    for number in 0..CHANGES {
        pause(PAUSE).await;
        desired.generation += 1;
        if number % 2 == 0 {
            desired.announcements.insert(prefix, announcement.clone());
            announced += 1;
        } else {
            desired.announcements.remove(&prefix);
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
