//! tshark finds no fault with what we write, and reads the same prefixes and communities.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::{collections::BTreeSet, net::IpAddr, path::Path};

use ferrocast_bgp_proto::wire::{NextHop, Notification, Open, RouteRefresh};
use ferrocast_oracles::{
    Meaning, Session,
    external::{Looking, installed, skip, tshark, write_pcap},
    meaning::ours,
    random::{Random, messages},
};
use ipnet::IpNet;

/// Messages of one run, with either length of AS numbers.
const CASES: usize = 3_000;
/// Where the random numbers start.
const SEED: u64 = 0x7544_0000_0000_0001;

/// Length and type that announce the extended format of an OPEN's parameters (RFC 9072): version 4.0 does not read it.
const EXTENDED_PARAMETERS: [u8; 2] = [255, 255];

/// What is asked of tshark for each packet, by position.
const FIELDS: [&str; 27] = [
    "bgp.type",
    "bgp.prefix_length",
    "bgp.nlri_prefix",
    "bgp.mp_reach_nlri_ipv4_prefix",
    "bgp.mp_reach_nlri_ipv6_prefix",
    "bgp.withdrawn_prefix",
    "bgp.mp_unreach_nlri_ipv4_prefix",
    "bgp.mp_unreach_nlri_ipv6_prefix",
    "bgp.update.path_attribute.as_path_segment.as4",
    "bgp.update.path_attribute.community_as",
    "bgp.update.path_attribute.community_value",
    "bgp.update.path_attribute.community_wellknown",
    "bgp.large_communities.ga",
    "bgp.large_communities.ldp1",
    "bgp.large_communities.ldp2",
    "bgp.update.path_attribute.next_hop",
    "bgp.update.path_attribute.mp_reach_nlri.next_hop.ipv6",
    "bgp.update.path_attribute.mp_reach_nlri.next_hop.ipv6.link_local",
    "bgp.update.path_attribute.multi_exit_disc",
    "bgp.update.path_attribute.local_pref",
    "bgp.open.myas",
    "bgp.open.holdtime",
    "bgp.open.identifier",
    "bgp.cap.type",
    "bgp.notify.major_error",
    "bgp.route_refresh.afi",
    "bgp.route_refresh.subtype",
];

/// Shows the packets that something is wrong with.
const FAULTS: [&str; 2] = ["-Y", "_ws.malformed || _ws.expert.severity >= \"Warning\""];

/// One packet's fields, each a list.
struct Row(Vec<Vec<String>>);

impl Row {
    fn read(line: &str) -> Self {
        Self(line.split('\t').map(|f| f.split(',').filter(|v| !v.is_empty()).map(str::to_owned).collect()).collect())
    }

    fn texts(&self, field: &str) -> Vec<String> {
        let position = FIELDS.iter().position(|f| *f == field).unwrap_or_else(|| panic!("{field} is not asked for"));
        self.0.get(position).cloned().unwrap_or_default()
    }

    fn numbers(&self, field: &str) -> Vec<u32> {
        let number = |text: &String| match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => text.parse().unwrap(),
        };
        self.texts(field).iter().map(number).collect()
    }

    /// The addresses of these fields with the packet's prefix lengths, which stand in the same order.
    fn prefixes(&self, fields: &[&str]) -> Vec<IpNet> {
        let lengths = self.numbers("bgp.prefix_length");
        let addresses: Vec<IpAddr> = fields.iter().flat_map(|f| self.texts(f)).map(|a| a.parse().unwrap()).collect();
        if addresses.is_empty() {
            return vec![];
        }
        assert_eq!(addresses.len(), lengths.len());
        addresses.into_iter().zip(lengths).map(|(a, l)| IpNet::new(a, u8::try_from(l).unwrap()).unwrap()).collect()
    }
}

