//! The one place between "what should be announced" and "what is announced now".
//!
//! Drains and the damping of weights live here; readiness gates, budgets and change windows will. Nothing goes around it.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use imbl::{OrdMap, ordmap::DiffItem};
use ipnet::IpNet;

use crate::announce::{Announcement, AnnouncementState, Configuration, Desired};

/// What is wanted at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What should be announced.
    pub desired: &'a Desired,
    /// No weight of a prefix changes more often than this; `None`: at once.
    pub weight_interval: Option<Duration>,
    /// Everything active is to be announced as draining.
    pub drained: bool,
}

/// Decides when a change of the desired set may take effect. Pure: the clock is an argument.
///
/// A change that is only a change of weight waits until the interval since the prefix's last weight has passed; everything else
/// takes effect at once, a withdrawal before all. The cost is that of what changed.
#[derive(Debug, Default)]
pub struct Pacer {
    generation: u64,
    /// What was wanted last, and whether drained; `None`: nothing yet.
    seen: Option<(OrdMap<IpNet, Arc<Announcement>>, bool)>,
    /// What is announced now.
    now: OrdMap<IpNet, Arc<Announcement>>,
    /// What travels beside it; no change of it waits.
    configuration: Arc<Configuration>,
    /// When a prefix got the weight that it is announced with; only prefixes with a weight.
    weighed_at: BTreeMap<IpNet, Instant>,
    /// Prefixes whose weight waits, and until when.
    waiting: BTreeSet<(Instant, IpNet)>,
}

/// What to announce now, and when to ask again.
#[derive(Debug, PartialEq)]
pub struct Paced {
    /// The set to hand to the announcers. Its generation is the pacer's own count of changes.
    pub now: Desired,
    /// Ask again then even if nothing changed; `None`: no change is waiting.
    pub again_at: Option<Instant>,
}

impl Pacer {
    /// A pacer whose first set has the generation after this one.
    #[must_use]
    pub fn after(generation: u64) -> Self {
        Self { generation, ..Self::default() }
    }

    /// What of `wanted` may be announced at `now`. The generation grows with the first set, and with every change.
    #[must_use]
    pub fn pace(&mut self, wanted: Wanted<'_>, now: Instant) -> Paced {
        let announcements = &wanted.desired.announcements;
        let first = self.seen.is_none();
        let mut touched: BTreeSet<IpNet> = BTreeSet::new();
        match &self.seen {
            Some((seen, drained)) if *drained == wanted.drained => {
                if !seen.ptr_eq(announcements) {
                    touched.extend(seen.diff(announcements).map(|item| prefix_of(&item)));
                }
            }
            _ => touched.extend(self.now.keys().chain(announcements.keys())),
        }
        while let Some((due, prefix)) = self.waiting.first().copied()
            && due <= now
        {
            self.waiting.remove(&(due, prefix));
            touched.insert(prefix);
        }
        let mut changed = first;
        for prefix in touched {
            changed |= self.let_through(prefix, &wanted, now);
        }
        self.seen = Some((announcements.clone(), wanted.drained));
        if self.configuration != wanted.desired.configuration {
            self.configuration = wanted.desired.configuration.clone();
            changed = true;
        }
        if changed {
            self.generation += 1;
        }
        let configuration = self.configuration.clone();
        let now = Desired {
            generation: self.generation,
            announcements: self.now.clone(),
            configuration,
            ..Desired::default()
        };
        Paced { now, again_at: self.waiting.first().map(|(due, _)| *due) }
    }

    /// Brings one prefix of what is announced now up to date, as far as it may be; did that change anything?
    fn let_through(&mut self, prefix: IpNet, wanted: &Wanted<'_>, now: Instant) -> bool {
        let Some(asked) = wanted.desired.announcements.get(&prefix) else {
            self.weighed_at.remove(&prefix);
            return self.now.remove(&prefix).is_some();
        };
        let old = self.now.get(&prefix);
        let mut weight = asked.weight;
        let had = old.and_then(|old| old.weight);
        if weight.is_none() {
            self.weighed_at.remove(&prefix);
        } else if weight != had {
            let since = self.weighed_at.get(&prefix).filter(|_| had.is_some());
            let due = since.zip(wanted.weight_interval).map(|(since, interval)| *since + interval);
            match due.filter(|due| *due > now) {
                Some(due) => {
                    weight = had;
                    self.waiting.insert((due, prefix));
                }
                None => drop(self.weighed_at.insert(prefix, now)),
            }
        }
        let state = match asked.state {
            AnnouncementState::Active if wanted.drained => AnnouncementState::Draining,
            state => state,
        };
        let new = if (state, weight) == (asked.state, asked.weight) {
            asked.clone()
        } else {
            Arc::new(Announcement { state, weight, ..(**asked).clone() })
        };
        if old.is_some_and(|old| *old == new) {
            return false;
        }
        self.now.insert(prefix, new);
        true
    }
}

