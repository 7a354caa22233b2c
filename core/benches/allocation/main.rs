//! What allocation costs: time and memory at a million used addresses, per strategy and where it hurts. Nothing
//! passes or fails by it. Time is that of the processor, so that others on the machine count little.
//!
//! `tests/bench/run alloc [--quick] [--used N] [--only WORD]`
#![expect(unsafe_code, reason = "a global allocator that counts what is in use")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod floor;
mod memory;
mod scene;

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use ferrocast_core::{
    alloc::{Allocator, Change},
    config::Strategy,
};

use crate::{
    memory::in_use,
    scene::{Scene, batches, removed, service},
};

/// Addresses in use, and what "quick" makes of it.
const USED: u32 = 1_000_000;
const QUICK_USED: u32 = 100_000;
/// Services that come and go, one batch each, once so many addresses are in use.
const CHURN: u32 = 20_000;
/// Services in one batch while the pool is filled: what a busy watch brings together.
const BATCH_LEN: usize = 1_000;
/// The goal for one allocation, microseconds.
const GOAL_US: f64 = 2.0;

/// Time that this thread has run; where the system does not tell, time that has passed.
fn ran() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| BEGAN.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

/// Time for each of `count`, µs.
fn micros(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(count)
}

/// One line of the table.
struct Row {
    name: &'static str,
    scene: Scene,
    /// How many Services hold an address; several share one in some scenes.
    used: u32,
}

/// What one scene cost.
struct Cost {
    /// One allocation of many in a batch, while the pool is filled.
    filled_us: f64,
    /// What of it is taking in, judging, giving (choosing an address and holding it) and reporting.
    phases_us: [f64; 4],
    /// One allocation in a batch of its own at the end, with as many releases.
    alone_us: f64,
    /// Taking a configuration in that changes everything.
    config: Duration,
    octets_per_service: f64,
}

#[expect(clippy::cast_precision_loss, reason = "nothing counted here comes near 2^53")]
fn measure(row: &Row) -> Cost {
    let mut allocator = Allocator::new(None);
    drop(allocator.apply(vec![row.scene.change()], 0));
    let (mut filling, mut phases, mut octets) = (Duration::ZERO, [Duration::ZERO; 4], 0);
    for batch in batches(&row.scene, row.used, BATCH_LEN) {
        let (list, before, began) = (batch.capacity() * size_of::<Change>(), in_use(), ran());
        let mut ends = [began; 4];
        drop(allocator.apply_in_phases(batch, 0, &mut |phase| ends[phase as usize] = ran()));
        ends[3] = ran();
        filling += ends[3] - began;
        let begins = [began, ends[0], ends[1], ends[2]];
        phases.iter_mut().zip(ends).zip(begins).for_each(|((time, end), begin)| *time += end - begin);
        octets += (in_use() + list).saturating_sub(before);
    }
    let usage = allocator.usage();
    let used: u64 = usage.values().map(|u| u.used_v4 + u.used_v6).sum();
    assert!(used * u64::from(row.scene.sharers) >= u64::from(row.used), "{}: {used} in use", row.name);
    // Numbers that jump about, so that nothing is in a cache by luck.
    let change = |n: u32| [removed(n.wrapping_mul(2_654_435_761) % row.used), service(&row.scene, row.used + n)];
    let changes: Vec<_> = (0..CHURN).map(change).collect();
    let began = ran();
    for (now_s, [leaving, coming]) in (0..).zip(changes) {
        drop(allocator.apply(vec![leaving], now_s));
        drop(allocator.apply(vec![coming], now_s));
    }
    let alone = ran() - began;
    let change = row.scene.held();
    let began = ran();
    drop(allocator.apply(vec![change], 0));
    let config = ran() - began;
    Cost {
        filled_us: micros(filling, row.used),
        phases_us: phases.map(|time| micros(time, row.used)),
        alone_us: micros(alone, CHURN),
        config,
        octets_per_service: octets as f64 / f64::from(row.used),
    }
}

fn rows(used: u32) -> Vec<Row> {
    let row = |name, scene| Row { name, scene, used };
    let mut rows = Vec::new();
    let strategies = [
        ("First, a /8 without .0 and .255", Strategy::First),
        ("LeastRecentlyUsed, a /8", Strategy::LeastRecentlyUsed),
        ("HashedByName, a /8", Strategy::HashedByName),
    ];
    for (name, strategy) in strategies {
        rows.push(row(name, Scene::of_slash_8(strategy)));
    }
    rows.push(row("HashedByName, an IPv6 /64", Scene::of_slash_64(Strategy::HashedByName)));
    rows.push(row("HashedByName, 500 ranges", Scene::of_ranges(Strategy::HashedByName, used)));
    rows.push(row("HashedByName, full but the last address", Scene::full(Strategy::HashedByName, used)));
    rows.push(row("First, full but the last address", Scene::full(Strategy::First, used)));
    rows.push(row("First, 4 Services share each address", Scene::of_slash_8(Strategy::First).shared_by(4)));
    rows.push(row("First, one sharing key, every port the same", Scene::of_slash_8(Strategy::First).one_key()));
    rows.push(row("First, 1,000 reservations and quotas", Scene::of_slash_8(Strategy::First).reserved(1_000)));
    rows
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let quick = words.iter().any(|word| word == "--quick");
    let only = words.iter().position(|word| word == "--only").and_then(|at| words.get(at + 1));
    let asked = words.iter().position(|word| word == "--used").and_then(|at| words.get(at + 1)?.parse().ok());
    let used = asked.unwrap_or(if quick { QUICK_USED } else { USED });
    println!("Allocation at {used} Services with an address. Goal: {GOAL_US} µs per allocation, amortised.");
    println!(
        "{:<46} {:>13} {:>26} {:>15} {:>15} {:>15}",
        "", "µs, in 1,000s", "in, judge, give, tell", "µs, one by one", "octets/Service", "new config, ms"
    );
    let floor = floor::measure(used, BATCH_LEN);
    println!("{:<46} {floor:>13.2}", "the floor: remembered and told, not decided");
    for row in rows(used).into_iter().filter(|row| only.is_none_or(|word| row.name.contains(&**word))) {
        let cost = measure(&row);
        println!(
            "{:<46} {:>13.2} {:>26} {:>15.2} {:>15.0} {:>15.0}",
            row.name,
            cost.filled_us,
            cost.phases_us.map(|us| format!("{us:.2}")).join(" "),
            cost.alone_us,
            cost.octets_per_service,
            cost.config.as_secs_f64() * 1e3
        );
    }
    println!(
        "\"The floor\" puts Services and free addresses into hash maps and makes the outcomes; it knows no pools."
    );
    println!(
        "\"In, judge, give, tell\": what of it is taking in, judging, giving (choosing an address and holding it), reporting."
    );
    println!(
        "\"One by one\": a Service goes and another comes, each in a batch of its own; both together are one allocation."
    );
    println!("\"New config\": the pool is gone and all addresses are held, the Services are judged one by one.");
}
