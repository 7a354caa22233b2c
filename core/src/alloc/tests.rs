//! Tests of allocation, as scripts of changes in a small language.
//!
//! A script is a list of batches; a batch is a list of changes, separated by `;`:
//! `pools P ADDRESSES [manual] [buggy] [prio=N] [ns=A,B] [nssel=K=V] [svcsel=K=V] / Q …` (`P ?`: an unreadable pool object),
//! `ns NAME K=V`, `- NAMESPACE/NAME` (gone), or a Service: `NAMESPACE/NAME v4|v6|dual|none [WORDS]`.
use std::fmt::Write as _;

use super::*;
use crate::{
    config::{Meta, PoolSpec, RawSelector, Resource, Resources, ServiceAllocationSpec, Spec, build},
    model::{AnnotationText, FamilyPolicy, IpFamily, ObjectKey, Port, Protocol, TrafficPolicy},
};

mod automatic;
mod change;
mod request;
mod sharing;

/// An allocator and what it said.
struct World {
    allocator: Allocator,
    told: BTreeMap<ServiceKey, Arc<Outcome>>,
    /// Effects of the last batch.
    last: Vec<Effect>,
}

/// One rule: a script and what holds after it.
struct Case {
    name: &'static str,
    script: &'static [&'static str],
    /// `KEY → ADDRESSES POOL CODE`, or `-` where there is no outcome; then, after ` ~ `, parts of the notes' texts.
    want: &'static [(&'static str, &'static str)],
}

fn check(cases: &[Case]) {
    for case in cases {
        let mut world = World::new();
        for batch in case.script {
            world.run(batch);
        }
        for (key, want) in case.want {
            let said = world.say(key);
            let mut parts = want.split(" ~ ");
            let facts = parts.next().unwrap();
            assert_eq!(said.split(" | ").next().unwrap(), facts, "{}: {key}: {said}", case.name);
            for part in parts {
                assert!(said.contains(part), "{}: {key}: {part:?} is missing in {said}", case.name);
            }
        }
    }
}

impl World {
    fn new() -> Self {
        Self { allocator: Allocator::new(None), told: BTreeMap::new(), last: Vec::new() }
    }

    fn run(&mut self, batch: &str) {
        let changes = batch.split(';').map(|change| read_change(change.trim())).collect();
        self.last = self.allocator.apply(changes, 0);
        for (key, outcome) in &self.last {
            match outcome {
                Some(outcome) => self.told.insert(key.clone(), outcome.clone()),
                None => self.told.remove(key),
            };
        }
    }

    /// What was told last about a Service, in one line.
    fn say(&self, key: &str) -> String {
        let Some(outcome) = self.told.get(&key.parse::<ServiceKey>().unwrap()) else { return "-".to_owned() };
        let ips: Vec<String> = outcome.ips.iter().map(ToString::to_string).collect();
        let ips = if ips.is_empty() { "-".to_owned() } else { ips.join(",") };
        let mut said = format!("{ips} {} {}", outcome.pool.as_deref().unwrap_or("-"), outcome.code);
        for note in &outcome.notes {
            write!(said, " | {:?} {} {}", note.kind, note.reason, note.message).unwrap();
        }
        said
    }
}

fn read_change(text: &str) -> Change {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word {
        "pools" => Change::Config(Arc::new(read_config(rest))),
        "ns" => {
            let (name, labels) = rest.split_once(' ').unwrap_or((rest, ""));
            Change::Namespace(name.into(), Some(Arc::new(read_labels(labels))))
        }
        "-" => Change::Service(rest.parse().unwrap(), None),
        _ => {
            let service = read_service(text);
            Change::Service(service.key.clone(), Some(Arc::new(service)))
        }
    }
}

fn read_labels(text: &str) -> Labels {
    text.split(',').filter_map(|pair| pair.split_once('=')).collect()
}

fn read_selector(text: &str) -> RawSelector {
    let (key, value) = text.split_once('=').unwrap();
    RawSelector { match_labels: [(key.to_owned(), value.to_owned())].into(), ..RawSelector::default() }
}

