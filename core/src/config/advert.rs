//! BGPAdvertisement and L2Advertisement.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Advertisement, BgpAdvertisementSpec, Config, IpRange, L2AdvertisementSpec, Meta, Pool, RawSelector,
    check::{Report, integer, names, selector, selectors},
    community::{self, Aliases},
};
use crate::model::{IpFamily, LabelSelector, ObjectKey};

/// The field with the length of IPv4 prefixes.
pub(super) const LENGTH_V4_AT: &str = "spec.aggregationLength";
/// The field with the length of IPv6 prefixes.
pub(super) const LENGTH_V6_AT: &str = "spec.aggregationLengthV6";
/// A host route of IPv4.
pub(super) const LENGTH_V4_MAX: u8 = 32;
/// Weights of preferred nodes, as in MetalLB's CRD.
const PREFERENCE_WEIGHT: (i64, i64) = (1, 100);
/// A host route of IPv6.
pub(super) const LENGTH_V6_MAX: u8 = 128;

/// Checks everything about an advertisement but its relation to pools and other advertisements.
pub(super) fn check(
    meta: &Meta,
    spec: &BgpAdvertisementSpec,
    aliases: &Aliases,
    report: &mut Report,
) -> Option<Arc<Advertisement>> {
    let written = (spec.aggregation_length, spec.aggregation_length_v6);
    let (aggregation_length_v4, aggregation_length_v6) = lengths(written, &spec.service_selectors, report);
    let local_pref: Option<u32> =
        integer(report, "spec.localPref", spec.local_pref, (0, u32::MAX.into()), "local preference");
    let mut communities = BTreeSet::new();
    let texts = names(report, "spec.communities", "community", &spec.communities);
    for (i, text) in spec.communities.iter().enumerate().filter(|(_, text)| texts.contains(text.as_str())) {
        match community::resolve(text, aliases) {
            Ok(value) => drop(communities.insert(value)),
            Err(wrong) => report.wrong(format!("spec.communities[{i}]"), text, wrong),
        }
    }
    let advertisement = Advertisement {
        name: meta.key.name.clone(),
        aggregation_length_v4,
        aggregation_length_v6,
        local_pref: local_pref.filter(|p| *p != 0),
        communities,
        pools: names(report, "spec.ipAddressPools", "pool", &spec.ip_address_pools),
        pool_selectors: selectors(report, "spec.ipAddressPoolSelectors", &spec.ip_address_pool_selectors),
        node_selectors: selectors(report, "spec.nodeSelectors", &spec.node_selectors),
        peers: names(report, "spec.peers", "peer", &spec.peers),
        service_selectors: selectors(report, "spec.serviceSelectors", &spec.service_selectors),
        parameters: None,
    };
    (!report.has_error()).then(|| Arc::new(advertisement))
}

/// Reads `aggregationLength` and `aggregationLengthV6`; serviceSelectors allow no aggregation.
pub(super) fn lengths(
    (v4, v6): (Option<i64>, Option<i64>),
    service_selectors: &[RawSelector],
    report: &mut Report,
) -> (u8, u8) {
    let mut length = |at, written, shortest, host: u8| {
        let read = integer(report, at, written, (shortest, host.into()), "aggregation length").unwrap_or(host);
        if !service_selectors.is_empty() && read != host {
            let message = "cannot be used together with serviceSelectors";
            let suggestion = format!("leave it out or write {host}");
            report.error("aggregationWithServiceSelectors", at, read, message, suggestion);
        }
        read
    };
    (length(LENGTH_V4_AT, v4, 1, LENGTH_V4_MAX), length(LENGTH_V6_AT, v6, 0, LENGTH_V6_MAX))
}

/// Selectors for pools that match none: legal, since one may come later.
pub(super) fn warn_no_pool(raw: &[RawSelector], config: &Config, report: &mut Report) {
    for (i, raw) in raw.iter().enumerate() {
        let field = format!("spec.ipAddressPoolSelectors[{i}]");
        // One that is none has been told.
        let Some(selector) = selector(&mut Report::new(&ObjectKey::default()), &field, raw) else { continue };
        let mut labels = config.pools.values().map(|p| &p.labels).chain(config.pools_unknown.values());
        if !labels.any(|labels| selector.matches(labels)) {
            let suggestion = "check keys and values against the labels of the pools";
            report.warning("selectsNothing", field, &selector, "matches no IPAddressPool", suggestion);
        }
    }
}

/// Does it announce no more than each entry of the pools it selects has room for?
pub(super) fn check_aggregation(advertisement: &Advertisement, config: &Config, report: &mut Report) {
    for pool in config.pools.values().filter(|p| advertisement.selects_pool(&p.name, &p.labels)) {
        for range in &pool.written {
            let family = IpFamily::of(range.first);
            let length = advertisement.aggregation_length(family);
            let shortest = shortest_prefix(*range);
            if length < shortest {
                let field = match family {
                    IpFamily::V4 => LENGTH_V4_AT,
                    IpFamily::V6 => LENGTH_V6_AT,
                };
                let message = format!(
                    "invalid aggregation length {length}: prefix {shortest} in pool {:?} is more \
                     specific than the aggregation length for addresses {range}, so that more than the pool would be announced",
                    pool.name
                );
                report.error("aggregationTooShort", field, length, message, format!("write {shortest} or more"));
            }
        }
    }
}

