//! `ferrocast migrate run`: the change-over from MetalLB, step by step, each checked before the next.
mod steps;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use kube::Client;

use super::check::{self, Report, pods::OldPod, show::address_line, ways::Way};
use crate::cluster::{client, metallb::Part};
use steps::Cluster;

/// Label of the Nodes that MetalLB's speakers stay away from.
pub const MIGRATED_LABEL: &str = "ferrocast.io/migrated";
/// Ends FRR in the old speaker's Pod so that it cannot send a NOTIFICATION. It is not restarted at once: its keeper goes first.
const KILL_FRR: &str =
    "kubectl exec -n \"$NAMESPACE\" \"$POD\" -c frr -- sh -c 'kill -9 $(pidof watchfrr) $(pidof bgpd)'";

/// `ferrocast migrate run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Do it. Without it the steps are printed, and nothing is changed.
    #[arg(long)]
    pub yes: bool,
    /// Go on although `migrate check` finds that addresses would change.
    #[arg(long)]
    pub accept_changes: bool,
    /// Only this node's speaker; may be repeated. Without it: all, one after another.
    #[arg(long, value_name = "NODE")]
    pub node: Vec<String>,
    /// Kubeconfig file of the cluster. Without it: $KUBECONFIG.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the configuration objects and of MetalLB.
    #[arg(long, env = "FERROCAST_NAMESPACE", default_value = "metallb-system")]
    pub namespace: String,
    /// Namespace of Ferrocast's Lease.
    #[arg(long, default_value = "ferrocast-system")]
    pub lease_namespace: String,
    /// Name of that Lease.
    #[arg(long, default_value = "ferrocast-controller")]
    pub lease_name: String,
    /// Services of this loadBalancerClass. Without it: those without a class.
    #[arg(long)]
    pub load_balancer_class: Option<Arc<str>>,
    /// Shell command that ends the BGP process of an old speaker at once (SIGKILL), so that it cannot send a NOTIFICATION: it
    /// gets $NODE, $POD and $NAMESPACE. Without it: FRR is killed by kubectl exec; a Pod without FRR is just deleted.
    #[arg(long, value_name = "COMMAND")]
    pub kill_command: Option<String>,
    /// How long one step may take.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::cli::duration)]
    pub timeout: Duration,
}

/// One old speaker to be replaced.
struct Turn<'a> {
    pod: &'a OldPod,
    /// The least gentle way of its node's sessions.
    way: Way,
    kill: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The first step that is not as it should be, with what is wrong and how to go back.
pub async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let client = client::connect(args.kubeconfig.as_deref()).await?;
    let report = judge(&client, args).await?;
    let changes: Vec<_> = report.addresses.iter().filter(|row| !row.change.keeps()).collect();
    for row in &changes {
        println!("{}", address_line(row));
    }
    if !changes.is_empty() && !args.accept_changes {
        bail!(
            "addresses would not stay as they are: mend that (see `ferrocast migrate check`), or give --accept-changes"
        );
    }
    let turns = turns(&report, args)?;
    print_steps(&report, &turns);
    if !args.yes {
        println!("Nothing has been changed: give --yes to do this.");
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = Cluster { client, namespace: args.namespace.clone(), timeout: args.timeout };
    for turn in &turns {
        cluster.ensure_stands_by(&turn.pod.node, turn.way).await?;
    }
    if report.metallb.iter().any(|pod| pod.part == Part::Controller) {
        change_controllers(&cluster, &report, args).await?;
    }
    if !turns.is_empty() {
        cluster.confine_speakers().await.context("confining MetalLB's speakers to the nodes that are not migrated")?;
    }
    for turn in &turns {
        change_speaker(&cluster, turn).await.with_context(|| go_back(&turn.pod.node))?;
    }
    println!(
        "Done. What is left of MetalLB has no Pods; its CustomResourceDefinitions and objects are Ferrocast's now: keep them."
    );
    Ok(ExitCode::SUCCESS)
}

async fn judge(client: &Client, args: &RunArgs) -> anyhow::Result<Report> {
    let class = args.load_balancer_class.clone();
    check::judge_cluster(client, &args.namespace, class).await
}

/// The old speakers to be replaced, in the order of their nodes.
fn turns<'a>(report: &'a Report, args: &RunArgs) -> anyhow::Result<Vec<Turn<'a>>> {
    let speakers = || report.metallb.iter().filter(|pod| pod.part == Part::Speaker);
    if let Some(node) = args.node.iter().find(|node| speakers().all(|pod| pod.node != **node)) {
        bail!("no speaker of MetalLB runs on the node {node}");
    }
    let chosen = speakers().filter(|pod| args.node.is_empty() || args.node.contains(&pod.node));
    let turn = |pod: &'a OldPod| {
        let ways = report.sessions.iter().filter(|row| *row.node == *pod.node).map(|row| row.way);
        let kill = args.kill_command.clone().or_else(|| pod.frr.then(|| KILL_FRR.to_owned()));
        Turn { pod, way: ways.max().unwrap_or(Way::Gap), kill }
    };
    Ok(chosen.map(turn).collect())
}

fn print_steps(report: &Report, turns: &[Turn<'_>]) {
    println!("Steps:");
    for pod in report.metallb.iter().filter(|pod| pod.part == Part::Controller) {
        println!(
            "- MetalLB's controller (Pod {}) is scaled to 0; Ferrocast's takes over; no address changes",
            pod.name
        );
    }
    for Turn { pod, way, kill } in turns {
        println!("- {}: MetalLB's Pod {} ends, ({}) {}", pod.node, pod.name, way.letter(), way.words());
        if let (Some(kill), true) = (kill, *way != Way::Beside) {
            println!("  by: {kill}");
        }
    }
    if report.metallb.is_empty() {
        println!("- none: no Pod of MetalLB runs");
    }
}

/// MetalLB's controller ends and ours leads; no Service has another address after it than before.
async fn change_controllers(cluster: &Cluster, report: &Report, args: &RunArgs) -> anyhow::Result<()> {
    cluster.stop_controllers().await.context("scaling MetalLB's controller to 0")?;
    cluster.wait_for_leader(&args.lease_namespace, &args.lease_name).await?;
    let after = judge(&cluster.client, args).await?;
    let kept = report.addresses.iter().filter(|row| row.change.keeps());
    for row in kept {
        if !after.addresses.iter().any(|now| now.service == row.service && now.address == row.address) {
            bail!("the address of {} is not what it was, {:?}: look at its Events", row.service, row.address);
        }
    }
    println!("Ferrocast's controller leads; {} addresses are as they were", report.addresses.len());
    Ok(())
}

/// One node's sessions change from the old speaker to ours.
async fn change_speaker(cluster: &Cluster, turn: &Turn<'_>) -> anyhow::Result<()> {
    let Turn { pod, way, kill } = turn;
    if let (Some(kill), true) = (kill, *way != Way::Beside) {
        cluster.kill(kill, pod).await?;
    }
    cluster.label_node(&pod.node).await?;
    cluster.delete_pod(&pod.name).await?;
    let peers = cluster.wait_for_sessions(&pod.node).await?;
    println!("{}: {peers} sessions are Ferrocast's", pod.node);
    Ok(())
}

fn go_back(node: &str) -> String {
    format!(
        "{node} is not as it should be. To go back: `kubectl label node {node} {MIGRATED_LABEL}-` lets MetalLB's speaker come \
         back there; once it runs, delete Ferrocast's Pod of that node: the next one waits"
    )
}
