//! What readers outside the actors (HTTP, status, metrics) may look at. The only user of `DashMap`: it hands out clones, never
//! guards, so that nothing can hold a shard across an `.await`.
#![expect(clippy::disallowed_types, reason = "this module is the one wrapper")]
use std::{hash::Hash, sync::Arc};

use dashmap::DashMap;

/// A concurrent map of small or shared values.
#[derive(Debug)]
pub struct Registry<K: Eq + Hash, V>(Arc<DashMap<K, V>>);

impl<K: Eq + Hash, V> Clone for Registry<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Eq + Hash, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Ord + Clone, V: Clone> Registry<K, V> {
    /// Sets the value of `key`.
    pub fn set(&self, key: K, value: V) {
        self.0.insert(key, value);
    }

    /// Forgets `key`.
    pub fn remove(&self, key: &K) {
        self.0.remove(key);
    }

    /// A clone of the value of `key`.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).map(|v| v.clone())
    }

    /// Clones of everything, in key order.
    #[must_use]
    pub fn all(&self) -> Vec<(K, V)> {
        let mut all: Vec<_> = self.0.iter().map(|e| (e.key().clone(), e.value().clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_returns_clones_in_key_order() {
        let registry = Registry::default();
        registry.set("b", 2);
        registry.set("a", 1);
        registry.set("c", 3);
        registry.remove(&"c");
        assert_eq!(registry.all(), [("a", 1), ("b", 2)]);
        assert_eq!(registry.get(&"b"), Some(2));
    }
}
