//! A random history of edits: what `plan` makes of it is what the sandbox's actors, sessions and router do.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use ferrocast::plan::{
    self,
    fleet::Fleet,
    json,
    world::{Planner, Settings},
};
use ferrocast_core::decide::DesiredBuilder;
use serde_json::Value;

use super::{Live, WAIT_MAX, dice::Dice};

/// Edits: enough that most kinds of edit follow on most others.
const EDITS: usize = 40;
/// Longer than the sandbox takes to see an edit and to follow it: three readings of the directory.
const SEEN: Duration = Duration::from_millis(700);
/// Seed of the history; another one may be given in this variable.
const SEED: (&str, u64) = ("FERROCAST_PLAN_SEED", 5);
const NODES: [&str; 3] = ["node1", "node2", "node3"];

fn service(dice: &mut Dice, index: usize) -> String {
    let families = dice.pick(&["ipFamilies: [IPv4]", "ipFamilies: [IPv6]", "ipFamilyPolicy: PreferDualStack"]);
    let policy = dice.pick(&["Cluster", "Local"]);
    let wish = match dice.roll(6) {
        0 => format!("metallb.io/address-pool: {}", dice.pick(&["p", "q"])),
        1 => format!("metallb.io/loadBalancerIPs: {}", dice.pick(&["192.0.2.1", "192.0.2.5"])),
        2 => "metallb.io/allow-shared-ip: k".to_owned(),
        _ => String::new(),
    };
    format!(
        "apiVersion: v1\nkind: Service\n\
         metadata: {{name: s{index}, creationTimestamp: \"2026-01-01T00:00:0{index}Z\", annotations: {{{wish}}}}}\n\
         spec: {{type: LoadBalancer, externalTrafficPolicy: {policy}, {families}, ports: [{{port: 8{index}}}]}}\n"
    )
}

fn endpoints(dice: &mut Dice, index: usize) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: s{index}-1, labels: {{kubernetes.io/service-name: s{index}}}}}\nendpoints:\n"
    );
    for node in dice.some(&NODES) {
        text += &format!("- {{addresses: [10.244.{}.1], nodeName: {node}}}\n", &node[4..]);
    }
    if text.ends_with("endpoints:\n") {
        text = text.replace("endpoints:\n", "endpoints: []\n");
    }
    text
}

/// Two pools in one file, so that a range goes from one to the other in one step.
fn pools(dice: &mut Dice) -> String {
    let (mut p, mut q) = (vec!["192.0.2.0/31"], vec!["198.51.100.0/31"]);
    for range in ["192.0.2.4/31", "2001:db8::/127", "192.0.2.8/30"] {
        match dice.roll(3) {
            0 => p.push(range),
            1 => q.push(range),
            _ => {}
        }
    }
    let extra = dice.pick(&["autoAssign: true", "autoAssign: false", "avoidBuggyIPs: true"]);
    let pool = |name: &str, ranges: &[&str], extra: &str| {
        let ranges: Vec<String> = ranges.iter().map(|range| format!("\"{range}\"")).collect();
        format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}, namespace: metallb-system}}\n\
             spec: {{addresses: [{}], {extra}}}\n",
            ranges.join(", ")
        )
    };
    format!("{}---\n{}", pool("p", &p, extra), pool("q", &q, "autoAssign: true"))
}

fn advertisement(dice: &mut Dice) -> String {
    let pools = dice.pick(&["ipAddressPools: [p]", "ipAddressPools: [q]", "ipAddressPools: []"]);
    let nodes = dice.some(&NODES);
    let nodes = if nodes.is_empty() { String::new() } else { format!(", values: [{}]", nodes.join(", ")) };
    let selector = if nodes.is_empty() {
        String::new()
    } else {
        format!(", nodeSelectors: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In{nodes}}}]}}]")
    };
    format!(
        "apiVersion: metallb.io/v1beta1\nkind: BGPAdvertisement\nmetadata: {{name: a, namespace: metallb-system}}\n\
         spec: {{{pools}{selector}}}\n"
    )
}