/// The length of the largest block that fits into the range, i.e. the shortest prefix in its exact cover.
pub(super) fn shortest_prefix(range: IpRange) -> u8 {
    let (first, last, bits) = match (range.first, range.last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (u32::from(first).into(), u32::from(last).into(), LENGTH_V4_MAX),
        (IpAddr::V6(first), IpAddr::V6(last)) => (u128::from(first), u128::from(last), LENGTH_V6_MAX),
        _ => return LENGTH_V6_MAX,
    };
    (0..bits)
        .find(|length| {
            let host_bits = bits - length;
            let size_less_one = if host_bits == 128 { u128::MAX } else { (1u128 << host_bits) - 1 };
            // The first block of this size that does not start below `first`.
            first
                .checked_add(size_less_one)
                .map(|n| n & !size_less_one)
                .and_then(|start| start.checked_add(size_less_one))
                .is_some_and(|end| end <= last)
        })
        .unwrap_or(bits)
}

/// Reports a contradiction between a younger advertisement and those already admitted.
pub(super) fn check_conflicts(
    advertisement: &Advertisement,
    admitted: &BTreeMap<Arc<str>, Arc<Advertisement>>,
    config: &Config,
    report: &mut Report,
) {
    for other in admitted.values() {
        if *advertisement == (Advertisement { name: advertisement.name.clone(), ..(**other).clone() }) {
            let message =
                format!("advertisements {:?} and {:?} are equal: the older stays", advertisement.name, other.name);
            report.error("advertisementsEqual", "spec", "", message, "remove this one");
        } else if nodes_overlap(&advertisement.node_selectors, &other.node_selectors)
            && let Some(pool) = disagree(advertisement, other, config)
        {
            let (mine, theirs) = (advertisement.local_pref.unwrap_or(0), other.local_pref.unwrap_or(0));
            let message = format!(
                "invalid local preference {mine}: local preference {theirs} was already set by the older \
                 BGPAdvertisement {:?} for the same pool {:?}, aggregation length, peers and nodes",
                other.name, pool.name
            );
            let suggestion = "use the same value, or other peers, nodes or lengths";
            report.error("localPrefConflict", "spec.localPref", mine, message, suggestion);
        }
    }
}

/// A pool for whose prefixes both say another local preference to the same peer, on a node that both select.
pub(super) fn disagree<'a>(a: &Advertisement, b: &Advertisement, config: &'a Config) -> Option<&'a Arc<Pool>> {
    let may = a.local_pref != b.local_pref
        && a.service_selectors.is_empty()
        && b.service_selectors.is_empty()
        && a.shares_peer_with(b);
    config.pools.values().find(|pool| may && announce_the_same(a, b, pool))
}

/// Do both select the pool and turn an address of it into the same prefix?
fn announce_the_same(a: &Advertisement, b: &Advertisement, pool: &Pool) -> bool {
    a.selects_pool(&pool.name, &pool.labels)
        && b.selects_pool(&pool.name, &pool.labels)
        && pool.ranges.iter().any(|r| {
            let family = IpFamily::of(r.first);
            a.aggregation_length(family) == b.aggregation_length(family)
        })
}

/// Is there certainly a node that both could select?
fn nodes_overlap(a: &[LabelSelector], b: &[LabelSelector]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|s| b.contains(s))
}

/// Names that name nothing: legal, since it may come later, but surely worth a word.
pub(super) fn warn_unknown<'a>(
    field: &str,
    what: &str,
    written: impl IntoIterator<Item = &'a str>,
    exists: impl Fn(&str) -> bool,
    report: &mut Report,
) {
    for (i, name) in written.into_iter().enumerate() {
        if !name.is_empty() && !exists(name) {
            let message = format!("there is no {what} {name:?}");
            report.warning("unknownName", format!("{field}[{i}]"), name, message, "create it, or name another");
        }
    }
}

/// Checks everything about an L2Advertisement. Nothing comes of it until there is a layer 2 announcer.
pub(super) fn check_layer2(spec: &L2AdvertisementSpec, report: &mut Report) {
    names(report, "spec.ipAddressPools", "pool", &spec.ip_address_pools);
    selectors(report, "spec.ipAddressPoolSelectors", &spec.ip_address_pool_selectors);
    selectors(report, "spec.nodeSelectors", &spec.node_selectors);
    selectors(report, "spec.serviceSelectors", &spec.service_selectors);
    names(report, "spec.interfaces", "interface", &spec.interfaces);
    for (i, (weight, preference)) in spec.preferred_node_selectors.iter().enumerate() {
        let at = format!("spec.preferredNodeSelectors[{i}]");
        integer::<u8>(report, &format!("{at}.weight"), Some(*weight), PREFERENCE_WEIGHT, "weight");
        selector(report, &format!("{at}.preference"), preference);
    }
    let message = "layer 2 is not announced yet: this object has no effect";
    report.warning("layer2NotAnnounced", "", "", message, "");
}

/// Is there a pool object of this name, valid or not?
pub(super) fn pool_exists(config: &Config, name: &str) -> bool {
    config.pools.contains_key(name) || config.pools_unknown.contains_key(name)
}
