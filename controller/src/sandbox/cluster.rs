//! Stands in for the API server: manifests from a directory, statuses in memory, a view for the controller and one per speaker.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken},
    config::{Builder, Config, Living, OnAddressLoss, Password, Past, Peer, Problem, Resources, carry_over},
    model::{AnnotationText, Endpoints, EndpointsIndex, Labels, Node, NodeId, Service, ServiceKey},
    view::{Source, ViewWriter},
};
use imbl::OrdMap;
use tokio::sync::watch;

use crate::{
    allocator::Plan,
    cli::EndpointsFrom,
    cluster::feeds::rows_digest,
    manifests::{self, ConfigObject, Manifests, NAMESPACE_LABEL, UNDATED_S},
};

/// How often the directory is read; it is compared as a whole, so that any editor's way of writing a file works.
const LOOK_PERIOD: Duration = Duration::from_millis(200);
/// Name of the implicit peer. No object can have it: it is no valid name in Kubernetes.
pub(super) const ROUTER_PEER: &str = "(sandbox router)";
/// AS of the sandbox's speakers towards the built-in router and `--peer` routers (RFC 6996 private range).
pub(super) const SPEAKER_AS: u32 = 64512;
/// AS of the built-in router.
pub(super) const ROUTER_AS: u32 = 64999;

/// What readers should know beside the views.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Grows with every reading of a changed directory.
    pub(super) readings: u64,
    /// Services whose endpoints are assumed.
    pub(super) assumed: Vec<ServiceKey>,
    /// What is wrong with the configuration.
    pub(super) problems: Vec<Problem>,
    /// Documents that could not be read.
    pub(super) unreadable: Vec<String>,
}

/// A router given with `--peer`.
#[derive(Clone, Debug)]
pub(super) struct ExtraPeer {
    /// Address and port.
    pub(super) addr: SocketAddr,
    /// Its AS.
    pub(super) asn: u32,
}

impl std::str::FromStr for ExtraPeer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is not of the form ADDR[:PORT],AS, e.g. 192.0.2.1:179,64513");
        let (addr, asn) = text.split_once(',').ok_or_else(form)?;
        let addr =
            addr.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 179)).or_else(|_| addr.parse()).map_err(|_| form())?;
        let asn = asn.parse().ok().filter(|asn| *asn != 0).ok_or_else(form)?;
        Ok(Self { addr, asn })
    }
}

/// The address speaker `i` (from 0) dials the built-in router from.
#[must_use]
pub(super) fn speaker_address(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 11_u8.saturating_add(u8::try_from(i).unwrap_or(u8::MAX)))
}

/// Endpoint counts as a node sees them, the nodes that endpoints are on, and the Services for which they are assumed.
type SeenEndpoints = (OrdMap<ServiceKey, Endpoints>, OrdMap<ServiceKey, Arc<[NodeId]>>, Vec<ServiceKey>);

/// Names of the nodes and where their views are.
pub(super) struct NodeViews {
    /// The node's name.
    pub(super) name: Arc<str>,
    /// Its speaker's view.
    pub(super) view: ViewWriter,
}

/// Feeds the views.
pub(super) struct Cluster {
    pub(super) dir: PathBuf,
    pub(super) class: Option<Arc<str>>,
    pub(super) endpoints: EndpointsFrom,
    pub(super) router: SocketAddr,
    pub(super) extra: Vec<ExtraPeer>,
    pub(super) controller: ViewWriter,
    pub(super) speakers: Vec<NodeViews>,
    pub(super) plan: watch::Receiver<Plan>,
    pub(super) told: watch::Sender<Told>,
    pub(super) memory: Memory,
}

/// What survives a restart of the actor: statuses, and when each Service was first seen.
#[derive(Default)]
pub(super) struct Memory {
    statuses: BTreeMap<ServiceKey, (Vec<IpAddr>, Option<Arc<str>>)>,
    first_seen: BTreeMap<ServiceKey, i64>,
    builder: Builder,
    manifests: Manifests,
    readings: u64,
    past: Option<InForceBefore>,
}

/// What was in force at the last reading.
#[derive(Default)]
struct InForceBefore {
    config: Config,
    resources: Resources,
    namespaces: OrdMap<Arc<str>, Arc<Labels>>,
}

