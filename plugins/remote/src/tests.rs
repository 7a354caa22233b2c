//! Speaker and SDK over a real socket, in one runtime whose clock moves when both wait.
mod hostile;

use super::*;
use ferrocast_core::{
    actor::CancellationToken,
    announce::{Announcement, Configuration, Entry, TargetObserved, Terms},
};
use ferrocast_plugin_sdk::{Options, listen, serve};
use tempfile::TempDir;

/// Notes what it is given, and has reached it at once.
struct Recorder {
    capabilities: Capabilities,
    given: watch::Sender<Arc<Desired>>,
    observed: watch::Sender<Arc<Observed>>,
}

const ALL: Capabilities = Capabilities {
    ipv4: true,
    ipv6: true,
    aggregation: true,
    attributes: true,
    weights: true,
    drain: true,
    election: ferrocast_core::announce::Election::None,
};

impl Recorder {
    fn start(capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Self { capabilities, given: watch::Sender::default(), observed: watch::Sender::default() })
    }
}

#[async_trait]
impl Announcer for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }
    async fn apply(&self, desired: Arc<Desired>) -> Result<(), AnnounceError> {
        let (generation, announced) = (desired.generation, desired.announcements.len());
        self.given.send_replace(desired);
        let target = TargetObserved { up: true, generation, announced, ..TargetObserved::default() };
        let targets = [(Observed::NETWORK.into(), target)].into();
        self.observed.send_replace(Arc::new(Observed { accepted: generation, targets, ..Observed::default() }));
        Ok(())
    }
    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.observed.subscribe()
    }
    async fn shutdown(&self, _how: Shutdown, _deadline: Duration) {}
}

struct Bed {
    dir: TempDir,
    supervisor: Supervisor,
}

impl Bed {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), supervisor: Supervisor::default() }
    }

    fn settings(&self) -> RemoteSettings {
        RemoteSettings {
            dir: self.dir.path().to_owned(),
            uids: default_uids(),
            node: "n1".into(),
            epoch: NonZeroU64::new(7).unwrap(),
            orphan_hold_s: 300,
            host_version: "test",
            protocol: None,
        }
    }

    fn remote(&mut self, name: &str) -> Arc<RemoteAnnouncer> {
        let settings = self.settings();
        RemoteAnnouncer::start(&mut self.supervisor, name.into(), settings)
    }

    fn plugin(&mut self, name: &str, announcer: Arc<dyn Announcer>) -> ferrocast_core::actor::Child {
        let listener = listen(&self.dir.path().join(format!("{name}.sock")), 0o600).unwrap();
        let plugin = Plugin { listener: Some(listener), announcer, options: Options::new(name) };
        self.supervisor.spawn(plugin, RestartPolicy::EXPENDABLE)
    }
}

/// The SDK, as an actor.
struct Plugin {
    listener: Option<tokio::net::UnixListener>,
    announcer: Arc<dyn Announcer>,
    options: Options,
}

impl ferrocast_core::actor::Actor for Plugin {
    const NAME: &'static str = "sdk";
    async fn run(&mut self, stop: CancellationToken) -> Result<(), ferrocast_core::actor::ActorError> {
        let listener = self.listener.take().unwrap();
        serve(listener, self.announcer.clone(), self.options.clone(), stop).await.unwrap();
        Ok(())
    }
}

fn announcement() -> Arc<Announcement> {
    let terms: Arc<[Terms]> = [Terms { advertisement: "adv".into(), ..Terms::default() }].into();
    let services = Arc::new([ferrocast_core::model::ServiceKey::new("ns", "svc")].into());
    Arc::new(Announcement { state: Default::default(), terms, services, weight: None })
}

fn desired(generation: u64, prefixes: &[&str]) -> Arc<Desired> {
    let one = announcement();
    let announcements = prefixes.iter().map(|prefix| (prefix.parse::<ipnet::IpNet>().unwrap(), one.clone())).collect();
    Arc::new(Desired { generation, announcements, ..Desired::default() })
}

