//! The conditions that a Service should have. Pure.
use std::{collections::BTreeMap, sync::Arc};

use ferrocast_core::{
    alloc::Outcome,
    config::{BGP, Config},
    decide::{AddressDecision, Context, Decision, Party, Reason, decide_among, message},
    model::{Endpoints, Node, NodeId, Service, ServiceCondition, TrafficPolicy},
};
use imbl::OrdMap;

use super::SpeakerBrief;

/// Whether any node announces it, and to whom it matters why not.
pub const ANNOUNCED: &str = "ferrocast.io/Announced";
/// It has an address to which an edit of the configuration took the right: present only then.
pub const HELD: &str = "ferrocast.io/AddressHeld";
/// Its status has an address that never was ours to give: present only then.
pub const NOT_OURS: &str = "ferrocast.io/AddressNotOurs";
/// Codes of the allocator that have a condition of their own.
const CODE_NOT_OURS: &str = "addressNotOurs";
/// Nodes named in a message.
const NODES_NAMED_MAX: usize = 5;
/// Longest message, octets: far below the API server's 32 KiB, and readable.
const MESSAGE_LEN_MAX: usize = 1024;

/// What the conditions of every Service depend on.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Class served.
    pub class: Option<Arc<str>>,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// All nodes.
    pub nodes: OrdMap<Arc<str>, Arc<Node>>,
    /// What the speakers say; `None`: the cluster has no such objects.
    pub speakers: Option<OrdMap<Arc<str>, SpeakerBrief>>,
}

/// A Service that shares an address, its serving endpoints anywhere, and the nodes that have some.
pub type Other = (Arc<Service>, u32, Arc<[NodeId]>);

/// A Service, and those that share an address with it under different traffic policies.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The Service.
    pub service: &'a Service,
    /// What the allocator says.
    pub outcome: &'a Outcome,
    /// Its serving endpoints anywhere, and the nodes that have some.
    pub endpoints: (u32, &'a [NodeId]),
    /// The others, with their endpoints.
    pub others: &'a [Other],
}

fn party<'a>(service: &'a Service, anywhere: u32, nodes: &'a [NodeId], node: NodeId) -> Party<'a> {
    let here = u32::from(nodes.binary_search(&node).is_ok());
    Party { service, endpoints: Endpoints { here, anywhere }, nodes }
}

/// The conditions, in order of type.
#[must_use]
pub fn conditions(subject: &Subject<'_>, around: &Circumstances) -> Vec<ServiceCondition> {
    let outcome = subject.outcome;
    let mut all = Vec::with_capacity(2);
    if !outcome.held.is_empty() {
        let list = outcome.held.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        all.push(condition(HELD, true, "held", format!("{list}: {}", outcome.message)));
    }
    if outcome.code == CODE_NOT_OURS {
        all.push(condition(NOT_OURS, true, CODE_NOT_OURS, outcome.message.clone()));
    }
    all.push(announced(subject, around));
    all.sort();
    all
}

fn condition(kind: &str, status: bool, reason: &str, mut message: String) -> ServiceCondition {
    if message.len() > MESSAGE_LEN_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_LEN_MAX - 3));
        message.push_str("...");
    }
    let status = if status { "True" } else { "False" };
    ServiceCondition { kind: kind.into(), status: status.into(), reason: reason.into(), message: message.into() }
}

/// Nodes by what is decided there.
#[derive(Default)]
struct Tally<'a> {
    /// Nodes that announce every address, and have a session.
    announcing: Vec<&'a str>,
    /// Nodes that would, but have no session.
    unconnected: Vec<&'a str>,
    drained: usize,
    /// The reason of the other nodes: how many, and the words of the first.
    refused: BTreeMap<Reason, (usize, String)>,
}

fn announced(subject: &Subject<'_>, around: &Circumstances) -> ServiceCondition {
    let outcome = subject.outcome;
    if outcome.ips.is_empty() {
        return condition(ANNOUNCED, false, outcome.code, outcome.message.clone());
    }
    let tally = tally(subject, around);
    let (nodes, all) = (tally.announcing.len(), around.nodes.len());
    if nodes > 0 {
        let mut words = format!("by {} of {all} nodes: {}", nodes, named(&tally.announcing));
        if tally.drained > 0 {
            words.push_str(&format!("; {} of them drained", tally.drained));
        }
        if !tally.unconnected.is_empty() {
            words.push_str(&format!("; without a session: {}", named(&tally.unconnected)));
        }
        return condition(ANNOUNCED, true, Reason::Announced.code(), words);
    }
    if !tally.unconnected.is_empty() {
        let words = format!("no node that should announce it has a session: {}", named(&tally.unconnected));
        return condition(ANNOUNCED, false, "noSession", words);
    }
    // The reason that came nearest to a yes.
    match tally.refused.into_iter().next_back() {
        Some((reason, (count, words))) if count == all => condition(ANNOUNCED, false, reason.code(), words),
        Some((reason, (count, words))) => {
            condition(ANNOUNCED, false, reason.code(), format!("on {count} of {all} nodes: {words}"))
        }
        None => condition(ANNOUNCED, false, "noNodes", "the cluster has no nodes".to_owned()),
    }
}

