//! What is remembered of addresses that were given back: for cool-downs, for who had what, and for the order of reuse.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Holder, Memory, RELEASES_MAX,
    claims::{Claims, HeldOf, covers},
    hash::QuickMap,
};
use crate::{
    config::{Config, Release, Reservation, Strategy},
    model::ServiceKey,
};

/// Releases in their order, of each address the newest, the newest [`RELEASES_MAX`] of all.
#[derive(Debug, Default)]
struct History {
    by_order: BTreeMap<u64, Release>,
    by_ip: QuickMap<IpAddr, u64>,
    by_service: BTreeMap<ServiceKey, BTreeSet<u64>>,
}

/// Everything that is remembered.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// By PoolPolicy whose strategy is LeastRecentlyUsed.
    of_policy: BTreeMap<Arc<str>, History>,
    /// By AddressReservation.
    of_reservation: BTreeMap<Arc<str>, History>,
    /// By address: where a release of it is remembered.
    recorded: QuickMap<IpAddr, Vec<Place>>,
    /// By AddressReservation: who has which of its addresses now.
    held: BTreeMap<Arc<str>, HeldOf>,
    /// Addresses that only the Service which had them may get, and until when.
    cooling: BTreeMap<IpAddr, Cooling>,
    ends: BTreeSet<(i64, IpAddr)>,
    /// Number of the newest release.
    order: u64,
    /// Counts changes of what is to be remembered.
    pub(super) generation: u64,
}

/// Where releases are remembered: with a policy or with a reservation, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Policy(Arc<str>),
    Reservation(Arc<str>),
}

/// One cool-down.
#[derive(Clone, Debug)]
pub(super) struct Cooling {
    pub(super) until_s: i64,
    pub(super) service: ServiceKey,
    pub(super) reservation: Arc<str>,
}

impl History {
    fn add(&mut self, order: u64, release: Release) -> Option<Release> {
        self.forget(release.ip);
        self.by_ip.insert(release.ip, order);
        self.by_service.entry(release.service.clone()).or_default().insert(order);
        self.by_order.insert(order, release);
        if self.by_order.len() <= RELEASES_MAX {
            return None;
        }
        let oldest = self.by_order.first_key_value().map(|(_, release)| release.ip)?;
        self.forget(oldest)
    }

    fn forget(&mut self, ip: IpAddr) -> Option<Release> {
        let order = self.by_ip.remove(&ip)?;
        let release = self.by_order.remove(&order)?;
        super::holdings::remove_from(&mut self.by_service, &release.service, &order);
        Some(release)
    }
}

impl Remembered {
    /// Brings what is kept in step with a new configuration: what its objects remember counts for those that are new here.
    pub(super) fn configure(&mut self, config: &Config) {
        self.recorded.clear();
        let policies = config.pools.values().filter_map(|pool| pool.policy.as_ref());
        let policies = policies.filter(|policy| policy.strategy == Strategy::LeastRecentlyUsed);
        let policies: BTreeMap<_, _> = policies.map(|policy| (policy.name.clone(), &policy.releases)).collect();
        let reservations = config.reservations.iter().map(|(name, r)| (name.clone(), &r.releases)).collect();
        for (known, wanted) in [(&mut self.of_policy, policies), (&mut self.of_reservation, reservations)] {
            let before = known.len();
            known.retain(|name, _| wanted.contains_key(name));
            self.generation += u64::from(known.len() != before);
            for (name, releases) in wanted {
                known.entry(name).or_insert_with(|| {
                    let mut history = History::default();
                    for release in releases.iter() {
                        self.order += 1;
                        history.add(self.order, release.clone());
                    }
                    history
                });
            }
        }
        for (name, history) in &self.of_policy {
            for ip in history.by_ip.keys() {
                self.recorded.entry(*ip).or_default().push(Place::Policy(name.clone()));
            }
        }
        for (name, history) in &self.of_reservation {
            for ip in history.by_ip.keys() {
                self.recorded.entry(*ip).or_default().push(Place::Reservation(name.clone()));
            }
        }
        self.held.clear();
        self.cooling.clear();
        self.ends.clear();
    }

    /// Starts the cool-downs that are left of what a reservation remembers; `free`: nobody has the address, which is of the
    /// reservation's pool.
    pub(super) fn cool_all(&mut self, reservation: &Reservation, now_s: i64, free: impl Fn(IpAddr) -> bool) {
        let Some(history) = self.of_reservation.get(&reservation.name) else { return };
        let kept = history.by_order.values().filter(|r| covers(reservation, r.ip) && free(r.ip));
        for release in kept.cloned().collect::<Vec<_>>() {
            self.cool(reservation, &release, now_s);
        }
    }

    fn cool(&mut self, reservation: &Reservation, release: &Release, now_s: i64) -> bool {
        let Some(after) = reservation.release_after else { return false };
        let until_s = release.at_s.saturating_add_unsigned(after.as_secs() + u64::from(after.subsec_nanos() > 0));
        if until_s <= now_s || self.cooling.contains_key(&release.ip) {
            return false;
        }
        let (service, reservation) = (release.service.clone(), reservation.name.clone());
        self.cooling.insert(release.ip, Cooling { until_s, service, reservation });
        self.ends.insert((until_s, release.ip));
        true
    }

    /// Notes that the last holder of a reservation's address gave it back; does a cool-down begin? Also the address that is
    /// forgotten for it, if any.
    pub(super) fn released_reserved(
        &mut self,
        reservation: &Reservation,
        release: &Release,
        now_s: i64,
    ) -> (bool, Option<IpAddr>) {
        let forgotten = self.record(Place::Reservation(reservation.name.clone()), release.clone());
        (self.cool(reservation, release, now_s), forgotten)
    }

