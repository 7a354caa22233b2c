//! Decisions in words, with what mattered.
use std::{collections::BTreeMap, sync::Arc};

use super::{AddressDecision, Context, Party, PoolRight, Reason, contradiction, pool_of};
use crate::{
    config::{Advertisement, BGP, any_selector_matches},
    model::{EXCLUDE_LABEL, Endpoints, Labels, Service, TrafficPolicy},
};

/// Labels named in a message: enough to see which object is meant.
const LABELS_NAMED_MAX: usize = 8;

/// What a decision says, with the inputs that mattered. `others` are those of
/// [`decide_among`](super::decide_among). One line, which names neither Service nor node: whoever shows it knows them.
#[must_use]
pub fn message(decision: &AddressDecision, own: Party<'_>, others: &[Party<'_>], context: &Context) -> String {
    let subject = decision.because_of.as_ref().and_then(|key| others.iter().find(|o| o.service.key == *key));
    match (subject, decision.reason) {
        (Some(sharer), Reason::SharedNoCommonNode) => format!(
            "the address is shared with {}, which is older and decides, since no node may announce it for all who share it",
            sharer.service.key
        ),
        (Some(sharer), _) => {
            let why = plain(decision, sharer.service, sharer.endpoints, context);
            format!("the address is shared with {}, for which: {why}", sharer.service.key)
        }
        (None, _) => plain(decision, own.service, own.endpoints, context),
    }
}

fn plain(decision: &AddressDecision, service: &Service, endpoints: Endpoints, context: &Context) -> String {
    let config = &context.config;
    let right = decision.ip.and_then(|ip| pool_of(ip, service, config));
    let pool = right.map_or_else(|| "no pool".to_owned(), |right| pool_words(&right));
    match decision.reason {
        Reason::NotLoadBalancer => match (service.is_load_balancer, &service.class, &context.class) {
            (false, ..) => "the Service is not of type LoadBalancer".to_owned(),
            (true, Some(class), _) => format!("the Service is of the class {class:?}, which is not served here"),
            (true, None, served) => {
                format!("the Service has no class, only {:?} is served here", served.as_deref().unwrap_or_default())
            }
        },
        Reason::NoIpAllocated => "the Service's status has no address".to_owned(),
        Reason::InvalidIp => match decision.ip {
            Some(ip) => format!("{ip} is no address that can be announced"),
            None => "the Service's status has something that is not an address".to_owned(),
        },
        Reason::IpNotAllowed => {
            format!("{} is in no pool", decision.ip.map(|ip| ip.to_string()).unwrap_or_default())
        }
        Reason::NotOwner => not_owner(right.as_ref(), &pool, context),
        Reason::NoMatchingAdvertisement => {
            let names = names(here(right.as_ref(), context), context);
            format!("{names} of {pool} is for other Services: no serviceSelectors match {}", labels(&service.labels))
        }
        Reason::ConflictingAdvertisements => conflict(decision, right.as_ref(), service, context),
        Reason::NodeNetworkUnavailable => "the Node's condition NetworkUnavailable is True".to_owned(),
        Reason::NodeLabeledExcludeBalancers => format!("the Node carries the label {EXCLUDE_LABEL}"),
        Reason::NoLocalEndpoints => {
            let elsewhere = endpoints.anywhere - endpoints.here;
            format!("externalTrafficPolicy is Local, and no endpoint serves on this node ({elsewhere} elsewhere)")
        }
        Reason::NoEndpoints => "no endpoint of the Service serves on any node".to_owned(),
        Reason::SharedNoCommonNode => "no node may announce the address for all who share it".to_owned(),
        Reason::Announced => {
            let names = names(decision.advertisements.iter().map(|a| &**a), context);
            announced(&names, service, endpoints, &pool)
        }
    }
}

