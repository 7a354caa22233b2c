//! The network: three nodes, two routers and a client around a bridge, each a network namespace.
//!
//! ```text
//!   client ─ 10.98.1.0/24 ─ bird (.11) ┐            ┌ n1 (.101) ─ p1: Pods 10.244.1.0/24
//!          ─ 10.98.2.0/24 ─ frr  (.12) ┼ 10.99.0.0/24 ┼ n2 (.102) ─ p2: Pods 10.244.2.0/24
//!                          stuck (.13) ┘  fd99::/64 └ n3 (.103) ─ p3: Pods 10.244.3.0/24
//! ```
//! The suite's own namespace is the hub: it holds the bridge, the API server (10.99.0.1) and the controllers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::{Value, json};

use crate::audit::EXPLAIN_ACCOUNT;
use crate::cluster::Cluster;
use crate::ferrocast::{Ferrocast, Role, Settings, binary, built};
use crate::kube::{ControlPlane, kube_proxy};
use crate::objects::{self, CONFIG_NAMESPACE, Endpoint, Service};
use crate::process::{Process, command, free_port, run, sh, tail};
use crate::router::{BIRD_ASN, FRR_ASN, FRR_PASSWORD, Kind, Router};
use crate::runner::Context;
use crate::wait::{ensure_that, eventually};

/// How long anything in the lab may take to become so: generous, the machine may be busy with something else.
pub const CONVERGENCE_TIME_MAX: Duration = Duration::from_secs(30);
/// The nodes; each is also the name of its namespace.
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// AS of the speakers.
pub const SPEAKER_ASN: u32 = 64_600;
/// The hub's address, where the API server is.
pub const HUB: &str = "10.99.0.1";
/// How long one HTTP request of the client may take, s.
const REQUEST_TIME_MAX_S: &str = "5";
/// A kernel's buffers for one TCP connection of the router that reads nothing, and of those who write to it, octets.
const SMALL_BUFFERS: &str = "4608 4608 4608";
/// The kernel's own choice for everybody else.
const USUAL_BUFFERS: &str = "4096 16384 4194304";

/// The whole bed: network, cluster, routers, workloads, product.
pub struct Lab {
    /// etcd and API server.
    pub plane: ControlPlane,
    /// The administrator's view.
    pub cluster: Cluster,
    /// BIRD, 10.99.0.11.
    pub bird: Router,
    /// FRR, 10.99.0.12.
    pub frr: Router,
    /// The replicas of the controller that run.
    pub controllers: Vec<Ferrocast>,
    /// The speakers, one for each of [`NODES`].
    pub speakers: Vec<Ferrocast>,
    dir: PathBuf,
    helpers: Vec<Process>,
}

impl Context for Lab {
    async fn start(dir: &Path) -> Result<Self> {
        let mut lab = Self::without_proxies(dir).await?;
        lab.start_kube_proxies().await?;
        Ok(lab)
    }

    fn diagnose(&self) -> String {
        let product: String = self.controllers.iter().chain(&self.speakers).map(Ferrocast::tail).collect();
        let proxy = tail("kube-proxy of n1", &self.dir.join("kube-proxy-n1.log"));
        format!("{product}{}{}{proxy}{}", self.bird.tails(), self.frr.tails(), self.plane.tails())
    }
}

/// Runs a line of `ip`'s words inside a namespace.
fn ip(netns: &str, words: &str) -> Result<()> {
    sh(&format!("ip -n {netns} {words}")).map(drop)
}

fn sysctl(netns: &str, settings: &str) -> Result<()> {
    sh(&format!("ip netns exec {netns} sysctl -qw {settings}")).map(drop)
}

/// Sets the sizes (least, first, most) of a namespace's TCP buffers, `tcp_rmem` or `tcp_wmem`.
fn buffers(netns: &str, which: &str, sizes: &str) -> Result<()> {
    let setting = format!("net.ipv4.{which}={sizes}");
    run(command(Some(netns), Path::new("sysctl")).args(["-qw", &setting])).map(drop)
}

