//! BFD control packets as octets. Source: RFC 5880 §4.1.
#![forbid(unsafe_code)]

/// Length of a control packet without authentication, octets.
pub const PACKET_LEN: usize = 24;
/// Protocol version.
const VERSION: u8 = 1;

const FLAG_POLL: u8 = 0x20;
const FLAG_FINAL: u8 = 0x10;
const FLAG_CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const FLAG_AUTHENTICATION: u8 = 0x04;
const FLAG_DEMAND: u8 = 0x02;
const FLAG_MULTIPOINT: u8 = 0x01;

/// State of a session. Source: RFC 5880 §6.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Held down by an administrator: says nothing about the path.
    AdminDown,
    /// The peer is not heard, or has not heard us.
    #[default]
    Down,
    /// The peer is heard, and does not know yet that we hear it.
    Init,
    /// Both sides hear each other.
    Up,
}

impl State {
    const fn from_bits(octet: u8) -> Self {
        match octet >> 6 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    const fn bits(self) -> u8 {
        let state = match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        };
        state << 6
    }

    /// The RFC's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a session last changed its state. Source: RFC 5880 §4.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Diagnostic {
    /// No diagnostic.
    #[default]
    None,
    /// The control detection time expired.
    DetectionTimeExpired,
    /// The echo function failed.
    EchoFailed,
    /// The neighbour signalled that its session is down.
    NeighborDown,
    /// The forwarding plane was reset.
    ForwardingPlaneReset,
    /// The path is down.
    PathDown,
    /// A concatenated path is down.
    ConcatenatedPathDown,
    /// Administratively down.
    AdministrativelyDown,
    /// A reverse concatenated path is down.
    ReverseConcatenatedPathDown,
    /// Reserved values, 9 to 31.
    Other(u8),
}

impl Diagnostic {
    const fn from_bits(octet: u8) -> Self {
        match octet & 0x1f {
            0 => Self::None,
            1 => Self::DetectionTimeExpired,
            2 => Self::EchoFailed,
            3 => Self::NeighborDown,
            4 => Self::ForwardingPlaneReset,
            5 => Self::PathDown,
            6 => Self::ConcatenatedPathDown,
            7 => Self::AdministrativelyDown,
            8 => Self::ReverseConcatenatedPathDown,
            other => Self::Other(other),
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::DetectionTimeExpired => 1,
            Self::EchoFailed => 2,
            Self::NeighborDown => 3,
            Self::ForwardingPlaneReset => 4,
            Self::PathDown => 5,
            Self::ConcatenatedPathDown => 6,
            Self::AdministrativelyDown => 7,
            Self::ReverseConcatenatedPathDown => 8,
            Self::Other(other) => other & 0x1f,
        }
    }

    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::None => "no diagnostic",
            Self::DetectionTimeExpired => "control detection time expired",
            Self::EchoFailed => "echo function failed",
            Self::NeighborDown => "neighbor signaled session down",
            Self::ForwardingPlaneReset => "forwarding plane reset",
            Self::PathDown => "path down",
            Self::ConcatenatedPathDown => "concatenated path down",
            Self::AdministrativelyDown => "administratively down",
            Self::ReverseConcatenatedPathDown => "reverse concatenated path down",
            Self::Other(_) => "reserved diagnostic",
        }
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

/// A control packet. Intervals are in microseconds, as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last changed its state.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender asks for a packet with the Final bit.
    pub poll: bool,
    /// The answer to a poll.
    pub last: bool,
    /// The sender's BFD outlives its control plane.
    pub control_plane_independent: bool,
    /// The sender wants no periodic packets while both sides are Up.
    pub demand: bool,
    /// Packets that may be missed in a row, never 0.
    pub detect_multiplier: u8,
    /// The sender's name for the session, never 0.
    pub my_discriminator: u32,
    /// Our name for the session, or 0 if the sender does not know it.
    pub your_discriminator: u32,
    /// Shortest interval at which the sender would send, µs.
    pub desired_min_tx_us: u32,
    /// Shortest interval at which the sender can receive, µs; 0: it wants no periodic packets.
    pub required_min_rx_us: u32,
    /// Shortest interval between echo packets that the sender loops back, µs; 0: it does not.
    pub required_min_echo_rx_us: u32,
}

/// Why octets are not a packet for us; all are discarded. Source: RFC 5880 §6.8.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not version 1.
    #[error("version {0}")]
    Version(u8),
    /// The length field is too short, or says more than there is.
    #[error("length field {length} in {received} octets")]
    Length {
        /// What the field says.
        length: u8,
        /// Octets received.
        received: usize,
    },
    /// Detect multiplier 0.
    #[error("detect multiplier is 0")]
    DetectMultiplier,
    /// Reserved for multipoint BFD.
    #[error("multipoint bit is set")]
    Multipoint,
    /// No name for the session.
    #[error("my discriminator is 0")]
    MyDiscriminator,
    /// The sender does not know our name, yet claims to have heard us.
    #[error("your discriminator is 0 in state {0}")]
    YourDiscriminator(State),
    /// Authentication is not supported.
    #[error("authenticated packet")]
    Authentication,
}

impl DecodeError {
    /// Label for the counter of discarded packets.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Length { .. } => "length",
            Self::DetectMultiplier => "detect_multiplier",
            Self::Multipoint => "multipoint",
            Self::MyDiscriminator => "my_discriminator",
            Self::YourDiscriminator(_) => "your_discriminator",
            Self::Authentication => "authentication",
        }
    }
}

