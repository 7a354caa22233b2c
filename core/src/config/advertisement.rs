//! Advertisement: which addresses an announcer that is not BGP announces, and how.
use std::{collections::BTreeSet, sync::Arc};

use super::{
    Advertisement, AdvertisementSpec, Config, Meta, Resources,
    advert::{self, LENGTH_V4_AT, LENGTH_V4_MAX, LENGTH_V6_AT, LENGTH_V6_MAX},
    announcer::{self, ClassDraft},
    check::{Report, names, selectors},
    json,
};
use crate::{
    announce::Capabilities,
    model::{IpFamily, ObjectKey},
};

/// Largest `parameters`, octets of JSON: they travel beside the announcements, and one list of terms has to fit into a chunk of 1 MiB
/// with those of other advertisements.
const PARAMETERS_LEN_MAX: usize = 16 * 1024;
/// The field that names the announcer.
const ANNOUNCER_AT: &str = "spec.announcer";
/// The field with the parameters.
const PARAMETERS_AT: &str = "spec.parameters";

/// A valid Advertisement, before its class and the pools are looked up.
#[derive(Clone, Debug)]
pub(super) struct AdvertisementDraft {
    announcer: Arc<str>,
    advertisement: Arc<Advertisement>,
}

/// Checks everything about an Advertisement that concerns no other object.
pub(super) fn check(meta: &Meta, spec: &AdvertisementSpec, report: &mut Report) -> Option<AdvertisementDraft> {
    announcer::check_named(report, ANNOUNCER_AT, &spec.announcer);
    let written = (spec.aggregation_length, spec.aggregation_length_v6);
    let (aggregation_length_v4, aggregation_length_v6) = advert::lengths(written, &spec.service_selectors, report);
    let parameters = json::canonical_object(report, PARAMETERS_AT, spec.parameters.as_ref(), PARAMETERS_LEN_MAX);
    let advertisement = Advertisement {
        name: meta.key.name.clone(),
        aggregation_length_v4,
        aggregation_length_v6,
        local_pref: None,
        communities: BTreeSet::new(),
        pools: names(report, "spec.ipAddressPools", "pool", &spec.ip_address_pools),
        pool_selectors: selectors(report, "spec.ipAddressPoolSelectors", &spec.ip_address_pool_selectors),
        node_selectors: selectors(report, "spec.nodeSelectors", &spec.node_selectors),
        peers: names(report, "spec.targets", "target", &spec.targets),
        service_selectors: selectors(report, "spec.serviceSelectors", &spec.service_selectors),
        // None at all and none in braces are the same.
        parameters: parameters.filter(|text| text != "{}").map(Into::into),
    };
    let announcer = spec.announcer.as_str().into();
    (!report.has_error()).then(|| AdvertisementDraft { announcer, advertisement: Arc::new(advertisement) })
}

/// Looks whether the class of a name that can be one is there.
pub(super) fn check_class(
    spec: &AdvertisementSpec,
    class: Option<&ClassDraft>,
    resources: &Resources,
    report: &mut Report,
) {
    let name = spec.announcer.as_str();
    if report.problems.iter().any(|problem| problem.field == ANNOUNCER_AT) {
        return;
    }
    let Some(class) = class else {
        let key = ObjectKey { kind: "AnnouncerClass", name: name.into() };
        let (message, suggestion) = match resources.objects.contains_key(&key) {
            true => ("has no valid version", "mend it"),
            false => ("does not exist", "create it, or name another"),
        };
        report.error("announcerUnknown", ANNOUNCER_AT, name, format!("AnnouncerClass {name:?} {message}"), suggestion);
        return;
    };
    check_parameters(spec, class, report);
    if let Some(capabilities) = &class.class.capabilities {
        check_lengths(spec, name, capabilities, report);
    }
}

