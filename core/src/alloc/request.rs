//! What a Service asks for.
use std::net::IpAddr;

use super::{Note, NoteType};
use crate::model::{AnnotationText, FamilyPolicy, IpFamily, Service};

/// Annotation names as written in messages.
const NEW_PREFIX: &str = "metallb.io/";
/// The prefix of MetalLB's early days.
const OLD_PREFIX: &str = "metallb.universe.tf/";
/// How the annotation for several addresses is called.
const ADDRESSES_PER_FAMILY: &str = "ferrocast.io/addresses-per-family";

/// Which families a Service needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// One address of this family.
    One(IpFamily),
    /// One address of each family, or nothing.
    Both,
    /// One address of each family if to be had, else of this one, else of the other.
    Prefer(IpFamily),
}

/// Addresses, a pool by name, or how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// IPv4 before IPv6; empty: any.
    pub(super) ips: Vec<IpAddr>,
    /// Empty: any.
    pub(super) pool: Box<str>,
    /// How many addresses of each family; only looked at if `ips` is empty.
    pub(super) per_family: usize,
}

/// Why a Service needs nothing.
#[derive(Debug)]
pub(super) struct NoNeed {
    pub(super) code: &'static str,
    pub(super) message: String,
    /// An Event, if it is worth one.
    pub(super) note: Option<Note>,
}

/// The families that a Service needs, from its cluster IPs.
pub(super) fn need(service: &Service) -> Result<Need, NoNeed> {
    let has = |v4: bool| service.cluster_ips.iter().any(|ip| ip.is_ipv4() == v4);
    let both = has(true) && has(false);
    let require = service.family_policy == Some(FamilyPolicy::RequireDualStack);
    match service.cluster_ips.first() {
        None => {
            let message = "the Service has no cluster IP: a headless Service gets no address".to_owned();
            Err(NoNeed { code: "noClusterIP", message, note: None })
        }
        Some(ip) if !both && require => {
            let message = format!("RequireDualStack needs a cluster IP of each family, the Service has only {ip}");
            let note = Note { kind: NoteType::Warning, reason: "not enough clusterips", message: message.clone() };
            Err(NoNeed { code: "notEnoughClusterIPs", message, note: Some(note) })
        }
        Some(ip) if both && service.family_policy == Some(FamilyPolicy::PreferDualStack) => {
            Ok(Need::Prefer(service.families.first().copied().unwrap_or(IpFamily::of(*ip))))
        }
        Some(_) if both => Ok(Need::Both),
        Some(ip) => Ok(Need::One(IpFamily::of(*ip))),
    }
}

/// The addresses or the pool that a Service asks for. `per_family_max`: how many addresses of one family a Service may have in
/// the pool of an address.
///
/// # Errors
/// In words, what is wrong with the request.
pub(super) fn request(service: &Service, per_family_max: &dyn Fn(IpAddr) -> usize) -> Result<Request, String> {
    let annotations = &service.annotations;
    let pool = annotations.address_pool.as_ref().map(|a| a.value.clone()).unwrap_or_default();
    let listed = annotations.load_balancer_ips.as_ref().filter(|a| !a.value.is_empty());
    let mut ips = match (listed, &*service.load_balancer_ip) {
        (None, "") => Vec::new(),
        (Some(annotation), "") => annotation.value.split(',').map(listed_ip).collect::<Result<Vec<_>, _>>()?,
        (None, text) => {
            vec![
                text.trim()
                    .parse()
                    .map_err(|_| format!("invalid spec.loadBalancerIP {text:?}: write one IP address"))?,
            ]
        }
        (Some(annotation), _) => {
            let name = full_name(annotation, "loadBalancerIPs");
            return Err(format!("service can not have both {name} and svc.Spec.LoadBalancerIP: leave one of them out"));
        }
    };
    let per_family = match annotations.addresses_per_family.as_ref().map(|a| a.value.trim()) {
        None => 1,
        Some(text) => text.parse::<u32>().ok().filter(|count| *count > 0).map_or_else(
            || Err(format!("invalid {ADDRESSES_PER_FAMILY} {text:?}: write a whole number, 1 or more")),
            |count| Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        )?,
    };
    check_number(&ips, per_family_max)?;
    ips.sort_unstable();
    Ok(Request { ips, pool, per_family })
}

