//! One session at a time between the speaker and a real router: BIRD, FRR, GoBGP or OpenBGPD.
//!
//! Each daemon has a namespace for itself and one for its speaker, joined by a cable:
//!
//! ```text
//!   s-NAME  10.99.N.2, fd99:N::2, lo 10.100.N.2 ── eth0 ══ eth0 ── 10.99.N.1, fd99:N::1, lo 10.100.N.1  r-NAME
//! ```

pub mod config;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

pub use config::Options;

use crate::ferrocast::built;
use crate::process::{Process, command, run, sh};
use crate::wait::eventually;

/// How long a session or a route may take to come: daemons wait some seconds between their attempts.
pub const SESSION_TIME_MAX: Duration = Duration::from_secs(20);

/// A routing daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// BIRD 2.
    Bird,
    /// FRR: zebra, bgpd and, if needed, bfdd.
    Frr,
    /// GoBGP.
    GoBgp,
    /// OpenBGPD.
    OpenBgpd,
}

impl Daemon {
    /// All, in the order of the matrix.
    pub const ALL: [Self; 4] = [Self::Bird, Self::Frr, Self::GoBgp, Self::OpenBgpd];

    /// As its users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::GoBgp => "GoBGP",
            Self::OpenBgpd => "OpenBGPD",
        }
    }

    fn short(self) -> &'static str {
        match self {
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::GoBgp => "gobgp",
            Self::OpenBgpd => "obgpd",
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Bird => 1,
            Self::Frr => 2,
            Self::GoBgp => 3,
            Self::OpenBgpd => 4,
        }
    }

    /// Its AS in the matrix.
    #[must_use]
    pub fn asn(self) -> u32 {
        64_500 + self.number()
    }

    /// Its version, in its own words.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn version(self) -> Result<String> {
        let printed = match self {
            Self::Bird => sh("sh -c bird\\ --version\\ 2>&1").or_else(|_| sh("bird --version")),
            Self::Frr => sh("/usr/lib/frr/bgpd --version"),
            Self::GoBgp => sh("gobgpd --version"),
            Self::OpenBgpd => return Ok(debian_version("openbgpd")),
        };
        let printed = printed.unwrap_or_default();
        let word = printed.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        Ok(word.map_or_else(|| debian_version(self.package()), str::to_owned))
    }

    fn package(self) -> &'static str {
        match self {
            Self::Bird => "bird2",
            Self::Frr => "frr",
            Self::GoBgp => "gobgpd",
            Self::OpenBgpd => "openbgpd",
        }
    }
}

fn debian_version(package: &str) -> String {
    let printed = sh(&format!("dpkg-query -W -f ${{Version}} {package}")).unwrap_or_default();
    printed.split(['-', '+']).next().unwrap_or_default().to_owned()
}

/// The cable between one daemon and its speaker.
#[derive(Clone, Debug)]
pub struct Link {
    daemon: Daemon,
    router_link_local: String,
    speaker_link_local: String,
}

impl Link {
    /// Lays it.
    ///
    /// # Errors
    /// When `ip` fails.
    pub async fn lay(daemon: Daemon) -> Result<Self> {
        let (name, n) = (daemon.short(), daemon.number());
        for line in [
            format!("ip netns add r-{name}"),
            format!("ip netns add s-{name}"),
            format!("ip -n r-{name} link add eth0 type veth peer name eth0 netns s-{name}"),
        ] {
            sh(&line)?;
        }
        for (side, host) in [("r", 1), ("s", 2)] {
            let netns = format!("{side}-{name}");
            sh(&format!("ip netns exec {netns} sysctl -qw net.ipv6.conf.eth0.accept_dad=0"))?;
            for words in [
                "link set lo up".to_owned(),
                format!("addr add 10.99.{n}.{host}/24 dev eth0"),
                format!("addr add fd99:{n}::{host}/64 dev eth0 nodad"),
                format!("addr add 10.100.{n}.{host}/32 dev lo"),
                "link set eth0 up".to_owned(),
                format!("route add 10.100.{n}.{}/32 via 10.99.{n}.{}", 3 - host, 3 - host),
            ] {
                sh(&format!("ip -n {netns} {words}"))?;
            }
        }
        let (router, speaker) = (link_local(&format!("r-{name}")).await?, link_local(&format!("s-{name}")).await?);
        Ok(Self { daemon, router_link_local: router, speaker_link_local: speaker })
    }