impl Cluster {
    /// Everything from the manifests and the statuses in memory into the views.
    fn publish(&mut self) {
        let services = self.services();
        let namespaces = namespaces(&self.memory.manifests, &services);
        let config = self.build_config(&services, &namespaces);
        let nodes: OrdMap<Arc<str>, Arc<Node>> =
            (0..self.speakers.len()).map(|i| self.node(i)).map(|n| (n.name.clone(), Arc::new(n))).collect();
        let (controller_services, controller_nodes, controller_config) =
            (services.clone(), nodes.clone(), config.clone());
        self.controller.edit(move |view| {
            view.services = controller_services;
            view.namespaces = namespaces;
            view.nodes = controller_nodes;
            view.config = Arc::new(controller_config);
            true
        });
        for source in [Source::Services, Source::Namespaces, Source::Nodes, Source::Config] {
            self.controller.listed(source, 1);
        }
        let mut assumed = Vec::new();
        for (i, speaker) in self.speakers.iter().enumerate() {
            let (endpoints, endpoint_nodes, assumed_here) = self.endpoints(&services, &speaker.name);
            assumed = assumed_here;
            let config = self.config_of(i, &config);
            let (services, nodes) = (services.clone(), nodes.clone());
            speaker.view.edit(move |view| {
                view.services = services;
                view.nodes = nodes;
                view.endpoints = endpoints;
                view.endpoint_nodes = endpoint_nodes;
                if *view.config != config {
                    view.config = Arc::new(config);
                }
                true
            });
            for source in [Source::Services, Source::Endpoints, Source::Nodes, Source::Config] {
                speaker.view.listed(source, 1);
            }
        }
        let unreadable = self.memory.manifests.errors.iter().map(ToString::to_string).collect();
        let told = Told { readings: self.memory.readings, assumed, problems: config.problems, unreadable };
        self.told.send_if_modified(|now| std::mem::replace(now, told.clone()) != told);
    }

    /// The configuration in force; addresses that an edit of the files takes away are held, or moved if the object says so.
    fn build_config(
        &mut self,
        services: &OrdMap<ServiceKey, Arc<Service>>,
        namespaces: &OrdMap<Arc<str>, Arc<Labels>>,
    ) -> Config {
        let manifests = &self.memory.manifests;
        let passwords =
            manifests.secrets.iter().filter_map(|s| Some((s.name.clone(), Ok(Password(s.password.clone().ok()?)))));
        let read = manifests.config.iter().filter_map(|m| match &m.object {
            ConfigObject::Read(resource) => Some(resource),
            ConfigObject::Status | ConfigObject::Unknown(_) => None,
        });
        let objects = (0..).zip(read).map(|(i, resource)| {
            let mut resource = resource.clone();
            // Without timestamps the order of the documents says which is older.
            if resource.meta.created_s == 0 {
                resource.meta.created_s = UNDATED_S + i;
            }
            (resource.meta.key.clone(), Arc::from(resource))
        });
        let resources = Resources {
            namespace: "metallb-system".into(),
            objects: objects.collect(),
            passwords: passwords.collect(),
        };
        let mut config = self.memory.builder.build(&resources);
        let past = self.memory.past.take().unwrap_or_default();
        let before = Past { config: &past.config, resources: &past.resources, namespaces: &past.namespaces };
        let living = Living { services, namespaces, class: self.class.as_deref() };
        carry_over(&before, &mut config, &resources, &living, OnAddressLoss::Hold);
        self.memory.past = Some(InForceBefore { config: config.clone(), resources, namespaces: namespaces.clone() });
        config
    }

    /// The configuration of one speaker: with the implicit peer, which every advertisement matches.
    fn config_of(&self, i: usize, config: &Config) -> Config {
        let mut config = config.clone();
        let mut implicit = vec![peer(ROUTER_PEER, self.router, ROUTER_AS, Some(speaker_address(i).into()))];
        implicit.extend(self.extra.iter().map(|e| peer(&format!("(--peer {})", e.addr), e.addr, e.asn, None)));
        for advertisement in config.advertisements.values_mut() {
            if !advertisement.peers.is_empty() {
                let advertisement = Arc::make_mut(advertisement);
                advertisement.peers.extend(implicit.iter().map(|p| p.name.clone()));
            }
        }
        config.peers.extend(implicit.into_iter().map(|p| (p.name.clone(), Arc::new(p))));
        config
    }

    /// The manifests' Services with the statuses in memory. A status in a manifest counts as held when first seen.
    fn services(&mut self) -> OrdMap<ServiceKey, Arc<Service>> {
        let memory = &mut self.memory;
        let present: BTreeMap<&ServiceKey, &Service> = memory.manifests.services.iter().map(|s| (&s.key, s)).collect();
        memory.statuses.retain(|key, _| present.contains_key(key));
        memory.first_seen.retain(|key, _| present.contains_key(key));
        let mut services = OrdMap::new();
        for service in &memory.manifests.services {
            let mut service = service.clone();
            let next = i64::try_from(memory.first_seen.len()).unwrap_or(i64::MAX);
            let first_seen = *memory.first_seen.entry(service.key.clone()).or_insert(next);
            if service.created_s == 0 {
                service.created_s = UNDATED_S + first_seen;
            }
            if !service.is_load_balancer {
                // As the API server does when the type changes.
                memory.statuses.remove(&service.key);
                service.ingress.clear();
            } else if let Some((ips, pool)) = memory.statuses.get(&service.key) {
                service.ingress.clone_from(ips);
                service.ingress_foreign = false;
                service.annotations.allocated_from_pool =
                    pool.as_ref().map(|p| AnnotationText { value: (**p).into(), deprecated: false });
            }
            services.insert(service.key.clone(), Arc::new(service));
        }
        services
    }

