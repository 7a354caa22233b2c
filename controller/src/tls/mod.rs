//! TLS: certificates of our own making, kept in a Secret, and a listener that serves the newest of them.
pub mod authority;
pub mod bounded;
pub mod keeper;
pub mod listener;
