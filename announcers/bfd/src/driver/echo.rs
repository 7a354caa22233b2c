//! Echo packets of both families: sent to ourselves by way of the peer, and caught when they come back.
//!
//! The kernel would keep a packet for one of its own addresses, and drop one that comes in from one, so both ends are below
//! its routing: a raw socket with our own IP header, whose packet goes to the peer's link address although it is addressed
//! to us, and a packet socket that sees it return. Both need CAP_NET_RAW. The peer's echoes need nothing of us: they are
//! addressed to the peer, and the node's IP forwarding returns them. Source: RFC 5881 §4, RFC 5880 §6.8.8.
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd},
};

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::ports::is_link_local;
use crate::{
    SessionConfig,
    machine::{ECHO_LEN, Echo},
};

/// Echo packets' destination port. Source: RFC 5881 §4.
const PORT: u16 = 3_785;
/// Source port: of the dynamic range, nobody answers to it.
const SOURCE_PORT: u16 = 49_152;
/// TTL and hop limit: the peer takes one off.
const TTL: u8 = 255;
/// Network control, as our control packets.
const TRAFFIC_CLASS: u8 = 0xc0;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
/// Protocol number of UDP.
const UDP: u8 = 17;

/// What there is of the echo function for a session.
pub(super) struct Prepared {
    /// The node's IP forwarding returns the peer's echoes.
    pub(super) loops: bool,
    /// The way for ours.
    pub(super) link: Option<EchoLink>,
    /// What is missing, in words.
    pub(super) warning: Option<String>,
}

/// The catcher of returning echoes, one for each family, open while a session needs it.
#[derive(Default)]
pub(super) struct Catchers([Option<Socket>; 2]);

impl Catchers {
    /// Sees what the echo function can do for a session that is configured with it.
    pub(super) fn prepare(&mut self, config: &SessionConfig) -> Prepared {
        let ipv4 = config.peer.is_ipv4();
        if is_link_local(config.peer) {
            let warning = "no echo: packets of link-local addresses are not forwarded".to_owned();
            return Prepared { loops: false, link: None, warning: Some(warning) };
        }
        let loops = forwards(ipv4);
        let link = self.ensure(ipv4).and_then(|()| EchoLink::open(config));
        let mut missing = vec![];
        if !loops {
            missing.push("the peer's echo packets are not returned: IP forwarding is off on this node".to_owned());
        }
        if let Err(error) = &link {
            missing.push(format!("no echo packets are sent: {error} (they need CAP_NET_RAW)"));
        }
        let warning = (!missing.is_empty()).then(|| missing.join("; "));
        Prepared { loops, link: link.ok(), warning }
    }

    fn ensure(&mut self, ipv4: bool) -> io::Result<()> {
        let place = &mut self.0[usize::from(ipv4)];
        if place.is_none() {
            *place = Some(catcher(ipv4)?);
        }
        Ok(())
    }

    pub(super) fn close(&mut self, ipv4: bool) {
        self.0[usize::from(ipv4)] = None;
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().flatten().map(|socket| socket.as_fd())
    }

    /// The next packet caught: an echo of ours, or something else for its port. `None`: nothing is there.
    pub(super) fn next(&self, ipv4: bool) -> Option<Option<Echo>> {
        let mut buffer = [0; IPV6_LEN + UDP_LEN + ECHO_LEN];
        let mut socket = self.0[usize::from(ipv4)].as_ref()?;
        let len = io::Read::read(&mut socket, &mut buffer).ok()?;
        let header = if ipv4 { IPV4_LEN } else { IPV6_LEN };
        // Our own header has no options; the link may have padded the packet.
        Some(buffer[..len].get(header + UDP_LEN..header + UDP_LEN + ECHO_LEN).and_then(Echo::decode))
    }
}

/// Whether the node forwards packets of a family.
fn forwards(ipv4: bool) -> bool {
    let family = if ipv4 { "ipv4" } else { "ipv6" };
    let setting = fs::read_to_string(format!("/proc/sys/net/{family}/conf/all/forwarding"));
    setting.is_ok_and(|setting| setting.trim() == "1")
}

/// A socket that sees packets for the echo port before the kernel's routing does.
fn catcher(ipv4: bool) -> io::Result<Socket> {
    let ether_type = if ipv4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
    let protocol = u16::try_from(ether_type).unwrap_or(0).to_be();
    // It hears nothing until it has both its filter and its protocol.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
    socket.attach_filter(&filter(ipv4))?;
    crate::sys::bind_packets(&socket, protocol)?;
    Ok(socket)
}

