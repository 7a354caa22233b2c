//! API objects without what nobody here reads.
//!
//! `metadata.managedFields` is usually the larger half of an object, and a tree: skipping it while decoding saves most of the
//! work of a watch event and most of the memory of a list.
use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    api::{core::v1 as core, discovery::v1 as discovery},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// What is read of `metadata`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LeanMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let LeanMeta {
        name,
        namespace,
        uid,
        resource_version,
        creation_timestamp,
        deletion_timestamp,
        labels,
        annotations,
    } = LeanMeta::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        creation_timestamp,
        deletion_timestamp,
        labels,
        annotations,
        ..ObjectMeta::default()
    })
}

/// Declares a lean twin of an API type that the API server is asked for in its stead.
macro_rules! lean {
    ($(#[$doc:meta])* $lean:ident of $full:ty, $scope:ty, { $($field:ident: $kind:ty),* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $lean {
            #[serde(default, deserialize_with = "metadata")]
            metadata: ObjectMeta,
            $(#[serde(default)] $field: $kind,)*
        }

        impl From<$lean> for $full {
            #[allow(clippy::needless_update, reason = "some types have fields that their lean twin has not")]
            fn from(lean: $lean) -> Self {
                Self { metadata: lean.metadata, $($field: lean.$field,)* ..Self::default() }
            }
        }

        impl Resource for $lean {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                <$full as Resource>::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                <$full as Resource>::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                <$full as Resource>::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                <$full as Resource>::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

lean! {
    /// A Service.
    LeanService of core::Service, NamespaceResourceScope,
    { spec: Option<core::ServiceSpec>, status: Option<core::ServiceStatus> }
}
lean! {
    /// A Namespace; of it only the metadata counts.
    LeanNamespace of core::Namespace, ClusterResourceScope, {}
}
lean! {
    /// A Pod; of it only the metadata counts.
    LeanPod of core::Pod, NamespaceResourceScope, {}
}
lean! {
    /// An EndpointSlice.
    LeanSlice of discovery::EndpointSlice, NamespaceResourceScope, { endpoints: Option<Vec<discovery::Endpoint>> }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lean_service_is_the_service_without_what_is_not_read() {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"l": "1"}, "annotations": {"n": "2"},
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}], "generation": 3,
            },
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        });
        let mut full: core::Service = serde_json::from_value(object.clone()).unwrap();
        (full.metadata.managed_fields, full.metadata.generation) = (None, None);
        let lean: LeanService = serde_json::from_value(object).unwrap();
        assert_eq!(core::Service::from(lean), full);
    }

    #[test]
    fn lean_types_are_asked_for_at_the_same_address() {
        assert_eq!(LeanService::url_path(&(), Some("n")), core::Service::url_path(&(), Some("n")));
        assert_eq!(LeanSlice::url_path(&(), None), discovery::EndpointSlice::url_path(&(), None));
        assert_eq!(LeanPod::url_path(&(), Some("n")), core::Pod::url_path(&(), Some("n")));
        assert_eq!(LeanNamespace::url_path(&(), None), core::Namespace::url_path(&(), None));
    }
}
