//! Messages that another implementation's own generator makes: what it reads back from them, we read the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeMap;

use arbitrary::{Arbitrary as _, Unstructured};
use ferrocast_oracles::{Meaning, Session, meaning::ours, netgauze::ORACLE, random::Random};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_parse_utils::WritablePdu as _;

/// Messages that are made; many are nonsense, which neither takes.
const CASES: usize = 20_000;
/// Of them, so many at least are read by both.
const SAME_MIN: usize = CASES / 2;
/// Octets that one message is made from.
const ENTROPY_LEN: usize = 600;
/// Longest message. Source: RFC 4271 §4.1; theirs may be longer (RFC 8654).
const MESSAGE_LEN_MAX: usize = 4_096;
/// Where the random numbers start.
const SEED: u64 = 0x4e47_0000_0000_0001;

fn made(random: &mut Random) -> Option<Vec<u8>> {
    let entropy: Vec<u8> = (0..ENTROPY_LEN).map(|_| random.u64().to_le_bytes()[0]).collect();
    let message = BgpMessage::arbitrary(&mut Unstructured::new(&entropy)).ok()?;
    let mut octets = vec![];
    message.write(&mut octets).ok()?;
    (octets.len() <= MESSAGE_LEN_MAX).then_some(octets)
}

/// Without the bits behind a prefix's length, which they keep and nobody heeds (RFC 4271 §4.3).
fn truncated(mut meaning: Meaning) -> Meaning {
    if let Meaning::Update(update) = &mut meaning {
        update.reach.iter_mut().chain(&mut update.withdrawn).for_each(|prefix| *prefix = prefix.trunc());
    }
    meaning
}

#[test]
fn what_others_generate_means_the_same_to_us() {
    let mut random = Random::new(SEED);
    let session = Session { as4: true };
    let mut same: BTreeMap<u8, usize> = BTreeMap::new();
    for _ in 0..CASES {
        let Some(octets) = made(&mut random) else { continue };
        // What they cannot read back, or we have no words for, says nothing.
        let Ok(Some(theirs)) = (ORACLE.decode)(&octets, session) else { continue };
        match ours(&octets, session) {
            Ok(ours) => assert_eq!(ours, truncated(theirs), "{octets:02x?}"),
            // They read attributes one by one; we refuse what RFC 7606 treats as withdrawn.
            Err(error) if matches!(theirs, Meaning::Update(_)) && error.contains("attribute") => continue,
            Err(error) => panic!("{error}: {theirs:?}: {octets:02x?}"),
        }
        *same.entry(octets[18]).or_default() += 1;
    }
    eprintln!("read by both, by type: {same:?}");
    assert_eq!(same.len(), 5, "every type: {same:?}");
    assert!(same.values().sum::<usize>() >= SAME_MIN, "{same:?}");
}
