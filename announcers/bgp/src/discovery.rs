//! Finds the router at the other end of a link by its router advertisements, and sends some so that it finds us (RFC 4861).
//!
//! Unnumbered peering has no addresses to configure: each side learns the other's link-local one. FRR does not even dial or
//! answer before it has seen an advertisement. Ours say "no default router" (lifetime 0): no host takes them for more.
use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::{net::UdpSocket, time::Instant};

/// Every node on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Every router on the link.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// ICMPv6 types. Source: RFC 4861 §4.1, §4.2.
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Hop limit of every message of neighbour discovery: nobody has forwarded it. Source: RFC 4861 §6.1.
const HOP_LIMIT: u32 = 255;
/// The first advertisements, so that the other side need not wait. Source: RFC 4861 §6.2.4.
const FAST_COUNT: u8 = 3;
/// Between those.
const FAST_INTERVAL: Duration = Duration::from_secs(1);
/// Between all others, before jitter; well below what routers consider lost.
const INTERVAL: Duration = Duration::from_secs(10);
/// Answers to solicitations are at least so far apart. Source: RFC 4861 §10 (MIN_DELAY_BETWEEN_RAS is 3 s; a link with two
/// ends bears more).
const ANSWER_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// A router that was not heard for so long gives its place to another: RFC 4861 §6.2.1 lets routers be silent for 30 minutes.
const SILENCE_MAX: Duration = Duration::from_secs(1_800);
/// Longest message that is read: what matters stands in front.
const READ_LEN: usize = 256;
/// An advertisement: type, code, checksum (the kernel's), hop limit unspecified, no flags, lifetime 0, two timers unspecified.
const ADVERTISEMENT: [u8; 16] = [ROUTER_ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// A solicitation: type, code, checksum, reserved.
const SOLICITATION: [u8; 8] = [ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];

/// Drops what was forwarded, in the kernel: loads the hop limit of the IPv6 header, accepts 255 only.
const ONLY_FROM_THE_LINK: [SockFilter; 4] = {
    const LOAD_OCTET_ABSOLUTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `SKF_NET_OFF` of linux/filter.h, and the hop limit's place.
    const HOP_LIMIT_AT: u32 = 0xfff0_0000 + 7;
    [
        SockFilter::new(LOAD_OCTET_ABSOLUTE, 0, 0, HOP_LIMIT_AT),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, HOP_LIMIT),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
};

/// Discovery on one interface.
pub(crate) struct Discovery {
    socket: UdpSocket,
    interface: Arc<str>,
    index: u32,
    next: Instant,
    fast_left: u8,
    answer_allowed: Instant,
    neighbour: Option<(Ipv6Addr, Instant)>,
}

impl Discovery {
    /// Begins on `interface`.
    ///
    /// # Errors
    /// There is no such interface, or the process may not open a raw socket.
    pub(crate) fn open(interface: &Arc<str>) -> io::Result<Self> {
        let index = index_of(interface)?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).map_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                io::Error::new(error.kind(), "router advertisements need the capability NET_RAW")
            } else {
                error
            }
        })?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.attach_filter(&ONLY_FROM_THE_LINK)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_unicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_loop_v6(false)?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket))?;
        let now = Instant::now();
        Ok(Self {
            socket,
            interface: interface.clone(),
            index,
            next: now,
            fast_left: FAST_COUNT,
            answer_allowed: now,
            neighbour: None,
        })
    }

    /// The router at the other end, with the interface as its scope.
    pub(crate) fn neighbour(&self, port: u16) -> Option<SocketAddr> {
        self.neighbour.map(|(ip, _)| SocketAddrV6::new(ip, port, 0, self.index).into())
    }

    /// Sends or hears something; returns when the neighbour is another than before.
    ///
    /// # Cancellation
    /// Safe: all progress is in `self`.
    pub(crate) async fn changed(&mut self) {
        let before = self.neighbour.map(|(ip, _)| ip);
        loop {
            let mut buffer = [0; READ_LEN];
            tokio::select! {
                () = tokio::time::sleep_until(self.next) => self.advertise(),
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((len, SocketAddr::V6(from))) => self.hear(&buffer[..len], *from.ip()),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(interface = %self.interface, %error, "cannot hear router advertisements");
                        self.next = self.next.min(Instant::now() + FAST_INTERVAL);
                        tokio::time::sleep(FAST_INTERVAL).await;
                    }
                },
            }
            if self.neighbour.map(|(ip, _)| ip) != before {
                return;
            }
        }
    }

    fn advertise(&mut self) {
        let first = self.fast_left == FAST_COUNT;
        self.send(&ADVERTISEMENT, ALL_NODES);
        if first {
            self.send(&SOLICITATION, ALL_ROUTERS);
        }
        self.fast_left = self.fast_left.saturating_sub(1);
        let interval = if self.fast_left > 0 { FAST_INTERVAL } else { INTERVAL.mul_f64(1.0 - fastrand::f64() / 4.0) };
        self.next = Instant::now() + interval;
        if self.neighbour.is_some_and(|(_, heard)| heard.elapsed() > SILENCE_MAX) {
            self.neighbour = None;
        }
    }

    fn send(&self, message: &[u8], to: Ipv6Addr) {
        let to = SocketAddrV6::new(to, 0, 0, self.index);
        if let Err(error) = self.socket.try_send_to(message, to.into()) {
            tracing::debug!(interface = %self.interface, %error, "cannot send a router advertisement");
        }
    }

    fn hear(&mut self, message: &[u8], from: Ipv6Addr) {
        let now = Instant::now();
        match message {
            [ROUTER_ADVERTISEMENT, 0, ..] if message.len() >= ADVERTISEMENT.len() && from.is_unicast_link_local() => {
                match &mut self.neighbour {
                    Some((known, heard)) if *known == from => *heard = now,
                    // a third router on what should be a link with two ends: the first one stays
                    Some((_, heard)) if heard.elapsed() < 2 * INTERVAL => {}
                    _ => {
                        tracing::info!(interface = %self.interface, neighbour = %from, "found a router");
                        self.neighbour = Some((from, now));
                    }
                }
            }
            [ROUTER_SOLICITATION, 0, ..] if now >= self.answer_allowed => {
                self.answer_allowed = now + ANSWER_INTERVAL_MIN;
                self.next = now;
            }
            _ => {}
        }
    }
}

/// The number of an interface.
///
/// # Errors
/// There is none of that name, or none with an address.
pub(crate) fn index_of(interface: &str) -> io::Result<u32> {
    let found = if_addrs::get_if_addrs()?.into_iter().find(|i| i.name == interface).and_then(|i| i.index);
    found.ok_or_else(|| {
        let text = format!("there is no interface {interface:?} with an address on this node");
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}
