//! From kube-vip, PureLB and Cilium: the part that maps, and a list of what does not.
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    configmap::{Converted, object_name},
    reader::{Fields, Remarks},
    tree::{Place, Tree, Value as Yaml},
};

/// Whose resources they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The ConfigMap `kubevip`, and annotations of Services.
    KubeVip,
    /// `ServiceGroup`s of `purelb.io`, and annotations of Services.
    PureLb,
    /// `CiliumLoadBalancerIPPool`s, and annotations of Services.
    Cilium,
}

/// Annotations of Services: theirs, and ours.
const ANNOTATIONS: [(Source, &str, &str); 9] = [
    (Source::KubeVip, "kube-vip.io/loadbalancerIPs", "metallb.io/loadBalancerIPs"),
    (Source::PureLb, "purelb.io/service-group", "metallb.io/address-pool"),
    (Source::PureLb, "purelb.io/addresses", "metallb.io/loadBalancerIPs"),
    (Source::PureLb, "purelb.io/allow-shared-ip", "metallb.io/allow-shared-ip"),
    (Source::Cilium, "lbipam.cilium.io/ips", "metallb.io/loadBalancerIPs"),
    (Source::Cilium, "io.cilium/lb-ipam-ips", "metallb.io/loadBalancerIPs"),
    (Source::Cilium, "lbipam.cilium.io/sharing-key", "metallb.io/allow-shared-ip"),
    (Source::Cilium, "io.cilium/lb-ipam-sharing-key", "metallb.io/allow-shared-ip"),
    (Source::Cilium, "lbipam.cilium.io/sharing-cross-namespace", ""),
];
/// Prefixes of the annotations of each.
const PREFIXES: [(Source, &str); 4] = [
    (Source::KubeVip, "kube-vip.io/"),
    (Source::PureLb, "purelb.io/"),
    (Source::Cilium, "lbipam.cilium.io/"),
    (Source::Cilium, "io.cilium/lb-ipam"),
];
/// What kube-vip takes for "ask DHCP".
const DHCP: &str = "0.0.0.0";

struct Converter<'n> {
    source: Source,
    namespace: &'n str,
    objects: Vec<Value>,
    remarks: Remarks,
}

/// Converts every document of a file.
#[must_use]
pub fn convert(source: Source, text: &str, namespace: &str) -> Converted {
    let mut converter = Converter { source, namespace, objects: Vec::new(), remarks: Remarks::default() };
    match Tree::read_all(text) {
        Err(error) => converter.remarks.error(Place::default(), "", format!("not YAML: {error}")),
        Ok(documents) => documents.iter().for_each(|document| converter.document(document)),
    }
    let mut remarks = converter.remarks;
    remarks.errors.sort();
    remarks.warnings.sort();
    let objects = if remarks.errors.is_empty() { converter.objects } else { Vec::new() };
    Converted { objects, remarks }
}

