//! The validating admission webhook: what would be wrong is refused before it is stored.
//!
//! Everything it refuses is handled at run time as well, so Ferrocast works without it, and while it cannot be reached.
pub mod review;
pub mod server;
