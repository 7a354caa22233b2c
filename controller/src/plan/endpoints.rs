//! Serving endpoints of every Service on every node.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferrocast_core::model::{Endpoints, NodeId, Service, ServiceKey};

use super::objects::Objects;
use crate::cluster::convert::EndpointRow;

/// By Service; one without an entry has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointTable {
    by_service: BTreeMap<ServiceKey, ServiceEndpoints>,
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
    /// Counts as the speakers do ([`EndpointsIndex`](ferrocast_core::model::EndpointsIndex)). With `assume`, Services with a selector and
    /// without any slice have one endpoint on each of `nodes`; these Services are returned too.
    #[must_use]
    pub fn new(objects: &Objects, nodes: &[Arc<str>], assume: bool) -> (Self, Vec<ServiceKey>) {
        let mut rows: BTreeMap<&ServiceKey, Vec<&EndpointRow>> = BTreeMap::new();
        for (service, slice) in objects.slices.values() {
            rows.entry(service).or_default().extend(slice);
        }
        let mut by_service: BTreeMap<ServiceKey, ServiceEndpoints> =
            rows.iter().map(|(service, rows)| ((*service).clone(), count(rows.clone()))).collect();
        let mut assumed = Vec::new();
        if assume {
            let everywhere = ServiceEndpoints::of(nodes.iter().map(|name| (name.clone(), 1)).collect());
            let lacks = |service: &&Arc<Service>| {
                service.is_load_balancer && !service.selector.is_empty() && !rows.contains_key(&service.key)
            };
            assumed.extend(objects.services.values().filter(lacks).map(|service| service.key.clone()));
            by_service.extend(assumed.iter().map(|key| (key.clone(), everywhere.clone())));
        }
        by_service.retain(|_, endpoints| endpoints.anywhere > 0);
        (Self { by_service }, assumed)
    }

    /// The endpoints of a Service.
    #[must_use]
    pub fn get(&self, service: &ServiceKey) -> Option<&ServiceEndpoints> {
        self.by_service.get(service)
    }

    /// The counts of a Service as a node sees them.
    #[must_use]
    pub fn seen_from(&self, service: &ServiceKey, node: &str) -> Endpoints {
        self.get(service).map_or_else(Endpoints::default, |endpoints| endpoints.seen_from(node))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceKey, &ServiceEndpoints)> {
        self.by_service.iter()
    }
}

impl ServiceEndpoints {
    fn of(on: BTreeMap<Arc<str>, u32>) -> Self {
        let anywhere = on.values().sum();
        Self { anywhere, ..Self::default() }.with_nodes(on)
    }

    fn with_nodes(mut self, on: BTreeMap<Arc<str>, u32>) -> Self {
        let mut ids: Vec<NodeId> = on.keys().map(|name| NodeId::of(name)).collect();
        ids.sort_unstable();
        self.ids = ids.into();
        self.on = on.into_iter().collect();
        self
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
    let mut endpoints = ServiceEndpoints::default();
    let mut on: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    for same in rows.chunk_by(|a, b| a.ip == b.ip).filter(|same| same.iter().all(|row| row.serving)) {
        endpoints.anywhere += 1;
        let nodes: BTreeSet<&Arc<str>> = same.iter().filter_map(|row| row.node.as_ref()).collect();
        for node in nodes {
            *on.entry(node.clone()).or_default() += 1;
        }
    }
    endpoints.with_nodes(on)
}
