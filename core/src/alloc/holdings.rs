//! Who holds which address, and who may join whom.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{by_ip::ByIp, hash::QuickMap, ledger::AccountId};
use crate::{
    config::SharingRules,
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

/// One who holds an address.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub(super) key: ServiceKey,
    sharing: Option<Arc<Sharing>>,
}

/// One held address.
#[derive(Debug)]
pub(super) enum Held {
    /// By one who shares with nobody.
    Alone(Tenant),
    /// By those who share.
    Shared(Box<Shared>),
}

/// One held address that can be joined.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Sorted by key, never empty. All have the same sharing key.
    tenants: Vec<Tenant>,
    /// Sorted.
    ports: Vec<(Port, ServiceKey)>,
    /// Not all backends are the same.
    backends_differ: bool,
    /// Not all namespaces are the same.
    namespaces_differ: bool,
}

/// What decides whether somebody may join an address, besides the sharing key. Many addresses have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Signature {
    /// Common to all tenants; `None`: they differ, or it does not matter.
    backend: Option<Box<str>>,
    /// Common to all tenants; `None`: they differ, or it does not matter.
    namespace: Option<Box<str>>,
    /// The ports in use, sorted.
    ports: Vec<Port>,
    /// The accounts that count the address already, sorted.
    pub(super) accounts: Vec<AccountId>,
}

/// Addresses that can be joined, by sharing key and signature: to find one costs the different signatures of a key, not the
/// addresses.
#[derive(Debug, Default)]
pub(super) struct SharedIndex(QuickMap<Box<str>, Vec<(Signature, BTreeSet<u128>)>>);

/// All held addresses.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    by_ip: ByIp<Held>,
}

impl Holdings {
    /// May `service`, which does not hold `ip`, hold it beside those who do?
    pub(super) fn check(
        &self,
        ip: IpAddr,
        service: &Service,
        sharing: Option<&Sharing>,
        rules: SharingRules,
    ) -> Result<(), Clash> {
        let Some(held) = self.by_ip.get(ip) else { return Ok(()) };
        if let Err((code, why)) = held.may_join(service.key.namespace(), sharing, rules) {
            let others = held.tenants().iter().map(|tenant| tenant.key.as_str());
            let message = format!(
                "can't change sharing key for {:?}, address also in use by {}: {why}",
                service.key.as_str(),
                others.collect::<Vec<_>>().join(",")
            );
            return Err(Clash { code, message });
        }
        let ports = held.shared().map_or(&[][..], |shared| &shared.ports);
        for port in &service.ports {
            let at = ports.partition_point(|(p, _)| p < port);
            if let Some((_, other)) = ports.get(at).filter(|(p, _)| p == port) {
                let message = format!("port {port} is already in use on {:?} by {other}", ip.to_string());
                return Err(Clash { code: "portInUse", message });
            }
        }
        Ok(())
    }

    /// Notes that the Service, which must not hold `ip` yet and may hold it, does; was it free before?
    pub(super) fn add(&mut self, ip: IpAddr, service: &Service, sharing: Option<Arc<Sharing>>) -> bool {
        let tenant = Tenant { key: service.key.clone(), sharing };
        match self.by_ip.get_mut(ip) {
            Some(held) => {
                held.share().join(tenant, service);
                false
            }
            None if tenant.sharing.is_none() => self.by_ip.insert(ip, Held::Alone(tenant)).is_none(),
            None => {
                let mut shared = Box::<Shared>::default();
                shared.tenants.reserve_exact(1);
                shared.ports.reserve_exact(service.ports.len());
                shared.join(tenant, service);
                self.by_ip.insert(ip, Held::Shared(shared)).is_none()
            }
        }
    }

    /// Notes that the Service does not hold `ip` any more; is it free now that was not before?
    pub(super) fn remove(&mut self, ip: IpAddr, service: &ServiceKey) -> bool {
        let Some(held) = self.by_ip.get_mut(ip) else { return false };
        if !held.is_of(service) {
            return false;
        }
        match held {
            Held::Shared(shared) if shared.tenants.len() > 1 => {
                shared.leave(service);
                false
            }
            _ => self.by_ip.remove(ip).is_some(),
        }
    }

