//! What was decided on each Service of a node, since when, and what before.
use std::{net::IpAddr, sync::Arc};

use ferrocast_core::decide::{Decision, Reason};

/// Changes kept per Service and node: enough to see a flap or a roll-out, few enough for ten thousand Services.
pub const CHANGES_MAX: usize = 16;

/// One change of the decision on one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, seconds since the Unix epoch.
    pub at_s: i64,
    /// The address; `None`: the Service had none.
    pub ip: Option<IpAddr>,
    /// What was decided then; `None`: the Service lost the address.
    pub reason: Option<Reason>,
}

/// The record of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The newest last, at most [`CHANGES_MAX`].
    pub changes: Vec<Change>,
    /// Per address: what is decided, and since when, seconds since the Unix epoch.
    pub now: Vec<(Option<IpAddr>, Reason, i64)>,
}

impl Record {
    /// The record after a decision at `now_s`; the same if that decides what was decided before.
    #[must_use]
    pub fn after(before: Option<&Arc<Self>>, decision: &Decision, now_s: i64) -> Arc<Self> {
        let mut record = before.map(|record| (**record).clone()).unwrap_or_default();
        let old = std::mem::take(&mut record.now);
        for address in &decision.addresses {
            let known = old.iter().find(|(ip, reason, _)| (*ip, *reason) == (address.ip, address.reason));
            if known.is_none() {
                record.changes.push(Change { at_s: now_s, ip: address.ip, reason: Some(address.reason) });
            }
            record.now.push((address.ip, address.reason, known.map_or(now_s, |(.., since)| *since)));
        }
        for (ip, ..) in old.iter().filter(|(ip, ..)| ip.is_some()) {
            if !decision.addresses.iter().any(|address| address.ip == *ip) {
                record.changes.push(Change { at_s: now_s, ip: *ip, reason: None });
            }
        }
        let surplus = record.changes.len().saturating_sub(CHANGES_MAX);
        record.changes.drain(..surplus);
        if before.is_some_and(|before| **before == record) {
            return before.cloned().unwrap_or_default();
        }
        Arc::new(record)
    }

    /// Since when the decision on an address is as it is, seconds since the Unix epoch.
    #[must_use]
    pub fn since_s(&self, ip: Option<IpAddr>) -> Option<i64> {
        self.now.iter().find(|(known, ..)| *known == ip).map(|(.., since)| *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrocast_core::decide::AddressDecision;

    fn decision(addresses: &[(Option<&str>, Reason)]) -> Decision {
        let addresses = addresses.iter().map(|(ip, reason)| AddressDecision {
            ip: ip.map(|ip| ip.parse().unwrap()),
            reason: *reason,
            advertisements: Vec::new(),
            because_of: None,
        });
        Decision { addresses: addresses.collect(), weight: None }
    }

    #[test]
    fn record_knows_since_when_and_what_was_before() {
        let none = decision(&[(None, Reason::NoIpAllocated)]);
        let yes = decision(&[(Some("10.0.0.1"), Reason::Announced)]);
        let no = decision(&[(Some("10.0.0.1"), Reason::NoEndpoints)]);
        let first = Record::after(None, &none, 1);
        let second = Record::after(Some(&first), &yes, 2);
        assert!(Arc::ptr_eq(&second, &Record::after(Some(&second), &yes, 3)), "nothing new");
        let third = Record::after(Some(&second), &no, 4);
        assert_eq!(third.since_s(Some("10.0.0.1".parse().unwrap())), Some(4));
        let codes: Vec<_> = third.changes.iter().map(|c| (c.at_s, c.reason.map(Reason::code))).collect();
        assert_eq!(codes, [(1, Some("noIPAllocated")), (2, Some("announced")), (4, Some("noEndpoints"))]);
        let gone = Record::after(Some(&third), &none, 5);
        assert_eq!(gone.changes.last().unwrap().reason, None);
    }

    #[test]
    fn only_the_newest_changes_are_kept() {
        let mut record = None;
        for at in 0..100 {
            let reason = if at % 2 == 0 { Reason::Announced } else { Reason::NoEndpoints };
            record = Some(Record::after(record.as_ref(), &decision(&[(Some("10.0.0.1"), reason)]), at));
        }
        let record = record.unwrap();
        assert_eq!(record.changes.len(), CHANGES_MAX);
        assert_eq!(record.changes.last().unwrap().at_s, 99);
    }
}
