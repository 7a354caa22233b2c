//! What the leading controller knows of a subject: the allocation, with every pool considered, and the configuration in force.
use std::sync::Arc;

use async_trait::async_trait;
use ferrocast_core::{
    alloc::Considered,
    config::Severity,
    decide::Reason,
    model::{Service, ServiceKey},
    view::ClusterView,
};
use tokio::sync::watch;

use super::{Explanation, Fact, ServiceExplained, Subject, serve::Explainer, told};
use crate::allocator::{AllocatorHandle, CONTROLLER_SOURCES, Plan};

/// Problems of the configuration told; `ferrocast validate` and ConfigurationState have all.
const PROBLEMS_MAX: usize = 100;

/// Explains what the controller does.
pub struct ControllerExplainer {
    /// Class served.
    pub class: Option<Arc<str>>,
    /// What is allocated from.
    pub view: watch::Receiver<ClusterView>,
    /// What is allocated.
    pub plan: watch::Receiver<Plan>,
    /// Who allocates.
    pub allocator: AllocatorHandle,
}

#[async_trait]
impl Explainer for ControllerExplainer {
    async fn explain(&self, subject: &Subject) -> Result<Explanation, String> {
        let view = self.view.borrow().clone();
        let plan = self.plan.borrow().clone();
        if plan.term == 0 || view.epoch_of(CONTROLLER_SOURCES) == 0 {
            return Err("this replica does not lead: ask again in a few seconds".to_owned());
        }
        let snapshot = Snapshot { class: self.class.as_deref(), view, plan };
        let holders = snapshot.holders(subject);
        let mut explanation = snapshot.explain(subject, &holders);
        for key in holders {
            let considered = self.allocator.considered(key.clone()).await?;
            explanation.services.extend(snapshot.service(&key, considered));
        }
        Ok(explanation)
    }
}

/// What a controller knew at one moment.
struct Snapshot<'a> {
    class: Option<&'a str>,
    view: ClusterView,
    plan: Plan,
}

impl Snapshot<'_> {
    /// The Services of ours that the subject is about.
    fn holders(&self, subject: &Subject) -> Vec<ServiceKey> {
        match subject {
            Subject::Service(key) => self.plan.entries.get(key).map(|_| key.clone()).into_iter().collect(),
            Subject::Address(ip) => {
                let ours = self.plan.entries.iter();
                let has = ours.filter(|(_, entry)| entry.outcome.as_ref().is_some_and(|o| o.ips.contains(ip)));
                has.map(|(key, _)| key.clone()).collect()
            }
            Subject::Node(_) | Subject::Peer(_) => Vec::new(),
        }
    }

    /// Everything but the Services.
    fn explain(&self, subject: &Subject, holders: &[ServiceKey]) -> Explanation {
        let facts = match subject {
            Subject::Service(key) => self.of_service(key),
            Subject::Address(ip) => {
                let names: Vec<&str> = holders.iter().map(ServiceKey::as_str).collect();
                vec![told::pool_of_address(*ip, &self.view.config), told::holders_of_address(&names)]
            }
            Subject::Node(name) if self.view.nodes.contains_key(&**name) => Vec::new(),
            Subject::Node(name) => vec![Fact::new("notFound", format!("there is no Node {name}"))],
            Subject::Peer(name) if self.view.config.peers.contains_key(&**name) => Vec::new(),
            Subject::Peer(name) => vec![self.missing_peer(name)],
        };
        let problems = self.view.config.problems.iter().filter(|problem| problem.severity == Severity::Error);
        let configuration = problems.take(PROBLEMS_MAX).map(|p| told::problem(&p.object.to_string(), p)).collect();
        Explanation { subject: subject.to_string(), facts, configuration, ..Explanation::default() }
    }

    fn missing_peer(&self, name: &str) -> Fact {
        let is_it = |kind: &str, own: &str| kind == "BGPPeer" && own == name;
        match self.view.config.problems.iter().any(|p| is_it(p.object.kind, &p.object.name)) {
            true => Fact::new("notInForce", "it is invalid: see the configuration below"),
            false => Fact::new("notFound", format!("there is no BGPPeer {name}")),
        }
    }

    fn of_service(&self, key: &ServiceKey) -> Vec<Fact> {
        vec![match (self.plan.entries.get(key), self.view.services.get(key)) {
            (Some(_), Some(service)) if service.is_ours(self.class) => self.reason(key),
            (_, Some(service)) if service.is_ours(self.class) => Fact::new("waiting", "nothing has been decided yet"),
            (_, Some(service)) => Fact::new(Reason::NotLoadBalancer.code(), told::not_served(service, self.class)),
            (_, None) => Fact::new("notFound", format!("there is no Service {key}")),
        }]
    }

    /// Why the Service has the addresses that it has.
    fn reason(&self, key: &ServiceKey) -> Fact {
        let outcome = self.plan.entries.get(key).and_then(|entry| entry.outcome.as_ref());
        outcome.map_or_else(
            || Fact::new("waiting", "nothing has been decided yet"),
            |outcome| {
                let noted = || outcome.notes.last().map(|note| note.message.as_str()).unwrap_or_default();
                let message = if outcome.message.is_empty() { noted() } else { &outcome.message };
                Fact::new(outcome.code, message)
            },
        )
    }

    /// The allocation of a Service.
    fn service(&self, key: &ServiceKey, considered: Vec<Considered>) -> Option<ServiceExplained> {
        let entry = self.plan.entries.get(key)?;
        let outcome = entry.outcome.as_ref()?;
        let service: &Service = self.view.services.get(key).unwrap_or(&entry.service);
        let mut addresses = service.ingress.clone();
        addresses.sort_unstable();
        Some(ServiceExplained {
            namespace: key.namespace().to_owned(),
            name: key.name().to_owned(),
            addresses,
            held: outcome.held.clone(),
            pool: outcome.pool.as_ref().map(ToString::to_string),
            reason: self.reason(key),
            pools: considered.into_iter().map(told::considered).collect(),
            nodes: Vec::new(),
        })
    }
}