    /// An address that somebody holds.
    pub(super) fn get(&self, ip: IpAddr) -> Option<&Held> {
        self.by_ip.get(ip)
    }

    /// Does anybody hold `ip`?
    pub(super) fn is_held(&self, ip: IpAddr) -> bool {
        self.by_ip.get(ip).is_some()
    }

    /// Does this Service hold `ip`?
    pub(super) fn is_held_by(&self, ip: IpAddr, service: &ServiceKey) -> bool {
        self.by_ip.get(ip).is_some_and(|held| held.is_of(service))
    }

    /// Who holds `ip`, in key order.
    pub(super) fn tenants(&self, ip: IpAddr) -> &[Tenant] {
        self.by_ip.get(ip).map_or(&[], Held::tenants)
    }

    /// All held addresses, in order.
    pub(super) fn ips(&self) -> Vec<IpAddr> {
        self.by_ip.ips()
    }
}

impl Held {
    /// Who holds it, sorted by key, never empty.
    pub(super) fn tenants(&self) -> &[Tenant] {
        match self {
            Self::Alone(tenant) => std::slice::from_ref(tenant),
            Self::Shared(shared) => &shared.tenants,
        }
    }

    /// Does this Service hold it?
    pub(super) fn is_of(&self, service: &ServiceKey) -> bool {
        match self {
            Self::Alone(tenant) => tenant.key == *service,
            Self::Shared(shared) => shared.tenants.binary_search_by(|tenant| tenant.key.cmp(service)).is_ok(),
        }
    }

    /// The sharing key, if it can be joined at all.
    pub(super) fn key(&self) -> Option<&str> {
        self.tenants().first()?.sharing.as_ref().map(|sharing| &*sharing.key)
    }

    /// What those have in common who share it, if it can be joined at all.
    pub(super) fn shared(&self) -> Option<&Shared> {
        match self {
            Self::Alone(_) => None,
            Self::Shared(shared) => Some(shared),
        }
    }

    /// Makes it one that can be joined.
    fn share(&mut self) -> &mut Shared {
        if let Self::Alone(tenant) = self {
            debug_assert!(false, "nobody joins {tenant:?}, who shares with nobody");
            *self = Self::Shared(Box::new(Shared { tenants: vec![tenant.clone()], ..Shared::default() }));
        }
        match self {
            Self::Shared(shared) => shared,
            Self::Alone(_) => unreachable!("it has been made a shared one"),
        }
    }

    fn may_join(
        &self,
        namespace: &str,
        new: Option<&Sharing>,
        rules: SharingRules,
    ) -> Result<(), (&'static str, String)> {
        let Some(first) = self.tenants().first() else { return Ok(()) };
        let Some((existing, shared)) = first.sharing.as_deref().zip(self.shared()) else {
            return Err(("addressInUse", "existing service does not allow sharing".to_owned()));
        };
        let Some(new) = new else {
            return Err(("addressInUse", "new service does not allow sharing".to_owned()));
        };
        if existing.key != new.key {
            let why = format!("sharing key {:?} does not match existing sharing key {:?}", new.key, existing.key);
            return Err(("sharingKeyMismatch", why));
        }
        if rules.same_namespace && (shared.namespaces_differ || first.key.namespace() != namespace) {
            let why = "the pool's policy lets only Services of one namespace share an address".to_owned();
            return Err(("sharingNamespaceMismatch", why));
        }
        if !rules.mixed && (shared.backends_differ || existing.backend != new.backend) {
            let why =
                format!("backend key {:?} does not match existing sharing key {:?}", new.backend, existing.backend);
            return Err(("backendMismatch", why));
        }
        Ok(())
    }
}

