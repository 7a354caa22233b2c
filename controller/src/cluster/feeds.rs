//! What the watchers feed: Services, EndpointSlices, Namespaces and Nodes into the [`ClusterView`].
use std::{collections::BTreeMap, sync::Arc};

use ferrocast_core::{
    model::{EndpointDigest, Endpoints, EndpointsIndex, Labels, Node, NodeId, Service, ServiceKey, SliceDigest},
    view::{ClusterView, Source, ViewWriter},
};
use imbl::OrdMap;
use k8s_openapi::api::{core::v1 as core, discovery::v1::EndpointSlice};
use kube::Resource as _;

use super::{
    convert,
    lean::{LeanNamespace, LeanService, LeanSlice},
    watch::Feed,
};

/// Replaces a map by `next`, keeping what is equal, so that a later diff costs what changed.
fn replace_map<K: Ord + Clone, V: PartialEq + Clone>(map: &mut OrdMap<K, Arc<V>>, next: BTreeMap<K, Arc<V>>) -> bool {
    let gone: Vec<K> = map.keys().filter(|k| !next.contains_key(k)).cloned().collect();
    let mut changed = !gone.is_empty();
    for key in &gone {
        map.remove(key);
    }
    for (key, value) in next {
        changed |= insert(map, key, value);
    }
    changed
}

/// Inserts unless equal; says whether that changed anything.
fn insert<K: Ord + Clone, V: PartialEq + Clone>(map: &mut OrdMap<K, Arc<V>>, key: K, value: Arc<V>) -> bool {
    if map.get(&key).is_some_and(|old| *old == value) {
        return false;
    }
    map.insert(key, value);
    true
}

/// Services into the view.
pub struct ServiceFeed {
    /// The view.
    pub view: ViewWriter,
    /// Keep resource versions (see [`convert::service`]).
    pub writes: bool,
}

impl Feed for ServiceFeed {
    type Object = LeanService;
    type Item = Arc<Service>;

    fn digest(&mut self, object: LeanService) -> Arc<Service> {
        Arc::new(convert::service(&object.into(), self.writes))
    }

    fn replace(&mut self, items: Vec<Arc<Service>>, epoch: u64) {
        let next = items.into_iter().map(|s| (s.key.clone(), s)).collect();
        self.view.edit(|v| replace_map(&mut v.services, next));
        self.view.listed(Source::Services, epoch);
    }

    fn apply(&mut self, item: Arc<Service>) {
        self.view.edit(|v| insert(&mut v.services, item.key.clone(), item));
    }

    fn remove(&mut self, item: Arc<Service>) {
        self.view.edit(|v| v.services.remove(&item.key).is_some());
    }
}

/// Namespaces into the view.
pub struct NamespaceFeed {
    /// The view.
    pub view: ViewWriter,
}

impl Feed for NamespaceFeed {
    type Object = LeanNamespace;
    type Item = (Arc<str>, Arc<Labels>);

    fn digest(&mut self, object: LeanNamespace) -> Self::Item {
        (object.meta().name.as_deref().unwrap_or_default().into(), Arc::new(convert::labels(object.meta())))
    }

    fn replace(&mut self, items: Vec<Self::Item>, epoch: u64) {
        self.view.edit(|v| replace_map(&mut v.namespaces, items.into_iter().collect()));
        self.view.listed(Source::Namespaces, epoch);
    }

    fn apply(&mut self, (name, labels): Self::Item) {
        self.view.edit(|v| insert(&mut v.namespaces, name, labels));
    }

    fn remove(&mut self, (name, _): Self::Item) {
        self.view.edit(|v| v.namespaces.remove(&name).is_some());
    }
}

/// Nodes into the view.
pub struct NodeFeed {
    /// The view.
    pub view: ViewWriter,
}

impl Feed for NodeFeed {
    type Object = core::Node;
    type Item = Arc<Node>;

    fn digest(&mut self, object: core::Node) -> Arc<Node> {
        Arc::new(convert::node(&object))
    }

