//! One batch of changes: take in, keep, settle, complete, wake, give, report.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
};

use super::{
    Allocator, Change, Effect, Entry, Foreign, Note, NoteType, Outcome, Phase, Rare,
    choose::{Choice, Refusal},
    entries::Id,
    few::Few,
    holdings::Sharing,
    keep::{Kept, Verdict},
    ledger::About,
    request::{self, Need},
    space::rules,
    take_in::age,
    waiting::{Interest, Place, Queue, Seekers},
};
use crate::{
    config::Reservation,
    model::{FamilyPolicy, IpFamily, Service, ServiceKey},
};

/// Octets that an ordinary message fills: one address and its pool.
const WORDS_LEN: usize = 48;

/// What most Services have of what few have.
static NOTHING_RARE: Rare = Rare {
    changed_from: None,
    held: Vec::new(),
    foreign: None,
    message: String::new(),
    failure: None,
    cleared: None,
    cleared_now: false,
    near: Vec::new(),
    interest: Interest { queues: Vec::new(), ips: Vec::new(), sharing: None },
};

/// What a batch has found so far.
#[derive(Default)]
pub(super) struct Batch {
    now_s: i64,
    /// Services to judge, perhaps several times.
    pub(super) dirty: Vec<Id>,
    /// Addresses whose holders, or their ports or keys, changed, or that may be given out again.
    pub(super) touched: BTreeSet<IpAddr>,
    /// Those have been looked at: what changes from now on helps nobody who has not been woken.
    pub(super) woken: bool,
    /// Addresses that were given back and that nobody has taken since.
    pub(super) freed: BTreeMap<IpAddr, Freed>,
    /// Services that keep what they have only if they get something else with it, in order of service.
    incomplete: Vec<Id>,
    /// Services that lack an address and may get one.
    seekers: Seekers,
    /// What became available, and the last Service asked.
    open: BTreeMap<Queue, Option<Place>>,
    /// Services whose outcome may have changed, each once.
    changed: Vec<Id>,
    /// Services that are not ours any more.
    pub(super) gone: Vec<ServiceKey>,
}

/// Who gave an address back, and of which reservation it was.
pub(super) struct Freed {
    pub(super) service: ServiceKey,
    pub(super) reservation: Option<Arc<Reservation>>,
}

impl Batch {
    fn note_changed(&mut self, id: Id, entry: &mut Entry) {
        if !std::mem::replace(&mut entry.changed, true) {
            self.changed.push(id);
        }
    }

    fn seek_later(&mut self, id: Id, entry: &mut Entry) {
        entry.lacks = true;
        self.seekers.insert(entry.place(id));
    }
}

pub(super) fn apply(
    allocator: &mut Allocator,
    changes: Vec<Change>,
    now_s: i64,
    done: &mut dyn FnMut(Phase),
) -> Vec<Effect> {
    let mut batch = Batch { now_s, ..Batch::default() };
    allocator.take_in(changes, now_s, &mut batch);
    done(Phase::TakeIn);
    if allocator.configured {
        allocator.thaw_due(&mut batch, now_s);
        allocator.keep(&mut batch);
        allocator.settle(&mut batch, now_s);
        allocator.complete_near(&mut batch);
        allocator.wake(&mut batch);
        done(Phase::Judge);
        allocator.give(&mut batch);
        done(Phase::Give);
        allocator.starting = false;
    }
    allocator.report(batch)
}

impl Allocator {
    /// Judges the dirty Services: those that hold an address already before those whose status says so, then by age.
    fn keep(&mut self, batch: &mut Batch) {
        let mut order = std::mem::take(&mut batch.dirty);
        let rank = |id: &Id| self.entries.get(*id).map(|entry| (entry.ips.is_empty(), age(&entry.service)));
        order.sort_by(|a, b| rank(a).cmp(&rank(b)));
        order.dedup();
        batch.changed.reserve(order.len());
        for id in order {
            let Some(mut entry) = self.entries.take(id) else { continue };
            self.keep_one(id, &mut entry, batch);
            batch.note_changed(id, &mut entry);
            self.entries.put(id, entry);
        }
    }

