//! One explanation of what many say.
use std::collections::BTreeMap;

use crate::explain::{Explanation, Fact, ServiceExplained, Subject, told};

/// What was answered.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// By the controller.
    pub(super) controller: Option<Explanation>,
    /// By speakers, in no order.
    pub(super) speakers: Vec<Explanation>,
    /// Who has not, and why.
    pub(super) unanswered: Vec<Fact>,
}

impl Answers {
    /// Nobody has.
    pub(super) fn is_empty(&self) -> bool {
        self.controller.is_none() && self.speakers.is_empty()
    }
}

/// Puts the answers together: of the controller the allocation, of the speakers the rest.
pub(super) fn merge(subject: &Subject, answers: Answers) -> Explanation {
    let Answers { controller, speakers, mut unanswered } = answers;
    unanswered.sort_by(|a, b| (&a.message, &a.code).cmp(&(&b.message, &b.code)));
    let allocation_known = controller.is_some();
    let asked = speakers.len();
    let mut merged = controller.unwrap_or_default();
    merged.subject = subject.to_string();
    merged.unanswered = unanswered;
    let mut services: BTreeMap<(String, String), ServiceExplained> = BTreeMap::new();
    for service in std::mem::take(&mut merged.services) {
        services.insert((service.namespace.clone(), service.name.clone()), service);
    }
    for told in speakers {
        // Of a Service or address the controller has the facts; all speakers say the same of a peer.
        if matches!(subject, Subject::Node(_)) {
            merged.facts.extend(told.facts);
        }
        merged.sessions.extend(told.sessions);
        for service in told.services {
            let known = services.entry((service.namespace.clone(), service.name.clone()));
            let known = known.or_insert_with(|| ServiceExplained {
                reason: allocation(allocation_known),
                nodes: Vec::new(),
                ..service.clone()
            });
            known.nodes.extend(service.nodes);
        }
    }
    merged.services = services.into_values().collect();
    for service in &mut merged.services {
        service.nodes.sort_by(|a, b| (a.address, &a.node, &a.announcer).cmp(&(b.address, &b.node, &b.announcer)));
    }
    merged.sessions.sort_by(|a, b| (&a.node, &a.peer).cmp(&(&b.node, &b.peer)));
    if merged.facts.is_empty() {
        merged.facts = match subject {
            Subject::Peer(_) if asked > 0 => of_peer(&merged, asked),
            Subject::Node(_) | Subject::Peer(_) => vec![Fact::new("unknown", "no speaker of it has answered")],
            Subject::Service(_) | Subject::Address(_) => vec![allocation(allocation_known)],
        };
    }
    merged
}

/// What stands for the allocation of a Service that the controller did not tell of.
fn allocation(answered: bool) -> Fact {
    match answered {
        true => Fact::new("waiting", "the controller does not know the Service yet"),
        false => Fact::new("unknown", "the controller has not answered: nothing is known of pools and allocation"),
    }
}

fn of_peer(merged: &Explanation, nodes: usize) -> Vec<Fact> {
    let wanted = merged.sessions.iter().filter(|session| session.desired).count();
    let mut facts = vec![told::wanted_sessions(wanted, nodes)];
    if wanted > 0 && merged.sessions.iter().all(|session| session.routes == 0) {
        facts.push(told::no_routes());
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{NodeExplained, PoolExplained, SessionExplained};

    fn of_controller(code: &str) -> Explanation {
        let service = ServiceExplained {
            namespace: "d".into(),
            name: "web".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            pool: Some("p".into()),
            reason: Fact::new(code, ""),
            pools: vec![PoolExplained { pool: "p".into(), reason: Fact::new(code, "") }],
            ..ServiceExplained::default()
        };
        Explanation { facts: vec![Fact::new(code, "")], services: vec![service], ..Explanation::default() }
    }

    fn of_speaker(node: &str, code: &str) -> Explanation {
        let decided = |ip: &str| NodeExplained {
            node: node.into(),
            address: Some(ip.parse().unwrap()),
            reason: Fact::new(code, ""),
            ..NodeExplained::default()
        };
        let service = ServiceExplained {
            namespace: "d".into(),
            name: "web".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            nodes: vec![decided("2001:db8::1"), decided("192.0.2.1")],
            ..ServiceExplained::default()
        };
        let session =
            SessionExplained { node: node.into(), peer: "r1".into(), desired: true, ..SessionExplained::default() };
        Explanation {
            facts: vec![Fact::new("announcing", "")],
            services: vec![service],
            sessions: vec![session],
            ..Explanation::default()
        }
    }

    fn service() -> Subject {
        Subject::Service("d/web".parse().unwrap())
    }

    #[test]
    fn speakers_decisions_stand_below_the_controllers_allocation() {
        let answers = Answers {
            controller: Some(of_controller("allocated")),
            speakers: vec![of_speaker("n2", "announced"), of_speaker("n1", "noLocalEndpoints")],
            unanswered: vec![Fact::new("notReached", "n4"), Fact::new("notReached", "n3")],
        };
        let merged = merge(&service(), answers);
        assert_eq!((&*merged.subject, &*merged.facts), ("service d/web", &[Fact::new("allocated", "")][..]));
        let [one] = &*merged.services else { panic!("{merged:?}") };
        assert_eq!((one.pools.len(), one.reason.code.as_str()), (1, "allocated"));
        let order: Vec<String> = one.nodes.iter().map(|n| format!("{} {}", n.node, n.address.unwrap())).collect();
        assert_eq!(order, ["n1 192.0.2.1", "n2 192.0.2.1", "n1 2001:db8::1", "n2 2001:db8::1"]);
        let missing: Vec<&str> = merged.unanswered.iter().map(|fact| &*fact.message).collect();
        assert_eq!(missing, ["n3", "n4"]);
    }

    #[test]
    fn what_is_missing_without_the_controller_is_said() {
        let answers = Answers { speakers: vec![of_speaker("n1", "announced")], ..Answers::default() };
        let merged = merge(&service(), answers);
        assert_eq!((&*merged.facts[0].code, &*merged.services[0].reason.code), ("unknown", "unknown"));
        assert_eq!(merged.services[0].nodes.len(), 2);
    }

    #[test]
    fn facts_of_a_node_are_its_own_and_those_of_a_peer_are_counted() {
        let answers = |speakers| Answers { controller: Some(Explanation::default()), speakers, ..Answers::default() };
        let node = merge(&Subject::Node("n1".into()), answers(vec![of_speaker("n1", "announced")]));
        assert_eq!(node.facts, [Fact::new("announcing", "")]);
        let peer = answers(vec![of_speaker("n2", "x"), of_speaker("n1", "x")]);
        let peer = merge(&Subject::Peer("r1".into()), peer);
        let codes: Vec<&str> = peer.facts.iter().map(|fact| &*fact.code).collect();
        assert_eq!(codes, ["wanted", "noRoutes"]);
        assert_eq!(peer.facts[0].message, "2 nodes have a session with it");
        assert_eq!(peer.sessions[0].node, "n1");
        for silent in [Subject::Node("n1".into()), Subject::Peer("r1".into())] {
            assert_eq!(merge(&silent, answers(vec![])).facts[0].code, "unknown", "{silent}");
        }
    }

    #[test]
    fn what_the_controller_knows_of_a_missing_subject_stands() {
        let answer = Explanation { facts: vec![Fact::new("notFound", "x")], ..Explanation::default() };
        let answers = Answers { controller: Some(answer), ..Answers::default() };
        assert_eq!(merge(&service(), answers).facts, [Fact::new("notFound", "x")]);
    }
}
