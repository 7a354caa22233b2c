//! From decisions to the set of prefixes that the node should announce.
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{Decision, Reason, weight};
use crate::{
    announce::{self, Announcement, AnnouncementState, Configuration, Desired, Terms},
    config::Advertisement,
    model::{IpFamily, ServiceKey},
};

/// Interned terms that nobody uses any more are dropped once there are this many; far above the number of different
/// combinations of advertisements that a configuration has in practice.
const TERMS_INTERNED_MAX: usize = 1024;

/// One advertisement applied to one prefix, by its terms, which name it.
type Offer = Arc<Terms>;

/// By advertisement. Most offers that are compared are one and the same.
fn order(a: &Offer, b: &Offer) -> Ordering {
    if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) }
}

/// Keeps [`Desired`] in step with the decisions, Service by Service.
///
/// One [`DesiredBuilder::set`] costs that Service's prefixes, each with a logarithmic search; a decision equal to the last
/// one changes nothing.
#[derive(Debug, Default)]
pub struct DesiredBuilder {
    desired: Desired,
    /// What each Service contributes.
    contributions: BTreeMap<ServiceKey, Contribution>,
    prefixes: BTreeMap<IpNet, Prefix>,
    /// Prefixes that may differ from `desired`, in whatever order, some of them several times.
    touched: Vec<IpNet>,
    /// What travels beside the set was changed since the last look.
    configured: bool,
    /// Terms of each advertisement last seen.
    terms: BTreeMap<Arc<str>, (Arc<Advertisement>, Arc<Terms>)>,
    /// Equal lists of terms share one allocation.
    interned: BTreeSet<Arc<[Terms]>>,
    /// The list last interned, and the offers that it was made of: the next prefix mostly has the same.
    last: (Vec<Offer>, Arc<[Terms]>),
}

/// What one Service contributes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Contribution {
    /// Sorted.
    offers: Box<[(IpNet, Offer)]>,
    /// What it adds to the weight of each of its prefixes.
    weight: Option<u32>,
}

impl Contribution {
    /// Its prefixes, each once, with their offers.
    fn prefixes(&self) -> impl Iterator<Item = (IpNet, &[(IpNet, Offer)])> {
        self.offers.chunk_by(|a, b| a.0 == b.0).filter_map(|same| Some((same.first()?.0, same)))
    }
}

/// Who needs a prefix, and under which advertisements.
#[derive(Debug, Default)]
struct Prefix {
    services: Arc<BTreeSet<ServiceKey>>,
    /// Sorted by advertisement name and terms, each with the number of contributions.
    offers: Vec<(Offer, u32)>,
    /// What its Services with a weight weigh together.
    weight: u64,
    /// How many have none.
    unweighed: u32,
}

impl DesiredBuilder {
    /// Notes the decision on a Service; `None`: it is gone.
    pub fn set(&mut self, key: &ServiceKey, decision: Option<&Decision>) {
        let new = decision.map_or_else(Contribution::default, |d| self.contribution(d));
        let old = match self.contributions.entry(key.clone()) {
            Entry::Vacant(_) if new.offers.is_empty() => return,
            Entry::Vacant(free) => {
                free.insert(new.clone());
                Contribution::default()
            }
            Entry::Occupied(known) if *known.get() == new => return,
            Entry::Occupied(known) if new.offers.is_empty() => known.remove(),
            Entry::Occupied(mut known) => known.insert(new.clone()),
        };
        for (net, offers) in new.prefixes() {
            let prefix = self.prefixes.entry(net).or_default();
            offers.iter().for_each(|(_, offer)| prefix.add(offer));
            prefix.weigh(new.weight);
            if !prefix.services.contains(key) {
                Arc::make_mut(&mut prefix.services).insert(key.clone());
            }
            self.touched.push(net);
        }
        for (net, offers) in old.prefixes() {
            let Some(prefix) = self.prefixes.get_mut(&net) else { continue };
            offers.iter().for_each(|(_, offer)| prefix.remove(offer));
            prefix.unweigh(old.weight);
            if new.offers.binary_search_by(|(p, _)| p.cmp(&net)).is_err() && prefix.services.contains(key) {
                Arc::make_mut(&mut prefix.services).remove(key);
            }
            self.touched.push(net);
        }
    }

