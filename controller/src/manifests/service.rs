//! What the API server fills in when a Service is created.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

/// Where made-up IPv4 cluster addresses begin; the first few belong to the cluster itself.
const CLUSTER_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Where made-up IPv6 cluster addresses begin.
const CLUSTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 10);
/// `clusterIP` of a headless Service.
const HEADLESS: &str = "None";

/// Namespace, families, and a cluster address per family (made up from the Service's position) where there is none. A Service
/// that says it is headless stays so, and cluster addresses that are given are all there are.
pub(super) fn apply_defaults(service: &mut Service, position: usize) {
    let namespace = service.metadata.namespace.get_or_insert_default();
    if namespace.is_empty() {
        *namespace = super::DEFAULT_NAMESPACE.to_owned();
    }
    let spec = service.spec.get_or_insert_default();
    let given = spec.cluster_ips.clone().unwrap_or_else(|| spec.cluster_ip.iter().cloned().collect());
    let given: Vec<String> = given.into_iter().filter(|ip| !ip.is_empty()).collect();
    if given.iter().any(|ip| ip == HEADLESS) {
        return;
    }
    let families = families(spec, &given);
    if given.is_empty() {
        let host = u32::try_from(position).unwrap_or(u32::MAX);
        let made_up = families.iter().map(|family| match family.as_str() {
            "IPv6" => IpAddr::V6(Ipv6Addr::from_bits(CLUSTER_V6.to_bits() + u128::from(host))),
            _ => IpAddr::V4(Ipv4Addr::from_bits(CLUSTER_V4.to_bits().wrapping_add(host))),
        });
        spec.cluster_ips = Some(made_up.map(|ip| ip.to_string()).collect());
    } else {
        spec.cluster_ips = Some(given);
    }
    spec.ip_families = Some(families);
}

/// The families as written, else those of the cluster addresses, else IPv4; both where dual stack is asked for.
fn families(spec: &ServiceSpec, cluster_ips: &[String]) -> Vec<String> {
    let of = |ip: &String| if ip.contains(':') { "IPv6" } else { "IPv4" }.to_owned();
    let mut families = spec.ip_families.clone().unwrap_or_default();
    if families.is_empty() {
        families = cluster_ips.iter().map(of).collect();
    }
    if families.is_empty() {
        families.push("IPv4".to_owned());
    }
    let dual = matches!(spec.ip_family_policy.as_deref(), Some("PreferDualStack" | "RequireDualStack"));
    if dual && families.len() == 1 && cluster_ips.is_empty() {
        let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
        families.push(other.to_owned());
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(spec: &str) -> String {
        let text = format!("metadata: {{name: a}}\nspec: {spec}\n");
        let mut service: Service = serde_saphyr::from_str(&text).unwrap();
        apply_defaults(&mut service, 0);
        assert_eq!(service.metadata.namespace.as_deref(), Some("default"));
        let spec = service.spec.unwrap();
        format!(
            "{} | {}",
            spec.ip_families.unwrap_or_default().join(" "),
            spec.cluster_ips.unwrap_or_default().join(" ")
        )
    }

    #[test]
    fn families_and_cluster_addresses_are_filled_in_where_they_are_missing() {
        for (spec, want) in [
            ("{}", "IPv4 | 10.96.0.10"),
            ("{ipFamilies: [IPv6]}", "IPv6 | fd96::a"),
            ("{ipFamilyPolicy: PreferDualStack}", "IPv4 IPv6 | 10.96.0.10 fd96::a"),
            ("{ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6]}", "IPv6 IPv4 | fd96::a 10.96.0.10"),
            ("{ipFamilyPolicy: RequireDualStack, clusterIP: 10.1.2.3}", "IPv4 | 10.1.2.3"),
            ("{clusterIP: \"fd00::7\"}", "IPv6 | fd00::7"),
            ("{clusterIPs: [10.1.2.3, \"fd00::7\"]}", "IPv4 IPv6 | 10.1.2.3 fd00::7"),
            ("{clusterIP: None}", " | "),
            ("{clusterIP: \"\"}", "IPv4 | 10.96.0.10"),
        ] {
            assert_eq!(filled(spec), want, "{spec}");
        }
    }
}