/// A namespace with a leg in the lab's network.
fn attach(netns: &str, host: u32) -> Result<()> {
    sh(&format!("ip netns add {netns}"))?;
    ip(netns, "link set lo up")?;
    sh(&format!("ip link add v-{netns} type veth peer name eth0 netns {netns}"))?;
    sh(&format!("ip link set v-{netns} master br0 up"))?;
    sysctl(
        netns,
        "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 \
         net.ipv4.conf.default.rp_filter=0 net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1",
    )?;
    ip(netns, "link set eth0 up")?;
    ip(netns, &format!("addr add 10.99.0.{host}/24 dev eth0"))?;
    ip(netns, &format!("addr add fd99::{host}/64 dev eth0 nodad"))
}

fn lay_network() -> Result<()> {
    sh("ip link add br0 type bridge")?;
    sh("ip link set br0 up")?;
    sh(&format!("ip addr add {HUB}/24 dev br0"))?;
    sh("ip addr add fd99::1/64 dev br0 nodad")?;
    attach("bird", 11)?;
    attach("frr", 12)?;
    attach("stuck", 13)?;
    buffers("stuck", "tcp_rmem", SMALL_BUFFERS)?;
    sh("ip netns add client")?;
    ip("client", "link set lo up")?;
    for (router, link) in [("bird", 1), ("frr", 2)] {
        sh(&format!("ip -n client link add to-{router} type veth peer name to-client netns {router}"))?;
        ip("client", &format!("link set to-{router} up"))?;
        ip("client", &format!("addr add 10.98.{link}.2/24 dev to-{router}"))?;
        ip("client", &format!("addr add fd98:{link}::2/64 dev to-{router} nodad"))?;
        ip(router, "link set to-client up")?;
        ip(router, &format!("addr add 10.98.{link}.1/24 dev to-client"))?;
        ip(router, &format!("addr add fd98:{link}::1/64 dev to-client nodad"))?;
    }
    for index in 1..=NODES.len() {
        lay_node(index)?;
    }
    Ok(())
}

/// A node, its Pods' namespace, and its routes to the other nodes' Pods and back to the client.
fn lay_node(index: usize) -> Result<()> {
    let (node, pods) = (format!("n{index}"), format!("p{index}"));
    attach(&node, u32::try_from(100 + index)?)?;
    sh(&format!("ip netns add {pods}"))?;
    sh(&format!("ip -n {node} link add pods type veth peer name eth0 netns {pods}"))?;
    ip(&node, "link set pods up")?;
    ip(&node, &format!("addr add 10.244.{index}.1/24 dev pods"))?;
    ip(&node, &format!("addr add fd44:{index}::1/64 dev pods nodad"))?;
    ip(&pods, "link set lo up")?;
    ip(&pods, "link set eth0 up")?;
    ip(&pods, &format!("addr add 10.244.{index}.10/24 dev eth0"))?;
    ip(&pods, &format!("addr add fd44:{index}::10/64 dev eth0 nodad"))?;
    ip(&pods, &format!("route add default via 10.244.{index}.1"))?;
    ip(&pods, &format!("route add default via fd44:{index}::1"))?;
    for other in (1..=NODES.len()).filter(|other| *other != index) {
        ip(&node, &format!("route add 10.244.{other}.0/24 via 10.99.0.{}", 100 + other))?;
        ip(&node, &format!("route add fd44:{other}::/64 via fd99::{}", 100 + other))?;
    }
    for (link, router) in [(1, 11), (2, 12)] {
        ip(&node, &format!("route add 10.98.{link}.0/24 via 10.99.0.{router}"))?;
        ip(&node, &format!("route add fd98:{link}::/64 via fd99::{router}"))?;
    }
    Ok(())
}

/// The Nodes, as a kubelet would have registered them.
///
/// # Errors
/// What the API server refuses.
pub async fn register_nodes(cluster: &Cluster) -> Result<()> {
    for (node, number) in NODES.iter().zip(101_u32..) {
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}},
        });
        cluster.apply(&object).await?;
        let address = |address: String| json!({"type": "InternalIP", "address": address});
        let addresses = [address(format!("10.99.0.{number}")), address(format!("fd99::{number}"))];
        cluster.merge_status(&object, &json!({ "addresses": addresses })).await?;
    }
    Ok(())
}

