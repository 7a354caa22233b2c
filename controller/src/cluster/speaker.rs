//! Writes this speaker's `SpeakerStatus`: on change, at most every few seconds, and nothing at rest.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferrocast_api::{
    AnnouncedPrefixes, OWN_GROUP, SpeakerAnnouncer, SpeakerBfd, SpeakerPeer, SpeakerStatus, SpeakerStatusStatus,
};
use ferrocast_bgp::{BgpAnnouncer, PeerSet, SessionInfo};
use ferrocast_bgp_proto::{
    Family,
    fsm::{Negotiated, State},
};
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, chain, sleep_until},
    announce::Announcer as _,
    config::{Config, Severity},
    view::ClusterView,
};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use crate::{
    announcers::{Standing, Standings},
    cluster::metallb::{Living, WAITS_FOR_SPEAKER},
    decider::{Decided, Decisions, SPEAKER_SOURCES},
};

/// Shortest time between two writes: a hundred nodes are twenty writes a second at the worst.
const WRITE_PERIOD: Duration = Duration::from_secs(5);
/// A change is written so long after it was seen, with what follows from it: sessions that come up, routes that are sent.
const SETTLE: Duration = Duration::from_secs(1);
/// First wait after a write that failed; doubles up to [`RETRY_MAX`]. Always the newest status is tried, so nothing queues.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// Longest wait after a write that failed, for instance because the cluster lacks the resource type.
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Problems told; the log has all.
const PROBLEMS_MAX: usize = 20;
/// Longest text of a problem or an error, octets: the object stays far below what the API server takes.
const TEXT_LEN_MAX: usize = 512;
/// Who writes, as the API server keeps it.
const FIELD_MANAGER: &str = "ferrocast-speaker";

/// What is reported on.
pub struct ReporterInputs {
    /// The API server.
    pub client: Client,
    /// Namespace of the configuration objects, and of the status.
    pub namespace: String,
    /// Name of the Node, and of the status.
    pub node: Arc<str>,
    /// The sessions.
    pub bgp: Arc<BgpAnnouncer>,
    /// For the configuration's problems.
    pub view: watch::Receiver<ClusterView>,
    /// The peers of this node.
    pub peers: watch::Receiver<Arc<PeerSet>>,
    /// What is announced.
    pub decisions: watch::Receiver<Decisions>,
    /// Drained by command.
    pub drained: watch::Receiver<bool>,
    /// The announcers besides BGP.
    pub standings: watch::Receiver<Arc<Standings>>,
    /// Where explanations are served; without an address of its own, at the Node's first.
    pub explain: Option<SocketAddr>,
}

/// Writes the status.
pub struct SpeakerReporter {
    inputs: ReporterInputs,
    written: Option<SpeakerStatusStatus>,
    since: Since,
    failures: u32,
}

/// Since when each peer is in the state told.
type Since = BTreeMap<Arc<str>, (&'static str, SystemTime)>;

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the Node {0:?}, which is to own the status, does not exist")]
    NoNode(Arc<str>),
    #[error("no answer within {ANSWER_MAX:?}")]
    Late,
    #[error("API server")]
    Kube(#[from] kube::Error),
}

impl SpeakerReporter {
    /// A reporter.
    #[must_use]
    pub fn new(inputs: ReporterInputs) -> Self {
        Self { inputs, written: None, since: Since::new(), failures: 0 }
    }

    /// The status as it is now; `None`: nothing has been decided.
    fn status(&mut self) -> Option<SpeakerStatusStatus> {
        let ReporterInputs { bgp, view, peers, decisions, drained, standings, node, explain, .. } = &mut self.inputs;
        let (config, node_ip) = {
            let view = view.borrow_and_update();
            let node_ip = view.nodes.get(node).and_then(|node| node.internal_ips.first().copied());
            (view.epoch_of(SPEAKER_SOURCES) > 0).then(|| (view.config.clone(), node_ip))?
        };
        let decisions = decisions.borrow_and_update().clone();
        let peers = peers.borrow_and_update().clone();
        let told = Told {
            config: &config,
            peers: &peers,
            sessions: bgp.sessions(),
            announced: decisions.bgp.desired.announcements.len(),
            generation: decisions.bgp.desired.generation,
            drained: *drained.borrow_and_update(),
            explain: explain.and_then(|listen| reachable(listen, node_ip)),
            waits_for: decisions.waits_for.clone(),
            standings: &standings.borrow_and_update().clone(),
            decisions: &decisions,
        };
        Some(status_of(&told, &mut self.since))
    }

    /// Writes the status; creates the object first if it is not there.
    async fn write(&self, status: &SpeakerStatusStatus) -> Result<(), WriteError> {
        let ReporterInputs { client, namespace, node, .. } = &self.inputs;
        let api: Api<SpeakerStatus> = Api::namespaced(client.clone(), namespace);
        let object = json!({
            "apiVersion": format!("{OWN_GROUP}/v1alpha1"), "kind": "SpeakerStatus",
            "metadata": {"name": &**node}, "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(node, &parameters, &Patch::Apply(&object)).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            answer => return Ok(answer.map(drop)?),
        }
        let owner = Api::<Node>::all(client.clone()).get_opt(node).await?;
        let owner = owner.ok_or_else(|| WriteError::NoNode(node.clone()))?;
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: node.to_string(),
            uid: owner.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        };
        let mut new = SpeakerStatus::new(node, ferrocast_api::SpeakerStatusSpec {});
        new.metadata = ObjectMeta { owner_references: Some(vec![owner]), ..new.metadata };
        match api.create(&PostParams::default(), &new).await {
            Err(kube::Error::Api(answer)) if answer.code == 409 => {}
            answer => drop(answer?),
        }
        Ok(api.patch_status(node, &parameters, &Patch::Apply(&object)).await.map(drop)?)
    }

    /// Writes the status if it has changed; returns when to write next at the earliest.
    async fn report(&mut self) -> Duration {
        let Some(status) = self.status().filter(|s| self.written.as_ref() != Some(s)) else { return SETTLE };
        let done = tokio::time::timeout(ANSWER_MAX, self.write(&status)).await.unwrap_or(Err(WriteError::Late));
        match done {
            Ok(()) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!("SpeakerStatus is written again");
                }
                self.written = Some(status);
                WRITE_PERIOD
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    tracing::warn!(error = %chain(&error), "SpeakerStatus not written, trying again");
                }
                RETRY_MIN.saturating_mul(2_u32.saturating_pow(self.failures - 1)).min(RETRY_MAX)
            }
        }
    }
}

