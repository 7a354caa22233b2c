//! How a peer is reached: TCP, or whatever a test puts in its place.
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ferrocast_core::config::{Password, TcpAoKey};
use futures::future::BoxFuture;
use socket2::{SockRef, Socket};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};

use crate::sockopt;

/// TTL or hop limit of packets whose receiver checks that nobody has forwarded them. Source: RFC 5082 §3.
pub(crate) const TTL_SECURITY: u8 = 255;

/// A byte stream to a peer.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open connection.
pub struct Link {
    /// Its octets.
    pub stream: Box<dyn Stream>,
    /// Our end's address: the next hop of routes of its family.
    pub local: IpAddr,
    /// The connection's options, where it is a TCP connection.
    pub control: Option<Control>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("local", &self.local).finish_non_exhaustive()
    }
}

/// Changes options of a live connection.
#[derive(Debug)]
pub struct Control(Socket);

impl Control {
    /// Signs with another password from now on (RFC 2385): the connection survives if the peer follows within its hold time.
    pub(crate) fn set_password(&self, peer: IpAddr, password: Option<&Password>) -> io::Result<()> {
        sockopt::set_md5_key(&self.0, peer, password)
    }
}

/// Whom to reach, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialTo {
    /// The peer.
    pub remote: SocketAddr,
    /// Our address; `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// The interface or VRF that the connection must use.
    pub device: Option<Arc<str>>,
    /// TCP-MD5 key (RFC 2385).
    pub password: Option<Password>,
    /// TCP-AO keys (RFC 5925).
    pub ao_keys: Vec<TcpAoKey>,
    /// TTL or hop limit; `None`: the system's default.
    pub ttl: Option<u8>,
    /// The peer is at most so many hops away (RFC 5082); overrides `ttl`.
    pub ttl_security_hops: Option<u8>,
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
        Box::pin(async move { link(socket(&to)?.connect(to.remote).await?) })
    }
}

/// A socket with every option set that must be there before the first SYN.
fn socket(to: &DialTo) -> io::Result<TcpSocket> {
    let socket = if to.remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(device) = &to.device {
        let bound = SockRef::from(&socket).bind_device(Some(device.as_bytes()));
        bound.map_err(|error| io::Error::new(error.kind(), format!("interface or VRF {device:?}: {error}")))?;
    }
    to.tune(&socket)?;
    if let Some(password) = &to.password {
        sockopt::set_md5_key(&socket, to.remote.ip(), Some(password))?;
    }
    for (index, key) in to.ao_keys.iter().enumerate() {
        sockopt::add_ao_key(&socket, to.remote.ip(), key, index == 0)?;
    }
    if let Some(source) = to.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

impl DialTo {
    /// Sets what a connection has in both directions of dialling.
    fn tune(&self, socket: &impl std::os::fd::AsFd) -> io::Result<()> {
        let options = SockRef::from(socket);
        options.set_tcp_nodelay(true)?;
        options.set_tcp_user_timeout(self.user_timeout)?;
        let ttl = self.ttl_security_hops.map(|_| TTL_SECURITY).or(self.ttl);
        match (ttl, self.remote) {
            (None, _) => {}
            (Some(ttl), SocketAddr::V4(_)) => options.set_ttl_v4(ttl.into())?,
            (Some(ttl), SocketAddr::V6(_)) => options.set_unicast_hops_v6(ttl.into())?,
        }
        match self.ttl_security_hops {
            Some(hops) => sockopt::set_hops_max(socket, self.remote.is_ipv4(), hops),
            None => Ok(()),
        }
    }

    /// The link of a connection that the peer has dialled. Its keys come from the listening socket.
    pub(crate) fn accepted(&self, stream: TcpStream) -> io::Result<Link> {
        self.tune(&stream)?;
        link(stream)
    }
}

fn link(stream: TcpStream) -> io::Result<Link> {
    let local = stream.local_addr()?.ip().to_canonical();
    let control = SockRef::from(&stream).try_clone()?;
    Ok(Link { stream: Box::new(stream), local, control: Some(Control(control)) })
}
