//! Waits for peers that dial us, and hands each connection to its session.
//!
//! Only peers with a door are let in; everybody else is turned away at once, without a task, a buffer or a word.
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, sleep_until},
    config::{Password, TcpAoKey},
};
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{dial::TTL_SECURITY, sockopt};

/// Connections that the kernel keeps until they are looked at: a peer has one, floods are dropped.
const BACKLOG: i32 = 64;
/// Wait after a failed bind or accept, so that it is not repeated in a tight loop.
const RETRY: Duration = Duration::from_secs(2);
/// Failures of accept that are ours, and would come again at once.
const OUT_OF_RESOURCES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
/// "Address family not supported": a host without IPv6.
const EAFNOSUPPORT: i32 = libc::EAFNOSUPPORT;

/// Where a connection comes from: its address, and the interface if that is a link-local one (else zero).
pub(crate) type Caller = (IpAddr, u32);

/// The caller of an address as the socket names it.
pub(crate) fn caller(remote: SocketAddr) -> Caller {
    let ip = remote.ip().to_canonical();
    match (ip, remote) {
        (IpAddr::V6(v6), SocketAddr::V6(full)) if v6.is_unicast_link_local() => (ip, full.scope_id()),
        _ => (ip, 0),
    }
}

/// Whoever calls from a link-local address on this interface.
pub(crate) fn on_interface(index: u32) -> Caller {
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), index)
}

/// Why there is no listening, in words, by VRF.
pub(crate) type ListenErrors = BTreeMap<Option<Arc<str>>, String>;

/// One session that may be called.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// TCP-MD5 key of its peer.
    pub(crate) password: Option<Password>,
    /// TCP-AO keys of its peer.
    pub(crate) ao_keys: Vec<TcpAoKey>,
    /// Where connections go; full: the session is busy with one.
    pub(crate) inbox: mpsc::Sender<TcpStream>,
}

/// Every session of one VRF that may be called.
pub(crate) type Doors = BTreeMap<Caller, Door>;

/// Listens in one VRF, or outside of all.
pub(crate) struct Listener {
    port: u16,
    device: Option<Arc<str>>,
    doors: watch::Receiver<Arc<Doors>>,
    errors: watch::Sender<Arc<ListenErrors>>,
}

/// Both families' sockets, with the keys set on them.
struct Sockets {
    v4: Option<TcpListener>,
    v6: Option<TcpListener>,
    /// Whose keys they are.
    doors: Arc<Doors>,
    keyed: BTreeMap<IpAddr, Password>,
    ao_keyed: BTreeMap<IpAddr, Vec<TcpAoKey>>,
}

impl Listener {
    pub(crate) fn new(
        port: u16,
        device: Option<Arc<str>>,
        doors: watch::Receiver<Arc<Doors>>,
        errors: watch::Sender<Arc<ListenErrors>>,
    ) -> Self {
        Self { port, device, doors, errors }
    }

    /// Binds, and says so if that fails or works again.
    fn open(&self) -> Option<Sockets> {
        let (bound, error) = match self.bind() {
            Ok(bound) => (Some(bound), None),
            Err(error) => (None, Some(words(self.port, &error))),
        };
        self.errors.send_if_modified(|errors| {
            let changed = errors.get(&self.device) != error.as_ref();
            if changed {
                match &error {
                    Some(error) => tracing::error!(device = self.device.as_deref(), error, "trying again"),
                    None => tracing::info!(port = self.port, device = self.device.as_deref(), "listening for peers"),
                }
                let errors = Arc::make_mut(errors);
                match &error {
                    Some(error) => drop(errors.insert(self.device.clone(), error.clone())),
                    None => drop(errors.remove(&self.device)),
                }
            }
            changed
        });
        bound
    }

    fn bind(&self) -> io::Result<Sockets> {
        let v4 = socket((Ipv4Addr::UNSPECIFIED, self.port).into(), self.device.as_deref())?;
        let v6 = match socket((Ipv6Addr::UNSPECIFIED, self.port).into(), self.device.as_deref()) {
            Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => None,
            socket => Some(socket?),
        };
        Ok(Sockets { v4: Some(v4), v6, doors: Arc::default(), keyed: BTreeMap::new(), ao_keyed: BTreeMap::new() })
    }

