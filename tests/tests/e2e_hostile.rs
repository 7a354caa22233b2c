//! A peer that does everything wrong, against the speaker as a process of its own: its memory is measured from outside, and
//! another peer's routes are watched meanwhile.

#![expect(clippy::disallowed_methods, reason = "tests read the clock and own their tasks")]

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::BytesMut;
use ferrocast_bgp::router::{Rib, Router, RouterConfig};
use ferrocast_bgp_proto::wire::{AttributeBlock, Message, NextHop, Open, PathAttributes, ReachPacker, RouteRefresh};
use ferrocast_bgp_proto::{Families, Family};
use ferrocast_core::actor::Supervisor;
use ferrocast_tests::ferrocast::built;
use ferrocast_tests::process::{command, sh};
use ferrocast_tests::runner::Context;
use ferrocast_tests::wait::{bounded, eventually, pause};
use ferrocast_tests::{cases, runner};
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

/// What the memory may grow by, octets: the number.
const GROWTH_MAX: u64 = 2 << 20;
/// Routes of the flood.
const FLOOD_ROUTES: u32 = 1_000_000;
/// Between two floods, so that the attackers leave some of the two cores to the rest of the suite.
const BREATH: Duration = Duration::from_millis(100);
/// Connections to the port for passive peers.
const CONNECTIONS: u32 = 10_000;
/// So many of them at the same time.
const KNOCKS_AT_ONCE: u32 = 20;
/// The first of their ports.
const KNOCK_PORTS: u32 = 20_000;
/// Routes that every peer has from the beginning.
const STANDING: u32 = 1_000;
/// How long the attack lasts at least.
const ATTACK: Duration = Duration::from_secs(10);
/// How long a change may take to arrive at the good router: generous, since the attackers take both cores too; a speaker that
/// waits for one of them would need minutes.
const ARRIVAL_MAX: Duration = Duration::from_secs(2);
/// Where the routers of this suite listen; 179 is the speaker's.
const PORT: u16 = 1790;

struct Bed(PathBuf);

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        sh("ip link set lo up")?;
        Ok(Self(dir.to_owned()))
    }

    fn diagnose(&self) -> String {
        ferrocast_tests::process::tail("speaker", &self.0.join("speaker.log"))
    }
}

fn main() -> ExitCode {
    let cases = cases![hostile_peers_cost_no_memory_and_delay_nobody];
    runner::main::<Bed>("e2e_hostile", env!("CARGO_TARGET_TMPDIR"), cases)
}

/// What one attacker does once its session is Established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A million routes, as fast as they are taken, and again.
    Flood,
    /// One octet of a message a second.
    Trickle,
    /// Nothing is ever read.
    Deaf,
    /// ROUTE-REFRESH without end.
    Refresh,
    /// Closes and waits to be dialled again.
    Flap,
}

const WAYS: [Way; 5] = [Way::Flood, Way::Trickle, Way::Deaf, Way::Refresh, Way::Flap];

fn address(way: Way) -> Ipv4Addr {
    let number = WAYS.iter().position(|w| *w == way).unwrap_or(0);
    Ipv4Addr::new(127, 0, 1, u8::try_from(number).unwrap_or(0) + 1)
}

fn octets(messages: &[Message<'_>]) -> BytesMut {
    let mut out = BytesMut::new();
    messages.iter().for_each(|message| message.encode(&mut out));
    out
}

/// A million routes as UPDATEs, made once.
fn flood() -> Result<BytesMut> {
    let attributes = PathAttributes { as_path: vec![65_000], ..PathAttributes::default() };
    let hop = NextHop::V4(Ipv4Addr::new(127, 0, 1, 1));
    let mut packer = ReachPacker::new(Arc::new(AttributeBlock::new(Family::Ipv4Unicast, &attributes, hop, true)?));
    let mut out = BytesMut::new();
    for n in 0..FLOOD_ROUTES {
        packer.push(&IpNet::new(Ipv4Addr::from_bits(0x1400_0000 + n).into(), 32)?, &mut out);
    }
    packer.flush(&mut out);
    Ok(out)
}

/// Accepts the speaker again and again; behaves until `go`, and then no more.
async fn attack(way: Way, mut go: watch::Receiver<bool>) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    if way == Way::Deaf {
        socket.set_recv_buffer_size(4_096)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind((address(way), PORT).into())?;
    let listener = socket.listen(16)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let open = Open::new(65_000, 240, address(way), Families::ALL);
        if stream.write_all(&octets(&[Message::Open(open), Message::Keepalive])).await.is_ok() {
            // whatever becomes of one connection, the next one is awaited
            drop(misbehave(way, stream, &mut go).await);
        }
    }
}

