//! Living addresses that an edit of the configuration takes away: which, and what becomes of them.
//!
//! A Service has the right to an address in its status while a pool in force contains it and is for the Service. Where an edit
//! ends that, the address is **held**: it stays, and what announced it goes on ([`Config::former`]); or it is **moved**: the
//! Service gives it up for another ([`Config::moved`]).
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use imbl::OrdMap;
use sha2::{Digest as _, Sha256};

use super::{Config, FormerPool, OnAddressLoss, Pool, Resources, pool_allows};
use crate::model::{Labels, ObjectKey, Service, ServiceKey};

/// Hexadecimal digits of a digest: 48 bits, so that two sets that somebody meets do not have the same one, and short enough to type.
pub const DIGEST_LEN: usize = 12;
/// Begins the text of the annotation that lets a set of addresses be moved.
const MOVE_PREFIX: &str = "move-";

/// The Services that live, and what decides which pools are for them.
#[derive(Clone, Copy, Debug)]
pub struct Living<'a> {
    /// Every Service.
    pub services: &'a OrdMap<ServiceKey, Arc<Service>>,
    /// Labels of Namespaces, by name.
    pub namespaces: &'a OrdMap<Arc<str>, Arc<Labels>>,
    /// The class of Services that is ours; `None`: those without a class.
    pub class: Option<&'a str>,
}

/// Why a Service has no right any more to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossReason {
    /// The pool is gone.
    PoolGone,
    /// The pool is there, but the address is in no pool.
    OutsidePool,
    /// The pool that has the address is not for the Service.
    NotForService,
}

/// An address that a living Service loses the right to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss {
    /// The Service.
    pub service: ServiceKey,
    /// The address.
    pub ip: IpAddr,
    /// The pool that gave the right.
    pub pool: Arc<str>,
    /// Why it is lost.
    pub why: LossReason,
    /// The objects whose change or deletion takes it: pools, or the Namespace of the Service.
    pub causes: Vec<ObjectKey>,
}

/// What living Services lose, in order of Service and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(pub Vec<Loss>);

impl Losses {
    /// Is nothing lost?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names the set: the first 12 hexadecimal digits of SHA-256 over the sorted lines `namespace/name address`, each with its
    /// newline. Another set has another digest.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(self.0.iter())
    }
}

fn digest<'a>(losses: impl Iterator<Item = &'a Loss>) -> String {
    let lines: BTreeSet<String> = losses.map(|loss| format!("{} {}\n", loss.service, loss.ip)).collect();
    let mut hash = Sha256::new();
    lines.iter().for_each(|line| hash.update(line));
    let mut hex: String = hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect();
    hex.truncate(DIGEST_LEN);
    hex
}

/// What the annotation `ferrocast.io/on-address-loss` of an object asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `hold`: whoever loses an address by an edit of this object keeps it.
    Hold,
    /// `move-<digest>`: exactly this set of addresses may be re-allocated.
    Move(String),
}

impl Wish {
    /// Reads the annotation; `None` if it has no meaning.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "hold" {
            return Some(Self::Hold);
        }
        let digest = text.strip_prefix(MOVE_PREFIX)?;
        let is_one = digest.len() == DIGEST_LEN && digest.bytes().all(|b| b.is_ascii_hexdigit());
        is_one.then(|| Self::Move(digest.to_ascii_lowercase()))
    }

    /// What to write to let `losses` be re-allocated.
    #[must_use]
    pub fn to_move(losses: &Losses) -> String {
        format!("{MOVE_PREFIX}{}", losses.digest())
    }
}

/// The configuration that was in force until now.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// What it was built from.
    pub resources: &'a Resources,
    /// Labels of Namespaces then.
    pub namespaces: &'a OrdMap<Arc<str>, Arc<Labels>>,
}

/// What living Services would lose if `after` were in force instead of `before`.
#[must_use]
pub fn losses(before: &Config, after: &Config, living: &Living<'_>) -> Losses {
    losses_since(before, living.namespaces, after, living)
}

/// Every address in the status of a Service that is ours.
fn living_addresses<'a>(living: &Living<'a>) -> impl Iterator<Item = (&'a Arc<Service>, IpAddr)> {
    let class = living.class;
    let ours = living.services.values().filter(move |service| service.is_ours(class));
    ours.flat_map(|service| service.ingress.iter().map(move |ip| (service, *ip)))
}

fn allows(pool: &Pool, service: &Service, namespaces: &OrdMap<Arc<str>, Arc<Labels>>) -> bool {
    let labels = namespaces.get(service.key.namespace()).map(|labels| &**labels);
    pool_allows(pool, &service.key, &service.labels, labels)
}

