//! Prefixes as NLRI (RFC 4271 §4.3): a length octet in bits, then as many octets as that needs.
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::DecodeError;
use crate::family::Family;

/// Most octets of one prefix of `family`: the length and a whole address.
pub(super) fn len_max(family: Family) -> usize {
    1 + octets_of(family.bits_max())
}

/// Octets that a prefix of so many bits needs after its length octet.
fn octets_of(bits: u8) -> usize {
    usize::from(bits).div_ceil(8)
}

/// Octets of `prefix` as NLRI.
pub(super) fn len(prefix: &IpNet) -> usize {
    1 + octets_of(prefix.prefix_len())
}

/// Appends `prefix`; bits beyond its length are sent as zero. Does not allocate while `out` has room.
pub(super) fn encode(prefix: &IpNet, out: &mut Vec<u8>) {
    let bits = prefix.prefix_len();
    out.push(bits);
    match prefix {
        IpNet::V4(net) => out.extend_from_slice(&net.network().octets()[..octets_of(bits)]),
        IpNet::V6(net) => out.extend_from_slice(&net.network().octets()[..octets_of(bits)]),
    }
}

/// Calls `each` for every prefix in `octets`. Bits beyond a prefix's length are ignored.
///
/// # Errors
/// [`DecodeError::NetworkInvalid`] at the first prefix that is too long or cut short. Source: RFC 7606 §5.3.
pub(crate) fn decode_all(family: Family, octets: &[u8], mut each: impl FnMut(IpNet)) -> Result<(), DecodeError> {
    walk(family, octets, |bits, address| each(decode_one(family, bits, address)))
}

/// Can every prefix in `octets` be read? Bits beyond a prefix's length are no fault. Source: RFC 7606 §5.3, RFC 4271 §4.3.
///
/// # Errors
/// As [`decode_all`].
pub(super) fn check_all(family: Family, octets: &[u8]) -> Result<(), DecodeError> {
    walk(family, octets, |_, _| {})
}

/// The length in bits and the octets of every prefix.
fn walk(family: Family, mut octets: &[u8], mut each: impl FnMut(u8, &[u8])) -> Result<(), DecodeError> {
    while let Some((&bits, rest)) = octets.split_first() {
        if bits > family.bits_max() {
            return Err(DecodeError::NetworkInvalid);
        }
        let (address, rest) = rest.split_at_checked(octets_of(bits)).ok_or(DecodeError::NetworkInvalid)?;
        each(bits, address);
        octets = rest;
    }
    Ok(())
}

fn decode_one(family: Family, bits: u8, address: &[u8]) -> IpNet {
    match family {
        Family::Ipv4Unicast => {
            let mut octets = [0; 4];
            octets[..address.len()].copy_from_slice(address);
            Ipv4Net::new_assert(Ipv4Addr::from(octets), bits).trunc().into()
        }
        Family::Ipv6Unicast => {
            let mut octets = [0; 16];
            octets[..address.len()].copy_from_slice(address);
            Ipv6Net::new_assert(Ipv6Addr::from(octets), bits).trunc().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_takes_only_the_octets_it_needs() {
        for (prefix, want) in [
            ("0.0.0.0/0", vec![0]),
            ("10.0.0.0/8", vec![8, 10]),
            ("10.1.2.3/32", vec![32, 10, 1, 2, 3]),
            ("10.1.255.0/17", vec![17, 10, 1, 0x80]),
            ("fd00::/8", vec![8, 0xfd]),
        ] {
            let prefix: IpNet = prefix.parse().unwrap();
            let mut octets = vec![];
            encode(&prefix, &mut octets);
            assert_eq!(octets, want, "{prefix}");
            assert_eq!(len(&prefix), want.len(), "{prefix}");
            let mut back = vec![];
            decode_all(Family::of_prefix(&prefix), &octets, |p| back.push(p)).unwrap();
            assert_eq!(back, [prefix.trunc()]);
        }
    }

    #[test]
    fn prefix_that_does_not_fit_is_refused() {
        for (family, octets) in [
            (Family::Ipv4Unicast, vec![33, 1, 2, 3, 4, 5]),
            (Family::Ipv4Unicast, vec![32, 1, 2, 3]),
            (Family::Ipv4Unicast, vec![8]),
            (Family::Ipv6Unicast, [&[129][..], &[0; 17]].concat()),
        ] {
            assert_eq!(decode_all(family, &octets, |_| {}), Err(DecodeError::NetworkInvalid), "{octets:?}");
        }
    }
}
