//! Who is measured: started with a table, at rest, before anybody listens to it.
//!
//! | who | where its routes come from | told to dial |
//! |---|---|---|
//! | Ferrocast | the announcer without a cluster ([`crate::speaker`]): the desired set | by the peers' configuration, once the receiver listens |
//! | BIRD, FRR, OpenBGPD | their configuration | always dial, refused until the receiver listens |
//! | GoBGP | a `lab-speaker` over an internal session that stays up (its command line takes minutes, MRT loses routes) | as above |
//!
//! All have time to take in the table: the receiver does not listen before the process has used no processor time for a second.
//! When a daemon dials next plays no part, since the clock starts at the accepted connection.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ferrocast_tests::process::{Process, command, run, sh, tail};
use ferrocast_tests::wait::{ensure_that, eventually, pause};
use serde_json::json;

use crate::{FEEDER, NETNS, PATIENCE, SENDER, SENDER_AS, config};

/// How long a process must have been at rest: longer than what BIRD and OpenBGPD wait before they begin.
const REST: Duration = Duration::from_secs(1);
/// Processor time within [`REST`] that is still rest, in the kernel's ticks of 10 ms: vain attempts to connect.
const REST_TICKS_MAX: u64 = 1;

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Ferrocast,
    GoBgp,
    Frr,
    Bird,
    OpenBgpd,
}

impl Contender {
    pub(crate) const ALL: [Self; 5] = [Self::Ferrocast, Self::GoBgp, Self::Frr, Self::Bird, Self::OpenBgpd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ferrocast => "Ferrocast",
            Self::GoBgp => "GoBGP",
            Self::Frr => "FRR",
            Self::Bird => "BIRD",
            Self::OpenBgpd => "OpenBGPD",
        }
    }
}

/// Resident memory of a contender's processes, kB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

/// One of our speakers with commands on its standard input, killed when dropped.
struct Speaker(Child);

impl Speaker {
    fn start(mut command: Command, dir: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let child = command
            .env("MALLOC_ARENA_MAX", "2") // as deploy/ sets it
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join(format!("{name}.log")))?)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Self(child))
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.0.stdin.as_mut().context("stdin")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        drop(self.0.kill()); // it may have ended
        drop(self.0.wait());
    }
}

/// The fields of `/proc/PID/stat` after the name: state, parent and so on.
fn stat(pid: u32) -> Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("/proc/…/stat")?;
    Ok(fields.split(' ').map(str::to_owned).collect())
}

/// A contender that runs; dropping it kills its processes.
pub(crate) struct Running {
    contender: Contender,
    daemon: Option<Process>,
    speaker: Option<Speaker>,
    feeder: Option<Speaker>,
    dir: PathBuf,
}

impl Running {
    /// Starts it with so many routes and waits until it has them and is at rest.
    ///
    /// # Errors
    /// When it does not come that far: with its log's tail.
    pub(crate) async fn start(contender: Contender, routes: u32, peers: &[SocketAddr], dir: &Path) -> Result<Self> {
        let mut running = Self { contender, daemon: None, speaker: None, feeder: None, dir: dir.to_owned() };
        let loaded = running.load(routes, peers).await;
        loaded.with_context(|| format!("{contender:?} with {routes} routes\n{}", running.tails()))?;
        Ok(running)
    }

    async fn load(&mut self, routes: u32, peers: &[SocketAddr]) -> Result<()> {
        let file = PathBuf::from("/run/bench-bgp.conf");
        let (program, words, text) = match self.contender {
            Contender::Ferrocast => {
                let mut program = command(Some(NETNS), &std::env::current_exe()?);
                program.arg("speak");
                let mut speaker = Speaker::start(program, &self.dir, "speaker")?;
                if routes > 0 {
                    speaker.tell(&format!("routes {routes}"))?;
                }
                self.speaker = Some(speaker);
                return self.rest().await;
            }
            Contender::Bird => ("bird", "-f -s /run/bird.ctl -c", config::bird(routes, peers)),
            // without zebra (-Z, -n) and without a telnet port (-P 0)
            Contender::Frr => {
                fs::create_dir_all("/run/frr")?;
                sh("chown frr:frr /run/frr")?;
                let words = "-Z -n -P 0 -u frr -g frr -i /run/frr/bgpd.pid -f";
                ("/usr/lib/frr/bgpd", words, config::frr(routes, peers))
            }
            Contender::GoBgp => ("gobgpd", "--api-hosts 127.0.0.1:50051 -f", config::gobgp(peers)),
            Contender::OpenBgpd => {
                fs::create_dir_all("/run/openbgpd")?;
                ("/usr/sbin/bgpd", "-d -f", config::openbgpd(routes, peers))
            }
        };
        fs::write(&file, text)?;
        // OpenBGPD wants nobody else to read it, FRR reads it as its own user
        let owner_only = self.contender == Contender::OpenBgpd;
        fs::set_permissions(&file, fs::Permissions::from_mode(if owner_only { 0o600 } else { 0o644 }))?;
        let mut daemon = command(Some(NETNS), Path::new(program));
        daemon.args(words.split_whitespace()).arg(&file);
        self.daemon = Some(Process::start("daemon", &self.dir, &mut daemon)?);
        if self.contender == Contender::GoBgp {
            self.feed(routes).await?;
        }
        self.rest().await
    }

