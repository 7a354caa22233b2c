//! IPAddressPool: from text to ranges, and who gets what where two pools overlap.
use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    IpRange, Meta, Pool, PoolSpec, ServiceAllocation, ServiceAllocationSpec,
    check::{Report, Wrong, names, selectors},
    ranges::RangeMap,
};

/// A valid pool by itself, before other pools are looked at.
#[derive(Clone, Debug)]
pub(super) struct PoolDraft {
    /// With `ranges` as written.
    pub(super) pool: Arc<Pool>,
    /// The text of each entry of `written`.
    entries: Arc<[String]>,
}

/// Checks everything about a pool that concerns no other object.
pub(super) fn check(meta: &Meta, spec: &PoolSpec, report: &mut Report) -> Option<PoolDraft> {
    if spec.addresses.is_empty() {
        let suggestion = "write at least one CIDR or start-end range";
        report.error("poolEmpty", "spec.addresses", "", "pool has no prefixes defined", suggestion);
    }
    let mut written: Vec<IpRange> = Vec::with_capacity(spec.addresses.len());
    let mut entries: Vec<String> = Vec::with_capacity(spec.addresses.len());
    let mut taken = RangeMap::default();
    for (i, entry) in spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{i}]");
        let range = match parse_entry(entry) {
            Ok(range) => range,
            Err(wrong) => {
                report.wrong(field, entry, wrong);
                continue;
            }
        };
        match taken.first_overlap(range) {
            Some((other, _)) if other == range => {
                let message = format!("duplicate definition of {entry:?}: the pool has it already");
                report.error("duplicate", field, entry, message, "write it once");
            }
            Some((_, at)) => {
                let other = &entries[at];
                let message = format!("CIDR {entry:?} overlaps with already defined CIDR {other:?} of this pool");
                report.error("rangeOverlap", field, entry, message, "write every address once");
            }
            None => {
                taken.insert(range, entries.len());
                written.push(range);
                entries.push(entry.clone());
            }
        }
    }
    let allocation = spec.service_allocation.as_ref().map(|a| service_allocation(a, report));
    if report.has_error() {
        return None;
    }
    let pool = Pool {
        name: meta.key.name.clone(),
        labels: meta.labels.clone(),
        ranges: written.clone(),
        written,
        auto_assign: spec.auto_assign.unwrap_or(true),
        avoid_buggy_ips: spec.avoid_buggy_ips.unwrap_or(false),
        allocation,
        policy: None,
    };
    Some(PoolDraft { pool: Arc::new(pool), entries: entries.into() })
}

fn service_allocation(spec: &ServiceAllocationSpec, report: &mut Report) -> ServiceAllocation {
    let at = "spec.serviceAllocation";
    ServiceAllocation {
        priority: spec.priority.filter(|p| *p != 0),
        namespaces: names(report, &format!("{at}.namespaces"), "namespace", &spec.namespaces),
        namespace_selectors: selectors(report, &format!("{at}.namespaceSelectors"), &spec.namespace_selectors),
        service_selectors: selectors(report, &format!("{at}.serviceSelectors"), &spec.service_selectors),
    }
}

/// Reads a list of addresses, CIDRs and `start-end` ranges, as kinds of our own have them; wrong and double ones are reported.
pub(super) fn read_ranges(field: &str, written: &[String], report: &mut Report) -> Vec<IpRange> {
    let mut read: RangeMap<usize> = RangeMap::default();
    let mut ranges = Vec::with_capacity(written.len());
    for (i, entry) in written.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let range = match entry.trim().parse::<IpAddr>() {
            Ok(ip) => Ok(IpRange { first: ip, last: ip }),
            Err(_) => parse_entry(entry),
        };
        match range {
            Err(wrong) => report.wrong(field, entry, wrong),
            Ok(range) => match read.first_overlap(range) {
                Some((_, other)) => {
                    let message = format!("{entry:?} overlaps with {:?} of this list", written[other]);
                    report.error("duplicate", field, entry, message, "write every address once");
                }
                None => {
                    read.insert(range, i);
                    ranges.push(range);
                }
            },
        }
    }
    ranges
}

