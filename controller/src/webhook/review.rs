//! What the webhook says of one request. Everything but the look at the namespace is a pure function.
use std::sync::Arc;

use ferrocast_core::{
    config::{Builder, Config, InForce, Living, Loss, OnAddressLoss, Problem, Resources, Severity, losses},
    view::ClusterView,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt as _,
    core::{
        DynamicObject,
        admission::{AdmissionRequest, Operation},
    },
};
use tokio::sync::watch;

use crate::cluster::resources::{self, Kind, ResourcesDraft};

/// How many Services a message lists before it says how many more there are: a terminal's worth.
const LOSSES_SHOWN_MAX: usize = 20;
/// How many problems a message lists.
const PROBLEMS_SHOWN_MAX: usize = 20;
/// Longest warning, octets: the API server cuts longer ones.
const WARNING_LEN_MAX: usize = 256;
/// What the API server's own controllers are called when they remove what is in a namespace, or what has lost its owner.
const COLLECTORS: [&str; 2] = [
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:generic-garbage-collector",
];

/// What is said of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// May it pass?
    pub allowed: bool,
    /// Why not; empty if it may.
    pub message: String,
    /// Shown by kubectl.
    pub warnings: Vec<String>,
}

impl Verdict {
    fn allow(warnings: Vec<String>) -> Self {
        let warnings = warnings.into_iter().map(cut).collect();
        Self { allowed: true, message: String::new(), warnings }
    }

    fn deny(message: String) -> Self {
        Self { allowed: false, message, warnings: Vec::new() }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > WARNING_LEN_MAX {
        text.truncate(text.floor_char_boundary(WARNING_LEN_MAX - 3));
        text.push_str("...");
    }
    text
}

/// What is done with the object.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Created, or changed into this.
    Put(Arc<ferrocast_core::config::Resource>),
    /// Deleted; as it was.
    Delete(Arc<ferrocast_core::config::Resource>),
}

impl Edit {
    fn resource(&self) -> &ferrocast_core::config::Resource {
        match self {
            Self::Put(resource) | Self::Delete(resource) => resource,
        }
    }
}

/// What the verdict depends on.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The objects as they are.
    pub resources: &'a Resources,
    /// The last configuration in force, as recorded.
    pub in_force: Option<&'a InForce>,
    /// Services, Namespaces, and the configuration in force.
    pub view: &'a ClusterView,
    /// Class served.
    pub class: Option<&'a str>,
    /// `--on-address-loss`.
    pub on_address_loss: OnAddressLoss,
}

/// The builder of the configuration in force, with its past.
fn builder(in_force: Option<&InForce>) -> Builder {
    let mut builder = Builder::default();
    if let Some(past) = in_force {
        builder.restore(past);
    }
    builder
}

/// What refers to something that may come later is not refused because that is not there yet, as MetalLB has it.
fn errors(config: &Config) -> impl Iterator<Item = &Problem> {
    config.problems.iter().filter(|p| p.severity == Severity::Error && !p.may_mend_itself())
}

/// Judges an edit. `collected`: the object goes with its namespace or its owner.
#[must_use]
pub fn judge(situation: &Situation<'_>, edit: &Edit, collected: bool) -> Verdict {
    let before = builder(situation.in_force).build(situation.resources);
    let mut after = situation.resources.clone();
    let key = &edit.resource().meta.key;
    match edit {
        Edit::Put(resource) => drop(after.objects.insert(key.clone(), resource.clone())),
        Edit::Delete(_) => drop(after.objects.remove(key)),
    }
    let after = builder(situation.in_force).build(&after);
    if let Some(message) = refused(edit, &before, &after) {
        return if collected { Verdict::allow(Vec::new()) } else { Verdict::deny(message) };
    }
    let warned = |p: &&Problem| p.object == *key && !before.problems.contains(p);
    let mut warnings: Vec<String> = after.problems.iter().filter(warned).map(ToString::to_string).collect();
    let living =
        Living { services: &situation.view.services, namespaces: &situation.view.namespaces, class: situation.class };
    let lost = losses(&situation.view.config, &after, &living);
    let already = losses(&situation.view.config, &before, &living);
    let new: Vec<&Loss> = lost.0.iter().filter(|loss| !already.0.contains(loss)).collect();
    if new.is_empty() || collected {
        return Verdict::allow(warnings);
    }
    let list = shown(&new);
    let digest = lost.digest();
    let annotation = edit.resource().meta.on_address_loss.as_deref();
    let moves = annotation.and_then(|text| text.strip_prefix("move-"));
    match (annotation, moves, situation.on_address_loss) {
        (Some("hold"), ..) => warnings.push(format!("held: {list}")),
        (_, Some(given), _) if given == digest => warnings.push(format!("moved: {list}")),
        (_, Some(given), _) => {
            return Verdict::deny(format!(
                "ferrocast.io/on-address-loss says move-{given}, but the Services that would lose their address are others \
                 now: {list}; move-{digest} lets exactly these be given other addresses"
            ));
        }
        (_, None, OnAddressLoss::Hold) => warnings.push(format!("held: {list}")),
        (_, None, OnAddressLoss::Move) => warnings.push(format!("moved: {list}")),
        (_, None, OnAddressLoss::Deny) => {
            return Verdict::deny(format!(
                "{} Services would lose the right to their address: {list}. Annotate this {} with \
                 ferrocast.io/on-address-loss: hold, and they keep what they have, or with move-{digest}, and exactly these are \
                 given other addresses",
                services(&new),
                key.kind
            ));
        }
    }
    Verdict::allow(warnings)
}

