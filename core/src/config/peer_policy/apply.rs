//! Which policies concern which peers, and who wins where two say different things.
use std::{collections::BTreeMap, sync::Arc};

use super::{PolicyDraft, SessionDraft};
use crate::{
    config::{
        Config, Password, Peer, Resources, RoutePolicy, TcpAoKey, Weight,
        check::Report,
        peer::{SECRET_HOW, look_up_secret},
    },
    model::{Labels, ObjectKey},
};

/// Passwords last read for a policy, by Secret.
pub(in crate::config) type LastKeys = BTreeMap<Arc<str>, Password>;

/// What older policies have said of a peer: field and policy.
type Said = BTreeMap<&'static str, Arc<str>>;

/// One policy in force, and what is wrong with it.
pub(in crate::config) struct Applied<'a> {
    /// Its name.
    pub(in crate::config) name: &'a Arc<str>,
    /// What it says.
    pub(in crate::config) draft: &'a PolicyDraft,
    /// Passwords last read for it; updated.
    pub(in crate::config) keys: LastKeys,
    /// Problems that come of other objects.
    pub(in crate::config) report: Report,
}

/// Applies the policies, the older first, to the peers of `config`.
pub(in crate::config) fn apply(policies: &mut [Applied<'_>], resources: &Resources, config: &mut Config) {
    let labels = |kind: &'static str, name: &Arc<str>| {
        let object = resources.objects.get(&ObjectKey { kind, name: name.clone() });
        object.map_or_else(Labels::default, |o| o.meta.labels.clone())
    };
    let peer_labels: BTreeMap<Arc<str>, Labels> =
        config.peers.keys().map(|name| (name.clone(), labels("BGPPeer", name))).collect();
    let advertisement_labels: BTreeMap<Arc<str>, Labels> =
        config.advertisements.keys().map(|name| (name.clone(), labels("BGPAdvertisement", name))).collect();
    let mut said: BTreeMap<Arc<str>, Said> = BTreeMap::new();
    let mut routes: BTreeMap<Arc<str>, Vec<(Arc<str>, RoutePolicy)>> = BTreeMap::new();
    for policy in policies {
        let chosen: Vec<Arc<str>> = peer_labels
            .iter()
            .filter(|(name, labels)| policy.draft.peers.matches(name, labels))
            .map(|(name, _)| name.clone())
            .collect();
        if chosen.is_empty() && policy.draft.peers.names.is_empty() {
            let message = "selects no BGPPeer: it has no effect";
            policy.report.warning("selectsNothing", "spec.peerSelectors", "", message, "");
        }
        let keys = policy.tcp_ao(resources);
        for name in chosen {
            let Some(peer) = config.peers.get_mut(&name).map(Arc::make_mut) else { continue };
            policy.apply_session(peer, said.entry(name.clone()).or_default(), keys.as_ref());
            if let Some(own) = policy.routes(&advertisement_labels) {
                let older = routes.entry(name.clone()).or_default();
                policy.report_routes(&name, &own, older);
                if own.link_bandwidth.is_some_and(|l| l.weight == Weight::Endpoints) {
                    let shorter = policy.draft.weight_interval.into_iter().chain(config.weight_interval).min();
                    config.weight_interval = shorter;
                }
                older.push((policy.name.clone(), own));
            }
        }
    }
    for (name, own) in routes {
        if let Some(peer) = config.peers.get_mut(&name) {
            Arc::make_mut(peer).routes = own.into_iter().map(|(_, routes)| routes).collect();
        }
    }
}

/// What `keys` of a policy came to: its keys, or why they cannot be had.
type Keys = Result<Vec<TcpAoKey>, String>;

