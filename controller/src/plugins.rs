//! Keeps an announcer per AnnouncerClass: one that this binary brings itself, or a plugin outside of the process.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, Supervisor, sleep_until},
    alloc::NoteType,
    announce::{Announcer, Observed, SHUTDOWN_MAX, Shutdown},
    config::{AnnouncerClass, BGP},
    view::ClusterView,
};
use ferrocast_plugin_remote::{PluginInfo, PluginState, RemoteAnnouncer, RemoteSettings, default_uids};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::watch, time::Instant};

use crate::{
    announcers::{Standing, Standings},
    cluster::events::{EventQueue, Record, Regarding, Repeat},
    decider::{Announcers, SPEAKER_SOURCES},
};

/// A plugin may be away so long, for instance for its own upgrade, before an Event tells of it.
const EVENT_AFTER: Duration = Duration::from_secs(10);
/// Shortest time between two looks at all announcers: what they say may change often, and status and explanations can wait.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// What the host needs.
pub struct HostInputs {
    /// For the AnnouncerClasses in force.
    pub view: watch::Receiver<ClusterView>,
    /// The announcers that are part of this process, by name; BGP is one of them.
    pub own: Announcers,
    /// How plugins are reached; `None`: they are not.
    pub remote: Option<RemoteSettings>,
    /// Where Events go, with the namespace of the AnnouncerClasses.
    pub events: Option<(EventQueue, Arc<str>)>,
}

/// Starts and ends the announcers as AnnouncerClasses come and go, and tells how they are.
pub struct PluginHost {
    inputs: HostInputs,
    announcers: watch::Sender<Arc<Announcers>>,
    standings: watch::Sender<Arc<Standings>>,
    supervisor: Option<Supervisor>,
    plugins: BTreeMap<Arc<str>, Plugin>,
    /// What every announcer besides BGP says.
    words: BTreeMap<Arc<str>, Words>,
    /// Since when an announcer does not work, and whether an Event has told of it.
    trouble: BTreeMap<Arc<str>, (Instant, bool)>,
}

struct Plugin {
    announcer: Arc<RemoteAnnouncer>,
    /// What of its class it was started with.
    protocol: Option<(u32, u32)>,
}

struct Words {
    /// Of a plugin.
    info: Option<watch::Receiver<Arc<PluginInfo>>>,
    observed: watch::Receiver<Arc<Observed>>,
}

impl Words {
    /// Waits until there is something new; for ever if there never will be.
    async fn changed(&mut self) {
        let info = async {
            match &mut self.info {
                Some(info) => info.changed().await.is_ok(),
                None => false,
            }
        };
        tokio::select! {
            true = info => {}
            Ok(()) = self.observed.changed() => {}
            else => std::future::pending().await,
        }
    }

    fn standing(&mut self) -> Standing {
        let observed = self.observed.borrow_and_update().clone();
        let Some(info) = &mut self.info else { return in_process(observed) };
        let info = info.borrow_and_update();
        let problem = match info.state {
            PluginState::Connected => observed.problem.clone(),
            other if info.problem.is_empty() => format!("its plugin {}", other.words()),
            _ => info.problem.clone(),
        };
        Standing {
            state: info.state.code(),
            since: info.since,
            problem,
            version: info.plugin_version.clone(),
            protocol: info.protocol,
            excess: info.excess.iter().copied().collect::<Vec<_>>().join(", "),
            observed,
        }
    }
}

impl PluginHost {
    /// A host, with the announcers that there are and how those besides BGP are.
    #[must_use]
    pub fn new(inputs: HostInputs) -> (Self, watch::Receiver<Arc<Announcers>>, watch::Receiver<Arc<Standings>>) {
        let announcers = watch::Sender::new(Arc::new(inputs.own.clone()));
        let standings = watch::Sender::new(Arc::<Standings>::default());
        let (reader, how) = (announcers.subscribe(), standings.subscribe());
        let others = inputs.own.iter().filter(|(name, _)| ***name != *BGP);
        let words = others.map(|(name, own)| (name.clone(), Words { info: None, observed: own.observe() })).collect();
        let host = Self {
            words,
            inputs,
            announcers,
            standings,
            supervisor: None,
            plugins: BTreeMap::new(),
            trouble: BTreeMap::new(),
        };
        (host, reader, how)
    }

