//! Hash maps for keys that are looked up many times per Service: several times quicker than the standard hasher, and like that
//! one seeded per process, so that nobody can choose names that collide.
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::OnceLock,
};

/// A map with the quick hasher.
pub(super) type QuickMap<K, V> = HashMap<K, V, Quick>;

/// An odd number whose bits look random (the golden ratio in 64 bits).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Octets taken in one step.
const STEP_LEN: usize = 8;

/// Makes hashers that start at this process' seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quick(u64);

impl Default for Quick {
    fn default() -> Self {
        static SEED: OnceLock<u64> = OnceLock::new();
        Self(*SEED.get_or_init(|| RandomState::new().hash_one(SPREAD)))
    }
}

impl BuildHasher for Quick {
    type Hasher = QuickHasher;

    fn build_hasher(&self) -> QuickHasher {
        QuickHasher { state: self.0, seed: self.0 }
    }
}

/// Multiplies and folds eight octets at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuickHasher {
    state: u64,
    seed: u64,
}

impl QuickHasher {
    fn step(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.seed ^ SPREAD | 1);
        let (low, high) = (product & u128::from(u64::MAX), product >> u64::BITS);
        let half = |half: u128| u64::try_from(half).unwrap_or(u64::MAX);
        self.state = half(low) ^ half(high).wrapping_add(SPREAD);
    }
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<STEP_LEN>();
        for chunk in chunks {
            self.step(u64::from_le_bytes(*chunk));
        }
        if !rest.is_empty() {
            let mut last = [0; STEP_LEN];
            last[..rest.len()].copy_from_slice(rest);
            self.step(u64::from_le_bytes(last));
        }
        self.step(bytes.len() as u64);
    }

    fn write_u8(&mut self, number: u8) {
        self.step(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.step(number.into());
        // A small number alone is not spread well enough by one step.
        self.step(size_of::<u32>() as u64);
    }

    fn write_u128(&mut self, number: u128) {
        let half = |shift: u32| u64::try_from(number >> shift & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        self.step(half(0));
        self.step(half(u64::BITS));
    }

    fn write_usize(&mut self, number: usize) {
        self.step(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.step(number.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        // The map takes its bucket from the low end and its tag from the high end.
        self.state ^ self.state.rotate_left(32)
    }
}

/// For keys that are hashes themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plain(u64);

impl Hasher for Plain {
    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "a hash is written as a whole, not {bytes:?}");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_addresses_that_differ_little_are_spread_over_all_buckets() {
        let quick = Quick::default();
        let names = (0..4096_u32).map(|n| quick.hash_one(crate::model::ServiceKey::new("team", &format!("web-{n}"))));
        let v4 = (0..4096_u32).map(|n| quick.hash_one(std::net::IpAddr::V4((0x0a00_0000 + n).into())));
        let v6 = (0..4096_u128).map(|n| quick.hash_one(std::net::IpAddr::V6(((0xfd_u128 << 120) + n).into())));
        let numbers = (0..4096_u32).map(|n| quick.hash_one(0x0a00_0000 + n));
        let long = (0..4096_u128).map(|n| quick.hash_one((0xfd_u128 << 120) + n));
        for hashes in [names.collect::<Vec<_>>(), v4.collect(), v6.collect(), numbers.collect(), long.collect()] {
            for shift in [0, 52] {
                // Of 4,096 balls in 4,096 urns about 63 in 100 urns get one.
                let urns: BTreeSet<u64> = hashes.iter().map(|hash| (hash >> shift) & 4095).collect();
                assert!(urns.len() > 2300, "{} urns", urns.len());
            }
        }
    }
}
