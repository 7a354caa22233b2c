//! The addresses of one family of a pool as positions on a line, so that sets of them are sets of plain numbers.
use crate::config::IpRange;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many of 256 IPv4 addresses are left without those that end in .0 and .255.
const PLAIN_OF_256: u128 = 254;

/// The addresses of one family, less those that the pool avoids, in the order in which a strategy counts them: by address, or
/// as the ranges were written. Positions are 0, 1, 2 … without gaps. Costs its ranges, not its addresses.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Addresses that end in .0 or .255 are not on the line.
    sparse: bool,
    /// In the order of the line.
    segments: Vec<Segment>,
    /// Indexes of segments that have a position, by address.
    by_address: Vec<usize>,
    /// The same in the order of the line.
    by_position: Vec<usize>,
}

/// One range.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// As in the pool, avoided addresses included.
    range: (u128, u128),
    /// How many addresses of ranges before it, avoided ones included (modulo 2^128).
    counted: u128,
    /// First and last rank on the line; `None`: all its addresses are avoided.
    ranks: Option<(u128, u128)>,
    /// Position of its first rank.
    at: u128,
}

impl Line {
    /// The line through `ranges`, which are of one family and disjoint.
    pub(super) fn new(ranges: impl Iterator<Item = IpRange>, sparse: bool, as_written: bool) -> Self {
        let mut ranges: Vec<(u128, u128)> = ranges.map(|r| (to_bits(r.first), to_bits(r.last))).collect();
        if !as_written {
            ranges.sort_unstable();
        }
        let mut line = Self { sparse, ..Self::default() };
        let (mut counted, mut at) = (0_u128, 0_u128);
        for (first, last) in ranges {
            let ranks = line.rank_up(first).zip(line.rank_down(last)).filter(|(a, b)| a <= b);
            line.segments.push(Segment { range: (first, last), counted, ranks, at });
            // Only after the last segment can either be 2^128.
            counted = counted.wrapping_add(last - first).wrapping_add(1);
            at = ranks.map_or(at, |(a, b)| at.wrapping_add(b - a).wrapping_add(1));
        }
        line.by_position = (0..line.segments.len()).filter(|i| line.segments[*i].ranks.is_some()).collect();
        line.by_address.clone_from(&line.by_position);
        let segments = &line.segments;
        line.by_address.sort_unstable_by_key(|i| segments[*i].range);
        line
    }

    /// The last position; `None` if the line is empty.
    pub(super) fn last(&self) -> Option<u128> {
        let segment = self.segments[*self.by_position.last()?];
        segment.ranks.map(|(a, b)| segment.at + (b - a))
    }

    /// Where `ip`, of the line's family, is; `None` if it is not on the line.
    pub(super) fn position(&self, ip: IpAddr) -> Option<u128> {
        let bits = to_bits(ip);
        let after = self.by_address.partition_point(|i| self.segments[*i].range.0 <= bits);
        let segment = self.segments[self.by_address[after.checked_sub(1)?]];
        let rank = self.rank_up(bits).filter(|_| bits <= segment.range.1 && !self.avoids(bits))?;
        segment.ranks.map(|(first, _)| segment.at + (rank - first))
    }

    /// The address at a position of the line, as bits.
    pub(super) fn bits_at(&self, position: u128) -> u128 {
        let after = self.by_position.partition_point(|i| self.segments[*i].at <= position);
        let segment = after.checked_sub(1).map(|i| self.segments[self.by_position[i]]);
        let rank = segment.and_then(|s| s.ranks.map(|(first, _)| first + (position - s.at)));
        rank.map_or(0, |rank| self.unrank(rank))
    }

    /// The position of the `index`-th address (avoided ones counted; modulo how many there are), or if that is avoided of the
    /// next one on the line, wrapping.
    pub(super) fn position_of_index(&self, index: u128) -> Option<u128> {
        let last = self.segments.last()?;
        let all = last.counted.wrapping_add(last.range.1 - last.range.0).wrapping_add(1);
        let index = if all == 0 { index } else { index % all };
        let at = self.segments.partition_point(|s| s.counted <= index).saturating_sub(1);
        let segment = self.segments[at];
        let rank = self.rank_up(segment.range.0 + (index - segment.counted));
        if let (Some(rank), Some((first, last))) = (rank, segment.ranks)
            && rank <= last
        {
            return Some(segment.at + (rank - first));
        }
        let next = self.segments[at + 1..].iter().find(|s| s.ranks.is_some());
        next.map(|s| s.at).or(self.last().map(|_| 0))
    }

    /// The positions of the addresses of `range`, as first and last of each run of them.
    pub(super) fn spans(&self, range: IpRange) -> Vec<(u128, u128)> {
        let Some((low, high)) = self.rank_up(to_bits(range.first)).zip(self.rank_down(to_bits(range.last))) else {
            return Vec::new();
        };
        let of = |segment: &Segment| {
            let (first, last) = segment.ranks?;
            let (a, b) = (first.max(low), last.min(high));
            (a <= b).then(|| (segment.at + (a - first), segment.at + (b - first)))
        };
        self.segments.iter().filter_map(of).collect()
    }

