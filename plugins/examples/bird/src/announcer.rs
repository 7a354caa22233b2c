//! The announcer `bird`: keeps the include file and BIRD in agreement with the desired set.
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, RestartPolicy, Supervisor, chain, sleep_until},
    announce::{AnnounceError, Announcer, Capabilities, Desired, Observed, Shutdown, TargetObserved},
};
use tokio::{sync::watch, task::block_in_place, time::Instant};

use crate::{
    control::{BirdError, Control},
    include::{self, PROTOCOL_V4, PROTOCOL_V6, Plan, Routes},
};

/// Wait before BIRD is tried again; doubles from the one to the other. It is on this machine: trying costs nothing.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// A broken bird.conf is mended by hand: nobody is quicker than this.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Between two looks whether BIRD still has everything: somebody may have changed bird.conf or the file.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// What the SDK holds: it stores and reads, and never waits for BIRD.
struct BirdAnnouncer {
    desired: watch::Sender<Arc<Desired>>,
    observed: watch::Receiver<Arc<Observed>>,
    stopped: CancellationToken,
}

/// What writes the file and talks to BIRD.
struct Worker {
    include: PathBuf,
    control: PathBuf,
    desired: watch::Receiver<Arc<Desired>>,
    observed: watch::Sender<Arc<Observed>>,
    /// Kept open, to see BIRD end.
    bird: Option<Control>,
    /// The file's text that BIRD has read on this connection.
    in_force: Option<String>,
}

/// Starts the announcer: `include` is its file, `control` BIRD's socket.
pub(crate) fn start(supervisor: &mut Supervisor, include: PathBuf, control: PathBuf) -> Arc<dyn Announcer> {
    let desired = watch::Sender::new(Arc::<Desired>::default());
    let observed = watch::Sender::new(Arc::<Observed>::default());
    let (given, told) = (desired.subscribe(), observed.subscribe());
    let worker = Worker { include, control, desired: given, observed, bird: None, in_force: None };
    supervisor.spawn(worker, RestartPolicy::EXPENDABLE);
    Arc::new(BirdAnnouncer { desired, observed: told, stopped: CancellationToken::new() })
}

#[async_trait]
impl Announcer for BirdAnnouncer {
    fn name(&self) -> &str {
        "bird"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { ipv4: true, ipv6: true, aggregation: true, drain: true, ..Capabilities::default() }
    }

    async fn apply(&self, desired: Arc<Desired>) -> Result<(), AnnounceError> {
        if self.stopped.is_cancelled() {
            return Err(AnnounceError::Stopped);
        }
        self.desired.send_replace(desired);
        Ok(())
    }

    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.observed.clone()
    }

    async fn shutdown(&self, how: Shutdown, deadline: Duration) {
        if how == Shutdown::Withdraw {
            let generation = self.desired.borrow().generation + 1;
            self.desired.send_replace(Arc::new(Desired { generation, ..Desired::default() }));
            let mut observed = self.observed.clone();
            let withdrawn = observed.wait_for(|o| o.reached() == generation);
            if tokio::time::timeout(deadline, withdrawn).await.is_err() {
                tracing::warn!(?deadline, "BIRD has not withdrawn everything in time");
            }
        }
        self.stopped.cancel();
    }
}

/// Waits until BIRD closes the connection; for ever if there is none.
async fn closed(bird: &mut Option<Control>) {
    match bird {
        Some(bird) => bird.closed().await,
        None => std::future::pending().await,
    }
}

impl Actor for Worker {
    const NAME: &'static str = "bird";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        self.desired.mark_changed();
        let (mut retry, mut next) = (RETRY_MIN, None);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.desired.changed() => if changed.is_err() {
                    return Ok(()); // the plugin ends
                },
                () = closed(&mut self.bird) => self.bird = None,
                () = sleep_until(next) => {}
            }
            let desired = self.desired.borrow_and_update().clone();
            if desired.generation == 0 {
                self.begin();
                continue; // nothing decided yet: what the file has from before stays
            }
            self.observed.send_modify(|observed| Arc::make_mut(observed).accepted = desired.generation);
            let plan = include::plan(&desired);
            let outcome = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                outcome = self.converge(&desired, &plan) => outcome,
            };
            let wait = if outcome.is_ok() { CHECK_EVERY } else { retry };
            retry = if outcome.is_ok() { RETRY_MIN } else { RETRY_MAX.min(retry * 2) };
            next = Some(Instant::now() + wait);
            self.tell(desired.generation, plan, outcome);
        }
    }
}

