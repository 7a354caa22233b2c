//! Serving endpoints per Service, from digests of EndpointSlices.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Endpoints, ServiceKey};

/// A node by a number made of its name (FNV-1a, 64 bits), the same in every process: eight octets per endpoint instead of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// The number of the node called `name`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let step = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step))
    }
}

/// One address of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointDigest {
    /// The address.
    pub ip: IpAddr,
    /// Condition `ready` is true or absent, or `serving` is true.
    pub serving: bool,
    /// Its `nodeName` is the node that counts.
    pub here: bool,
    /// Its `nodeName`; `None`: it is on no node.
    pub node: Option<NodeId>,
}

/// What matters about an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceDigest {
    /// The Service that the label `kubernetes.io/service-name` names.
    pub service: ServiceKey,
    /// Every address of every endpoint.
    pub endpoints: Box<[EndpointDigest]>,
}

/// Counts serving endpoints per Service while slices come, change and go.
///
/// One change costs the endpoints of the Services that the slice names, before and after.
#[derive(Debug, Default)]
pub struct EndpointsIndex {
    slices: BTreeMap<Arc<str>, SliceDigest>,
    /// Which slices a Service has.
    by_service: BTreeSet<(ServiceKey, Arc<str>)>,
    /// The counts last returned; a Service without endpoints that serve has no entry.
    counts: BTreeMap<ServiceKey, Endpoints>,
    /// On which nodes endpoints of a Service serve, sorted; a Service without an entry has none.
    nodes: BTreeMap<ServiceKey, Arc<[NodeId]>>,
    /// Services whose nodes have changed since [`EndpointsIndex::take_moved`].
    moved: BTreeSet<ServiceKey>,
}

impl EndpointsIndex {
    /// Takes in a slice as it is now (`None`: it is gone) and returns the new counts of each Service whose counts changed:
    /// at most two, if the slice moved from one Service to another.
    pub fn apply(&mut self, slice_key: &str, slice: Option<SliceDigest>) -> Vec<(ServiceKey, Endpoints)> {
        let before = self.remove(slice_key);
        let after = slice.as_ref().map(|s| s.service.clone());
        if let Some(slice) = slice {
            self.insert(slice_key.into(), slice);
        }
        let touched: BTreeSet<ServiceKey> = before.into_iter().chain(after).collect();
        touched.into_iter().filter_map(|service| self.recount(service)).collect()
    }

    /// Replaces everything by what a list returned, and returns the new counts of each Service whose counts changed.
    pub fn replace(&mut self, all: impl IntoIterator<Item = (String, SliceDigest)>) -> Vec<(ServiceKey, Endpoints)> {
        self.slices.clear();
        self.by_service.clear();
        for (key, slice) in all {
            self.remove(&key);
            self.insert(key.into(), slice);
        }
        let touched: BTreeSet<ServiceKey> =
            self.counts.keys().cloned().chain(self.by_service.iter().map(|(service, _)| service.clone())).collect();
        touched.into_iter().filter_map(|service| self.recount(service)).collect()
    }

    /// The counts of a Service.
    #[must_use]
    pub fn get(&self, service: &ServiceKey) -> Endpoints {
        self.counts.get(service).copied().unwrap_or_default()
    }

    /// Services whose set of nodes with serving endpoints has changed since the last call, with the set as it is now.
    pub fn take_moved(&mut self) -> Vec<(ServiceKey, Arc<[NodeId]>)> {
        let moved = std::mem::take(&mut self.moved);
        moved.into_iter().map(|key| (key.clone(), self.nodes.get(&key).cloned().unwrap_or_default())).collect()
    }

    fn insert(&mut self, key: Arc<str>, slice: SliceDigest) {
        self.by_service.insert((slice.service.clone(), key.clone()));
        self.slices.insert(key, slice);
    }

    fn remove(&mut self, key: &str) -> Option<ServiceKey> {
        let (key, slice) = self.slices.remove_entry(key)?;
        let entry = (slice.service, key);
        self.by_service.remove(&entry);
        Some(entry.0)
    }

    /// Counts the Service's endpoints again; `Some` if the counts changed.
    fn recount(&mut self, service: ServiceKey) -> Option<(ServiceKey, Endpoints)> {
        let (new, nodes) = self.count(&service);
        if self.nodes.get(&service).map(|known| &**known).unwrap_or_default() != nodes {
            match nodes.is_empty() {
                true => self.nodes.remove(&service),
                false => self.nodes.insert(service.clone(), nodes.into()),
            };
            self.moved.insert(service.clone());
        }
        if new == self.get(&service) {
            return None;
        }
        if new == Endpoints::default() {
            self.counts.remove(&service);
        } else {
            self.counts.insert(service.clone(), new);
        }
        Some((service, new))
    }

