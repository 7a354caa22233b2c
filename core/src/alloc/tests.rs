//! Tests of allocation, as scripts of changes in a small language.
//!
//! A script is a list of batches; a batch is a list of changes, separated by `;`:
//! `pools P ADDRESSES [manual] [buggy] [prio=N] [ns=A,B] [nssel=K=V] [svcsel=K=V] / Q …` (`P ?`: an unreadable pool object;
//! a pool's policy: `[policy=NAME] [lru] [hash] [quota=K=V:N] [nonew=ADDRESSES] [perfam=N] [pair=Q] [samens] [mixed]`
//! `[gave=NAMESPACE/NAME@IP@SECONDS]`; beside the pools, also separated by ` / `:
//! `former IP=P`, `moved NAMESPACE/NAME=IP`, and reservations:
//! `res NAME P ADDRESSES|N:v4|N:v6 [svc=NAMESPACE/NAME] [ns=A] [svcsel=K=V] [after=SECONDS] [gave=NAMESPACE/NAME@IP@SECONDS]`),
//! `ns NAME K=V`, `now SECONDS`, `restart`, `- NAMESPACE/NAME` (gone), or a Service: `NAMESPACE/NAME v4|v6|dual|none [WORDS]`.
use std::{fmt::Write as _, time::Duration};

use super::*;
use crate::{
    config::{
        FormerPool, IpRange, Meta, Pool, PoolPolicy, PoolSpec, Quota, RawSelector, Reservation, Reserved, ReservedFor,
        Resource, Resources, ServiceAllocationSpec, SharingRules, Spec, Strategy, build,
    },
    model::{AnnotationText, FamilyPolicy, IpFamily, LabelSelector, ObjectKey, Port, Protocol, TrafficPolicy},
};

mod automatic;
mod change;
mod explain;
mod held;
mod policy;
mod request;
mod reservation;
mod sharing;
mod strategy;

/// An allocator and what it said.
struct World {
    allocator: Allocator,
    told: BTreeMap<ServiceKey, Arc<Outcome>>,
    /// Effects of the last batch.
    last: Vec<Effect>,
    now_s: i64,
    /// What the API server has, for a restart.
    services: BTreeMap<ServiceKey, Arc<Service>>,
    namespaces: BTreeMap<Arc<str>, Arc<Labels>>,
    config: Option<Arc<Config>>,
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
        world.check_want(case.name, case.want);
        world.check_messages(case.name);
        let before = world.facts();
        world.restart();
        assert_eq!(world.facts(), before, "{}: after a restart", case.name);
    }
}

impl World {
    fn new() -> Self {
        Self {
            allocator: Allocator::new(None),
            told: BTreeMap::new(),
            last: Vec::new(),
            now_s: 0,
            services: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            config: None,
        }
    }

    fn run(&mut self, batch: &str) {
        if batch == "restart" {
            return self.restart();
        }
        let mut changes = Vec::new();
        for text in batch.split(';').map(str::trim) {
            match text.strip_prefix("now ") {
                Some(now) => self.now_s = now.parse().unwrap(),
                None => changes.push(read_change(text)),
            }
        }
        for change in &changes {
            match change {
                Change::Service(key, Some(service)) => drop(self.services.insert(key.clone(), service.clone())),
                Change::Service(key, None) => drop(self.services.remove(key)),
                Change::Config(config) => self.config = Some(config.clone()),
                Change::Namespace(name, labels) => {
                    self.namespaces.insert(name.clone(), labels.clone().unwrap_or_default());
                }
            }
        }
        self.apply(changes);
    }

    fn apply(&mut self, changes: Vec<Change>) {
        self.last = self.allocator.apply(changes, self.now_s);
        for (key, outcome) in &self.last {
            match outcome {
                Some(outcome) => self.told.insert(key.clone(), outcome.clone()),
                None => self.told.remove(key),
            };
        }
    }

