//! What the kernel of this machine can do, asked at run time.
use std::{io, path::Path, sync::OnceLock};

use socket2::{Domain, Socket, Type};

use crate::sockopt;

/// Present where the kernel was built with layer 3 master devices, of which a VRF is one.
const VRF_SETTING: &str = "/proc/sys/net/ipv4/tcp_l3mdev_accept";

/// What not every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// TCP-AO (RFC 5925): Linux 6.7 with `CONFIG_TCP_AO`.
    pub tcp_ao: bool,
    /// VRF devices: `CONFIG_NET_VRF`.
    pub vrf: bool,
}

impl Kernel {
    /// Of this machine; asked once.
    #[must_use]
    pub fn here() -> Self {
        static HERE: OnceLock<Kernel> = OnceLock::new();
        *HERE.get_or_init(|| Self {
            tcp_ao: tcp_socket().is_ok_and(|socket| sockopt::has_tcp_ao(&socket)),
            vrf: Path::new(VRF_SETTING).exists(),
        })
    }

    /// What is missing, each in words for a user.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = vec![];
        if !self.tcp_ao {
            missing.push("TCP-AO (needs Linux 6.7 with CONFIG_TCP_AO)");
        }
        if !self.vrf {
            missing.push("VRF (needs CONFIG_NET_VRF and CONFIG_NET_L3_MASTER_DEV)");
        }
        missing
    }
}

fn tcp_socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None).or_else(|_| Socket::new(Domain::IPV6, Type::STREAM, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(Kernel { tcp_ao: true, vrf: true }.missing(), [""; 0]);
        assert_eq!(Kernel { tcp_ao: false, vrf: false }.missing().len(), 2);
        println!("this kernel: {:?}", Kernel::here());
    }
}
