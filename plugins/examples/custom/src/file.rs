//! The announcer `file`: keeps a file with one line per prefix, for whoever reads it.
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, RestartPolicy, Supervisor},
    announce::{
        AnnounceError, Announcement, AnnouncementState, Announcer, Capabilities, Configuration, Desired, Observed,
        Preview, PreviewRoute, Shutdown, TargetObserved,
    },
};
use ipnet::IpNet;
use tokio::sync::watch;

/// Wait before a file that cannot be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What the speaker holds: it stores and reads, and never waits for the disk.
struct FileAnnouncer {
    desired: watch::Sender<Arc<Desired>>,
    observed: watch::Receiver<Arc<Observed>>,
    stopped: CancellationToken,
}

/// What writes.
struct Writer {
    path: PathBuf,
    desired: watch::Receiver<Arc<Desired>>,
    observed: watch::Sender<Arc<Observed>>,
}

/// Starts the announcer; `path` is its file.
pub(crate) fn start(supervisor: &mut Supervisor, path: PathBuf) -> Arc<dyn Announcer> {
    let desired = watch::Sender::new(Arc::<Desired>::default());
    let observed = watch::Sender::new(Arc::<Observed>::default());
    let announcer =
        FileAnnouncer { desired: desired.clone(), observed: observed.subscribe(), stopped: CancellationToken::new() };
    supervisor.spawn(Writer { path, desired: desired.subscribe(), observed }, RestartPolicy::EXPENDABLE);
    Arc::new(announcer)
}

#[async_trait]
impl Announcer for FileAnnouncer {
    fn name(&self) -> &str {
        "file"
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

    fn preview(&self, desired: &Desired, _: &Configuration) -> Option<Preview> {
        let line = |prefix: &IpNet, announcement: &Announcement| {
            let attributes = [("line", format!("{prefix}{}", word(announcement)?))].into();
            Some((*prefix, PreviewRoute { next_hop: None, attributes }))
        };
        let lines = desired.announcements.iter().filter_map(|(prefix, announcement)| line(prefix, announcement));
        Some([(Observed::NETWORK.into(), lines.collect())].into())
    }

    async fn shutdown(&self, how: Shutdown, deadline: Duration) {
        if how == Shutdown::Withdraw {
            let generation = self.desired.borrow().generation + 1;
            self.desired.send_replace(Arc::new(Desired { generation, ..Desired::default() }));
            let mut observed = self.observed.clone();
            let withdrawn = observed.wait_for(|o| o.reached() == generation);
            if tokio::time::timeout(deadline, withdrawn).await.is_err() {
                tracing::warn!(?deadline, "the file was not emptied in time");
            }
        }
        self.stopped.cancel();
    }
}

/// What stands behind a prefix in the file; `None`: the prefix does not stand there.
fn word(announcement: &Announcement) -> Option<&'static str> {
    match announcement.state {
        AnnouncementState::Active => Some(""),
        AnnouncementState::Draining => Some(" draining"),
        AnnouncementState::Withdrawn => None,
    }
}

/// The file's new content, of which a reader never sees a half.
fn write(path: &Path, desired: &Desired) -> io::Result<usize> {
    let wanted = desired.announcements.iter().filter_map(|(prefix, a)| Some((prefix.to_string(), word(a)?)));
    let mut lines: BTreeMap<String, &str> = wanted.collect();
    let announced = lines.len();
    let before = if desired.provisional { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    for line in before.lines() {
        // Not the whole truth yet: what is there from before the restart stays.
        let prefix = line.split(' ').next().unwrap_or_default();
        if prefix.parse::<IpNet>().is_ok_and(|prefix| !desired.announcements.contains_key(&prefix)) {
            lines.insert(prefix.to_owned(), &line[prefix.len()..]);
        }
    }
    let new = path.with_extension("new");
    std::fs::write(&new, lines.iter().map(|(prefix, state)| format!("{prefix}{state}\n")).collect::<String>())?;
    std::fs::rename(new, path)?;
    Ok(announced)
}

impl Actor for Writer {
    const NAME: &'static str = "file-writer";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        self.desired.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.desired.changed() => if changed.is_err() {
                    return Ok(()); // whoever had the announcer is gone
                },
            }
            let desired = self.desired.borrow_and_update().clone();
            if desired.generation == 0 {
                continue; // nothing decided yet: what the file has from before stays
            }
            let written = tokio::task::block_in_place(|| write(&self.path, &desired));
            let target = match &written {
                Ok(announced) => TargetObserved {
                    up: true,
                    generation: desired.generation,
                    announced: *announced,
                    reason: self.path.display().to_string(),
                    ..TargetObserved::default()
                },
                Err(error) => TargetObserved { reason: error.to_string(), ..TargetObserved::default() },
            };
            let targets = [(Observed::NETWORK.into(), target)].into();
            self.observed.send_replace(Arc::new(Observed {
                accepted: desired.generation,
                targets,
                ..Observed::default()
            }));
            if written.is_err() {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(RETRY) => self.desired.mark_changed(),
                }
            }
        }
    }
}
