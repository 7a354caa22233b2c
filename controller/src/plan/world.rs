//! From objects to what follows from them: configuration in force, addresses, endpoints.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ferrocast_core::{
    alloc::{Allocator, Change, Considered, Outcome, PoolUsage},
    config::{
        Builder, Config, InForce, Living, Networks, OnAddressLoss, Past, Problem, Resources, Severity, Surroundings,
        carry_over, check_surroundings,
    },
    model::{AnnotationText, Labels, Node, ObjectKey, Service, ServiceKey},
};

use imbl::{OrdMap, ordmap::DiffItem};

use super::{
    endpoints::EndpointTable,
    objects::{ConfigKey, Objects, Slices},
};
use crate::{cluster::configurator::unsupported, manifests::ConfigObject};

/// What is taken for granted beyond the objects.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Class served.
    pub class: Option<Arc<str>>,
    /// `--ignore-exclude-lb` of the speakers.
    pub ignore_exclude_label: bool,
    /// At least so many nodes: those that are missing are made up.
    pub nodes: Option<u16>,
    /// Services with a selector and without EndpointSlices have an endpoint on every node.
    pub assume_endpoints: bool,
}

/// What was made up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assumptions {
    /// Nodes.
    pub nodes: Vec<Arc<str>>,
    /// Services with endpoints.
    pub endpoints: Vec<ServiceKey>,
}

/// One object of `metallb.io` or `ferrocast.io`, and what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Kind, namespace, name.
    pub key: ConfigKey,
    /// It is in force as written.
    pub valid: bool,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// The state that objects lead to.
#[derive(Debug)]
pub struct World {
    /// What was asked for.
    pub settings: Settings,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// There is a BGPAdvertisement, in force or not.
    pub has_advertisements: bool,
    /// The Services that are ours, with the status that they will have, by namespace and name.
    pub services: BTreeMap<ServiceKey, Arc<Service>>,
    /// Services that are not ours.
    pub others: BTreeMap<ServiceKey, Arc<Service>>,
    /// Why they will have it.
    pub outcomes: OrdMap<ServiceKey, Arc<Outcome>>,
    /// How full the pools are.
    pub usage: BTreeMap<Arc<str>, PoolUsage>,
    /// Nodes by name.
    pub nodes: Vec<Arc<Node>>,
    /// Serving endpoints.
    pub endpoints: EndpointTable,
    /// Every object of ours, by kind, namespace and name.
    pub verdicts: Vec<Verdict>,
    /// What was made up.
    pub assumptions: Assumptions,
}

/// Leads from one set of objects to the next as the running system would: what was valid stays in force, who has an address keeps it.
pub struct Planner {
    settings: Settings,
    builder: Builder,
    allocator: Allocator,
    /// The configuration in force.
    config: Option<Arc<Config>>,
    /// The configuration that the allocator has.
    given: Option<Arc<Config>>,
    namespaces: BTreeMap<Arc<str>, Arc<Labels>>,
    services: OrdMap<ServiceKey, Arc<Service>>,
    /// What each Service of ours has and why.
    outcomes: OrdMap<ServiceKey, Arc<Outcome>>,
    /// The EndpointSlices, and what was counted in them.
    counted: (Slices, EndpointTable),
    /// What the configuration in force was built from, and the Namespaces then.
    past: (Resources, OrdMap<Arc<str>, Arc<Labels>>),
}

