//! Addresses that Services of different traffic policies share.
//!
//! A router sends traffic for an address to every node that announces it, whatever the port; so a node must be able to serve
//! every Service on it. It announces the address only if it may for each sharer that has a serving endpoint anywhere. If no node
//! qualifies, the oldest sharer (creation time, then namespace, then name) decides alone.
//!
//! Every speaker must answer the same to "does any node qualify?", though it knows the labels of no Node but its own. Therefore
//! that question, and only that, is answered without Node labels: a node qualifies if it has a serving endpoint of every
//! sharer with `externalTrafficPolicy: Local` (with none of these, every node does), and no sharer lacks an advertisement that
//! selects the address's pool and the Service. A common node that its labels keep from announcing still counts as one.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Context, Reason, advertisements, pool_of};
use crate::{
    config::{Config, any_selector_matches},
    model::{Endpoints, NodeId, Service, ServiceKey, TrafficPolicy},
};

/// A Service with what is known of its endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Its serving endpoints as this node sees them.
    pub endpoints: Endpoints,
    /// The nodes with serving endpoints, sorted; only read of addresses shared under different traffic policies.
    pub nodes: &'a [NodeId],
}

impl Party<'_> {
    /// Who comes first: the older, then by name.
    fn age(&self) -> (i64, &ServiceKey) {
        (self.service.created_s, &self.service.key)
    }
}

/// Do the other sharers let this node announce `ip`, which it may as far as `own` is concerned?
///
/// # Errors
/// The code, and the Service that is in the way.
pub(super) fn common(
    ip: IpAddr,
    own: Party<'_>,
    others: &[Party<'_>],
    context: &Context,
) -> Result<(), (Reason, Option<ServiceKey>)> {
    if others.is_empty() || !is_mixed(ip, &context.config) {
        return Ok(());
    }
    let counts = |party: &&Party<'_>| {
        let service = party.service;
        let ours = service.is_ours(context.class.as_deref()) && service.key != own.service.key;
        ours && party.endpoints.anywhere > 0 && service.ingress.contains(&ip)
    };
    let mut sharers: Vec<&Party<'_>> = others.iter().filter(counts).collect();
    if sharers.is_empty() {
        return Ok(());
    }
    sharers.sort_by(|a, b| a.age().cmp(&b.age()));
    let refused = |reason, party: &Party<'_>| Err((reason, Some(party.service.key.clone())));
    if !have_common_node(ip, own, &sharers, &context.config) {
        return if own.age() < sharers[0].age() { Ok(()) } else { refused(Reason::SharedNoCommonNode, sharers[0]) };
    }
    for sharer in sharers {
        if let Err(reason) = advertisements(ip, sharer.service, sharer.endpoints, context) {
            return refused(reason, sharer);
        }
    }
    Ok(())
}

/// Is the address of a pool whose policy lets Services of different traffic policies share?
fn is_mixed(ip: IpAddr, config: &Config) -> bool {
    config.pool_of(ip).and_then(|pool| pool.policy.as_ref()).is_some_and(|policy| policy.sharing.mixed)
}

/// Does any node qualify, by what every speaker knows?
fn have_common_node(ip: IpAddr, own: Party<'_>, others: &[&Party<'_>], config: &Config) -> bool {
    let all = || std::iter::once(&own).chain(others.iter().copied());
    if !all().all(|party| is_advertised(ip, party.service, config)) {
        return false;
    }
    let mut local = all().filter(|party| party.service.traffic_policy == TrafficPolicy::Local).map(|party| party.nodes);
    let Some(first) = local.next() else { return true };
    let rest: Vec<&[NodeId]> = local.collect();
    first.iter().any(|node| rest.iter().all(|nodes| nodes.binary_search(node).is_ok()))
}

/// Is there an advertisement of the address's pool for the Service, on whatever node?
fn is_advertised(ip: IpAddr, service: &Service, config: &Config) -> bool {
    let Some(pool) = pool_of(ip, service, config) else { return false };
    config
        .advertisements
        .values()
        .any(|a| a.selects_pool(pool.name, pool.labels) && any_selector_matches(&a.service_selectors, &service.labels))
}

/// Who has which address, so that those who share one are decided together. Empty unless a policy mixes traffic policies.
#[derive(Debug, Default)]
pub struct Sharers {
    by_ip: BTreeMap<IpAddr, BTreeSet<ServiceKey>>,
    by_service: BTreeMap<ServiceKey, Arc<[IpAddr]>>,
}

impl Sharers {
    /// Notes which addresses a Service has now; of those alone that may be shared under different policies (`config`).
    /// Returns the other Services that have one of its addresses, before or now: their decisions may change.
    pub fn set(&mut self, key: &ServiceKey, ips: &[IpAddr], config: &Config) -> BTreeSet<ServiceKey> {
        let now: Arc<[IpAddr]> = ips.iter().copied().filter(|ip| is_mixed(*ip, config)).collect();
        let mut concerned = BTreeSet::new();
        for ip in self.by_service.remove(key).iter().flat_map(|ips| ips.iter()) {
            let Some(holders) = self.by_ip.get_mut(ip) else { continue };
            holders.remove(key);
            concerned.extend(holders.iter().cloned());
            if holders.is_empty() {
                self.by_ip.remove(ip);
            }
        }
        for ip in now.iter() {
            let holders = self.by_ip.entry(*ip).or_default();
            concerned.extend(holders.iter().cloned());
            holders.insert(key.clone());
        }
        if !now.is_empty() {
            self.by_service.insert(key.clone(), now);
        }
        concerned.remove(key);
        concerned
    }

    /// The other Services that have one of a Service's addresses.
    #[must_use]
    pub fn of(&self, key: &ServiceKey) -> BTreeSet<ServiceKey> {
        let ips = self.by_service.get(key).map(|ips| &**ips).unwrap_or_default();
        let holders = ips.iter().filter_map(|ip| self.by_ip.get(ip)).flatten();
        holders.filter(|holder| *holder != key).cloned().collect()
    }

    /// Nobody has an address that may be shared under different policies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_ip.is_empty()
    }
}
