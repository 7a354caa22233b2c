//! The sets of announcements that the checks send, as messages of the protocol and as the trait takes them.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ferrocast_core::{
    announce::{self, AnnouncementState, Capabilities, Desired},
    model::ServiceKey,
};
use ferrocast_plugin_proto::v1alpha1::{self as proto, State};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Where the IPv4 addresses are from: set aside for tests of network devices. Source: RFC 2544, RFC 6890.
const RANGE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);
/// Where the IPv6 addresses are from: set aside for documentation. Source: RFC 3849.
const RANGE_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32);
/// Announcements in a chunk: with parameters of some hundred octets that are named once, it stays far below the 1 MiB allowed.
const CHUNK_ANNOUNCEMENTS_MAX: usize = 5_000;
/// The id of the list of terms that the announcements refer to.
const TERMS_ID: u32 = 1;
/// The Service that everything is announced for.
const SERVICE: (&str, &str) = ("conformance", "check");
/// The Advertisement that everything is announced by.
const ADVERTISEMENT: &str = "conformance";

/// Whether a prefix is one of those that the checks use. What else the network has is nobody's business here.
pub(crate) fn is_ours(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(prefix) => RANGE_V4.contains(prefix),
        IpNet::V6(prefix) => RANGE_V6.contains(prefix),
    }
}

/// The host route with this number, of a family that the plugin has; even numbers are IPv4 where it has both.
pub(crate) fn prefix(capabilities: &proto::Capabilities, number: u32) -> IpNet {
    if capabilities.ipv4 && (!capabilities.ipv6 || number.is_multiple_of(2)) {
        IpNet::from(IpAddr::V4(Ipv4Addr::from_bits(RANGE_V4.addr().to_bits() + 1 + number)))
    } else {
        IpNet::from(IpAddr::V6(Ipv6Addr::from_bits(RANGE_V6.addr().to_bits() + 1 + u128::from(number))))
    }
}

/// Announcements by prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    /// Whether each is active, draining or withdrawn.
    pub(crate) states: BTreeMap<IpNet, AnnouncementState>,
    /// What the terms say to the announcer alone.
    pub(crate) parameters: String,
}

impl Set {
    /// `numbers` of [`prefix`], all active.
    pub(crate) fn of(
        capabilities: &proto::Capabilities,
        numbers: impl IntoIterator<Item = u32>,
        parameters: &str,
    ) -> Self {
        let active = |number| (prefix(capabilities, number), AnnouncementState::Active);
        Self { states: numbers.into_iter().map(active).collect(), parameters: parameters.to_owned() }
    }

    /// The same without these.
    pub(crate) fn without(&self, prefixes: &[IpNet]) -> Self {
        let mut less = self.clone();
        less.states.retain(|prefix, _| !prefixes.contains(prefix));
        less
    }

    /// The same with one more, or one in another state.
    pub(crate) fn with(&self, prefix: IpNet, state: AnnouncementState) -> Self {
        let mut more = self.clone();
        more.states.insert(prefix, state);
        more
    }

    /// What the network has when it is true there: whether each prefix is draining.
    pub(crate) fn visible(&self) -> BTreeMap<IpNet, bool> {
        let seen = |(prefix, state): (&IpNet, &AnnouncementState)| match state {
            AnnouncementState::Active => Some((*prefix, false)),
            AnnouncementState::Draining => Some((*prefix, true)),
            AnnouncementState::Withdrawn => None,
        };
        self.states.iter().filter_map(seen).collect()
    }

