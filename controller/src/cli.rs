//! The command line.
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A load balancer for Kubernetes clusters on bare metal.
#[derive(Debug, Parser)]
#[command(name = "ferrocast", version, about, max_term_width = 120)]
pub struct Cli {
    /// Log format.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// The roles and commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Allocate addresses to Services and write them into their statuses (one leader per cluster).
    Controller(ControllerArgs),
    /// Announce this node's Services to the network (one per node).
    Speaker(SpeakerArgs),
    /// Run controller, speakers and a router on this machine over a directory of manifests, without a cluster.
    Sandbox(SandboxArgs),
    /// Say what state manifests lead to, or what would change if they were applied (exit code: 0 nothing, 2 changes, 1 error).
    Plan(PlanArgs),
    /// Check configuration objects in manifests, and say everything that is wrong with them and what to write instead.
    Validate(ValidateArgs),
    /// Say why a Service, an address, a node or a peer is as it is.
    Explain(ExplainArgs),
    /// Create the directory of `speaker --state-dir` and give it to a user (an init container does).
    PrepareStateDir(PrepareStateDirArgs),
    /// Print the CustomResourceDefinitions.
    Crds {
        /// Only those of this API group. Without it: all.
        #[arg(long, value_enum)]
        group: Option<Group>,
    },
    /// Convert the configuration of other load balancers.
    #[command(subcommand)]
    Migrate(crate::migrate::MigrateCommand),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// An API group of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// MetalLB's resources.
    #[value(name = "metallb.io")]
    Metallb,
    /// What MetalLB's resources cannot say.
    #[value(name = "ferrocast.io")]
    Ferrocast,
}

impl Group {
    /// As it stands in `apiVersion`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Metallb => ferrocast_api::GROUP,
            Self::Ferrocast => ferrocast_api::OWN_GROUP,
        }
    }
}

/// What controller and speaker have in common.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// Kubeconfig file. Without it: $KUBECONFIG, else the pod's ServiceAccount.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the configuration objects (pools, peers, advertisements …), wherever the pod itself lives.
    #[arg(long, env = "FERROCAST_NAMESPACE", default_value = "metallb-system")]
    pub namespace: String,
    /// Serve Services of this loadBalancerClass. Without it: those without a class.
    #[arg(long)]
    pub load_balancer_class: Option<Arc<str>>,
    /// Work although Pods of MetalLB run in the configuration namespace. Without it a controller only reads while MetalLB's
    /// controller runs, and a speaker dials nobody while MetalLB's speaker runs on its node.
    #[arg(long)]
    pub ignore_metallb: bool,
}

/// `ferrocast controller`.
#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// Common settings.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Namespace of the Lease that elects the leader. Without it: that of the configuration objects.
    #[arg(long, env = "POD_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Name of that Lease. Two installations in one namespace, for two classes, need two names.
    #[arg(long, default_value = "ferrocast-controller")]
    pub lease_name: String,
    /// Name of this replica in the Lease. Without it: $POD_NAME, else the host's name, and a random suffix.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Namespace of the certificates and of what tells who may trust them. Without it: that of the Lease.
    #[arg(long, value_name = "NAMESPACE")]
    pub certificate_namespace: Option<String>,
    /// Where to serve the validating webhook over TLS, for instance `[::]:9443`. Without it there is none.
    #[arg(long, value_name = "ADDR:PORT")]
    pub webhook: Option<SocketAddr>,
    /// Name of the ValidatingWebhookConfiguration that is told to trust the webhook's certificate.
    #[arg(long, value_name = "NAME", default_value = "ferrocast-webhook")]
    pub webhook_configuration: String,
    /// A name or address by which the API server reaches the webhook; may be repeated. Without it: that of the Service
    /// ferrocast-webhook.
    #[arg(long, value_name = "HOST")]
    pub webhook_host: Vec<String>,
    /// Where to answer `ferrocast explain` over TLS, to those with a token of the ServiceAccount ferrocast-reader, for instance
    /// `[::]:9133`. Without it nothing listens, and no certificate is made for the speakers either.
    #[arg(long, value_name = "ADDR:PORT")]
    pub explain: Option<SocketAddr>,
    /// The address by which others reach that port, if ADDR is none.
    #[arg(long, value_name = "IP", env = "POD_IP")]
    pub explain_host: Option<IpAddr>,
    /// What happens to living addresses that an edit of the configuration takes away. An object's annotation
    /// ferrocast.io/on-address-loss says otherwise.
    #[arg(long, value_enum, default_value_t = OnAddressLoss::Deny)]
    pub on_address_loss: OnAddressLoss,
    /// Where to serve /metrics, /healthz and /readyz.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:9131")]
    pub http: SocketAddr,
}

