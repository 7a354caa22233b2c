//! The examples keep the contract.
use std::{path::Path, process::Command};

/// Debian's Python: its packages are not seen by another one on the path.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn webhook_passes_against_a_server_that_fails_delays_and_loses_answers() {
    let has = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !has(Command::new(PYTHON).args(["-c", "import grpc, google.protobuf"]))
        || !has(Command::new("protoc").arg("--version"))
    {
        println!("skipped: needs python3-grpcio, python3-protobuf and protobuf-compiler");
        return;
    }
    let test = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/webhook/test.py");
    let output = Command::new(PYTHON).arg("-B").arg(test).arg(env!("CARGO_BIN_EXE_ferrocast-conformance")).output();
    let output = output.expect("python is there: it was asked above");
    let words = [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned());
    assert!(output.status.success(), "{}", words.join("\n"));
}
