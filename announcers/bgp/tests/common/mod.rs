//! What every test of the announcer needs.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "every test binary uses its own part")]
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ferrocast_bgp::{
    BgpAnnouncer, Dial, DialTo, Link, PeerSet, TcpDial, Tuning,
    router::{Rib, Router, RouterConfig},
};
use ferrocast_bgp_proto::{
    Families,
    fsm::Retry,
    tools::Update,
    wire::{Kind, Message, Notification, Open},
};
use ferrocast_core::{
    actor::Supervisor,
    announce::{Announcement, AnnouncementState, Announcer as _, Desired, Observed, TargetObserved, Terms},
    config::Peer,
    model::ServiceKey,
};
use imbl::OrdMap;
use ipnet::IpNet;
use tokio::sync::watch;

/// Nothing here takes longer; a test that waits for more is broken and says so instead of hanging.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Our AS in every test.
pub const AS: u32 = 64_512;
/// The routers' AS in every test.
pub const ROUTER_AS: u32 = 4_200_000_001;

/// Retries at once: tests restart what they dial.
pub fn quick() -> Tuning {
    Tuning {
        retry: Retry {
            delay_min: Duration::from_millis(20),
            delay_max: Duration::from_millis(100),
            connect_timeout: Duration::from_secs(1),
            ..Retry::default()
        },
        ..Tuning::default()
    }
}

pub fn peer(name: &str, to: SocketAddr) -> Peer {
    Peer { dual_stack: true, ..Peer::new(name, AS, ROUTER_AS, to) }
}

pub fn peer_set(peers: impl IntoIterator<Item = Peer>) -> Arc<PeerSet> {
    Arc::new(PeerSet {
        node_name: "node-1".into(),
        internal_ips: vec!["192.0.2.11".parse().unwrap(), "fd00::11".parse().unwrap()],
        peers: peers.into_iter().map(|p| (p.name.clone(), Arc::new(p))).collect(),
    })
}

pub fn announcement(terms: &Arc<[Terms]>, state: AnnouncementState) -> Arc<Announcement> {
    let services = Arc::new(BTreeSet::from([ServiceKey::new("default", "web")]));
    Arc::new(Announcement { state, terms: terms.clone(), services, weight: None })
}

/// Terms that every peer gets, without anything else.
pub fn plain() -> Arc<[Terms]> {
    Arc::new([Terms::default()])
}

pub fn v4(i: u32) -> IpNet {
    IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + i)), 32).unwrap()
}

pub fn v6(i: u32) -> IpNet {
    IpNet::new(IpAddr::V6(Ipv6Addr::from_bits((0xfd50 << 112) + u128::from(i))), 128).unwrap()
}

pub fn desired(generation: u64, prefixes: impl IntoIterator<Item = IpNet>) -> Arc<Desired> {
    let active = announcement(&plain(), AnnouncementState::Active);
    Arc::new(Desired {
        generation,
        announcements: prefixes.into_iter().map(|p| (p, active.clone())).collect(),
        ..Desired::default()
    })
}

pub fn with(base: &Desired, change: impl FnOnce(&mut OrdMap<IpNet, Arc<Announcement>>)) -> Arc<Desired> {
    let mut next = base.clone();
    next.generation += 1;
    change(&mut next.announcements);
    Arc::new(next)
}

/// An announcer with what keeps it alive.
pub struct Node {
    pub supervisor: Supervisor,
    pub announcer: Arc<BgpAnnouncer>,
    pub peers: watch::Sender<Arc<PeerSet>>,
}

impl Node {
    pub fn start(peers: impl IntoIterator<Item = Peer>) -> Self {
        Self::start_with(peers, quick(), Arc::new(TcpDial))
    }

    pub fn start_with(peers: impl IntoIterator<Item = Peer>, tuning: Tuning, dial: Arc<dyn Dial>) -> Self {
        let mut supervisor = Supervisor::default();
        let peers = watch::Sender::new(peer_set(peers));
        let announcer = BgpAnnouncer::start_with(&mut supervisor, peers.clone(), tuning, dial);
        Self { supervisor, announcer, peers }
    }

    pub async fn apply(&self, desired: &Arc<Desired>) {
        self.announcer.apply(desired.clone()).await.unwrap();
    }

    /// Waits until what is observed of `peer` fits.
    pub async fn observed(&self, peer: &str, fits: impl Fn(&TargetObserved) -> bool) -> TargetObserved {
        let mut observed = self.announcer.observe();
        let fits = |o: &Arc<Observed>| o.targets.get(peer).is_some_and(&fits);
        let waited = tokio::time::timeout(PATIENCE, observed.wait_for(fits)).await.map(|r| r.map(|o| o.clone()));
        match waited {
            Ok(Ok(now)) => now.targets[peer].clone(),
            _ => panic!("never observed; now: {:?}", self.announcer.observe().borrow().targets),
        }
    }

    pub async fn reached(&self, peer: &str, generation: u64) -> TargetObserved {
        self.observed(peer, |o| o.generation >= generation).await
    }

