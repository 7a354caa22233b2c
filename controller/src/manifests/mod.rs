//! Reads manifests as the API server would see them: for `sandbox`, `plan`, `explain` and `validate`.
mod documents;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ferrocast_core::{
    config::{Problem, Resource, Severity},
    model::{Labels, Node, ObjectKey, Service, ServiceKey},
};
use k8s_openapi::{
    api::{core::v1 as core, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::{
    convert::{self, EndpointRow},
    resources::{self, Kind},
};
use documents::Document;

/// Largest manifest file read, octets: every Service and EndpointSlice of the largest cluster there is, in one file.
const FILE_LEN_MAX: u64 = 256 << 20;
/// The same, in memory.
const FILE_LEN_MAX_USIZE: usize = 256 << 20;
/// Namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Creation time of the first object without a timestamp, seconds since the Unix epoch: those come after all others, in the order of
/// the documents.
pub const UNDATED_S: i64 = 1 << 60;
/// The label that the API server puts on every Namespace.
pub const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
/// The type of Secrets that passwords are read from.
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";
/// Kinds in which only statuses are written, by group.
const STATUS_KINDS: [(&str, &str); 4] = [
    (ferrocast_api::GROUP, "ConfigurationState"),
    (ferrocast_api::GROUP, "ServiceBGPStatus"),
    (ferrocast_api::GROUP, "ServiceL2Status"),
    (ferrocast_api::OWN_GROUP, "SpeakerStatus"),
];

/// What is known of an object of `metallb.io` or `ferrocast.io`.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigObject {
    /// It is read, whatever its shape.
    Read(Box<Resource>),
    /// Of a kind that nothing follows from.
    Status,
    /// There is no such kind, or not in this version.
    Unknown(Problem),
}

/// An object of `metallb.io` or `ferrocast.io` as it stands in a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigManifest {
    /// `kind`, as written.
    pub kind: Arc<str>,
    /// `metadata.namespace`; `None`: none is given.
    pub namespace: Option<Arc<str>>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// What is known of it.
    pub object: ConfigObject,
}

/// What is read of a Secret.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretManifest {
    /// `metadata.namespace`; `None`: none is given.
    pub namespace: Option<Arc<str>>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Its type is that of which passwords are read.
    pub basic_auth: bool,
    /// The key `password`, or why there is none.
    pub password: Result<Arc<str>, String>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The file.
    pub file: Arc<str>,
    /// The line; 0: it is about the file as a whole.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// Group and kind, namespace, name.
type ObjectName = (String, Arc<str>, Arc<str>);
/// File and line.
type Place = (Arc<str>, u64);

/// What manifests say.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Services, with defaults applied, in document order; without a timestamp, `created_s` is 0.
    pub services: Vec<Service>,
    /// Endpoints of EndpointSlices by `namespace/name` of the slice.
    pub slices: BTreeMap<String, (ServiceKey, Vec<EndpointRow>)>,
    /// Nodes, in document order.
    pub nodes: Vec<Node>,
    /// Namespaces' labels by name.
    pub namespaces: BTreeMap<String, Labels>,
    /// Objects of `metallb.io` and `ferrocast.io`, in document order.
    pub config: Vec<ConfigManifest>,
    /// Secrets, in document order.
    pub secrets: Vec<SecretManifest>,
    /// What could not be read, in the order of files and lines.
    pub errors: Vec<ReadError>,
    /// Where each object stands, to tell of a second one.
    places: BTreeMap<ObjectName, Place>,
    /// Names of nodes in endpoints, each once.
    names: BTreeSet<Arc<str>>,
}

/// The manifest files of `dir` in order of name; not those of directories in it.
///
/// # Errors
/// If the directory cannot be read.
pub fn paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if yaml && fs::metadata(&path).is_ok_and(|m| m.is_file()) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// The manifest files of `dir`, with their contents, in order of name. One that vanished or is half written is left out: it is
/// read at the next look.
///
/// # Errors
/// If the directory cannot be read.
pub fn files(dir: &Path) -> io::Result<BTreeMap<PathBuf, String>> {
    let small = |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.len() <= FILE_LEN_MAX);
    let read = |path: PathBuf| fs::read_to_string(&path).ok().map(|text| (path, text));
    Ok(paths(dir)?.into_iter().filter(small).filter_map(read).collect())
}

