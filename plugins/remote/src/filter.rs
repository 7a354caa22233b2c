//! What a plugin is not asked, because it cannot do it.
use std::sync::Arc;

use ferrocast_core::announce::{Announcement, Capabilities};
use ferrocast_plugin_proto::fits;
use imbl::{OrdMap, ordmap::DiffItem};
use ipnet::IpNet;

/// By prefix.
type Set = OrdMap<IpNet, Arc<Announcement>>;

/// Keeps apart what is sent and what is not; a change costs what has changed.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    capabilities: Capabilities,
    wanted: Set,
    pub(crate) kept: Set,
    pub(crate) refused: OrdMap<IpNet, &'static str>,
}

impl Filter {
    pub(crate) fn set(&mut self, capabilities: Capabilities, wanted: &Set) {
        if self.capabilities != capabilities {
            *self = Self { capabilities, ..Self::default() };
        }
        let old = std::mem::replace(&mut self.wanted, wanted.clone());
        let whole = self.refused.is_empty();
        for change in old.diff(wanted) {
            match change {
                DiffItem::Add(prefix, new) | DiffItem::Update { new: (prefix, new), .. } => {
                    match self.check(prefix, new) {
                        Ok(()) => {
                            self.refused.remove(prefix);
                            self.kept.insert(*prefix, new.clone());
                        }
                        Err(why) => {
                            self.kept.remove(prefix);
                            self.refused.insert(*prefix, why);
                        }
                    }
                }
                DiffItem::Remove(prefix, _) => {
                    self.refused.remove(prefix);
                    self.kept.remove(prefix);
                }
            }
        }
        if whole && self.refused.is_empty() {
            self.kept = wanted.clone(); // shares all its structure with what everybody else has
        }
    }

    fn check(&self, prefix: &IpNet, announcement: &Announcement) -> Result<(), &'static str> {
        self.capabilities.can_announce(prefix)?;
        if fits(announcement) { Ok(()) } else { Err("the announcement is longer than the protocol allows") }
    }
}
