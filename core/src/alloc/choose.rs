//! Finding an address for a Service that has none, or explaining why there is none.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    Allocator,
    holdings::Sharing,
    request::{Need, Request, quoted},
    space::PoolState,
    waiting::Interest,
};
use crate::{
    config::{Pool, any_selector_matches},
    model::{IpFamily, Labels, Service},
};

/// How many pools a message lists before it says "and more".
const POOLS_SHOWN_MAX: usize = 5;
/// The label that every Namespace carries (set by the API server).
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Why there is no address.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) interest: Interest,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: String) -> Self {
        Self { code, message, interest: Interest::default() }
    }
}

/// Addresses (IPv4 first) and their pool.
pub(super) type Choice = (Vec<IpAddr>, Arc<str>);

impl Allocator {
    /// Addresses that the Service may have, which it does not hold yet. `near`: an address it had, whose pool is tried first.
    pub(super) fn choose(
        &self,
        service: &Service,
        need: Need,
        request: &Request,
        near: Option<IpAddr>,
    ) -> Result<Choice, Refusal> {
        if !request.ips.is_empty() {
            return self.choose_requested(service, need, request);
        }
        let sharing = Sharing::of(service);
        let pools = self.candidates(service, &request.pool)?;
        if let Some(ip) = near
            && let Some(found) = self.choose_near(service, need, sharing.as_ref(), ip, &pools)
        {
            return Ok(found);
        }
        for families in need.choices() {
            for state in &pools {
                if let Some(ips) = self.pick(state, service, sharing.as_ref(), families) {
                    return Ok((ips, state.pool.name.clone()));
                }
            }
        }
        Err(self.exhausted(service, need, sharing, &pools))
    }

    /// The pools that may serve, in the order in which they are tried.
    fn candidates(&self, service: &Service, requested: &str) -> Result<Vec<&PoolState>, Refusal> {
        if requested.is_empty() {
            let automatic = self.space.automatic.iter().filter_map(|name| self.space.pools.get(name));
            let pools: Vec<&PoolState> = automatic.filter(|state| self.allows(&state.pool, service)).collect();
            if pools.is_empty() {
                let why = self.space.pools.values().map(|state| match state.pool.auto_assign {
                    true => format!("pool {:?} is for other namespaces or Services", state.pool.name),
                    false => format!("pool {:?} serves only requests that name it", state.pool.name),
                });
                let message = format!("no available IPs: {}", shown(why));
                return Err(Refusal::new("poolNotForService", message));
            }
            return Ok(pools);
        }
        let Some(state) = self.space.pools.get(requested) else {
            let invalid = self.config.pools_unknown.contains_key(requested);
            let hint = if invalid { ": it exists, but is invalid" } else { "" };
            return Err(Refusal::new("unknownPool", format!("unknown pool {requested:?}{hint}")));
        };
        if !self.allows(&state.pool, service) {
            return Err(not_for_service(requested));
        }
        Ok(vec![state])
    }

    fn choose_requested(&self, service: &Service, need: Need, request: &Request) -> Result<Choice, Refusal> {
        let ips = &request.ips;
        if !need.is_met_by_request(ips) {
            let message =
                format!("requested loadBalancer IP(s) {} does not match the ipFamily of the service", quoted(ips));
            return Err(Refusal::new("requestFamilyMismatch", message));
        }
        let mut pool: Option<&Arc<Pool>> = None;
        for ip in ips {
            let Some(own) = self.config.pool_of(*ip) else {
                return Err(not_allowed(*ip, ": no pool contains it"));
            };
            if self.space.pools.get(&own.name).is_some_and(|state| state.avoids(*ip)) {
                let why =
                    format!(": pool {:?} has avoidBuggyIPs and gives out no address that ends in .0 or .255", own.name);
                return Err(not_allowed(*ip, &why));
            }
            if let Some(other) = pool.filter(|other| other.name != own.name) {
                let why = format!(
                    ": it is in pool {:?} and the other address in pool {:?}, both must be in one",
                    own.name, other.name
                );
                return Err(not_allowed(*ip, &why));
            }
            pool = Some(own);
        }
        let Some(pool) = pool else { return Err(Refusal::new("invalidRequest", "no address requested".to_owned())) };
        if !request.pool.is_empty() && *request.pool != *pool.name {
            let message = format!(
                "requested loadBalancer IP(s) {} is not compatible with requested address pool {}: pool {:?} contains them",
                quoted(ips),
                request.pool,
                pool.name
            );
            return Err(Refusal::new("requestPoolMismatch", message));
        }
        if !self.allows(pool, service) {
            return Err(not_for_service(&pool.name));
        }
        let sharing = Sharing::of(service);
        for ip in ips {
            if let Err(clash) = self.holdings.check(*ip, service, sharing.as_ref()) {
                let interest = Interest { ips: ips.clone(), ..Interest::default() };
                return Err(Refusal { code: clash.code, message: clash.message, interest });
            }
        }
        Ok((ips.clone(), pool.name.clone()))
    }

    /// Keeps `ip` and adds what is missing from its own pool, if that may serve.
    fn choose_near(
        &self,
        service: &Service,
        need: Need,
        sharing: Option<&Arc<Sharing>>,
        ip: IpAddr,
        pools: &[&PoolState],
    ) -> Option<Choice> {
        let pool = self.config.pool_of(ip)?;
        let state = self.space.pools.get(&pool.name).filter(|s| pools.iter().any(|p| p.pool.name == s.pool.name))?;
        self.holdings.check(ip, service, sharing).ok()?;
        let mut ips = vec![ip];
        if need == Need::Both {
            ips.push(self.lowest_usable(state, service, sharing, other_family(IpFamily::of(ip)))?);
        }
        ips.sort_unstable();
        Some((ips, pool.name.clone()))
    }

