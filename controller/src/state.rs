//! What a speaker announces, saved on disk: a speaker that restarts while the API server is away announces it again.
//!
//! One JSON file per node, replaced as a whole. It holds the TCP passwords of the node's peers: readable by its owner only.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, BufWriter, Write as _},
    net::IpAddr,
    num::NonZeroU32,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferrocast_bgp::{PeerSet, RESTART_TIME_S};
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, chain, sleep_until},
    announce::{Announcement, AnnouncementState, Desired, Terms},
    config::Peer,
    model::ServiceKey,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::decider::Decisions;

/// Changes with every change of the file's meaning; another version is ignored.
const VERSION: u32 = 1;
/// The file in the directory.
const FILE: &str = "announced.json";
/// How long after its death a speaker's routes may be announced again unseen: what the peers are told as restart time.
pub const RESTART_TIME: Duration = Duration::from_secs(RESTART_TIME_S as u64);
/// How often the file is touched while the speaker lives, so that its age says when it last did.
const TOUCH_PERIOD: Duration = Duration::from_secs(RESTART_TIME.as_secs() / 4);
/// Changes within this time are written together.
const SAVE_PERIOD: Duration = Duration::from_secs(1);

/// What was announced, and to whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// The node's peers.
    pub peers: PeerSet,
    /// The set.
    pub desired: Desired,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    node: Arc<str>,
    /// For people; what counts is the file's time of modification.
    saved_at: String,
    internal_ips: Vec<IpAddr>,
    peers: Vec<Peer>,
    /// Each list of terms once.
    terms: Vec<Arc<[Terms]>>,
    announcements: Vec<Row>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Row {
    prefix: IpNet,
    state: AnnouncementState,
    /// Index into `terms`.
    terms: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<NonZeroU32>,
    services: Vec<String>,
}

impl Document {
    fn new(saved: &Saved, now: SystemTime) -> Self {
        let mut terms: Vec<Arc<[Terms]>> = Vec::new();
        let mut numbers: BTreeMap<*const Terms, usize> = BTreeMap::new();
        let mut announcements = Vec::with_capacity(saved.desired.announcements.len());
        for (prefix, announcement) in &saved.desired.announcements {
            let number = *numbers.entry(announcement.terms.as_ptr()).or_insert_with(|| {
                terms.push(announcement.terms.clone());
                terms.len() - 1
            });
            let services = announcement.services.iter().map(ToString::to_string).collect();
            let (prefix, state, weight) = (*prefix, announcement.state, announcement.weight);
            announcements.push(Row { prefix, state, terms: number, weight, services });
        }
        Self {
            version: VERSION,
            node: saved.peers.node_name.clone(),
            saved_at: jiff::Timestamp::try_from(now).map(|t| t.to_string()).unwrap_or_default(),
            internal_ips: saved.peers.internal_ips.clone(),
            peers: saved.peers.peers.values().map(|peer| (**peer).clone()).collect(),
            terms,
            announcements,
        }
    }

    fn into_saved(self) -> Result<Saved, String> {
        let mut desired = Desired { generation: 1, provisional: true, ..Desired::default() };
        for row in self.announcements {
            let terms = self.terms.get(row.terms).ok_or_else(|| format!("{}: no terms {}", row.prefix, row.terms))?;
            let services: BTreeSet<ServiceKey> =
                row.services.iter().map(|s| s.parse()).collect::<Result<_, String>>()?;
            let (state, weight) = (row.state, row.weight);
            let announcement = Announcement { state, terms: terms.clone(), services: Arc::new(services), weight };
            desired.announcements.insert(row.prefix, Arc::new(announcement));
        }
        let peers = self.peers.into_iter().map(|peer| (peer.name.clone(), Arc::new(peer))).collect();
        Ok(Saved { peers: PeerSet { node_name: self.node, internal_ips: self.internal_ips, peers }, desired })
    }
}

/// Why what is on disk is not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is nothing.
    #[error("there is no file")]
    Absent,
    /// The disk says no.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// It is not what this version writes.
    #[error("it cannot be understood: {0}")]
    Format(String),
    /// The disk was moved, or the node renamed.
    #[error("it is of the node {0:?}")]
    Node(Arc<str>),
    /// What was announced then may be long gone.
    #[error("it was last touched {age_s} s ago, more than the restart time of {} s", RESTART_TIME.as_secs())]
    Old {
        /// Age, whole seconds.
        age_s: u64,
    },
}

