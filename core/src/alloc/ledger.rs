//! What is counted: addresses per quota, and addresses that reservations of a number have already given.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{claims::Claims, hash::QuickMap, holdings::Tenant};
use crate::{
    config::{Config, Reserved},
    model::{IpFamily, LabelSelector, Labels, ServiceKey},
};

/// The label that every Namespace carries (set by the API server).
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Which account, by its place in the ledger.
pub(super) type AccountId = usize;

/// One number that is kept.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) pool: Arc<str>,
    pub(super) about: About,
    /// The quota, or how many addresses are reserved.
    pub(super) max: u64,
    /// Addresses that count.
    pub(super) used: u64,
}

/// What an account counts.
#[derive(Clone, Debug)]
pub(super) enum About {
    /// Addresses of the pool that Services of these namespaces hold, a shared one once.
    Quota(LabelSelector),
    /// Addresses of this family of the pool that Services of the reservation hold, or that are kept for one of them.
    Reservation(usize, IpFamily),
}

/// All accounts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: Vec<Account>,
    /// By pool: its quotas.
    quotas: QuickMap<Arc<str>, Vec<AccountId>>,
    /// By reservation of a number: its account.
    of_reservation: QuickMap<usize, AccountId>,
    /// By namespace, as far as known: the quotas of all pools whose selector matches it, sorted.
    by_namespace: QuickMap<Box<str>, Arc<[AccountId]>>,
    /// By pool and family: addresses that are reserved by number and not given yet.
    outstanding: BTreeMap<(Arc<str>, IpFamily), u64>,
    /// By pool and family: the reservations of a number.
    numbered: BTreeMap<(Arc<str>, IpFamily), Vec<usize>>,
    /// Accounts that changed since they were asked for.
    stirred: BTreeSet<AccountId>,
}

/// Namespaces and their labels.
pub(super) type Namespaces = BTreeMap<Arc<str>, Arc<Labels>>;

/// The labels of a namespace; of one that is not known only its name.
pub(super) fn labels_of(namespaces: &Namespaces, namespace: &str) -> Arc<Labels> {
    let unknown = || Arc::new([(NAMESPACE_NAME_LABEL, namespace)].into_iter().collect());
    namespaces.get(namespace).cloned().unwrap_or_else(unknown)
}

impl Ledger {
    /// The accounts of a configuration, at zero.
    pub(super) fn new(config: &Config, claims: &Claims) -> Self {
        let mut ledger = Self::default();
        for pool in config.pools.values() {
            for quota in pool.policy.iter().flat_map(|policy| &policy.quotas) {
                let id = ledger.accounts.len();
                ledger.quotas.entry(pool.name.clone()).or_default().push(id);
                let about = About::Quota(quota.namespaces.clone());
                ledger.accounts.push(Account { pool: pool.name.clone(), about, max: quota.addresses_max, used: 0 });
            }
        }
        for (index, reservation) in claims.reservations.iter().enumerate() {
            let Reserved::Count(count, family) = reservation.reserved else { continue };
            let pool = reservation.pool.clone();
            ledger.of_reservation.insert(index, ledger.accounts.len());
            ledger.numbered.entry((pool.clone(), family)).or_default().push(index);
            *ledger.outstanding.entry((pool.clone(), family)).or_default() += count;
            let about = About::Reservation(index, family);
            ledger.accounts.push(Account { pool, about, max: count, used: 0 });
        }
        ledger
    }

    /// Is nothing counted?
    pub(super) fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// An account.
    pub(super) fn get(&self, id: AccountId) -> &Account {
        &self.accounts[id]
    }

    /// Learns which quotas a namespace falls under; to be called for the namespace of every Service, and when labels change.
    pub(super) fn learn(&mut self, namespace: &str, namespaces: &Namespaces, again: bool) {
        if self.quotas.is_empty() || (!again && self.by_namespace.contains_key(namespace)) {
            return;
        }
        let labels = labels_of(namespaces, namespace);
        let matches = |account: &Account| matches!(&account.about, About::Quota(selector) if selector.matches(&labels));
        let ids = self.accounts.iter().enumerate().filter(|(_, account)| matches(account)).map(|(id, _)| id);
        self.by_namespace.insert(namespace.into(), ids.collect());
    }

    /// The quotas of a pool that a namespace falls under.
    pub(super) fn quotas_of(&self, pool: &str, namespace: &str) -> &[AccountId] {
        let (Some(of_pool), Some(all)) = (self.quotas.get(pool), self.by_namespace.get(namespace)) else { return &[] };
        // Those of one pool are numbered in a row.
        let (Some(first), Some(last)) = (of_pool.first(), of_pool.last()) else { return &[] };
        &all[all.partition_point(|id| id < first)..all.partition_point(|id| id <= last)]
    }

    /// The account of a reservation of a number.
    pub(super) fn of_reservation(&self, reservation: usize) -> Option<AccountId> {
        self.of_reservation.get(&reservation).copied()
    }

    /// How many addresses of the pool and family are reserved by number and not given yet.
    pub(super) fn outstanding(&self, pool: &Arc<str>, family: IpFamily) -> u64 {
        if self.outstanding.is_empty() {
            return 0;
        }
        self.outstanding.get(&(pool.clone(), family)).copied().unwrap_or(0)
    }

    /// The accounts that count `ip` of `pool` for those who hold it, sorted.
    pub(super) fn accounts_of(&self, pool: &str, ip: IpAddr, tenants: &[Tenant], claims: &Claims) -> Vec<AccountId> {
        let mut ids = Vec::new();
        if self.accounts.is_empty() {
            return ids;
        }
        let mut before = None;
        for tenant in tenants {
            let namespace = tenant.key.namespace();
            if before != Some(namespace) {
                ids.extend(self.quotas_of(pool, namespace));
                before = Some(namespace);
            }
            ids.extend(self.reservations_of(pool, ip, &tenant.key, claims));
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The reservations of a number of which `ip` of `pool` is one when this Service has it.
    pub(super) fn reservations_of<'a>(
        &'a self,
        pool: &'a str,
        ip: IpAddr,
        service: &ServiceKey,
        claims: &'a Claims,
    ) -> impl Iterator<Item = AccountId> + 'a {
        let ids = claims.of(service).iter().filter_map(|reservation| self.of_reservation(*reservation));
        ids.filter(move |id| {
            let account = &self.accounts[*id];
            let family = matches!(account.about, About::Reservation(_, family) if family == IpFamily::of(ip));
            family && *account.pool == *pool
        })
    }

    /// The reservations of a number of this pool and family.
    pub(super) fn reservations_in(&self, pool: &Arc<str>, family: IpFamily) -> impl Iterator<Item = usize> {
        let none = self.numbered.is_empty();
        let list = if none { None } else { self.numbered.get(&(pool.clone(), family)) };
        list.into_iter().flatten().copied()
    }

    /// Counts one address more (`by` = 1) or less (-1).
    pub(super) fn count(&mut self, ids: &[AccountId], by: i64) {
        for id in ids {
            let account = &mut self.accounts[*id];
            let before = account.max.saturating_sub(account.used);
            account.used = account.used.saturating_add_signed(by);
            let after = account.max.saturating_sub(account.used);
            self.stirred.insert(*id);
            if let About::Reservation(_, family) = account.about
                && let Some(sum) = self.outstanding.get_mut(&(account.pool.clone(), family))
            {
                *sum = (*sum + after) - before;
            }
        }
    }

    /// The accounts that changed since the last call.
    pub(super) fn take_stirred(&mut self) -> BTreeSet<AccountId> {
        std::mem::take(&mut self.stirred)
    }
}
