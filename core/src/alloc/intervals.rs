//! Sets of addresses as intervals: a set costs its gaps, not its size.
use std::collections::BTreeMap;

/// A set of numbers, kept as maximal disjoint intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IntervalSet(BTreeMap<u128, u128>);

impl IntervalSet {
    /// The lowest member.
    pub(super) fn first(&self) -> Option<u128> {
        self.0.first_key_value().map(|(first, _)| *first)
    }

    /// Adds every number from `first` to `last`, none of which may be in the set.
    pub(super) fn insert_range(&mut self, mut first: u128, mut last: u128) {
        if let Some((before_first, before_last)) = self.0.range(..first).next_back()
            && before_last.checked_add(1) == Some(first)
        {
            first = *before_first;
        }
        if let Some(after_first) = last.checked_add(1)
            && let Some(after_last) = self.0.remove(&after_first)
        {
            last = after_last;
        }
        self.0.insert(first, last);
    }

    /// Adds a number; nothing happens if the set has it.
    pub(super) fn insert(&mut self, number: u128) {
        if !self.contains(number) {
            self.insert_range(number, number);
        }
    }

    /// Takes a number out; nothing happens if the set lacks it.
    pub(super) fn remove(&mut self, number: u128) {
        let Some((first, last)) = self.interval_of(number) else { return };
        if first == number {
            self.0.remove(&first);
        } else {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
    }

    fn contains(&self, number: u128) -> bool {
        self.interval_of(number).is_some()
    }

    fn interval_of(&self, number: u128) -> Option<(u128, u128)> {
        let (first, last) = self.0.range(..=number).next_back()?;
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
        fn interval_set_behaves_as_a_set_of_numbers(edits in proptest::collection::vec((any::<bool>(), 0u128..40), 0..200)) {
            let (mut intervals, mut numbers) = (IntervalSet::default(), BTreeSet::new());
            for (add, n) in edits {
                if add { intervals.insert(n); numbers.insert(n); } else { intervals.remove(n); numbers.remove(&n); }
                prop_assert_eq!(intervals.first(), numbers.first().copied());
                for n in 0..40 { prop_assert_eq!(intervals.contains(n), numbers.contains(&n)); }
                let maximal = intervals.0.iter().zip(intervals.0.iter().skip(1)).all(|((_, a), (b, _))| a + 1 < *b);
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
        assert_eq!(set, IntervalSet([(1, u128::MAX - 1)].into()));
        set.insert(u128::MAX);
        set.insert(0);
        assert_eq!(set, IntervalSet([(0, u128::MAX)].into()));
    }
}
