//! What is counted, for the session's owner and for Prometheus, under MetalLB's names.
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use metrics::{Counter, Gauge};

/// Counts of one session since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Control packets accepted.
    pub packets_in: u64,
    /// Control packets sent.
    pub packets_out: u64,
    /// Echo packets of ours that came back.
    pub echo_in: u64,
    /// Echo packets sent.
    pub echo_out: u64,
    /// How often the session came Up.
    pub up_events: u64,
    /// How often it ceased to be Up.
    pub down_events: u64,
}

/// Counts of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Packets that were for no session, or that RFC 5880 §6.8.6 or a TTL says to discard.
    pub discarded: u64,
    /// The latest that the thread ever woke after the time it wanted, µs.
    pub late_max_us: u64,
}

#[derive(Debug, Default)]
pub(crate) struct NodeCounts {
    discarded: AtomicU64,
    late_max_us: AtomicU64,
}

impl NodeCounts {
    pub(crate) fn discard(&self, reason: &'static str) {
        self.discarded.fetch_add(1, Relaxed);
        metrics::counter!("ferrocast_bfd_discarded_total", "reason" => reason).increment(1);
    }

    pub(crate) fn late(&self, us: u64) {
        self.late_max_us.fetch_max(us, Relaxed);
    }

    pub(crate) fn read(&self) -> NodeCounters {
        NodeCounters { discarded: self.discarded.load(Relaxed), late_max_us: self.late_max_us.load(Relaxed) }
    }
}

/// A count that its owner can read and Prometheus too.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    packets_in: AtomicU64,
    packets_out: AtomicU64,
    echo_in: AtomicU64,
    echo_out: AtomicU64,
    up_events: AtomicU64,
    down_events: AtomicU64,
}

impl Shared {
    pub(crate) fn read(&self) -> Counters {
        Counters {
            packets_in: self.packets_in.load(Relaxed),
            packets_out: self.packets_out.load(Relaxed),
            echo_in: self.echo_in.load(Relaxed),
            echo_out: self.echo_out.load(Relaxed),
            up_events: self.up_events.load(Relaxed),
            down_events: self.down_events.load(Relaxed),
        }
    }
}

/// The driver's end of a session's counts.
#[derive(Clone)]
pub(crate) struct Counts {
    shared: Arc<Shared>,
    up: Gauge,
    packets_in: Counter,
    packets_out: Counter,
    echo_in: Counter,
    echo_out: Counter,
    up_events: Counter,
    down_events: Counter,
}

impl Counts {
    /// `peer` is the label of that name.
    pub(crate) fn new(shared: Arc<Shared>, peer: &str) -> Self {
        let labels = || [("peer", peer.to_owned()), ("vrf", String::new())];
        Self {
            shared,
            up: metrics::gauge!("metallb_bfd_session_up", &labels()),
            packets_in: metrics::counter!("metallb_bfd_control_packet_input", &labels()),
            packets_out: metrics::counter!("metallb_bfd_control_packet_output", &labels()),
            echo_in: metrics::counter!("metallb_bfd_echo_packet_input", &labels()),
            echo_out: metrics::counter!("metallb_bfd_echo_packet_output", &labels()),
            up_events: metrics::counter!("metallb_bfd_session_up_events", &labels()),
            down_events: metrics::counter!("metallb_bfd_session_down_events", &labels()),
        }
    }

    pub(crate) fn packet_in(&self) {
        self.shared.packets_in.fetch_add(1, Relaxed);
        self.packets_in.increment(1);
    }

    pub(crate) fn packet_out(&self) {
        self.shared.packets_out.fetch_add(1, Relaxed);
        self.packets_out.increment(1);
    }

    pub(crate) fn echo_in(&self) {
        self.shared.echo_in.fetch_add(1, Relaxed);
        self.echo_in.increment(1);
    }

    pub(crate) fn echo_out(&self) {
        self.shared.echo_out.fetch_add(1, Relaxed);
        self.echo_out.increment(1);
    }

    /// The session's state as of now, and how often it came Up and ceased to be since the last call.
    pub(crate) fn events(&self, up: bool, came_up: u64, went_down: u64) {
        self.up.set(if up { 1.0 } else { 0.0 });
        self.shared.up_events.fetch_add(came_up, Relaxed);
        self.shared.down_events.fetch_add(went_down, Relaxed);
        self.up_events.increment(came_up);
        self.down_events.increment(went_down);
    }
}
