//! The few system calls that no safe library offers: options and messages of UDP sockets, a precise wait, a priority.
#![expect(unsafe_code, reason = "C structures in and out of the kernel")]
use std::{
    ffi::CString,
    io,
    mem::{MaybeUninit, size_of},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    time::Duration,
};

use socket2::{SockAddr, SockAddrStorage};

/// Octets for ancillary data: a TTL and an address, with room to spare.
const CONTROL_LEN: usize = 128;

/// A datagram and how it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Octets in the buffer.
    pub(crate) len: usize,
    /// Its source.
    pub(crate) from: SocketAddr,
    /// Its TTL or hop limit.
    pub(crate) ttl: Option<u8>,
    /// Its destination.
    pub(crate) to: Option<IpAddr>,
    /// The interface that it came in by.
    pub(crate) interface: Option<u32>,
}

fn set_option(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel reads `len` octets of `value` and keeps
    // no pointer.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, ptr::from_ref(&value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Every datagram comes with its TTL, its destination and its interface.
pub(crate) fn set_receive_details(socket: &impl AsRawFd, ipv4: bool) -> io::Result<()> {
    if ipv4 {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVTTL, 1)?;
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    }
}

/// Reads a datagram from a socket set up by [`set_receive_details`], without waiting.
pub(crate) fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Received> {
    /// Ancillary data begins with a header and needs its alignment.
    #[repr(C, align(8))]
    struct Control([u8; CONTROL_LEN]);
    let mut control = Control([0; CONTROL_LEN]);
    let mut from = SockAddrStorage::zeroed();
    let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all fields are integers and pointers, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_name = ptr::from_mut(&mut from).cast();
    message.msg_namelen = from.size_of();
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN;
    // SAFETY: the pointers of `message` are to `from`, `data`, `buffer` and `control`, which outlive the call, with their
    // lengths beside them.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written an address of `msg_namelen` octets.
    let from = unsafe { SockAddr::new(from, message.msg_namelen) };
    let from = from.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut received = Received { len, from, ttl: None, to: None, interface: None };
    // SAFETY: `message` is as the kernel left it; `control` is aligned and alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return a header that lies within `control`, or null.
        unsafe {
            read_detail(header, &mut received);
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(received)
}

/// Notes what one piece of ancillary data says.
///
/// # Safety
/// `header` points to a whole message of ancillary data.
unsafe fn read_detail(header: *const libc::cmsghdr, received: &mut Received) {
    // SAFETY: the caller promises a whole message; data may lie unaligned behind the header. Each kind has the type that
    // ip(7) and ipv6(7) say.
    unsafe {
        let data = libc::CMSG_DATA(header);
        match ((*header).cmsg_level, (*header).cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                received.ttl = u8::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                received.to = Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr)).into());
                received.interface = u32::try_from(info.ipi_ifindex).ok();
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                received.to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                received.interface = Some(info.ipi6_ifindex);
            }
            _ => {}
        }
    }
}

/// Lets a packet socket hear packets of a link-layer protocol (in network order) on every interface.
pub(crate) fn bind_packets(socket: &impl AsRawFd, protocol: u16) -> io::Result<()> {
    // SAFETY: all fields are integers, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_protocol = protocol;
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel reads `len` octets of `address`.
    match unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until one of `sockets` can be read, or `timeout` is over (`None`: for ever); more precise than a millisecond.
pub(crate) fn wait(sockets: &[BorrowedFd<'_>], timeout: Option<Duration>) {
    let entry = |socket: &BorrowedFd<'_>| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut entries: Vec<libc::pollfd> = sockets.iter().map(entry).collect();
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let count = libc::nfds_t::try_from(entries.len()).unwrap_or(0);
    // SAFETY: `entries` and `timeout` outlive the call. An error (a signal) is a wake-up like any other.
    unsafe { libc::ppoll(entries.as_mut_ptr(), count, timeout, ptr::null()) };
}

/// The index of an interface.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `name` is a string with a zero at its end, and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// `struct sched_attr` of linux/sched/types.h, as far as it was there from the start.
#[repr(C)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Puts the calling thread before the process's other ones, and says how: real-time (round robin, lowest priority) or a
/// higher share of the processor if the system grants it (CAP_SYS_NICE); else, for what needs no right, by asking for
/// short turns (Linux 6.12), which come sooner.
pub(crate) fn raise_priority() -> &'static str {
    /// The most that nice(2) gives.
    const NICE: libc::c_int = -20;
    /// The shortest turn that the kernel grants, ns.
    const TURN_NS: u64 = 100_000;
    // SAFETY: all fields are integers, for which all zeroes is a value; on some systems there are more than one.
    let mut parameters: libc::sched_param = unsafe { MaybeUninit::zeroed().assume_init() };
    parameters.sched_priority = 1;
    // SAFETY: `parameters` outlives the call; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters) } == 0 {
        return "real-time";
    }
    // SAFETY: takes integers only; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } == 0 {
        return "nice -20";
    }
    let attributes = SchedulingAttributes {
        size: u32::try_from(size_of::<SchedulingAttributes>()).unwrap_or(0),
        policy: 0, // SCHED_OTHER
        flags: 0,
        nice: 0,
        priority: 0,
        runtime: TURN_NS,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads `size` octets of `attributes`, which outlives the call; 0 is the calling thread.
    if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } == 0 {
        return "ordinary, with short turns";
    }
    "ordinary"
}
