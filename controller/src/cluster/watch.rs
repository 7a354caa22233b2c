//! One supervised watcher per kind of object.
use std::{fmt::Debug, time::Duration};

use ferrocast_core::actor::{Actor, ActorError, CancellationToken, chain, sleep_until};
use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Resource,
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::Instant};

/// First wait after a failed list or watch, milliseconds; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(200);
/// Longest wait between attempts, so that a returning API server is noticed soon.
const RETRY_MAX: Duration = Duration::from_secs(3);
/// How long the objects of a type that came back may be missing before that counts as their deletion: what restores them is a
/// person, or a tool that looks every few minutes.
pub const RESTORE_MAX: Duration = Duration::from_secs(600);
/// How often a type that the installation lacks is looked for: somebody installs it once, if ever.
const LACKING_RETRY: Duration = Duration::from_secs(30);
/// Objects per page of a list: small enough that no page weighs more than a few megabytes.
const PAGE_SIZE: u32 = 500;

/// Takes what a watcher sees into a snapshot.
pub trait Feed: Send + Sync + 'static {
    /// The API type watched.
    type Object: Resource + Clone + DeserializeOwned + Debug + Send + 'static;
    /// What is kept of one object, with its key.
    type Item: Send;

    /// Reduces an object to what is kept, so that a list of thousands is never held whole.
    fn digest(&mut self, object: Self::Object) -> Self::Item;
    /// The complete truth after a list made in `epoch`: everything not in it is gone.
    fn replace(&mut self, items: Vec<Self::Item>, epoch: u64);
    /// What a list made in `epoch` holds, soon after the type itself had vanished: what is not in it may yet be restored.
    fn restore(&mut self, items: Vec<Self::Item>, epoch: u64) {
        self.replace(items, epoch);
    }
    /// One object appeared or changed.
    fn apply(&mut self, item: Self::Item);
    /// One object is gone.
    fn remove(&mut self, item: Self::Item);
}

/// Keeps a [`Feed`] in step with the API server, for ever.
///
/// An error of any kind, 404 included, changes nothing in the snapshot: the API server counts as away. When a type that had
/// vanished is served again, its objects are not: they stay for [`RESTORE_MAX`] or until they are applied again. Lists are
/// consistent reads; a new epoch (a new term of leadership) starts from a fresh one.
pub struct Watcher<F: Feed> {
    kind: &'static str,
    api: Api<F::Object>,
    config: watcher::Config,
    feed: F,
    epoch: watch::Receiver<u64>,
    /// For custom resources: the CRD's name, and where to ask whether it is being deleted.
    crd: Option<(Api<CustomResourceDefinition>, String)>,
    /// An installation may lack the type: then it has no objects.
    optional: bool,
    /// A list that is not allowed is an empty one.
    forbidden_is_empty: bool,
    /// The type is not there; its objects are not said to be gone by that.
    type_missing: bool,
    /// The type is back; until then objects that are missing count as not restored yet.
    restoring_until: Option<Instant>,
}

impl<F: Feed> Watcher<F> {
    /// A watcher of `api`; `epoch` numbers the lists.
    pub fn new(kind: &'static str, api: Api<F::Object>, feed: F, epoch: watch::Receiver<u64>) -> Self {
        let config = watcher::Config::default().page_size(PAGE_SIZE);
        Self {
            kind,
            api,
            config,
            feed,
            epoch,
            crd: None,
            optional: false,
            forbidden_is_empty: false,
            type_missing: false,
            restoring_until: None,
        }
    }

    /// Watches only what this field selector matches.
    #[must_use]
    pub fn fields(mut self, selector: &str) -> Self {
        self.config = self.config.fields(selector);
        self
    }

