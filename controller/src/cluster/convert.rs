//! From API objects to the core's digests.
use std::{net::IpAddr, sync::Arc};

use ferrocast_core::model::{
    AnnotationText, BGP_SOURCES_ANNOTATION, FamilyPolicy, IpFamily, Labels, Node, Port, Protocol, Service,
    ServiceAnnotations, ServiceCondition, ServiceKey, TrafficPolicy,
};
use ipnet::IpNet;
use k8s_openapi::{
    api::{core::v1 as core, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// Prefix of the annotations, and its deprecated predecessor.
const ANNOTATION_PREFIXES: [(&str, bool); 2] = [("metallb.io/", false), ("metallb.universe.tf/", true)];

/// The annotation that Ferrocast writes: the pool of the Service's addresses.
pub const ALLOCATED_FROM_POOL: &str = "metallb.io/ip-allocated-from-pool";

/// The label that ties an EndpointSlice to its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// `metadata.labels`.
#[must_use]
pub fn labels(meta: &ObjectMeta) -> Labels {
    meta.labels.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

/// `metadata.creationTimestamp` in seconds since the Unix epoch; 0 if absent.
#[must_use]
pub fn created_s(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second())
}

/// Namespace and name of a Service.
#[must_use]
pub fn service_key(meta: &ObjectMeta) -> ServiceKey {
    ServiceKey::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn annotation(meta: &ObjectMeta, name: &str) -> Option<AnnotationText> {
    let all = meta.annotations.as_ref()?;
    ANNOTATION_PREFIXES.iter().find_map(|(prefix, deprecated)| {
        let value = all.get(&format!("{prefix}{name}"))?;
        Some(AnnotationText { value: value.as_str().into(), deprecated: *deprecated })
    })
}

/// An annotation of Ferrocast's own group.
fn own_annotation(meta: &ObjectMeta, name: &str) -> Option<AnnotationText> {
    let value = meta.annotations.as_ref()?.get(name)?;
    Some(AnnotationText { value: value.as_str().into(), deprecated: false })
}

/// Prefix of the types of our conditions.
pub const CONDITION_PREFIX: &str = "ferrocast.io/";

fn conditions(object: &core::Service) -> Box<[ServiceCondition]> {
    let all = object.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let own = all.filter(|c| c.type_.starts_with(CONDITION_PREFIX)).map(|c| ServiceCondition {
        kind: c.type_.as_str().into(),
        status: c.status.as_str().into(),
        reason: c.reason.as_str().into(),
        message: c.message.as_str().into(),
    });
    own.collect()
}

fn ports(spec: &core::ServiceSpec) -> Vec<Port> {
    let mut ports: Vec<Port> = spec
        .ports
        .iter()
        .flatten()
        .map(|p| Port {
            protocol: match p.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            number: u16::try_from(p.port).unwrap_or(0),
        })
        .collect();
    ports.sort_unstable();
    ports
}

fn selector(spec: &core::ServiceSpec) -> Box<str> {
    let pairs: Vec<String> = spec.selector.iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",").into()
}

fn family(text: &str) -> Option<IpFamily> {
    match text {
        "IPv4" => Some(IpFamily::V4),
        "IPv6" => Some(IpFamily::V6),
        _ => None,
    }
}

/// The digest of a Service. `writes`: keep `metadata.resourceVersion`, which only a writer of Services needs.
#[must_use]
pub fn service(object: &core::Service, writes: bool) -> Service {
    let meta = &object.metadata;
    let key = service_key(meta);
    let mut service = Service::load_balancer(key.namespace(), key.name());
    service.uid = meta.uid.as_deref().unwrap_or_default().into();
    if writes {
        service.resource_version = meta.resource_version.as_deref().unwrap_or_default().into();
        service.conditions = conditions(object);
    }
    service.created_s = created_s(meta);
    service.labels = labels(meta);
    service.annotations = ServiceAnnotations {
        address_pool: annotation(meta, "address-pool"),
        load_balancer_ips: annotation(meta, "loadBalancerIPs"),
        allow_shared_ip: annotation(meta, "allow-shared-ip"),
        addresses_per_family: own_annotation(meta, "ferrocast.io/addresses-per-family"),
        allocated_from_pool: annotation(meta, "ip-allocated-from-pool"),
    };
    let empty = core::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    service.is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    service.class = spec.load_balancer_class.as_deref().map(Into::into);
    service.traffic_policy = match spec.external_traffic_policy.as_deref() {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    };
    let cluster_ips = spec.cluster_ips.clone().unwrap_or_else(|| spec.cluster_ip.iter().cloned().collect());
    service.cluster_ips = cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    service.family_policy = match spec.ip_family_policy.as_deref() {
        Some("SingleStack") => Some(FamilyPolicy::SingleStack),
        Some("PreferDualStack") => Some(FamilyPolicy::PreferDualStack),
        Some("RequireDualStack") => Some(FamilyPolicy::RequireDualStack),
        _ => None,
    };
    service.families = spec.ip_families.iter().flatten().filter_map(|f| family(f)).collect();
    service.ports = ports(spec);
    service.selector = selector(spec);
    service.load_balancer_ip = spec.load_balancer_ip.as_deref().unwrap_or_default().into();
    let ingress = object.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
    for entry in ingress.into_iter().flatten() {
        match entry.ip.as_deref().map(str::parse::<IpAddr>) {
            Some(Ok(ip)) => service.ingress.push(ip),
            _ => service.ingress_foreign = true,
        }
    }
    service
}

/// The networks of a Node's pods; the older field of one network counts if the list is not there.
fn pod_cidrs(spec: Option<&core::NodeSpec>) -> Vec<IpNet> {
    let Some(spec) = spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten();
    let texts = if spec.pod_cidrs.is_some() { all.collect::<Vec<_>>() } else { spec.pod_cidr.iter().collect() };
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// The digest of a Node.
#[must_use]
pub fn node(object: &core::Node) -> Node {
    let status = object.status.as_ref();
    Node {
        name: object.metadata.name.as_deref().unwrap_or_default().into(),
        labels: labels(&object.metadata),
        internal_ips: status
            .and_then(|s| s.addresses.as_ref())
            .into_iter()
            .flatten()
            .filter(|a| a.type_ == "InternalIP")
            .filter_map(|a| a.address.parse().ok())
            .collect(),
        bgp_sources: bgp_sources(&object.metadata),
        pod_cidrs: pod_cidrs(object.spec.as_ref()),
        network_unavailable: status
            .and_then(|s| s.conditions.as_ref())
            .into_iter()
            .flatten()
            .any(|c| c.type_ == "NetworkUnavailable" && c.status == "True"),
    }
}

fn bgp_sources(meta: &ObjectMeta) -> Vec<IpAddr> {
    let text = meta.annotations.as_ref().and_then(|all| all.get(BGP_SOURCES_ANNOTATION));
    text.into_iter().flat_map(|text| text.split(',')).filter_map(|word| word.trim().parse().ok()).collect()
}

/// One endpoint as an EndpointSlice names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRow {
    /// Address.
    pub ip: IpAddr,
    /// Condition `ready` is true or absent, or `serving` is true.
    pub serving: bool,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
}

/// The Service and the endpoints of an EndpointSlice; `None` if it belongs to no Service or holds no addresses.
#[must_use]
pub fn endpoint_slice(object: &EndpointSlice) -> Option<(ServiceKey, Vec<EndpointRow>)> {
    let name = object.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    let key = ServiceKey::new(object.metadata.namespace.as_deref().unwrap_or_default(), name);
    let mut rows = Vec::new();
    for endpoint in object.endpoints.iter().flatten() {
        let conditions = endpoint.conditions.as_ref();
        let serving = conditions.is_none_or(|c| c.ready.unwrap_or(true) || c.serving == Some(true));
        let node: Option<Arc<str>> = endpoint.node_name.as_deref().map(Into::into);
        for ip in endpoint.addresses.iter().filter_map(|a| a.parse().ok()) {
            rows.push(EndpointRow { ip, serving, node: node.clone() });
        }
    }
    Some((key, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn service_digest_reads_both_annotation_prefixes_and_the_new_one_wins() {
        let object: core::Service = serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": "b", "resourceVersion": "7", "annotations": {
                "metallb.io/address-pool": "new", "metallb.universe.tf/address-pool": "old",
                "metallb.universe.tf/allow-shared-ip": "key"}},
            "spec": {"type": "LoadBalancer", "selector": {"b": "2", "a": "1"}, "externalTrafficPolicy": "Local",
                "clusterIPs": ["10.96.0.1", "fd96::1"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
                "ports": [{"port": 443}, {"port": 53, "protocol": "UDP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "x"}]}}
        }))
        .unwrap();
        let digest = service(&object, true);
        assert_eq!(digest.annotations.address_pool.unwrap(), AnnotationText { value: "new".into(), deprecated: false });
        assert!(digest.annotations.allow_shared_ip.unwrap().deprecated);
        assert_eq!(&*digest.selector, "a=1,b=2");
        assert_eq!(digest.ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tcp/443", "udp/53"]);
        assert_eq!(digest.ingress, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(digest.ingress_foreign);
        assert_eq!((digest.cluster_ips.len(), &*digest.resource_version), (2, "7"));
        assert_eq!(&*service(&object, false).resource_version, "");
    }

    #[test]
    fn sources_of_sessions_are_the_addresses_that_a_nodes_annotation_names() {
        let object =
            json!({"metadata": {"name": "n", "annotations": {BGP_SOURCES_ANNOTATION: "192.0.2.2, fd00::2,x"}}});
        let digest = node(&serde_json::from_value(object).unwrap());
        assert_eq!(digest.bgp_sources, ["192.0.2.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
    }

    #[test]
    fn endpoint_serves_when_ready_absent_or_true_or_serving() {
        let object: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": "b-1", "labels": {"kubernetes.io/service-name": "b"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}, "nodeName": "n1"}
            ]
        }))
        .unwrap();
        let (key, rows) = endpoint_slice(&object).unwrap();
        assert_eq!(key.as_str(), "a/b");
        assert_eq!(rows.iter().map(|r| r.serving).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(rows[2].node.as_deref(), Some("n1"));
    }
}