fn check_parameters(spec: &AdvertisementSpec, class: &ClassDraft, report: &mut Report) {
    let nothing = serde_json::json!({});
    let written = spec.parameters.as_ref().filter(|value| !value.is_null()).unwrap_or(&nothing);
    let refused = report.problems.iter().any(|problem| problem.field == PARAMETERS_AT);
    match &class.schema {
        _ if refused => {}
        Some(schema) => schema.check(PARAMETERS_AT, written, &class.class.name, report),
        None if *written == nothing => {}
        None => {
            let message = format!("the AnnouncerClass {:?} has no parametersSchema: it takes none", class.class.name);
            let suggestion = "leave them out, or give the class a schema";
            report.error("parametersInvalid", PARAMETERS_AT, json::shown(written), message, suggestion);
        }
    }
}

fn check_lengths(spec: &AdvertisementSpec, class: &str, capabilities: &Capabilities, report: &mut Report) {
    let lengths = [
        (LENGTH_V4_AT, spec.aggregation_length, LENGTH_V4_MAX),
        (LENGTH_V6_AT, spec.aggregation_length_v6, LENGTH_V6_MAX),
    ];
    for (at, written, host) in lengths {
        let Some(length) = written.filter(|length| (0..i64::from(host)).contains(length)) else { continue };
        if !capabilities.aggregation {
            let message = format!("the announcer {class:?} does not announce prefixes shorter than a host route");
            report.error("capabilityMissing", at, length, message, format!("leave it out or write {host}"));
        }
    }
}

impl AdvertisementDraft {
    /// Looks at the pools that it selects, and at the other Advertisements for its announcer.
    pub(super) fn check_pools(&self, spec: &AdvertisementSpec, config: &Config, report: &mut Report) {
        advert::check_aggregation(&self.advertisement, config, report);
        self.check_conflicts(config, report);
        let class = config.announcers.get(&self.announcer);
        let Some(capabilities) = class.and_then(|class| class.capabilities) else { return };
        let lacking = [(IpFamily::V4, capabilities.ipv4), (IpFamily::V6, capabilities.ipv6)];
        // A class of neither family has been told.
        for (family, _) in lacking.into_iter().filter(|(_, can)| !can && (capabilities.ipv4 || capabilities.ipv6)) {
            self.warn_family(family, spec, config, report);
        }
    }

    fn warn_family(&self, family: IpFamily, spec: &AdvertisementSpec, config: &Config, report: &mut Report) {
        let pools = config.pools.values().filter(|pool| self.advertisement.selects_pool(&pool.name, &pool.labels));
        for pool in pools.filter(|pool| pool.ranges.iter().any(|range| IpFamily::of(range.first) == family)) {
            let named = spec.ip_address_pools.iter().position(|name| **name == *pool.name);
            let field = match named {
                Some(i) => format!("spec.ipAddressPools[{i}]"),
                None if spec.ip_address_pool_selectors.is_empty() => "spec.ipAddressPools".to_owned(),
                None => "spec.ipAddressPoolSelectors".to_owned(),
            };
            let message = format!(
                "the IPAddressPool {:?} has {family} addresses, and the announcer {:?} does not announce {family}",
                pool.name, self.announcer
            );
            report.warning("capabilityMissing", field, &pool.name, message, "select pools of the other family");
        }
    }

    /// Reports that an older Advertisement for the announcer says the same.
    pub(super) fn check_conflicts(&self, config: &Config, report: &mut Report) {
        if let Some(class) = config.announcers.get(&self.announcer) {
            advert::check_conflicts(&self.advertisement, &class.advertisements, config, report);
        }
    }

    /// Puts it into force; `false` if its class is not there.
    pub(super) fn admit(&self, config: &mut Config) -> bool {
        let Some(class) = config.announcers.get_mut(&self.announcer) else { return false };
        let name = self.advertisement.name.clone();
        Arc::make_mut(class).advertisements.insert(name, self.advertisement.clone());
        true
    }
}