/// `ferrocast speaker`.
#[derive(Debug, Args)]
pub struct SpeakerArgs {
    /// Common settings.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Name of the Node this speaker runs on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: Arc<str>,
    /// Announce from this node even if it carries the label node.kubernetes.io/exclude-from-external-load-balancers.
    #[arg(long)]
    pub ignore_exclude_lb: bool,
    /// Directory where what is announced is saved, with the peers' passwords, readable by its owner only. A speaker that starts
    /// while the API server is away announces it again. Without it nothing is saved.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Port on which passive peers (BGPPeerPolicy with `passive: true`) are expected; below 1024 that takes the capability
    /// NET_BIND_SERVICE. Nothing listens as long as there is no such peer.
    #[arg(long, value_name = "PORT", default_value_t = 179)]
    pub bgp_listen_port: u16,
    /// Name of the DaemonSet of the speakers, in the namespace $POD_NAMESPACE: while that is deleted, a speaker that is told to
    /// end withdraws its routes. Without it (or $POD_NAMESPACE) it is not looked at.
    #[arg(long, env = "FERROCAST_DAEMONSET")]
    pub daemonset: Option<String>,
    /// Namespace of that DaemonSet.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: Option<String>,
    /// How long routes are announced as about to go away (RFC 8326) before they are withdrawn, when the Node gets the exclude
    /// label, and when the speaker ends for good: for a drained node, a node that goes, or an uninstallation. 0s: not at all.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub drain_time: Duration,
    /// Write a ServiceBGPStatus per Service that this node announces: one object per Service and node.
    #[arg(long)]
    pub service_bgp_status: bool,
    /// Where to answer `ferrocast explain` over TLS, to those with a token of the ServiceAccount ferrocast-reader, for instance
    /// `[::]:9132`; the SpeakerStatus says where. Takes $POD_NAMESPACE, and a controller with --explain, which makes the
    /// certificate. Without it nothing listens.
    #[arg(long, value_name = "ADDR:PORT", requires = "pod_namespace")]
    pub explain: Option<SocketAddr>,
    /// Directory in which announcer plugins listen, each on the Unix socket NAME.sock, where NAME is that of its AnnouncerClass.
    /// Only its owner may write there: this user, or root. Without it, no plugin is dialled.
    #[arg(long, value_name = "DIR")]
    pub plugin_dir: Option<PathBuf>,
    /// User that a plugin may run as; may be repeated. Without it: root, and the speaker's own.
    #[arg(long, value_name = "UID", requires = "plugin_dir")]
    pub plugin_uids: Vec<u32>,
    /// How long a plugin is asked to keep what it announces while there is no speaker; then it withdraws.
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = duration)]
    pub plugin_orphan_hold: Duration,
    /// Where to serve /metrics, /healthz and /readyz, and, to loopback only, /v1/….
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:9130")]
    pub http: SocketAddr,
}

/// What happens to living addresses that an edit takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnAddressLoss {
    /// The webhook refuses the edit. If it comes all the same, as hold.
    Deny,
    /// They stay with those who have them.
    Hold,
    /// Those who have them are given others, as MetalLB does.
    Move,
}

impl From<OnAddressLoss> for ferrocast_core::config::OnAddressLoss {
    fn from(flag: OnAddressLoss) -> Self {
        match flag {
            OnAddressLoss::Deny => Self::Deny,
            OnAddressLoss::Hold => Self::Hold,
            OnAddressLoss::Move => Self::Move,
        }
    }
}

/// A duration as in the configuration objects, e.g. `5s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    ferrocast_core::config::parse_duration(text)
}

/// `ferrocast validate`. Exit code 0 if there are no errors, else 1.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Manifests: files, or directories of files that end in .yaml, .yml or .json; `-`: standard input. Without any: standard input.
    #[arg(value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    /// Namespace of the configuration objects. Objects that name another are not read by Ferrocast.
    #[arg(long, env = "FERROCAST_NAMESPACE", default_value = "metallb-system")]
    pub namespace: String,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
    pub output: ReportFormat,
}

/// Output format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// One line per problem, for people.
    Text,
    /// One JSON document.
    Json,
}

/// `ferrocast prepare-state-dir`.
#[derive(Debug, Args)]
pub struct PrepareStateDirArgs {
    /// The directory; it is created if it does not exist.
    pub dir: PathBuf,
    /// User it is given to, with what is in it.
    #[arg(long)]
    pub uid: u32,
    /// Group it is given to, with what is in it.
    #[arg(long)]
    pub gid: u32,
}