    fn keep_one(&mut self, id: Id, entry: &mut Entry, batch: &mut Batch) {
        self.stop_waiting(id, entry);
        let verdict = self.judge(entry);
        if let Some(rare) = &mut entry.rare {
            rare.changed_from = None;
        }
        let service = entry.service.clone();
        let kept: &[Kept] = match &verdict {
            Verdict::Keep { kept, .. } | Verdict::Foreign { ours: kept, .. } => kept,
            Verdict::Nothing { .. } | Verdict::Seek { .. } => &[],
        };
        let near: &[IpAddr] = if let Verdict::Seek { near, .. } = &verdict { near } else { &[] };
        let near: Vec<IpAddr> = near.iter().copied().filter(|ip| self.check_kept(*ip, &service).is_ok()).collect();
        for ip in entry.ips.iter().filter(|ip| !kept.iter().any(|one| one.ip == **ip) && !near.contains(ip)) {
            self.let_go(*ip, &service.key, batch);
        }
        entry.clear();
        for one in kept {
            self.hold(one.ip, &service, batch);
            entry.keep(one);
        }
        match verdict {
            Verdict::Nothing { code, message, note } => {
                entry.code = code;
                entry.complain(message, note);
            }
            Verdict::Foreign { message, given_up, .. } => {
                let note = Note { kind: NoteType::Warning, reason: "AddressNotOurs", message: message.clone() };
                entry.code = "addressNotOurs";
                entry.complain(message, Some(note));
                entry.rare_mut().foreign = Some(Foreign::of(&service, &given_up));
            }
            Verdict::Keep { invalid: Some((message, note)), .. } => {
                entry.code = "invalidRequest";
                entry.complain(message, Some(note));
            }
            Verdict::Keep { .. } => {
                if self.wants_another(entry) {
                    batch.seek_later(id, entry);
                }
            }
            Verdict::Seek { note, .. } => {
                entry.code = "waiting";
                for ip in &near {
                    self.undecided.insert(*ip);
                    self.hold(*ip, &service, batch);
                }
                if note.is_some() {
                    let rare = entry.rare_mut();
                    (rare.cleared, rare.cleared_now) = (note, true);
                }
                if near.is_empty() {
                    batch.seek_later(id, entry);
                } else {
                    entry.rare_mut().near = near;
                    batch.incomplete.push(id);
                }
            }
        }
    }

    fn stop_waiting(&mut self, id: Id, entry: &mut Entry) {
        entry.lacks = false;
        if let Some(rare) = &mut entry.rare {
            let interest = std::mem::take(&mut rare.interest);
            self.waiting.remove(entry.place(id), &interest);
        }
    }

    /// Decides about those who keep what they have only if they get something else with it. They hold addresses, so they come
    /// before all who wait; and what they have to give up is there for those.
    fn complete_near(&mut self, batch: &mut Batch) {
        for id in std::mem::take(&mut batch.incomplete) {
            let Some(mut entry) = self.entries.take(id) else { continue };
            let (service, near) = (entry.service.clone(), std::mem::take(&mut entry.rare_mut().near));
            let wishes = request::need(&service).ok().zip(self.request_of(&service).ok());
            let found = wishes.and_then(|(need, request)| self.choose(&service, need, &request, &near).ok());
            for ip in &near {
                self.undecided.remove(ip);
            }
            let kept = |ip: &IpAddr| found.iter().flatten().any(|(kept, _)| kept == ip);
            for ip in near.iter().filter(|ip| !kept(ip)) {
                self.let_go(*ip, &service.key, batch);
            }
            self.settle(batch, batch.now_s);
            match found {
                Some(found) => self.give_to(id, &mut entry, found, batch),
                None => batch.seek_later(id, &mut entry),
            }
            self.entries.put(id, entry);
        }
    }

    /// Finds whom the changed addresses could help.
    fn wake(&mut self, batch: &mut Batch) {
        for ip in std::mem::take(&mut batch.touched) {
            if !self.holdings.is_held(ip) {
                batch.open.extend(self.queues_of(ip).into_iter().map(|queue| (queue, None)));
            }
            self.wake_for(ip, batch);
        }
        self.open_stirred(batch);
        batch.woken = true;
    }

