//! How a peer is reached: TCP, or whatever a test puts in its place.
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ferrocast_core::config::Password;
use futures::future::BoxFuture;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpSocket,
};

use crate::sockopt;

/// A byte stream to a peer.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open connection.
pub struct Link {
    /// Its octets.
    pub stream: Box<dyn Stream>,
    /// Our end's address: the next hop of routes of its family.
    pub local: IpAddr,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("local", &self.local).finish_non_exhaustive()
    }
}

/// Whom to reach, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialTo {
    /// The peer.
    pub remote: SocketAddr,
    /// Our address; `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// TCP-MD5 key (RFC 2385).
    pub password: Option<Password>,
    /// TTL or hop limit; `None`: the system's default.
    pub ttl: Option<u8>,
    /// Longest time that sent octets may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

/// Opens connections.
pub trait Dial: Send + Sync + 'static {
    /// Opens one. Dropping the future gives up; the caller bounds its time.
    fn dial(&self, to: DialTo) -> BoxFuture<'static, io::Result<Link>>;
}

/// Dials over TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial(&self, to: DialTo) -> BoxFuture<'static, io::Result<Link>> {
        Box::pin(async move {
            let socket = socket(&to)?;
            let stream = socket.connect(to.remote).await?;
            let local = stream.local_addr()?.ip().to_canonical();
            Ok(Link { stream: Box::new(stream), local })
        })
    }
}

/// A socket with every option set that must be there before the first SYN.
fn socket(to: &DialTo) -> io::Result<TcpSocket> {
    let socket = if to.remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let options = SockRef::from(&socket);
    options.set_tcp_nodelay(true)?;
    options.set_tcp_user_timeout(to.user_timeout)?;
    match (to.ttl, to.remote) {
        (None, _) => {}
        (Some(ttl), SocketAddr::V4(_)) => options.set_ttl_v4(ttl.into())?,
        (Some(ttl), SocketAddr::V6(_)) => options.set_unicast_hops_v6(ttl.into())?,
    }
    if let Some(password) = &to.password {
        sockopt::set_md5_key(&socket, to.remote.ip(), password)?;
    }
    if let Some(source) = to.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}
