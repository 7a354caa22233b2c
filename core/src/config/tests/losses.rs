//! Living addresses that an edit takes away.
use imbl::OrdMap;

use super::*;
use crate::model::Service;

/// Services and Namespaces.
#[derive(Clone, Default)]
struct Cluster {
    services: OrdMap<ServiceKey, Arc<Service>>,
    namespaces: OrdMap<Arc<str>, Arc<Labels>>,
}

impl Cluster {
    fn service(mut self, key: &str, ips: &[&str]) -> Self {
        let key: ServiceKey = key.parse().unwrap();
        let mut service = Service::load_balancer(key.namespace(), key.name());
        service.ingress = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self.services.insert(key, Arc::new(service));
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.services.remove(&key.parse::<ServiceKey>().unwrap());
        self
    }

    fn namespace(mut self, name: &str, team: &str) -> Self {
        self.namespaces.insert(name.into(), Arc::new([("team", team)].into_iter().collect()));
        self
    }

    fn living(&self) -> Living<'_> {
        Living { services: &self.services, namespaces: &self.namespaces, class: None }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What is held (address and pool) and what is to move.
fn state(config: &Config) -> (Vec<String>, Vec<String>) {
    let held = config.former.iter().map(|(ip, pool)| format!("{ip} of {}", pool.name)).collect();
    (held, config.moved.iter().map(|(service, ip)| format!("{service} {ip}")).collect())
}

/// Lets `after` come into force after `before`.
fn pass(before: (&Config, &World, &Cluster), after: &World, now: &Cluster, default: OnAddressLoss) -> (Config, Losses) {
    let (config, world, then) = before;
    let past = Past { config, resources: &world.resources, namespaces: &then.namespaces };
    let mut built = after.build();
    let lost = carry_over(&past, &mut built, &after.resources, &now.living(), default);
    (built, lost)
}

fn for_team(addresses: &[&str], team: &str) -> Option<Spec> {
    let allocation = ServiceAllocationSpec { namespace_selectors: vec![selector("team", team)], ..Default::default() };
    Some(Spec::Pool(PoolSpec { service_allocation: Some(allocation), ..pool(addresses) }))
}

#[test]
fn losses_say_who_loses_what_and_why() {
    use LossReason::{NotForService, OutsidePool, PoolGone};
    let cluster = Cluster::default().service("a/x", &["10.0.0.1", "fc00::1"]).service("b/y", &["10.0.0.200"]);
    let before = World::new().pool("p", 0, &["10.0.0.0/24", "fc00::/120"]);
    for (after, want) in [
        (before.clone(), vec![]),
        (World::new().pool("new-name", 0, &["10.0.0.0/24", "fc00::/120"]), vec![]),
        (
            World::new(),
            vec![("a/x", "10.0.0.1", PoolGone), ("a/x", "fc00::1", PoolGone), ("b/y", "10.0.0.200", PoolGone)],
        ),
        (before.clone().pool("p", 0, &["10.0.0.0/25", "fc00::/120"]), vec![("b/y", "10.0.0.200", OutsidePool)]),
        (World::new().pool("p", 0, &["10.0.0.0/25"]).pool("q", 0, &["10.0.0.128/25", "fc00::/120"]), vec![]),
        (
            before.clone().with("IPAddressPool", "p", 0, for_team(&["10.0.0.0/24", "fc00::/120"], "blue")),
            vec![
                ("a/x", "10.0.0.1", NotForService),
                ("a/x", "fc00::1", NotForService),
                ("b/y", "10.0.0.200", NotForService),
            ],
        ),
        (before.clone().with("IPAddressPool", "p", 0, None), vec![]),
    ] {
        let lost = losses(&before.build(), &after.build(), &cluster.living());
        let got: Vec<_> = lost.0.iter().map(|l| (l.service.as_str(), l.ip, l.why)).collect();
        let want: Vec<_> = want.into_iter().map(|(service, text, why)| (service, ip(text), why)).collect();
        assert_eq!(got, want);
        assert!(lost.0.iter().all(|l| &*l.pool == "p" && l.causes[0].name == l.pool));
    }
}

#[test]
fn services_that_are_not_ours_or_had_no_right_lose_nothing() {
    let mut cluster = Cluster::default().service("a/other", &["10.9.9.9"]).service("a/class", &["10.0.0.1"]);
    let class: ServiceKey = "a/class".parse().unwrap();
    let foreign = Service { class: Some("cloud".into()), ..(*cluster.services[&class]).clone() };
    cluster.services.insert(class, Arc::new(foreign));
    let before = World::new().pool("p", 0, &["10.0.0.0/24"]).build();
    assert!(losses(&before, &Config::default(), &cluster.living()).is_empty());
    let theirs = Living { class: Some("cloud"), ..cluster.living() };
    assert_eq!(losses(&before, &Config::default(), &theirs).0.len(), 1);
}

#[test]
fn digest_names_exactly_one_set() {
    let before = World::new().pool("p", 0, &["10.0.0.0/24"]).build();
    let of = |cluster: Cluster| losses(&before, &Config::default(), &cluster.living());
    let one = of(Cluster::default().service("a/x", &["10.0.0.1"]));
    // printf 'a/x 10.0.0.1\n' | sha256sum
    assert_eq!(one.digest(), "bbb60be35630");
    let two = of(Cluster::default().service("b/y", &["10.0.0.2"]).service("a/x", &["10.0.0.1"]));
    // printf 'a/x 10.0.0.1\nb/y 10.0.0.2\n' | sha256sum
    assert_eq!(two.digest(), "034d99c4ab69");
    assert_eq!(Wish::parse(&Wish::to_move(&two)), Some(Wish::Move(two.digest())));
    assert_eq!(Wish::parse("hold"), Some(Wish::Hold));
    for text in ["", "move", "move-", "move-123", "move-0123456789abc", "move-0123456789ag", "Hold"] {
        assert_eq!(Wish::parse(text), None, "{text}");
    }
}

#[test]
fn lost_addresses_are_held_until_their_service_or_their_pool_says_otherwise() {
    let cluster = Cluster::default().service("a/x", &["10.0.0.1"]).service("b/y", &["10.0.0.200"]);
    let first = World::new().pool("p", 0, &["10.0.0.0/24"]);
    let none = World::new();
    let (held, lost) = pass((&first.build(), &first, &cluster), &none, &cluster, OnAddressLoss::Deny);
    assert_eq!(lost.0.len(), 2);
    assert_eq!(state(&held).0, ["10.0.0.1 of p", "10.0.0.200 of p"]);
    assert_eq!(held.former[&ip("10.0.0.1")].labels.get("name"), Some("p"));
    let fewer = cluster.clone().without("b/y");
    let (still, lost) = pass((&held, &none, &cluster), &none, &fewer, OnAddressLoss::Move);
    assert!(lost.is_empty(), "nothing is lost twice");
    assert_eq!(state(&still), (strings(&["10.0.0.1 of p"]), vec![]));
    let renamed = World::new().pool("q", 0, &["10.0.0.0/24"]);
    let (again, lost) = pass((&still, &none, &fewer), &renamed, &fewer, OnAddressLoss::Deny);
    assert!(lost.is_empty());
    assert_eq!(state(&again), (vec![], vec![]));
}

#[test]
fn pool_that_became_unreadable_takes_nothing_away() {
    let cluster = Cluster::default().service("a/x", &["10.0.0.1"]);
    let first = World::new().pool("p", 0, &["10.0.0.0/24"]);
    let broken = first.clone().with("IPAddressPool", "p", 0, None);
    let (config, lost) = pass((&first.build(), &first, &cluster), &broken, &cluster, OnAddressLoss::Move);
    assert!(lost.is_empty() && config.pools_unknown.contains_key("p"));
    assert_eq!(state(&config), (vec![], vec![]));
}

#[test]
fn lost_addresses_move_when_the_default_or_the_right_digest_says_so() {
    let cluster = Cluster::default().service("a/x", &["10.0.0.1"]).service("b/y", &["10.0.0.200"]);
    let first = World::new().pool("p", 0, &["10.0.0.0/24"]);
    let (before, after) = (first.build(), first.clone().pool("p", 0, &["10.0.0.0/25"]));
    let digest = losses(&before, &after.build(), &cluster.living()).digest();
    let says =
        |world: World, text: &str| world.meta("IPAddressPool", "p", |meta| meta.on_address_loss = Some(text.into()));
    let (held, moved) = ((strings(&["10.0.0.200 of p"]), vec![]), (vec![], strings(&["b/y 10.0.0.200"])));
    let right = format!("move-{digest}");
    for (name, after, default, want) in [
        ("denied, and came all the same", after.clone(), OnAddressLoss::Deny, &held),
        ("default hold", after.clone(), OnAddressLoss::Hold, &held),
        ("default move", after.clone(), OnAddressLoss::Move, &moved),
        ("this set", says(after.clone(), &right), OnAddressLoss::Deny, &moved),
        ("another set", says(after.clone(), "move-0123456789ab"), OnAddressLoss::Deny, &held),
        ("hold is stronger than the default", says(after.clone(), "hold"), OnAddressLoss::Move, &held),
    ] {
        let (config, _) = pass((&before, &first, &cluster), &after, &cluster, default);
        assert_eq!(&state(&config), want, "{name}");
    }
    // Of a deleted object its last version speaks.
    let all = losses(&before, &Config::default(), &cluster.living());
    let marked = says(first.clone(), &Wish::to_move(&all));
    let (config, _) = pass((&marked.build(), &marked, &cluster), &World::new(), &cluster, OnAddressLoss::Deny);
    assert_eq!(config.moved.len(), 2);
    // What another object asks for that did not change is not heard.
    let bystander = |world: World| {
        let other = world.pool("q", 0, &["10.9.0.0/24"]);
        other.meta("IPAddressPool", "q", |meta| meta.on_address_loss = Some(right.as_str().into()))
    };
    let (first, after) = (bystander(first), bystander(after));
    let (config, _) = pass((&first.build(), &first, &cluster), &after, &cluster, OnAddressLoss::Deny);
    assert_eq!(state(&config), held);
}

#[test]
fn edits_that_are_seen_at_once_are_asked_one_by_one() {
    let cluster = Cluster::default().service("a/x", &["10.0.0.1"]).service("b/y", &["10.1.0.1"]);
    let first = World::new().pool("p", 0, &["10.0.0.0/24"]).pool("q", 0, &["10.1.0.0/24"]);
    let without_p = losses(&first.build(), &first.clone().without("IPAddressPool", "p").build(), &cluster.living());
    let first = first.meta("IPAddressPool", "p", |meta| meta.on_address_loss = Some(Wish::to_move(&without_p).into()));
    let (config, lost) = pass((&first.build(), &first, &cluster), &World::new(), &cluster, OnAddressLoss::Deny);
    assert_eq!(lost.0.len(), 2);
    assert_eq!(state(&config), (strings(&["10.1.0.1 of q"]), strings(&["a/x 10.0.0.1"])));
}

#[test]
fn moved_addresses_are_remembered_until_they_are_given_up() {
    let cluster = Cluster::default().service("a/x", &["10.0.0.1"]);
    let first = World::new().pool("p", 0, &["10.0.0.0/24"]);
    let other = World::new().pool("q", 0, &["10.1.0.0/24"]);
    let (config, _) = pass((&first.build(), &first, &cluster), &other, &cluster, OnAddressLoss::Move);
    let (config, _) = pass((&config, &other, &cluster), &other, &cluster, OnAddressLoss::Move);
    assert_eq!(state(&config), (vec![], strings(&["a/x 10.0.0.1"])), "a second pass changes nothing");
    let (back, _) = pass((&config, &other, &cluster), &first, &cluster, OnAddressLoss::Move);
    assert_eq!(state(&back), (vec![], vec![]), "the right to it came back");
    let given_up = Cluster::default().service("a/x", &["10.1.0.7"]);
    let (done, _) = pass((&config, &other, &cluster), &other, &given_up, OnAddressLoss::Move);
    assert_eq!(state(&done), (vec![], vec![]));
}

#[test]
fn namespace_that_is_relabelled_loses_addresses_of_pools_for_others() {
    let world = World::new().with("IPAddressPool", "p", 0, for_team(&["10.0.0.0/24"], "red"));
    let then = Cluster::default().namespace("a", "red").service("a/x", &["10.0.0.1"]);
    let now = then.clone().namespace("a", "blue");
    for (default, moved) in [(OnAddressLoss::Hold, vec![]), (OnAddressLoss::Move, strings(&["a/x 10.0.0.1"]))] {
        let (config, lost) = pass((&world.build(), &world, &then), &world, &now, default);
        assert_eq!(lost.0[0].why, LossReason::NotForService);
        assert_eq!(lost.0[0].causes.iter().map(|c| c.kind).collect::<Vec<_>>(), ["IPAddressPool", "Namespace"]);
        assert_eq!(state(&config), (vec![], moved), "the pool still has the address");
    }
    // Then the pool goes: it is held on, and not lost again.
    let (config, lost) = pass((&world.build(), &world, &now), &World::new(), &now, OnAddressLoss::Move);
    assert!(lost.is_empty());
    assert_eq!(state(&config).0, ["10.0.0.1 of p"]);
}
