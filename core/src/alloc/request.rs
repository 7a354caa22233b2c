//! What a Service asks for.
use std::net::IpAddr;

use super::{Note, NoteType};
use crate::model::{AnnotationText, FamilyPolicy, IpFamily, Service};

/// Annotation names as written in messages.
const NEW_PREFIX: &str = "metallb.io/";
/// The prefix of MetalLB's early days.
const OLD_PREFIX: &str = "metallb.universe.tf/";
/// One address per family.
const REQUESTED_IPS_MAX: usize = 2;

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

/// An address or a pool by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// IPv4 before IPv6; empty: any.
    pub(super) ips: Vec<IpAddr>,
    /// Empty: any.
    pub(super) pool: Box<str>,
}

/// Why a Service needs nothing: code and, if it is worth one, an Event.
pub(super) type NoNeed = (&'static str, Option<Note>);

/// The families that a Service needs, from its cluster IPs.
pub(super) fn need(service: &Service) -> Result<Need, NoNeed> {
    let has = |v4: bool| service.cluster_ips.iter().any(|ip| ip.is_ipv4() == v4);
    let both = has(true) && has(false);
    let require = service.family_policy == Some(FamilyPolicy::RequireDualStack);
    match service.cluster_ips.first() {
        None => Err(("noClusterIP", None)),
        Some(ip) if !both && require => {
            let message = format!("RequireDualStack needs a cluster IP of each family, the Service has only {ip}");
            let note = Note { kind: NoteType::Warning, reason: "not enough clusterips", message };
            Err(("notEnoughClusterIPs", Some(note)))
        }
        Some(ip) if both && service.family_policy == Some(FamilyPolicy::PreferDualStack) => {
            Ok(Need::Prefer(service.families.first().copied().unwrap_or(IpFamily::of(*ip))))
        }
        Some(_) if both => Ok(Need::Both),
        Some(ip) => Ok(Need::One(IpFamily::of(*ip))),
    }
}

/// The address or pool that a Service asks for.
///
/// # Errors
/// In words, what is wrong with the request.
pub(super) fn request(service: &Service) -> Result<Request, String> {
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
    if ips.len() > REQUESTED_IPS_MAX {
        return Err(format!("more than two addresses {}: one per family is allowed", quoted(&ips)));
    }
    if let [a, b] = ips[..]
        && a.is_ipv4() == b.is_ipv4()
    {
        return Err(format!(
            "{:?} {:?} has the same family: one address per family is allowed",
            a.to_string(),
            b.to_string()
        ));
    }
    ips.sort_unstable();
    Ok(Request { ips, pool })
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
    /// Are addresses of exactly these families what is needed? `ips` has at most one of each.
    pub(super) fn is_met_by_request(self, ips: &[IpAddr]) -> bool {
        match self {
            Self::One(family) => matches!(ips, [ip] if IpFamily::of(*ip) == family),
            Self::Both | Self::Prefer(_) => ips.len() == 2,
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
