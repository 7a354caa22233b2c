//! One session with its socket, its counts and the watch that it is seen through.
use std::{
    io,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use super::{
    echo::{EchoLink, Prepared},
    ports::{Kind, Link, is_link_local},
};
use crate::{
    SessionConfig, SessionInfo,
    count::Counts,
    machine::{Echo, Effects, Machine, Settings, Status},
    packet::{Packet, State},
    sys::Received,
};

/// Pause before another try to open what could not be opened (a port that another daemon holds, an address or interface
/// that is not there yet), s: rare, since nothing but an administrator's doing changes it.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// The longest that a closed session keeps telling its peer so, whatever the intervals.
const LINGER_MAX: Duration = Duration::from_secs(3);
/// TTL of what no router has forwarded. Source: RFC 5881 §5.
const TTL_SINGLE_HOP: u8 = 255;

/// A session.
pub(super) struct Peer {
    pub(super) config: SessionConfig,
    info: watch::Sender<SessionInfo>,
    counts: Counts,
    /// Absent until the sockets are there for the first time.
    machine: Option<Machine>,
    link: Option<Link>,
    retry_at: Option<Instant>,
    error: Option<String>,
    warning: Option<String>,
    /// The node returns the peer's echoes.
    loops_echoes: bool,
    echo_link: Option<EchoLink>,
    published: Option<Status>,
    /// Closed: forgotten then at the latest.
    gone_at: Option<Instant>,
}

impl Peer {
    pub(super) fn new(config: SessionConfig, info: watch::Sender<SessionInfo>, counts: Counts) -> Self {
        Self {
            config,
            info,
            counts,
            machine: None,
            link: None,
            retry_at: None,
            error: None,
            warning: None,
            loops_echoes: false,
            echo_link: None,
            published: None,
            gone_at: None,
        }
    }

    /// Whether both would claim the same packets.
    pub(super) fn rivals(&self, other: &SessionConfig) -> bool {
        same_session(&self.config, other)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.gone_at.is_some()
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.gone_at.is_some_and(|at| at <= now || self.machine.as_ref().is_none_or(Machine::is_over))
    }

    pub(super) fn discriminator(&self) -> Option<u32> {
        self.machine.as_ref().map(|machine| machine.status().local_discriminator)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let machine = self.machine.as_ref().and_then(Machine::deadline);
        [machine, self.retry_at, self.gone_at].into_iter().flatten().min()
    }

    /// The sockets are to be opened now.
    pub(super) fn wants_link(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at <= now)
    }

    fn settings(&self) -> Settings {
        let echo = |allowed: bool| self.config.echo_interval.filter(|_| allowed);
        Settings {
            desired_min_tx: self.config.desired_min_tx,
            required_min_rx: self.config.required_min_rx,
            detect_multiplier: self.config.detect_multiplier,
            echo_tx: echo(self.echo_link.is_some()),
            echo_rx: echo(self.loops_echoes),
            passive: self.config.passive,
        }
    }

    /// What there is of the echo function; `None`: it is not asked for.
    pub(super) fn set_echo(&mut self, prepared: Option<Prepared>) {
        let prepared = prepared.unwrap_or(Prepared { loops: false, link: None, warning: None });
        self.loops_echoes = prepared.loops;
        self.echo_link = prepared.link;
        self.warning = prepared.warning;
    }

    /// Whether it was this session's echo that came back.
    pub(super) fn echo_returned(&mut self, echo: &Echo, now: Instant) -> bool {
        let ours = self.machine.as_mut().is_some_and(|machine| machine.echo_returned(echo, now));
        if ours {
            self.counts.echo_in();
        }
        ours
    }

    /// The outcome of opening the sockets. A session that ran before goes on; any other begins.
    pub(super) fn linked(&mut self, link: Result<Link, String>, names: (u32, u64), now: Instant) {
        match link {
            Ok(link) => {
                self.link = Some(link);
                self.retry_at = None;
                self.error = None;
                if self.machine.is_none() {
                    self.machine = Some(Machine::new(self.settings(), names.0, names.1, now));
                }
            }
            Err(error) => {
                self.error = Some(error);
                self.retry_at = Some(now + RETRY_INTERVAL);
            }
        }
        self.publish();
    }

    /// A packet to `local` by `received.interface`, of this kind, could be this session's.
    pub(super) fn accepts(&self, kind: Kind, received: &Received) -> bool {
        let scope = self.link.as_ref().and_then(|link| link.scope);
        Kind::of(&self.config) == kind
            && self.config.peer == received.from.ip()
            && self.config.local.is_none_or(|local| received.to.is_none_or(|to| to == local))
            && scope.is_none_or(|scope| received.interface == Some(scope))
    }

    /// Passive, and has not heard the peer yet.
    pub(super) fn awaits_first_packet(&self) -> bool {
        let unheard = self.machine.as_ref().is_some_and(|machine| machine.status().remote_discriminator == 0);
        self.config.passive && !self.is_closing() && unheard
    }

    /// Whether the TTL proves that the packet has come no further than it may. Source: RFC 5881 §5, RFC 5883 §5.
    pub(super) fn accepts_ttl(&self, ttl: Option<u8>) -> bool {
        let least = if self.config.multihop { self.config.minimum_ttl } else { TTL_SINGLE_HOP };
        ttl.is_some_and(|ttl| ttl >= least)
    }

    pub(super) fn receive(&mut self, packet: &Packet, now: Instant, random: u64) {
        let Some(machine) = &mut self.machine else { return };
        self.counts.packet_in();
        let effects = machine.receive(packet, now, random);
        self.carry_out(&effects, now);
    }

    pub(super) fn tick(&mut self, now: Instant, random: u64) {
        let Some(machine) = &mut self.machine else { return };
        if machine.deadline().is_some_and(|at| at <= now) {
            let effects = machine.tick(now, random);
            self.carry_out(&effects, now);
        }
    }

    pub(super) fn update(&mut self, config: SessionConfig, now: Instant, random: u64) {
        self.config = config;
        let settings = self.settings();
        let Some(machine) = &mut self.machine else { return };
        let effects = machine.update(settings, now, random);
        self.carry_out(&effects, now);
    }

    pub(super) fn close(&mut self, now: Instant, random: u64) {
        if self.is_closing() {
            return;
        }
        self.gone_at = Some(now + LINGER_MAX);
        self.retry_at = None;
        let Some(machine) = &mut self.machine else { return };
        let effects = machine.disable(now, random);
        self.carry_out(&effects, now);
    }

    /// Splits off what outlives a change of addresses: the watch and the counts. The rest can still say goodbye.
    pub(super) fn replaced(mut self) -> (Self, watch::Sender<SessionInfo>, Counts) {
        let (unseen, _) = watch::channel(self.info.borrow().clone());
        let info = std::mem::replace(&mut self.info, unseen);
        let counts = self.counts.clone();
        (self, info, counts)
    }

    /// It panicked: what is left of it is its error.
    pub(super) fn fail(&mut self, error: &str, now: Instant) {
        self.machine = None;
        self.link = None;
        self.published = None;
        self.counts.events(false, 0, 0);
        self.error = Some(error.to_owned());
        self.retry_at = Some(now + RETRY_INTERVAL);
        self.info.send_modify(|info| {
            info.state = State::Down;
            info.error = Some(error.to_owned());
        });
    }

    fn carry_out(&mut self, effects: &Effects, now: Instant) {
        if let (Some(packet), Some(link)) = (&effects.packet, &self.link) {
            match link.send(&packet.encode()) {
                Ok(()) => {
                    self.counts.packet_out();
                    self.error = None;
                }
                Err(error) => self.not_sent(&error, now),
            }
        }
        if let (Some(echo), Some(link)) = (&effects.echo, &self.echo_link) {
            match link.send(echo) {
                Ok(()) => self.counts.echo_out(),
                // Its absence is what the machine goes by.
                Err(error) => self.warning = Some(format!("cannot send echo packets: {error}")),
            }
        }
        self.publish();
    }

    fn not_sent(&mut self, error: &io::Error, now: Instant) {
        self.error = Some(format!("cannot send to {}: {error}", self.config.peer));
        // The socket's address or interface is no more: it may come back with another index.
        if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV | libc::EINVAL)) {
            self.link = None;
            self.retry_at = Some(now + RETRY_INTERVAL);
        }
    }

    /// Shows what has changed to those who watch.
    fn publish(&mut self) {
        let status = self.machine.as_ref().map(Machine::status);
        let shown = self.info.borrow().error == self.error && self.info.borrow().warning == self.warning;
        if status == self.published && shown {
            return;
        }
        if let Some(status) = status {
            let (ups, downs) = self.published.map_or((0, 0), |last| (last.up_events, last.down_events));
            let up = status.state == State::Up;
            self.counts.events(up, status.up_events.saturating_sub(ups), status.down_events.saturating_sub(downs));
        }
        self.published = status;
        let (error, warning) = (self.error.clone(), self.warning.clone());
        self.info.send_modify(|info| {
            info.error = error;
            info.warning = warning;
            if let Some(status) = status {
                show(info, &status);
            }
        });
    }
}