/// Are there no more addresses of a family than the pool of its first allows?
fn check_number(ips: &[IpAddr], per_family_max: &dyn Fn(IpAddr) -> usize) -> Result<(), String> {
    for v4 in [true, false] {
        let family: Vec<IpAddr> = ips.iter().filter(|ip| ip.is_ipv4() == v4).copied().collect();
        let max = family.first().map_or(usize::MAX, |ip| per_family_max(*ip));
        if family.len() > max && max == 1 && ips.len() > 2 {
            return Err(format!("more than two addresses {}: one per family is allowed", quoted(ips)));
        }
        if family.len() > max && max == 1 {
            return Err(format!("{}: one address per family is allowed", same_family(family[0], family[1])));
        }
        if family.len() > max {
            return Err(format!(
                "more than {max} addresses of one family {}: the pool allows no more",
                quoted(&family)
            ));
        }
        if let Some((_, twice)) = family.iter().enumerate().find(|(i, ip)| family[..*i].contains(ip)) {
            return Err(format!("{} is listed twice", quoted(&[*twice])));
        }
    }
    Ok(())
}

/// MetalLB's words for two addresses of which one is too many.
pub(super) fn same_family(a: IpAddr, b: IpAddr) -> String {
    format!("{:?} {:?} has the same family", a.to_string(), b.to_string())
}

fn listed_ip(text: &str) -> Result<IpAddr, String> {
    let text = text.trim();
    text.parse().map_err(|_| format!("{text:?} is not an IP address: write one or two, separated by a comma"))
}

/// `["a" "b"]`
pub(super) fn quoted(ips: &[IpAddr]) -> String {
    let list: Vec<String> = ips.iter().map(|ip| format!("{:?}", ip.to_string())).collect();
    format!("[{}]", list.join(" "))
}

fn full_name(annotation: &AnnotationText, name: &str) -> String {
    format!("{}{name}", if annotation.deprecated { OLD_PREFIX } else { NEW_PREFIX })
}

/// A warning for each annotation that is written under its old name.
pub(super) fn deprecations(service: &Service) -> impl Iterator<Item = Note> {
    let annotations = &service.annotations;
    [
        ("address-pool", &annotations.address_pool),
        ("loadBalancerIPs", &annotations.load_balancer_ips),
        ("allow-shared-ip", &annotations.allow_shared_ip),
    ]
    .into_iter()
    .filter_map(|(name, annotation)| annotation.as_ref().filter(|a| a.deprecated).map(|a| full_name(a, name)))
    .map(|name| Note {
        kind: NoteType::Warning,
        reason: "deprecatedAnnotation",
        message: format!("Service uses deprecated annotation {name}"),
    })
}

impl Need {
    /// Are addresses of exactly these families what is needed?
    pub(super) fn is_met_by_request(self, ips: &[IpAddr]) -> bool {
        let has = |family: IpFamily| ips.iter().any(|ip| IpFamily::of(*ip) == family);
        match self {
            Self::One(family) => ips.iter().all(|ip| IpFamily::of(*ip) == family),
            Self::Both | Self::Prefer(_) => has(IpFamily::V4) && has(IpFamily::V6),
        }
    }

    /// The sets of families to try, the most wanted first.
    pub(super) fn choices(self) -> &'static [&'static [IpFamily]] {
        const V4: &[IpFamily] = &[IpFamily::V4];
        const V6: &[IpFamily] = &[IpFamily::V6];
        const BOTH: &[IpFamily] = &[IpFamily::V4, IpFamily::V6];
        match self {
            Self::One(IpFamily::V4) => &[V4],
            Self::One(IpFamily::V6) => &[V6],
            Self::Both => &[BOTH],
            Self::Prefer(IpFamily::V4) => &[BOTH, V4, V6],
            Self::Prefer(IpFamily::V6) => &[BOTH, V6, V4],
        }
    }
}
