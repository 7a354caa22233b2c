//! Writes MetalLB's `ConfigurationState`: whether this component could use the configuration as written. On change only.
use std::{collections::BTreeMap, time::Duration};

use ferrocast_api::{ConfigurationState, ConfigurationStateSpec, ConfigurationStateStatus, StateCondition};
use ferrocast_core::{
    actor::{Actor, ActorError, CancellationToken, chain, sleep_until},
    config::{Problem, Severity},
};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::lease::Leadership;

/// Longest summary, octets: one object stays far below what the API server takes, and readable.
const SUMMARY_LEN_MAX: usize = 4096;
/// A change is written so long after it was seen: an edit of many objects is one change.
const SETTLE: Duration = Duration::from_secs(1);
/// Wait after a failed write; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(2);
/// Longest wait after a failed write.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Label: `controller` or `speaker`.
const COMPONENT_LABEL: &str = "metallb.io/component-type";
/// Label: the speaker's node.
const NODE_LABEL: &str = "metallb.io/node-name";

/// Whose state it is.
#[derive(Clone, Debug)]
pub enum Component {
    /// The controller's: written by the one that leads.
    Controller(watch::Receiver<Leadership>),
    /// The speaker's of this node.
    Speaker(String),
}

impl Component {
    fn object_name(&self) -> String {
        match self {
            Self::Controller(_) => "controller".to_owned(),
            Self::Speaker(node) => format!("speaker-{node}"),
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let (kind, node) = match self {
            Self::Controller(_) => ("controller", None),
            Self::Speaker(node) => ("speaker", Some(node.clone())),
        };
        let kind = (COMPONENT_LABEL.to_owned(), kind.to_owned());
        [kind].into_iter().chain(node.map(|node| (NODE_LABEL.to_owned(), node))).collect()
    }

    /// The condition's type, as MetalLB names its reconcilers.
    fn condition(&self) -> &'static str {
        match self {
            Self::Controller(_) => "poolReconcilerValid",
            Self::Speaker(_) => "configReconcilerValid",
        }
    }

    fn may_write(&self) -> bool {
        match self {
            Self::Controller(leadership) => {
                let leadership = leadership.borrow();
                leadership.term.is_some_and(|term| leadership.allows(term, Instant::now()))
            }
            Self::Speaker(_) => true,
        }
    }
}

/// What is wrong with the configuration; `None`: it has not been read yet.
pub type Found = Option<Vec<Problem>>;

/// Writes the state.
pub struct StateWriter {
    client: Client,
    namespace: String,
    component: Component,
    found: watch::Receiver<Found>,
    written: Option<ConfigurationStateStatus>,
}

/// The errors, one per line; empty: none.
fn summary(problems: &[Problem]) -> String {
    let errors: Vec<String> =
        problems.iter().filter(|p| p.severity == Severity::Error).map(ToString::to_string).collect();
    let mut text = errors.join("\n");
    if text.len() > SUMMARY_LEN_MAX {
        text.truncate(text.floor_char_boundary(SUMMARY_LEN_MAX - 3));
        text.push_str("...");
    }
    text
}

/// The state that says so; the time of the last transition is that of `before` as long as the status is the same.
fn status(
    condition: &'static str,
    problems: &[Problem],
    before: Option<&ConfigurationStateStatus>,
    now: Timestamp,
) -> ConfigurationStateStatus {
    let summary = summary(problems);
    let valid = summary.is_empty();
    let status = if valid { "True" } else { "False" };
    let known = before.and_then(|b| b.conditions.as_ref()).into_iter().flatten();
    let since = known.into_iter().find(|c| c.type_ == condition && c.status == status);
    let condition = StateCondition {
        type_: condition.to_owned(),
        status: status.to_owned(),
        reason: if valid { "Reconciled" } else { "ConfigurationError" }.to_owned(),
        message: summary.clone(),
        last_transition_time: since.map_or_else(|| now.to_string(), |c| c.last_transition_time.clone()),
        observed_generation: None,
    };
    ConfigurationStateStatus {
        result: Some(if valid { "Valid" } else { "Invalid" }.to_owned()),
        error_summary: Some(summary),
        conditions: Some(vec![condition]),
    }
}

