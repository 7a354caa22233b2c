//! The objects of a live cluster.
use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use ferrocast_core::config::InForce;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Node, Secret, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    api::ListParams,
    core::{ApiResource, DynamicObject},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::objects::Objects;
use crate::{
    cluster::resources::Kind,
    in_force::{parts, store},
    manifests::Manifests,
};

/// Objects per page of a list: small enough that no page weighs more than a few megabytes.
const PAGE_SIZE: u32 = 500;
/// The answer to a request for a type that the cluster lacks.
const NOT_FOUND: u16 = 404;
/// The type of the Secrets that passwords are read from.
const BASIC_AUTH: &str = "type=kubernetes.io/basic-auth";

/// Lists what a plan is made of, and what the installation for Services of `class` keeps of the past.
///
/// # Errors
/// A cluster that does not let its objects be listed.
pub async fn objects(client: &Client, namespace: &str, class: Option<&str>) -> anyhow::Result<Objects> {
    let mut manifests = Manifests::default();
    add::<Service>("Service", "v1", Api::all(client.clone()), "", &mut manifests).await?;
    add::<EndpointSlice>("EndpointSlice", "discovery.k8s.io/v1", Api::all(client.clone()), "", &mut manifests).await?;
    add::<Node>("Node", "v1", Api::all(client.clone()), "", &mut manifests).await?;
    add::<Namespace>("Namespace", "v1", Api::all(client.clone()), "", &mut manifests).await?;
    let secrets = Api::namespaced(client.clone(), namespace);
    add::<Secret>("Secret", "v1", secrets, BASIC_AUTH, &mut manifests).await?;
    for kind in Kind::ALL {
        let resource = kind.api_resource();
        add_dynamic(kind, client, namespace, &resource, &mut manifests).await?;
    }
    let mut objects = Objects::new(namespace);
    objects.apply(manifests);
    objects.record = record(client.clone(), namespace, class).await?.map(Arc::new);
    Ok(objects)
}

/// The configuration in force as the leader recorded it; `None`: it has not yet.
async fn record(client: Client, namespace: &str, class: Option<&str>) -> anyhow::Result<Option<InForce>> {
    let base = parts::base_name(class);
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let of_ours = ListParams::default().labels(&format!("{}={base}", store::LABEL));
    let found = api.list(&of_ours).await.context("cannot list ConfigMaps")?;
    let found: BTreeMap<_, _> = found.items.into_iter().filter_map(|object| store::part_of(&base, object)).collect();
    if found.is_empty() {
        return Ok(None);
    }
    let record = parts::join(&found).with_context(|| format!("ConfigMap {base}"))?;
    serde_json::from_slice(&record).with_context(|| format!("ConfigMap {base}")).map(Some)
}

/// Every object of a type, page by page.
async fn list<K>(api: &Api<K>, fields: &str, mut each: impl FnMut(K)) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut parameters = ListParams::default().limit(PAGE_SIZE);
    if !fields.is_empty() {
        parameters = parameters.fields(fields);
    }
    loop {
        let page = api.list(&parameters).await?;
        page.items.into_iter().for_each(&mut each);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(()),
        }
    }
}

async fn add<K>(
    kind: &'static str,
    api_version: &'static str,
    api: Api<K>,
    fields: &str,
    manifests: &mut Manifests,
) -> anyhow::Result<()>
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let mut values = Vec::new();
    list(&api, fields, |object: K| values.push(serde_json::to_value(object)))
        .await
        .with_context(|| format!("cannot list {kind}s"))?;
    for value in values {
        take(value?, kind, api_version, manifests)?;
    }
    Ok(())
}

/// An installation may lack a type: then it has no objects of it.
async fn add_dynamic(
    kind: Kind,
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
    manifests: &mut Manifests,
) -> anyhow::Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let mut values = Vec::new();
    match list(&api, "", |object| values.push(serde_json::to_value(object))).await {
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => return Ok(()),
        listed => listed.with_context(|| format!("cannot list {}s", kind.name()))?,
    }
    for value in values {
        take(value?, kind.name(), &kind.api_version(), manifests)?;
    }
    Ok(())
}

/// Items of lists lack their type.
fn take(mut value: Value, kind: &str, api_version: &str, manifests: &mut Manifests) -> anyhow::Result<()> {
    value["kind"] = kind.into();
    value["apiVersion"] = api_version.into();
    manifests.add_object(value).map_err(anyhow::Error::msg)
}
