//! BGP-4 without I/O: wire codec and session state machine.
//!
//! No socket, no clock, no task, no log: octets, events and the time go in; messages, actions and deadlines come out. What
//! the library sends is what an originator needs (it announces, it imports nothing); what it receives beyond that is checked
//! and counted. [`tools`] decodes whole UPDATEs for receivers that do want the routes: the sandbox's router, tests, benches.
#![forbid(unsafe_code)]

mod family;
pub mod fsm;
pub mod tools;
pub mod wire;

pub use family::{Families, Family};
