//! From [`Resources`] to [`Config`].
use std::sync::Arc;

use super::{
    Config, InForce, Problem, Resource, Resources, Severity, Spec, advert, advertisement, announcer, bfd,
    check::Report,
    community::{self, Aliases},
    loss,
    past::LastValid,
    peer::{self, Profiles},
    peer_policy::{self, Applied},
    pool::{self, Taken},
    pool_policy,
    reservation::{self, ReservedAddresses},
};
use crate::model::ObjectKey;

/// What is said of an object whose newest version is not in force but an older one is.
const OLDER_IN_FORCE: &str = "the last valid version stays in force";

/// Remembers each object's last valid version, so that an edit that breaks an object does not take it out of force.
#[derive(Debug, Default)]
pub struct Builder {
    last_valid: LastValid,
}

/// One pass over the resources.
struct Pass<'a> {
    resources: &'a Resources,
    /// Every object, the older first.
    objects: Vec<&'a Arc<Resource>>,
    config: Config,
}

impl Builder {
    /// What of `resources` is in force.
    #[must_use]
    pub fn build(&mut self, resources: &Resources) -> Config {
        self.last_valid.forget_deleted(resources);
        let mut objects: Vec<&Arc<Resource>> = resources.objects.values().collect();
        objects.sort_by(|a, b| (a.meta.created_s, &a.meta.key).cmp(&(b.meta.created_s, &b.meta.key)));
        let mut pass = Pass { resources, objects, config: Config::default() };
        let aliases = pass.communities(&mut self.last_valid);
        pass.pools(&mut self.last_valid);
        pass.pool_policies(&mut self.last_valid);
        pass.config.index();
        pass.reservations(&mut self.last_valid);
        let profiles = pass.profiles(&mut self.last_valid);
        pass.peers(&mut self.last_valid, &profiles);
        pass.advertisements(&mut self.last_valid, &aliases);
        pass.announcers(&mut self.last_valid);
        pass.announcer_advertisements(&mut self.last_valid);
        pass.policies(&mut self.last_valid);
        pass.other_kinds();
        let mut config = pass.config;
        config.problems.sort();
        config.problems.dedup();
        config.stale = config.problems.iter().any(|p| p.severity == Severity::Error);
        config
    }
}

impl Builder {
    /// What of the past must survive a restart; `config`: what was built last, with [`Config::former`] and [`Config::moved`].
    #[must_use]
    pub fn in_force(&self, config: &Config) -> InForce {
        self.last_valid.in_force(config)
    }

    /// Begins with a past: an object that is invalid at the next build keeps the version that is in it. An object with another uid
    /// is another object.
    pub fn restore(&mut self, kept: &InForce) {
        self.last_valid.restore(kept);
    }
}

/// [`Builder::build`] without a past.
#[must_use]
pub fn build(resources: &Resources) -> Config {
    Builder::default().build(resources)
}

/// Starts the report on an object with what reading it found.
fn report_on(object: &Resource) -> Report {
    let mut report = Report::new(&object.meta.key);
    report.problems.extend(object.problems.iter().cloned());
    if let Some(text) = &object.meta.on_address_loss
        && loss::Wish::parse(text).is_none()
    {
        let field = "metadata.annotations[ferrocast.io/on-address-loss]";
        let message = format!("{text:?} has no meaning");
        let suggestion = "write hold, or move- and the digest of the set that the denial named";
        report.warning("onAddressLossInvalid", field, text, message, suggestion);
    }
    if object.spec.is_none() && !report.has_error() {
        report.error("wrongType", "spec", "", "has not the shape that its kind requires", "");
    }
    report
}