impl Applied<'_> {
    /// Reads the Secrets of the TCP-AO keys. One that is missing or invalid leaves what was last read from it in use.
    fn tcp_ao(&mut self, resources: &Resources) -> Option<Keys> {
        let drafts = self.draft.session.tcp_ao.as_ref()?;
        let last = std::mem::take(&mut self.keys);
        let mut missing = None;
        let mut keys = Vec::with_capacity(drafts.len());
        for (i, draft) in drafts.iter().enumerate() {
            let field = format!("spec.session.tcpAO.keys[{i}].secret.name");
            let secret = match (look_up_secret(&draft.secret, resources), last.get(&draft.secret).cloned()) {
                (Ok(secret), _) => secret,
                (Err(why), Some(last)) => {
                    let message = format!("{why}: the last key read stays in use");
                    self.report.error("secretUnusable", field, &draft.secret, message, SECRET_HOW);
                    last
                }
                (Err(why), None) => {
                    let message = format!("{why}: the peers of this policy are not dialled until there is a key");
                    self.report.error("secretUnusable", field, &draft.secret, message, SECRET_HOW);
                    missing.get_or_insert(why);
                    continue;
                }
            };
            self.keys.insert(draft.secret.clone(), secret.clone());
            let (send_id, receive_id, algorithm) = (draft.send_id, draft.receive_id, draft.algorithm);
            keys.push(TcpAoKey { send_id, receive_id, algorithm, secret });
        }
        Some(missing.map_or(Ok(keys), Err))
    }

    /// Sets what the policy says of the peer's session, unless an older policy has said something else.
    fn apply_session(&mut self, peer: &mut Peer, said: &mut Said, keys: Option<&Keys>) {
        let SessionDraft {
            passive, families, next_hop_v4, next_hop_v6, send_hold_time, role, ttl_security_hops, ..
        } = &self.draft.session;
        let name = peer.name.clone();
        let mut free = |field: &'static str, same: bool| match said.get(field) {
            None => {
                said.insert(field, self.name.clone());
                true
            }
            Some(_) if same => false,
            Some(older) => {
                let field = format!("spec.session.{field}");
                self.report.error("policyConflict", field.as_str(), "", conflict(&field, &name, older), SAY_ONCE);
                false
            }
        };
        let session = &mut peer.session;
        if let Some(passive) = passive
            && free("passive", session.passive == *passive)
        {
            session.passive = *passive;
        }
        if families.is_some() && free("families", session.families == *families) {
            session.families.clone_from(families);
        }
        if next_hop_v4.is_some() && free("nextHopIPv4", session.next_hop_v4 == *next_hop_v4) {
            session.next_hop_v4 = *next_hop_v4;
        }
        if next_hop_v6.is_some() && free("nextHopIPv6", session.next_hop_v6 == *next_hop_v6) {
            session.next_hop_v6 = *next_hop_v6;
        }
        if send_hold_time.is_some() && free("sendHoldTime", session.send_hold_time == *send_hold_time) {
            session.send_hold_time = *send_hold_time;
        }
        if role.is_some() && free("role", session.role == *role) {
            session.role = *role;
        }
        let (tcp_ao, missing) = match keys {
            Some(Ok(keys)) => (keys.clone(), None),
            Some(Err(why)) => (Vec::new(), Some(why.clone())),
            None => (Vec::new(), None),
        };
        if keys.is_some() && free("tcpAO", (&session.tcp_ao, &session.tcp_ao_missing) == (&tcp_ao, &missing)) {
            (session.tcp_ao, session.tcp_ao_missing) = (tcp_ao, missing);
        }
        if ttl_security_hops.is_some() && peer.ebgp_multi_hop {
            let hops = ttl_security_hops.unwrap_or_default();
            let message = format!("the BGPPeer {name:?} has ebgpMultiHop: true, which allows any number of hops");
            let (rule, field) = ("ttlSecurityWithMultiHop", "spec.session.ttlSecurityHops");
            self.report.error(rule, field, hops, message, "leave one of the two out");
        } else if ttl_security_hops.is_some()
            && free("ttlSecurityHops", session.ttl_security_hops == *ttl_security_hops)
        {
            session.ttl_security_hops = *ttl_security_hops;
        }
    }

    /// What the policy says of routes, with the advertisements that it means.
    fn routes(&mut self, advertisements: &BTreeMap<Arc<str>, Labels>) -> Option<RoutePolicy> {
        let routes = self.draft.routes.clone()?;
        let selection = &self.draft.advertisements;
        let chosen = || {
            let chosen = advertisements.iter().filter(|(name, labels)| selection.matches(name, labels));
            chosen.map(|(name, _)| name.clone()).collect()
        };
        Some(RoutePolicy { advertisements: (!selection.is_all()).then(chosen), ..routes })
    }

    /// Reports single values that an older policy sets otherwise for an advertisement of both.
    fn report_routes(&mut self, peer: &str, own: &RoutePolicy, older: &[(Arc<str>, RoutePolicy)]) {
        let prepend = |r: &RoutePolicy| (r.as_path_prepend != 0).then_some(r.as_path_prepend);
        self.report_value("spec.routes.med", peer, own, older, |r| r.med);
        self.report_value("spec.routes.asPathPrepend", peer, own, older, prepend);
        self.report_value("spec.routes.linkBandwidth", peer, own, older, |r| r.link_bandwidth);
    }

    fn report_value<T: PartialEq>(
        &mut self,
        field: &str,
        peer: &str,
        own: &RoutePolicy,
        older: &[(Arc<str>, RoutePolicy)],
        value: impl Fn(&RoutePolicy) -> Option<T>,
    ) {
        let Some(ours) = value(own) else { return };
        let differs = |other: &RoutePolicy| value(other).is_some_and(|theirs| theirs != ours);
        if let Some((other, _)) = older.iter().find(|(_, other)| differs(other) && overlap(own, other)) {
            self.report.error("policyConflict", field, "", conflict(field, peer, other), SAY_ONCE);
        }
    }
}

/// What to do about two policies that say different things.
const SAY_ONCE: &str = "say it in one of the two";

fn conflict(field: &str, peer: &str, older: &str) -> String {
    let field = field.trim_start_matches("spec.");
    format!("the older BGPPeerPolicy {older:?} sets {field} of the BGPPeer {peer:?} to something else and stays")
}

/// Is there an advertisement that both mean?
fn overlap(a: &RoutePolicy, b: &RoutePolicy) -> bool {
    match (&a.advertisements, &b.advertisements) {
        (Some(a), Some(b)) => !a.is_disjoint(b),
        (Some(one), None) | (None, Some(one)) => !one.is_empty(),
        (None, None) => true,
    }
}