/// Reads all documents of these files.
#[must_use]
pub fn read(files: &BTreeMap<PathBuf, String>) -> Manifests {
    let mut manifests = Manifests::default();
    for (path, text) in files {
        manifests.add_text(&path.file_name().unwrap_or_default().to_string_lossy(), text);
    }
    manifests
}

/// Reads files, and the files of directories, one after the other.
///
/// # Errors
/// If one is not there or cannot be read.
pub fn read_paths(given: &[PathBuf]) -> io::Result<Manifests> {
    let mut manifests = Manifests::default();
    for path in given {
        let told = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
        let files =
            if fs::metadata(path).map_err(told)?.is_dir() { paths(path).map_err(told)? } else { vec![path.clone()] };
        for file in files {
            let name = file.display().to_string();
            let told = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {name}: {error}"));
            if fs::metadata(&file).map_err(told)?.len() > FILE_LEN_MAX {
                return Err(io::Error::other(format!("{name} is larger than {} MiB", FILE_LEN_MAX >> 20)));
            }
            let text = fs::read_to_string(&file).map_err(told)?;
            manifests.add_text(&name, &text);
        }
    }
    Ok(manifests)
}

/// An object with where it stands.
struct Item<'a> {
    file: &'a Arc<str>,
    document: Document<'a>,
    /// The object is not the whole document but an item of a List.
    nested: bool,
}

impl Manifests {
    /// Adds the documents of one file.
    pub fn add_text(&mut self, file: &str, text: &str) {
        let file: Arc<str> = file.into();
        for document in documents::documents(text) {
            match document.value() {
                Ok(value) => self.add(value, &Item { file: &file, document, nested: false }),
                Err(fault) => {
                    self.errors.push(ReadError { file: file.clone(), line: fault.line, message: fault.message });
                }
            }
        }
    }

    /// Adds an object that stands in no file, such as one of a cluster.
    ///
    /// # Errors
    /// In words, if it has not the shape of its kind.
    pub fn add_object(&mut self, value: Value) -> Result<(), String> {
        self.take(value)
    }

    fn add(&mut self, mut value: Value, item: &Item<'_>) {
        if value.is_null() {
            return;
        }
        let kind = text_at(&value, "/kind").to_owned();
        if let (Some(of), Some(Value::Array(items))) =
            (kind.strip_suffix("List"), value.get_mut("items").map(Value::take))
        {
            for mut entry in items {
                if let (Some(fields), false) = (entry.as_object_mut(), of.is_empty()) {
                    fields.entry("kind").or_insert_with(|| of.into());
                    fields.entry("apiVersion").or_insert_with(|| value["apiVersion"].clone());
                }
                self.add(entry, &Item { nested: true, ..*item });
            }
            return;
        }
        if let Err((line, message)) = self.note_place(&value, item).and_then(|()| self.take_located(value, item)) {
            self.errors.push(ReadError { file: item.file.clone(), line, message });
        }
    }

    /// Notes where the object stands; there may be only one of its kind, namespace and name.
    fn note_place(&mut self, value: &Value, item: &Item<'_>) -> Result<(), (u64, String)> {
        let line = item.document.line;
        let kind = text_at(value, "/kind");
        if kind.is_empty() {
            return Err((line, "no kind: this is not an object of Kubernetes".to_owned()));
        }
        let (group, _) = group_and_version(value);
        let namespace = text_at(value, "/metadata/namespace");
        let name = text_at(value, "/metadata/name");
        let key = (format!("{group}/{kind}"), Arc::from(namespace), Arc::from(name));
        match self.places.insert(key, (item.file.clone(), line)) {
            Some((file, first)) if !name.is_empty() => {
                Err((line, format!("{kind} {name}: given before, at {file}:{first}")))
            }
            _ => Ok(()),
        }
    }

    /// Takes the object in; a fault gets the line of the field if that can be told.
    fn take_located(&mut self, value: Value, item: &Item<'_>) -> Result<(), (u64, String)> {
        let kind = text_at(&value, "/kind").to_owned();
        self.take(value).map_err(|message| {
            let located = if item.nested { None } else { line_of_fault(&kind, &item.document) };
            (located.unwrap_or(item.document.line), message)
        })
    }

