//! `ferrocast migrate`: from other load balancers to this one.
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

/// Runs it: objects on standard output, what is not understood or not kept on standard error.
///
/// # Errors
/// If the file cannot be read.
pub fn run(command: &MigrateCommand) -> anyhow::Result<ExitCode> {
    let (args, source) = match command {
        MigrateCommand::Configmap(args) => (args, None),
        MigrateCommand::KubeVip(args) => (args, Some(Source::KubeVip)),
        MigrateCommand::Purelb(args) => (args, Some(Source::PureLb)),
        MigrateCommand::Cilium(args) => (args, Some(Source::Cilium)),
    };
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