    fn replace(&mut self, items: Vec<Arc<Node>>, epoch: u64) {
        let next = items.into_iter().map(|n| (n.name.clone(), n)).collect();
        self.view.edit(|v| replace_map(&mut v.nodes, next));
        self.view.listed(Source::Nodes, epoch);
    }

    fn apply(&mut self, item: Arc<Node>) {
        self.view.edit(|v| insert(&mut v.nodes, item.name.clone(), item));
    }

    fn remove(&mut self, item: Arc<Node>) {
        self.view.edit(|v| v.nodes.remove(&item.name).is_some());
    }
}

/// EndpointSlices, counted per Service, into a speaker's view.
pub struct EndpointsFeed {
    view: ViewWriter,
    node: Arc<str>,
    index: EndpointsIndex,
}

impl EndpointsFeed {
    /// Counts as `node` sees it.
    #[must_use]
    pub fn new(view: ViewWriter, node: Arc<str>) -> Self {
        Self { view, node, index: EndpointsIndex::default() }
    }

    fn publish(&mut self, counts: Vec<(ServiceKey, Endpoints)>) {
        let moved = self.index.take_moved();
        if !counts.is_empty() || !moved.is_empty() {
            self.view.edit(|v| publish_counts(v, counts) | publish_nodes(v, moved));
        }
    }
}

/// Puts counts into the view; a Service without endpoints has no entry.
pub fn publish_counts(view: &mut ClusterView, counts: Vec<(ServiceKey, Endpoints)>) -> bool {
    let mut changed = false;
    for (key, count) in counts {
        changed |= if count == Endpoints::default() {
            view.endpoints.remove(&key).is_some()
        } else {
            view.endpoints.insert(key, count) != Some(count)
        };
    }
    changed
}

/// Puts the nodes with serving endpoints into the view; a Service without any has no entry.
pub fn publish_nodes(view: &mut ClusterView, moved: Vec<(ServiceKey, Arc<[NodeId]>)>) -> bool {
    let changed = !moved.is_empty();
    for (key, nodes) in moved {
        match nodes.is_empty() {
            true => view.endpoint_nodes.remove(&key),
            false => view.endpoint_nodes.insert(key, nodes),
        };
    }
    changed
}

/// Reduces a slice to what `node` needs to count.
#[must_use]
pub fn slice_digest(object: &EndpointSlice, node: &str) -> Option<SliceDigest> {
    let (service, rows) = convert::endpoint_slice(object)?;
    Some(rows_digest(service, &rows, node))
}

/// Reduces a slice's endpoints to what `node` needs to count.
#[must_use]
pub fn rows_digest(service: ServiceKey, rows: &[convert::EndpointRow], node: &str) -> SliceDigest {
    let endpoints = rows
        .iter()
        .map(|row| EndpointDigest {
            ip: row.ip,
            serving: row.serving,
            here: row.node.as_deref() == Some(node),
            node: row.node.as_deref().map(NodeId::of),
        })
        .collect();
    SliceDigest { service, endpoints }
}

impl Feed for EndpointsFeed {
    type Object = LeanSlice;
    type Item = (String, Option<SliceDigest>);

    fn digest(&mut self, object: LeanSlice) -> Self::Item {
        let object = EndpointSlice::from(object);
        let meta = &object.metadata;
        let key =
            format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        (key, slice_digest(&object, &self.node))
    }

    fn replace(&mut self, items: Vec<Self::Item>, epoch: u64) {
        let counts = self.index.replace(items.into_iter().filter_map(|(key, slice)| Some((key, slice?))));
        self.publish(counts);
        self.view.listed(Source::Endpoints, epoch);
    }

    fn apply(&mut self, (key, slice): Self::Item) {
        let counts = self.index.apply(&key, slice);
        self.publish(counts);
    }

    fn remove(&mut self, (key, _): Self::Item) {
        let counts = self.index.apply(&key, None);
        self.publish(counts);
    }
}