impl Worker {
    /// BIRD does not start without the file that it shall include: there is one from the beginning.
    fn begin(&self) {
        let made = block_in_place(|| match fs::exists(&self.include)? {
            true => Ok(()),
            false => include::write(&self.include, &include::text(&Routes::new())),
        });
        if let Err(error) = made {
            tracing::warn!(path = %self.include.display(), error = %chain(&error), "there is no file to include yet");
        }
    }

    /// Makes file and BIRD agree with the plan: what BIRD calls itself.
    async fn converge(&mut self, desired: &Desired, plan: &Plan) -> Result<String, BirdError> {
        let before = match block_in_place(|| fs::read(&self.include)) {
            Ok(octets) => String::from_utf8_lossy(&octets).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(BirdError::File { path: self.include.clone(), source }),
        };
        let mut routes = plan.routes.clone();
        if desired.provisional {
            // Not the whole truth yet: what it does not speak of stays as it was before the restart.
            let old = include::routes(&before).into_iter();
            routes.extend(old.filter(|(prefix, _)| !desired.announcements.contains_key(prefix)));
        }
        let text = include::text(&routes);
        if text != before {
            // Before BIRD is asked: one that is not there reads it when it starts.
            self.in_force = None;
            self.write(&text)?;
        }
        let mut bird = match self.bird.take() {
            Some(bird) => bird,
            None => {
                self.in_force = None;
                Control::open(&self.control).await?
            }
        };
        let outcome = self.agree(&mut bird, &text, &routes).await;
        let greeting = bird.greeting.clone();
        if outcome.as_ref().err().is_none_or(BirdError::is_answer) {
            self.bird = Some(bird);
        }
        if let Err(BirdError::Refused(words)) = &outcome
            && blames(words, &self.include)
            && !before.is_empty()
        {
            // This BIRD does not understand the file: with the one before it can at least start again.
            self.write(&before)?;
        }
        outcome.map(|()| greeting)
    }

    fn write(&self, text: &str) -> Result<(), BirdError> {
        block_in_place(|| include::write(&self.include, text))
            .map_err(|source| BirdError::File { path: self.include.clone(), source })
    }

    /// Has BIRD read the file unless it has, and looks whether the routes are there.
    async fn agree(&mut self, bird: &mut Control, text: &str, routes: &Routes) -> Result<(), BirdError> {
        if self.in_force.as_deref() == Some(text) && has(bird, routes).await.is_ok() {
            return Ok(());
        }
        self.in_force = None;
        bird.configure().await?;
        has(bird, routes).await?;
        self.in_force = Some(text.to_owned());
        Ok(())
    }

    fn tell(&self, generation: u64, plan: Plan, outcome: Result<String, BirdError>) {
        let mut observed = (**self.observed.borrow()).clone();
        let last = observed.targets.remove(Observed::NETWORK).unwrap_or_default();
        let target = match outcome {
            Ok(reason) => {
                let (announced, refused) = (plan.routes.len(), plan.refused);
                TargetObserved { up: true, generation, announced, refused, reason }
            }
            Err(error) => {
                let reason = chain(&error);
                if last.reason != reason {
                    tracing::warn!(error = reason, "BIRD has not got the newest set");
                }
                match error {
                    // What was in force is so still.
                    BirdError::Refused(_) => TargetObserved { up: false, reason, ..last },
                    _ => TargetObserved { reason, ..TargetObserved::default() },
                }
            }
        };
        observed.targets.insert(Observed::NETWORK.into(), target);
        self.observed.send_replace(Arc::new(observed));
    }
}

async fn has(bird: &mut Control, routes: &Routes) -> Result<(), BirdError> {
    let v4 = routes.keys().filter(|prefix| prefix.addr().is_ipv4()).count();
    bird.has(PROTOCOL_V4, v4).await?;
    bird.has(PROTOCOL_V6, routes.len() - v4).await
}

/// Whether BIRD's complaint is about this file: it begins with `PATH:LINE:COLUMN`.
fn blames(words: &str, include: &Path) -> bool {
    let name = include.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    words.split(':').next().is_some_and(|path| Path::new(path).ends_with(&*name))
}
