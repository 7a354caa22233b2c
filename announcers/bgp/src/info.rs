//! What is known about a session: for HTTP, status and metrics.
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use ferrocast_bgp_proto::{
    Family,
    fsm::{Negotiated, State},
    wire::{Disposition, Kind, NextHop, PathAttributes},
};
use ferrocast_core::announce::Announcement;
use imbl::OrdMap;
use ipnet::IpNet;
use metrics::{Counter, Gauge, counter, gauge};

use crate::{link::Progress, resolve::Terrain};

/// A session as it was at one moment.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The BGPPeer's name.
    pub peer: Arc<str>,
    /// The peer's address; of an unnumbered one once it was found.
    pub address: Option<IpAddr>,
    /// The interface of an unnumbered peer.
    pub interface: Option<Arc<str>>,
    /// The peer's port.
    pub port: u16,
    /// The VRF.
    pub vrf: Option<Arc<str>>,
    /// The peer's configured AS.
    pub peer_as: Option<u32>,
    /// The peer is expected to dial.
    pub passive: bool,
    /// State of the session.
    pub state: State,
    /// Since when it has been in that state.
    pub since: SystemTime,
    /// Why the last attempt or session ended, or why none is made, in words.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<SystemTime>,
    /// Our address, once connected.
    pub local_address: Option<IpAddr>,
    /// What was agreed upon, while Established.
    pub negotiated: Option<Arc<Negotiated>>,
    /// Prefixes that the peer has from us, by [`Family::ALL`].
    pub announced: [usize; Family::ALL.len()],
    /// When the last End-of-RIB was sent.
    pub end_of_rib_at: Option<SystemTime>,
    /// The BFD session beside it.
    pub bfd: Option<ferrocast_bfd::SessionInfo>,
    pub(crate) routes: Option<Routes>,
    pub(crate) counters: Arc<Counters>,
}

/// What the peer was told, before it is resolved.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    pub(crate) sent: OrdMap<IpNet, Arc<Announcement>>,
    pub(crate) terrain: Arc<Terrain>,
}

/// One route as the peer has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRoute {
    /// The prefix.
    pub prefix: IpNet,
    /// Where it leads.
    pub next_hop: NextHop,
    /// What is said about it.
    pub attributes: PathAttributes,
}

impl SessionInfo {
    /// Messages and events so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.counts()
    }

    /// Every route that the peer has from us, in the order of the prefixes; worked out when asked for.
    pub fn routes(&self) -> impl Iterator<Item = SentRoute> {
        self.routes.iter().flat_map(|routes| {
            routes.sent.iter().filter_map(|(prefix, announcement)| routes.terrain.route(prefix, announcement))
        })
    }

    /// The route to `prefix` as the peer has it from us.
    #[must_use]
    pub fn route(&self, prefix: &IpNet) -> Option<SentRoute> {
        let routes = self.routes.as_ref()?;
        routes.terrain.route(prefix, routes.sent.get(prefix)?)
    }
}

/// Messages and events since the peer was last configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages received, by [`Kind::ALL`].
    pub received: [u64; Kind::ALL.len()],
    /// Messages sent, by [`Kind::ALL`].
    pub sent: [u64; Kind::ALL.len()],
    /// Received UPDATEs with a fault that leaves the session up: attribute discard, treat-as-withdraw (RFC 7606).
    pub malformed: [u64; 2],
    /// Times that an Established session was lost.
    pub flaps: u64,
    /// Octets received and sent.
    pub octets: [u64; 2],
}

/// Counts and their metrics, which are MetalLB's (FRR mode) where MetalLB has the thing.
pub(crate) struct Counters {
    received: [AtomicU64; Kind::ALL.len()],
    sent: [AtomicU64; Kind::ALL.len()],
    malformed: [AtomicU64; 2],
    flaps: AtomicU64,
    octets: [AtomicU64; 2],
    metrics: Metrics,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.counts().fmt(f)
    }
}

struct Metrics {
    up: Gauge,
    announced: Gauge,
    received: [Counter; Kind::ALL.len()],
    sent: [Counter; Kind::ALL.len()],
    received_total: Counter,
    sent_total: Counter,
    malformed: [Counter; 2],
    flaps: Counter,
    octets: [Counter; 2],
}

const MALFORMED: [Disposition; 2] = [Disposition::AttributeDiscard, Disposition::TreatAsWithdraw];

impl Metrics {
    /// `peer` is `address:port` or an interface.
    fn new(peer: &str, vrf: &str) -> Self {
        let labels = || [("peer", peer.to_owned()), ("vrf", vrf.to_owned())];
        Self {
            up: gauge!("metallb_bgp_session_up", &labels()),
            announced: gauge!("metallb_bgp_announced_prefixes_total", &labels()),
            // in the order of Kind::ALL
            received: [
                counter!("metallb_bgp_opens_received", &labels()),
                counter!("metallb_bgp_updates_total_received", &labels()),
                counter!("ferrocast_bgp_notifications_received_total", &labels()),
                counter!("metallb_bgp_keepalives_received", &labels()),
                counter!("ferrocast_bgp_route_refresh_received_total", &labels()),
            ],
            sent: [
                counter!("metallb_bgp_opens_sent", &labels()),
                counter!("metallb_bgp_updates_total", &labels()),
                counter!("metallb_bgp_notifications_sent", &labels()),
                counter!("metallb_bgp_keepalives_sent", &labels()),
                counter!("metallb_bgp_route_refresh_sent", &labels()),
            ],
            received_total: counter!("metallb_bgp_total_received", &labels()),
            sent_total: counter!("metallb_bgp_total_sent", &labels()),
            malformed: MALFORMED.map(|disposition| {
                let mut labels = labels().to_vec();
                labels.push(("disposition", disposition.label().to_owned()));
                counter!("ferrocast_bgp_updates_malformed_total", &labels)
            }),
            flaps: counter!("ferrocast_bgp_session_flaps_total", &labels()),
            octets: [
                counter!("ferrocast_bgp_octets_received_total", &labels()),
                counter!("ferrocast_bgp_octets_sent_total", &labels()),
            ],
        }
    }
}

