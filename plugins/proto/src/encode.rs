//! From a [`Desired`] to the messages of an update.
use std::{collections::HashMap, ops::Bound, sync::Arc};

use ferrocast_core::announce::{
    Announcement, AnnouncementState, Capabilities, Community, Configuration, Desired, Election, Entry, Terms,
};
use imbl::{OrdMap, ordmap::DiffItem};
use ipnet::IpNet;
use prost::Message as _;

use crate::v1alpha1 as wire;

/// Where a chunk is ended, octets: far below [`CHUNK_LEN_MAX`](crate::CHUNK_LEN_MAX), since what is in flight is held in memory by
/// both sides, and large enough for the messages' own cost not to count.
const CHUNK_LEN_GOAL: usize = 64 * 1024;
/// Longest announcement that an update can carry, with its terms, octets: with another that is not full yet it still fits a
/// chunk.
pub const ANNOUNCEMENT_LEN_MAX: usize = crate::CHUNK_LEN_MAX - 2 * CHUNK_LEN_GOAL;
/// Longest configuration that an update can carry, names and values, octets: it travels in one message, with room for the rest.
pub const CONFIGURATION_LEN_MAX: usize = crate::MESSAGE_LEN_MAX - 64 * 1024;
/// What a field costs at most besides its text: its number and its length, octets.
const FIELD_LEN: usize = 8;

/// The messages of one update, made one after the other as they are asked for: a set of any size costs the memory of a chunk.
///
/// Terms are sent once per update and list (lists are told apart by their pointers).
#[derive(Debug)]
pub struct Update {
    begin: Option<wire::Begin>,
    end: Option<wire::End>,
    changes: Changes,
    /// By address; the list is held, so that no other gets the same.
    terms: HashMap<usize, (u32, Arc<[Terms]>)>,
}

#[derive(Debug)]
enum Changes {
    /// Everything behind the key.
    All(OrdMap<IpNet, Arc<Announcement>>, Option<IpNet>),
    /// What is new, changed (`Some`) or gone, from the end.
    Some(Vec<(IpNet, Option<Arc<Announcement>>)>),
}

impl Update {
    /// The whole set.
    #[must_use]
    pub fn snapshot(version: wire::Version, set: &Desired) -> Self {
        let configuration = Some(configuration(&set.configuration));
        Self::new(version, None, set, configuration, Changes::All(set.announcements.clone(), None))
    }

    /// What leads from `base` to `set`. Costs what has changed, where the two share structure.
    #[must_use]
    pub fn difference(base_version: wire::Version, base: &Desired, version: wire::Version, set: &Desired) -> Self {
        let mut changes: Vec<_> = (base.announcements.diff(&set.announcements))
            .map(|item| match item {
                DiffItem::Add(prefix, announcement) | DiffItem::Update { new: (prefix, announcement), .. } => {
                    (*prefix, Some(announcement.clone()))
                }
                DiffItem::Remove(prefix, _) => (*prefix, None),
            })
            .collect();
        changes.reverse();
        let same = Arc::ptr_eq(&base.configuration, &set.configuration) || base.configuration == set.configuration;
        let configuration = (!same).then(|| configuration(&set.configuration));
        Self::new(version, Some(base_version), set, configuration, Changes::Some(changes))
    }

    fn new(
        version: wire::Version,
        base: Option<wire::Version>,
        set: &Desired,
        configuration: Option<wire::Configuration>,
        changes: Changes,
    ) -> Self {
        let begin = wire::Begin { version: Some(version), base, provisional: set.provisional, configuration };
        let end = wire::End { version: Some(version), announcements: set.announcements.len() as u64 };
        Self { begin: Some(begin), end: Some(end), changes, terms: HashMap::new() }
    }

    fn chunk(&mut self) -> Option<wire::Chunk> {
        let (mut chunk, mut len) = (wire::Chunk::default(), 0);
        while len < CHUNK_LEN_GOAL {
            let Some((prefix, change)) = self.changes.next() else { break };
            match change {
                Some(announcement) => len += self.announce(prefix, &announcement, &mut chunk),
                None => {
                    let reason = wire::WithdrawalReason::Gone.into();
                    let withdrawal = wire::Withdrawal { prefix: prefix.to_string(), reason };
                    len += withdrawal.encoded_len() + FIELD_LEN;
                    chunk.withdrawals.push(withdrawal);
                }
            }
        }
        (len > 0).then_some(chunk)
    }

