//! The address families that are spoken.
use std::{fmt, net::IpAddr};

use ipnet::IpNet;

/// An address family with its subsequent family: what one capability or one UPDATE is about. Source: RFC 4760 §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

/// SAFI of unicast forwarding. Source: RFC 4760 §6.
const SAFI_UNICAST: u8 = 1;

impl Family {
    /// Every family, in the order in which they are listed on the wire.
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    /// The family of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::Ipv4Unicast } else { Self::Ipv6Unicast }
    }

    /// The family of a prefix.
    #[must_use]
    pub fn of_prefix(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::Ipv4Unicast,
            IpNet::V6(_) => Self::Ipv6Unicast,
        }
    }

    /// AFI and SAFI as on the wire.
    #[must_use]
    pub fn wire(self) -> (u16, u8) {
        match self {
            Self::Ipv4Unicast => (1, SAFI_UNICAST),
            Self::Ipv6Unicast => (2, SAFI_UNICAST),
        }
    }

    /// The family with this AFI and SAFI, if it is one that we speak.
    #[must_use]
    pub fn from_wire(afi: u16, safi: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.wire() == (afi, safi))
    }

    /// Longest prefix, bits.
    #[must_use]
    pub fn bits_max(self) -> u8 {
        match self {
            Self::Ipv4Unicast => 32,
            Self::Ipv6Unicast => 128,
        }
    }

    /// Position in [`Family::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Ipv4Unicast => 0,
            Self::Ipv6Unicast => 1,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
        })
    }
}

/// A set of families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Families(u8);

impl Families {
    /// No family.
    pub const NONE: Self = Self(0);
    /// Every family that we speak.
    pub const ALL: Self = Self(0b11);

    /// A set of one.
    #[must_use]
    pub fn only(family: Family) -> Self {
        Self(1 << family.index())
    }

    /// Adds one.
    pub fn insert(&mut self, family: Family) {
        self.0 |= 1 << family.index();
    }

    /// Removes one; was it there?
    pub fn remove(&mut self, family: Family) -> bool {
        let had = self.contains(family);
        self.0 &= !(1 << family.index());
        had
    }

    /// Is `family` in the set?
    #[must_use]
    pub fn contains(self, family: Family) -> bool {
        self.0 & (1 << family.index()) != 0
    }

    /// What both sets hold.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Is the set empty?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members, in the order of [`Family::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |f| self.contains(*f))
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Self::NONE;
        families.into_iter().for_each(|f| set.insert(f));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_hold_what_was_put_in() {
        let mut set = Families::only(Family::Ipv6Unicast);
        assert!(!set.contains(Family::Ipv4Unicast) && set.contains(Family::Ipv6Unicast));
        set.insert(Family::Ipv4Unicast);
        assert_eq!(set, Families::ALL);
        assert!(set.remove(Family::Ipv6Unicast) && !set.remove(Family::Ipv6Unicast));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Family::Ipv4Unicast]);
        assert!(set.intersection(Families::only(Family::Ipv6Unicast)).is_empty());
    }

    #[test]
    fn family_survives_the_wire() {
        for family in Family::ALL {
            let (afi, safi) = family.wire();
            assert_eq!(Family::from_wire(afi, safi), Some(family));
        }
        assert_eq!(Family::from_wire(1, 128), None);
    }
}
