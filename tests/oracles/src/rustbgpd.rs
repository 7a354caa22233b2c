//! The reading of `rustbgpd-wire`.
use bytes::Bytes;
use ferrocast_bgp_proto::{
    Family,
    tools::Update,
    wire::{
        Capability, ExtendedCommunity, GracefulRestart, LargeCommunity, NextHop, Notification, Open, Origin, Role,
        RouteRefresh,
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustbgpd_wire as theirs;

use crate::meaning::{Meaning, Oracle, Session, mark_end_of_rib};

/// The decoder.
pub const ORACLE: Oracle = Oracle { name: "rustbgpd-wire", decode, encode, blind: |_| {} };

fn read(octets: &[u8]) -> Result<theirs::Message, String> {
    let mut octets = Bytes::copy_from_slice(octets);
    let message = theirs::decode_message(&mut octets, theirs::MAX_MESSAGE_LEN).map_err(|e| e.to_string())?;
    if octets.is_empty() { Ok(message) } else { Err(format!("{} octets left", octets.len())) }
}

fn decode(octets: &[u8], session: Session) -> Result<Option<Meaning>, String> {
    Ok(Some(match read(octets)? {
        theirs::Message::Open(open) => Meaning::Open(Open {
            as2: open.my_as,
            hold_time_s: open.hold_time,
            id: open.bgp_identifier,
            capabilities: open.capabilities.iter().map(capability).collect(),
        }),
        theirs::Message::Update(message) => {
            let parsed = message.parse(session.as4, false, &[]).map_err(|e| e.to_string())?;
            let revised = message.parse_revised(session.as4, true, false, &[]).map_err(|e| e.to_string())?;
            if !revised.malformed.is_empty() {
                return Err(format!("{:?}", revised.malformed));
            }
            Meaning::Update(update(&parsed)?)
        }
        theirs::Message::Notification(n) => {
            Meaning::Notification(Notification { code: n.code.as_u8(), subcode: n.subcode, data: n.data.to_vec() })
        }
        theirs::Message::Keepalive => Meaning::Keepalive,
        theirs::Message::RouteRefresh(r) => Meaning::RouteRefresh(RouteRefresh {
            afi: r.afi_raw,
            subtype: r.subtype_raw,
            safi: r.safi_raw,
            rest: vec![],
        }),
        other => return Err(format!("unexpected {other:?}")),
    }))
}

/// Written anew by their encoder, from what their decoder read.
fn encode(octets: &[u8], session: Session) -> Result<Option<Vec<u8>>, String> {
    let message = match read(octets)? {
        theirs::Message::Update(message) => {
            let parsed = message.parse(session.as4, false, &[]).map_err(|e| e.to_string())?;
            theirs::Message::Update(
                theirs::UpdateMessage::try_build(
                    &parsed.announced,
                    &parsed.withdrawn,
                    &parsed.attributes,
                    session.as4,
                    false,
                    theirs::Ipv4UnicastMode::Body,
                )
                .map_err(|e| e.to_string())?,
            )
        }
        other => other,
    };
    theirs::encode_message(&message).map(|octets| Some(octets.to_vec())).map_err(|e| e.to_string())
}

fn capability(theirs: &theirs::Capability) -> Capability {
    use theirs::Capability as T;
    match theirs {
        T::MultiProtocol { afi, safi } => Capability::MultiProtocol(*afi as u16, *safi as u8),
        T::RouteRefresh => Capability::RouteRefresh,
        T::EnhancedRouteRefresh => Capability::EnhancedRouteRefresh,
        T::FourOctetAs { asn } => Capability::FourOctetAs(*asn),
        T::ExtendedNextHop(families) => Capability::ExtendedNextHop(
            families.iter().map(|f| (f.nlri_afi as u16, f.nlri_safi as u16, f.next_hop_afi as u16)).collect(),
        ),
        T::Role { role } => Capability::Role(match role {
            theirs::BgpRole::Provider => Role::Provider,
            theirs::BgpRole::RouteServer => Role::RouteServer,
            theirs::BgpRole::RouteServerClient => Role::RouteServerClient,
            theirs::BgpRole::Customer => Role::Customer,
            _ => Role::Peer,
        }),
        T::GracefulRestart { restart_state, notification, restart_time, families } => {
            Capability::GracefulRestart(GracefulRestart {
                restarting: *restart_state,
                notification: *notification,
                restart_time_s: *restart_time,
                families: families.iter().map(|f| (f.afi as u16, f.safi as u8, f.forwarding_preserved)).collect(),
            })
        }
        T::ExtendedMessage => Capability::Unknown { code: 6, value: vec![] },
        T::Unknown { code, data } => Capability::Unknown { code: *code, value: data.to_vec() },
        other => Capability::Unknown { code: other.code(), value: format!("{other:?}").into_bytes() },
    }
}

fn v4(prefix: theirs::Ipv4Prefix) -> IpNet {
    Ipv4Net::new_assert(prefix.addr, prefix.len).into()
}

fn prefix(prefix: theirs::Prefix) -> IpNet {
    match prefix {
        theirs::Prefix::V4(p) => v4(p),
        theirs::Prefix::V6(p) => Ipv6Net::new_assert(p.addr, p.len).into(),
    }
}

fn update(parsed: &theirs::ParsedUpdate) -> Result<Update, String> {
    use theirs::PathAttribute as T;
    let mut update = Update {
        withdrawn: parsed.withdrawn.iter().map(|e| v4(e.prefix)).collect(),
        reach: parsed.announced.iter().map(|e| v4(e.prefix)).collect(),
        ..Update::default()
    };
    let mut unreach = None;
    let said = &mut update.attributes;
    for attribute in &parsed.attributes {
        match attribute {
            T::Origin(theirs::Origin::Igp) => said.origin = Origin::Igp,
            T::Origin(theirs::Origin::Egp) => said.origin = Origin::Egp,
            T::Origin(theirs::Origin::Incomplete) => said.origin = Origin::Incomplete,
            T::AsPath(path) => {
                for segment in &path.segments {
                    let theirs::AsPathSegment::AsSequence(asns) = segment else { return Err(format!("{segment:?}")) };
                    said.as_path.extend(asns);
                }
            }
            T::NextHop(ip) => update.next_hops[0] = Some(NextHop::V4(*ip)),
            T::Med(med) => said.med = Some(*med),
            T::LocalPref(local_pref) => said.local_pref = Some(*local_pref),
            T::Communities(all) => said.communities = all.clone(),
            T::ExtendedCommunities(all) => {
                said.extended_communities = all.iter().map(|c| ExtendedCommunity(c.as_u64().to_be_bytes())).collect();
            }
            T::LargeCommunities(all) => {
                said.large_communities = all
                    .iter()
                    .map(|c| LargeCommunity { global: c.global_admin, local1: c.local_data1, local2: c.local_data2 })
                    .collect();
            }
            T::MpReachNlri(mp) => {
                let family = family(mp.afi, mp.safi)?;
                update.reach.extend(mp.announced.iter().map(|e| prefix(e.prefix)));
                update.next_hops[family.index()] = Some(match NextHop::from(mp.next_hop) {
                    NextHop::V6 { address, .. } => NextHop::V6 { address, link_local: mp.link_local_next_hop },
                    v4 => v4,
                });
            }
            T::MpUnreachNlri(mp) => {
                unreach = Some(family(mp.afi, mp.safi)?);
                update.withdrawn.extend(mp.withdrawn.iter().map(|e| prefix(e.prefix)));
            }
            // They replace AS_PATH by the true one and may keep AS4_PATH as it came.
            T::Unknown(raw) if raw.type_code == 17 => {}
            other => return Err(format!("unexpected {other:?}")),
        }
    }
    mark_end_of_rib(&mut update, parsed.attributes.len(), unreach);
    Ok(update)
}

fn family(afi: theirs::Afi, safi: theirs::Safi) -> Result<Family, String> {
    Family::from_wire(afi as u16, safi as u8).ok_or_else(|| format!("{afi:?} {safi:?}"))
}
