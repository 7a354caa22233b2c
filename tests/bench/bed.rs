//! What the benchmarks run on: an API server, a BGP receiver in this process, and one of the two contenders.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ferrocast_bgp::router::{Router, RouterConfig};
use ferrocast_core::actor::Supervisor;
use ferrocast_tests::cluster::Cluster;
use ferrocast_tests::ferrocast::{Ferrocast, Role, Settings};
use ferrocast_tests::kube::ControlPlane;
use ferrocast_tests::objects::{CONFIG_NAMESPACE, SYSTEM_NAMESPACE, advertisement, config, pool};
use ferrocast_tests::process::{Process, free_port};
use ferrocast_tests::wait::{bounded, ensure_that, eventually};
use kube::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::watch;

use crate::arrivals::Arrivals;
use crate::load::{CLASS, NAMESPACE, NODE, POOL, POOL_RANGE};

/// AS of the receiver.
const ROUTER_AS: u32 = 64_500;
/// AS of the speaker.
const SPEAKER_AS: u32 = 64_600;
/// The floor's ServiceAccount.
const FLOOR_ACCOUNT: &str = "bench-floor";
/// Where the receiver looks for a free port: MetalLB's CRD allows no peer port above 16384.
const ROUTER_PORTS: RangeInclusive<u16> = 11_790..=12_790;
/// How long anything may take that should take seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The least that can be done with the same client.
    Floor,
    /// The product.
    Ferrocast,
}

/// What the floor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloorMode {
    /// Answers each new Service.
    Answer,
    /// Answers from [`Floor::go`] on.
    Hold,
    /// Only watches EndpointSlices.
    Endpoints,
}

/// The running floor; ends when dropped.
pub(crate) struct Floor {
    process: Process,
    orders: OwnedWriteHalf,
}

impl Floor {
    /// Lets it start to answer; returns when that was said.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) async fn go(&mut self) -> Result<Instant> {
        self.orders.write_all(b"go\n").await.with_context(|| self.process.tail())?;
        Ok(Instant::now())
    }
}

/// Everything the scenarios need.
pub(crate) struct Bed {
    /// The API server.
    pub(crate) plane: ControlPlane,
    /// As administrator.
    pub(crate) cluster: Cluster,
    /// What arrived at the receiver, or was reported by the floor.
    pub(crate) arrivals: Arrivals,
    controller: Option<Ferrocast>,
    speaker: Option<Ferrocast>,
    logs: PathBuf,
    reports: TcpListener,
    floor_kubeconfig: PathBuf,
    _router: Router,
    _supervisor: Supervisor,
}

fn floor_rights() -> Vec<Value> {
    let metadata = json!({"name": FLOOR_ACCOUNT, "namespace": SYSTEM_NAMESPACE});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": FLOOR_ACCOUNT},
            "rules": [
                {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
                {"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": FLOOR_ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": FLOOR_ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": FLOOR_ACCOUNT, "namespace": SYSTEM_NAMESPACE}],
        }),
    ]
}

/// The objects Ferrocast needs besides the pool.
fn configuration(router: SocketAddr) -> Vec<Value> {
    let peer = json!({
        "myASN": SPEAKER_AS, "peerASN": ROUTER_AS,
        "peerAddress": router.ip().to_string(), "peerPort": router.port(),
    });
    vec![config(CONFIG_NAMESPACE, "BGPPeer", "receiver", peer), advertisement(CONFIG_NAMESPACE, "everything")]
}

/// A receiver on a free port of loopback.
async fn start_router(supervisor: &mut Supervisor, arrivals: &Arrivals) -> Result<Router> {
    for port in ROUTER_PORTS {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let settings =
            RouterConfig { on_update: Some(arrivals.hook()), keep_rib: false, ..RouterConfig::new(listen, ROUTER_AS) };
        match Router::start(supervisor, settings).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            started => return Ok(started?),
        }
    }
    bail!("no port of {ROUTER_PORTS:?} is free")
}