    /// Wakes those who wait for this very address, if only to say anew why they may not have it, and those who wait for
    /// one that is shared like it and could join now.
    fn wake_for(&self, ip: IpAddr, batch: &mut Batch) {
        if !self.waiting.for_addresses() {
            return;
        }
        let key = self.holdings.get(ip).and_then(|held| held.key());
        let rules = self.config.pool_of(ip).map(|pool| rules(pool)).unwrap_or_default();
        let could = key.into_iter().flat_map(|key| self.waiting.for_sharing(key)).filter(|(_, id)| {
            let service = self.entries.get(*id).map(|e| &*e.service);
            service.is_some_and(|s| self.holdings.check(ip, s, Sharing::of(s).as_deref(), rules).is_ok())
        });
        could.chain(self.waiting.for_ip(ip)).for_each(|place| batch.seekers.insert(place));
    }

    /// Opens the queues of what is counted and has changed.
    fn open_stirred(&mut self, batch: &mut Batch) {
        for id in self.ledger.take_stirred() {
            let account = self.ledger.get(id);
            match &account.about {
                About::Quota(_) => drop(batch.open.insert(Queue::Account(id), None)),
                About::Reservation(index, family) => {
                    batch.open.insert(Queue::Pool(account.pool.clone(), *family), None);
                    batch.open.insert(Queue::Reservation(*index), None);
                }
            }
        }
    }

    /// Serves those who lack an address, in order of arrival, as long as there is something to give.
    fn give(&mut self, batch: &mut Batch) {
        while let Some((_, id)) = self.next_seeker(batch) {
            let Some(mut entry) = self.entries.take(id) else { continue };
            if entry.lacks {
                self.stop_waiting(id, &mut entry);
                self.seek(id, &mut entry, batch);
                batch.note_changed(id, &mut entry);
            }
            self.entries.put(id, entry);
            self.open_stirred(batch);
        }
    }

    fn next_seeker(&self, batch: &mut Batch) -> Option<Place> {
        let queued = batch.open.iter().filter_map(|(queue, last)| {
            let place = self.waiting.next(queue, *last)?;
            self.is_open(queue).then(|| (place, queue.clone()))
        });
        let queued = queued.min();
        match (batch.seekers.first(), queued) {
            (Some(seeker), queued) if queued.as_ref().is_none_or(|(place, _)| seeker <= *place) => {
                batch.seekers.remove(seeker);
                Some(seeker)
            }
            (_, Some((place, queue))) => {
                batch.open.insert(queue, Some(place));
                Some(place)
            }
            (seeker, None) => seeker,
        }
    }

    /// Is there anything for those in the queue?
    fn is_open(&self, queue: &Queue) -> bool {
        let room = |id| {
            let account = self.ledger.get(id);
            account.used < account.max
        };
        match queue {
            Queue::Pool(pool, family) => {
                let free = self.space.pools.get(pool).map_or(0, |state| state.family(*family).general_free());
                free > u128::from(self.ledger.outstanding(pool, *family))
            }
            Queue::Account(id) => room(*id),
            Queue::Reservation(index) => {
                let Some(state) = self.space.pools.get(&self.claims.reservations[*index].pool) else { return false };
                let listed = |family| state.family(family).reserve_of(*index).is_some_and(|lot| lot.free.len() > 0);
                let counted = || self.ledger.of_reservation(*index).is_some_and(room);
                listed(IpFamily::V4) || listed(IpFamily::V6) || counted()
            }
        }
    }

    fn seek(&mut self, id: Id, entry: &mut Entry, batch: &mut Batch) {
        let service = entry.service.clone();
        let (Ok(need), Ok(request)) = (request::need(&service), self.request_of(&service)) else { return };
        let found = if entry.ips.is_empty() {
            self.choose(&service, need, &request, &[])
        } else {
            self.choose_additional(entry, need, &request)
        };
        match found {
            Ok(found) => self.give_to(id, entry, found, batch),
            Err(refusal) => self.wait(id, entry, refusal),
        }
    }