/// `ferrocast sandbox`.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    /// Directory of manifests. Without it an example is written to a new directory.
    pub dir: Option<PathBuf>,
    /// How many nodes, each with a speaker. Without it: the Node objects of DIR, or 3 if there are none.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=200))]
    pub nodes: Option<u8>,
    /// Where endpoints come from.
    #[arg(long, value_enum, default_value_t = EndpointsFrom::Assume)]
    pub endpoints: EndpointsFrom,
    /// A real router to peer with, besides the built-in one. May be repeated.
    #[arg(long, value_name = "ADDR[:PORT],AS")]
    pub peer: Vec<String>,
    /// Converge, print, exit: 0 if every LoadBalancer Service has an address and a route at the built-in router, else 1.
    #[arg(long)]
    pub once: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Serve Services of this loadBalancerClass. Without it: those without a class.
    #[arg(long)]
    pub load_balancer_class: Option<Arc<str>>,
}

/// `ferrocast plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Directories or files of manifests: print the state that they lead to by themselves.
    pub paths: Vec<PathBuf>,
    /// Directory or file of manifests that would be applied: print what would change. May be repeated.
    #[arg(short, long, value_name = "FILE|DIR")]
    pub filename: Vec<PathBuf>,
    /// With -f: the directory or file of manifests that there is now. Without it: the cluster.
    #[arg(long, value_name = "DIR", requires = "filename")]
    pub against: Option<PathBuf>,
    /// Kubeconfig file of the cluster. Without it: $KUBECONFIG, else the pod's ServiceAccount.
    #[arg(long, conflicts_with = "against")]
    pub kubeconfig: Option<PathBuf>,
    /// Make up nodes node1, node2 … until there are so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub nodes: Option<u16>,
    /// Take a Service with a selector and without EndpointSlices for one with an endpoint on every node.
    #[arg(long)]
    pub assume_endpoints: bool,
    /// Namespace of the configuration objects, also of those that name none.
    #[arg(long, env = "FERROCAST_NAMESPACE", default_value = "metallb-system")]
    pub namespace: String,
    /// Services of this loadBalancerClass. Without it: those without a class.
    #[arg(long)]
    pub load_balancer_class: Option<Arc<str>>,
    /// As if the speakers ran with it.
    #[arg(long)]
    pub ignore_exclude_lb: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = PlanOutput::Text)]
    pub output: PlanOutput,
}

/// `ferrocast explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Of what kind it is.
    #[arg(value_enum)]
    pub kind: crate::explain::SubjectKind,
    /// Its name: NAMESPACE/NAME of a Service, the IP address, or the name of a node or BGPPeer.
    pub name: String,
    /// Directory or file of manifests that it is explained from. Without it: the live cluster, whose speakers and controller are
    /// asked with a token of the ServiceAccount ferrocast-reader.
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Kubeconfig file of the cluster. Without it: $KUBECONFIG, else the pod's ServiceAccount.
    #[arg(long, conflicts_with = "from")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace that Ferrocast itself runs in.
    #[arg(long, value_name = "NAMESPACE", default_value = "ferrocast-system", conflicts_with = "from")]
    pub ferrocast_namespace: String,
    /// With --from: make up nodes node1, node2 … until there are so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=5000), requires = "from")]
    pub nodes: Option<u16>,
    /// With --from: take a Service with a selector and without EndpointSlices for one with an endpoint on every node.
    #[arg(long, requires = "from")]
    pub assume_endpoints: bool,
    /// Namespace of the configuration objects, also of those that name none.
    #[arg(long, env = "FERROCAST_NAMESPACE", default_value = "metallb-system")]
    pub namespace: String,
    /// With --from: Services of this loadBalancerClass. Without it: those without a class.
    #[arg(long, requires = "from")]
    pub load_balancer_class: Option<Arc<str>>,
    /// With --from: as if the speakers ran with it.
    #[arg(long, requires = "from")]
    pub ignore_exclude_lb: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = PlanOutput::Text)]
    pub output: PlanOutput,
}

/// Output format of `plan` and `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanOutput {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Where the sandbox takes endpoints from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EndpointsFrom {
    /// EndpointSlices in the directory; a Service with a selector and no slice counts as ready on every node.
    Assume,
    /// EndpointSlices in the directory only.
    Files,
}

/// Output format of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people.
    Table,
    /// JSON, one document per change.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
