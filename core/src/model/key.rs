//! Names of namespaced objects.
use std::{fmt, str::FromStr, sync::Arc};

/// `namespace/name` of a Service; one allocation, cheap to clone, ordered by namespace and then name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServiceKey(Arc<str>);

impl Ord for ServiceKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        // The slash comes before everything that a name may contain, so that `a/z` comes before `a-b/a`.
        let rank = |octet: u8| if octet == b'/' { 0 } else { octet };
        match a.iter().zip(b).find(|(x, y)| x != y) {
            Some((x, y)) => rank(*x).cmp(&rank(*y)),
            None => a.len().cmp(&b.len()),
        }
    }
}

impl PartialOrd for ServiceKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl ServiceKey {
    /// The key of `namespace/name`. Neither part may contain a `/` (Kubernetes names never do).
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.slash().map_or("", |at| &self.0[..at])
    }

    /// The name within the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.slash().map_or(&*self.0, |at| &self.0[at + 1..])
    }

    /// Where the namespace ends. It is short, so that looking is quicker than any search made for long texts.
    fn slash(&self) -> Option<usize> {
        self.0.bytes().position(|octet| octet == b'/')
    }

    /// `namespace/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServiceKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self(text.into()))
            }
            _ => Err(format!("{text:?} is not of the form namespace/name")),
        }
    }
}

/// Which configuration object: kind and name (all live in the one configuration namespace).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind as users write it, e.g. `IPAddressPool`.
    pub kind: &'static str,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_by_namespace_and_then_name() {
        let mut keys = ["a-b/a", "a/z", "a/b", "a.b/c", "b/a", "a/"].map(|key| ServiceKey(key.into()));
        keys.sort();
        assert_eq!(keys.map(|key| key.to_string()), ["a/", "a/b", "a/z", "a-b/a", "a.b/c", "b/a"]);
    }
}