/// Reads a CIDR or a `start-end` range.
fn parse_entry(entry: &str) -> Result<IpRange, Wrong> {
    const HOW: &str = "write a CIDR such as 192.0.2.0/24 or a range such as 192.0.2.10-192.0.2.20";
    let text = entry.trim();
    if text.is_empty() {
        return Err(Wrong::new("rangeInvalid", "an entry must not be empty", HOW));
    }
    let range = if let Some((start, end)) = text.split_once('-') {
        parse_range(entry, start.trim(), end.trim())?
    } else if let Ok(net) = text.parse::<IpNet>() {
        IpRange { first: net.network(), last: net.broadcast() }
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let message = format!("invalid CIDR {entry:?}: an address alone is none");
        return Err(Wrong::new("rangeInvalid", message, format!("write {ip}/{bits}")));
    } else {
        return Err(Wrong::new("rangeInvalid", format!("invalid CIDR {entry:?}"), HOW));
    };
    for ip in [range.first, range.last] {
        if let IpAddr::V6(v6) = ip
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            let message = format!("{ip} is an IPv4-mapped IPv6 address, which no network routes");
            return Err(Wrong::new("addressMapped", message, format!("write it as IPv4, {v4}")));
        }
    }
    Ok(range)
}

fn parse_range(entry: &str, start: &str, end: &str) -> Result<IpRange, Wrong> {
    let address = |which: &str, part: &str| {
        let message = format!("invalid IP range {entry:?}: {which} {part:?} is not an IP address");
        part.parse::<IpAddr>().map_err(|_| Wrong::new("rangeInvalid", message, "write both addresses in full"))
    };
    let (first, last) = (address("start", start)?, address("end", end)?);
    if first.is_ipv4() != last.is_ipv4() {
        let message = format!("invalid IP range {entry:?}: start {first} and end {last} are of different families");
        return Err(Wrong::new("rangeMixedFamilies", message, "write one range per family"));
    }
    if last < first {
        let message = format!("invalid IP range {entry:?}: range end {last} lies below its start {first}");
        return Err(Wrong::new("rangeBackwards", message, format!("write start-end, {last}-{first}")));
    }
    Ok(IpRange { first, last })
}

/// What older pools have already, while the younger ones are added.
#[derive(Debug, Default)]
pub(super) struct Taken {
    ranges: RangeMap<(Arc<str>, String)>,
}

impl Taken {
    /// Adds the pool, unless an older one has an address of it, which is reported.
    pub(super) fn admit(&mut self, draft: &PoolDraft, report: &mut Report) -> Option<Arc<Pool>> {
        let name = &draft.pool.name;
        let mut free = true;
        for (i, (range, entry)) in draft.pool.written.iter().zip(draft.entries.iter()).enumerate() {
            let Some((_, (pool, other))) = self.ranges.first_overlap(*range) else { continue };
            let message = format!(
                "CIDR {entry:?} in pool {name:?} overlaps with already defined CIDR {other:?} of pool {pool:?}, which is older and stays"
            );
            let suggestion = "leave out what the older pool has";
            report.error("poolOverlap", format!("spec.addresses[{i}]"), entry, message, suggestion);
            free = false;
        }
        free.then(|| self.insert(draft))
    }

    /// Adds what older pools have left of the last valid version of a pool: an edit of another must not take all of it out of
    /// force. `None` if that is nothing.
    pub(super) fn admit_rest(&mut self, draft: &PoolDraft) -> Option<Arc<Pool>> {
        let left: Vec<IpRange> = draft.pool.written.iter().flat_map(|range| self.ranges.subtract(*range)).collect();
        if left.is_empty() {
            return None;
        }
        let whole = self.insert(draft);
        Some(if left == whole.ranges { whole } else { Arc::new(Pool { ranges: left, ..(*whole).clone() }) })
    }

    fn insert(&mut self, draft: &PoolDraft) -> Arc<Pool> {
        for (range, entry) in draft.pool.written.iter().zip(draft.entries.iter()) {
            for part in self.ranges.subtract(*range) {
                self.ranges.insert(part, (draft.pool.name.clone(), entry.clone()));
            }
        }
        draft.pool.clone()
    }
}
