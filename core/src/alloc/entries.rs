//! The Services that are ours, numbered: a name is looked up once in a batch, from then on its number serves.
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault},
};

use super::{
    Entry,
    hash::{Plain, Quick, QuickMap},
};
use crate::model::ServiceKey;

/// The number of a Service. It is used again once that Service is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(u32);

/// The entries by number, by name and by namespace.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// By number. An entry is taken out while it is worked on.
    slots: Vec<Option<Entry>>,
    /// Numbers that nobody has.
    vacant: Vec<Id>,
    /// By hash of the name; whoever has the same hash follows in [`Entry::twin`].
    ids: HashMap<u64, Id, BuildHasherDefault<Plain>>,
    by_namespace: QuickMap<Box<str>, Vec<Id>>,
    quick: Quick,
}

impl Id {
    fn index(self) -> usize {
        self.0 as usize
    }
}

impl Entries {
    /// The hash of a name, to be computed once.
    pub(super) fn hash(&self, key: &ServiceKey) -> u64 {
        self.quick.hash_one(key)
    }

    /// The number of the Service of this name and hash.
    pub(super) fn find(&self, hash: u64, key: &ServiceKey) -> Option<Id> {
        let mut at = self.ids.get(&hash).copied();
        while let Some(id) = at {
            let entry = self.get(id)?;
            if entry.service.key == *key {
                return at;
            }
            at = entry.twin;
        }
        None
    }

    /// The Service of this name.
    pub(super) fn of(&self, key: &ServiceKey) -> Option<&Entry> {
        self.get(self.find(self.hash(key), key)?)
    }

    /// The Service of this number.
    pub(super) fn get(&self, id: Id) -> Option<&Entry> {
        self.slots.get(id.index())?.as_ref()
    }

    /// The Service of this number.
    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Entry> {
        self.slots.get_mut(id.index())?.as_mut()
    }

    /// Takes an entry out to work on it; it is to be put back.
    pub(super) fn take(&mut self, id: Id) -> Option<Entry> {
        self.slots.get_mut(id.index())?.take()
    }

    /// Puts an entry back that was taken out.
    pub(super) fn put(&mut self, id: Id, entry: Entry) {
        self.slots[id.index()] = Some(entry);
    }

    /// Adds a Service of whose name there is none yet, and numbers it.
    pub(super) fn insert(&mut self, hash: u64, mut entry: Entry) -> Id {
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Id(u32::try_from(self.slots.len() - 1).expect("fewer Services than memory has room for"))
        });
        let namespace = entry.service.key.namespace();
        match self.by_namespace.get_mut(namespace) {
            Some(ids) => {
                entry.at = ids.len();
                ids.push(id);
            }
            None => drop(self.by_namespace.insert(namespace.into(), vec![id])),
        }
        entry.twin = self.ids.insert(hash, id);
        self.put(id, entry);
        id
    }

    /// Forgets the Service of this number, whose name has this hash.
    pub(super) fn remove(&mut self, hash: u64, id: Id) -> Option<Entry> {
        let entry = self.take(id)?;
        match (self.ids.get(&hash).copied(), entry.twin) {
            (Some(first), Some(twin)) if first == id => drop(self.ids.insert(hash, twin)),
            (Some(first), None) if first == id => drop(self.ids.remove(&hash)),
            (mut at, twin) => {
                while let Some(before) = at.and_then(|id| self.get_mut(id)) {
                    if before.twin == Some(id) {
                        before.twin = twin;
                        break;
                    }
                    at = before.twin;
                }
            }
        }
        self.leave_namespace(&entry);
        self.vacant.push(id);
        Some(entry)
    }

    fn leave_namespace(&mut self, entry: &Entry) {
        let namespace = entry.service.key.namespace();
        let Some(ids) = self.by_namespace.get_mut(namespace) else { return };
        ids.swap_remove(entry.at);
        let moved = ids.get(entry.at).copied();
        if ids.is_empty() {
            self.by_namespace.remove(namespace);
        }
        if let Some(moved) = moved.and_then(|id| self.get_mut(id)) {
            moved.at = entry.at;
        }
    }

    /// The Services of a namespace.
    pub(super) fn of_namespace(&self, namespace: &str) -> &[Id] {
        self.by_namespace.get(namespace).map_or(&[], |ids| ids)
    }

    /// All Services with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &Entry)> {
        let numbered = (0..).map(Id).zip(&self.slots);
        numbered.filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Service;

    fn entry(key: &str) -> Entry {
        let key: ServiceKey = key.parse().unwrap();
        Entry::new(Arc::new(Service::load_balancer(key.namespace(), key.name())), 0)
    }

    #[test]
    fn services_are_found_and_forgotten_one_by_one_when_their_names_have_the_same_hash() {
        const HASH: u64 = 7;
        let names = ["a/1", "a/2", "b/1", "a/3"].map(|name| name.parse::<ServiceKey>().unwrap());
        for first_gone in 0..names.len() {
            let mut entries = Entries::default();
            let ids = names.clone().map(|name| entries.insert(HASH, entry(name.as_str())));
            let mut left: Vec<usize> = (0..names.len()).collect();
            for step in 0..names.len() {
                for (at, name) in names.iter().enumerate() {
                    let id = left.contains(&at).then_some(ids[at]);
                    assert_eq!(entries.find(HASH, name), id, "{name}");
                    assert_eq!(entries.of_namespace(name.namespace()).contains(&ids[at]), id.is_some(), "{name}");
                }
                let gone = left.remove((first_gone + step) % left.len());
                assert_eq!(entries.remove(HASH, ids[gone]).unwrap().service.key, names[gone]);
                assert!(entries.remove(HASH, ids[gone]).is_none());
            }
            assert!(entries.iter().next().is_none() && entries.ids.is_empty() && entries.by_namespace.is_empty());
            let again = entries.insert(HASH, entry("a/1"));
            assert!(ids.contains(&again), "a number is used again");
        }
    }
}
