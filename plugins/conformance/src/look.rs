//! What the checks demand again and again: accepted, reached, there, still there.
use std::{collections::BTreeMap, future::pending, time::Duration};

use ferrocast_plugin_proto::v1alpha1::{Status, TargetStatus, Version};
use ipnet::IpNet;
use tokio::time::{Instant, sleep};

use crate::{
    lab::{Answer, Base, Lab, Result, Said, Stop, Update, broken, failed},
    notes::show,
    probe::{Network, Probe},
    set::Set,
    wire::CallError,
};

/// Between two looks at the network.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Prefixes named in a finding; the others are counted.
const NAMED_MAX: usize = 4;

impl Lab<'_> {
    /// Sends an update, which must be accepted.
    pub(crate) async fn accept(&mut self, update: &Update<'_>) -> Result {
        let seen = match self.update(update).await? {
            Answer::Accepted => return Ok(()),
            Answer::NeedSnapshot(reason) => format!("NeedSnapshot: {reason}"),
            Answer::Rejected(reason) => format!("Rejected: {reason}"),
        };
        let advice = match update.base {
            Base::Snapshot => {
                "a snapshot needs nothing that came before, and this one is right: store it and answer Accepted"
            }
            _ => "the difference is from the version that was accepted last, and right: apply it and answer Accepted",
        };
        Err(failed("Accepted", seen, advice))
    }

    /// A snapshot, as every host begins.
    pub(crate) async fn begin_with(&mut self, set: &Set) -> Result {
        self.accept(&Update::new(set, Base::Snapshot)).await
    }

    /// A new host sends this set, and waits until it is true.
    pub(crate) async fn connect_with(&mut self, set: &Set) -> Result {
        self.connect().await?;
        self.begin_with(set).await?;
        self.converged().await
    }

    /// Changes the set in force to this one, and waits until it is true.
    pub(crate) async fn change_to(&mut self, set: &Set) -> Result {
        self.accept(&Update::new(set, Base::Accepted)).await?;
        self.converged().await
    }

    /// Waits until every target has reached what was accepted last, and the network has it.
    pub(crate) async fn converged(&mut self) -> Result {
        self.converged_with(self.options.settle).await
    }

    /// The same where the network may lag behind for so long.
    pub(crate) async fn converged_with(&mut self, lag: Duration) -> Result {
        self.reached().await?;
        let advice =
            "the status says reached, the network says otherwise: report reached only for what the network has taken";
        self.shows(&self.expected(), lag, advice).await
    }

    /// Waits until every target says that it has reached what was accepted last.
    pub(crate) async fn reached(&mut self) -> Result {
        let Some((version, set)) = self.accepted.clone() else { return Ok(()) };
        let visible = set.visible().len() as u64;
        let until = Instant::now() + self.options.time_limit;
        loop {
            let why = match &self.status {
                None => "no status came".to_owned(),
                Some(status) => match missing(status, version, visible) {
                    None => return Ok(()),
                    Some(why) => why,
                },
            };
            match self.receive(until).await {
                Ok(Said::Status) => {}
                Ok(_) => return Err(failed("a status", "another answer", "answer an update once")),
                Err(CallError::Silent(_)) => {
                    return Err(failed(
                        format!(
                            "every target reaches {} within {:?}",
                            show(version.epoch, version.generation),
                            self.options.time_limit
                        ),
                        why,
                        "send a Status when a target has each announcement announced, withdrawn, or failed with a reason, \
                         also when nothing had to be done for it; if the network is slow, give --time-limit",
                    ));
                }
                Err(error) => return Err(broken("waiting for a target to reach a version", &error)),
            }
        }
    }

    /// What the network should have when what was accepted last is true.
    pub(crate) fn expected(&self) -> Network {
        let mut visible = self.accepted.as_ref().map(|(_, set)| set.visible()).unwrap_or_default();
        let drains = self.capabilities().drain;
        visible.values_mut().for_each(|draining| *draining &= drains);
        for failure in self.status.iter().flat_map(|status| &status.targets).flat_map(|target| &target.failures) {
            if let Ok(prefix) = failure.prefix.parse::<IpNet>() {
                visible.remove(&prefix);
            }
        }
        visible
    }

    /// Waits until the network has exactly this. Statuses are read meanwhile.
    pub(crate) async fn shows(&mut self, expected: &Network, time_max: Duration, advice: &str) -> Result {
        let Some(probe) = self.probe() else { return Ok(()) };
        let until = Instant::now() + time_max;
        loop {
            let now = look(&probe).await?;
            if now == *expected {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(failed(format!("the network has {}", count(expected)), differs(expected, &now), advice));
            }
            self.listen(LOOK_AGAIN).await;
        }
    }

    /// Looks on for a while: the network has exactly this all the time.
    pub(crate) async fn stays(&mut self, expected: &Network, time: Duration, advice: &str) -> Result {
        let probe = self.probe();
        let until = Instant::now() + time;
        loop {
            if let Some(probe) = &probe {
                let now = look(probe).await?;
                if now != *expected {
                    let expected_words = format!("the network goes on to have {}", count(expected));
                    return Err(failed(expected_words, differs(expected, &now), advice));
                }
            }
            if Instant::now() >= until {
                return Ok(());
            }
            self.listen(LOOK_AGAIN).await;
        }
    }

    /// The probe; without one it is remembered that something was only believed.
    pub(crate) fn probe(&mut self) -> Option<Probe> {
        self.believed |= self.options.probe.is_none();
        self.options.probe.clone()
    }

    /// Takes note of statuses for this long.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while self.receive(until).await.is_ok() {}
        // A call that has ended does not wait.
        sleep(until.saturating_duration_since(Instant::now())).await;
    }
}

