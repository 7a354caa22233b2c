//! What must be known of the past after a restart: the last valid version of every object, and the addresses that are held or to
//! be moved.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{BfdProfile, Builder, Config, FormerPool, Meta, Resource, Resources, Spec};
use crate::{
    announce::Community,
    model::{Labels, ObjectKey},
};

/// Version of the shape of [`InForce`]. Fields are only added within a version.
pub const IN_FORCE_VERSION: u32 = 1;

/// What of the configuration is in force, in a form that can be kept. It holds no secret: passwords written in BGPPeers are left
/// out, and those in Secrets were never here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InForce {
    /// [`IN_FORCE_VERSION`]; one with another version says nothing to this one.
    pub version: u32,
    /// The last valid version of every object, in order of kind and name.
    pub objects: Vec<KeptObject>,
    /// [`Config::former`].
    pub former: BTreeMap<IpAddr, KeptPool>,
    /// [`Config::moved`]: `namespace/name`, and the address.
    pub moved: BTreeSet<(String, IpAddr)>,
}

/// The last valid version of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptObject {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`: an object that was deleted and created anew has no past.
    #[serde(default)]
    pub uid: String,
    /// `metadata.creationTimestamp`, seconds since the Unix epoch.
    #[serde(default)]
    pub created_s: i64,
    /// `metadata.labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The annotation `ferrocast.io/on-address-loss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_address_loss: Option<String>,
    /// Kind and spec, without a password.
    pub spec: Spec,
    /// A password is written in the spec.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_password: bool,
    /// What the aliases in `communities` of an advertisement stood for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, Community>,
    /// The BFDProfile that a peer was given last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<BfdProfile>,
}

/// A pool that a held address was in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeptPool {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

pub(super) fn plain_labels(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

impl KeptObject {
    /// The object as it was read, without its password.
    pub(super) fn resource(&self) -> Resource {
        let meta = Meta {
            key: ObjectKey { kind: self.spec.kind(), name: self.name.as_str().into() },
            uid: self.uid.as_str().into(),
            created_s: self.created_s,
            labels: self.labels.clone().into_iter().collect(),
            on_address_loss: self.on_address_loss.as_deref().map(Into::into),
            ..Meta::default()
        };
        Resource { meta, spec: Some(self.spec.clone()), ..Resource::default() }
    }
}

impl InForce {
    /// The objects as they would be read, in the configuration namespace `namespace`.
    #[must_use]
    pub fn resources(&self, namespace: &str) -> Resources {
        let objects = self.objects.iter().map(KeptObject::resource);
        Resources {
            namespace: namespace.into(),
            objects: objects.map(|object| (object.meta.key.clone(), Arc::new(object))).collect(),
            ..Resources::default()
        }
    }

    /// The configuration that was in force, but for passwords: what the next one is compared with after a restart.
    #[must_use]
    pub fn config(&self, namespace: &str) -> Config {
        let mut builder = Builder::default();
        builder.restore(self);
        let mut config = builder.build(&self.resources(namespace));
        config.problems.clear();
        config.stale = false;
        if self.version == IN_FORCE_VERSION {
            config.former = self.former.iter().map(|(ip, pool)| (*ip, pool.former())).collect();
            config.moved = self.moved.iter().filter_map(|(service, ip)| Some((service.parse().ok()?, *ip))).collect();
        }
        config
    }
}

impl KeptPool {
    pub(super) fn new(pool: &FormerPool) -> Self {
        Self { name: pool.name.to_string(), labels: plain_labels(&pool.labels) }
    }

    fn former(&self) -> Arc<FormerPool> {
        let labels = self.labels.clone().into_iter().collect();
        Arc::new(FormerPool { name: self.name.as_str().into(), labels })
    }
}