async fn misbehave(way: Way, mut stream: TcpStream, go: &mut watch::Receiver<bool>) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    while !*go.borrow_and_update() {
        tokio::select! {
            changed = go.changed() => changed?,
            read = stream.read(&mut buffer) => ensure!(read? > 0, "closed"),
            () = tokio::time::sleep(Duration::from_secs(5)) => stream.write_all(&octets(&[Message::Keepalive])).await?,
        }
    }
    let (mut reader, mut writer) = stream.into_split();
    let read = async {
        while way != Way::Deaf && reader.read(&mut buffer).await.is_ok_and(|len| len > 0) {}
        if way == Way::Deaf {
            std::future::pending::<()>().await;
        }
    };
    let write = async {
        let keepalive = octets(&[Message::Keepalive]);
        let refresh = octets(&vec![Message::RouteRefresh(RouteRefresh::new(Family::Ipv4Unicast, 0)); 100]);
        let routes = if way == Way::Flood { flood()? } else { BytesMut::new() };
        loop {
            match way {
                Way::Flood => {
                    writer.write_all(&routes).await?;
                    tokio::time::sleep(BREATH).await;
                }
                Way::Refresh => {
                    writer.write_all(&refresh).await?;
                    tokio::time::sleep(BREATH).await;
                }
                Way::Flap => return Ok(()),
                Way::Trickle => {
                    for octet in &keepalive {
                        writer.write_all(&[*octet]).await?;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
                Way::Deaf => {
                    writer.write_all(&keepalive).await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    };
    tokio::select! {
        () = read => Ok(()),
        written = write => written,
    }
}

/// Opens connections to the speaker's own port from its passive peer's address and from a stranger's.
async fn knock(mut go: watch::Receiver<bool>) -> Result<()> {
    go.wait_for(|go| *go).await?;
    // each from a port of its own: the kernel would choose one again whose last connection it still remembers
    for first in (0..CONNECTIONS).step_by(usize::try_from(KNOCKS_AT_ONCE)?) {
        futures::future::try_join_all((first..first + KNOCKS_AT_ONCE).map(knock_once)).await?;
    }
    Ok(())
}

async fn knock_once(number: u32) -> Result<()> {
    let from = if number.is_multiple_of(2) { [127, 0, 2, 1] } else { [127, 0, 2, 2] };
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((from, u16::try_from(KNOCK_PORTS + number)?).into())?;
    if let Ok(mut stream) = socket.connect(([127, 0, 0, 1], 179).into()).await {
        drop(stream.write_all(&[0xff; 19]).await); // closed by the speaker already, perhaps
        // to its end: what is not accepted in time is dropped by the kernel, and tried again only a second later
        drop(stream.read_to_end(&mut vec![]).await);
    }
    Ok(())
}

struct Speaker {
    child: Child,
    stdin: ChildStdin,
}

impl Speaker {
    fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let log = std::fs::File::create(dir.join("speaker.log"))?;
        let mut child = command(None, &built("lab-speaker")?)
            .env("MALLOC_ARENA_MAX", "2") // as deploy/ sets it
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let stdin = child.stdin.take().context("stdin")?;
        Ok(Self { child, stdin })
    }

    fn tell(&mut self, line: &Value) -> Result<()> {
        writeln!(self.stdin, "{line}")?;
        Ok(self.stdin.flush()?)
    }

    /// Resident memory, octets.
    fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? * 1_024)
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for the good router to have something.
async fn has(router: &Router, what: &str, within: Duration, fits: impl Fn(&Rib) -> bool) -> Result<()> {
    let mut rib = router.rib();
    bounded(what, within, async { Ok(rib.wait_for(|rib| fits(rib)).await.map(drop)?) }).await
}

fn peer(name: &str, address: Ipv4Addr, asn: u32) -> Value {
    json!({"name": name, "address": address, "port": PORT, "my_asn": 64_600, "peer_asn": asn, "hold_s": 240})
}

async fn hostile_peers_cost_no_memory_and_delay_nobody(bed: &mut Bed) -> Result<()> {
    let mut supervisor = Supervisor::default();
    let good = SocketAddr::from(([127, 0, 0, 10], PORT));
    let router = Router::start(&mut supervisor, RouterConfig::new(good, 65_000)).await?;
    let go = watch::Sender::new(false);
    for way in WAYS {
        tokio::spawn(attack(way, go.subscribe()));
    }
    let knocking = tokio::spawn(knock(go.subscribe()));

    let mut speaker = Speaker::start(&bed.0)?;
    let mut peers: Vec<Value> = WAYS.iter().map(|way| peer(&format!("{way:?}"), address(*way), 65_000)).collect();
    peers.push(peer("good", Ipv4Addr::new(127, 0, 0, 10), 65_000));
    let mut awaited = peer("awaited", Ipv4Addr::new(127, 0, 2, 1), 65_000);
    awaited["passive"] = json!(true);
    peers.push(awaited);
    speaker.tell(&json!({"peers": peers, "bulk": STANDING}))?;
    has(&router, "the standing routes", Duration::from_secs(30), |rib| rib.routes.len() == STANDING as usize).await?;
    pause(Duration::from_secs(2)).await;
    let before = speaker.memory()?;

    go.send_replace(true);
    let began = Instant::now();
    let (mut longest, mut most, mut changes) = (Duration::ZERO, 0, 0);
    while began.elapsed() < ATTACK || !knocking.is_finished() {
        changes += 1;
        let prefix: IpNet = format!("10.50.{}.{}/32", changes / 250, changes % 250).parse()?;
        let asked = Instant::now();
        speaker.tell(&json!({"bulk": STANDING, "routes": [{"prefix": prefix}]}))?;
        has(&router, "a change", ARRIVAL_MAX, |rib| rib.routes.contains_key(&prefix)).await?;
        longest = longest.max(asked.elapsed());
        most = most.max(speaker.memory()?);
        pause(Duration::from_millis(20)).await;
    }
    knocking.await??;
    most = most.max(speaker.memory()?);
    println!(
        "attacked for {:.1} s: {changes} changes, the slowest took {:.1} ms to arrive; memory {:.1} MB before, {:.1} MB at most",
        began.elapsed().as_secs_f64(),
        longest.as_secs_f64() * 1e3,
        before as f64 / 1e6,
        most as f64 / 1e6,
    );
    ensure!(most < before + GROWTH_MAX, "memory grew from {before} to {most} octets");
    eventually("the speaker runs", Duration::from_secs(1), async || {
        ensure!(speaker.child.try_wait()?.is_none(), "it has ended");
        Ok(())
    })
    .await?;
    Ok(())
}
