//! What we make of a broken UPDATE is what another implementation of RFC 7606 makes of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeMap;

use bytes::Bytes;
use ferrocast_bgp_proto::{
    Family,
    wire::{Context, Disposition, HEADER_LEN, inspect},
};
use ferrocast_oracles::{
    Session,
    random::{Random, messages},
};
use rustbgpd_wire::{
    DecodeError, Message, PathAttribute, decode_message,
    validate::{ErrorDisposition, validate_update_attributes},
};

/// UPDATEs that are broken in one place each.
const CASES: usize = 20_000;
/// Where the random numbers start.
const SEED: u64 = 0x7606_0000_0000_0001;

/// Longest UPDATE that is broken, octets: in a longer one most faults fall into its prefixes.
const LEN_MAX: usize = 300;

/// What is done with it, by both in the same words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Valid,
    Discard,
    Withdraw,
    Reset,
}

fn ours(body: &[u8], context: &Context) -> Verdict {
    match inspect(body, context) {
        Ok(Disposition::Valid) => Verdict::Valid,
        Ok(Disposition::AttributeDiscard) => Verdict::Discard,
        Ok(Disposition::TreatAsWithdraw) => Verdict::Withdraw,
        Err(_) => Verdict::Reset,
    }
}

/// `None`: they judge what we never look at.
fn theirs(octets: &[u8], context: &Context) -> Option<Verdict> {
    let Ok(Message::Update(update)) = decode_message(&mut Bytes::copy_from_slice(octets), 4096) else {
        return Some(Verdict::Reset);
    };
    let parsed = match update.parse_revised(context.as4, context.internal, false, &[]) {
        Ok(parsed) => parsed,
        // We do not read what was not negotiated; they end the session.
        Err(error) if error.to_string().contains("unsupported") => return None,
        Err(_) => return Some(Verdict::Reset),
    };
    let mut worst = Verdict::Valid;
    for fault in &parsed.malformed {
        worst = worst.max(verdict(fault.disposition));
        let words = fault.error.to_string();
        // They know no confederations, which an internal peer may be in.
        let confederation = context.internal && (words.contains("segment type 3") || words.contains("segment type 4"));
        // They refuse the sets that RFC 9774 retires; nothing is aggregated or chosen here.
        let set = matches!(fault.error, DecodeError::ProhibitedAsSet { .. });
        if set || confederation || !(KNOWN.contains(&fault.type_code) || words.contains("trunc")) {
            return None;
        }
    }
    let attributes = &parsed.update.attributes;
    let families = attributes.iter().find_map(|a| match a {
        PathAttribute::MpReachNlri(mp) => Some((mp.afi as u16, mp.safi as u8, mp.announced.is_empty())),
        PathAttribute::MpUnreachNlri(mp) => Some((mp.afi as u16, mp.safi as u8, true)),
        _ => None,
    });
    if families.is_some_and(|(afi, safi, _)| Family::from_wire(afi, safi).is_none()) {
        return None;
    }
    let mp_reach = families.is_some_and(|(_, _, empty)| !empty);
    let body = !parsed.update.announced.is_empty();
    if let Err(error) = validate_update_attributes(attributes, body || mp_reach, body, true) {
        // The kind of IPv6 address, and loopback, is the business of who would use the route.
        if error.subcode == INVALID_NEXT_HOP {
            return None;
        }
        worst = worst.max(verdict(error.disposition));
    }
    // RFC 7606 §5.2, which they leave to the caller
    let others =
        attributes.iter().any(|a| !matches!(a, PathAttribute::MpUnreachNlri(_))) || !parsed.malformed.is_empty();
    Some(if worst == Verdict::Withdraw && others && !body && !mp_reach { Verdict::Reset } else { worst })
}

/// Codes of the attributes that we know.
const KNOWN: [u8; 18] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 25, 32, 35];
/// Subcode of a next hop that is no host. Source: RFC 4271 §6.3.
const INVALID_NEXT_HOP: u8 = 8;

fn verdict(theirs: ErrorDisposition) -> Verdict {
    match theirs {
        ErrorDisposition::AttributeDiscard => Verdict::Discard,
        ErrorDisposition::TreatAsWithdraw => Verdict::Withdraw,
        ErrorDisposition::SessionReset => Verdict::Reset,
    }
}

/// Looks at flags and code of each attribute, as far as they can be told apart.
fn walk(body: &mut [u8], mut each: impl FnMut(&mut u8, u8)) {
    let withdrawn = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let mut octets = body.get_mut(withdrawn + 4..).unwrap_or_default();
    while let [flags, code, rest @ ..] = octets {
        each(flags, *code);
        let (len, skip) = match rest {
            [a, b, ..] if *flags & 0x10 != 0 => (u16::from_be_bytes([*a, *b]).into(), 2),
            [len, ..] => (usize::from(*len), 1),
            [] => return,
        };
        octets = rest.get_mut(skip + len..).unwrap_or_default();
    }
}

/// Attributes that are dropped from an external peer whatever they say (RFC 7606 §7.5, §7.9, §7.10): they take them.
const INTERNAL_ONLY: [u8; 3] = [5, 9, 10];
/// Optional and transitive; the partial bit belongs to these alone.
const OPTIONAL_TRANSITIVE: u8 = 0xc0;
/// They count a partial bit elsewhere as a fault, which RFC 7606 §3 c does not.
const PARTIAL: u8 = 0x20;

#[test]
fn broken_updates_get_the_same_disposition() {
    let mut random = Random::new(SEED);
    let mut table: BTreeMap<Verdict, usize> = BTreeMap::new();
    let (mut done, mut apart) = (0, vec![]);
    while done < CASES {
        let (Session { as4 }, messages) = messages(&mut random);
        for mut octets in messages {
            if octets[18] != 2 || octets.len() > LEN_MAX || octets.len() <= 23 {
                continue;
            }
            let at = HEADER_LEN + random.below(octets.len() - HEADER_LEN);
            octets[at] ^= 1 << random.below(8);
            let mut internal = random.flip();
            walk(&mut octets[HEADER_LEN..], |flags, code| {
                internal |= INTERNAL_ONLY.contains(&code);
                if *flags & OPTIONAL_TRANSITIVE != OPTIONAL_TRANSITIVE {
                    *flags &= !PARTIAL;
                }
            });
            let context = Context { as4, internal };
            let body = &octets[HEADER_LEN..];
            let Some(theirs) = theirs(&octets, &context) else { continue };
            done += 1;
            let ours = ours(body, &context);
            *table.entry(ours).or_default() += 1;
            if ours != theirs {
                apart.push(format!("octet {at}, {context:?}: we {ours:?}, they {theirs:?}: {octets:02x?}"));
            }
        }
    }
    eprintln!("{table:?}");
    assert_eq!(table.len(), 4, "every disposition was met: {table:?}");
    assert!(apart.is_empty(), "{} of {CASES}:\n{}", apart.len(), apart[..apart.len().min(10)].join("\n"));
}
