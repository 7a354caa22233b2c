//! A plugin for Ferrocast: hands the node's prefixes to a BIRD beside it, which announces them by OSPF, RIP or whatever it speaks.
mod announcer;
mod control;
mod include;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use ferrocast_plugin_sdk::{PluginArgs, run_with};

/// Hands the prefixes of this node to BIRD, as static routes in a file that bird.conf includes.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The file that this plugin writes and bird.conf includes; nobody else changes it
    #[arg(long, value_name = "PATH")]
    include: PathBuf,
    /// BIRD's control socket
    #[arg(long, default_value = "/run/bird/bird.ctl", value_name = "PATH")]
    control: PathBuf,
    #[command(flatten)]
    plugin: PluginArgs,
}

fn main() -> ExitCode {
    let Arguments { include, control, plugin } = Arguments::parse();
    run_with(plugin, Some(env!("CARGO_PKG_VERSION")), |supervisor| announcer::start(supervisor, include, control))
}
