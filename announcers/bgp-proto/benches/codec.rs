//! What the codec costs: nanoseconds and allocations, per prefix and per message. `tests/bench/run codec` prints the table;
//! nothing passes or fails by it.
#![expect(unsafe_code, reason = "a global allocator that counts")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use ferrocast_bgp_proto::{
    Families, Family,
    tools::Update,
    wire::{
        AttributeBlock, Context, Message, NextHop, Notification, Open, PathAttributes, ReachPacker, WithdrawPacker,
        inspect,
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The system's allocator, counting.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    COUNT.with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is left to the system's allocator; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps GlobalAlloc's contract
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps GlobalAlloc's contract
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps GlobalAlloc's contract
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Prefixes that are packed in one go.
const PREFIXES: u32 = 10_000;
/// Room for them all, octets: the driver's buffer has grown long before it matters.
const OUT_LEN: usize = 512 * 1024;
/// Samples of each row, of which the median counts, and the least time of one.
const SAMPLES: usize = 9;
const SAMPLE_MIN: Duration = Duration::from_millis(20);

/// Median nanoseconds and mean allocations of one call.
#[expect(clippy::cast_precision_loss, reason = "nothing counted here comes near 2^53")]
fn measure(mut work: impl FnMut()) -> (f64, f64) {
    work();
    let mut rounds = 1_u32;
    let mut samples = vec![];
    let mut allocations = 0.0;
    while samples.len() < SAMPLES {
        let (before, began) = (COUNT.with(Cell::get), Instant::now());
        (0..rounds).for_each(|_| work());
        let took = began.elapsed();
        allocations = (COUNT.with(Cell::get) - before) as f64 / f64::from(rounds);
        if took < SAMPLE_MIN {
            rounds = rounds.saturating_mul(2);
        } else {
            samples.push(took.as_secs_f64() * 1e9 / f64::from(rounds));
        }
    }
    samples.sort_by(f64::total_cmp);
    (samples[SAMPLES / 2], allocations)
}

/// One line of the table. `prefixes` and `messages` are those of one call.
fn row(name: &str, prefixes: u32, messages: usize, work: impl FnMut()) {
    let (ns, allocations) = measure(work);
    let messages = f64::from(u32::try_from(messages).unwrap_or(u32::MAX));
    let per_prefix = if prefixes == 0 { "-".to_owned() } else { format!("{:.2}", ns / f64::from(prefixes)) };
    println!(
        "{name:<54} {per_prefix:>10} {:>12.1} {:>15.2} {allocations:>14.1}",
        ns / messages,
        allocations / messages
    );
}

fn v4(i: u32) -> IpNet {
    Ipv4Net::from(Ipv4Addr::from_bits(0x0a00_0000 + i)).into()
}

fn v6(i: u32) -> IpNet {
    Ipv6Net::from(Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(i))).into()
}

/// Bodies of the UPDATEs in `octets`.
fn bodies(mut octets: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![];
    while let Ok(Some((Message::Update(body), len))) = Message::decode(octets) {
        all.push(body.to_vec());
        octets = &octets[len..];
    }
    all
}

fn updates(name: &str, attributes: &PathAttributes, next_hop: NextHop, prefix: fn(u32) -> IpNet) {
    let prefixes: Vec<_> = (0..PREFIXES).map(prefix).collect();
    let family = Family::of_prefix(&prefixes[0]);
    let Ok(block) = AttributeBlock::new(family, attributes, next_hop, true) else { return };
    let block = Arc::new(block);
    let mut out = BytesMut::with_capacity(OUT_LEN);
    let mut packer = ReachPacker::new(block.clone());
    let mut announce = |out: &mut BytesMut| {
        out.clear();
        for prefix in &prefixes {
            packer.push(prefix, out);
        }
        packer.flush(out);
    };
    announce(&mut out);
    let bodies = bodies(&out);
    let messages = bodies.len();
    row(&format!("{name}: encode, 10,000 in one go"), PREFIXES, messages, || announce(black_box(&mut out)));
    row(&format!("{name}: check (inspect)"), PREFIXES, messages, || {
        for body in &bodies {
            black_box(inspect(black_box(body), &Context::default())).ok();
        }
    });
    row(&format!("{name}: decode whole (tools)"), PREFIXES, messages, || {
        for body in &bodies {
            black_box(Update::decode(black_box(body), true)).ok();
        }
    });
    row(&format!("{name}: encode one alone"), 1, 1, || {
        out.clear();
        let mut packer = ReachPacker::new(block.clone());
        packer.push(black_box(&prefixes[0]), &mut out);
        packer.flush(&mut out);
    });
    let mut packer = WithdrawPacker::new(family);
    let mut withdraw = |out: &mut BytesMut| {
        out.clear();
        for prefix in &prefixes {
            packer.push(prefix, out);
        }
        packer.flush(out);
    };
    withdraw(&mut out);
    let messages = self::bodies(&out).len();
    row(&format!("{name}: withdraw, 10,000 in one go"), PREFIXES, messages, || withdraw(black_box(&mut out)));
}

fn message(name: &str, message: &Message<'_>) {
    let mut out = BytesMut::with_capacity(OUT_LEN);
    row(&format!("{name}: encode"), 0, 1, || {
        out.clear();
        black_box(message).encode(&mut out);
    });
    row(&format!("{name}: decode"), 0, 1, || {
        black_box(Message::decode(black_box(&out))).ok();
    });
}

fn main() {
    println!("{:<54} {:>10} {:>12} {:>15} {:>14}", "", "ns/prefix", "ns/message", "allocs/message", "allocs/call");
    let plain = PathAttributes { as_path: vec![64_512], communities: vec![64_512 << 16 | 100], ..Default::default() };
    let v6_hop = NextHop::V6 { address: Ipv6Addr::LOCALHOST, link_local: None };
    updates("IPv4", &plain, NextHop::V4(Ipv4Addr::LOCALHOST), v4);
    updates("IPv4 over IPv6", &plain, v6_hop, v4);
    updates("IPv6", &plain, v6_hop, v6);
    let large = PathAttributes { communities: (0..500).collect(), ..plain.clone() };
    updates("IPv4, 500 communities", &large, NextHop::V4(Ipv4Addr::LOCALHOST), v4);
    for (name, attributes) in [("attributes", &plain), ("attributes, 500 communities", &large)] {
        row(&format!("{name}: encode"), 0, 1, || {
            let next_hop = NextHop::V4(Ipv4Addr::LOCALHOST);
            black_box(AttributeBlock::new(Family::Ipv4Unicast, black_box(attributes), next_hop, true)).ok();
        });
    }
    message("OPEN", &Message::Open(Open::new(70_000, 90, Ipv4Addr::LOCALHOST, Families::ALL)));
    message("NOTIFICATION", &Message::Notification(Notification::shutdown("node drained")));
    message("KEEPALIVE", &Message::Keepalive);
}
