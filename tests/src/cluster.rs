//! Reading and writing any kind of object as administrator, and what tests ask about Services and Events.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::objects::{CONFIG_NAMESPACE, namespace};
use crate::wait::{ensure_that, eventually};

/// Who writes the tests' objects.
const FIELD_MANAGER: &str = "ferrocast-tests";
/// How long an object may take to disappear, s.
const DELETE_TIME_MAX_S: u64 = 20;

/// A cluster seen by its administrator.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl Cluster {
    /// With the rights of `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client itself.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    fn api(&self, object: &Value) -> Result<Api<DynamicObject>> {
        let (api_version, kind) = (text(object, "/apiVersion")?, text(object, "/kind")?);
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        Ok(match object.pointer("/metadata/namespace").and_then(Value::as_str) {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &resource),
            None => Api::all_with(self.client(), &resource),
        })
    }

    /// Creates or replaces an object's fields (server-side apply).
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        let name = text(object, "/metadata/name")?;
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.api(object)?
            .patch(&name, &parameters, &Patch::Apply(object))
            .await
            .map(drop)
            .with_context(|| format!("applying {}/{name}", text(object, "/kind").unwrap_or_default()))
    }

    /// Applies several objects in order.
    ///
    /// # Errors
    /// The first that is refused.
    pub async fn apply_all(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            self.apply(object).await?;
        }
        Ok(())
    }

    /// An object as it is stored; `object` names it by apiVersion, kind and metadata.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn stored(&self, object: &Value) -> Result<Value> {
        let found = self.api(object)?.get(&text(object, "/metadata/name")?).await?;
        Ok(serde_json::to_value(found)?)
    }

    /// Creates an object that must not exist yet.
    ///
    /// # Errors
    /// What the API server refuses, as its own error.
    pub async fn create(&self, object: &Value) -> Result<DynamicObject, kube::Error> {
        let typed: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
        let api = self.api(object).map_err(|error| kube::Error::Service(error.into()))?;
        api.create(&kube::api::PostParams::default(), &typed).await
    }

    /// Changes fields of an object (JSON merge patch); `object` names it by apiVersion, kind and metadata.
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn merge(&self, object: &Value, change: &Value) -> Result<()> {
        let name = text(object, "/metadata/name")?;
        self.api(object)?.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    /// Changes the status of an object (JSON merge patch).
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn merge_status(&self, object: &Value, status: &Value) -> Result<()> {
        let name = text(object, "/metadata/name")?;
        let change = json!({ "status": status });
        self.api(object)?.patch_status(&name, &PatchParams::default(), &Patch::Merge(&change)).await?;
        Ok(())
    }

    /// Deletes an object if it exists and waits until it is gone.
    ///
    /// # Errors
    /// When it stays.
    pub async fn delete(&self, object: &Value) -> Result<()> {
        let (api, name) = (self.api(object)?, text(object, "/metadata/name")?);
        let what = format!("{name} is gone");
        eventually(&what, Duration::from_secs(DELETE_TIME_MAX_S), async || {
            match api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(error.into()),
                Ok(_) => bail!("still there"),
            }
        })
        .await
    }

    /// Deletes several objects.
    ///
    /// # Errors
    /// The first that stays.
    pub async fn delete_all(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            self.delete(object).await?;
        }
        Ok(())
    }

    /// Creates a Namespace unless it exists.
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn ensure_namespace(&self, name: &str) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.client());
        if api.get_opt(name).await?.is_none() {
            self.apply(&namespace(name)).await?;
        }
        Ok(())
    }

    /// Every object of a kind in a namespace.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn list(&self, api_version: &str, kind: &str, namespace: &str) -> Result<Vec<DynamicObject>> {
        let of = json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace}});
        Ok(self.api(&of)?.list(&ListParams::default()).await?.items)
    }

    /// What the speakers say of themselves.
    ///
    /// # Errors
    /// When the SpeakerStatuses cannot be listed.
    pub async fn speaker_statuses(&self) -> Result<Vec<DynamicObject>> {
        self.list("ferrocast.io/v1alpha1", "SpeakerStatus", CONFIG_NAMESPACE).await
    }

    /// A Service.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn service(&self, namespace: &str, name: &str) -> Result<Service> {
        Ok(Api::namespaced(self.client(), namespace).get(name).await?)
    }

    /// The addresses in a Service's status, in their order.
    ///
    /// # Errors
    /// When there is no such Service.
    pub async fn addresses(&self, namespace: &str, name: &str) -> Result<Vec<String>> {
        Ok(addresses_of(&self.service(namespace, name).await?))
    }

    /// Waits until a Service has `count` addresses.
    ///
    /// # Errors
    /// When it has not in time: with the Events about it.
    pub async fn wait_for_addresses(&self, namespace: &str, name: &str, count: usize) -> Result<Vec<String>> {
        let what = format!("Service {namespace}/{name} has {count} addresses");
        let found = eventually(&what, crate::lab::CONVERGENCE_TIME_MAX, async || {
            let addresses = self.addresses(namespace, name).await?;
            ensure!(addresses.len() == count, "it has {addresses:?}");
            Ok(addresses)
        });
        match found.await {
            Ok(addresses) => Ok(addresses),
            Err(error) => {
                let events = self.events_about(namespace, name).await.unwrap_or_default();
                Err(error.context(format!("Events: {events:?}")))
            }
        }
    }

    /// The addresses of every Service of a namespace, by name.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn all_addresses(&self, namespace: &str) -> Result<BTreeMap<String, Vec<String>>> {
        let api: Api<Service> = Api::namespaced(self.client(), namespace);
        let services = api.list(&ListParams::default()).await?;
        Ok(services.iter().map(|service| (service.name_any(), addresses_of(service))).collect())
    }

    /// `Type Reason: note` of every Event about the objects of this name, oldest first.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn events_about(&self, namespace: &str, name: &str) -> Result<Vec<String>> {
        let api: Api<Event> = Api::namespaced(self.client(), namespace);
        let mut events = api.list(&ListParams::default()).await?.items;
        events.retain(|event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name));
        events.sort_by(|one, other| one.event_time.cmp(&other.event_time));
        let line = |event: &Event| {
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{} {}: {}", part(&event.type_), part(&event.reason), part(&event.note))
        };
        Ok(events.iter().map(line).collect())
    }

    /// Waits for an Event about an object that contains all of `words`.
    ///
    /// # Errors
    /// When there is none in time: with those there are.
    pub async fn wait_for_event(&self, namespace: &str, name: &str, words: &[&str]) -> Result<String> {
        let what = format!("an Event about {namespace}/{name} says {words:?}");
        eventually(&what, crate::lab::CONVERGENCE_TIME_MAX, async || {
            let events = self.events_about(namespace, name).await?;
            let found = events.iter().find(|event| words.iter().all(|word| event.contains(word)));
            ensure_that(found.is_some(), || format!("{events:#?}"))?;
            found.cloned().context("found above")
        })
        .await
    }
}

/// The addresses in a Service's status.
#[must_use]
pub fn addresses_of(service: &Service) -> Vec<String> {
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = ingress.and_then(|balancer| balancer.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|entry| entry.ip.clone()).collect()
}

fn text(object: &Value, pointer: &str) -> Result<String> {
    let found = object.pointer(pointer).and_then(Value::as_str);
    Ok(found.with_context(|| format!("no {pointer} in {object}"))?.to_owned())
}