/// What was announced before a restart of the speaker of `node`, as a provisional set.
///
/// # Errors
/// [`LoadError`] says why it is not to be used.
pub fn load(dir: &Path, node: &str, now: SystemTime) -> Result<Saved, LoadError> {
    let path = dir.join(FILE);
    let file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LoadError::Absent,
        _ => LoadError::Io(error),
    })?;
    let touched = file.metadata().and_then(|m| m.modified()).map_err(LoadError::Io)?;
    // A clock that was set makes the age meaningless in either direction.
    let age = now.duration_since(touched).unwrap_or_else(|ahead| ahead.duration());
    if age > RESTART_TIME {
        return Err(LoadError::Old { age_s: age.as_secs() });
    }
    let text = io::read_to_string(file).map_err(LoadError::Io)?;
    let format = |error: serde_json::Error| LoadError::Format(error.to_string());
    let document: serde_json::Value = serde_json::from_str(&text).map_err(format)?;
    if document["version"] != VERSION {
        return Err(LoadError::Format(format!("version {}, not {VERSION}", document["version"])));
    }
    let document: Document = serde_json::from_value(document).map_err(format)?;
    if *document.node != *node {
        return Err(LoadError::Node(document.node));
    }
    document.into_saved().map_err(LoadError::Format)
}

/// Replaces what is on disk, so that a reader finds the old or the new, whole.
///
/// # Errors
/// What the disk says.
pub fn save(dir: &Path, saved: &Saved, now: SystemTime) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let mut writer = BufWriter::new(file);
    serde_json::to_writer(&mut writer, &Document::new(saved, now))?;
    writer.flush()?;
    writer.get_ref().sync_all()?;
    fs::rename(&new, &path)?;
    File::open(dir)?.sync_all()
}

/// Makes the directory usable for a speaker that runs as this user: a `hostPath` volume is made by and for root.
///
/// # Errors
/// What the disk says.
pub fn prepare(dir: &Path, uid: u32, gid: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let owner = fs::metadata(dir)?;
    // Only an owner may change the mode, and this may run with the one capability CHOWN.
    if owner.mode() & 0o777 != 0o700 {
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    }
    if (owner.uid(), owner.gid()) == (uid, gid) {
        return Ok(());
    }
    // Its files first need a directory that we may enter: one of another user without CAP_DAC_OVERRIDE is not.
    let (own_uid, own_gid) = (fs::metadata("/proc/self")?.uid(), fs::metadata("/proc/self")?.gid());
    lchown(dir, Some(own_uid), Some(own_gid))?;
    for entry in fs::read_dir(dir)? {
        lchown(entry?.path(), Some(uid), Some(gid))?;
    }
    lchown(dir, Some(uid), Some(gid))
}

/// Forgets what is on disk: it has been withdrawn.
pub fn forget(dir: &Path) {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove the saved routes: a restart may announce them again");
        }
        _ => {}
    }
}

/// Keeps what is on disk in step with what is announced.
pub struct StateKeeper {
    dir: PathBuf,
    decisions: watch::Receiver<Decisions>,
    peers: watch::Receiver<Arc<PeerSet>>,
    /// The disk refuses; said once.
    failing: bool,
}

impl StateKeeper {
    /// A keeper of the state in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf, decisions: watch::Receiver<Decisions>, peers: watch::Receiver<Arc<PeerSet>>) -> Self {
        Self { dir, decisions, peers, failing: false }
    }

    /// What is announced now; `None`: nothing has been decided.
    fn current(&mut self) -> Option<Saved> {
        let desired = self.decisions.borrow_and_update().bgp.desired.clone();
        let peers = PeerSet::clone(&self.peers.borrow_and_update());
        (desired.generation > 0).then_some(Saved { peers, desired })
    }

    fn note(&mut self, done: io::Result<()>) {
        match done {
            Ok(()) if std::mem::take(&mut self.failing) => tracing::info!("what is announced is saved again"),
            Ok(()) => {}
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                let dir = self.dir.display();
                tracing::warn!(%dir, error = %chain(&error), "what is announced cannot be saved: going on without");
            }
            Err(_) => {}
        }
    }

    /// Writes `saved` where that differs from `last`, else touches the file.
    fn keep(&mut self, saved: &Saved, last: Option<&Saved>) {
        let same = last.is_some_and(|last| {
            last.peers == saved.peers && last.desired.announcements.ptr_eq(&saved.desired.announcements)
        });
        let now = SystemTime::now();
        let touch = || File::options().write(true).open(self.dir.join(FILE))?.set_modified(now);
        let done = if same && !self.failing {
            touch().or_else(|_| save(&self.dir, saved, now))
        } else {
            save(&self.dir, saved, now)
        };
        self.note(done);
    }
}

