//! Both directions against each other, and the octets on the wire.
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::Arc,
};

use ferrocast_core::{
    announce::{
        Announcement, AnnouncementState, Community, Configuration, Desired, Entry, Observed, TargetObserved, Terms,
    },
    model::ServiceKey,
};
use proptest::{collection, prelude::*};
use prost::Message as _;

use crate::{
    CHUNK_LEN_MAX, Update, UpdateError, Updates, status,
    v1alpha1::{self as wire, Version, host_message::Message as Host, plugin_message::Message as Plugin},
};

const EPOCH: u64 = 9;

fn version(generation: u64) -> Version {
    Version { epoch: EPOCH, generation }
}

fn any_terms() -> impl Strategy<Value = Terms> {
    let targets = prop::option::of(collection::btree_set("[a-c]".prop_map(Arc::from), 0..3));
    let community = prop_oneof![
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Community::Standard(a, b)),
        (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(a, b, c)| Community::Large(a, b, c)),
    ];
    let parameters = prop::option::of(Just(Arc::from("{\"area\":1}")));
    ("[a-d]", targets, any::<Option<u32>>(), collection::btree_set(community, 0..3), parameters).prop_map(
        |(name, targets, local_pref, communities, parameters)| Terms {
            advertisement: name.into(),
            targets,
            local_pref,
            communities,
            parameters,
        },
    )
}

fn any_announcement() -> impl Strategy<Value = Arc<Announcement>> {
    let state = prop::sample::select(vec![
        AnnouncementState::Active,
        AnnouncementState::Draining,
        AnnouncementState::Withdrawn,
    ]);
    let services = collection::btree_set("[a-c]".prop_map(|name| ServiceKey::new("ns", &name)), 1..3);
    (state, collection::vec(any_terms(), 0..3), services, any::<u8>()).prop_map(|(state, terms, services, weight)| {
        let weight = NonZeroU32::new(weight.into());
        Arc::new(Announcement { state, terms: terms.into(), services: Arc::new(services), weight })
    })
}

fn any_set() -> impl Strategy<Value = Desired> {
    let announcements = collection::btree_map(0_u8..24, any_announcement(), 0..12);
    (announcements, any::<bool>(), 0_u64..3).prop_map(|(announcements, provisional, configured)| {
        let prefix = |n: u8| -> ipnet::IpNet {
            match n % 2 {
                0 => format!("192.0.2.{n}/32").parse().unwrap(),
                _ => format!("2001:db8:{n}::/64").parse().unwrap(),
            }
        };
        let entry = Entry { value: configured.to_string().into(), secret: configured == 1 };
        let configuration = Configuration { generation: configured, entries: [("a".into(), entry)].into() };
        let announcements = announcements.into_iter().map(|(n, announcement)| (prefix(n), announcement)).collect();
        Desired { generation: 0, provisional, announcements, configuration: Arc::new(configuration) }
    })
}

fn take(
    updates: &mut Updates,
    update: Update,
    has: Option<(Version, &Desired)>,
) -> Result<(Version, Desired), UpdateError> {
    for message in update {
        match message {
            Host::Begin(begin) => updates.begin(begin, EPOCH, has)?,
            Host::Chunk(chunk) => {
                assert!(chunk.encoded_len() <= CHUNK_LEN_MAX);
                updates.chunk(chunk)?;
            }
            Host::End(end) => return updates.end(end),
            other => panic!("{other:?} is no part of an update"),
        }
    }
    panic!("an update without an end")
}

proptest! {
    #[test]
    fn any_history_of_sets_arrives_as_it_was_sent(history in collection::vec((any_set(), any::<bool>()), 1..6)) {
        let mut updates = Updates::default();
        let mut sent: Option<Desired> = None;
        let mut has: Option<(Version, Desired)> = None;
        for (at, (set, snapshot)) in history.into_iter().enumerate() {
            let set = Desired { generation: at as u64 + 1, ..set };
            let update = match &sent {
                Some(base) if !snapshot => {
                    Update::difference(version(base.generation), base, version(set.generation), &set)
                }
                _ => Update::snapshot(version(set.generation), &set),
            };
            let taken = take(&mut updates, update, has.as_ref().map(|(version, set)| (*version, set))).unwrap();
            prop_assert_eq!(&taken.1, &set);
            (sent, has) = (Some(set), Some(taken));
        }
    }

    #[test]
    fn octets_of_anybody_are_read_without_panic(octets in collection::vec(any::<u8>(), 0..256)) {
        drop(status::read_message(&octets));
        let mut tagged = vec![0x2a, u8::try_from(octets.len().min(100)).unwrap()];
        tagged.extend(octets);
        drop(status::read_message(&tagged));
    }
}

fn one(prefix: &str) -> Desired {
    let services = Arc::new(BTreeSet::from([ServiceKey::new("ns", "svc")]));
    let terms: Arc<[Terms]> = [Terms { advertisement: "adv".into(), ..Terms::default() }].into();
    let announcement = Announcement { state: AnnouncementState::Active, terms, services, weight: None };
    let announcements = [(prefix.parse::<ipnet::IpNet>().unwrap(), Arc::new(announcement))].into_iter().collect();
    Desired { generation: 1, announcements, ..Desired::default() }
}

#[test]
fn base_that_is_missing_or_another_is_answered_with_need_snapshot() {
    let (first, second) = (one("192.0.2.1/32"), Desired { generation: 2, ..one("192.0.2.2/32") });
    for has in [None, Some((Version { epoch: 8, generation: 1 }, &first)), Some((version(7), &first))] {
        let update = Update::difference(version(1), &first, version(2), &second);
        let refused = take(&mut Updates::default(), update, has).unwrap_err();
        assert!(matches!(refused, UpdateError::NeedSnapshot(_)), "{refused:?}");
    }
    let empty = Desired::default();
    let update = Update::difference(version(1), &first, version(2), &second);
    let refused = take(&mut Updates::default(), update, Some((version(1), &empty))).unwrap_err();
    assert!(matches!(refused, UpdateError::NeedSnapshot(_)), "what is withdrawn was not there: {refused:?}");
}

