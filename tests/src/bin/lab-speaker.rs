//! The BGP announcer without a cluster: peers and routes come as lines of JSON on standard input, answers leave on standard
//! output. For tests of the protocol with real routers, and for benchmarks.
//!
//! `{"peers": […], "routes": […]}` replaces both; `{"ask": true}` prints the sessions; `{"shutdown": "keep"}` or
//! `"withdraw"` ends in that way. The end of the input ends with `withdraw`.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ferrocast_bgp::{BgpAnnouncer, PeerSet, Tuning};
use ferrocast_core::actor::Supervisor;
use ferrocast_core::announce::{
    Announcement, AnnouncementState, Announcer as _, Community, Desired, ExtendedCommunity, Shutdown, Terms,
};
use ferrocast_core::config::{BfdProfile, Password, Peer, PeerAs, PeerEndpoint, Role, RoutePolicy};
use ferrocast_core::model::{IpFamily, ServiceKey};
use imbl::OrdMap;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// Commands that wait: a test sends one at a time.
const COMMANDS_MAX: usize = 16;
/// Longest shutdown.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Input {
    peers: Option<Vec<PeerInput>>,
    routes: Option<Vec<RouteInput>>,
    /// So many host routes from 10.64.0.0 upward, with one attribute set.
    bulk: Option<u32>,
    provisional: bool,
    ask: bool,
    shutdown: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PeerInput {
    name: String,
    address: Option<IpAddr>,
    interface: Option<String>,
    port: Option<u16>,
    my_asn: u32,
    peer_asn: Option<u32>,
    dynamic: Option<String>,
    local_asn: Option<u32>,
    router_id: Option<Ipv4Addr>,
    source: Option<IpAddr>,
    password: Option<String>,
    hold_s: Option<u64>,
    graceful_restart: bool,
    multihop: bool,
    dual_stack: bool,
    /// Milliseconds, three times.
    bfd_ms: Option<u64>,
    passive: bool,
    families: Option<Vec<u8>>,
    ttl_security_hops: Option<u8>,
    role: Option<String>,
    next_hop_v4: Option<IpAddr>,
    med: Option<u32>,
    prepend: u8,
    extended: Vec<[u8; 8]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteInput {
    prefix: IpNet,
    #[serde(default)]
    communities: Vec<(u16, u16)>,
    #[serde(default)]
    large: Vec<(u32, u32, u32)>,
    #[serde(default)]
    draining: bool,
    #[serde(default)]
    local_pref: Option<u32>,
    #[serde(default)]
    weight: Option<NonZeroU32>,
}

impl PeerInput {
    fn peer(self) -> Result<Peer> {
        let address = SocketAddr::new(self.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), self.port.unwrap_or(179));
        let mut peer = Peer::new(&self.name, self.my_asn, self.peer_asn.unwrap_or(1), address);
        if let Some(interface) = self.interface {
            peer.endpoint = PeerEndpoint::Interface(interface.into());
        }
        match self.dynamic.as_deref() {
            Some("internal") => peer.peer_asn = PeerAs::Internal,
            Some("external") => peer.peer_asn = PeerAs::External,
            _ => {}
        }
        peer.hold_time = Duration::from_secs(self.hold_s.unwrap_or(9));
        peer.keepalive_time = peer.hold_time / 3;
        peer.local_asn = self.local_asn;
        peer.router_id = self.router_id;
        peer.source_address = self.source;
        peer.password = self.password.map(|text| Password(text.into()));
        peer.graceful_restart = self.graceful_restart;
        peer.ebgp_multi_hop = self.multihop;
        peer.dual_stack = self.dual_stack;
        peer.bfd = self.bfd_ms.map(|ms| {
            let interval = Duration::from_millis(ms);
            Arc::new(BfdProfile { receive_interval: interval, transmit_interval: interval, ..BfdProfile::new("lab") })
        });
        peer.session.passive = self.passive;
        peer.session.families =
            self.families.map(|all| all.iter().map(|f| if *f == 4 { IpFamily::V4 } else { IpFamily::V6 }).collect());
        peer.session.ttl_security_hops = self.ttl_security_hops;
        peer.session.next_hop_v4 = self.next_hop_v4;
        peer.session.role = match self.role.as_deref() {
            None => None,
            Some("customer") => Some(Role::Customer),
            Some("provider") => Some(Role::Provider),
            Some("peer") => Some(Role::Peer),
            Some(other) => anyhow::bail!("role {other:?}"),
        };
        peer.routes = Arc::new([RoutePolicy {
            med: self.med,
            as_path_prepend: self.prepend,
            extended_communities: self.extended.into_iter().map(ExtendedCommunity).collect(),
            ..RoutePolicy::default()
        }]);
        Ok(peer)
    }
}

