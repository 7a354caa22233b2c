//! The reading of `netgauze-bgp-pkt`.
use std::collections::HashMap;

use ferrocast_bgp_proto::{
    Family,
    tools::Update,
    wire::{
        Capability, ExtendedCommunity, GracefulRestart, LargeCommunity, NextHop, Notification, Open, Origin, Role,
        RouteRefresh,
    },
};
use ipnet::IpNet;
use netgauze_bgp_pkt::{
    BgpMessage,
    capabilities::BgpCapability,
    path_attribute::{AsPath, MpReach, MpUnreach, Origin as TheirOrigin, PathAttributeValue as T},
    update::BgpUpdateMessage,
    wire::deserializer::BgpParsingContext,
};
use netgauze_parse_utils::{WritablePdu, reader::SliceReader, traits::ParseFromWithOneInput as _};

use crate::meaning::{Meaning, Oracle, Session, mark_end_of_rib};

/// The decoder.
pub const ORACLE: Oracle = Oracle { name: "netgauze-bgp-pkt", decode, encode, blind: |_| {} };

/// Codes of NOTIFICATIONs that it has no words for: the send hold timer (RFC 9687) is younger than its list.
const NOTIFICATION_CODE_MAX: u8 = 7;

/// Length and type that announce the extended format of an OPEN's parameters (RFC 9072), which it does not read.
const EXTENDED_PARAMETERS: [u8; 2] = [255, 255];

/// `None`: a message that it has no words for.
fn read(octets: &[u8], session: Session) -> Result<Option<BgpMessage>, String> {
    let unknown = match octets.get(18) {
        Some(1) => octets.get(28..30) == Some(&EXTENDED_PARAMETERS),
        Some(3) => octets.get(19).is_some_and(|code| *code > NOTIFICATION_CODE_MAX),
        _ => false,
    };
    if unknown {
        return Ok(None);
    }
    let mut context = BgpParsingContext::new(session.as4, HashMap::new(), HashMap::new(), true, true, true, true);
    let mut reader = SliceReader::new(octets);
    let message = BgpMessage::parse(&mut reader, &mut context).map_err(|e| e.to_string())?;
    if reader.is_empty() { Ok(Some(message)) } else { Err(format!("{} octets left", reader.remaining())) }
}

fn written<E: std::fmt::Display>(pdu: &impl WritablePdu<E>) -> Result<Vec<u8>, String> {
    let mut octets = vec![];
    pdu.write(&mut octets).map_err(|e| e.to_string())?;
    Ok(octets)
}

fn decode(octets: &[u8], session: Session) -> Result<Option<Meaning>, String> {
    let Some(message) = read(octets, session)? else { return Ok(None) };
    Ok(Some(match message {
        BgpMessage::Open(open) => Meaning::Open(Open {
            as2: open.my_as(),
            hold_time_s: open.hold_time(),
            id: open.bgp_id(),
            capabilities: open.capabilities().into_iter().map(capability).collect::<Result<_, _>>()?,
        }),
        BgpMessage::Update(message) => Meaning::Update(update(&message)?),
        // Its words are one type per subcode; in octets they are code, subcode and data again.
        BgpMessage::Notification(n) => match written(&n)?.as_slice() {
            [code, subcode, data @ ..] => {
                Meaning::Notification(Notification { code: *code, subcode: *subcode, data: data.to_vec() })
            }
            other => return Err(format!("{other:?}")),
        },
        BgpMessage::KeepAlive => Meaning::Keepalive,
        BgpMessage::RouteRefresh(r) => Meaning::RouteRefresh(RouteRefresh {
            afi: r.address_type().address_family().into(),
            subtype: r.operation_type() as u8,
            safi: r.address_type().subsequent_address_family().into(),
            rest: vec![],
        }),
    }))
}

fn encode(octets: &[u8], session: Session) -> Result<Option<Vec<u8>>, String> {
    read(octets, session)?.map(|message| written(&message)).transpose()
}

fn capability(theirs: &BgpCapability) -> Result<Capability, String> {
    Ok(match theirs {
        BgpCapability::MultiProtocolExtensions(c) => Capability::MultiProtocol(
            c.address_type().address_family().into(),
            c.address_type().subsequent_address_family().into(),
        ),
        BgpCapability::RouteRefresh => Capability::RouteRefresh,
        BgpCapability::EnhancedRouteRefresh => Capability::EnhancedRouteRefresh,
        BgpCapability::FourOctetAs(c) => Capability::FourOctetAs(c.asn4()),
        BgpCapability::ExtendedNextHopEncoding(c) => Capability::ExtendedNextHop(
            c.encodings()
                .iter()
                .map(|e| {
                    let safi: u8 = e.address_type().subsequent_address_family().into();
                    (e.address_type().address_family().into(), safi.into(), e.next_hop_afi().into())
                })
                .collect(),
        ),
        // Its names follow a draft of RFC 9234; the numbers are compared.
        BgpCapability::BgpRole(c) => Capability::Role(match c.role() as u8 {
            0 => Role::Provider,
            1 => Role::RouteServer,
            2 => Role::RouteServerClient,
            3 => Role::Customer,
            _ => Role::Peer,
        }),
        BgpCapability::GracefulRestartCapability(c) => Capability::GracefulRestart(GracefulRestart {
            restarting: c.restart(),
            notification: c.graceful_notification(),
            restart_time_s: c.time(),
            families: c
                .address_families()
                .iter()
                .map(|f| {
                    let kind = f.address_type();
                    (kind.address_family().into(), kind.subsequent_address_family().into(), f.forwarding_state())
                })
                .collect(),
        }),
        BgpCapability::ExtendedMessage => Capability::Unknown { code: 6, value: vec![] },
        BgpCapability::Experimental(c) => Capability::Unknown { code: c.code() as u8, value: c.value().to_vec() },
        BgpCapability::Unrecognized(c) => Capability::Unknown { code: *c.code(), value: c.value().to_vec() },
        other => return Err(format!("unexpected {other:?}")),
    })
}

