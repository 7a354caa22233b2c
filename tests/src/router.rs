//! BIRD and FRR, each in a network namespace of the lab, and what they have learned: their tables and the kernel's.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::{Process, command, run, sh};
use crate::wait::eventually;

/// AS of the BIRD router.
pub const BIRD_ASN: u32 = 64_500;
/// AS of the FRR router.
pub const FRR_ASN: u32 = 64_501;
/// TCP-MD5 password that FRR demands of every neighbour.
pub const FRR_PASSWORD: &str = "s3cret";
/// How long a routing daemon may take to answer after its start, s.
const READY_TIME_MAX_S: u64 = 20;

/// Which daemon, with what only it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BIRD 2.
    Bird,
    /// FRR (zebra and bgpd).
    Frr,
}

/// A router of the lab: the namespace stays, the daemons can be stopped and started.
pub struct Router {
    /// Which daemon it runs.
    pub kind: Kind,
    /// Its network namespace.
    pub netns: &'static str,
    dir: PathBuf,
    daemons: Vec<Process>,
    monitor: Option<Process>,
}

impl Router {
    /// Writes the configuration; the daemons start with [`Router::start`].
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn new(kind: Kind, netns: &'static str, dir: &Path) -> Result<Self> {
        let dir = dir.join(netns);
        fs::create_dir_all(&dir)?;
        fs::create_dir_all("/run/bird")?;
        let text = match kind {
            Kind::Bird => BIRD_CONFIG.replace("LOG", &dir.join("messages.log").display().to_string()),
            Kind::Frr => FRR_CONFIG.replace("PASSWORD", FRR_PASSWORD),
        };
        let router = Self { kind, netns, dir, daemons: vec![], monitor: None };
        fs::write(router.config_path(), text)?;
        Ok(router)
    }

    /// FRR drops its privileges and must still read it: below the suite's private `/run`.
    fn config_path(&self) -> PathBuf {
        PathBuf::from(format!("/run/{}.conf", self.netns))
    }

    /// Starts the daemons and waits until they answer.
    ///
    /// # Errors
    /// When they do not: with their logs' tails.
    pub async fn start(&mut self) -> Result<()> {
        match self.kind {
            Kind::Bird => self.start_bird()?,
            Kind::Frr => self.start_frr()?,
        }
        let ready = eventually("the router answers", Duration::from_secs(READY_TIME_MAX_S), async || {
            self.show(if self.kind == Kind::Bird { "show status" } else { "show bgp summary json" }).map(drop)
        });
        ready.await.with_context(|| self.tails())
    }

    fn start_bird(&mut self) -> Result<()> {
        let mut bird = command(Some(self.netns), Path::new("bird"));
        bird.arg("-f").arg("-c").arg(self.config_path()).args(["-s", "/run/bird/ctl"]);
        self.daemons = vec![Process::start("bird", &self.dir, &mut bird)?];
        Ok(())
    }

    fn start_frr(&mut self) -> Result<()> {
        let sockets = "/run/frr";
        fs::create_dir_all(sockets)?;
        sh(&format!("chown frr:frr {sockets}"))?;
        let daemon = |name: &str| {
            let mut daemon = command(Some(self.netns), &Path::new("/usr/lib/frr").join(name));
            daemon.args(["-u", "frr", "-g", "frr", "-i", &format!("{sockets}/{name}.pid")]);
            daemon
        };
        let mut zebra = daemon("zebra");
        let mut bgpd = daemon("bgpd");
        bgpd.arg("-f").arg(self.config_path()).args(["-A", "127.0.0.1"]);
        let zebra = Process::start("zebra", &self.dir, &mut zebra)?;
        self.daemons = vec![Process::start("bgpd", &self.dir, &mut bgpd)?, zebra];
        Ok(())
    }

    /// Kills the daemons, as a crash of the router would; its kernel's routes of BGP go with it.
    ///
    /// # Errors
    /// When they do not run.
    pub fn kill(&mut self) -> Result<()> {
        self.daemons.iter_mut().try_for_each(Process::kill)?;
        self.daemons.clear();
        for family in ["-4", "-6"] {
            // `flush` fails where the table is empty.
            drop(sh(&format!("ip netns exec {} ip {family} route flush proto bird", self.netns)));
            drop(sh(&format!("ip netns exec {} ip {family} route flush proto bgp", self.netns)));
        }
        Ok(())
    }

