//! What is wrong with a configuration object, in its author's words.
use std::fmt;

use crate::model::ObjectKey;

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The object, as written, is not in force.
    Error,
    /// The object is in force, but this is surely not what was meant.
    Warning,
}

/// One thing wrong with one field of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The object.
    pub object: ObjectKey,
    /// Field path, e.g. `spec.addresses[2]`; empty if it concerns the whole object.
    pub field: String,
    /// The offending value as written; empty if something is missing. Never a secret.
    pub value: String,
    /// The rule that is broken, as a stable code, e.g. `poolOverlap`; the list is in the book.
    pub rule: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead; empty where the message says it all.
    pub suggestion: String,
    /// Error or warning.
    pub severity: Severity,
}

impl Problem {
    /// A configuration object that Ferrocast does not read, because it is in another namespace.
    #[must_use]
    pub fn wrong_namespace(object: ObjectKey, namespace: &str, wanted: &str) -> Self {
        Self {
            object,
            field: "metadata.namespace".to_owned(),
            value: namespace.to_owned(),
            rule: "wrongNamespace",
            message: format!("resource must be created in {wanted} namespace"),
            suggestion: format!("write {wanted}"),
            severity: Severity::Error,
        }
    }

    /// Is it of what is missing now and may come later: a Secret, a BFDProfile, an alias, an AnnouncerClass? An object is not refused for that when it is
    /// written, since nothing says in which order a set of manifests arrives.
    #[must_use]
    pub fn may_mend_itself(&self) -> bool {
        matches!(self.rule, "secretUnusable" | "bfdProfileMissing" | "communityUnknown" | "announcerUnknown")
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        if !self.value.is_empty() {
            write!(f, ": {:?}", self.value)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.suggestion.is_empty() {
            write!(f, ": {}", self.suggestion)?;
        }
        Ok(())
    }
}
