//! An announcer that speaks to a plugin outside of this process.
