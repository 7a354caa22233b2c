//! The reading of `bgpkit-parser`.
use std::net::IpAddr;

use bgpkit_parser::{
    models::{
        AsPath, AsPathSegment, Asn, AsnLength, Attribute, AttributeValue as T, Attributes, BgpMessage,
        BgpUpdateMessage, CapabilityValue, Community, ExtendedCommunity as TheirExtended, NextHopAddress, Nlri,
        Origin as TheirOrigin, ParamValue, capabilities::BgpRole,
    },
    parser::bgp::parse_bgp_message,
};
use bytes::Bytes;
use ferrocast_bgp_proto::{
    Family,
    tools::Update,
    wire::{
        Capability, ExtendedCommunity, GracefulRestart, LargeCommunity, NextHop, Notification, Open, Origin, Role,
        RouteRefresh,
    },
};

use crate::meaning::{Meaning, Oracle, Session, mark_end_of_rib};

/// The decoder.
pub const ORACLE: Oracle = Oracle { name: "bgpkit-parser", decode, encode, blind };

/// It reads no N bit (RFC 8538).
fn blind(meaning: &mut Meaning) {
    if let Meaning::Open(open) = meaning {
        for capability in &mut open.capabilities {
            if let Capability::GracefulRestart(restart) = capability {
                restart.notification = false;
            }
        }
    }
}

fn asn_length(session: Session) -> AsnLength {
    if session.as4 { AsnLength::Bits32 } else { AsnLength::Bits16 }
}

fn read(octets: &[u8], session: Session) -> Result<BgpMessage, String> {
    let mut octets = Bytes::copy_from_slice(octets);
    let message = parse_bgp_message(&mut octets, false, &asn_length(session)).map_err(|e| e.to_string())?;
    if octets.is_empty() { Ok(message) } else { Err(format!("{} octets left", octets.len())) }
}

fn decode(octets: &[u8], session: Session) -> Result<Option<Meaning>, String> {
    Ok(Some(match read(octets, session)? {
        BgpMessage::Open(open) => {
            let mut capabilities = vec![];
            for parameter in &open.opt_params {
                let ParamValue::Capacities(all) = &parameter.param_value else { return Err(format!("{parameter:?}")) };
                for theirs in all {
                    capabilities.push(capability(u8::from(theirs.ty), &theirs.value)?);
                }
            }
            Meaning::Open(Open {
                as2: u16::try_from(open.asn.to_u32()).map_err(|e| e.to_string())?,
                hold_time_s: open.hold_time,
                id: open.bgp_identifier,
                capabilities,
            })
        }
        BgpMessage::Update(message) => Meaning::Update(update(&message)?),
        BgpMessage::Notification(n) => {
            let (code, subcode) = n.error.get_codes();
            Meaning::Notification(Notification { code, subcode, data: n.data })
        }
        BgpMessage::KeepAlive => Meaning::Keepalive,
        BgpMessage::RouteRefresh(r) => {
            Meaning::RouteRefresh(RouteRefresh { afi: r.afi, subtype: r.subtype, safi: r.safi, rest: r.data })
        }
    }))
}

/// Nothing with an N bit, which its reading has lost.
fn encode(octets: &[u8], session: Session) -> Result<Option<Vec<u8>>, String> {
    let message = read(octets, session)?;
    message.encode(asn_length(session)).map(|octets| Some(octets.to_vec())).map_err(|e| e.to_string())
}

fn capability(code: u8, theirs: &CapabilityValue) -> Result<Capability, String> {
    Ok(match theirs {
        CapabilityValue::MultiprotocolExtensions(c) => Capability::MultiProtocol(c.afi as u16, c.safi as u8),
        CapabilityValue::RouteRefresh(_) => Capability::RouteRefresh,
        CapabilityValue::FourOctetAs(c) => Capability::FourOctetAs(c.asn),
        CapabilityValue::ExtendedNextHop(c) => Capability::ExtendedNextHop(
            c.entries.iter().map(|e| (e.nlri_afi as u16, e.nlri_safi as u16, e.nexthop_afi as u16)).collect(),
        ),
        CapabilityValue::BgpRole(c) => Capability::Role(match c.role {
            BgpRole::Provider => Role::Provider,
            BgpRole::RouteServer => Role::RouteServer,
            BgpRole::RouteServerClient => Role::RouteServerClient,
            BgpRole::Customer => Role::Customer,
            BgpRole::Peer => Role::Peer,
        }),
        CapabilityValue::GracefulRestart(c) => Capability::GracefulRestart(GracefulRestart {
            restarting: c.restart_state,
            notification: false,
            restart_time_s: c.restart_time,
            families: c.address_families.iter().map(|f| (f.afi as u16, f.safi as u8, f.forwarding_state)).collect(),
        }),
        CapabilityValue::BgpExtendedMessage(_) => Capability::Unknown { code, value: vec![] },
        CapabilityValue::Raw(value) if code == 70 && value.is_empty() => Capability::EnhancedRouteRefresh,
        CapabilityValue::Raw(value) => Capability::Unknown { code, value: value.clone() },
        other => return Err(format!("unexpected {other:?}")),
    })
}

