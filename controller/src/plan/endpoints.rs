//! Serving endpoints of every Service on every node.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ferrocast_core::model::{Endpoints, NodeId, Service, ServiceKey};

use imbl::OrdMap;

use super::objects::{Objects, Slices};
use crate::cluster::convert::EndpointRow;

/// By Service; one without an entry has none. A copy shares what it has with the original.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointTable {
    by_service: OrdMap<ServiceKey, Arc<ServiceEndpoints>>,
}

/// The serving endpoints of one Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceEndpoints {
    /// How many there are.
    pub anywhere: u32,
    /// How many on each node, sorted by name; nodes with none are left out.
    pub on: Box<[(Arc<str>, u32)]>,
    /// The nodes, as decisions know them, sorted.
    pub ids: Box<[NodeId]>,
}

impl EndpointTable {
    /// Counts as the speakers do ([`EndpointsIndex`](ferrocast_core::model::EndpointsIndex)).
    #[must_use]
    pub fn new(slices: &Slices) -> Self {
        let mut rows: BTreeMap<&ServiceKey, Vec<&EndpointRow>> = BTreeMap::new();
        for slice in slices.values() {
            rows.entry(&slice.0).or_default().extend(&slice.1);
        }
        let counted = |(service, rows): (&ServiceKey, Vec<&EndpointRow>)| (service.clone(), Arc::new(count(rows)));
        Self { by_service: rows.into_iter().map(counted).collect() }
    }

    /// Gives Services with a selector and without any slice one endpoint on each of `nodes`; these Services are returned.
    #[must_use]
    pub fn assume(&mut self, objects: &Objects, nodes: &[Arc<str>]) -> Vec<ServiceKey> {
        let everywhere = Arc::new(ServiceEndpoints::everywhere(nodes));
        let lacks = |service: &&Arc<Service>| {
            service.is_load_balancer && !service.selector.is_empty() && !self.by_service.contains_key(&service.key)
        };
        let assumed: Vec<ServiceKey> =
            objects.services.values().filter(lacks).map(|service| service.key.clone()).collect();
        self.by_service.extend(assumed.iter().map(|key| (key.clone(), everywhere.clone())));
        assumed
    }

    /// The endpoints of a Service.
    #[must_use]
    pub fn get(&self, service: &ServiceKey) -> Option<&ServiceEndpoints> {
        self.by_service.get(service).map(|endpoints| &**endpoints).filter(|endpoints| endpoints.anywhere > 0)
    }

    /// The counts of a Service as a node sees them.
    #[must_use]
    pub fn seen_from(&self, service: &ServiceKey, node: &str) -> Endpoints {
        self.get(service).map_or_else(Endpoints::default, |endpoints| endpoints.seen_from(node))
    }
}

impl ServiceEndpoints {
    /// One on each of `nodes`.
    fn everywhere(nodes: &[Arc<str>]) -> Self {
        let mut names = nodes.to_vec();
        names.sort_unstable();
        let anywhere = u32::try_from(names.len()).unwrap_or(u32::MAX);
        Self::new(anywhere, names.into_iter().map(|name| (name, 1)).collect())
    }

    fn new(anywhere: u32, on: Box<[(Arc<str>, u32)]>) -> Self {
        let mut ids: Box<[NodeId]> = on.iter().map(|(name, _)| NodeId::of(name)).collect();
        ids.sort_unstable();
        Self { anywhere, on, ids }
    }

    /// The counts as a node sees them.
    #[must_use]
    pub fn seen_from(&self, node: &str) -> Endpoints {
        let at = self.on.binary_search_by(|(name, _)| (**name).cmp(node));
        Endpoints { here: at.map_or(0, |at| self.on[at].1), anywhere: self.anywhere }
    }
}

/// An address that several slices name serves only if none of them says otherwise.
fn count(mut rows: Vec<&EndpointRow>) -> ServiceEndpoints {
    rows.sort_unstable_by_key(|row| row.ip);
    let mut anywhere = 0;
    let mut places: Vec<(&Arc<str>, IpAddr)> = Vec::new();
    for same in rows.chunk_by(|a, b| a.ip == b.ip).filter(|same| same.iter().all(|row| row.serving)) {
        anywhere += 1;
        places.extend(same.iter().filter_map(|row| Some((row.node.as_ref()?, row.ip))));
    }
    places.sort_unstable();
    places.dedup();
    let on = places
        .chunk_by(|a, b| a.0 == b.0)
        .filter_map(|same| Some((same.first()?.0.clone(), u32::try_from(same.len()).ok()?)));
    ServiceEndpoints::new(anywhere, on.collect())
}