fn check_update(row: &Row, update: &ferrocast_bgp_proto::tools::Update, as4: bool) {
    let reach = ["bgp.nlri_prefix", "bgp.mp_reach_nlri_ipv4_prefix", "bgp.mp_reach_nlri_ipv6_prefix"];
    let unreach = ["bgp.withdrawn_prefix", "bgp.mp_unreach_nlri_ipv4_prefix", "bgp.mp_unreach_nlri_ipv6_prefix"];
    assert_eq!(row.prefixes(&reach), update.reach);
    assert_eq!(row.prefixes(&unreach), update.withdrawn);
    let said = &update.attributes;
    // To an old peer the numbers of AS4_PATH, if it was needed.
    if as4 || said.as_path.iter().any(|asn| *asn > u16::MAX.into()) {
        assert_eq!(row.numbers("bgp.update.path_attribute.as_path_segment.as4"), said.as_path);
    }
    let high = row.numbers("bgp.update.path_attribute.community_as");
    let low = row.numbers("bgp.update.path_attribute.community_value");
    assert_eq!(high.len(), low.len());
    let mut communities: BTreeSet<u32> = high.iter().zip(low).map(|(high, low)| high << 16 | low).collect();
    communities.extend(row.numbers("bgp.update.path_attribute.community_wellknown"));
    assert_eq!(communities, said.communities.iter().copied().collect());
    let large = |part: &str| row.numbers(&format!("bgp.large_communities.{part}"));
    assert_eq!(large("ga"), said.large_communities.iter().map(|c| c.global).collect::<Vec<_>>());
    assert_eq!(large("ldp1"), said.large_communities.iter().map(|c| c.local1).collect::<Vec<_>>());
    assert_eq!(large("ldp2"), said.large_communities.iter().map(|c| c.local2).collect::<Vec<_>>());
    assert_eq!(row.numbers("bgp.update.path_attribute.multi_exit_disc"), Vec::from_iter(said.med));
    assert_eq!(row.numbers("bgp.update.path_attribute.local_pref"), Vec::from_iter(said.local_pref));
    let addresses = |field: &str| row.texts(field).iter().map(|a| a.parse().unwrap()).collect::<Vec<IpAddr>>();
    for next_hop in update.next_hops.into_iter().flatten() {
        match next_hop {
            NextHop::V4(ip) => assert_eq!(addresses("bgp.update.path_attribute.next_hop"), [IpAddr::V4(ip)]),
            NextHop::V6 { address, link_local } => {
                assert_eq!(addresses("bgp.update.path_attribute.mp_reach_nlri.next_hop.ipv6"), [IpAddr::V6(address)]);
                let links = addresses("bgp.update.path_attribute.mp_reach_nlri.next_hop.ipv6.link_local");
                assert_eq!(links, link_local.map(IpAddr::V6).into_iter().collect::<Vec<_>>());
            }
        }
    }
}

fn check(row: &Row, meaning: &Meaning, as4: bool) {
    let kind = match meaning {
        Meaning::Open(Open { as2, hold_time_s, id, capabilities }) => {
            assert_eq!(row.numbers("bgp.open.myas"), [u32::from(*as2)]);
            assert_eq!(row.numbers("bgp.open.holdtime"), [u32::from(*hold_time_s)]);
            assert_eq!(row.texts("bgp.open.identifier"), [id.to_string()]);
            let codes: Vec<_> = capabilities.iter().map(|c| u32::from(c.code())).collect();
            assert_eq!(row.numbers("bgp.cap.type"), codes);
            1
        }
        Meaning::Update(update) => {
            check_update(row, update, as4);
            2
        }
        Meaning::Notification(Notification { code, .. }) => {
            assert_eq!(row.numbers("bgp.notify.major_error"), [u32::from(*code)]);
            3
        }
        Meaning::Keepalive => 4,
        Meaning::RouteRefresh(RouteRefresh { afi, subtype, .. }) => {
            assert_eq!(row.numbers("bgp.route_refresh.afi"), [u32::from(*afi)]);
            assert_eq!(row.numbers("bgp.route_refresh.subtype"), [u32::from(*subtype)]);
            5
        }
    };
    assert_eq!(row.numbers("bgp.type"), [kind]);
}

fn run(program: &Path, as4: bool) {
    let folder = tempfile::tempdir().unwrap();
    let pcap = folder.path().join("messages.pcap");
    let mut random = Random::new(SEED);
    let mut sent = vec![];
    while sent.len() < CASES {
        let (session, messages) = messages(&mut random);
        if session.as4 == as4 {
            sent.extend(
                messages
                    .into_iter()
                    .filter(|octets| octets[18] != 1 || !octets[28..].starts_with(&EXTENDED_PARAMETERS)),
            );
        }
    }
    write_pcap(&pcap, &sent).unwrap();
    let faults = tshark(program, &pcap, as4, &FAULTS).unwrap();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults[..faults.len().min(10)].join("\n"));
    let mut arguments = vec!["-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"];
    for field in FIELDS {
        arguments.extend(["-e", field]);
    }
    let rows = tshark(program, &pcap, as4, &arguments).unwrap();
    assert_eq!(rows.len(), sent.len());
    for (line, octets) in rows.iter().zip(&sent) {
        let meaning = ours(octets, Session { as4 }).unwrap();
        let _looking = Looking(format!("{meaning:?}\n{line}"));
        check(&Row::read(line), &meaning, as4);
    }
}

#[test]
fn tshark_reads_the_same() {
    let Some(program) = installed("tshark") else { return skip("tshark_reads_the_same", "tshark") };
    for as4 in [true, false] {
        run(&program, as4);
    }
}

#[test]
fn tshark_notices_what_is_broken() {
    let Some(program) = installed("tshark") else { return skip("tshark_notices_what_is_broken", "tshark") };
    let folder = tempfile::tempdir().unwrap();
    let pcap = folder.path().join("broken.pcap");
    // a prefix of 33 bits, and an attribute that is longer than all of them
    let header = |len: u8| [&[0xff; 16][..], &[0, len, 2]].concat();
    let prefix = [header(29), vec![0, 6, 33, 1, 2, 3, 4, 5, 0, 0]].concat();
    let attribute = [header(27), vec![0, 0, 0, 4, 0x40, 1, 9, 0]].concat();
    write_pcap(&pcap, &[prefix, attribute]).unwrap();
    assert_eq!(tshark(&program, &pcap, true, &FAULTS).unwrap().len(), 2);
}
