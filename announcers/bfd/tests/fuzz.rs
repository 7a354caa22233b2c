//! The fuzz target of BFD over its corpus, and over a fixed number of generated inputs.
#[path = "../../../tests/fuzz/src/bfd.rs"]
#[expect(unreachable_pub, reason = "a module of the fuzz targets' crate")]
mod bfd;

use std::{fs, path::Path};

use proptest::prelude::*;

#[test]
fn corpus_holds_and_has_every_seed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/bfd");
    // Written anew when asked for: FERROCAST_WRITE_SEEDS=1.
    if std::env::var_os("FERROCAST_WRITE_SEEDS").is_some() {
        for (name, octets) in bfd::seeds() {
            fs::write(corpus.join(name), octets).unwrap();
        }
    }
    for (name, octets) in bfd::seeds() {
        assert_eq!(fs::read(corpus.join(&name)).ok(), Some(octets), "{name}");
    }
    for entry in fs::read_dir(&corpus).unwrap() {
        let seed = entry.unwrap().path();
        println!("{}", seed.display()); // shown for the one that fails
        bfd::run(&fs::read(&seed).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn generated_inputs_hold(data in prop::collection::vec(any::<u8>(), 0..512)) {
        bfd::run(&data);
    }
}
