//! Weights, rounded so that few different ones are in use.
use std::num::NonZeroU32;

/// Weights above this count as this much: more endpoints than a node can have, and far from any overflow.
const WEIGHT_MAX: u64 = 1 << 20;

/// The power of the square root of two that is nearest to `weight` in ratio, as a whole number: 1, 2, 3, 4, 6, 8, 11, 16 …
///
/// Every attribute set needs UPDATEs of its own: with two steps per doubling, routes of thousands of different weights share a
/// dozen sets, and no weight is off by more than a fifth.
pub(super) fn rounded(weight: u64) -> Option<NonZeroU32> {
    let weight = u128::from(weight.min(WEIGHT_MAX));
    if weight == 0 {
        return None;
    }
    // The exponent k of the nearest 2^(k/2): the smallest with weight^4 < 2^(2k+1).
    let exponent = weight.pow(4).ilog2().div_ceil(2);
    let square = 1_u64 << exponent;
    let root = square.isqrt();
    let nearest = root + u64::from(square - root * root > root);
    u32::try_from(nearest).ok().and_then(NonZeroU32::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_is_rounded_to_powers_of_the_square_root_of_two() {
        let got = |weight| rounded(weight).map_or(0, NonZeroU32::get);
        let all: Vec<u32> = (0..=16).map(got).collect();
        assert_eq!(all, [0, 1, 2, 3, 4, 6, 6, 8, 8, 8, 11, 11, 11, 11, 16, 16, 16]);
        assert_eq!((got(1 << 20), got(u64::MAX)), (1 << 20, 1 << 20));
    }

    #[test]
    fn rounding_keeps_order_is_close_and_leaves_few_values() {
        let all: Vec<u32> = (1..=10_000).filter_map(rounded).map(NonZeroU32::get).collect();
        assert!(all.is_sorted());
        for (weight, got) in (1..).zip(&all) {
            let ratio = f64::from(*got) / f64::from(weight);
            assert!((0.83..1.21).contains(&ratio), "{weight} became {got}");
        }
        let mut distinct = all;
        distinct.dedup();
        assert_eq!(distinct.len(), 27);
    }
}