    /// Asks the daemon with its own client.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn show(&self, question: &str) -> Result<String> {
        let mut client = match self.kind {
            Kind::Bird => command(Some(self.netns), Path::new("birdc")),
            Kind::Frr => command(Some(self.netns), Path::new("vtysh")),
        };
        match self.kind {
            Kind::Bird => client.args(["-s", "/run/bird/ctl"]).args(question.split_whitespace()),
            Kind::Frr => client.args(["-c", question]),
        };
        run(&mut client)
    }

    /// The nodes' addresses that the kernel of this router would forward packets for `prefix` to.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn next_hops(&self, prefix: &str) -> Result<BTreeSet<String>> {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let printed = run(Command::new("ip").args(["-n", self.netns, "-j", family, "route", "show", prefix]))?;
        let routes: Vec<Value> = serde_json::from_str(&printed).unwrap_or_default();
        // One route with `nexthops`, or one entry for each path with a `gateway` of its own.
        let hops = |route: &Value| {
            let several = route["nexthops"].as_array().cloned().unwrap_or_default();
            let own = route["gateway"].as_str().map(str::to_owned);
            several.iter().filter_map(|hop| hop["gateway"].as_str().map(str::to_owned)).chain(own).collect::<Vec<_>>()
        };
        Ok(routes.iter().flat_map(hops).collect())
    }

    /// The prefixes that BGP put into this router's kernel.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn prefixes(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let protocol = if self.kind == Kind::Bird { "bird" } else { "bgp" };
        for family in ["-4", "-6"] {
            let mut command = Command::new("ip");
            let printed = run(command.args(["-n", self.netns, "-j", family, "route", "show", "proto", protocol]))?;
            let routes: Vec<Value> = serde_json::from_str(&printed).unwrap_or_default();
            found.extend(routes.iter().filter_map(|route| route["dst"].as_str().map(str::to_owned)));
        }
        Ok(found)
    }

    /// Sessions that have ended while this router keeps their routes, because the neighbour may be restarting. Both daemons
    /// do that for a neighbour that asks for it, without configuration.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn helped(&self) -> Result<usize> {
        if self.kind == Kind::Bird {
            return Ok(self.show("show protocols all")?.matches("Neighbor graceful restart active").count());
        }
        let mut neighbours = BTreeSet::new();
        for family in ["ipv4", "ipv6"] {
            let table: Value = serde_json::from_str(&self.show(&format!("show bgp {family} unicast json"))?)?;
            let paths = table["routes"].as_object().into_iter().flat_map(|routes| routes.values());
            let paths = paths.filter_map(Value::as_array).flatten();
            neighbours.extend(paths.filter(|path| path["stale"] == true).map(|path| path["peerId"].to_string()));
        }
        Ok(neighbours.len())
    }

    /// From now on every change of the kernel's routes is kept for [`Router::route_changes`].
    ///
    /// # Errors
    /// When the monitor does not start.
    pub async fn record_changes(&mut self) -> Result<()> {
        drop(self.monitor.take());
        let log = self.dir.join("route-monitor.log");
        if log.exists() {
            fs::remove_file(&log)?;
        }
        let mut monitor = Command::new("ip");
        monitor.args(["-n", self.netns, "-o", "monitor", "route"]);
        let monitor = Process::start("route-monitor", &self.dir, &mut monitor)?;
        let marker = self.netns.to_owned();
        // It listens once it shows a change made on purpose.
        eventually("the route monitor listens", Duration::from_secs(READY_TIME_MAX_S), async || {
            sh(&format!("ip -n {marker} route replace unreachable 198.51.100.255"))?;
            sh(&format!("ip -n {marker} route del unreachable 198.51.100.255"))?;
            monitor.log()?.contains("198.51.100.255").then_some(()).context("it shows nothing yet")
        })
        .await?;
        self.monitor = Some(monitor);
        Ok(())
    }

    /// The changes since [`Router::record_changes`] that concern `prefix`, as `ip monitor` words them.
    ///
    /// # Errors
    /// When no recording was begun.
    pub fn route_changes(&self, prefix: &str) -> Result<Vec<String>> {
        let address = prefix.split('/').next().unwrap_or(prefix);
        let log = self.monitor.as_ref().context("no recording was begun")?.log()?;
        let concerns = |line: &&str| line.split_whitespace().any(|word| word == prefix || word == address);
        Ok(log.lines().filter(concerns).map(str::to_owned).collect())
    }

    /// The ends of the daemons' logs and the routes in the kernel.
    #[must_use]
    pub fn tails(&self) -> String {
        let logs: String = self.daemons.iter().map(Process::tail).collect();
        let routes = |family: &str| {
            sh(&format!("ip -n {} {family} route", self.netns)).unwrap_or_else(|error| error.to_string())
        };
        format!("{logs}--- routes of {}\n{}{}", self.netns, routes("-4"), routes("-6"))
    }
}

/// Passive, any neighbour of the lab's network, ECMP into the kernel.
const BIRD_CONFIG: &str = r#"log "LOG" all;
router id 10.99.0.11;
timeformat protocol iso long ms;
protocol device { scan time 5; }
protocol kernel k4 { ipv4 { import none; export all; }; merge paths yes limit 64; }
protocol kernel k6 { ipv6 { import none; export all; }; merge paths yes limit 64; }
protocol bgp dyn4 {
  local 10.99.0.11 as 64500;
  neighbor range 10.99.0.0/24 external;
  dynamic name "peerv";
  passive yes;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
protocol bgp dyn6 {
  local fd99::11 as 64500;
  neighbor range fd99::/64 external;
  dynamic name "peersix";
  passive yes;
  ipv4 { import all; export none; extended next hop yes; };
  ipv6 { import all; export none; };
}
"#;

/// As BIRD's: passive, any neighbour, ECMP over different neighbours.
const FRR_CONFIG: &str = "frr version 8.4
frr defaults datacenter
hostname frr
log stdout informational
!
router bgp 64501
 bgp router-id 10.99.0.12
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp bestpath as-path multipath-relax
 neighbor DYN peer-group
 neighbor DYN remote-as external
 neighbor DYN passive
 neighbor DYN password PASSWORD
 neighbor DYN timers 3 9
 bgp listen limit 200
 bgp listen range 10.99.0.0/24 peer-group DYN
 bgp listen range fd99::/64 peer-group DYN
 address-family ipv4 unicast
  neighbor DYN activate
  maximum-paths 64
 exit-address-family
 address-family ipv6 unicast
  neighbor DYN activate
  maximum-paths 64
 exit-address-family
!
";
