//! The configuration in force, kept in ConfigMaps by the leader and read by everybody: nodes agree, a restart changes nothing.
pub mod parts;
pub mod store;