    /// The AnnouncerClasses in force; `None`: not known yet.
    fn classes(&mut self) -> Option<BTreeMap<Arc<str>, Arc<AnnouncerClass>>> {
        let view = self.inputs.view.borrow_and_update();
        (view.epoch_of(SPEAKER_SOURCES) > 0).then(|| view.config.announcers.clone())
    }

    /// Makes the plugins agree with the classes. Returns those that are to end, for good.
    fn reconcile(&mut self, classes: &BTreeMap<Arc<str>, Arc<AnnouncerClass>>) -> Vec<Arc<RemoteAnnouncer>> {
        let kept =
            |name: &Arc<str>, plugin: &Plugin| classes.get(name).is_some_and(|class| class.protocol == plugin.protocol);
        let gone: Vec<Arc<str>> =
            self.plugins.iter().filter(|(name, plugin)| !kept(name, plugin)).map(|(name, _)| name.clone()).collect();
        let ended: Vec<_> = gone.iter().filter_map(|name| self.plugins.remove(name)).map(|p| p.announcer).collect();
        gone.iter().for_each(|name| drop(self.words.remove(name)));
        let mut new = !ended.is_empty();
        if let Some(settings) = &self.inputs.remote {
            let supervisor = self.supervisor.get_or_insert_default();
            let missing = classes.iter().filter(|(name, _)| !self.inputs.own.contains_key(*name));
            for (name, class) in missing {
                if self.plugins.contains_key(name) {
                    continue;
                }
                let settings = RemoteSettings { protocol: class.protocol, ..settings.clone() };
                let announcer = RemoteAnnouncer::start(supervisor, name.clone(), settings);
                let words = Words { info: Some(announcer.info()), observed: announcer.observe() };
                self.words.insert(name.clone(), words);
                self.plugins.insert(name.clone(), Plugin { announcer, protocol: class.protocol });
                new = true;
            }
        }
        if new {
            let mut all = self.inputs.own.clone();
            all.extend(self.plugins.iter().map(|(name, p)| (name.clone(), p.announcer.clone() as Arc<dyn Announcer>)));
            self.announcers.send_replace(Arc::new(all));
        }
        ended
    }

    /// How every announcer besides BGP is.
    fn look(&mut self, classes: &BTreeMap<Arc<str>, Arc<AnnouncerClass>>) -> Standings {
        let mut of = |name: &Arc<str>| match self.words.get_mut(name) {
            Some(words) => words.standing(),
            None => Standing {
                state: "disabled",
                problem: "the speaker has no --plugin-dir: no plugin is dialled".to_owned(),
                ..Standing::unknown()
            },
        };
        classes.keys().map(|name| (name.clone(), of(name))).collect()
    }

    fn publish(&self, now: Standings) {
        self.standings.send_if_modified(|last| {
            let new = **last != now;
            if new {
                *last = Arc::new(now);
            }
            new
        });
    }