#[test]
fn announcements_with_equal_terms_share_them_whichever_update_brought_them() {
    let (first, mut second) = (one("192.0.2.1/32"), one("192.0.2.2/32"));
    second.announcements = second.announcements.union(first.announcements.clone());
    let mut updates = Updates::default();
    let first_has = take(&mut updates, Update::snapshot(version(1), &first), None).unwrap();
    let update = Update::difference(version(1), &first, version(2), &second);
    let (_, set) = take(&mut updates, update, Some((version(1), &first_has.1))).unwrap();
    let lists: Vec<_> = set.announcements.values().map(|announcement| announcement.terms.clone()).collect();
    assert!(Arc::ptr_eq(&lists[0], &lists[1]));
}

#[test]
fn status_with_millions_of_empty_targets_is_read_only_as_far_as_it_may_go() {
    let targets = [0x0a, 0x00].repeat(1_000_000);
    let mut octets = vec![0x2a];
    prost::encoding::encode_varint(targets.len() as u64, &mut octets);
    octets.extend(targets);
    let (message, dropped) = status::read_message(&octets).unwrap();
    let Some(Plugin::Status(status)) = message.message else { panic!("not a status") };
    assert_eq!(status.targets.len(), crate::TARGETS_MAX);
    assert_eq!(dropped.targets, 1_000_000 - crate::TARGETS_MAX as u64);
}

#[test]
fn status_arrives_as_it_was_told_and_lies_are_named() {
    let set = one("192.0.2.1/32");
    let refused = BTreeMap::from([("192.0.2.1/32".parse().unwrap(), "no room".into())]);
    let target = TargetObserved { up: true, generation: 4, announced: 3, refused, reason: "fine".to_owned() };
    let targets = BTreeMap::from([("t".into(), target.clone())]);
    let observed = Observed { accepted: 4, problem: "slow".to_owned(), targets };
    let status = status::status(&observed, |generation| (generation == 4).then(|| version(1)));
    let told = status::told(&status, EPOCH, 1, &set.announcements).unwrap();
    assert_eq!(told.targets["t"], TargetObserved { generation: 1, ..target });
    assert_eq!((told.problem.as_str(), told.dropped), ("slow", status::Dropped::default()));
    let stranger = status::told(&status, EPOCH, 1, &Desired::default().announcements).unwrap();
    assert_eq!((stranger.targets["t"].refused.len(), stranger.dropped.failures), (0, 1));
    assert_eq!(status::told(&status, 3, 0, &set.announcements).unwrap().targets["t"].generation, 0, "another epoch");
    assert!(status::told(&status, EPOCH, 0, &set.announcements).unwrap_err().contains("reached generation 1"));
}

fn hex(message: &impl prost::Message) -> String {
    message.encode_to_vec().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Who must change one of these lines has broken the plugins of others: a new number of the protocol is needed.
#[test]
fn field_numbers_stay_as_they_are() {
    let set = one("192.0.2.1/32");
    let host: Vec<String> =
        Update::snapshot(version(1), &set).map(|message| hex(&wire::HostMessage { message: Some(message) })).collect();
    let expected = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden.txt")).unwrap();
    let mut found = host;
    let status = status::status(&Observed::default(), |_| None);
    let capabilities = wire::Capabilities {
        ipv4: true,
        ipv6: true,
        aggregation: true,
        attributes: true,
        weights: true,
        drain: true,
        election: 1,
    };
    let hello = wire::PluginHello {
        protocol: 1,
        protocol_min: 2,
        protocol_max: 3,
        name: "n".to_owned(),
        plugin_version: "v".to_owned(),
        capabilities: Some(capabilities),
        orphan_hold_s: 4,
        accepted: Some(version(5)),
    };
    let failure = wire::Failure { prefix: "p".to_owned(), reason: "r".to_owned() };
    let target = wire::TargetStatus {
        name: "t".to_owned(),
        up: true,
        reached: Some(version(1)),
        announced: 2,
        failures: vec![failure],
        failures_total: 3,
        reason: "r".to_owned(),
    };
    let (prefix, reason) = ("p".to_owned(), "r".to_owned());
    for message in [
        Plugin::Hello(hello),
        Plugin::Accepted(wire::Accepted { version: Some(version(1)) }),
        Plugin::NeedSnapshot(wire::NeedSnapshot { version: Some(version(1)), reason: reason.clone() }),
        Plugin::Rejected(wire::Rejected { version: Some(version(1)), prefix, reason }),
        Plugin::Status(wire::Status { targets: vec![target], problem: "p".to_owned() }),
        Plugin::Status(status),
        Plugin::Goodbye(wire::Goodbye {}),
    ] {
        found.push(hex(&wire::PluginMessage { message: Some(message) }));
    }
    let hello = wire::HostHello {
        protocol_min: 1,
        protocol_max: 2,
        node_name: "n".to_owned(),
        host_version: "v".to_owned(),
        epoch: 3,
        orphan_hold_s: 4,
    };
    for message in [Host::Hello(hello), Host::Shutdown(wire::Shutdown { how: 2, deadline_ms: 5 })] {
        found.push(hex(&wire::HostMessage { message: Some(message) }));
    }
    assert_eq!(found, expected.lines().collect::<Vec<_>>());
}
