//! The CRDs, generated from the types.
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition,
};
use kube::{CustomResourceExt as _, core::crd::merge_crds};

use crate::{
    AddressReservation, Advertisement, AnnouncerClass, BFDProfile, BGPAdvertisement, BGPPeer, BGPPeerPolicy, Community,
    ConfigurationState, IPAddressPool, L2Advertisement, PoolPolicy, ServiceBGPStatus, ServiceL2Status, SpeakerStatus,
    v1beta1,
};

/// Every CRD, those of `metallb.io` first, in order of name. Conversion strategy `None`: the versions of `BGPPeer` agree in shape.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let peers = merge_crds(vec![BGPPeer::crd(), v1beta1::BGPPeer::crd()], "v1beta2")
        .expect("both versions are of the same group, kind and scope");
    let mut all = vec![
        BFDProfile::crd(),
        BGPAdvertisement::crd(),
        peers,
        Community::crd(),
        ConfigurationState::crd(),
        IPAddressPool::crd(),
        L2Advertisement::crd(),
        ServiceBGPStatus::crd(),
        ServiceL2Status::crd(),
        AddressReservation::crd(),
        Advertisement::crd(),
        AnnouncerClass::crd(),
        BGPPeerPolicy::crd(),
        PoolPolicy::crd(),
        SpeakerStatus::crd(),
    ];
    for crd in &mut all {
        if !NEEDS_SPEC.contains(&crd.spec.names.kind.as_str()) {
            spec_is_optional(crd);
        }
        crd.spec.conversion = Some(CustomResourceConversion { strategy: "None".into(), webhook: None });
        crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    }
    all
}

/// Kinds that mean nothing without a spec.
const NEEDS_SPEC: [&str; 5] = ["IPAddressPool", "AddressReservation", "Advertisement", "BGPPeerPolicy", "PoolPolicy"];

/// An object without `spec` is common (a BGPAdvertisement of everything to everybody) and means all defaults.
fn spec_is_optional(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        if let Some(required) = schema.and_then(|s| s.required.as_mut()) {
            required.retain(|field| field != "spec");
        }
    }
}

/// The CRDs as JSON values, ready to be printed as YAML documents.
///
/// `group`: only those of this API group.
///
/// # Errors
/// Only if a type of ours cannot be represented in JSON.
pub fn crds_yaml_documents(group: Option<&str>) -> Result<Vec<serde_json::Value>, serde_json::Error> {
    crds().iter().filter(|crd| group.is_none_or(|g| crd.spec.group == g)).map(serde_json::to_value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crds_cover_every_kind_and_version_with_numbers_as_int64() {
        let mut seen = Vec::new();
        for crd in crds() {
            for version in &crd.spec.versions {
                seen.push(format!("{}/{}", crd.spec.names.kind, version.name));
            }
            let text = serde_json::to_string(&crd).unwrap();
            assert!(!text.contains("uint"), "{}: unsigned formats are unknown to kubectl", crd.spec.names.kind);
        }
        let optional = |crd: &CustomResourceDefinition| {
            let version = crd.spec.versions[0].schema.as_ref().unwrap();
            !version.open_api_v3_schema.as_ref().unwrap().required.iter().flatten().any(|f| f == "spec")
        };
        for crd in crds() {
            let kind = crd.spec.names.kind.as_str();
            assert_eq!(optional(&crd), !NEEDS_SPEC.contains(&kind), "{kind}");
        }
        assert_eq!(
            seen,
            [
                "BFDProfile/v1beta1",
                "BGPAdvertisement/v1beta1",
                "BGPPeer/v1beta2",
                "BGPPeer/v1beta1",
                "Community/v1beta1",
                "ConfigurationState/v1beta1",
                "IPAddressPool/v1beta1",
                "L2Advertisement/v1beta1",
                "ServiceBGPStatus/v1beta1",
                "ServiceL2Status/v1beta1",
                "AddressReservation/v1alpha1",
                "Advertisement/v1alpha1",
                "AnnouncerClass/v1alpha1",
                "BGPPeerPolicy/v1alpha1",
                "PoolPolicy/v1alpha1",
                "SpeakerStatus/v1alpha1"
            ]
        );
    }
}
