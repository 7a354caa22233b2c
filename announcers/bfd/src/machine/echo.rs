//! The echo function: packets to ourselves that the peer's forwarding plane returns. Source: RFC 5880 §6.4, §6.8.8, §6.8.9.
use std::time::{Duration, Instant};

use super::timers::{duration, jittered};

/// Length of our echo packets' content, octets. The RFC leaves the content to the sender.
pub const ECHO_LEN: usize = 16;

/// One echo packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Our name for the session.
    pub discriminator: u32,
    /// Counts the echoes of a session.
    pub sequence: u32,
    /// Known to us only, so that nobody else can pretend that the path works.
    pub cookie: u64,
}

impl Echo {
    /// The packet's content.
    #[must_use]
    pub fn encode(&self) -> [u8; ECHO_LEN] {
        let mut octets = [0; ECHO_LEN];
        octets[..4].copy_from_slice(&self.discriminator.to_be_bytes());
        octets[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        octets[8..].copy_from_slice(&self.cookie.to_be_bytes());
        octets
    }

    /// Reads what came back; `None`: not ours.
    #[must_use]
    pub fn decode(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; ECHO_LEN] = octets.try_into().ok()?;
        let word = |at: usize| octets[at..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        let cookie = octets.last_chunk().map_or(0, |cookie| u64::from_be_bytes(*cookie));
        Some(Self { discriminator: word(0), sequence: word(4), cookie })
    }
}

/// The echo function while it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    interval: Duration,
    detect_multiplier: u8,
    sequence: u32,
    next: Instant,
    /// When, without a return, the path counts as broken. Source: RFC 5880 §6.8.5.
    pub(super) expires: Instant,
}

impl Running {
    pub(super) fn start(interval_us: u32, detect_multiplier: u8, now: Instant) -> Self {
        let interval = duration(interval_us);
        let expires = now + interval * detect_multiplier.into();
        Self { interval, detect_multiplier, sequence: 0, next: now, expires }
    }

    /// Another interval begins anew.
    pub(super) fn retime(&mut self, interval_us: u32, detect_multiplier: u8, now: Instant) {
        let interval = duration(interval_us);
        if (interval, detect_multiplier) != (self.interval, self.detect_multiplier) {
            *self = Self { sequence: self.sequence, ..Self::start(interval_us, detect_multiplier, now) };
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.next.min(self.expires)
    }

    /// The sequence number to send, if one is due.
    pub(super) fn due(&mut self, now: Instant, random: u32) -> Option<u32> {
        if now < self.next {
            return None;
        }
        self.next = now + jittered(self.interval, self.detect_multiplier, random);
        self.sequence = self.sequence.wrapping_add(1);
        Some(self.sequence)
    }

    /// One came back. Late ones of before the last `detect_multiplier` do not count.
    pub(super) fn returned(&mut self, sequence: u32, now: Instant) -> bool {
        let age = self.sequence.wrapping_sub(sequence);
        let counts = age <= u32::from(self.detect_multiplier);
        if counts {
            self.expires = now + self.interval * self.detect_multiplier.into();
        }
        counts
    }
}