impl Actor for StateKeeper {
    const NAME: &'static str = "state-keeper";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut last: Option<Saved> = None;
        loop {
            if let Some(saved) = self.current() {
                // Encoding and fsync take their time; other actors go on meanwhile.
                tokio::task::block_in_place(|| self.keep(&saved, last.as_ref()));
                last = Some(saved);
            }
            let (soonest, touch_at) = (Instant::now() + SAVE_PERIOD, Instant::now() + TOUCH_PERIOD);
            let changed = tokio::select! {
                () = stop.cancelled() => true,
                changed = self.decisions.changed() => changed.is_ok(),
                changed = self.peers.changed() => changed.is_ok(),
                () = sleep_until(Some(touch_at)) => true,
            };
            if changed {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep_until(Some(soonest)) => continue,
                }
            }
            // The last word of what was announced, and of when.
            if let Some(saved) = self.current() {
                tokio::task::block_in_place(|| self.keep(&saved, last.as_ref()));
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        let mut peer = Peer::new("r", 64_512, 64_513, ([192, 0, 2, 1], 179).into());
        peer.password = Some(ferrocast_core::config::Password("hunter2".into()));
        peer.session.families = Some([ferrocast_core::model::IpFamily::V6].into());
        let terms: Arc<[Terms]> =
            vec![Terms { advertisement: "a".into(), local_pref: Some(7), ..Terms::default() }].into();
        let announcement = |weight: u32| {
            let services = Arc::new([ServiceKey::new("d", "web")].into());
            let (state, terms) = (AnnouncementState::Active, terms.clone());
            Arc::new(Announcement { state, terms, services, weight: NonZeroU32::new(weight) })
        };
        let announcements = [("10.0.0.1/32", 0), ("fd00::1/128", 3)];
        let announcements = announcements
            .iter()
            .map(|(prefix, weight)| (prefix.parse::<IpNet>().unwrap(), announcement(*weight)))
            .collect();
        let peers = PeerSet {
            node_name: "n1".into(),
            internal_ips: vec!["10.0.0.9".parse().unwrap()],
            peers: [("r".into(), Arc::new(peer))].into(),
        };
        Saved { peers, desired: Desired { generation: 1, provisional: true, announcements, ..Desired::default() } }
    }

    #[test]
    fn what_is_saved_is_loaded_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        let now = SystemTime::now();
        save(&dir, &saved(), now).unwrap();
        save(&dir, &saved(), now).unwrap();
        assert_eq!(load(&dir, "n1", now).unwrap(), saved());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
        forget(&dir);
        assert!(matches!(load(&dir, "n1", now), Err(LoadError::Absent)));
        forget(&dir);
    }

    #[test]
    fn what_is_saved_is_ignored_when_it_is_not_of_here_and_now() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, now) = (dir.path(), SystemTime::now());
        save(dir, &saved(), now).unwrap();
        assert!(matches!(load(dir, "n2", now), Err(LoadError::Node(node)) if &*node == "n1"));
        let later = now + RESTART_TIME + Duration::from_secs(5);
        let why = load(dir, "n1", later).unwrap_err().to_string();
        assert!(why.contains("more than the restart time of 120 s"), "{why}");
        assert!(load(dir, "n1", now - RESTART_TIME * 2).is_err(), "the clock was set back");
        let text = fs::read_to_string(dir.join(FILE)).unwrap();
        for (broken, part) in [
            (text.replace("\"version\":1", "\"version\":2"), "version 2, not 1"),
            (text[..text.len() / 2].to_owned(), "EOF"),
            (text.replace("\"terms\":0", "\"terms\":9"), "no terms 9"),
            (text.replace("d/web", "web"), "namespace/name"),
            (String::new(), "EOF"),
        ] {
            fs::write(dir.join(FILE), broken).unwrap();
            let why = load(dir, "n1", now).unwrap_err().to_string();
            assert!(why.contains(part), "{part}: {why}");
        }
    }

    #[test]
    fn peers_are_told_the_same_restart_time() {
        assert_eq!(RESTART_TIME.as_secs(), u64::from(ferrocast_bgp::Tuning::default().restart_time_s));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keeper_writes_what_is_announced_and_survives_a_disk_that_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("not-a-directory");
        fs::write(&file, "").unwrap();
        let wanted = saved();
        let decisions = watch::Sender::new(Decisions::default());
        let peers = watch::Sender::new(Arc::new(wanted.peers.clone()));
        let mut supervisor = ferrocast_core::actor::Supervisor::default();
        for dir in [dir.path().join("state"), file] {
            let keeper = StateKeeper::new(dir, decisions.subscribe(), peers.subscribe());
            supervisor.spawn(keeper, ferrocast_core::actor::RestartPolicy::VITAL);
        }
        decisions.send_modify(|d| d.bgp.desired = wanted.desired.clone());
        supervisor.stop_token().cancel();
        supervisor.join().await.unwrap();
        assert_eq!(load(&dir.path().join("state"), "n1", SystemTime::now()).unwrap(), wanted);
    }
}