impl Converter<'_> {
    fn document(&mut self, tree: &Tree) {
        let kind = tree.text_at(&["kind"]);
        if kind == "List" {
            if let Some(Yaml::List(items)) = tree.get("items").map(|items| &items.value) {
                items.iter().for_each(|item| self.document(item));
            }
            return;
        }
        let mut remarks = std::mem::take(&mut self.remarks);
        match (self.source, kind) {
            (_, "Service") => self.service(tree, &mut remarks),
            (Source::KubeVip, "ConfigMap") => self.kube_vip(tree, &mut remarks),
            (Source::PureLb, "ServiceGroup") => self.service_group(tree, &mut remarks),
            (Source::Cilium, "CiliumLoadBalancerIPPool") => self.cilium_pool(tree, &mut remarks),
            _ => remarks.warning(
                tree.place,
                "",
                format!("{kind} {}: not converted", tree.text_at(&["metadata", "name"])),
            ),
        }
        self.remarks = remarks;
    }

    fn pool(&mut self, name: &str, addresses: Vec<String>, spec: Vec<(&str, Value)>) {
        let mut object = json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": {"addresses": addresses},
        });
        for (field, value) in spec {
            object["spec"][field] = value;
        }
        self.objects.push(object);
    }

    /// Annotations are on Services, which are not ours to write: what to do is told.
    fn service(&self, tree: &Tree, remarks: &mut Remarks) {
        let (namespace, name) = (tree.text_at(&["metadata", "namespace"]), tree.text_at(&["metadata", "name"]));
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        let Some(Yaml::Map(entries)) = tree.get("metadata").and_then(|m| m.get("annotations")).map(|a| &a.value) else {
            return;
        };
        for (key, value) in entries {
            let (Some(theirs), Some(text)) = (key.scalar(), value.scalar()) else { continue };
            let path = format!("Service {namespace}/{name}: {theirs}");
            let known = ANNOTATIONS.iter().find(|(source, known, _)| *source == self.source && *known == theirs);
            match known {
                Some((_, _, "metallb.io/loadBalancerIPs")) if text == DHCP => {
                    remarks.warning(key.place, &path, "addresses from DHCP are not to be had here");
                }
                Some((_, _, ours)) if !ours.is_empty() => remarks.warning(
                    key.place,
                    &path,
                    format!("run: kubectl annotate service -n {namespace} {name} {ours}={text}"),
                ),
                Some(_) => remarks.warning(
                    key.place,
                    &path,
                    "Services of all namespaces may share an address with one key; a PoolPolicy with sharing.namespaces: Same forbids it",
                ),
                None if PREFIXES.iter().any(|(source, prefix)| *source == self.source && theirs.starts_with(prefix)) => {
                    remarks.warning(key.place, &path, "has no counterpart here");
                }
                None => {}
            }
        }
    }

    /// `cidr-global`, `range-NAMESPACE` …: <https://kube-vip.io/docs/usage/cloud-provider/>
    fn kube_vip(&mut self, tree: &Tree, remarks: &mut Remarks) {
        let Some(data) = tree.get("data") else { return };
        let Some(fields) = Fields::of(data, "data", remarks) else { return };
        drop(fields); // it has reported what stands there twice
        let Yaml::Map(entries) = &data.value else { return };
        for (key, value) in entries {
            let (Some(name), Some(text)) = (key.scalar(), value.scalar()) else { continue };
            let path = format!("data.{name}");
            let scope = name.strip_prefix("cidr-").or_else(|| name.strip_prefix("range-"));
            let Some(scope) = scope else {
                remarks.warning(key.place, &path, "has no counterpart here");
                continue;
            };
            let mut addresses = Vec::new();
            for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                if part.starts_with(DHCP) {
                    remarks.warning(value.place, &path, "addresses from DHCP are not to be had here");
                } else if is_range(part) {
                    addresses.push(part.to_owned());
                } else {
                    remarks.error(value.place, &path, format!("{part:?} is neither a CIDR nor a start-end range"));
                }
            }
            if addresses.is_empty() {
                continue;
            }
            let spec = match scope {
                "global" => Vec::new(),
                namespace => vec![("serviceAllocation", json!({"namespaces": [namespace]}))],
            };
            self.pool(&object_name(name), addresses, spec);
        }
    }

    /// `ServiceGroup`: <https://purelb.gitlab.io/docs/operation/services/>
    fn service_group(&mut self, tree: &Tree, remarks: &mut Remarks) {
        let name = tree.text_at(&["metadata", "name"]).to_owned();
        let Some(spec) = tree.get("spec").and_then(|spec| Fields::of(spec, "spec", remarks)) else {
            return remarks.error(tree.place, "spec", format!("ServiceGroup {name} has no spec"));
        };
        let mut spec = spec;
        if spec.take("netbox").is_some() {
            let place = spec.place_of("netbox");
            remarks.warning(
                place,
                "spec.netbox",
                "addresses from Netbox are not to be had here: write a pool of your own",
            );
        }
        let mut addresses = Vec::new();
        if let Some(mut local) = spec.take("local").and_then(|local| Fields::of(local, "spec.local", remarks)) {
            let mut pools: Vec<(&Tree, String)> = Vec::new();
            for key in ["v4pool", "v6pool"] {
                pools.extend(local.take(key).map(|pool| (pool, local.at(key))));
            }
            for key in ["v4pools", "v6pools"] {
                pools.extend(local.list(key, remarks));
            }
            if local.has("pool") {
                addresses.extend(pool_text(&mut local, remarks)); // PureLB before v0.5
            }
            for (pool, path) in pools {
                let Some(mut pool) = Fields::of(pool, &path, remarks) else { continue };
                addresses.extend(pool_text(&mut pool, remarks));
                pool.finish(remarks);
            }
            local.finish(remarks);
        }
        spec.finish(remarks);
        if addresses.is_empty() {
            return;
        }
        // PureLB gives out of the group `default` unless a Service names another.
        let spec = if name == "default" { Vec::new() } else { vec![("autoAssign", json!(false))] };
        self.pool(&object_name(&name), addresses, spec);
        remarks.warning(
            tree.place,
            &format!("ServiceGroup {name}"),
            "how its addresses are announced is not converted: write a BGPAdvertisement for the pool",
        );
    }

    /// `CiliumLoadBalancerIPPool`: <https://docs.cilium.io/en/stable/network/lb-ipam/>
    fn cilium_pool(&mut self, tree: &Tree, remarks: &mut Remarks) {
        let name = tree.text_at(&["metadata", "name"]).to_owned();
        let Some(mut spec) = tree.get("spec").and_then(|spec| Fields::of(spec, "spec", remarks)) else {
            return remarks.error(tree.place, "spec", format!("CiliumLoadBalancerIPPool {name} has no spec"));
        };
        let first_last = spec.text("allowFirstLastIPs", remarks).is_none_or(|text| text != "No");
        let mut addresses = Vec::new();
        let mut blocks = spec.list("blocks", remarks);
        blocks.extend(spec.list("cidrs", remarks)); // before Cilium 1.15
        for (block, path) in blocks {
            let Some(mut block) = Fields::of(block, &path, remarks) else { continue };
            addresses.extend(block_text(&mut block, first_last, remarks));
            block.finish(remarks);
        }
        let mut more = Vec::new();
        if let Some(selector) = spec.take("serviceSelector")
            && let Some(allocation) = allocation(selector, remarks)
        {
            more.push(("serviceAllocation", allocation));
        }
        let disabled = spec.flag("disabled", remarks) == Some(true);
        spec.finish(remarks);
        if addresses.is_empty() {
            return remarks.error(tree.place, "spec.blocks", format!("CiliumLoadBalancerIPPool {name} has no blocks"));
        }
        let name = object_name(&name);
        if disabled {
            self.objects.push(json!({
                "apiVersion": "ferrocast.io/v1alpha1", "kind": "PoolPolicy",
                "metadata": {"name": format!("{name}-disabled"), "namespace": self.namespace},
                "spec": {"ipAddressPools": [name], "noNewAddresses": addresses},
            }));
        }
        self.pool(&name, addresses, more);
    }
}