    fn pick(
        &self,
        state: &PoolState,
        service: &Service,
        sharing: Option<&Arc<Sharing>>,
        families: &[IpFamily],
    ) -> Option<Vec<IpAddr>> {
        families.iter().map(|family| self.lowest_usable(state, service, sharing, *family)).collect()
    }

    /// The lowest address of the pool that is free or that the Service may share.
    pub(super) fn lowest_usable(
        &self,
        state: &PoolState,
        service: &Service,
        sharing: Option<&Arc<Sharing>>,
        family: IpFamily,
    ) -> Option<IpAddr> {
        let free = state.lowest_free(family);
        let shareable = sharing.and_then(|sharing| {
            self.holdings
                .shared(sharing, &service.ports)
                .filter(|ip| IpFamily::of(*ip) == family)
                .take_while(|ip| free.is_none_or(|free| *ip < free))
                .filter(|ip| self.config.pool_of(*ip).is_some_and(|p| p.name == state.pool.name) && !state.avoids(*ip))
                .find(|ip| self.holdings.check(*ip, service, Some(sharing)).is_ok())
        });
        shareable.or(free)
    }

    /// May the Service use the pool?
    pub(super) fn allows(&self, pool: &Pool, service: &Service) -> bool {
        let Some(allocation) = &pool.allocation else { return true };
        let namespace = service.key.namespace();
        let namespace_matches = || {
            (allocation.namespaces.is_empty() && allocation.namespace_selectors.is_empty())
                || allocation.namespaces.contains(namespace)
                || match self.namespaces.get(namespace) {
                    Some(labels) => allocation.namespace_selectors.iter().any(|s| s.matches(labels)),
                    None => {
                        let labels: Labels = [(NAMESPACE_NAME_LABEL, namespace)].into_iter().collect();
                        allocation.namespace_selectors.iter().any(|s| s.matches(&labels))
                    }
                }
        };
        namespace_matches() && any_selector_matches(&allocation.service_selectors, &service.labels)
    }

    /// Says which families of which pools are used up, and what to wait for.
    fn exhausted(&self, service: &Service, need: Need, sharing: Option<Arc<Sharing>>, pools: &[&PoolState]) -> Refusal {
        let mut interest = Interest { sharing, ..Interest::default() };
        let mut full: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for state in pools {
            let families: &[IpFamily] = need.choices()[0];
            let present: Vec<IpFamily> = families.iter().copied().filter(|f| state.has(*f)).collect();
            let able =
                if matches!(need, Need::Prefer(_)) { !present.is_empty() } else { present.len() == families.len() };
            if !able {
                continue;
            }
            let lacking: Vec<IpFamily> = present
                .into_iter()
                .filter(|f| self.lowest_usable(state, service, interest.sharing.as_ref(), *f).is_none())
                .collect();
            let words = lacking.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            full.entry(words).or_default().push(format!("{:?}", state.pool.name));
            // With both families required, one that is missing is enough to wait for.
            let awaited = if need == Need::Both { 1 } else { lacking.len() };
            interest.pools.extend(lacking.into_iter().take(awaited).map(|f| (state.pool.name.clone(), f)));
        }
        if full.is_empty() {
            let wanted = match need {
                Need::One(family) => family.to_string(),
                Need::Both => "dual-stack (IPv4 and IPv6)".to_owned(),
                Need::Prefer(_) => "IPv4 or IPv6".to_owned(),
            };
            let names = shown(pools.iter().map(|state| format!("{:?}", state.pool.name)));
            let message = format!("no suitable pool for {wanted} IPFamily: pool {names} has no such addresses");
            return Refusal::new("poolFamilyMissing", message);
        }
        let parts = full.into_iter().map(|(families, names)| {
            let plural = if names.len() > 1 { "pools" } else { "pool" };
            format!("{plural} {} for {families} IPFamily", shown(names))
        });
        Refusal { code: "poolExhausted", message: format!("no available IPs in {}", shown(parts)), interest }
    }
}

/// The one that `family` is not.
pub(super) fn other_family(family: IpFamily) -> IpFamily {
    match family {
        IpFamily::V4 => IpFamily::V6,
        IpFamily::V6 => IpFamily::V4,
    }
}

/// MetalLB's words for an address that no pool gives out.
pub(super) fn not_allowed(ip: IpAddr, why: &str) -> Refusal {
    Refusal::new("addressNotInPools", format!("{:?} is not allowed in config{why}", ip.to_string()))
}

/// MetalLB's words for a pool whose `serviceAllocation` excludes the Service.
pub(super) fn not_for_service(pool: &str) -> Refusal {
    let message = format!("pool {pool} not compatible for ip assignment: its serviceAllocation excludes this Service");
    Refusal::new("poolNotForService", message)
}

fn shown(items: impl IntoIterator<Item = String>) -> String {
    let mut items = items.into_iter();
    let mut list = items.by_ref().take(POOLS_SHOWN_MAX).collect::<Vec<_>>().join(", ");
    if items.next().is_some() {
        list.push_str(" and more");
    }
    list
}
