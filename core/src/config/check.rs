//! Collecting what is wrong with one object, and checks that several kinds need.
use std::{collections::BTreeSet, sync::Arc};

use super::{Problem, RawSelector, Severity, rules::RULES};
use crate::model::{LabelSelector, Labels, ObjectKey, SelectorError};

/// What is wrong with a text, whatever field it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The rule that is broken.
    pub(super) rule: &'static str,
    /// What is wrong.
    pub(super) message: String,
    /// What to write instead.
    pub(super) suggestion: String,
}

impl Wrong {
    pub(super) fn new(rule: &'static str, message: impl Into<String>, suggestion: impl Into<String>) -> Self {
        Self { rule, message: message.into(), suggestion: suggestion.into() }
    }
}

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

    /// An error: the object, as written, is not in force.
    pub(super) fn error(
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
    pub(super) fn warning(
        &mut self,
        rule: &'static str,
        field: impl Into<String>,
        value: impl ToString,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.add(rule, field.into(), value.to_string(), (message.into(), suggestion.into()), Severity::Warning);
    }

    /// An error that a reader of text has found.
    pub(super) fn wrong(&mut self, field: impl Into<String>, value: impl ToString, wrong: Wrong) {
        self.error(wrong.rule, field, value, wrong.message, wrong.suggestion);
    }

    fn add(
        &mut self,
        rule: &'static str,
        field: String,
        value: String,
        (message, suggestion): (String, String),
        severity: Severity,
    ) {
        debug_assert!(RULES.iter().any(|known| known.0 == rule), "{rule:?} is not in the list of rules");
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
        match selector(report, &field, raw) {
            Some(selector) if read.contains(&selector) => {
                let message = format!("duplicate definition of selector {:?}", selector.to_string());
                report.error("duplicate", field, &selector, message, "write it once");
            }
            Some(selector) => read.push(selector),
            None => {}
        }
    }
    read
}

/// Reads one selector; a wrong one is reported.
pub(super) fn selector(report: &mut Report, field: &str, raw: &RawSelector) -> Option<LabelSelector> {
    let labels = raw.match_labels.iter().map(|(key, value)| (key, std::slice::from_ref(value)));
    let expressions = raw.match_expressions.iter().map(|(key, _, values)| (key, &values[..]));
    for (key, values) in labels.chain(expressions).filter(|(key, _)| !key.is_empty()) {
        let wrong = match values.iter().find(|value| !is_label_value(value)) {
            _ if !is_label_key(key) => (key, "key"),
            Some(value) => (value, "value"),
            None => continue,
        };
        let (text, what) = wrong;
        let message = format!("invalid label selector: {text:?} is not the {what} of a label");
        let suggestion = "write letters, digits, '-', '_' and '.', at most 63, the first and the last a letter or digit; \
                          a key may have a DNS name and '/' in front";
        report.error("selectorInvalid", field, text, message, suggestion);
        return None;
    }
    let read = LabelSelector::new(raw.match_labels.clone(), raw.match_expressions.iter().cloned());
    let wrong = |error: SelectorError| {
        let suggestion = match error {
            SelectorError::Operator(_) => "write In, NotIn, Exists or DoesNotExist",
            SelectorError::ValuesMissing(..) => "write at least one value, or the operator Exists",
            SelectorError::ValuesGiven(..) => "leave the values out, or write the operator In",
            SelectorError::KeyMissing => "write the key of a label",
        };
        let message = error.to_string();
        let message = message.split_once(": write ").map_or(&*message, |(what, _)| what);
        report.error("selectorInvalid", field, "", format!("invalid label selector: {message}"), suggestion);
    };
    read.map_err(wrong).ok()
}

/// The longest name in a label's key, and the longest value. Source:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
const LABEL_LEN_MAX: usize = 63;
/// The longest prefix of a label's key.
const LABEL_PREFIX_LEN_MAX: usize = 253;

/// Letters and digits, with these others between them.
fn is_word(text: &str, between: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || between.contains(b))
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || (text.len() <= LABEL_LEN_MAX && is_word(text, b"-_."))
}

fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefix_fits = |p: &str| p.len() <= LABEL_PREFIX_LEN_MAX && p.split('.').all(|part| is_word(part, b"-"));
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(prefix_fits)
}

/// Reads a list of names; empty and double ones are reported. `what` says what they name, e.g. `peer`.
pub(super) fn names(report: &mut Report, field: &str, what: &str, written: &[String]) -> BTreeSet<Arc<str>> {
    let mut read = BTreeSet::new();
    for (i, name) in written.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if name.is_empty() {
            let message = format!("the name of a {what} must not be empty");
            report.error("nameEmpty", field, "", message, "write a name, or leave the entry out");
        } else if !read.insert(Arc::from(name.as_str())) {
            report.error("duplicate", field, name, format!("duplicate definition of {what} {name:?}"), "name it once");
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
        let suggestion = format!("must be from {min} to {max}");
        report.error("outOfRange", field, value, format!("invalid {what} {value}"), suggestion);
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
