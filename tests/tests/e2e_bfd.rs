//! BFD with BIRD and FRR: sessions, detection times, timer changes, goodbyes, load. No BGP, no Kubernetes.
#![expect(clippy::disallowed_methods, reason = "measured times are what is tested")]

#[path = "e2e_bfd/bed.rs"]
mod bed;

use std::fs;
use std::net::UdpSocket;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bed::{Bed, MANY, Router, config, cut, mend, reach, up, up_at};
use ferrocast_bfd::packet::Packet;
use ferrocast_bfd::{Bfd, Diagnostic, Session, SessionConfig, SessionInfo, State};
use ferrocast_tests::process::sh;
use ferrocast_tests::wait::{bounded, ensure_that, eventually, pause, throughout};
use ferrocast_tests::{cases, runner};

/// How long a session may take from its start to Up, with a peer that sends once a second until then.
const UP_TIME_MAX: Duration = Duration::from_secs(2);
/// How long silence may go unnoticed with 3 × 100 ms: the bound of the issue.
const DETECTION_TIME_MAX: Duration = Duration::from_millis(350);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// BIRD 2 sends multihop packets with the system's TTL, 64; here they pass one router.
const BIRD_MULTIHOP_TTL_MIN: u8 = 63;
/// Length of the load test, s; of the long one, s.
const LOAD_TIME_S: u64 = 60;
const LONG_LOAD_TIME_S: u64 = 600;
/// Threads that do nothing but compute: more than the machine has cores.
const BUSY_THREADS: usize = 4;

fn main() -> ExitCode {
    let cases = cases![
        sessions_with_both_routers_are_up_within_two_seconds,
        silence_is_noticed_on_both_sides_in_time,
        timers_change_by_a_poll_without_a_flap,
        a_goodbye_is_told_both_ways_and_is_no_failure,
        a_passive_side_waits_for_the_router,
        packets_that_a_router_forwarded_are_ignored,
        echoes_of_both_sides_come_back_and_their_loss_is_noticed,
        a_taken_port_is_said_and_harms_nothing_else,
        a_process_that_ends_tells_its_peers,
        ten_fast_sessions_hold_while_the_runtime_is_busy;
        long: ten_fast_sessions_hold_for_ten_minutes,
    ];
    runner::main::<Bed>("e2e_bfd", env!("CARGO_TARGET_TMPDIR"), cases)
}

/// Local address, peer, whose it is, multihop.
const PATHS: [(&str, &str, Router, bool); 8] = [
    ("10.1.0.1", "10.1.0.2", Router::Bird, false),
    ("fd01::1", "fd01::2", Router::Bird, false),
    ("fe80::1", "fe80::2", Router::Bird, false),
    ("10.2.0.1", "10.3.0.2", Router::Bird, true),
    ("fd02::1", "fd03::2", Router::Bird, true),
    ("10.2.0.1", "10.2.0.3", Router::Frr, false),
    ("fd02::1", "fd02::3", Router::Frr, false),
    ("10.1.0.1", "10.3.0.3", Router::Frr, true),
];

fn path(index: usize) -> (SessionConfig, Router) {
    let (local, peer, router, multihop) = PATHS[index];
    let mut config = config(local, peer, 100);
    config.multihop = multihop;
    if router == Router::Bird {
        config.minimum_ttl = BIRD_MULTIHOP_TTL_MIN;
    }
    config.interface = peer.starts_with("fe80").then(|| "to-bird".to_owned());
    (config, router)
}

async fn sessions_with_both_routers_are_up_within_two_seconds(bed: &mut Bed) -> Result<()> {
    for (index, (local, peer, router, multihop)) in PATHS.iter().enumerate() {
        let session = bed.bfd.open(path(index).0);
        let took = up(&session).await.with_context(|| format!("{local} with {peer}"))?;
        println!("     {router:?} {local} - {peer}{}: Up after {took:.0?}", if *multihop { " multihop" } else { "" });
        ensure!(took <= UP_TIME_MAX, "{local} with {peer} took {took:?}");
        up_at(&session, 100).await?;
        let (state, counters) = (router.state(local)?, session.counters());
        ensure!(state == "up", "{router:?} says {state}");
        ensure!(counters.up_events == 1 && counters.down_events == 0 && counters.packets_in > 1, "{counters:?}");
    }
    Ok(())
}

