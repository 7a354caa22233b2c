//! What a ROUTE-REFRESH is for (RFC 2918, RFC 7313).
use super::RouteRefresh;
use crate::family::Family;

impl RouteRefresh {
    /// Subtype of a request. Source: RFC 2918 §3, RFC 7313 §3.2.
    pub const REQUEST: u8 = 0;
    /// Subtype of BoRR, which comes before the routes that were asked for. Source: RFC 7313 §3.2.
    pub const BEGIN: u8 = 1;
    /// Subtype of EoRR, which comes behind them. Source: RFC 7313 §3.2.
    pub const END: u8 = 2;

    /// Asks for every route of `family`.
    #[must_use]
    pub fn request(family: Family) -> Self {
        Self::new(family, Self::REQUEST)
    }

    /// Says that every route of `family` follows.
    #[must_use]
    pub fn begin(family: Family) -> Self {
        Self::new(family, Self::BEGIN)
    }

    /// Says that every route of `family` was sent.
    #[must_use]
    pub fn end(family: Family) -> Self {
        Self::new(family, Self::END)
    }

    fn new(family: Family, subtype: u8) -> Self {
        let (afi, safi) = family.wire();
        Self { afi, subtype, safi }
    }

    /// The family, if it is one that we speak.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        Family::from_wire(self.afi, self.safi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message;

    #[test]
    fn route_refresh_has_the_octets_of_its_rfcs() {
        for (refresh, want) in [
            (RouteRefresh::request(Family::Ipv4Unicast), [0, 1, 0, 1]),
            (RouteRefresh::begin(Family::Ipv6Unicast), [0, 2, 1, 1]),
            (RouteRefresh::end(Family::Ipv6Unicast), [0, 2, 2, 1]),
        ] {
            let mut octets = bytes::BytesMut::new();
            Message::RouteRefresh(refresh).encode(&mut octets);
            assert_eq!(octets[19..], want);
            assert_eq!(refresh.family().map(|f| f.wire().0), Some(u16::from(want[1])));
        }
        assert_eq!(RouteRefresh { afi: 1, subtype: 0, safi: 128 }.family(), None);
    }
}