    /// Notes a release in a pool of a policy that reuses the oldest first. Returns its number and the address that is
    /// forgotten for it, if any.
    pub(super) fn released(&mut self, policy: &Arc<str>, release: Release) -> (u64, Option<IpAddr>) {
        let forgotten = self.record(Place::Policy(policy.clone()), release);
        (self.order, forgotten)
    }

    fn record(&mut self, place: Place, release: Release) -> Option<IpAddr> {
        self.order += 1;
        self.generation += 1;
        let ip = release.ip;
        let history = match &place {
            Place::Policy(name) => self.of_policy.entry(name.clone()).or_default(),
            Place::Reservation(name) => self.of_reservation.entry(name.clone()).or_default(),
        };
        let forgotten = history.add(self.order, release).map(|r| r.ip);
        if let Some(places) = forgotten.and_then(|ip| self.recorded.get_mut(&ip)) {
            places.retain(|other| *other != place);
        }
        let places = self.recorded.entry(ip).or_insert_with(|| Vec::with_capacity(1));
        if !places.contains(&place) {
            places.push(place);
        }
        if let Some(ip) = forgotten.filter(|ip| self.recorded.get(ip).is_some_and(Vec::is_empty)) {
            self.recorded.remove(&ip);
        }
        forgotten
    }

    /// Somebody has the address now: when it was given back before does not matter any more.
    pub(super) fn taken(&mut self, ip: IpAddr) {
        if self.recorded.is_empty() {
            return;
        }
        for place in self.recorded.remove(&ip).unwrap_or_default() {
            let history = match place {
                Place::Policy(name) => self.of_policy.get_mut(&name),
                Place::Reservation(name) => self.of_reservation.get_mut(&name),
            };
            self.generation += u64::from(history.and_then(|history| history.forget(ip)).is_some());
        }
    }

    /// The releases of a policy with their numbers, the oldest first.
    pub(super) fn releases(&self, policy: &str) -> impl Iterator<Item = (u64, IpAddr)> {
        self.of_policy.get(policy).into_iter().flat_map(|h| h.by_order.iter().map(|(order, r)| (*order, r.ip)))
    }

    /// The number of an address' release.
    pub(super) fn order_of(&self, policy: &str, ip: IpAddr) -> Option<u64> {
        self.of_policy.get(policy)?.by_ip.get(&ip).copied()
    }

    /// The reservation's addresses that a Service gave back, the newest first.
    pub(super) fn formers(&self, reservation: &str, service: &ServiceKey) -> impl Iterator<Item = IpAddr> {
        let history = self.of_reservation.get(reservation);
        let orders = history.and_then(|h| h.by_service.get(service)).into_iter().flatten().rev();
        orders.filter_map(move |order| Some(history?.by_order.get(order)?.ip))
    }

    /// The cool-down of an address.
    pub(super) fn cooling(&self, ip: IpAddr) -> Option<&Cooling> {
        if self.cooling.is_empty() {
            return None;
        }
        self.cooling.get(&ip)
    }

    /// All cool-downs.
    pub(super) fn all_cooling(&self) -> impl Iterator<Item = (IpAddr, &Cooling)> {
        self.cooling.iter().map(|(ip, cooling)| (*ip, cooling))
    }

    /// Ends a cool-down.
    pub(super) fn thaw(&mut self, ip: IpAddr) -> Option<Cooling> {
        let cooling = self.cooling.remove(&ip)?;
        self.ends.remove(&(cooling.until_s, ip));
        Some(cooling)
    }

    /// When the first cool-down ends.
    pub(super) fn due_s(&self) -> Option<i64> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// An address whose cool-down is over.
    pub(super) fn over(&self, now_s: i64) -> Option<IpAddr> {
        self.ends.first().filter(|(at, _)| *at <= now_s).map(|(_, ip)| *ip)
    }

    /// Notes that a Service has (or has no more) an address of a reservation.
    pub(super) fn note_held(&mut self, reservation: &Arc<str>, service: &ServiceKey, ip: IpAddr, has: bool) {
        self.generation += 1;
        let held = self.held.entry(reservation.clone()).or_default();
        if has {
            held.entry(service.clone()).or_default().insert(ip);
        } else {
            super::holdings::remove_from(held, service, &ip);
        }
    }

    /// What the objects' statuses should say.
    pub(super) fn memory(&self, claims: &Claims) -> Memory {
        let list = |h: &History| h.by_order.values().cloned().collect();
        let releases = self.of_policy.iter().map(|(name, history)| (name.clone(), list(history))).collect();
        let holders = |reservation: &Arc<Reservation>| {
            let now = self.held.get(&reservation.name).into_iter().flatten();
            let now = now.map(|(service, ips)| (service.clone(), ips.iter().copied().collect(), None));
            let gone = self.of_reservation.get(&reservation.name).into_iter().flat_map(|h| h.by_order.values());
            let gone = gone.map(|r| (r.service.clone(), vec![r.ip], Some(r.at_s)));
            let mut list: Vec<Holder> = Vec::new();
            for (service, ips, released_s) in now.chain(gone) {
                match list.last_mut() {
                    Some(last) if released_s.is_some() && last.service == service && last.released_s == released_s => {
                        last.ips.extend(ips);
                    }
                    _ => list.push(Holder { service, ips, released_s }),
                }
            }
            (reservation.name.clone(), list)
        };
        Memory { releases, holders: claims.reservations.iter().map(holders).collect() }
    }
}
