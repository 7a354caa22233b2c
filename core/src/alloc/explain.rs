//! Every pool as it looked to one Service.
use super::{
    Allocator, Considered, Entry,
    choose::not_for_service,
    holdings::Sharing,
    pick::Seeker,
    request::{self, quoted},
    space::PoolState,
};
use crate::model::IpFamily;

/// The pools and reservations in the order in which they are tried for the Service: what is reserved for it, what serves
/// everybody, what serves only requests.
pub(super) fn considered(allocator: &Allocator, entry: &Entry) -> Vec<Considered> {
    let service = &*entry.service;
    let seeker = match (request::need(service), allocator.request_of(service)) {
        (Err(no), _) => Err((no.code, no.message)),
        (_, Err(why)) => Err(("invalidRequest", why)),
        (Ok(need), Ok(request)) => Ok((need, request)),
    };
    let space = &allocator.space;
    let automatic = space.automatic.iter().filter_map(|name| space.pools.get(name));
    let manual = space.pools.values().filter(|state| !state.pool.auto_assign);
    let mut list: Vec<Considered> =
        allocator.claims.of(&service.key).iter().map(|index| of_reservation(allocator, entry, *index)).collect();
    for state in automatic.chain(manual) {
        let (code, message) = match (own(entry, state), &seeker) {
            (Some(own), _) => own,
            (None, Err(wrong)) => wrong.clone(),
            (None, Ok((need, request))) => {
                let sharing = Sharing::of(service);
                why_not(allocator, &Seeker { service, need: *need, request, sharing }, state)
            }
        };
        list.push(Considered { pool: state.pool.name.clone(), reservation: None, code, message });
    }
    let unknown = allocator.config.pools_unknown.keys().map(|pool| Considered {
        pool: pool.clone(),
        reservation: None,
        code: "unknownPool",
        message: format!("pool {pool:?} exists, but is invalid"),
    });
    list.extend(unknown);
    list
}

/// What the Service has of a pool.
fn own(entry: &Entry, state: &PoolState) -> Option<(&'static str, String)> {
    let of_pool = entry.ips.iter().zip(&*entry.pools).filter(|(_, pool)| pool.as_ref() == Some(&state.pool.name));
    let ips: Vec<_> = of_pool.map(|(ip, _)| *ip).collect();
    if ips.is_empty() {
        return None;
    }
    let held = entry.rare().held.iter().find(|(ip, _)| ips.contains(ip));
    Some(match held {
        Some((ip, why)) => ("held", format!("{ip} is held: {why}")),
        None => ("allocated", format!("gave {}", quoted(&ips))),
    })
}

/// Why a pool gives the Service nothing, or that it could.
fn why_not(allocator: &Allocator, seeker: &Seeker<'_>, state: &PoolState) -> (&'static str, String) {
    let (pool, request) = (&state.pool, seeker.request);
    if !request.ips.is_empty() && !request.ips.iter().any(|ip| pool.ranges.iter().any(|range| range.contains(*ip))) {
        return (
            "requestPoolMismatch",
            format!("the Service asks for {}, which it does not contain", quoted(&request.ips)),
        );
    }
    if !request.pool.is_empty() && *request.pool != *pool.name {
        return ("requestPoolMismatch", format!("the Service asks for pool {:?}", request.pool));
    }
    if !allocator.allows(pool, seeker.service) {
        return ("poolNotForService", not_for_service(&pool.name).message);
    }
    if !request.ips.is_empty() {
        return match allocator.choose(seeker.service, seeker.need, request, &[]) {
            Ok(_) => ("notNeeded", "it could give the address".to_owned()),
            Err(refusal) => (refusal.code, refusal.message),
        };
    }
    if !pool.auto_assign && request.pool.is_empty() {
        return ("poolNotForService", format!("pool {:?} serves only requests that name it", pool.name));
    }
    let names = [format!("{:?}", pool.name)];
    match allocator.lacking(seeker, state) {
        None => {
            let families = match seeker.need.choices().first() {
                Some([family]) => family.to_string(),
                _ => format!("{} and {}", IpFamily::V4, IpFamily::V6),
            };
            ("poolFamilyMissing", format!("pool {} has no {families} addresses", names[0]))
        }
        Some(lacking) => match lacking.first() {
            Some((family, lack)) => (lack.code(), allocator.in_words(*lack, *family, &names)),
            None => ("notNeeded", "it could give an address, but another pool came first".to_owned()),
        },
    }
}

fn of_reservation(allocator: &Allocator, entry: &Entry, index: usize) -> Considered {
    let reservation = &allocator.claims.reservations[index];
    let key = &entry.service.key;
    let ips: Vec<_> =
        entry.ips.iter().copied().filter(|ip| allocator.reservation_held(*ip, key) == Some(index)).collect();
    let (code, message) = if ips.is_empty() {
        let state = allocator.space.pools.get(&reservation.pool);
        match state {
            None => ("unknownPool", format!("unknown pool {:?}", reservation.pool)),
            Some(state) if !allocator.allows(&state.pool, &entry.service) => {
                ("poolNotForService", not_for_service(&reservation.pool).message)
            }
            Some(_) if entry.ips.is_empty() => ("poolExhausted", "nothing that is reserved is free".to_owned()),
            Some(_) => ("notNeeded", "the Service has an address".to_owned()),
        }
    } else {
        ("allocated", format!("gave {}", quoted(&ips)))
    };
    Considered { pool: reservation.pool.clone(), reservation: Some(reservation.name.clone()), code, message }
}
