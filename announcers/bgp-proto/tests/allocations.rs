//! What the codec allocates: nothing per prefix, whichever way. A binary of its own, because it counts for the whole process.
#![expect(unsafe_code, reason = "a global allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use bytes::BytesMut;
use ferrocast_bgp_proto::{
    Family,
    wire::{
        AttributeBlock, Context, Disposition, HEADER_LEN, Message, NextHop, PathAttributes, ReachPacker,
        WithdrawPacker, inspect,
    },
};
use ipnet::IpNet;

/// The system's allocator, counting for each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps GlobalAlloc's contract
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps GlobalAlloc's contract
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps GlobalAlloc's contract
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of `work`.
fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

/// Prefixes packed: many messages.
const PREFIXES: u32 = 10_000;
/// A packer's buffer grows to one message by doubling: so many steps from nothing, however many prefixes follow.
const GROWTH_STEPS_MAX: usize = 12;
/// Room for all messages, octets, so that only what the packers allocate is counted.
const OUT_LEN: usize = 512 * 1024;

fn prefixes(family: Family) -> Vec<IpNet> {
    (0..PREFIXES)
        .map(|i| match family {
            Family::Ipv4Unicast => IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 + i).into(), 32).unwrap(),
            Family::Ipv6Unicast => {
                IpNet::new(Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(i)).into(), 128).unwrap()
            }
        })
        .collect()
}

#[test]
fn packing_allocates_nothing_per_prefix() {
    let v4 = NextHop::V4(Ipv4Addr::LOCALHOST);
    let v6 = NextHop::V6 { address: Ipv6Addr::LOCALHOST, link_local: None };
    for (family, next_hop) in [(Family::Ipv4Unicast, v4), (Family::Ipv4Unicast, v6), (Family::Ipv6Unicast, v6)] {
        let prefixes = prefixes(family);
        let attributes = PathAttributes { as_path: vec![64_512], communities: vec![1], ..PathAttributes::default() };
        let block = Arc::new(AttributeBlock::new(family, &attributes, next_hop, true).unwrap());
        let mut out = BytesMut::with_capacity(OUT_LEN);
        let mut reach = ReachPacker::new(block);
        let mut withdraws = [WithdrawPacker::new(family), WithdrawPacker::multi_protocol(family)];
        for (round, allowed) in [("first", GROWTH_STEPS_MAX), ("second", 0)] {
            out.clear();
            let got = allocations(|| {
                for prefix in &prefixes {
                    reach.push(prefix, &mut out);
                }
                reach.flush(&mut out);
            });
            assert!(got <= allowed, "{got} allocations to announce in the {round} round");
            assert!(out.len() > prefixes.len() * 5, "all were packed");
            for withdraw in &mut withdraws {
                out.clear();
                let got = allocations(|| {
                    for prefix in &prefixes {
                        withdraw.push(prefix, &mut out);
                    }
                    withdraw.flush(&mut out);
                });
                assert!(got <= allowed, "{got} allocations to withdraw in the {round} round");
            }
        }
    }
}

#[test]
fn checking_an_update_allocates_nothing() {
    let attributes = PathAttributes { as_path: vec![64_512], communities: (0..500).collect(), ..Default::default() };
    let next_hop = NextHop::V4(Ipv4Addr::LOCALHOST);
    let block = Arc::new(AttributeBlock::new(Family::Ipv4Unicast, &attributes, next_hop, true).unwrap());
    let (mut packer, mut out) = (ReachPacker::new(block), BytesMut::new());
    for prefix in prefixes(Family::Ipv4Unicast) {
        packer.push(&prefix, &mut out);
    }
    packer.flush(&mut out);
    let mut messages = 0;
    let got = allocations(|| {
        let mut octets = &out[..];
        while let Ok(Some((Message::Update(body), len))) = Message::decode(octets) {
            assert_eq!(inspect(body, &Context::default()), Ok(Disposition::Valid));
            messages += 1;
            octets = &octets[len..];
        }
    });
    assert_eq!(got, 0);
    assert!(messages > 13, "{messages} messages");
}

#[test]
fn checking_what_is_broken_allocates_nothing() {
    let attributes = PathAttributes { as_path: vec![64_512], communities: vec![1, 2, 3], ..Default::default() };
    let next_hop = NextHop::V6 { address: Ipv6Addr::LOCALHOST, link_local: None };
    let block = Arc::new(AttributeBlock::new(Family::Ipv6Unicast, &attributes, next_hop, true).unwrap());
    let (mut packer, mut out) = (ReachPacker::new(block), BytesMut::new());
    prefixes(Family::Ipv6Unicast).iter().take(3).for_each(|prefix| _ = packer.push(prefix, &mut out));
    packer.flush(&mut out);
    let mut body = out[HEADER_LEN..].to_vec();
    let mut refused = 0;
    let got = allocations(|| {
        for at in 0..body.len() {
            for value in 0..=u8::MAX {
                let good = std::mem::replace(&mut body[at], value);
                refused += usize::from(inspect(&body, &Context::default()).is_err());
                body[at] = good;
            }
        }
    });
    assert_eq!(got, 0);
    assert!(refused > 1_000, "{refused} were refused");
}