impl Bed {
    /// Starts the API server and the receiver, and installs what `deploy/` ships.
    ///
    /// # Errors
    /// When a part of it does not start.
    pub(crate) async fn start(dir: &Path) -> Result<Self> {
        let plane = ControlPlane::start(dir, "127.0.0.1").await?;
        let cluster = Cluster::new(plane.admin());
        plane.install_ferrocast()?;
        cluster.ensure_namespace(NAMESPACE).await?;
        cluster.apply_all(&floor_rights()).await?;
        let floor_kubeconfig = plane.token_kubeconfig(SYSTEM_NAMESPACE, FLOOR_ACCOUNT).await?;
        let arrivals = Arrivals::default();
        let mut supervisor = Supervisor::default();
        let router = start_router(&mut supervisor, &arrivals).await?;
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        cluster.apply(&node).await?;
        let addresses = json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]});
        cluster.merge_status(&node, &addresses).await?;
        cluster.apply_all(&configuration(router.address())).await?;
        let reports = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self {
            plane,
            cluster,
            arrivals,
            controller: None,
            speaker: None,
            logs: dir.join("logs"),
            reports,
            floor_kubeconfig,
            _router: router,
            _supervisor: supervisor,
        })
    }

    /// A client of the administrator.
    #[must_use]
    pub(crate) fn client(&self) -> Client {
        self.plane.admin()
    }

    /// Creates the pool.
    ///
    /// # Errors
    /// What the API server refuses.
    pub(crate) async fn create_pool(&self) -> Result<Instant> {
        self.cluster.create(&pool(CONFIG_NAMESPACE, POOL, &[POOL_RANGE])).await?;
        Ok(Instant::now())
    }

    /// Deletes the pool.
    ///
    /// # Errors
    /// When it stays.
    pub(crate) async fn delete_pool(&self) -> Result<()> {
        self.cluster.delete(&pool(CONFIG_NAMESPACE, POOL, &[])).await
    }

    /// Starts the floor and waits until its lists are complete.
    ///
    /// # Errors
    /// When it does not start or say so in time.
    pub(crate) async fn start_floor(&self, mode: FloorMode) -> Result<Floor> {
        let program = std::env::current_exe()?.with_file_name("floor");
        let mut command = Command::new(&program);
        command.arg("--kubeconfig").arg(&self.floor_kubeconfig);
        command.args(["--report", &self.reports.local_addr()?.to_string(), "--class", CLASS]).arg(match mode {
            FloorMode::Answer => "answer",
            FloorMode::Hold => "hold",
            FloorMode::Endpoints => "endpoints",
        });
        self.arrivals.forget();
        let process = Process::start("floor", &self.logs, &mut command)?;
        let connected = bounded("the floor's start", PATIENCE, async {
            let (stream, _) = self.reports.accept().await?;
            let (lines, orders) = stream.into_split();
            let mut lines = BufReader::new(lines).lines();
            let (ready, mut is_ready) = watch::channel(false);
            let arrivals = self.arrivals.clone();
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    let at = Instant::now();
                    match (line.as_str(), line.split_at_checked(1)) {
                        ("ready", _) => drop(ready.send_replace(true)),
                        (_, Some(("+", ip))) => arrivals.note(ip.parse().into_iter(), None.into_iter(), at),
                        (_, Some(("-", ip))) => arrivals.note(None.into_iter(), ip.parse().into_iter(), at),
                        _ => {}
                    }
                }
            });
            is_ready.wait_for(|ready| *ready).await.context("the floor has ended")?;
            Ok(orders)
        });
        let orders = connected.await.with_context(|| process.tail())?;
        Ok(Floor { process, orders })
    }

    async fn launch(&self, kept: Option<Ferrocast>, role: Role) -> Result<Ferrocast> {
        if let Some(mut ferrocast) = kept {
            ferrocast.restart()?;
            return Ok(ferrocast);
        }
        let settings = Settings {
            namespace: CONFIG_NAMESPACE.to_owned(),
            class: Some(CLASS.to_owned()),
            more: vec![format!("--explain=127.0.0.1:{}", free_port()?)], // as in deploy/,
            ..Settings::default()
        };
        Ferrocast::start(&self.plane, &self.logs, role, settings).await
    }

    /// Starts the controller and waits until it leads and has looked at `services` Services.
    ///
    /// # Errors
    /// When it does not come that far in time.
    pub(crate) async fn start_controller(&mut self, services: usize) -> Result<()> {
        let kept = self.controller.take();
        let role = Role::Controller { name: "bench-controller".to_owned(), port: free_port()? };
        let mut controller = self.launch(kept, role).await?;
        eventually("the controller leads", PATIENCE, async || {
            controller.process().ensure_running()?;
            let state: Value = serde_json::from_str(&controller.get("/v1/allocations")?)?;
            let seen = state["services"].as_array().map_or(0, Vec::len);
            ensure_that(state["leading"] == true && seen >= services, || format!("it has seen {seen}"))
        })
        .await
        .with_context(|| controller.tail())?;
        self.controller = Some(controller);
        Ok(())
    }

    /// Starts the speaker; returns when that was.
    ///
    /// # Errors
    /// When the program does not start.
    pub(crate) async fn start_speaker(&mut self) -> Result<Instant> {
        self.arrivals.forget();
        let kept = self.speaker.take();
        let role = Role::LooseSpeaker { node: NODE.to_owned(), port: free_port()? };
        let began = Instant::now();
        self.speaker = Some(self.launch(kept, role).await?);
        Ok(began)
    }

    /// Starts both and waits until `allocated` of `services` standing Services are announced.
    ///
    /// # Errors
    /// When they are not in time.
    pub(crate) async fn start_ferrocast(&mut self, services: usize, allocated: usize) -> Result<()> {
        self.start_controller(services).await?;
        self.start_speaker().await?;
        self.speaker()?.wait_until_ready().await?;
        let routes = self.arrivals.wait_for_present(allocated, PATIENCE).await;
        routes.with_context(|| self.speaker.as_ref().map(Ferrocast::tail).unwrap_or_default())
    }

    /// Waits until the speaker's session with the receiver is Established.
    ///
    /// # Errors
    /// When it is not in time.
    pub(crate) async fn wait_for_session(&mut self) -> Result<()> {
        let speaker = self.speaker()?;
        eventually("the session is up", PATIENCE, async || {
            let up = speaker.metric("metallb_bgp_session_up")?;
            ensure_that(up > 0.0, || "it is down".to_owned())
        })
        .await
    }

    /// Stops both, whichever runs.
    ///
    /// # Errors
    /// When one does not stop in time.
    pub(crate) async fn stop_ferrocast(&mut self) -> Result<()> {
        self.stop_speaker().await?;
        self.stop_controller().await
    }

    /// Stops the controller.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub(crate) async fn stop_controller(&mut self) -> Result<()> {
        stop(self.controller.as_mut()).await
    }

    /// Stops the speaker.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub(crate) async fn stop_speaker(&mut self) -> Result<()> {
        stop(self.speaker.as_mut()).await
    }

    /// The running controller.
    ///
    /// # Errors
    /// When it was never started.
    pub(crate) fn controller(&mut self) -> Result<&mut Ferrocast> {
        self.controller.as_mut().context("no controller")
    }

    /// The running speaker.
    ///
    /// # Errors
    /// When it was never started.
    pub(crate) fn speaker(&mut self) -> Result<&mut Ferrocast> {
        self.speaker.as_mut().context("no speaker")
    }
}

async fn stop(ferrocast: Option<&mut Ferrocast>) -> Result<()> {
    let Some(ferrocast) = ferrocast else { return Ok(()) };
    if ferrocast.process().is_running()? {
        let status = ferrocast.process().terminate().await?;
        ensure!(status.success(), "{status}\n{}", ferrocast.tail());
    }
    Ok(())
}