impl Planner {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let allocator = Allocator::new(settings.class.clone());
        Self {
            settings,
            builder: Builder::default(),
            allocator,
            config: None,
            given: None,
            namespaces: BTreeMap::new(),
            services: OrdMap::new(),
            outcomes: OrdMap::new(),
            counted: Default::default(),
            past: Default::default(),
        }
    }

    /// Every pool that was considered for a Service, in the order in which they are tried.
    #[must_use]
    pub fn considered(&self, service: &ServiceKey) -> Vec<Considered> {
        self.allocator.considered(service)
    }

    /// Who holds an address.
    #[must_use]
    pub fn holders(&self, ip: IpAddr) -> Vec<ServiceKey> {
        self.allocator.holders(ip)
    }

    /// The state that the objects lead to, after what was before.
    #[must_use]
    pub fn advance(&mut self, objects: &Objects) -> World {
        let resources = objects.resources();
        if let Some(record) = objects.record.as_ref().filter(|_| self.config.is_none()) {
            self.resume(record, objects);
        }
        let mut config = self.builder.build(&resources);
        let (nodes, made_up) = nodes(objects, self.settings.nodes);
        config.problems.extend(unsupported_problems(&config));
        config.problems.extend(surroundings_problems(&resources, &config, objects, &nodes));
        config.problems.sort();
        config.problems.dedup();
        self.carry_over(&mut config, resources, objects);
        let config = Arc::new(config);
        self.allocate(objects, &config);
        let names: Vec<Arc<str>> = nodes.iter().map(|node| node.name.clone()).collect();
        let mut endpoints = self.count(&objects.slices);
        let assumed = if self.settings.assume_endpoints { endpoints.assume(objects, &names) } else { Vec::new() };
        let (services, others) = self.split(objects);
        self.config = Some(config.clone());
        World {
            settings: self.settings.clone(),
            has_advertisements: objects
                .config
                .keys()
                .any(|(kind, namespace, _)| &**kind == "BGPAdvertisement" && *namespace == objects.namespace),
            services,
            others,
            outcomes: self.outcomes.clone(),
            usage: self.allocator.usage(),
            nodes,
            endpoints,
            verdicts: verdicts(objects, &config),
            assumptions: Assumptions { nodes: made_up, endpoints: assumed },
            config,
        }
    }

    /// The serving endpoints, counted anew only if the EndpointSlices are others than before.
    fn count(&mut self, slices: &Slices) -> EndpointTable {
        if !self.counted.0.ptr_eq(slices) {
            self.counted = (slices.clone(), EndpointTable::new(slices));
        }
        self.counted.1.clone()
    }

    /// Begins where a running Ferrocast is, as a new leader does.
    fn resume(&mut self, record: &InForce, objects: &Objects) {
        self.builder.restore(record);
        self.config = Some(Arc::new(record.config(&objects.namespace)));
        self.past = (record.resources(&objects.namespace), all_namespaces(objects).into_iter().collect());
    }

    /// Notes what becomes of living addresses that the new configuration takes away, as the running system would.
    fn carry_over(&mut self, new: &mut Config, resources: Resources, objects: &Objects) {
        let namespaces: OrdMap<Arc<str>, Arc<Labels>> = all_namespaces(objects).into_iter().collect();
        if let Some(old) = &self.config {
            let mut services = objects.services.clone();
            for (key, outcome) in &self.outcomes {
                if let Some(service) = objects.services.get(key).filter(|service| service.ingress != outcome.ips) {
                    let with_status = Service { ingress: outcome.ips.clone(), ..(**service).clone() };
                    services.insert(key.clone(), Arc::new(with_status));
                }
            }
            let living = Living { services: &services, namespaces: &namespaces, class: self.settings.class.as_deref() };
            let past = Past { config: old, resources: &self.past.0, namespaces: &self.past.1 };
            carry_over(&past, new, &resources, &living, OnAddressLoss::Hold);
        }
        self.past = (resources, namespaces);
    }

    /// Gives the allocator what changed.
    fn allocate(&mut self, objects: &Objects, config: &Arc<Config>) {
        let mut changes = Vec::new();
        if self.given.as_ref().is_none_or(|old| old != config) {
            changes.push(Change::Config(config.clone()));
            self.given = Some(config.clone());
        }
        let namespaces = all_namespaces(objects);
        for (name, labels) in &namespaces {
            if self.namespaces.get(name) != Some(labels) {
                changes.push(Change::Namespace(name.clone(), Some(labels.clone())));
            }
        }
        let change = |item: DiffItem<'_, '_, ServiceKey, Arc<Service>>| match item {
            DiffItem::Add(key, service) | DiffItem::Update { new: (key, service), .. } => {
                Change::Service(key.clone(), Some(service.clone()))
            }
            DiffItem::Remove(key, _) => Change::Service(key.clone(), None),
        };
        changes.extend(self.services.diff(&objects.services).map(change));
        for (key, outcome) in self.allocator.apply(changes, objects.now_s()) {
            match outcome {
                Some(outcome) => self.outcomes.insert(key, outcome),
                None => self.outcomes.remove(&key),
            };
        }
        self.namespaces = namespaces;
        self.services = objects.services.clone();
    }

    /// The Services that are ours as they will be, and the others as they are.
    fn split(&self, objects: &Objects) -> (BTreeMap<ServiceKey, Arc<Service>>, BTreeMap<ServiceKey, Arc<Service>>) {
        let (mut ours, mut others) = (Vec::with_capacity(objects.services.len()), Vec::new());
        for (key, service) in &objects.services {
            if !service.is_ours(self.settings.class.as_deref()) {
                others.push((key.clone(), service.clone()));
                continue;
            }
            let will_be = match self.outcomes.get(key) {
                Some(outcome) => with_status(service, outcome),
                None => service.clone(),
            };
            ours.push((key.clone(), will_be));
        }
        (ours.into_iter().collect(), others.into_iter().collect())
    }
}

