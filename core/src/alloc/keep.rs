//! Judging whether a Service may keep the addresses that it has.
use std::{net::IpAddr, sync::Arc};

use super::{
    Allocator, Entry, Note, NoteType,
    choose::{no_pools, not_allowed, not_for_service},
    holdings::Sharing,
    request::{self, Need, Request, same_family},
    space::{per_family_max, rules},
};
use crate::{
    config::SharingRules,
    model::{IpFamily, Service, ServiceKey},
};

/// What becomes of the addresses that a Service has.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It gets none, whatever is free.
    Nothing { code: &'static str, message: String, note: Option<Note> },
    /// Its status holds an address that is not ours: the status stays as it is, less what is ours and it may not have.
    Foreign { ours: Vec<Kept>, given_up: Vec<IpAddr>, message: String },
    /// It keeps these. `invalid`: what is wrong with its request all the same, with the Event that says so.
    Keep { kept: Vec<Kept>, invalid: Option<(String, Note)> },
    /// It has none, or not those that it needs, which `note` tells. `near`: those it had and might keep.
    Seek { note: Option<Note>, near: Vec<IpAddr> },
}

/// An address that a Service keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) ip: IpAddr,
    /// The pool that contains it, or of a held one the former; `None`: nobody knows, its pool may be unreadable.
    pub(super) pool: Option<Arc<str>>,
    /// Why it is held, if it is.
    pub(super) held: Option<String>,
}

/// The right of a Service to an address.
#[derive(Debug)]
enum Right {
    /// It may keep it.
    Kept(Kept),
    /// It has to give it up, in words why.
    Lost(String),
    /// It is not ours to judge.
    Foreign,
}

impl Allocator {
    /// Judges one Service by itself and by who else holds its addresses. Until an outcome has been reported, its status
    /// says which addresses it has; afterwards the allocator's memory does.
    pub(super) fn judge(&self, entry: &Entry) -> Verdict {
        let service = &*entry.service;
        let known = entry.outcome.is_some() && entry.rare().foreign.is_none();
        let rights = self.rights(entry, if known { &entry.ips } else { &service.ingress });
        if let Some((ip, _)) = rights.iter().find(|(_, right)| matches!(right, Right::Foreign)) {
            return self.foreign(service, *ip, &self.rights(entry, &service.ingress));
        }
        if rights.is_empty() && self.config.pools.is_empty() && self.config.pools_unknown.is_empty() {
            return Verdict::Nothing { code: "noPools", message: no_pools().message, note: None };
        }
        let need = match request::need(service) {
            Ok(need) => need,
            Err(no) => return Verdict::Nothing { code: no.code, message: no.message, note: no.note },
        };
        match self.request_of(service) {
            Ok(request) => self.judge_current(entry, need, &request, rights),
            Err(why) => {
                let message = format!("invalid requested loadbalancer IPs: {why}");
                let note = Note { kind: NoteType::Warning, reason: "LoadBalancerFailed", message: message.clone() };
                // What it has stays, however much that is.
                let request = Request { ips: Vec::new(), pool: "".into(), per_family: usize::MAX };
                match self.judge_current(entry, need, &request, rights) {
                    Verdict::Keep { kept, .. } => Verdict::Keep { kept, invalid: Some((message, note)) },
                    _ => Verdict::Nothing { code: "invalidRequest", message, note: Some(note) },
                }
            }
        }
    }

    /// The rights to addresses, in order.
    fn rights(&self, entry: &Entry, ips: &[IpAddr]) -> Vec<(IpAddr, Right)> {
        let mut ips = ips.to_vec();
        ips.sort_unstable();
        ips.dedup();
        let former = self.wish_lost(entry, &ips);
        ips.into_iter().map(|ip| (ip, self.right(entry, ip, former.as_ref()))).collect()
    }

    /// What the Service asks for.
    pub(super) fn request_of(&self, service: &Service) -> Result<Request, String> {
        request::request(service, &|ip| self.config.pool_of(ip).map_or(1, |pool| per_family_max(pool)))
    }