    fn admit(&self, stream: TcpStream, remote: SocketAddr) {
        let doors = self.doors.borrow();
        let (ip, scope) = caller(remote);
        let on_link = || (scope != 0).then(|| doors.get(&on_interface(scope))).flatten();
        let Some(door) = doors.get(&(ip, scope)).or_else(on_link) else {
            tracing::debug!(%remote, "connection from an address that no peer has: closed");
            return;
        };
        if door.inbox.try_send(stream).is_err() {
            tracing::debug!(%remote, "connection of a peer that has another one waiting: closed");
        }
    }
}

/// Why nobody can call, in words for a user.
fn words(port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("cannot listen on port {port}: {error}; ports below 1024 need the capability NET_BIND_SERVICE")
        }
        io::ErrorKind::AddrInUse => format!("cannot listen on port {port}: another process of this node has it"),
        _ => format!("cannot listen on port {port}: {error}"),
    }
}

fn socket(address: SocketAddr, device: Option<&str>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // The answer to the first segment comes from this socket, and a peer with GTSM wants 255 there too (RFC 5082).
    if address.is_ipv4() {
        socket.set_ttl_v4(TTL_SECURITY.into())?;
    } else {
        socket.set_unicast_hops_v6(TTL_SECURITY.into())?;
    }
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Sockets {
    /// Sets the keys that are new or changed, takes back those that are gone; nobody else's session notices.
    fn rekey(&mut self, doors: &Arc<Doors>) {
        if Arc::ptr_eq(&self.doors, doors) {
            return; // a connection was accepted, nothing else
        }
        self.doors = doors.clone();
        let wanted: BTreeMap<IpAddr, Password> =
            doors.iter().filter_map(|((ip, _), door)| Some((*ip, door.password.clone()?))).collect();
        for ip in self.keyed.keys().filter(|ip| !wanted.contains_key(*ip)) {
            self.set(*ip, |socket| sockopt::set_md5_key(socket, *ip, None));
        }
        for (ip, password) in wanted.iter().filter(|(ip, password)| self.keyed.get(*ip) != Some(password)) {
            self.set(*ip, |socket| sockopt::set_md5_key(socket, *ip, Some(password)));
        }
        self.keyed = wanted;
        let of_peers = doors.iter().map(|((ip, _), door)| (*ip, door.ao_keys.clone()));
        let ao_wanted: BTreeMap<IpAddr, Vec<TcpAoKey>> = of_peers.filter(|(_, keys)| !keys.is_empty()).collect();
        for (ip, keys) in ao_wanted.iter().filter(|(ip, keys)| self.ao_keyed.get(*ip) != Some(keys)) {
            for (index, key) in keys.iter().enumerate() {
                self.set(*ip, |socket| sockopt::add_ao_key(socket, *ip, key, index == 0));
            }
        }
        self.ao_keyed = ao_wanted;
    }

    fn set(&self, ip: IpAddr, set: impl Fn(&TcpListener) -> io::Result<()>) {
        let socket = if ip.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(Err(error)) = socket.as_ref().map(set) {
            tracing::warn!(peer = %ip, %error, "cannot set the key of a listening socket");
        }
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        tokio::select! {
            accepted = accept(self.v4.as_ref()) => accepted,
            accepted = accept(self.v6.as_ref()) => accepted,
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

impl Actor for Listener {
    const NAME: &'static str = "bgp-listener";

    fn instance(&self) -> String {
        self.device.as_deref().unwrap_or_default().to_owned()
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut sockets: Option<Sockets> = None;
        let mut retry_at = None;
        loop {
            let doors = self.doors.borrow_and_update().clone();
            if doors.is_empty() {
                sockets = None; // the port is somebody else's as long as nobody is expected
            } else if sockets.is_none() && retry_at.is_none() {
                sockets = self.open();
                retry_at = sockets.is_none().then(|| Instant::now() + RETRY);
            }
            if let Some(sockets) = &mut sockets {
                sockets.rekey(&doors);
            }
            let accepted = async {
                match (&sockets, retry_at) {
                    (Some(sockets), None) => sockets.accept().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.doors.changed() => changed.map_err(|_| ActorError::Upstream("bgp manager"))?,
                () = sleep_until(retry_at) => retry_at = None,
                accepted = accepted => match accepted {
                    Ok((stream, remote)) => self.admit(stream, remote),
                    // the caller's trouble, told on its connection's account
                    Err(error) if !OUT_OF_RESOURCES.contains(&error.raw_os_error().unwrap_or(0)) => {
                        tracing::debug!(%error, "a connection was gone before it was accepted");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        retry_at = Some(Instant::now() + RETRY);
                    }
                },
            }
        }
    }
}
