//! Reads a directory of manifests as the API server would see them.
use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use ferrocast_core::model::{FamilyPolicy, IpFamily, Labels, Node, Service};
use k8s_openapi::{
    api::{core::v1 as core, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

use crate::cluster::{
    convert,
    resources::{self, Kind},
};

/// Largest manifest file read, octets: a directory of manifests, not of data.
const FILE_LEN_MAX: u64 = 8 << 20;
/// Namespace of objects that name none.
const DEFAULT_NAMESPACE: &str = "default";

/// What a directory says.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    /// Services, with defaults applied, in document order.
    pub(super) services: Vec<Service>,
    /// EndpointSlices by `namespace/name`.
    pub(super) slices: BTreeMap<String, EndpointSlice>,
    /// Nodes, in document order.
    pub(super) nodes: Vec<Node>,
    /// Namespaces' labels by name.
    pub(super) namespaces: BTreeMap<String, Labels>,
    /// Configuration objects, whatever their shape, and the order they came in.
    pub(super) resources: Vec<ferrocast_core::config::Resource>,
    /// Secrets of type `kubernetes.io/basic-auth`: password by name.
    pub(super) secrets: BTreeMap<String, String>,
    /// Documents that could not be read: file, and why.
    pub(super) unreadable: Vec<String>,
}

/// The YAML files of `dir`, with their contents, in order of name.
///
/// # Errors
/// If the directory cannot be read.
pub(super) fn files(dir: &Path) -> io::Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if yaml && fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= FILE_LEN_MAX) {
            // A file that vanished or is half written is read at the next look.
            if let Ok(text) = fs::read_to_string(&path) {
                files.insert(path, text);
            }
        }
    }
    Ok(files)
}

/// Reads all documents.
#[must_use]
pub(super) fn read(files: &BTreeMap<PathBuf, String>) -> Manifests {
    let mut manifests = Manifests::default();
    for (path, text) in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
            Ok(documents) => documents,
            Err(error) => {
                manifests.unreadable.push(format!("{name}: not YAML: {error}"));
                continue;
            }
        };
        for document in documents {
            if let Err(why) = manifests.add(document) {
                manifests.unreadable.push(format!("{name}: {why}"));
            }
        }
    }
    for (i, service) in manifests.services.iter_mut().enumerate() {
        apply_defaults(service, i);
    }
    manifests
}

impl Manifests {
    fn add(&mut self, document: Value) -> Result<(), String> {
        if document.is_null() {
            return Ok(());
        }
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let ("List", Some(items)) = (kind.as_str(), document.get("items").and_then(Value::as_array)) {
            return items.iter().try_for_each(|item| self.add(item.clone()));
        }
        let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?").to_owned();
        let wrong = |error: serde_json::Error| format!("{kind} {name}: {error}");
        match kind.as_str() {
            "Service" => self.services.push(convert::service(&decode::<core::Service>(document).map_err(wrong)?, true)),
            "EndpointSlice" => {
                let mut slice: EndpointSlice = decode(document).map_err(wrong)?;
                let namespace = slice.metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.into()).clone();
                self.slices.insert(format!("{namespace}/{name}"), slice);
            }
            "Node" => self.nodes.push(convert::node(&decode::<core::Node>(document).map_err(wrong)?)),
            "Namespace" => {
                let meta: ObjectMeta = decode(document["metadata"].clone()).map_err(wrong)?;
                self.namespaces.insert(name, convert::labels(&meta));
            }
            "Secret" => self.add_secret(name.clone(), decode(document).map_err(wrong)?),
            _ => {
                let Some(kind) = Kind::named(&kind) else { return Ok(()) }; // other people's objects
                let meta: ObjectMeta = decode(document["metadata"].clone()).map_err(wrong)?;
                self.resources.push(resources::resource(kind, &meta, &document));
            }
        }
        Ok(())
    }

    fn add_secret(&mut self, name: String, secret: core::Secret) {
        let plain = secret.string_data.as_ref().and_then(|d| d.get("password").cloned());
        let encoded = || {
            let bytes = &secret.data.as_ref()?.get("password")?.0;
            String::from_utf8(bytes.clone()).ok()
        };
        if let Some(password) = plain.or_else(encoded) {
            self.secrets.insert(name, password);
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(document: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(document)
}

/// What the API server fills in: namespace, families, a cluster address per family (made up from the Service's position).
fn apply_defaults(service: &mut Service, position: usize) {
    if service.key.namespace().is_empty() {
        service.key = ferrocast_core::model::ServiceKey::new(DEFAULT_NAMESPACE, service.key.name());
    }
    let dual = matches!(service.family_policy, Some(FamilyPolicy::PreferDualStack | FamilyPolicy::RequireDualStack));
    if service.families.is_empty() {
        service.families = vec![IpFamily::V4];
    }
    if dual && service.families.len() == 1 {
        let other = if service.families[0] == IpFamily::V4 { IpFamily::V6 } else { IpFamily::V4 };
        service.families.push(other);
    }
    if service.cluster_ips.is_empty() {
        let host = u32::try_from(position + 10).unwrap_or(u32::MAX);
        service.cluster_ips = service
            .families
            .iter()
            .map(|family| match family {
                IpFamily::V4 => IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + host)),
                IpFamily::V6 => IpAddr::V6(Ipv6Addr::from_bits(0xfd96_u128 << 112 | u128::from(host))),
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Manifests {
        read(&[(PathBuf::from("a.yaml"), text.to_owned())].into())
    }

    #[test]
    fn service_gets_the_api_servers_defaults() {
        let manifests =
            of("kind: Service\nmetadata: {name: a}\nspec: {type: LoadBalancer, ipFamilyPolicy: PreferDualStack}\n");
        let service = &manifests.services[0];
        assert_eq!(service.key.as_str(), "default/a");
        assert_eq!(service.families, [IpFamily::V4, IpFamily::V6]);
        assert_eq!(service.cluster_ips.len(), 2);
    }

    #[test]
    fn broken_document_is_named_and_the_others_are_read() {
        let files = [
            (PathBuf::from("a.yaml"), "kind: [".to_owned()),
            (PathBuf::from("b.yaml"), "kind: Service\nmetadata: {name: b}\nspec: {ports: 5}\n".to_owned()),
            (PathBuf::from("c.yaml"), "kind: Service\nmetadata: {name: c}\n---\nkind: ConfigMap\n".to_owned()),
        ];
        let manifests = read(&files.into());
        assert_eq!(manifests.services.len(), 1);
        assert_eq!(manifests.unreadable.len(), 2);
        assert!(manifests.unreadable[0].starts_with("a.yaml: not YAML"), "{:?}", manifests.unreadable);
        assert!(manifests.unreadable[1].starts_with("b.yaml: Service b: "), "{:?}", manifests.unreadable);
    }
}
