//! Who holds which address, and who may join whom.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    config::IpRange,
    model::{Port, Service, ServiceKey, TrafficPolicy},
};

/// What two Services must have in common to share an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sharing {
    /// The annotation `allow-shared-ip`; never empty.
    pub(super) key: Box<str>,
    /// With traffic policy Local the selector, else empty: a node that attracts the address' traffic must have endpoints
    /// for every Service on it.
    pub(super) backend: Box<str>,
}

impl Sharing {
    /// The Service's own wish; `None`: it shares with nobody.
    pub(super) fn of(service: &Service) -> Option<Arc<Self>> {
        let key =
            service.annotations.allow_shared_ip.as_ref().map(|a| a.value.clone()).filter(|key| !key.is_empty())?;
        let backend = match service.traffic_policy {
            TrafficPolicy::Cluster => "".into(),
            TrafficPolicy::Local => service.selector.clone(),
        };
        Some(Arc::new(Self { key, backend }))
    }
}

/// Why a Service may not have an address that others hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clash {
    /// Stable code.
    pub(super) code: &'static str,
    /// MetalLB's words.
    pub(super) message: String,
}

/// One held address.
#[derive(Debug, Default)]
struct Held {
    /// Common to all holders; `None`: there is one holder, who does not share.
    sharing: Option<Arc<Sharing>>,
    /// Sorted.
    holders: Vec<ServiceKey>,
    /// Sorted.
    ports: Vec<(Port, ServiceKey)>,
}

/// All held addresses.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    by_ip: BTreeMap<IpAddr, Held>,
    by_sharing: BTreeMap<Arc<Sharing>, Shared>,
}

/// All addresses that are shared in one way.
#[derive(Debug, Default)]
struct Shared {
    ips: BTreeSet<IpAddr>,
    /// On how many of them each port is in use.
    ports: BTreeMap<Port, usize>,
}

impl Holdings {
    /// May `service` hold `ip` beside those who do?
    pub(super) fn check(&self, ip: IpAddr, service: &Service, sharing: Option<&Arc<Sharing>>) -> Result<(), Clash> {
        let Some(held) = self.by_ip.get(&ip) else { return Ok(()) };
        if held.holders.iter().all(|holder| *holder == service.key) {
            return Ok(());
        }
        if let Err((code, why)) = may_join(held.sharing.as_deref(), sharing.map(|s| &**s)) {
            let others = held.holders.iter().map(ServiceKey::as_str).filter(|holder| *holder != service.key.as_str());
            let message = format!(
                "can't change sharing key for {:?}, address also in use by {}: {why}",
                service.key.as_str(),
                others.collect::<Vec<_>>().join(",")
            );
            return Err(Clash { code, message });
        }
        for port in &service.ports {
            let at = held.ports.partition_point(|(p, _)| p < port);
            let users = held.ports[at..].iter().take_while(|(p, _)| p == port);
            if let Some((_, other)) = users.into_iter().find(|(_, user)| *user != service.key) {
                let message = format!("port {port} is already in use on {:?} by {other}", ip.to_string());
                return Err(Clash { code: "portInUse", message });
            }
        }
        Ok(())
    }

    /// Notes that the Service, which must not hold `ip` yet and may hold it, does; was it free before?
    pub(super) fn add(&mut self, ip: IpAddr, service: &Service, sharing: Option<&Arc<Sharing>>) -> bool {
        let held = self.by_ip.entry(ip).or_default();
        let free = held.holders.is_empty();
        if free {
            held.sharing = sharing.cloned();
        }
        let at = held.holders.partition_point(|h| *h < service.key);
        held.holders.insert(at, service.key.clone());
        held.ports.extend(service.ports.iter().map(|port| (*port, service.key.clone())));
        held.ports.sort_unstable();
        if let Some(sharing) = sharing {
            let shared = self.by_sharing.entry(sharing.clone()).or_default();
            shared.ips.insert(ip);
            service.ports.iter().for_each(|port| *shared.ports.entry(*port).or_default() += 1);
        }
        free
    }

    /// Notes that the Service does not hold `ip` any more; is it free now that was not before?
    pub(super) fn remove(&mut self, ip: IpAddr, service: &ServiceKey) -> bool {
        let Some(held) = self.by_ip.get_mut(&ip) else { return false };
        let Ok(at) = held.holders.binary_search(service) else { return false };
        held.holders.remove(at);
        let freed: Vec<Port> = held.ports.extract_if(.., |(_, user)| user == service).map(|(port, _)| port).collect();
        let free = held.holders.is_empty();
        if let Some(sharing) = &held.sharing
            && let Some(shared) = self.by_sharing.get_mut(sharing)
        {
            shared.give_back(ip, free, &freed);
            if shared.ips.is_empty() {
                self.by_sharing.remove(sharing);
            }
        }
        if free {
            self.by_ip.remove(&ip);
        }
        free
    }

    /// Who holds `ip`, in key order.
    pub(super) fn holders(&self, ip: IpAddr) -> &[ServiceKey] {
        self.by_ip.get(&ip).map_or(&[], |held| &held.holders)
    }

    /// How `ip` is shared, if it is held by Services that share.
    pub(super) fn sharing(&self, ip: IpAddr) -> Option<&Arc<Sharing>> {
        self.by_ip.get(&ip)?.sharing.as_ref()
    }

    /// The held addresses of a range, in order.
    pub(super) fn held_in(&self, range: IpRange) -> impl Iterator<Item = IpAddr> {
        self.by_ip.range(range.first..=range.last).map(|(ip, _)| *ip)
    }

    /// Held addresses of one way of sharing, in order; none if one of `ports` is in use on every one of them.
    pub(super) fn shared(&self, sharing: &Arc<Sharing>, ports: &[Port]) -> impl Iterator<Item = IpAddr> {
        let shared = self.by_sharing.get(sharing).filter(|shared| {
            let everywhere = |port: &Port| shared.ports.get(port).is_some_and(|count| *count >= shared.ips.len());
            !ports.iter().any(everywhere)
        });
        shared.into_iter().flat_map(|shared| &shared.ips).copied()
    }
}

impl Shared {
    fn give_back(&mut self, ip: IpAddr, free: bool, ports: &[Port]) {
        if free {
            self.ips.remove(&ip);
        }
        for port in ports {
            if let Some(count) = self.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }
}

fn may_join(existing: Option<&Sharing>, new: Option<&Sharing>) -> Result<(), (&'static str, String)> {
    let Some(existing) = existing else {
        return Err(("addressInUse", "existing service does not allow sharing".to_owned()));
    };
    let Some(new) = new else {
        return Err(("addressInUse", "new service does not allow sharing".to_owned()));
    };
    if existing.key != new.key {
        let why = format!("sharing key {:?} does not match existing sharing key {:?}", new.key, existing.key);
        return Err(("sharingKeyMismatch", why));
    }
    if existing.backend != new.backend {
        let why = format!("backend key {:?} does not match existing sharing key {:?}", new.backend, existing.backend);
        return Err(("backendMismatch", why));
    }
    Ok(())
}