/// The configuration that the suites start from: one pool of both families, advertised to BIRD over a session for each
/// family and to FRR over one that carries both and needs a password.
#[must_use]
pub fn base_configuration() -> Vec<Value> {
    let peer = |name: &str, address: &str, asn: u32| {
        let spec = json!({
            "myASN": SPEAKER_ASN, "peerASN": asn, "peerAddress": address, "holdTime": "9s", "keepaliveTime": "3s",
        });
        objects::config(CONFIG_NAMESPACE, "BGPPeer", name, spec)
    };
    let mut frr = peer("frr", "10.99.0.12", FRR_ASN);
    frr["spec"]["dualStackAddressFamily"] = json!(true);
    frr["spec"]["passwordSecret"] = json!({"name": "frr", "namespace": CONFIG_NAMESPACE});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
        "metadata": {"namespace": CONFIG_NAMESPACE, "name": "frr"}, "stringData": {"password": FRR_PASSWORD},
    });
    vec![
        secret,
        peer("bird4", "10.99.0.11", BIRD_ASN),
        peer("bird6", "fd99::11", BIRD_ASN),
        frr,
        objects::pool(CONFIG_NAMESPACE, "lab", &["10.50.0.0/24", "fd50::/120"]),
        objects::advertisement(CONFIG_NAMESPACE, "lab"),
    ]
}

/// The addresses of these nodes in the family of `prefix`: the next hops of a route.
#[must_use]
pub fn hops(nodes: &[&str], prefix: &str) -> BTreeSet<String> {
    let base = if prefix.contains(':') { "fd99::10" } else { "10.99.0.10" };
    nodes.iter().map(|node| format!("{base}{}", node.trim_start_matches('n'))).collect()
}

/// The host route of an address.
#[must_use]
pub fn host_route(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
}

/// The address of the backend on a node.
#[must_use]
pub fn backend(node: &str, family: &str) -> String {
    let index = node.trim_start_matches('n');
    if family == "IPv6" { format!("fd44:{index}::10") } else { format!("10.244.{index}.10") }
}

/// `configuration` with graceful restart on every peer.
#[must_use]
pub fn with_graceful_restart(mut configuration: Vec<Value>) -> Vec<Value> {
    for peer in configuration.iter_mut().filter(|object| object["kind"] == "BGPPeer") {
        peer["spec"]["enableGracefulRestart"] = json!(true);
    }
    configuration
}

