//! The last valid version of every object, as the [`Builder`](super::Builder) remembers it, and as it is kept over a restart.
use std::{collections::BTreeMap, sync::Arc};

use super::{
    Advertisement, BfdProfile, Config, InForce, Password, Resource, Resources, Spec, advert,
    advertisement::{self, AdvertisementDraft},
    announcer::{self, ClassDraft},
    bfd,
    check::Report,
    community::{self, Aliases},
    in_force::{IN_FORCE_VERSION, KeptObject, KeptPool, plain_labels},
    peer::{self, PeerDraft},
    peer_policy::{self, LastKeys, PolicyDraft},
    pool::{self, PoolDraft},
    pool_policy::{self, PoolPolicyDraft},
    reservation::{self, ReservationDraft},
};
use crate::{announce::Community, model::ObjectKey};

/// Of each kind, what was read from the last valid version, with everything that it depended on resolved.
#[derive(Debug, Default)]
pub(super) struct LastValid {
    /// The objects that these came from.
    sources: BTreeMap<ObjectKey, Arc<Resource>>,
    /// By advertisement: what its aliases stand for.
    aliases: BTreeMap<Arc<str>, BTreeMap<String, Community>>,
    pub(super) pools: BTreeMap<Arc<str>, PoolDraft>,
    pub(super) peers: BTreeMap<Arc<str>, PeerDraft>,
    /// By peer: the Secret that it names, and the password read from it last.
    pub(super) passwords: BTreeMap<Arc<str>, (Arc<str>, Password)>,
    pub(super) advertisements: BTreeMap<Arc<str>, Arc<Advertisement>>,
    pub(super) communities: BTreeMap<Arc<str>, Arc<[(String, Community)]>>,
    pub(super) profiles: BTreeMap<Arc<str>, Arc<BfdProfile>>,
    /// By peer: the BFDProfile that it was given last.
    pub(super) given: BTreeMap<Arc<str>, Arc<BfdProfile>>,
    pub(super) policies: BTreeMap<Arc<str>, PolicyDraft>,
    /// By policy: the keys read last.
    pub(super) keys: BTreeMap<Arc<str>, LastKeys>,
    pub(super) pool_policies: BTreeMap<Arc<str>, PoolPolicyDraft>,
    pub(super) reservations: BTreeMap<Arc<str>, ReservationDraft>,
    pub(super) classes: BTreeMap<Arc<str>, ClassDraft>,
    /// Those for announcers that are not BGP.
    pub(super) announcer_advertisements: BTreeMap<Arc<str>, AdvertisementDraft>,
}

impl LastValid {
    /// Forgets objects that are gone, also if another of the same name has come since.
    pub(super) fn forget_deleted(&mut self, resources: &Resources) {
        let exists = |key: &ObjectKey| resources.objects.get(key);
        let replaced =
            |object: &Arc<Resource>| exists(&object.meta.key).is_none_or(|now| now.meta.uid != object.meta.uid);
        let gone: Vec<ObjectKey> = self.sources.values().filter(|o| replaced(o)).map(|o| o.meta.key.clone()).collect();
        gone.iter().for_each(|key| self.forget(key));
        let named = |kind: &'static str, name: &Arc<str>| exists(&ObjectKey { kind, name: name.clone() }).is_some();
        self.passwords.retain(|name, _| named("BGPPeer", name));
        self.given.retain(|name, _| named("BGPPeer", name));
        self.keys.retain(|name, _| named("BGPPeerPolicy", name));
    }

    fn forget(&mut self, key: &ObjectKey) {
        let name = &key.name;
        match key.kind {
            "IPAddressPool" => drop(self.pools.remove(name)),
            "BGPPeer" => {
                self.peers.remove(name);
                self.passwords.remove(name);
                self.given.remove(name);
            }
            "BGPAdvertisement" => {
                self.advertisements.remove(name);
                self.aliases.remove(name);
            }
            "Community" => drop(self.communities.remove(name)),
            "BFDProfile" => drop(self.profiles.remove(name)),
            "BGPPeerPolicy" => {
                self.policies.remove(name);
                self.keys.remove(name);
            }
            "PoolPolicy" => drop(self.pool_policies.remove(name)),
            "AddressReservation" => drop(self.reservations.remove(name)),
            "AnnouncerClass" => drop(self.classes.remove(name)),
            "Advertisement" => drop(self.announcer_advertisements.remove(name)),
            _ => {}
        }
        self.sources.remove(key);
    }

    /// `object` is valid as it is now.
    pub(super) fn remember(&mut self, object: &Arc<Resource>) {
        self.sources.insert(object.meta.key.clone(), object.clone());
    }