/// `pool` of PureLB: a range or a CIDR; `subnet` and `aggregation` concern how it is announced.
fn pool_text(fields: &mut Fields<'_>, remarks: &mut Remarks) -> Option<String> {
    let (place, path) = (fields.place_of("pool"), fields.at("pool"));
    let _ = (fields.take("subnet"), fields.take("aggregation"));
    let text = fields.text("pool", remarks)?;
    if !is_range(&text) {
        remarks.error(place, &path, format!("{text:?} is neither a CIDR nor a start-end range"));
    }
    Some(text)
}

/// A block of Cilium.
fn block_text(block: &mut Fields<'_>, first_last: bool, remarks: &mut Remarks) -> Option<String> {
    let place = block.place;
    let path = block.path.clone();
    if let Some(text) = block.text("cidr", remarks) {
        let Ok(net) = text.parse::<IpNet>() else {
            remarks.error(place, &path, format!("{text:?} is no CIDR"));
            return None;
        };
        return Some(if first_last { text } else { inner(net).unwrap_or(text) });
    }
    let start = block.text("start", remarks);
    let stop = block.text("stop", remarks).or_else(|| start.clone());
    let (Some(start), Some(stop)) = (start, stop) else {
        remarks.error(place, &path, "a block needs cidr, or start and stop");
        return None;
    };
    let range = format!("{start}-{stop}");
    if !is_range(&range) {
        remarks.error(place, &path, format!("{range:?} is no range of addresses"));
    }
    Some(range)
}