impl Lab {
    /// Everything but the kube-proxies and the product.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn without_proxies(dir: &Path) -> Result<Self> {
        lay_network()?;
        let plane = ControlPlane::start(dir, HUB).await?;
        plane.install_ferrocast()?;
        let cluster = Cluster::new(plane.admin());
        cluster.ensure_namespace("default").await?;
        register_nodes(&cluster).await?;
        let bird = Router::new(Kind::Bird, "bird", dir)?;
        let frr = Router::new(Kind::Frr, "frr", dir)?;
        let dir = dir.to_owned();
        let mut lab = Self { plane, cluster, bird, frr, controllers: vec![], speakers: vec![], dir, helpers: vec![] };
        lab.bird.start().await?;
        lab.frr.start().await?;
        lab.start_backends()?;
        Ok(lab)
    }

    /// The bed with this many controllers, a speaker on each node and [`base_configuration`], all sessions up.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn with_ferrocast(dir: &Path, replicas: usize) -> Result<Self> {
        <Self as Context>::start(dir).await?.announcing(replicas).await
    }

    /// The same without kube-proxies: for tests that send nothing to Services.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn with_ferrocast_only(dir: &Path, replicas: usize) -> Result<Self> {
        Self::without_proxies(dir).await?.announcing(replicas).await
    }

    async fn announcing(mut self, replicas: usize) -> Result<Self> {
        self.cluster.apply_all(&base_configuration()).await?;
        self.start_ferrocast(replicas).await?;
        self.wait_for_sessions().await?;
        Ok(self)
    }

    /// Waits until every speaker has a session with each peer of [`base_configuration`].
    ///
    /// # Errors
    /// When one has not in time.
    pub async fn wait_for_sessions(&self) -> Result<()> {
        for speaker in &self.speakers {
            eventually("a speaker has its three sessions", CONVERGENCE_TIME_MAX, async || {
                let up = speaker.metric("metallb_bgp_session_up")?;
                ensure_that(up >= 3.0, || format!("{up} of 3 are up"))
            })
            .await
            .with_context(|| speaker.tail())?;
        }
        Ok(())
    }

    fn start_backends(&mut self) -> Result<()> {
        let tool = built("lab-tool")?;
        for pods in ["p1", "p2", "p3"] {
            let mut serve = command(Some(pods), &tool);
            self.helpers.push(Process::start(&format!("backend-{pods}"), &self.dir, serve.arg("serve"))?);
        }
        Ok(())
    }

    async fn start_kube_proxies(&mut self) -> Result<()> {
        let (program, leading) = kube_proxy()?;
        for node in NODES {
            let mut proxy = command(Some(node), &program);
            proxy.args(&leading).arg("--kubeconfig").arg(self.plane.admin_kubeconfig());
            proxy.arg(format!("--hostname-override={node}")).args([
                "--proxy-mode=nftables",
                "--cluster-cidr=10.244.0.0/16,fd44::/16",
                "--conntrack-max-per-core=0",
                "--conntrack-min=0",
                "--conntrack-tcp-timeout-established=0s",
                "--conntrack-tcp-timeout-close-wait=0s",
            ]);
            self.helpers.push(Process::start(&format!("kube-proxy-{node}"), &self.dir, &mut proxy)?);
        }
        for node in NODES {
            let what = format!("kube-proxy of {node} is healthy");
            let healthy = eventually(&what, CONVERGENCE_TIME_MAX, async || {
                let mut curl = command(Some(node), Path::new("curl"));
                run(curl.args(["-sf", "--max-time", "2", "http://127.0.0.1:10256/healthz"])).map(drop)
            });
            healthy.await.with_context(|| tail("kube-proxy", &self.dir.join(format!("kube-proxy-{node}.log"))))?;
        }
        Ok(())
    }

    /// Starts `replicas` controllers and a speaker on each node, and waits until all are ready.
    ///
    /// # Errors
    /// When one is not ready in time.
    pub async fn start_ferrocast(&mut self, replicas: usize) -> Result<()> {
        for replica in self.controllers.len()..replicas {
            let role = Role::Controller { name: format!("controller-{replica}"), port: free_port()? };
            self.controllers.push(Ferrocast::start(&self.plane, &self.dir, role, Settings::default()).await?);
        }
        for node in NODES.iter().skip(self.speakers.len()) {
            let role = Role::Speaker { node: (*node).to_owned() };
            self.speakers.push(Ferrocast::start(&self.plane, &self.dir, role, Settings::default()).await?);
        }
        for role in self.controllers.iter_mut().chain(&mut self.speakers) {
            role.wait_until_ready().await?;
        }
        Ok(())
    }

    /// Both routers, to be asked the same.
    #[must_use]
    pub fn routers(&self) -> [&Router; 2] {
        [&self.bird, &self.frr]
    }

    /// From now on both routers' changes of routes are kept.
    ///
    /// # Errors
    /// When a monitor does not start.
    pub async fn record_route_changes(&mut self) -> Result<()> {
        self.bird.record_changes().await?;
        self.frr.record_changes().await
    }

    /// Waits until both routers' kernels forward to `prefix` by exactly these nodes (none: no route).
    ///
    /// # Errors
    /// When they do not in time: with what they do.
    pub async fn wait_for_hops(&self, prefix: &str, nodes: &[&str]) -> Result<()> {
        let wanted = hops(nodes, prefix);
        for router in self.routers() {
            let what = format!("{} forwards {prefix} to {wanted:?}", router.netns);
            eventually(&what, CONVERGENCE_TIME_MAX, async || {
                let found = router.next_hops(prefix)?;
                ensure_that(found == wanted, || format!("it forwards to {found:?}"))
            })
            .await?;
        }
        Ok(())
    }

    /// Applies a Service with one ready endpoint on each of `nodes`, in each of its families.
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn apply_service(&self, service: &Service<'_>, nodes: &[&str]) -> Result<()> {
        self.set_endpoints(service, nodes).await?;
        self.cluster.apply(&service.object()).await
    }

    /// Makes these nodes the ones with a ready endpoint.
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn set_endpoints(&self, service: &Service<'_>, nodes: &[&str]) -> Result<()> {
        for family in service.families {
            let addresses: Vec<String> = nodes.iter().map(|node| backend(node, family)).collect();
            let pairs = addresses.iter().zip(nodes);
            let endpoints: Vec<Endpoint<'_>> = pairs.map(|(address, node)| Endpoint::ready(address, node)).collect();
            let slice = objects::endpoint_slice(service.namespace, service.name, family, &endpoints);
            self.cluster.apply(&slice).await?;
        }
        Ok(())
    }

    /// The kubeconfig of somebody with the ClusterRole for those who run `ferrocast explain`, and no other right.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn who_may_explain(&self) -> Result<PathBuf> {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": objects::SYSTEM_NAMESPACE, "name": EXPLAIN_ACCOUNT},
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": EXPLAIN_ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": EXPLAIN_ACCOUNT},
            "subjects": [
                {"kind": "ServiceAccount", "namespace": objects::SYSTEM_NAMESPACE, "name": EXPLAIN_ACCOUNT},
            ],
        });
        self.cluster.apply_all(&[account, binding]).await?;
        self.plane.token_kubeconfig(objects::SYSTEM_NAMESPACE, EXPLAIN_ACCOUNT).await
    }

    /// `ferrocast explain` with these arguments on a machine that reaches the API server and the nodes, but not the controllers:
    /// BIRD's.
    ///
    /// # Errors
    /// When it fails, or no controller says where it explains.
    pub async fn explain_without_controller(&self, arguments: &[&str], kubeconfig: &Path) -> Result<String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.cluster.client(), objects::SYSTEM_NAMESPACE);
        let data = maps.get("ferrocast-explain-ca").await?.data.unwrap_or_default();
        let port = data.get("controller").and_then(|at| at.rsplit(':').next()).context("no controller")?;
        let netns = self.bird.netns;
        ip(netns, &format!("rule add ipproto tcp dport {port} prohibit"))?;
        let mut explain = command(Some(netns), &binary()?);
        let printed = run(explain.arg("explain").args(arguments).arg("--kubeconfig").arg(kubeconfig));
        ip(netns, &format!("rule del ipproto tcp dport {port} prohibit"))?;
        printed
    }

    /// Makes the client send what is for `address` to this router.
    ///
    /// # Errors
    /// When the route cannot be set.
    pub fn client_via(&self, router: &Router, address: &str) -> Result<()> {
        let link = if router.kind == Kind::Bird { 1 } else { 2 };
        let gateway = if address.contains(':') { format!("fd98:{link}::1") } else { format!("10.98.{link}.1") };
        ip("client", &format!("route replace {} via {gateway}", host_route(address)))
    }

    /// One HTTP request of the client; returns the address of the backend that answered.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn request(&self, address: &str) -> Result<String> {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let mut curl = command(Some("client"), Path::new("curl"));
        run(curl.args(["-sfg", "--max-time", REQUEST_TIME_MAX_S, &format!("http://{host}:{}/", objects::HTTP_PORT)]))
    }

    /// Requests until every one of `nodes`' backends has answered, through each router.
    ///
    /// # Errors
    /// When one never does.
    pub async fn wait_for_backends(&self, address: &str, nodes: &[&str]) -> Result<()> {
        let family = if address.contains(':') { "IPv6" } else { "IPv4" };
        let wanted: BTreeSet<String> = nodes.iter().map(|node| backend(node, family)).collect();
        for router in self.routers() {
            self.client_via(router, address)?;
            let mut answered = BTreeSet::new();
            let what = format!("{wanted:?} answer at {address} through {}", router.netns);
            eventually(&what, CONVERGENCE_TIME_MAX, async || {
                answered.insert(self.request(address)?);
                ensure_that(answered == wanted, || format!("answered have {answered:?}"))
            })
            .await?;
        }
        Ok(())
    }

    /// A connection of the client that is kept busy until it breaks: then the process ends.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn hold_connection(&self, name: &str, address: &str) -> Result<Process> {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let mut hold = command(Some("client"), &built("lab-tool")?);
        hold.args(["hold", &format!("{host}:{}", objects::ECHO_PORT)]);
        Process::start(name, &self.dir, &mut hold)
    }

    /// From now on a connection of the client from an address of its link to a router goes through that router, whatever
    /// others do.
    ///
    /// # Errors
    /// When the routing policy cannot be set.
    pub fn route_client_by_source(&self) -> Result<()> {
        for link in [1, 2] {
            let table = 100 + link;
            for (family, gateway, from) in [
                ("-4", format!("10.98.{link}.1"), format!("10.98.{link}.2")),
                ("-6", format!("fd98:{link}::1"), format!("fd98:{link}::2")),
            ] {
                ip("client", &format!("{family} route add default via {gateway} table {table}"))?;
                ip("client", &format!("{family} rule add from {from} lookup {table}"))?;
            }
        }
        Ok(())
    }

    /// So many connections of the client to `address` through a router, kept busy; the process says what becomes of them.
    /// Needs [`Lab::route_client_by_source`].
    ///
    /// # Errors
    /// When the program does not start.
    pub fn hold_connections(&self, name: &str, router: &Router, address: &str, count: usize) -> Result<Process> {
        let link = if router.kind == Kind::Bird { 1 } else { 2 };
        let (from, host) = match address.contains(':') {
            true => (format!("fd98:{link}::2"), format!("[{address}]")),
            false => (format!("10.98.{link}.2"), address.to_owned()),
        };
        let mut hold = command(Some("client"), &built("lab-tool")?);
        hold.args(["hold-many", &from, &format!("{host}:{}", objects::ECHO_PORT), &count.to_string()]);
        Process::start(name, &self.dir, &mut hold)
    }

    /// A BGP router at 10.99.0.13 that opens a session and then reads nothing more. What the nodes connect from now on
    /// has small send buffers, so that they fill within a test; [`Lab::restore_buffers`] ends that.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn start_stuck_router(&self, asn: u32) -> Result<Process> {
        NODES.iter().try_for_each(|node| buffers(node, "tcp_wmem", SMALL_BUFFERS))?;
        let mut router = command(Some("stuck"), &built("lab-tool")?);
        router.args(["stuck-router", "10.99.0.13:179", &asn.to_string()]);
        Process::start("stuck-router", &self.dir, &mut router)
    }

    /// Undoes what [`Lab::start_stuck_router`] did to the nodes.
    ///
    /// # Errors
    /// When a setting is refused.
    pub fn restore_buffers(&self) -> Result<()> {
        NODES.iter().try_for_each(|node| buffers(node, "tcp_wmem", USUAL_BUFFERS))
    }

    /// Octets that wait to be sent from a node to an address, over all of its connections there.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn unsent_octets(&self, node: &str, address: &str) -> Result<u64> {
        let printed = run(Command::new("ip").args(["netns", "exec", node, "ss", "-tnH", "dst", address]))?;
        let unsent = |line: &str| line.split_whitespace().nth(2).and_then(|octets| octets.parse::<u64>().ok());
        let octets: Vec<u64> = printed.lines().filter_map(unsent).collect();
        ensure!(!octets.is_empty(), "no connection from {node} to {address}");
        Ok(octets.iter().sum())
    }
}
