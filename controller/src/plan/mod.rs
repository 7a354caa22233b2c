//! `ferrocast plan`: the state that manifests lead to, and what would change if some were applied.
pub mod cluster;
pub mod diff;
pub mod endpoints;
pub mod fleet;
pub mod json;
pub mod objects;
pub mod show;
pub mod world;

use std::{
    io::{self, BufWriter, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use ferrocast_core::{actor::Supervisor, decide::DesiredBuilder};

use crate::{
    OwnAnnouncers,
    cli::{PlanArgs, PlanOutput},
    cluster::client,
    manifests,
};
use fleet::Fleet;
use objects::Objects;
use show::Comparison;
use world::{Planner, Settings};

/// Octets gathered before they are written out.
const BUFFER_LEN: usize = 1 << 16;
/// Something would change.
const CHANGES: u8 = 2;

/// Reads manifests; every fault in them is told on standard error.
///
/// # Errors
/// If a file cannot be read, or a document.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<manifests::Manifests> {
    let manifests = manifests::read_paths(paths)?;
    for error in &manifests.errors {
        eprintln!("{error}");
    }
    match manifests.errors.len() {
        0 => Ok(manifests),
        1 => bail!("one document cannot be read"),
        n => bail!("{n} documents cannot be read"),
    }
}

/// The objects of a directory or file.
///
/// # Errors
/// As [`read`].
pub fn objects_of(paths: &[PathBuf], namespace: &str) -> anyhow::Result<Objects> {
    let mut objects = Objects::new(namespace);
    objects.apply(read(paths)?);
    Ok(objects)
}

/// Says in the log how long a part of the work took, and begins the next.
fn lap(part: &str, since: &mut tokio::time::Instant) {
    let now = tokio::time::Instant::now();
    tracing::debug!("took {} ms: {part}", (now - *since).as_millis());
    *since = now;
}

/// Runs the command; what announcers of the binary's own foretell is part of a whole state.
///
/// # Errors
/// Wrong arguments, manifests that cannot be read, or no cluster to compare with.
pub async fn run(args: PlanArgs, own: OwnAnnouncers) -> anyhow::Result<ExitCode> {
    let settings = Settings {
        class: args.load_balancer_class.clone(),
        ignore_exclude_label: args.ignore_exclude_lb,
        nodes: args.nodes,
        assume_endpoints: args.assume_endpoints,
    };
    let mut since = tokio::time::Instant::now();
    let done = match (&*args.paths, &*args.filename) {
        ([], []) => bail!("give a directory of manifests, or -f with what would be applied"),
        (paths, []) => state(paths, settings, &args, own).await,
        ([], files) => {
            let against = match &args.against {
                Some(path) => objects_of(std::slice::from_ref(path), &args.namespace)?,
                None => {
                    let client = client::connect(args.kubeconfig.as_deref()).await?;
                    cluster::objects(&client, &args.namespace, settings.class.as_deref()).await?
                }
            };
            let applied = read(files)?;
            lap("read", &mut since);
            change(against, applied, settings, args.output)
        }
        _ => bail!("give either a directory, for the state it leads to, or -f, for what would change"),
    };
    match done {
        Err(error) if is_closed(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

/// Nobody reads on.
fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints the state that manifests lead to.
async fn state(paths: &[PathBuf], settings: Settings, args: &PlanArgs, own: OwnAnnouncers) -> anyhow::Result<ExitCode> {
    let mut since = tokio::time::Instant::now();
    let objects = objects_of(paths, &args.namespace)?;
    lap("read", &mut since);
    let world = Planner::new(settings).advance(&objects);
    drop(objects);
    lap("decided", &mut since);
    let mut out = BufWriter::with_capacity(BUFFER_LEN, io::stdout().lock());
    match args.output {
        PlanOutput::Text => show::write_state(&world, &mut out)?,
        PlanOutput::Json => {
            // They are never given a set: nothing is announced.
            let mut supervisor = Supervisor::default();
            let own = own.make(&mut supervisor)?;
            json::write(&world, &mut Fleet::new(&world, &mut DesiredBuilder::default()), &own, &mut out)?;
            supervisor.stop_token().cancel();
            supervisor.join().await?;
        }
    }
    out.flush()?;
    lap("written", &mut since);
    Ok(ExitCode::SUCCESS)
}

/// Prints what would change if manifests were applied.
fn change(
    mut objects: Objects,
    applied: manifests::Manifests,
    settings: Settings,
    output: PlanOutput,
) -> anyhow::Result<ExitCode> {
    let mut since = tokio::time::Instant::now();
    let mut planner = Planner::new(settings);
    let old = planner.advance(&objects);
    let mut builder = DesiredBuilder::default();
    let mut old_fleet = Fleet::new(&old, &mut builder);
    objects.apply(applied);
    let new = planner.advance(&objects);
    let mut new_fleet = Fleet::new(&new, &mut builder);
    lap("decided", &mut since);
    let mut comparison = Comparison { old: &old, old_fleet: &mut old_fleet, new: &new, new_fleet: &mut new_fleet };
    let mut out = BufWriter::with_capacity(BUFFER_LEN, io::stdout().lock());
    let any = match output {
        PlanOutput::Text => comparison.write_text(&mut out)?,
        PlanOutput::Json => comparison.write_json(&mut out)?,
    };
    out.flush().context("cannot write")?;
    lap("compared", &mut since);
    Ok(if any { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}
