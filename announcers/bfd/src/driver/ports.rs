//! The UDP sockets: one per family and port to receive on, one per session to send from. Source: RFC 5881 §4, RFC 5883 §5.
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd as _, BorrowedFd},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{SessionConfig, sys};

/// Control packets to a neighbour on the link.
const PORT_SINGLE_HOP: u16 = 3_784;
/// Control packets to a peer further away.
const PORT_MULTIHOP: u16 = 4_784;
/// Lowest source port; the highest is 65535.
const SOURCE_PORT_MIN: u16 = 49_152;
/// Source ports tried before giving up: of 16,384 hardly more than one in four can be taken.
const SOURCE_PORTS_TRIED_MAX: u16 = 64;
/// TTL and hop limit of what we send: the receiver's proof that nobody forwarded it (RFC 5082).
const TTL: u8 = 255;
/// Class selector 6, network control, as routers give it to their protocols (RFC 4594 §3.2).
const TRAFFIC_CLASS: u32 = 0xc0;
/// Room for packets that arrive while the thread sleeps, octets: some thousand packets.
const RECEIVE_BUFFER_LEN: usize = 1 << 20;
/// The sending sockets receive nothing that anybody reads.
const UNUSED_BUFFER_LEN: usize = 1;

/// Which receiving socket a session needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) ipv4: bool,
    pub(super) multihop: bool,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [
        Self { ipv4: true, multihop: false },
        Self { ipv4: false, multihop: false },
        Self { ipv4: true, multihop: true },
        Self { ipv4: false, multihop: true },
    ];

    pub(super) fn of(config: &SessionConfig) -> Self {
        Self { ipv4: config.peer.is_ipv4(), multihop: config.multihop }
    }

    fn place(self) -> usize {
        usize::from(!self.ipv4) + 2 * usize::from(self.multihop)
    }

    const fn port(self) -> u16 {
        if self.multihop { PORT_MULTIHOP } else { PORT_SINGLE_HOP }
    }

    fn unspecified(self) -> IpAddr {
        if self.ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
    }
}

fn udp(ipv4: bool) -> io::Result<Socket> {
    let domain = if ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if !ipv4 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// The receiving sockets, each open while a session needs it.
#[derive(Default)]
pub(super) struct Listeners([Option<Socket>; 4]);

impl Listeners {
    /// Opens the socket for `kind` if it is not.
    pub(super) fn ensure(&mut self, kind: Kind) -> Result<(), String> {
        let place = &mut self.0[kind.place()];
        if place.is_none() {
            *place = Some(listen(kind).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("UDP port {} is taken: another BFD daemon runs on this node", kind.port())
                }
                _ => format!("cannot listen on UDP port {}: {error}", kind.port()),
            })?);
        }
        Ok(())
    }

    pub(super) fn close(&mut self, kind: Kind) {
        self.0[kind.place()] = None;
    }

    pub(super) fn get(&self, kind: Kind) -> Option<&Socket> {
        self.0[kind.place()].as_ref()
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().flatten().map(|socket| socket.as_fd())
    }
}

fn listen(kind: Kind) -> io::Result<Socket> {
    let socket = udp(kind.ipv4)?;
    sys::set_receive_details(&socket, kind.ipv4)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_LEN)?;
    // No address reuse: two daemons on one port would steal each other's packets.
    socket.bind(&SocketAddr::new(kind.unspecified(), kind.port()).into())?;
    Ok(socket)
}

/// The way to one peer.
pub(super) struct Link {
    socket: Socket,
    target: SockAddr,
    /// The interface that packets must come in by: of a link-local peer.
    pub(super) scope: Option<u32>,
}

impl Link {
    /// Opens a socket that keeps one source port for as long as the session lasts.
    ///
    /// # Errors
    /// In words.
    pub(super) fn open(config: &SessionConfig, random: u16) -> Result<Self, String> {
        let index = match &config.interface {
            None => None,
            Some(name) => Some(sys::interface_index(name).map_err(|error| format!("interface {name}: {error}"))?),
        };
        let kind = Kind::of(config);
        let cannot = |error: io::Error| format!("cannot open a UDP socket: {error}");
        let socket = udp(kind.ipv4).map_err(cannot)?;
        set_sending_options(&socket, kind.ipv4).map_err(cannot)?;
        if let Some(name) = &config.interface {
            socket
                .bind_device(Some(name.as_bytes()))
                .map_err(|error| format!("cannot bind to interface {name}: {error}"))?;
        }
        let local = config.local.unwrap_or(kind.unspecified());
        bind(&socket, local, index, random).map_err(|error| format!("cannot send from {local}: {error}"))?;
        let scope = index.filter(|_| is_link_local(config.peer));
        Ok(Self { socket, target: scoped(config.peer, kind.port(), index).into(), scope })
    }

    pub(super) fn send(&self, octets: &[u8]) -> io::Result<()> {
        self.socket.send_to(octets, &self.target).map(drop)
    }
}

fn set_sending_options(socket: &Socket, ipv4: bool) -> io::Result<()> {
    socket.set_recv_buffer_size(UNUSED_BUFFER_LEN)?;
    if ipv4 {
        socket.set_ttl_v4(TTL.into())?;
        socket.set_tos_v4(TRAFFIC_CLASS)
    } else {
        socket.set_unicast_hops_v6(TTL.into())?;
        socket.set_tclass_v6(TRAFFIC_CLASS)
    }
}

/// Binds to a source port of RFC 5881 §4 that is free, from a random one on.
fn bind(socket: &Socket, local: IpAddr, index: Option<u32>, random: u16) -> io::Result<()> {
    let count = u16::MAX - SOURCE_PORT_MIN + 1;
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for step in 0..SOURCE_PORTS_TRIED_MAX {
        let port = SOURCE_PORT_MIN + random.wrapping_add(step) % count;
        match socket.bind(&scoped(local, port, index).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            result => return result,
        }
    }
    Err(last)
}

fn scoped(address: IpAddr, port: u16, index: Option<u32>) -> SocketAddr {
    match address {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, port, 0, index.unwrap_or(0)).into(),
        _ => SocketAddr::new(address, port),
    }
}

pub(super) const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_have_a_place_each() {
        let mut places = Kind::ALL.map(Kind::place);
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2, 3]);
    }

    #[test]
    fn link_sends_from_a_port_of_the_rfcs_range() {
        let mut config = SessionConfig::new(Ipv4Addr::LOCALHOST.into());
        config.local = Some(Ipv4Addr::LOCALHOST.into());
        for random in [0, 1, u16::MAX] {
            let link = Link::open(&config, random).unwrap();
            let bound = link.socket.local_addr().unwrap().as_socket().unwrap();
            assert!(bound.port() >= SOURCE_PORT_MIN, "{bound}");
        }
    }

    #[test]
    fn link_says_what_is_wrong() {
        let peer: IpAddr = Ipv4Addr::LOCALHOST.into();
        for (config, words) in [
            (SessionConfig { interface: Some("absent0".to_owned()), ..SessionConfig::new(peer) }, "interface absent0"),
            (SessionConfig { local: Some("192.0.2.1".parse().unwrap()), ..SessionConfig::new(peer) }, "192.0.2.1"),
        ] {
            let error = Link::open(&config, 0).err().unwrap();
            assert!(error.contains(words), "{error}");
        }
    }
}
