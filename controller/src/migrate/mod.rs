//! `ferrocast migrate`: from other load balancers to this one.
pub mod change_over;
pub mod check;
pub mod configmap;
pub mod others;
pub mod reader;
pub mod tree;

use std::{fs, io::Read as _, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use configmap::Converted;
use others::Source;

/// `ferrocast migrate`.
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Say what would differ from MetalLB, object by object and address by address, and how each BGP session can change over
    /// (exit code: 0 nothing differs, 2 something does, 1 error).
    Check(check::CheckArgs),
    /// Change over from MetalLB, step by step, each checked; without --yes only say the steps.
    Run(change_over::RunArgs),
    /// Convert MetalLB's configuration file, of any version before there were resources, to resources.
    Configmap(ConvertArgs),
    /// Convert the pools of kube-vip's ConfigMap; tell which annotations of Services to set.
    KubeVip(ConvertArgs),
    /// Convert PureLB's ServiceGroups; tell which annotations of Services to set.
    Purelb(ConvertArgs),
    /// Convert CiliumLoadBalancerIPPools; tell which annotations of Services to set.
    Cilium(ConvertArgs),
}

/// What all converters take.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The file; - for standard input.
    pub file: std::path::PathBuf,
    /// Namespace of the resulting objects.
    #[arg(long, env = "FERROCAST_NAMESPACE", default_value = "metallb-system")]
    pub namespace: String,
}

/// Runs it.
///
/// # Errors
/// What the command fails with.
pub async fn run(command: MigrateCommand) -> anyhow::Result<ExitCode> {
    let (args, source) = match &command {
        MigrateCommand::Check(args) => return check::run(args).await,
        MigrateCommand::Run(args) => return change_over::run(args).await,
        MigrateCommand::Configmap(args) => (args, None),
        MigrateCommand::KubeVip(args) => (args, Some(Source::KubeVip)),
        MigrateCommand::Purelb(args) => (args, Some(Source::PureLb)),
        MigrateCommand::Cilium(args) => (args, Some(Source::Cilium)),
    };
    convert(args, source)
}

/// Objects on standard output, what is not understood or not kept on standard error.
fn convert(args: &ConvertArgs, source: Option<Source>) -> anyhow::Result<ExitCode> {
    let text = read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let converted = match source {
        None => configmap::convert(&text, &args.namespace),
        Some(source) => others::convert(source, &text, &args.namespace),
    };
    show(&args.file, &converted)
}

fn read(file: &Path) -> std::io::Result<String> {
    if file.as_os_str() != "-" {
        return fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn show(file: &Path, converted: &Converted) -> anyhow::Result<ExitCode> {
    for warning in &converted.remarks.warnings {
        eprintln!("{}:{warning}", file.display());
    }
    for error in &converted.remarks.errors {
        eprintln!("{}:{error}", file.display());
    }
    for object in &converted.objects {
        print!("---\n{}", serde_saphyr::to_string(object)?);
    }
    Ok(if converted.remarks.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
