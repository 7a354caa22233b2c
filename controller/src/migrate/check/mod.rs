//! `ferrocast migrate check`: what would differ from MetalLB, object by object and address by address, and how each session can
//! change over.
pub mod differences;
pub mod pods;
pub mod show;
pub mod ways;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use kube::Client;

use crate::{
    cli::ReportFormat,
    cluster::client,
    plan::{
        self,
        objects::Objects,
        world::{Planner, Settings},
    },
};
use differences::{AddressRow, ObjectRow};
use pods::OldPod;
use ways::SessionRow;

/// Something differs.
const DIFFERENCES: u8 = 2;

/// `ferrocast migrate check`. Exit code: 0 nothing differs, 2 something does, 1 error.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Directory or file of manifests, with the Services' statuses. Without it: the cluster.
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Kubeconfig file of the cluster. Without it: $KUBECONFIG, else the pod's ServiceAccount.
    #[arg(long, conflicts_with = "from")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the configuration objects and of MetalLB.
    #[arg(long, env = "FERROCAST_NAMESPACE", default_value = "metallb-system")]
    pub namespace: String,
    /// Services of this loadBalancerClass. Without it: those without a class.
    #[arg(long)]
    pub load_balancer_class: Option<Arc<str>>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
    pub output: ReportFormat,
}

/// What the check found.
#[derive(Debug)]
pub struct Report {
    /// Pods of MetalLB that run; none is known from manifests.
    pub metallb: Vec<OldPod>,
    /// Every address of every Service.
    pub addresses: Vec<AddressRow>,
    /// What applies to the objects.
    pub objects: Vec<ObjectRow>,
    /// Every peer on every node that it selects.
    pub sessions: Vec<SessionRow>,
}

impl Report {
    /// Does anything differ? How sessions change over does not count.
    #[must_use]
    pub fn differs(&self) -> bool {
        !self.objects.is_empty() || self.addresses.iter().any(|row| !row.change.keeps())
    }
}

/// Judges objects, beside the Pods that run.
#[must_use]
pub fn judge(objects: &Objects, class: Option<Arc<str>>, metallb: Vec<OldPod>) -> Report {
    let world = Planner::new(Settings { class, ..Settings::default() }).advance(objects);
    Report {
        addresses: differences::addresses(objects, &world),
        objects: differences::objects(objects, &world),
        sessions: ways::sessions(&world),
        metallb,
    }
}

/// Reads a cluster and judges it.
///
/// # Errors
/// A cluster that does not let its objects be listed.
pub async fn judge_cluster(client: &Client, namespace: &str, class: Option<Arc<str>>) -> anyhow::Result<Report> {
    let metallb = pods::list(client, namespace).await?;
    let objects = plan::cluster::objects(client, namespace, class.as_deref()).await?;
    Ok(judge(&objects, class, metallb))
}

/// Runs the command.
///
/// # Errors
/// Manifests that cannot be read, or no cluster.
pub async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let class = args.load_balancer_class.clone();
    let report = match &args.from {
        Some(path) => judge(&plan::objects_of(std::slice::from_ref(path), &args.namespace)?, class, Vec::new()),
        None => {
            let client = client::connect(args.kubeconfig.as_deref()).await?;
            judge_cluster(&client, &args.namespace, class).await?
        }
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    match args.output {
        ReportFormat::Text => show::text(&report, &mut out)?,
        ReportFormat::Json => show::json(&report, &mut out)?,
    }
    out.flush().context("cannot write")?;
    Ok(if report.differs() { ExitCode::from(DIFFERENCES) } else { ExitCode::SUCCESS })
}