impl<'a> Pass<'a> {
    fn of_kind(&self, kind: &'static str) -> Vec<&'a Arc<Resource>> {
        self.objects.iter().filter(|o| o.meta.key.kind == kind).copied().collect()
    }

    /// Files the problems of an object; `kept`: an older version is in force instead.
    fn file(&mut self, mut report: Report, kept: bool) {
        if kept {
            let errors = report.problems.iter_mut().filter(|p: &&mut Problem| p.severity == Severity::Error);
            errors.for_each(|p| p.message = format!("{}; {OLDER_IN_FORCE}", p.message));
        }
        self.config.problems.append(&mut report.problems);
    }

    fn communities(&mut self, past: &mut LastValid) -> Aliases {
        let mut aliases = Aliases::new();
        for object in self.of_kind("Community") {
            let name = &object.meta.key.name;
            let mut report = report_on(object);
            let own = match &object.spec {
                Some(Spec::Community(spec)) => community::check(spec, &mut report),
                _ => None,
            };
            let admitted = own.filter(|own| community::admit(&mut aliases, name, own, &mut report));
            let mut kept = false;
            if let Some(own) = admitted {
                past.communities.insert(name.clone(), own);
                past.remember(object);
            } else if let Some(own) = past.communities.get(name) {
                kept = community::admit(&mut aliases, name, own, &mut Report::new(&object.meta.key));
            }
            self.file(report, kept);
        }
        aliases
    }

    fn pools(&mut self, past: &mut LastValid) {
        let mut taken = Taken::default();
        for object in self.of_kind("IPAddressPool") {
            let name = &object.meta.key.name;
            let mut report = report_on(object);
            let draft = match &object.spec {
                Some(Spec::Pool(spec)) => pool::check(&object.meta, spec, &mut report),
                _ => None,
            };
            let mut pool = draft.as_ref().and_then(|draft| taken.admit(draft, &mut report));
            let mut kept = false;
            if let (Some(draft), true) = (draft, pool.is_some()) {
                past.pools.insert(name.clone(), draft);
                past.remember(object);
            } else if let Some(draft) = past.pools.get(name) {
                pool = taken.admit_rest(draft);
                kept = pool.is_some();
            }
            match pool {
                Some(pool) => drop(self.config.pools.insert(name.clone(), pool)),
                None => drop(self.config.pools_unknown.insert(name.clone(), object.meta.labels.clone())),
            }
            self.file(report, kept);
        }
    }

    fn pool_policies(&mut self, past: &mut LastValid) {
        for object in self.of_kind("PoolPolicy") {
            let name = &object.meta.key.name;
            let mut report = report_on(object);
            let mut draft = None;
            if let Some(Spec::PoolPolicy(spec)) = &object.spec {
                draft = pool_policy::check(spec, &mut report);
                self.warn_unknown_names(&spec.ip_address_pools, &[], &mut report);
            }
            let releases = &object.releases;
            let admitted =
                draft.filter(|draft| pool_policy::admit(draft, name, releases, &mut self.config, &mut report));
            let mut kept = false;
            if let Some(draft) = admitted {
                past.pool_policies.insert(name.clone(), draft);
                past.remember(object);
            } else if let Some(draft) = past.pool_policies.get(name) {
                let mut unheard = Report::new(&object.meta.key);
                kept = pool_policy::admit(draft, name, releases, &mut self.config, &mut unheard);
            }
            self.file(report, kept);
        }
    }

    fn reservations(&mut self, past: &mut LastValid) {
        let mut taken = ReservedAddresses::default();
        for object in self.of_kind("AddressReservation") {
            let name = &object.meta.key.name;
            let mut report = report_on(object);
            let draft = match &object.spec {
                Some(Spec::Reservation(spec)) => reservation::check(spec, &mut report),
                _ => None,
            };
            let releases = &object.releases;
            let mut reservation =
                draft.as_ref().and_then(|d| taken.admit(d, name, releases, &self.config, false, &mut report));
            let mut kept = false;
            if let (Some(draft), false) = (draft, report.has_error()) {
                past.reservations.insert(name.clone(), draft);
                past.remember(object);
            } else if let Some(draft) = past.reservations.get(name) {
                let mut unheard = Report::new(&object.meta.key);
                reservation = taken.admit(draft, name, releases, &self.config, true, &mut unheard);
                kept = reservation.is_some();
            }
            if let Some(reservation) = reservation {
                self.config.reservations.insert(name.clone(), reservation);
            }
            self.file(report, kept);
        }
    }

    fn profiles(&mut self, past: &mut LastValid) -> Profiles {
        let mut profiles = Profiles::new();
        for object in self.of_kind("BFDProfile") {
            let name = &object.meta.key.name;
            let mut report = report_on(object);
            let read = match &object.spec {
                Some(Spec::BfdProfile(spec)) => bfd::check(&object.meta, spec, &mut report),
                _ => None,
            };
            let kept = read.is_none() && past.profiles.contains_key(name);
            if let Some(profile) = read {
                past.profiles.insert(name.clone(), profile);
                past.remember(object);
            }
            profiles.insert(name.clone(), past.profiles.get(name).cloned());
            self.file(report, kept);
        }
        profiles
    }

    fn peers(&mut self, past: &mut LastValid, profiles: &Profiles) {
        for object in self.of_kind("BGPPeer") {
            let name = &object.meta.key.name;
            let mut report = report_on(object);
            let draft = match &object.spec {
                Some(Spec::Peer(spec)) => peer::check(&object.meta, spec, &self.resources.namespace, &mut report),
                _ => None,
            };
            let kept = draft.is_none() && past.peers.contains_key(name);
            if let Some(draft) = draft {
                past.peers.insert(name.clone(), draft);
                past.remember(object);
            }
            let mut notes = Report::new(&object.meta.key);
            if let Some(draft) = past.peers.get(name) {
                let last = past.passwords.remove(name).filter(|(secret, _)| Some(secret) == draft.secret.as_ref());
                let mut peer = draft.resolve(self.resources, last.map(|(_, password)| password), &mut notes);
                draft.resolve_lost_password(&mut peer, object.spec.as_ref());
                if let (Some(secret), Some(password)) = (&draft.secret, &peer.password) {
                    past.passwords.insert(name.clone(), (secret.clone(), password.clone()));
                }
                draft.resolve_bfd(&mut peer, profiles, past.given.remove(name), &mut notes);
                if let Some(profile) = peer.bfd.as_ref().filter(|b| b.echo_interval.is_some() && peer.ebgp_multi_hop) {
                    let message =
                        "echoMode of the profile has no effect: ebgpMultiHop is set, and echo is for one hop only";
                    let suggestion = "name a profile without echoMode";
                    notes.warning("noEffect", "spec.bfdProfile", &profile.name, message, suggestion);
                }
                past.given.extend(peer.bfd.iter().map(|profile| (name.clone(), profile.clone())));
                if let Some(other) = self.config.peers.values().find(|other| peer::dial_the_same(other, &peer)) {
                    let message = format!(
                        "the BGPPeer {:?} dials the same address from the same nodes: most routers accept only one of both sessions",
                        other.name
                    );
                    let suggestion = "leave one of them out, or give it a sourceAddress of its own";
                    notes.warning("peerTwice", "spec.peerAddress", "", message, suggestion);
                }
                self.config.peers.insert(name.clone(), Arc::new(peer));
            }
            self.file(report, kept);
            self.file(notes, false);
        }
    }

    fn advertisements(&mut self, past: &mut LastValid, aliases: &Aliases) {
        for object in self.of_kind("BGPAdvertisement") {
            let name = &object.meta.key.name;
            let mut report = report_on(object);
            let mut read = None;
            if let Some(Spec::BgpAdvertisement(spec)) = &object.spec {
                read = advert::check(&object.meta, spec, aliases, &mut report);
                if let Some(advertisement) = &read {
                    advert::check_aggregation(advertisement, &self.config, &mut report);
                    advert::check_conflicts(advertisement, &self.config.advertisements, &self.config, &mut report);
                }
                self.warn_unknown_names(&spec.ip_address_pools, &spec.peers, &mut report);
                advert::warn_no_pool(&spec.ip_address_pool_selectors, &self.config, &mut report);
            }
            let mut kept = false;
            if let Some(advertisement) = read.filter(|_| !report.has_error()) {
                past.remember_advertisement(object, advertisement.clone(), aliases);
                self.config.advertisements.insert(name.clone(), advertisement);
            } else if let Some(advertisement) = past.advertisements.get(name) {
                let mut conflicts = Report::new(&object.meta.key);
                advert::check_conflicts(advertisement, &self.config.advertisements, &self.config, &mut conflicts);
                kept = !conflicts.has_error();
                if kept {
                    self.config.advertisements.insert(name.clone(), advertisement.clone());
                }
            }
            self.file(report, kept);
        }
    }

    fn announcers(&mut self, past: &mut LastValid) {
        for object in self.of_kind("AnnouncerClass") {
            let name = &object.meta.key.name;
            let mut report = report_on(object);
            let known = past.classes.get(name).and_then(|class| class.schema.clone());
            let read = match &object.spec {
                Some(Spec::AnnouncerClass(spec)) => announcer::check(&object.meta, spec, known, &mut report),
                _ => None,
            };
            let kept = read.is_none() && past.classes.contains_key(name);
            if let Some(draft) = read {
                past.classes.insert(name.clone(), draft);
                past.remember(object);
            }
            if let Some(draft) = past.classes.get(name) {
                self.config.announcers.insert(name.clone(), Arc::new(draft.class.clone()));
            }
            self.file(report, kept);
        }
    }

    /// Advertisements for announcers that are not BGP.
    fn announcer_advertisements(&mut self, past: &mut LastValid) {
        for object in self.of_kind("Advertisement") {
            let name = &object.meta.key.name;
            let mut report = report_on(object);
            let mut draft = None;
            if let Some(Spec::Advertisement(spec)) = &object.spec {
                draft = advertisement::check(&object.meta, spec, &mut report);
                advertisement::check_class(
                    spec,
                    past.classes.get(spec.announcer.as_str()),
                    self.resources,
                    &mut report,
                );
                if let Some(draft) = &draft {
                    draft.check_pools(spec, &self.config, &mut report);
                }
                self.warn_unknown_names(&spec.ip_address_pools, &[], &mut report);
                advert::warn_no_pool(&spec.ip_address_pool_selectors, &self.config, &mut report);
            }
            let mut kept = false;
            if let Some(draft) = draft.filter(|_| !report.has_error()) {
                draft.admit(&mut self.config);
                past.announcer_advertisements.insert(name.clone(), draft);
                past.remember(object);
            } else if let Some(draft) = past.announcer_advertisements.get(name) {
                let mut conflicts = Report::new(&object.meta.key);
                draft.check_conflicts(&self.config, &mut conflicts);
                kept = !conflicts.has_error() && draft.admit(&mut self.config);
            }
            self.file(report, kept);
        }
    }

    fn policies(&mut self, past: &mut LastValid) {
        let objects = self.of_kind("BGPPeerPolicy");
        for object in &objects {
            let name = &object.meta.key.name;
            let mut report = report_on(object);
            let mut read = None;
            if let Some(Spec::PeerPolicy(spec)) = &object.spec {
                read = peer_policy::check(spec, &mut report);
                self.warn_unknown_names(&[], &spec.peers, &mut report);
                let exists = |name: &str| {
                    let key = ObjectKey { kind: "BGPAdvertisement", name: name.into() };
                    self.resources.objects.contains_key(&key)
                };
                let names = spec.advertisements.iter().map(String::as_str);
                advert::warn_unknown("spec.advertisements", "BGPAdvertisement", names, exists, &mut report);
            }
            let kept = read.is_none() && past.policies.contains_key(name);
            if let Some(draft) = read {
                past.policies.insert(name.clone(), draft);
                past.remember(object);
            }
            self.file(report, kept);
        }
        let mut applied: Vec<Applied<'_>> = Vec::with_capacity(objects.len());
        for object in objects {
            let name = &object.meta.key.name;
            let Some(draft) = past.policies.get(name) else { continue };
            let keys = past.keys.remove(name).unwrap_or_default();
            applied.push(Applied { name, draft, keys, report: Report::new(&object.meta.key) });
        }
        peer_policy::apply(&mut applied, self.resources, &mut self.config);
        for policy in applied {
            past.keys.insert(policy.name.clone(), policy.keys);
            self.file(policy.report, false);
        }
    }

    fn warn_unknown_names(&self, pools: &[String], peers: &[String], report: &mut Report) {
        let pools = pools.iter().map(String::as_str);
        advert::warn_unknown(
            "spec.ipAddressPools",
            "IPAddressPool",
            pools,
            |n| advert::pool_exists(&self.config, n),
            report,
        );
        let exists =
            |name: &str| self.resources.objects.contains_key(&ObjectKey { kind: "BGPPeer", name: name.into() });
        advert::warn_unknown("spec.peers", "BGPPeer", peers.iter().map(String::as_str), exists, report);
    }

    /// Kinds that nothing follows from yet.
    fn other_kinds(&mut self) {
        for object in self.objects.clone() {
            match (object.meta.key.kind, &object.spec) {
                (
                    "IPAddressPool" | "BGPPeer" | "BGPAdvertisement" | "Community" | "BFDProfile" | "BGPPeerPolicy"
                    | "PoolPolicy" | "AddressReservation" | "AnnouncerClass" | "Advertisement",
                    _,
                ) => {}
                (_, Some(Spec::L2Advertisement(spec))) => {
                    let mut report = report_on(object);
                    advert::check_layer2(spec, &mut report);
                    self.warn_unknown_names(&spec.ip_address_pools, &[], &mut report);
                    advert::warn_no_pool(&spec.ip_address_pool_selectors, &self.config, &mut report);
                    self.file(report, false);
                }
                _ => {
                    let report = report_on(object);
                    self.file(report, false);
                }
            }
        }
    }
}