impl Counters {
    pub(crate) fn new(peer: &str, vrf: &str) -> Self {
        let metrics = Metrics::new(peer, vrf);
        metrics.up.set(0.0);
        metrics.announced.set(0.0);
        Self {
            received: Default::default(),
            sent: Default::default(),
            malformed: Default::default(),
            flaps: AtomicU64::new(0),
            octets: Default::default(),
            metrics,
        }
    }

    pub(crate) fn received(&self, kind: Kind) {
        self.received[kind.index()].fetch_add(1, Ordering::Relaxed);
        self.metrics.received[kind.index()].increment(1);
        self.metrics.received_total.increment(1);
    }

    pub(crate) fn sent(&self, kind: Kind, messages: u64) {
        self.sent[kind.index()].fetch_add(messages, Ordering::Relaxed);
        self.metrics.sent[kind.index()].increment(messages);
        self.metrics.sent_total.increment(messages);
    }

    /// Octets have come or gone.
    pub(crate) fn moved(&self, progress: &Progress) {
        let (index, octets) = match progress {
            Progress::Read(octets) => (0, *octets),
            Progress::Wrote(octets) => (1, *octets),
            Progress::Ended(_) => return,
        };
        self.octets[index].fetch_add(octets as u64, Ordering::Relaxed);
        self.metrics.octets[index].increment(octets as u64);
    }

    pub(crate) fn disposed(&self, disposition: Disposition) {
        if let Some(index) = MALFORMED.iter().position(|d| *d == disposition) {
            self.malformed[index].fetch_add(1, Ordering::Relaxed);
            self.metrics.malformed[index].increment(1);
        }
    }

    pub(crate) fn up(&self) {
        self.metrics.up.set(1.0);
    }

    pub(crate) fn lost(&self) {
        self.flaps.fetch_add(1, Ordering::Relaxed);
        self.metrics.flaps.increment(1);
    }

    pub(crate) fn down(&self) {
        self.metrics.up.set(0.0);
        self.metrics.announced.set(0.0);
    }

    pub(crate) fn announced(&self, prefixes: usize) {
        self.metrics.announced.set(f64::from(u32::try_from(prefixes).unwrap_or(u32::MAX)));
    }

    fn counts(&self) -> Counts {
        let load = |all: &[AtomicU64]| all.iter().map(|n| n.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let array = |all: &[AtomicU64; Kind::ALL.len()]| load(all).try_into().unwrap_or_default();
        Counts {
            received: array(&self.received),
            sent: array(&self.sent),
            malformed: load(&self.malformed).try_into().unwrap_or_default(),
            flaps: self.flaps.load(Ordering::Relaxed),
            octets: load(&self.octets).try_into().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::{Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use std::{collections::BTreeSet, sync::Mutex};

    #[derive(Default)]
    struct Names(Mutex<BTreeSet<String>>);

    impl Names {
        fn add(&self, key: &Key) {
            let labels: Vec<_> = key.labels().map(|l| format!("{}={:?}", l.key(), l.value())).collect();
            self.0.lock().unwrap().insert(format!("{}{{{}}}", key.name(), labels.join(",")));
        }
    }

    impl Recorder for Names {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            self.add(key);
            Counter::noop()
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            self.add(key);
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn metrics_have_metallbs_names_and_labels() {
        let names = Names::default();
        metrics::with_local_recorder(&names, || drop(Counters::new("192.0.2.1:179", "")));
        let names = names.0.into_inner().unwrap();
        for name in [
            "session_up",
            "announced_prefixes_total",
            "opens_sent",
            "opens_received",
            "notifications_sent",
            "updates_total",
            "updates_total_received",
            "keepalives_sent",
            "keepalives_received",
            "route_refresh_sent",
            "total_sent",
            "total_received",
        ] {
            let name = format!("metallb_bgp_{name}{{peer=\"192.0.2.1:179\",vrf=\"\"}}");
            assert!(names.contains(&name), "{name} is not among {names:#?}");
        }
        assert_eq!(names.iter().filter(|name| name.starts_with("ferrocast_bgp_")).count(), 7);
    }

    #[test]
    fn counts_are_kept_by_kind() {
        let counters = Counters::new("[fd00::1]:179", "red");
        counters.received(Kind::Open);
        counters.sent(Kind::Update, 13);
        counters.disposed(Disposition::Valid);
        counters.disposed(Disposition::TreatAsWithdraw);
        counters.lost();
        let counts = counters.counts();
        assert_eq!((counts.received[Kind::Open.index()], counts.sent[Kind::Update.index()]), (1, 13));
        assert_eq!((counts.malformed, counts.flaps), ([0, 1], 1));
    }
}
