//! What the boundary to a plugin costs: time for 10,000 announcements and for one change, memory of the speaker per plugin.
//! The plugins are in another process: this program again. Prints values beside their goals; asserts nothing.
use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ferrocast_core::{
    actor::{CancellationToken, Supervisor},
    announce::{
        AnnounceError, Announcement, AnnouncementState, Announcer, Capabilities, Desired, Election, Observed, Shutdown,
        TargetObserved, Terms,
    },
    model::ServiceKey,
};
use ferrocast_plugin_remote::{RemoteAnnouncer, RemoteSettings, default_uids};
use ferrocast_plugin_sdk::{Options, listen, serve};
use futures::future::join_all;
use tokio::{sync::watch, time::Instant};

/// The folder with the sockets; set: this process is the plugins.
const PLUGINS_IN: &str = "FERROCAST_BENCH_PLUGINS_IN";
const ANNOUNCEMENTS: u32 = 10_000;
const PLUGINS: u32 = 20;
const RUNS: u32 = 20;
const CHANGES: u32 = 100;

/// Has reached at once what it is given.
struct Instantly(watch::Sender<Arc<Observed>>);

#[async_trait]
impl Announcer for Instantly {
    fn name(&self) -> &'static str {
        "instantly"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            ipv4: true,
            ipv6: true,
            aggregation: true,
            attributes: true,
            weights: true,
            drain: true,
            election: Election::None,
        }
    }
    async fn apply(&self, desired: Arc<Desired>) -> Result<(), AnnounceError> {
        let generation = desired.generation;
        let announced = desired.announcements.len();
        let target = TargetObserved { up: true, generation, announced, ..TargetObserved::default() };
        let targets = [(Observed::NETWORK.into(), target)].into();
        self.0.send_replace(Arc::new(Observed { accepted: generation, targets, ..Observed::default() }));
        Ok(())
    }
    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.0.subscribe()
    }
    async fn shutdown(&self, _how: Shutdown, _deadline: Duration) {}
}

fn name(plugin: u32) -> String {
    format!("p{plugin}")
}

async fn be_plugins(dir: &Path) {
    join_all((0..PLUGINS).map(|plugin| async move {
        let name = name(plugin);
        let listener = listen(&dir.join(format!("{name}.sock")), 0o600).expect("the folder is ours");
        let announcer = Arc::new(Instantly(watch::Sender::default()));
        serve(listener, announcer, Options::new(&name), CancellationToken::new())
            .await
            .expect("nothing else serves it");
    }))
    .await;
}

fn set(generation: u64, changed: u32) -> Arc<Desired> {
    let terms: Arc<[Terms]> = [Terms { advertisement: "all".into(), ..Terms::default() }].into();
    let announcements = (0..ANNOUNCEMENTS).map(|n| {
        let services = Arc::new([ServiceKey::new("default", &format!("service-{n}"))].into());
        let announcement =
            Announcement { state: AnnouncementState::Active, terms: terms.clone(), services, weight: None };
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + n + changed * ANNOUNCEMENTS);
        (ipnet::IpNet::from(std::net::IpAddr::from(address)), Arc::new(announcement))
    });
    Arc::new(Desired { generation, announcements: announcements.collect(), ..Desired::default() })
}

struct Host {
    supervisor: Supervisor,
    dir: PathBuf,
}

impl Host {
    fn remote(&mut self, plugin: u32) -> Arc<RemoteAnnouncer> {
        let settings = RemoteSettings {
            dir: self.dir.clone(),
            uids: default_uids(),
            node: "node".into(),
            epoch: NonZeroU64::MIN,
            orphan_hold_s: 300,
            host_version: "bench",
            protocol: None,
        };
        RemoteAnnouncer::start(&mut self.supervisor, name(plugin).into(), settings)
    }
}

async fn reached(remote: &RemoteAnnouncer, generation: u64) {
    let mut info = remote.info();
    info.wait_for(|info| info.reached >= generation).await.expect("the announcer lives");
}

