//! Who may use a pool.
use super::{Pool, any_selector_matches};
use crate::model::{Labels, ServiceKey};

/// The label that the API server gives every Namespace.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// May the Service use the pool (`spec.serviceAllocation`)?
///
/// `namespace`: the labels of its Namespace; `None` if that is not known: then it has no label but its name.
#[must_use]
pub fn pool_allows(pool: &Pool, service: &ServiceKey, labels: &Labels, namespace: Option<&Labels>) -> bool {
    let Some(allocation) = &pool.allocation else { return true };
    let name = service.namespace();
    let namespace_matches = || {
        if allocation.namespaces.is_empty() && allocation.namespace_selectors.is_empty() {
            return true;
        }
        let any_of = |labels: &Labels| allocation.namespace_selectors.iter().any(|s| s.matches(labels));
        allocation.namespaces.contains(name) || namespace.map_or_else(|| any_of(&namespace_by_name(name)), any_of)
    };
    namespace_matches() && any_selector_matches(&allocation.service_selectors, labels)
}

/// The labels of a Namespace of which only the name is known.
#[must_use]
pub fn namespace_by_name(name: &str) -> Labels {
    [(NAMESPACE_NAME_LABEL, name)].into_iter().collect()
}
