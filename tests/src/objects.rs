//! The objects tests apply, as short functions with the fields that matter.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Where the configuration objects live unless a test says otherwise.
pub const CONFIG_NAMESPACE: &str = "metallb-system";
/// Where `deploy/` puts the workloads and their ServiceAccounts.
pub const SYSTEM_NAMESPACE: &str = "ferrocast-system";
/// The port of every Service of the lab that answers HTTP.
pub const HTTP_PORT: u16 = 80;
/// The port of every Service of the lab that echoes.
pub const ECHO_PORT: u16 = 81;

/// A Service to be, with the fields tests vary.
#[derive(Clone, Debug)]
pub struct Service<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// `spec.loadBalancerClass`.
    pub class: Option<&'a str>,
    /// `spec.externalTrafficPolicy`.
    pub traffic_policy: &'a str,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: &'a str,
    /// `spec.ipFamilies`.
    pub families: &'a [&'a str],
    /// Annotations.
    pub annotations: BTreeMap<&'a str, &'a str>,
}

impl<'a> Service<'a> {
    /// An IPv4 Service of the default class in the namespace `default`.
    #[must_use]
    pub fn named(name: &'a str) -> Self {
        Self {
            namespace: "default",
            name,
            class: None,
            traffic_policy: "Cluster",
            family_policy: "SingleStack",
            families: &["IPv4"],
            annotations: BTreeMap::new(),
        }
    }

    /// The same with another class.
    #[must_use]
    pub fn of_class(self, class: &'a str) -> Self {
        Self { class: Some(class), ..self }
    }

    /// The same for IPv6.
    #[must_use]
    pub fn ipv6(self) -> Self {
        Self { families: &["IPv6"], ..self }
    }

    /// The same with `RequireDualStack`.
    #[must_use]
    pub fn dual_stack(self) -> Self {
        Self { family_policy: "RequireDualStack", families: &["IPv4", "IPv6"], ..self }
    }

    /// The same with `externalTrafficPolicy: Local`.
    #[must_use]
    pub fn local(self) -> Self {
        Self { traffic_policy: "Local", ..self }
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn annotated(mut self, key: &'a str, value: &'a str) -> Self {
        self.annotations.insert(key, value);
        self
    }

    /// The object.
    #[must_use]
    pub fn object(&self) -> Value {
        let mut spec = json!({
            "type": "LoadBalancer",
            "externalTrafficPolicy": self.traffic_policy,
            "ipFamilyPolicy": self.family_policy,
            "ipFamilies": self.families,
            "selector": {"app": self.name},
            "ports": [
                {"name": "http", "port": HTTP_PORT, "targetPort": "http"},
                {"name": "echo", "port": ECHO_PORT, "targetPort": "echo"},
            ],
        });
        if self.traffic_policy == "Cluster" {
            spec["allocateLoadBalancerNodePorts"] = json!(false);
        }
        if let Some(class) = self.class {
            spec["loadBalancerClass"] = json!(class);
        }
        let metadata = json!({"namespace": self.namespace, "name": self.name, "annotations": self.annotations});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    }
}

/// One endpoint: its address, its node, whether it is ready and whether it serves (a terminating Pod may).
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Its address.
    pub address: &'a str,
    /// The node it is on.
    pub node: &'a str,
    /// `conditions.ready`.
    pub ready: bool,
    /// `conditions.serving`.
    pub serving: bool,
}

impl<'a> Endpoint<'a> {
    /// A ready one.
    #[must_use]
    pub fn ready(address: &'a str, node: &'a str) -> Self {
        Self { address, node, ready: true, serving: true }
    }
}

/// An EndpointSlice of a Service, of the family of its endpoints' addresses (`family` is `IPv4` or `IPv6`).
#[must_use]
pub fn endpoint_slice(namespace: &str, service: &str, family: &str, endpoints: &[Endpoint<'_>]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|endpoint| {
            let Endpoint { address, node, ready, serving } = endpoint;
            json!({
                "addresses": [address], "nodeName": node,
                "conditions": {"ready": ready, "serving": serving, "terminating": !ready},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": format!("{service}-{}", family.to_lowercase()),
            "labels": {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "test"},
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "echo", "port": 8081, "protocol": "TCP"}],
    })
}

/// A Namespace.
#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A configuration object; `kind` decides group and version.
#[must_use]
pub fn config(namespace: &str, kind: &str, name: &str, spec: Value) -> Value {
    let version = match kind {
        "BGPPeer" => "metallb.io/v1beta2",
        "AddressReservation" | "Advertisement" | "AnnouncerClass" | "BGPPeerPolicy" | "PoolPolicy"
        | "SpeakerStatus" => "ferrocast.io/v1alpha1",
        _ => "metallb.io/v1beta1",
    };
    json!({
        "apiVersion": version, "kind": kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

/// An IPAddressPool with these addresses.
#[must_use]
pub fn pool(namespace: &str, name: &str, addresses: &[&str]) -> Value {
    config(namespace, "IPAddressPool", name, json!({"addresses": addresses}))
}

/// A BGPAdvertisement of everything to everybody.
#[must_use]
pub fn advertisement(namespace: &str, name: &str) -> Value {
    config(namespace, "BGPAdvertisement", name, json!({}))
}