/// What a status is made of.
struct Told<'a> {
    config: &'a Config,
    peers: &'a PeerSet,
    sessions: Vec<SessionInfo>,
    announced: usize,
    generation: u64,
    drained: bool,
    explain: Option<SocketAddr>,
    waits_for: Living,
    standings: &'a Standings,
    decisions: &'a Decisions,
}

/// Where others reach what listens here.
fn reachable(listen: SocketAddr, node_ip: Option<IpAddr>) -> Option<SocketAddr> {
    let ip = if listen.ip().is_unspecified() { node_ip? } else { listen.ip() };
    Some(SocketAddr::new(ip, listen.port()))
}

fn number(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

fn text(mut full: String) -> String {
    if full.len() > TEXT_LEN_MAX {
        full.truncate(full.floor_char_boundary(TEXT_LEN_MAX - 3));
        full.push_str("...");
    }
    full
}

/// The status that says all this.
fn status_of(told: &Told<'_>, since: &mut Since) -> SpeakerStatusStatus {
    let sessions: BTreeMap<&str, &SessionInfo> = told.sessions.iter().map(|info| (&*info.peer, info)).collect();
    since.retain(|name, _| told.peers.peers.contains_key(name));
    let mut peers = Vec::with_capacity(told.peers.peers.len());
    let mut problems: Vec<String> = Vec::new();
    for pod in told.waits_for.iter().flat_map(|pods| &**pods) {
        problems.push(text(format!("{WAITS_FOR_SPEAKER}, Pod {pod}")));
    }
    for (name, peer) in &told.peers.peers {
        let info = sessions.get(&**name).copied();
        let dial = ferrocast_bgp::support(peer);
        let state = match (info.map(|i| i.state), &dial) {
            (Some(State::Established), _) => "Established",
            (_, Err(_)) => "Idle",
            _ => "Connecting",
        };
        // The steps of an attempt are not told: a peer that is away would be written about all the time.
        let at = info.map_or(SystemTime::UNIX_EPOCH, |i| i.since);
        let entry = since.entry(name.clone()).or_insert((state, at));
        if entry.0 != state {
            *entry = (state, at);
        }
        let last_error = dial.err().or_else(|| info.and_then(|i| i.last_error.clone())).map(text);
        if state != "Established" {
            let why = last_error.as_deref().unwrap_or("no session yet");
            problems.push(text(format!("BGPPeer {name}: {state}: {why}")));
        }
        let established = info.filter(|_| state == "Established");
        let agreed = established.and_then(|i| i.negotiated.as_deref());
        peers.push(SpeakerPeer {
            name: name.to_string(),
            address: info.and_then(|i| i.address).map(|a| a.to_string()),
            asn: agreed.map(|a| a.peer_as).or_else(|| info.and_then(|i| i.peer_as)).map(i64::from),
            state: state.to_owned(),
            since: jiff::Timestamp::try_from(entry.1).ok().filter(|_| info.is_some()).map(|t| format!("{t:.0}")),
            last_error,
            families: agreed.into_iter().flat_map(|a| a.families.iter().map(|f| family(f).to_owned())).collect(),
            announced: established.map(|i| announced(&i.announced)),
            graceful_restart: agreed.is_some_and(Negotiated::keeps_routes),
            bfd: peer.bfd.as_ref().map(|profile| SpeakerBfd {
                profile: profile.name.to_string(),
                state: info.and_then(|i| i.bfd.as_ref()).map(|b| format!("{:?}", b.state)),
            }),
            flaps: info.map_or(0, |i| number(i.counts().flaps)),
        });
    }
    let announcers: Vec<SpeakerAnnouncer> =
        told.config.announcers.keys().map(|name| announcer(name, told, &mut problems)).collect();
    let errors = told.config.problems.iter().filter(|p| p.severity == Severity::Error);
    problems.extend(errors.map(|p| text(p.to_string())));
    problems.truncate(PROBLEMS_MAX);
    let up = peers.iter().filter(|p| p.state == "Established").count();
    SpeakerStatusStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        peers_up: format!("{up}/{}", peers.len()),
        announced: number(told.announced),
        generation: number(told.generation),
        drained: told.drained,
        explain: told.explain.map(|at| at.to_string()),
        problem: problems.first().cloned(),
        problems,
        peers,
        announcers,
    }
}