fn path(path: &AsPath) -> Result<Vec<u32>, String> {
    let mut asns = vec![];
    for segment in path.iter_segments() {
        let AsPathSegment::AsSequence(segment) = segment else { return Err(format!("{segment:?}")) };
        asns.extend(segment.iter().map(Asn::to_u32));
    }
    Ok(asns)
}

fn community(theirs: &Community) -> u32 {
    match theirs {
        Community::NoExport => 0xffff_ff01,
        Community::NoAdvertise => 0xffff_ff02,
        Community::NoExportSubConfed => 0xffff_ff03,
        Community::Custom(asn, value) => asn.to_u32() << 16 | u32::from(*value),
    }
}

/// Its words are one type per kind; in octets they are eight again.
fn extended(theirs: &[TheirExtended]) -> Result<Vec<ExtendedCommunity>, String> {
    let attributes = Attributes::from_iter([Attribute::from(T::ExtendedCommunities(theirs.to_vec()))]);
    let update = BgpUpdateMessage { attributes, ..BgpUpdateMessage::default() };
    let octets = update.encode(AsnLength::Bits32).map_err(|e| e.to_string())?;
    let (chunks, _) = octets[octets.len() - 8 * theirs.len()..].as_chunks::<8>();
    Ok(chunks.iter().map(|c| ExtendedCommunity(*c)).collect())
}

fn update(message: &BgpUpdateMessage) -> Result<Update, String> {
    if message.attributes.has_validation_warnings() {
        return Err(format!("{:?}", message.attributes.validation_warnings()));
    }
    let mut update = Update {
        withdrawn: message.withdrawn_prefixes.iter().map(|p| p.prefix).collect(),
        reach: message.announced_prefixes.iter().map(|p| p.prefix).collect(),
        ..Update::default()
    };
    let (mut unreach, mut count) = (None, 0);
    for attribute in message.attributes.iter() {
        count += 1;
        let said = &mut update.attributes;
        match attribute {
            T::Origin(TheirOrigin::IGP) => said.origin = Origin::Igp,
            T::Origin(TheirOrigin::EGP) => said.origin = Origin::Egp,
            T::Origin(TheirOrigin::INCOMPLETE) => said.origin = Origin::Incomplete,
            T::AsPath(_) | T::As4Path(_) => {
                said.as_path = path(&message.attributes.effective_as_path().ok_or("no path")?)?;
            }
            T::NextHop(IpAddr::V4(ip)) => update.next_hops[0] = Some(NextHop::V4(*ip)),
            T::MultiExitDiscriminator(med) => said.med = Some(*med),
            T::LocalPreference(local_pref) => said.local_pref = Some(*local_pref),
            T::Communities(all) => said.communities = all.iter().map(community).collect(),
            T::ExtendedCommunities(all) => said.extended_communities = extended(all)?,
            T::LargeCommunities(all) => {
                said.large_communities = all
                    .iter()
                    .map(|c| LargeCommunity {
                        global: c.global_admin,
                        local1: c.local_data[0],
                        local2: c.local_data[1],
                    })
                    .collect();
            }
            T::MpReachNlri(mp) => {
                update.reach.extend(mp.prefixes.iter().map(|p| p.prefix));
                update.next_hops[family(mp)?.index()] = mp.next_hop.as_ref().map(next_hop).transpose()?;
            }
            T::MpUnreachNlri(mp) => {
                unreach = Some(family(mp)?);
                update.withdrawn.extend(mp.prefixes.iter().map(|p| p.prefix));
            }
            other => return Err(format!("unexpected {other:?}")),
        }
    }
    mark_end_of_rib(&mut update, count, unreach);
    Ok(update)
}

fn family(mp: &Nlri) -> Result<Family, String> {
    Family::from_wire(mp.afi as u16, mp.safi as u8).ok_or_else(|| format!("{:?} {:?}", mp.afi, mp.safi))
}

fn next_hop(theirs: &NextHopAddress) -> Result<NextHop, String> {
    Ok(match theirs {
        NextHopAddress::Ipv4(ip) => NextHop::V4(*ip),
        NextHopAddress::Ipv6(address) => NextHop::V6 { address: *address, link_local: None },
        NextHopAddress::Ipv6LinkLocal(address, link) => NextHop::V6 { address: *address, link_local: Some(*link) },
        other => return Err(format!("unexpected {other:?}")),
    })
}