/// Edits one file of the directory.
fn edit(dice: &mut Dice, dir: &Path) {
    let write = |name: String, text: String| fs::write(dir.join(name), text).unwrap();
    let index = dice.roll(5);
    match dice.roll(8) {
        0..=2 => write(format!("s{index}.yaml"), service(dice, index)),
        3 => write(format!("s{index}-slice.yaml"), endpoints(dice, index)),
        4 | 5 => write("pools.yaml".to_owned(), pools(dice)),
        6 => write("advertisement.yaml".to_owned(), advertisement(dice)),
        _ => drop(fs::remove_file(dir.join(format!("s{index}.yaml")))),
    }
}

/// Per Service and address: the pool, and the nodes that announce it.
type Facts = BTreeMap<(String, String), (String, BTreeSet<String>)>;

fn word(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_default().to_owned()
}

/// What `plan` says, as `plan DIR -o json` prints it, after all that was before.
fn forecast(planner: &mut Planner, dir: &Path) -> Facts {
    let objects = plan::objects_of(&[dir.to_owned()], "metallb-system").unwrap();
    let world = planner.advance(&objects);
    let mut out = Vec::new();
    let none = ferrocast::decider::Announcers::new();
    json::write(&world, &mut Fleet::new(&world, &mut DesiredBuilder::default()), &none, &mut out).unwrap();
    let document: Value = serde_json::from_slice(&out).unwrap();
    let mut facts = Facts::new();
    for row in document["services"].as_array().unwrap() {
        let name = format!("{}/{}", word(row, "namespace"), word(row, "name"));
        for address in row["addresses"].as_array().unwrap() {
            let key = (name.clone(), address.as_str().unwrap().to_owned());
            facts.insert(key, (word(row, "pool"), BTreeSet::new()));
        }
    }
    for row in document["decisions"].as_array().unwrap().iter().filter(|row| row["announce"] == true) {
        let key = (format!("{}/{}", word(row, "namespace"), word(row, "name")), word(row, "address"));
        facts.get_mut(&key).unwrap().1.insert(word(row, "node"));
    }
    facts
}

/// What the sandbox shows; `None`: its router does not know yet what its speakers announce.
fn found(picture: &Value) -> Option<Facts> {
    let mut facts = Facts::new();
    // Several Services may share an address.
    let mut hops: BTreeMap<String, (usize, BTreeSet<String>)> = BTreeMap::new();
    for row in picture["services"].as_array().unwrap().iter().filter(|row| row["address"].is_string()) {
        let from: BTreeSet<String> =
            row["announcedFrom"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect();
        let hops = hops.entry(word(row, "address")).or_default();
        hops.0 = row["nextHops"].as_array().unwrap().len();
        hops.1.extend(from.iter().cloned());
        facts.insert((word(row, "service"), word(row, "address")), (word(row, "pool"), from));
    }
    hops.values().all(|(hops, from)| *hops == from.len()).then_some(facts)
}

#[test]
fn what_plan_makes_of_a_random_history_is_what_the_sandbox_does() {
    let dir = tempfile::tempdir().unwrap();
    let seed = std::env::var(SEED.0).ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED.1);
    let mut dice = Dice(seed);
    for name in NODES {
        let node = format!("kind: Node\nmetadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}}}}}\n");
        fs::write(dir.path().join(format!("{name}.yaml")), node).unwrap();
    }
    fs::write(dir.path().join("pools.yaml"), pools(&mut dice)).unwrap();
    fs::write(dir.path().join("advertisement.yaml"), advertisement(&mut dice)).unwrap();
    let mut planner = Planner::new(Settings::default());
    let mut before = forecast(&mut planner, dir.path());
    let live = Live::start(dir.path(), &["--endpoints", "files"]);
    let mut last = live.wait("first picture", |_| true);
    let mut changes = 0;
    for number in 0..EDITS {
        edit(&mut dice, dir.path());
        let wanted = forecast(&mut planner, dir.path());
        changes += usize::from(wanted != before);
        let (seen_at, deadline) = (Instant::now() + SEEN, Instant::now() + WAIT_MAX);
        loop {
            if let Ok(picture) = live.pictures.recv_timeout(SEEN / 4) {
                last = picture;
            }
            if Instant::now() >= seen_at && found(&last).as_ref() == Some(&wanted) {
                break;
            }
            assert!(Instant::now() < deadline, "edit {number}: forecast {wanted:#?}, the sandbox shows {last:#}");
        }
        before = wanted;
    }
    assert!(changes > EDITS / 5, "hardly anything happened: {changes} changes");
}