fn prefix_of<V>(item: &DiffItem<'_, '_, IpNet, V>) -> IpNet {
    match item {
        DiffItem::Add(prefix, _) | DiffItem::Update { new: (prefix, _), .. } | DiffItem::Remove(prefix, _) => **prefix,
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own the clock")]
mod tests {
    use super::*;
    use crate::{announce::Terms, model::ServiceKey};
    use proptest::{collection::vec, option, prelude::*};
    use std::num::NonZeroU32;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn announcement(term: u8, weight: Option<u32>) -> Arc<Announcement> {
        let terms = vec![Terms { advertisement: term.to_string().into(), ..Terms::default() }];
        let services = Arc::new([ServiceKey::new("d", "a")].into());
        let weight = weight.and_then(NonZeroU32::new);
        Arc::new(Announcement { state: AnnouncementState::Active, terms: terms.into(), services, weight })
    }

    fn prefix(last: u8) -> IpNet {
        IpNet::from(std::net::IpAddr::from([10, 0, 0, last]))
    }

    fn desired(weights: &[(u8, Option<u32>)]) -> Desired {
        let announcements = weights.iter().map(|(last, weight)| (prefix(*last), announcement(0, *weight))).collect();
        Desired { announcements, ..Desired::default() }
    }

    fn weights(paced: &Paced) -> Vec<Option<u32>> {
        paced.now.announcements.values().map(|a| a.weight.map(NonZeroU32::get)).collect()
    }

    /// Paces one set at so many seconds.
    fn at(pacer: &mut Pacer, began: Instant, seconds: u64, desired: &Desired) -> Paced {
        let wanted = Wanted { desired, weight_interval: Some(INTERVAL), drained: false };
        pacer.pace(wanted, began + Duration::from_secs(seconds))
    }

    #[test]
    fn first_set_passes_even_if_it_is_empty() {
        let wanted = Desired { generation: 7, ..desired(&[(1, None)]) };
        let now = Instant::now();
        let paced = at(&mut Pacer::after(3), now, 0, &wanted);
        assert_eq!(paced, Paced { now: Desired { generation: 4, ..wanted }, again_at: None });
        let mut pacer = Pacer::default();
        assert_eq!(at(&mut pacer, now, 0, &Desired::default()).now.generation, 1);
        assert_eq!(at(&mut pacer, now, 1, &Desired::default()).now.generation, 1);
    }

    #[test]
    fn change_of_weight_alone_waits_for_the_interval() {
        let (mut pacer, began) = (Pacer::default(), Instant::now());
        assert_eq!(weights(&at(&mut pacer, began, 0, &desired(&[(1, Some(1)), (2, Some(1))]))), [Some(1), Some(1)]);
        let paced = at(&mut pacer, began, 3, &desired(&[(1, Some(2)), (2, Some(1))]));
        assert_eq!((weights(&paced), paced.now.generation), (vec![Some(1), Some(1)], 1));
        assert_eq!(paced.again_at, Some(began + INTERVAL));
        let later = desired(&[(1, Some(3)), (2, Some(1))]);
        assert_eq!(weights(&at(&mut pacer, began, 9, &later)), [Some(1), Some(1)]);
        let paced = at(&mut pacer, began, 10, &later);
        assert_eq!((weights(&paced), paced.now.generation, paced.again_at), (vec![Some(3), Some(1)], 2, None));
        // The other has rested long enough.
        assert_eq!(weights(&at(&mut pacer, began, 15, &desired(&[(1, Some(4)), (2, Some(4))]))), [Some(3), Some(4)]);
        // There and back while it waits is no change.
        assert_eq!(weights(&at(&mut pacer, began, 16, &desired(&[(1, Some(3)), (2, Some(4))]))), [Some(3), Some(4)]);
        let paced = at(&mut pacer, began, 20, &desired(&[(1, Some(3)), (2, Some(4))]));
        assert_eq!((weights(&paced), paced.now.generation, paced.again_at), (vec![Some(3), Some(4)], 3, None));
    }

    #[test]
    fn everything_else_passes_at_once_with_the_weight_held_back() {
        let (mut pacer, began) = (Pacer::default(), Instant::now());
        let first = desired(&[(1, Some(1)), (2, Some(1)), (3, Some(1))]);
        let _ = at(&mut pacer, began, 0, &first);
        let mut next = desired(&[(3, None), (4, Some(9))]);
        next.announcements.insert(prefix(1), announcement(7, Some(2)));
        let paced = at(&mut pacer, began, 1, &next);
        assert_eq!(weights(&paced), [Some(1), None, Some(9)], "other terms, withdrawn, no weight any more, new");
        assert_eq!(&*paced.now.announcements[&prefix(1)].terms[0].advertisement, "7");
        // A prefix that comes back has its weight at once.
        assert_eq!(weights(&at(&mut pacer, began, 2, &desired(&[(2, Some(5))]))), [Some(5)]);
    }

    #[test]
    fn drain_concerns_everything_until_it_is_undone() {
        let (mut pacer, began) = (Pacer::default(), Instant::now());
        let mut states = |drained, weights: &[(u8, Option<u32>)]| {
            let desired = desired(weights);
            let paced = pacer.pace(Wanted { desired: &desired, weight_interval: None, drained }, began);
            let draining = paced.now.announcements.values().filter(|a| a.state == AnnouncementState::Draining).count();
            (paced.now.announcements.len(), draining, paced.now.generation)
        };
        assert_eq!(states(false, &[(1, None), (2, None)]), (2, 0, 1));
        assert_eq!(states(true, &[(1, None), (2, None)]), (2, 2, 2));
        assert_eq!(states(true, &[(1, None), (2, None)]), (2, 2, 2));
        assert_eq!(states(true, &[(1, None), (3, None)]), (2, 2, 3), "new ones too");
        assert_eq!(states(false, &[(1, None), (3, None)]), (2, 0, 4));
    }

    proptest! {
        #[test]
        fn what_is_announced_differs_from_what_is_wanted_only_in_weights_that_wait(
            steps in vec((0u64..15, vec((0u8..4, 0u8..2, option::of(1u32..4)), 0..5), any::<bool>()), 1..30),
        ) {
            let (mut pacer, mut now) = (Pacer::default(), Instant::now());
            let mut last = Desired::default();
            let mut weighed_at: BTreeMap<IpNet, Instant> = BTreeMap::new();
            for (seconds, list, drained) in steps {
                now += Duration::from_secs(seconds);
                let announcements = list.iter().map(|(p, term, w)| (prefix(*p), announcement(*term, *w))).collect();
                let wanted = Desired { announcements, ..Desired::default() };
                let wishes = Wanted { desired: &wanted, weight_interval: Some(INTERVAL), drained };
                let paced = pacer.pace(wishes, now);
                prop_assert!(paced.again_at.is_none_or(|at| at > now));
                prop_assert!(paced.now.announcements.keys().eq(wanted.announcements.keys()));
                let grown = paced.now.generation - last.generation;
                let changed = last.generation == 0 || paced.now.announcements != last.announcements;
                prop_assert_eq!(grown, u64::from(changed));
                for (prefix, asked) in &wanted.announcements {
                    let got = &paced.now.announcements[prefix];
                    prop_assert_eq!((&got.terms, &got.services), (&asked.terms, &asked.services));
                    prop_assert_eq!(got.state == AnnouncementState::Draining, drained);
                    prop_assert_eq!(got.weight.is_some(), asked.weight.is_some());
                    if got.weight != asked.weight {
                        let due = weighed_at[prefix] + INTERVAL;
                        prop_assert!(due > now && paced.again_at.is_some_and(|at| at <= due), "{prefix} waits in vain");
                    }
                    let before = last.announcements.get(prefix).and_then(|a| a.weight);
                    if let (Some(before), Some(weight)) = (before, got.weight) && before != weight {
                        prop_assert!(weighed_at[prefix] + INTERVAL <= now, "{prefix} changes too often");
                    }
                    if before != got.weight {
                        weighed_at.insert(*prefix, now);
                    }
                }
                last = paced.now;
            }
        }
    }
}