/// What is told of an announcer besides BGP.
fn announcer(name: &str, told: &Told<'_>, problems: &mut Vec<String>) -> SpeakerAnnouncer {
    let unknown = Standing::unknown();
    let standing = told.standings.get(name).unwrap_or(&unknown);
    let none = Decided::default();
    let decided = told.decisions.of(name).unwrap_or(&none);
    let problem = (!standing.works()).then(|| text(standing.problem.clone()));
    problems.extend(problem.iter().map(|why| text(format!("announcer {name}: {}: {why}", standing.state))));
    let targets = &standing.observed.targets;
    for (target, _) in targets.iter().filter(|(_, target)| standing.works() && !target.up) {
        problems.push(text(format!("announcer {name}: target {target} is down: {}", targets[target].reason)));
    }
    let refused = targets.values().flat_map(|target| &target.refused);
    let count = refused.clone().count();
    let refused = refused.min().map(|(prefix, why)| text(format!("{count} in all, the first {prefix}: {why}")));
    SpeakerAnnouncer {
        name: name.to_owned(),
        state: standing.state.to_owned(),
        since: jiff::Timestamp::try_from(standing.since)
            .ok()
            .filter(|_| standing.since > SystemTime::UNIX_EPOCH)
            .map(|t| format!("{t:.0}")),
        problem,
        version: Some(standing.version.clone()).filter(|version| !version.is_empty()),
        protocol: standing.protocol.map(i64::from),
        announced: number(decided.desired.announcements.len()),
        generation: number(decided.desired.generation),
        accepted: number(standing.observed.accepted),
        reached: number(standing.observed.reached()),
        targets_up: number(targets.values().filter(|target| target.up).count()),
        targets: number(targets.len()),
        refused,
        excess: Some(standing.excess.clone()).filter(|kinds| !kinds.is_empty()),
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "IPv4",
        Family::Ipv6Unicast => "IPv6",
    }
}

fn announced(counts: &[usize; Family::ALL.len()]) -> AnnouncedPrefixes {
    let of =
        |wanted: Family| Family::ALL.iter().zip(counts).find(|(f, _)| **f == wanted).map_or(0, |(_, n)| number(*n));
    AnnouncedPrefixes { ipv4: of(Family::Ipv4Unicast), ipv6: of(Family::Ipv6Unicast) }
}

impl Actor for SpeakerReporter {
    const NAME: &'static str = "speaker-reporter";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut observed = self.inputs.bgp.observe();
        // Comes first: an object of an earlier life is overwritten.
        let mut due = Some(Instant::now());
        let mut soonest = Instant::now();
        loop {
            let ReporterInputs { view, peers, decisions, drained, standings, .. } = &mut self.inputs;
            let write = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = view.changed() => changed.map(|()| false),
                changed = peers.changed() => changed.map(|()| false),
                changed = decisions.changed() => changed.map(|()| false),
                changed = observed.changed() => changed.map(|()| false),
                changed = drained.changed() => changed.map(|()| false),
                changed = standings.changed() => changed.map(|()| false),
                () = sleep_until(due) => Ok(true),
            };
            if !write.map_err(|_| ActorError::Upstream("what is reported on"))? {
                due = due.or_else(|| Some(soonest.max(Instant::now() + SETTLE)));
                continue;
            }
            observed.mark_unchanged();
            let wait = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                wait = self.report() => wait,
            };
            soonest = Instant::now() + wait;
            due = (self.failures > 0).then_some(soonest);
        }
    }
}