    /// Is the address left out for its last octet?
    fn avoids(&self, bits: u128) -> bool {
        self.sparse && matches!(bits % 256, 0 | 255)
    }

    /// The rank of `bits`, or of the next address above that has one.
    fn rank_up(&self, bits: u128) -> Option<u128> {
        if !self.sparse {
            return Some(bits);
        }
        let (block, octet) = (bits / 256, bits % 256);
        Some(match octet {
            0 => block * PLAIN_OF_256,
            255 => (block + 1) * PLAIN_OF_256,
            _ => block * PLAIN_OF_256 + octet - 1,
        })
    }

    /// The rank of `bits`, or of the next address below that has one.
    fn rank_down(&self, bits: u128) -> Option<u128> {
        match bits % 256 {
            _ if !self.sparse => Some(bits),
            0 => (bits / 256 * PLAIN_OF_256).checked_sub(1),
            255 => Some((bits / 256 + 1) * PLAIN_OF_256 - 1),
            octet => Some(bits / 256 * PLAIN_OF_256 + octet - 1),
        }
    }

    fn unrank(&self, rank: u128) -> u128 {
        if self.sparse { rank / PLAIN_OF_256 * 256 + rank % PLAIN_OF_256 + 1 } else { rank }
    }
}

/// An address as a number.
pub(super) fn to_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The IPv4 (`v4`) or IPv6 address of a number.
pub(super) fn from_bits(bits: u128, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX)))
    } else {
        IpAddr::V6(Ipv6Addr::from(bits))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u32, last: u32) -> IpRange {
        IpRange { first: Ipv4Addr::from(first).into(), last: Ipv4Addr::from(last).into() }
    }

    /// Disjoint ranges in some order around the octets that are avoided.
    fn any_ranges() -> impl Strategy<Value = Vec<(u32, u32)>> {
        proptest::collection::btree_set(250_u32..800, 2..12)
            .prop_map(|cuts| cuts.into_iter().collect::<Vec<_>>().chunks_exact(2).map(|c| (c[0], c[1])).collect())
            .prop_flat_map(|ranges: Vec<_>| Just(ranges).prop_shuffle())
    }

    proptest! {
        #[test]
        fn line_is_the_list_of_its_addresses(
            ranges in any_ranges(), sparse in any::<bool>(), as_written in any::<bool>(), index in any::<u128>(),
            (a, b) in (240_u32..810, 240_u32..810),
        ) {
            let line = Line::new(ranges.iter().map(|(a, b)| range(*a, *b)), sparse, as_written);
            let mut sorted = ranges.clone();
            if !as_written { sorted.sort_unstable(); }
            let all: Vec<u32> = sorted.iter().flat_map(|(a, b)| *a..=*b).collect();
            let avoided = |n: u32| sparse && matches!(n % 256, 0 | 255);
            let list: Vec<u32> = all.iter().copied().filter(|n| !avoided(*n)).collect();
            prop_assert_eq!(line.last(), (list.len() as u128).checked_sub(1));
            for n in 240..810_u32 {
                let at = list.iter().position(|m| *m == n).map(|at| at as u128);
                prop_assert_eq!(line.position(Ipv4Addr::from(n).into()), at, "{}", n);
                if let Some(at) = at { prop_assert_eq!(line.bits_at(at), u128::from(n)); }
            }
            let start = usize::try_from(index % all.len() as u128).unwrap();
            let wanted = all[start..].iter().chain(&all[..start]).find(|n| !avoided(**n));
            let wanted = wanted.map(|n| list.iter().position(|m| m == n).unwrap() as u128);
            prop_assert_eq!(line.position_of_index(index), wanted);
            let (low, high) = (a.min(b), a.max(b));
            let mut spanned: Vec<u128> =
                line.spans(range(low, high)).into_iter().flat_map(|(a, b)| a..=b).collect();
            spanned.sort_unstable();
            let inside: Vec<u128> = (0..list.len()).filter(|i| (low..=high).contains(&list[*i])).map(|i| i as u128).collect();
            prop_assert_eq!(spanned, inside);
        }
    }

    #[test]
    fn line_of_every_address_does_not_overflow() {
        let all = IpRange { first: Ipv6Addr::from(0).into(), last: Ipv6Addr::from(u128::MAX).into() };
        let line = Line::new([all].into_iter(), false, true);
        assert_eq!(line.last(), Some(u128::MAX));
        assert_eq!(line.position_of_index(u128::MAX), Some(u128::MAX));
        assert_eq!(line.bits_at(u128::MAX), u128::MAX);
        assert_eq!(line.spans(all), [(0, u128::MAX)]);
        let half = |first, last| IpRange { first: Ipv6Addr::from(first).into(), last: Ipv6Addr::from(last).into() };
        let middle = 1_u128 << 127;
        let line = Line::new([half(middle, u128::MAX), half(0, middle - 1)].into_iter(), false, true);
        assert_eq!((line.position(Ipv6Addr::from(0).into()), line.last()), (Some(middle), Some(u128::MAX)));
        assert_eq!(line.position_of_index(u128::MAX), Some(u128::MAX));
        assert_eq!(line.bits_at(u128::MAX), middle - 1);
        assert_eq!(Line::default().position_of_index(7), None);
    }
}