    /// Forgets every Service that is not among `keys`: after a relist, before each of `keys` is [`set`](Self::set) again.
    pub fn retain(&mut self, mut keep: impl FnMut(&ServiceKey) -> bool) {
        let gone: Vec<ServiceKey> = self.contributions.keys().filter(|k| !keep(k)).cloned().collect();
        for key in gone {
            self.set(&key, None);
        }
    }

    /// Notes what the announcer has to know besides the prefixes; the same again changes nothing.
    pub fn configure(&mut self, entries: BTreeMap<Arc<str>, announce::Entry>) {
        let now = &self.desired.configuration;
        if now.generation == 0 || now.entries != entries {
            self.desired.configuration = Arc::new(Configuration { generation: now.generation + 1, entries });
            self.configured = true;
        }
    }

    /// The set as it is now. Its generation is one higher than the last one's if the set differs from it, else the same.
    /// Costs what was set since the last call.
    #[must_use]
    pub fn desired(&mut self) -> Desired {
        let mut changed = std::mem::take(&mut self.configured);
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for net in touched {
            changed |= self.publish(net);
        }
        if changed {
            self.desired.generation += 1;
        }
        if self.interned.len() > TERMS_INTERNED_MAX {
            self.interned.retain(|t| Arc::strong_count(t) > 1);
        }
        if self.terms.len() > TERMS_INTERNED_MAX {
            self.terms.retain(|_, (_, terms)| Arc::strong_count(terms) > 1);
        }
        self.desired.clone()
    }

    /// Brings one prefix of `desired` up to date; was there anything to do?
    fn publish(&mut self, net: IpNet) -> bool {
        let needed = self.prefixes.get(&net).filter(|p| !p.services.is_empty());
        let Some(prefix) = needed else {
            self.prefixes.remove(&net);
            return self.desired.announcements.remove(&net).is_some();
        };
        let services = prefix.services.clone();
        let terms = match &self.last {
            (offers, terms) if prefix.offers.iter().map(|(offer, _)| offer).eq(offers) => terms.clone(),
            _ => {
                let offers: Vec<Offer> = prefix.offers.iter().map(|(offer, _)| offer.clone()).collect();
                self.last = (offers, intern(&mut self.interned, &prefix.offers));
                self.last.1.clone()
            }
        };
        let weight = if prefix.unweighed == 0 { weight::rounded(prefix.weight) } else { None };
        let new = Announcement { state: AnnouncementState::Active, terms, services, weight };
        if self.desired.announcements.get(&net).is_some_and(|old| **old == new) {
            return false;
        }
        self.desired.announcements.insert(net, Arc::new(new));
        true
    }

    /// The prefixes and advertisements that a decision asks for, sorted, each once.
    fn contribution(&mut self, decision: &Decision) -> Contribution {
        let mut all = Vec::new();
        for address in decision.addresses.iter().filter(|a| a.reason == Reason::Announced) {
            let Some(ip) = address.ip else { continue };
            for advertisement in &address.advertisements {
                all.push((prefix_of(ip, advertisement), self.terms_of(advertisement)));
            }
        }
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| order(&a.1, &b.1)));
        all.dedup();
        Contribution { offers: all.into_boxed_slice(), weight: decision.weight }
    }

    fn terms_of(&mut self, advertisement: &Arc<Advertisement>) -> Arc<Terms> {
        if let Some((known, terms)) = self.terms.get(&advertisement.name)
            && (Arc::ptr_eq(known, advertisement) || known == advertisement)
        {
            return terms.clone();
        }
        let terms = Arc::new(Terms {
            advertisement: advertisement.name.clone(),
            targets: (!advertisement.peers.is_empty()).then(|| advertisement.peers.clone()),
            local_pref: advertisement.local_pref,
            communities: advertisement.communities.clone(),
            parameters: advertisement.parameters.clone(),
        });
        self.terms.insert(advertisement.name.clone(), (advertisement.clone(), terms.clone()));
        terms
    }
}

/// The one allocation of a list of terms. Two advertisements never have the same, since the terms name them.
fn intern(interned: &mut BTreeSet<Arc<[Terms]>>, offers: &[(Offer, u32)]) -> Arc<[Terms]> {
    let terms: Vec<Terms> = offers.iter().map(|(offer, _)| (**offer).clone()).collect();
    if let Some(known) = interned.get(&*terms) {
        return known.clone();
    }
    let new: Arc<[Terms]> = terms.into();
    interned.insert(new.clone());
    new
}

