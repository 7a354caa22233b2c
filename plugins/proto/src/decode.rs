//! From the messages of an update to a [`Desired`].
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::Arc,
};

use ferrocast_core::{
    announce::{
        Announcement, AnnouncementState, Capabilities, Community, Configuration, Desired, Election, Entry, Terms,
    },
    model::ServiceKey,
};
use imbl::OrdMap;
use ipnet::IpNet;

use crate::v1alpha1 as wire;

/// Why an update cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// The base is not there, or the count differs: a snapshot helps ([`NeedSnapshot`](wire::NeedSnapshot)).
    #[error("{0}")]
    NeedSnapshot(String),
    /// The other side does not keep to the protocol: the call ends.
    #[error("{0}")]
    Violation(String),
}

/// Whoever takes updates: at most one is open at a time.
#[derive(Debug, Default)]
pub struct Updates {
    open: Option<Open>,
    /// Lists of terms in use, so that announcements with equal terms share them, whichever update brought them.
    lists: BTreeSet<Arc<[Terms]>>,
    /// When to look for lists that are in use no more.
    lists_len_max: usize,
}

/// Lists of terms below which nobody looks for those that are not used any more.
const LISTS_LEN_MIN: usize = 64;

#[derive(Debug)]
struct Open {
    version: wire::Version,
    difference: bool,
    set: Desired,
    terms: HashMap<u32, Arc<[Terms]>>,
    /// Why the update is not taken; its end is waited for before that is said.
    need_snapshot: Option<String>,
}

impl Updates {
    /// Begins an update on top of what was accepted last.
    ///
    /// # Errors
    /// [`UpdateError::Violation`]; that the base is missing is only said by [`Updates::end`].
    pub fn begin(
        &mut self,
        begin: wire::Begin,
        epoch: u64,
        accepted: Option<(wire::Version, &Desired)>,
    ) -> Result<(), UpdateError> {
        if self.open.is_some() {
            return violation("a begin before the end of the last update");
        }
        let Some(version) = begin.version.filter(|version| version.epoch == epoch && version.generation > 0) else {
            return violation("a begin whose version is not of the epoch of the hello, or zero");
        };
        let (mut set, mut need_snapshot) = (Desired::default(), None);
        if let Some(base) = begin.base {
            match accepted {
                Some((has, accepted)) if has == base => set = accepted.clone(),
                Some((has, _)) => need_snapshot = Some(format!("the base is {}, not {}", words(has), words(base))),
                None => need_snapshot = Some(format!("there is no {}", words(base))),
            }
        }
        if let Some(read) = begin.configuration {
            set.configuration = Arc::new(configuration(read));
        }
        set.generation = version.generation;
        set.provisional = begin.provisional;
        let difference = begin.base.is_some();
        self.open = Some(Open { version, difference, set, terms: HashMap::new(), need_snapshot });
        Ok(())
    }

    /// Takes a part of the update.
    ///
    /// # Errors
    /// [`UpdateError::Violation`].
    pub fn chunk(&mut self, chunk: wire::Chunk) -> Result<(), UpdateError> {
        let Some(open) = &mut self.open else { return violation("a chunk without a begin") };
        for list in chunk.terms {
            let terms: Arc<[Terms]> = list.terms.into_iter().map(terms).collect::<Result<_, _>>()?;
            let terms = match self.lists.get(&terms) {
                Some(known) => known.clone(),
                None => {
                    self.lists.insert(terms.clone());
                    terms
                }
            };
            if open.terms.insert(list.id, terms).is_some() {
                return violation("two lists of terms with the same id");
            }
        }
        for message in chunk.announcements {
            let prefix = prefix(&message.prefix)?;
            let announcement = Arc::new(announcement(message, &open.terms)?);
            open.set.announcements.insert(prefix, announcement);
        }
        if !chunk.withdrawals.is_empty() && !open.difference {
            return violation("a withdrawal in a snapshot");
        }
        for withdrawal in chunk.withdrawals {
            let prefix = prefix(&withdrawal.prefix)?;
            if open.set.announcements.remove(&prefix).is_none() && open.need_snapshot.is_none() {
                open.need_snapshot = Some(format!("{prefix} is withdrawn, but is not there"));
            }
        }
        Ok(())
    }

    /// Ends the update: the set as it is after it.
    ///
    /// # Errors
    /// Either; in any case the update is over, and changes nothing.
    pub fn end(&mut self, end: wire::End) -> Result<(wire::Version, Desired), UpdateError> {
        let Some(open) = self.open.take() else { return violation("an end without a begin") };
        self.forget_lists();
        if end.version != Some(open.version) {
            return violation("an end of another version than the begin's");
        }
        if let Some(reason) = open.need_snapshot {
            return Err(UpdateError::NeedSnapshot(reason));
        }
        let (has, should) = (open.set.announcements.len() as u64, end.announcements);
        if has != should {
            return Err(UpdateError::NeedSnapshot(format!("{should} announcements should be there, and {has} are")));
        }
        Ok((open.version, open.set))
    }

