//! What our encoder writes means the same to decoders that share no code with it, and what their encoders write to ours.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeMap;

use ferrocast_oracles::{
    Meaning, Session,
    meaning::{ORACLES, ours},
    random::{Random, messages},
};

/// Draws of one run; each is one or more messages.
const CASES: usize = 20_000;
/// Decoders that must know each message.
const WITNESSES_MIN: usize = 2;
/// Where the random numbers start; `FERROCAST_SEED` is another.
const SEED: u64 = 0x4271_7606_8950_0001;

fn seed() -> u64 {
    let seed = std::env::var("FERROCAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    eprintln!("FERROCAST_SEED={seed}");
    seed
}

fn kind(meaning: &Meaning) -> &'static str {
    match meaning {
        Meaning::Open(open) if open.capabilities.iter().any(|c| c.code() == 240) => "long OPEN",
        Meaning::Open(_) => "OPEN",
        Meaning::Update(update) if update.end_of_rib.is_some() => "End-of-RIB",
        Meaning::Update(update) if update.reach.is_empty() => "withdrawal",
        Meaning::Update(_) => "announcement",
        Meaning::Notification(_) => "NOTIFICATION",
        Meaning::Keepalive => "KEEPALIVE",
        Meaning::RouteRefresh(_) => "ROUTE-REFRESH",
    }
}

fn each(mut check: impl FnMut(&[u8], Session, &Meaning)) {
    let mut random = Random::new(seed());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..CASES {
        let (session, messages) = messages(&mut random);
        for octets in messages {
            let meaning = ours(&octets, session).unwrap_or_else(|e| panic!("ours: {e}: {octets:02x?}"));
            *counts.entry(kind(&meaning)).or_default() += 1;
            check(&octets, session, &meaning);
        }
    }
    eprintln!("{counts:?}");
    assert_eq!(counts.len(), 8, "every kind was drawn: {counts:?}");
}

#[test]
fn what_we_write_means_the_same_to_others() {
    each(|octets, session, meaning| {
        let mut witnesses = 0;
        for oracle in ORACLES {
            let Some(mut theirs) = (oracle.decode)(octets, session)
                .unwrap_or_else(|e| panic!("{}: {e}\n{meaning:?}\n{octets:02x?}", oracle.name))
            else {
                continue;
            };
            let mut ours = meaning.clone();
            (oracle.blind)(&mut ours);
            (oracle.blind)(&mut theirs);
            assert_eq!(theirs, ours, "{}: {octets:02x?}", oracle.name);
            witnesses += 1;
        }
        assert!(witnesses >= WITNESSES_MIN, "{meaning:?}");
    });
}

#[test]
fn what_others_write_means_the_same_to_us() {
    each(|octets, session, meaning| {
        for oracle in ORACLES {
            let Some(written) =
                (oracle.encode)(octets, session).unwrap_or_else(|e| panic!("{}: {e}\n{meaning:?}", oracle.name))
            else {
                continue;
            };
            let mut got = ours(&written, session)
                .unwrap_or_else(|e| panic!("from {}: {e}\n{meaning:?}\n{written:02x?}", oracle.name));
            let mut want = meaning.clone();
            (oracle.blind)(&mut want);
            (oracle.blind)(&mut got);
            assert_eq!(got, want, "written by {}: {written:02x?}", oracle.name);
        }
    });
}
