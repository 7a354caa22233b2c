//! Collecting what is wrong with one object, and checks that several kinds need.
use std::{collections::BTreeSet, sync::Arc};

use super::{Problem, RawSelector, Severity};
use crate::model::{LabelSelector, Labels, ObjectKey};

/// What is wrong with one object.
#[derive(Debug)]
pub(super) struct Report {
    object: ObjectKey,
    pub(super) problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(object: &ObjectKey) -> Self {
        Self { object: object.clone(), problems: Vec::new() }
    }

    pub(super) fn error(&mut self, field: impl Into<String>, value: impl ToString, message: impl Into<String>) {
        self.push(field.into(), value.to_string(), message.into(), Severity::Error);
    }

    pub(super) fn warning(&mut self, field: impl Into<String>, value: impl ToString, message: impl Into<String>) {
        self.push(field.into(), value.to_string(), message.into(), Severity::Warning);
    }

    fn push(&mut self, field: String, value: String, message: String, severity: Severity) {
        let (rule, suggestion) = ("", String::new());
        self.problems.push(Problem { object: self.object.clone(), field, value, rule, message, suggestion, severity });
    }

    /// An error: the object, as written, is not in force.
    pub(super) fn refuse(
        &mut self,
        rule: &'static str,
        field: impl Into<String>,
        value: impl ToString,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.add(rule, field.into(), value.to_string(), (message.into(), suggestion.into()), Severity::Error);
    }

    /// A warning: legal, but surely not what was meant.
    pub(super) fn doubt(
        &mut self,
        rule: &'static str,
        field: impl Into<String>,
        value: impl ToString,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.add(rule, field.into(), value.to_string(), (message.into(), suggestion.into()), Severity::Warning);
    }

    fn add(
        &mut self,
        rule: &'static str,
        field: String,
        value: String,
        (message, suggestion): (String, String),
        severity: Severity,
    ) {
        self.problems.push(Problem { object: self.object.clone(), field, value, rule, message, suggestion, severity });
    }

    pub(super) fn has_error(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }
}

/// Reads a list of selectors; what is wrong or double is reported.
pub(super) fn selectors(report: &mut Report, field: &str, raw: &[RawSelector]) -> Vec<LabelSelector> {
    let mut read: Vec<LabelSelector> = Vec::with_capacity(raw.len());
    for (i, raw) in raw.iter().enumerate() {
        let field = format!("{field}[{i}]");
        match LabelSelector::new(raw.match_labels.clone(), raw.match_expressions.iter().cloned()) {
            Ok(selector) if read.contains(&selector) => {
                report.error(field, &selector, format!("duplicate definition of selector {:?}", selector.to_string()));
            }
            Ok(selector) => read.push(selector),
            Err(error) => report.error(field, "", format!("invalid label selector: {error}")),
        }
    }
    read
}

/// Reads one selector; a wrong one is reported.
pub(super) fn selector(report: &mut Report, field: &str, raw: &RawSelector) -> Option<LabelSelector> {
    let read = LabelSelector::new(raw.match_labels.clone(), raw.match_expressions.iter().cloned());
    let wrong = |error| report.refuse("selectorInvalid", field, "", format!("invalid label selector: {error}"), "");
    read.map_err(wrong).ok()
}

/// Reads a list of names; empty and double ones are reported. `what` says what they name, e.g. `peer`.
pub(super) fn names(report: &mut Report, field: &str, what: &str, written: &[String]) -> BTreeSet<Arc<str>> {
    let mut read = BTreeSet::new();
    for (i, name) in written.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if name.is_empty() {
            report.error(field, "", format!("the name of a {what} must not be empty"));
        } else if !read.insert(Arc::from(name.as_str())) {
            report.error(field, name, format!("duplicate definition of {what} {name:?}: name it once"));
        }
    }
    read
}

/// An integer from `min` to `max`; anything else is reported and read as `None`.
pub(super) fn integer<T: TryFrom<i64>>(
    report: &mut Report,
    field: &str,
    written: Option<i64>,
    (min, max): (i64, i64),
    what: &str,
) -> Option<T> {
    let value = written?;
    if !(min..=max).contains(&value) {
        report.error(field, value, format!("invalid {what} {value}: must be from {min} to {max}"));
        return None;
    }
    T::try_from(value).ok()
}

/// Objects by name or labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Selection {
    pub(super) names: BTreeSet<Arc<str>>,
    pub(super) selectors: Vec<LabelSelector>,
}

impl Selection {
    pub(super) fn is_all(&self) -> bool {
        self.names.is_empty() && self.selectors.is_empty()
    }

    pub(super) fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.is_all() || self.names.contains(name) || self.selectors.iter().any(|s| s.matches(labels))
    }
}
