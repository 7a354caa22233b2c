//! The one socket option that no safe library offers: the TCP-MD5 key (RFC 2385).
#![expect(unsafe_code, reason = "setsockopt(TCP_MD5SIG) takes a C structure")]
use std::{
    io,
    mem::{size_of, zeroed},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _},
};

use ferrocast_core::config::Password;
use socket2::SockAddr;

/// Longest key, octets. Source: `TCP_MD5SIG_MAXKEYLEN` in linux/tcp.h.
pub(crate) const MD5_KEY_LEN_MAX: usize = 80;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: libc::c_int,
    key: [u8; MD5_KEY_LEN_MAX],
}

/// Signs every segment from and to `peer` with `password`: on a socket before it connects, or on a listening one.
///
/// # Errors
/// The key is empty or longer than [`MD5_KEY_LEN_MAX`], or the kernel has no TCP-MD5.
pub(crate) fn set_md5_key(socket: &impl AsFd, peer: IpAddr, password: &Password) -> io::Result<()> {
    let key = password.0.as_bytes();
    if key.is_empty() || key.len() > MD5_KEY_LEN_MAX {
        let text = format!("a TCP-MD5 password has 1 to {MD5_KEY_LEN_MAX} octets, not {}", key.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let address = SockAddr::from(SocketAddr::new(peer, 0));
    // SAFETY: every field is an integer or an array of integers, for which all zeroes is a value.
    let mut option: TcpMd5Sig = unsafe { zeroed() };
    option.key_len = u16::try_from(key.len()).unwrap_or(0);
    option.key[..key.len()].copy_from_slice(key);
    // SAFETY: both point to a sockaddr_storage's worth of octets of which the first `address.len()` are initialised (socket2
    // says so), and they do not overlap: `option` is ours.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            std::ptr::from_mut(&mut option.address).cast::<u8>(),
            usize::try_from(address.len()).unwrap_or(0).min(size_of::<libc::sockaddr_storage>()),
        );
    }
    let len = libc::socklen_t::try_from(size_of::<TcpMd5Sig>()).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel reads `len` octets of `option`, all of
    // which are initialised, and keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MD5SIG,
            std::ptr::from_ref(&option).cast(),
            len,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