async fn silence_is_noticed_on_both_sides_in_time(bed: &mut Bed) -> Result<()> {
    for index in [0, 1, 3, 5, 6] {
        let ((settings, router), (local, peer, ..)) = (path(index), PATHS[index]);
        let session = bed.bfd.open(settings);
        up_at(&session, 100).await?;
        for round in 0..3 {
            // At another point of the interval each time, or the peer's last packet would always have just come.
            pause(Duration::from_millis(500 + 33 * round)).await;
            // Now, before the rules are in force: both times include loading them.
            let began = Instant::now();
            let down = |info: &SessionInfo| info.state == State::Down;
            let (theirs, ours) = tokio::join!(bed.notices(router, local), async {
                cut(router).await?;
                let (info, _) = reach(&session, PATIENCE, "Down", down).await?;
                anyhow::Ok((info, began.elapsed()))
            });
            let (theirs, (info, ours)) = (theirs? - began, ours?);
            println!(
                "     {router:?} {local} - {peer}: silence noticed by us after {ours:.0?}, by it after {theirs:.0?}"
            );
            ensure!(info.path_failed() && info.diagnostic == Diagnostic::DetectionTimeExpired, "{info:?}");
            ensure!(ours <= DETECTION_TIME_MAX, "we took {ours:?}");
            ensure!(theirs <= DETECTION_TIME_MAX, "{router:?} took {theirs:?}");
            mend(router)?;
            up_at(&session, 100).await?;
        }
        ensure!(session.counters().down_events == 3, "{:?}", session.counters());
    }
    Ok(())
}

async fn timers_change_by_a_poll_without_a_flap(bed: &mut Bed) -> Result<()> {
    for index in [0, 5] {
        let (settings, _) = path(index);
        let session = bed.bfd.open(settings.clone());
        up_at(&session, 100).await?;
        for ms in [300, 150, 1_000, 100] {
            let interval = Duration::from_millis(ms);
            session.update(SessionConfig { desired_min_tx: interval, required_min_rx: interval, ..settings.clone() });
            up_at(&session, ms.max(100)).await?;
            pause(Duration::from_millis(500)).await;
        }
        let counters = session.counters();
        ensure!(counters.down_events == 0 && counters.up_events == 1, "{counters:?}");
    }
    Ok(())
}

async fn a_goodbye_is_told_both_ways_and_is_no_failure(bed: &mut Bed) -> Result<()> {
    for index in [0, 5] {
        let ((settings, router), (local, ..)) = (path(index), PATHS[index]);
        let session = bed.bfd.open(settings);
        up_at(&session, 100).await?;
        let began = Instant::now();
        let (noticed, ()) = tokio::join!(bed.notices(router, local), async { session.admin_down() });
        let took = noticed? - began;
        println!("     {router:?} saw AdminDown after {took:.0?}");
        ensure!(took < Duration::from_millis(200), "{router:?} saw it after {took:?}, not before its detection time");
        if router == Router::Frr {
            let details = router.details(local)?;
            ensure!(details["remote-diagnostic"] == "administratively down", "{details}");
        }
    }
    let session = bed.bfd.open(path(5).0);
    up_at(&session, 100).await?;
    let peer = "peer 10.2.0.1 local-address 10.2.0.3 interface to-node";
    Router::Frr.show(&format!("configure terminal / bfd / {peer} / shutdown"))?;
    let told = |info: &SessionInfo| info.state == State::Down;
    let (info, _) = reach(&session, PATIENCE, "Down", told).await?;
    ensure!(info.admin_down_by_peer && !info.path_failed(), "{info:?}");
    ensure!(info.diagnostic == Diagnostic::NeighborDown && info.remote_state == State::AdminDown, "{info:?}");
    Router::Frr.show(&format!("configure terminal / bfd / {peer} / no shutdown"))?;
    up_at(&session, 100).await?;
    ensure!(!session.watch().borrow().admin_down_by_peer, "up again");
    Ok(())
}

async fn a_passive_side_waits_for_the_router(bed: &mut Bed) -> Result<()> {
    for index in [0, 5] {
        let session = bed.bfd.open(SessionConfig { passive: true, ..path(index).0 });
        up(&session).await?;
        up_at(&session, 100).await?;
    }
    // Nobody is there: not one packet.
    let session = bed.bfd.open(SessionConfig { passive: true, ..config("10.1.0.1", "10.1.0.99", 100) });
    throughout("it is silent", Duration::from_secs(2), async || {
        ensure_that(session.counters().packets_out == 0, || "it sends".to_owned())
    })
    .await
}

async fn packets_that_a_router_forwarded_are_ignored(bed: &mut Bed) -> Result<()> {
    let session = bed.bfd.open(config("127.0.0.1", "127.0.0.2", 100));
    eventually("the session sends", PATIENCE, async || {
        ensure_that(session.counters().packets_out > 0, || "not yet".to_owned())
    })
    .await?;
    let peer = UdpSocket::bind("127.0.0.2:50000")?;
    let packet = Packet { state: State::Down, detect_multiplier: 3, my_discriminator: 9, ..Packet::default() };
    let packet = Packet { desired_min_tx_us: 1_000_000, required_min_rx_us: 1_000_000, ..packet }.encode();
    let before = bed.bfd.counters().discarded;
    peer.set_ttl(254)?;
    for _ in 0..20 {
        peer.send_to(&packet, "127.0.0.1:3784")?;
    }
    eventually("they are discarded", PATIENCE, async || {
        ensure_that(bed.bfd.counters().discarded >= before + 20, || "not yet".to_owned())
    })
    .await?;
    ensure!(session.counters().packets_in == 0 && session.watch().borrow().state == State::Down, "one was taken");
    peer.set_ttl(255)?;
    peer.send_to(&packet, "127.0.0.1:3784")?;
    reach(&session, PATIENCE, "Init", |info| info.state == State::Init).await.map(drop)
}