    pub fn updates_sent(&self, peer: &str) -> u64 {
        self.announcer.session(&peer.into()).unwrap().counts().sent[1]
    }
}

/// A router with what keeps it alive.
pub struct Lab {
    pub supervisor: Supervisor,
    pub router: Router,
}

impl Lab {
    pub async fn start() -> Self {
        Self::start_with(config()).await.unwrap()
    }

    pub async fn start_with(config: RouterConfig) -> std::io::Result<Self> {
        let mut supervisor = Supervisor::default();
        let router = Router::start(&mut supervisor, config).await?;
        Ok(Self { supervisor, router })
    }

    pub fn address(&self) -> SocketAddr {
        self.router.address()
    }

    /// Waits until the RIB fits.
    pub async fn rib(&self, fits: impl Fn(&Rib) -> bool) -> Arc<Rib> {
        let mut rib = self.router.rib();
        let waited = tokio::time::timeout(PATIENCE, rib.wait_for(|r| fits(r))).await.map(|r| r.map(|r| r.clone()));
        match waited {
            Ok(Ok(now)) => now,
            _ => {
                let now = self.router.rib().borrow().clone();
                panic!("RIB never fits: {} routes, peers {:?}", now.routes.len(), now.peers)
            }
        }
    }
}

pub fn config() -> RouterConfig {
    RouterConfig::new("127.0.0.1:0".parse().unwrap(), ROUTER_AS)
}

pub type Targets = BTreeMap<Arc<str>, TargetObserved>;

/// A hand-made peer: speaks when told to.
pub struct Puppet<S> {
    pub stream: S,
    inbox: bytes::BytesMut,
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Puppet<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, inbox: bytes::BytesMut::new() }
    }

    pub async fn send(&mut self, message: &Message<'_>) {
        use tokio::io::AsyncWriteExt as _;
        let mut octets = bytes::BytesMut::new();
        message.encode(&mut octets);
        self.stream.write_all(&octets).await.unwrap();
    }

    /// The next message: its kind and its octets with the header. `None`: closed.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        use tokio::io::AsyncReadExt as _;
        loop {
            if let Some((_, len)) = Message::decode(&self.inbox).unwrap() {
                return Some(self.inbox.split_to(len).to_vec());
            }
            if self.stream.read_buf(&mut self.inbox).await.is_ok_and(|len| len > 0) {
                continue;
            }
            return None;
        }
    }

    /// Skips to the next NOTIFICATION. `None`: closed without one.
    pub async fn notification(&mut self) -> Option<Notification> {
        while let Some(octets) = self.next().await {
            if let Ok(Some((Message::Notification(notification), _))) = Message::decode(&octets) {
                return Some(notification);
            }
        }
        None
    }

    /// Skips to the next UPDATE.
    pub async fn update(&mut self) -> Update {
        loop {
            let octets = self.next().await.expect("closed before an UPDATE came");
            if let Ok(Some((Message::Update(body), _))) = Message::decode(&octets) {
                return Update::decode(body, true).unwrap();
            }
        }
    }

    /// Answers OPEN and KEEPALIVE as a router would.
    pub async fn establish(&mut self, open: Open) {
        self.send(&Message::Open(open)).await;
        self.send(&Message::Keepalive).await;
        for kind in [Kind::Open, Kind::Keepalive] {
            let octets = self.next().await.expect("closed during the handshake");
            let (message, _) = Message::decode(&octets).unwrap().unwrap();
            assert_eq!(message.kind(), kind, "{message:?}");
        }
    }
}

pub fn open(hold_time_s: u16, families: Families) -> Open {
    Open::new(ROUTER_AS, hold_time_s, Ipv4Addr::new(192, 0, 2, 1), families)
}

/// Reaches peers at [`PIPE`] through memory, so that time can be paused and nothing reads unless the test does; all others
/// over TCP.
#[derive(Clone)]
pub struct Pipes {
    ends: tokio::sync::mpsc::Sender<tokio::io::DuplexStream>,
    pub dials: Arc<std::sync::atomic::AtomicUsize>,
}

/// The address behind which there is a pipe.
pub const PIPE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 179);
/// Octets that fit into a pipe before somebody reads: one message.
const PIPE_LEN: usize = 4096;

impl Pipes {
    pub fn new() -> (Self, tokio::sync::mpsc::Receiver<tokio::io::DuplexStream>) {
        let (ends, accepted) = tokio::sync::mpsc::channel(1_000);
        (Self { ends, dials: Arc::default() }, accepted)
    }
}

impl Dial for Pipes {
    fn dial(&self, to: DialTo) -> futures::future::BoxFuture<'static, std::io::Result<Link>> {
        if to.remote != PIPE {
            return TcpDial.dial(to);
        }
        self.dials.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (ours, theirs) = tokio::io::duplex(PIPE_LEN);
        let accepted = self.ends.try_send(theirs);
        Box::pin(async move {
            accepted.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))?;
            Ok(Link { stream: Box::new(ours), local: "192.0.2.11".parse().unwrap(), control: None })
        })
    }
}
