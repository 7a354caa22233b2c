//! The announcer's own generations: speakers come and go, each with its epoch, and yet they only grow.
use std::{collections::BTreeMap, sync::Arc};

use ferrocast_core::announce::{Configuration, Desired};
use ferrocast_plugin_proto::v1alpha1::Version;

/// Generations whose version is remembered: a target that is further behind says nothing about how far it has come.
const VERSIONS_MAX: usize = 4096;

/// What the announcer was told last, and what its generations stand for.
#[derive(Debug, Default)]
pub(crate) struct Local {
    generation: u64,
    configuration: Arc<Configuration>,
    versions: BTreeMap<u64, Version>,
}

impl Local {
    /// The set with generations that go on from those before.
    pub(crate) fn next(&mut self, set: &Desired) -> Desired {
        self.generation += 1;
        let mut set = set.clone();
        set.generation = self.generation;
        if set.configuration.entries == self.configuration.entries {
            set.configuration = self.configuration.clone();
        } else {
            let generation = self.configuration.generation + 1;
            set.configuration = Arc::new(Configuration { generation, entries: set.configuration.entries.clone() });
        }
        set
    }

    /// The announcer has taken `set`, which came with this version, or with none.
    pub(crate) fn took(&mut self, set: &Desired, version: Option<Version>) {
        self.configuration = set.configuration.clone();
        if let Some(version) = version {
            self.versions.insert(set.generation, version);
        }
        while self.versions.len() > VERSIONS_MAX {
            self.versions.pop_first();
        }
    }

    /// The version that somebody who has reached this generation has reached.
    pub(crate) fn version(&self, generation: u64) -> Option<Version> {
        self.versions.range(..=generation).next_back().map(|(_, version)| *version)
    }

    /// Nobody is behind this generation any more.
    pub(crate) fn forget_before(&mut self, generation: u64) {
        if let Some((&keep, _)) = self.versions.range(..=generation).next_back() {
            self.versions = self.versions.split_off(&keep);
        }
    }
}
