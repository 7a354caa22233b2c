//! Finding addresses for a Service that has none or too few, or explaining why there are none.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    Allocator, Entry,
    holdings::Sharing,
    ledger::{About, AccountId, labels_of},
    pick::{Lack, Picked, Seeker},
    request::{Need, Request, quoted},
    space::{PoolState, rules},
    waiting::{Interest, Queue},
};
use crate::{
    config::{Pool, any_selector_matches},
    model::{IpFamily, Service},
};

/// How many pools a message lists before it says "and more".
const POOLS_SHOWN_MAX: usize = 5;
/// How a Service is told what it may write to get more addresses of a family.
const MORE_ADDRESSES: &str = "addressesPerFamilyMax of a PoolPolicy allows more";

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

/// Addresses with their pools, IPv4 first.
pub(super) type Choice = Vec<(IpAddr, Arc<str>)>;

impl Allocator {
    /// Addresses that the Service may have, which it does not hold yet. `near`: those it had, which it keeps if it can.
    pub(super) fn choose(
        &self,
        service: &Service,
        need: Need,
        request: &Request,
        near: &[IpAddr],
    ) -> Result<Choice, Refusal> {
        if self.config.pools.is_empty() && self.config.pools_unknown.is_empty() {
            return Err(no_pools());
        }
        let seeker = Seeker { service, need, request, sharing: Sharing::of(service) };
        if !request.ips.is_empty() {
            return self.choose_requested(&seeker, near);
        }
        let pools = self.candidates(service, &request.pool);
        if !near.is_empty() {
            let pools = pools?;
            let found = self.choose_near(&seeker, near, &pools);
            // What it had stands in the way of another choice until it has been given up.
            return found.ok_or_else(|| Refusal::new("waiting", String::new()));
        }
        let reserved = self.with_reservations(service, &request.pool);
        for families in need.choices() {
            for state in &reserved {
                if let Some(found) = self.attempt(&seeker, state, families, &[])
                    && found.reserved > 0
                {
                    return Ok(in_order(found));
                }
            }
        }
        let pools = match pools {
            Err(mut refusal) => {
                refusal.interest.queues = self.with_claims(&seeker, &reserved);
                return Err(refusal);
            }
            Ok(pools) => pools,
        };
        for families in need.choices() {
            for state in &pools {
                if let Some(found) = self.attempt(&seeker, state, families, &[]) {
                    return Ok(in_order(found));
                }
            }
        }
        let mut refusal = self.exhausted(&seeker, &pools);
        refusal.interest.queues.extend(self.with_claims(&seeker, &reserved));
        refusal.interest.queues.sort();
        refusal.interest.queues.dedup();
        Err(refusal)
    }

    /// What somebody waits for who has reservations: they are, and what else their pools lack.
    fn with_claims(&self, seeker: &Seeker<'_>, reserved: &[&PoolState]) -> Vec<Queue> {
        let key = &seeker.service.key;
        let mut queues: Vec<Queue> = self.claims.of(key).iter().copied().map(Queue::Reservation).collect();
        for state in reserved {
            let pair = self.pair_of(state, seeker.service);
            for pool in [Some(*state), pair].into_iter().flatten().map(|state| &state.pool.name) {
                let families = seeker.need.choices().first().into_iter().copied().flatten();
                queues.extend(families.map(|family| Queue::Pool(pool.clone(), *family)));
                queues.extend(self.ledger.quotas_of(pool, key.namespace()).iter().copied().map(Queue::Account));
            }
        }
        queues
    }