/// A block without its first and its last address; `None` where nothing would be left, or there is no such thing.
fn inner(net: IpNet) -> Option<String> {
    let IpNet::V4(net) = net else { return None };
    let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
    (last - first >= 2).then(|| {
        let ip = |bits: u32| std::net::Ipv4Addr::from(bits);
        format!("{}-{}", ip(first + 1), ip(last - 1))
    })
}

/// `serviceSelector` of Cilium, which knows namespace and name of a Service as labels.
fn allocation(selector: &Tree, remarks: &mut Remarks) -> Option<Value> {
    const NAMESPACE: &str = "io.kubernetes.service.namespace";
    const NAME: &str = "io.kubernetes.service.name";
    let mut fields = Fields::of(selector, "spec.serviceSelector", remarks)?;
    let mut namespaces: Vec<String> = Vec::new();
    let mut labels = serde_json::Map::new();
    let mut expressions = Vec::new();
    for (key, value, place) in fields.pairs("matchLabels", remarks) {
        match key.as_str() {
            NAMESPACE => namespaces.push(value),
            NAME => remarks.error(
                place,
                "spec.serviceSelector",
                "a pool cannot be for Services by name: use an AddressReservation",
            ),
            _ => drop(labels.insert(key, Value::from(value))),
        }
    }
    for (expression, path) in fields.list("matchExpressions", remarks) {
        let Some(mut expression) = Fields::of(expression, &path, remarks) else { continue };
        let key = expression.text("key", remarks).unwrap_or_default();
        let operator = expression.text("operator", remarks).unwrap_or_default();
        let values: Vec<String> = expression.texts("values", remarks).into_iter().map(|(text, _)| text).collect();
        let place = expression.place;
        expression.finish(remarks);
        match (key.as_str(), operator.as_str()) {
            (NAMESPACE, "In") => namespaces.extend(values),
            (NAMESPACE | NAME, _) => {
                remarks.error(
                    place,
                    &path,
                    format!("{operator} on {key} has no counterpart here: name the namespaces"),
                );
            }
            _ => expressions.push(json!({"key": key, "operator": operator, "values": values})),
        }
    }
    fields.finish(remarks);
    let mut allocation = json!({});
    if !namespaces.is_empty() {
        allocation["namespaces"] = json!(namespaces);
    }
    if !labels.is_empty() || !expressions.is_empty() {
        allocation["serviceSelectors"] = json!([{"matchLabels": labels, "matchExpressions": expressions}]);
    }
    Some(allocation)
}