impl Packet {
    /// Reads a packet from a datagram; octets after it are ignored.
    ///
    /// # Errors
    /// Every reason of RFC 5880 §6.8.6 to discard a packet that can be seen in the packet alone.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        let too_short = DecodeError::Length { length: octets.get(3).copied().unwrap_or(0), received: octets.len() };
        let Some(fixed) = octets.first_chunk::<PACKET_LEN>() else { return Err(too_short) };
        let [first, flags, detect_multiplier, length, ..] = *fixed;
        if first >> 5 != VERSION {
            return Err(DecodeError::Version(first >> 5));
        }
        if usize::from(length) < PACKET_LEN || usize::from(length) > octets.len() {
            return Err(too_short);
        }
        let word = |at: usize| fixed[at..].first_chunk().map_or(0, |octets| u32::from_be_bytes(*octets));
        let packet = Self {
            diagnostic: Diagnostic::from_bits(first),
            state: State::from_bits(flags),
            poll: flags & FLAG_POLL != 0,
            last: flags & FLAG_FINAL != 0,
            control_plane_independent: flags & FLAG_CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & FLAG_DEMAND != 0,
            detect_multiplier,
            my_discriminator: word(4),
            your_discriminator: word(8),
            desired_min_tx_us: word(12),
            required_min_rx_us: word(16),
            required_min_echo_rx_us: word(20),
        };
        packet.check(flags)?;
        Ok(packet)
    }

    /// The checks of §6.8.6 after version and length, in its order.
    fn check(&self, flags: u8) -> Result<(), DecodeError> {
        if self.detect_multiplier == 0 {
            return Err(DecodeError::DetectMultiplier);
        }
        if flags & FLAG_MULTIPOINT != 0 {
            return Err(DecodeError::Multipoint);
        }
        if self.my_discriminator == 0 {
            return Err(DecodeError::MyDiscriminator);
        }
        if self.your_discriminator == 0 && !matches!(self.state, State::Down | State::AdminDown) {
            return Err(DecodeError::YourDiscriminator(self.state));
        }
        if flags & FLAG_AUTHENTICATION != 0 {
            return Err(DecodeError::Authentication);
        }
        Ok(())
    }

    /// The packet as octets.
    #[must_use]
    pub fn encode(&self) -> [u8; PACKET_LEN] {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = self.state.bits()
            | flag(self.poll, FLAG_POLL)
            | flag(self.last, FLAG_FINAL)
            | flag(self.control_plane_independent, FLAG_CONTROL_PLANE_INDEPENDENT)
            | flag(self.demand, FLAG_DEMAND);
        let mut octets = [0; PACKET_LEN];
        octets[..4].copy_from_slice(&[VERSION << 5 | self.diagnostic.bits(), flags, self.detect_multiplier, 24]);
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx_us,
            self.required_min_rx_us,
            self.required_min_echo_rx_us,
        ];
        for (place, word) in octets[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        octets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An Up packet that nothing is wrong with.
    const GOOD: [u8; PACKET_LEN] =
        [0x20, 0xc0, 3, 24, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0x86, 0xa0, 0, 0, 0xc3, 0x50, 0, 0, 0, 0];

    #[test]
    fn decode_reads_every_field() {
        let packet = Packet::decode(&GOOD).unwrap();
        let expected = Packet {
            state: State::Up,
            detect_multiplier: 3,
            my_discriminator: 1,
            your_discriminator: 2,
            desired_min_tx_us: 100_000,
            required_min_rx_us: 50_000,
            ..Packet::default()
        };
        assert_eq!(packet, expected);
        assert_eq!(packet.encode(), GOOD);
    }

    #[test]
    fn decode_discards_as_the_rfc_says() {
        use DecodeError as E;
        for (name, at, octets, error) in [
            ("version 0", 0, &[0x00][..], E::Version(0)),
            ("version 2", 0, &[0x40], E::Version(2)),
            ("length 23", 3, &[23], E::Length { length: 23, received: 24 }),
            ("length beyond the datagram", 3, &[25], E::Length { length: 25, received: 24 }),
            ("detect multiplier", 2, &[0], E::DetectMultiplier),
            ("multipoint", 1, &[0xc1], E::Multipoint),
            ("my discriminator", 7, &[0], E::MyDiscriminator),
            ("your discriminator while Up", 11, &[0], E::YourDiscriminator(State::Up)),
            ("authentication", 1, &[0xc4], E::Authentication),
        ] {
            let mut packet = GOOD;
            packet[at..at + octets.len()].copy_from_slice(octets);
            assert_eq!(Packet::decode(&packet), Err(error), "{name}");
        }
        assert_eq!(Packet::decode(&GOOD[..23]), Err(E::Length { length: 24, received: 23 }), "short");
        assert_eq!(Packet::decode(&[]), Err(E::Length { length: 0, received: 0 }), "empty");
    }

    #[test]
    fn decode_accepts_an_unknown_discriminator_while_down_and_octets_behind() {
        for state in [0x40, 0x00] {
            let mut packet = GOOD.to_vec();
            packet[1] = state;
            packet[11] = 0;
            packet.extend([1, 2, 3]);
            assert!(Packet::decode(&packet).is_ok(), "{state:#x}");
        }
    }

    proptest! {
        #[test]
        fn encode_inverts_decode(octets in prop::collection::vec(any::<u8>(), 20), diagnostic in 0u8..32, flags: u8) {
            let mut packet = GOOD;
            packet[4..].copy_from_slice(&octets);
            packet[0] |= diagnostic;
            packet[1] = flags;
            if let Ok(decoded) = Packet::decode(&packet) {
                prop_assert_eq!(decoded.encode(), packet);
            }
        }

        #[test]
        fn decode_never_panics(octets in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(Packet::decode(&octets).is_err() || octets.len() >= PACKET_LEN);
        }
    }
}