    /// The daemon at its end.
    #[must_use]
    pub fn daemon(&self) -> Daemon {
        self.daemon
    }

    fn router_id(&self) -> String {
        format!("10.99.{}.1", self.daemon.number())
    }

    fn end(&self, options: &Options, host: u32, link_local: &str) -> String {
        let n = self.daemon.number();
        match options {
            Options { unnumbered: true, .. } => link_local.to_owned(),
            Options { multihop: true, .. } => format!("10.100.{n}.{host}"),
            Options { over_v6: true, .. } => format!("fd99:{n}::{host}"),
            _ => format!("10.99.{n}.{host}"),
        }
    }

    /// The router's address of a session.
    #[must_use]
    pub fn router(&self, options: &Options) -> String {
        self.end(options, 1, &self.router_link_local)
    }

    /// The speaker's address of a session.
    #[must_use]
    pub fn speaker(&self, options: &Options) -> String {
        self.end(options, 2, &self.speaker_link_local)
    }

    /// The speaker's namespace.
    #[must_use]
    pub fn speaker_netns(&self) -> String {
        format!("s-{}", self.daemon.short())
    }

    /// The router's namespace.
    #[must_use]
    pub fn router_netns(&self) -> String {
        format!("r-{}", self.daemon.short())
    }

    fn openbgpd_socket(&self) -> String {
        "/run/openbgpd.sock".to_owned()
    }
}

async fn link_local(netns: &str) -> Result<String> {
    eventually("a link-local address", SESSION_TIME_MAX, async || {
        let printed = sh(&format!("ip -n {netns} -j -6 addr show dev eth0 scope link"))?;
        let found: Value = serde_json::from_str(&printed)?;
        // what the scope leaves out is an empty object
        let addresses = found[0]["addr_info"].as_array().cloned().unwrap_or_default();
        let address = addresses.iter().find_map(|address| address["local"].as_str().map(str::to_owned));
        address.context("no link-local address")
    })
    .await
}

/// A router with one session configured, and the speaker.
pub struct Pair {
    /// Which daemon.
    pub daemon: Daemon,
    /// How both are joined.
    pub link: Link,
    /// What the router was told.
    pub options: Options,
    /// The speaker starts as a user without any capability.
    pub without_rights: bool,
    router: Vec<Process>,
    speaker: Option<Speaker>,
    dir: PathBuf,
}

struct Speaker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Drop for Speaker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Pair {
    /// Starts the router; the speaker starts with [`Pair::speak`].
    ///
    /// # Errors
    /// When a daemon does not start.
    pub async fn start(link: &Link, options: Options, dir: &Path) -> Result<Self> {
        let mut pair = Self {
            daemon: link.daemon,
            link: link.clone(),
            options,
            without_rights: false,
            router: vec![],
            speaker: None,
            dir: dir.join(link.daemon.short()),
        };
        fs::create_dir_all(&pair.dir)?;
        pair.start_router().await?;
        Ok(pair)
    }

