//! How a speaker ends: for good, or for a restart.
use std::{fmt, sync::Arc, time::Duration};

use ferrocast_core::{
    actor::chain,
    announce::{AnnouncementState, Desired, Shutdown},
    model::EXCLUDE_LABEL,
};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Node};
use kube::{Api, Client, Resource};

/// Longest wait for the API server: without an answer the end is taken for a restart, which must not be held up.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What the API server said about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// It was not asked, or did not answer.
    Unknown,
    /// There is none.
    Absent,
    /// It is there.
    There(T),
}

/// What matters of the own Node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeFacts {
    deleting: bool,
    /// Condition `Ready` is `False`; `Unknown` is not.
    not_ready: bool,
    excluded: bool,
}

/// What matters of the own DaemonSet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DaemonSetFacts {
    deleting: bool,
}

/// What decides how to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// By command.
    pub(super) drained: bool,
    /// `--ignore-exclude-lb`.
    pub(super) ignore_exclude_label: bool,
    pub(super) node: Found<NodeFacts>,
    pub(super) daemon_set: Found<DaemonSetFacts>,
}

/// Why a speaker ends as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Drained,
    NodeAbsent,
    NodeDeleting,
    NodeNotReady,
    NodeExcluded,
    DaemonSetAbsent,
    DaemonSetDeleting,
    Unreachable,
    Restart,
}

impl Why {
    /// How to end for this reason.
    pub(super) fn how(self) -> Shutdown {
        match self {
            Self::Unreachable | Self::Restart => Shutdown::Keep,
            _ => Shutdown::Withdraw,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drained => "the node was drained by command",
            Self::NodeAbsent => "the Node does not exist any more",
            Self::NodeDeleting => "the Node is being deleted",
            Self::NodeNotReady => "the Node is not ready",
            Self::NodeExcluded => "the Node is excluded from load balancing by its label",
            Self::DaemonSetAbsent => "the speakers' DaemonSet does not exist any more",
            Self::DaemonSetDeleting => "the speakers' DaemonSet is being deleted",
            Self::Unreachable => "the API server did not answer: taken for a restart",
            Self::Restart => "a restart",
        })
    }
}

/// How to end; the first reason that applies.
pub(super) fn decide(facts: Facts) -> Why {
    if facts.drained {
        return Why::Drained;
    }
    match facts.node {
        Found::Absent => return Why::NodeAbsent,
        Found::There(node) if node.deleting => return Why::NodeDeleting,
        Found::There(node) if node.not_ready => return Why::NodeNotReady,
        Found::There(node) if node.excluded && !facts.ignore_exclude_label => return Why::NodeExcluded,
        _ => {}
    }
    match (facts.daemon_set, facts.node) {
        (Found::Absent, _) => Why::DaemonSetAbsent,
        (Found::There(DaemonSetFacts { deleting: true }), _) => Why::DaemonSetDeleting,
        (_, Found::Unknown) => Why::Unreachable,
        _ => Why::Restart,
    }
}

fn node_facts(node: &Node) -> NodeFacts {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    NodeFacts {
        deleting: node.metadata.deletion_timestamp.is_some(),
        not_ready: conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "False"),
        excluded: node.metadata.labels.iter().flatten().any(|(key, _)| key == EXCLUDE_LABEL),
    }
}

/// Asks for one object, for at most [`ANSWER_MAX`].
async fn ask<K, T>(api: Api<K>, name: &str, facts: impl FnOnce(&K) -> T) -> Found<T>
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + serde::de::DeserializeOwned,
{
    let kind = K::kind(&());
    match tokio::time::timeout(ANSWER_MAX, api.get_opt(name)).await {
        Ok(Ok(Some(object))) => Found::There(facts(&object)),
        Ok(Ok(None)) => Found::Absent,
        Ok(Err(error)) => {
            tracing::warn!(%kind, name, error = %chain(&error), "cannot read what decides how to end");
            Found::Unknown
        }
        Err(_) => {
            tracing::warn!(%kind, name, "no answer within {ANSWER_MAX:?}");
            Found::Unknown
        }
    }
}

