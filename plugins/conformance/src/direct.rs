//! An announcer of this process, driven through the trait; what it says is turned into the protocol's words.
use std::{sync::Arc, time::Duration};

use ferrocast_core::announce::{
    APPLY_MAX, AnnounceError, Announcer, Configuration, Entry, Observed, Preview, Shutdown,
};
use ferrocast_plugin_proto::v1alpha1::{Failure, Status, TargetStatus, Version};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{Entries, set::Set};

/// How many times longer than the contract says a call may take before it is held against the announcer: the machine may be busy.
const APPLY_SLACK: u32 = 5;

/// One life of an announcer.
pub(crate) struct Life {
    pub(crate) announcer: Arc<dyn Announcer>,
    observed: watch::Receiver<Arc<Observed>>,
    configuration: Arc<Configuration>,
}

/// What came of a call of `apply`.
pub(crate) enum Applied {
    Accepted,
    Rejected(String),
    Slow(Duration),
}

impl Life {
    pub(crate) fn new(announcer: Arc<dyn Announcer>) -> Self {
        let mut observed = announcer.observe();
        observed.mark_changed();
        Self { announcer, observed, configuration: Arc::default() }
    }

    /// The entries that are in force from the next [`Life::apply`] on.
    pub(crate) fn configure(&mut self, generation: u64, entries: &Entries) {
        let entry = |(name, (json, secret)): (&String, &(String, bool))| {
            (name.as_str().into(), Entry { value: json.as_str().into(), secret: *secret })
        };
        self.configuration = Arc::new(Configuration { generation, entries: entries.iter().map(entry).collect() });
    }

    /// What the announcer foretells of the set, with the configuration that is in force.
    pub(crate) fn preview(&self, set: &Set) -> Option<Preview> {
        let desired = set.desired(1, false, self.configuration.clone());
        self.announcer.preview(&desired, &self.configuration)
    }

    /// Hands the set over.
    pub(crate) async fn apply(&self, set: &Set, generation: u64, provisional: bool) -> Applied {
        let desired = Arc::new(set.desired(generation, provisional, self.configuration.clone()));
        let began = Instant::now();
        let answer = self.announcer.apply(desired).await;
        let took = began.elapsed();
        match answer {
            Ok(()) if took > APPLY_MAX * APPLY_SLACK => Applied::Slow(took),
            Ok(()) => Applied::Accepted,
            Err(error @ AnnounceError::NotReady { .. }) => Applied::Rejected(error.to_string()),
            Err(error) => Applied::Rejected(error.to_string()),
        }
    }

    /// The next status, as a plugin would send it. `None`: nothing changed for so long.
    pub(crate) async fn status(&mut self, epoch: u64, time_max: Duration) -> Option<Status> {
        let changed = timeout(time_max, self.observed.changed()).await;
        let Ok(Ok(())) = changed else {
            // A closed channel is the end of news, not of waiting.
            if changed.is_ok() {
                tokio::time::sleep(time_max).await;
            }
            return None;
        };
        Some(status(&self.observed.borrow_and_update(), epoch))
    }

    /// Ends it. Whether it was in time.
    pub(crate) async fn shut_down(&self, how: Shutdown, deadline: Duration) -> bool {
        timeout(deadline * 2, self.announcer.shutdown(how, deadline)).await.is_ok()
    }
}

fn status(observed: &Observed, epoch: u64) -> Status {
    let targets = observed.targets.iter().map(|(name, target)| TargetStatus {
        name: name.to_string(),
        up: target.up,
        reached: (target.generation > 0).then_some(Version { epoch, generation: target.generation }),
        announced: target.announced as u64,
        failures: target
            .refused
            .iter()
            .map(|(prefix, reason)| Failure { prefix: prefix.to_string(), reason: reason.to_string() })
            .collect(),
        failures_total: target.refused.len() as u64,
        reason: target.reason.clone(),
    });
    Status { targets: targets.collect(), problem: observed.problem.clone() }
}
