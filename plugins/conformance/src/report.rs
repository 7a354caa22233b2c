//! What a run found, for a person and as JSON.
use std::fmt;

use serde::Serialize;

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What the contract demands here.
    pub expected: String,
    /// What was seen instead.
    pub seen: String,
    /// What to look at, and change.
    pub advice: String,
}

/// How one check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// All was as demanded.
    #[serde(rename_all = "camelCase")]
    Passed {
        /// It says so, but nobody looked at the network: there is no probe.
        not_probed: bool,
    },
    /// It was not.
    Failed(Finding),
    /// The check makes no sense for this announcer, or cannot be made in this run.
    #[serde(rename_all = "camelCase")]
    NotApplicable {
        /// Why.
        reason: String,
    },
    /// Not tried, because what it builds upon failed.
    #[serde(rename_all = "camelCase")]
    NotRun {
        /// The check that failed.
        because: &'static str,
    },
}

/// One check, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its name, which never changes.
    pub name: &'static str,
    /// What is demanded, in a line.
    pub demand: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

/// Everything that a run found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What the announcer calls itself; empty: it never said.
    pub name: String,
    /// What it says of its version.
    pub version: String,
    /// The checks in the order in which they were made.
    pub checks: Vec<Checked>,
}

impl Report {
    /// The names of the checks that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = |check: &&Checked| matches!(check.outcome, Outcome::Failed(_));
        self.checks.iter().filter(failed).map(|check| check.name).collect()
    }

    /// Whether the announcer keeps the contract, as far as it was looked at.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let bad = |check: &Checked| matches!(check.outcome, Outcome::Failed(_) | Outcome::NotRun { .. });
        !self.checks.is_empty() && !self.checks.iter().any(bad)
    }

    /// The check of this name, if it was made.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&Checked> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// Whether this check was to be made, and its demand was not met, or not looked at.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        self.check(name).is_some_and(|check| matches!(check.outcome, Outcome::Failed(_) | Outcome::NotRun { .. }))
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.checks.iter().filter(|check| which(&check.outcome)).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => writeln!(f, "conformance of an announcer that never said its name")?,
            name => writeln!(f, "conformance of {name} {}", self.version)?,
        }
        for Checked { name, demand, outcome, took_ms } in &self.checks {
            match outcome {
                Outcome::Passed { not_probed: false } => writeln!(f, "  passed   {name} ({took_ms} ms)")?,
                Outcome::Passed { not_probed: true } => writeln!(f, "  passed   {name} ({took_ms} ms), not probed")?,
                Outcome::NotApplicable { reason } => writeln!(f, "  n/a      {name}: {reason}")?,
                Outcome::NotRun { because } => writeln!(f, "  not run  {name}: builds upon {because}, which failed")?,
                Outcome::Failed(Finding { expected, seen, advice }) => {
                    writeln!(f, "  FAILED   {name}: {demand}")?;
                    writeln!(f, "             expected: {expected}")?;
                    writeln!(f, "             seen:     {seen}")?;
                    writeln!(f, "             do:       {advice}")?;
                }
            }
        }
        let passed = self.count(|outcome| matches!(outcome, Outcome::Passed { .. }));
        let unprobed = self.count(|outcome| matches!(outcome, Outcome::Passed { not_probed: true }));
        let failed = self.count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let not_applicable = self.count(|outcome| matches!(outcome, Outcome::NotApplicable { .. }));
        let not_run = self.count(|outcome| matches!(outcome, Outcome::NotRun { .. }));
        write!(f, "{passed} passed, {failed} failed, {not_run} not run, {not_applicable} not applicable")?;
        match unprobed {
            0 => writeln!(f),
            _ => writeln!(f, "; {unprobed} believed without looking at the network (--probe looks)"),
        }
    }
}