    /// Watches only what this label selector matches.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.config = self.config.labels(selector);
        self
    }

    /// Objects of this kind vanish one by one when their CRD is deleted; such deletions are not believed.
    #[must_use]
    pub fn crd(mut self, api: Api<CustomResourceDefinition>, name: String) -> Self {
        self.crd = Some((api, name));
        self
    }

    /// An installation may lack this type, which then counts as one without objects. One that vanishes after it was listed is
    /// not lacking: what is known stays.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// The rights to these objects may be missing: then there are none, and a warning.
    #[must_use]
    pub fn forbidden_is_empty(mut self) -> Self {
        self.forbidden_is_empty = true;
        self
    }

    /// Is the list refused because the installation lacks the type: there is no CRD, or neither it nor its objects may be read
    /// (the rights are those of a version that did not know the type)?
    async fn type_is_lacking(&self, error: &watcher::Error) -> bool {
        let Some((api, name)) = self.crd.as_ref().filter(|_| self.optional) else { return false };
        match refusal(error) {
            Some(404) => matches!(api.get_opt(name).await, Ok(None)),
            Some(403) => match api.get_opt(name).await {
                Ok(found) => found.is_none(),
                Err(kube::Error::Api(status)) => status.is_forbidden(),
                Err(_) => false,
            },
            _ => false,
        }
    }

    /// Is the whole type going away (rather than one object of it)? Asks until there is an answer.
    async fn type_is_going(&self) -> bool {
        let Some((api, name)) = &self.crd else { return false };
        let mut wait = RETRY_MIN;
        loop {
            match api.get_opt(name).await {
                Ok(None) => return true,
                Ok(Some(crd)) => return crd.metadata.deletion_timestamp.is_some(),
                Err(kube::Error::Api(status)) if status.is_forbidden() => {
                    tracing::warn!(crd = name, "not allowed to read the CRD: taking the deletion at face value");
                    return false;
                }
                Err(error) => tracing::debug!(error = %chain(&error), crd = name, "cannot read the CRD yet"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Waits until the CRD exists and is not being deleted: until then a list would be empty, or lack what is already gone.
    async fn type_is_back(&self) {
        let Some((api, name)) = &self.crd else { return };
        while !matches!(api.get_opt(name).await, Ok(Some(crd)) if crd.metadata.deletion_timestamp.is_none()) {
            tokio::time::sleep(RETRY_MAX).await;
        }
        tracing::info!(kind = self.kind, "the resource type is back: what was known stays until it is applied again");
    }

    /// Follows one stream until the epoch changes, the type goes away or its return is long enough ago.
    async fn follow(&mut self, epoch: u64) -> Result<(), ActorError> {
        let mut stream = std::pin::pin!(watcher::watcher(self.api.clone(), self.config.clone()));
        let mut listed = Vec::new();
        let mut wait = RETRY_MIN;
        let mut failing = false;
        let mut epochs = self.epoch.clone();
        loop {
            let event = tokio::select! {
                event = stream.next() => event.ok_or(ActorError::Upstream("watch stream"))?,
                changed = epochs.wait_for(|e| *e != epoch) => {
                    return changed.map(drop).map_err(|_| ActorError::Upstream("epoch"));
                }
                () = sleep_until(self.restoring_until) => {
                    tracing::info!(kind = self.kind, "what has not been restored by now counts as deleted");
                    self.restoring_until = None;
                    return Ok(());
                }
            };
            match event {
                Ok(event) => {
                    if failing {
                        tracing::info!(kind = self.kind, "watching again");
                    }
                    (failing, wait) = (false, RETRY_MIN);
                    if !self.take(event, &mut listed, epoch).await {
                        tracing::warn!(kind = self.kind, "the resource type is being deleted: keeping what is known");
                        self.type_missing = true;
                        self.type_is_back().await;
                        return Ok(());
                    }
                }
                Err(error) if self.type_is_lacking(&error).await => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::info!(
                            kind = self.kind,
                            "the cluster lacks this resource type: none of its objects are in force"
                        );
                    }
                    self.feed.restore(Vec::new(), epoch); // takes away nothing that was known
                    tokio::time::sleep(LACKING_RETRY).await;
                }
                Err(error) if self.forbidden_is_empty && refusal(&error) == Some(403) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(kind = self.kind, error = %chain(&error), "not allowed to list: taken for none");
                    }
                    self.feed.restore(Vec::new(), epoch);
                    tokio::time::sleep(LACKING_RETRY).await;
                }
                Err(error) => {
                    self.type_missing |= self.crd.is_some() && refusal(&error) == Some(404);
                    metrics::counter!("metallb_k8s_client_update_errors_total", "kind" => self.kind).increment(1);
                    if failing {
                        tracing::debug!(kind = self.kind, error = %chain(&error), "watch still failing");
                    } else {
                        tracing::warn!(kind = self.kind, error = %chain(&error), "watch failed: keeping what is known");
                    }
                    failing = true;
                    tokio::time::sleep(wait.mul_f64(1.0 - fastrand::f64() / 4.0)).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Takes in one event; false if the type is going away.
    async fn take(&mut self, event: Event<F::Object>, listed: &mut Vec<F::Item>, epoch: u64) -> bool {
        metrics::counter!("metallb_k8s_client_updates_total", "kind" => self.kind).increment(1);
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => listed.push(self.feed.digest(object)),
            Event::InitDone => {
                tracing::debug!(kind = self.kind, objects = listed.len(), epoch, "listed");
                if std::mem::take(&mut self.type_missing) {
                    self.restoring_until = Some(Instant::now() + RESTORE_MAX);
                }
                let listed = std::mem::take(listed);
                match self.restoring_until {
                    Some(_) => self.feed.restore(listed, epoch),
                    None => self.feed.replace(listed, epoch),
                }
            }
            Event::Apply(object) => {
                let item = self.feed.digest(object);
                self.feed.apply(item);
            }
            Event::Delete(object) => {
                if self.type_is_going().await {
                    return false;
                }
                let item = self.feed.digest(object);
                self.feed.remove(item);
            }
        }
        true
    }
}

/// The status code with which the API server refuses a list or watch.
fn refusal(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(s)) | WatchStartFailed(kube::Error::Api(s)) => Some(s.code),
        _ => None,
    }
}

impl<F: Feed> Actor for Watcher<F>
where
    <F::Object as Resource>::DynamicType: Send,
{
    const NAME: &'static str = "watcher";

    fn instance(&self) -> String {
        self.kind.to_owned()
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        loop {
            let epoch = *self.epoch.borrow();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.follow(epoch) => ended?,
            }
        }
    }
}
