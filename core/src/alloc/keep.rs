//! Judging whether a Service may keep the addresses that it has.
use std::{net::IpAddr, sync::Arc};

use super::{
    Allocator, Entry, Note, NoteType,
    choose::{not_allowed, not_for_service},
    holdings::Sharing,
    request::{self, Need, Request},
};
use crate::model::{IpFamily, Service};

/// What becomes of the addresses that a Service has.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It gets none, whatever is free.
    Nothing { code: &'static str, note: Option<Note> },
    /// It keeps these. `code` and `note` say whether something is wrong all the same.
    Keep { ips: Vec<IpAddr>, pool: Option<Arc<str>>, code: &'static str, note: Option<Note> },
    /// It has none, or none that it may keep, which `note` tells. `near`: one whose pool is tried first.
    Seek { note: Option<Note>, near: Option<IpAddr> },
}

const SEEK: Verdict = Verdict::Seek { note: None, near: None };

impl Allocator {
    /// Judges one Service by itself and by who else holds its addresses. Until an outcome has been reported, its status
    /// says which addresses it has; afterwards the allocator's memory does.
    pub(super) fn judge(&self, entry: &Entry) -> Verdict {
        let service = &*entry.service;
        if self.config.pools.is_empty() && self.config.pools_unknown.is_empty() {
            return Verdict::Nothing { code: "noPools", note: None };
        }
        let need = match request::need(service) {
            Ok(need) => need,
            Err((code, note)) => return Verdict::Nothing { code, note },
        };
        let current = if entry.outcome.is_some() { &entry.ips } else { &service.ingress };
        let (request, invalid) = match request::request(service) {
            Ok(request) => (request, None),
            Err(why) => {
                let message = format!("invalid requested loadbalancer IPs: {why}");
                let note = Note { kind: NoteType::Warning, reason: "LoadBalancerFailed", message };
                (Request::default(), Some(note))
            }
        };
        let verdict = self.judge_current(service, need, &request, current, entry.pool.clone());
        match (verdict, invalid) {
            (verdict, None) => verdict,
            (Verdict::Keep { ips, pool, .. }, note) => Verdict::Keep { ips, pool, code: "invalidRequest", note },
            (_, note) => Verdict::Nothing { code: "invalidRequest", note },
        }
    }

    fn judge_current(
        &self,
        service: &Service,
        need: Need,
        request: &Request,
        current: &[IpAddr],
        remembered_pool: Option<Arc<str>>,
    ) -> Verdict {
        let mut ips = current.to_vec();
        ips.sort_unstable();
        ips.dedup();
        if ips.is_empty() {
            return SEEK;
        }
        if let Some([a, b]) = ips.array_windows().find(|[a, b]| a.is_ipv4() == b.is_ipv4()) {
            return cleared(&ips, &format!("{:?} {:?} has the same family", a.to_string(), b.to_string()));
        }
        match need {
            Need::One(family) => ips.retain(|ip| IpFamily::of(*ip) == family),
            Need::Both if ips.len() == 1 => return Verdict::Seek { note: None, near: ips.first().copied() },
            Need::Both | Need::Prefer(_) => {}
        }
        if ips.is_empty() {
            return SEEK;
        }
        let pool = match self.pool_kept(service, &ips, remembered_pool) {
            Ok(pool) => pool,
            Err(why) => return cleared(&ips, &why),
        };
        let sharing = Sharing::of(service);
        for ip in &ips {
            if let Err(clash) = self.holdings.check(*ip, service, sharing.as_ref()) {
                return taken(*ip, &clash.message, self.holdings.holders(*ip).iter().find(|h| **h != service.key));
            }
        }
        let elsewhere = !request.pool.is_empty() && pool.as_deref() != Some(&*request.pool);
        if elsewhere || (!request.ips.is_empty() && request.ips != ips) {
            return SEEK;
        }
        Verdict::Keep { ips, pool, code: "allocated", note: None }
    }

    /// The pool by whose right the Service keeps `ips`, or why there is none. While a pool object exists that we cannot
    /// read, the address may be of that pool: it stays, and the Service's annotation says which pool it was.
    fn pool_kept(
        &self,
        service: &Service,
        ips: &[IpAddr],
        remembered: Option<Arc<str>>,
    ) -> Result<Option<Arc<str>>, String> {
        let pools: Vec<_> = ips.iter().map(|ip| self.config.pool_of(*ip)).collect();
        let outside = pools.iter().position(Option::is_none);
        let divided = pools.iter().flatten().any(|p| pools.iter().flatten().next().is_some_and(|q| q.name != p.name));
        let unknown = !self.config.pools_unknown.is_empty();
        if (outside.is_some() || divided) && !unknown {
            let ip = outside.map_or(ips[0], |at| ips[at]);
            return Err(not_allowed(ip, if divided { ": the addresses are in different pools" } else { "" }).message);
        }
        for pool in pools.iter().flatten() {
            if !self.allows(pool, service) {
                return Err(not_for_service(&pool.name).message);
            }
        }
        if outside.is_none() && !divided {
            return Ok(pools[0].map(|p| p.name.clone()));
        }
        let annotated = service.annotations.allocated_from_pool.as_ref().map(|a| Arc::from(&*a.value));
        Ok(remembered.or(annotated))
    }
}

fn cleared(ips: &[IpAddr], why: &str) -> Verdict {
    let ips = ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let message = format!("current IP for {ips:?} not allowed by config, will attempt for new IP assignment: {why}");
    Verdict::Seek { note: Some(Note { kind: NoteType::Normal, reason: "ClearAssignment", message }), near: None }
}

fn taken(ip: IpAddr, why: &str, holder: Option<&crate::model::ServiceKey>) -> Verdict {
    let holder = holder.map(ToString::to_string).unwrap_or_default();
    let message = format!(
        "current IP {:?} is held by {holder:?}, which comes first, will attempt for new IP assignment: {why}",
        ip.to_string()
    );
    Verdict::Seek { note: Some(Note { kind: NoteType::Warning, reason: "ClearAssignment", message }), near: None }
}
