//! What the roles are composed of, and how they start and stop.
pub mod controller;
mod documents;
mod ending;
mod parts;
mod sessions;
pub mod speaker;
