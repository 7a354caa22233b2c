//! What `main` does.
use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use ferrocast_core::{
    actor::{CancellationToken, Supervisor, chain},
    announce::{Announcer, SHUTDOWN_MAX, Shutdown},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{Options, listen, serve};

/// What every plugin can be told; a plugin with arguments of its own flattens it into them (`#[command(flatten)]`) and calls
/// [`run_with`].
#[derive(Clone, Debug, clap::Args)]
pub struct PluginArgs {
    /// The speaker's --plugin-dir: the socket is made there, as NAME.sock
    #[arg(long, env = "FERROCAST_PLUGIN_DIR", default_value = "/run/ferrocast/plugins", value_name = "PATH")]
    pub dir: PathBuf,
    /// The socket itself, in place of --dir; its file's name without ".sock" is the plugin's name
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Who may dial, as the mode of the socket's file: the owner (and root) only, unless said otherwise
    #[arg(long, default_value = "600", value_parser = mode, value_name = "MODE")]
    pub socket_mode: u32,
    /// Withdraw everything when the plugin ends, in place of leaving it to the network for the next start
    #[arg(long)]
    pub withdraw_on_exit: bool,
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "give three octal digits, such as 600 or 660".to_owned())
}

#[derive(Parser)]
#[command(about = "A plugin of Ferrocast: announces what the speaker of this node says")]
struct Cli {
    #[command(flatten)]
    plugin: PluginArgs,
}

/// Runs the announcer that `make` makes as a plugin, until SIGTERM or SIGINT: then it is shut down, and what it has announced is
/// kept where the network can keep it, unless `--withdraw-on-exit` was given. Logs go to stderr, by `RUST_LOG`.
pub fn run(make: impl FnOnce(&mut Supervisor) -> Arc<dyn Announcer>) -> ExitCode {
    run_with(Cli::parse().plugin, None, make)
}

/// [`run`] for a program that reads its arguments itself, with its version, for people.
pub fn run_with(
    args: PluginArgs,
    version: Option<&str>,
    make: impl FnOnce(&mut Supervisor) -> Arc<dyn Announcer>,
) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    if tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init().is_err() {
        tracing::debug!("the program has set up its own log");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(until_signalled(args, version, make)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    tracing::error!(error = %chain(error), "the plugin cannot go on");
    ExitCode::FAILURE
}

async fn until_signalled(
    args: PluginArgs,
    version: Option<&str>,
    make: impl FnOnce(&mut Supervisor) -> Arc<dyn Announcer>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut supervisor = Supervisor::new(CancellationToken::new());
    let announcer = make(&mut supervisor);
    let path = args.socket.unwrap_or_else(|| args.dir.join(format!("{}.sock", announcer.name())));
    let listener = listen(&path, args.socket_mode)?;
    let mut options = Options::for_socket(&path);
    if let Some(version) = version {
        version.clone_into(&mut options.version);
    }
    tracing::info!(socket = %path.display(), "waiting for the speaker");
    let stop = CancellationToken::new();
    let mut serving = std::pin::pin!(serve(listener, announcer.clone(), options, stop.clone()));
    let idle = supervisor.stop_token().clone();
    let mut watching = std::pin::pin!(async {
        match supervisor.join().await {
            // An announcer without actors, or whose actors have ended on purpose, is no reason to end.
            Ok(()) => idle.cancelled().await,
            Err(escalation) => return Err(escalation),
        }
        Ok(())
    });
    tokio::select! {
        served = &mut serving => served?,
        gave_up = &mut watching => gave_up?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    let how = if args.withdraw_on_exit { Shutdown::Withdraw } else { Shutdown::Keep };
    tracing::info!(?how, "ending");
    let ending = async {
        // The announcer's actors go on meanwhile: they are what withdraws.
        tokio::join!(serving, announcer.shutdown(how, SHUTDOWN_MAX)).0
    };
    tokio::select! {
        served = ending => served?,
        gave_up = &mut watching => gave_up?,
    }
    Ok(())
}
