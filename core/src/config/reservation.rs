//! AddressReservation: every rule of one reservation, and what of it is in force beside pools and older ones.
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    Config, IpRange, Pool, Release, Reservation, ReservationSpec, Reserved, ReservedFor,
    check::{Report, integer, names, selector},
    peer::{read_duration, written},
    pool::read_ranges,
    ranges::RangeMap,
};
use crate::model::{IpFamily, ServiceKey};

/// A valid reservation, before its pool and other reservations are looked at.
#[derive(Clone, Debug)]
pub(super) struct ReservationDraft {
    pool: Arc<str>,
    reserved: Reserved,
    for_whom: ReservedFor,
    release_after: Option<Duration>,
}

/// Checks everything about a reservation that concerns no other object.
pub(super) fn check(spec: &ReservationSpec, report: &mut Report) -> Option<ReservationDraft> {
    if spec.pool.is_empty() {
        report.error("missing", "spec.pool", "", "names no IPAddressPool", "write the name of one");
    }
    let reserved = reserved(spec, report);
    let for_whom = for_whom(spec, report);
    let release_after = read_duration("spec.releaseAfter", spec.release_after.as_ref(), report);
    let (Some(reserved), false) = (reserved, report.has_error()) else { return None };
    let release_after = release_after.filter(|time| !time.is_zero());
    Some(ReservationDraft { pool: spec.pool.as_str().into(), reserved, for_whom, release_after })
}

fn reserved(spec: &ReservationSpec, report: &mut Report) -> Option<Reserved> {
    let ranges = read_ranges("spec.addresses", &spec.addresses, report);
    let count = integer::<u64>(report, "spec.count", spec.count, (1, i64::MAX), "number of addresses");
    let family = match written(spec.family.as_ref()) {
        None => None,
        Some("IPv4") => Some(IpFamily::V4),
        Some("IPv6") => Some(IpFamily::V6),
        Some(other) => {
            let message = format!("invalid family {other:?}");
            report.error("familyInvalid", "spec.family", other, message, "write IPv4 or IPv6");
            return None;
        }
    };
    match (spec.addresses.is_empty(), spec.count, family) {
        (true, None, _) => {
            let suggestion = "write addresses of the pool, or count and family";
            report.error("missing", "spec.addresses", "", "reserves nothing", suggestion);
            None
        }
        (false, Some(count), _) => {
            let message = "both addresses and count are written";
            report.error("exclusive", "spec.count", count, message, "leave one of them out");
            None
        }
        (false, None, Some(family)) => {
            let message = "goes with count only: addresses have their family";
            report.error("exclusive", "spec.family", family, message, "leave it out");
            None
        }
        (true, Some(_), None) => {
            let message = "missing family: count does not say which addresses to count";
            report.error("missing", "spec.family", "", message, "write IPv4 or IPv6");
            None
        }
        (false, None, None) => Some(Reserved::Addresses(ranges)),
        (true, Some(_), Some(family)) => Some(Reserved::Count(count?, family)),
    }
}

fn for_whom(spec: &ReservationSpec, report: &mut Report) -> ReservedFor {
    if spec.services.is_empty() && spec.namespaces.is_empty() && spec.service_selector.is_none() {
        let suggestion = "name services, namespaces or a serviceSelector";
        report.error("missing", "spec.for", "", "is for nobody", suggestion);
    }
    let mut services = BTreeSet::new();
    for (i, (namespace, name)) in spec.services.iter().enumerate() {
        let at = format!("spec.for.services[{i}]");
        let parts = [("namespace", namespace), ("name", name)];
        let wrong: Vec<_> = parts.into_iter().filter(|(_, text)| text.is_empty() || text.contains('/')).collect();
        for (part, text) in &wrong {
            let message = format!("is not the {part} of a Service");
            report.error("nameInvalid", format!("{at}.{part}"), text, message, format!("write its {part}"));
        }
        let key = ServiceKey::new(namespace, name);
        if wrong.is_empty() && !services.insert(key.clone()) {
            report.error("duplicate", at, &key, format!("duplicate definition of Service {key}"), "name it once");
        }
    }
    ReservedFor {
        services,
        namespaces: names(report, "spec.for.namespaces", "namespace", &spec.namespaces),
        service_selector: (spec.service_selector.as_ref())
            .and_then(|raw| selector(report, "spec.for.serviceSelector", raw)),
    }
}