fn is_range(text: &str) -> bool {
    match text.split_once('-') {
        Some((start, end)) => {
            let (start, end) = (start.trim().parse::<IpAddr>(), end.trim().parse::<IpAddr>());
            matches!((start, end), (Ok(a), Ok(b)) if a.is_ipv4() == b.is_ipv4() && a <= b)
        }
        None => text.parse::<IpNet>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(source: Source, text: &str) -> (Vec<String>, Vec<String>) {
        let converted = convert(source, text, "metallb-system");
        assert_eq!(converted.remarks.errors, [], "{text}");
        let shown = |o: &Value| {
            format!("{} {} {}", o["kind"].as_str().unwrap(), o["metadata"]["name"].as_str().unwrap(), o["spec"])
        };
        let warnings = converted.remarks.warnings.iter().map(ToString::to_string).collect();
        (converted.objects.iter().map(shown).collect(), warnings)
    }

    #[test]
    fn kube_vip_pools_are_global_or_for_one_namespace() {
        let text = "kind: ConfigMap
metadata: {name: kubevip, namespace: kube-system}
data:
  cidr-global: 192.0.2.0/24, 2001:db8::/120
  range-dev: 198.51.100.10-198.51.100.20
  cidr-home: 0.0.0.0/32
  search-order: desc
---
kind: Service
metadata: {name: web, annotations: {kube-vip.io/loadbalancerIPs: 192.0.2.7, kube-vip.io/vipHost: n1}}
";
        let (objects, warnings) = objects(Source::KubeVip, text);
        assert_eq!(
            objects,
            [
                r#"IPAddressPool cidr-global {"addresses":["192.0.2.0/24","2001:db8::/120"]}"#,
                r#"IPAddressPool range-dev {"addresses":["198.51.100.10-198.51.100.20"],"serviceAllocation":{"namespaces":["dev"]}}"#,
            ]
        );
        assert_eq!(warnings.len(), 4, "{warnings:#?}");
        assert!(
            warnings
                .iter()
                .any(|w| w.contains("kubectl annotate service -n default web metallb.io/loadBalancerIPs=192.0.2.7"))
        );
        assert!(warnings.iter().any(|w| w.contains("search-order: has no counterpart")));
        assert!(warnings.iter().any(|w| w.contains("DHCP")));
    }

    #[test]
    fn purelb_groups_serve_only_who_names_them_but_the_default_one() {
        let text = "apiVersion: purelb.io/v1
kind: ServiceGroup
metadata: {name: default}
spec:
  local:
    v4pools: [{subnet: 192.0.2.0/24, pool: 192.0.2.10-192.0.2.20, aggregation: default}]
    v6pool: {subnet: 'fd00::/64', pool: 'fd00::10/124', aggregation: /128}
---
apiVersion: purelb.io/v1
kind: ServiceGroup
metadata: {name: other}
spec: {local: {subnet: 198.51.100.0/24, pool: 198.51.100.0/24, aggregation: default}}
";
        let (objects, warnings) = objects(Source::PureLb, text);
        assert_eq!(
            objects,
            [
                r#"IPAddressPool default {"addresses":["fd00::10/124","192.0.2.10-192.0.2.20"]}"#,
                r#"IPAddressPool other {"addresses":["198.51.100.0/24"],"autoAssign":false}"#,
            ]
        );
        assert_eq!(warnings.len(), 2);
        let wrong = convert(Source::PureLb, &text.replace("v4pools", "v5pools"), "x");
        assert!(wrong.remarks.errors[0].to_string().starts_with("6:5: spec.local: unknown field \"v5pools\""));
    }

    #[test]
    fn cilium_pools_keep_their_selectors_and_blocks() {
        let text = "apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: blue}
spec:
  allowFirstLastIPs: 'No'
  disabled: true
  blocks: [{cidr: 192.0.2.0/28}, {start: 198.51.100.1, stop: 198.51.100.9}, {start: 203.0.113.5}]
  serviceSelector:
    matchLabels: {color: blue, io.kubernetes.service.namespace: shop}
";
        let (objects, _) = objects(Source::Cilium, text);
        let ranges = r#"["192.0.2.1-192.0.2.14","198.51.100.1-198.51.100.9","203.0.113.5-203.0.113.5"]"#;
        assert_eq!(
            objects,
            [
                format!(r#"PoolPolicy blue-disabled {{"ipAddressPools":["blue"],"noNewAddresses":{ranges}}}"#),
                format!(
                    r#"IPAddressPool blue {{"addresses":{ranges},"serviceAllocation":{{"namespaces":["shop"],"serviceSelectors":[{{"matchExpressions":[],"matchLabels":{{"color":"blue"}}}}]}}}}"#
                ),
            ]
        );
        let wrong = convert(Source::Cilium, &text.replace("namespace: shop", "name: shop"), "x");
        assert!(wrong.remarks.errors[0].message.contains("AddressReservation"), "{:?}", wrong.remarks.errors);
    }
}
