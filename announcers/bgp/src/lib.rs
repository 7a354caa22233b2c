//! The default announcer: one supervised BGP session per peer over TCP.
//!
//! [`BgpAnnouncer`] takes the whole desired set of this node and a [`PeerSet`]; a manager keeps one session actor per peer.
//! Every session compares the snapshot that it last sent with the newest one and sends what changed for its peer; the
//! snapshot is all that is remembered per route. A peer that is slow, dead or hostile delays nobody but itself.
#![deny(unsafe_code)]

mod announcer;
mod dial;
mod discovery;
mod info;
mod kernel;
mod link;
mod listen;
mod manager;
mod next_hop;
mod preview;
mod resolve;
pub mod router;
mod session;
mod sockopt;
mod support;

pub use announcer::{BgpAnnouncer, PeerSet, RESTART_TIME_S, Tuning};
pub use dial::{Control, Dial, DialTo, Link, Stream, TcpDial};
pub use ferrocast_bfd::SessionInfo as BfdInfo;
pub use info::{Counts, SentRoute, SessionInfo};
pub use kernel::Kernel;
pub use preview::{Preview, Told, resets};
pub use support::support;
