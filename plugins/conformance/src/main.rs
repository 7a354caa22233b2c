//! `ferrocast-conformance`: drives a plugin through the contract and prints what it found.
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use ferrocast_conformance::{Options, Probe, Subject, names, run};
use serde::Deserialize;

/// Drives a plugin through the contract of an announcer, and says where it is wrong. Ends with 0 if it is right, else with 1.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The socket that the plugin listens on.
    #[arg(long, required_unless_present = "list")]
    socket: Option<PathBuf>,
    /// A command that prints what the network has, one `PREFIX` or `PREFIX draining` per line.
    #[arg(long)]
    probe: Option<String>,
    /// A JSON file with the entries of the plugin's configuration: {"NAME": {"value": …, "secret": false}}.
    #[arg(long)]
    configuration: Option<PathBuf>,
    /// A JSON object: the parameters of every announcement, for a plugin that cannot do without.
    #[arg(long, default_value = "")]
    parameters: String,
    /// A command that restarts the plugin.
    #[arg(long)]
    restart: Option<String>,
    /// Only this check; may be given several times.
    #[arg(long, value_name = "CHECK")]
    only: Vec<String>,
    /// Seconds that the plugin's network may take to have a new set.
    #[arg(long, default_value_t = 30)]
    time_limit: u64,
    /// Milliseconds that the network may lag behind what the plugin says, and that a thing is watched that must not happen.
    #[arg(long, default_value_t = 1_000)]
    settle: u64,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Print the names of the checks, and what each demands.
    #[arg(long)]
    list: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFile {
    value: serde_json::Value,
    #[serde(default)]
    secret: bool,
}

fn options(arguments: &Arguments) -> anyhow::Result<Options> {
    let mut configuration = BTreeMap::new();
    if let Some(path) = &arguments.configuration {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let entries: BTreeMap<String, EntryFile> =
            serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        configuration = entries.into_iter().map(|(name, e)| (name, (e.value.to_string(), e.secret))).collect();
    }
    if let Some(unknown) = arguments.only.iter().find(|only| names().iter().all(|(name, _)| name != only)) {
        anyhow::bail!("there is no check {unknown:?}: --list prints them");
    }
    Ok(Options {
        probe: arguments.probe.clone().map(Probe::Command),
        restart: arguments.restart.clone(),
        configuration,
        parameters: arguments.parameters.clone(),
        time_limit: Duration::from_secs(arguments.time_limit),
        settle: Duration::from_millis(arguments.settle),
        only: arguments.only.clone(),
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let Some(socket) = arguments.socket.clone().filter(|_| !arguments.list) else {
        names().iter().for_each(|(name, demand)| println!("{name:24} {demand}"));
        return Ok(ExitCode::SUCCESS);
    };
    let report = run(Subject::Socket(socket), &options(&arguments)?).await;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