    fn give_to(&mut self, id: Id, entry: &mut Entry, found: Choice, batch: &mut Batch) {
        let service = entry.service.clone();
        for (ip, _) in found.iter().filter(|(ip, _)| !entry.ips.contains(ip)) {
            self.hold(*ip, &service, batch);
            self.wake_for(*ip, batch);
        }
        let held = entry.rare.as_mut().map(|rare| std::mem::take(&mut rare.held)).unwrap_or_default();
        entry.clear();
        for (ip, pool) in found {
            let held = held.iter().find(|(other, _)| *other == ip).map(|(_, why)| why.clone());
            entry.keep(&Kept { ip, pool: Some(pool), held });
        }
        if self.wants_another(entry) {
            batch.seek_later(id, entry);
        }
    }

    /// Has the Service fewer addresses than it wants, none of which it chose itself?
    fn wants_another(&self, entry: &Entry) -> bool {
        let service = &entry.service;
        let modest = service.annotations.addresses_per_family.is_none();
        if modest && service.family_policy != Some(FamilyPolicy::PreferDualStack) {
            return false;
        }
        let (Ok(need), Ok(request)) = (request::need(&entry.service), self.request_of(&entry.service)) else {
            return false;
        };
        let families = match need {
            Need::One(IpFamily::V4) => &[IpFamily::V4][..],
            Need::One(IpFamily::V6) => &[IpFamily::V6],
            Need::Both | Need::Prefer(_) => &[IpFamily::V4, IpFamily::V6],
        };
        let has = |family: IpFamily| entry.ips.iter().filter(|ip| IpFamily::of(**ip) == family).count();
        request.ips.is_empty() && families.iter().any(|family| has(*family) < request.per_family)
    }

    fn wait(&mut self, id: Id, entry: &mut Entry, refusal: Refusal) {
        let key = entry.service.key.as_str();
        let (reason, what) = match entry.ips.is_empty() {
            true => ("AllocationFailed", "Failed to allocate IP for"),
            false => ("AdditionalAssignFailed", "Failed to allocate additional IP for"),
        };
        let message = format!("{what} {key:?}: {}", refusal.message);
        let telling = !refusal.message.is_empty() && refusal.code != "noPools";
        let note = telling.then_some(Note { kind: NoteType::Warning, reason, message });
        if entry.ips.is_empty() {
            entry.code = refusal.code;
        }
        entry.complain(refusal.message, note);
        self.waiting.add(entry.place(id), &refusal.interest);
        entry.rare_mut().interest = refusal.interest;
        entry.lacks = true;
    }

    fn report(&mut self, batch: Batch) -> Vec<Effect> {
        let gone = !batch.gone.is_empty();
        let mut changed = batch.changed;
        // They come as few runs that are nearly in order, which a stable sort makes use of.
        let key = |id: &Id| self.entries.get(*id).map(|entry| &entry.service.key);
        changed.sort_by(|a, b| key(a).cmp(&key(b)));
        let mut effects: Vec<Effect> = Vec::with_capacity(batch.gone.len() + changed.len());
        effects.extend(batch.gone.into_iter().map(|key| (key, None)));
        for id in changed {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            entry.changed = false;
            let Some(before) = entry.report() else { continue };
            let (key, after) = (entry.service.key.clone(), entry.outcome.clone());
            self.count_held(before.as_deref(), after.as_deref());
            effects.push((key, after));
        }
        if gone {
            // Of a Service that went and came, what came counts.
            effects.sort_by(|a, b| (&a.0, a.1.is_none()).cmp(&(&b.0, b.1.is_none())));
            effects.dedup_by(|later, first| later.0 == first.0);
        }
        effects
    }

    /// Counts the held addresses of an outcome that takes the place of another.
    pub(super) fn count_held(&mut self, before: Option<&Outcome>, after: Option<&Outcome>) {
        let pools = |outcome: &Outcome| {
            let held = outcome.ips.iter().zip(&outcome.pools).filter(|(ip, _)| outcome.held.contains(ip));
            held.map(|(_, pool)| pool.clone()).collect::<Vec<_>>()
        };
        for pool in after.into_iter().filter(|o| !o.held.is_empty()).flat_map(pools) {
            *self.held.entry(pool).or_default() += 1;
        }
        for pool in before.into_iter().filter(|o| !o.held.is_empty()).flat_map(pools) {
            if let Some(count) = self.held.get_mut(&pool) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&pool);
                }
            }
        }
    }
}