fn named(nodes: &[&str]) -> String {
    let mut list = nodes.iter().take(NODES_NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    if nodes.len() > NODES_NAMED_MAX {
        list.push_str(" …");
    }
    list
}

fn tally<'a>(subject: &Subject<'_>, around: &'a Circumstances) -> Tally<'a> {
    let mut tally = Tally::default();
    let mut context = Context {
        class: around.class.clone(),
        announcer: BGP.into(),
        node: Arc::default(),
        config: around.config.clone(),
        ignore_exclude_label: false,
    };
    let (anywhere, nodes) = subject.endpoints;
    let announcers = announcers(&around.config);
    for (name, node) in &around.nodes {
        context.node.clone_from(node);
        let id = NodeId::of(name);
        let own = party(subject.service, anywhere, nodes, id);
        let others: Vec<Party<'_>> = subject.others.iter().map(|(s, n, on)| party(s, *n, on, id)).collect();
        let none = SpeakerBrief::default();
        let brief = around.speakers.as_ref().map(|all| all.get(name).unwrap_or(&none));
        // Of the node's announcers, the one that is nearest to a yes.
        let mut best: Option<(Reason, bool, Arc<str>, AddressDecision)> = None;
        for announcer in &announcers {
            context.announcer.clone_from(announcer);
            let decision = decide_among(own, &others, &context);
            let Some(worst) = worst(&decision) else { continue };
            let reaches = worst.reason == Reason::Announced && brief.is_none_or(|brief| brief.reaches(announcer));
            if best.as_ref().is_none_or(|best| (best.0, best.1) < (worst.reason, reaches)) {
                best = Some((worst.reason, reaches, announcer.clone(), worst.clone()));
            }
        }
        match best {
            None => {}
            Some((Reason::Announced, false, ..)) => tally.unconnected.push(name),
            Some((Reason::Announced, true, ..)) => {
                tally.announcing.push(name);
                tally.drained += usize::from(brief.is_some_and(|b| b.drained));
            }
            Some((reason, _, announcer, address)) => {
                context.announcer = announcer;
                let entry = tally.refused.entry(reason);
                entry.or_insert_with(|| (0, message(&address, own, &others, &context))).0 += 1;
            }
        }
    }
    tally
}

/// The announcers that could announce a Service: BGP, and those that have an Advertisement.
fn announcers(config: &Config) -> Vec<Arc<str>> {
    let others = config.announcers.iter().filter(|(_, class)| !class.advertisements.is_empty());
    std::iter::once(BGP.into()).chain(others.map(|(name, _)| name.clone())).collect()
}

/// The decision on the address that is worst off.
fn worst(decision: &Decision) -> Option<&AddressDecision> {
    decision.addresses.iter().min_by_key(|a| a.reason)
}

/// Does the condition depend on which nodes have endpoints, rather than on whether there are any?
#[must_use]
pub fn depends_on_nodes(service: &Service) -> bool {
    service.traffic_policy == TrafficPolicy::Local
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrocast_core::config::{Advertisement, IpRange, Pool};
    use std::net::IpAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn around(nodes: &[(&str, &str)], speakers: Option<&[(&str, bool, bool)]>) -> Circumstances {
        let range = IpRange { first: ip("10.0.0.0"), last: ip("10.0.0.9") };
        let pool = Pool {
            name: "p".into(),
            labels: Default::default(),
            ranges: vec![range],
            written: vec![range],
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: None,
            policy: None,
        };
        let everything = Advertisement {
            name: "all".into(),
            aggregation_length_v4: 32,
            aggregation_length_v6: 128,
            local_pref: None,
            communities: Default::default(),
            pools: Default::default(),
            pool_selectors: Vec::new(),
            node_selectors: Vec::new(),
            peers: Default::default(),
            service_selectors: Vec::new(),
            parameters: None,
        };
        let config = Config {
            pools: [("p".into(), Arc::new(pool))].into(),
            advertisements: [("all".into(), Arc::new(everything))].into(),
            ..Config::default()
        };
        let node = |(name, label): &(&str, &str)| {
            let labels = if label.is_empty() { Default::default() } else { [(*label, "")].into_iter().collect() };
            (Arc::from(*name), Arc::new(Node { name: (*name).into(), labels, ..Node::default() }))
        };
        let speaker = |(name, connected, drained): &(&str, bool, bool)| {
            (Arc::from(*name), SpeakerBrief { connected: *connected, drained: *drained, ..SpeakerBrief::default() })
        };
        Circumstances {
            class: None,
            config: Arc::new(config),
            nodes: nodes.iter().map(node).collect(),
            speakers: speakers.map(|all| all.iter().map(speaker).collect()),
        }
    }

    fn shown(conditions: &[ServiceCondition]) -> Vec<String> {
        conditions.iter().map(|c| format!("{}={} {}: {}", c.kind, c.status, c.reason, c.message)).collect()
    }

    fn of(ingress: &[&str], outcome: &Outcome, local: bool, around: &Circumstances) -> Vec<String> {
        let mut service = Service::load_balancer("d", "web");
        service.ingress = ingress.iter().map(|text| ip(text)).collect();
        if local {
            service.traffic_policy = TrafficPolicy::Local;
        }
        let on = [NodeId::of("n1")];
        let subject = Subject { service: &service, outcome, endpoints: (1, &on), others: &[] };
        shown(&conditions(&subject, around))
    }

    fn allocated() -> Outcome {
        Outcome { ips: vec![ip("10.0.0.1")], code: "allocated", ..Outcome::default() }
    }

    #[test]
    fn announced_names_the_nodes_that_do() {
        let two = around(&[("n1", ""), ("n2", "")], Some(&[("n1", true, false), ("n2", true, true)]));
        let at = ["10.0.0.1"];
        let all = of(&at, &allocated(), false, &two);
        assert_eq!(all, ["ferrocast.io/Announced=True announced: by 2 of 2 nodes: n1, n2; 1 of them drained"]);
        let local = of(&at, &allocated(), true, &two);
        assert_eq!(local, ["ferrocast.io/Announced=True announced: by 1 of 2 nodes: n1"]);
        let half = around(&[("n1", ""), ("n2", "")], Some(&[("n1", true, false)]));
        let words = of(&at, &allocated(), false, &half);
        assert_eq!(words, ["ferrocast.io/Announced=True announced: by 1 of 2 nodes: n1; without a session: n2"]);
        let unknown = around(&[("n1", ""), ("n2", "")], None);
        assert!(of(&at, &allocated(), false, &unknown)[0].contains("by 2 of 2 nodes"));
    }

    #[test]
    fn not_announced_says_why_by_the_reason_nearest_to_a_yes() {
        let excluded = "node.kubernetes.io/exclude-from-external-load-balancers";
        let at = ["10.0.0.1"];
        let none = around(&[("n1", "")], Some(&[]));
        assert!(of(&at, &allocated(), false, &none)[0].starts_with("ferrocast.io/Announced=False noSession: "));
        let mixed = around(&[("n1", excluded), ("n2", "")], None);
        let words = of(&at, &allocated(), true, &mixed);
        assert!(words[0].starts_with("ferrocast.io/Announced=False noLocalEndpoints: on 1 of 2 nodes: "), "{words:?}");
        let waiting = Outcome { code: "poolExhausted", message: "no available IPs".to_owned(), ..Outcome::default() };
        assert_eq!(of(&[], &waiting, false, &mixed), ["ferrocast.io/Announced=False poolExhausted: no available IPs"]);
        assert!(of(&at, &allocated(), false, &around(&[], None))[0].contains("noNodes"));
    }

    #[test]
    fn held_and_foreign_addresses_have_conditions_of_their_own() {
        let around = around(&[("n1", "")], None);
        let held = Outcome {
            held: vec![ip("10.0.0.1")],
            code: "held",
            message: "pool \"q\" does not contain it any more".to_owned(),
            ..allocated()
        };
        let all = of(&["10.0.0.1"], &held, false, &around);
        assert_eq!(all[0], "ferrocast.io/AddressHeld=True held: 10.0.0.1: pool \"q\" does not contain it any more");
        let foreign = Outcome { ips: vec![ip("192.0.2.1")], code: CODE_NOT_OURS, ..Outcome::default() };
        let all = of(&["192.0.2.1"], &foreign, false, &around);
        assert!(all[0].starts_with("ferrocast.io/AddressNotOurs=True"), "{all:?}");
        assert!(all[1].contains("False ipNotAllowed"), "{all:?}");
    }
}
