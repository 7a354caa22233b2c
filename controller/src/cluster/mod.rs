//! Everything that talks to the API server: watching, converting, writing, leading.
pub mod client;
pub mod conditions;
pub mod configuration_state;
pub mod configurator;
pub mod convert;
pub mod events;
pub mod feeds;
pub mod lean;
pub mod lease;
pub mod memory_status;
pub mod metallb;
pub mod pool_status;
pub mod resources;
mod rounds;
pub mod service_status;
pub mod speaker;
pub mod status;
pub mod watch;
