//! The product under test: the real binary in its roles, with the rights that `deploy/` gives it and no more.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::kube::ControlPlane;
use crate::objects::{CONFIG_NAMESPACE, SYSTEM_NAMESPACE};
use crate::process::{Process, command, run};
use crate::wait::eventually;

/// How long a role may take until `/readyz` agrees, s.
const READY_TIME_MAX_S: u64 = 30;
/// Where a speaker answers HTTP, in the namespace of its node.
const SPEAKER_HTTP_PORT: u16 = 9130;

/// A program that cargo built beside the running test.
///
/// # Errors
/// When it is not there.
pub fn built(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("a test binary lives in target/<profile>/deps")?;
    let program = folder.join(name);
    ensure!(program.exists(), "{} is not built: tests/run --only build", program.display());
    Ok(program)
}

/// The `ferrocast` binary: `$FERROCAST_BIN`, else the one cargo built.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    std::env::var_os("FERROCAST_BIN").map_or_else(|| built("ferrocast"), |path| Ok(path.into()))
}

/// Which of the two roles, and as whom.
#[derive(Clone, Debug)]
pub enum Role {
    /// `ferrocast controller`, as replica of this name on this port of loopback.
    Controller {
        /// `$POD_NAME`, which identifies it in the Lease.
        name: String,
        /// Port of `--http`.
        port: u16,
    },
    /// `ferrocast speaker` of this node, in the network namespace of the same name.
    Speaker {
        /// The Node's name.
        node: String,
    },
    /// `ferrocast speaker` of this node outside the lab, on this port of loopback.
    LooseSpeaker {
        /// The Node's name.
        node: String,
        /// Port of `--http`.
        port: u16,
    },
}

/// How a role is started besides what it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--namespace`.
    pub namespace: String,
    /// `--load-balancer-class`.
    pub class: Option<String>,
    /// More arguments.
    pub more: Vec<String>,
    /// Another program than `ferrocast` that cargo built, with what is in its environment besides.
    pub program: Option<(String, Vec<(String, PathBuf)>)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { namespace: CONFIG_NAMESPACE.to_owned(), class: None, more: vec![], program: None }
    }
}

/// A running role; it can be killed and started again with the same identity.
pub struct Ferrocast {
    role: Role,
    settings: Settings,
    kubeconfig: PathBuf,
    logs: PathBuf,
    process: Process,
}

impl Ferrocast {
    /// Starts a role with a token of its ServiceAccount in [`SYSTEM_NAMESPACE`]; does not wait for it.
    ///
    /// # Errors
    /// When `deploy/` is not installed or the program does not start.
    pub async fn start(plane: &ControlPlane, logs: &Path, role: Role, settings: Settings) -> Result<Self> {
        let account = match &role {
            Role::Controller { .. } => "ferrocast-controller",
            Role::Speaker { .. } | Role::LooseSpeaker { .. } => "ferrocast-speaker",
        };
        let kubeconfig = plane.token_kubeconfig(SYSTEM_NAMESPACE, account).await?;
        let process = launch(&role, &settings, &kubeconfig, logs)?;
        Ok(Self { role, settings, kubeconfig, logs: logs.to_owned(), process })
    }

    /// Starts it again after it ended.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(!self.process.is_running()?, "it still runs");
        self.process = launch(&self.role, &self.settings, &self.kubeconfig, &self.logs)?;
        Ok(())
    }

    /// More arguments for its next start.
    pub fn set_arguments(&mut self, more: &[&str]) {
        self.settings.more = more.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// Another program than `ferrocast` for its next start, with what is in its environment besides.
    pub fn set_program(&mut self, name: &str, environment: &[(&str, &Path)]) {
        let environment = environment.iter().map(|(key, path)| ((*key).to_owned(), path.to_path_buf())).collect();
        self.settings.program = Some((name.to_owned(), environment));
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Everything this role has logged, over its restarts.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.log()
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        self.process.tail()
    }

    /// Asks it over HTTP, in its own network namespace.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub fn get(&self, path: &str) -> Result<String> {
        self.request(&[], path)
    }

    fn request(&self, arguments: &[&str], path: &str) -> Result<String> {
        let (netns, port) = match &self.role {
            Role::Controller { port, .. } | Role::LooseSpeaker { port, .. } => (None, *port),
            Role::Speaker { node } => (Some(node.as_str()), SPEAKER_HTTP_PORT),
        };
        let mut curl = command(netns, Path::new("curl"));
        run(curl.args(arguments).args(["-sf", "--max-time", "5", &format!("http://127.0.0.1:{port}{path}")]))
    }

    /// Asks it over HTTP with another method than GET, in its own network namespace.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub fn send(&self, method: &str, path: &str) -> Result<String> {
        self.request(&["-X", method], path)
    }

    /// The sum over all label sets of a metric.
    ///
    /// # Errors
    /// When the metrics cannot be read or have no such name.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.get("/metrics")?;
        let values: Vec<f64> = text.lines().filter_map(|line| sample(line, name)).collect();
        ensure!(!values.is_empty(), "no metric {name}");
        Ok(values.iter().sum())
    }

    /// What a speaker says of its sessions with its peers.
    ///
    /// # Errors
    /// When it does not answer, or otherwise than expected.
    pub fn sessions(&self) -> Result<Vec<Value>> {
        let document: Value = serde_json::from_str(&self.get("/v1/bgp")?)?;
        document["peers"].as_array().cloned().context("no peers in /v1/bgp")
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it does not in time: with its log's tail.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let ready = eventually("ready", Duration::from_secs(READY_TIME_MAX_S), async || {
            self.process.ensure_running()?;
            self.get("/readyz").map(drop)
        });
        ready.await.with_context(|| self.tail())
    }
}

/// The value of a line of the text format if it is a sample of `name`.
fn sample(line: &str, name: &str) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    if !rest.starts_with([' ', '{']) {
        return None;
    }
    rest.rsplit(' ').next()?.parse().ok()
}

fn launch(role: &Role, settings: &Settings, kubeconfig: &Path, logs: &Path) -> Result<Process> {
    let binary = match &settings.program {
        Some((name, _)) => built(name)?,
        None => binary()?,
    };
    let (name, mut command): (String, Command) = match role {
        Role::Controller { name, port } => {
            let mut command = command(None, &binary);
            command.args(["controller", "--http", &format!("127.0.0.1:{port}")]);
            command.args(["--lease-namespace", SYSTEM_NAMESPACE]).env("POD_NAME", name);
            (name.clone(), command)
        }
        Role::Speaker { node } => {
            let mut command = command(Some(node), &binary);
            command.args(["speaker", "--node-name", node, "--http", &format!("[::]:{SPEAKER_HTTP_PORT}")]);
            (format!("speaker-{node}"), command)
        }
        Role::LooseSpeaker { node, port } => {
            let mut command = command(None, &binary);
            command.args(["speaker", "--node-name", node, "--http", &format!("127.0.0.1:{port}")]);
            (format!("speaker-{node}"), command)
        }
    };
    command.args(["--namespace", &settings.namespace]).arg("--kubeconfig").arg(kubeconfig);
    if let Some(class) = &settings.class {
        command.args(["--load-balancer-class", class]);
    }
    if !matches!(role, Role::Controller { .. }) {
        command.envs([("POD_NAMESPACE", SYSTEM_NAMESPACE), ("FERROCAST_DAEMONSET", "ferrocast-speaker")]);
    }
    command.args(&settings.more);
    command.envs(settings.program.iter().flat_map(|(_, environment)| environment.clone()));
    Process::start(&name, logs, &mut command)
}