impl Entry {
    pub(super) fn new(service: Arc<Service>, arrival: u64) -> Self {
        Self {
            service,
            arrival,
            ips: Few::default(),
            pools: Few::default(),
            code: "waiting",
            lacks: false,
            changed: false,
            rare: None,
            outcome: None,
            at: 0,
            twin: None,
        }
    }

    pub(super) fn place(&self, id: Id) -> Place {
        (self.arrival, id)
    }

    /// What it has of what few have.
    pub(super) fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING_RARE)
    }

    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Says what is wrong.
    fn complain(&mut self, message: String, failure: Option<Note>) {
        let rare = self.rare_mut();
        (rare.message, rare.failure) = (message, failure);
    }

    /// Without addresses and without trouble.
    fn clear(&mut self) {
        self.ips.clear();
        self.pools.clear();
        self.code = "allocated";
        if let Some(rare) = &mut self.rare {
            rare.held.clear();
            rare.near.clear();
            rare.message.clear();
            (rare.foreign, rare.failure) = (None, None);
        }
    }

    fn keep(&mut self, one: &Kept) {
        self.ips.push(one.ip);
        self.pools.push(one.pool.clone());
        if let Some(why) = &one.held {
            self.rare_mut().held.push((one.ip, why.clone()));
            self.code = "held";
        }
    }

    /// Makes the outcome; if it differs from the last one, returns that.
    fn report(&mut self) -> Option<Option<Arc<Outcome>>> {
        let new = match &self.rare().foreign {
            Some(foreign) => Outcome {
                ips: foreign.ips.clone(),
                pool: foreign.pool.clone(),
                pools: foreign.ips.iter().map(|ip| self.pool_of(*ip).cloned().unwrap_or_default()).collect(),
                ..Outcome::default()
            },
            None => Outcome {
                ips: self.ips.to_vec(),
                pool: self.pools.first().cloned().flatten(),
                pools: self.ips.iter().map(|ip| self.pool_of(*ip).cloned().unwrap_or_default()).collect(),
                ..Outcome::default()
            },
        };
        let moved = self.outcome.as_ref().is_some_and(|old| old.ips != new.ips);
        if let Some(rare) = &mut self.rare
            && !std::mem::take(&mut rare.cleared_now)
            && moved
        {
            rare.cleared = None;
        }
        self.rare.take_if(|rare| **rare == NOTHING_RARE);
        let rare = self.rare();
        let notes = rare.cleared.iter().chain(&rare.failure).cloned().chain(request::deprecations(&self.service));
        let held = rare.held.iter().map(|(ip, _)| *ip).collect();
        let new = Outcome { held, code: self.code, message: self.in_words(), notes: notes.collect(), ..new };
        (self.outcome.as_deref() != Some(&new)).then(|| self.outcome.replace(Arc::new(new)))
    }

    fn pool_of(&self, ip: IpAddr) -> Option<&Arc<str>> {
        let at = self.ips.iter().position(|own| *own == ip)?;
        self.pools.get(at)?.as_ref()
    }

    /// The code in words, with what mattered.
    fn in_words(&self) -> String {
        if !matches!(self.code, "allocated" | "held") {
            return self.rare().message.clone();
        }
        let mut words = String::with_capacity(WORDS_LEN);
        for ip in &*self.ips {
            let comma = if words.is_empty() { "" } else { ", " };
            // Writing into a String does not fail.
            let written = match self.rare().held.iter().find(|(held, _)| held == ip) {
                Some((_, why)) => write!(words, "{comma}{ip} is held: {why}"),
                None => write!(words, "{comma}{ip} from pool \"{}\"", self.pool_of(*ip).map_or("", |pool| pool)),
            };
            debug_assert!(written.is_ok(), "a String takes everything");
        }
        if !self.rare().message.is_empty() {
            words.push_str("; ");
            words.push_str(&self.rare().message);
        }
        words
    }
}
