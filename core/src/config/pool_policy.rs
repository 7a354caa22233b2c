//! PoolPolicy: every rule of one policy, and which pools get it.
use std::{collections::BTreeSet, sync::Arc};

use super::{
    Config, IpRange, PoolPolicy, PoolPolicySpec, Quota, Release, SharingRules, Strategy,
    check::{Report, Selection, integer, names, selector, selectors},
    peer::written,
    pool::read_ranges,
};

/// Addresses of one family that a Service may be allowed: what a Service's status can hold without becoming a list of its own.
const PER_FAMILY: (i64, i64) = (1, 16);
/// Quotas of one policy: each is looked at for every address given out.
const QUOTAS_MAX: usize = 100;

/// A valid policy, before pools are looked up.
#[derive(Clone, Debug)]
pub(super) struct PoolPolicyDraft {
    pools: Selection,
    /// Without name and releases.
    policy: PoolPolicy,
}

/// Checks everything about a policy that concerns no other object.
pub(super) fn check(spec: &PoolPolicySpec, report: &mut Report) -> Option<PoolPolicyDraft> {
    let pools = Selection {
        names: names(report, "spec.ipAddressPools", "pool", &spec.ip_address_pools),
        selectors: selectors(report, "spec.ipAddressPoolSelectors", &spec.ip_address_pool_selectors),
    };
    let policy = PoolPolicy {
        name: "".into(),
        strategy: strategy(spec, report),
        quotas: quotas(spec, report),
        no_new_addresses: read_ranges("spec.noNewAddresses", &spec.no_new_addresses, report),
        addresses_per_family_max: integer(
            report,
            "spec.addressesPerFamilyMax",
            spec.addresses_per_family_max,
            PER_FAMILY,
            "number of addresses per family",
        )
        .unwrap_or(1),
        pair_with: written(spec.pair_with.as_ref()).map(Into::into),
        sharing: sharing(spec, report),
        releases: Arc::default(),
    };
    (!report.has_error()).then_some(PoolPolicyDraft { pools, policy })
}

fn strategy(spec: &PoolPolicySpec, report: &mut Report) -> Strategy {
    match written(spec.strategy.as_ref()) {
        None | Some("First") => Strategy::First,
        Some("LeastRecentlyUsed") => Strategy::LeastRecentlyUsed,
        Some("HashedByName") => Strategy::HashedByName,
        Some(other) => {
            let suggestion = "write First, LeastRecentlyUsed or HashedByName";
            report.error("strategyInvalid", "spec.strategy", other, format!("invalid strategy {other:?}"), suggestion);
            Strategy::First
        }
    }
}

fn quotas(spec: &PoolPolicySpec, report: &mut Report) -> Vec<Quota> {
    let list = "spec.quotas";
    if spec.quotas.len() > QUOTAS_MAX {
        let message = format!("at most {QUOTAS_MAX} quotas are allowed");
        report.error("listTooLong", list, spec.quotas.len(), message, "put several namespaces into one selector");
    }
    let mut read: Vec<Quota> = Vec::with_capacity(spec.quotas.len());
    for (i, (raw, max)) in spec.quotas.iter().enumerate() {
        let at = format!("{list}[{i}]");
        let max = integer(report, &format!("{at}.addressesMax"), Some(*max), (0, i64::MAX), "number of addresses");
        let Some(namespaces) = selector(report, &format!("{at}.namespaceSelector"), raw) else { continue };
        if read.iter().any(|q| q.namespaces == namespaces) {
            let message = format!("duplicate definition of the quota for {namespaces}");
            report.error("duplicate", format!("{at}.namespaceSelector"), &namespaces, message, "write one of them");
        } else {
            read.push(Quota { namespaces, addresses_max: max.unwrap_or(0) });
        }
    }
    read
}

