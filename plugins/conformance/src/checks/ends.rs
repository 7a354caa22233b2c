//! Ends in order, and restarts of the plugin.
use std::time::Duration;

use ferrocast_core::announce::{SHUTDOWN_MAX, Shutdown};
use tokio::time::{Instant, sleep};

use crate::{
    lab::{Base, CONNECT_RETRY, Lab, Result, Stop, Update, failed},
    probe::{self, Network},
};

/// How long the announcer may take to end.
const DEADLINE: Duration = SHUTDOWN_MAX;

async fn ends(lab: &mut Lab<'_>, how: Shutdown) -> Result {
    if lab.shut_down(how, DEADLINE).await? {
        return Ok(());
    }
    let advice = "say Goodbye when it is done, or when deadline_ms is nearly over: the host does not wait longer";
    Err(failed(format!("Goodbye within {DEADLINE:?}"), "none came", advice))
}

pub(super) async fn keep(lab: &mut Lab<'_>) -> Result {
    lab.connect_with(&lab.set(0..10)).await?;
    let expected = lab.expected();
    ends(lab, Shutdown::Keep).await?;
    if lab.life().is_some() {
        return stopped(lab).await;
    }
    lab.lose();
    let advice = "Shutdown with keep is a restart: leave everything announced, for orphan_hold_s";
    lab.stays(&expected, lab.options.settle, advice).await?;
    lab.connect_with(&lab.set(0..10)).await
}

pub(super) async fn withdraw(lab: &mut Lab<'_>) -> Result {
    lab.connect_with(&lab.set(0..10)).await?;
    ends(lab, Shutdown::Withdraw).await?;
    let advice =
        "Shutdown with withdraw is for good: withdraw everything, and say Goodbye when the network has taken it";
    lab.shows(&Network::new(), lab.options.settle, advice).await?;
    if lab.life().is_some() {
        return stopped(lab).await;
    }
    lab.connect_with(&lab.set(0..10)).await
}

/// After its end an announcer takes nothing more.
async fn stopped(lab: &mut Lab<'_>) -> Result {
    match lab.update(&Update::new(&lab.set(0..3), Base::Snapshot)).await? {
        crate::lab::Answer::Accepted => {
            Err(failed("apply answers Stopped after shutdown", "it accepts", "remember that shutdown was called"))
        }
        _ => Ok(()),
    }
}

/// Connects to a plugin that restarts: the call may still reach the one that ends.
async fn again(lab: &mut Lab<'_>) -> Result {
    let until = Instant::now() + lab.options.time_limit;
    loop {
        match lab.connect().await {
            Err(stop) if Instant::now() >= until => return Err(stop),
            Err(_) => sleep(CONNECT_RETRY).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// Where the conversation stands when the plugin ends.
#[derive(Clone, Copy)]
enum At {
    /// All is announced.
    Rest,
    /// Half of an update is sent.
    HalfSent,
    /// An update is accepted, and perhaps not reached.
    Accepted,
    /// There is no host.
    Orphaned,
}

pub(super) async fn plugin_restart(lab: &mut Lab<'_>) -> Result {
    if lab.options.restart.is_none() && lab.in_process().is_none() {
        return Err(Stop::NotApplicable("there is no --restart command".into()));
    }
    for at in [At::Rest, At::HalfSent, At::Accepted, At::Orphaned] {
        restarted(lab, at).await?;
    }
    Ok(())
}

async fn restarted(lab: &mut Lab<'_>, at: At) -> Result {
    lab.connect_with(&lab.set(0..10)).await?;
    let next = lab.set(3..20);
    match at {
        At::Rest => {}
        At::HalfSent if lab.life().is_some() => return Ok(()), // the trait has no halves
        At::HalfSent => drop(lab.begin(&Update::new(&next, Base::Accepted)).await?),
        At::Accepted => lab.accept(&Update::new(&next, Base::Accepted)).await?,
        At::Orphaned => lab.lose(),
    }
    if let Some(restart) = lab.options.restart.clone() {
        let ran = probe::run(&restart).await;
        ran.map_err(|error| failed("the restart command works", error, "correct the command"))?;
    }
    again(lab).await?;
    if let Some(version) = lab.hello.accepted
        && !lab.sent.accepted.contains(&(version.epoch, version.generation))
    {
        let advice = "after a restart say the version that was kept on disk, or none";
        return Err(failed(
            "PluginHello.accepted is none, or a version that was accepted",
            format!("{version:?}"),
            advice,
        ));
    }
    lab.begin_with(&lab.set(5..12)).await?;
    lab.reached().await?;
    let advice = "what the network still has from before the restart, and the first set lacks, must go";
    lab.shows(&lab.expected(), lab.options.settle, advice).await
}
