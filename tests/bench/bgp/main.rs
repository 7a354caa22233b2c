//! Measures Ferrocast's BGP speaker against routing daemons as originators: `tests/bench/run bgp` builds and calls it.
//!
//! `bench-bgp [--quick] [--only WORD]… [--runs N] [--json FILE]`
//!
//! Every contender sends to the same receiver ([`ferrocast_tests::sink`], in this process) over the same veth, from a network
//! namespace of its own, in turn, each run in a fresh process that has all its routes before the receiver listens. The clock
//! runs from the last accepted TCP connection (nothing is answered before) to the last prefix at the last peer.
#![allow(clippy::disallowed_methods, reason = "benchmarks read the clock and own their tasks; the product does not")]

mod change;
mod config;
mod contender;
mod report;
mod speaker;
#[path = "../stats.rs"]
mod stats;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ferrocast_tests::process::sh;
use ferrocast_tests::runner::{enter_namespaces, furnish, is_inside, namespaces_allowed};
use ferrocast_tests::sink::{Counts, Sink};

use crate::contender::{Contender, Memory, Running};
use crate::report::{Report, Run, Scenario};
use crate::stats::ms;

/// Runs of each contender: what the issue asks for at least, and for a quick look.
const RUNS: usize = 5;
const QUICK_RUNS: usize = 2;
/// AS of the receiver, and of everybody who is measured.
const SINK_AS: u32 = 64_500;
const SENDER_AS: u32 = 64_600;
/// The sender's address, and those of the receiver: from `SINK_FIRST` on, one for each peer.
const SENDER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SINK_FIRST: u32 = u32::from_be_bytes([10, 0, 0, 11]);
const PEERS_MAX: u32 = 8;
/// Who feeds those that read no table from a file.
const FEEDER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
/// The sender's namespace.
const NETNS: &str = "sender";
const BGP_PORT: u16 = 179;
/// How long anything may take that should take seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to measure.
struct Plan {
    runs: usize,
    only: Vec<String>,
    json: PathBuf,
}

impl Plan {
    fn from_arguments(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut plan = Self { runs: RUNS, only: vec![], json: PathBuf::from("target/bench-bgp.json") };
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => plan.runs = QUICK_RUNS,
                "--only" => plan.only.push(value()?.to_lowercase()),
                "--runs" => plan.runs = value()?.parse()?,
                "--json" => plan.json = value()?.into(),
                _ => bail!("usage: bench-bgp [--quick] [--only WORD]… [--runs N] [--json FILE]"),
            }
        }
        Ok(plan)
    }

    /// Without words everything; a word names a scenario or a contender.
    fn wants(&self, words: &[&str]) -> bool {
        let known = |word: &&String| words.iter().any(|known| known.eq_ignore_ascii_case(word));
        self.only.is_empty() || self.only.iter().any(|word| known(&word))
    }
}

/// The addresses of so many peers.
fn peers(number: u32) -> Vec<SocketAddr> {
    (SINK_FIRST..SINK_FIRST + number).map(|ip| SocketAddr::from((Ipv4Addr::from(ip), BGP_PORT))).collect()
}

/// A cable from here to the sender's namespace.
fn lay_network() -> Result<()> {
    sh(&format!("ip netns add {NETNS}"))?;
    sh(&format!("ip link add eth0 type veth peer name eth0 netns {NETNS}"))?;
    for ip in (SINK_FIRST..SINK_FIRST + PEERS_MAX).map(Ipv4Addr::from).chain([FEEDER]) {
        sh(&format!("ip addr add {ip}/24 dev eth0"))?;
    }
    sh("ip link set eth0 up")?;
    for words in ["link set lo up".to_owned(), format!("addr add {SENDER}/24 dev eth0"), "link set eth0 up".to_owned()]
    {
        sh(&format!("ip -n {NETNS} {words}"))?;
    }
    Ok(())
}

/// One fresh process, one set of sessions.
async fn once(contender: Contender, scenario: Scenario, dir: &Path) -> Result<Run> {
    let addresses = peers(scenario.peers);
    let mut running = Running::start(contender, scenario.routes, &addresses, dir).await?;
    let outcome = async {
        let loaded = running.memory()?;
        let sink = Sink::listen(&addresses, SINK_AS).await?;
        running.dial(&addresses)?;
        let mut sessions = sink.accept(PATIENCE).await?;
        let done = sessions.wait_for(scenario.routes as usize, 0, PATIENCE)?;
        let Memory { now: resident, peak } = running.memory()?;
        let counts = sessions.counts();
        let most = |of: fn(&Counts) -> usize| counts.iter().map(of).max().unwrap_or_default();
        Ok(Run {
            took_ms: ms(done.duration_since(sessions.accepted)),
            updates: most(|counts| counts.updates),
            octets: most(|counts| counts.octets),
            loaded: loaded.now,
            resident,
            peak,
        })
    };
    let outcome: Result<Run> = outcome.await;
    outcome.with_context(|| format!("{contender:?}, {scenario}\n{}", running.tails()))
}

async fn measure(plan: &Plan, dir: &Path, report: &mut Report) -> Result<()> {
    if plan.wants(&["change"]) {
        change::changes(plan.runs, report).await?;
    }
    if plan.wants(&["memory", "Ferrocast"]) {
        let idle = Running::start(Contender::Ferrocast, 0, &[], dir).await?.memory()?;
        report.idle = Some(idle.now);
    }
    for scenario in Scenario::ALL {
        for number in 0..plan.runs {
            for contender in Contender::ALL {
                // OpenBGPD's parser is quadratic in its `network` lines: 100,000 take many minutes.
                let sane = contender != Contender::OpenBgpd || scenario.routes <= 10_000;
                if !sane || !plan.wants(&[scenario.word, contender.name()]) {
                    continue;
                }
                let run = once(contender, scenario, &dir.join(contender.name())).await?;
                eprintln!("  {scenario}, run {number}: {} {run}", contender.name());
                report.add(scenario, contender, run);
            }
        }
    }
    Ok(())
}

fn inside(plan: &Plan) -> Result<()> {
    furnish()?;
    lay_network()?;
    let dir = tempfile::tempdir()?;
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(measure(plan, dir.path(), &mut report));
    println!("{}", report.table());
    if let Some(folder) = plan.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&plan.json, serde_json::to_string_pretty(&report.json())?)?;
    done
}

fn main() -> Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("speak") {
        return speaker::speak().map(|()| ExitCode::SUCCESS);
    }
    let plan = Plan::from_arguments(std::env::args().skip(1))?;
    if let Err(reason) = namespaces_allowed() {
        bail!(reason);
    }
    if !is_inside() {
        return Ok(enter_namespaces());
    }
    inside(&plan).map(|()| ExitCode::SUCCESS)
}