fn sharing(spec: &PoolPolicySpec, report: &mut Report) -> SharingRules {
    let same_namespace = match written(spec.sharing_namespaces.as_ref()) {
        None | Some("Any") => false,
        Some("Same") => true,
        Some(other) => {
            let message = format!("invalid rule of sharing {other:?}");
            report.error("sharingInvalid", "spec.sharing.namespaces", other, message, "write Any or Same");
            false
        }
    };
    let mixed = match written(spec.sharing_traffic_policies.as_ref()) {
        None | Some("Same") => false,
        Some("Mixed") => true,
        Some(other) => {
            let message = format!("invalid rule of sharing {other:?}");
            report.error("sharingInvalid", "spec.sharing.trafficPolicies", other, message, "write Same or Mixed");
            false
        }
    };
    SharingRules { same_namespace, mixed }
}

/// Gives the policy to the pools that it selects. If one of them has a policy already, which is older, this one is invalid as a
/// whole and `false` comes back.
pub(super) fn admit(
    draft: &PoolPolicyDraft,
    name: &Arc<str>,
    releases: &[Release],
    config: &mut Config,
    report: &mut Report,
) -> bool {
    let chosen: Vec<Arc<str>> = config
        .pools
        .values()
        .filter(|pool| draft.pools.matches(&pool.name, &pool.labels))
        .map(|pool| pool.name.clone())
        .collect();
    let mut free = true;
    for pool in &chosen {
        if let Some(other) = config.pools.get(pool).and_then(|p| p.policy.as_ref()) {
            let message = format!("the older PoolPolicy {:?} is for the IPAddressPool {pool:?} and stays", other.name);
            let suggestion = "a pool has one policy: say all of it there, or select other pools";
            report.error("poolPolicyConflict", selected_at(draft, pool), pool, message, suggestion);
            free = false;
        }
    }
    if !free {
        return false;
    }
    report_use(draft, &chosen, config, report);
    let policy = PoolPolicy { name: name.clone(), releases: releases.into(), ..draft.policy.clone() };
    let policy = Arc::new(policy);
    for pool in chosen {
        if let Some(pool) = config.pools.get_mut(&pool) {
            Arc::make_mut(pool).policy = Some(policy.clone());
        }
    }
    true
}

/// The field by which the policy selects a pool.
fn selected_at(draft: &PoolPolicyDraft, pool: &Arc<str>) -> &'static str {
    match (draft.pools.names.contains(pool), draft.pools.is_all()) {
        (true, _) => "spec.ipAddressPools",
        (false, true) => "spec",
        (false, false) => "spec.ipAddressPoolSelectors",
    }
}

/// What the policy says that comes to nothing.
fn report_use(draft: &PoolPolicyDraft, chosen: &[Arc<str>], config: &Config, report: &mut Report) {
    if chosen.is_empty() {
        // Of names that name nothing the author hears one by one.
        if draft.pools.names.is_empty() {
            let field = "spec.ipAddressPoolSelectors";
            report.warning("selectsNothing", field, "", "selects no IPAddressPool: it has no effect", "");
        }
        return;
    }
    if let Some(pair) = &draft.policy.pair_with {
        let exists = config.pools.contains_key(pair) || config.pools_unknown.contains_key(pair);
        if !exists {
            let message = format!("there is no IPAddressPool {pair:?}");
            report.warning("unknownName", "spec.pairWith", pair, message, "create it, or name another");
        } else if chosen == [pair.clone()] {
            let message = "the pool would pair with itself: it has no effect";
            report.warning("pairWithSelf", "spec.pairWith", pair, message, "name another pool, or leave it out");
        }
    }
    let ranges: Vec<IpRange> =
        chosen.iter().filter_map(|p| config.pools.get(p)).flat_map(|p| p.ranges.iter().copied()).collect();
    let outside: BTreeSet<usize> = (draft.policy.no_new_addresses.iter().enumerate())
        .filter(|(_, range)| !ranges.iter().any(|r| r.overlaps(**range)))
        .map(|(i, _)| i)
        .collect();
    for i in outside {
        let range = draft.policy.no_new_addresses[i];
        let message = "lies in no pool of this policy: it has no effect";
        report.warning(
            "outsidePool",
            format!("spec.noNewAddresses[{i}]"),
            range,
            message,
            "leave it out, or select the pool",
        );
    }
}
