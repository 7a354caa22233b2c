//! A BGP receiver that only counts: it answers OPEN and KEEPALIVE, keeps no route, and notes when octets arrived. For
//! benchmarks, where the receiver must cost the sender as little as possible, whoever the sender is.
//!
//! One thread per session with blocking reads, pinned nowhere. All sessions begin together: nothing is answered before
//! every listener has its connection, so that a sender that dials its peers one after the other has no advantage.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BytesMut};
use ferrocast_bgp_proto::Families;
use ferrocast_bgp_proto::Family;
use ferrocast_bgp_proto::wire::{Message, Open};
use tokio::net::TcpListener;

use crate::wait::bounded;

/// The receiver's identifier.
const SINK_ID: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 253);
/// Hold time that it offers, s: no measurement takes as long.
const HOLD_TIME_S: u16 = 240;
/// Room for one read: many messages.
const READ_LEN: usize = 256 * 1024;

/// What one session has brought so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// UPDATEs that announce something.
    pub updates: usize,
    /// Octets of these.
    pub octets: usize,
    /// Prefixes in them.
    pub routes: usize,
    /// Withdrawn prefixes.
    pub withdrawn: usize,
}

/// One read of one session, or its end.
struct Arrival {
    session: usize,
    counts: Result<Counts>,
    at: Instant,
}

/// Listens, one address per peer.
#[derive(Debug)]
pub struct Sink {
    listeners: Vec<TcpListener>,
    asn: u32,
}

/// Sessions under way, one per listener; dropping it closes them.
#[derive(Debug)]
pub struct Sessions {
    /// When the last of the connections was accepted.
    pub accepted: Instant,
    streams: Vec<TcpStream>,
    arrivals: Receiver<Arrival>,
    latest: Vec<(Counts, Instant)>,
}

impl Sink {
    /// Listens on these addresses (port zero: any) as this AS.
    ///
    /// # Errors
    /// When one cannot be had.
    pub async fn listen(addresses: &[SocketAddr], asn: u32) -> Result<Self> {
        let mut listeners = vec![];
        for address in addresses {
            listeners.push(TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?);
        }
        Ok(Self { listeners, asn })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>> {
        Ok(self.listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
    }

    /// Waits for one connection to each address, then answers all of them.
    ///
    /// # Errors
    /// When one does not come in time.
    pub async fn accept(&self, within: Duration) -> Result<Sessions> {
        let accepting = async {
            let mut streams = vec![];
            for listener in &self.listeners {
                streams.push(listener.accept().await?.0);
            }
            Ok(streams)
        };
        let streams = bounded("connections to the sink", within, accepting).await?;
        let accepted = Instant::now();
        let (sender, arrivals) = channel();
        let mut kept = vec![];
        for (session, stream) in streams.into_iter().enumerate() {
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            stream.set_nodelay(true)?;
            kept.push(stream.try_clone()?);
            let (sender, asn) = (sender.clone(), self.asn);
            std::thread::spawn(move || {
                if let Err(error) = receive(stream, asn, session, &sender) {
                    drop(sender.send(Arrival { session, counts: Err(error), at: Instant::now() }));
                }
            });
        }
        let latest = vec![(Counts::default(), accepted); kept.len()];
        Ok(Sessions { accepted, streams: kept, arrivals, latest })
    }
}

impl Sessions {
    /// Waits until every session has brought at least so many routes and withdrawals, counted from its start, and returns when
    /// the last of them had. Blocks the thread.
    ///
    /// # Errors
    /// When a session ends before, or the time is over.
    pub fn wait_for(&mut self, routes: usize, withdrawn: usize, within: Duration) -> Result<Instant> {
        let enough = |counts: &Counts| counts.routes >= routes && counts.withdrawn >= withdrawn;
        let deadline = Instant::now() + within;
        while !self.latest.iter().all(|(counts, _)| enough(counts)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let arrival = self.arrivals.recv_timeout(left);
            let arrival = arrival.with_context(|| format!("{routes} routes after {within:?}: {:?}", self.counts()))?;
            let counts = arrival.counts.with_context(|| format!("session {} of {routes} routes", arrival.session))?;
            let latest = &mut self.latest[arrival.session];
            if !enough(&latest.0) {
                *latest = (counts, arrival.at);
            }
        }
        Ok(self.latest.iter().map(|(_, at)| *at).max().unwrap_or(self.accepted))
    }

    /// What each session had brought when it was last waited for.
    #[must_use]
    pub fn counts(&self) -> Vec<Counts> {
        self.latest.iter().map(|(counts, _)| *counts).collect()
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for stream in &self.streams {
            drop(stream.shutdown(Shutdown::Both)); // it may be closed already; this ends its thread
        }
    }
}

/// The passive side of a session, until it is closed.
fn receive(mut stream: TcpStream, asn: u32, session: usize, arrivals: &Sender<Arrival>) -> Result<()> {
    let mut scratch = vec![0; READ_LEN];
    let mut inbox = BytesMut::with_capacity(READ_LEN);
    let mut counts = Counts::default();
    loop {
        let len = match stream.read(&mut scratch) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        let at = Instant::now();
        ensure!(len > 0, "the sender closed after {counts:?}");
        inbox.extend_from_slice(&scratch[..len]);
        let mut answer = BytesMut::new();
        while let Some((message, length)) = Message::decode(&inbox)? {
            match message {
                Message::Open(_) => {
                    let open = Open::new(asn, HOLD_TIME_S, SINK_ID, Families::only(Family::Ipv4Unicast));
                    Message::Open(open).encode(&mut answer);
                    Message::Keepalive.encode(&mut answer);
                }
                Message::Keepalive => Message::Keepalive.encode(&mut answer),
                Message::Update(body) => count(body, length, &mut counts)?,
                Message::Notification(notification) => bail!("{notification:?}"),
                Message::RouteRefresh(_) => {}
            }
            inbox.advance(length);
        }
        stream.write_all(&answer)?;
        if arrivals.send(Arrival { session, counts: Ok(counts), at }).is_err() {
            return Ok(());
        }
    }
}

/// Adds up one UPDATE of IPv4 routes. Source: RFC 4271 §4.3.
fn count(body: &[u8], length: usize, counts: &mut Counts) -> Result<()> {
    let section =
        |body: &[u8]| -> Option<usize> { Some(body.first_chunk::<2>().map(|len| u16::from_be_bytes(*len))?.into()) };
    let parts = || {
        let (withdrawn, rest) = body.get(2..)?.split_at_checked(section(body)?)?;
        let nlri = rest.get(2..)?.get(section(rest)?..)?;
        Some((prefixes(withdrawn)?, prefixes(nlri)?))
    };
    let (withdrawn, routes) = parts().context("an UPDATE that does not add up")?;
    counts.withdrawn += withdrawn;
    if routes > 0 {
        counts.updates += 1;
        counts.octets += length;
        counts.routes += routes;
    }
    Ok(())
}

/// How many prefixes a field holds.
fn prefixes(mut field: &[u8]) -> Option<usize> {
    let mut number = 0;
    while let Some((bits, rest)) = field.split_first() {
        field = rest.get(usize::from(bits.div_ceil(8))..)?;
        number += 1;
    }
    Some(number)
}