async fn reached(remote: &RemoteAnnouncer, generation: u64) -> Arc<PluginInfo> {
    remote.info().wait_for(|info| info.reached == generation && info.accepted == generation).await.unwrap().clone()
}

async fn in_state(remote: &RemoteAnnouncer, state: PluginState, words: &str) -> Arc<PluginInfo> {
    let found = |info: &Arc<PluginInfo>| info.state == state && info.problem.contains(words);
    let mut info = remote.info();
    match tokio::time::timeout(Duration::from_secs(120), info.wait_for(found)).await {
        Ok(found) => found.unwrap().clone(),
        Err(_) => panic!("{state:?} with {words:?} wanted, but it is {:?}", remote.info().borrow()),
    }
}

#[tokio::test(start_paused = true)]
async fn plugin_gets_a_snapshot_then_differences() {
    let mut bed = Bed::new();
    let recorder = Recorder::start(ALL);
    let remote = bed.remote("a");
    in_state(&remote, PluginState::Missing, "there is no").await;
    bed.plugin("a", recorder.clone());
    let first = desired(1, &["192.0.2.1/32", "2001:db8::/64"]);
    remote.apply(first.clone()).await.unwrap();
    reached(&remote, 1).await;
    assert_eq!(recorder.given.borrow().announcements, first.announcements);
    let second = desired(2, &["192.0.2.2/32"]);
    remote.apply(second.clone()).await.unwrap();
    let info = reached(&remote, 2).await;
    assert_eq!(recorder.given.borrow().announcements, second.announcements);
    assert_eq!((info.state, info.snapshots, info.differences, info.sessions), (PluginState::Connected, 1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn plugin_that_restarts_gets_a_snapshot_and_its_targets_are_down_meanwhile() {
    let mut bed = Bed::new();
    let remote = bed.remote("a");
    let child = bed.plugin("a", Recorder::start(ALL));
    remote.apply(desired(1, &["192.0.2.1/32"])).await.unwrap();
    reached(&remote, 1).await;
    child.stop();
    child.stopped().await;
    in_state(&remote, PluginState::Lost, "").await;
    assert!(remote.observe().borrow().targets.values().all(|target| !target.up && !target.reason.is_empty()));
    let second = Recorder::start(ALL);
    bed.plugin("a", second.clone());
    remote.apply(desired(2, &["192.0.2.1/32", "192.0.2.2/32"])).await.unwrap();
    let info = reached(&remote, 2).await;
    assert_eq!(second.given.borrow().announcements.len(), 2);
    assert_eq!((info.sessions, info.snapshots), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn speaker_that_restarts_within_the_hold_withdraws_nothing_and_one_that_is_lost_everything() {
    let mut bed = Bed::new();
    let recorder = Recorder::start(ALL);
    bed.plugin("a", recorder.clone());
    let mut speaker = Supervisor::default();
    let first = RemoteAnnouncer::start(&mut speaker, "a".into(), bed.settings());
    first.apply(desired(5, &["192.0.2.1/32"])).await.unwrap();
    reached(&first, 5).await;
    drop(speaker);
    let mut speaker = Supervisor::default();
    let epoch = NonZeroU64::new(8).unwrap();
    let second = RemoteAnnouncer::start(&mut speaker, "a".into(), RemoteSettings { epoch, ..bed.settings() });
    in_state(&second, PluginState::Connected, "").await;
    assert_eq!(recorder.given.borrow().announcements.len(), 1, "nothing is withdrawn before the first set");
    let provisional = Desired { provisional: true, ..(*desired(1, &["192.0.2.9/32"])).clone() };
    second.apply(Arc::new(provisional)).await.unwrap();
    reached(&second, 1).await;
    assert_eq!(recorder.given.borrow().announcements.len(), 2, "a provisional set takes nothing away");
    second.apply(desired(2, &["192.0.2.9/32"])).await.unwrap();
    reached(&second, 2).await;
    assert_eq!(recorder.given.borrow().announcements.len(), 1);
    let grown = recorder.given.borrow().generation;
    drop(speaker);
    let lost = tokio::time::Instant::now();
    let given = recorder.given.subscribe().wait_for(|given| given.announcements.is_empty()).await.unwrap().clone();
    assert!(given.generation > grown && !given.provisional);
    assert!(lost.elapsed() >= Duration::from_secs(299), "{:?}", lost.elapsed());
}

#[tokio::test(start_paused = true)]
async fn plugin_that_starts_and_finds_no_speaker_withdraws_what_its_network_has_from_before() {
    let mut bed = Bed::new();
    let recorder = Recorder::start(ALL);
    let began = tokio::time::Instant::now();
    bed.plugin("a", recorder.clone());
    let given = recorder.given.subscribe().wait_for(|given| given.generation > 0).await.unwrap().clone();
    assert!(given.announcements.is_empty() && !given.provisional);
    assert!(began.elapsed() >= Duration::from_secs(299), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_the_plugin_cannot_do_is_not_sent_and_told() {
    let mut bed = Bed::new();
    let recorder = Recorder::start(Capabilities { ipv6: false, aggregation: false, ..ALL });
    bed.plugin("a", recorder.clone());
    let remote = bed.remote("a");
    remote.apply(desired(1, &["192.0.2.1/32", "198.51.100.0/24", "2001:db8::1/128"])).await.unwrap();
    reached(&remote, 1).await;
    assert_eq!(recorder.given.borrow().announcements.len(), 1);
    let observed = remote.observe().borrow().clone();
    let refused = &observed.targets[Observed::NETWORK].refused;
    assert_eq!(refused.len(), 2);
    assert!(refused[&"2001:db8::1/128".parse().unwrap()].contains("IPv6"));
}

#[tokio::test(start_paused = true)]
async fn shutdown_keeps_or_withdraws_and_nothing_is_taken_after_it() {
    for (how, left) in [(Shutdown::Keep, 1), (Shutdown::Withdraw, 0)] {
        let mut bed = Bed::new();
        let recorder = Recorder::start(ALL);
        bed.plugin("a", recorder.clone());
        let remote = bed.remote("a");
        remote.apply(desired(1, &["192.0.2.1/32"])).await.unwrap();
        reached(&remote, 1).await;
        let began = tokio::time::Instant::now();
        remote.shutdown(how, Duration::from_secs(5)).await;
        assert!(began.elapsed() < Duration::from_secs(4), "{how:?}: {:?}", began.elapsed());
        assert_eq!(recorder.given.borrow().announcements.len(), left, "{how:?}");
        assert!(matches!(remote.apply(desired(2, &[])).await, Err(AnnounceError::Stopped)));
        assert_eq!(remote.info().borrow().state, PluginState::Stopped);
    }
}

#[tokio::test(start_paused = true)]
async fn plugin_that_comes_back_while_the_speaker_ends_for_good_is_told_to_withdraw() {
    let mut bed = Bed::new();
    let remote = bed.remote("a");
    remote.apply(desired(1, &["192.0.2.1/32"])).await.unwrap();
    in_state(&remote, PluginState::Missing, "").await;
    let recorder = Recorder::start(ALL);
    bed.plugin("a", recorder.clone());
    remote.shutdown(Shutdown::Withdraw, ferrocast_core::announce::SHUTDOWN_MAX).await;
    let given = recorder.given.borrow().clone();
    assert!(given.generation > 0 && given.announcements.is_empty(), "{given:?}");
}

#[tokio::test(start_paused = true)]
async fn configuration_travels_and_its_secrets_are_not_shown() {
    let mut bed = Bed::new();
    let recorder = Recorder::start(ALL);
    bed.plugin("a", recorder.clone());
    let remote = bed.remote("a");
    let entry = Entry { value: "\"hunter2\"".into(), secret: true };
    let configuration = Arc::new(Configuration { generation: 3, entries: [("key".into(), entry)].into() });
    let set = Desired { configuration: configuration.clone(), ..(*desired(1, &["192.0.2.1/32"])).clone() };
    remote.apply(Arc::new(set)).await.unwrap();
    reached(&remote, 1).await;
    assert_eq!(recorder.given.borrow().configuration.entries, configuration.entries);
    assert!(!format!("{:?}{:?}", recorder.given.borrow(), remote).contains("hunter2"));
}