    /// The pools in which something is reserved for the Service, in the order of the reservations' names.
    fn with_reservations(&self, service: &Service, requested: &str) -> Vec<&PoolState> {
        let mut pools: Vec<&PoolState> = Vec::new();
        for index in self.claims.of(&service.key) {
            let Some(state) = self.space.pools.get(&self.claims.reservations[*index].pool) else { continue };
            let wanted = requested.is_empty() || *state.pool.name == *requested;
            let known = pools.iter().any(|known| known.pool.name == state.pool.name);
            if wanted && !known && self.allows(&state.pool, service) {
                pools.push(state);
            }
        }
        pools
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

    fn choose_requested(&self, seeker: &Seeker<'_>, near: &[IpAddr]) -> Result<Choice, Refusal> {
        let (service, ips) = (seeker.service, &seeker.request.ips);
        if !seeker.need.is_met_by_request(ips) {
            let message =
                format!("requested loadBalancer IP(s) {} does not match the ipFamily of the service", quoted(ips));
            return Err(Refusal::new("requestFamilyMismatch", message));
        }
        let mut found = Choice::new();
        for ip in ips {
            found.push((*ip, self.pool_requested(*ip, &found)?.name.clone()));
        }
        let requested = &seeker.request.pool;
        let own = |pool: &Arc<str>| **pool == **requested || self.paired(requested, pool);
        if !requested.is_empty()
            && let Some((_, pool)) = found.iter().find(|(_, pool)| !own(pool))
        {
            let message = format!(
                "requested loadBalancer IP(s) {} is not compatible with requested address pool {requested}: pool {pool:?} contains them",
                quoted(ips),
            );
            return Err(Refusal::new("requestPoolMismatch", message));
        }
        for (_, pool) in &found {
            if !self.config.pools.get(pool).is_some_and(|pool| self.allows(pool, service)) {
                return Err(not_for_service(pool));
            }
        }
        for (ip, pool) in &found {
            let had = near.contains(ip);
            self.check_requested(seeker, *ip, pool, had).map_err(|mut refusal| {
                refusal.interest.ips.clone_from(ips);
                refusal
            })?;
        }
        self.check_numbers(seeker, &found, near).map_err(|mut refusal| {
            refusal.interest.ips.clone_from(ips);
            refusal
        })?;
        self.check_quotas(seeker, &found)?;
        Ok(found)
    }

    /// The pool of a requested address, beside those requested before it.
    fn pool_requested(&self, ip: IpAddr, before: &[(IpAddr, Arc<str>)]) -> Result<&Arc<Pool>, Refusal> {
        let Some(pool) = self.config.pool_of(ip) else {
            return Err(not_allowed(ip, ": no pool contains it"));
        };
        if self.space.pools.get(&pool.name).is_some_and(|state| state.avoids(ip)) {
            let why =
                format!(": pool {:?} has avoidBuggyIPs and gives out no address that ends in .0 or .255", pool.name);
            return Err(not_allowed(ip, &why));
        }
        let paired = |other: &Arc<str>| self.paired(other, &pool.name) || self.paired(&pool.name, other);
        let other = before.iter().find(|(_, other)| *other != pool.name && !paired(other));
        if let Some((_, other)) = other {
            let why = format!(
                ": it is in pool {:?} and the other address in pool {other:?}, both must be in one or pairWith of a PoolPolicy must join them",
                pool.name
            );
            return Err(not_allowed(ip, &why));
        }
        Ok(pool)
    }

    /// May `pool` be completed from `pair`?
    pub(super) fn paired(&self, pool: &str, pair: &str) -> bool {
        let policy = self.config.pools.get(pool).and_then(|pool| pool.policy.as_ref());
        policy.is_some_and(|policy| policy.pair_with.as_deref() == Some(pair))
    }

    /// May the Service have this address of the pool, quotas aside? `had`: it had it until now.
    fn check_requested(&self, seeker: &Seeker<'_>, ip: IpAddr, pool: &Arc<str>, had: bool) -> Result<(), Refusal> {
        let (key, claims) = (&seeker.service.key, self.claims.of(&seeker.service.key));
        let Some(family) = self.space.family(pool, ip) else { return Err(not_allowed(ip, "")) };
        if family.withholds(ip) && !had {
            let message = format!("{:?} is withheld by noNewAddresses of the policy of pool {pool:?}", ip.to_string());
            return Err(Refusal::new("addressWithheld", message));
        }
        let reserved = |why: String| Err(Refusal::new("addressReserved", format!("{:?} is {why}", ip.to_string())));
        if let Some(index) = family.reservation_of(ip).filter(|index| !claims.contains(index) && !had) {
            return reserved(format!("reserved by AddressReservation {:?}", self.claims.reservations[index].name));
        }
        if let Some(cooling) = self.remembered.cooling(ip).filter(|cooling| cooling.service != *key) {
            let name = &cooling.reservation;
            return reserved(format!("kept for {} by releaseAfter of AddressReservation {name:?}", cooling.service));
        }
        if self.undecided.contains(&ip) && !had {
            return Err(Refusal::new("addressInUse", format!("{:?} is in use", ip.to_string())));
        }
        if let Some(held) = self.config.pools.get(pool)
            && !self.holdings.is_held_by(ip, key)
            && let Err(clash) = self.holdings.check(ip, seeker.service, seeker.sharing.as_deref(), rules(held))
        {
            return Err(Refusal::new(clash.code, clash.message));
        }
        Ok(())
    }

    /// Do these addresses leave as many free as are reserved by number for others? `near`: those that the Service had.
    fn check_numbers(&self, seeker: &Seeker<'_>, found: &[(IpAddr, Arc<str>)], near: &[IpAddr]) -> Result<(), Refusal> {
        let mut taken: BTreeMap<(&Arc<str>, IpFamily), u64> = BTreeMap::new();
        for (ip, pool) in found {
            let listed = self.space.family(pool, *ip).is_some_and(|family| family.reservation_of(*ip).is_some());
            let free = !self.holdings.is_held(*ip) && self.remembered.cooling(*ip).is_none();
            if free && !listed && !near.contains(ip) {
                *taken.entry((pool, IpFamily::of(*ip))).or_default() += 1;
            }
        }
        for ((pool, family), count) in taken {
            let all = self.ledger.outstanding(pool, family);
            let accounts = self.claims.of(&seeker.service.key).iter().filter_map(|r| self.ledger.of_reservation(*r));
            let own = accounts.map(|id| self.ledger.get(id)).filter(|account| {
                account.pool == *pool && matches!(account.about, About::Reservation(_, f) if f == family)
            });
            let mine: u64 = own.map(|account| account.max.saturating_sub(account.used)).sum();
            let free = self.space.pools.get(pool).map_or(0, |state| state.family(family).general_free());
            let spare = free.saturating_sub(u128::from(all)).saturating_add(u128::from(mine));
            if u128::from(count) > spare {
                let ips = quoted(&seeker.request.ips);
                let message = format!("{ips} is free, but all that is free in pool {pool:?} is reserved for others");
                let interest = Interest { queues: vec![Queue::Pool(pool.clone(), family)], ..Interest::default() };
                return Err(Refusal { code: "addressReserved", message, interest });
            }
        }
        Ok(())
    }

    /// Is there room for these addresses in every quota?
    fn check_quotas(&self, seeker: &Seeker<'_>, found: &[(IpAddr, Arc<str>)]) -> Result<(), Refusal> {
        let mut needed: BTreeMap<AccountId, u64> = BTreeMap::new();
        for (ip, pool) in found {
            let counted = self.ledger.accounts_of(pool, *ip, self.holdings.tenants(*ip), &self.claims);
            let quotas = self.ledger.quotas_of(pool, seeker.service.key.namespace()).iter();
            quotas.filter(|id| counted.binary_search(id).is_err()).for_each(|id| *needed.entry(*id).or_default() += 1);
        }
        let short = needed.into_iter().find(|(id, count)| {
            let account = self.ledger.get(*id);
            account.used.saturating_add(*count) > account.max
        });
        let Some((id, _)) = short else { return Ok(()) };
        let queues = vec![Queue::Account(id)];
        let interest = Interest { queues, ips: seeker.request.ips.clone(), sharing: None };
        Err(Refusal { code: "quotaReached", message: self.quota_in_words(id), interest })
    }

    /// Keeps those of `near` that it may and adds what is missing from their own pool, if that may serve.
    fn choose_near(&self, seeker: &Seeker<'_>, near: &[IpAddr], pools: &[&PoolState]) -> Option<Choice> {
        let pool = self.config.pool_of(*near.first()?)?;
        let state = self.space.pools.get(&pool.name).filter(|s| pools.iter().any(|p| p.pool.name == s.pool.name))?;
        let mut seed = Choice::new();
        for ip in near {
            let pool = self.config.pool_of(*ip)?;
            seed.push((*ip, pool.name.clone()));
        }
        seeker.need.choices().iter().find_map(|families| {
            let needed = seed.iter().all(|(ip, _)| families.contains(&IpFamily::of(*ip)));
            let found = needed.then(|| self.attempt(seeker, state, families, &seed)).flatten()?;
            Some(in_order(found))
        })
    }

    /// What a Service lacks that keeps what it has: from the pool of its first address or the one that is paired with it.
    pub(super) fn choose_additional(&self, entry: &Entry, need: Need, request: &Request) -> Result<Choice, Refusal> {
        let nothing = || Refusal::new("allocated", String::new());
        let service = &*entry.service;
        let ip = entry.ips.first().filter(|_| entry.rare().held.is_empty()).ok_or_else(nothing)?;
        let pool =
            if request.pool.is_empty() { self.config.pool_of(*ip) } else { self.config.pools.get(&request.pool[..]) };
        let pool = pool.filter(|pool| self.allows(pool, service)).ok_or_else(nothing)?;
        let state = self.space.pools.get(&pool.name).ok_or_else(nothing)?;
        let seeker = Seeker { service, need, request, sharing: Sharing::of(service) };
        let seed: Choice = entry.ips.iter().copied().zip(entry.pools.iter().flatten().cloned()).collect();
        let families = need.choices().first().copied().unwrap_or_default();
        let (picked, mut lacks) = self.complete(&seeker, state, families, &seed);
        if picked.ips.len() > seed.len() {
            return Ok(in_order(picked));
        }
        lacks.retain(|(_, lack)| *lack != Lack::Missing);
        let Some((family, lack)) = lacks.first() else { return Err(nothing()) };
        let mut refusal = Refusal::new("allocated", self.in_words(*lack, *family, &[format!("{:?}", pool.name)]));
        refusal.interest = self.interest(&seeker, state, *family, *lack);
        refusal.interest.sharing = seeker.sharing.as_ref().map(|sharing| sharing.key.clone());
        Err(refusal)
    }

    /// May the Service use the pool?
    pub(super) fn allows(&self, pool: &Pool, service: &Service) -> bool {
        let Some(allocation) = &pool.allocation else { return true };
        let namespace = service.key.namespace();
        let namespace_matches = || {
            (allocation.namespaces.is_empty() && allocation.namespace_selectors.is_empty())
                || allocation.namespaces.contains(namespace)
                || (!allocation.namespace_selectors.is_empty() && {
                    let labels = labels_of(&self.namespaces, namespace);
                    allocation.namespace_selectors.iter().any(|s| s.matches(&labels))
                })
        };
        namespace_matches() && any_selector_matches(&allocation.service_selectors, &service.labels)
    }

    /// Says which families of which pools are used up, and what to wait for.
    fn exhausted(&self, seeker: &Seeker<'_>, pools: &[&PoolState]) -> Refusal {
        let sharing = seeker.sharing.as_ref().map(|sharing| sharing.key.clone());
        let mut interest = Interest { sharing, ..Interest::default() };
        // By what is lacking and of which families, in a fixed order.
        let mut groups: Vec<(Lack, Vec<IpFamily>, Vec<String>)> = Vec::new();
        for state in pools {
            let Some(lacking) = self.lacking(seeker, state) else { continue };
            // With both families required from one pool, one that is missing is enough to wait for.
            let alone = self.pair_of(state, seeker.service).is_none();
            let awaited = if alone && seeker.need == Need::Both { 1 } else { lacking.len() };
            for (family, lack) in lacking.iter().take(awaited) {
                interest.queues.extend(self.interest(seeker, state, *family, *lack).queues);
            }
            for (family, lack) in lacking {
                let name = format!("{:?}", state.pool.name);
                let same = |group: &&mut (Lack, Vec<IpFamily>, Vec<String>)| group.0 == lack;
                match groups.iter_mut().find(same) {
                    Some((_, families, names)) => {
                        if !families.contains(&family) {
                            families.push(family);
                        }
                        if !names.contains(&name) {
                            names.push(name);
                        }
                    }
                    None => groups.push((lack, vec![family], vec![name])),
                }
            }
        }
        let code = groups.iter().map(|(lack, ..)| lack.code()).max_by_key(|code| weight(code));
        let Some(code) = code else { return self.family_missing(seeker, pools, interest) };
        let parts = groups.iter().map(|(lack, families, names)| match families[..] {
            [family] => self.in_words(*lack, family, names),
            _ => self.in_words_of_both(*lack, names),
        });
        Refusal { code, message: parts.collect::<Vec<_>>().join("; "), interest }
    }

    /// The families that keep a pool from serving, and why; `None`: it has not the families that are needed.
    pub(super) fn lacking(&self, seeker: &Seeker<'_>, state: &PoolState) -> Option<Vec<(IpFamily, Lack)>> {
        let families: &[IpFamily] = seeker.need.choices().first()?;
        let (_, mut lacks) = self.complete(seeker, state, families, &[]);
        if let Some(pair) = self.pair_of(state, seeker.service).filter(|_| families.len() > 1) {
            lacks.retain_mut(|(family, lack)| {
                if *lack != Lack::Missing {
                    return true;
                }
                let of_pair = self.pick_all(seeker, pair, *family, seeker.request.per_family, &mut Picked::default());
                *lack = of_pair.err().unwrap_or(Lack::Missing);
                of_pair.is_err()
            });
        }
        let missing = lacks.iter().filter(|(_, lack)| *lack == Lack::Missing).count();
        let able = if matches!(seeker.need, Need::Prefer(_)) { missing < families.len() } else { missing == 0 };
        lacks.retain(|(_, lack)| *lack != Lack::Missing);
        able.then_some(lacks)
    }

    /// What to wait for where something is lacking.
    fn interest(&self, seeker: &Seeker<'_>, state: &PoolState, family: IpFamily, lack: Lack) -> Interest {
        let mut queues = vec![match lack {
            Lack::Quota(id) => Queue::Account(id),
            _ => Queue::Pool(state.pool.name.clone(), family),
        }];
        queues.extend(self.claims.of(&seeker.service.key).iter().copied().map(Queue::Reservation));
        if let Some(pair) = self.pair_of(state, seeker.service) {
            // Either pool may give either family: what helps may be the other one than what was found lacking.
            for family in seeker.need.choices().first().into_iter().copied().flatten() {
                let pools = [&state.pool.name, &pair.pool.name];
                queues.extend(pools.map(|pool| Queue::Pool(pool.clone(), *family)));
            }
            let quotas = self.ledger.quotas_of(&pair.pool.name, seeker.service.key.namespace());
            queues.extend(quotas.iter().copied().map(Queue::Account));
        }
        Interest { queues, ..Interest::default() }
    }

    fn family_missing(&self, seeker: &Seeker<'_>, pools: &[&PoolState], interest: Interest) -> Refusal {
        let wanted = match seeker.need {
            Need::One(family) => family.to_string(),
            Need::Both => "dual-stack (IPv4 and IPv6)".to_owned(),
            Need::Prefer(_) => "IPv4 or IPv6".to_owned(),
        };
        let names = shown(pools.iter().map(|state| format!("{:?}", state.pool.name)));
        let message = format!("no suitable pool for {wanted} IPFamily: pool {names} has no such addresses");
        Refusal { code: "poolFamilyMissing", message, interest }
    }

    /// What is lacking in pools, whose names are quoted already.
    pub(super) fn in_words(&self, lack: Lack, family: IpFamily, names: &[String]) -> String {
        let (plural, list) = (if names.len() > 1 { "pools" } else { "pool" }, shown(names.iter().cloned()));
        match lack {
            Lack::Missing => format!("{plural} {list} has no {family} addresses"),
            Lack::Full => format!("no available IPs in {plural} {list} for {family} IPFamily"),
            Lack::Reserved => {
                format!("no available IPs in {plural} {list} for {family} IPFamily: what is free is reserved")
            }
            Lack::Quota(id) => self.quota_in_words(id),
            Lack::TooMany(max) => {
                let addresses = if max == 1 { "address" } else { "addresses" };
                format!("{plural} {list} gives a Service {max} {addresses} per family and no more: {MORE_ADDRESSES}")
            }
        }
    }

    fn in_words_of_both(&self, lack: Lack, names: &[String]) -> String {
        let both = format!("{} and {}", IpFamily::V4, IpFamily::V6);
        self.in_words(lack, IpFamily::V4, names).replace(&IpFamily::V4.to_string(), &both)
    }

    fn quota_in_words(&self, id: AccountId) -> String {
        let account = self.ledger.get(id);
        let whom = match &account.about {
            About::Quota(selector) => selector.to_string(),
            About::Reservation(..) => String::new(),
        };
        let (max, pool) = (account.max, &account.pool);
        format!("the quota of {max} for namespaces {whom} in pool {pool:?} is used up: {} are in use", account.used)
    }
}

impl Lack {
    /// The code for a Service that lacks it.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Missing => "poolFamilyMissing",
            Self::Full | Self::Reserved => "poolExhausted",
            Self::Quota(_) => "quotaReached",
            Self::TooMany(_) => "tooManyAddresses",
        }
    }
}

/// Which of several codes says most: a quota, then a used up pool.
fn weight(code: &str) -> u8 {
    match code {
        "quotaReached" => 2,
        "poolExhausted" => 1,
        _ => 0,
    }
}

fn in_order(mut found: Picked) -> Choice {
    found.ips.sort_unstable();
    found.ips
}

/// There is no pool at all.
pub(super) fn no_pools() -> Refusal {
    Refusal::new("noPools", "there is no pool: create an IPAddressPool".to_owned())
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
