//! Tables of cases: objects in a shorthand, and what must follow from them.
#![allow(dead_code, unreachable_pub, reason = "each test reads other parts")]
#![allow(clippy::unwrap_used, reason = "a table that cannot be read ends the test")]
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What a command line would say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// `--nodes`.
    pub nodes: Option<u16>,
    /// `--assume-endpoints`.
    pub assume_endpoints: bool,
    /// `--load-balancer-class`.
    pub class: Option<String>,
    /// `--ignore-exclude-lb`.
    pub ignore_exclude_lb: bool,
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    #[serde(default, rename = "use")]
    uses: Vec<String>,
    #[serde(default)]
    given: Vec<Value>,
    /// The command line.
    #[serde(default)]
    pub options: Options,
    /// For `explain`: the subject, `service default/web`.
    #[serde(default)]
    pub explain: String,
    /// What follows, by part.
    #[serde(default)]
    pub want: BTreeMap<String, Vec<String>>,
    /// The objects.
    #[serde(skip)]
    pub objects: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    common: BTreeMap<String, Vec<Value>>,
    cases: Vec<Case>,
}

/// The cases of a file below `controller/tests`, for tests of this crate and of its siblings.
pub fn table(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/tests").join(file);
    let Table { common, cases } = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let fill = |mut case: Case| {
        for name in &case.uses {
            let objects = common.get(name).unwrap_or_else(|| panic!("{}: no common objects {name:?}", case.name));
            case.objects.extend(objects.iter().map(expand));
        }
        case.objects.extend(case.given.iter().map(expand));
        case
    };
    cases.into_iter().map(fill).collect()
}

impl Case {
    /// The objects as manifests.
    pub fn manifests(&self) -> String {
        let mut text = String::new();
        for object in &self.objects {
            writeln!(text, "---\n{object}").unwrap();
        }
        text
    }
}

/// `apiVersion` of a kind.
fn api_version(kind: &str) -> &'static str {
    match kind {
        "Service" | "Node" | "Namespace" | "Secret" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "BGPPeer" => "metallb.io/v1beta2",
        "PoolPolicy" | "AddressReservation" | "Advertisement" | "AnnouncerClass" | "BGPPeerPolicy"
        | "SpeakerStatus" => "ferrocast.io/v1alpha1",
        _ => "metallb.io/v1beta1",
    }
}

/// An object in shorthand as a manifest: `{IPAddressPool: p, spec: …}`, `{Service: web, namespace: a, ingress: [192.0.2.1]}`,
/// `{Endpoints: web, on: [n1, n2], away: [n3]}` (`away`: not serving; `-`: on no node), `{Node: n1, ips: […]}`.
pub fn expand(short: &Value) -> Value {
    let mut fields: Map<String, Value> = short.as_object().unwrap().clone();
    let kind = fields.keys().find(|key| key.starts_with(char::is_uppercase)).unwrap().clone();
    let name = fields.remove(&kind).unwrap();
    let mut take = |field: &str| fields.remove(field).unwrap_or(Value::Null);
    let mut metadata = json!({"name": name});
    for (field, own) in [
        ("namespace", "namespace"),
        ("labels", "labels"),
        ("annotations", "annotations"),
        ("creationTimestamp", "created"),
    ] {
        let value = take(own);
        if !value.is_null() {
            metadata[field] = value;
        }
    }
    let config = !matches!(kind.as_str(), "Service" | "Node" | "Namespace" | "Endpoints");
    if config && metadata["namespace"].is_null() {
        metadata["namespace"] = "metallb-system".into();
    }
    let version = take("apiVersion");
    let mut object = json!({"apiVersion": api_version(&kind), "kind": kind, "metadata": metadata});
    if !version.is_null() {
        object["apiVersion"] = version;
    }
    let spec = take("spec");
    match kind.as_str() {
        "Service" => {
            let mut spec = if spec.is_null() { json!({}) } else { spec };
            let defaults = json!({"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": object["metadata"]["name"]}});
            for (field, value) in defaults.as_object().unwrap() {
                spec.as_object_mut().unwrap().entry(field).or_insert_with(|| value.clone());
            }
            object["spec"] = spec;
            if let Value::Array(ips) = take("ingress") {
                let entries: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
                object["status"] = json!({"loadBalancer": {"ingress": entries}});
            }
        }
        "Node" => {
            let ips = take("ips");
            let addresses = ips.as_array().into_iter().flatten().map(|ip| json!({"type": "InternalIP", "address": ip}));
            let down = if take("networkUnavailable") == true { "True" } else { "False" };
            object["status"] = json!({
                "addresses": addresses.collect::<Vec<_>>(),
                "conditions": [{"type": "NetworkUnavailable", "status": down}],
            });
        }
        "Endpoints" => return endpoints(&object, &take("on"), &take("away")),
        _ if !spec.is_null() => object["spec"] = spec,
        _ => {}
    }
    for field in ["status", "type", "stringData", "data"] {
        let value = take(field);
        if !value.is_null() {
            object[field] = value;
        }
    }
    assert!(fields.is_empty(), "what is this? {fields:?}");
    object
}

/// An EndpointSlice with one endpoint per node named.
fn endpoints(object: &Value, on: &Value, away: &Value) -> Value {
    let service = object["metadata"]["name"].as_str().unwrap();
    let both = [(on, true), (away, false)].into_iter();
    let named = both.flat_map(|(nodes, ready)| nodes.as_array().into_iter().flatten().map(move |node| (node, ready)));
    let endpoints = named.enumerate().map(|(i, (node, ready))| {
        let mut endpoint = json!({"addresses": [format!("10.1.0.{}", i + 1)], "conditions": {"ready": ready}});
        if node != "-" {
            endpoint["nodeName"] = node.clone();
        }
        endpoint
    });
    let mut metadata = object["metadata"].clone();
    metadata["name"] = format!("{service}-1").into();
    metadata["labels"] = json!({"kubernetes.io/service-name": service});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}