    /// Writes all outcomes to the statuses and all that is to be remembered to the configuration, and lets a new allocator
    /// see what there is.
    fn restart(&mut self) {
        for (key, outcome) in &self.told {
            let Some(service) = self.services.get_mut(key) else { continue };
            let service = Arc::make_mut(service);
            service.ingress.clone_from(&outcome.ips);
            let pool = outcome.pool.as_ref();
            service.annotations.allocated_from_pool =
                pool.map(|p| AnnotationText { value: (**p).into(), deprecated: false });
        }
        let memory = self.allocator.memory();
        if let Some(config) = &mut self.config {
            remember(Arc::make_mut(config), &memory);
        }
        (self.allocator, self.told) = (Allocator::new(None), BTreeMap::new());
        let services = self.services.iter().map(|(k, s)| Change::Service(k.clone(), Some(s.clone())));
        let namespaces = self.namespaces.iter().map(|(n, l)| Change::Namespace(n.clone(), Some(l.clone())));
        let config = self.config.iter().map(|config| Change::Config(config.clone()));
        let changes = services.chain(namespaces).chain(config).collect();
        self.apply(changes);
        assert_eq!(self.allocator.memory(), memory, "what is remembered survives");
    }

    fn facts(&self) -> Vec<String> {
        self.told.keys().map(|key| self.say(key.as_str()).split(" | ").next().unwrap().to_owned()).collect()
    }

    fn check_want(&self, name: &str, want: &[(&str, &str)]) {
        for (key, want) in want {
            let said = self.say(key);
            let mut parts = want.split(" ~ ");
            let facts = parts.next().unwrap();
            assert_eq!(said.split(" | ").next().unwrap(), facts, "{name}: {key}: {said}");
            for part in parts {
                assert!(said.contains(part), "{name}: {key}: {part:?} is missing in {said}");
            }
        }
    }

    /// Every outcome says why, and a refusal says the same as its Event.
    fn check_messages(&self, name: &str) {
        for (key, outcome) in &self.told {
            assert_eq!(outcome.pools.len(), outcome.ips.len(), "{name}: {key}");
            assert!(!outcome.message.is_empty(), "{name}: {key}: {}", outcome.code);
            let words = format!("Failed to allocate IP for {:?}: ", key.as_str());
            for note in outcome.notes.iter().filter(|note| note.reason == "AllocationFailed") {
                assert_eq!(note.message.strip_prefix(&words), Some(&*outcome.message), "{name}: {key}");
            }
        }
    }

