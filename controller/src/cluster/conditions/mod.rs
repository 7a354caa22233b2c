//! The conditions that Ferrocast keeps in the statuses of Services: whether and why (not) they are announced.
//!
//! Only the controller writes them: from its own decisions, which are the speakers', and from what the speakers say of their
//! sessions. One patch per change of meaning, at most one a second per Service.
mod speakers;
pub mod summary;
mod writer;

pub use speakers::{SpeakerBrief, SpeakerFeed, Speakers};
pub use writer::ConditionWriter;