/// Whose fate decides.
pub(super) struct Whose<'a> {
    /// The own Node's name.
    pub(super) node: &'a Arc<str>,
    /// Namespace and name of the own DaemonSet, if they are known.
    pub(super) daemon_set: Option<(&'a str, &'a str)>,
    /// `--ignore-exclude-lb`.
    pub(super) ignore_exclude_label: bool,
}

/// Reads what decides.
pub(super) async fn read(client: &Client, whose: &Whose<'_>, drained: bool) -> Facts {
    let ignore_exclude_label = whose.ignore_exclude_label;
    if drained {
        return Facts { drained, ignore_exclude_label, node: Found::Unknown, daemon_set: Found::Unknown };
    }
    let daemon_set = async {
        let Some((namespace, name)) = whose.daemon_set else { return Found::Unknown };
        let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
        ask(api, name, |set| DaemonSetFacts { deleting: set.metadata.deletion_timestamp.is_some() }).await
    };
    let (node, daemon_set) = tokio::join!(ask(Api::all(client.clone()), whose.node, node_facts), daemon_set);
    Facts { drained, ignore_exclude_label, node, daemon_set }
}

/// The same set, all of it about to go away.
pub(super) fn draining(desired: &Desired) -> Desired {
    let announcements = desired.announcements.iter().map(|(prefix, announcement)| {
        let mut announcement = announcement.clone();
        if announcement.state == AnnouncementState::Active {
            Arc::make_mut(&mut announcement).state = AnnouncementState::Draining;
        }
        (*prefix, announcement)
    });
    let announcements = announcements.collect();
    Desired { generation: desired.generation + 1, announcements, ..desired.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn end_is_decided_by_the_first_reason_that_applies() {
        let node = |value: serde_json::Value| Found::There(node_facts(&serde_json::from_value(value).unwrap()));
        let well = || node(json!({"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        let ready = |status: &str| node(json!({"status": {"conditions": [{"type": "Ready", "status": status}]}}));
        let excluded = || node(json!({"metadata": {"labels": {EXCLUDE_LABEL: ""}}}));
        let leaving = || node(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        let there = |deleting| Found::There(DaemonSetFacts { deleting });
        let facts = |node, daemon_set| Facts { drained: false, ignore_exclude_label: false, node, daemon_set };
        for (facts, want) in [
            (facts(well(), there(false)), Why::Restart),
            (facts(well(), Found::Unknown), Why::Restart),
            (facts(node(json!({})), there(false)), Why::Restart),
            (facts(ready("Unknown"), there(false)), Why::Restart),
            (facts(Found::Unknown, Found::Unknown), Why::Unreachable),
            (facts(Found::Unknown, there(false)), Why::Unreachable),
            (facts(Found::Absent, Found::Unknown), Why::NodeAbsent),
            (facts(leaving(), there(false)), Why::NodeDeleting),
            (facts(ready("False"), there(false)), Why::NodeNotReady),
            (facts(excluded(), there(false)), Why::NodeExcluded),
            (Facts { ignore_exclude_label: true, ..facts(excluded(), there(false)) }, Why::Restart),
            (facts(well(), Found::Absent), Why::DaemonSetAbsent),
            (facts(Found::Unknown, Found::Absent), Why::DaemonSetAbsent),
            (facts(well(), there(true)), Why::DaemonSetDeleting),
            (facts(Found::Absent, there(true)), Why::NodeAbsent),
            (Facts { drained: true, ..facts(well(), there(false)) }, Why::Drained),
            (Facts { drained: true, ..facts(Found::Unknown, Found::Unknown) }, Why::Drained),
        ] {
            assert_eq!(decide(facts), want, "{facts:?}");
            let keeps = matches!(want, Why::Restart | Why::Unreachable);
            assert_eq!(want.how() == Shutdown::Keep, keeps, "{want}");
        }
    }
}
