//! Decoders of BGP that share no code with Ferrocast, and what its own makes of the same octets.
//!
//! Each of them is brought to the same words ([`Meaning`]), so that two readings of one message can be compared. Those are
//! Ferrocast's own types, filled from what the other decoder read. A new capability is added in one place per decoder (its
//! `capability` function) and in [`random::capability`].
pub mod bgpkit;
pub mod external;
pub mod meaning;
pub mod netgauze;
pub mod random;
pub mod rustbgpd;

pub use meaning::{Meaning, Session};
