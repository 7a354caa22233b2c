//! A BIRD and the plugin as processes of a test, and the speaker's side of the plugin's socket.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]
use std::{
    fs::{self, File},
    num::NonZeroU64,
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ferrocast_core::{
    actor::Supervisor,
    announce::{Announcement, AnnouncementState, Announcer as _, Desired, Observed, TargetObserved, Terms},
    model::ServiceKey,
};
use ferrocast_plugin_remote::{RemoteAnnouncer, RemoteSettings, default_uids};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// The longest that anything here may take: OSPF finds a neighbour and spreads a change in some seconds, a loaded machine in more.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks at what cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A process group that ends with its owner.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.process_group(0).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        run("kill", &["-KILL", "--", &format!("-{}", self.0.id())]).ok();
        self.0.wait().ok();
    }
}

/// What a command prints.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let [printed, complaint] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if output.status.success() { Ok(printed) } else { Err(format!("{program} {arguments:?}: {printed}{complaint}")) }
}

/// Where Debian puts it, whether or not it is on the path.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Looks until it succeeds.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + TIME_MAX;
    loop {
        match look() {
            Ok(found) => return found,
            Err(error) if Instant::now() >= until => panic!("after {TIME_MAX:?} still not: {what}: {error}"),
            Err(_) => sleep(LOOK_AGAIN).await,
        }
    }
}

/// A folder with everything in it.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    supervisor: Supervisor,
    epoch: NonZeroU64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), supervisor: Supervisor::default(), epoch: NonZeroU64::MIN }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file that the plugin writes.
    pub(crate) fn include(&self) -> PathBuf {
        self.path("ferrocast.conf")
    }

    /// A command that runs a BIRD with this configuration; its control socket and its log have its name, too.
    pub(crate) fn bird_command(&self, name: &str, configuration: &str, within: Option<u32>) -> Command {
        let file = self.path(&format!("{name}.conf"));
        fs::write(&file, configuration).unwrap();
        let bird = program("bird").unwrap();
        let mut command = match within {
            None => Command::new(bird),
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/proc/{pid}/ns/net")).arg(bird);
                command
            }
        };
        let (control, pid) = (self.path(&format!("{name}.ctl")), self.path(&format!("{name}.pid")));
        command.arg("-f").arg("-c").arg(file).arg("-s").arg(control).arg("-P").arg(pid);
        command
    }

    /// Starts it, and waits until it can be asked.
    pub(crate) async fn bird(&self, name: &str, configuration: &str, within: Option<u32>) -> Running {
        let (log, control) = (self.path(&format!("{name}.log")), self.path(&format!("{name}.ctl")));
        let running = Running::start(&mut self.bird_command(name, configuration, within), &log);
        eventually("BIRD answers", || {
            UnixStream::connect(&control).map_err(|error| format!("{error}: {}", fs::read_to_string(&log).unwrap()))
        })
        .await;
        running
    }

    /// What BIRD says to a command.
    pub(crate) fn ask(&self, name: &str, command: &str) -> Result<String, String> {
        let control = self.path(&format!("{name}.ctl"));
        run(program("birdc").unwrap().to_str().unwrap(), &["-r", "-s", control.to_str().unwrap(), command])
    }

    /// Starts the plugin, again whenever it ends, and waits until there is the file for BIRD. Its process id is in `plugin.pid`.
    pub(crate) async fn plugin(&self, bird: &str) -> Running {
        let script = r#"while :; do "$@" & echo $! > "$PID_FILE.new"; mv "$PID_FILE.new" "$PID_FILE"; wait; done"#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_ferrocast-bird")]).env("PID_FILE", self.path("plugin.pid"));
        shell.arg("--dir").arg(self.dir.path()).arg("--include").arg(self.include());
        shell.arg("--control").arg(self.path(&format!("{bird}.ctl")));
        let running = Running::start(&mut shell, &self.path("plugin.log"));
        eventually("the plugin has written its file", || fs::read(self.include()).map_err(|e| e.to_string())).await;
        running
    }

    /// The speaker's side, a new process each time.
    pub(crate) fn speaker(&mut self) -> Speaker {
        self.supervisor = Supervisor::default(); // the one before it is gone
        self.epoch = self.epoch.saturating_add(1);
        let settings = RemoteSettings {
            dir: self.dir.path().to_owned(),
            uids: default_uids(),
            node: "n1".into(),
            epoch: self.epoch,
            orphan_hold_s: 300,
            host_version: "test",
            protocol: None,
        };
        Speaker {
            remote: RemoteAnnouncer::start(&mut self.supervisor, "bird".into(), settings),
            generation: 0,
            provisional: false,
        }
    }
}

/// Says what is wanted, and waits for what the plugin tells.
pub(crate) struct Speaker {
    pub(crate) remote: Arc<RemoteAnnouncer>,
    generation: u64,
    /// What is wanted is not the whole truth.
    pub(crate) provisional: bool,
}

impl Speaker {
    /// Wants these prefixes, all in this state, with these parameters.
    pub(crate) async fn want(&mut self, prefixes: &[&str], state: AnnouncementState, parameters: &str) {
        self.generation += 1;
        let terms = Terms { advertisement: "adv".into(), parameters: Some(parameters.into()), ..Terms::default() };
        let services = Arc::new([ServiceKey::new("ns", "svc")].into());
        let one = Arc::new(Announcement { state, terms: [terms].into(), services, weight: None });
        let announcements = prefixes.iter().map(|prefix| (prefix.parse::<ipnet::IpNet>().unwrap(), one.clone()));
        let announcements = announcements.collect();
        let (generation, provisional) = (self.generation, self.provisional);
        let desired = Desired { generation, provisional, announcements, ..Desired::default() };
        self.remote.apply(Arc::new(desired)).await.unwrap();
    }

    /// Waits until what the plugin tells of BIRD is so.
    pub(crate) async fn told(&self, what: &str, is: impl Fn(&TargetObserved) -> bool) -> TargetObserved {
        let target = |observed: &Observed| observed.targets.get(Observed::NETWORK).cloned().unwrap_or_default();
        let mut observed = self.remote.observe();
        match tokio::time::timeout(TIME_MAX, observed.wait_for(|observed| is(&target(observed)))).await {
            Ok(found) => target(&found.unwrap()),
            Err(_) => panic!("after {TIME_MAX:?} still not: {what}: {:?}", self.remote.observe().borrow()),
        }
    }

    /// Waits until BIRD has what is wanted.
    pub(crate) async fn reached(&self) -> TargetObserved {
        let generation = self.generation;
        self.told("the newest set is reached", |target| target.up && target.generation == generation).await
    }
}
