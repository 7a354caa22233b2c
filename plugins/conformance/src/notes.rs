//! What is demanded of every status, whatever check it came in: noted here, told by checks of their own at the end.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use ferrocast_plugin_proto::{
    FAILURES_MAX, STATUSES_PER_S_MAX, TARGET_NAME_LEN_MAX, TARGETS_MAX, TEXT_LEN_MAX,
    v1alpha1::{Status, TargetStatus, Version},
};
use ipnet::IpNet;
use tokio::time::Instant;

/// Statuses in a second that are let pass beyond the ones allowed: what was sent in time may arrive in a bunch.
const STATUSES_LATE_MAX: usize = 3;

/// A rule about every status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// Texts, names and lists are as long as they may be.
    Limits,
    /// At most ten in a second.
    Rate,
    /// Speaks only of versions and prefixes that were sent.
    Honest,
    /// Reached comes after accepted.
    AcceptedFirst,
}

/// The versions that a status may speak of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Accepted from this or an earlier host, by (epoch, generation).
    pub(crate) accepted: BTreeSet<(u64, u64)>,
    /// Sent, not answered.
    pub(crate) in_flight: Option<(u64, u64)>,
    /// Every prefix that was ever sent.
    pub(crate) prefixes: BTreeSet<IpNet>,
}

/// The first breach of each rule, and when the last statuses came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    breaches: BTreeMap<Rule, String>,
    arrivals: VecDeque<Instant>,
    statuses: usize,
}

impl Notes {
    /// What was seen against a rule.
    pub(crate) fn breach(&self, rule: Rule) -> Option<&str> {
        self.breaches.get(&rule).map(String::as_str)
    }

    /// How many statuses were looked at.
    pub(crate) fn statuses(&self) -> usize {
        self.statuses
    }

    fn note(&mut self, rule: Rule, seen: impl Into<String>) {
        self.breaches.entry(rule).or_insert_with(|| seen.into());
    }

    /// Another call begins: its statuses are counted from now.
    pub(crate) fn begin(&mut self) {
        self.arrivals.clear();
    }

    /// Looks at one status.
    pub(crate) fn look(&mut self, status: &Status, sent: &Sent, now: Instant) {
        self.statuses += 1;
        self.arrivals.push_back(now);
        while self.arrivals.front().is_some_and(|at| now - *at > Duration::from_secs(1)) {
            self.arrivals.pop_front();
        }
        if self.arrivals.len() > STATUSES_PER_S_MAX as usize + STATUSES_LATE_MAX {
            self.note(Rule::Rate, format!("{} statuses within a second", self.arrivals.len()));
        }
        self.text("the status' problem", &status.problem);
        if status.targets.len() > TARGETS_MAX {
            self.note(Rule::Limits, format!("{} targets, {TARGETS_MAX} are allowed", status.targets.len()));
        }
        let mut names = BTreeSet::new();
        for target in &status.targets {
            if !names.insert(&target.name) {
                self.note(Rule::Limits, format!("the target {:?} is there twice in one status", target.name));
            }
            self.target(target, sent);
        }
    }

    fn text(&mut self, what: &str, text: &str) {
        if text.len() > TEXT_LEN_MAX {
            self.note(Rule::Limits, format!("{what} has {} octets, {TEXT_LEN_MAX} are allowed", text.len()));
        }
    }

    fn target(&mut self, target: &TargetStatus, sent: &Sent) {
        if target.name.is_empty() || target.name.len() > TARGET_NAME_LEN_MAX {
            let len = target.name.len();
            self.note(
                Rule::Limits,
                format!("a target's name has {len} octets, 1 to {TARGET_NAME_LEN_MAX} are allowed"),
            );
        }
        self.text(&format!("the reason of target {:?}", target.name), &target.reason);
        if target.failures.len() > FAILURES_MAX {
            self.note(Rule::Limits, format!("{} failures listed, {FAILURES_MAX} are allowed", target.failures.len()));
        }
        if target.failures_total < target.failures.len() as u64 {
            let (total, listed) = (target.failures_total, target.failures.len());
            self.note(Rule::Honest, format!("failures_total is {total}, and {listed} are listed"));
        }
        for failure in &target.failures {
            self.text(&format!("the reason for {}", failure.prefix), &failure.reason);
            if failure.reason.is_empty() {
                self.note(Rule::Honest, format!("{} has failed without a reason", failure.prefix));
            }
            if !failure.prefix.parse().is_ok_and(|prefix| sent.prefixes.contains(&prefix)) {
                let (prefix, name) = (&failure.prefix, &target.name);
                self.note(Rule::Honest, format!("target {name:?} reports on {prefix:?}, which was never sent"));
            }
        }
        if let Some(Version { epoch, generation }) = target.reached {
            let version = (epoch, generation);
            let said = format!("target {:?} says it has reached {}", target.name, show(epoch, generation));
            if sent.in_flight == Some(version) {
                self.note(Rule::AcceptedFirst, format!("{said}, before it was accepted"));
            } else if !sent.accepted.contains(&version) {
                self.note(Rule::Honest, format!("{said}, a version that was never sent or never accepted"));
            }
        }
    }
}

/// A version for people.
pub(crate) fn show(epoch: u64, generation: u64) -> String {
    format!("generation {generation} of epoch {epoch:x}")
}