fn update(message: &BgpUpdateMessage) -> Result<Update, String> {
    let mut update = Update {
        withdrawn: message.withdraw_routes().iter().map(|p| IpNet::V4(p.network().address())).collect(),
        reach: message.nlri().iter().map(|p| IpNet::V4(p.network().address())).collect(),
        ..Update::default()
    };
    let (mut unreach, mut as4_path) = (None, None);
    for attribute in message.path_attributes() {
        let said = &mut update.attributes;
        match attribute.value() {
            T::Origin(TheirOrigin::IGP) => said.origin = Origin::Igp,
            T::Origin(TheirOrigin::EGP) => said.origin = Origin::Egp,
            T::Origin(TheirOrigin::Incomplete) => said.origin = Origin::Incomplete,
            T::AsPath(AsPath::As2PathSegments(segments)) => {
                said.as_path = segments.iter().flat_map(|s| s.as_numbers()).map(|asn| u32::from(*asn)).collect();
            }
            T::AsPath(AsPath::As4PathSegments(segments)) => {
                said.as_path = segments.iter().flat_map(|s| s.as_numbers()).copied().collect();
            }
            T::As4Path(path) => {
                as4_path = Some(path.segments().iter().flat_map(|s| s.as_numbers()).copied().collect::<Vec<_>>());
            }
            T::NextHop(next_hop) => update.next_hops[0] = Some(NextHop::V4(next_hop.next_hop())),
            T::MultiExitDiscriminator(med) => said.med = Some(med.metric()),
            T::LocalPreference(local_pref) => said.local_pref = Some(local_pref.metric()),
            T::Communities(all) => said.communities = all.communities().iter().map(|c| c.value()).collect(),
            T::ExtendedCommunities(all) => {
                for community in all.communities() {
                    let octets = written(community)?.try_into().map_err(|o| format!("{o:?}"))?;
                    said.extended_communities.push(ExtendedCommunity(octets));
                }
            }
            T::LargeCommunities(all) => {
                said.large_communities = all
                    .communities()
                    .iter()
                    .map(|c| LargeCommunity {
                        global: c.global_admin(),
                        local1: c.local_data1(),
                        local2: c.local_data2(),
                    })
                    .collect();
            }
            T::MpReach(mp) => reach(&mut update, mp)?,
            T::MpUnreach(mp) => unreach = Some(withdraw(&mut update, mp)?),
            other => return Err(format!("unexpected {other:?}")),
        }
    }
    // To an old peer our AS4_PATH is the whole path (RFC 6793 §4.2.2), so that it takes the place of AS_PATH.
    if let Some(as4_path) = as4_path.filter(|path| path.len() == update.attributes.as_path.len()) {
        update.attributes.as_path = as4_path;
    }
    mark_end_of_rib(&mut update, message.path_attributes().len(), unreach);
    Ok(update)
}

fn reach(update: &mut Update, mp: &MpReach) -> Result<(), String> {
    let (family, next_hop) = match mp {
        MpReach::Ipv4Unicast { next_hop, next_hop_local, nlri } => {
            update.reach.extend(nlri.iter().map(|p| IpNet::V4(p.network().address())));
            let next_hop = match NextHop::from(*next_hop) {
                NextHop::V6 { address, .. } => NextHop::V6 { address, link_local: *next_hop_local },
                v4 => v4,
            };
            (Family::Ipv4Unicast, next_hop)
        }
        MpReach::Ipv6Unicast { next_hop_global, next_hop_local, nlri } => {
            update.reach.extend(nlri.iter().map(|p| IpNet::V6(p.network().address())));
            (Family::Ipv6Unicast, NextHop::V6 { address: *next_hop_global, link_local: *next_hop_local })
        }
        other => return Err(format!("unexpected {other:?}")),
    };
    update.next_hops[family.index()] = Some(next_hop);
    Ok(())
}

fn withdraw(update: &mut Update, mp: &MpUnreach) -> Result<Family, String> {
    match mp {
        MpUnreach::Ipv4Unicast { nlri } => {
            update.withdrawn.extend(nlri.iter().map(|p| IpNet::V4(p.network().address())));
            Ok(Family::Ipv4Unicast)
        }
        MpUnreach::Ipv6Unicast { nlri } => {
            update.withdrawn.extend(nlri.iter().map(|p| IpNet::V6(p.network().address())));
            Ok(Family::Ipv6Unicast)
        }
        other => Err(format!("unexpected {other:?}")),
    }
}
