//! A list that mostly has one member and costs no allocation then.
use std::ops::Deref;

/// A list of `T`, read as a slice.
#[derive(Debug)]
pub(super) enum Few<T> {
    /// None or one.
    Inline(Option<T>),
    /// Several, now or before.
    Many(Vec<T>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::Inline(None)
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Inline(one) => one.as_slice(),
            Self::Many(list) => list,
        }
    }
}

impl<T> Few<T> {
    /// Adds a member at the end.
    pub(super) fn push(&mut self, member: T) {
        match self {
            Self::Inline(None) => *self = Self::Inline(Some(member)),
            Self::Inline(one) => *self = Self::Many(one.take().into_iter().chain([member]).collect()),
            Self::Many(list) => list.push(member),
        }
    }

    /// Takes all members out.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_read_in_the_order_in_which_they_came() {
        let mut few = Few::default();
        assert!(few.is_empty());
        for n in 1..5 {
            few.push(n);
            assert_eq!(*few, (1..=n).collect::<Vec<_>>());
        }
        few.clear();
        assert!(few.is_empty());
    }
}
