//! `deploy/` holds what the product prints.

use std::fs;
use std::process::Command;

use ferrocast_tests::{ferrocast::binary, kube::in_repository, process::run};

#[test]
fn shipped_definitions_are_what_the_binary_prints() {
    for group in ["metallb.io", "ferrocast.io"] {
        let shipped = fs::read_to_string(in_repository(&format!("deploy/crds/{group}.yaml"))).unwrap();
        let printed = run(Command::new(binary().unwrap()).args(["crds", "--group", group])).unwrap();
        assert!(shipped == printed, "run: ferrocast crds --group {group} > deploy/crds/{group}.yaml");
    }
}
