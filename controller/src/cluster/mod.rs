//! Everything that talks to the API server: watching, converting, writing, leading.
pub mod client;
pub mod configurator;
pub mod convert;
pub mod events;
pub mod feeds;
pub mod lean;
pub mod lease;
pub mod resources;
pub mod speaker;
pub mod status;
pub mod watch;