/// How many Services.
fn services(lost: &[&Loss]) -> usize {
    let names: std::collections::BTreeSet<_> = lost.iter().map(|loss| &loss.service).collect();
    names.len()
}

fn shown(lost: &[&Loss]) -> String {
    let mut list: Vec<String> = lost.iter().map(|loss| format!("{} {}", loss.service, loss.ip)).collect();
    list.sort();
    let more = list.len().saturating_sub(LOSSES_SHOWN_MAX);
    list.truncate(LOSSES_SHOWN_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", list.join(", "))
}

/// Why the edit is refused whatever becomes of Services.
fn refused(edit: &Edit, before: &Config, after: &Config) -> Option<String> {
    let key = &edit.resource().meta.key;
    if let Edit::Delete(_) = edit {
        // As MetalLB: a BFDProfile that a BGPPeer names stays.
        let users: Vec<&str> = match key.kind {
            "BFDProfile" => {
                let uses = |p: &&Arc<ferrocast_core::config::Peer>| p.bfd.as_ref().is_some_and(|b| b.name == key.name);
                before.peers.values().filter(uses).map(|p| &*p.name).collect()
            }
            _ => Vec::new(),
        };
        return (!users.is_empty()).then(|| {
            format!(
                "failed to delete BFDProfile {}, used by BGPPeer {}: change these first",
                key.name,
                users.join(", ")
            )
        });
    }
    // What was wrong before is not this edit's fault, unless it is about this very object.
    let known: Vec<&Problem> = errors(before).filter(|p| p.object != *key).collect();
    let new: Vec<String> = errors(after).filter(|p| !known.contains(p)).map(ToString::to_string).collect();
    let more = new.len().saturating_sub(PROBLEMS_SHOWN_MAX);
    let more = if more > 0 { format!("; and {more} more problems") } else { String::new() };
    (!new.is_empty()).then(|| format!("{}{more}", new[..new.len().min(PROBLEMS_SHOWN_MAX)].join("; ")))
}

/// Settings of the [`Reviewer`].
#[derive(Clone, Debug)]
pub struct ReviewSettings {
    /// Namespace of the configuration objects.
    pub namespace: String,
    /// Class served.
    pub class: Option<Arc<str>>,
    /// `--on-address-loss`.
    pub on_address_loss: OnAddressLoss,
}

/// Answers requests from what the watchers have seen.
pub struct Reviewer {
    /// To ask whether a namespace is being deleted.
    pub client: Client,
    /// Settings.
    pub settings: ReviewSettings,
    /// The objects.
    pub draft: watch::Receiver<ResourcesDraft>,
    /// The last configuration in force, as recorded.
    pub in_force: watch::Receiver<Option<Arc<InForce>>>,
    /// Services, Namespaces, and the configuration in force.
    pub view: watch::Receiver<ClusterView>,
}

impl Reviewer {
    /// The verdict on a request.
    pub async fn review(&self, request: &AdmissionRequest<DynamicObject>) -> Verdict {
        let Some(kind) = Kind::named(&request.kind.kind).filter(|kind| kind.group() == request.kind.group) else {
            return Verdict::allow(Vec::new()); // not ours to judge
        };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        if namespace != self.settings.namespace {
            let what = format!("resource must be created in {} namespace", self.settings.namespace);
            return match request.operation {
                Operation::Create => Verdict::deny(what),
                _ => Verdict::allow(vec![format!("{what}: this one has no effect")]),
            };
        }
        let deletes = matches!(request.operation, Operation::Delete);
        let object = if deletes { &request.old_object } else { &request.object };
        let Some(object) = object else { return Verdict::allow(Vec::new()) };
        let mut resource = resources::resource(kind, &object.metadata, &object.data);
        if resource.meta.key.name.is_empty() {
            // generateName: the name is made after us.
            resource.meta.key.name = request.name.as_str().into();
        }
        if matches!(request.operation, Operation::Create) {
            // Younger than all others: what the API server writes counts in seconds, and might tie with one just made.
            resource.meta.created_s = i64::MAX;
        }
        let edit = if deletes { Edit::Delete(resource.into()) } else { Edit::Put(resource.into()) };
        if !deletes && object.metadata.deletion_timestamp.is_some() {
            return Verdict::allow(Vec::new()); // only its finalizers are being removed
        }
        let collected = self.is_collected(request, namespace, deletes).await;
        let draft = self.draft.borrow().clone();
        let (view, in_force) = (self.view.borrow().clone(), self.in_force.borrow().clone());
        if draft.epoch() == 0 || view.epoch(ferrocast_core::view::Source::Services) == 0 {
            return Verdict::deny(
                "Ferrocast has just started and has not read the configuration yet: try again".to_owned(),
            );
        }
        let situation = Situation {
            resources: &draft.resources,
            in_force: in_force.as_deref(),
            view: &view,
            class: self.settings.class.as_deref(),
            on_address_loss: self.settings.on_address_loss,
        };
        let verdict = tokio::task::block_in_place(|| judge(&situation, &edit, collected));
        tracing::debug!(kind = kind.name(), name = object.name_any(), ?verdict, "reviewed");
        verdict
    }

    /// Does the object go with its namespace or its owner? Then nobody is there to be told, and to refuse would keep the
    /// namespace Terminating for ever.
    async fn is_collected(&self, request: &AdmissionRequest<DynamicObject>, namespace: &str, deletes: bool) -> bool {
        if request.user_info.username.as_deref().is_some_and(|name| COLLECTORS.contains(&name)) {
            return true;
        }
        if !deletes {
            return false;
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        matches!(api.get_opt(namespace).await, Ok(Some(found)) if found.metadata.deletion_timestamp.is_some())
    }
}
