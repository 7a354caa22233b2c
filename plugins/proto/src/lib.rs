//! The protocol between the speaker of a node (the host) and an announcer outside of its process (the plugin).
//!
//! [`v1alpha1`] is generated from `proto/ferrocast/announcer/v1alpha1/announcer.proto`, which documents every message and field, and
//! the order in which they are sent. What both sides must agree on besides is here.

mod decode;
mod encode;
pub mod status;
pub mod text;

pub use decode::{UpdateError, Updates, emptied, prefix, words};
pub use encode::{ANNOUNCEMENT_LEN_MAX, CONFIGURATION_LEN_MAX, Update, configuration_fits, fits};

/// Version v1alpha1 of the package.
#[expect(missing_docs, clippy::all, reason = "generated; the text that it is generated from is documented")]
pub mod v1alpha1 {
    tonic::include_proto!("ferrocast.announcer.v1alpha1");
}

/// The protocol numbers that this version of Ferrocast speaks, in the order of the hellos.
pub const PROTOCOL_MIN: u32 = 1;
/// The highest of them.
pub const PROTOCOL_MAX: u32 = 1;
/// How long a plugin keeps what it announces when the speaker is lost, unless configured otherwise, seconds: a speaker that is
/// upgraded, image pulled and all, is back by then.
pub const ORPHAN_HOLD_S: u32 = 300;
/// Longest text for people, octets; the rest is cut off by who sends, and dropped by who receives.
pub const TEXT_LEN_MAX: usize = 1024;
/// Longest name of a target, octets: that of a Kubernetes object.
pub const TARGET_NAME_LEN_MAX: usize = 253;
/// Longest version of a plugin's program, octets.
pub const VERSION_LEN_MAX: usize = 64;
/// Targets at most; what a router has as neighbours at one node is a fraction of it.
pub const TARGETS_MAX: usize = 1024;
/// Failures listed per target at most; the rest is only counted.
pub const FAILURES_MAX: usize = 1024;
/// Failures listed in one status at most, over all targets: a thousand targets that lack everything would not fit a message.
pub const FAILURES_TOTAL_MAX: usize = 16 * 1024;
/// Statuses a second at most; the host drops and counts the rest.
pub const STATUSES_PER_S_MAX: u32 = 10;
/// Longest [`Chunk`](v1alpha1::Chunk) as encoded, octets.
pub const CHUNK_LEN_MAX: usize = 1024 * 1024;
/// Longest message that either side takes, octets: a chunk, or a begin with a large configuration. A status of 1,024 targets with long
/// reasons fits as well.
pub const MESSAGE_LEN_MAX: usize = 4 * 1024 * 1024;