    fn take(&mut self, value: Value) -> Result<(), String> {
        let kind = text_at(&value, "/kind").to_owned();
        let name = text_at(&value, "/metadata/name").to_owned();
        let (group, version) = group_and_version(&value);
        let wrong = |error: serde_json::Error| format!("{kind} {}: {error}", if name.is_empty() { "?" } else { &name });
        let named = || match name.is_empty() {
            true => Err(format!("{kind}: no metadata.name")),
            false => Ok(()),
        };
        match (&*group, kind.as_str()) {
            ("" | "?", "Service") => {
                named()?;
                let mut object: core::Service = decode(value).map_err(wrong)?;
                service::apply_defaults(&mut object, self.services.len());
                self.services.push(convert::service(&object, true));
            }
            ("discovery.k8s.io" | "?", "EndpointSlice") => {
                let mut slice: EndpointSlice = decode(value).map_err(wrong)?;
                let namespace = slice.metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.into()).clone();
                if let Some((service, mut rows)) = convert::endpoint_slice(&slice) {
                    rows.iter_mut().for_each(|row| self.share_name(row));
                    self.slices.insert(format!("{namespace}/{name}"), (service, rows));
                }
            }
            ("" | "?", "Node") => {
                named()?;
                self.nodes.push(convert::node(&decode::<core::Node>(value).map_err(wrong)?));
            }
            ("" | "?", "Namespace") => {
                let meta: ObjectMeta = metadata(&value).map_err(wrong)?;
                self.namespaces.insert(name.clone(), convert::labels(&meta));
            }
            ("" | "?", "Secret") => self.secrets.push(secret(decode(value).map_err(wrong)?)),
            (group, kind) if group == ferrocast_api::GROUP || group == ferrocast_api::OWN_GROUP || group == "?" => {
                let known = Kind::named(kind).filter(|k| group == "?" || k.group() == group);
                let status = STATUS_KINDS.iter().any(|(g, k)| *k == kind && (group == "?" || *g == group));
                if group == "?" && known.is_none() && !status {
                    return Ok(()); // other people's objects
                }
                named()?;
                let meta: ObjectMeta = metadata(&value).map_err(wrong)?;
                let object = match known {
                    Some(known) if version == "?" || is_served(known, &version) => {
                        ConfigObject::Read(Box::new(resources::resource(known, &meta, &value)))
                    }
                    None if status => ConfigObject::Status,
                    _ => ConfigObject::Unknown(unknown(kind, &name, &value)),
                };
                let namespace = meta.namespace.filter(|n| !n.is_empty()).map(Into::into);
                self.config.push(ConfigManifest { kind: kind.into(), namespace, name: name.as_str().into(), object });
            }
            _ => {} // other people's objects
        }
        Ok(())
    }

    /// Nodes' names are few, endpoints many.
    fn share_name(&mut self, row: &mut EndpointRow) {
        let Some(name) = &row.node else { return };
        match self.names.get(name) {
            Some(known) => row.node = Some(known.clone()),
            None => drop(self.names.insert(name.clone())),
        }
    }
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Group and version of `apiVersion`; `?` where none is given.
fn group_and_version(value: &Value) -> (String, String) {
    match text_at(value, "/apiVersion") {
        "" => ("?".to_owned(), "?".to_owned()),
        text => match text.split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), text.to_owned()),
        },
    }
}

/// Is the kind served in this version?
fn is_served(kind: Kind, version: &str) -> bool {
    version == kind.version() || (kind == Kind::Peer && version == "v1beta1")
}

fn unknown(kind: &str, name: &str, value: &Value) -> Problem {
    let api_version = text_at(value, "/apiVersion");
    let (rule, field, shown) = match Kind::named(kind) {
        Some(_) => ("unknownVersion", "apiVersion", api_version),
        None => ("unknownKind", "kind", kind),
    };
    let suggestion = match Kind::named(kind) {
        Some(known) => format!("write {}", known.api_version()),
        None => format!("write one of {}", Kind::ALL.map(Kind::name).join(", ")),
    };
    Problem {
        object: ObjectKey { kind: "", name: name.into() },
        field: field.to_owned(),
        value: shown.to_owned(),
        rule,
        message: format!("{api_version} has no kind {kind}"),
        suggestion,
        severity: Severity::Error,
    }
}

fn decode<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

fn metadata(value: &Value) -> Result<ObjectMeta, serde_json::Error> {
    decode(value.get("metadata").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new())))
}

