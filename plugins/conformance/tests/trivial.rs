//! A trivial announcer keeps the contract, in this process through the trait and behind a socket through the SDK.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests own their tasks; a test may fail where it stands"
)]
mod behind;

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use ferrocast_conformance::{InProcess, Network, Options, Probe, Subject, run};
use ferrocast_core::announce::{
    AnnounceError, AnnouncementState, Announcer, Capabilities, Desired, Observed, Shutdown, TargetObserved,
};
use tokio::sync::watch;

/// What outlives the announcer.
type Shared = Arc<Mutex<Network>>;

/// Announces to a map.
struct Trivial {
    network: Shared,
    observed: watch::Sender<Arc<Observed>>,
    stopped: Mutex<bool>,
}

impl Trivial {
    fn start(network: Shared) -> Arc<dyn Announcer> {
        Arc::new(Self { network, observed: watch::Sender::default(), stopped: Mutex::new(false) })
    }
}

#[async_trait]
impl Announcer for Trivial {
    fn name(&self) -> &str {
        "trivial"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { ipv4: true, ipv6: true, drain: true, ..Capabilities::default() }
    }

    async fn apply(&self, desired: Arc<Desired>) -> Result<(), AnnounceError> {
        if *self.stopped.lock().unwrap() {
            return Err(AnnounceError::Stopped);
        }
        let wanted: Network = desired
            .announcements
            .iter()
            .filter(|(_, announcement)| announcement.state != AnnouncementState::Withdrawn)
            .map(|(prefix, announcement)| (*prefix, announcement.state == AnnouncementState::Draining))
            .collect();
        let mut network = self.network.lock().unwrap();
        if !desired.provisional {
            network.clear();
        }
        let announced = wanted.len();
        network.extend(wanted);
        let target =
            TargetObserved { up: true, generation: desired.generation, announced, ..TargetObserved::default() };
        self.observed.send_replace(Arc::new(Observed {
            accepted: desired.generation,
            problem: String::new(),
            targets: BTreeMap::from([(Observed::NETWORK.into(), target)]),
        }));
        Ok(())
    }

    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.observed.subscribe()
    }

    async fn shutdown(&self, how: Shutdown, _: Duration) {
        *self.stopped.lock().unwrap() = true;
        if how == Shutdown::Withdraw {
            self.network.lock().unwrap().clear();
        }
    }
}

struct Starts(Shared);

#[async_trait]
impl InProcess for Starts {
    async fn start(&mut self) -> Result<Arc<dyn Announcer>, Box<dyn Error + Send + Sync>> {
        Ok(Trivial::start(self.0.clone()))
    }
}

fn options(network: &Shared) -> Options {
    let network = network.clone();
    let probe = Probe::Function(Arc::new(move || network.lock().unwrap().clone()));
    let settle = Duration::from_millis(200);
    Options { probe: Some(probe), settle, time_limit: Duration::from_secs(5), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn trivial_announcer_passes_through_the_trait() {
    let network = Shared::default();
    let report = run(Subject::InProcess(Box::new(Starts(network.clone()))), &options(&network)).await;
    assert!(report.is_good(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trivial_announcer_passes_behind_a_socket() {
    let network = Shared::default();
    let report = behind::a_socket(Trivial::start(network.clone()), &options(&network)).await;
    assert!(report.is_good(), "{report}");
}