    /// Gives GoBGP its routes.
    async fn feed(&mut self, routes: u32) -> Result<()> {
        let program = command(None, &std::env::current_exe()?.with_file_name("lab-speaker"));
        let mut feeder = Speaker::start(program, &self.dir, "feeder")?;
        let peer = json!({
            "name": "gobgp", "address": SENDER, "source": FEEDER, "my_asn": SENDER_AS, "peer_asn": SENDER_AS, "hold_s": 90,
        });
        feeder.tell(&json!({"bulk": routes, "peers": [peer]}).to_string())?;
        self.feeder = Some(feeder);
        eventually("GoBGP has its routes", PATIENCE, async || {
            let mut gobgp = command(Some(NETNS), Path::new("gobgp"));
            let told = run(gobgp.args(["-p", "50051", "global", "rib", "summary"]))?;
            ensure_that(told.contains(&format!("Destination: {routes}")), || told)
        })
        .await
    }

    /// Waits until it has done what it does.
    async fn rest(&mut self) -> Result<()> {
        let began = Instant::now();
        let mut spent = self.ticks()?;
        loop {
            pause(REST).await;
            if let Some(daemon) = &mut self.daemon {
                daemon.ensure_running()?;
            }
            let now = self.ticks()?;
            if now <= spent + REST_TICKS_MAX {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "not at rest after {PATIENCE:?}");
            spent = now;
        }
    }

    /// Makes it dial, where that is not in its configuration already.
    ///
    /// # Errors
    /// When it does not listen.
    pub(crate) fn dial(&mut self, peers: &[SocketAddr]) -> Result<()> {
        let Some(speaker) = &mut self.speaker else { return Ok(()) };
        let addresses: Vec<String> = peers.iter().map(|peer| peer.ip().to_string()).collect();
        speaker.tell(&format!("peers {}", addresses.join(" ")))
    }

    /// Its processes: FRR and BIRD are one, OpenBGPD is three.
    fn processes(&self) -> Result<Vec<u32>> {
        let first = match (&self.daemon, &self.speaker) {
            (Some(daemon), _) => daemon.pid(),
            (None, Some(speaker)) => speaker.0.id(),
            (None, None) => return Ok(vec![]),
        };
        // not every kernel lists a process's children, but here /proc has only what this benchmark has started
        let parent = |pid: &u32| Some(stat(*pid).ok()?.get(1)?.parse::<u32>().ok()? == first);
        let all = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let children = all.filter(|pid| parent(pid) == Some(true));
        Ok(std::iter::once(first).chain(children).collect())
    }

    /// Processor time that it has used.
    fn ticks(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in self.processes()? {
            // utime and stime
            for field in stat(pid)?.iter().skip(11).take(2) {
                sum += field.parse::<u64>()?;
            }
        }
        Ok(sum)
    }

    /// What it occupies.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let mut memory = Memory { now: 0, peak: 0 };
        for pid in self.processes()? {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let field = |name: &str| -> Result<u64> {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).context("/proc/…/status")?;
                Ok(line.trim().trim_end_matches(" kB").parse()?)
            };
            memory.now += field("VmRSS:")?;
            memory.peak += field("VmHWM:")?;
        }
        Ok(memory)
    }

    /// The ends of the logs.
    pub(crate) fn tails(&self) -> String {
        ["daemon", "speaker", "feeder"]
            .iter()
            .map(|name| (name, self.dir.join(format!("{name}.log"))))
            .filter(|(_, log)| log.exists())
            .map(|(name, log)| tail(name, &log))
            .collect()
    }
}