/// Looks on while something else is done, until the network has not got exactly this.
pub(crate) async fn watched(probe: Option<Probe>, expected: Network, advice: &str) -> Stop {
    let Some(probe) = probe else { return pending().await };
    loop {
        match look(&probe).await {
            Ok(now) if now == expected => sleep(LOOK_AGAIN).await,
            Ok(now) => {
                let words = format!("the network goes on to have {}", count(&expected));
                return failed(words, differs(&expected, &now), advice);
            }
            Err(stop) => return stop,
        }
    }
}

async fn look(probe: &Probe) -> Result<Network> {
    let advice = "the probe itself does not work: correct the command";
    probe.look().await.map_err(|error| failed("the probe prints what the network has", error, advice))
}

/// Why a status does not say that the version is reached.
fn missing(status: &Status, version: Version, visible: u64) -> Option<String> {
    if status.targets.is_empty() {
        let problem = if status.problem.is_empty() { "no problem told" } else { &status.problem };
        return Some(format!("the last status has no target ({problem})"));
    }
    status.targets.iter().find_map(|target| lacks(target, version, visible))
}

fn lacks(target: &TargetStatus, version: Version, visible: u64) -> Option<String> {
    let TargetStatus { name, reached, announced, failures_total, reason, .. } = target;
    if *reached != Some(version) {
        let has = reached.map_or("nothing".to_owned(), |v| show(v.epoch, v.generation));
        return Some(format!("target {name:?} has reached {has} (its reason: {reason:?})"));
    }
    (announced + failures_total != visible).then(|| {
        format!("target {name:?} has {announced} announced and {failures_total} failed, of {visible} that it was given")
    })
}

fn count(network: &Network) -> String {
    match network.values().filter(|draining| **draining).count() {
        0 => format!("{} prefixes", network.len()),
        draining => format!("{} prefixes, {draining} of them draining", network.len()),
    }
}

/// How what is there differs from what should be.
fn differs(expected: &Network, now: &Network) -> String {
    let absent: Vec<&IpNet> = expected.keys().filter(|prefix| !now.contains_key(*prefix)).collect();
    let extra: Vec<&IpNet> = now.keys().filter(|prefix| !expected.contains_key(*prefix)).collect();
    let other =
        |draining: bool| expected.iter().filter(move |(p, d)| **d == draining && now.get(*p) == Some(&!draining));
    let parts: BTreeMap<&str, Vec<&IpNet>> = [
        ("missing", absent),
        ("there though they should not be", extra),
        ("not draining", other(true).map(|(prefix, _)| prefix).collect()),
        ("draining", other(false).map(|(prefix, _)| prefix).collect()),
    ]
    .into();
    let words = parts.iter().filter(|(_, prefixes)| !prefixes.is_empty()).map(|(what, prefixes)| {
        let named: Vec<String> = prefixes.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = if prefixes.len() > NAMED_MAX { " …" } else { "" };
        format!("{} {what} ({}{more})", prefixes.len(), named.join(", "))
    });
    words.collect::<Vec<_>>().join("; ")
}