fn announced(names: &str, service: &Service, endpoints: Endpoints, pool: &str) -> String {
    let here = match service.traffic_policy {
        TrafficPolicy::Local => format!(", {} on this node", endpoints.here),
        TrafficPolicy::Cluster => String::new(),
    };
    format!("by {names} of {pool}; {}{here}", counted(endpoints.anywhere))
}

fn pool_words(right: &PoolRight<'_>) -> String {
    let former = if right.former { "the former pool" } else { "pool" };
    format!("{former} {:?}", right.name)
}

fn counted(endpoints: u32) -> String {
    match endpoints {
        0 => "no serving endpoints".to_owned(),
        1 => "1 serving endpoint".to_owned(),
        n => format!("{n} serving endpoints"),
    }
}

/// The kind of the announcer's advertisements.
fn kind(context: &Context) -> &'static str {
    if *context.announcer == *BGP { "BGPAdvertisement" } else { "Advertisement" }
}

/// The announcer's advertisements.
fn all(context: &Context) -> impl Iterator<Item = &Arc<Advertisement>> {
    context.config.advertisements_of(&context.announcer).into_iter().flat_map(BTreeMap::values)
}

/// Advertisements of the pool, on whatever node.
fn of_pool<'a>(right: Option<&PoolRight<'_>>, context: &'a Context) -> impl Iterator<Item = &'a Advertisement> {
    all(context).map(|a| &**a).filter(move |a| right.is_some_and(|pool| a.selects_pool(pool.name, pool.labels)))
}

/// Advertisements of the pool that select this node.
fn here<'a>(right: Option<&PoolRight<'_>>, context: &'a Context) -> impl Iterator<Item = &'a Advertisement> {
    of_pool(right, context).filter(|a| any_selector_matches(&a.node_selectors, &context.node.labels))
}

fn not_owner(right: Option<&PoolRight<'_>>, pool: &str, context: &Context) -> String {
    if all(context).next().is_none() {
        return format!("there is no {}", kind(context));
    }
    let mut elsewhere = of_pool(right, context).peekable();
    if elsewhere.peek().is_none() {
        return format!("no {} selects {pool}", kind(context));
    }
    format!("{} of {pool} is for other nodes: no nodeSelectors match this Node's labels", names(elsewhere, context))
}

fn conflict(decision: &AddressDecision, right: Option<&PoolRight<'_>>, service: &Service, context: &Context) -> String {
    let matching: Vec<_> = all(context)
        .filter(|a| {
            right.is_some_and(|pool| a.selects_pool(pool.name, pool.labels))
                && any_selector_matches(&a.node_selectors, &context.node.labels)
                && any_selector_matches(&a.service_selectors, &service.labels)
        })
        .collect();
    let Some([a, b]) = decision.ip.and_then(|ip| contradiction(&matching, ip)) else {
        return "advertisements contradict each other".to_owned();
    };
    let preference = |a: &Advertisement| a.local_pref.map_or_else(|| "unset".to_owned(), |n| n.to_string());
    format!(
        "{}s {:?} (localPref {}) and {:?} (localPref {}) contradict each other for the same prefix and peer",
        kind(context),
        a.name,
        preference(a),
        b.name,
        preference(b)
    )
}

/// `BGPAdvertisement "a", "b"`
fn names<'a>(advertisements: impl Iterator<Item = &'a Advertisement>, context: &Context) -> String {
    let names: Vec<String> = advertisements.map(|advertisement| format!("{:?}", advertisement.name)).collect();
    format!("{} {}", kind(context), names.join(", "))
}

fn labels(labels: &Labels) -> String {
    let mut pairs: Vec<String> =
        labels.iter().take(LABELS_NAMED_MAX).map(|(key, value)| format!("{key}={value}")).collect();
    if labels.iter().nth(LABELS_NAMED_MAX).is_some() {
        pairs.push("…".to_owned());
    }
    if pairs.is_empty() { "a Service without labels".to_owned() } else { format!("the labels {}", pairs.join(",")) }
}
