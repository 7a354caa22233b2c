//! Every target over its corpus, and over a fixed number of inputs made from it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::{collections::BTreeMap, fs, path::Path};

use ferrocast_fuzz::{
    TARGETS, Target,
    mutate::{Random, mutate},
};

/// Inputs made from the corpus, for each target: some seconds of an unoptimised build.
const INPUTS: usize = 300_000;
/// Where the random numbers start; `FERROCAST_SEED` is another.
const SEED: u64 = 0xf022_0000_0000_0001;

fn corpus(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).unwrap()
}

/// Prints the input if the target panics with it.
struct Running<'a>(&'a [u8]);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with the input {:02x?}", self.0);
        }
    }
}

fn run(name: &str) {
    let target = target(name);
    let corpus: Vec<_> = corpus(&target).into_values().collect();
    assert!(corpus.len() > 10, "{} files in the corpus", corpus.len());
    let seed = std::env::var("FERROCAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    eprintln!("FERROCAST_SEED={seed}");
    let mut random = Random::new(seed);
    let made = (0..INPUTS).map(|_| mutate(&corpus, &mut random));
    for input in corpus.iter().cloned().chain(made) {
        let running = Running(&input);
        (target.run)(running.0);
    }
}

#[test]
fn wire_holds_for_the_corpus_and_what_is_made_from_it() {
    run("wire");
}

#[test]
fn fsm_holds_for_the_corpus_and_what_is_made_from_it() {
    run("fsm");
}

#[test]
fn bfd_holds_for_the_corpus_and_what_is_made_from_it() {
    run("bfd");
}

#[test]
fn corpus_has_every_seed() {
    for target in TARGETS {
        let corpus = corpus(&target);
        for (name, octets) in (target.seeds)() {
            assert_eq!(corpus.get(&name), Some(&octets), "{}/{name}: run the example `seeds`", target.name);
        }
    }
}