    async fn start_router(&mut self) -> Result<()> {
        let path = PathBuf::from(format!("/run/interop-{}.conf", self.daemon.short()));
        fs::write(&path, config::text(self.daemon, &self.link, &self.options))?;
        let netns = self.link.router_netns();
        let netns = Some(netns.as_str());
        match self.daemon {
            Daemon::Bird => {
                let mut bird = command(netns, Path::new("bird"));
                bird.args(["-f", "-s", "/run/interop-bird.ctl", "-c"]).arg(&path);
                self.router.push(Process::start("bird", &self.dir, &mut bird)?);
            }
            Daemon::Frr => self.start_frr(&path)?,
            Daemon::GoBgp => {
                let mut gobgpd = command(netns, Path::new("gobgpd"));
                gobgpd.args(["--api-hosts", "127.0.0.1:50051", "-f"]).arg(&path);
                self.router.push(Process::start("gobgpd", &self.dir, &mut gobgpd)?);
            }
            Daemon::OpenBgpd => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                fs::create_dir_all("/run/openbgpd")?;
                let mut bgpd = command(netns, Path::new("/usr/sbin/bgpd"));
                bgpd.args(["-d", "-f"]).arg(&path);
                self.router.push(Process::start("bgpd", &self.dir, &mut bgpd)?);
            }
        }
        let question = match self.daemon {
            Daemon::Bird => "show status",
            Daemon::Frr => "show bgp summary",
            Daemon::GoBgp => "global",
            Daemon::OpenBgpd => "show summary",
        };
        eventually("the router answers", SESSION_TIME_MAX, async || self.ask(question).map(drop))
            .await
            .with_context(|| self.tails())
    }

    fn start_frr(&mut self, config: &Path) -> Result<()> {
        let sockets = "/run/frr";
        fs::create_dir_all(sockets)?;
        sh(&format!("chown frr:frr {sockets}"))?;
        let netns = self.link.router_netns();
        let daemon = |name: &str| -> Result<_> {
            let mut daemon = command(Some(&netns), &Path::new("/usr/lib/frr").join(name));
            daemon.args(["-u", "frr", "-g", "frr", "-i", &format!("{sockets}/{name}.pid"), "-f"]);
            if name == "bgpd" {
                daemon.arg(config);
            } else {
                let own = config.with_extension(name);
                fs::write(&own, config::beside_bgpd(name, &self.options))?;
                daemon.arg(own);
            }
            Ok(daemon)
        };
        let mut names = vec!["zebra"];
        if self.options.bfd {
            names.push("bfdd");
        }
        for name in names {
            self.router.push(Process::start(name, &self.dir, &mut daemon(name)?)?);
        }
        let mut bgpd = daemon("bgpd")?;
        bgpd.args(["-A", "127.0.0.1"]);
        self.router.push(Process::start("bgpd", &self.dir, &mut bgpd)?);
        Ok(())
    }

    /// Asks or tells the daemon something with its own client.
    ///
    /// # Errors
    /// When the client fails.
    pub fn ask(&self, words: &str) -> Result<String> {
        let netns = self.link.router_netns();
        let netns = Some(netns.as_str());
        let mut client = match self.daemon {
            Daemon::Bird => {
                let mut birdc = command(netns, Path::new("birdc"));
                birdc.args(["-s", "/run/interop-bird.ctl"]).args(words.split_whitespace());
                birdc
            }
            Daemon::Frr => {
                let mut vtysh = command(netns, Path::new("vtysh"));
                vtysh.args(words.split(';').flat_map(|word| ["-c", word]));
                vtysh
            }
            Daemon::GoBgp => {
                let mut gobgp = command(netns, Path::new("gobgp"));
                gobgp.args(["-p", "50051"]).args(words.split_whitespace());
                gobgp
            }
            Daemon::OpenBgpd => {
                let mut bgpctl = command(netns, Path::new("bgpctl"));
                bgpctl.args(["-s", &self.link.openbgpd_socket()]).args(words.split_whitespace());
                bgpctl
            }
        };
        run(&mut client)
    }

    /// What the daemon says about a prefix.
    ///
    /// # Errors
    /// When it does not have it.
    pub fn route(&self, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let question = match self.daemon {
            Daemon::Bird => format!("show route {prefix} all"),
            Daemon::Frr => format!("show bgp {family} unicast {prefix}"),
            Daemon::GoBgp => format!("global rib {prefix} -a {family} -j"),
            Daemon::OpenBgpd => format!("show rib detail {prefix}"),
        };
        let told = self.ask(&question)?;
        let address = prefix.split('/').next().unwrap_or(prefix);
        let known = told.contains(address) && !told.contains("not in table") && !told.contains("not found");
        ensure!(known, "{} has no {prefix}: {told}", self.daemon.name());
        Ok(told)
    }

    /// The peer of the speaker's configuration, with `more` on top.
    #[must_use]
    pub fn peer(&self, more: &Value) -> Value {
        let options = &self.options;
        let mut peer = json!({
            "name": "r", "my_asn": options.speaker_asn, "peer_asn": options.router_asn,
            "dual_stack": options.both_families && !options.unnumbered, "multihop": options.multihop,
            "password": options.password, "passive": options.dials, "bfd_ms": options.bfd.then_some(100),
            "ttl_security_hops": options.gtsm.then_some(1),
        });
        if options.unnumbered {
            peer["interface"] = json!("eth0");
        } else {
            peer["address"] = json!(self.link.router(options));
        }
        if options.multihop {
            peer["source"] = json!(self.link.speaker(options));
        }
        if let (Value::Object(peer), Value::Object(more)) = (&mut peer, more) {
            peer.extend(more.clone());
        }
        peer
    }

    /// Starts the speaker, or tells the running one something else.
    ///
    /// # Errors
    /// When it does not take the line.
    pub fn tell(&mut self, line: &Value) -> Result<()> {
        if self.speaker.is_none() {
            let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("speaker.log"))?;
            let (netns, program) = (self.link.speaker_netns(), built("lab-speaker")?);
            let mut speaker = match self.without_rights {
                false => command(Some(&netns), &program),
                true => {
                    // the build's folder may be closed to other users
                    let copy = Path::new("/run/lab-speaker");
                    fs::copy(program, copy)?;
                    let mut setpriv = command(Some(&netns), Path::new("setpriv"));
                    setpriv.args(["--reuid=65532", "--regid=65532", "--clear-groups"]).arg(copy);
                    setpriv
                }
            };
            let mut child = speaker.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
            let (stdin, stdout) = (child.stdin.take().context("stdin")?, child.stdout.take().context("stdout")?);
            self.speaker = Some(Speaker { child, stdin, stdout: BufReader::new(stdout) });
        }
        let speaker = self.speaker.as_mut().context("no speaker")?;
        writeln!(speaker.stdin, "{line}")?;
        speaker.stdin.flush()?;
        Ok(())
    }

    /// Starts the speaker with its peer (`more` on top of what the options say) and two routes.
    ///
    /// # Errors
    /// As [`Pair::tell`].
    pub fn speak(&mut self, more: &Value) -> Result<()> {
        let peer = self.peer(more);
        self.tell(&json!({"peers": [peer], "routes": routes()}))
    }

    /// Kills the speaker as a crash would.
    pub fn crash(&mut self) {
        drop(self.speaker.take());
    }

    /// What the speaker says of its session.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn session(&mut self) -> Result<Value> {
        self.tell(&json!({"ask": true}))?;
        let speaker = self.speaker.as_mut().context("no speaker")?;
        let mut line = String::new();
        speaker.stdout.read_line(&mut line)?;
        let sessions: Value = serde_json::from_str(&line)?;
        Ok(sessions[0].clone())
    }

    /// Waits until the session fits.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn wait_for(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let looked = eventually(what, SESSION_TIME_MAX, async || {
            let session = self.session()?;
            ensure!(fits(&session), "it is {session}");
            Ok(session)
        });
        looked.await.with_context(|| self.tails())
    }

    /// Waits until the session is Established.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn established(&mut self) -> Result<Value> {
        self.wait_for("Established", |session| session["state"] == "Established").await
    }

    /// Waits until the daemon's words on a prefix contain all of `needles`.
    ///
    /// # Errors
    /// When they do not in time: with what the daemon says.
    pub async fn learned(&self, prefix: &str, needles: &[&str]) -> Result<String> {
        let what = format!("{} has {prefix}", self.daemon.name());
        let looked = eventually(&what, SESSION_TIME_MAX, async || {
            let told = self.route(prefix)?;
            match needles.iter().find(|needle| !told.contains(**needle)) {
                None => Ok(told),
                Some(missing) => bail!("no {missing:?} in {told}"),
            }
        });
        looked.await.with_context(|| self.tails())
    }

    /// Waits until the daemon does not have a prefix any more.
    ///
    /// # Errors
    /// When it still has it.
    pub async fn forgotten(&self, prefix: &str) -> Result<()> {
        eventually(&format!("{} forgets {prefix}", self.daemon.name()), SESSION_TIME_MAX, async || {
            ensure!(self.route(prefix).is_err(), "it has it");
            Ok(())
        })
        .await
    }

    /// Waits until the speaker's log has these words.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn speaker_says(&self, words: &str) -> Result<()> {
        eventually(&format!("the speaker logs {words:?}"), SESSION_TIME_MAX, async || {
            let log = fs::read_to_string(self.dir.join("speaker.log"))?;
            ensure!(log.contains(words), "its log has not");
            Ok(())
        })
        .await
        .with_context(|| self.tails())
    }

    /// All that the router's daemons have logged.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn router_log(&self) -> Result<String> {
        self.router.iter().map(Process::log).collect()
    }

    /// The ends of the logs.
    #[must_use]
    pub fn tails(&self) -> String {
        let router: String = self.router.iter().map(Process::tail).collect();
        router + &crate::process::tail("speaker", &self.dir.join("speaker.log"))
    }
}

/// What every session announces: a route of each family.
#[must_use]
pub fn routes() -> Value {
    json!([
        {"prefix": "10.50.0.1/32", "communities": [[64_600, 100], [64_600, 7]], "large": [[64_600, 1, 2]]},
        {"prefix": "fd50::1/128", "communities": [[64_600, 100]]},
    ])
}