impl Prefix {
    fn weigh(&mut self, weight: Option<u32>) {
        match weight {
            Some(weight) => self.weight += u64::from(weight),
            None => self.unweighed += 1,
        }
    }

    fn unweigh(&mut self, weight: Option<u32>) {
        match weight {
            Some(weight) => self.weight -= u64::from(weight),
            None => self.unweighed -= 1,
        }
    }

    fn add(&mut self, offer: &Offer) {
        match self.offers.binary_search_by(|(known, _)| order(known, offer)) {
            Ok(at) => self.offers[at].1 += 1,
            Err(at) => self.offers.insert(at, (offer.clone(), 1)),
        }
    }

    fn remove(&mut self, offer: &Offer) {
        if let Ok(at) = self.offers.binary_search_by(|(known, _)| order(known, offer)) {
            self.offers[at].1 -= 1;
            if self.offers[at].1 == 0 {
                self.offers.remove(at);
            }
        }
    }
}

/// `ip` masked to the length that the advertisement aggregates to.
#[must_use]
pub fn prefix_of(ip: IpAddr, advertisement: &Advertisement) -> IpNet {
    let length = advertisement.aggregation_length(IpFamily::of(ip));
    IpNet::new(ip, length).map_or_else(|_| IpNet::from(ip), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        announce::Community,
        decide::{AddressDecision, tests::advert},
    };

    /// A decision that announces each address under these advertisements.
    fn announced(ips: &[&str], advertisements: &[&Advertisement]) -> Decision {
        let advertisements: Vec<_> = advertisements.iter().map(|a| Arc::new((*a).clone())).collect();
        let addresses = ips.iter().map(|ip| AddressDecision {
            ip: Some(ip.parse().unwrap()),
            reason: Reason::Announced,
            advertisements: advertisements.clone(),
            because_of: None,
        });
        Decision { addresses: addresses.collect(), weight: None }
    }

    fn key(text: &str) -> ServiceKey {
        text.parse().unwrap()
    }

    /// Prefixes with the Services that need them.
    fn shown(desired: &Desired) -> Vec<String> {
        let show = |(net, a): (&IpNet, &Arc<Announcement>)| {
            let services: Vec<&str> = a.services.iter().map(ServiceKey::as_str).collect();
            format!("{net} {}", services.join(","))
        };
        desired.announcements.iter().map(show).collect()
    }

    #[test]
    fn prefix_lives_as_long_as_any_service_needs_it() {
        let mut builder = DesiredBuilder::default();
        let wide = Advertisement { aggregation_length_v4: 24, ..advert("wide") };
        builder.set(&key("d/a"), Some(&announced(&["10.0.0.1", "10.0.0.2", "fc00::1"], &[&wide])));
        builder.set(&key("d/b"), Some(&announced(&["10.0.0.3"], &[&wide])));
        assert_eq!(shown(&builder.desired()), ["10.0.0.0/24 d/a,d/b", "fc00::1/128 d/a"]);
        builder.set(&key("d/a"), Some(&announced(&["10.0.0.2"], &[&wide])));
        assert_eq!(shown(&builder.desired()), ["10.0.0.0/24 d/a,d/b"]);
        builder.set(&key("d/a"), None);
        assert_eq!(shown(&builder.desired()), ["10.0.0.0/24 d/b"]);
        builder.set(&key("d/b"), Some(&Decision::default()));
        assert_eq!(shown(&builder.desired()), [""; 0]);
        assert!(builder.prefixes.is_empty() && builder.contributions.is_empty());
    }

    #[test]
    fn generation_grows_only_when_the_set_changes() {
        let mut builder = DesiredBuilder::default();
        assert_eq!(builder.desired().generation, 0);
        let decision = announced(&["10.0.0.1"], &[&advert("a")]);
        builder.set(&key("d/a"), Some(&decision));
        let first = builder.desired();
        assert_eq!(first.generation, 1);
        builder.set(&key("d/a"), Some(&announced(&["10.0.0.1"], &[&advert("a")])));
        builder.set(&key("d/b"), Some(&Decision::default()));
        assert_eq!(builder.desired(), first, "an equal decision");
        builder.set(&key("d/a"), None);
        builder.set(&key("d/a"), Some(&decision));
        assert_eq!(builder.desired(), first, "there and back between two looks");
        builder.set(&key("d/a"), None);
        assert_eq!(builder.desired().generation, 2);
    }

    #[test]
    fn terms_are_one_per_advertisement_in_name_order() {
        let mut builder = DesiredBuilder::default();
        let gold = Advertisement { communities: [Community::Standard(1, 2)].into(), ..advert("b") };
        let peered = Advertisement { peers: ["r".into()].into(), local_pref: Some(7), ..advert("a") };
        let plain = advert("c");
        let same = Advertisement { aggregation_length_v6: 64, ..advert("d") };
        builder.set(&key("d/a"), Some(&announced(&["10.0.0.1", "10.0.0.2"], &[&same, &gold, &plain, &peered])));
        let desired = builder.desired();
        let terms: Vec<&Arc<[Terms]>> = desired.announcements.values().map(|a| &a.terms).collect();
        assert!(Arc::ptr_eq(terms[0], terms[1]), "equal terms share one allocation");
        let want = [
            Terms {
                advertisement: "a".into(),
                targets: Some(["r".into()].into()),
                local_pref: Some(7),
                ..Terms::default()
            },
            Terms { advertisement: "b".into(), communities: [Community::Standard(1, 2)].into(), ..Terms::default() },
            Terms { advertisement: "c".into(), ..Terms::default() },
            Terms { advertisement: "d".into(), ..Terms::default() },
        ];
        assert_eq!(**terms[0], want);
    }

    #[test]
    fn edited_advertisement_changes_the_terms_of_its_prefixes() {
        let mut builder = DesiredBuilder::default();
        builder.set(&key("d/a"), Some(&announced(&["10.0.0.1"], &[&advert("a")])));
        let before = builder.desired();
        let edited = Advertisement { local_pref: Some(9), ..advert("a") };
        builder.set(&key("d/a"), Some(&announced(&["10.0.0.1"], &[&edited])));
        let after = builder.desired();
        assert_eq!(after.generation, before.generation + 1);
        assert_eq!(after.announcements.values().next().unwrap().terms[0].local_pref, Some(9));
        let unannounced = Decision {
            addresses: vec![AddressDecision {
                ip: Some("10.0.0.1".parse().unwrap()),
                reason: Reason::NoEndpoints,
                advertisements: Vec::new(),
                because_of: None,
            }],
            weight: None,
        };
        builder.set(&key("d/a"), Some(&unannounced));
        assert!(builder.desired().announcements.is_empty());
    }

    #[test]
    fn weight_is_the_sum_over_the_services_of_a_prefix_unless_one_has_none() {
        let mut builder = DesiredBuilder::default();
        let wide = Advertisement { aggregation_length_v4: 24, ..advert("wide") };
        let weighing = |ips: &[&str], weight| Decision { weight, ..announced(ips, &[&wide, &advert("host")]) };
        let weights = |builder: &mut DesiredBuilder| -> Vec<Option<u32>> {
            builder.desired().announcements.values().map(|a| a.weight.map(std::num::NonZeroU32::get)).collect()
        };
        builder.set(&key("d/a"), Some(&weighing(&["10.0.0.1"], Some(2))));
        builder.set(&key("d/b"), Some(&weighing(&["10.0.0.2", "10.0.0.3"], Some(6))));
        assert_eq!(weights(&mut builder), [8, 2, 6, 6].map(Some));
        let generation = builder.desired().generation;
        builder.set(&key("d/b"), Some(&weighing(&["10.0.0.2", "10.0.0.3"], Some(5))));
        assert_eq!(weights(&mut builder), [8, 2, 6, 6].map(Some), "rounded, 7 is 8 and 5 is 6");
        assert_eq!(builder.desired().generation, generation);
        builder.set(&key("d/b"), Some(&weighing(&["10.0.0.2"], None)));
        assert_eq!(weights(&mut builder), [None, Some(2), None]);
        builder.set(&key("d/b"), None);
        assert_eq!(weights(&mut builder), [2, 2].map(Some));
        builder.set(&key("d/a"), None);
        assert!(builder.desired().announcements.is_empty());
        assert!(builder.prefixes.is_empty() && builder.contributions.is_empty());
    }

    #[test]
    fn retain_forgets_services_that_a_relist_did_not_bring() {
        let mut builder = DesiredBuilder::default();
        builder.set(&key("d/a"), Some(&announced(&["10.0.0.1"], &[&advert("a")])));
        builder.set(&key("d/b"), Some(&announced(&["10.0.0.2"], &[&advert("a")])));
        builder.retain(|k| k.name() == "b");
        assert_eq!(shown(&builder.desired()), ["10.0.0.2/32 d/b"]);
    }
}