    /// An advertisement is valid as it is now, with these aliases.
    pub(super) fn remember_advertisement(
        &mut self,
        object: &Arc<Resource>,
        advertisement: Arc<Advertisement>,
        aliases: &Aliases,
    ) {
        let name = &object.meta.key.name;
        if let Some(Spec::BgpAdvertisement(spec)) = &object.spec {
            let used = spec.communities.iter().filter_map(|text| Some((text.clone(), aliases.get(text)?.0)));
            self.aliases.insert(name.clone(), used.collect());
        }
        self.advertisements.insert(name.clone(), advertisement);
        self.remember(object);
    }

    /// All of it but secrets, to be kept.
    pub(super) fn in_force(&self, config: &Config) -> InForce {
        InForce {
            version: IN_FORCE_VERSION,
            objects: self.sources.values().filter_map(|object| self.kept(object)).collect(),
            former: config.former.iter().map(|(ip, pool)| (*ip, KeptPool::new(pool))).collect(),
            moved: config.moved.iter().map(|(service, ip)| (service.to_string(), *ip)).collect(),
        }
    }

    fn kept(&self, object: &Resource) -> Option<KeptObject> {
        let name = &object.meta.key.name;
        let peer = || self.peers.get(name);
        let (has_password, aliases, profile) = match &object.spec {
            Some(Spec::Peer(_)) => (
                peer().is_some_and(|p| p.peer.password.is_some() || p.password_lost),
                BTreeMap::new(),
                self.given.get(name).map(|profile| (**profile).clone()),
            ),
            Some(Spec::BgpAdvertisement(_)) => (false, self.aliases.get(name).cloned().unwrap_or_default(), None),
            _ => (false, BTreeMap::new(), None),
        };
        let mut spec = object.spec.clone()?;
        if let Spec::Peer(peer) = &mut spec {
            peer.password = None;
        }
        Some(KeptObject {
            name: name.to_string(),
            uid: object.meta.uid.to_string(),
            created_s: object.meta.created_s,
            labels: plain_labels(&object.meta.labels),
            on_address_loss: object.meta.on_address_loss.as_ref().map(ToString::to_string),
            spec,
            has_password,
            aliases,
            profile,
        })
    }

    /// Takes in what was kept; what this version finds invalid is left out.
    pub(super) fn restore(&mut self, kept: &InForce) {
        if kept.version != IN_FORCE_VERSION {
            return;
        }
        for object in &kept.objects {
            let resource = Arc::new(object.resource());
            if self.restore_object(object, &resource).is_some() {
                self.remember(&resource);
            }
        }
    }

    fn restore_object(&mut self, kept: &KeptObject, resource: &Resource) -> Option<()> {
        let meta = &resource.meta;
        let name = meta.key.name.clone();
        let mut unheard = Report::new(&meta.key);
        match &kept.spec {
            Spec::Pool(spec) => drop(self.pools.insert(name, pool::check(meta, spec, &mut unheard)?)),
            Spec::Peer(spec) => {
                // Its Secret was in the configuration namespace then.
                let namespace = spec.password_secret.as_ref().map_or("", |secret| &secret.namespace);
                let mut draft = peer::check(meta, spec, namespace, &mut unheard)?;
                draft.password_lost = kept.has_password;
                self.given.extend(kept.profile.iter().map(|profile| (name.clone(), Arc::new(profile.clone()))));
                self.peers.insert(name, draft);
            }
            Spec::BgpAdvertisement(spec) => {
                let aliases: Aliases =
                    kept.aliases.iter().map(|(text, value)| (text.clone(), (*value, "".into()))).collect();
                self.advertisements.insert(name.clone(), advert::check(meta, spec, &aliases, &mut unheard)?);
                self.aliases.insert(name, kept.aliases.clone());
            }
            Spec::Community(spec) => {
                self.communities.insert(name, community::check(spec, &mut unheard)?);
            }
            Spec::BfdProfile(spec) => {
                self.profiles.insert(name, bfd::check(meta, spec, &mut unheard)?);
            }
            Spec::PeerPolicy(spec) => {
                self.policies.insert(name, peer_policy::check(spec, &mut unheard)?);
            }
            Spec::PoolPolicy(spec) => {
                self.pool_policies.insert(name, pool_policy::check(spec, &mut unheard)?);
            }
            Spec::Reservation(spec) => {
                self.reservations.insert(name, reservation::check(spec, &mut unheard)?);
            }
            Spec::AnnouncerClass(spec) => {
                self.classes.insert(name, announcer::check(meta, spec, None, &mut unheard)?);
            }
            Spec::Advertisement(spec) => {
                // By the schema of its class it was valid then.
                self.announcer_advertisements.insert(name, advertisement::check(meta, spec, &mut unheard)?);
            }
            Spec::L2Advertisement(_) => return None,
        }
        Some(())
    }
}
