//! Write a plugin for Ferrocast in Rust: an `impl Announcer`, and one line of `main`.
//!
//! ```no_run
//! # use std::{process::ExitCode, sync::Arc};
//! # use ferrocast_plugin_sdk::{Announcer, Supervisor};
//! # fn start(_: &mut Supervisor) -> Arc<dyn Announcer> { unimplemented!() }
//! fn main() -> ExitCode {
//!     ferrocast_plugin_sdk::run(start)
//! }
//! ```
//!
//! The announcer is told the whole set that this node should announce whenever it changes, as if it were in the speaker's own
//! process: how [`Announcer`] says. What is between the two (the socket, the protocol, differences, versions, a speaker that
//! restarts) is dealt with here. A plugin needs no other crate of Ferrocast: the types of the contract are in [`announce`], what its own
//! tasks are made of in [`actor`].
mod keeper;
mod local;
mod run;
mod serve;
mod socket;

pub use async_trait::async_trait;
pub use ferrocast_core::{actor, actor::Supervisor, announce, announce::Announcer};
pub use run::{PluginArgs, run, run_with};
pub use serve::{Options, ServeError, serve};
pub use socket::{SocketError, listen};