/// Reads the document once more as what it should be, for the line of what is wrong.
fn line_of_fault(kind: &str, document: &Document<'_>) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct WithMeta {
        #[expect(dead_code, reason = "only whether it reads counts")]
        metadata: Option<ObjectMeta>,
    }
    let fault = match kind {
        "Service" => document.decode::<core::Service>("").err(),
        "EndpointSlice" => document.decode::<EndpointSlice>("").err(),
        "Node" => document.decode::<core::Node>("").err(),
        "Secret" => document.decode::<core::Secret>("").err(),
        _ => document.decode::<WithMeta>("").err(),
    };
    fault.map(|fault| fault.line)
}

fn secret(object: core::Secret) -> SecretManifest {
    let name = object.metadata.name.unwrap_or_default();
    let plain = object.string_data.as_ref().and_then(|d| d.get("password")).map(|text| Ok(text.as_str().into()));
    let encoded = || {
        let bytes = &object.data.as_ref()?.get("password")?.0;
        let text = std::str::from_utf8(bytes).map(Arc::from);
        Some(text.map_err(|_| format!("the key `password` of Secret {name} is not UTF-8 text")))
    };
    let password = plain.or_else(encoded).unwrap_or_else(|| Err(format!("Secret {name} has no key `password`")));
    SecretManifest {
        namespace: object.metadata.namespace.filter(|n| !n.is_empty()).map(Into::into),
        name: name.into(),
        basic_auth: object.type_.as_deref() == Some(BASIC_AUTH),
        password,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Manifests {
        read(&[(PathBuf::from("a.yaml"), text.to_owned())].into())
    }

    fn told(manifests: &Manifests) -> Vec<String> {
        manifests.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn broken_document_is_named_with_its_line_and_the_others_are_read() {
        let files = [
            (PathBuf::from("a.yaml"), "kind: Namespace\nmetadata: {name: x1}\n---\nkind: [".to_owned()),
            (PathBuf::from("b.yaml"), "kind: Service\nmetadata: {name: b}\nspec:\n  ports: 5\n".to_owned()),
            (PathBuf::from("c.yaml"), "kind: Service\nmetadata: {name: c}\n---\nkind: ConfigMap\n".to_owned()),
        ];
        let manifests = read(&files.into());
        assert_eq!(manifests.services.len(), 1);
        let told = told(&manifests);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("a.yaml:4: not YAML: "), "{told:?}");
        assert!(told[1].starts_with("b.yaml:4: Service b: "), "{told:?}");
    }

    #[test]
    fn second_object_of_one_name_is_refused_with_the_place_of_the_first() {
        let manifests = of(
            "kind: Node\nmetadata: {name: x1}\n---\nkind: Node\nmetadata: {name: x2}\n---\nkind: Node\nmetadata: {name: x1}\n",
        );
        assert_eq!(told(&manifests), ["a.yaml:6: Node x1: given before, at a.yaml:1"]);
        assert_eq!(manifests.nodes.len(), 2);
    }

    #[test]
    fn lists_are_taken_apart_and_other_groups_are_left_alone() {
        let manifests = of("
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}}
- {apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: b}}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPoolList
items:
- {metadata: {name: p}, spec: {addresses: [10.0.0.0/24]}}
");
        assert_eq!(told(&manifests), [""; 0]);
        assert_eq!(manifests.services.len(), 1);
        assert!(matches!(&manifests.config[0].object, ConfigObject::Read(r) if r.spec.is_some()));
    }

    #[test]
    fn objects_of_our_groups_are_read_told_unknown_or_known_as_status() {
        let manifests = of("
apiVersion: metallb.io/v1beta1
kind: BGPPeer
metadata: {name: old}
---
apiVersion: metallb.io/v1beta3
kind: BGPPeer
metadata: {name: new}
---
apiVersion: metallb.io/v1beta1
kind: AddressPool
metadata: {name: legacy, namespace: x}
---
apiVersion: ferrocast.io/v1alpha1
kind: SpeakerStatus
metadata: {name: n1}
");
        let rule = |i: usize| match &manifests.config[i].object {
            ConfigObject::Read(_) => "read",
            ConfigObject::Status => "status",
            ConfigObject::Unknown(problem) => problem.rule,
        };
        assert_eq!([0, 1, 2, 3].map(rule), ["read", "unknownVersion", "unknownKind", "status"]);
    }
}