    /// May the Service keep an address that it has, as far as the configuration goes? `former`: the pool that it asks for and
    /// that contains none of its addresses any more.
    fn right(&self, entry: &Entry, ip: IpAddr, former: Option<&Arc<str>>) -> Right {
        let service = &*entry.service;
        let kept = |pool: Option<Arc<str>>, held| Right::Kept(Kept { ip, pool, held });
        // By what it asks for, it is known again after a restart.
        let of = |pool: &Arc<str>| former.filter(|wished| !self.paired(wished, pool)).unwrap_or(pool).clone();
        let moved = || {
            self.config.moved.contains(&(service.key.clone(), ip)).then(|| {
                let why = ": the configuration takes it away and its owner wants it moved";
                Right::Lost(not_allowed(ip, why).message)
            })
        };
        if entry.rare().foreign.as_ref().is_some_and(|foreign| foreign.has_given_up(ip)) {
            return Right::Lost(not_allowed(ip, ": it has been given up").message);
        }
        if let Some(pool) = self.config.pool_of(ip) {
            if let Some(why) = self.lost_by_own_change(entry, ip) {
                return Right::Lost(why);
            }
            if !self.allows(pool, service) {
                let why = format!("the serviceAllocation of pool {:?} excludes this Service now", pool.name);
                return moved().unwrap_or_else(|| kept(Some(of(&pool.name)), Some(why)));
            }
            return match former {
                Some(former) => {
                    let why = format!("pool {former:?}, which the Service asks for, does not contain it any more");
                    moved().unwrap_or_else(|| kept(Some(former.clone()), Some(why)))
                }
                None => kept(Some(pool.name.clone()), None),
            };
        }
        if let Some(right) = moved() {
            return right;
        }
        if let Some(former) = self.config.former.get(&ip) {
            let why = format!("pool {:?} does not contain it any more", former.name);
            return kept(Some(of(&former.name)), Some(why));
        }
        if !self.config.pools_unknown.is_empty() {
            // While a pool object exists that we cannot read, the address may be of that pool: it stays.
            return kept(self.pool_remembered(entry, ip), None);
        }
        if entry.ips.contains(&ip) && !service.ingress.contains(&ip) {
            // Given out, but never written: nobody has seen it.
            return Right::Lost(not_allowed(ip, "").message);
        }
        Right::Foreign
    }

    /// Did the Service itself change so that it lost the right to an address of a pool in force?
    fn lost_by_own_change(&self, entry: &Entry, ip: IpAddr) -> Option<String> {
        let (before, now) = (entry.rare().changed_from.as_deref()?, &*entry.service);
        let pool = self.config.pool_of(ip)?;
        if self.allows(pool, before) && !self.allows(pool, now) {
            return Some(not_for_service(&pool.name).message);
        }
        let index = self.space.family(&pool.name, ip)?.reservation_of(ip)?;
        let matches = |service| self.claims.matching(service).contains(&index);
        let name = &self.claims.reservations[index].name;
        let why = format!("AddressReservation {name:?} is not for this Service any more");
        (matches(before) && !matches(now)).then(|| not_allowed(ip, &format!(": {why}")).message)
    }

    /// The pool that the Service asks for and that its addresses were given from, if an edit took all of them out of it.
    fn wish_lost(&self, entry: &Entry, ips: &[IpAddr]) -> Option<Arc<str>> {
        let wished = entry.service.annotations.address_pool.as_ref().filter(|a| !a.value.is_empty())?;
        let own = |pool: &str| *pool == *wished.value || self.paired(&wished.value, pool);
        // The annotation tells the pool of the first address, so that counts for all.
        let given = self.pool_remembered(entry, *ips.first()?).filter(|pool| own(pool))?;
        let now = ips.iter().filter_map(|ip| self.config.pool_of(*ip)).any(|pool| own(&pool.name));
        (!now).then(|| if *given == *wished.value { given } else { Arc::from(&*wished.value) })
    }

    /// The pool that an address was given from.
    fn pool_remembered(&self, entry: &Entry, ip: IpAddr) -> Option<Arc<str>> {
        let known = entry.ips.iter().position(|own| *own == ip).and_then(|at| entry.pools.get(at).cloned().flatten());
        let annotated = entry.service.annotations.allocated_from_pool.as_ref();
        known.or_else(|| annotated.map(|a| Arc::from(&*a.value)))
    }

    /// The status stays as it is: what in it is ours is held, what is not is told.
    fn foreign(&self, service: &Service, ip: IpAddr, rights: &[(IpAddr, Right)]) -> Verdict {
        let (mut ours, mut given_up) = (Vec::new(), Vec::new());
        for (ip, right) in rights {
            match right {
                Right::Foreign => {}
                Right::Kept(kept) if self.check_kept(*ip, service).is_ok() => ours.push(kept.clone()),
                Right::Kept(_) | Right::Lost(_) => given_up.push(*ip),
            }
        }
        let message = format!(
            "{:?} in the status never was in a pool of ours: it is neither announced nor changed; take it out of the status to get another, or add it to a pool",
            ip.to_string()
        );
        Verdict::Foreign { ours, given_up, message }
    }

