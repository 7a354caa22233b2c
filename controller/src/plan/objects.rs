//! The objects that a plan is made of, and how others are applied to them.
use std::{collections::BTreeMap, sync::Arc};

use ferrocast_core::{
    config::{InForce, Password, Resource, Resources},
    model::{Labels, Node, Service, ServiceKey},
};
use imbl::OrdMap;

use crate::{
    cluster::convert::EndpointRow,
    manifests::{ConfigManifest, ConfigObject, Manifests, NAMESPACE_LABEL, SecretManifest, UNDATED_S},
};

/// Which object of `metallb.io` or `ferrocast.io`: kind, namespace, name.
pub type ConfigKey = (Arc<str>, Arc<str>, Arc<str>);

/// Service and endpoints of EndpointSlices by `namespace/name`.
pub type Slices = OrdMap<String, Arc<(ServiceKey, Vec<EndpointRow>)>>;

/// Objects by name. Every object has a creation time: those that had none come after all others, in the order of the documents.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// The configuration namespace.
    pub namespace: Arc<str>,
    /// Services.
    pub services: OrdMap<ServiceKey, Arc<Service>>,
    /// Endpoints of EndpointSlices by `namespace/name`.
    pub slices: Slices,
    /// Nodes.
    pub nodes: BTreeMap<Arc<str>, Arc<Node>>,
    /// Labels of Namespaces, with that which the API server puts on them.
    pub namespaces: BTreeMap<Arc<str>, Arc<Labels>>,
    /// Objects of `metallb.io` and `ferrocast.io`.
    pub config: BTreeMap<ConfigKey, ConfigObject>,
    /// Secrets of the configuration namespace that passwords are read from.
    pub secrets: BTreeMap<Arc<str>, Result<Password, String>>,
    /// What a running Ferrocast keeps of the past: last valid versions, held addresses.
    pub record: Option<Arc<InForce>>,
    /// Objects without a creation time so far.
    undated: i64,
}

impl Objects {
    /// Objects of which those that name no namespace belong to `namespace` if they are configuration.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self { namespace: namespace.into(), ..Self::default() }
    }

    /// Applies manifests as `kubectl apply` does: what is there already keeps identity, age and status, everything else is as written.
    pub fn apply(&mut self, manifests: Manifests) {
        let Manifests { services, slices, nodes, namespaces, config, secrets, .. } = manifests;
        for mut service in services {
            service.created_s = self.dated(service.created_s);
            if let Some(old) = self.services.get(&service.key) {
                service.uid = old.uid.clone();
                service.created_s = old.created_s;
                service.ingress.clone_from(&old.ingress);
                service.ingress_foreign = old.ingress_foreign;
                service.annotations.allocated_from_pool.clone_from(&old.annotations.allocated_from_pool);
            }
            self.services.insert(service.key.clone(), Arc::new(service));
        }
        for (key, slice) in slices {
            self.slices.insert(key, Arc::new(slice));
        }
        self.nodes.extend(nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))));
        for (name, labels) in namespaces {
            let labels = labels.iter().filter(|(key, _)| *key != NAMESPACE_LABEL);
            let labels: Labels = labels.chain([(NAMESPACE_LABEL, name.as_str())]).collect();
            self.namespaces.insert(name.into(), Arc::new(labels));
        }
        for object in config {
            self.apply_config(object);
        }
        for secret in secrets {
            self.apply_secret(secret);
        }
    }

    fn apply_config(&mut self, manifest: ConfigManifest) {
        let ConfigManifest { kind, namespace, name, mut object } = manifest;
        let key = (kind, namespace.unwrap_or_else(|| self.namespace.clone()), name);
        if let ConfigObject::Read(resource) = &mut object {
            resource.meta.created_s = self.dated(resource.meta.created_s);
            if let Some(ConfigObject::Read(old)) = self.config.get(&key) {
                resource.meta.created_s = old.meta.created_s;
                resource.meta.uid = old.meta.uid.clone();
                if resource.releases.is_empty() {
                    resource.releases.clone_from(&old.releases);
                }
            }
        }
        self.config.insert(key, object);
    }

    fn apply_secret(&mut self, secret: SecretManifest) {
        let here = secret.namespace.as_ref().is_none_or(|namespace| *namespace == self.namespace);
        if here && secret.basic_auth {
            self.secrets.insert(secret.name, secret.password.map(Password));
        }
    }

    /// The creation time, made up where there is none.
    fn dated(&mut self, created_s: i64) -> i64 {
        if created_s != 0 {
            return created_s;
        }
        self.undated += 1;
        UNDATED_S + self.undated
    }

    /// The configuration objects of the configuration namespace, for [`ferrocast_core::config::Builder`].
    #[must_use]
    pub fn resources(&self) -> Resources {
        let read = self.config.iter().filter_map(|((_, namespace, _), object)| match object {
            ConfigObject::Read(resource) if *namespace == self.namespace => Some(resource),
            _ => None,
        });
        let objects: OrdMap<_, _> =
            read.map(|resource| (resource.meta.key.clone(), Arc::<Resource>::new((**resource).clone()))).collect();
        let passwords = self.secrets.iter().map(|(name, password)| (name.clone(), password.clone())).collect();
        Resources { namespace: self.namespace.clone(), objects, passwords }
    }

    /// Labels of a Namespace: one that is not given has no label but its name.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Arc<Labels> {
        let known = self.namespaces.get(name).cloned();
        known.unwrap_or_else(|| Arc::new([(NAMESPACE_LABEL, name)].into_iter().collect()))
    }

    /// The moment that time is taken for: that of the last release on record, so that no cool-down ends in a plan.
    #[must_use]
    pub fn now_s(&self) -> i64 {
        let resources = self.config.values().filter_map(|object| match object {
            ConfigObject::Read(resource) => Some(resource),
            _ => None,
        });
        resources.flat_map(|resource| &resource.releases).map(|release| release.at_s).max().unwrap_or(0)
    }
}
