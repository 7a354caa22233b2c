//! Labels and label selectors with Kubernetes' semantics.
use std::fmt;

/// Sorted label pairs; smaller than a map for the handful of labels an object carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of `key`, if the object carries it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// All pairs in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        pairs.sort_unstable();
        pairs.dedup_by(|a, b| a.0 == b.0);
        Self(pairs.into_boxed_slice())
    }
}

/// How a [`Requirement`] compares a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// The label exists and its value is in the list.
    In,
    /// The label does not exist or its value is not in the list.
    NotIn,
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Values; empty exactly for `Exists` and `DoesNotExist`.
    pub values: Vec<String>,
}

/// A label selector: all requirements must hold; none at all matches everything.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelSelector {
    /// Sorted, so that equal selectors compare equal.
    requirements: Vec<Requirement>,
}

/// Why a selector is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Unknown operator text.
    #[error("{0:?} is not a label selector operator: write In, NotIn, Exists or DoesNotExist")]
    Operator(String),
    /// `In` or `NotIn` without values.
    #[error("operator {0} on key {1:?} needs at least one value")]
    ValuesMissing(&'static str, String),
    /// `Exists` or `DoesNotExist` with values.
    #[error("operator {0} on key {1:?} takes no values")]
    ValuesGiven(&'static str, String),
    /// Empty key.
    #[error("a label selector requirement needs a key")]
    KeyMissing,
}

impl LabelSelector {
    /// Builds a selector from `matchLabels` pairs and `matchExpressions` triples (key, operator, values).
    ///
    /// # Errors
    /// [`SelectorError`] for what the API server's own label selector validation would refuse.
    pub fn new(
        match_labels: impl IntoIterator<Item = (String, String)>,
        match_expressions: impl IntoIterator<Item = (String, String, Vec<String>)>,
    ) -> Result<Self, SelectorError> {
        let mut requirements: Vec<Requirement> = match_labels
            .into_iter()
            .map(|(key, value)| Requirement { key, operator: Operator::In, values: vec![value] })
            .collect();
        for (key, operator, mut values) in match_expressions {
            if key.is_empty() {
                return Err(SelectorError::KeyMissing);
            }
            let (operator, name, takes_values) = match operator.as_str() {
                "In" => (Operator::In, "In", true),
                "NotIn" => (Operator::NotIn, "NotIn", true),
                "Exists" => (Operator::Exists, "Exists", false),
                "DoesNotExist" => (Operator::DoesNotExist, "DoesNotExist", false),
                _ => return Err(SelectorError::Operator(operator)),
            };
            match (takes_values, values.is_empty()) {
                (true, true) => return Err(SelectorError::ValuesMissing(name, key)),
                (false, false) => return Err(SelectorError::ValuesGiven(name, key)),
                _ => {}
            }
            values.sort_unstable();
            values.dedup();
            requirements.push(Requirement { key, operator, values });
        }
        requirements.sort_unstable();
        requirements.dedup();
        Ok(Self { requirements })
    }

    /// Do these labels satisfy every requirement?
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|r| {
            let value = labels.get(&r.key);
            let listed = || value.is_some_and(|v| r.values.iter().any(|w| w == v));
            match r.operator {
                Operator::In => listed(),
                Operator::NotIn => !listed(),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("<everything>");
        }
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match (r.operator, r.values.as_slice()) {
                (Operator::In, [one]) => write!(f, "{}={one}", r.key)?,
                (Operator::In, many) => write!(f, "{} in ({})", r.key, many.join(","))?,
                (Operator::NotIn, many) => write!(f, "{} notin ({})", r.key, many.join(","))?,
                (Operator::Exists, _) => write!(f, "{}", r.key)?,
                (Operator::DoesNotExist, _) => write!(f, "!{}", r.key)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    fn selector(expr: &[(&str, &str, &[&str])]) -> Result<LabelSelector, SelectorError> {
        LabelSelector::new(
            [],
            expr.iter()
                .map(|(k, o, v)| ((*k).to_owned(), (*o).to_owned(), v.iter().map(|s| (*s).to_owned()).collect())),
        )
    }

    #[test]
    fn selector_matches_as_kubernetes_documents() {
        let node = labels(&[("rack", "a"), ("tier", "edge")]);
        type Expression<'a> = (&'a str, &'a str, &'a [&'a str]);
        let cases: &[(&[Expression<'_>], bool)] = &[
            (&[], true),
            (&[("rack", "In", &["a", "b"])], true),
            (&[("rack", "In", &["b"])], false),
            (&[("rack", "NotIn", &["b"])], true),
            (&[("absent", "NotIn", &["b"])], true),
            (&[("rack", "Exists", &[])], true),
            (&[("absent", "Exists", &[])], false),
            (&[("absent", "DoesNotExist", &[])], true),
            (&[("rack", "In", &["a"]), ("tier", "In", &["core"])], false),
        ];
        for (expr, want) in cases {
            assert_eq!(selector(expr).unwrap().matches(&node), *want, "{expr:?}");
        }
    }

    #[test]
    fn selector_is_refused_when_operator_and_values_disagree() {
        assert!(matches!(selector(&[("a", "Equals", &["b"])]), Err(SelectorError::Operator(_))));
        assert!(matches!(selector(&[("a", "In", &[])]), Err(SelectorError::ValuesMissing(..))));
        assert!(matches!(selector(&[("a", "Exists", &["x"])]), Err(SelectorError::ValuesGiven(..))));
        assert!(matches!(selector(&[("", "Exists", &[])]), Err(SelectorError::KeyMissing)));
    }
}