/// From the call until the speaker knows that all is reached.
async fn timed(remote: &RemoteAnnouncer, desired: Arc<Desired>) -> Duration {
    let generation = desired.generation;
    let (began, mut info) = (Instant::now(), remote.info());
    remote.apply(desired).await.expect("it is not stopped");
    info.wait_for(|info| info.reached >= generation).await.expect("the announcer lives");
    began.elapsed()
}

/// Resident memory of this process, octets.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn median(mut of: Vec<Duration>) -> (Duration, Duration) {
    of.sort_unstable();
    (of[of.len() / 2], of[of.len() * 99 / 100])
}

/// Longer than the pause between two statuses, so that each measurement begins with one allowed.
const BETWEEN: Duration = Duration::from_millis(120);

async fn measure(dir: PathBuf) {
    let standing = set(1, 0);
    let before = resident();
    let mut host = Host { supervisor: Supervisor::default(), dir };
    let remotes: Vec<_> = (0..PLUGINS).map(|plugin| host.remote(plugin)).collect();
    for remote in &remotes {
        remote.apply(standing.clone()).await.expect("it is not stopped");
    }
    join_all(remotes.iter().map(|remote| reached(remote, 1))).await;
    let per_plugin = resident().saturating_sub(before) as f64 / f64::from(PLUGINS) / 1e6;
    println!("memory of the speaker per plugin   {per_plugin:>8.2} MB       goal 2 MB, {PLUGINS} plugins");
    let remote = &remotes[0];
    let (mut generation, mut filled, mut emptied, mut other) = (1, Vec::new(), Vec::new(), Vec::new());
    for run in 1..=RUNS {
        let none = Arc::new(Desired { generation: generation + 1, ..Desired::default() });
        let steps = [none, set(generation + 2, 2 * run), set(generation + 3, 2 * run + 1)];
        generation += 3;
        for (next, took) in steps.into_iter().zip([&mut emptied, &mut filled, &mut other]) {
            tokio::time::sleep(BETWEEN).await;
            took.push(timed(remote, next).await);
        }
    }
    let (p50, p99) = median(filled);
    println!("{ANNOUNCEMENTS} in                       {p50:>10.2?} p50  {p99:.2?} p99, goal 50 ms");
    let (p50, p99) = median(emptied);
    println!("{ANNOUNCEMENTS} out                      {p50:>10.2?} p50  {p99:.2?} p99");
    let (p50, p99) = median(other);
    println!("{ANNOUNCEMENTS} out and {ANNOUNCEMENTS} others in   {p50:>10.2?} p50  {p99:.2?} p99");
    let mut current = set(generation + 1, 0);
    generation += 1;
    timed(remote, current.clone()).await;
    let mut single = Vec::new();
    for _ in 0..CHANGES {
        generation += 1;
        let mut next = (*current).clone();
        next.generation = generation;
        let first = *next.announcements.keys().next().expect("ten thousand");
        let announcement = (*next.announcements[&first]).clone();
        next.announcements.insert(
            first,
            Arc::new(Announcement {
                weight: std::num::NonZeroU32::new(u32::try_from(generation).expect("small")),
                ..announcement
            }),
        );
        current = Arc::new(next);
        tokio::time::sleep(BETWEEN).await;
        single.push(timed(remote, current.clone()).await);
    }
    let (p50, p99) = median(single);
    println!("one change of {ANNOUNCEMENTS}               {p50:>10.2?} p50  {p99:.2?} p99, goal 1 ms");
}

/// Ends with this program.
struct Plugins(Child);

impl Drop for Plugins {
    fn drop(&mut self) {
        if self.0.kill().is_ok() && self.0.wait().is_err() {
            eprintln!("the plugins' process has not ended");
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(dir) = std::env::var_os(PLUGINS_IN) {
        runtime.block_on(be_plugins(Path::new(&dir)));
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let child = Command::new(std::env::current_exe()?).env(PLUGINS_IN, dir.path()).spawn()?;
    let _plugins = Plugins(child);
    runtime.block_on(measure(dir.path().to_owned()));
    Ok(())
}