    /// Forgets an update that is not complete.
    pub fn abort(&mut self) {
        self.open = None;
    }

    /// The version of the update that is open.
    #[must_use]
    pub fn open(&self) -> Option<wire::Version> {
        self.open.as_ref().map(|open| open.version)
    }

    fn forget_lists(&mut self) {
        if self.lists.len() > self.lists_len_max.max(LISTS_LEN_MIN) {
            self.lists.retain(|list| Arc::strong_count(list) > 1);
            self.lists_len_max = self.lists.len() * 2;
        }
    }
}

fn violation<T>(words: &str) -> Result<T, UpdateError> {
    Err(UpdateError::Violation(words.to_owned()))
}

/// A version, for people.
#[must_use]
pub fn words(version: wire::Version) -> String {
    format!("generation {} of epoch {:016x}", version.generation, version.epoch)
}

/// A prefix as the protocol writes it.
///
/// # Errors
/// [`UpdateError::Violation`]: it is none, or has bits behind its length.
pub fn prefix(text: &str) -> Result<IpNet, UpdateError> {
    let bad = || UpdateError::Violation(format!("{:?} is not a prefix", crate::text::cut(text.to_owned(), 64)));
    text.parse().ok().filter(|net: &IpNet| net.trunc() == *net).ok_or_else(bad)
}

fn announcement(message: wire::Announcement, lists: &HashMap<u32, Arc<[Terms]>>) -> Result<Announcement, UpdateError> {
    let state = match message.state() {
        wire::State::Unspecified => return violation("an announcement without a state"),
        wire::State::Active => AnnouncementState::Active,
        wire::State::Draining => AnnouncementState::Draining,
        wire::State::Withdrawn => AnnouncementState::Withdrawn,
    };
    let Some(terms) = lists.get(&message.terms) else {
        return violation("an announcement with terms that were not named");
    };
    let services: BTreeSet<ServiceKey> =
        message.services.iter().map(|key| key.parse().map_err(UpdateError::Violation)).collect::<Result<_, _>>()?;
    if services.is_empty() {
        return violation("an announcement for no Service");
    }
    let weight = NonZeroU32::new(message.weight);
    Ok(Announcement { state, terms: terms.clone(), services: Arc::new(services), weight })
}

fn terms(terms: wire::Terms) -> Result<Terms, UpdateError> {
    let targets = || terms.targets.iter().map(|target| Arc::from(target.as_str())).collect();
    Ok(Terms {
        advertisement: terms.advertisement.into(),
        targets: (!terms.all_targets).then(targets),
        local_pref: terms.local_pref,
        communities: terms.communities.iter().map(|text| community(text)).collect::<Result<_, _>>()?,
        parameters: (!terms.parameters_json.is_empty()).then(|| terms.parameters_json.into()),
    })
}

fn community(text: &str) -> Result<Community, UpdateError> {
    let read = || match text.strip_prefix("large:") {
        None => {
            let (a, b) = text.split_once(':')?;
            Some(Community::Standard(a.parse().ok()?, b.parse().ok()?))
        }
        Some(parts) => {
            let (a, parts) = parts.split_once(':')?;
            let (b, c) = parts.split_once(':')?;
            Some(Community::Large(a.parse().ok()?, b.parse().ok()?, c.parse().ok()?))
        }
    };
    let bad = || UpdateError::Violation(format!("{:?} is not a community", crate::text::cut(text.to_owned(), 64)));
    read().ok_or_else(bad)
}

fn configuration(read: wire::Configuration) -> Configuration {
    let entry = |entry: wire::ConfigurationEntry| Entry { value: entry.json.into(), secret: entry.secret };
    let entries: BTreeMap<Arc<str>, Entry> =
        read.entries.into_iter().map(|(name, value)| (name.into(), entry(value))).collect();
    Configuration { generation: read.generation, entries }
}

impl From<wire::Capabilities> for Capabilities {
    /// An election that is not known is one of the kinds that are not served.
    fn from(from: wire::Capabilities) -> Self {
        let election = match wire::Election::try_from(from.election) {
            Ok(wire::Election::None) => Election::None,
            Ok(wire::Election::PerAddress) => Election::PerAddress,
            Ok(wire::Election::PerCluster) | Err(_) => Election::PerCluster,
        };
        Self {
            ipv4: from.ipv4,
            ipv6: from.ipv6,
            aggregation: from.aggregation,
            attributes: from.attributes,
            weights: from.weights,
            drain: from.drain,
            election,
        }
    }
}

/// An empty set with what is not about prefixes in `set`: what is applied when everything is to go.
#[must_use]
pub fn emptied(set: &Desired, generation: u64) -> Desired {
    Desired { generation, provisional: false, announcements: OrdMap::new(), configuration: set.configuration.clone() }
}