    fn judge_current(&self, entry: &Entry, need: Need, request: &Request, rights: Vec<(IpAddr, Right)>) -> Verdict {
        let service = &*entry.service;
        let (mut kept, mut lost) = (Vec::new(), None);
        let all: Vec<IpAddr> = rights.iter().map(|(ip, _)| *ip).collect();
        for (_, right) in rights {
            match right {
                Right::Kept(one) => kept.push(one),
                Right::Lost(why) => lost = lost.or(Some(why)),
                Right::Foreign => {}
            }
        }
        if let Need::One(family) = need {
            kept.retain(|one| IpFamily::of(one.ip) == family);
        }
        trim(&mut kept, request);
        if let Some(why) = lost {
            let near = kept.iter().filter(|one| one.held.is_none()).map(|one| one.ip).collect();
            return Verdict::Seek { note: Some(cleared(&all, &why)), near };
        }
        if entry.outcome.is_none()
            && let Some(why) = self.too_many(request, &all)
        {
            return Verdict::Seek { note: Some(cleared(&all, &why)), near: Vec::new() };
        }
        let ips: Vec<IpAddr> = kept.iter().map(|one| one.ip).collect();
        let has = |family: IpFamily| ips.iter().any(|ip| IpFamily::of(*ip) == family);
        if ips.is_empty() || (need == Need::Both && !(has(IpFamily::V4) && has(IpFamily::V6))) {
            return Verdict::Seek { note: None, near: ips };
        }
        for ip in &ips {
            if let Err(why) = self.check_kept(*ip, service) {
                let holder = self.holdings.tenants(*ip).iter().find(|t| t.key != service.key);
                let near = ips.iter().copied().filter(|other| other != ip).collect();
                return Verdict::Seek { note: Some(taken(*ip, &why, holder.map(|t| &t.key))), near };
            }
        }
        let wished = |one: &Kept| {
            let pool = one.pool.as_deref();
            pool == Some(&*request.pool) || pool.is_some_and(|pool| self.paired(&request.pool, pool))
        };
        // One that came from a paired pool stays when the pair is parted.
        let unreadable = |one: &Kept| one.held.is_none() && self.config.pool_of(one.ip).is_none();
        // Whether it is of the pool that the Service asks for, nobody can tell while that cannot be read.
        let wishes = |s: &Service| s.annotations.address_pool.as_ref().map(|a| a.value.clone());
        let same = entry.rare().changed_from.as_ref().is_none_or(|before| wishes(before) == wishes(service));
        let unknown = same && kept.iter().any(unreadable);
        let elsewhere = !request.pool.is_empty() && !kept.iter().any(wished) && !unknown;
        if elsewhere || (!request.ips.is_empty() && request.ips != ips) {
            return Verdict::Seek { note: None, near: ips };
        }
        Verdict::Keep { kept, invalid: None }
    }

    /// May the Service hold an address that its status says it has, beside those who hold it? One who holds it already does
    /// not have to ask again: an edit of the rules takes nothing away.
    pub(super) fn check_kept(&self, ip: IpAddr, service: &Service) -> Result<(), String> {
        if self.holdings.is_held_by(ip, &service.key) {
            return Ok(());
        }
        // No Service comes from another namespace than before: that the rule became stricter parts nobody. By which rules a
        // pool that is gone let an address be shared, nobody knows after a start.
        let mixed = self.config.pool_of(ip).map_or(self.starting, |pool| rules(pool).mixed);
        let rules = SharingRules { same_namespace: false, mixed };
        let sharing = Sharing::of(service);
        self.holdings.check(ip, service, sharing.as_deref(), rules).map_err(|clash| clash.message)
    }

    /// Has a status more addresses of a family than the Service may have by any rule?
    fn too_many(&self, request: &Request, ips: &[IpAddr]) -> Option<String> {
        let several = request.per_family > 1 || !request.ips.is_empty();
        let [a, b] = ips.array_windows().find(|[a, b]| a.is_ipv4() == b.is_ipv4())?;
        let max = self.config.pool_of(*a).map_or(1, |pool| per_family_max(pool));
        (max == 1 && !several).then(|| same_family(*a, *b))
    }
}

/// Leaves what the Service asks for: the very addresses, or so many of each family, the lowest.
fn trim(kept: &mut Vec<Kept>, request: &Request) {
    if !request.ips.is_empty() {
        if request.ips.iter().all(|ip| kept.iter().any(|one| one.ip == *ip)) {
            kept.retain(|one| request.ips.contains(&one.ip));
        }
        return;
    }
    let (mut v4, mut v6) = (0, 0);
    kept.retain(|one| {
        let count = if one.ip.is_ipv4() { &mut v4 } else { &mut v6 };
        *count += 1;
        *count <= request.per_family
    });
}

fn cleared(ips: &[IpAddr], why: &str) -> Note {
    let ips = ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let message = format!("current IP for {ips:?} not allowed by config, will attempt for new IP assignment: {why}");
    Note { kind: NoteType::Normal, reason: "ClearAssignment", message }
}

fn taken(ip: IpAddr, why: &str, holder: Option<&ServiceKey>) -> Note {
    let holder = holder.map(ToString::to_string).unwrap_or_default();
    let message = format!(
        "current IP {:?} is held by {holder:?}, which comes first, will attempt for new IP assignment: {why}",
        ip.to_string()
    );
    Note { kind: NoteType::Warning, reason: "ClearAssignment", message }
}
