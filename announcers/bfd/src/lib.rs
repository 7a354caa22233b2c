//! Bidirectional Forwarding Detection: says within a few intervals of some milliseconds that a neighbour is gone.
//!
//! [`machine`] and [`packet`] are RFC 5880 without I/O. [`Bfd`] drives all sessions of a node on one thread of its own, so
//! that a busy async runtime cannot keep it from sending in time. What it finds out is on a `watch` per session.
//!
//! Asynchronous mode, single hop (RFC 5881) and multihop (RFC 5883), passive role, echo; no authentication.
mod count;
mod driver;
mod handle;
pub mod machine;
pub mod packet;
mod sys;

pub use count::{Counters, NodeCounters};
pub use handle::{Bfd, Session, SessionConfig, SessionInfo};
pub use packet::{Diagnostic, State};
