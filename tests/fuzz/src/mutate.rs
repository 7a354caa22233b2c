//! Inputs made from other inputs, the same ones for the same seed: what a fuzzer does, without its feedback.

/// A generator of random numbers (SplitMix64): small, and the same everywhere.
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; zero if that is zero.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.u64().checked_rem(end as u64).unwrap_or(0)).unwrap_or(0)
    }

    fn octet(&mut self) -> u8 {
        self.u64().to_le_bytes()[0]
    }
}

/// Most changes of one input.
const CHANGES_MAX: usize = 6;
/// Octets that are at the edge of something: of numbers, of lengths, of types.
const EDGES: [u8; 10] = [0, 1, 2, 4, 16, 32, 33, 0x7f, 0x80, 0xff];
/// Longest input, octets: two messages.
pub const INPUT_LEN_MAX: usize = 8_192;

/// One of `inputs`, changed in a few places, perhaps with a piece of another.
#[must_use]
pub fn mutate(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let pick = |random: &mut Random| inputs.get(random.below(inputs.len())).cloned().unwrap_or_default();
    let mut octets = pick(random);
    for _ in 0..=random.below(CHANGES_MAX) {
        let at = random.below(octets.len());
        let end = at + random.below(octets.len().saturating_sub(at)).min(64);
        match random.below(8) {
            0 if !octets.is_empty() => octets[at] ^= 1 << random.below(8),
            1 if !octets.is_empty() => octets[at] = EDGES[random.below(EDGES.len())],
            2 if !octets.is_empty() => octets[at] = octets[at].wrapping_add(1),
            3 => octets.insert(at, random.octet()),
            4 => drop(octets.drain(at..end)),
            5 => octets.truncate(at),
            6 => {
                let piece = octets[at..end].to_vec();
                octets.splice(at..at, piece);
            }
            _ => {
                let other = pick(random);
                let from = random.below(other.len());
                octets.truncate(at);
                octets.extend_from_slice(&other[from..]);
            }
        }
        octets.truncate(INPUT_LEN_MAX);
    }
    octets
}
