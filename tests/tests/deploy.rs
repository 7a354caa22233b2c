//! `deploy/` holds what the product prints.

use std::fs;
use std::process::Command;

use ferrocast_tests::{ferrocast::binary, kube::in_repository, process::run};

#[test]
fn shipped_definitions_are_what_the_binary_prints() {
    let shipped = fs::read_to_string(in_repository("deploy/crds/metallb.io.yaml")).unwrap();
    let printed = run(Command::new(binary().unwrap()).arg("crds")).unwrap();
    assert!(shipped == printed, "run: ferrocast crds > deploy/crds/metallb.io.yaml");
}