impl Shared {
    fn join(&mut self, tenant: Tenant, service: &Service) {
        if let Some(first) = self.tenants.first() {
            let backend = |tenant: &Tenant| tenant.sharing.as_ref().map(|sharing| sharing.backend.clone());
            self.namespaces_differ |= first.key.namespace() != tenant.key.namespace();
            self.backends_differ |= backend(first) != backend(&tenant);
        }
        let at = self.tenants.partition_point(|other| other.key < tenant.key);
        self.tenants.insert(at, tenant);
        for port in &service.ports {
            let at = self.ports.partition_point(|(p, _)| p < port);
            self.ports.insert(at, (*port, service.key.clone()));
        }
    }

    fn leave(&mut self, service: &ServiceKey) {
        self.tenants.retain(|tenant| tenant.key != *service);
        self.ports.retain(|(_, user)| user != service);
        self.compare();
    }

    /// What somebody who wants to join by these rules has to fit to.
    pub(super) fn signature(&self, rules: SharingRules, accounts: Vec<AccountId>) -> Signature {
        let first = self.tenants.first();
        let backend = first.filter(|_| !(rules.mixed || self.backends_differ)).and_then(|t| t.sharing.as_ref());
        let namespace = first.filter(|_| rules.same_namespace && !self.namespaces_differ);
        let mut ports = Vec::with_capacity(self.ports.len());
        ports.extend(self.ports.iter().map(|(port, _)| *port));
        Signature {
            backend: backend.map(|sharing| sharing.backend.clone()),
            namespace: namespace.map(|tenant| tenant.key.namespace().into()),
            ports,
            accounts,
        }
    }

    /// Compares all tenants anew, where they differed before one went.
    fn compare(&mut self) {
        let Some((first, rest)) = self.tenants.split_first() else { return };
        if self.namespaces_differ {
            self.namespaces_differ = rest.iter().any(|t| t.key.namespace() != first.key.namespace());
        }
        if self.backends_differ {
            let backend = |t: &Tenant| t.sharing.as_ref().map(|s| s.backend.clone());
            let of_first = backend(first);
            self.backends_differ = rest.iter().any(|t| backend(t) != of_first);
        }
    }
}

impl Signature {
    /// May a Service join an address of this signature, as far as sharing goes?
    pub(super) fn fits(&self, service: &Service, sharing: &Sharing, rules: SharingRules) -> bool {
        (rules.mixed || self.backend.as_ref() == Some(&sharing.backend))
            && (!rules.same_namespace || self.namespace.as_deref() == Some(service.key.namespace()))
            && !service.ports.iter().any(|port| self.ports.binary_search(port).is_ok())
    }
}

impl SharedIndex {
    /// Adds an address by its position.
    pub(super) fn insert(&mut self, key: &str, signature: Signature, position: u128) {
        if !self.0.contains_key(key) {
            self.0.insert(key.into(), Vec::with_capacity(1));
        }
        let Some(groups) = self.0.get_mut(key) else { return };
        match groups.binary_search_by(|(s, _)| s.cmp(&signature)) {
            Ok(at) => drop(groups[at].1.insert(position)),
            Err(at) => groups.insert(at, (signature, [position].into())),
        }
    }

    /// Takes one out, which was added with this signature.
    pub(super) fn remove(&mut self, key: &str, signature: &Signature, position: u128) {
        let Some(groups) = self.0.get_mut(key) else { return };
        let Ok(at) = groups.binary_search_by(|(s, _)| s.cmp(signature)) else { return };
        groups[at].1.remove(&position);
        if groups[at].1.is_empty() {
            groups.remove(at);
        }
        if groups.is_empty() {
            self.0.remove(key);
        }
    }

    /// The first address of a key from `from` on whose signature fits.
    pub(super) fn next_from(&self, key: &str, from: u128, fits: impl Fn(&Signature) -> bool) -> Option<u128> {
        let groups = self.0.get(key)?;
        groups.iter().filter(|(s, _)| fits(s)).filter_map(|(_, at)| at.range(from..).next().copied()).min()
    }
}

/// Groups of one thing by another, without empty groups.
pub(super) fn remove_from<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}
