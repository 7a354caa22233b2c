//! The socket options that no safe library offers: TCP-MD5 (RFC 2385), TCP-AO (RFC 5925) and GTSM (RFC 5082).
#![expect(unsafe_code, reason = "setsockopt takes C structures")]
use std::{
    io,
    mem::{size_of, zeroed},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _},
};

use ferrocast_core::config::{Password, TcpAoAlgorithm, TcpAoKey};
use socket2::SockAddr;

/// Longest key, octets. Source: `TCP_MD5SIG_MAXKEYLEN` and `TCP_AO_MAXKEYLEN` in linux/tcp.h.
pub(crate) const KEY_LEN_MAX: usize = 80;
/// Hop count of a packet that no router has forwarded. Source: RFC 5082 §3.
const HOPS_START: u8 = 255;
/// `TCP_AO_ADD_KEY` and `TCP_AO_INFO` of linux/tcp.h (since Linux 6.7).
const TCP_AO_ADD_KEY: libc::c_int = 38;
const TCP_AO_INFO: libc::c_int = 40;
/// Octets of the MAC of both algorithms. Source: RFC 5926 §3.2.
const TCP_AO_MAC_LEN: u8 = 12;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: libc::c_int,
    key: [u8; KEY_LEN_MAX],
}

/// `struct tcp_ao_add` of linux/tcp.h.
#[repr(C, align(8))]
struct TcpAoAdd {
    address: libc::sockaddr_storage,
    algorithm: [u8; 64],
    interface: i32,
    /// Bit 0: `set_current`, bit 1: `set_rnext`.
    set: u32,
    reserved: u16,
    prefix: u8,
    send_id: u8,
    receive_id: u8,
    mac_len: u8,
    key_flags: u8,
    key_len: u8,
    key: [u8; KEY_LEN_MAX],
}

/// Signs every segment from and to `peer` with `password`: on a socket before it connects, on a listening one, or on a live
/// connection, whose key is replaced. `None` on a listening socket: `peer` is not asked to sign any more.
///
/// # Errors
/// The key is empty or longer than [`KEY_LEN_MAX`], or the kernel has no TCP-MD5.
pub(crate) fn set_md5_key(socket: &impl AsFd, peer: IpAddr, password: Option<&Password>) -> io::Result<()> {
    let key = password.map_or(&[][..], |password| password.0.as_bytes());
    if password.is_some() {
        check_key(key, "a TCP-MD5 password")?;
    }
    // SAFETY: every field is an integer or an array of integers, for which all zeroes is a value.
    let mut option: TcpMd5Sig = unsafe { zeroed() };
    option.address = storage(peer);
    option.key_len = u16::try_from(key.len()).unwrap_or(0);
    option.key[..key.len()].copy_from_slice(key);
    // SAFETY: `TcpMd5Sig` is plain data as the kernel defines it for this option.
    unsafe { set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &option) }
}

/// Signs every segment from and to `peer` with `key`; the first one added is the one in use.
///
/// # Errors
/// The key is empty or longer than [`KEY_LEN_MAX`], or the kernel has no TCP-AO.
pub(crate) fn add_ao_key(socket: &impl AsFd, peer: IpAddr, key: &TcpAoKey, first: bool) -> io::Result<()> {
    let octets = key.secret.0.as_bytes();
    check_key(octets, "a TCP-AO key")?;
    let algorithm: &[u8] = match key.algorithm {
        TcpAoAlgorithm::HmacSha1 => b"hmac(sha1)",
        TcpAoAlgorithm::AesCmac => b"cmac(aes128)",
    };
    // SAFETY: every field is an integer or an array of integers, for which all zeroes is a value.
    let mut option: TcpAoAdd = unsafe { zeroed() };
    option.address = storage(peer);
    option.algorithm[..algorithm.len()].copy_from_slice(algorithm);
    option.set = if first { 0b11 } else { 0 };
    option.prefix = if peer.is_ipv4() { 32 } else { 128 };
    (option.send_id, option.receive_id) = (key.send_id, key.receive_id);
    option.mac_len = TCP_AO_MAC_LEN;
    option.key_len = u8::try_from(octets.len()).unwrap_or(0);
    option.key[..octets.len()].copy_from_slice(octets);
    // SAFETY: `TcpAoAdd` is plain data as the kernel defines it for this option.
    unsafe { set(socket, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &option) }
}

/// Does this kernel have TCP-AO?
pub(crate) fn has_tcp_ao(socket: &impl AsFd) -> bool {
    // A socket without keys answers ENOENT, a kernel without the option ENOPROTOOPT.
    let mut value = [0_u8; 256];
    let mut len = libc::socklen_t::try_from(value.len()).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes at most `len` octets to `value`.
    let result = unsafe {
        let fd = socket.as_fd().as_raw_fd();
        libc::getsockopt(fd, libc::IPPROTO_TCP, TCP_AO_INFO, value.as_mut_ptr().cast(), &raw mut len)
    };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOPROTOOPT)
}

/// Has the kernel drop segments that came over more than `hops` hops. Source: RFC 5082 §3.
///
/// # Errors
/// The kernel does not know the option.
pub(crate) fn set_hops_max(socket: &impl AsFd, v4: bool, hops: u8) -> io::Result<()> {
    let least = libc::c_int::from(HOPS_START.saturating_sub(hops.max(1) - 1));
    let (level, name) =
        if v4 { (libc::IPPROTO_IP, libc::IP_MINTTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT) };
    // SAFETY: both options take an int.
    unsafe { set(socket, level, name, &least) }
}

fn check_key(key: &[u8], what: &str) -> io::Result<()> {
    if key.is_empty() || key.len() > KEY_LEN_MAX {
        let text = format!("{what} has 1 to {KEY_LEN_MAX} octets, not {}", key.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

fn storage(peer: IpAddr) -> libc::sockaddr_storage {
    let address = SockAddr::from(SocketAddr::new(peer, 0));
    // SAFETY: all zeroes is a value of it.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let len = usize::try_from(address.len()).unwrap_or(0).min(size_of::<libc::sockaddr_storage>());
    // SAFETY: both are at least `len` octets long and do not overlap: `storage` is ours.
    unsafe {
        std::ptr::copy_nonoverlapping(address.as_ptr().cast::<u8>(), (&raw mut storage).cast::<u8>(), len);
    }
    storage
}

/// # Safety
/// `T` must be what the kernel expects for this option, with every octet initialised.
unsafe fn set<T>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel reads `len` octets of `value` and keeps no
    // pointer; the caller vouches for the type.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