impl StateWriter {
    /// A writer into `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: String, component: Component, found: watch::Receiver<Found>) -> Self {
        Self { client, namespace, component, found, written: None }
    }

    /// Writes the state if it differs from what is there.
    async fn write(&mut self, problems: &[Problem]) -> Result<(), kube::Error> {
        let api: Api<ConfigurationState> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = self.component.object_name();
        let mut exists = true;
        if self.written.is_none() {
            let found = api.get_opt(&name).await?;
            exists = found.is_some();
            self.written = found.and_then(|object| object.status);
        }
        let status = status(self.component.condition(), problems, self.written.as_ref(), Timestamp::now());
        if self.written.as_ref() == Some(&status) {
            return Ok(());
        }
        if !exists {
            let mut object = ConfigurationState::new(&name, ConfigurationStateSpec {});
            object.metadata = ObjectMeta { labels: Some(self.component.labels()), ..object.metadata };
            match api.create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(answer)) if answer.code == 409 => {}
                answer => drop(answer?),
            }
        }
        let patch = Patch::Merge(json!({ "status": status }));
        match api.patch_status(&name, &PatchParams::default(), &patch).await {
            Ok(_) => self.written = Some(status),
            Err(error) => {
                self.written = None; // somebody may have removed it
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Actor for StateWriter {
    const NAME: &'static str = "configuration-state";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut failures = 0_u32;
        self.found.mark_changed();
        loop {
            let mut again_at = None;
            let found = self.found.borrow_and_update().clone();
            if let Some(problems) = found.filter(|_| self.component.may_write()) {
                let done = tokio::time::timeout(ANSWER_MAX, self.write(&problems)).await;
                let error = match done {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(chain(&error)),
                    Err(_) => Some(format!("no answer within {ANSWER_MAX:?}")),
                };
                if let Some(error) = error {
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        tracing::warn!(error, "ConfigurationState not written, trying again");
                    }
                    let wait = RETRY_MIN.saturating_mul(2_u32.saturating_pow(failures - 1)).min(RETRY_MAX);
                    again_at = Some(Instant::now() + wait);
                } else {
                    failures = 0;
                }
            }
            let mut leadership = match &self.component {
                Component::Controller(leadership) => Some(leadership.clone()),
                Component::Speaker(_) => None,
            };
            let term = leadership.as_ref().and_then(|l| l.borrow().term);
            let term_changes = async {
                match &mut leadership {
                    Some(leadership) => leadership.wait_for(|l| l.term != term).await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.found.changed() => {
                    changed.map_err(|_| ActorError::Upstream("configuration"))?;
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(SETTLE) => {}
                    }
                }
                alive = term_changes => {
                    if !alive { return Err(ActorError::Upstream("leadership")) }
                    self.written = None; // another leader may have written meanwhile
                }
                () = sleep_until(again_at) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrocast_core::model::ObjectKey;

    fn problem(severity: Severity) -> Problem {
        Problem {
            object: ObjectKey { kind: "IPAddressPool", name: "p".into() },
            field: "spec.addresses[0]".to_owned(),
            value: "x".to_owned(),
            rule: "addressSyntax",
            message: "invalid CIDR".to_owned(),
            suggestion: "write 192.0.2.0/24".to_owned(),
            severity,
        }
    }

    #[test]
    fn transition_time_changes_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = status("c", &[], None, at(1));
        assert_eq!((first.result.as_deref(), first.error_summary.as_deref()), (Some("Valid"), Some("")));
        assert_eq!(status("c", &[problem(Severity::Warning)], Some(&first), at(2)), first, "a warning is no error");
        let broken = status("c", &[problem(Severity::Error)], Some(&first), at(3));
        assert_eq!(broken.result.as_deref(), Some("Invalid"));
        assert!(broken.error_summary.as_ref().unwrap().contains("IPAddressPool p: spec.addresses[0]"));
        let condition = &broken.conditions.as_ref().unwrap()[0];
        assert_eq!(condition.last_transition_time, at(3).to_string());
        assert_eq!(status("c", &[problem(Severity::Error)], Some(&broken), at(4)), broken);
    }
}