    fn count(&self, service: &ServiceKey) -> (Endpoints, Vec<NodeId>) {
        let first = (service.clone(), Arc::from(""));
        let slices = self.by_service.range(first..).take_while(|(s, _)| s == service);
        let mut all: Vec<EndpointDigest> = slices
            .filter_map(|(_, key)| self.slices.get(key))
            .flat_map(|slice| slice.endpoints.iter().copied())
            .collect();
        all.sort_unstable();
        let (mut counts, mut nodes) = (Endpoints::default(), Vec::new());
        for same in all.chunk_by(|a, b| a.ip == b.ip) {
            if same.iter().all(|e| e.serving) {
                counts.anywhere += 1;
                counts.here += u32::from(same.iter().any(|e| e.here));
                nodes.extend(same.iter().filter_map(|e| e.node));
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        (counts, nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(service: &str, endpoints: &[(&str, bool, bool)]) -> SliceDigest {
        SliceDigest {
            service: service.parse().unwrap(),
            endpoints: endpoints
                .iter()
                .map(|(ip, serving, here)| EndpointDigest {
                    ip: ip.parse().unwrap(),
                    serving: *serving,
                    here: *here,
                    node: Some(NodeId::of(if *here { "here" } else { "there" })),
                })
                .collect(),
        }
    }

    fn counts(service: &str, here: u32, anywhere: u32) -> (ServiceKey, Endpoints) {
        (service.parse().unwrap(), Endpoints { here, anywhere })
    }

    #[test]
    fn endpoints_are_counted_here_and_anywhere_and_only_changes_are_returned() {
        let mut index = EndpointsIndex::default();
        let two = slice("d/web", &[("10.1.0.1", true, true), ("10.1.0.2", true, false), ("10.1.0.3", false, true)]);
        assert_eq!(index.apply("d/web-1", Some(two.clone())), vec![counts("d/web", 1, 2)]);
        assert_eq!(index.apply("d/web-1", Some(two)), vec![]);
        assert_eq!(
            index.apply("d/web-2", Some(slice("d/web", &[("10.1.0.4", true, true)]))),
            vec![counts("d/web", 2, 3)]
        );
        assert_eq!(index.apply("d/web-1", None), vec![counts("d/web", 1, 1)]);
        assert_eq!(index.apply("d/web-2", None), vec![counts("d/web", 0, 0)]);
        assert_eq!(index.apply("d/web-2", None), vec![]);
        assert!(index.counts.is_empty() && index.by_service.is_empty() && index.slices.is_empty());
    }

    #[test]
    fn address_does_not_serve_when_any_slice_or_entry_says_so() {
        let mut index = EndpointsIndex::default();
        let both = slice("d/web", &[("10.1.0.1", true, true), ("10.1.0.1", false, true), ("10.1.0.2", true, true)]);
        assert_eq!(index.apply("d/a", Some(both)), vec![counts("d/web", 1, 1)]);
        let no = slice("d/web", &[("10.1.0.2", false, true)]);
        assert_eq!(index.apply("d/b", Some(no)), vec![counts("d/web", 0, 0)]);
        let yes = slice("d/web", &[("10.1.0.2", true, true)]);
        assert_eq!(index.apply("d/b", Some(yes)), vec![counts("d/web", 1, 1)]);
    }

    #[test]
    fn nodes_with_serving_endpoints_are_told_when_they_change_though_the_counts_do_not() {
        let mut index = EndpointsIndex::default();
        let on = |node: &str| {
            let ip = "10.1.0.1".parse().unwrap();
            let endpoint = EndpointDigest { ip, serving: true, here: false, node: Some(NodeId::of(node)) };
            SliceDigest { service: "d/web".parse().unwrap(), endpoints: [endpoint].into() }
        };
        index.apply("d/s", Some(on("n1")));
        assert_eq!(index.take_moved(), [("d/web".parse().unwrap(), Arc::from([NodeId::of("n1")]))]);
        assert_eq!(index.apply("d/s", Some(on("n2"))), vec![]);
        assert_eq!(index.take_moved(), [("d/web".parse().unwrap(), Arc::from([NodeId::of("n2")]))]);
        index.apply("d/s", Some(on("n2")));
        assert_eq!(index.take_moved(), []);
        index.apply("d/s", None);
        assert_eq!(index.take_moved(), [("d/web".parse().unwrap(), Arc::from([]))]);
        assert_ne!(NodeId::of("n1"), NodeId::of("n2"));
    }

    #[test]
    fn both_services_are_returned_when_a_slice_moves() {
        let mut index = EndpointsIndex::default();
        index.apply("d/s", Some(slice("d/a", &[("10.1.0.1", true, true)])));
        let moved = index.apply("d/s", Some(slice("d/b", &[("10.1.0.1", true, true)])));
        assert_eq!(moved, vec![counts("d/a", 0, 0), counts("d/b", 1, 1)]);
    }

    #[test]
    fn replace_returns_what_differs_from_before() {
        let mut index = EndpointsIndex::default();
        index.apply("d/a", Some(slice("d/a", &[("10.1.0.1", true, true)])));
        index.apply("d/b", Some(slice("d/b", &[("10.1.0.2", true, true)])));
        let changed = index.replace([
            ("d/b".to_owned(), slice("d/b", &[("10.1.0.2", true, true)])),
            ("d/c".to_owned(), slice("d/c", &[("10.1.0.3", true, false)])),
        ]);
        assert_eq!(changed, vec![counts("d/a", 0, 0), counts("d/c", 0, 1)]);
        assert_eq!(index.get(&"d/b".parse().unwrap()), Endpoints { here: 1, anywhere: 1 });
    }
}