fn show(info: &mut SessionInfo, status: &Status) {
    if info.state != status.state {
        info.since = SystemTime::now();
    }
    info.state = status.state;
    info.remote_state = status.remote_state;
    info.diagnostic = status.diagnostic;
    info.remote_diagnostic = status.remote_diagnostic;
    info.local_discriminator = status.local_discriminator;
    info.remote_discriminator = status.remote_discriminator;
    info.transmit_interval = status.transmit_interval;
    info.detection_time = status.detection_time;
    info.was_up = status.was_up;
    info.admin_down_by_peer = status.admin_down_by_peer;
    info.echo = status.echo;
}

/// Whether two configurations are of one session, with at most other timers.
pub(super) fn same_session(one: &SessionConfig, other: &SessionConfig) -> bool {
    (one.peer, one.local, &one.interface, one.multihop) == (other.peer, other.local, &other.interface, other.multihop)
}

/// What is wrong with a configuration, in words.
pub(super) fn check(config: &SessionConfig) -> Result<(), String> {
    let SessionConfig { peer, local, interface, multihop, .. } = config;
    let unusable = peer.is_unspecified() || peer.is_multicast() || *peer == IpAddr::from([255; 4]);
    if unusable {
        return Err(format!("{peer} is not the address of a peer"));
    }
    if let Some(local) = local
        && local.is_ipv4() != peer.is_ipv4()
    {
        return Err(format!("{local} and {peer} are of different families"));
    }
    if is_link_local(*peer) && *multihop {
        return Err(format!("{peer} is link-local, and such a peer is never more than one hop away"));
    }
    if is_link_local(*peer) && interface.is_none() {
        return Err(format!("{peer} is link-local: its interface must be named"));
    }
    if *multihop && config.echo_interval.is_some() {
        return Err("echo works for a single hop only".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_says_what_is_wrong() {
        let of = |peer: &str| SessionConfig::new(peer.parse().unwrap());
        let eth0 = || Some("eth0".to_owned());
        for (config, expected) in [
            (of("192.0.2.1"), None),
            (of("2001:db8::1"), None),
            (SessionConfig { interface: eth0(), ..of("fe80::1") }, None),
            (of("fe80::1"), Some("interface")),
            (SessionConfig { interface: eth0(), multihop: true, ..of("fe80::1") }, Some("link-local")),
            (of("0.0.0.0"), Some("not the address")),
            (of("ff02::1"), Some("not the address")),
            (SessionConfig { local: "::1".parse().ok(), ..of("192.0.2.1") }, Some("families")),
            (
                SessionConfig { multihop: true, echo_interval: Some(Duration::from_millis(50)), ..of("192.0.2.1") },
                Some("single hop"),
            ),
        ] {
            let found = check(&config).err();
            match expected {
                None => assert_eq!(found, None, "{config:?}"),
                Some(words) => {
                    assert!(found.as_ref().is_some_and(|text| text.contains(words)), "{config:?}: {found:?}")
                }
            }
        }
    }
}
