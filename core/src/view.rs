//! Snapshots of the cluster, published only when they are whole.
//!
//! Each watcher owns one [`Source`] and edits its part through a [`ViewWriter`]; readers are woken only once every source
//! that the role needs has listed once, so that "not seen yet" never looks like "deleted".
use std::sync::Arc;

use imbl::OrdMap;
use tokio::sync::watch;

use crate::{
    config::Config,
    model::{Endpoints, Labels, Node, NodeId, Service, ServiceKey},
};

/// A part of the view, fed by one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// Services.
    Services,
    /// EndpointSlices.
    Endpoints,
    /// Namespaces.
    Namespaces,
    /// Nodes (in a speaker: its own).
    Nodes,
    /// The configuration in force.
    Config,
}

/// How many [`Source`]s there are.
const SOURCES: usize = 5;

/// One immutable snapshot. Cloning is O(1); `diff` between two of a map costs what changed.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// Services of every type and class.
    pub services: OrdMap<ServiceKey, Arc<Service>>,
    /// Serving endpoints by Service; a Service without an entry has none. Only in a speaker.
    pub endpoints: OrdMap<ServiceKey, Endpoints>,
    /// The nodes with serving endpoints by Service, sorted; a Service without an entry has none. Only in a speaker.
    pub endpoint_nodes: OrdMap<ServiceKey, Arc<[NodeId]>>,
    /// Namespace labels by name. Only in a controller.
    pub namespaces: OrdMap<Arc<str>, Arc<Labels>>,
    /// Nodes by name.
    pub nodes: OrdMap<Arc<str>, Arc<Node>>,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// For each source, the highest epoch in which it has listed; zero: never.
    epochs: [u64; SOURCES],
}

impl ClusterView {
    /// The epoch in which `source` last listed; zero: never.
    #[must_use]
    pub fn epoch(&self, source: Source) -> u64 {
        self.epochs[source as usize]
    }

    /// The lowest epoch of `sources`: all of them have listed in it or later.
    #[must_use]
    pub fn epoch_of(&self, sources: &[Source]) -> u64 {
        sources.iter().map(|s| self.epoch(*s)).min().unwrap_or(0)
    }
}

/// Write access to the view, shared by the watchers of one role.
#[derive(Clone, Debug)]
pub struct ViewWriter {
    view: Arc<watch::Sender<ClusterView>>,
    needed: &'static [Source],
    /// Counts the lists, whole or not.
    lists: Arc<watch::Sender<u64>>,
}

impl ViewWriter {
    /// A view that is published once all of `needed` have listed, and its first reader.
    #[must_use]
    pub fn new(needed: &'static [Source]) -> (Self, watch::Receiver<ClusterView>) {
        let (view, reader) = watch::channel(ClusterView::default());
        (Self { view: Arc::new(view), needed, lists: Arc::new(watch::Sender::new(0)) }, reader)
    }

    /// Edits the view; `edit` returns whether it changed anything. Readers wake if it did and the view is whole.
    pub fn edit(&self, edit: impl FnOnce(&mut ClusterView) -> bool) {
        self.view.send_if_modified(|view| edit(view) && view.epoch_of(self.needed) > 0);
    }

    /// Notes that `source` has listed in `epoch` (counted from 1), after its part has been edited.
    pub fn listed(&self, source: Source, epoch: u64) {
        self.view.send_if_modified(|view| {
            let known = &mut view.epochs[source as usize];
            let newer = *known < epoch;
            *known = epoch.max(*known);
            newer && view.epoch_of(self.needed) > 0
        });
        self.lists.send_modify(|lists| *lists += 1);
    }

    /// Wakes its reader with every list of any source, also before the view is whole: for what feeds one source from others.
    #[must_use]
    pub fn lists(&self) -> watch::Receiver<u64> {
        self.lists.subscribe()
    }

    /// Has everything listed at least once?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.view.borrow().epoch_of(self.needed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_wakes_no_reader_until_every_source_has_listed() {
        let (writer, mut reader) = ViewWriter::new(&[Source::Services, Source::Nodes]);
        reader.mark_unchanged();
        let service = Arc::new(Service::load_balancer("a", "b"));
        writer.edit(|v| v.services.insert(service.key.clone(), service.clone()).is_none());
        writer.listed(Source::Services, 1);
        assert!(!reader.has_changed().unwrap());
        writer.listed(Source::Nodes, 1);
        assert!(reader.has_changed().unwrap());
        assert_eq!(reader.borrow_and_update().services.len(), 1);
        writer.edit(|_| false);
        assert!(!reader.has_changed().unwrap());
    }
}
