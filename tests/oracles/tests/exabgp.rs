//! ExaBGP reads the UPDATEs that we write, and means the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeSet;

use ferrocast_bgp_proto::{Family, tools::Update, wire::Origin};
use ferrocast_oracles::{
    Meaning,
    external::{Looking, exabgp, installed, skip},
    meaning::ours,
    random::{Random, messages},
};
use serde_json::Value;

/// UPDATEs of one run: each is one start of Python.
const CASES: usize = 60;
/// Where the random numbers start.
const SEED: u64 = 0xe8a6_0000_0000_0001;

/// Prefixes below `all` (an array of objects with `nlri`).
fn prefixes(all: &Value) -> Vec<String> {
    all.as_array().into_iter().flatten().filter_map(|p| p["nlri"].as_str()).map(str::to_owned).collect()
}

fn numbers(all: &Value) -> Vec<u64> {
    all.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

/// Rows of numbers, as communities are.
fn rows(all: &Value) -> BTreeSet<Vec<u64>> {
    all.as_array().into_iter().flatten().map(numbers).collect()
}

fn check(update: &Update, message: &Value) {
    if let Some(family) = update.end_of_rib {
        let afi = if family == Family::Ipv4Unicast { "ipv4" } else { "ipv6" };
        assert_eq!(message["eor"]["afi"], afi);
        return;
    }
    let said = &message["update"];
    let (mut reach, mut withdrawn, mut next_hops) = (vec![], vec![], BTreeSet::new());
    for family in ["ipv4 unicast", "ipv6 unicast"] {
        withdrawn.extend(prefixes(&said["withdraw"][family]));
        for (next_hop, all) in said["announce"][family].as_object().into_iter().flatten() {
            next_hops.insert(next_hop.clone());
            reach.extend(prefixes(all));
        }
    }
    let text = |all: &[ipnet::IpNet]| all.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(reach.into_iter().collect::<BTreeSet<_>>(), text(&update.reach));
    assert_eq!(withdrawn.into_iter().collect::<BTreeSet<_>>(), text(&update.withdrawn));
    let Some(first) = update.reach.first() else { return };
    assert!(next_hops.contains(&update.next_hop(first).unwrap().to_string()), "{next_hops:?}");
    let (got, want) = (&said["attribute"], &update.attributes);
    let origin = match want.origin {
        Origin::Igp => "igp",
        Origin::Egp => "egp",
        Origin::Incomplete => "incomplete",
    };
    assert_eq!(got["origin"], origin);
    assert_eq!(numbers(&got["as-path"]), want.as_path.iter().map(|asn| u64::from(*asn)).collect::<Vec<_>>());
    assert_eq!(got["med"].as_u64(), want.med.map(u64::from));
    assert_eq!(got["local-preference"].as_u64(), want.local_pref.map(u64::from));
    let halves = |c: &u32| vec![u64::from(*c >> 16), u64::from(*c & 0xffff)];
    assert_eq!(rows(&got["community"]), want.communities.iter().map(halves).collect());
    let large = want.large_communities.iter().map(|c| [c.global, c.local1, c.local2].map(u64::from).to_vec());
    assert_eq!(rows(&got["large-community"]), large.collect());
    let extended: BTreeSet<_> =
        got["extended-community"].as_array().into_iter().flatten().filter_map(|c| c["value"].as_u64()).collect();
    assert_eq!(extended, want.extended_communities.iter().map(|c| u64::from_be_bytes(c.0)).collect());
}

#[test]
fn exabgp_means_the_same() {
    let Some(program) = installed("exabgp") else { return skip("exabgp_means_the_same", "exabgp") };
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::new(SEED);
    let mut done = 0;
    while done < CASES {
        let (session, messages) = messages(&mut random);
        for octets in messages {
            let Meaning::Update(update) = ours(&octets, session).unwrap() else { continue };
            let got = exabgp(&program, folder.path(), session.as4, std::slice::from_ref(&octets))
                .unwrap_or_else(|e| panic!("{e}\n{update:?}"));
            let _looking = Looking(format!("{session:?} {update:?}"));
            check(&update, &got[0]["neighbor"]["message"]);
            done += 1;
        }
    }
}

#[test]
fn exabgp_refuses_what_is_broken() {
    let Some(program) = installed("exabgp") else { return skip("exabgp_refuses_what_is_broken", "exabgp") };
    let folder = tempfile::tempdir().unwrap();
    // a withdrawn prefix that is cut short
    let mut octets = vec![0xff; 16];
    octets.extend([0, 25, 2, 0, 2, 24, 1, 0, 0]);
    assert!(exabgp(&program, folder.path(), true, &[octets]).is_err());
}
