//! What must hold whatever a peer sends, as plain functions of any octets. They panic when it does not hold.
//!
//! One module and one folder of `corpus/` per target. `tests/corpus.rs` runs them over the corpus and a fixed number of
//! inputs made from it, with stable Rust; `run` hands them to cargo-fuzz (`long/`). To add a target: a module here with
//! `run` and `seeds`, a line in [`TARGETS`], a file in `long/fuzz_targets` and its `[[bin]]`, and the corpus
//! (`cargo run -p ferrocast-fuzz --example seeds`).
pub mod bfd;
pub mod fsm;
pub mod mutate;
pub mod wire;

/// One target.
pub struct Target {
    /// Its name, and that of its folder.
    pub name: &'static str,
    /// Panics if something does not hold for these octets.
    pub run: fn(&[u8]),
    /// What the corpus is made of, each with a file name: always the same.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
}

/// Every target.
pub const TARGETS: [Target; 3] = [
    Target { name: "wire", run: wire::run, seeds: wire::seeds },
    Target { name: "fsm", run: fsm::run, seeds: fsm::seeds },
    Target { name: "bfd", run: bfd::run, seeds: bfd::seeds },
];