fn losses_since(
    before: &Config,
    namespaces_before: &OrdMap<Arc<str>, Arc<Labels>>,
    after: &Config,
    living: &Living<'_>,
) -> Losses {
    let mut found = Vec::new();
    for (service, ip) in living_addresses(living) {
        let Some(old) = before.pool_of(ip).filter(|pool| allows(pool, service, namespaces_before)) else { continue };
        // A pool without a valid version that anybody knows takes nothing away.
        if after.pools_unknown.contains_key(&old.name) {
            continue;
        }
        let new = after.pool_of(ip);
        if new.is_some_and(|pool| allows(pool, service, living.namespaces)) {
            continue;
        }
        let why = match new {
            Some(_) => LossReason::NotForService,
            None if after.pools.contains_key(&old.name) => LossReason::OutsidePool,
            None => LossReason::PoolGone,
        };
        let pool_key = |name: &Arc<str>| ObjectKey { kind: "IPAddressPool", name: name.clone() };
        let mut causes = vec![pool_key(&old.name)];
        causes.extend(new.filter(|pool| pool.name != old.name).map(|pool| pool_key(&pool.name)));
        let namespace = service.key.namespace();
        if namespaces_before.get(namespace) != living.namespaces.get(namespace) {
            causes.push(ObjectKey { kind: "Namespace", name: namespace.into() });
        }
        found.push(Loss { service: service.key.clone(), ip, pool: old.name.clone(), why, causes });
    }
    found.sort();
    found.dedup();
    Losses(found)
}

/// Fills [`Config::former`] and [`Config::moved`] of the configuration that comes into force, and says what is newly lost.
///
/// What was held stays held while its Service lives and no pool in force has the address; what was to move still is while the
/// Service has it and no right to it. New losses are held, unless `default` is [`OnAddressLoss::Move`], or an object that changed or
/// was deleted asks for exactly this set to be moved; an object that changed and says `hold` is stronger than the default.
pub fn carry_over(
    before: &Past<'_>,
    after: &mut Config,
    resources: &Resources,
    living: &Living<'_>,
    default: OnAddressLoss,
) -> Losses {
    let lost = losses_since(before.config, before.namespaces, after, living);
    let to_move = moves(&lost, &wishes(before.resources, resources), default);
    let mut former: BTreeMap<IpAddr, Arc<FormerPool>> = BTreeMap::new();
    let mut moved: BTreeSet<(ServiceKey, IpAddr)> = BTreeSet::new();
    for (service, ip) in living_addresses(living) {
        let pool = after.pool_of(ip);
        let entitled = pool.is_some_and(|pool| allows(pool, service, living.namespaces));
        let entry = (service.key.clone(), ip);
        if !entitled && (to_move.contains(&entry) || before.config.moved.contains(&entry)) {
            moved.insert(entry);
        } else if pool.is_none()
            && let Some(known) = former_pool(before.config, after, ip)
        {
            former.insert(ip, known);
        }
    }
    after.former = former;
    after.moved = moved;
    lost
}

/// The pool to remember for an address that is in none now.
fn former_pool(before: &Config, after: &Config, ip: IpAddr) -> Option<Arc<FormerPool>> {
    match before.pool_of(ip) {
        Some(pool) if after.pools_unknown.contains_key(&pool.name) => None,
        Some(pool) => Some(Arc::new(FormerPool { name: pool.name.clone(), labels: pool.labels.clone() })),
        None => before.former.get(&ip).cloned(),
    }
}

/// What the objects ask for that were changed or deleted between the two.
fn wishes(before: &Resources, after: &Resources) -> BTreeMap<ObjectKey, Wish> {
    let mut found = BTreeMap::new();
    let keys: BTreeSet<&ObjectKey> = before.objects.keys().chain(after.objects.keys()).collect();
    for key in keys {
        let (old, new) = (before.objects.get(key), after.objects.get(key));
        let changed = match (old, new) {
            (Some(old), Some(new)) => (&old.spec, &old.meta.labels) != (&new.spec, &new.meta.labels),
            _ => true,
        };
        // Of a deleted object its last version speaks.
        let says = new.or(old).and_then(|object| object.meta.on_address_loss.as_deref());
        if let (true, Some(wish)) = (changed, says.and_then(Wish::parse)) {
            found.insert(key.clone(), wish);
        }
    }
    found
}

/// Which of the losses are to be re-allocated.
fn moves(lost: &Losses, wishes: &BTreeMap<ObjectKey, Wish>, default: OnAddressLoss) -> BTreeSet<(ServiceKey, IpAddr)> {
    let whole = lost.digest();
    let asked = |key: &ObjectKey, digest: &String| {
        // Edits that are seen at once count together, and each by itself.
        *digest == whole || *digest == self::digest(lost.0.iter().filter(|loss| loss.causes.contains(key)))
    };
    let moving: BTreeSet<&ObjectKey> = wishes
        .iter()
        .filter(|(key, wish)| matches!(wish, Wish::Move(digest) if asked(key, digest)))
        .map(|(key, _)| key)
        .collect();
    let all = wishes.values().any(|wish| matches!(wish, Wish::Move(digest) if *digest == whole));
    let by_default = |loss: &&Loss| {
        let held = loss.causes.iter().any(|key| wishes.get(key) == Some(&Wish::Hold));
        default == OnAddressLoss::Move && !held
    };
    let moves = |loss: &&Loss| all || loss.causes.iter().any(|key| moving.contains(key)) || by_default(loss);
    lost.0.iter().filter(moves).map(|loss| (loss.service.clone(), loss.ip)).collect()
}