/// The Service with the status that the outcome asks for. What is not ours stays in it.
fn with_status(service: &Arc<Service>, outcome: &Outcome) -> Arc<Service> {
    let foreign = outcome.ips.is_empty() && outcome.code == "addressNotOurs";
    let ingress = if foreign { &service.ingress } else { &outcome.ips };
    let annotated = service.annotations.allocated_from_pool.as_ref().map(|a| &*a.value);
    if service.ingress == *ingress && annotated == outcome.pool.as_deref() && !service.ingress_foreign {
        return service.clone();
    }
    let mut service = Service::clone(service);
    service.ingress.clone_from(ingress);
    service.ingress_foreign &= foreign;
    service.annotations.allocated_from_pool =
        outcome.pool.as_ref().map(|pool| AnnotationText { value: (**pool).into(), deprecated: false });
    Arc::new(service)
}

/// The nodes by name; those made up are called `node1`, `node2` …, so that there are as many as wanted.
fn nodes(objects: &Objects, wanted: Option<u16>) -> (Vec<Arc<Node>>, Vec<Arc<str>>) {
    let mut nodes = objects.nodes.clone();
    let mut made_up = Vec::new();
    let names = (1_u32..).map(|i| Arc::<str>::from(format!("node{i}")));
    for name in names {
        if nodes.len() >= wanted.map_or(0, usize::from) {
            break;
        }
        if nodes.contains_key(&name) {
            continue;
        }
        let labels = [("kubernetes.io/hostname", &*name)].into_iter().collect();
        nodes.insert(name.clone(), Arc::new(Node { name: name.clone(), labels, ..Node::default() }));
        made_up.push(name);
    }
    (nodes.into_values().collect(), made_up)
}

/// The labels of every namespace that is given or has a Service.
fn all_namespaces(objects: &Objects) -> BTreeMap<Arc<str>, Arc<Labels>> {
    let mut namespaces: BTreeMap<Arc<str>, Arc<Labels>> = objects.namespaces.clone();
    for name in objects.services.keys().map(ServiceKey::namespace) {
        if !namespaces.contains_key(name) {
            namespaces.insert(name.into(), objects.namespace_labels(name));
        }
    }
    namespaces
}

/// What is surely a mistake beside these Nodes, Namespaces and Services.
fn surroundings_problems(
    resources: &Resources,
    config: &Config,
    objects: &Objects,
    nodes: &[Arc<Node>],
) -> Vec<Problem> {
    let around = Surroundings {
        nodes: &nodes.iter().map(|node| (node.name.clone(), node.clone())).collect(),
        namespaces: &objects.namespaces.clone().into_iter().collect(),
        services: &objects.services,
        networks: Networks::default(),
    };
    check_surroundings(resources, config, &around)
}

/// Peers that are valid but that no session is tried with.
fn unsupported_problems(config: &Config) -> Vec<Problem> {
    let problem = |(object, message): (ObjectKey, String)| Problem {
        object,
        field: String::new(),
        value: String::new(),
        rule: "unsupported",
        message,
        suggestion: String::new(),
        severity: Severity::Warning,
    };
    unsupported(config).into_iter().map(problem).collect()
}

/// Every object of ours with its problems.
fn verdicts(objects: &Objects, config: &Config) -> Vec<Verdict> {
    let mut by_object: BTreeMap<(&str, &str), Vec<&Problem>> = BTreeMap::new();
    for problem in &config.problems {
        by_object.entry((problem.object.kind, &problem.object.name)).or_default().push(problem);
    }
    let judge = |(key, object): (&ConfigKey, &ConfigObject)| {
        let (kind, namespace, name) = key;
        let problems: Vec<Problem> = match object {
            ConfigObject::Read(_) if *namespace != objects.namespace => vec![wrong_namespace(key, &objects.namespace)],
            ConfigObject::Read(_) => {
                by_object.get(&(&**kind, &**name)).into_iter().flatten().copied().cloned().collect()
            }
            ConfigObject::Status => Vec::new(),
            ConfigObject::Unknown(problem) => vec![problem.clone()],
        };
        let valid = problems.iter().all(|problem| problem.severity == Severity::Warning);
        Verdict { key: key.clone(), valid, problems }
    };
    objects.config.iter().map(judge).collect()
}

fn wrong_namespace((_, namespace, name): &ConfigKey, wanted: &str) -> Problem {
    Problem {
        object: ObjectKey { kind: "", name: name.clone() },
        field: "metadata.namespace".to_owned(),
        value: namespace.to_string(),
        rule: "wrongNamespace",
        message: format!("is not in the configuration namespace {wanted}, the only one that is read"),
        suggestion: format!("write {wanted}"),
        severity: Severity::Error,
    }
}