/// FRR's namespace returns ours by forwarding, and ours returns FRR's.
async fn echoes_of_both_sides_come_back_and_their_loss_is_noticed(bed: &mut Bed) -> Result<()> {
    let peer = "configure terminal / bfd / peer 10.2.0.1 local-address 10.2.0.3 interface to-node";
    Router::Frr.show(&format!("{peer} / echo transmit-interval 50 / echo receive-interval 50 / echo-mode"))?;
    let forwarding = |family: &str, on: u8| {
        let name = format!("net.{family}.conf.all.forwarding");
        sh(&format!("ip netns exec frr sysctl -qw {name}={on}"))
    };
    for (index, family) in [(5, "ipv4"), (6, "ipv6")] {
        let echoing = SessionConfig { echo_interval: Some(Duration::from_millis(50)), ..path(index).0 };
        let session = bed.bfd.open(echoing);
        up_at(&session, 100).await?;
        eventually("echoes come back", PATIENCE, async || {
            let (counters, info) = (session.counters(), session.watch().borrow().clone());
            ensure_that(counters.echo_in >= 40 && counters.down_events == 0, || format!("{counters:?} {info:?}"))
        })
        .await?;
        let (info, counters) = (session.watch().borrow().clone(), session.counters());
        println!("     {family}: {} echoes sent, {} returned", counters.echo_out, counters.echo_in);
        ensure!(info.echo && info.warning.is_none(), "{info:?}");
        if family == "ipv4" {
            let theirs = eventually("FRR's echoes come back", PATIENCE, async || {
                let peers: Vec<serde_json::Value> =
                    serde_json::from_str(&Router::Frr.show("show bfd peers counters json")?)?;
                let peer = peers.into_iter().find(|peer| peer["peer"] == "10.2.0.1").context("no such peer")?;
                let [sent, came] = ["echo-packet-output", "echo-packet-input"].map(|name| peer[name].as_u64());
                ensure!(came > Some(20), "{peer}");
                Ok((sent, came))
            });
            println!("     FRR's own: {:?} (sent, returned)", theirs.await?);
        }
        let began = Instant::now();
        forwarding(family, 0)?;
        // Control packets still pass, so it is Up again soon, and Down again: the count tells, not the state.
        let failed = |_: &SessionInfo| session.counters().down_events > 0;
        let (info, _) = reach(&session, PATIENCE, "Down for want of echoes", failed).await?;
        println!("     {family}: their loss noticed after {:.0?}", began.elapsed());
        ensure!(began.elapsed() <= DETECTION_TIME_MAX, "it took {:?}", began.elapsed());
        let reason = info.diagnostic;
        ensure!(info.state == State::Up || reason == Diagnostic::EchoFailed, "{reason}");
        forwarding(family, 1)?;
        up_at(&session, 100).await?;
    }
    Router::Frr.show(&format!("{peer} / no echo-mode")).map(drop)
}

async fn a_taken_port_is_said_and_harms_nothing_else(bed: &mut Bed) -> Result<()> {
    // All sessions are closed between cases; their sockets follow within a detection time.
    let other = eventually("the port is free", PATIENCE, async || Ok(UdpSocket::bind("0.0.0.0:3784")?)).await?;
    let four = bed.bfd.open(path(0).0);
    let six = bed.bfd.open(path(1).0);
    let (info, _) = reach(&four, PATIENCE, "an error", |info| info.error.is_some()).await?;
    println!("     {}", info.error.unwrap_or_default());
    up(&six).await?;
    drop(other);
    let (_, took) = reach(&four, Duration::from_secs(15), "Up", |info| info.state == State::Up).await?;
    println!("     Up {took:.1?} after the port was free");
    ensure!(six.counters().down_events == 0, "the other session flapped");
    Ok(())
}

