//! Sets of addresses as intervals: a set costs its gaps, not its size.
use std::collections::BTreeMap;

/// A set of numbers, kept as maximal disjoint intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IntervalSet {
    intervals: BTreeMap<u128, u128>,
    /// How many numbers; stops at the highest number there is.
    len: u128,
}

impl IntervalSet {
    /// How many members, stopping at the highest number there is.
    pub(super) fn len(&self) -> u128 {
        self.len
    }

    /// The lowest member that is not below `from`.
    pub(super) fn next_from(&self, from: u128) -> Option<u128> {
        if self.contains(from) {
            return Some(from);
        }
        self.intervals.range(from..).next().map(|(first, _)| *first)
    }

    /// Adds every number from `first` to `last`, none of which may be in the set.
    pub(super) fn insert_range(&mut self, mut first: u128, mut last: u128) {
        self.len = self.len.saturating_add((last - first).saturating_add(1));
        if let Some((before_first, before_last)) = self.intervals.range(..first).next_back()
            && before_last.checked_add(1) == Some(first)
        {
            first = *before_first;
        }
        if let Some(after_first) = last.checked_add(1)
            && let Some(after_last) = self.intervals.remove(&after_first)
        {
            last = after_last;
        }
        self.intervals.insert(first, last);
    }

    /// Adds a number; nothing happens if the set has it.
    pub(super) fn insert(&mut self, number: u128) {
        if !self.contains(number) {
            self.insert_range(number, number);
        }
    }

    /// Takes a number out; was it in?
    pub(super) fn remove(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.interval_of(number) else { return false };
        self.cut((first, last), (number, number));
        true
    }

    /// Takes out every number from `first` to `last` that is in.
    pub(super) fn remove_range(&mut self, first: u128, last: u128) {
        let overlap = |set: &Self| {
            let next = || set.intervals.range(first..=last).next().map(|(a, b)| (*a, *b));
            set.interval_of(first).or_else(next)
        };
        while let Some(interval) = overlap(self) {
            self.cut(interval, (first.max(interval.0), last.min(interval.1)));
        }
    }

    /// The parts of the set from `first` to `last`, in order.
    pub(super) fn within(&self, first: u128, last: u128) -> Vec<(u128, u128)> {
        let before = self.interval_of(first).filter(|(a, _)| *a < first);
        let inside = self.intervals.range(first..=last).map(|(a, b)| (*a, *b));
        before.into_iter().chain(inside).map(|(a, b)| (a.max(first), b.min(last))).collect()
    }

    /// Takes `part` out of `interval`, which contains it.
    fn cut(&mut self, interval: (u128, u128), part: (u128, u128)) {
        let ((first, last), (a, b)) = (interval, part);
        if first == a {
            self.intervals.remove(&first);
        } else {
            self.intervals.insert(first, a - 1);
        }
        if b < last {
            self.intervals.insert(b + 1, last);
        }
        self.len = self.len.saturating_sub((b - a).saturating_add(1));
    }

    /// Is the number in the set?
    pub(super) fn contains(&self, number: u128) -> bool {
        self.interval_of(number).is_some()
    }

    fn interval_of(&self, number: u128) -> Option<(u128, u128)> {
        let (first, last) = self.intervals.range(..=number).next_back()?;
        (number <= *last).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn interval_set_behaves_as_a_set_of_numbers(
            edits in proptest::collection::vec((0..3, 0u128..40, 0u128..6), 0..200),
        ) {
            let (mut intervals, mut numbers) = (IntervalSet::default(), BTreeSet::new());
            for (edit, n, more) in edits {
                match edit {
                    0 => { intervals.insert(n); numbers.insert(n); }
                    1 => prop_assert_eq!(intervals.remove(n), numbers.remove(&n)),
                    _ => { intervals.remove_range(n, n + more); numbers.retain(|m| !(n..=n + more).contains(m)); }
                }
                prop_assert_eq!(intervals.len(), numbers.len() as u128);
                for n in 0..47 {
                    prop_assert_eq!(intervals.contains(n), numbers.contains(&n));
                    prop_assert_eq!(intervals.next_from(n), numbers.range(n..).next().copied());
                }
                let within: Vec<u128> = intervals.within(n, n + more).into_iter().flat_map(|(a, b)| a..=b).collect();
                prop_assert_eq!(within, numbers.range(n..=n + more).copied().collect::<Vec<_>>());
                let list = &intervals.intervals;
                let maximal = list.iter().zip(list.iter().skip(1)).all(|((_, a), (b, _))| a + 1 < *b);
                prop_assert!(maximal);
            }
        }
    }

    #[test]
    fn interval_set_reaches_both_ends_of_the_number_range() {
        let mut set = IntervalSet::default();
        set.insert_range(0, u128::MAX);
        set.remove(0);
        set.remove(u128::MAX);
        assert_eq!(set.intervals, [(1, u128::MAX - 1)].into());
        set.insert(u128::MAX);
        set.insert(0);
        assert_eq!(set.intervals, [(0, u128::MAX)].into());
        set.remove_range(5, u128::MAX);
        assert_eq!(set.intervals, [(0, 4)].into());
    }
}
