//! Generates client, server and messages from the protocol's text; `protoc` is not needed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "proto/ferrocast/announcer/v1alpha1/announcer.proto";
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile([file], ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
