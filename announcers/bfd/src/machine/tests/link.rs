//! Two machines joined by a link that loses and delays, under a clock of the test's own.
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

/// What the link does to packets.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// Of 256 packets, so many are lost.
    lost_of_256: u8,
    delay_max: Duration,
}

/// Below what a detect multiplier of 1 leaves of 10 ms.
const GOOD: Link = Link { lost_of_256: 0, delay_max: Duration::from_micros(500) };
const CUT: Link = Link { lost_of_256: 255, delay_max: Duration::ZERO };

struct World {
    now: Instant,
    machines: [Machine; 2],
    /// Arrival, to whom, and which of `packets`.
    flying: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    packets: Vec<Packet>,
    /// The last arrival of each side's packets.
    latest: [Instant; 2],
    link: Link,
    seed: u64,
}

impl World {
    fn new(settings: [Settings; 2], seed: u64) -> Self {
        let now = Instant::now();
        let machines = [Machine::new(settings[0], 1, 1, now), Machine::new(settings[1], 2, 2, now)];
        Self { now, machines, flying: BinaryHeap::new(), packets: vec![], latest: [now; 2], link: GOOD, seed }
    }

    /// splitmix64
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn carry(&mut self, from: usize, effects: &Effects) {
        let Some(packet) = effects.packet else { return };
        let random = self.random();
        let lost = random % 256 < self.link.lost_of_256.into() || self.link.lost_of_256 == u8::MAX;
        if !lost {
            let delay = self.link.delay_max.mul_f64(f64::from(halves(random).1) / f64::from(u32::MAX));
            // In order, as links deliver: an old Down behind a new Up would be a reason to go Down.
            let at = (self.now + delay).max(self.latest[from]);
            self.latest[from] = at;
            self.flying.push(Reverse((at, 1 - from, self.packets.len())));
            self.packets.push(Packet::decode(&packet.encode()).unwrap());
        }
    }

    /// Lets this much time pass, or less if `done` comes true; returns whether it did.
    fn run(&mut self, length: Duration, done: impl Fn(&[Machine; 2]) -> bool) -> bool {
        let end = self.now + length;
        loop {
            if done(&self.machines) {
                return true;
            }
            let arrival = self.flying.peek().map(|Reverse((at, ..))| *at);
            let deadlines = self.machines.iter().filter_map(Machine::deadline);
            let Some(at) = deadlines.chain(arrival).min().filter(|at| *at <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(at);
            self.step();
        }
    }

    fn step(&mut self) {
        while let Some(Reverse((at, to, index))) = self.flying.peek().copied()
            && at <= self.now
        {
            self.flying.pop();
            let random = self.random();
            let packet = self.packets[index];
            let effects = self.machines[to].receive(&packet, self.now, random);
            self.carry(to, &effects);
        }
        for index in 0..2 {
            if self.machines[index].deadline().is_some_and(|at| at <= self.now) {
                let random = self.random();
                let effects = self.machines[index].tick(self.now, random);
                self.carry(index, &effects);
            }
        }
    }

    fn change(&mut self, index: usize, settings: Settings) {
        let random = self.random();
        let effects = self.machines[index].update(settings, self.now, random);
        self.carry(index, &effects);
    }
}

fn both_up(machines: &[Machine; 2]) -> bool {
    machines.iter().all(|machine| machine.status().state == State::Up)
}

/// Both Up, no question open, and each knows what the other wants.
fn settled(machines: &[Machine; 2]) -> bool {
    both_up(machines) && machines.iter().all(|machine| machine.poll == Poll::Idle)
}

fn with(tx_ms: u32, rx_ms: u32, detect_multiplier: u8) -> Settings {
    Settings { desired_min_tx: US(tx_ms), required_min_rx: US(rx_ms), detect_multiplier, ..settings() }
}

#[test]
fn two_sides_come_up_and_agree() {
    let mut world = World::new([with(100, 200, 3), with(50, 300, 5)], 1);
    assert!(world.run(US(2_000), settled));
    let [one, two] = world.machines.each_ref().map(Machine::status);
    assert_eq!((one.transmit_interval, one.detection_time), (US(300), US(1_000)));
    assert_eq!((two.transmit_interval, two.detection_time), (US(200), US(900)));
}

#[test]
fn two_passive_sides_stay_silent() {
    let passive = Settings { passive: true, ..settings() };
    let mut world = World::new([passive, passive], 1);
    assert!(!world.run(US(60_000), both_up));
    assert!(world.packets.is_empty());
}

#[test]
fn a_goodbye_reaches_the_other_side_as_no_failure() {
    let mut world = World::new([settings(), settings()], 3);
    assert!(world.run(US(3_000), settled));
    let effects = world.machines[0].disable(world.now, 0);
    world.carry(0, &effects);
    assert!(world.run(US(100), |machines| machines[1].status().admin_down_by_peer));
    world.run(US(5_000), |_| false);
    let status = world.machines[1].status();
    assert_eq!((status.state, status.diagnostic), (State::Down, Diagnostic::NeighborDown));
    assert!(status.admin_down_by_peer && status.was_up, "also after the peer has fallen silent");
}

proptest! {
    #[test]
    fn sessions_survive_a_bad_link_and_come_up_again(
        seed: u64,
        one in (10u32..500, 10u32..500, 1u8..6),
        two in (10u32..500, 10u32..500, 1u8..6),
        lost_of_256 in 0u8..160,
        delay_ms in 0u64..20,
    ) {
        let mut world = World::new([with(one.0, one.1, one.2), with(two.0, two.1, two.2)], seed);
        world.link = Link { lost_of_256, delay_max: Duration::from_millis(delay_ms) };
        world.run(US(30_000), |_| false);
        world.link = GOOD;
        prop_assert!(world.run(US(20_000), settled), "{:?}", world.machines.each_ref().map(Machine::status));
        world.run(US(1_000), |_| false);
        let [first, second] = world.machines.each_ref().map(Machine::status);
        prop_assert_eq!(first.transmit_interval, US(one.0.max(two.1)));
        prop_assert_eq!(second.transmit_interval, US(two.0.max(one.1)));
        prop_assert_eq!(first.detection_time, second.transmit_interval * two.2.into());
    }

    #[test]
    fn no_alarm_on_a_good_link_and_silence_is_found_in_time(
        seed: u64,
        one in (10u32..500, 10u32..500, 1u8..6),
        two in (10u32..500, 10u32..500, 1u8..6),
        changes in prop::collection::vec((0usize..2, 10u32..500, 10u32..500), 0..6),
    ) {
        let mut world = World::new([with(one.0, one.1, one.2), with(two.0, two.1, two.2)], seed);
        prop_assert!(world.run(US(3_000), settled));
        for (index, tx, rx) in changes {
            let multiplier = if index == 0 { one.2 } else { two.2 };
            world.change(index, with(tx, rx, multiplier));
            world.run(US(700), |_| false);
        }
        prop_assert!(world.run(US(5_000), settled));
        prop_assert!(world.machines.iter().all(|machine| machine.status().down_events == 0), "a false alarm");
        world.link = CUT;
        world.flying.clear();
        let cut = world.now;
        let detection = world.machines.each_ref().map(Machine::detection_time).into_iter().max().unwrap();
        prop_assert!(world.run(detection, |machines| {
            machines.iter().all(|machine| machine.status().state == State::Down)
        }), "after {:?} of {detection:?}", world.now - cut);
    }
}