    /// Writes Events about announcers that have not worked for a while, and about those that do again. Returns when to look next.
    fn tell(&mut self, now: Instant) -> Option<Instant> {
        let standings = self.standings.borrow().clone();
        let works = |name: &Arc<str>| standings.get(name).is_none_or(Standing::works);
        let mended: Vec<Arc<str>> = self.trouble.keys().filter(|name| works(name)).cloned().collect();
        for name in mended {
            if self.trouble.remove(&name).is_some_and(|(_, told)| told) && standings.contains_key(&name) {
                self.event(&name, NoteType::Normal, "AnnouncerConnected", "the announcer works again".to_owned());
            }
        }
        let mut again_at = None;
        for (name, standing) in standings.iter().filter(|(_, standing)| !standing.works()) {
            let (since, told) = *self.trouble.entry(name.clone()).or_insert((now, false));
            let due = since + EVENT_AFTER;
            if !told && due <= now {
                self.trouble.insert(name.clone(), (since, true));
                let words = format!("{}: {}", standing.state, standing.problem);
                self.event(name, NoteType::Warning, "AnnouncerDown", words);
            } else if !told {
                again_at = [again_at, Some(due)].into_iter().flatten().min();
            }
        }
        again_at
    }

    fn event(&self, name: &Arc<str>, kind: NoteType, reason: &'static str, message: String) {
        let Some((queue, namespace)) = &self.inputs.events else { return };
        let regarding = Regarding::announcer_class(namespace, name);
        queue.publish(Record { regarding, kind, reason, action: "Announce", message, repeat: Repeat::Changed });
    }

    /// Waits until any announcer says something new.
    async fn news(&mut self) {
        let mut all: FuturesUnordered<_> = self.words.values_mut().map(Words::changed).collect();
        if all.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

fn in_process(observed: Arc<Observed>) -> Standing {
    Standing {
        state: "inProcess",
        since: SystemTime::UNIX_EPOCH,
        problem: observed.problem.clone(),
        version: String::new(),
        protocol: None,
        excess: String::new(),
        observed,
    }
}

impl Actor for PluginHost {
    const NAME: &'static str = "plugin-host";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut classes = None;
        let mut ending: FuturesUnordered<_> = FuturesUnordered::new();
        loop {
            if let Some(now) = self.classes() {
                for announcer in self.reconcile(&now) {
                    ending.push(async move { announcer.shutdown(Shutdown::Withdraw, SHUTDOWN_MAX).await });
                }
                classes = Some(now);
            }
            if let Some(classes) = &classes {
                let now = self.look(classes);
                self.publish(now);
            }
            let again_at = self.tell(Instant::now());
            let soonest = Instant::now() + LOOK_PERIOD;
            let mut view = self.inputs.view.clone();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = view.changed() => changed.map_err(|_| ActorError::Upstream("cluster view"))?,
                () = self.news() => {}
                Some(()) = ending.next() => {}
                () = sleep_until(again_at) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(Some(soonest)) => {}
            }
        }
    }
}

/// The users whom a plugin may run as: those asked for, else root and this process's own.
#[must_use]
pub fn plugin_uids(asked: &[u32]) -> BTreeSet<u32> {
    if !asked.is_empty() {
        return asked.iter().copied().collect();
    }
    default_uids()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_who_may_run_plugins_are_those_asked_for() {
        assert_eq!(plugin_uids(&[7, 9, 7]), BTreeSet::from([7, 9]));
        assert!(plugin_uids(&[]).contains(&0), "root");
    }

    #[tokio::test(start_paused = true)]
    async fn classes_without_a_plugin_dir_are_told_to_be_disabled() {
        let (writer, view) = ferrocast_core::view::ViewWriter::new(&[]);
        drop(writer);
        let inputs = HostInputs { view, own: Announcers::new(), remote: None, events: None };
        let (mut host, ..) = PluginHost::new(inputs);
        let classes = [("ospf".into(), Arc::new(AnnouncerClass::default()))].into();
        assert!(host.reconcile(&classes).is_empty());
        let standings = host.look(&classes);
        assert_eq!(standings["ospf"].state, "disabled");
        assert!(!standings["ospf"].works());
        host.publish(standings);
        let now = Instant::now();
        assert_eq!(host.tell(now), Some(now + EVENT_AFTER), "a plugin may be away for its own upgrade");
        assert_eq!(host.tell(now + EVENT_AFTER), None, "told once");
    }
}