    /// Adds to the chunk; its length, octets.
    fn announce(&mut self, prefix: IpNet, announcement: &Announcement, chunk: &mut wire::Chunk) -> usize {
        let (next, mut len) = (self.terms.len(), 0);
        let (id, _) = self.terms.entry(announcement.terms.as_ptr().addr()).or_insert_with(|| {
            let id = u32::try_from(next).expect("a node has fewer prefixes");
            let list = wire::TermsList { id, terms: announcement.terms.iter().map(terms).collect() };
            len = list.encoded_len() + FIELD_LEN;
            chunk.terms.push(list);
            (id, announcement.terms.clone())
        });
        let message = wire::Announcement {
            prefix: prefix.to_string(),
            state: state(announcement.state).into(),
            terms: *id,
            services: announcement.services.iter().map(|service| service.as_str().to_owned()).collect(),
            weight: announcement.weight.map_or(0, Into::into),
            term: 0,
        };
        len += message.encoded_len() + FIELD_LEN;
        chunk.announcements.push(message);
        len
    }
}

impl Iterator for Update {
    type Item = wire::host_message::Message;

    fn next(&mut self) -> Option<Self::Item> {
        use wire::host_message::Message as M;
        if let Some(begin) = self.begin.take() {
            return Some(M::Begin(begin));
        }
        if let Some(chunk) = self.chunk() {
            return Some(M::Chunk(chunk));
        }
        self.end.take().map(M::End)
    }
}

impl Iterator for Changes {
    type Item = (IpNet, Option<Arc<Announcement>>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Some(changes) => changes.pop(),
            Self::All(set, last) => {
                let from = last.map_or(Bound::Unbounded, Bound::Excluded);
                let (prefix, announcement) = set.range((from, Bound::Unbounded)).next()?;
                *last = Some(*prefix);
                Some((*prefix, Some(announcement.clone())))
            }
        }
    }
}

/// Can an update carry this announcement?
#[must_use]
pub fn fits(announcement: &Announcement) -> bool {
    let services: usize = announcement.services.iter().map(|service| service.as_str().len() + FIELD_LEN).sum();
    let terms: usize = announcement.terms.iter().map(terms_len_max).sum();
    services + terms <= ANNOUNCEMENT_LEN_MAX
}

fn terms_len_max(terms: &Terms) -> usize {
    /// A community as text with its field, and a preference: `large:` and three numbers of ten digits.
    const COMMUNITY_LEN_MAX: usize = 48;
    let targets = terms.targets.iter().flatten().map(|target| target.len() + FIELD_LEN).sum::<usize>();
    let parameters = terms.parameters.as_ref().map_or(0, |parameters| parameters.len());
    terms.advertisement.len() + targets + parameters + COMMUNITY_LEN_MAX * (terms.communities.len() + 1)
}

/// Can an update carry this configuration?
#[must_use]
pub fn configuration_fits(configuration: &Configuration) -> bool {
    let lens = configuration.entries.iter().map(|(name, entry)| name.len() + entry.value.len() + 4 * FIELD_LEN);
    lens.sum::<usize>() <= CONFIGURATION_LEN_MAX
}

fn configuration(configuration: &Configuration) -> wire::Configuration {
    let entry = |entry: &Entry| wire::ConfigurationEntry { json: entry.value.to_string(), secret: entry.secret };
    wire::Configuration {
        generation: configuration.generation,
        entries: configuration.entries.iter().map(|(name, value)| (name.to_string(), entry(value))).collect(),
    }
}

fn terms(terms: &Terms) -> wire::Terms {
    wire::Terms {
        advertisement: terms.advertisement.to_string(),
        targets: terms.targets.iter().flatten().map(|target| target.to_string()).collect(),
        all_targets: terms.targets.is_none(),
        local_pref: terms.local_pref,
        communities: terms.communities.iter().map(community).collect(),
        parameters_json: terms.parameters.as_ref().map(|parameters| parameters.to_string()).unwrap_or_default(),
    }
}

fn community(community: &Community) -> String {
    match community {
        Community::Standard(a, b) => format!("{a}:{b}"),
        Community::Large(a, b, c) => format!("large:{a}:{b}:{c}"),
    }
}

fn state(state: AnnouncementState) -> wire::State {
    match state {
        AnnouncementState::Active => wire::State::Active,
        AnnouncementState::Draining => wire::State::Draining,
        AnnouncementState::Withdrawn => wire::State::Withdrawn,
    }
}

impl From<Capabilities> for wire::Capabilities {
    fn from(from: Capabilities) -> Self {
        let election = match from.election {
            Election::None => wire::Election::None,
            Election::PerAddress => wire::Election::PerAddress,
            Election::PerCluster => wire::Election::PerCluster,
        };
        Self {
            ipv4: from.ipv4,
            ipv6: from.ipv6,
            aggregation: from.aggregation,
            attributes: from.attributes,
            weights: from.weights,
            drain: from.drain,
            election: election.into(),
        }
    }
}