async fn a_process_that_ends_tells_its_peers(bed: &mut Bed) -> Result<()> {
    // The bed's own thread lets go of the ports once its sessions have said goodbye.
    eventually("the port is free", PATIENCE, async || Ok(UdpSocket::bind("0.0.0.0:3784").map(drop)?)).await?;
    for index in [0, 5] {
        let ((settings, router), (local, ..)) = (path(index), PATHS[index]);
        let bfd = Bfd::start()?;
        let session = bfd.open(settings);
        up_at(&session, 100).await?;
        let mut watch = session.watch();
        let began = Instant::now();
        let (noticed, ()) = tokio::join!(bed.notices(router, local), bfd.close());
        println!("     {router:?} saw the end of the process after {:.0?}", noticed? - began);
        let over = async {
            while watch.changed().await.is_ok() {}
            Ok(())
        };
        bounded("the session is over", PATIENCE, over).await?;
        ensure!(watch.borrow().state == State::AdminDown, "{:?}", watch.borrow().clone());
    }
    Ok(())
}

async fn ten_fast_sessions_hold_while_the_runtime_is_busy(bed: &mut Bed) -> Result<()> {
    hold_under_load(bed, Duration::from_secs(LOAD_TIME_S)).await
}

async fn ten_fast_sessions_hold_for_ten_minutes(bed: &mut Bed) -> Result<()> {
    hold_under_load(bed, Duration::from_secs(LONG_LOAD_TIME_S)).await
}

async fn hold_under_load(bed: &mut Bed, length: Duration) -> Result<()> {
    let to_bird = MANY.map(|host| config(&format!("10.4.0.{host}"), "10.4.0.2", 50));
    let to_frr = MANY.map(|host| config(&format!("10.2.0.{host}"), "10.2.0.3", 50));
    let sessions: Vec<Session> = to_bird.chain(to_frr).map(|config| bed.bfd.open(config)).collect();
    for session in &sessions {
        up_at(session, 50).await?;
    }
    let busy = Busy::start()?;
    let (began, used) = (Instant::now(), thread_time("bfd")?);
    let alarms = || -> u64 { sessions.iter().map(|session| session.counters().down_events).sum() };
    let watched = async {
        while began.elapsed() < length {
            pause(Duration::from_millis(250)).await;
            let told = || -> Vec<SessionInfo> {
                let flapped = sessions.iter().filter(|session| session.counters().down_events > 0);
                flapped.map(|session| session.watch().borrow().clone()).collect()
            };
            ensure!(alarms() == 0, "false alarm after {:?}: {:#?}", began.elapsed(), told());
        }
        Ok(())
    };
    let held = bounded("watching", length * 2, watched).await;
    let (took, used) = (began.elapsed().as_secs_f64(), thread_time("bfd")? - used);
    let tasks = busy.stop();
    let packets: u64 = sessions.iter().map(|session| session.counters().packets_out).sum();
    println!(
        "     10 sessions of 3 x 50 ms for {took:.0} s beside {tasks} busy tasks: {} alarms, {packets} packets sent, \
         {:.2} % of one core, latest wake-up {} us, priority {}",
        alarms(),
        100.0 * used / took,
        bed.bfd.counters().late_max_us,
        thread_priority("bfd")?,
    );
    held
}

/// A runtime whose every worker computes without end.
struct Busy {
    runtime: tokio::runtime::Runtime,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Busy {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(BUSY_THREADS).build()?;
        let stop = Arc::new(AtomicBool::new(false));
        let compute = |stop: Arc<AtomicBool>| async move {
            let mut rounds = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                // Some milliseconds without a point where the runtime could take another task.
                let sum = (0..2_000_000_u64).fold(rounds, |sum, value| sum.rotate_left(5) ^ value);
                std::hint::black_box(sum);
                rounds += 1;
                tokio::task::yield_now().await;
            }
        };
        let tasks = (0..2 * BUSY_THREADS).map(|_| runtime.spawn(compute(Arc::clone(&stop)))).collect();
        Ok(Self { runtime, stop, tasks })
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.runtime.shutdown_background();
        self.tasks.len()
    }
}

/// The fields of `/proc/self/task/*/stat` of this process's thread of that name, from the third on. Source: proc(5).
fn thread_stat(name: &str) -> Result<Vec<i64>> {
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        if let Some((head, rest)) = stat.rsplit_once(") ")
            && head.ends_with(&format!("({name}"))
        {
            return Ok(rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect());
        }
    }
    bail!("no thread {name}")
}

/// Processor time of this process's thread of that name, s.
fn thread_time(name: &str) -> Result<f64> {
    /// Clock ticks of a second, the same on every Linux that Rust supports.
    const TICKS_PER_S: f64 = 100.0;
    let fields = thread_stat(name)?;
    let ticks = u32::try_from(fields[11] + fields[12])?;
    Ok(f64::from(ticks) / TICKS_PER_S)
}

/// How that thread is scheduled.
fn thread_priority(name: &str) -> Result<String> {
    let fields = thread_stat(name)?;
    let real_time = fields[38] == i64::from(libc::SCHED_RR);
    Ok(if real_time { format!("real-time {}", fields[37]) } else { format!("nice {}", fields[16]) })
}