/// Classic BPF over the IP header: UDP, not a later fragment, to the echo port.
fn filter(ipv4: bool) -> Vec<SockFilter> {
    /// Load an octet; load two; load two behind the index; index = 4 × the low half of an octet.
    const OCTET: u16 = 0x30;
    const HALF: u16 = 0x28;
    const HALF_INDEXED: u16 = 0x48;
    const HEADER_LEN: u16 = 0xb1;
    /// Go on or skip: if equal; if any of these bits is set.
    const IF_EQUAL: u16 = 0x15;
    const IF_ANY: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let (udp, port, all) = (u32::from(UDP), u32::from(PORT), u32::MAX);
    let filter = |(code, jt, jf, k)| SockFilter::new(code, jt, jf, k);
    let four = [
        (OCTET, 0, 0, 9),
        (IF_EQUAL, 0, 6, udp),
        (HALF, 0, 0, 6),
        (IF_ANY, 4, 0, 0x1fff),
        (HEADER_LEN, 0, 0, 0),
        (HALF_INDEXED, 0, 0, 2),
        (IF_EQUAL, 0, 1, port),
        (RETURN, 0, 0, all),
        (RETURN, 0, 0, 0),
    ];
    let six = [
        (OCTET, 0, 0, 6),
        (IF_EQUAL, 0, 3, udp),
        (HALF, 0, 0, 42),
        (IF_EQUAL, 0, 1, port),
        (RETURN, 0, 0, all),
        (RETURN, 0, 0, 0),
    ];
    if ipv4 { Vec::from(four.map(filter)) } else { Vec::from(six.map(filter)) }
}

/// The way to ourselves through a peer.
pub(super) struct EchoLink {
    socket: Socket,
    local: IpAddr,
    target: SockAddr,
}

impl EchoLink {
    fn open(config: &SessionConfig) -> io::Result<Self> {
        let local = config.local.map_or_else(|| local_address(config.peer), Ok)?;
        let domain = if local.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        // IPPROTO_RAW: the header is ours. The kernel takes the next hop from the address that we send to.
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::from(libc::IPPROTO_RAW)))?;
        if let Some(name) = &config.interface {
            socket.bind_device(Some(name.as_bytes()))?;
        }
        Ok(Self { socket, local, target: SocketAddr::new(config.peer, 0).into() })
    }

    pub(super) fn send(&self, echo: &Echo) -> io::Result<()> {
        self.socket.send_to(&packet(self.local, echo), &self.target).map(drop)
    }
}

/// The address that the kernel would send from.
fn local_address(peer: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((peer, PORT))?;
    Ok(socket.local_addr()?.ip())
}

/// An IP packet from `local` to itself.
fn packet(local: IpAddr, echo: &Echo) -> Vec<u8> {
    let udp_len = u16::try_from(UDP_LEN + ECHO_LEN).unwrap_or(0);
    let mut udp = vec![];
    udp.extend(SOURCE_PORT.to_be_bytes());
    udp.extend(PORT.to_be_bytes());
    udp.extend(udp_len.to_be_bytes());
    udp.extend([0; 2]);
    udp.extend(echo.encode());
    let mut octets = match local {
        // The kernel fills in the length, the identification and the checksum.
        IpAddr::V4(ip) => {
            let mut header = vec![0x45, TRAFFIC_CLASS, 0, 0, 0, 0, 0, 0, TTL, UDP, 0, 0];
            header.extend(ip.octets().repeat(2));
            header
        }
        IpAddr::V6(ip) => {
            let [high, low] = udp_len.to_be_bytes();
            let mut header = vec![0x60 | TRAFFIC_CLASS >> 4, TRAFFIC_CLASS << 4, 0, 0, high, low, UDP, TTL];
            header.extend(ip.octets().repeat(2));
            let sum = checksum(&ip.octets().repeat(2), &udp);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            header
        }
    };
    octets.append(&mut udp);
    octets
}

/// UDP's checksum over the pseudo-header's addresses and the datagram. Source: RFC 8200 §8.1.
fn checksum(addresses: &[u8], udp: &[u8]) -> u16 {
    let words = addresses.chunks_exact(2).chain(udp.chunks_exact(2));
    let words = words.map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1]));
    let mut sum = words.sum::<u64>() + u64::from(UDP) + u64::try_from(udp.len()).unwrap_or(0);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !u16::try_from(sum).unwrap_or(0) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepare_says_what_is_missing() {
        let of = |peer: &str| SessionConfig::new(peer.parse().unwrap());
        let mut catchers = Catchers::default();
        let link_local = catchers.prepare(&of("fe80::1"));
        assert!(link_local.link.is_none() && link_local.warning.unwrap().contains("link-local"));
        // With the right to raw sockets or without it.
        let prepared = catchers.prepare(&of("127.0.0.1"));
        let warning = prepared.warning.unwrap_or_default();
        assert_eq!(prepared.link.is_none(), warning.contains("CAP_NET_RAW"), "{warning}");
        assert_eq!(!prepared.loops, warning.contains("forwarding is off"), "{warning}");
    }

    #[test]
    fn packet_is_from_us_to_us_with_a_right_checksum() {
        let echo = Echo { discriminator: 7, sequence: 8, cookie: 9 };
        for (local, header) in [("192.0.2.1", IPV4_LEN), ("2001:db8::1", IPV6_LEN)] {
            let ip: IpAddr = local.parse().unwrap();
            let octets = packet(ip, &echo);
            assert_eq!(octets.len(), header + UDP_LEN + ECHO_LEN, "{local}");
            let addresses = &octets[header - if ip.is_ipv4() { 8 } else { 32 }..header];
            assert_eq!(addresses[..addresses.len() / 2], addresses[addresses.len() / 2..], "{local}");
            assert_eq!(Echo::decode(&octets[header + UDP_LEN..]), Some(echo), "{local}");
            if ip.is_ipv6() {
                // Over a datagram with its checksum in place, the sum is 0, which is sent as all ones.
                assert_eq!(checksum(addresses, &octets[header..]), 0xffff, "{local}");
            }
        }
    }
}