    /// What was told last about a Service, in one line.
    fn say(&self, key: &str) -> String {
        let Some(outcome) = self.told.get(&key.parse::<ServiceKey>().unwrap()) else { return "-".to_owned() };
        let ips: Vec<String> = outcome.ips.iter().map(ToString::to_string).collect();
        let ips = if ips.is_empty() { "-".to_owned() } else { ips.join(",") };
        let mut said = format!("{ips} {} {}", outcome.pool.as_deref().unwrap_or("-"), outcome.code);
        write!(said, " | {}", outcome.message).unwrap();
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

/// The configuration as it is read back after a restart.
fn remember(config: &mut Config, memory: &Memory) {
    for pool in config.pools.values_mut() {
        let Some(policy) = &pool.policy else { continue };
        let releases = memory.releases.get(&policy.name).cloned().unwrap_or_default();
        let policy = PoolPolicy { releases: releases.into(), ..(**policy).clone() };
        *pool = Arc::new(Pool { policy: Some(Arc::new(policy)), ..(**pool).clone() });
    }
    for (name, reservation) in &mut config.reservations {
        let holders = memory.holders.get(name).cloned().unwrap_or_default();
        let gone = holders.iter().filter_map(|h| Some((h, h.released_s?)));
        let releases = gone
            .flat_map(|(h, at_s)| h.ips.iter().map(move |ip| Release { at_s, ip: *ip, service: h.service.clone() }));
        *reservation = Arc::new(Reservation { releases: releases.collect(), ..(**reservation).clone() });
    }
    config.index();
}

fn read_config(text: &str) -> Config {
    let mut resources = Resources::default();
    let mut policies = BTreeMap::new();
    let mut rest = Config::default();
    for (age, pool) in (0..).zip(text.split(" / ").filter(|pool| !pool.is_empty())) {
        let (name, words) = pool.split_once(' ').unwrap();
        match name {
            "former" => {
                let (ip, name) = words.split_once('=').unwrap();
                let former = FormerPool { name: name.into(), labels: Labels::default() };
                rest.former.insert(ip.parse().unwrap(), Arc::new(former));
                continue;
            }
            "moved" => {
                let (key, ip) = words.split_once('=').unwrap();
                rest.moved.insert((key.parse().unwrap(), ip.parse().unwrap()));
                continue;
            }
            "res" => {
                let reservation = read_reservation(words);
                rest.reservations.insert(reservation.name.clone(), Arc::new(reservation));
                continue;
            }
            _ => {}
        }
        let (policy, words) = read_policy(name, words);
        policies.insert(Arc::<str>::from(name), policy);
        let key = ObjectKey { kind: "IPAddressPool", name: name.into() };
        let meta = Meta { key: key.clone(), created_s: age, ..Meta::default() };
        let spec = (words != "?").then(|| Spec::Pool(read_pool(&words)));
        resources.objects.insert(key, Arc::new(Resource { meta, spec, ..Resource::default() }));
    }
    let mut config = build(&resources);
    for (name, pool) in &mut config.pools {
        *pool = Arc::new(Pool { policy: policies.remove(name).flatten().map(Arc::new), ..(**pool).clone() });
    }
    (config.former, config.moved, config.reservations) = (rest.former, rest.moved, rest.reservations);
    config.index();
    config
}

fn read_ranges(text: &str) -> Vec<IpRange> {
    let read = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        IpRange { first: first.parse().unwrap(), last: last.parse().unwrap() }
    };
    text.split(',').map(read).collect()
}

fn read_release(text: &str) -> Release {
    let parts: Vec<&str> = text.split('@').collect();
    Release { service: parts[0].parse().unwrap(), ip: parts[1].parse().unwrap(), at_s: parts[2].parse().unwrap() }
}

/// A pool's policy, if any word is about it, and the other words.
fn read_policy(pool: &str, words: &str) -> (Option<PoolPolicy>, String) {
    let none = PoolPolicy {
        name: format!("policy-of-{pool}").into(),
        strategy: Strategy::First,
        quotas: Vec::new(),
        no_new_addresses: Vec::new(),
        addresses_per_family_max: 1,
        pair_with: None,
        sharing: SharingRules::default(),
        releases: Arc::default(),
    };
    let mut policy = none.clone();
    let mut releases = Vec::new();
    let mut others = Vec::new();
    for text in words.split(' ') {
        let (word, value) = text.split_once('=').unwrap_or((text, ""));
        match word {
            "policy" => policy.name = value.into(),
            "lru" => policy.strategy = Strategy::LeastRecentlyUsed,
            "hash" => policy.strategy = Strategy::HashedByName,
            "quota" => {
                let (selector, max) = value.split_once(':').unwrap();
                let (key, value) = selector.split_once('=').unwrap();
                let namespaces = LabelSelector::new([(key.to_owned(), value.to_owned())], []).unwrap();
                policy.quotas.push(Quota { namespaces, addresses_max: max.parse().unwrap() });
            }
            "nonew" => policy.no_new_addresses = read_ranges(value),
            "perfam" => policy.addresses_per_family_max = value.parse().unwrap(),
            "pair" => policy.pair_with = Some(value.into()),
            "samens" => policy.sharing.same_namespace = true,
            "mixed" => policy.sharing.mixed = true,
            "gave" => releases.push(read_release(value)),
            _ => others.push(text),
        }
    }
    policy.releases = releases.into();
    ((policy != none).then_some(policy), others.join(" "))
}

fn read_reservation(text: &str) -> Reservation {
    let mut words = text.split(' ');
    let (name, pool, what) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let reserved = match (what.strip_suffix(":v4"), what.strip_suffix(":v6")) {
        (Some(count), _) => Reserved::Count(count.parse().unwrap(), IpFamily::V4),
        (_, Some(count)) => Reserved::Count(count.parse().unwrap(), IpFamily::V6),
        _ => Reserved::Addresses(read_ranges(what)),
    };
    let mut whom = ReservedFor::default();
    let (mut release_after, mut releases) = (None, Vec::new());
    for word in words {
        let (word, value) = word.split_once('=').unwrap();
        match word {
            "svc" => whom.services.extend(value.split(',').map(|key| key.parse::<ServiceKey>().unwrap())),
            "ns" => whom.namespaces.extend(value.split(',').map(Arc::<str>::from)),
            "svcsel" => {
                let (key, value) = value.split_once('=').unwrap();
                whom.service_selector = Some(LabelSelector::new([(key.to_owned(), value.to_owned())], []).unwrap());
            }
            "after" => release_after = Some(Duration::from_secs(value.parse().unwrap())),
            "gave" => releases.push(read_release(value)),
            other => panic!("no such word: {other}"),
        }
    }
    Reservation {
        name: name.into(),
        pool: pool.into(),
        reserved,
        for_whom: whom,
        release_after,
        releases: releases.into(),
    }
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
            "perfamily" => annotations.addresses_per_family = note(false),
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