/// What older reservations have already, while the younger ones are added.
#[derive(Debug, Default)]
pub(super) struct ReservedAddresses(RangeMap<Arc<str>>);

impl ReservedAddresses {
    /// Puts the reservation in force, if its pool is there, has all its addresses, and no older reservation has one of them.
    ///
    /// `clip`: it is the last valid version of an object, or one that an edit of its pool broke: what is left of it counts.
    pub(super) fn admit(
        &mut self,
        draft: &ReservationDraft,
        name: &Arc<str>,
        releases: &[Release],
        config: &Config,
        clip: bool,
        report: &mut Report,
    ) -> Option<Arc<Reservation>> {
        let pool = self.pool(draft, config, report)?;
        let reserved = match &draft.reserved {
            Reserved::Count(count, family) => {
                report_count(*count, *family, pool, report);
                Reserved::Count(*count, *family)
            }
            Reserved::Addresses(ranges) => {
                let errors_before = report.has_error();
                self.report_addresses(ranges, pool, report);
                let broken = report.has_error() && !errors_before;
                let left = if broken && clip { self.left(ranges, pool) } else { ranges.clone() };
                if left.is_empty() || (broken && !clip) {
                    return None;
                }
                left.iter().for_each(|range| self.0.insert(*range, name.clone()));
                Reserved::Addresses(left)
            }
        };
        Some(Arc::new(Reservation {
            name: name.clone(),
            pool: draft.pool.clone(),
            reserved,
            for_whom: draft.for_whom.clone(),
            release_after: draft.release_after,
            releases: releases.into(),
        }))
    }

    fn pool<'a>(&self, draft: &ReservationDraft, config: &'a Config, report: &mut Report) -> Option<&'a Pool> {
        let name = &draft.pool;
        let found = config.pools.get(name).map(|pool| &**pool);
        if found.is_none() {
            let (message, suggestion) = if config.pools_unknown.contains_key(name) {
                (format!("the IPAddressPool {name:?} is not valid: nothing is reserved"), "mend the pool")
            } else {
                (format!("there is no IPAddressPool {name:?}: nothing is reserved"), "create it, or name another")
            };
            report.warning("unknownName", "spec.pool", name, message, suggestion);
        }
        found
    }

    fn report_addresses(&self, ranges: &[IpRange], pool: &Pool, report: &mut Report) {
        for (i, range) in ranges.iter().enumerate() {
            let field = format!("spec.addresses[{i}]");
            if !pool.covers(*range) {
                let message = format!("{range} does not lie in the IPAddressPool {:?}", pool.name);
                report.error("outsidePool", field, range, message, "write addresses of the pool, or name another pool");
            } else if let Some((theirs, other)) = self.0.first_overlap(*range) {
                let message = format!("the older AddressReservation {other:?} has {theirs} already and stays");
                report.error("reservationOverlap", field, range, message, "reserve other addresses, or edit that one");
            }
        }
    }

    /// What of the ranges is in the pool and in no older reservation.
    fn left(&self, ranges: &[IpRange], pool: &Pool) -> Vec<IpRange> {
        let in_pool = ranges.iter().flat_map(|range| pool.ranges.iter().filter_map(|r| r.intersection(*range)));
        in_pool.flat_map(|range| self.0.subtract(range)).collect()
    }
}

/// A count that the pool cannot give.
fn report_count(count: u64, family: IpFamily, pool: &Pool, report: &mut Report) {
    let of_family = pool.ranges.iter().filter(|r| IpFamily::of(r.first) == family);
    let size = of_family.fold(0u128, |sum, range| sum.saturating_add(range.size()));
    if u128::from(count) > size {
        let message =
            format!("the IPAddressPool {:?} has only {size} {family} addresses: nobody else gets any", pool.name);
        report.warning("countBeyondPool", "spec.count", count, message, format!("write at most {size}"));
    }
}