fn read_config(text: &str) -> Config {
    let mut resources = Resources::default();
    for (age, pool) in (0..).zip(text.split(" / ").filter(|pool| !pool.is_empty())) {
        let (name, words) = pool.split_once(' ').unwrap();
        let key = ObjectKey { kind: "IPAddressPool", name: name.into() };
        let meta = Meta { key: key.clone(), created_s: age, ..Meta::default() };
        let spec = (words != "?").then(|| Spec::Pool(read_pool(words)));
        resources.objects.insert(key, Arc::new(Resource { meta, spec, ..Resource::default() }));
    }
    build(&resources)
}

fn read_pool(words: &str) -> PoolSpec {
    let mut words = words.split(' ');
    let addresses = words.next().unwrap().split(',').map(str::to_owned).collect();
    let mut spec = PoolSpec { addresses, ..PoolSpec::default() };
    for word in words {
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        let allocation = &mut spec.service_allocation;
        match word {
            "manual" => spec.auto_assign = Some(false),
            "buggy" => spec.avoid_buggy_ips = Some(true),
            "for" => *allocation = Some(ServiceAllocationSpec::default()),
            "prio" => allocation.get_or_insert_default().priority = Some(value.parse().unwrap()),
            "ns" => allocation.get_or_insert_default().namespaces = value.split(',').map(str::to_owned).collect(),
            "nssel" => allocation.get_or_insert_default().namespace_selectors.push(read_selector(value)),
            "svcsel" => allocation.get_or_insert_default().service_selectors.push(read_selector(value)),
            other => panic!("no such word: {other}"),
        }
    }
    spec
}

fn read_service(text: &str) -> Service {
    let mut words = text.split(' ');
    let key: ServiceKey = words.next().unwrap().parse().unwrap();
    let mut service = Service::load_balancer(key.namespace(), key.name());
    service.uid = key.as_str().into();
    let (v4, v6) = ("10.96.0.1".parse().unwrap(), "fd00:96::1".parse().unwrap());
    service.cluster_ips = match words.next().unwrap() {
        "v4" => vec![v4],
        "v6" => vec![v6],
        "dual" => vec![v4, v6],
        _ => vec![],
    };
    service.families = service.cluster_ips.iter().map(|ip| IpFamily::of(*ip)).collect();
    for word in words {
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        let note = |deprecated| Some(AnnotationText { value: value.into(), deprecated });
        let annotations = &mut service.annotations;
        match word {
            "prefer" => service.family_policy = Some(FamilyPolicy::PreferDualStack),
            "require" => service.family_policy = Some(FamilyPolicy::RequireDualStack),
            "primary6" => service.families.reverse(),
            "nodeport" => service.is_load_balancer = false,
            "class" => service.class = Some(value.into()),
            "at" => service.ingress = value.split(',').map(|ip| ip.parse().unwrap()).collect(),
            "from" => annotations.allocated_from_pool = note(false),
            "pool" => annotations.address_pool = note(false),
            "oldpool" => annotations.address_pool = note(true),
            "ips" => annotations.load_balancer_ips = note(false),
            "oldips" => annotations.load_balancer_ips = note(true),
            "lbip" => service.load_balancer_ip = value.into(),
            "share" => annotations.allow_shared_ip = note(false),
            "local" => (service.traffic_policy, service.selector) = (TrafficPolicy::Local, value.into()),
            "ports" => service.ports = value.split(',').map(read_port).collect(),
            "labels" => service.labels = read_labels(value),
            "created" => service.created_s = value.parse().unwrap(),
            "uid" => service.uid = value.into(),
            other => panic!("no such word: {other}"),
        }
    }
    service
}

fn read_port(text: &str) -> Port {
    match text.strip_prefix('u') {
        Some(number) => Port { protocol: Protocol::Udp, number: number.parse().unwrap() },
        None => Port { protocol: Protocol::Tcp, number: text.parse().unwrap() },
    }
}
