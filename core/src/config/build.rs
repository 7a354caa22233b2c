//! From [`Resources`] to [`Config`].
use super::{Config, Resources};

/// Remembers each object's last valid version, so that an edit that breaks an object does not take it out of force.
#[derive(Debug, Default)]
pub struct Builder {}

impl Builder {
    /// What of `resources` is in force.
    #[must_use]
    pub fn build(&mut self, resources: &Resources) -> Config {
        let _ = resources;
        Config::default()
    }
}

/// [`Builder::build`] without a past.
#[must_use]
pub fn build(resources: &Resources) -> Config {
    Builder::default().build(resources)
}