    /// The chunks of an update from `base` to this; without one, of a snapshot.
    pub(crate) fn chunks(&self, base: Option<&Self>) -> Vec<proto::Chunk> {
        let same_terms = base.is_some_and(|base| base.parameters == self.parameters);
        let is_news = |prefix: &IpNet, state: &AnnouncementState| {
            !same_terms || base.and_then(|base| base.states.get(prefix)) != Some(state)
        };
        let news: Vec<proto::Announcement> = self
            .states
            .iter()
            .filter(|(prefix, state)| is_news(prefix, state))
            .map(|(prefix, state)| announcement(prefix, *state))
            .collect();
        let gone = base.into_iter().flat_map(|base| base.states.keys()).filter(|p| !self.states.contains_key(*p));
        let withdrawals = gone
            .map(|prefix| proto::Withdrawal {
                prefix: prefix.to_string(),
                reason: proto::WithdrawalReason::Gone.into(),
            })
            .collect();
        let terms = proto::TermsList {
            id: TERMS_ID,
            terms: vec![proto::Terms {
                advertisement: ADVERTISEMENT.into(),
                all_targets: true,
                parameters_json: self.parameters.clone(),
                ..proto::Terms::default()
            }],
        };
        let first = proto::Chunk { terms: vec![terms], announcements: vec![], withdrawals };
        let rest = news
            .chunks(CHUNK_ANNOUNCEMENTS_MAX)
            .map(|part| proto::Chunk { announcements: part.to_vec(), ..proto::Chunk::default() });
        std::iter::once(first).chain(rest).collect()
    }

    /// As the trait takes it.
    pub(crate) fn desired(
        &self,
        generation: u64,
        provisional: bool,
        configuration: Arc<announce::Configuration>,
    ) -> Desired {
        let terms: Arc<[announce::Terms]> = Arc::new([announce::Terms {
            advertisement: ADVERTISEMENT.into(),
            parameters: (!self.parameters.is_empty()).then(|| self.parameters.as_str().into()),
            ..announce::Terms::default()
        }]);
        let services = Arc::new(BTreeSet::from([ServiceKey::new(SERVICE.0, SERVICE.1)]));
        let announcement = |(prefix, state): (&IpNet, &AnnouncementState)| {
            let (terms, services) = (terms.clone(), services.clone());
            (*prefix, Arc::new(announce::Announcement { state: *state, terms, services, weight: None }))
        };
        let announcements = self.states.iter().map(announcement).collect();
        Desired { generation, provisional, announcements, configuration }
    }
}

fn announcement(prefix: &IpNet, state: AnnouncementState) -> proto::Announcement {
    let state = match state {
        AnnouncementState::Active => State::Active,
        AnnouncementState::Draining => State::Draining,
        AnnouncementState::Withdrawn => State::Withdrawn,
    };
    proto::Announcement {
        prefix: prefix.to_string(),
        state: state.into(),
        terms: TERMS_ID,
        services: vec![format!("{}/{}", SERVICE.0, SERVICE.1)],
        weight: 0,
        term: 0,
    }
}

/// The capabilities of an announcer as the protocol says them.
pub(crate) fn capabilities(of: &Capabilities) -> proto::Capabilities {
    let election = match of.election {
        announce::Election::None => proto::Election::None,
        announce::Election::PerAddress => proto::Election::PerAddress,
        announce::Election::PerCluster => proto::Election::PerCluster,
    };
    proto::Capabilities {
        ipv4: of.ipv4,
        ipv6: of.ipv6,
        aggregation: of.aggregation,
        attributes: of.attributes,
        weights: of.weights,
        drain: of.drain,
        election: election.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> proto::Capabilities {
        proto::Capabilities { ipv4: true, ipv6: true, ..proto::Capabilities::default() }
    }

    #[test]
    fn difference_names_what_is_new_changed_and_gone_and_nothing_else() {
        let old = Set::of(&both(), 0..4, "");
        let new = old
            .without(&[prefix(&both(), 0)])
            .with(prefix(&both(), 1), AnnouncementState::Draining)
            .with(prefix(&both(), 9), AnnouncementState::Active);
        let chunks = new.chunks(Some(&old));
        let sent: BTreeSet<&str> =
            chunks.iter().flat_map(|c| &c.announcements).map(|announcement| announcement.prefix.as_str()).collect();
        let gone: Vec<&str> = chunks.iter().flat_map(|c| &c.withdrawals).map(|w| w.prefix.as_str()).collect();
        assert_eq!(sent, BTreeSet::from(["2001:db8::2/128", "2001:db8::a/128"]));
        assert_eq!(gone, ["198.18.0.1/32"]);
    }

    #[test]
    fn chunk_of_many_announcements_stays_below_the_limit() {
        use prost::Message as _;
        for chunk in Set::of(&both(), 0..10_000, "{}").chunks(None) {
            assert!(chunk.encoded_len() <= ferrocast_plugin_proto::CHUNK_LEN_MAX);
        }
    }
}