    /// The node of speaker `i`: the manifests' Node if there is one, completed by made-up addresses.
    fn node(&self, i: usize) -> Node {
        let name = &self.speakers[i].name;
        let known = self.memory.manifests.nodes.iter().find(|n| n.name == *name);
        let mut node = known.cloned().unwrap_or_else(|| Node {
            name: name.clone(),
            labels: [("kubernetes.io/hostname", &**name)].into_iter().collect(),
            ..Node::default()
        });
        if node.internal_ips.iter().all(IpAddr::is_ipv6) {
            node.internal_ips.push(speaker_address(i).into());
        }
        if node.internal_ips.iter().all(IpAddr::is_ipv4) {
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 11 + u16::try_from(i).unwrap_or(0));
            node.internal_ips.push(v6.into());
        }
        node
    }

    /// Endpoint counts as `node` sees them, the nodes they are on, and the Services for which they are assumed.
    fn endpoints(&self, services: &OrdMap<ServiceKey, Arc<Service>>, node: &str) -> SeenEndpoints {
        let slices = &self.memory.manifests.slices;
        let mut index = EndpointsIndex::default();
        let digest = |service: &ServiceKey, rows: &[_]| rows_digest(service.clone(), rows, node);
        let digests = slices.iter().map(|(key, (service, rows))| (key.clone(), digest(service, rows)));
        let mut endpoints: OrdMap<_, _> = index.replace(digests).into_iter().collect();
        let mut nodes: OrdMap<_, _> = index.take_moved().into_iter().collect();
        let mut assumed = Vec::new();
        if self.endpoints == EndpointsFrom::Files {
            return (endpoints, nodes, assumed);
        }
        let with_slices: std::collections::BTreeSet<&ServiceKey> =
            slices.values().map(|(service, _)| service).collect();
        let anywhere = u32::try_from(self.speakers.len()).unwrap_or(u32::MAX);
        let mut everywhere: Vec<NodeId> = self.speakers.iter().map(|s| NodeId::of(&s.name)).collect();
        everywhere.sort_unstable();
        let everywhere: Arc<[NodeId]> = everywhere.into();
        for (key, service) in services {
            if service.is_load_balancer && !service.selector.is_empty() && !with_slices.contains(key) {
                endpoints.insert(key.clone(), Endpoints { here: 1, anywhere });
                nodes.insert(key.clone(), everywhere.clone());
                assumed.push(key.clone());
            }
        }
        (endpoints, nodes, assumed)
    }

    /// Writes the plan into the statuses in memory; true if that changed any.
    fn take_plan(&mut self) -> bool {
        let plan = self.plan.borrow_and_update().clone();
        let mut changed = false;
        for (key, entry) in &plan.entries {
            let service = &entry.service;
            let Some(outcome) = &entry.outcome else {
                changed |= self.memory.statuses.remove(key).is_some();
                continue;
            };
            let next = (outcome.ips.clone(), outcome.pool.clone());
            let annotated = service.annotations.allocated_from_pool.as_ref().map(|a| Arc::from(&*a.value));
            let now = self.memory.statuses.get(key).cloned().unwrap_or_else(|| (service.ingress.clone(), annotated));
            if now != next {
                self.memory.statuses.insert(key.clone(), next);
                changed = true;
            }
        }
        changed
    }
}

/// Labels of the namespaces given, and of those that Services stand in.
fn namespaces(manifests: &Manifests, services: &OrdMap<ServiceKey, Arc<Service>>) -> OrdMap<Arc<str>, Arc<Labels>> {
    let mut all: OrdMap<Arc<str>, Arc<Labels>> = OrdMap::new();
    for name in services.keys().map(ServiceKey::namespace) {
        if !all.contains_key(name) {
            all.insert(name.into(), Arc::new([(NAMESPACE_LABEL, name)].into_iter().collect()));
        }
    }
    for (name, labels) in &manifests.namespaces {
        let labels = labels.iter().chain([(NAMESPACE_LABEL, name.as_str())]).collect();
        all.insert(name.as_str().into(), Arc::new(labels));
    }
    all
}

/// A peer that no object describes.
fn peer(name: &str, addr: SocketAddr, asn: u32, source_address: Option<IpAddr>) -> Peer {
    Peer { source_address, dual_stack: true, ..Peer::new(name, SPEAKER_AS, asn, addr) }
}

impl Actor for Cluster {
    const NAME: &'static str = "sandbox-cluster";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut files = BTreeMap::new();
        let mut look = tokio::time::interval(LOOK_PERIOD);
        let mut unreadable = false;
        self.plan.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = look.tick() => {
                    let dir = self.dir.clone();
                    match manifests::files(&dir) {
                        Ok(now) if now != files || self.memory.readings == 0 => {
                            files = now;
                            self.memory.manifests = manifests::read(&files);
                            self.memory.readings += 1;
                            self.publish();
                            unreadable = false;
                        }
                        Ok(_) => {}
                        Err(error) if !unreadable => {
                            tracing::error!(dir = %dir.display(), %error, "cannot read the directory: keeping what is known");
                            unreadable = true;
                        }
                        Err(_) => {}
                    }
                }
                changed = self.plan.changed() => {
                    changed.map_err(|_| ActorError::Upstream("plan"))?;
                    if self.take_plan() {
                        self.publish();
                    }
                }
            }
        }
    }
}