impl RouteInput {
    /// Equal terms share one allocation, as a decider's do.
    fn announcement(&self, known: &mut BTreeSet<Arc<[Terms]>>) -> Arc<Announcement> {
        let standard = self.communities.iter().map(|(a, b)| Community::Standard(*a, *b));
        let large = self.large.iter().map(|(a, b, c)| Community::Large(*a, *b, *c));
        let terms =
            Terms { communities: standard.chain(large).collect(), local_pref: self.local_pref, ..Terms::default() };
        let state = if self.draining { AnnouncementState::Draining } else { AnnouncementState::Active };
        let terms = known.get(&[terms.clone()][..]).cloned().unwrap_or_else(|| Arc::new([terms]));
        known.insert(terms.clone());
        Arc::new(Announcement { state, terms, services: services(), weight: self.weight })
    }
}

fn services() -> Arc<BTreeSet<ServiceKey>> {
    Arc::new(BTreeSet::from([ServiceKey::new("lab", "lab")]))
}

/// Host routes that share one attribute set.
fn bulk(count: u32) -> impl Iterator<Item = (IpNet, Arc<Announcement>)> {
    let terms = Terms { communities: [Community::Standard(64_600, 100)].into(), ..Terms::default() };
    let announcement = Arc::new(Announcement {
        state: AnnouncementState::Active,
        terms: Arc::new([terms]),
        services: services(),
        weight: None,
    });
    let prefix = |n: u32| IpNet::from(IpAddr::V4(Ipv4Addr::from_bits(0x0a40_0000 + n)));
    (0..count).map(move |n| (prefix(n), announcement.clone()))
}

/// The sessions as JSON.
fn sessions(bgp: &BgpAnnouncer) -> Value {
    let session = |info: &ferrocast_bgp::SessionInfo| {
        let counts = info.counts();
        json!({
            "peer": &*info.peer, "state": info.state.to_string(), "lastError": info.last_error,
            "announced": info.announced.iter().sum::<usize>(), "flaps": counts.flaps,
            "received": counts.received, "sent": counts.sent,
            "capabilities": info.negotiated.iter().flat_map(|n| &n.capabilities).map(ToString::to_string).collect::<Vec<_>>(),
            "keepsRoutes": info.negotiated.as_ref().is_some_and(|n| n.keeps_routes()),
            "notificationKeepsRoutes": info.negotiated.as_ref().is_some_and(|n| n.keeps_routes_after_notification()),
            "extendedNextHop": info.negotiated.as_ref().is_some_and(|n| n.extended_next_hop),
            "enhancedRefresh": info.negotiated.as_ref().is_some_and(|n| n.enhanced_route_refresh),
            "role": info.negotiated.as_ref().and_then(|n| n.role).map(|role| format!("{role:?}")),
            "peerAS": info.negotiated.as_ref().map(|n| n.peer_as),
            "bfd": info.bfd.as_ref().map(|bfd| format!("{:?}", bfd.state)),
        })
    };
    Value::Array(bgp.sessions().iter().map(session).collect())
}

async fn serve(mut lines: mpsc::Receiver<String>) -> Result<()> {
    let mut supervisor = Supervisor::default();
    let peers = watch::Sender::new(Arc::<PeerSet>::default());
    let bgp = BgpAnnouncer::start(&mut supervisor, peers.clone(), Tuning::default());
    let mut generation = 0;
    let mut how = Shutdown::Withdraw;
    let mut terms = BTreeSet::new();
    let mut standing: (u32, OrdMap<IpNet, Arc<Announcement>>) = (0, OrdMap::new());
    while let Some(line) = lines.recv().await {
        let input: Input = serde_json::from_str(&line).with_context(|| format!("reading {line}"))?;
        if input.routes.is_some() || input.bulk.is_some() {
            generation += 1;
            let count = input.bulk.unwrap_or(0);
            if standing.0 != count {
                standing = (count, bulk(count).collect());
            }
            let mut announcements = standing.1.clone(); // shares what does not change, as a decider's snapshots do
            for route in input.routes.iter().flatten() {
                announcements.insert(route.prefix, route.announcement(&mut terms));
            }
            let desired = Desired { generation, provisional: input.provisional, announcements, ..Desired::default() };
            bgp.apply(Arc::new(desired)).await?;
        }
        if let Some(all) = input.peers {
            let all: Vec<Peer> = all.into_iter().map(PeerInput::peer).collect::<Result<_>>()?;
            peers.send_replace(Arc::new(PeerSet {
                node_name: "lab".into(),
                internal_ips: vec![],
                peers: all.into_iter().map(|peer| (peer.name.clone(), Arc::new(peer))).collect(),
            }));
        }
        if input.ask {
            println!("{}", sessions(&bgp));
        }
        if let Some(wanted) = input.shutdown {
            how = if wanted == "keep" { Shutdown::Keep } else { Shutdown::Withdraw };
            break;
        }
    }
    bgp.shutdown(how, SHUTDOWN_TIME_MAX).await;
    Ok(())
}

fn main() -> Result<()> {
    let (lines, reader) = mpsc::channel(COMMANDS_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(reader))
}
