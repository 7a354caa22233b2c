//! The heart of Ferrocast: domain model, address allocation, announcement decisions, the [`announce::Announcer`] trait and
//! the actor runtime.
//!
//! Nothing here knows Kubernetes' client, a socket or the wall clock: what decides is a pure function that takes `now` as an
//! argument, and what acts is an [`actor::Actor`] that lives in another crate.
#![forbid(unsafe_code)]

pub mod actor;
pub mod alloc;
pub mod announce;
pub mod config;
pub mod decide;
pub mod model;
pub mod pacer;
pub mod registry;
pub mod view;
