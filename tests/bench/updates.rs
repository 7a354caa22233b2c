//! Ten thousand routes to one peer: UPDATE messages, octets and time, at a receiver that does nothing but count.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::{Buf as _, BytesMut};
use ferrocast_bgp::{BgpAnnouncer, PeerSet, Tuning};
use ferrocast_bgp_proto::Families;
use ferrocast_bgp_proto::tools::Update;
use ferrocast_bgp_proto::wire::{Message, Open};
use ferrocast_core::actor::Supervisor;
use ferrocast_core::announce::{Announcement, AnnouncementState, Announcer as _, Desired, Shutdown, Terms};
use ferrocast_core::config::Peer;
use ferrocast_core::model::ServiceKey;
use ferrocast_tests::wait::bounded;
use ipnet::IpNet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
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
/// The receiver's identifier.
const SINK_ID: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 253);
/// Hold time that both offer, s.
const HOLD_TIME_S: u16 = 90;
/// Room for one read: many messages.
const READ_LEN: usize = 256 * 1024;
/// How long the announcer may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What one session brought.
struct Received {
    updates: usize,
    octets: usize,
    /// From the KEEPALIVE that made the announcer's side Established to the last octet of the last route.
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
        provisional: false,
        announcements: (0..ROUTES).map(|n| (prefix(n), announcement.clone())).collect(),
    }
}

fn peer(to: SocketAddr) -> Peer {
    let hold_time = Duration::from_secs(HOLD_TIME_S.into());
    Peer { hold_time, keepalive_time: hold_time / 3, ..Peer::new("sink", ANNOUNCER_AS, SINK_AS, to) }
}

/// The passive side of a session, as far as [`ROUTES`] routes.
async fn receive(mut stream: TcpStream) -> Result<Received> {
    stream.set_nodelay(true)?;
    let mut inbox = BytesMut::with_capacity(READ_LEN);
    let (mut updates, mut octets, mut routes) = (0, 0, 0);
    let mut established = None;
    loop {
        ensure!(stream.read_buf(&mut inbox).await? > 0, "the announcer closed after {routes} routes");
        let arrived = Instant::now();
        while let Some((message, length)) = Message::decode(&inbox)? {
            match message {
                Message::Open(_) => {
                    let mut answer = BytesMut::new();
                    let open = Open::new(SINK_AS, HOLD_TIME_S, SINK_ID, Families::ALL);
                    Message::Open(open).encode(&mut answer);
                    Message::Keepalive.encode(&mut answer);
                    established = Some(Instant::now());
                    stream.write_all(&answer).await?;
                }
                Message::Update(body) => {
                    let reached = Update::decode(body, true)?.reach.len();
                    if reached > 0 {
                        (updates, octets, routes) = (updates + 1, octets + length, routes + reached);
                    }
                }
                Message::Notification(notification) => bail!("{notification:?}"),
                Message::Keepalive | Message::RouteRefresh(_) => {}
            }
            inbox.advance(length);
        }
        if let Some(began) = established
            && routes >= ROUTES as usize
        {
            return Ok(Received { updates, octets, took: arrived.duration_since(began) });
        }
        inbox.reserve(READ_LEN);
    }
}

async fn once() -> Result<Received> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut supervisor = Supervisor::default();
    let peer = peer(listener.local_addr()?);
    let set = PeerSet {
        node_name: "bench".into(),
        internal_ips: vec![],
        peers: std::iter::once((peer.name.clone(), Arc::new(peer))).collect(),
    };
    let (_peers, reader) = watch::channel(Arc::new(set));
    let announcer = BgpAnnouncer::start(&mut supervisor, reader, Tuning::default());
    announcer.apply(Arc::new(desired())).await?;
    let received = bounded("ten thousand routes", PATIENCE, async {
        let (stream, _) = listener.accept().await?;
        receive(stream).await
    })
    .await?;
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
        updates.push(count(received.updates));
        octets.push(count(received.octets));
        took.push(ms(received.took));
    }
    report.values("10,000 routes to one peer: UPDATE messages", "", &updates, "≤ 15");
    report.values("10,000 routes to one peer: octets", "", &octets, "");
    report.values("10,000 routes to one peer: Established → last octet", "ms", &took, "≤ 20 ms");
    Ok(())
}

/// A count as a value of the report.
#[expect(clippy::cast_precision_loss, reason = "nothing counted here comes near 2^53")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}
